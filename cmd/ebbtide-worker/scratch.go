package main

import (
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/ebbtide-dev/ebbtide/worker"
)

func scratchLimitFlags(flags *pflag.FlagSet, limit *worker.ScratchLimit) {
	flags.Int64Var(&limit.Bytes, "scratch-max-bytes", 16<<30, "limit of a command's temporary folders in bytes; a command over it is killed and fails; 0: no limit")
	flags.IntVar(&limit.Files, "scratch-max-files", 1_000_000, "limit of files and folders there; 0: no limit")
}

// sharedFolders belong to a container's commands alone only in a container.
var sharedFolders = []string{"/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run"}

// ownScratch are the folders that may be emptied by a process with an id, and those that may not: who is not the first process of a
// container, but started by hand say, shares the machine's /tmp with others.
func ownScratch(pid int, folders []string) (own, shared []string) {
	for _, folder := range folders {
		if pid != 1 && slices.Contains(sharedFolders, filepath.Clean(folder)) {
			shared = append(shared, folder)
		} else {
			own = append(own, folder)
		}
	}
	return own, shared
}

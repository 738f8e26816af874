package child

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// System V shared memory, message queues and semaphores outlive the process that made them. What a command leaves of these takes the container's
// memory, and the next command could read it. The containers of a pod have them in common: only what processes of this container have made or used is
// removed, which the kernel tells by a number that is 0 for processes of others.

// ipcKind is a kind of these objects.
type ipcKind struct {
	// file of /proc/sysvipc lists them, with a line of headings. Process columns hold ids of processes; without any, those who used it are asked for.
	file    string
	id      string
	process []string
	remove  func(id uintptr) unix.Errno
}

const (
	ipcRemove  = 0
	semGetPID  = 11
	ipcFolder  = "/proc/sysvipc/"
	semaphores = "nsems"
)

var ipcKinds = []ipcKind{
	{"shm", "shmid", []string{"cpid", "lpid"}, func(id uintptr) unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_SHMCTL, id, ipcRemove, 0)
		return errno
	}},
	{"msg", "msqid", []string{"lspid", "lrpid"}, func(id uintptr) unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_MSGCTL, id, ipcRemove, 0)
		return errno
	}},
	{"sem", "semid", nil, func(id uintptr) unix.Errno {
		_, _, errno := unix.Syscall6(unix.SYS_SEMCTL, id, 0, ipcRemove, 0, 0, 0)
		return errno
	}},
}

// removeIPC removes what commands left. In a process that is not the first of a container it removes nothing: others may use them.
func removeIPC() error {
	if os.Getpid() != 1 {
		return nil
	}
	var errs []error
	for _, kind := range ipcKinds {
		text, err := os.ReadFile(ipcFolder + kind.file)
		if err != nil {
			continue // the kernel has none
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		headings := strings.Fields(lines[0])
		for _, line := range lines[1:] {
			object := map[string]int{}
			for i, field := range strings.Fields(line) {
				if i < len(headings) {
					object[headings[i]], _ = strconv.Atoi(field) // perms are octal, and of no use here
				}
			}
			id := uintptr(object[kind.id])
			if !kind.ours(id, object) {
				continue
			}
			if errno := kind.remove(id); errno != 0 && errno != unix.EINVAL && errno != unix.EIDRM {
				errs = append(errs, fmt.Errorf("%w: a System V object can't be removed (%s %d): %w", ErrLeft, kind.file, id, errno))
			}
		}
	}
	return errors.Join(errs...)
}

// ours reports whether a process of this container has made or used an object.
func (k ipcKind) ours(id uintptr, object map[string]int) bool {
	for _, column := range k.process {
		if object[column] != 0 {
			return true
		}
	}
	for n := range object[semaphores] {
		if pid, _, errno := unix.Syscall6(unix.SYS_SEMCTL, id, uintptr(n), semGetPID, 0, 0, 0); errno == 0 && pid != 0 {
			return true
		}
	}
	return false
}

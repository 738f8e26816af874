package child

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is a memory cgroup. The kernel counts there which processes it killed when memory ran out.
type Memory struct {
	// events has a line "oom_kill N", limit is the number of bytes.
	events, limit string
}

// OwnMemory is this process's, in which its commands run too.
func OwnMemory() Memory {
	self, _ := os.ReadFile("/proc/self/cgroup") // without it there is nothing to tell
	return ownMemory("/sys/fs/cgroup", string(self))
}

// ownMemory finds the cgroup; empty when there is none to read. Root is where cgroups are mounted, self the text of /proc/self/cgroup.
func ownMemory(root, self string) Memory {
	for line := range strings.Lines(self) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		var folder, events, limit string
		switch controllers {
		case "":
			folder, events, limit = root, "memory.events", "memory.max"
		case "memory":
			folder, events, limit = filepath.Join(root, "memory"), "memory.oom_control", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be the host's, and the container's own cgroup is what is mounted.
		for _, folder := range []string{filepath.Join(folder, path), folder} {
			m := Memory{events: filepath.Join(folder, events), limit: filepath.Join(folder, limit)}
			if m.Kills() >= 0 {
				return m
			}
		}
	}
	return Memory{}
}

// Kills is how many processes were killed because memory ran out; -1 when nobody counts.
func (m Memory) Kills() int {
	text, err := os.ReadFile(m.events)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(count)); err == nil {
				return n
			}
		}
	}
	return -1
}

// Reason of a kill, with the limit where it is known.
func (m Memory) Reason() string {
	text, err := os.ReadFile(m.limit)
	if err == nil {
		if bytes, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return fmt.Sprintf("out of memory: the kernel killed the command at the container's limit of %d MiB", bytes>>20)
		}
	}
	return "out of memory: the kernel killed the command"
}

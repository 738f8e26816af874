package child

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLeft is wrapped by errors that say that something of a command is left: a process that can't be ended. Whoever runs commands of
// different owners must not run another one then.
var ErrLeft = errors.New("something of the command is left")

// Reaper ends and reaps what commands leave behind: daemons, double forks, processes in sessions of their own. It takes every descendant
// of this process for the command's, so there is at most one of it, in a process that runs nothing else.
type Reaper struct {
	mu sync.Mutex // held by the boundary that runs
}

// NewReaper makes this process the parent of all orphans below it, as process 1 of a container is anyway.
func NewReaper() (*Reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of what commands leave behind: %w", err)
	}
	return &Reaper{}, nil
}

// sweep ends all descendants. The kernel's word that there is no child is what ends it, not that none was found.
func (r *Reaper) sweep(within time.Duration) error {
	stopped := map[int]bool{}
	for deadline := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if reapAll() {
			return nil
		}
		left, err := descendants(os.Getpid())
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %d processes can't be ended within %s", ErrLeft, len(left), within)
		}
		// Those that fork as fast as they are killed are stopped first, until no new one is seen.
		fresh := false
		for _, p := range left {
			if !stopped[p.pid] {
				fresh, stopped[p.pid] = true, true
				_ = unix.Kill(p.pid, unix.SIGSTOP) // it may have ended
			}
		}
		if fresh && len(left) > 1 {
			continue
		}
		for _, p := range left {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
}

// reapAll reaps every child that has ended, and reports whether there is none any more.
func reapAll() (childless bool) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return errors.Is(err, unix.ECHILD)
		case pid == 0:
			return false
		}
	}
}

// reapOrphans reaps children that have ended, except the command, which is reaped elsewhere.
func (r *Reaper) reapOrphans(command int) {
	left, err := descendants(os.Getpid())
	if err != nil {
		return // the sweep says so
	}
	for _, p := range left {
		if p.parent == os.Getpid() && p.state == 'Z' && p.pid != command {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG|unix.WALL, nil) // its other threads may still run
		}
	}
}

type process struct {
	pid, parent int
	state       byte
}

// descendants are the processes below one, in no order.
func descendants(root int) ([]process, error) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	var all, below []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		p, ok := parseStat(text)
		if !ok {
			continue
		}
		p.pid = pid
		parents[pid] = p.parent
		all = append(all, p)
	}
	for _, p := range all {
		// A process that was reaped during the walk may make a circle of reused ids: no way up is longer than all of them.
		for at, steps := p.parent, 0; at != 0 && steps <= len(all); at, steps = parents[at], steps+1 {
			if at == root {
				below = append(below, p)
				break
			}
		}
	}
	return below, nil
}

// IsDescendant reports whether a process is below this one, or has ended: then it may have been. 0 is a process that this one can't see.
func IsDescendant(pid int) bool {
	if pid == 0 {
		return false
	}
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	below, err := descendants(os.Getpid())
	return err != nil || slices.ContainsFunc(below, func(p process) bool { return p.pid == pid })
}

// parseStat reads /proc/PID/stat: PID (NAME) STATE PARENT ... The process chooses its name, parentheses and line ends included.
func parseStat(text []byte) (p process, ok bool) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return p, false
	}
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 2 {
		return p, false
	}
	var err error
	p.state = fields[0][0]
	p.parent, err = strconv.Atoi(string(fields[1]))
	return p, err == nil
}

// Unlinked are the files that descendants hold open and nobody finds any more, as far as the descendants let others see that. A file may be there
// several times. A nil Reaper knows of none.
func (r *Reaper) Unlinked() (files []os.FileInfo) {
	if r == nil {
		return nil
	}
	below, err := descendants(os.Getpid())
	if err != nil {
		return nil
	}
	for _, p := range below {
		folder := fmt.Sprintf("/proc/%d/fd", p.pid)
		open, err := os.ReadDir(folder)
		if err != nil {
			continue // it has ended, or hides
		}
		for _, entry := range open {
			info, err := os.Stat(folder + "/" + entry.Name())
			if err == nil && info.Mode().IsRegular() && info.Sys().(*syscall.Stat_t).Nlink == 0 {
				files = append(files, info)
			}
		}
	}
	return files
}

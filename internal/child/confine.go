package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confinement is what the kernel keeps from a command and everything that it starts. It takes no privilege, and lets the command gain none.
//
// All of it keeps them from what outlives them (see refuseSystemCalls), and root from the capabilities to look into processes. Where the kernel has
// Landlock, it keeps them from tracing processes outside (so /proc/PID/environ, mem and fd of the worker can't be read, whatever the user), from
// signalling them (Linux 6.12), and from the abstract sockets of other containers in the pod.
type Confinement struct {
	// Hidden files can't be read: those with credentials. It takes Landlock.
	Hidden []string
	// Writable are the only folders that can be written to, besides devices. Nil: wherever permissions allow. It takes Landlock.
	Writable []string
}

// capabilities that a command of root does not have. With them it looks into every process and the kernel, mounts, or leaves files that its worker can't
// remove.
var capabilities = []uintptr{
	unix.CAP_SYS_PTRACE, unix.CAP_PERFMON, unix.CAP_BPF, unix.CAP_SYS_ADMIN, unix.CAP_CHECKPOINT_RESTORE, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO,
	unix.CAP_LINUX_IMMUTABLE,
}

// minimumLandlock is the first version that lets files be renamed between folders (Linux 5.19).
const minimumLandlock = 2

const (
	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	// landlockFile are the rights that a rule for a file, and not a folder, may have.
	landlockFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// CanConfine returns nil if the kernel has Landlock.
func CanConfine() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("the kernel has no Landlock: %w", errno)
	}
	if version < minimumLandlock {
		return fmt.Errorf("the kernel has version %d of Landlock: it takes %d (Linux 5.19)", version, minimumLandlock)
	}
	return nil
}

// apply confines the calling thread, for good. A nil confinement does nothing.
func (c *Confinement) apply() error {
	if c == nil {
		return nil
	}
	err := restrict()
	if can := CanConfine(); err == nil && can == nil {
		err = c.landlock()
	} else if err == nil && (len(c.Hidden) > 0 || c.Writable != nil) {
		err = can
	}
	if err != nil {
		return fmt.Errorf("confine the command: %w", err)
	}
	return nil
}

// restrict does what every kernel can.
func restrict() error {
	for _, capability := range capabilities {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0) // who may not drop them has none
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := refuseSystemCalls(); err != nil && !errors.Is(err, unix.EINVAL) { // a kernel without seccomp
		return fmt.Errorf("refuse system calls: %w", err)
	}
	return nil
}

func (c *Confinement) landlock() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return errno
	}
	write := uint64(landlockWrite)
	if version >= 3 {
		write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	// Moving between folders is forbidden unless it is mentioned and allowed; block devices nobody needs.
	rules := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK}
	if version >= 6 {
		rules.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	if len(c.Hidden) > 0 {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_READ_FILE
	}
	if c.Writable != nil {
		rules.Handled_access_fs |= write
	}
	// Older kernels take the parts that they don't know if they are zero.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules), 0)
	if errno != 0 {
		return errno
	}
	defer func() { _ = unix.Close(int(fd)) }()
	if err := c.allow(int(fd), write); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func (c *Confinement) allow(rules int, write uint64) error {
	if err := landlockAllow(rules, "/", unix.LANDLOCK_ACCESS_FS_REFER); err != nil {
		return err
	}
	if c.Writable != nil {
		for _, path := range append([]string{"/dev", "/proc"}, c.Writable...) {
			if err := landlockAllow(rules, path, write); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	if len(c.Hidden) == 0 {
		return nil
	}
	hidden := map[string]bool{}
	for _, path := range c.Hidden {
		// A mounted Secret is a link to a file of a folder that is changed as a whole.
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		if real, err = filepath.Abs(real); err != nil {
			return err
		}
		hidden[real] = true
	}
	return allowReading(rules, "/", hidden)
}

// allowReading allows to read everything in a folder but what is hidden. Landlock can allow only, so the folders on the way to a hidden
// file are opened up entry by entry; what appears in one of them later can't be read.
func allowReading(rules int, folder string, hidden map[string]bool) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		onTheWay := false
		for name := range hidden {
			onTheWay = onTheWay || strings.HasPrefix(name, path+"/")
		}
		switch {
		case hidden[path] || entry.Type()&os.ModeSymlink != 0: // a link has no rights of its own
		case onTheWay:
			err = allowReading(rules, path, hidden)
		default:
			err = landlockAllow(rules, path, unix.LANDLOCK_ACCESS_FS_READ_FILE)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// landlockAllow allows rights to what is at a path and below it.
func landlockAllow(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "allow", Path: path, Err: errno}
	}
	return nil
}

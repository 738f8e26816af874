package child

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What some system calls make outlives the process that made it, and no container has a place where it could be removed: keys in the keyrings of
// a user, which all containers of the node have in common, and POSIX message queues. Requests that were given to io_uring may be carried out after the
// end of their process. Commands do not have these: programs that can use them do without where the kernel has none.

// machine is a kind of system calls that a processor has.
type machine struct {
	arch    uint32
	refused []uint32
}

// machines by GOARCH. The second one is that of 32-bit programs.
var machines = map[string][]machine{
	"amd64": {
		{unix.AUDIT_ARCH_X86_64, native},
		{unix.AUDIT_ARCH_I386, []uint32{286, 287, 288, 277, 278, 425, 426, 427}},
	},
	"arm64": {
		{unix.AUDIT_ARCH_AARCH64, native},
		{unix.AUDIT_ARCH_ARM, []uint32{309, 310, 311, 274, 275, 425, 426, 427}},
	},
}

// native are the numbers of this program's own system calls.
var native = []uint32{
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}

// x32Bit marks the system calls of a third kind that amd64 has, with the same numbers.
const x32Bit = 0x40000000

// Offsets in struct seccomp_data.
const offsetNumber, offsetArch = 0, 4

// filter is the program that answers the refused ones with ENOSYS.
func filter(all []machine) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	end := func(with uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with} }
	const ifEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	var program []unix.SockFilter
	for _, m := range all {
		block := []unix.SockFilter{load(offsetNumber), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32Bit)}}
		for i, number := range m.refused {
			block = append(block, unix.SockFilter{Code: ifEqual, K: number, Jt: uint8(len(m.refused) - i)}) // over the rest and the end
		}
		block = append(block, end(unix.SECCOMP_RET_ALLOW), end(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
		program = append(program, load(offsetArch), unix.SockFilter{Code: ifEqual, K: m.arch, Jf: uint8(len(block))})
		program = append(program, block...)
	}
	return append(program, end(unix.SECCOMP_RET_ALLOW))
}

// refuseSystemCalls keeps them from the calling thread, for good, and from what it starts. It may gain no privileges any more before.
func refuseSystemCalls() error {
	all := machines[runtime.GOARCH]
	if len(all) == 0 {
		return nil
	}
	program := filter(all)
	rules := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&rules)), 0, 0)
	runtime.KeepAlive(program)
	return err
}

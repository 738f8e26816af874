// Package proc runs the parts of a local cluster as child processes that can't outlive their parent.
//
// A Group owns its children: each has a log file, a readiness check with a deadline, and is stopped in the reverse
// order of its start. Three things together keep a child from being left behind, whatever ends the parent: every child
// leads a process group that Stop signals as a whole, every child has a parent-death signal, and Contain puts a whole
// program into a PID namespace whose end the kernel turns into the end of everything in it.
package proc

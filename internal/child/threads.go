package child

import (
	"runtime"
	"sync"
)

// threadsReserved are threads beside those that run Go code: what waits in a system call has one.
const threadsReserved = 16

// ReserveThreads makes the Go runtime have threads to spare, which it never gives up. A runtime that needs one and can't make it ends the process, and
// a command may have started as many processes as its container, or its pod, may have.
func ReserveThreads() {
	var held sync.WaitGroup
	release := make(chan struct{})
	for range runtime.GOMAXPROCS(0) + threadsReserved {
		held.Add(1)
		go func() {
			runtime.LockOSThread() // while it is held a thread serves nobody else
			defer runtime.UnlockOSThread()
			held.Done()
			<-release
		}()
	}
	held.Wait()
	close(release)
}

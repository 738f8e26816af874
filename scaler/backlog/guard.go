package backlog

import (
	"fmt"
	"runtime/debug"
)

// Guard runs f, and turns a panic in it into an error: a fault in what serves one policy must not end the process that serves all.
// Every goroutine that works for a policy runs in it.
func (b SampleBounds) Guard(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			if b.OnPanic != nil {
				b.OnPanic(value, debug.Stack())
			}
			err = fmt.Errorf("a fault of the scaler itself, please report it: %v", value)
		}
	}()
	return f()
}

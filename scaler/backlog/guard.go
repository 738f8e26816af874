package backlog

import "fmt"

// Guard runs f, and turns a panic in it into an error: a fault in what serves one policy must not end the process that serves all.
// Every goroutine that works for a policy runs in it.
func (b SampleBounds) Guard(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			if b.OnPanic != nil {
				b.OnPanic(cause)
			}
			err = fmt.Errorf("a fault of the scaler itself, please report it: %v", cause)
		}
	}()
	return f()
}

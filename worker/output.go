package worker

import (
	"errors"
	"fmt"

	"github.com/ebbtide-dev/ebbtide/worker/results"
)

var errTooLarge = errors.New("the result is too large")

// TooLarge is the error of a queue that does not take a result of that many bytes.
func TooLarge(err error) error { return fmt.Errorf("%w: %w", errTooLarge, err) }

// content is what a command wrote: in memory, or in the store.
type content struct {
	inline            []byte
	reference, digest string // empty when inline
	size              int64
}

// output keeps what is written to it: in memory as long as it fits a message, in the store from then on.
type output struct {
	memory  []byte
	inline  int // bytes that memory may hold
	maximum int64
	store   results.Store // empty: there is none
	file    *results.File
	size    int64
	failure error
}

// Write implements io.Writer. Past the limit it fails, which ends a command that keeps writing.
func (o *output) Write(p []byte) (int, error) {
	if o.failure == nil {
		o.failure = o.write(p)
	}
	if o.failure != nil {
		return 0, o.failure
	}
	return len(p), nil
}

func (o *output) write(p []byte) error {
	o.size += int64(len(p))
	switch {
	case o.size > o.maximum:
		return fmt.Errorf("%w: more than %d bytes on standard output", errTooLarge, o.maximum)
	case o.size <= int64(o.inline):
		o.memory = append(o.memory, p...)
		return nil
	case o.store == "":
		return fmt.Errorf("%w for a message: more than %d bytes on standard output, and no result store is set", errTooLarge, o.inline)
	}
	if o.file == nil {
		if err := o.spill(); err != nil {
			return err
		}
	}
	if _, err := o.file.Write(p); err != nil {
		return fmt.Errorf("write the result to the store: %w", err)
	}
	return nil
}

// spill moves what there is from memory to a file.
func (o *output) spill() error {
	file, err := o.store.Create()
	if err == nil {
		o.file = file
		_, err = file.Write(o.memory)
		o.memory = nil
	}
	if err != nil {
		return fmt.Errorf("write the result to the store: %w", err)
	}
	return nil
}

// keep returns the content for good.
func (o *output) keep() (content, error) {
	if o.file == nil {
		return content{inline: o.memory, digest: results.Digest(o.memory), size: o.size}, nil
	}
	var c content
	var err error
	if c.reference, c.digest, c.size, err = o.file.Keep(); err != nil {
		return c, fmt.Errorf("write the result to the store: %w", err)
	}
	return c, nil
}

// discard removes what was written and not kept.
func (o *output) discard() {
	if o.file != nil {
		o.file.Discard()
	}
}

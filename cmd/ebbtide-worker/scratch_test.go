package main

import (
	"slices"
	"testing"
)

// A worker that somebody starts on a machine with the arguments of a container does not empty the machine's /tmp.
func TestOwnScratch(t *testing.T) {
	folders := []string{"/tmp", "/dev/shm/", "/scratch"}
	if own, shared := ownScratch(1, folders); !slices.Equal(own, folders) || len(shared) > 0 {
		t.Errorf("in a container %q, and not %q", own, shared)
	}
	if own, shared := ownScratch(4711, folders); !slices.Equal(own, []string{"/scratch"}) || len(shared) != 2 {
		t.Errorf("on a machine %q, and not %q", own, shared)
	}
}

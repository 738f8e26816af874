package main

import (
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/cobradoc"
	"github.com/ebbtide-dev/ebbtide/internal/doctable"
)

// The reference page is that of these flags.
func TestReference(t *testing.T) {
	doctable.CheckFile(t, "../../docs/reference/ebbtide-worker.md", cobradoc.Page(command(time.Time{}, nil)))
}

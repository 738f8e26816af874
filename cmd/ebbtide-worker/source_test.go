package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

// A command in a checkout finds the message in the file that its worker handed down, however often it reads it.
func TestMessageFileInCheckout(t *testing.T) {
	const inCheckout = "EBBTIDE_TEST_IN_CHECKOUT"
	if os.Getenv(inCheckout) != "" { // this process is the worker's command
		if err := runIn(t.Context(), &sourcestore.Checkout{Path: "."}, []string{"sh", "-c", "cat $EBBTIDE_MESSAGE_FILE $EBBTIDE_MESSAGE_FILE"}); err != nil {
			t.Fatal(err)
		}
		os.Exit(0) // without the lines of a test
	}
	path := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(path, []byte("order"), 0o600); err != nil {
		t.Fatal(err)
	}
	message, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer message.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMessageFileInCheckout$")
	cmd.Env = append(os.Environ(), inCheckout+"=1", "EBBTIDE_MESSAGE_FILE="+worker.MessageFile)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{message}, io.Discard
	if out, err := cmd.Output(); err != nil || string(out) != "orderorder" {
		t.Errorf("the command read %q, %v; want the message twice", out, err)
	}
}

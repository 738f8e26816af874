package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
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

// A command whose checkout is gone asks for another attempt, however it ended.
func TestCheckoutLost(t *testing.T) {
	repository, store := t.TempDir(), t.TempDir()
	for _, args := range [][]string{{"init", "--quiet"}, {"commit", "--quiet", "--allow-empty", "-m", "one"}} {
		if _, err := gitserver.Git(repository, args...); err != nil {
			t.Fatal(err)
		}
	}
	for script, want := range map[string]error{
		"exit 0":               nil,
		"exit 3":               commandEnd(3),
		`rm -r "$0"/*`:         sourcestore.ErrUnavailable,
		`rm -r "$0"/*; exit 3`: sourcestore.ErrUnavailable,
		// Somebody has begun to.
		`rm -r "$0"/checkouts`: sourcestore.ErrUnavailable,
		`rm -r "$0"/locks`:     sourcestore.ErrUnavailable,
		`rm -r "$0"/mirrors`:   sourcestore.ErrUnavailable,
	} {
		cmd := command(time.Now(), nil)
		cmd.SetArgs([]string{
			"source", "get", "--store", store, "--protocols", "file", "--repository", "file://" + repository, "--", "sh", "-c", script, store,
		})
		if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", script, err, want)
		}
	}
}

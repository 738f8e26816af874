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

// A folder of the scanned repository that looks like a repository of its own has no git obey its configuration.
func TestRepositoryInCheckout(t *testing.T) {
	repository, store := t.TempDir(), t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	mark := filepath.Join(t.TempDir(), "mark")
	for name, text := range map[string]string{
		"HEAD": "ref: refs/heads/main\n", "refs/x": "", "objects/x": "",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = ..\n\tfsmonitor = touch " + mark + " #\n",
	} {
		path := filepath.Join(repository, "folder", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}, {"commit", "--quiet", "-m", "one"}} {
		if _, err := gitserver.Git(repository, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, variables := range []map[string]string{{}, {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "scanner"}} {
		for name, value := range variables {
			t.Setenv(name, value)
		}
		cmd := command(time.Now(), nil)
		cmd.SetArgs([]string{
			"source", "get", "--store", store, "--protocols", "file", "--repository", "file://" + repository, "--", "sh", "-c",
			"git log --oneline >/dev/null && cd folder && ! git status 2>/dev/null && ! [ -e " + mark + ` ] && [ "$(git -C .. config user.name)" = "` + variables["GIT_CONFIG_VALUE_0"] + `" ]`,
		})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Errorf("with %v: %v", variables, err)
		}
	}
}

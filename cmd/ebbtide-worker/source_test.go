package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

func TestSource(t *testing.T) {
	root, clone, store := t.TempDir(), t.TempDir(), t.TempDir()
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "-b", "main", root + "/app.git"}, {"init", "--quiet", "-b", "main", clone},
		{"-C", clone, "commit", "--quiet", "--allow-empty", "-m", "first"}, {"-C", clone, "push", "--quiet", root + "/app.git", "main"},
	} {
		if _, err := gitserver.Git(root, args...); err != nil {
			t.Fatal(err)
		}
	}
	origin, err := gitserver.Start(root)
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Stop()
	origin.Password = "s3cr3t"
	run := func(ctx context.Context, out io.Writer, args ...string) error {
		cmd := command(time.Now())
		cmd.SetArgs(append([]string{"source"}, args...))
		cmd.SetOut(out)
		cmd.SetErr(io.Discard)
		return cmd.ExecuteContext(ctx)
	}
	get := func(args ...string) []string {
		return append([]string{"get", "--store", store, "--protocols", "http", "--max-age", "1h", "--repository", origin.URL + "/app.git"}, args...)
	}
	t.Setenv(sourcestore.TokenVariable, "s3cr3t")
	token := []string{"--token-for", origin.URL}
	said := filepath.Join(t.TempDir(), "said")
	script := func(text string) []string { return append(token, "--", "sh", "-c", text) }

	if err := run(t.Context(), io.Discard, get(script("pwd > "+said+"; echo $EBBTIDE_SOURCE [$EBBTIDE_GIT_TOKEN] >> "+said+"; git log --format=%s >> "+said)...)...); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(said)
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) != 4 || !strings.HasPrefix(lines[0], store) || lines[1] != lines[0]+" []" || lines[2] != "first" {
		t.Errorf("the command saw %q, %v", lines, err)
	}
	if _, err := os.Stat(lines[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the checkout is left: %v", err)
	}
	for text, want := range map[string]commandEnd{"exit 3": 3, "kill -9 $$": exitGivenBack} {
		var end commandEnd
		if err := run(t.Context(), io.Discard, get(script(text)...)...); !errors.As(err, &end) || end != want {
			t.Errorf("%s: error %v, want the end %d", text, err, want)
		}
	}
	away := get(token...)
	away[len(away)-3] = "http://127.0.0.1:1/app.git"
	if err := run(t.Context(), io.Discard, away...); !errors.Is(err, sourcestore.ErrUnavailable) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("an origin that is away: error %v", err)
	}
	if err := run(t.Context(), io.Discard, get()...); err == nil || !strings.Contains(err.Error(), "--token-for \"\": say for which URLs") {
		t.Errorf("error %v", err)
	}

	// With a lease the checkout stays until it is released.
	var out bytes.Buffer
	var made sourcestore.Checkout
	if err := errors.Join(run(t.Context(), &out, get(token...)...), json.Unmarshal(out.Bytes(), &made)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(made.Path); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), io.Discard, "release", "--store", store, made.Path); err != nil {
		t.Error(err)
	}
	// A sidecar holds it until SIGTERM.
	ctx, stop := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, writer, append(get(token...), "--hold")...) }()
	if err := json.NewDecoder(reader).Decode(&made); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(made.Path); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	out.Reset()
	var done sourcestore.Collected
	if err := errors.Join(run(t.Context(), &out, "gc", "--store", store, "--unused-for", "1ns"), json.Unmarshal(out.Bytes(), &done)); err != nil {
		t.Fatal(err)
	}
	// What the origin that is away has begun goes; the other is leased for hours, if by nobody any more.
	if done.Mirrors != 1 || done.Checkouts != 0 || done.Left != 1 || done.InUse != 1 || origin.Fetches() != 1 {
		t.Errorf("collected %+v after %d fetches", done, origin.Fetches())
	}
	if err := run(t.Context(), io.Discard, "gc", "--store", "/nowhere"); err == nil || !strings.Contains(err.Error(), `--store "/nowhere": is not a folder`) {
		t.Errorf("error %v", err)
	}
}

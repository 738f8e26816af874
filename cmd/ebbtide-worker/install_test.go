package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What is installed runs, also where it was installed before.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		cmd := command(time.Now(), nil)
		cmd.SetArgs([]string{"install", dir})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(filepath.Join(dir, "ebbtide-worker"), "-test.run=^$").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v; want the program alone", files, err)
	}
}

// e2e-hostile is a scanner whose source has taken it over. It attacks what is around it in the way that its message says, and prints what it
// got hold of: nothing, where all is well.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// attacks by their names. Each returns what it got.
var attacks = map[string]func() []string{
	"credentials": credentials,
	"store":       store,
	"impersonate": impersonate,
	"memory":      memory,
	"leave":       leave,
	"look":        look,
	"read":        read,
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "stay" {
		time.Sleep(time.Hour)
		return
	}
	message, err := io.ReadAll(os.Stdin)
	attack, ok := attacks[string(bytes.TrimSpace(message))]
	if err != nil || !ok {
		fmt.Fprintf(os.Stderr, "no attack %q, %v\n", message, err)
		os.Exit(65)
	}
	_ = json.NewEncoder(os.Stdout).Encode(struct {
		Got []string `json:"got"`
	}{attack()})
}

// marks of what no scan may see.
var marks = [][]byte{[]byte("amqp://"), []byte("EBBTIDE_GIT_TOKEN="), []byte("AMQP_URI=")}

func marked(text []byte) bool {
	return slices.ContainsFunc(marks, func(mark []byte) bool { return bytes.Contains(text, mark) })
}

// credentials looks for them in the environments, command lines and open files of all processes, and where Kubernetes puts tokens.
func credentials() (got []string) {
	for _, pattern := range []string{"/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline", "/proc/[0-9]*/fd/*", "/tmp/*", "/ebbtide*/*",
		"/var/run/secrets/*/*/*", "/run/secrets/*/*/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
				continue
			}
			text, err := os.ReadFile(path)
			if err == nil && (marked(text) || strings.Contains(path, "secrets")) {
				got = append(got, path)
			}
		}
	}
	return got
}

// store writes into the checkout, others' and the mirrors: what the git of the next scan would obey.
func store() (got []string) {
	source := os.Getenv("EBBTIDE_SOURCE")
	if source == "" {
		return []string{"no source"}
	}
	root := filepath.Join(source, "../../..")
	for _, pattern := range []string{source + "/.git/config", source + "/.git/hooks/post-checkout", root + "/mirrors/*/packed-refs", root + "/mirrors/*/config",
		root + "/checkouts/*/*/.git/config", root + "/locks/*.fetch", root + "/planted"} {
		paths, _ := filepath.Glob(pattern)
		if !strings.Contains(pattern, "*") {
			paths = []string{pattern}
		}
		for _, path := range paths {
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err == nil {
				file.Close()
				got = append(got, path)
			}
		}
	}
	return got
}

// impersonate looks for sockets of other containers, to listen in their place.
func impersonate() (got []string) {
	_ = filepath.WalkDir("/", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case path == "/proc" || path == "/sys" || path == "/dev":
			return fs.SkipDir
		case entry.Type()&fs.ModeSocket != 0 && path != "/ebbtide-engine/engine.sock":
			got = append(got, path)
		}
		return nil
	})
	for _, path := range []string{"/ebbtide-engines/two/engine.sock", "/ebbtide-engine/../two/engine.sock"} {
		if listener, err := net.Listen("unix", path); err == nil {
			listener.Close()
			got = append(got, path)
		}
	}
	return got
}

// memory takes all that there is.
func memory() (got []string) {
	var all [][]byte
	for {
		block := make([]byte, 16<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		all = append(all, block)
		if len(all) > 1<<12 {
			return []string{"64 GiB"}
		}
	}
}

const leftFile = "/tmp/left"

// leave leaves a process of a session of its own, which holds this one's output, and a file.
func leave() []string {
	cmd := exec.Command("/proc/self/exe", "stay")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return []string{err.Error()}
	}
	if err := os.WriteFile(leftFile, []byte("x"), 0o600); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// look looks for what was left.
func look() (got []string) {
	if _, err := os.Stat(leftFile); err == nil {
		got = append(got, leftFile)
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if text, err := os.ReadFile(line); err == nil && bytes.Contains(text, []byte("stay")) {
			got = append(got, line)
		}
	}
	return got
}

// read is what an honest scanner does: it reads the source.
func read() (got []string) {
	text, err := os.ReadFile(filepath.Join(os.Getenv("EBBTIDE_SOURCE"), "secret.env"))
	if err != nil {
		return []string{err.Error()}
	}
	return []string{string(text)}
}

// Package gitserver serves repositories over HTTP on the loopback by git's own http-backend, and counts what is asked of it.
package gitserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Server is an origin. Its fields may be set before the first request.
type Server struct {
	// Root holds the repositories, as bare ones.
	Root string
	// URL of Root.
	URL string
	// Password that is asked for, with any user; empty: none.
	Password string
	// Before is called at the start of each fetch; an error is the answer.
	Before func() error

	fetches, bytes atomic.Int64
	server         *http.Server
	done           sync.WaitGroup
}

// Start serves the repositories of a folder.
func Start(root string) (*Server, error) {
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Root: root, URL: "http://" + listener.Addr().String()}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=2",
			"GIT_CONFIG_KEY_0=uploadpack.allowFilter", "GIT_CONFIG_VALUE_0=true",
			"GIT_CONFIG_KEY_1=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_1=true",
		},
	}
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != s.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who is it?", http.StatusUnauthorized)
			return
		}
		if listsRefs(r) {
			s.fetches.Add(1)
		}
		// Every fetch begins with this request.
		if strings.HasSuffix(r.URL.Path, "/info/refs") && r.URL.Query().Get("service") == "git-upload-pack" {
			if s.Before != nil {
				if err := s.Before(); err != nil {
					http.Error(w, err.Error(), http.StatusServiceUnavailable)
					return
				}
			}
		}
		backend.ServeHTTP(counter{w, &s.bytes}, r)
	})}
	s.done.Go(func() { _ = s.server.Serve(listener) }) // until Stop
	return s, nil
}

// listsRefs reports whether a request asks for the refs of a repository, which every fetch does once: with the old protocol in its first
// request, else in one of its own.
func listsRefs(r *http.Request) bool {
	if r.Method == http.MethodGet {
		return r.Header.Get("Git-Protocol") != "version=2" && strings.HasSuffix(r.URL.Path, "/info/refs")
	}
	const shortest = 64 // of what begins a request's body
	start := make([]byte, shortest)
	n, _ := io.ReadFull(r.Body, start) // whoever reads the body next gets the same error
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start[:n]), r.Body), r.Body}
	return bytes.Contains(start[:n], []byte("command=ls-refs"))
}

// Fetches is how many were begun.
func (s *Server) Fetches() int64 { return s.fetches.Load() }

// Bytes is how many were sent.
func (s *Server) Bytes() int64 { return s.bytes.Load() }

// Stop ends the server.
func (s *Server) Stop() {
	_ = s.server.Close() // of the listener; there is nothing to do about it
	s.done.Wait()
}

type counter struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c counter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// Git runs git in a folder, with nobody's configuration.
func Git(folder string, args ...string) (string, error) { return run(folder, nil, args...) }

// FastImport makes commits in a repository from a stream in the form of git fast-import.
func FastImport(folder string, stream io.Reader) error {
	_, err := run(folder, stream, "fast-import", "--quiet")
	return err
}

// Bomb is a stream for FastImport: a tree of folders in folders, whose files are so many as the fan-out to the power of the depth. Branch
// level0 has the innermost folder, each level after it one around that.
func Bomb(depth, fan int, file string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "blob\nmark :1\ndata %d\n%s\n", len(file), file)
	s.WriteString("commit refs/heads/level0\nmark :100\ncommitter e2e <e2e@ebbtide.dev> 1700000000 +0000\ndata 1\nc\n")
	for i := range fan {
		fmt.Fprintf(&s, "M 644 :1 f%d\n", i)
	}
	for level := 1; level < depth; level++ {
		fmt.Fprintf(&s, "\ncommit refs/heads/level%d\nmark :%d\ncommitter e2e <e2e@ebbtide.dev> 1700000000 +0000\ndata 1\nc\n", level, 100+level)
		fmt.Fprintf(&s, "from :%d\nR \"\" d0\n", 99+level)
		for i := 1; i < fan; i++ {
			fmt.Fprintf(&s, "C d0 d%d\n", i)
		}
	}
	s.WriteString("\n")
	return s.String()
}

func run(folder string, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = folder, stdin
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=e2e", "GIT_AUTHOR_EMAIL=e2e@ebbtide.dev", "GIT_COMMITTER_NAME=e2e", "GIT_COMMITTER_EMAIL=e2e@ebbtide.dev")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

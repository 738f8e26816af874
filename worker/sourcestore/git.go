package sourcestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// TokenVariable is the environment variable that holds the password, or token, for repositories over HTTP.
const TokenVariable = "EBBTIDE_GIT_TOKEN"

// attributes override all that a repository says of its own files, which would hide them from scanners: what has no diff, what is checked
// out in another encoding, what a filter makes of it, what is left out of archives. In info/attributes they go before .gitattributes.
const attributes = "* !diff !text !eol !crlf !working-tree-encoding !encoding !filter !ident !export-ignore !export-subst !merge !delta !whitespace\n"

// gitConfig is the whole configuration of git in the store, and of a checkout: nothing of the repository's is run.
const gitConfig = `[core]
	repositoryformatversion = %d
	bare = %t
	symlinks = false
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	useReplaceRefs = false
	fsmonitor = false
[gc]
	auto = 0
`

// scratch is a repository of this process alone, with a mirror's objects. The volume has no file that tells git what to do, so that whoever
// may write to it can't have anything run here: configuration, attributes, hooks and refs are in a folder that this process has just made.
type scratch struct {
	mirror *mirror
	folder string
}

// scratch makes one. With a filter it is a partial clone of its origin, and git fetches by itself what it lacks.
func (m *mirror) scratch(filter string) (*scratch, error) {
	// What git obeys beside objects: that there are more elsewhere, another owner's say. None of ours writes it.
	for _, name := range []string{"alternates", "http-alternates"} {
		if err := removal.All(filepath.Join(m.path(), "objects", "info", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	folder, err := os.MkdirTemp("", "ebbtide-git-")
	if err != nil {
		return nil, fmt.Errorf("a folder for git: %w", err)
	}
	g := &scratch{m, folder}
	config := fmt.Sprintf(gitConfig, 0, true)
	if filter != "" {
		config = fmt.Sprintf(gitConfig, 1, true) + "[extensions]\n\tpartialClone = origin\n"
	}
	err = writeRepository(folder, map[string]string{"HEAD": "ref: refs/heads/none\n", "config": config, "info/attributes": attributes})
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *scratch) close() { _ = os.RemoveAll(g.folder) }

// writeRepository writes what makes a folder git's.
func writeRepository(folder string, files map[string]string) error {
	for _, name := range []string{"refs", "objects/info", "info"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o775); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o664); err != nil {
			return err
		}
	}
	return nil
}

// writeRefs gives a scratch repository refs.
func (g *scratch) writeRefs(all refs) error {
	file, err := os.Create(filepath.Join(g.folder, refsFile))
	if err != nil {
		return err
	}
	return errors.Join(all.write(file), file.Close())
}

// access is how git reaches an origin. The zero value reaches none.
type access struct {
	protocols   []string
	credentials Credentials
	origin      *url.URL
	filter      string
}

// variables that would lead git to another repository or configuration than ours, or hold what it gets in another way.
func foreign(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	switch name {
	case TokenVariable, "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
		"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_ATTR_SOURCE", "GIT_REPLACE_REF_BASE", "LANG", "LC_ALL":
		return true
	}
	return strings.HasPrefix(name, "GIT_CONFIG") || strings.HasPrefix(name, "GIT_TRACE")
}

// environment of git: nobody's configuration, no prompt, the credentials for where they are meant.
func (g *scratch) environment(own []string, to access, more ...string) []string {
	var env []string
	for _, variable := range own {
		if !foreign(variable) {
			env = append(env, variable)
		}
	}
	settings := [][2]string{
		{"gc.auto", "0"},              // objects that checkouts borrow are not pruned
		{"fetch.unpackLimit", "1"},    // one pack, not a file for each object
		{"maintenance.auto", "false"}, // nor is anything done in the background, after the lock
		{"core.fsync", "objects,reference"},
		{"core.commitGraph", "false"},    // whoever may write to the volume could say in one that a commit is another
		{"core.bigFileThreshold", "32m"}, // larger files are not held in memory
		{"core.autocrlf", "false"},
		{"safe.directory", "*"},           // the volume is written by pods that may have other users
		{"http.followRedirects", "false"}, // list has followed them, and bound the token to where they led
		{"http.lowSpeedLimit", "1000"},
		{"http.lowSpeedTime", "60"},
	}
	if to.origin != nil && to.credentials.apply(to.origin) {
		basic := base64.StdEncoding.EncodeToString([]byte(to.credentials.User + ":" + to.credentials.Token))
		settings = append(settings, [2]string{"http." + to.origin.String() + ".extraHeader", "Authorization: Basic " + basic})
	}
	if to.filter != "" {
		settings = append(settings, [][2]string{
			{"remote.origin.url", cmp.Or(to.url(), "file:///dev/null")}, {"remote.origin.promisor", "true"},
			{"remote.origin.partialclonefilter", to.filter},
		}...)
	}
	for i, setting := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, setting[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, setting[1]))
	}
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_ALLOW_PROTOCOL="+strings.Join(to.protocols, ":"), "LC_ALL=C",
		"GIT_DIR="+g.folder, "GIT_OBJECT_DIRECTORY="+filepath.Join(g.mirror.path(), "objects"))
	return append(env, more...)
}

func (a access) url() string {
	if a.origin == nil {
		return ""
	}
	return a.origin.String()
}

// gitError is what git said when it failed.
type gitError struct {
	command, said string
	cause         error
}

func (e *gitError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.cause)
	}
	return fmt.Sprintf("git %s: %s", e.command, e.said)
}

func (e *gitError) Unwrap() error { return e.cause }

// saidBytes is how much of what git says is kept of its end.
const saidBytes = 4 << 10

// gitCall is one run of git.
type gitCall struct {
	env   []string
	stdin io.Reader
	// held is a lock that is kept until git and all that it started have ended, even if this process has not lived to see that.
	held *lock
	// fileBytes bounds each file that git writes; 0 does not.
	fileBytes int64
	// out gets what git writes. An error of it ends git.
	out io.Writer
}

// git runs git.
func (s *Store) git(ctx context.Context, call gitCall, args ...string) error {
	cmd := exec.Command(s.Git, args...)
	stderr := &child.Tail{Limit: saidBytes}
	cmd.Env, cmd.Stdin, cmd.Stderr = call.env, call.stdin, stderr
	watched := &watchedWriter{Writer: call.out}
	if call.out != nil {
		cmd.Stdout = watched
	}
	if call.held != nil {
		cmd.ExtraFiles = []*os.File{call.held.file}
	}
	err := run(ctx, cmd, call.fileBytes)
	switch {
	case watched.err != nil:
		return watched.err
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w: the image needs git", err)
	case ctx.Err() != nil:
		return fmt.Errorf("git %s: %w", args[0], context.Cause(ctx))
	}
	return &gitError{args[0], strings.TrimSpace(stderr.String()), err}
}

// run runs a command whose files may be of a size at most. What it starts inherits that.
func run(ctx context.Context, cmd *exec.Cmd, fileBytes int64) error {
	ended, err := child.Start(cmd)
	if err != nil {
		return err
	}
	if fileBytes > 0 {
		// Git has to be loaded and to hear from its origin before it writes anything.
		limit := unix.Rlimit{Cur: uint64(fileBytes), Max: uint64(fileBytes)}
		err = unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			_ = child.Kill(cmd, ended)
			return fmt.Errorf("limit the size of git's files: %w", err)
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = child.Kill(cmd, ended) // that it was killed
		return context.Cause(ctx)
	}
}

// watchedWriter remembers why it failed, which a command's end does not tell.
type watchedWriter struct {
	io.Writer
	err error
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// records calls a function for each part of what is written to it that ends in a byte.
type records struct {
	end  byte
	each func(record []byte) error
	rest []byte
}

// Write implements io.Writer.
func (r *records) Write(p []byte) (int, error) {
	const longest = 1 << 20
	r.rest = append(r.rest, p...)
	for {
		i := bytes.IndexByte(r.rest, r.end)
		if i < 0 {
			break
		}
		if err := r.each(r.rest[:i]); err != nil {
			return 0, err
		}
		r.rest = r.rest[i+1:]
	}
	if len(r.rest) > longest {
		return 0, fmt.Errorf("a path or a name in the repository is longer than %d bytes", longest)
	}
	return len(p), nil
}

// removeLeftovers removes what a git that was killed left in a mirror: half a pack, half a list of refs. The caller has the fetch lock, so no
// git of ours writes there.
func removeLeftovers(mirror string) error {
	return filepath.WalkDir(mirror, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); !entry.IsDir() && (strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_")) {
			return os.Remove(path)
		}
		return nil
	})
}

// objectBytes is the size of a mirror's objects.
func objectBytes(mirror string) (total int64, err error) {
	err = eachObject(mirror, func(_ string, size int64) { total += size })
	return total, err
}

// overgrown reports whether a file that git has begun reached the size that it may have.
func overgrown(mirror string, limit int64) (reached bool, err error) {
	err = eachObject(mirror, func(name string, size int64) {
		reached = reached || strings.HasPrefix(name, "tmp_") && size >= limit
	})
	return reached, err
}

func eachObject(mirror string, each func(name string, size int64)) error {
	return filepath.WalkDir(filepath.Join(mirror, "objects"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			each(entry.Name(), info.Size())
		}
		return err
	})
}

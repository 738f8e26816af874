package sourcestore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// refs are what names of a repository stand for: object ids by the full names of refs. Branches that are created and deleted, and one whose name
// becomes another's folder, are no more than entries here: the whole is written at once, and git's own files of refs are not used.
type refs map[string]string

const (
	// headRef is where the commit of the origin's HEAD is kept, if it has one.
	headRef = "refs/ebbtide/HEAD"
	// refsFile of a mirror has git's form of packed refs.
	refsFile = "packed-refs"
	// refNameBytes is the longest name of a ref that is taken: longer ones fit into no file system.
	refNameBytes = 1 << 10
)

// wanted reports whether a mirror has a ref, and under which name.
func wanted(name string, patterns []string) (as string, ok bool) {
	if name == "HEAD" {
		return headRef, true
	}
	for _, pattern := range append([]string{"refs/heads/*", "refs/tags/*"}, patterns...) {
		prefix, suffix, glob := strings.Cut(pattern, "*")
		if name == pattern || glob && len(name) >= len(prefix)+len(suffix) && strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			return name, checkRefName(name)
		}
	}
	return "", false
}

// checkRefName reports whether git takes a name for that of a ref: see git check-ref-format.
func checkRefName(name string) bool {
	if len(name) > refNameBytes || !strings.HasPrefix(name, "refs/") || strings.Contains(name, "..") || strings.Contains(name, "@{") ||
		strings.HasSuffix(name, ".") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// checkRefPattern says what is wrong with a pattern of refs.
func checkRefPattern(pattern string) error {
	if strings.Count(pattern, "*") > 1 || !checkRefName(strings.Replace(pattern, "*", "x", 1)) {
		return fmt.Errorf("--refs %q: must be the full name of a ref, with one * at most: refs/pull/*/head", pattern)
	}
	return nil
}

// readRefs of a mirror; none where there is no mirror.
func (m *mirror) readRefs() (refs, error) {
	all := refs{}
	// Whoever may write to the volume may have put anything there, a pipe that nobody writes to as well.
	file, err := os.OpenFile(filepath.Join(m.path(), refsFile), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 2*refNameBytes)
	for skip := false; ; {
		line, partial, err := lines.ReadLine()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		// A line that is longer than any of a ref comes in parts.
		if id, name, ok := strings.Cut(string(line), " "); ok && !skip && !partial && isCommit(id) && checkRefName(name) {
			all[name] = id
		}
		skip = partial
	}
}

// writeRefs replaces the refs of a mirror, all at once.
func (m *mirror) writeRefs(all refs) error {
	file, err := os.CreateTemp(m.path(), "tmp_refs_")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // it is renamed, if all is well
	err = errors.Join(all.write(file), file.Chmod(0o664), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(m.path(), refsFile))
}

// write writes refs as git packs them.
func (r refs) write(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "# pack-refs with: sorted ")
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintln(w, r[name], name)
	}
	return w.Flush()
}

// public are those that a checkout has.
func (r refs) public() refs {
	some := refs{}
	for name, id := range r {
		if strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/") {
			some[name] = id
		}
	}
	return some
}

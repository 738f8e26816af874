package sourcestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
)

// write writes files of the clone, by their paths.
func (b *bench) write(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(b.clone, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// stream makes commits at the origin, in the form of git fast-import.
func (b *bench) stream(t *testing.T, text string) {
	t.Helper()
	if err := gitserver.FastImport(b.repository(), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) repository() string { return filepath.Join(b.origin.Root, "app.git") }

// refused wants a permanent error with a text, and that nothing of the request is left in the store.
func (b *bench) refused(t *testing.T, r Request, want string) {
	t.Helper()
	begin := time.Now()
	before := b.checkouts(t)
	_, err := b.store.Get(t.Context(), r)
	if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want a permanent one with %q", err, want)
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("it took %s", took)
	}
	if left := b.checkouts(t); len(left) > len(before) {
		t.Errorf("checkouts %q are left", left)
	}
}

func (b *bench) checkouts(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(b.store.Root, "checkouts/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Refs that git's own files of refs have no place for, or that take it minutes.
func TestRefs(t *testing.T) {
	cases := map[string]func(*testing.T, *bench){
		"a branch whose name becomes another's folder, and back": func(t *testing.T, b *bench) {
			for _, move := range [][]string{{"HEAD:refs/heads/feature"}, {":refs/heads/feature", "HEAD:refs/heads/feature/a"},
				{":refs/heads/feature/a", "HEAD:refs/heads/feature"}} {
				for _, refspec := range move {
					b.git(t, b.clone, "push", "--quiet", "origin", refspec)
				}
				name := strings.TrimPrefix(move[len(move)-1], "HEAD:refs/heads/")
				r := b.request()
				r.Revision = name
				c := b.get(t, r)
				if n, err := number(c); n != 1 || err != nil {
					t.Errorf("%s: %d, %v", name, n, err)
				}
				if got := b.git(t, c.Path, "for-each-ref", "--format=%(refname:short)", "refs/heads"); got != name+"\nmain" {
					t.Errorf("%s: the checkout has %q", name, got)
				}
			}
		},
		"a HEAD that names no branch": func(t *testing.T, b *bench) {
			b.git(t, b.repository(), "symbolic-ref", "HEAD", "refs/heads/gone")
			r := b.request()
			r.Revision = "main"
			if n, err := number(b.get(t, r)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			r.Revision = ""
			if _, err := b.store.Get(t.Context(), r); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has no default branch") {
				t.Errorf("error %v", err)
			}
			b.git(t, b.repository(), "symbolic-ref", "HEAD", "refs/heads/main")
			b.get(t, r)
		},
		"a repository without a commit": func(t *testing.T, b *bench) {
			b.git(t, b.origin.Root, "init", "--quiet", "--bare", "empty.git")
			r := b.request()
			r.Repository = b.origin.URL + "/empty.git"
			if _, err := b.store.Get(t.Context(), r); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has no default branch") {
				t.Errorf("error %v", err)
			}
		},
		"an annotated tag, and one of a tree": func(t *testing.T, b *bench) {
			b.git(t, b.clone, "tag", "-a", "-m", "one", "v1")
			b.git(t, b.clone, "tag", "tree", "HEAD^{tree}")
			b.git(t, b.clone, "push", "--quiet", "--tags", "origin")
			r := b.request()
			r.Revision = "v1"
			if c := b.get(t, r); c.Commit != b.git(t, b.clone, "rev-parse", "HEAD") {
				t.Errorf("commit %s", c.Commit)
			}
			r.Revision = "tree"
			b.refused(t, r, `has no "tree" among its branches and tags`)
		},
		"a history that is rewritten": func(t *testing.T, b *bench) {
			b.get(t, b.request())
			b.git(t, b.clone, "commit", "--quiet", "--amend", "-m", "another")
			b.git(t, b.clone, "push", "--quiet", "--force", "origin", "HEAD:main")
			if c := b.get(t, b.request()); c.Commit != b.git(t, b.clone, "rev-parse", "HEAD") {
				t.Errorf("commit %s", c.Commit)
			}
		},
		"50,000 of them": func(t *testing.T, b *bench) {
			b.manyRefs(t, 50_000)
			begin := time.Now()
			r := b.request()
			r.Revision = "b/49999"
			c := b.get(t, r)
			// git fetch took minutes, one file for each.
			if took := time.Since(begin); took > 2*time.Minute {
				t.Errorf("it took %s", took)
			}
			if got := len(strings.Fields(b.git(t, c.Path, "for-each-ref", "--format=x", "refs/heads"))); got != 50_001 {
				t.Errorf("the checkout has %d branches", got)
			}
			second := b.push(t, "2")
			if c := b.get(t, b.request()); c.Commit != second {
				t.Errorf("commit %s", c.Commit)
			}
			r.Limits.Refs, r.Revision = 50_000, "main"
			b.refused(t, r, "the repository has more than 50000 refs: split it, or raise --max-refs")
		},
		"names with what Unicode takes for spaces": func(t *testing.T, b *bench) {
			main := b.git(t, b.clone, "rev-parse", "HEAD")
			b.git(t, b.clone, "commit", "--quiet", "--allow-empty", "-m", "another's")
			other := b.git(t, b.clone, "rev-parse", "HEAD")
			b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:refs/heads/HEAD")
			names := []string{"refs/heads/HEAD", "main\u00a0x", "main\u0085x", "main\u2028", "main\u3000x"}
			for _, name := range names[1:] {
				b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:refs/heads/"+name)
			}
			old := b.proxied(t, func(_ http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Git-Protocol")
				return true
			})
			for _, repository := range []string{b.request().Repository, old.URL + "/app.git", "file://" + b.repository()} {
				r := b.request()
				r.Repository, r.Protocols = repository, []string{"http", "file"}
				if c := b.get(t, r); c.Commit != main {
					t.Errorf("%s: the default branch is at %s, want %s", repository, c.Commit, main)
				}
				for _, r.Revision = range []string{"main", "HEAD"} {
					if b.get(t, r).Commit != main {
						t.Errorf("%s: %s is another's", repository, r.Revision)
					}
				}
				for _, name := range names {
					if r.Revision = name; b.get(t, r).Commit != other {
						t.Errorf("%s: %q is not there", repository, name)
					}
				}
			}
		},
		"over SSH and as a file, as git lists them": func(t *testing.T, b *bench) {
			r := b.request()
			r.Repository, r.Protocols = "file://"+b.repository(), []string{"file"}
			if n, err := number(b.get(t, r)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			b.push(t, "2")
			b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:refs/heads/old")
			r.Revision = "old"
			if n, err := number(b.get(t, r)); n != 2 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			r.Limits.Refs = 1
			b.refused(t, r, "more than 1 refs")
			r.Repository += "x"
			b.refused(t, r, "no such repository")
		},
		"by the old protocol": func(t *testing.T, b *bench) {
			origin := b.proxied(t, func(_ http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Git-Protocol")
				return true
			})
			r := b.request()
			r.Repository = origin.URL + "/app.git"
			if n, err := number(b.get(t, r)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) { test(t, newBench(t)) })
	}
}

// manyRefs makes branches at the origin.
func (b *bench) manyRefs(t *testing.T, n int) {
	t.Helper()
	id := b.git(t, b.clone, "rev-parse", "HEAD")
	packed := strings.Builder{}
	for i := range n {
		fmt.Fprintf(&packed, "%s refs/heads/b/%d\n", id, i)
	}
	if err := os.WriteFile(filepath.Join(b.repository(), "packed-refs"), []byte(packed.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// proxied is a server before the origin that may answer in its place.
func (b *bench) proxied(t *testing.T, pass func(http.ResponseWriter, *http.Request) bool) *httptest.Server {
	t.Helper()
	to, err := url.Parse(b.origin.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pass(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// What a scan writes into the store, where the volume lets it, tells the git of the next one nothing.
func TestNothingOfTheVolumeIsObeyed(t *testing.T) {
	b := newBench(t)
	b.write(t, map[string]string{".gitattributes": "* filter=x diff=x\n"})
	b.push(t, "1")
	first := b.get(t, b.request())
	mark := filepath.Join(t.TempDir(), "mark")
	script := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$0 $*\" >>"+mark+"\ncat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(`[core]
	fsmonitor = RUN
	hooksPath = HOOKS
	sshCommand = RUN
	alternateRefsCommand = RUN
	gitProxy = RUN
	attributesFile = ATTRIBUTES
[filter "x"]
	smudge = RUN
	clean = RUN
	process = RUN
	required = true
[diff "x"]
	textconv = RUN
[credential]
	helper = RUN
[uploadpack]
	packObjectsHook = RUN
[gc]
	recentObjectsHook = RUN
`, "RUN", script)
	m := b.store.mirror(b.request().Repository, "", "")
	for _, folder := range []string{m.path(), filepath.Join(m.path(), ".git"), filepath.Join(first.Path, ".git"), filepath.Join(b.store.Root, ".git")} {
		for _, name := range []string{"config", "config.worktree", "HEAD", "info/attributes", "hooks/reference-transaction", "hooks/post-checkout", "refs/heads/x"} {
			path := filepath.Join(folder, name)
			text := map[string]string{"HEAD": "ref: refs/heads/main\n", "info/attributes": "* filter=x\n", "refs/heads/x": first.Commit + "\n"}[name]
			if strings.HasPrefix(name, "hooks/") {
				text = "#!/bin/sh\necho hook >>" + mark + "\n"
			}
			if strings.HasPrefix(name, "config") {
				text = strings.ReplaceAll(strings.ReplaceAll(config, "HOOKS", filepath.Join(folder, "hooks")), "ATTRIBUTES", filepath.Join(folder, "info/attributes"))
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o700)); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.push(t, "2")
	second := b.get(t, b.request())
	if n, err := number(second); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	r := b.request()
	r.Revision = first.Commit
	b.get(t, r)
	if err := errors.Join(first.Release(), second.Release()); err != nil {
		t.Error(err)
	}
	b.collect(t, Collection{})
	if text, err := os.ReadFile(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("was run: %s, %v", text, err)
	}
}

// mktree makes a tree that git itself would not.
func (b *bench) mktree(t *testing.T, entries string) string {
	t.Helper()
	cmd := exec.Command("git", "-C", b.clone, "mktree")
	cmd.Stdin = strings.NewReader(entries)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// Whatever is in the files of the volume, left by a disk that was full or by a scan that may write there, the next request has the repository.
func TestVolumeIsDamaged(t *testing.T) {
	other := strings.Repeat("0123456789", 500)
	for name, damage := range map[string]func(*testing.T, *bench, *mirror) error{
		"half a record of fetches": func(_ *testing.T, _ *bench, m *mirror) error {
			return os.WriteFile(m.lockPath("fetch"), []byte(`{"url":"http`), 0o660)
		},
		"records of another kind": func(_ *testing.T, _ *bench, m *mirror) error {
			return errors.Join(os.WriteFile(m.lockPath("fetch"), []byte(`{"completed":"x"}`), 0o660), os.WriteFile(m.lockPath("used"), []byte(`[1]`), 0o660))
		},
		"half a record of use": func(_ *testing.T, _ *bench, m *mirror) error {
			return os.WriteFile(m.lockPath("used"), []byte(`{"used":"20`), 0o660)
		},
		"records of nothing": func(_ *testing.T, _ *bench, m *mirror) error {
			return errors.Join(os.WriteFile(m.lockPath("fetch"), make([]byte, 4096), 0o660), os.WriteFile(m.lockPath("used"), make([]byte, 4096), 0o660))
		},
		"a line of refs without end": func(_ *testing.T, _ *bench, m *mirror) error {
			return appendTo(filepath.Join(m.path(), refsFile), strings.Repeat(other, 30)+"\n")
		},
		"refs that are none": func(t *testing.T, b *bench, m *mirror) error {
			id := b.git(t, b.clone, "rev-parse", "HEAD")
			return appendTo(filepath.Join(m.path(), refsFile), id+" ../../x\n"+id+" refs/heads/a b\n"+id+"  \n^"+id+"\n\xff\x00 refs/heads/x\n"+id+" refs/heads/x.lock\n# x\n\n")
		},
		"a pipe in place of the refs": func(_ *testing.T, _ *bench, m *mirror) error {
			path := filepath.Join(m.path(), refsFile)
			return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600))
		},
		"objects elsewhere": func(_ *testing.T, b *bench, m *mirror) error {
			path := filepath.Join(m.path(), "objects/info/alternates")
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(filepath.Join(b.repository(), "objects")+"\n"), 0o600))
		},
		"half a lease": func(_ *testing.T, b *bench, m *mirror) error {
			checkout := filepath.Join(b.store.Root, "checkouts", m.id, "left")
			return errors.Join(os.MkdirAll(checkout, 0o755), os.WriteFile(m.lockPath("left"), []byte(`{"leased`), 0o660))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if err := b.get(t, b.request()).Release(); err != nil {
				t.Fatal(err)
			}
			r := b.request()
			m := b.store.mirror(r.Repository, "", "")
			if err := damage(t, b, m); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 2 {
				c, err := b.store.Get(ctx, r)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := number(c); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				if branches := b.git(t, c.Path, "for-each-ref", "--format=%(refname)"); branches != "refs/heads/main" {
					t.Errorf("branches %q", branches)
				}
				if err := c.Release(); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Lstat(filepath.Join(m.path(), "objects/info/alternates")); err == nil {
				t.Error("there are objects elsewhere")
			}
			if _, err := b.store.Collect(ctx, Collection{}); err != nil {
				t.Error(err)
			}
			if left := b.checkouts(t); len(left) > 0 {
				t.Errorf("checkouts %q are left", left)
			}
		})
	}
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// A repository's attributes hide nothing from what scans its checkout.
func TestAttributes(t *testing.T) {
	b := newBench(t)
	const secret = "token = 0123456789abcdef $Id$ \n"
	files := map[string]string{
		".gitattributes": "[attr]hidden -diff -text\n*.env -diff\n*.bin binary\n*.mac hidden\n*.enc text working-tree-encoding=UTF-16LE\n*.crlf text eol=crlf\n" +
			"*.id ident\n*.old crlf=input -diff\n*.out export-ignore\n*.sub export-subst\n*.lfs filter=lfs diff=lfs merge=lfs -text\nsub export-ignore\n",
		"sub/.gitattributes": "* -diff working-tree-encoding=UTF-16\n",
	}
	names := []string{"a.old", "a.env", "a.bin", "a.mac", "a.crlf", "a.id", "a.out", "a.sub", "a.lfs", "a.enc", "sub/a"}
	for _, name := range names {
		files[name] = secret
	}
	for name, text := range files { // committed as they are, regardless of the attributes
		path := filepath.Join(t.TempDir(), "blob")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		id := b.git(t, b.clone, "hash-object", "-w", "--no-filters", path)
		b.git(t, b.clone, "update-index", "--add", "--cacheinfo", "100644,"+id+","+name)
	}
	b.git(t, b.clone, "commit", "--quiet", "-m", "hide")
	b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:main")
	c := b.get(t, b.request())
	for _, name := range names {
		if text, err := os.ReadFile(filepath.Join(c.Path, name)); string(text) != secret || err != nil {
			t.Errorf("%s is %q, %v", name, text, err)
		}
		if log := b.git(t, c.Path, "log", "-p", "-U0", "--", name); !strings.Contains(log, "+token = 0123456789abcdef") {
			t.Errorf("the history of %s hides it: %s", name, log)
		}
		if archive := b.git(t, c.Path, "archive", "HEAD", name); !strings.Contains(archive, "0123456789abcdef $Id$ ") {
			t.Errorf("the archive hides %s", name)
		}
	}
	if status := b.git(t, c.Path, "status", "--porcelain"); status != "" {
		t.Errorf("status %q", status)
	}
}

// Repositories that are small where they are pushed to and would fill the volume of whoever scans them.
func TestLimits(t *testing.T) {
	cases := map[string]func(*testing.T, *bench, Request){
		"repeated trees": func(t *testing.T, b *bench, r Request) {
			b.stream(t, gitserver.Bomb(10, 10, "x"))
			r.Revision = "level9" // ten thousand million files
			b.refused(t, r, "the repository has more than 2000000 files and folders: split it, or raise --max-files")
			r.Revision, r.Limits.Files = "level2", 1100
			b.refused(t, r, "more than 1100 files and folders")
			r.Limits.Files = 1111
			if c := b.get(t, r); c == nil {
				t.Error("no checkout of a thousand files")
			}
		},
		"a large file, repeated": func(t *testing.T, b *bench, r Request) {
			b.stream(t, gitserver.Bomb(3, 10, strings.Repeat("x", 1<<20)))
			r.Revision, r.Limits.CheckoutBytes = "level2", 999<<20
			b.refused(t, r, "the repository has more than 1047527424 bytes of files: split it, or raise --max-checkout-bytes")
		},
		"a pack": func(t *testing.T, b *bench, r Request) {
			content := make([]byte, 4<<20)
			for i := range content {
				content[i] = byte(i * i >> 3)
			}
			b.git(t, b.repository(), "config", "core.compression", "0")
			b.git(t, b.clone, "config", "core.compression", "0")
			b.write(t, map[string]string{"large": string(content)})
			b.push(t, "2")
			r.Limits.FetchBytes = 1 << 20
			b.refused(t, r, "the repository has more than 1048576 bytes to fetch at once")
			m := b.store.mirror(r.Repository, "", "")
			if size, err := objectBytes(m.path()); size > 1<<20 || err != nil {
				t.Errorf("%d bytes are in the mirror, %v", size, err)
			}
			r.Limits.FetchBytes = 0
			b.get(t, r)
		},
		"refs with long names": func(t *testing.T, b *bench, r Request) {
			long := strings.Repeat("long/", 100)
			for i := range 3 {
				b.git(t, b.clone, "push", "--quiet", "origin", fmt.Sprintf("HEAD:refs/heads/%s%d", long, i))
			}
			r.Limits.Refs = 13 // each counts as four, HEAD and main as one
			b.refused(t, r, "more than 13 refs")
			r.Limits.Refs = 14
			b.get(t, r)
		},
		"a path that is git's": func(t *testing.T, b *bench, r Request) {
			for i, path := range []string{".git/config", ".GIT/hooks/post-checkout", "a/.git/config", "../x", "git~1/config"} {
				r.Revision = fmt.Sprint("path", i)
				tree := strings.Split(path, "/")
				id := b.git(t, b.clone, "rev-parse", "HEAD:number")
				entry := "100644 blob " + id + "\t" + tree[len(tree)-1] + "\n"
				for j := len(tree) - 2; j >= 0; j-- {
					entry = "040000 tree " + b.mktree(t, entry) + "\t" + tree[j] + "\n"
				}
				commit := b.git(t, b.clone, "commit-tree", "-m", "c", b.mktree(t, entry))
				b.git(t, b.clone, "push", "--quiet", "origin", commit+":refs/heads/"+r.Revision)
				b.refused(t, r, "invalid path")
			}
		},
		"a file whose path is too long": func(t *testing.T, b *bench, r Request) {
			b.stream(t, "commit refs/heads/long\ncommitter e2e <e2e@ebbtide.dev> 1700000000 +0000\ndata 1\nc\nM 644 inline "+
				strings.Repeat("d/", 3000)+"f\ndata 1\nx\n\n")
			r.Revision = "long"
			b.refused(t, r, "check out")
		},
		"time": func(t *testing.T, b *bench, r Request) {
			b.get(t, r)
			r.CheckoutTimeout = time.Nanosecond
			b.refused(t, r, "not done within --checkout-timeout 1ns")
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			test(t, b, b.request())
		})
	}
}

// The token goes to the host that it is for, and to no other, whatever redirects there and with which method.
func TestToken(t *testing.T) {
	const secret = "s3cr3t-t0ken"
	b := newBench(t)
	var mu sync.Mutex
	var stolen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for _, values := range r.Header {
			for _, value := range values {
				if strings.HasPrefix(value, "Basic") || strings.Contains(value, secret) {
					stolen = append(stolen, r.Method+" "+value)
				}
			}
		}
		http.Redirect(w, r, b.origin.URL+r.URL.RequestURI(), http.StatusFound) // which has a repository for all
	}))
	defer thief.Close()
	behind := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	for name, redirect := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"of GET": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, behind+r.URL.RequestURI(), http.StatusMovedPermanently)
			return false
		},
		"of POST": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, behind+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			}
			return r.Method != http.MethodPost
		},
		"of what git asks for itself": func() func(http.ResponseWriter, *http.Request) bool {
			gets := 0
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					gets++
				}
				if gets > 1 {
					http.Redirect(w, r, behind+r.URL.RequestURI(), http.StatusFound)
				}
				return gets <= 1
			}
		}(),
	} {
		origin := b.proxied(t, redirect)
		r := b.request()
		r.Repository = origin.URL + "/app.git"
		r.Credentials = Credentials{For: origin.URL + "/", User: "x", Token: secret}
		c, err := b.store.Get(t.Context(), r)
		if (err == nil) != (name == "of GET") || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("a redirect %s: %+v, %v", name, c, err)
		}
		if err == nil {
			c.close()
		}
		if len(stolen) > 0 {
			t.Errorf("a redirect %s: the other host got %q", name, stolen)
		}
	}
	// On the same host the token goes along, as it should where a repository has a new name.
	b.origin.Password = secret
	moved := b.proxied(t, func(w http.ResponseWriter, r *http.Request) bool {
		if rest, ok := strings.CutPrefix(r.URL.RequestURI(), "/old.git"); ok {
			http.Redirect(w, r, "/app.git"+rest, http.StatusMovedPermanently)
			return false
		}
		return true
	})
	r := b.request()
	r.Repository, r.Credentials = moved.URL+"/old.git", Credentials{For: moved.URL + "/", User: "x", Token: secret}
	if n, err := number(b.get(t, r)); n != 1 || err != nil {
		t.Errorf("a repository with a new name: %d, %v", n, err)
	}
}

func TestCredentialsApply(t *testing.T) {
	for scope, urls := range map[string]map[string]bool{
		"https://code.example": {"https://code.example/a": true, "https://code.example:443/a": true, "https://CODE.example/a": true,
			"https://code.example.evil/a": false, "https://code.example@evil/a": false, "http://code.example/a": false,
			"https://code.example:8443/a": false, "https://a.code.example/a": false},
		"https://code.example/team/": {"https://code.example/team/a": true, "https://code.example/team": true,
			"https://code.example/teams/a": false, "https://code.example/team/../other/a": false, "https://code.example/team/%2e%2e/other/a": false},
		"https://": {"https://code.example/a": false},
		"":         {"https://code.example/a": false},
	} {
		for text, want := range urls {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := (Credentials{For: scope, Token: "x"}).apply(u); got != want {
				t.Errorf("a token for %q goes to %s: %t, want %t", scope, text, got, want)
			}
		}
	}
}

// Whoever has no credentials for a repository does not get it from the mirror of one who has.
func TestOwners(t *testing.T) {
	const secret = "s3cr3t-t0ken"
	b := newBench(t)
	b.origin.Password = secret
	mine := b.request()
	mine.Credentials, mine.MaxAge = Credentials{For: b.origin.URL, User: "x", Token: secret}, time.Hour
	commit := b.get(t, mine).Commit
	for name, change := range map[string]func(*Request){
		"no token":                    func(r *Request) { r.Credentials = Credentials{} },
		"a token for another host":    func(r *Request) { r.Credentials.For = "https://code.example/" },
		"another token":               func(r *Request) { r.Credentials.Token = "guess" },
		"another user":                func(r *Request) { r.Credentials.User, r.Credentials.Token = "y", "guess" },
		"another owner and token":     func(r *Request) { r.Credentials.Owner, r.Credentials.Token = "other", "guess" },
		"no token, as the same owner": func(r *Request) { r.Credentials = Credentials{Owner: "mine"} },
	} {
		for _, revision := range []string{"", commit} {
			r := mine
			r.Revision, r.StaleFor = revision, time.Hour
			change(&r)
			if c, err := b.store.Get(t.Context(), r); err == nil {
				t.Errorf("%s, revision %q: got %s", name, revision, c.Path)
			}
		}
	}
	if c := b.get(t, mine); c.Fetched {
		t.Error("the owner's own mirror was not used")
	}
	// An owner whose token changes keeps the mirror.
	mine.Credentials.Owner = "mine"
	b.get(t, mine)
	b.origin.Password, mine.Credentials.Token = "new", "new"
	fetches := b.origin.Fetches()
	if c := b.get(t, mine); c.Fetched || b.origin.Fetches() != fetches {
		t.Error("the mirror was fetched anew")
	}
}

// Each failure is what it is: the message's, which comes back each time, or not.
func TestFailures(t *testing.T) {
	b := newBench(t)
	answer := func(code int, header ...string) *httptest.Server {
		return b.proxied(t, func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			http.Error(w, "no", code)
			return false
		})
	}
	for name, c := range map[string]struct {
		server    *httptest.Server
		token     string
		permanent bool
		want      string
	}{
		"missing":       {answer(http.StatusNotFound), "", true, "404 Not Found: there is no such repository, or not for these credentials"},
		"gone":          {answer(http.StatusGone), "", true, "410 Gone"},
		"private":       {answer(http.StatusUnauthorized), "", true, "the origin wants credentials"},
		"a token ended": {answer(http.StatusUnauthorized), "old", false, "the origin refuses $EBBTIDE_GIT_TOKEN"},
		"forbidden":     {answer(http.StatusForbidden), "", true, "403 Forbidden"},
		"too fast":      {answer(http.StatusForbidden, "Retry-After", "60"), "", false, "403 Forbidden"},
		"too many":      {answer(http.StatusTooManyRequests), "", false, "429"},
		"down":          {answer(http.StatusBadGateway), "", false, "502"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request()
			r.Repository = c.server.URL + "/app.git"
			r.Credentials = Credentials{For: c.server.URL, User: "x", Token: c.token}
			for range 2 {
				_, err := b.store.Get(t.Context(), r)
				if err == nil || errors.Is(err, ErrUnavailable) == c.permanent || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "emptied") {
					t.Errorf("error %v, want %q, permanent %t", err, c.want, c.permanent)
				}
			}
		})
	}
	t.Run("no git", func(t *testing.T) {
		store := *b.store
		store.Git = "no-such-git"
		if _, err := store.Get(t.Context(), b.request()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the image needs git") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a pack of another repository", func(t *testing.T) {
		c := b.get(t, b.request())
		if err := c.Release(); err != nil {
			t.Fatal(err)
		}
		m := b.store.mirror(b.request().Repository, "", "")
		packs, err := filepath.Glob(filepath.Join(m.path(), "objects/pack/*"))
		if err != nil || len(packs) == 0 {
			t.Fatalf("packs %v, %v", packs, err)
		}
		for _, pack := range packs {
			if err := os.Remove(pack); err != nil {
				t.Fatal(err)
			}
		}
		_, err = b.store.Get(t.Context(), b.request())
		if err != nil && strings.Contains(err.Error(), "emptied") {
			t.Errorf("error %v", err)
		}
	})
}

// What there is in place of a git server is not told: whoever sends messages could map the network.
func TestErrorsTellNoPorts(t *testing.T) {
	b := newBench(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	talks, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer talks.Close()
	go func() {
		for {
			connection, err := talks.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(connection, "SSH-2.0-OpenSSH\r\n")
			connection.Close()
		}
	}()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	defer web.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	var texts []string
	for _, to := range []string{"http://" + closed.Addr().String(), "http://" + talks.Addr().String(), web.URL, "https://" + closed.Addr().String(),
		"https://" + talks.Addr().String(), secure.URL, "http://no-such-host.invalid"} {
		r := b.request()
		r.Repository, r.Protocols = to+"/x.git", []string{"http", "https"}
		_, err := b.store.Get(t.Context(), r)
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: error %v", to, err)
			continue
		}
		texts = append(texts, strings.ReplaceAll(err.Error(), to, "ORIGIN"))
		r.Explain = true
		if _, explained := b.store.Get(t.Context(), r); explained == nil || len(explained.Error()) <= len(err.Error()) {
			t.Errorf("%s: explained %v", to, explained)
		}
	}
	if slices.Sort(texts); len(slices.Compact(texts)) != 1 {
		t.Errorf("errors differ: %q", texts)
	}
}

// A volume that is full is no message's fault, and what nobody uses makes room.
func TestFull(t *testing.T) {
	b := newBench(t)
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	b.store.Root = root
	c := b.get(t, b.request())
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	b.git(t, b.clone, "config", "core.compression", "0")
	b.git(t, b.repository(), "config", "core.compression", "0")
	half := strings.Repeat("abcdefgh", 1<<16)
	b.write(t, map[string]string{"large": half})
	b.push(t, "2")
	for range 2 { // one mirror and its checkout fit, two do not
		for _, name := range []string{"app.git", "again.git"} {
			r := b.request()
			r.Repository = b.origin.URL + "/" + name
			if name == "again.git" {
				_ = os.RemoveAll(filepath.Join(b.origin.Root, name))
				b.git(t, b.origin.Root, "clone", "--quiet", "--bare", "app.git", name)
			}
			c := b.get(t, r)
			if err := c.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.write(t, map[string]string{"large": half + half + half})
	b.push(t, "2")
	if _, err := b.store.Get(t.Context(), b.request()); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrFull) || strings.Contains(err.Error(), "emptied") {
		t.Errorf("error %v", err)
	}
	if left := b.checkouts(t); len(left) > 0 {
		t.Errorf("checkouts %q are left", left)
	}
}

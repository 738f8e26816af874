package sourcestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// bench is an origin with the repository app, a clone that pushes to it, and a store.
type bench struct {
	origin *gitserver.Server
	clone  string
	store  *Store
	now    time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	root := t.TempDir()
	b := &bench{clone: t.TempDir(), now: time.Now()}
	b.store = &Store{Root: t.TempDir(), Git: "git", Now: func() time.Time { return b.now }}
	b.git(t, root, "init", "--quiet", "--bare", "-b", "main", "app.git")
	b.git(t, b.clone, "init", "--quiet", "-b", "main")
	b.git(t, b.clone, "remote", "add", "origin", filepath.Join(root, "app.git"))
	b.push(t, "1")
	origin, err := gitserver.Start(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Stop)
	b.origin = origin
	return b
}

func (b *bench) git(t *testing.T, folder string, args ...string) string {
	t.Helper()
	out, err := gitserver.Git(folder, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// push makes a commit whose file number holds a text, and returns its id.
func (b *bench) push(t *testing.T, text string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.clone, "number"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.git(t, b.clone, "add", ".")
	b.git(t, b.clone, "commit", "--quiet", "-m", text)
	b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:main")
	return b.git(t, b.clone, "rev-parse", "HEAD")
}

func (b *bench) request() Request {
	return Request{Repository: b.origin.URL + "/app.git", Protocols: []string{"http"}, FetchTimeout: time.Minute}
}

func (b *bench) get(t *testing.T, r Request) *Checkout {
	t.Helper()
	c, err := b.store.Get(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func (b *bench) collect(t *testing.T, what Collection) Collected {
	t.Helper()
	done, err := b.store.Collect(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// number reads what the last commit of a checkout wrote, after looking whether the checkout and its history are whole.
func number(c *Checkout) (int, error) {
	if out, err := gitserver.Git(c.Path, "status", "--porcelain"); err != nil || out != "" {
		return 0, fmt.Errorf("status %q, %w", out, err)
	}
	if _, err := gitserver.Git(c.Path, "rev-list", "--objects", "--all", "--quiet"); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(c.Path, "number"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

func TestGet(t *testing.T) {
	cases := map[string]func(*testing.T, *bench){
		"the default branch, with history": func(t *testing.T, b *bench) {
			b.push(t, "2")
			c := b.get(t, b.request())
			if n, err := number(c); n != 2 || err != nil || !c.Fetched || c.Stale != "" {
				t.Errorf("%d, %v, %+v", n, err, c)
			}
			if log := b.git(t, c.Path, "log", "--format=%s", "--all"); log != "2\n1" {
				t.Errorf("log %q", log)
			}
			if b.git(t, c.Path, "count-objects") != "0 objects, 0 kilobytes" {
				t.Error("the checkout has objects of its own")
			}
		},
		"a branch, a tag, a commit, another ref": func(t *testing.T, b *bench) {
			first := b.git(t, b.clone, "rev-parse", "HEAD")
			b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:refs/heads/old", "HEAD:refs/tags/v1", "HEAD:refs/pull/7/head")
			b.push(t, "2")
			for _, revision := range []string{"old", "v1", first, "refs/pull/7/head"} {
				r := b.request()
				r.Revision, r.Refs = revision, []string{"refs/pull/*/head"}
				if c := b.get(t, r); c.Commit != first {
					t.Errorf("%s is %s, want %s", revision, c.Commit, first)
				}
			}
			r := b.request()
			r.Revision = "nope"
			if _, err := b.store.Get(t.Context(), r); err == nil || !strings.Contains(err.Error(), `has no "nope" among its branches and tags`) || errors.Is(err, ErrUnavailable) {
				t.Errorf("error %v", err)
			}
		},
		"a branch that is gone": func(t *testing.T, b *bench) {
			b.git(t, b.clone, "push", "--quiet", "origin", "HEAD:refs/heads/old")
			r := b.request()
			r.Revision = "old"
			c := b.get(t, r)
			b.git(t, b.clone, "push", "--quiet", "origin", ":refs/heads/old")
			if _, err := b.store.Get(t.Context(), r); err == nil {
				t.Error("it is still there")
			}
			if n, err := number(c); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
		"no more fetches than needed": func(t *testing.T, b *bench) {
			r := b.request()
			b.get(t, r)
			r.MaxAge = time.Minute
			if c := b.get(t, r); c.Fetched || b.origin.Fetches() != 1 {
				t.Errorf("%+v after %d fetches", c, b.origin.Fetches())
			}
			second := b.push(t, "2")
			b.now = b.now.Add(time.Minute)
			if c := b.get(t, r); !c.Fetched || c.Commit != second {
				t.Errorf("%+v", c)
			}
			// A commit that is there is what it will be.
			r.Revision, r.MaxAge = second, 0
			if c := b.get(t, r); c.Fetched || b.origin.Fetches() != 2 {
				t.Errorf("%+v after %d fetches", c, b.origin.Fetches())
			}
		},
		"an origin that fails": func(t *testing.T, b *bench) {
			r := b.request()
			failure := errors.New("closed for today")
			b.origin.Before = func() error { return failure }
			_, err := b.store.Get(t.Context(), r)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "there is no mirror of it yet") {
				t.Errorf("error %v", err)
			}
			failure = nil
			b.get(t, r)
			b.push(t, "2")
			failure = errors.New("closed again")
			b.now = b.now.Add(time.Hour)
			if _, err = b.store.Get(t.Context(), r); !errors.Is(err, ErrUnavailable) ||
				!strings.Contains(err.Error(), "the last good mirror is 1h0m0s old, more than --stale-for 0s allows") {
				t.Errorf("error %v", err)
			}
			r.StaleFor = 2 * time.Hour
			c := b.get(t, r)
			if n, err := number(c); n != 1 || err != nil || c.Fetched || !strings.Contains(c.Stale, "503") || c.AgeSeconds != 3600 {
				t.Errorf("%d, %v, %+v", n, err, c)
			}
		},
		"a partial clone": func(t *testing.T, b *bench) {
			for i := range 5 {
				b.push(t, strconv.Itoa(i+2))
			}
			r := b.request()
			r.Filter = "blob:none"
			c := b.get(t, r)
			if text, err := os.ReadFile(filepath.Join(c.Path, "number")); string(text) != "6" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
			before := b.origin.Fetches()
			r.Revision = c.Commit
			b.get(t, r) // what the first checkout fetched is there for all
			if b.origin.Fetches() != before {
				t.Errorf("%d fetches more for the same commit", b.origin.Fetches()-before)
			}
			r.Revision = strings.Repeat("0", 40)
			if _, err := b.store.Get(t.Context(), r); err == nil {
				t.Error("a commit that nobody has")
			}
		},
		"a symbolic link": func(t *testing.T, b *bench) {
			if err := os.Symlink("/etc/passwd", filepath.Join(b.clone, "link")); err != nil {
				t.Fatal(err)
			}
			b.push(t, "2")
			c := b.get(t, b.request())
			if info, err := os.Lstat(filepath.Join(c.Path, "link")); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%v, %v", info, err)
			}
		},
		"what a killed fetch has left": func(t *testing.T, b *bench) {
			b.get(t, b.request())
			m := b.store.mirror(b.request().Repository, "", "")
			for _, name := range []string{"packed-refs.lock", "tmp_refs_x", "objects/pack/tmp_pack_x"} {
				if err := os.WriteFile(filepath.Join(m.path(), name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.push(t, "2")
			if n, err := number(b.get(t, b.request())); n != 2 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
		"credentials": func(t *testing.T, b *bench) {
			const secret = "s3cr3t-t0ken"
			b.origin.Password = secret
			var seen []string
			b.origin.Before = func() error { // git runs now
				lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
				for _, line := range lines {
					if text, err := os.ReadFile(line); err == nil && bytes.Contains(text, []byte(secret)) {
						seen = append(seen, string(text))
					}
				}
				return err
			}
			r := b.request()
			r.Credentials = Credentials{For: b.origin.URL + "/", User: "x", Token: secret}
			if n, err := number(b.get(t, r)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if len(seen) > 0 {
				t.Errorf("the token is in command lines: %q", seen)
			}
			if err := filepath.WalkDir(b.store.Root, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				text, err := os.ReadFile(path)
				if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte("Basic ")) {
					t.Errorf("the token is in %s", path)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			// It goes to nobody else.
			r.Credentials.For = "https://code.example/"
			if _, err := b.store.Get(t.Context(), r); err == nil || strings.Contains(err.Error(), secret) ||
				!strings.Contains(err.Error(), "the origin wants credentials: set $EBBTIDE_GIT_TOKEN") {
				t.Errorf("error %v", err)
			}
		},
		"leased": func(t *testing.T, b *bench) {
			c := b.get(t, b.request())
			if err := c.Lease(t.Context(), b.now.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			b.now = b.now.Add(59 * time.Minute)
			if done := b.collect(t, Collection{UnusedFor: time.Minute, Quota: 1}); done.Checkouts != 0 || done.Mirrors != 0 || done.InUse != 1 {
				t.Errorf("%+v", done)
			}
			if n, err := number(c); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			b.now = b.now.Add(time.Minute)
			if done := b.collect(t, Collection{UnusedFor: time.Minute}); done.Checkouts != 1 || done.Mirrors != 1 || done.Left != 0 {
				t.Errorf("%+v", done)
			}
			if n, err := number(b.get(t, b.request())); n != 1 || err != nil {
				t.Errorf("after the mirror was removed: %d, %v", n, err)
			}
		},
		"released": func(t *testing.T, b *bench) {
			c := b.get(t, b.request())
			if err := b.store.Release(c.Path); err == nil || !strings.Contains(err.Error(), "is in use by a process that runs") {
				t.Errorf("error %v", err)
			}
			if err := c.Lease(t.Context(), b.now.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := b.store.Release(c.Path); err != nil {
					t.Error(err)
				}
			}
			if err := b.store.Release(b.store.Root); err == nil || !strings.Contains(err.Error(), "is no checkout of the source store") {
				t.Errorf("error %v", err)
			}
			if left, err := os.ReadDir(filepath.Dir(c.Path)); len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		},
		"the quota": func(t *testing.T, b *bench) {
			for _, name := range []string{"a.git", "b.git", "c.git"} {
				b.git(t, b.origin.Root, "clone", "--quiet", "--bare", "app.git", name)
				r := b.request()
				r.Repository = b.origin.URL + "/" + name
				b.now = b.now.Add(time.Second)
				if c := b.get(t, r); name != "a.git" { // the least recently used is in use
					if err := c.Release(); err != nil {
						t.Fatal(err)
					}
				}
			}
			all := b.collect(t, Collection{})
			done := b.collect(t, Collection{Quota: all.Bytes - 1})
			if done.Mirrors != 1 || done.InUse != 1 || done.Left != 2 {
				t.Errorf("%+v", done)
			}
			r := b.request()
			r.Repository, r.MaxAge = b.origin.URL+"/c.git", time.Hour
			if c := b.get(t, r); c.Fetched {
				t.Error("the one that was used last is gone, and not b.git")
			}
		},
		"many packs": func(t *testing.T, b *bench) {
			r := b.request()
			c := b.get(t, r)
			m := b.store.mirror(r.Repository, "", "")
			first, err := filepath.Glob(filepath.Join(m.path(), "objects/pack/*"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range packsBeforeRepack { // as so many fetches would have left
				for _, path := range first {
					if err := os.Link(path, filepath.Join(filepath.Dir(path), fmt.Sprintf("pack-%040d%s", i, filepath.Ext(path)))); err != nil {
						t.Fatal(err)
					}
				}
			}
			if done := b.collect(t, Collection{}); done.Repacked != 0 {
				t.Errorf("%+v while the mirror is in use", done)
			}
			if err := c.Release(); err != nil {
				t.Fatal(err)
			}
			if done := b.collect(t, Collection{}); done.Repacked != 1 {
				t.Errorf("%+v", done)
			}
			if packs, err := filepath.Glob(filepath.Join(m.path(), "objects/pack/*.pack")); len(packs) != 1 {
				t.Errorf("%d packs, %v", len(packs), err)
			}
			if n, err := number(b.get(t, r)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t))
		})
	}
}

func TestCheck(t *testing.T) {
	protocols := []string{"https", "ssh"}
	for repository, want := range map[string]string{
		"https://code.example/team/app.git":   "",
		"ssh://git@code.example/team/app.git": "",
		"":                                    "no repository",
		"git@code.example:team/app.git":       "write git@HOST:PATH as ssh://git@HOST/PATH",
		"file:///etc":                         "protocol file is not one of https, ssh",
		"ext::sh -c true":                     "must be a URL",
		"https://code.example/" + strings.Repeat("&", 1100): "must be text of at most 1024 bytes",
		"https://code.example/\xff":                         "must be text of at most 1024 bytes",
		"https://user:secret@code.example/app.git":          "must not hold credentials",
		"ssh://git:secret@code.example/app.git":             "must not hold a password",
		"ssh://-oProxyCommand=true/app.git":                 "no part may begin with a hyphen",
		"--upload-pack=true":                                "must be a URL",
		"https://us er:sec ret@code.example/app%.git":       "must be a URL",
		"user:secret@code.example:team/app.git":             "must be a URL",
		"https:/user:secret@code.example/app.git":           "must be a URL",
		"https:user:secret@code.example/app.git":            "must be a URL",
		"user:secret@x://code.example/app.git":              "must be a URL",
		"ftp://user:secret@code.example/app.git":            "protocol ftp is not one of",
		"https://code.example/app.git?token=secret":         "no space, query or fragment",
		"https://code.example/app.git#secret":               "no space, query or fragment",
		"https://user:sec\nret@code.example/app.git":        "must be a URL",
	} {
		err := CheckRepository(repository, protocols)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "ret@") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: error %v, want one with %q", repository, err, want)
		}
	}
	for _, revision := range []string{"--output=x", "main^", "a..b", "main:secret", "@{upstream}", "a b"} {
		if checkRevision(revision) == nil {
			t.Errorf("revision %q is taken", revision)
		}
	}
}

// A process of the race: it gets the source, looks at it, keeps it for a while and looks again.
const (
	roleVariable = "EBBTIDE_TEST_ROLE"
	getters      = 50
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "get":
		if err := raceGet(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "collect":
		store := &Store{Root: os.Getenv("EBBTIDE_TEST_STORE"), Git: "git", Now: time.Now}
		for { // until it is killed
			if _, err := store.Collect(context.Background(), Collection{UnusedFor: time.Nanosecond, Quota: 1}); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
}

func raceGet() error {
	store := &Store{Root: os.Getenv("EBBTIDE_TEST_STORE"), Git: "git", Now: time.Now}
	c, err := store.Get(context.Background(), Request{
		Repository: os.Getenv("EBBTIDE_TEST_REPOSITORY"), Protocols: []string{"http"}, FetchTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	before, err := number(c)
	if err != nil {
		return fmt.Errorf("at first: %w", err)
	}
	hold, err := time.ParseDuration(os.Getenv("EBBTIDE_TEST_HOLD"))
	if err != nil {
		return err
	}
	time.Sleep(hold) // the scan
	after, err := number(c)
	if err != nil || after != before {
		return fmt.Errorf("after the scan: %d, then %d, %w", before, after, err)
	}
	if err := c.Release(); err != nil {
		return err
	}
	fmt.Print(before)
	return nil
}

func (b *bench) process(role string, hold time.Duration) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "EBBTIDE_TEST_STORE="+b.store.Root, "EBBTIDE_TEST_HOLD="+hold.String(),
		"EBBTIDE_TEST_REPOSITORY="+b.request().Repository)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// However many ask at once, the origin is asked twice: once for those that came before the fetch, once for those that came during it.
func TestGettersShareAFetch(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	b.origin.Before = func() error { <-release; return nil }
	var wait sync.WaitGroup
	asked := make(chan struct{}, getters)
	for range getters {
		wait.Go(func() {
			store := *b.store
			store.asked = func() { asked <- struct{}{} }
			c, err := store.Get(t.Context(), b.request())
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	for range getters {
		<-asked
	}
	close(release)
	wait.Wait()
	// The second one is for those that asked when the first had started.
	if n := b.origin.Fetches(); n > 2 {
		t.Errorf("%d fetches for %d requests at once", n, getters)
	}
}

// Getters, collectors and commits race while some of the processes are killed. Who lives has a whole checkout, as new as when it asked,
// until it lets go of it; and the dead leave nothing behind that a collector does not remove.
func TestRace(t *testing.T) {
	b := newBench(t)
	b.store.Now = time.Now
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	racing, stop := context.WithCancel(t.Context())
	var background, wait sync.WaitGroup
	background.Go(func() { // collectors, each killed and followed by another
		pauses := rand.New(rand.NewPCG(seed, 1))
		for racing.Err() == nil {
			cmd, _, stderr := b.process("collect", 0)
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			killed := time.AfterFunc(time.Duration(pauses.Int64N(int64(600*time.Millisecond))), func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait() // killed
			if killed.Stop() {
				t.Errorf("a collector ended: %s", stderr)
			}
		}
	})
	var mu sync.Mutex
	pushed := 1
	background.Go(func() {
		for n := 2; racing.Err() == nil; n++ {
			b.push(t, strconv.Itoa(n))
			mu.Lock()
			pushed = n
			mu.Unlock()
		}
	})
	const atOnce = 10
	slots := make(chan struct{}, atOnce)
	for i := range getters {
		hold := time.Duration(random.Int64N(int64(300 * time.Millisecond)))
		doomed, after := random.IntN(3) == 0, time.Duration(random.Int64N(int64(500*time.Millisecond)))
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			mu.Lock()
			least := pushed
			mu.Unlock()
			cmd, stdout, stderr := b.process("get", hold)
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			if doomed {
				defer time.AfterFunc(after, func() { _ = cmd.Process.Kill() }).Stop()
			}
			err := cmd.Wait()
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); doomed && status.Signaled() {
				return
			}
			saw := 0
			if err == nil {
				saw, err = strconv.Atoi(stdout.String())
			}
			if err != nil || saw < least {
				t.Errorf("getter %d saw %d, want at least %d: %v\n%s", i, saw, least, err, stderr)
			}
		})
	}
	wait.Wait()
	stop()
	background.Wait()

	// A lock of a killed getter may last until the git that it started has ended.
	left := func() []string {
		checkouts, err := filepath.Glob(filepath.Join(b.store.Root, "checkouts/*/*"))
		trash, trashErr := filepath.Glob(filepath.Join(b.store.Root, "trash/*"))
		locks, locksErr := filepath.Glob(filepath.Join(b.store.Root, "locks/*.*"))
		if err := errors.Join(err, trashErr, locksErr); err != nil {
			t.Fatal(err)
		}
		if len(locks) <= 3 { // those of the mirror
			locks = nil
		}
		return append(append(checkouts, trash...), locks...)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b.collect(t, Collection{})
		rest := left()
		if len(rest) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left by the dead: %q", rest)
		}
	}
	if n, err := number(b.get(t, b.request())); n != pushed || err != nil {
		t.Errorf("after all: %d, %v; want %d", n, err, pushed)
	}
	t.Logf("%d commits, %d fetches for %d getters", pushed, b.origin.Fetches(), getters)
}

// The volume is emptied while a scan has a checkout and another one waits for its fetch: both get to know that they should ask again, and
// who does gets the source.
func TestStoreEmptied(t *testing.T) {
	b := newBench(t)
	empty := func() {
		t.Helper()
		folders, err := filepath.Glob(filepath.Join(b.store.Root, "*"))
		if err != nil || len(folders) == 0 {
			t.Fatalf("the store has %v, %v", folders, err)
		}
		for _, folder := range folders {
			if err := removal.All(folder); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := b.get(t, b.request())
	if c.Lost() {
		t.Error("a checkout is lost that is there")
	}
	b.origin.Before = func() error { empty(); return nil }
	if _, err := b.store.Get(t.Context(), b.request()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v of a request whose store is emptied, want that it may be tried again", err)
	}
	if !c.Lost() {
		t.Error("the store was emptied, and the checkout is not lost")
	}
	b.origin.Before = nil
	again := b.get(t, b.request())
	if n, err := number(again); err != nil || n != 1 || !again.Fetched || again.Lost() {
		t.Errorf("after the store was emptied: %d, %v, %+v", n, err, again)
	}
	// Of the mirrors alone, the locks tell what was there.
	if err := removal.All(filepath.Join(b.store.Root, "mirrors")); err != nil {
		t.Fatal(err)
	}
	r := b.request()
	r.MaxAge = time.Hour
	again = b.get(t, r)
	if n, err := number(again); err != nil || n != 1 || !again.Fetched {
		t.Errorf("after the mirrors were removed: %d, %v, %+v", n, err, again)
	}
}

// What is to be removed may be gone already, with the rest of the store.
func TestReleaseOfWhatIsGone(t *testing.T) {
	b := newBench(t)
	for _, gone := range []string{"locks", "checkouts", "trash", ""} {
		c := b.get(t, b.request())
		if err := os.RemoveAll(filepath.Join(b.store.Root, gone)); err != nil {
			t.Fatal(err)
		}
		if err := c.Release(); err != nil {
			t.Errorf("without %q of the store: %v", gone, err)
		}
	}
}

// source measures what the source store saves at the origin: the same scans of the same repositories, each with a clone of its own, and by
// the store; of a few repositories, of one that is pushed to all the time, and of one with 50,000 branches. It writes bench/out/source.json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

// The load: a burst of scans over a few repositories, so many at once, each holding its source for a while.
const (
	repositories, scans, atOnce = 6, 120, 24
	hold                        = 200 * time.Millisecond
	commits, filesEach          = 200, 40
	// The monorepo has so many branches, and is pushed to this often while it is scanned.
	monorepoBranches, monorepoCommits, monorepoScans = 2_000, 2_000, 48
	pushEvery                                        = 250 * time.Millisecond
	// The repository of many refs is scanned a few times, one after the other.
	manyBranches, manyScans = 50_000, 4
)

// figures of one way to get the source.
type figures struct {
	Load  string `json:"load"`
	Way   string `json:"way"`
	Scans int    `json:"scans"`
	// Fetches that the origin was asked for, and bytes that it sent.
	Fetches        int64   `json:"fetches"`
	FetchesPerScan float64 `json:"fetchesPerScan"`
	Bytes          int64   `json:"bytes"`
	// GetP50 and GetP95 are the seconds until a scan had its source, on the loopback: what the network takes comes on top.
	GetP50 float64 `json:"getP50Seconds"`
	GetP95 float64 `json:"getP95Seconds"`
}

func main() {
	out := flag.String("out", "bench/out/source.json", "file of the figures")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	work, err := os.MkdirTemp("", "ebbtide-bench-source-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	origin, err := makeOrigin(filepath.Join(work, "origin"))
	if err != nil {
		return err
	}
	defer origin.Stop()
	clone := func(args ...string) getter {
		return func(_ context.Context, url string) (func() error, error) {
			folder, err := os.MkdirTemp(work, "clone-")
			if err != nil {
				return nil, err
			}
			_, err = gitserver.Git(work, append(append([]string{"clone", "--quiet"}, args...), url, folder)...)
			return func() error { return os.RemoveAll(folder) }, err
		}
	}
	store := func(name string, maxAge time.Duration) getter {
		s := &sourcestore.Store{Root: filepath.Join(work, name), Git: "git", Now: time.Now}
		return func(ctx context.Context, url string) (func() error, error) {
			c, err := s.Get(ctx, sourcestore.Request{Repository: url, Protocols: []string{"http"}, MaxAge: maxAge, FetchTimeout: 5 * time.Minute})
			if err != nil {
				return nil, err
			}
			return c.Release, nil
		}
	}
	few := load{name: "few repositories", scans: scans, atOnce: atOnce, url: func(random *rand.Rand) string {
		return fmt.Sprintf("%s/repository-%d.git", origin.URL, random.IntN(repositories))
	}}
	monorepo := load{name: "busy monorepo", scans: monorepoScans, atOnce: atOnce, url: one(origin, "monorepo.git"),
		during: func() error { return push(filepath.Join(origin.Root, "monorepo.git")) }}
	many := load{name: "50,000 branches", scans: manyScans, atOnce: 1, url: one(origin, "many.git"),
		during: func() error { return push(filepath.Join(origin.Root, "many.git")) }}
	var all []figures
	for _, run := range []struct {
		load load
		way  string
		get  getter
	}{
		{few, "a clone for each scan", clone()},
		{few, "a clone of depth 1 for each scan", clone("--depth", "1")},
		{few, "store, --max-age 0", store("store-0", 0)},
		{few, "store, --max-age 1m", store("store-1m", time.Minute)},
		{monorepo, "a clone for each scan", clone()},
		{monorepo, "a clone of depth 1 for each scan", clone("--depth", "1")},
		{monorepo, "store, --max-age 0", store("monorepo-0", 0)},
		{monorepo, "store, --max-age 1m", store("monorepo-1m", time.Minute)},
		// What it asks for must fit into one post: the server here takes no chunks.
		{many, "a mirror clone for each scan", clone("--mirror", "-c", "http.postBuffer=67108864")},
		{many, "store, --max-age 0", store("many-0", 0)},
	} {
		f, err := measure(run.load, run.way, origin, run.get)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", run.load.name, run.way, err)
		}
		fmt.Fprintf(os.Stderr, "%-18s %-34s %4d fetches, %.3f a scan, %8.2f MB, source after %6.2f s (p50) and %6.2f s (p95)\n",
			f.Load, f.Way, f.Fetches, f.FetchesPerScan, float64(f.Bytes)/1e6, f.GetP50, f.GetP95)
		all = append(all, f)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// getter gets a repository's source, and says how to let go of it.
type getter func(ctx context.Context, url string) (release func() error, err error)

// load is a number of scans.
type load struct {
	name          string
	scans, atOnce int
	url           func(*rand.Rand) string
	// during happens again and again while they run; nil: nothing.
	during func() error
}

func one(origin *gitserver.Server, name string) func(*rand.Rand) string {
	return func(*rand.Rand) string { return origin.URL + "/" + name }
}

// push adds a commit to the default branch of a repository at the origin.
func push(repository string) error {
	tree, err := gitserver.Git(repository, "rev-parse", "HEAD^{tree}")
	if err != nil {
		return err
	}
	commit, err := gitserver.Git(repository, "commit-tree", tree, "-p", "HEAD", "-m", "push")
	if err != nil {
		return err
	}
	_, err = gitserver.Git(repository, "update-ref", "refs/heads/main", commit)
	return err
}

// measure runs a workload.
func measure(l load, way string, origin *gitserver.Server, get getter) (figures, error) {
	random := rand.New(rand.NewPCG(3, 3))
	fetches, bytes := origin.Fetches(), origin.Bytes()
	var mu sync.Mutex
	var took []float64
	var failed error
	var wait, background sync.WaitGroup
	over := make(chan struct{})
	if l.during != nil {
		background.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(pushEvery):
				}
				if err := l.during(); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	slots := make(chan struct{}, l.atOnce)
	for range l.scans {
		url := l.url(random)
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			begin := time.Now()
			release, err := get(context.Background(), url)
			seconds := time.Since(begin).Seconds()
			if err == nil {
				time.Sleep(hold) // the scan
				err = release()
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, seconds)
			if err != nil {
				failed = err
			}
		})
	}
	wait.Wait()
	close(over)
	background.Wait()
	slices.Sort(took)
	f := figures{
		Load: l.name, Way: way, Scans: l.scans, Fetches: origin.Fetches() - fetches, Bytes: origin.Bytes() - bytes,
		GetP50: took[len(took)/2], GetP95: took[len(took)*95/100],
	}
	f.FetchesPerScan = float64(f.Fetches) / float64(l.scans)
	return f, failed
}

// makeOrigin serves repositories of some thousand objects each, one with many commits and branches, and one with a great many branches.
func makeOrigin(root string) (*gitserver.Server, error) {
	random := rand.NewChaCha8([32]byte{7})
	for i := range repositories {
		if err := makeRepository(root, fmt.Sprintf("repository-%d.git", i), commits, filesEach/4, 0, random); err != nil {
			return nil, err
		}
	}
	if err := makeRepository(root, "monorepo.git", monorepoCommits, 4, monorepoBranches, random); err != nil {
		return nil, err
	}
	if err := makeRepository(root, "many.git", commits, 1, manyBranches, random); err != nil {
		return nil, err
	}
	return gitserver.Start(root)
}

// makeRepository makes a history of changed files, and branches that end somewhere in it.
func makeRepository(root, name string, commits, changed, branches int, random *rand.ChaCha8) error {
	folder := filepath.Join(root, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var stream strings.Builder
	for commit := range commits {
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter e2e <e2e@ebbtide.dev> %d +0000\ndata 1\nc\n", 1700000000+commit)
		for range changed {
			content := make([]byte, 1500)
			_, _ = random.Read(content) // never fails
			text := fmt.Sprintf("%x", content)
			fmt.Fprintf(&stream, "M 644 inline src/file-%d\ndata %d\n%s\n", random.Uint64()%filesEach, len(text), text)
		}
		stream.WriteByte('\n')
	}
	if _, err := gitserver.Git(folder, "init", "--quiet", "--bare", "-b", "main"); err != nil {
		return err
	}
	if err := gitserver.FastImport(folder, strings.NewReader(stream.String())); err != nil || branches == 0 {
		return err
	}
	ids, err := gitserver.Git(folder, "rev-list", "main")
	if err != nil {
		return err
	}
	ends := strings.Fields(ids)
	var packed strings.Builder // as an origin keeps them; git itself makes a file of each
	for n := range branches {
		fmt.Fprintf(&packed, "%s refs/heads/branch-%d\n", ends[n%len(ends)], n)
	}
	return os.WriteFile(filepath.Join(folder, "packed-refs"), []byte(packed.String()), 0o644)
}

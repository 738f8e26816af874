// source measures what the source store saves at the origin: the same scans of the same repositories, each with a clone of its own, and by
// the store. It writes bench/out/source.json.
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
)

// figures of one way to get the source.
type figures struct {
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
	clone := func(args ...string) func(context.Context, string) (func() error, error) {
		return func(_ context.Context, url string) (func() error, error) {
			folder, err := os.MkdirTemp(work, "clone-")
			if err != nil {
				return nil, err
			}
			_, err = gitserver.Git(work, append(append([]string{"clone", "--quiet"}, args...), url, folder)...)
			return func() error { return os.RemoveAll(folder) }, err
		}
	}
	store := func(name string, maxAge time.Duration) func(context.Context, string) (func() error, error) {
		s := &sourcestore.Store{Root: filepath.Join(work, name), Git: "git", Now: time.Now}
		return func(ctx context.Context, url string) (func() error, error) {
			c, err := s.Get(ctx, sourcestore.Request{Repository: url, Protocols: []string{"http"}, MaxAge: maxAge, FetchTimeout: time.Minute})
			if err != nil {
				return nil, err
			}
			return c.Release, nil
		}
	}
	var all []figures
	for _, way := range []struct {
		name string
		get  func(context.Context, string) (func() error, error)
	}{
		{"a clone for each scan", clone()},
		{"a clone of depth 1 for each scan", clone("--depth", "1")},
		{"store, --max-age 0", store("store-0", 0)},
		{"store, --max-age 1m", store("store-1m", time.Minute)},
	} {
		f, err := measure(way.name, origin, way.get)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		fmt.Fprintf(os.Stderr, "%-34s %4d fetches, %.3f a scan, %7.2f MB, source after %.2f s (p50) and %.2f s (p95)\n",
			f.Way, f.Fetches, f.FetchesPerScan, float64(f.Bytes)/1e6, f.GetP50, f.GetP95)
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

// measure plays the load.
func measure(way string, origin *gitserver.Server, get func(context.Context, string) (func() error, error)) (figures, error) {
	random := rand.New(rand.NewPCG(3, 3))
	fetches, bytes := origin.Fetches(), origin.Bytes()
	var mu sync.Mutex
	var took []float64
	var failed error
	var wait sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for range scans {
		url := fmt.Sprintf("%s/repository-%d.git", origin.URL, random.IntN(repositories))
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
	slices.Sort(took)
	f := figures{
		Way: way, Scans: scans, Fetches: origin.Fetches() - fetches, Bytes: origin.Bytes() - bytes,
		GetP50: took[len(took)/2], GetP95: took[len(took)*95/100],
	}
	f.FetchesPerScan = float64(f.Fetches) / scans
	return f, failed
}

// makeOrigin serves repositories of some thousand objects each.
func makeOrigin(root string) (*gitserver.Server, error) {
	random := rand.NewChaCha8([32]byte{7})
	for i := range repositories {
		folder := filepath.Join(root, fmt.Sprintf("repository-%d.git", i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		var stream strings.Builder
		for commit := range commits {
			fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter e2e <e2e@ebbtide.dev> %d +0000\ndata 1\nc\n", 1700000000+commit)
			for range filesEach / 4 {
				content := make([]byte, 1500)
				_, _ = random.Read(content) // never fails
				text := fmt.Sprintf("%x", content)
				fmt.Fprintf(&stream, "M 644 inline src/file-%d\ndata %d\n%s\n", random.Uint64()%filesEach, len(text), text)
			}
			stream.WriteByte('\n')
		}
		input := filepath.Join(root, "stream")
		if err := os.WriteFile(input, []byte(stream.String()), 0o600); err != nil {
			return nil, err
		}
		if _, err := gitserver.Git(folder, "init", "--quiet", "--bare", "-b", "main"); err != nil {
			return nil, err
		}
		if err := gitserver.FastImport(folder, input); err != nil {
			return nil, err
		}
	}
	return gitserver.Start(root)
}

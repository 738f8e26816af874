package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// sources counts what is opened and closed instead of connecting.
type sources struct{ opened, closed int }

type countedSource struct{ of *sources }

func (s *sources) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source {
	s.opened++
	return &countedSource{s}
}

func (*countedSource) Observe(context.Context, time.Duration) (sizing.Observation, error) {
	return sizing.Observation{}, nil
}

func (c *countedSource) Close() error { c.of.closed++; return nil }

const scans = `apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {rabbitmq: {uri: {value: "amqp://broker"}, queue: scans}}
  target: {maxReplicas: 7}
`

func write(t *testing.T, path, text string) {
	t.Helper()
	// As editors and kubelets do: a new file takes the old one's place.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

type testBundle struct {
	dir       string
	store     *Store
	sources   *sources
	directory *Directory
	log       *strings.Builder
	forgotten []types.NamespacedName
}

func newBundle(t *testing.T) *testBundle {
	t.Helper()
	b := &testBundle{dir: t.TempDir(), sources: &sources{}, log: &strings.Builder{}}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	b.store = NewStore(b.sources, b, log)
	b.directory = NewDirectory(b.dir, b.store, log)
	return b
}

func (b *testBundle) Validated(types.NamespacedName, error) {}
func (b *testBundle) Forget(name types.NamespacedName)      { b.forgotten = append(b.forgotten, name) }

// limit is the cap of the policy in force; -1 when there is none.
func (b *testBundle) limit(name string) int32 {
	p, _, _ := b.store.Get(types.NamespacedName{Namespace: "scan", Name: name})
	if p == nil {
		return -1
	}
	return p.Calendar.Limits(time.Now()).MaxReplicas
}

func TestDirectoryLoad(t *testing.T) {
	b := newBundle(t)
	file := filepath.Join(b.dir, "scans.yaml")
	other := strings.ReplaceAll(scans, "name: scans, ", "name: other, ")
	write(t, file, scans+"---\n"+other)
	b.directory.Load(t.Context())
	if b.limit("scans") != 7 || b.limit("other") != 7 {
		t.Fatalf("caps %d and %d, want 7\n%s", b.limit("scans"), b.limit("other"), b.log)
	}

	write(t, file, strings.Replace(scans, "maxReplicas: 7", "maxReplicas: 9", 1)+"---\n"+other)
	b.directory.Load(t.Context())
	if b.limit("scans") != 9 || b.sources.opened != 2 || b.sources.closed != 0 {
		t.Errorf("cap %d, %d sources opened, %d closed; want 9, 2 and 0: an edit of a limit does not touch the backlog",
			b.limit("scans"), b.sources.opened, b.sources.closed)
	}

	write(t, file, strings.Replace(scans, "queue: scans", "queue: more", 1)+"---\n"+other)
	b.directory.Load(t.Context())
	if b.sources.opened != 3 || b.sources.closed != 1 {
		t.Errorf("%d sources opened, %d closed; want 3 and 1: only that of the edited policy", b.sources.opened, b.sources.closed)
	}
	write(t, file, strings.Replace(scans, "maxReplicas: 7", "maxReplicas: 9", 1)+"---\n"+other)
	b.directory.Load(t.Context())

	// An edit that does not validate keeps the last good version, and says why.
	write(t, file, strings.Replace(scans, "maxReplicas: 7", "maxReplicas: -1", 1)+"---\n"+other)
	b.directory.Load(t.Context())
	_, invalid, _ := b.store.Get(types.NamespacedName{Namespace: "scan", Name: "scans"})
	if b.limit("scans") != 9 || invalid == nil || !strings.Contains(invalid.Error(), "spec.target.maxReplicas") {
		t.Errorf("cap %d, error %v; want 9 and the reason", b.limit("scans"), invalid)
	}

	// A file that does not parse takes nothing away, not even policies that are not found any more.
	write(t, file, "kind: [")
	b.directory.Load(t.Context())
	if b.limit("scans") != 9 || b.limit("other") != 7 || !strings.Contains(b.log.String(), "policy file is not valid") {
		t.Errorf("caps %d and %d after a broken file\n%s", b.limit("scans"), b.limit("other"), b.log)
	}

	write(t, file, other)
	b.directory.Load(t.Context())
	if b.limit("scans") != -1 || b.limit("other") != 7 || len(b.forgotten) != 1 {
		t.Errorf("caps %d and %d, forgotten %v; want the first policy gone", b.limit("scans"), b.limit("other"), b.forgotten)
	}
}

func TestDirectoryErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"misspelt field": {strings.Replace(scans, "maxReplicas", "maxReplica", 1), `spec.target.maxReplica: Forbidden: unknown field`},
		"other kind":     {strings.Replace(scans, "kind: ScalingPolicy", "kind: ScaledJob", 1), `must be ebbtide.dev/v1alpha1, ScalingPolicy`},
		"no name":        {strings.Replace(scans, "name: scans, ", "", 1), `metadata.name: name the policy`},
		"twice":          {scans + "---\n" + scans, `ScalingPolicy scan/scans is defined twice`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t)
			write(t, filepath.Join(b.dir, "p.yaml"), tc.text)
			b.directory.Load(t.Context())
			if !strings.Contains(b.log.String(), tc.want) {
				t.Errorf("log %s, want %q", b.log, tc.want)
			}
			before := b.log.Len()
			b.directory.Load(t.Context())
			if b.log.Len() != before {
				t.Error("the same error is logged again")
			}
		})
	}
}

// An edit is in force within a second; on a busy machine, one of several.
func TestDirectoryRun(t *testing.T) {
	b := newBundle(t)
	ctx, cancel := context.WithCancel(t.Context())
	loaded, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- b.directory.Run(ctx, func() { close(loaded) }) }()
	<-loaded
	fastest := time.Hour
	for limit := int32(7); limit < 12 && fastest > time.Second; limit++ {
		begin := time.Now()
		write(t, filepath.Join(b.dir, "scans.yaml"), strings.Replace(scans, "maxReplicas: 7", fmt.Sprint("maxReplicas: ", limit), 1))
		for ; b.limit("scans") != limit; time.Sleep(5 * time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("not in force within twenty seconds")
			}
		}
		fastest = min(fastest, time.Since(begin))
	}
	if fastest > time.Second {
		t.Errorf("an edit is in force after %s at best, want within a second", fastest)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// resolverFunc resolves by a function.
type resolverFunc func(*v1alpha1.ValueSource) (string, error)

func (f resolverFunc) Resolve(_ context.Context, _ string, value *v1alpha1.ValueSource) (string, error) {
	return f(value)
}

// secret is a Secret's value, or why it can't be read.
type secret struct {
	mu      sync.Mutex
	text    string
	failure error
	hangs   bool
	lookups int
}

func (s *secret) set(text string, failure error, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.failure, s.hangs = text, failure, hangs
}

func (s *secret) Resolve(ctx context.Context, _ string, _ *v1alpha1.ValueSource) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if s.hangs {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return s.text, s.failure
}

// Credentials are looked up when they are first needed, and again from time to time; while that fails or takes its time the last serve.
func TestSourceFollowsCredentials(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Time { return time.Unix(now.Load(), 0) }
	later := func() { now.Add(int64(resolveEvery.Seconds())) }
	uri := &secret{failure: errors.New("secretKeyRef: no such Secret")}
	opener := NewSources(backlog.SampleBounds{Timeout: 100 * time.Millisecond, Now: clock})
	spec := &v1alpha1.ScalingPolicySpec{Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{Queue: "scans"}}}
	source := opener.Open(spec, valuesOf("scan", uri))
	observe := func() string {
		t.Helper()
		_, err := source.Observe(t.Context(), 0)
		if err == nil {
			t.Fatal("there is no broker to observe")
		}
		return err.Error()
	}
	want := func(text string) {
		t.Helper()
		if got := observe(); !strings.Contains(got, text) {
			t.Errorf("error %q, want %q", got, text)
		}
	}
	const first, second = "broker 127.0.0.1:1", "broker 127.0.0.1:2"
	want("spec.backlog.rabbitmq.uri.secretKeyRef: no such Secret")
	uri.set("amqp://127.0.0.1:1", nil, false)
	want(first)
	uri.set("amqp://127.0.0.1:2", nil, false)
	want(first)
	if uri.lookups != 2 {
		t.Errorf("%d look-ups: credentials are looked up with every call", uri.lookups)
	}
	later()
	want(first) // nobody waits for the new ones
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(observe(), second); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second broker's credentials are not taken up")
		}
	}
	uri.set("", errors.New("the API server is away"), false)
	for range 3 {
		later()
		want(second)
	}
	uri.set("", nil, true)
	later()
	begin := time.Now()
	want(second)
	if took := time.Since(begin); took > resolveTimeout/2 {
		t.Errorf("a poll waited %s for an API server that hangs", took)
	}
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	want("a newer version of the policy is in force")
}

// However many ask while the API server hangs, each waits for the first look-up as long as one may, not for each other's.
func TestSourceWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opener := NewSources(backlog.SampleBounds{Timeout: time.Second, Now: time.Now})
		spec := &v1alpha1.ScalingPolicySpec{Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{Queue: "scans"}}}
		source := opener.Open(spec, valuesOf("scan", &secret{hangs: true}))
		var polls sync.WaitGroup
		begin := time.Now()
		for range 10 {
			polls.Go(func() {
				if _, err := source.Observe(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no answer within 5s") {
					t.Errorf("error %v", err)
				}
			})
		}
		polls.Wait()
		if took := time.Since(begin); took != resolveTimeout {
			t.Errorf("took %s, want %s", took, resolveTimeout)
		}
	})
}

package rabbitmq

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// Whatever the management API answers, or does not, is reported, and costs no more than its bounds; consumers count as busy then.
func TestManagement(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 10); return true }}
	uri := "amqp://u:s3cret@" + b.start(t)
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	zipped := func(body string, times int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			defer func() { _ = zip.Close() }()
			_, _ = io.WriteString(zip, "[")
			for range times {
				if _, err := io.WriteString(zip, body); err != nil {
					return
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string // of the failure; empty: none
	}{
		"well":            {text(200, `[{"name":"q","type":"classic","messages_unacknowledged":4}]`), ""},
		"wrong password":  {text(401, "no s3cret"), "management API: wrong user or password"},
		"wrong path":      {text(404, "no"), "managementURI is not that of a management API"},
		"unavailable":     {text(503, "no"), "management API: it answers 503 Service Unavailable"},
		"another program": {text(200, "<html>s3cret</html>"), "management API: the answer is no list of queues"},
		"an object":       {text(200, `{"error":"s3cret"}`), "management API: the answer is no list of queues"},
		"cut off":         {text(200, `[{"name":"q","messages_unacknowledged":4}`), "management API: the list of queues has no end"},
		"other types":     {text(200, `[{"name":7}]`), "management API: the list of queues can't be read"},
		"not listed":      {text(200, `[]`), `management API: it does not list queue "q"`},
		"without figures": {text(200, `[{"name":"q","type":"quorum","state":"down"}]`), `management API: it has no figures of queue "q"`},
		"redirected": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, "redirects to another server"},
		"a bomb of queues": {zipped(`{},`, 1<<28), "the virtual host has more than 200000 queues"},
		"a bomb of a name": {zipped(`{"name":"`+strings.Repeat("x", 1<<20), 1<<12), "management API: "},
		"queues by millions": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "[")
			for i := range maxQueues + 10 {
				fmt.Fprintf(w, `{"name":"%d"},`, i)
			}
		}, "the virtual host has more than 200000 queues"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			defer server.Close()
			source := open(t, NewBrokers(limits(4*time.Minute)), Config{Identity: at(uri), ManagementURI: server.URL, Queues: []string{"q"}})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			o, err := source.Observe(t.Context(), 0)
			runtime.ReadMemStats(&after)
			if err != nil || o.Consumers != 10 {
				t.Fatalf("%+v, %v", o, err)
			}
			if !strings.Contains(o.ManagementFailure, tc.want) || (o.ManagementFailure == "") != (tc.want == "") || strings.Contains(o.ManagementFailure, "s3cret") {
				t.Errorf("failure %q, want %q and no password", o.ManagementFailure, tc.want)
			}
			if known := tc.want == ""; o.UnacknowledgedKnown != known || known && o.Unacknowledged != 4 {
				t.Errorf("%d unacknowledged, known: %v", o.Unacknowledged, o.UnacknowledgedKnown)
			}
			if held := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20; held > 128 {
				t.Errorf("%d MiB are held", held)
			}
		})
	}
}

// What the management API does not tell of one policy's queue is told of no other, and a failure that has ended is seen to end while messages wait.
func TestManagementFailureIsOfItsOwn(t *testing.T) {
	var ready atomic.Uint32
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool {
		w.answer(channel, queue, ready.Load(), 10)
		return true
	}}
	uri := "amqp://u:s3cret@" + b.start(t)
	var well atomic.Bool
	well.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `[{"name":"listed","type":"classic","messages_unacknowledged":4}]`)
	}))
	defer server.Close()
	brokers := NewBrokers(limits(time.Minute))
	var clock atomic.Int64
	brokers.limits.Now = func() time.Time { return time.Unix(clock.Add(10), 0) } // nothing is kept from one observation to the next
	observed := func(queue string) string {
		t.Helper()
		o, err := open(t, brokers, Config{Identity: at(uri), ManagementURI: server.URL, Queues: []string{queue}}).Observe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return o.ManagementFailure
	}
	if failure := observed("tenant-a"); !strings.Contains(failure, `it does not list queue "tenant-a"`) {
		t.Errorf("failure %q", failure)
	}
	if failure := observed("listed"); failure != "" {
		t.Errorf("another policy is told %q", failure)
	}
	well.Store(false)
	source := open(t, brokers, Config{Identity: at(uri), ManagementURI: server.URL, Queues: []string{"listed"}})
	eventually(t, func() error {
		o, err := source.Observe(t.Context(), 0)
		if err == nil && !strings.Contains(o.ManagementFailure, "wrong user or password") {
			err = fmt.Errorf("failure %q", o.ManagementFailure)
		}
		return err
	})
	ready.Store(5)
	well.Store(true)
	eventually(t, func() error {
		o, err := source.Observe(t.Context(), 0)
		if err == nil && o.ManagementFailure != "" {
			err = fmt.Errorf("failure %q", o.ManagementFailure)
		}
		return err
	})
}

// Of a virtual host with very many queues only those are kept that a policy reads, a long answer serves for longer, and what a new policy reads is
// asked for at once.
func TestManagementKeepsLittle(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 10); return true }}
	uri := "amqp://u:s3cret@" + b.start(t)
	var asked atomic.Int64
	long := strings.Repeat("x", 200)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "[")
		for i := range 100_000 {
			fmt.Fprintf(w, `{"name":"%s-%d","type":"classic","messages_unacknowledged":4},`, long, i)
		}
		_, _ = io.WriteString(w, `{"name":"q","type":"classic","messages_unacknowledged":4},{"name":"more","type":"classic","messages_unacknowledged":5}]`)
	}))
	defer server.Close()
	brokers := NewBrokers(limits(4 * time.Minute))
	var clock atomic.Int64
	brokers.limits.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	config := Config{Identity: at(uri), ManagementURI: server.URL, Queues: []string{"q"}}
	source := open(t, brokers, config)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	want := func(when string, source backlog.Source, unacknowledged, calls int64) {
		t.Helper()
		o, err := source.Observe(t.Context(), 0)
		if err != nil || !o.UnacknowledgedKnown || o.Unacknowledged != unacknowledged || o.ManagementFailure != "" {
			t.Errorf("%s: %+v, %v", when, o, err)
		}
		if n := asked.Load(); n != calls {
			t.Errorf("%s: %d calls, want %d", when, n, calls)
		}
	}
	want("first", source, 4, 1)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20; held > 4 {
		t.Errorf("%d MiB are held", held)
	}
	clock.Add(15)
	want("15 s later", source, 4, 1)
	config.Queues = []string{"more"}
	want("of another policy", open(t, brokers, config), 5, 2)
	want("of both", source, 4, 2)
	if err := source.Close(); err != nil {
		t.Error(err)
	}
	for _, m := range brokers.management {
		if len(m.read.queues) != 1 || m.read.queues["more"] != 1 {
			t.Errorf("%v is of interest", m.read.queues)
		}
	}
}

// A user who may not ask a queue's leader learns of a queue without one by the management API, which does not list it.
func TestUnprovenEmptiness(t *testing.T) {
	b := &brokenBroker{
		declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 0); return true },
		get: func(w *wire, channel uint16, queue string) bool {
			w.closeChannel(channel, 403, fmt.Sprintf("ACCESS_REFUSED - read access to queue '%s' in vhost '/' refused for user 'u'", queue))
			return true
		},
	}
	uri := "amqp://u:s3cret@" + b.start(t)
	var away atomic.Bool
	management := listing(t, func() map[string]string {
		if away.Load() {
			return nil
		}
		return map[string]string{"empty": ""}
	})
	brokers := NewBrokers(limits(time.Minute))
	var clock atomic.Int64
	brokers.limits.Now = func() time.Time { return time.Unix(clock.Add(10), 0) } // nothing is kept from one observation to the next
	for range 2 {
		for queue, want := range map[string]string{"empty": "", "leaderless": `queue "leaderless": it looks empty, and the management API does not list it`} {
			o, err := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Queues: []string{queue}}).Observe(t.Context(), 0)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %+v, error %v, want %q", queue, o, err, want)
			}
		}
	}
	away.Store(true)
	eventually(t, func() error {
		o, err := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Queues: []string{"leaderless"}}).Observe(t.Context(), 0)
		if err == nil && o.ManagementFailure == "" {
			err = errors.New("no failure is told")
		}
		return err
	})
}

// A management API that is slow is asked more rarely: what a broker does for it delays the other answers of everybody.
func TestSlowManagementIsAskedRarely(t *testing.T) {
	for took, most := range map[time.Duration]int64{0: 21, 60 * time.Millisecond: 8, 2 * time.Second: 3} {
		t.Run(took.String(), func(t *testing.T) {
			b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 10); return true }}
			bounds := limits(time.Minute)
			var now, asked atomic.Int64
			begin := bounds.Now()
			bounds.Now = func() time.Time { return begin.Add(time.Duration(now.Load())) }
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				now.Add(int64(took))
				asked.Add(1)
				_, _ = io.WriteString(w, `[{"name":"q","type":"classic","messages_unacknowledged":4}]`)
			}))
			defer server.Close()
			source := open(t, NewBrokers(bounds), Config{Identity: at("amqp://u:s3cret@" + b.start(t)), ManagementURI: server.URL, Queues: []string{"q"}})
			for range 20 {
				if o, err := source.Observe(t.Context(), 0); err != nil || o.Unacknowledged != 4 {
					t.Fatalf("%+v, %v", o, err)
				}
				time.Sleep(5 * time.Millisecond) // what is read in the background has come
				now.Add(int64(time.Second))
			}
			if got := asked.Load(); got < 2 || got > most {
				t.Errorf("asked %d times in 20 s, want 2 to %d", got, most)
			}
		})
	}
}

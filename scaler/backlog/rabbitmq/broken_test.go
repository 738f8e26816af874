package rabbitmq

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// wire is a broker's end of a connection, as far as it must be spoken to be broken in the right place.
type wire struct {
	net.Conn
	*bufio.Reader
	mu sync.Mutex
}

func short(text string) []byte { return append([]byte{byte(len(text))}, text...) }
func long(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}
func number(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// send sends a method.
func (w *wire) send(channel, class, method uint16, arguments ...[]byte) {
	payload := append(number(class), number(method)...)
	for _, argument := range arguments {
		payload = append(payload, argument...)
	}
	frame := append([]byte{1}, number(channel)...)
	frame = append(append(binary.BigEndian.AppendUint32(frame, uint32(len(payload))), payload...), 0xCE)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.Write(frame)
}

// receive waits for a method and returns its channel, class, method and arguments.
func (w *wire) receive() (channel, class, method uint16, arguments []byte, err error) {
	for {
		var header [7]byte
		if _, err = io.ReadFull(w.Reader, header[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[3:])+1)
		if _, err = io.ReadFull(w.Reader, payload); err != nil {
			return
		}
		if header[0] == 1 {
			return binary.BigEndian.Uint16(header[1:]), binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4 : len(payload)-1], nil
		}
	}
}

// Read of a wire is buffered.
func (w *wire) Read(p []byte) (int, error) { return w.Reader.Read(p) }

func (w *wire) closeConnection(code uint16, text string) {
	w.send(0, 10, 50, number(code), short(text), number(0), number(0))
}

func (w *wire) closeChannel(channel, code uint16, text string) {
	w.send(channel, 20, 40, number(code), short(text), number(50), number(10))
}

// brokenBroker is a broker that behaves until a hook says otherwise. A hook that returns false ends the connection there.
type brokenBroker struct {
	capabilities string // its table
	channelMax   uint16
	// hello, login and open come before the connection is accepted, the user is, and the virtual host is.
	hello, login, open func(*wire) bool
	// opened comes when the connection is open, and declare for each question about a queue.
	opened  func(*wire) bool
	declare func(w *wire, channel uint16, queue string) bool
	// get comes for each basic.get.
	get func(w *wire, channel uint16, queue string) bool

	connections, declared atomic.Int64
}

// candidCapabilities are a table with capabilities {authentication_failure_close: true}.
func candidCapabilities() string {
	inner := string(short(failureClose)) + "t\x01"
	return string(short("capabilities")) + "F" + string(long(inner))
}

func (b *brokenBroker) start(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			b.connections.Add(1)
			go b.serve(&wire{Conn: c, Reader: bufio.NewReader(c)})
		}
	})
	return listener.Addr().String()
}

func (b *brokenBroker) serve(w *wire) {
	defer w.Close()
	passes := func(hook func(*wire) bool) bool { return hook == nil || hook(w) }
	if _, err := io.ReadFull(w, make([]byte, 8)); err != nil || !passes(b.hello) {
		return
	}
	w.send(0, 10, 10, []byte{0, 9}, long(b.capabilities), long("PLAIN AMQPLAIN"), long("en_US"))
	if _, _, _, _, err := w.receive(); err != nil || !passes(b.login) {
		return
	}
	w.send(0, 10, 30, number(b.channelMax), binary.BigEndian.AppendUint32(nil, 1<<17), number(60))
	for range 2 { // tune-ok, open
		if _, _, _, _, err := w.receive(); err != nil {
			return
		}
	}
	if !passes(b.open) {
		return
	}
	w.send(0, 10, 41, short(""))
	if !passes(b.opened) {
		return
	}
	for {
		channel, class, method, arguments, err := w.receive()
		switch {
		case err != nil:
			return
		case class == 10 && method == 50:
			w.send(0, 10, 51)
			return
		case class == 20 && method == 10:
			w.send(channel, 20, 11, long(""))
		case class == 20 && method == 40:
			w.send(channel, 20, 41)
		case class == 50 && method == 10:
			b.declared.Add(1)
			queue := string(arguments[3 : 3+arguments[2]])
			if b.declare != nil {
				if !b.declare(w, channel, queue) {
					return
				}
				continue
			}
			w.answer(channel, queue, 3, 1)
		case class == 60 && method == 70:
			if b.get == nil {
				w.send(channel, 60, 72, short(""))
			} else if !b.get(w, channel, string(arguments[3:3+arguments[2]])) {
				return
			}
		}
	}
}

// answer tells the counts of a queue.
func (w *wire) answer(channel uint16, queue string, ready, consumers uint32) {
	w.send(channel, 50, 11, short(queue), binary.BigEndian.AppendUint32(nil, ready), binary.BigEndian.AppendUint32(nil, consumers))
}

func linger(*wire) bool { time.Sleep(time.Minute); return false }
func cut(*wire) bool    { return false }

// A broker that accepts a connection and ends it ends no process, and is not dialed without a pause.
func TestClosedAfterOpen(t *testing.T) {
	for name, end := range map[string]func(*wire) bool{
		"cut": cut,
		"closed": func(w *wire) bool {
			w.closeConnection(320, "CONNECTION_FORCED - broker forced connection closure")
			return false
		},
		"cut at a question": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := &brokenBroker{opened: end}
			if end == nil {
				b.declare = func(*wire, uint16, string) bool { return false }
			}
			uri := "amqp://u:s3cret@" + b.start(t)
			brokers := NewBrokers(limits(time.Second))
			var all sync.WaitGroup
			for i := range 50 {
				source := open(t, brokers, Config{Identity: at(uri), Queues: []string{"one", fmt.Sprint("other-", i)}})
				all.Go(func() {
					for range 20 {
						if _, err := source.Observe(t.Context(), 0); err == nil || strings.Contains(err.Error(), "s3cret") {
							t.Errorf("error %v", err)
							return
						}
					}
				})
			}
			all.Wait()
			if n := b.connections.Load(); n > 6 {
				t.Errorf("%d connections in a moment", n)
			}
		})
	}
}

// The reason that a broker gives is told, and none is made up.
func TestRefusals(t *testing.T) {
	closing := func(code uint16, text string) func(*wire) bool {
		return func(w *wire) bool { w.closeConnection(code, text); return linger(w) }
	}
	for name, tc := range map[string]struct {
		broker     *brokenBroker
		want, lies string
	}{
		"password": {
			&brokenBroker{login: closing(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")},
			`the broker refuses user "u": correct the user or the password`, "",
		},
		"cut while the user is checked, by a broker that would say so": {
			&brokenBroker{capabilities: candidCapabilities(), login: cut}, "the connection was cut while the user was checked: EOF", "password",
		},
		"cut while the user is checked": {&brokenBroker{login: cut}, "a broker of this kind does the same for a wrong password", "refuses"},
		"cut before":                    {&brokenBroker{hello: cut}, "the connection was cut before it greeted: EOF", "password"},
		"not AMQP":                      {&brokenBroker{hello: func(w *wire) bool { _, _ = io.WriteString(w, "HTTP/1.1 400 Bad Request\r\n\r\n"); return false }}, "before it greeted", "password"},
		"user limit": {
			&brokenBroker{open: closing(530, "NOT_ALLOWED - connection refused for user 'u': user connection limit (1) is reached")},
			"a limit of connections is reached: the broker says", "does not exist",
		},
		"virtual host's limit": {
			&brokenBroker{open: closing(530, "NOT_ALLOWED - access to vhost '/' refused for user 'u': connection limit (1) is reached")},
			"a limit of connections is reached: the broker says", "does not exist",
		},
		"virtual host": {
			&brokenBroker{open: closing(530, "NOT_ALLOWED - vhost / not found")}, `virtual host "/" does not exist, or user "u" may not use it`, "limit",
		},
		"virtual host down": {
			&brokenBroker{open: closing(541, "INTERNAL_ERROR - access to vhost '/' refused for user 'u': vhost '/' is down")}, `virtual host "/" is down`, "does not exist",
		},
		"cut while the virtual host is opened": {&brokenBroker{open: cut}, "the connection was cut while the virtual host was opened", "does not exist"},
		"silent while the virtual host is opened": {
			&brokenBroker{open: linger}, "no answer within 1s", "does not exist",
		},
		"something else": {
			&brokenBroker{open: closing(541, "INTERNAL_ERROR - out of\nmemory")}, `it says "INTERNAL_ERROR - out of memory" (541)`, "",
		},
		"a broker that repeats the password": {&brokenBroker{open: closing(541, "INTERNAL_ERROR - u s3cret")}, `it says "INTERNAL_ERROR - u (secret)"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := open(t, NewBrokers(limits(time.Second)), Config{Identity: at("amqp://u:s3cret@" + tc.broker.start(t)), Queues: []string{"q"}})
			_, err := source.Observe(t.Context(), 0)
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.lies != "" && strings.Contains(err.Error(), tc.lies) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v, want %q and neither %q nor the password", err, tc.want, tc.lies)
			}
		})
	}
}

// What a broker answers to a question about one queue is told of that queue alone.
func TestQueueAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		code    uint16
		text    string
		missing bool
		want    string
	}{
		"missing":                {404, "NOT_FOUND - no queue 'bad' in vhost '/'", true, ""},
		"home node down":         {404, "NOT_FOUND - home node 'rabbit@b' of durable queue 'bad' in vhost '/' is down or inaccessible", false, "is down or inaccessible"},
		"stopped":                {404, "NOT_FOUND - queue 'bad' in vhost '/' process is stopped by supervisor", false, "stopped by supervisor"},
		"timed out":              {404, "NOT_FOUND - failed to perform operation on queue 'bad' in vhost '/' due to timeout", false, "due to timeout"},
		"another queue":          {404, "NOT_FOUND - no queue 'bad2' in vhost '/'", false, "no queue 'bad2'"},
		"another vhost's broker": {404, "NOT_FOUND - no exchange 'bad' in vhost '/'", false, "no exchange"},
		"no reason":              {404, "", false, "it exists and can't be reached"},
		"permission":             {403, "ACCESS_REFUSED - access to queue 'bad' in vhost '/' refused for user 'u'", false, "the broker refuses access: give the user the read permission on it"},
		"exclusive":              {405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'bad' in vhost '/'", false, "exclusive to another connection"},
		"precondition":           {406, "PRECONDITION_FAILED - odd", false, "PRECONDITION_FAILED - odd"},
		"not known":              {311, "CONTENT_TOO_LARGE - odd", false, "CONTENT_TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool {
				if queue == "bad" {
					w.closeChannel(channel, tc.code, tc.text)
				} else {
					w.answer(channel, queue, 7, 0)
				}
				return true
			}}
			uri := "amqp://u:p@" + b.start(t)
			brokers := NewBrokers(limits(2 * time.Second))
			bad, healthy := open(t, brokers, Config{Identity: at(uri), Queues: []string{"bad"}}), open(t, brokers, Config{Identity: at(uri), Queues: []string{"good"}})
			for range 5 {
				o, err := bad.Observe(t.Context(), 0)
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) || (len(o.Missing) == 1) != tc.missing {
					t.Fatalf("missing: %q, %v; want %q", o.Missing, err, tc.want)
				}
				if o, err := healthy.Observe(t.Context(), 0); err != nil || o.Ready != 7 {
					t.Errorf("the healthy queue: %+v, %v", o, err)
				}
			}
			if n := b.connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A long name is cut in what the broker says of it.
func TestMissingLongName(t *testing.T) {
	name := strings.Repeat("ž", 127)
	said := func(text string) *amqp.Error { return &amqp.Error{Code: 404, Reason: text, Server: true} }
	text := "NOT_FOUND - no queue '" + name + "' in vhost '/'"
	for text, want := range map[string]bool{
		text[:252] + "...": true, text: true, "NOT_FOUND - no queue '" + name[:100] + "' in vhost '/'": false, "NOT_FOUND - no queue 'x...": false,
	} {
		if isMissing(name, said(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// A queue whose question makes the broker close the connection disturbs no other: it is left alone, and its name is in no other's error.
func TestQueueThatEndsConnections(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]string{
		"named":     "INTERNAL_ERROR - odd state of queue 'tenant-a-secret' in vhost '/'",
		"not named": "INTERNAL_ERROR",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool {
				if queue == "tenant-a-secret" {
					w.closeConnection(541, reason)
					return linger(w)
				}
				w.answer(channel, queue, 7, 0)
				return true
			}}
			uri := "amqp://u:p@" + b.start(t)
			brokers := NewBrokers(limits(time.Minute)) // that is never over: none of these questions takes long
			bad := open(t, brokers, Config{Identity: at(uri), Queues: []string{"tenant-a-secret"}})
			var healthy, all sync.WaitGroup
			done := make(chan struct{})
			for i := range 10 {
				source := open(t, brokers, Config{Identity: at(uri), Queues: []string{fmt.Sprint("good-", i)}})
				healthy.Go(func() {
					for range 20 {
						if o, err := source.Observe(t.Context(), 0); err != nil || o.Ready != 7 {
							t.Errorf("a healthy policy: %+v, %v", o, err)
							return
						}
					}
				})
			}
			all.Go(func() {
				for {
					if _, err := bad.Observe(t.Context(), 0); err == nil {
						t.Error("no error")
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
			healthy.Wait()
			close(done)
			all.Wait()
			// The first one, the one after it, and two on which those that were under way are tried one by one: until the culprit, and after it.
			if n := b.connections.Load(); n > 4 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A connection that a question ended is judged by what the broker said, whoever looks at it first and whatever the call was told: the library
// tells some calls the reason, and others only that the connection is closed.
func TestEndedConnectionIsJudgedByItsReason(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, _ uint16, _ string) bool {
		w.closeConnection(541, "INTERNAL_ERROR")
		return linger(w)
	}}
	address, err := parseURIs("amqp://u:p@"+b.start(t), "", "")
	if err != nil {
		t.Fatal(err)
	}
	config, err := backlog.TLS{}.Config()
	if err != nil {
		t.Fatal(err)
	}
	told := func(channel *amqp.Channel) (int, error) { // asks about q, and hears less than the broker says
		if _, err := channel.QueueDeclarePassive("q", false, false, false, false, nil); err == nil {
			t.Error("the connection is not ended")
		}
		return 0, amqp.ErrClosed
	}
	t.Run("by the next caller", func(t *testing.T) {
		l := newLink(address, config, limits(time.Minute))
		defer l.close()
		first, err := l.connect(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		first.questions.begin()
		channel, err := first.Channel()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = told(channel)
		if second, err := l.connect(t.Context(), "other"); err != nil || second == first {
			t.Errorf("others are put off: %v", err)
		}
	})
	t.Run("asked alone", func(t *testing.T) {
		l := newLink(address, config, limits(time.Minute))
		defer l.close()
		if _, err := ask(t.Context(), l, "q", told); err == nil || !strings.Contains(err.Error(), "asking for it makes the broker close the connection") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("while others wait for a place", func(t *testing.T) {
		l := newLink(address, config, limits(time.Minute))
		defer l.close()
		first, err := l.connect(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		for range cap(first.slots) {
			<-first.slots
		}
		first.questions.begin()
		placed := make(chan error, 1)
		go func() {
			_, _, err := l.place(t.Context(), "other")
			placed <- err
		}()
		channel, err := first.Channel()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = told(channel)
		if err := <-placed; err != nil {
			t.Error(err)
		}
	})
	t.Run("asked beside others", func(t *testing.T) {
		l := newLink(address, config, limits(time.Minute))
		defer l.close()
		first, err := l.connect(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		first.questions.begin()
		before := b.connections.Load()
		if _, err := ask(t.Context(), l, "q", told); err == nil || !l.suspected("q") {
			t.Errorf("not suspected: %v", err)
		}
		if b.connections.Load() != before {
			t.Error("it is asked again before it is tried")
		}
	})
}

// A broker that allows few channels, or one, serves as many queues as any.
func TestFewChannels(t *testing.T) {
	t.Parallel()
	for _, most := range []int64{1, 2, 8} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			for _, said := range []bool{true, false} { // when it is connected to, or by closing the connection on one more
				opened := map[*wire]map[uint16]bool{}
				var mu sync.Mutex
				b := &brokenBroker{}
				if said {
					b.channelMax = uint16(most)
				}
				b.declare = func(w *wire, channel uint16, queue string) bool {
					mu.Lock()
					if opened[w] == nil {
						opened[w] = map[uint16]bool{}
					}
					opened[w][channel] = true
					n := len(opened[w])
					mu.Unlock()
					if int64(n) > most {
						w.closeConnection(530, "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (x)")
						return linger(w)
					}
					time.Sleep(time.Millisecond)
					w.answer(channel, queue, 1, 0)
					return true
				}
				var queues []string
				for i := range 20 {
					queues = append(queues, fmt.Sprint("q-", i))
				}
				source := open(t, NewBrokers(limits(time.Minute)), Config{Identity: at("amqp://u:p@" + b.start(t)), Queues: queues})
				eventually(t, func() error {
					o, err := source.Observe(t.Context(), 0)
					if err == nil && o.Ready != 20 {
						err = fmt.Errorf("%+v", o)
					}
					return err
				})
				for range 20 {
					if o, err := source.Observe(t.Context(), 0); err != nil || o.Ready != 20 {
						t.Errorf("said: %v: %+v, %v", said, o, err)
					}
				}
				if n := b.connections.Load(); n > 8 {
					t.Errorf("said: %v: %d connections", said, n)
				}
			}
		})
	}
}

// A queue that looks empty is asked for at its leader, over a connection of its own.
func TestEmptyIsConfirmed(t *testing.T) {
	t.Parallel()
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 0); return true }}
	source := open(t, NewBrokers(limits(2*time.Second)), Config{Identity: at("amqp://u:p@" + b.start(t)), Queues: []string{"q"}})
	observe(t, source, sizing.Observation{})
	if n := b.connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A queue that looks empty and has no leader is not empty, in whichever way its leader's silence shows; the empty ones beside it are.
func TestLeaderless(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		get  func(w *wire, channel uint16) bool
		want string // of the error; empty: none
	}{
		"no answer": {func(*wire, uint16) bool { return true }, "no leader says so"},
		"timed out": {func(w *wire, channel uint16) bool {
			w.closeChannel(channel, 404, "NOT_FOUND - failed to perform operation on queue 'bad' in vhost '/' due to timeout")
			return true
		}, "no leader says so"},
		"the connection is closed": {func(w *wire, _ uint16) bool {
			w.closeConnection(541, "INTERNAL_ERROR - Cannot get a message from queue 'bad' in vhost '/': noproc")
			return linger(w)
		}, "no leader says so"},
		"a stream": {func(w *wire, _ uint16) bool {
			w.closeConnection(540, "NOT_IMPLEMENTED - basic.get not supported by stream queues queue 'bad' in vhost '/'")
			return linger(w)
		}, "it is a stream"},
		"not allowed to read": {func(w *wire, channel uint16) bool {
			w.closeChannel(channel, 403, "ACCESS_REFUSED - read access to queue 'bad' in vhost '/' refused for user 'u'")
			return true
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &brokenBroker{
				declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 0); return true },
				get: func(w *wire, channel uint16, queue string) bool {
					if queue == "bad" {
						return tc.get(w, channel)
					}
					w.send(channel, 60, 72, short(""))
					return true
				},
			}
			uri := "amqp://u:p@" + b.start(t)
			brokers := NewBrokers(limits(time.Second))
			bad, empty := open(t, brokers, Config{Identity: at(uri), Queues: []string{"bad"}}), open(t, brokers, Config{Identity: at(uri), Queues: []string{"empty"}})
			for range 3 {
				o, err := bad.Observe(t.Context(), 0)
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("%d ready, %v; want %q", o.Ready, err, tc.want)
				}
				if o, err := empty.Observe(t.Context(), 0); err != nil || o.Ready != 0 {
					t.Fatalf("an empty queue: %d ready, %v", o.Ready, err)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		strings.Repeat("č", 130): "its name has 260 bytes, and a queue's name has at most 255", "a\x00b": "no queue has such a name", "\xff": "no queue has such a name", "": "no queue",
	} {
		if _, err := NewBrokers(limits(time.Second)).Open(Config{Identity: at("amqp://b"), Queues: []string{name}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", name, err, want)
		}
	}
	if _, err := NewBrokers(limits(time.Second)).Open(Config{Identity: at("amqp://b"), Queues: []string{strings.Repeat("q", 255)}}); err != nil {
		t.Error(err)
	}
}

// A panic in what serves a policy is that policy's error.
func TestPanicIsAnError(t *testing.T) {
	var told atomic.Int64
	bounds := limits(time.Second)
	bounds.OnPanic = func(cause any) {
		if fmt.Sprint(cause) != "odd" {
			t.Error(cause)
		}
		told.Add(1)
	}
	err := bounds.Guard(func() error { panic("odd") })
	if err == nil || !strings.Contains(err.Error(), "a fault of the scaler itself, please report it: odd") || told.Load() != 1 {
		t.Errorf("error %v, told %d times", err, told.Load())
	}
	if inner := errors.New("inner"); !errors.Is(bounds.Guard(func() error { return inner }), inner) {
		t.Error("an error is not passed on")
	}
}

// A question is alone only if none was under way when it began and none came since, whatever the moment.
func TestQuestions(t *testing.T) {
	var q questions
	one, first := q.begin()
	if !first || q.ever() != one {
		t.Errorf("the first of all is not alone")
	}
	two, first := q.begin()
	if first || q.ever() == one || q.ever() != two {
		t.Errorf("two are told to be alone")
	}
	q.end()
	q.end()
	if three, first := q.begin(); !first || three != 3 || q.ever() != 3 {
		t.Errorf("after the others have ended: number %d, first %t", three, first)
	}
	// Of many at once none is alone but the one that begins after the ends of all others.
	var all sync.WaitGroup
	q = questions{}
	hold := make(chan struct{})
	var alone atomic.Int64
	for range 64 {
		all.Go(func() {
			number, first := q.begin()
			<-hold
			if first && q.ever() == number {
				alone.Add(1)
			}
		})
	}
	for q.ever() < 64 {
		runtime.Gosched()
	}
	close(hold)
	if all.Wait(); alone.Load() > 0 {
		t.Errorf("%d of 64 were alone", alone.Load())
	}
}

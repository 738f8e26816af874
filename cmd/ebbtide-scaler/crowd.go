package main

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// crowd is a listener with at most so many connections, whoever opens how many: a new one takes the place of the oldest that is not in use, or
// else of the oldest. Nobody who keeps connections open keeps others out, a kubelet's probe least of all.
type crowd struct {
	net.Listener
	most int

	mu   sync.Mutex
	open list.List // of *guest, in the order in which they came
}

func newCrowd(listener net.Listener, most int) *crowd { return &crowd{Listener: listener, most: most} }

// guest is a connection of a crowd.
type guest struct {
	net.Conn
	crowd *crowd
	place *list.Element // guarded by the crowd's mu, as inUse is; nil: it was closed
	inUse bool
	// speaks is that it is in use as soon as it says something.
	speaks atomic.Bool
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, crowd: c}
	c.mu.Lock()
	g.place = c.open.PushBack(g)
	leaves := c.leaves()
	c.mu.Unlock()
	if leaves != nil {
		_ = leaves.Close()
	}
	return g, nil
}

// leaves returns who must go, nil if nobody must. The lock is held.
func (c *crowd) leaves() *guest {
	if c.open.Len() <= c.most {
		return nil
	}
	for e := c.open.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); !g.inUse && e != c.open.Back() {
			return g
		}
	}
	return c.open.Front().Value.(*guest)
}

// Read implements net.Conn.
func (g *guest) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 && g.speaks.CompareAndSwap(true, false) {
		g.use(true)
	}
	return n, err
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	if g.place != nil {
		g.crowd.open.Remove(g.place)
		g.place = nil
	}
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

func (g *guest) use(is bool) {
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.inUse = is
}

// httpState is an http.Server's ConnState: a connection is in use while a request is answered.
func httpState(conn net.Conn, state http.ConnState) {
	if g, ok := conn.(*guest); ok {
		g.use(state == http.StateActive)
	}
}

// noting are credentials by which a connection is in use from its handshake on: its client has shown who it is. Where none need do so, it is in use
// when it says something.
type noting struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (n noting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := n.TransportCredentials.ServerHandshake(raw)
	if g, ok := raw.(*guest); ok && err == nil {
		if n.Info().SecurityProtocol == "insecure" {
			g.speaks.Store(true)
		} else {
			g.use(true)
		}
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (n noting) Clone() credentials.TransportCredentials {
	return noting{n.TransportCredentials.Clone()}
}

// turns bound how many requests of a kind are answered at the same time.
type turns chan struct{}

// serve answers a request when it is its turn.
func (t turns) serve(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), turnWithin)
	defer cancel()
	select {
	case t <- struct{}{}:
		defer func() { <-t }()
	case <-ctx.Done():
		http.Error(w, "too many ask for this at the same time: try again", http.StatusServiceUnavailable)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(turnWithin)) // a test's writer has none
	answer(w, r)
}

// Package draining is a worker's stream to the scheduler's leader: proto/ebbtide/draining/v1alpha1. It knows an address, a name and a UID, and
// nothing of Kubernetes. Without a stream the worker behaves as if there were no scheduler.
package draining

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	drainingv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/draining/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker"
)

// Config of a stream.
type Config struct {
	// Address of the leader, host:port. A name with several addresses is tried at each: only the leader listens.
	Address string
	// PodName and PodUID say who the worker is.
	PodName, PodUID string
	// TLS; nil: none.
	TLS *tls.Config
	// RetryAfter is the longest pause after the first failure; it doubles up to RetryAtMost. 0: a second, and half a minute.
	RetryAfter, RetryAtMost time.Duration
	Log                     *slog.Logger
}

// Timeouts. A stream whose first answer does not come is given up; a dead connection is found by pings.
const (
	connectWithin          = 5 * time.Second
	pingEvery, pingTimeout = 20 * time.Second, 10 * time.Second
	maxMessageBytes        = 4 << 10
)

// Stream implements worker.Scheduler. It connects, and connects again, in the background.
type Stream struct {
	config Config
	stop   context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	state   worker.State
	said    uint64        // counts messages
	news    chan struct{} // there is something to say
	word    worker.Word
	changed chan struct{}
	quiet   bool // the failure to connect was logged
}

var _ worker.Scheduler = (*Stream)(nil)

// Open begins to connect.
func Open(config Config) (*Stream, error) {
	if _, _, err := net.SplitHostPort(config.Address); err != nil {
		return nil, fmt.Errorf("the scheduler's address %q: want host:port: %w", config.Address, err)
	}
	if config.PodName == "" || config.PodUID == "" {
		return nil, errors.New("a pod's name and UID are needed to speak to the scheduler: set $POD_NAME and $POD_UID by the downward API")
	}
	if config.RetryAfter == 0 {
		config.RetryAfter, config.RetryAtMost = time.Second, 30*time.Second
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Stream{config: config, stop: stop, done: make(chan struct{}), news: make(chan struct{}, 1), changed: make(chan struct{})}
	go s.run(ctx)
	return s, nil
}

// Close ends the stream.
func (s *Stream) Close() {
	s.stop()
	<-s.done
}

// Say implements worker.Scheduler.
func (s *Stream) Say(state worker.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	s.said++
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// Word implements worker.Scheduler.
func (s *Stream) Word() (worker.Word, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.word, s.changed
}

func (s *Stream) hear(word worker.Word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.word == word {
		return
	}
	s.word = word
	close(s.changed)
	s.changed = make(chan struct{})
}

// run holds a stream open until ctx ends.
func (s *Stream) run(ctx context.Context) {
	defer close(s.done)
	pause := s.config.RetryAfter
	for {
		heard, err := s.attend(ctx)
		s.hear(worker.Word{})
		if ctx.Err() != nil {
			return
		}
		if heard {
			pause, s.quiet = s.config.RetryAfter, false
		}
		if !s.quiet {
			s.config.Log.Warn("the scheduler does not hear this worker, which works without it; trying again", "address", s.config.Address, "error", err)
			s.quiet = true
		}
		select { // full jitter: all workers lose a leader at the same time
		case <-ctx.Done():
			return
		case <-time.After(rand.N(pause) + time.Millisecond):
		}
		pause = min(2*pause, s.config.RetryAtMost)
	}
}

// attend opens a stream and follows it to its end. Heard says whether anything came.
func (s *Stream) attend(ctx context.Context) (heard bool, err error) {
	security := insecure.NewCredentials()
	if s.config.TLS != nil {
		security = credentials.NewTLS(s.config.TLS)
	}
	target := s.config.Address
	if !strings.Contains(target, "://") {
		target = "dns:///" + target
	}
	// A connection of its own for each attempt: the name may have other addresses by then.
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(security), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectWithin}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}))
	if err != nil {
		return false, err
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	giveUp := time.AfterFunc(2*connectWithin, cancel)
	defer giveUp.Stop()
	rpc, err := drainingv1alpha1.NewDrainingServiceClient(connection).Attend(ctx)
	if err != nil {
		return false, err
	}
	var speaking sync.WaitGroup
	speaking.Go(func() { s.speak(ctx, rpc) })
	defer func() {
		cancel()
		speaking.Wait()
	}()
	for {
		response, err := rpc.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return heard, status.Error(codes.Unavailable, "the scheduler ended the stream")
		case err != nil:
			return heard, err
		}
		giveUp.Stop()
		heard = true
		word := worker.Word{Heard: true, Leave: response.GetLeave(), Reason: response.GetReason(), NodeWorks: response.GetNodeWorks()}
		if since := response.GetSinceWork(); since != nil {
			word.LastWork = time.Now().Add(-since.AsDuration())
		}
		s.hear(word)
	}
}

// speak says what the worker does, first and at every change.
func (s *Stream) speak(ctx context.Context, rpc drainingv1alpha1.DrainingService_AttendClient) {
	request := &drainingv1alpha1.AttendRequest{PodName: s.config.PodName, PodUid: s.config.PodUID}
	for last := uint64(0); ; {
		s.mu.Lock()
		state, said := s.state, s.said
		s.mu.Unlock()
		if request.PodUid != "" || said != last {
			request.State = map[worker.State]drainingv1alpha1.State{
				worker.Busy: drainingv1alpha1.State_STATE_BUSY, worker.Idle: drainingv1alpha1.State_STATE_IDLE, worker.Leaving: drainingv1alpha1.State_STATE_LEAVING,
			}[state]
			if err := rpc.Send(request); err != nil {
				return // Recv has the cause
			}
			request, last = &drainingv1alpha1.AttendRequest{}, said
		}
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		}
	}
}

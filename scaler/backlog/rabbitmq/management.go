package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

const (
	// totalsAge is how old the totals of a virtual host may be before newer ones are read. Nobody waits for these while the last
	// ones are not older than totalsTolerated: those of quorum queues lag by five seconds anyway.
	totalsAge       = time.Second
	totalsTolerated = 5 * time.Second
	// finishedAge and finishedTolerated are the same for counts of acknowledged messages: only differences over minutes are used.
	finishedAge       = 10 * time.Second
	finishedTolerated = time.Minute
	failurePause      = time.Second
	// restPerMiB is how long an answer serves at least for each MiB of it, so that a server of long ones costs little of anybody's processors.
	restPerMiB = time.Second
	// restShare is how many times as long as it took an answer serves at least, up to maxRest: a broker asks each of a thousand queues for it, which
	// takes tens of milliseconds in which it is slow for all.
	restShare = 50
	maxRest   = 10 * time.Second
	// maxAnswer bounds an answer of the management API, and maxQueues the queues in it.
	maxAnswer = 32 << 20
	maxQueues = 200_000
)

var errAway = errors.New("management API: no answer")

// management asks a broker's management API for what AMQP does not tell, of all queues of a virtual host at once.
type management struct {
	base    string
	secrets []string
	client  *http.Client
	limits  backlog.SampleBounds

	mu      sync.Mutex
	retryAt time.Time     // until when it is not asked, as it failed
	failed  string        // why the last call failed; empty: it did not
	rest    time.Duration // how long the longest of the last answers serves
	read    interest      // what sources read

	totals   *backlog.Cached[*survey[totals]]
	finished *backlog.Cached[*survey[int64]]
}

// interest is which queues sources read. Of the others nothing is kept: a virtual host may have very many.
type interest struct {
	round    int // grows with it
	queues   map[string]int
	patterns map[string]int
}

// survey is an answer, as far as somebody is interested in it.
type survey[V any] struct {
	round  int // of the interest when it was asked for
	queues map[string]V
	// matches is how many queues match each pattern. No more than some of them are among queues.
	matches map[string]int
}

// follow notes that a source reads queues, or those that match a pattern, and returns the round from which on surveys have them.
func (m *management) follow(queues []string, pattern string) (round int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read.queues == nil {
		m.read.queues, m.read.patterns = map[string]int{}, map[string]int{}
	}
	grown := false
	for _, name := range queues {
		m.read.queues[name]++
		grown = grown || m.read.queues[name] == 1
	}
	if pattern != "" {
		m.read.patterns[pattern]++
		grown = grown || m.read.patterns[pattern] == 1
	}
	if grown {
		m.read.round++
	}
	return m.read.round
}

// leave is the end of follow.
func (m *management) leave(queues []string, pattern string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	less := func(counts map[string]int, name string) {
		if counts[name]--; counts[name] <= 0 {
			delete(counts, name)
		}
	}
	for _, name := range queues {
		less(m.read.queues, name)
	}
	if pattern != "" {
		less(m.read.patterns, pattern)
	}
}

// newSurvey returns an empty one, and what adds a queue to it.
func newSurvey[V any](m *management) (l *survey[V], add func(name string, value V)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	queues := maps.Clone(m.read.queues)
	patterns := make(map[string][]string, len(m.read.patterns))
	for pattern := range m.read.patterns {
		patterns[pattern] = strings.Split(pattern, "*")
	}
	l = &survey[V]{round: m.read.round, queues: map[string]V{}, matches: map[string]int{}}
	return l, func(name string, value V) {
		keep := queues[name] > 0
		for pattern, parts := range patterns {
			if matches(parts, name) {
				l.matches[pattern]++
				keep = keep || l.matches[pattern] <= maxMatches
			}
		}
		if keep {
			l.queues[name] = value
		}
	}
}

// totals of a queue.
type totals struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Unacknowledged is nil while the queue's own process does not tell.
	Unacknowledged *int64 `json:"messages_unacknowledged"`
	// Arguments are those that it was declared with.
	Arguments arguments `json:"arguments"`
}

type arguments struct{ Single bool }

// UnmarshalJSON implements json.Unmarshaler. Where there are none the API has an empty list in the object's place, and who declares a queue
// may give any argument any value.
func (a *arguments) UnmarshalJSON(text []byte) error {
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) == nil {
		a.Single = string(all["x-single-active-consumer"]) == "true"
	}
	return nil
}

// newManagement returns the management API of a broker. What credentials its URI does not hold are those of the broker's.
func newManagement(config Config, broker amqp.URI, limits backlog.SampleBounds) (*management, error) {
	u, err := managementForm.HTTP(config.ManagementURI)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	user, password := broker.Username, broker.Password
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	u.User, u.RawQuery = nil, ""
	m := &management{
		base: strings.TrimSuffix(u.String(), "/") + "/api/queues/" + url.PathEscape(broker.Vhost), limits: limits,
		secrets: []string{password, endpoint.BasicAuth(user, password)},
		client:  endpoint.NewClient(u, tlsConfig, maxAnswer, func(r *http.Request) { r.SetBasicAuth(user, password) }),
	}
	m.totals = backlog.NewCached(limits, m.readTotals)
	m.finished = backlog.NewCached(limits, m.readFinished)
	return m, nil
}

// failure is why the last call failed, empty if it did not.
func (m *management) failure() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

// counted is a body of which the bytes are counted.
type counted struct {
	io.ReadCloser
	n int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}

// unlisted is that a queue is not in an answer, or without its figures.
func unlisted(queue string, listed bool) string {
	if listed {
		return fmt.Sprintf("management API: it has no figures of queue %q: look at the queue's state", queue)
	}
	return fmt.Sprintf("management API: it does not list queue %q: the user needs access to it, and managementURI must be of the broker of uri", queue)
}

// queueTotals returns the totals of queues that are followed since a round.
func (m *management) queueTotals(ctx context.Context, since int) (*survey[totals], error) {
	return recent(ctx, m, m.totals, totalsAge, totalsTolerated, since)
}

// finishedMessages returns how many messages of each of them were ever acknowledged.
func (m *management) finishedMessages(ctx context.Context, since int) (*survey[int64], error) {
	return recent(ctx, m, m.finished, finishedAge, finishedTolerated, since)
}

// recent waits for an answer no longer than the observation that it adds to can do without: a quarter of the time limit, and then
// not at all for the whole of it. After any other failure it does not ask for a second.
func recent[V any](
	ctx context.Context, m *management, value *backlog.Cached[*survey[V]], maxAge, tolerated time.Duration, since int,
) (*survey[V], error) {
	m.mu.Lock()
	wait, rest := m.retryAt.Sub(m.limits.Now()), m.rest
	m.mu.Unlock()
	if wait > 0 && wait <= max(m.limits.Timeout, failurePause, rest) { // more: the clock was put back
		return nil, errAway
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Timeout/4, errAway)
	defer cancel()
	answer, err := value.Recent(ctx, max(maxAge, rest), max(tolerated, 2*rest))
	for err == nil && answer.round < since { // of before somebody was interested in the queues
		answer, err = value.Get(ctx, 0)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.failed = ""
	case errors.Is(err, errAway):
		m.retryAt, m.failed = m.limits.Now().Add(m.limits.Timeout), fmt.Sprintf("management API: no answer within %s", m.limits.Timeout/4)
	case ctx.Err() == nil:
		m.retryAt, m.failed = m.limits.Now().Add(max(failurePause, m.rest)), err.Error()
	}
	return answer, err
}

// readTotals reads what kind each queue is and how many messages its consumers hold. With statistics disabled the queues
// themselves are asked, and the call costs the broker little.
func (m *management) readTotals(ctx context.Context) (*survey[totals], error) {
	l, add := newSurvey[totals](m)
	err := each(ctx, m, "?disable_stats=true&enable_queue_totals=true&columns=name,type,arguments,messages_unacknowledged", func(queue *totals) { add(queue.Name, *queue) })
	return l, err
}

// readFinished reads how many messages were ever acknowledged; queues without statistics are left out.
func (m *management) readFinished(ctx context.Context) (*survey[int64], error) {
	type queue struct {
		Name  string          `json:"name"`
		Stats json.RawMessage `json:"message_stats"`
	}
	l, add := newSurvey[int64](m)
	err := each(ctx, m, "?columns=name,message_stats.ack", func(q *queue) {
		var stats struct {
			Acknowledged *int64 `json:"ack"`
		}
		// Where there are no statistics yet the API has an empty list in the object's place.
		if json.Unmarshal(q.Stats, &stats) == nil && stats.Acknowledged != nil {
			add(q.Name, *stats.Acknowledged)
		}
	})
	return l, err
}

// each reads a list, one element at a time, and no more of them than there can be.
func each[T any](ctx context.Context, m *management, query string, add func(*T)) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+query, nil)
	if err != nil {
		return errors.New("management API: managementURI can't be asked") // the error holds the URI
	}
	begin := m.limits.Now()
	response, err := m.client.Do(request)
	if err != nil {
		return fmt.Errorf("management API: %w", endpoint.Cause(err, m.secrets...))
	}
	body := &counted{ReadCloser: response.Body}
	defer func() {
		body.Close()
		took := m.limits.Now().Sub(begin)
		m.mu.Lock()
		defer m.mu.Unlock()
		// The two answers are of different length: the rest of the longer one fades while only shorter ones come.
		m.rest = max(time.Duration(body.n)*restPerMiB/(1<<20), min(took*restShare, maxRest), m.rest/2)
	}()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errors.New("management API: wrong user or password, or the user lacks the tag monitoring or management")
	case http.StatusNotFound:
		return errors.New("management API: no such virtual host, or managementURI is not that of a management API")
	default:
		return fmt.Errorf("management API: it answers %s", endpoint.Said(response.Status, m.secrets...))
	}
	decoder := json.NewDecoder(body)
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return errors.New("management API: the answer is no list of queues: managementURI is not that of a management API")
	}
	for n := 0; decoder.More(); n++ {
		if n == maxQueues {
			return fmt.Errorf("management API: the virtual host has more than %d queues", maxQueues)
		}
		var element T
		if err := decoder.Decode(&element); err != nil {
			return fmt.Errorf("management API: the list of queues can't be read: %s", endpoint.Said(err.Error(), m.secrets...))
		}
		add(&element)
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("management API: the list of queues has no end: %s", endpoint.Said(err.Error(), m.secrets...))
	}
	return nil
}

package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// maxAnswer bounds an answer of the management API, and maxQueues the queues in it.
	maxAnswer = 32 << 20
	maxQueues = 200_000
)

var errAway = errors.New("management API: no answer")

// management asks a broker's management API for what AMQP does not tell, of all queues of a virtual host at once.
type management struct {
	base, password string
	client         *http.Client
	limits         backlog.SampleBounds

	mu      sync.Mutex
	retryAt time.Time // until when it is not asked, as it failed
	failed  string    // why the last call failed; empty: it did not

	totals   *backlog.Cached[map[string]totals]
	finished *backlog.Cached[map[string]int64]
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
		base: strings.TrimSuffix(u.String(), "/") + "/api/queues/" + url.PathEscape(broker.Vhost), password: password, limits: limits,
		client: endpoint.NewClient(u, tlsConfig, maxAnswer, func(r *http.Request) { r.SetBasicAuth(user, password) }),
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

// unlisted is that a queue is not in an answer, or without its figures.
func unlisted(queue string, listed bool) string {
	if listed {
		return fmt.Sprintf("management API: it has no figures of queue %q: look at the queue's state", queue)
	}
	return fmt.Sprintf("management API: it does not list queue %q: the user needs access to it, and managementURI must be of the broker of uri", queue)
}

// queueTotals returns the totals of all queues.
func (m *management) queueTotals(ctx context.Context) (map[string]totals, error) {
	return recent(ctx, m, m.totals, totalsAge, totalsTolerated)
}

// finishedMessages returns how many messages of each queue were ever acknowledged.
func (m *management) finishedMessages(ctx context.Context) (map[string]int64, error) {
	return recent(ctx, m, m.finished, finishedAge, finishedTolerated)
}

// recent waits for an answer no longer than the observation that it adds to can do without: a quarter of the time limit, and then
// not at all for the whole of it. After any other failure it does not ask for a second.
func recent[T any](ctx context.Context, m *management, value *backlog.Cached[T], maxAge, tolerated time.Duration) (T, error) {
	m.mu.Lock()
	wait := m.retryAt.Sub(m.limits.Now())
	m.mu.Unlock()
	if wait > 0 && wait <= max(m.limits.Timeout, failurePause) { // more: the clock was put back
		var none T
		return none, errAway
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Timeout/4, errAway)
	defer cancel()
	answer, err := value.Recent(ctx, maxAge, tolerated)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.failed = ""
	case errors.Is(err, errAway):
		m.retryAt, m.failed = m.limits.Now().Add(m.limits.Timeout), fmt.Sprintf("management API: no answer within %s", m.limits.Timeout/4)
	case ctx.Err() == nil:
		m.retryAt, m.failed = m.limits.Now().Add(failurePause), err.Error()
	}
	return answer, err
}

// readTotals reads what kind each queue is and how many messages its consumers hold. With statistics disabled the queues
// themselves are asked, and the call costs the broker little.
func (m *management) readTotals(ctx context.Context) (map[string]totals, error) {
	byName := map[string]totals{}
	err := each(ctx, m, "?disable_stats=true&enable_queue_totals=true&columns=name,type,arguments,messages_unacknowledged", func(queue totals) { byName[queue.Name] = queue })
	return byName, err
}

// readFinished reads how many messages were ever acknowledged; queues without statistics are left out.
func (m *management) readFinished(ctx context.Context) (map[string]int64, error) {
	type queue struct {
		Name  string          `json:"name"`
		Stats json.RawMessage `json:"message_stats"`
	}
	byName := map[string]int64{}
	err := each(ctx, m, "?columns=name,message_stats.ack", func(q queue) {
		var stats struct {
			Acknowledged *int64 `json:"ack"`
		}
		// Where there are no statistics yet the API has an empty list in the object's place.
		if json.Unmarshal(q.Stats, &stats) == nil && stats.Acknowledged != nil {
			byName[q.Name] = *stats.Acknowledged
		}
	})
	return byName, err
}

// each reads a list, one element at a time, and no more of them than there can be.
func each[T any](ctx context.Context, m *management, query string, add func(T)) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+query, nil)
	if err != nil {
		return errors.New("management API: managementURI can't be asked") // the error holds the URI
	}
	response, err := m.client.Do(request)
	if err != nil {
		return fmt.Errorf("management API: %w", endpoint.Cause(err))
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errors.New("management API: wrong user or password, or the user lacks the tag monitoring or management")
	case http.StatusNotFound:
		return errors.New("management API: no such virtual host, or managementURI is not that of a management API")
	default:
		return fmt.Errorf("management API: it answers %s", endpoint.Said(response.Status, m.password))
	}
	decoder := json.NewDecoder(response.Body)
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return errors.New("management API: the answer is no list of queues: managementURI is not that of a management API")
	}
	for n := 0; decoder.More(); n++ {
		if n == maxQueues {
			return fmt.Errorf("management API: the virtual host has more than %d queues", maxQueues)
		}
		var element T
		if err := decoder.Decode(&element); err != nil {
			return fmt.Errorf("management API: the list of queues can't be read: %s", endpoint.Said(err.Error(), m.password))
		}
		add(element)
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("management API: the list of queues has no end: %s", endpoint.Said(err.Error(), m.password))
	}
	return nil
}

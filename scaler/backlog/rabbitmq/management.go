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
	// maxAnswer bounds an answer of the management API: some hundred thousand queues.
	maxAnswer = 64 << 20
)

var errAway = errors.New("management API: no answer")

// management asks a broker's management API for what AMQP does not tell, of all queues of a virtual host at once.
type management struct {
	base, user, password string
	client               *http.Client
	limits               backlog.SampleBounds

	mu      sync.Mutex
	retryAt time.Time // until when it is not asked, as it failed

	totals   *backlog.Cached[map[string]totals]
	finished *backlog.Cached[map[string]int64]
}

// totals of a queue.
type totals struct {
	Name           string `json:"name"`
	Type           string `json:"type"`
	Unacknowledged int64  `json:"messages_unacknowledged"`
}

func newManagement(config Config, vhost, user, password string, limits backlog.SampleBounds) (*management, error) {
	u, err := url.Parse(config.ManagementURI)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("managementURI must look like https://user:password@host:15671")
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	m := &management{user: user, password: password, limits: limits, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 2, TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment},
	}}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
	}
	u.User = nil
	m.base = strings.TrimSuffix(u.String(), "/") + "/api/queues/" + url.PathEscape(vhost)
	m.totals = backlog.NewCached(limits, m.readTotals)
	m.finished = backlog.NewCached(limits, m.readFinished)
	return m, nil
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
	switch {
	case errors.Is(err, errAway):
		m.failed(m.limits.Timeout)
	case err != nil && ctx.Err() == nil:
		m.failed(failurePause)
	}
	return answer, err
}

func (m *management) failed(pause time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retryAt = m.limits.Now().Add(pause)
}

// readTotals reads what kind each queue is and how many messages its consumers hold. With statistics disabled the queues
// themselves are asked, and the call costs the broker little.
func (m *management) readTotals(ctx context.Context) (map[string]totals, error) {
	var queues []totals
	err := m.get(ctx, "?disable_stats=true&enable_queue_totals=true&columns=name,type,messages_unacknowledged", &queues)
	byName := make(map[string]totals, len(queues))
	for _, queue := range queues {
		byName[queue.Name] = queue
	}
	return byName, err
}

// readFinished reads how many messages were ever acknowledged; queues without statistics are left out.
func (m *management) readFinished(ctx context.Context) (map[string]int64, error) {
	var queues []struct {
		Name  string          `json:"name"`
		Stats json.RawMessage `json:"message_stats"`
	}
	err := m.get(ctx, "?columns=name,message_stats.ack", &queues)
	byName := map[string]int64{}
	for _, queue := range queues {
		var stats struct {
			Acknowledged *int64 `json:"ack"`
		}
		// Where there are no statistics yet the API has an empty list in the object's place.
		if json.Unmarshal(queue.Stats, &stats) == nil && stats.Acknowledged != nil {
			byName[queue.Name] = *stats.Acknowledged
		}
	}
	return byName, err
}

func (m *management) get(ctx context.Context, query string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+query, nil)
	if err != nil {
		return err
	}
	request.SetBasicAuth(m.user, m.password)
	response, err := m.client.Do(request)
	if err != nil {
		return fmt.Errorf("management API: %w", withoutURI(err))
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errors.New("management API: wrong user or password, or the user lacks the tag monitoring or management")
	case http.StatusNotFound:
		return errors.New("management API: no such virtual host, or managementURI is not that of a management API")
	default:
		return fmt.Errorf("management API: %s", response.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, response.Body, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("management API: %w", err)
	}
	return nil
}

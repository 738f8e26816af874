package rabbitmq

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// management asks a broker's management API for what AMQP does not tell.
type management struct {
	url, user, password string
	client              *http.Client
}

func newManagement(uri, vhost string) (*management, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("managementURI must look like http://user:password@host:15672")
	}
	m := &management{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}}
	m.user = u.User.Username()
	m.password, _ = u.User.Password()
	u.User = nil
	// Totals come from the queues themselves; with statistics disabled the call costs the broker little.
	m.url = strings.TrimSuffix(u.String(), "/") + "/api/queues/" + url.PathEscape(vhost) +
		"?disable_stats=true&enable_queue_totals=true"
	return m, nil
}

// unacknowledged sums the messages that consumers of the queues hold.
func (m *management) unacknowledged(ctx context.Context, names []string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return 0, err
	}
	request.SetBasicAuth(m.user, m.password)
	response, err := m.client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("management API: %w", withoutURI(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("management API: %s; the user needs the tag monitoring or management", response.Status)
	}
	var queues []struct {
		Name           string `json:"name"`
		Unacknowledged int64  `json:"messages_unacknowledged"`
	}
	if err := json.NewDecoder(response.Body).Decode(&queues); err != nil {
		return 0, fmt.Errorf("management API: %w", err)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	var total int64
	for _, queue := range queues {
		if wanted[queue.Name] {
			total += queue.Unacknowledged
		}
	}
	return total, nil
}

// jitter spreads d over its upper half, so that clients of a broker that comes back do not all come at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

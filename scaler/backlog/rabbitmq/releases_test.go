package rabbitmq

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// releases makes the tests of each release run, which take minutes: make rabbitmq-releases.
var releases = flag.Bool("releases", false, "test with single nodes and clusters of each release of RabbitMQ that is installed")

func eachRelease(t *testing.T, test func(*testing.T, rabbitmq.Release)) {
	if !*releases {
		t.Skip("make rabbitmq-releases")
	}
	for _, release := range rabbitmq.Releases {
		t.Run(release.String(), func(t *testing.T) { test(t, release) })
	}
}

func dialed(t *testing.T, b *rabbitmq.Broker) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(b.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return channel
}

// put asks the management API to make something, which takes milliseconds; rabbitmqctl takes seconds.
func put(t *testing.T, b *rabbitmq.Broker, path, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.ManagementURL()+"/api/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		t.Fatalf("%s: %s", path, response.Status)
	}
}

// What is told of queues is the same with each release, and so is what is told of a refusal.
func TestReleases(t *testing.T) {
	eachRelease(t, func(t *testing.T, release rabbitmq.Release) {
		authority, dir := testcert.New(t), t.TempDir()
		certificate, key := authority.Issue(t, "broker")
		ports, err := proc.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{"ca.pem": authority.PEM, "cert.pem": certificate, "key.pem": key} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c := rabbitmq.StartClusterForTest(t, 1, rabbitmq.Options{
			Release: release, Dir: dir, Plugins: []string{"rabbitmq_auth_mechanism_ssl"},
			Config: fmt.Sprintf(`auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
listeners.ssl.default = 127.0.0.1:%d
ssl_options.cacertfile = %[2]s/ca.pem
ssl_options.certfile = %[2]s/cert.pem
ssl_options.keyfile = %[2]s/key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
`, ports[0], dir),
		})
		b := c.Nodes[0]
		ch := dialed(t, b)
		for _, kind := range []string{amqp.QueueTypeClassic, amqp.QueueTypeQuorum, amqp.QueueTypeStream} {
			declare(t, ch, kind, kind)
			declare(t, ch, kind+"-full", kind)
			if kind != amqp.QueueTypeStream {
				publish(t, ch, kind+"-full", 3)
			}
		}
		brokers := NewBrokers(limits(20 * time.Second))
		for queue, want := range map[string]string{
			"classic": "0", "quorum": "0", "classic-full": "3", "quorum-full": "3", "missing": "missing", "stream": "it is a stream, whose length is not a backlog",
		} {
			o, err := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{queue}}).Observe(t.Context(), 0)
			got := fmt.Sprint(o.Ready)
			switch {
			case err != nil:
				got = err.Error()
			case len(o.Missing) > 0:
				got = "missing"
			}
			if got != want && (err == nil || !strings.Contains(got, want)) {
				t.Errorf("%s: %s, want %s", queue, got, want)
			}
		}
		for _, user := range []struct{ name, rights, limit, most string }{
			{"scaler", "", "", ""}, {"few", ".*", "max-connections", "0"}, {"narrow", ".*", "max-channels", "2"},
		} {
			put(t, b, "users/"+user.name, `{"password": "s3cret", "tags": ""}`)
			put(t, b, "permissions/%2f/"+user.name, fmt.Sprintf(`{"configure": %q, "write": %[1]q, "read": %[1]q}`, user.rights))
			if user.limit != "" {
				put(t, b, "user-limits/"+user.name+"/"+user.limit, `{"value": `+user.most+`}`)
			}
		}
		uri := func(user, vhost string) string {
			return strings.Replace(b.AMQPURL(vhost), "guest:guest", user, 1)
		}
		for name, tc := range map[string]struct{ uri, want string }{
			"password":         {uri("scaler:wr0ng", "/"), `the broker refuses user "scaler": correct the user or the password`},
			"virtual host":     {uri("scaler:s3cret", "nowhere"), `virtual host "nowhere" does not exist, or user "scaler" may not use it`},
			"connection limit": {uri("few:s3cret", "/"), "a limit of connections is reached"},
		} {
			_, err := open(t, brokers, Config{Identity: at(tc.uri), Queues: []string{"classic-full"}}).Observe(t.Context(), 0)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%s: error %v, want %q", name, err, tc.want)
			}
		}
		narrow := open(t, brokers, Config{Identity: at(uri("narrow:s3cret", "/")), Queues: []string{"classic-full", "quorum-full", "classic", "quorum", "missing"}})
		eventually(t, func() error {
			o, err := narrow.Observe(t.Context(), 0)
			if err == nil && o.Ready != 6 {
				err = fmt.Errorf("%d ready, want 6", o.Ready)
			}
			return err
		})
		// A client that is known by its certificate has no password.
		clientCertificate, clientKey := authority.Issue(t, "guest")
		external := Identity{URI: fmt.Sprintf("amqps://localhost:%d/", ports[0]), TLS: backlog.TLS{
			CA: string(authority.PEM), Certificate: string(clientCertificate), Key: string(clientKey), ServerName: "broker.example",
		}}
		o, err := open(t, brokers, Config{Identity: external, Queues: []string{"classic-full"}}).Observe(t.Context(), 0)
		if err != nil || o.Ready != 3 {
			t.Errorf("EXTERNAL: %d ready, %v", o.Ready, err)
		}
	})
}

// Nodes go, come back and are cut off from each other, and hang: what can't be seen is an error each time, and never an empty queue.
func TestReleasesCluster(t *testing.T) {
	eachRelease(t, func(t *testing.T, release rabbitmq.Release) {
		c := rabbitmq.StartClusterForTest(t, 3, rabbitmq.Options{Release: release})
		near, leader, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]
		ch := dialed(t, leader) // queues are led by the node that they are declared at
		declare(t, ch, "quorum", amqp.QueueTypeQuorum)
		declare(t, ch, "classic", amqp.QueueTypeClassic)
		declare(t, ch, "idle", amqp.QueueTypeQuorum)
		publish(t, ch, "quorum", 36)
		publish(t, ch, "classic", 50)
		brokers := NewBrokers(limits(4 * time.Second))
		want := map[string]int64{"quorum": 36, "classic": 50, "idle": 0}
		sources := map[string]backlog.Source{}
		for queue := range want {
			sources[queue] = open(t, brokers, Config{Identity: at(near.AMQPURL("/")), Queues: []string{queue}})
		}
		var wrong atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		watching := make(chan struct{})
		go func() { // all the while
			defer close(watching)
			for ctx.Err() == nil {
				for queue, source := range sources {
					o, err := source.Observe(ctx, 0)
					if err == nil && (o.Ready != want[queue] || len(o.Missing) > 0) && wrong.Add(1) < 10 {
						t.Errorf("%s: %d ready, missing: %q; want %d, or an error", queue, o.Ready, o.Missing, want[queue])
					}
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		defer func() { stop(); <-watching }()
		// is waits until a queue is seen, or is not.
		is := func(when, queue string, seen bool) {
			t.Helper()
			deadline := time.Now().Add(90 * time.Second)
			for {
				_, err := sources[queue].Observe(t.Context(), 0)
				if (err == nil) == seen {
					t.Logf("%s: %s: %v", when, queue, err)
					return
				}
				if time.Now().After(deadline) {
					t.Errorf("%s: %s: %v", when, queue, err)
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		all := func(when string, seen bool) {
			t.Helper()
			for queue := range want {
				is(when, queue, seen)
			}
		}
		all("all nodes are there", true)
		leader.Crash()
		is("the leader is gone, two nodes are left", "quorum", true)
		is("the home node is gone", "classic", false)
		third.Crash()
		// The queue with messages may still say what it held, if the node that is asked leads it: nothing can change that without a majority, and the
		// watch sees that it is right.
		is("one node of three is left", "idle", false)
		is("one node of three is left", "classic", false)
		for _, node := range []*rabbitmq.Broker{leader, third} {
			if err := node.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		all("all are back", true)
		if err := c.Isolate(t.Context(), near); err != nil {
			t.Fatal(err)
		}
		is("the node that is asked is cut off", "classic", false)
		time.Sleep(10 * time.Second) // whatever is told of the others meanwhile must be right
		if err := c.Join(t.Context(), near); err != nil {
			t.Fatal(err)
		}
		if release.Suite == "" { // its metadata does not merge by itself after a partition
			near.Crash()
			if err := near.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		all("it is joined again", true)
		if err := leader.Pause(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := leader.Resume(); err != nil {
			t.Fatal(err)
		}
		all("a node hung and continues", true)
	})
}

package rabbitmq

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

func channel(t *testing.T, b *rabbitmq.Broker) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(b.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	ch, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func declare(t *testing.T, ch *amqp.Channel, queue, kind string) {
	t.Helper()
	arguments := amqp.Table{amqp.QueueTypeArg: kind}
	if kind == "priority" {
		arguments = amqp.Table{"x-max-priority": 5}
	}
	if _, err := ch.QueueDeclare(queue, true, false, false, false, arguments); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, ch *amqp.Channel, queue string, n int) {
	t.Helper()
	for range n {
		confirmation, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
		if err != nil {
			t.Fatal(err)
		}
		confirmation.Wait()
	}
}

// limits of sources in tests.
func limits(timeout time.Duration) backlog.SampleBounds {
	return backlog.SampleBounds{Timeout: timeout, Now: time.Now}
}

func at(uri string) Identity { return Identity{URI: uri} }

func open(t *testing.T, brokers *Brokers, config Config) backlog.Source {
	t.Helper()
	source, err := brokers.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	return source
}

// observe waits until the source sees want, leaving the source aside.
func observe(t *testing.T, source backlog.Source, want sizing.Observation) {
	t.Helper()
	eventually(t, func() error {
		got, err := source.Observe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		got.Source, got.Time = "", time.Time{}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("observation (-want +got):\n%s", diff)
		}
		return nil
	})
}

// eventually waits until f has no error.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestIntegrationRead(t *testing.T) {
	t.Parallel()
	b := rabbitmq.StartForTest(t)
	ch := channel(t, b)
	brokers := NewBrokers(limits(5 * time.Second))
	for _, kind := range []string{amqp.QueueTypeClassic, amqp.QueueTypeQuorum, "priority"} {
		t.Run(kind, func(t *testing.T) {
			declare(t, ch, kind, kind)
			declare(t, ch, kind+"-2", kind)
			publish(t, ch, kind, 5)
			publish(t, ch, kind+"-2", 2)
			one := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{kind}})
			both := open(t, brokers, Config{
				Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{kind, kind + "-2", "not-declared"}, OtherConsumers: 1,
			})
			observe(t, one, sizing.Observation{Ready: 5})
			missing := []string{"not-declared"}
			observe(t, both, sizing.Observation{Ready: 7, Missing: missing})

			// Two consumers, one of them not the workload's; each holds one message.
			workers := channel(t, b)
			if err := workers.Qos(1, 0, false); err != nil {
				t.Fatal(err)
			}
			held := []amqp.Delivery{consume(t, workers, kind), consume(t, workers, kind)}
			observe(t, one, sizing.Observation{Ready: 3, Consumers: 2})
			observe(t, both, sizing.Observation{Ready: 5, Consumers: 1, Missing: missing})

			// With nothing left to wait, the management API says how many are busy.
			for _, queue := range []string{kind, kind + "-2"} {
				if _, err := ch.QueuePurge(queue, false); err != nil {
					t.Fatal(err)
				}
			}
			observe(t, one, sizing.Observation{Consumers: 2})
			observe(t, both, sizing.Observation{Consumers: 1, Unacknowledged: 2, UnacknowledgedKnown: true, Missing: missing})

			for _, delivery := range held {
				if err := delivery.Ack(false); err != nil {
					t.Fatal(err)
				}
			}
			if kind != amqp.QueueTypeQuorum {
				return // the statistics are the same, and slow
			}
			// What was acknowledged is counted, for the service time.
			counting := open(t, brokers, Config{
				Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{kind}, CountFinished: true,
			})
			eventually(t, func() error {
				o, err := counting.Observe(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				if o.Finished[kind] != 2 {
					return fmt.Errorf("finished: %v, want 2", o.Finished)
				}
				return nil
			})
		})
	}

	t.Run("missing queue", func(t *testing.T) {
		lenient := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"nobody-declared-it"}})
		observe(t, lenient, sizing.Observation{Missing: []string{"nobody-declared-it"}})
		strict := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"nobody-declared-it"}, FailIfMissing: true})
		_, err := strict.Observe(t.Context(), 0)
		if err == nil || !strings.Contains(err.Error(), `queue "nobody-declared-it" does not exist: declare it`) {
			t.Errorf("error %v", err)
		}
		// The failure closed a channel, not the source.
		declare(t, ch, "nobody-declared-it", amqp.QueueTypeClassic)
		eventually(t, func() error { _, err := strict.Observe(t.Context(), 0); return err })
	})

	t.Run("a queue is deleted while in use", func(t *testing.T) {
		declare(t, ch, "short-lived", amqp.QueueTypeClassic)
		publish(t, ch, "short-lived", 3)
		source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"short-lived"}})
		observe(t, source, sizing.Observation{Ready: 3})
		if _, err := ch.QueueDelete("short-lived", false, false, false); err != nil {
			t.Fatal(err)
		}
		observe(t, source, sizing.Observation{Missing: []string{"short-lived"}})
		declare(t, ch, "short-lived", amqp.QueueTypeClassic)
		publish(t, ch, "short-lived", 1)
		observe(t, source, sizing.Observation{Ready: 1})
	})

	t.Run("a stream is refused", func(t *testing.T) {
		declare(t, ch, "events", amqp.QueueTypeStream)
		source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{"events"}})
		_, err := source.Observe(t.Context(), 0)
		if err == nil || !strings.Contains(err.Error(), `queue "events": it is a stream, whose length is not a backlog`) {
			t.Errorf("error %v", err)
		}
	})

	t.Run("one connection for all", func(t *testing.T) {
		brokers := NewBrokers(limits(5 * time.Second))
		var wait sync.WaitGroup
		for range 100 {
			source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{amqp.QueueTypeClassic, "not-declared"}})
			wait.Go(func() {
				for range 5 {
					if _, err := source.Observe(t.Context(), 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		if len(brokers.brokers) != 1 {
			t.Errorf("%d connections for one broker and identity", len(brokers.brokers))
		}
	})

	t.Run("one sample for all policies of a queue", func(t *testing.T) {
		brokers := NewBrokers(limits(5 * time.Second))
		declare(t, ch, "shared", amqp.QueueTypeQuorum)
		publish(t, ch, "shared", 5)
		alone := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"shared"}})
		withOthers := open(t, brokers, Config{
			Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{amqp.QueueTypeClassic, "shared"}, OtherConsumers: 1,
		})
		observed := func(source backlog.Source, maxAge time.Duration, want int64) sizing.Observation {
			t.Helper()
			o, err := source.Observe(t.Context(), maxAge)
			if err != nil || o.Ready != want {
				t.Errorf("%+v, %v; want %d", o, err, want)
			}
			return o
		}
		first := observed(alone, time.Hour, 5)
		publish(t, ch, "shared", 1)
		if o := observed(withOthers, time.Hour, 5); !o.Time.Equal(first.Time) {
			t.Errorf("its time is %s, that of the older sample %s", o.Time, first.Time)
		}
		observed(withOthers, 0, 6)
		if o := observed(alone, time.Hour, 6); !o.Time.After(first.Time) {
			t.Error("the newer sample of another policy does not serve")
		}
		shared := brokers.brokers[at(b.AMQPURL("/"))]
		for _, source := range []backlog.Source{alone, withOthers} {
			if len(shared.queues) != 2 {
				t.Errorf("%d queues are sampled, want 2", len(shared.queues))
			}
			if err := source.Close(); err != nil {
				t.Error(err)
			}
		}
		if len(shared.queues) != 0 || len(brokers.brokers) != 0 {
			t.Errorf("%d queues and %d connections are left of closed sources", len(shared.queues), len(brokers.brokers))
		}
	})

	t.Run("a blocked connection", func(t *testing.T) {
		source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{amqp.QueueTypeClassic}})
		// An alarm makes the broker stop reading from those who publish.
		if err := b.Control(t.Context(), "set_vm_memory_high_watermark", "0.000001"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Control(context.WithoutCancel(t.Context()), "set_vm_memory_high_watermark", "0.4"); err != nil {
				t.Error(err)
			}
		}()
		for range 10 {
			if _, err := source.Observe(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("failures to connect", func(t *testing.T) {
		address := strings.TrimPrefix(b.AMQPURL("/"), "amqp://guest:guest@")
		for name, tc := range map[string]struct {
			config Config
			want   string
		}{
			"wrong password":      {Config{Identity: at("amqp://guest:wr0ng@" + address)}, `the broker refuses user "guest": correct the user or the password`},
			"password of its own": {Config{Identity: Identity{URI: b.AMQPURL("/"), Password: "wr0ng"}}, `the broker refuses user "guest"`},
			"virtual host":        {Config{Identity: at(b.AMQPURL("nowhere"))}, `virtual host "nowhere" does not exist, or user "guest" may not use it`},
			"nobody listens":      {Config{Identity: at("amqp://guest:wr0ng@127.0.0.1:1")}, "broker 127.0.0.1:1: connect: dial tcp 127.0.0.1:1: connect: connection refused"},
		} {
			t.Run(name, func(t *testing.T) {
				tc.config.Queues = []string{"q"}
				source := open(t, NewBrokers(limits(5*time.Second)), tc.config)
				_, err := source.Observe(t.Context(), 0)
				if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "wr0ng") {
					t.Errorf("error %v, want one with %q and no password", err, tc.want)
				}
				// It is not tried again at once.
				if _, again := source.Observe(t.Context(), 0); again == nil || !strings.Contains(again.Error(), "next attempt in") {
					t.Errorf("error %v, want when it is tried again", again)
				}
			})
		}
		// A management API that is away costs a figure, not the observation.
		source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), ManagementURI: "http://guest:guest@127.0.0.1:1", Queues: []string{"nobody-declared-it"}})
		observe(t, source, sizing.Observation{ManagementFailure: "management API: dial tcp 127.0.0.1:1: connect: connection refused"})
	})

	t.Run("several hosts", func(t *testing.T) {
		address := strings.TrimPrefix(b.AMQPURL("/"), "amqp://guest:guest@")
		source := open(t, brokers, Config{Identity: at("amqp://guest:guest@127.0.0.1:1," + silentListener(t) + "," + address), Queues: []string{"not-declared"}})
		observe(t, source, sizing.Observation{Missing: []string{"not-declared"}})
	})

	t.Run("crash and return", func(t *testing.T) {
		source := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{amqp.QueueTypeQuorum}})
		observe(t, source, sizing.Observation{})
		b.Crash()
		eventually(t, func() error {
			_, err := source.Observe(t.Context(), 0)
			if err == nil {
				return fmt.Errorf("a broker that is gone is still observed")
			}
			if strings.Contains(err.Error(), "guest:guest") {
				t.Errorf("the error gives the password away: %v", err)
			}
			return nil
		})
		if err := b.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { _, err := source.Observe(t.Context(), 0); return err })
	})
}

// A broker with a certificate for another name than it is reached by, that asks clients for one.
func TestIntegrationTLS(t *testing.T) {
	t.Parallel()
	authority, stranger, dir := testcert.New(t), testcert.New(t), t.TempDir()
	certificate, key := authority.Issue(t, "broker")
	for name, text := range map[string][]byte{"ca.pem": authority.PEM, "cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := proc.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	rabbitmq.StartForTest(t, fmt.Sprintf(`listeners.ssl.default = 127.0.0.1:%d
ssl_options.cacertfile = %[2]s/ca.pem
ssl_options.certfile = %[2]s/cert.pem
ssl_options.keyfile = %[2]s/key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
`, ports[0], dir))
	// Amazon MQ's form: no virtual host in the URI, and credentials kept apart from it.
	identity := Identity{URI: fmt.Sprintf("amqps://localhost:%d", ports[0]), Username: "guest", Password: "guest"}
	clientCertificate, clientKey := authority.Issue(t, "scaler")
	full := backlog.TLS{
		CA: string(authority.PEM), Certificate: string(clientCertificate), Key: string(clientKey), ServerName: "broker.example",
	}
	for name, tc := range map[string]struct {
		change func(*backlog.TLS)
		want   string // of the error; empty: none
	}{
		"all":            {func(*backlog.TLS) {}, ""},
		"name mismatch":  {func(t *backlog.TLS) { t.ServerName = "" }, "certificate is not trusted (set tls.ca, or tls.serverName): x509: certificate is valid for broker.example, not localhost"},
		"another CA":     {func(t *backlog.TLS) { t.CA = string(stranger.PEM) }, "certificate is not trusted (set tls.ca, or tls.serverName): x509: certificate signed by unknown authority"},
		"no certificate": {func(t *backlog.TLS) { t.Certificate, t.Key = "", "" }, "(the broker may ask for a client certificate: tls.certificate, tls.key)"},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{Identity: identity, Queues: []string{"not-declared"}}
			config.TLS = full
			tc.change(&config.TLS)
			_, err := open(t, NewBrokers(limits(5*time.Second)), config).Observe(t.Context(), 0)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func consume(t *testing.T, ch *amqp.Channel, queue string) amqp.Delivery {
	t.Helper()
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case delivery := <-deliveries:
		return delivery
	case <-time.After(10 * time.Second):
		t.Fatal("no delivery")
		return amqp.Delivery{}
	}
}

func TestOpenErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"scheme":     {Config{Identity: at("http://u:secret@broker")}, "must look like amqp://user:password@host:5672/vhost"},
		"not a URI":  {Config{Identity: at("broker:5672")}, "must look like amqp://user:password@host:5672/vhost"},
		"port":       {Config{Identity: at("amqp://u:secret@broker:56x/")}, "must look like amqp://user:password@host:5672/vhost"},
		"no host":    {Config{Identity: at("amqp://u:secret@one:5672,/v")}, "a host is missing"},
		"management": {Config{Identity: at("amqp://broker"), ManagementURI: "broker:15672"}, "managementURI must look like https://"},
		"CA":         {Config{Identity: Identity{URI: "amqps://broker", TLS: backlog.TLS{CA: "?"}}}, "tls.ca holds no PEM certificate"},
		"key":        {Config{Identity: Identity{URI: "amqps://broker", TLS: backlog.TLS{Certificate: "?", Key: "?"}}}, "tls.certificate and tls.key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewBrokers(limits(time.Second)).Open(tc.config)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one with %q and no password", err, tc.want)
			}
		})
	}
}

func TestParseURIs(t *testing.T) {
	uris, err := parseURIs("amqps://u:p%40ss@one,two:5000/team%2fa?heartbeat=5", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, uri := range uris.uris {
		got = append(got, fmt.Sprintf("%s %s %s %d %s", uri.Username, uri.Password, uri.Host, uri.Port, uri.Vhost))
	}
	if diff := cmp.Diff([]string{"u p@ss one 5671 team/a", "u p@ss two 5000 team/a"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A broker that accepts connections and says nothing costs a caller its timeout, not more.
func TestReadIsBounded(t *testing.T) {
	source := open(t, NewBrokers(limits(300*time.Millisecond)), Config{Identity: at("amqp://u:secret@" + silentListener(t)), Queues: []string{"q"}})
	begin := time.Now()
	_, err := source.Observe(context.Background(), 0)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

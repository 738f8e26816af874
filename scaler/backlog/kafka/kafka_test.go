package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const topic, partitions = "scans", 4

func start(t *testing.T, options ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func client(t *testing.T, brokers []string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func produce(t *testing.T, c *kgo.Client, partition int32, n int) {
	t.Helper()
	for i := range n {
		if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, config Config) (sizing.Observation, error) {
	t.Helper()
	reader, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return reader.Read(ctx)
}

func TestRead(t *testing.T) {
	brokers := start(t)
	producer := client(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	produce(t, producer, 0, 5)
	produce(t, producer, 1, 3)
	config := Config{Brokers: brokers, Topics: []string{topic}, Group: "workers"}
	four := map[string]int64{topic + "/0": 4}
	check := func(name string, config Config, want sizing.Observation) {
		t.Helper()
		got, err := read(t, config)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want.ReadyHoldsInFlight, want.Source = true, got.Source
		if want.Finished == nil {
			want.Finished = map[string]int64{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("a group that never was", config, sizing.Observation{Ready: 8, Parallelism: 2})
	latest := config
	latest.Latest = true
	check("the same, from the latest", latest, sizing.Observation{Ready: 1, Parallelism: 1})

	// A group that has committed, and whose consumers are away: it is paused, its lag is not.
	admin := kadm.NewClient(producer)
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, 4, -1)
	if err := admin.CommitAllOffsets(t.Context(), "workers", offsets); err != nil {
		t.Fatal(err)
	}
	check("committed in one partition", config, sizing.Observation{Ready: 4, Parallelism: 2, Finished: four})
	check("the same, from the latest", latest, sizing.Observation{Ready: 1, Parallelism: 1, Finished: four})

	// What retention deleted can't be worked on any more.
	if _, err := admin.DeleteRecords(t.Context(), kadm.Offsets{topic: {1: kadm.Offset{Topic: topic, Partition: 1, At: 2}}}); err != nil {
		t.Fatal(err)
	}
	check("records deleted", config, sizing.Observation{Ready: 2, Parallelism: 2, Finished: four})

	// A member of the group.
	consumer := client(t, brokers, kgo.ConsumerGroup("workers"), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	polled, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if fetches := consumer.PollFetches(polled); fetches.Err() != nil {
		t.Fatal(fetches.Err())
	}
	check("worked on", config, sizing.Observation{Ready: 2, Parallelism: 2, Finished: four, Consumers: 1})
}

// Brokers that speak TLS and ask for SASL, in each way that a policy can name.
func TestReadSecured(t *testing.T) {
	authority := testcert.New(t)
	certificate, key := authority.Issue(t, "broker")
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for mechanism, fake := range map[v1alpha1.SASLMechanism]string{
		v1alpha1.SASLPlain: "PLAIN", v1alpha1.SASLScramSHA256: "SCRAM-SHA-256", v1alpha1.SASLScramSHA512: "SCRAM-SHA-512",
	} {
		brokers := start(t, kfake.EnableSASL(), kfake.Superuser(fake, "u", "p"),
			kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}))
		config := Config{
			Brokers: brokers, Topics: []string{topic}, Group: "g", Mechanism: mechanism, Username: "u", Password: "p", UseTLS: true,
			TLS: backlog.TLS{CA: string(authority.PEM), ServerName: "broker.example"},
		}
		if o, err := read(t, config); err != nil {
			t.Errorf("%s: %+v, %v", mechanism, o, err)
		}
		config.TLS.CA = string(testcert.New(t).PEM)
		if _, err := read(t, config); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s, another CA: error %v", mechanism, err)
		}
	}
}

func TestReadErrors(t *testing.T) {
	brokers := start(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "p"))
	good := Config{Brokers: brokers, Topics: []string{topic}, Group: "g", Mechanism: v1alpha1.SASLPlain, Username: "u", Password: "p"}
	if _, err := read(t, good); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"topic":          {func(c *Config) { c.Topics = []string{"nope"} }, `topic "nope" does not exist: create it, or correct topics`},
		"password":       {func(c *Config) { c.Password = "wr0ng" }, "the broker closes the connection: check sasl"},
		"nobody listens": {func(c *Config) { c.Brokers = []string{"127.0.0.1:1"} }, "kafka 127.0.0.1:1: unable to dial"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			tc.change(&config)
			_, err := read(t, config)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	if _, err := Open(Config{Brokers: brokers, UseTLS: true, TLS: backlog.TLS{CA: "?"}}); err == nil || !strings.Contains(err.Error(), "tls.ca holds no PEM") {
		t.Errorf("error %v", err)
	}
}

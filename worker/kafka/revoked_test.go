package kafka

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A rebalance that takes the partition of the record that is being worked on waits for it, but not for ever. Which partition a real
// one takes is up to the balancer.
func TestRevoked(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "scans"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	opened, err := Open(t.Context(), Config{
		Brokers: cluster.ListenAddrs(), Topics: []string{"scans"}, Group: "workers", ClientID: "test", SessionTimeout: 45 * time.Second,
		RebalanceTimeout: time.Second, ConnectTimeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	q := opened.(*queue)
	defer func() { _ = q.Close() }()
	for range 2 {
		if err := q.client.ProduceSync(t.Context(), &kgo.Record{Topic: "scans", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(partition int32) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			q.revoked(t.Context(), q.client, map[string][]int32{"scans": {partition}})
		}()
		return done
	}
	message, err := q.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-revoke(1) // not its partition
	done := revoke(0)
	select {
	case <-done:
		t.Fatal("the rebalance does not wait for the record")
	case <-time.After(20 * time.Millisecond):
	}
	if err := q.Ack(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	<-done
	if message.Held.Err() != nil {
		t.Error("a record that was settled in time is lost")
	}
	if message, err = q.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-revoke(0)
	if cause := context.Cause(message.Held); cause == nil || !strings.Contains(cause.Error(), "900ms later the command still ran: raise --rebalance-timeout") {
		t.Errorf("cause %v", cause)
	}
	q.GiveBack(message)
}

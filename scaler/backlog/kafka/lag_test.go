package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// bench is a broker with a topic of its own for each case.
type bench struct {
	*testing.T
	cluster *kfake.Cluster
	client  *kgo.Client
	topic   string
	config  Config
	reader  backlog.Reader
}

func newBench(t *testing.T, partitions int32, configs map[string]string) *bench {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bench{T: t, cluster: c, topic: "work"}
	if err := c.CreateTopic(b.topic, partitions, configs); err != nil {
		t.Fatal(err)
	}
	b.client = client(t, c.ListenAddrs(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	b.config = Config{Brokers: c.ListenAddrs(), Topics: []string{b.topic}, Group: "g"}
	return b
}

func (b *bench) send(partition int32, keys ...string) {
	b.Helper()
	for _, key := range keys {
		if err := b.client.ProduceSync(b.Context(), &kgo.Record{Topic: b.topic, Partition: partition, Key: []byte(key), Value: []byte("v")}).FirstErr(); err != nil {
			b.Fatal(err)
		}
	}
}

// transact sends messages in a transaction each.
func (b *bench) transact(commit kgo.TransactionEndTry, keys ...string) {
	b.Helper()
	tx := client(b.T, b.cluster.ListenAddrs(), kgo.TransactionalID(fmt.Sprint("tx-", commit)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, key := range keys {
		if err := tx.BeginTransaction(); err != nil {
			b.Fatal(err)
		}
		if err := tx.ProduceSync(b.Context(), &kgo.Record{Topic: b.topic, Key: []byte(key), Value: []byte("v")}).FirstErr(); err != nil {
			b.Fatal(err)
		}
		if err := tx.EndTransaction(b.Context(), commit); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) commit(partition int32, at int64) {
	b.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset(b.topic, partition, at, -1)
	if err := kadm.NewClient(b.client).CommitAllOffsets(b.Context(), b.config.Group, offsets); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) want(when string, ready, parallelism int64) {
	b.Helper()
	if b.reader == nil {
		var err error
		if b.reader, err = Open(b.config); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = b.reader.Close() })
	}
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	for _, again := range []string{"", ", again"} { // what was seen before is remembered
		o, err := b.reader.Read(ctx)
		if err != nil || o.Ready != ready || o.Parallelism != parallelism {
			b.Errorf("%s%s: %d ready on %d partitions, %v; want %d on %d", when, again, o.Ready, o.Parallelism, err, ready, parallelism)
		}
	}
}

// A worker commits what it was given, and markers behind that are given to nobody.
func TestTransactionMarkers(t *testing.T) {
	b := newBench(t, 1, nil)
	b.transact(kgo.TryCommit, "a", "b", "c") // each is a message and a marker
	b.want("nothing committed", 3, 1)
	b.commit(0, 3)
	b.want("one left", 1, 1)
	b.commit(0, 5) // behind the last message
	b.want("worked off", 0, 0)
	b.transact(kgo.TryCommit, "d")
	b.want("one more", 1, 1)
}

func TestIsolation(t *testing.T) {
	b := newBench(t, 1, nil)
	b.transact(kgo.TryCommit, "a")
	b.transact(kgo.TryAbort, "b", "c")
	b.want("read uncommitted", 3, 1)
	committed := newBench(t, 1, nil)
	committed.config.ReadCommitted = true
	committed.transact(kgo.TryCommit, "a")
	committed.transact(kgo.TryAbort, "b", "c")
	committed.want("read committed", 1, 1)
	committed.commit(0, 1)
	committed.want("read committed, worked off", 0, 0)
	// An open transaction is not there yet, and neither is what comes behind it.
	tx := client(t, committed.cluster.ListenAddrs(), kgo.TransactionalID("open"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: committed.topic, Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	committed.send(0, "behind")
	committed.want("an open transaction", 0, 0)
	if err := tx.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	committed.want("it is committed", 2, 1)
}

// Compaction leaves gaps, and at times nothing up to the end.
func TestCompacted(t *testing.T) {
	b := newBench(t, 1, map[string]string{"cleanup.policy": "compact"})
	for range 20 {
		b.send(0, "same")
	}
	b.send(0, "last", "active")
	b.cluster.Compact()
	b.want("of twenty of one key the last is left", 3, 1)
	b.commit(0, 20)
	b.want("two left", 2, 1)
	b.commit(0, 22)
	b.want("worked off", 0, 0)
}

// A topic that was deleted and made again begins at 0, and the group's offsets are of the old one.
func TestRecreated(t *testing.T) {
	b := newBench(t, 1, nil)
	for range 10 {
		b.send(0, "k")
	}
	b.commit(0, 10)
	b.want("worked off", 0, 0)
	if err := b.cluster.DeleteTopic(b.topic); err != nil {
		t.Fatal(err)
	}
	if err := b.cluster.CreateTopic(b.topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	b.client = client(t, b.cluster.ListenAddrs(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	b.commit(0, 10) // brokers drop the offsets of a deleted topic later
	b.send(0, "new", "new")
	// The client remembers the old one for a moment, which is an error.
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
		if _, err := b.reader.Read(t.Context()); err == nil {
			break
		}
	}
	b.want("made anew", 2, 1)
}

// All lag on one partition is work for one worker.
func TestSkew(t *testing.T) {
	b := newBench(t, 4, nil)
	for range 30 {
		b.send(2, "k")
	}
	for partition := range int32(4) {
		b.commit(partition, 0)
	}
	b.want("all on one", 30, 1)
	b.send(3, "k")
	b.want("on two", 31, 2)
}

// A group that begins at the end, and has committed nothing, needs a worker to begin.
func TestLatestBegins(t *testing.T) {
	b := newBench(t, 2, nil)
	b.config.Latest = true
	b.want("an empty topic", 1, 1)
	b.send(0, "k", "k", "k")
	b.want("messages that nobody counts from", 1, 1)
	b.commit(0, 3)
	b.want("all committed", 0, 0)
	b.send(0, "k", "k")
	b.want("two more", 2, 1)
	b.send(1, "k")
	b.commit(0, 5)
	b.want("messages in a partition without a commit", 1, 1)
}

// A long lag is not read from end to end; that there is a message in it is made sure.
func TestLongLag(t *testing.T) {
	b := newBench(t, 1, nil)
	var records []*kgo.Record
	for range 5000 {
		records = append(records, &kgo.Record{Topic: b.topic, Value: make([]byte, 100)})
	}
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.want("5,000", 5000, 1)
	b.commit(0, 1234)
	b.want("less", 5000-1234, 1)
	b.commit(0, 4990)
	b.want("the last ones", 10, 1)
}

// Three hundred partitions with lag are more than fit into an answer.
func TestManyPartitions(t *testing.T) {
	b := newBench(t, 300, nil)
	var records []*kgo.Record
	for partition := range int32(300) {
		records = append(records, &kgo.Record{Topic: b.topic, Partition: partition, Value: make([]byte, 90<<10)})
	}
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.want("one in each", 300, 300)
}

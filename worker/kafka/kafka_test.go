package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/kafka"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

const scansTopic, resultsTopic, deadTopic, retryTopic, group = "scans", "results", "dead", "retry", "workers"

// bench is a broker with the topics of a scan service.
type bench struct {
	cluster  *kfake.Cluster
	client   *kgo.Client
	admin    *kadm.Client
	consumed map[string]*kgo.Client
}

func newBench(t *testing.T, partitions int32) *bench {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, scansTopic),
		kfake.SeedTopics(1, resultsTopic, deadTopic, retryTopic), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "100"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &bench{cluster: cluster, consumed: map[string]*kgo.Client{}}
	b.client = b.open(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	b.admin = kadm.NewClient(b.client)
	return b
}

func (b *bench) open(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(b.cluster.ListenAddrs()...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func (b *bench) produce(t *testing.T, partition int32, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := b.client.ProduceSync(t.Context(), &kgo.Record{
			Topic: scansTopic, Partition: partition, Key: []byte("repository"), Value: []byte(body),
			Headers: []kgo.RecordHeader{{Key: "message-id", Value: []byte("id-" + body)}, {Key: "team", Value: []byte("red")}},
		}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// take returns the next record of a topic.
func (b *bench) take(t *testing.T, topic string) *kgo.Record {
	t.Helper()
	client := b.consumed[topic]
	if client == nil {
		client = b.open(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		b.consumed[topic] = client
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		fetches := client.PollRecords(ctx, 1)
		if records := fetches.Records(); len(records) > 0 {
			return records[0]
		}
		if ctx.Err() != nil {
			t.Fatalf("nothing in topic %s: %v", topic, fetches.Err())
		}
	}
}

func header(record *kgo.Record, key string) string {
	for _, h := range record.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func (b *bench) result(t *testing.T) *resultsv1alpha1.Result {
	t.Helper()
	record := b.take(t, resultsTopic)
	result, err := results.Unmarshal(header(record, "content-type"), record.Value)
	if err != nil {
		t.Fatal(err)
	}
	if header(record, "message-id") != result.GetKey() || string(record.Key) != result.GetScan() {
		t.Errorf("record %q with key %q holds result %v", header(record, "message-id"), record.Key, result)
	}
	return result
}

// committed is the offset that the group has committed in a partition; -1 when it has none.
func (b *bench) committed(t *testing.T, partition int32) int64 {
	t.Helper()
	offsets, err := b.admin.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if commit, ok := offsets.Lookup(scansTopic, partition); ok {
		return commit.At
	}
	return -1
}

// job is a worker of the bench's group.
type job struct {
	worker.Config
	queue kafka.Config
}

func (b *bench) job(command ...string) job {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return job{
		Config: worker.Config{
			Name: "test", Command: command, Endings: worker.DefaultEndings(), ResultFormat: results.JSON, ResultLimit: 512 << 10,
			ResultMaxBytes: 1 << 20, MaxMessages: 1, IdleTimeout: 30 * time.Second, GracePeriod: 10 * time.Second, Log: log,
		},
		queue: kafka.Config{
			Brokers: b.cluster.ListenAddrs(), Topics: []string{scansTopic}, Group: group, ClientID: "test", ResultTopic: resultsTopic,
			DeadLetterTopic: deadTopic, SessionTimeout: 9 * time.Second, RebalanceTimeout: 30 * time.Second, ConnectTimeout: 5 * time.Second, Log: log,
		},
	}
}

func (j job) run(ctx context.Context) (worker.Summary, error) {
	queue, err := kafka.Open(ctx, j.queue)
	if ctx.Err() != nil {
		return worker.Summary{}, nil
	}
	if err != nil {
		return worker.Summary{}, err
	}
	defer func() { _ = queue.Close() }() // the broker may be gone
	summary, err := worker.Run(ctx, j.Config, queue, time.Now())
	return summary.Untimed(), err
}

func (j job) mustRun(t *testing.T, want worker.Summary) {
	t.Helper()
	if got, err := j.run(t.Context()); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestRun(t *testing.T) {
	cases := map[string]func(*testing.T, *bench){
		"a result": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one", "two")
			b.job("tr", "a-z", "A-Z").mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
			if r := b.result(t); r.GetText() != "ONE" || r.GetKey() != "id-one" || r.GetAttempt() != 1 || r.GetQueue() != scansTopic {
				t.Errorf("result %v", r)
			}
			if at := b.committed(t, 0); at != 1 {
				t.Errorf("committed %d, want 1", at)
			}
		},
		"a record without an id": func(t *testing.T, b *bench) {
			if err := b.client.ProduceSync(t.Context(), &kgo.Record{Topic: scansTopic, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			b.job("cat").mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
			if r := b.result(t); r.GetKey() != "scans/0/0" {
				t.Errorf("result %v", r)
			}
		},
		"as long as there is work": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one", "two")
			b.produce(t, 1, "three")
			j := b.job("cat")
			j.MaxMessages, j.IdleTimeout = 0, time.Second
			j.mustRun(t, worker.Summary{Messages: 3, Succeeded: 3, Ended: "idle"})
			if a, c := b.committed(t, 0), b.committed(t, 1); a != 2 || c != 1 {
				t.Errorf("committed %d and %d, want 2 and 1", a, c)
			}
		},
		"a failure": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			b.job("sh", "-c", "echo broken >&2; exit 4").mustRun(t, worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			dead := b.take(t, deadTopic)
			if string(dead.Value) != "one" || string(dead.Key) != "repository" || header(dead, "team") != "red" ||
				header(dead, "ebbtide-reason") != "the command exited with 4: broken" || header(dead, "message-id") != "id-one" {
				t.Errorf("dead letter %q: %v", dead.Value, dead.Headers)
			}
			if r := b.result(t); r.GetStatus() != resultsv1alpha1.Status_STATUS_FAILED || r.GetExitCode() != 4 {
				t.Errorf("result %v", r)
			}
			if at := b.committed(t, 0); at != 1 {
				t.Errorf("committed %d, want 1", at)
			}
		},
		"another attempt": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			j := b.job("sh", "-c", "[ $EBBTIDE_DELIVERY_COUNT = 1 ] || exit 75; cat")
			j.queue.RetryTopics, j.MaxMessages = []string{retryTopic}, 2
			j.mustRun(t, worker.Summary{Messages: 2, Succeeded: 1, Retried: 1, Ended: "messages"})
			if r := b.result(t); r.GetAttempt() != 2 || r.GetKey() != "id-one" || r.GetText() != "one" || r.GetQueue() != retryTopic {
				t.Errorf("result %v", r)
			}
		},
		"the last attempt, without a retry topic": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			j := b.job("sh", "-c", "exit 75")
			j.MaxMessages, j.MaxAttempts = 2, 2
			j.mustRun(t, worker.Summary{Messages: 2, Retried: 1, DeadLettered: 1, Ended: "messages"})
			if dead := b.take(t, deadTopic); header(dead, "ebbtide-attempt") != "" || !strings.HasSuffix(header(dead, "ebbtide-reason"), "it was attempt 2 of 2") {
				t.Errorf("dead letter %v", dead.Headers)
			}
		},
		"attempts that killed their workers": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			j := b.job("cat")
			j.MaxAttempts = 2
			for range 2 {
				holder, err := kafka.Open(t.Context(), j.queue)
				if err != nil {
					t.Fatal(err)
				}
				message, err := holder.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				holder.GiveBack(message) // nothing is committed, as when it is killed
				if err := holder.Close(); err != nil {
					t.Fatal(err)
				}
			}
			j.mustRun(t, worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			if r := b.result(t); r.GetAttempt() != 3 || !strings.Contains(r.GetReason(), "attempt 2 of 2 ended without an answer") {
				t.Errorf("result %v", r)
			}
		},
		"no such topic": func(t *testing.T, b *bench) {
			j := b.job("cat")
			j.queue.ResultTopic = "nope"
			if _, err := j.run(t.Context()); err == nil || err.Error() != `topic "nope" does not exist: create it, or correct its name` {
				t.Errorf("error %v", err)
			}
		},
		"a result too large for the topic": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			j := b.job("head", "-c", "1100000", "/dev/urandom") // which no compression makes smaller
			j.ResultLimit, j.ResultMaxBytes = 8<<20, 8<<20
			j.mustRun(t, worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			if dead := b.take(t, deadTopic); !strings.Contains(header(dead, "ebbtide-reason"), "lower --result-limit") {
				t.Errorf("dead letter %v", dead.Headers)
			}
			if at := b.committed(t, 0); at != 1 {
				t.Errorf("committed %d, want 1", at)
			}
		},
		// Another member joins while a command runs: the record stays where it is until it is done.
		"a rebalance waits": func(t *testing.T, b *bench) {
			b.produce(t, 0, "one")
			b.produce(t, 1, "one")
			finish := filepath.Join(t.TempDir(), "finish")
			long := b.job("sh", "-c", "until [ -e "+finish+" ]; do sleep 0.05; done; cat")
			var wait sync.WaitGroup
			wait.Go(func() { long.mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"}) })
			b.awaitMembers(t, 1, 2)
			short := b.job("cat")
			wait.Go(func() { short.mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"}) })
			b.awaitMembers(t, 2, 1)
			if err := os.WriteFile(finish, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			wait.Wait()
			if first, second := b.result(t), b.result(t); first.GetAttempt() != 1 || second.GetAttempt() != 1 {
				t.Errorf("results %v and %v", first, second)
			}
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, 2))
		})
	}
}

// awaitMembers waits until the group is stable with so many members, one of which has so many partitions.
func (b *bench) awaitMembers(t *testing.T, members, partitions int) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		groups, err := b.admin.DescribeGroups(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		g := groups[group]
		last = fmt.Sprintf("%s, %d members", g.State, len(g.Members))
		if g.State != "Stable" || len(g.Members) != members {
			continue
		}
		for _, member := range g.Members {
			if assigned, ok := member.Assigned.AsConsumer(); ok {
				for _, topic := range assigned.Topics {
					if len(topic.Partitions) == partitions {
						return
					}
				}
			}
		}
	}
	t.Fatalf("group is %s; want %d members, one with %d partitions", last, members, partitions)
}

// Members join and leave while records arrive, and each record has its result.
func TestMembersComeAndGo(t *testing.T) {
	t.Run("classic", func(t *testing.T) { membersComeAndGo(t, false) })
	t.Run("consumer", func(t *testing.T) { membersComeAndGo(t, true) })
}

func membersComeAndGo(t *testing.T, serverSide bool) {
	const records = 60
	b := newBench(t, 4)
	for i := range records {
		b.produce(t, int32(i%4), fmt.Sprint(i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for ctx.Err() == nil {
				j := b.job("cat")
				j.MaxMessages, j.queue.ServerSide = 7, serverSide
				if _, err := j.run(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	for len(seen) < records {
		seen[b.result(t).GetText()] = true
	}
	stop()
	wait.Wait()
	done := int64(0)
	for partition := range int32(4) {
		done += b.committed(t, partition)
	}
	if done != records {
		t.Errorf("%d records are committed, want %d", done, records)
	}
}

// A worker that waits for a record and is not heard of in time joins again, and processes what comes then.
func TestPutOutOfTheGroup(t *testing.T) {
	for _, reason := range []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration} {
		t.Run(reason.Message, func(t *testing.T) {
			b := newBench(t, 1)
			out := make(chan struct{})
			b.cluster.ControlKey(kmsg.Heartbeat.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
				close(out)
				response := request.ResponseKind().(*kmsg.HeartbeatResponse)
				response.ErrorCode = reason.Code
				return response, nil, true
			})
			j := b.job("cat")
			j.queue.SessionTimeout = 900 * time.Millisecond
			var wait sync.WaitGroup
			wait.Go(func() { j.mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"}) })
			<-out
			b.produce(t, 0, "one")
			wait.Wait()
		})
	}
}

func TestBrokerGoesAway(t *testing.T) {
	b := newBench(t, 1)
	b.produce(t, 0, "one")
	started := filepath.Join(t.TempDir(), "started")
	j := b.job("sh", "-c", "touch "+started+"; exec sleep 60")
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { _, err := j.run(t.Context()); ended <- err }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command does not start")
		}
	}
	b.cluster.Close()
	if err := <-ended; !errors.Is(err, worker.ErrGivenBack) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the scan went on for %s", took)
	}
}

package kafka_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/dead"
	"github.com/ebbtide-dev/ebbtide/worker/kafka"
)

// letters of the bench's topic of dead letters.
func (b *bench) letters(t *testing.T, replayTo string) *kafka.DeadLetters {
	t.Helper()
	letters, err := kafka.OpenDeadLetters(t.Context(), kafka.DeadConfig{
		Brokers: b.cluster.ListenAddrs(), Topic: deadTopic, ReplayTo: replayTo, ConnectTimeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := letters.Close(); err != nil {
			t.Error(err)
		}
	})
	return letters
}

// read returns the keys of all letters, and replays those that match.
func read(t *testing.T, letters *kafka.DeadLetters, replay func(dead.Letter) bool) (keys []string, err error) {
	t.Helper()
	err = letters.Each(t.Context(), func(l dead.Letter) (bool, error) {
		keys = append(keys, l.Key)
		if replay(l) {
			return true, letters.Replay(t.Context())
		}
		return true, nil
	})
	return keys, err
}

func none(dead.Letter) bool { return false }

func all(dead.Letter) bool { return true }

// fail makes dead letters of records.
func (b *bench) fail(t *testing.T, bodies ...string) {
	t.Helper()
	b.produce(t, 0, bodies...)
	j := b.job("sh", "-c", "echo broken >&2; exit 4")
	j.MaxMessages = len(bodies)
	j.mustRun(t, worker.Summary{Messages: len(bodies), DeadLettered: len(bodies), Ended: "messages"})
}

// scanned is what of the topic of scans a consumer sees after the records that the test sent.
func (b *bench) scanned(t *testing.T, sent, want int) (records []*kgo.Record) {
	t.Helper()
	client := b.open(t, kgo.ConsumeTopics(scansTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	// What comes last tells that there is no more.
	b.produce(t, 0, "last")
	for {
		fetches := client.PollFetches(t.Context())
		for _, record := range fetches.Records() {
			if string(record.Value) == "last" {
				if records = records[sent:]; len(records) != want {
					t.Fatalf("%d records were replayed, want %d", len(records), want)
				}
				return records
			}
			records = append(records, record)
		}
	}
}

// Letters are read without a trace, and sent again once, as their producers sent them.
func TestDeadLetters(t *testing.T) {
	b := newBench(t, 1)
	b.fail(t, "one", "two", "three")
	for range 2 {
		keys, err := read(t, b.letters(t, ""), func(l dead.Letter) bool {
			if l.Reason != "the command exited with 4: broken" || time.Since(l.Died) > time.Minute || l.Headers["team"] != "red" ||
				string(l.Body) != strings.TrimPrefix(l.Key, "id-") || !strings.HasPrefix(l.Position, "0/") {
				t.Errorf("letter %+v", l)
			}
			return false
		})
		if want := []string{"id-one", "id-two", "id-three"}; err != nil || !slices.Equal(keys, want) {
			t.Fatalf("letters %q, %v, want %q", keys, err, want)
		}
	}
	for range 2 { // the second one does not find it
		if _, err := read(t, b.letters(t, scansTopic), func(l dead.Letter) bool { return l.Key == "id-two" }); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := read(t, b.letters(t, ""), none); err != nil || !slices.Equal(keys, []string{"id-one", "id-three"}) {
		t.Errorf("letters %q are left, %v", keys, err)
	}
	again := b.scanned(t, 3, 1)[0]
	if string(again.Key) != "repository" || string(again.Value) != "two" || header(again, "message-id") != "id-two" ||
		header(again, "team") != "red" || len(again.Headers) != 2 {
		t.Errorf("replayed %q, %q with %v", again.Key, again.Value, again.Headers)
	}
}

// More letters than a transaction has are all sent, and each once, though replays begin while others run, and some of those end in the middle.
func TestDeadLettersAreNotReplayedTwice(t *testing.T) {
	const count = 250
	b := newBench(t, 1)
	bodies := make([]string, count)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
		if err := b.client.ProduceSync(t.Context(), &kgo.Record{
			Topic: deadTopic, Value: []byte(bodies[i]), Headers: []kgo.RecordHeader{{Key: "message-id", Value: []byte(bodies[i])}},
		}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// One dies after it has sent one transaction and a part of the next: what it had open is not sent, and another begins there.
	first, seen := b.letters(t, scansTopic), 0
	errDied := errors.New("died")
	err := first.Each(t.Context(), func(dead.Letter) (bool, error) {
		if seen++; seen == 150 {
			return false, errDied
		}
		return true, first.Replay(t.Context())
	})
	if !errors.Is(err, errDied) || !strings.Contains(err.Error(), "the last 49 letters are not sent") {
		t.Fatal(err)
	}
	// Of two at once, the one that began first ends with an error.
	second, seen := b.letters(t, scansTopic), 0
	err = second.Each(t.Context(), func(dead.Letter) (bool, error) {
		if seen++; seen == 50 {
			if keys, err := read(t, b.letters(t, scansTopic), all); err != nil || len(keys) != count-100 {
				t.Fatalf("%d letters, %v", len(keys), err)
			}
		}
		return true, second.Replay(t.Context())
	})
	if err == nil || !strings.Contains(err.Error(), "another replay of topic") {
		t.Fatalf("the replay that another one stopped ended with %v", err)
	}
	if keys, err := read(t, b.letters(t, scansTopic), all); err != nil || len(keys) != 0 {
		t.Fatalf("letters %q, %v", keys, err)
	}
	times := map[string]int{}
	for _, record := range b.scanned(t, 0, count) {
		times[string(record.Value)]++
	}
	for _, body := range bodies {
		if times[body] != 1 {
			t.Errorf("%s was sent %d times", body, times[body])
		}
	}
}

// A worker gets nothing of a transaction that was aborted, such as that of a replay which died.
func TestAbortedIsNoMessage(t *testing.T) {
	b := newBench(t, 1)
	client := b.open(t, kgo.TransactionalID("test"))
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: scansTopic, Value: fmt.Append(nil, bool(commit))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	b.job("cat").mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
	if r := b.result(t); r.GetText() != "true" {
		t.Errorf("result %v", r)
	}
}

package decision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	pb "github.com/ebbtide-dev/ebbtide/proto/ebbtide/decisions/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// unread is a backlog that explaining must not read; it is told of no policy either.
type unread struct{ t *testing.T }

func (u unread) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source { return u }
func (u unread) Observe(context.Context, time.Duration) (sizing.Observation, error) {
	u.t.Error("the backlog was read")
	return sizing.Observation{}, errors.New("not to be read")
}
func (unread) Close() error                          { return nil }
func (unread) Validated(types.NamespacedName, error) {}
func (unread) Forget(types.NamespacedName)           {}

func serveAPI(t *testing.T, api *API) pb.DecisionServiceClient {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	api.Register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///api", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return pb.NewDecisionServiceClient(connection)
}

func TestAPI(t *testing.T) {
	monday := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	store := workdays(t, "")
	ledger := NewLedger(3)
	client := serveAPI(t, &API{Ledger: ledger, Policies: store, Now: func() time.Time { return monday }, Authorize: func(_ context.Context, namespace string) error {
		if namespace == "secret" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	}})

	ref := &pb.PolicyRef{Namespace: "scan", Name: "scans"}
	explained, err := client.ExplainDecision(t.Context(), &pb.ExplainDecisionRequest{Policy: ref, Ready: 7, Consumers: 2})
	if err != nil || explained.Decision.Target != 9 || explained.Decision.Constraint != pb.Constraint_CONSTRAINT_BACKLOG {
		t.Errorf("%v, %v; want 9 by the backlog", explained, err)
	}
	night := timestamppb.New(monday.Add(12 * time.Hour))
	explained, err = client.ExplainDecision(t.Context(), &pb.ExplainDecisionRequest{Policy: ref, Time: night, Consumers: 3, Unacknowledged: ptr.To[int64](1)})
	if err != nil || explained.Decision.Target != 1 || explained.Decision.Limits.Period != "default" {
		t.Errorf("%v, %v; want 1 at night", explained, err)
	}
	var changes []string
	for _, change := range explained.GetNextChanges() {
		changes = append(changes, change.Time.AsTime().Format("Mon 15:04 ")+change.Limits.Period)
	}
	if got := strings.Join(changes, ", "); got != "Tue 07:00 workday, Tue 19:00 default, Wed 07:00 workday, Wed 19:00 default, Thu 07:00 workday" {
		t.Errorf("next changes %s", got)
	}
	if len(ledger.policies) != 0 {
		t.Error("an explanation was recorded")
	}
	for name, tc := range map[string]struct {
		request *pb.ExplainDecisionRequest
		code    codes.Code
	}{
		"unknown":   {&pb.ExplainDecisionRequest{Policy: &pb.PolicyRef{Namespace: "scan", Name: "nope"}}, codes.NotFound},
		"invalid":   {&pb.ExplainDecisionRequest{Policy: &pb.PolicyRef{Namespace: "scan", Name: "broken"}}, codes.FailedPrecondition},
		"negative":  {&pb.ExplainDecisionRequest{Policy: ref, Ready: -1}, codes.InvalidArgument},
		"no time":   {&pb.ExplainDecisionRequest{Policy: ref, Time: &timestamppb.Timestamp{Nanos: -1}}, codes.InvalidArgument},
		"forbidden": {&pb.ExplainDecisionRequest{Policy: &pb.PolicyRef{Namespace: "secret", Name: "x"}}, codes.PermissionDenied},
	} {
		if _, err := client.ExplainDecision(t.Context(), tc.request); status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}

	watch, err := client.WatchDecisions(t.Context(), &pb.WatchDecisionsRequest{Namespace: "scan", Name: "scans"})
	if err != nil {
		t.Fatal(err)
	}
	for ledger.watching() == 0 {
		time.Sleep(time.Millisecond)
	}
	limits := calendar.Limits{Period: "default", MaxReplicas: 9}
	for i := range 3 {
		d := sizing.Decide(monday, sizing.Observation{Time: monday, Ready: int64(i)}, nil, limits, sizing.Parameters{MessagesPerReplica: 1}, 0)
		ledger.Add(types.NamespacedName{Namespace: "scan", Name: "other"}, d)
		ledger.Add(types.NamespacedName{Namespace: "scan", Name: "scans"}, d)
	}
	for i := range 3 {
		got, err := watch.Recv()
		if err != nil || got.Decision.Target != int32(i) || got.Decision.Policy.Name != "scans" {
			t.Errorf("watched %v, %v; want target %d", got, err, i)
		}
	}
	list, err := client.ListDecisions(t.Context(), &pb.ListDecisionsRequest{Namespace: "scan", Limit: 2})
	var got []string
	for _, d := range list.GetDecisions() {
		got = append(got, d.Policy.Name+" "+d.Reason)
	}
	if want := "other 2 ready and 0 in flight ask for 2, other 1 ready and 0 in flight ask for 1, " +
		"scans 2 ready and 0 in flight ask for 2, scans 1 ready and 0 in flight ask for 1"; err != nil || strings.Join(got, ", ") != want {
		t.Errorf("listed %v, %v", got, err)
	}
	for _, request := range []*pb.ListDecisionsRequest{{Limit: -1}, {PageSize: -1}} {
		if _, err := client.ListDecisions(t.Context(), request); status.Code(err) != codes.InvalidArgument {
			t.Errorf("error %v", err)
		}
	}
	page, err := client.ListDecisions(t.Context(), &pb.ListDecisionsRequest{PageSize: 1, Limit: 1})
	if err != nil || len(page.Decisions) != 1 || page.Decisions[0].Policy.Name != "other" || page.NextPageToken != "scan/other" {
		t.Errorf("first page %v, %v", page, err)
	}
	page, err = client.ListDecisions(t.Context(), &pb.ListDecisionsRequest{PageSize: 1, Limit: 1, PageToken: "scan/other"})
	if err != nil || len(page.Decisions) != 1 || page.Decisions[0].Policy.Name != "scans" || page.NextPageToken != "" {
		t.Errorf("second page %v, %v", page, err)
	}
}

// An explanation counts as the policy's kind of source does: a lag of 10 holds what the 4 consumers work on.
func TestExplainByKindOfSource(t *testing.T) {
	store := policy.NewStore(unread{t}, unread{t}, slog.New(slog.DiscardHandler))
	value := v1alpha1.ValueSource{Value: "amqp://x"}
	query := v1alpha1.ValueSource{Value: "http://x"}
	for name, source := range map[string]v1alpha1.Backlog{
		"rabbitmq":   {RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value, Queue: "q"}},
		"kafka":      {Kafka: &v1alpha1.KafkaBacklog{Brokers: []string{"x:9092"}, ConsumerGroup: "g", Topics: []string{"t"}}},
		"prometheus": {Prometheus: &v1alpha1.PrometheusBacklog{URL: query, Query: "x"}},
	} {
		store.Set(t.Context(), &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name}, Spec: v1alpha1.ScalingPolicySpec{Backlog: source},
		}, nil)
	}
	client := serveAPI(t, &API{Ledger: NewLedger(1), Policies: store, Now: time.Now, Authorize: func(context.Context, string) error { return nil }})
	for name, want := range map[string]string{
		"rabbitmq": "10 ready and 4 in flight ask for 14", "kafka": "10 unfinished ask for 10", "prometheus": "10 unfinished ask for 10",
	} {
		got, err := client.ExplainDecision(t.Context(), &pb.ExplainDecisionRequest{Policy: &pb.PolicyRef{Namespace: "scan", Name: name}, Ready: 10, Consumers: 4})
		if err != nil || got.Decision.Reason != want {
			t.Errorf("%s: %v, %v; want %q", name, got, err, want)
		}
	}
}

// A watcher that does not read is cut off; nobody waits for it.
func TestSlowWatcher(t *testing.T) {
	ledger := NewLedger(3)
	slow, closed := ledger.Watch(), ledger.Watch()
	closed.Close()
	closed.Close()
	for i := range 2000 {
		ledger.Add(scans, sizing.Decision{Target: int32(i)})
	}
	received := 0
	for range slow.Entries() {
		received++
	}
	if received != cap(slow.entries) || ledger.watching() != 0 {
		t.Errorf("%d decisions before it was cut off, %d watchers left", received, ledger.watching())
	}
	slow.Close()
}

// A decision that says nothing new takes no room.
func TestLedgerRepeats(t *testing.T) {
	ledger := NewLedger(3)
	for i := range 9 {
		ledger.Add(scans, sizing.Decision{Target: int32(i / 4), Time: time.Unix(int64(i), 0)})
	}
	last := ledger.Last(scans, 10)
	if len(last) != 3 || last[1].Time.Unix() != 7 || last[2].Time.Unix() != 3 {
		t.Errorf("%v", last)
	}
}

func (l *Ledger) watching() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.watchers)
}

func TestEveryConstraintHasAName(t *testing.T) {
	for _, constraint := range sizing.Constraints {
		if constraintsToProto[constraint] == pb.Constraint_CONSTRAINT_UNSPECIFIED {
			t.Errorf("%s has no value in the API", constraint)
		}
	}
	if len(constraintsToProto) != len(sizing.Constraints) || len(pb.Constraint_name) != len(sizing.Constraints)+1 {
		t.Error("the API and package sizing know different constraints")
	}
}

// Ten thousand policies that change all the time take a part of what the chart lets a scaler have, and each keeps what is of use.
func TestLedgerMemory(t *testing.T) {
	const policies = 10_000
	live := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, at := live(), time.Unix(1000, 0)
	ledger := NewLedger(64)
	limits := calendar.Limits{Period: "workday", IdleReplicas: 3, MaxReplicas: 200}
	for j := range 64 {
		for i := range policies {
			ledger.Add(types.NamespacedName{Namespace: "scan", Name: fmt.Sprintf("scans-%05d", i)}, sizing.Decide(at,
				sizing.Observation{Time: at, Source: "rabbitmq broker:5672", Ready: int64(j), Consumers: 5}, nil, limits, sizing.Parameters{MessagesPerReplica: 1}, 0))
		}
	}
	if used := (live() - before) >> 20; used > 96 {
		t.Errorf("%d MiB, want less than 96 of the 256 that the chart allows", used)
	}
	last := ledger.Last(types.NamespacedName{Namespace: "scan", Name: "scans-00007"}, 64)
	if len(last) != ledgerTotal/policies || last[0].Observation.Ready != 63 || last[9].Observation.Ready != 54 {
		t.Errorf("%d decisions are kept, from %d ready on", len(last), last[0].Observation.Ready)
	}
	runtime.KeepAlive(ledger)
}

// A page holds policies in order, and says how to get the next; deleting some meanwhile loses no others.
func TestLedgerPages(t *testing.T) {
	ledger := NewLedger(3)
	for _, name := range []string{"b/x", "a/y", "a/x", "c/x", "b/y"} {
		namespace, policy, _ := strings.Cut(name, "/")
		for i := range 3 {
			ledger.Add(types.NamespacedName{Namespace: namespace, Name: policy}, sizing.Decision{Target: int32(i)})
		}
	}
	var got []string
	for from := ""; ; {
		page := ledger.Page("", "", 2, 2, from)
		for _, d := range page.Decisions {
			got = append(got, fmt.Sprint(d.Namespace, "/", d.Policy, " ", d.Target))
		}
		if from = page.Continue; from == "" {
			break
		}
		ledger.Forget(types.NamespacedName{Namespace: "a", Name: "y"})
	}
	if want := "a/x 2, a/x 1, a/y 2, a/y 1, b/x 2, b/x 1, b/y 2, b/y 1, c/x 2, c/x 1"; strings.Join(got, ", ") != want {
		t.Errorf("pages hold %v", got)
	}
	if page := ledger.Page("b", "x", 9, 9, ""); len(page.Decisions) != 3 || page.Continue != "" {
		t.Errorf("of one policy: %+v", page)
	}
}

// Whatever is asked for, a page is no larger than a client takes, and the next one begins where it ends.
func TestPagesAreBounded(t *testing.T) {
	const policies = MaxPage
	ledger, reason := NewLedger(64), strings.Repeat("x", 600)
	for i := range policies {
		for j := range 64 {
			ledger.Add(types.NamespacedName{Namespace: "scan", Name: fmt.Sprintf("scans-%05d", i)}, sizing.Decision{Target: int32(j), Reason: reason, Failure: errors.New(reason)})
		}
	}
	client := serveAPI(t, &API{Ledger: ledger, Now: time.Now})
	seen := map[string]int{}
	for token, pages := "", 0; ; pages++ {
		page, err := client.ListDecisions(t.Context(), &pb.ListDecisionsRequest{Limit: math.MaxInt32, PageSize: math.MaxInt32, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Decisions {
			seen[d.Policy.Name]++
		}
		if token = page.NextPageToken; token == "" {
			break
		}
		if pages > policies {
			t.Fatal("pages without end")
		}
	}
	if len(seen) != policies || seen["scans-00000"] != 64 || seen["scans-00499"] != 64 {
		t.Errorf("%d policies, %d decisions of the first", len(seen), seen["scans-00000"])
	}
	if page := ledger.Page("", "", 64, MaxPage, ""); len(page.Decisions)*1600 > 2*pageBytes || page.Continue == "" {
		t.Errorf("%d decisions on a page, then %q", len(page.Decisions), page.Continue)
	}
}

// Watches are bounded, and one that ends makes room.
func TestWatchesAreBounded(t *testing.T) {
	ledger := NewLedger(3)
	client := serveAPI(t, &API{Ledger: ledger, Now: time.Now})
	ctx, end := context.WithCancel(t.Context())
	for range maxWatches {
		if _, err := client.WatchDecisions(ctx, &pb.WatchDecisionsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for ledger.watching() < maxWatches {
		time.Sleep(time.Millisecond)
	}
	more, err := client.WatchDecisions(t.Context(), &pb.WatchDecisionsRequest{})
	if err == nil {
		_, err = more.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: error %v", err)
	}
	end()
	for ledger.watching() > 0 {
		time.Sleep(time.Millisecond)
	}
	again, err := client.WatchDecisions(t.Context(), &pb.WatchDecisionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for ledger.watching() == 0 {
		time.Sleep(time.Millisecond)
	}
	ledger.Add(scans, sizing.Decision{Target: 1})
	if d, err := again.Recv(); err != nil || d.Decision.Target != 1 {
		t.Errorf("%v, %v", d, err)
	}
}

package simulator

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// ours is the scaler without a floor.
func ours(t *testing.T) Scaler {
	t.Helper()
	limits, errs := calendar.New(nil, 500, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1})
}

// scans are n messages, some in bursts, of seconds to minutes.
func scans(n int, seed uint64) []Job {
	random := rand.New(rand.NewPCG(seed, 9))
	var jobs []Job
	for at := time.Duration(0); len(jobs) < n; at += seconds(random.ExpFloat64() * 20) {
		burst := 1
		if random.IntN(20) == 0 {
			burst = 1 + random.IntN(40)
		}
		for range burst {
			jobs = append(jobs, Job{Start: at, Run: seconds(5 + 40*random.ExpFloat64()), Class: fmt.Sprint("c", random.IntN(3)), Requests: requests(1000, 2048)})
		}
	}
	return jobs[:n]
}

// Every message is done, and with one message a worker no job finds none, whatever dies on the way.
func TestSystemSettlesAll(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		s := Defaults()
		s.Scaler, s.Seed, s.QueuePerClass = ours(t), seed, seed%2 == 0
		s.PollEvery = time.Duration(2+random.IntN(30)) * time.Second
		s.Faults = Faults{Crashes: random.Float64() * 0.05, NodeLossPerHour: random.Float64() * 0.5}
		s.Nodes.Shapes = append(s.Nodes.Shapes, Shape{Name: "4x", Capacity: packing.Amounts{3920, 15 << 30, 0, 110}, Price: 0.19})
		out, err := s.Run(scans(400, seed))
		if err != nil {
			t.Fatal(err)
		}
		if out.Unserved > 0 || out.Messages != 400 || out.Jobs < 400 {
			t.Errorf("seed %d: %+v", seed, out)
		}
		if out.LostNodes == 0 && (out.EmptyJobs > 0 || out.Jobs != 400+out.Crashes) {
			t.Errorf("seed %d: %d jobs, %d of them found no message, for 400 messages and %d crashes", seed, out.Jobs, out.EmptyJobs, out.Crashes)
		}
		if out.NodeHours*out.PodHours*out.Cost <= 0 || out.RatioToBound < 1 || out.IdlePodHours <= 0 || out.IdlePodHours > out.PodHours {
			t.Errorf("seed %d: %+v", seed, out)
		}
	}
}

// One message, by hand: it comes at 10 s, KEDA polls at 30 s, its pod waits for a batch of 1 s and a node of 40 s, and takes 5 s until it
// consumes.
// The scan runs for a minute; the job is seen as finished 2 s later, and the node goes 45 s after that.
func TestSystemByHand(t *testing.T) {
	s := Defaults()
	s.Scaler, s.Nodes.Boot, s.Worker.Boot, s.Worker.Leave = ours(t), Range{40 * time.Second, 0}, Range{3 * time.Second, 0}, Range{2 * time.Second, 0}
	s.Worker.Connect = Range{2 * time.Second, 0}
	s.Nodes.Shapes = []Shape{{Name: "x", Capacity: packing.Amounts{4000, 8 << 30, 0, 10}, Price: 3600}}
	out, err := s.Run([]Job{{Start: 10 * time.Second, Run: time.Minute, Requests: requests(1000, 1024)}})
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if got < want-1e-6 || got > want+1e-6 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("wait", out.Wait.P50, 30+1+40+5-10)
	near("node-seconds", out.NodeHours*3600, 40+5+60+2+45)
	near("cost", out.Cost, 40+5+60+2+45)
	near("pod-seconds", out.PodHours*3600, 1+40+5+60+2)
	near("idle pod-seconds", out.IdlePodHours*3600, 1+40+5+2)
	near("bound", out.RatioToBound, float64(40+5+60+2+45)/(5+60+2+45))
	if out.Jobs != 1 || out.EmptyJobs != 0 || out.PeakNodes != 1 {
		t.Errorf("%+v", out)
	}
}

// One message with cluster-autoscaler, by hand: it comes at 12 s, KEDA polls at 30 s, the scan at 30 s comes before the poll's job is seen, so the
// node is decided on at 40 s and there at 80 s; 5 s later the scan runs, for a minute. Its job ends at 147 s; the node goes at the first scan
// 600 s later.
func TestClusterAutoscalerByHand(t *testing.T) {
	s := Defaults()
	s.Scaler, s.Nodes.Boot, s.Worker.Boot, s.Worker.Leave = ours(t), Range{Min: 40 * time.Second}, Range{Min: 3 * time.Second}, Range{Min: 2 * time.Second}
	s.Worker.Connect = Range{Min: 2 * time.Second}
	s.Nodes.ClusterAutoscaler, s.Nodes.Delay = DefaultClusterAutoscaler(), Range{Min: 10 * time.Minute}
	s.PollEvery = 31 * time.Second
	out, err := s.Run([]Job{{Start: 12 * time.Second, Run: time.Minute, Requests: requests(1000, 1024)}})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Wait.P50; got != 40+40+5-12 {
		t.Errorf("wait of %v s, want %d", got, 40+40+5-12)
	}
	if got := out.NodeHours * 3600; got < 709 || got > 711 {
		t.Errorf("%v node-seconds, want 710: from 40 to 750", got)
	}
}

// Cluster-autoscaler removes no more nodes at a scan than it may, and none soon after it made one.
func TestClusterAutoscalerRemoves(t *testing.T) {
	s := Defaults()
	s.Scaler, s.Nodes.ClusterAutoscaler, s.Nodes.Delay = ours(t), &ClusterAutoscaler{ScanEvery: 10 * time.Second, RemoveAtOnce: 2}, Range{Min: time.Minute}
	s.Nodes.Shapes = []Shape{
		{Name: "one", Capacity: packing.Amounts{1000, 8 << 30, 0, 10}, Price: 1},
		{Name: "wasteful", Capacity: packing.Amounts{1900, 8 << 30, 0, 10}, Price: 0.1},
	}
	var burst []Job
	for range 12 {
		burst = append(burst, Job{Run: time.Minute, Requests: requests(1000, 1024)})
	}
	fast, err := s.Run(burst)
	if err != nil {
		t.Fatal(err)
	}
	if fast.PeakNodes != 12 || fast.Cost < fast.NodeHours-1e-9 || fast.Cost > fast.NodeHours+1e-9 {
		t.Errorf("%d nodes at %.3f for %.3f hours, want 12 of the shape that fits", fast.PeakNodes, fast.Cost, fast.NodeHours)
	}
	s.Nodes.ClusterAutoscaler.RemoveAtOnce = 100
	atOnce, err := s.Run(burst)
	if err != nil {
		t.Fatal(err)
	}
	if fast.NodeHours < atOnce.NodeHours {
		t.Errorf("two at a time: %.3f node-hours, all at once %.3f", fast.NodeHours, atOnce.NodeHours)
	}
	// A message every 5 minutes that needs a node: nobody goes within 10 minutes of that.
	for i := range 12 {
		for j := range i + 1 {
			burst = append(burst, Job{Start: time.Duration(i+1)*5*time.Minute + time.Duration(j), Run: 20 * time.Minute, Requests: requests(1000, 1024)})
		}
	}
	s.Nodes.ClusterAutoscaler.DelayAfterAdd = 10 * time.Minute
	kept, err := s.Run(burst)
	if err != nil {
		t.Fatal(err)
	}
	s.Nodes.ClusterAutoscaler.DelayAfterAdd = 0
	let, err := s.Run(burst)
	if err != nil {
		t.Fatal(err)
	}
	if kept.NodeHours < 1.05*let.NodeHours {
		t.Errorf("%.2f node-hours with a delay after nodes that were made, %.2f without", kept.NodeHours, let.NodeHours)
	}
}

// What the series say adds up to what the figures do.
func TestSeriesAddUp(t *testing.T) {
	s := Defaults()
	s.Scaler = ours(t)
	out, err := s.Run(scans(400, 3))
	if err != nil {
		t.Fatal(err)
	}
	hours := func(values []float64) (sum float64) {
		for _, v := range values {
			sum += v * out.Series.StepSeconds / 3600
		}
		return sum
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.01*want {
			t.Errorf("%s: %.3f, want %.3f", what, got, want)
		}
	}
	near("nodes", hours(out.Series.Nodes), out.NodeHours)
	near("bound", hours(out.Series.Bound), out.NodeHours/out.RatioToBound)
	near("price", hours(out.Series.Price), out.Cost)
	for i := range out.Series.Nodes {
		sum := 0.0
		for _, shares := range out.Series.Constraints {
			sum += shares[i]
		}
		near("shares of constraints", sum, 1)
	}
	if q := out.Series.WaitQuantiles; len(q) != 101 || q[50] != out.Wait.P50 || q[95] != out.Wait.P95 || q[100] != out.Wait.Max {
		t.Errorf("quantiles %v of %+v", q, out.Wait)
	}
}

func TestSystemIsDeterministic(t *testing.T) {
	text := func(seed uint64) string {
		s := Defaults()
		s.Scaler, s.Seed, s.Faults = ours(t), seed, Faults{Crashes: 0.02, NodeLossPerHour: 0.3}
		out, err := s.Run(scans(300, 4))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if first, again := text(1), text(1); first != again {
		t.Error("the same seed gives other results")
	}
	if text(1) == text(2) {
		t.Error("another seed gives the same results")
	}
}

// What the scalers that people use today do, each its known fault.
func TestPeers(t *testing.T) {
	messages := scans(1500, 7)
	play := func(scaler Scaler, strategy string) Outcome {
		t.Helper()
		s := Defaults()
		s.Scaler, s.PollEvery, s.Worker.IdleTimeout = scaler, 10*time.Second, 5*time.Second
		var err error
		if s.Strategy, err = keda.NewStrategy(strategy); err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(messages)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	us, amqp, http, accurate := play(ours(t), ""), play(RabbitMQ(false), ""), play(RabbitMQ(true), ""), play(RabbitMQ(false), "accurate")
	if us.EmptyJobs != 0 || us.Jobs != 1500 {
		t.Errorf("ours: %d jobs, %d found no message", us.Jobs, us.EmptyJobs)
	}
	if amqp.Wait.P95 < 1.2*us.Wait.P95 {
		t.Errorf("over AMQP the queue should starve: p95 wait %.0f s, ours %.0f s", amqp.Wait.P95, us.Wait.P95)
	}
	if http.EmptyJobs == 0 {
		t.Error("over HTTP the figure lags: some jobs should find no message")
	}
	if accurate.EmptyJobs < 20 {
		t.Errorf("accurate: %d jobs found no message, want many", accurate.EmptyJobs)
	}
	static := play(Static(map[string]int64{"": 20}), "")
	if static.PodHours < 19*float64(len(static.Series.Pods))*static.Series.StepSeconds/3600*0.8 {
		t.Errorf("a static pool of 20 makes %.0f pod-hours", static.PodHours)
	}
}

// A worker that has outlived its lifetime takes no further message; the next job does.
func TestMaxLifetime(t *testing.T) {
	var messages []Job
	for range 4 {
		messages = append(messages, Job{Run: 10 * time.Minute, Requests: requests(1000, 1024)})
	}
	// A scan takes 10 minutes, and a worker at most 21 s to consume: it takes the second message before 15 minutes, no third.
	for lifetime, want := range map[time.Duration]int{0: 1, time.Minute: 4, 15 * time.Minute: 2, time.Hour: 1} {
		s := Defaults()
		s.Scaler, s.MaxJobs, s.Worker.MaxMessages, s.Worker.MaxLifetime = ours(t), 1, 0, lifetime
		out, err := s.Run(messages)
		if err != nil || out.Jobs != want || out.EmptyJobs != 0 {
			t.Errorf("lifetime %s: %d jobs, of which %d found no message; want %d; %v", lifetime, out.Jobs, out.EmptyJobs, want, err)
		}
	}
}

func TestSystemChecks(t *testing.T) {
	message := []Job{{Run: time.Second, Requests: requests(1000, 1024)}}
	for want, change := range map[string]func(*System){
		"scaler":              func(s *System) { s.Scaler = nil },
		"pollEvery is 0s":     func(s *System) { s.PollEvery = 0 },
		"nodes.shapes":        func(s *System) { s.Nodes.Shapes = nil },
		"idleTimeout is 0s":   func(s *System) { s.Worker.IdleTimeout = 0 },
		"faults.crashes is 1": func(s *System) { s.Faults.Crashes = 1 },
		`packer "x"`:          func(s *System) { s.Packer = "x" },
		"no node is so large": func(s *System) { s.Nodes.Shapes[0].Capacity[0] = 10 },
		"no node is so small": func(s *System) { s.Nodes.Limits = packing.Amounts{15_999} },
		"predictions \"x\"":   func(s *System) { s.Statements = "x" },
	} {
		s := Defaults()
		s.Scaler = Static(map[string]int64{"": 1})
		change(&s)
		if _, err := s.Run(message); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// A pool has its size over all queues, and its pod-hours are those of its workers, however long they stay.
func TestStaticPool(t *testing.T) {
	messages := scans(200, 5)
	s := Defaults()
	s.Scaler, s.QueuePerClass, s.Worker.MaxMessages, s.Worker.IdleTimeout = Static(map[string]int64{"c0": 3, "c1": 2, "c2": 1}), true, 0, 365*24*time.Hour
	out, err := s.Run(messages)
	if err != nil {
		t.Fatal(err)
	}
	if out.Jobs != 6 || out.Unserved > 0 {
		t.Errorf("%d jobs for a pool of 6, %d unserved", out.Jobs, out.Unserved)
	}
	// 1,500 workers for 100 days: more hours than a Duration holds.
	const days = 100
	s.QueuePerClass, s.Scaler, s.Worker.IdleTimeout, s.PollEvery = false, Static(map[string]int64{"": 1500}), math.MaxInt64/2, 24*time.Hour
	out, err = s.Run([]Job{messages[0], {Start: days * 24 * time.Hour, Run: time.Second, Requests: requests(1000, 2048)}})
	if err != nil {
		t.Fatal(err)
	}
	if want := 1500 * days * 24.0; out.PodHours < 0.99*want || out.PodHours > 1.01*want || out.IdlePodHours > out.PodHours {
		t.Errorf("%.0f pod-hours, %.0f of them idle, want about %.0f", out.PodHours, out.IdlePodHours, want)
	}
}

// What is drawn for a worker or a node does not depend on how many others there are: one more message early on changes little later.
func TestRunsStayPaired(t *testing.T) {
	play := func(messages []Job) Outcome {
		s := Defaults()
		s.Scaler, s.Seed = ours(t), 7
		out, err := s.Run(messages)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// Far apart, so that nothing but chance ties them: message n is worker n's.
	var messages []Job
	for i := range 50 {
		messages = append(messages, Job{Start: time.Duration(i) * time.Hour, Run: time.Minute, Requests: requests(1000, 1024)})
	}
	base := play(messages)
	messages[3].Run = 10 * time.Minute // its end, its leave and its node's removal are drawn later
	other := play(messages)
	if base.Wait != other.Wait {
		t.Errorf("waits %+v, and %+v when one message takes longer", base.Wait, other.Wait)
	}
	c := newChance(1)
	first := c.of(drawBoot, 4, 0).Uint64()
	c.of(drawBoot, 5, 0)
	if again := c.of(drawBoot, 4, 0).Uint64(); again != first {
		t.Error("a draw depends on those before it")
	}
	if c.of(drawBoot, 4, 1).Uint64() == first || c.of(drawNode, 4, 0).Uint64() == first {
		t.Error("two draws are one")
	}
}

// The stock scheduler with MostAllocated fills the larger nodes too: with nodes of three sizes it does about as well as first fit.
func TestMostAllocatedOnMixedShapes(t *testing.T) {
	play := func(packer string) Outcome {
		s := Defaults()
		s.Scaler, s.Packer = ours(t), packer
		s.Nodes.Shapes = nil
		for _, cores := range []int64{4, 8, 16} {
			size := packing.Amounts{1000 * cores, 4 * cores << 30, 0, 110}
			s.Nodes.Shapes = append(s.Nodes.Shapes, NewShape(fmt.Sprint(cores), size, DefaultOverhead, 0.048*float64(cores)))
		}
		out, err := s.Run(scans(3000, 2))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	most, first := play("most-allocated"), play("first-fit")
	if most.Cost > 1.1*first.Cost || most.Wait.P95 > 1.2*first.Wait.P95 {
		t.Errorf("MostAllocated costs %.2f with a p95 wait of %.0f s, first fit %.2f with %.0f s", most.Cost, most.Wait.P95, first.Cost, first.Wait.P95)
	}
}

// A NodePool's limits count whole nodes; what does not fit waits, and is done all the same.
func TestLimits(t *testing.T) {
	s := Defaults()
	s.Scaler = ours(t)
	free, err := s.Run(scans(600, 3))
	if err != nil {
		t.Fatal(err)
	}
	if free.PeakNodes < 3 {
		t.Fatalf("the load needs %d nodes only", free.PeakNodes)
	}
	for limit, want := range map[int64]int{16_000: 1, 47_999: 2, 48_000: 3} {
		s.Nodes.Limits = packing.Amounts{limit}
		out, err := s.Run(scans(600, 3))
		if err != nil {
			t.Fatal(err)
		}
		if out.PeakNodes != want || out.Unserved > 0 || out.Wait.P95 < free.Wait.P95 {
			t.Errorf("limit of %dm: %d nodes, want %d; %d unserved; p95 wait %.0f s, %.0f s without", limit, out.PeakNodes, want, out.Unserved, out.Wait.P95, free.Wait.P95)
		}
	}
	// A smaller shape is taken where the largest is beyond the limits.
	s.Nodes.Limits = packing.Amounts{20_000}
	s.Nodes.Shapes = append(s.Nodes.Shapes, NewShape("4x", packing.Amounts{4000, 16 << 30, 0, 110}, DefaultOverhead, 0.192))
	out, err := s.Run(scans(600, 3))
	if err != nil || out.PeakNodes < 2 || out.Unserved > 0 {
		t.Errorf("%d nodes of 16 and 4 CPUs within 20, %d unserved, %v", out.PeakNodes, out.Unserved, err)
	}
}

// Six small pods on one node would fit beside the large ones of three others. WhenEmptyOrUnderutilized moves them, so their messages are delivered
// again; Balanced does not: the node is a quarter of the cost and half counts, 0.5, but its pods are 7/13 of the disruption. WhenEmpty never does.
func TestConsolidation(t *testing.T) {
	messages := []Job{}
	for range 6 {
		messages = append(messages, Job{Run: time.Hour, Class: "a", Requests: requests(100, 100)})
	}
	for range 3 {
		messages = append(messages, Job{Run: time.Hour, Class: "b", Requests: requests(15_200, 100)})
	}
	for policy, want := range map[string]int{"": 0, WhenEmpty: 0, Balanced: 0, WhenEmptyOrUnderutilized: 6} {
		s := Defaults()
		s.Scaler, s.QueuePerClass, s.Nodes.Consolidation = ours(t), true, policy
		out, err := s.Run(messages)
		if err != nil {
			t.Fatal(err)
		}
		if out.Evicted != want || out.Unserved > 0 || out.PeakNodes != 4 || out.Jobs != len(messages)+want {
			t.Errorf("%q: %d evicted, want %d; %d nodes, %d jobs, %d unserved", policy, out.Evicted, want, out.PeakNodes, out.Jobs, out.Unserved)
		}
	}
}

// Two messages of two queues come together, and there is room for one pod at a time: the long one's pod goes first with a queue that moves it
// forward, and the short one waits for it; else the one that came first does.
func TestQueueAdvance(t *testing.T) {
	s := Defaults()
	s.Scaler, s.QueuePerClass, s.Statements, s.Packer = ours(t), true, "exact", "first-fit" // which believes what pods say
	s.Nodes.Shapes = []Shape{{Name: "x", Capacity: packing.Amounts{1000, 8 << 30, 0, 110}}}
	s.Nodes.Limits = packing.Amounts{1000}
	for advance, want := range map[time.Duration][2]float64{0: {60, 600}, 30 * time.Second: {600, 1200}} {
		s.QueueAdvance = advance
		out, err := s.Run([]Job{
			{Run: 10 * time.Second, Class: "short", Requests: requests(1000, 1024)}, {Run: 600 * time.Second, Class: "long", Requests: requests(1000, 1024)},
		})
		if err != nil || out.Unserved > 0 || out.Wait.Max < want[0] || out.Wait.Max > want[1] {
			t.Errorf("moved by %s: the longest wait is %.0f s, want %v; %v", advance, out.Wait.Max, want, err)
		}
	}
}

// Statements reach the packer: with exact ones DrainPack needs fewer node-hours than with none, on loads of one class that tells nothing else.
// Messages are minutes apart: a pod takes the message that it was started for, whose run time it states, only where few others boot beside it.
func TestStatements(t *testing.T) {
	play := func(statements string) (nodeHours float64) {
		for seed := range uint64(3) {
			random := rand.New(rand.NewPCG(8, seed))
			var messages []Job
			for at := time.Duration(0); at < 60*time.Hour; at += seconds(random.ExpFloat64() * 150) {
				messages = append(messages, Job{Start: at, Run: seconds(600 * math.Exp(1.8*random.NormFloat64())), Class: "scan", Requests: requests(2000, 2048)})
			}
			s := Defaults()
			s.Scaler, s.Statements, s.PollEvery = ours(t), statements, 5*time.Second
			out, err := s.Run(messages)
			if err != nil {
				t.Fatal(err)
			}
			nodeHours += out.NodeHours
		}
		return nodeHours
	}
	exact, absent := play("exact"), play("absent")
	if !(exact < 0.98*absent) {
		t.Errorf("node-hours: %.2f with exact statements, %.2f with none", exact, absent)
	}
	t.Logf("%.3f of the node-hours without", exact/absent)
}

func BenchmarkSystem(b *testing.B) {
	limits, errs := calendar.New(nil, 100_000, nil)
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	for _, c := range []struct {
		name      string
		count     int
		perSecond float64
	}{{"10000", 10_000, 10}, {"100000", 100_000, 10}, {"1000000", 1_000_000, 10}, {"1000000-on-5000-nodes", 1_000_000, 1300}} {
		b.Run(c.name, func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 1))
			messages := make([]Job, c.count)
			at := time.Duration(0)
			for i := range messages {
				at += seconds(random.ExpFloat64() / c.perSecond)
				messages[i] = Job{Start: at, Run: seconds(60 * random.ExpFloat64()), Class: "scan", Requests: requests(1000, 2048)}
			}
			nodes := 0
			for b.Loop() {
				s := Defaults()
				s.Scaler = Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1})
				out, err := s.Run(messages)
				if err != nil {
					b.Fatal(err)
				}
				nodes = out.PeakNodes
			}
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			b.ReportMetric(float64(c.count)*float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric(float64(nodes), "nodes")
			b.ReportMetric(float64(memory.Sys)/(1<<20), "MiB")
		})
	}
}

// Nodes hold one pod. A buffer of two pods for an hour keeps two nodes ready from the start, so a message waits for a pod but not for a node, and a
// third node comes for the buffer while two are used. After the hour all nodes go.
func TestBuffer(t *testing.T) {
	const hour = time.Hour
	play := func(buffer *Buffer) Outcome {
		s := Defaults()
		s.Scaler, s.PollEvery = ours(t), 5*time.Second
		s.Nodes.Shapes = []Shape{{Name: "one", Capacity: packing.Amounts{1000, 4 << 30, 0, 10}, Price: 1}}
		s.Nodes.Boot, s.Nodes.Buffer = Range{Min: time.Minute, Max: time.Minute}, buffer
		out, err := s.Run([]Job{
			{Start: 10 * time.Minute, Run: 10 * time.Minute, Requests: requests(1000, 1024)},
			{Start: 30 * time.Minute, Run: 10 * time.Minute, Requests: requests(1000, 1024)},
		})
		if err != nil || out.Unserved > 0 {
			t.Fatal(err, out.Unserved)
		}
		return out
	}
	with := play(&Buffer{Pod: requests(1000, 1024), Pods: func(now time.Time) int64 {
		if now.Sub(time.Time{}) < hour {
			return 2
		}
		return 0
	}})
	without := play(nil)
	for i, wait := range with.Waited {
		if wait > 30*time.Second || without.Waited[i] < time.Minute {
			t.Errorf("message %d waited %s, and %s without a buffer", i, wait, without.Waited[i])
		}
	}
	// Two nodes for an hour, and a third beside each of the two scans of ten minutes.
	if with.PeakNodes != 3 || with.NodeHours < 2.3 || with.NodeHours > 2.6 || without.PeakNodes != 1 || without.NodeHours > 0.5 {
		t.Errorf("%d nodes, %.2f hours; without %d nodes, %.2f hours", with.PeakNodes, with.NodeHours, without.PeakNodes, without.NodeHours)
	}
	s := Defaults()
	s.Scaler, s.Nodes.Buffer = ours(t), &Buffer{Pod: requests(17_000, 1024), Pods: func(time.Time) int64 { return 1 }}
	if _, err := s.Run([]Job{{Run: time.Minute, Requests: requests(1000, 1024)}}); err == nil || !strings.Contains(err.Error(), "nodes.buffer") {
		t.Errorf("error %v for a pod that fits on no node", err)
	}
}

// The scaler's last answer is used again only for the same question: a calendar's change and a changed queue are seen.
func TestEbbtideRemembersOnlyTheSame(t *testing.T) {
	limits, errs := calendar.New(&calendar.Spec{Periods: []calendar.Period{{
		Name: "day", Hours: calendar.Hours{From: "08:00", To: "09:00"}, Bounds: calendar.Bounds{Surplus: "100%"},
	}}}, 100, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1})
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		at   time.Duration
		seen Seen
		want int64
	}{
		{7 * time.Hour, Seen{Ready: 4}, 4}, {7*time.Hour + time.Second, Seen{Ready: 4, Statistic: 9}, 4}, {7*time.Hour + 2*time.Second, Seen{Ready: 5}, 5},
		{7*time.Hour + 2*time.Second, Seen{Class: "b", Ready: 1}, 1}, {8 * time.Hour, Seen{Ready: 5}, 10}, {8 * time.Hour, Seen{Ready: 5, Consumers: 1}, 11},
		{9 * time.Hour, Seen{Ready: 5, Consumers: 1}, 6}, {9 * time.Hour, Seen{Consumers: 1}, 0}, {9 * time.Hour, Seen{Consumers: 1, Unacknowledged: 1}, 1},
	} {
		if got, _ := s.Target(day.Add(step.at), step.seen); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

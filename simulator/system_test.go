package simulator

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// ours is the scaler without a floor.
func ours(t *testing.T) Scaler {
	t.Helper()
	limits, errs := calendar.New(nil, nil, 500, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return Ebbtide(limits, target.Policy{MessagesPerReplica: 1})
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
	static := play(Static(20), "")
	if static.PodHours < 19*float64(len(static.Series.Pods))*static.Series.StepSeconds/3600*0.8 {
		t.Errorf("a static pool of 20 makes %.0f pod-hours", static.PodHours)
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
	} {
		s := Defaults()
		s.Scaler = Static(1)
		change(&s)
		if _, err := s.Run(message); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func BenchmarkSystem(b *testing.B) {
	limits, errs := calendar.New(nil, nil, 100_000, nil)
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
				s.Scaler = Ebbtide(limits, target.Policy{MessagesPerReplica: 1})
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

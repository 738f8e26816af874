// Package scheduler measures the scheduler plugin in Kubernetes' own harness, scheduler_perf, beside the stock scheduler with
// its defaults and with MostAllocated on all nodes.
package scheduler

import (
	"cmp"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	perf "k8s.io/kubernetes/test/integration/scheduler_perf"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/drainpack"
)

//go:embed templates
var templates embed.FS

var (
	out  = flag.String("out", "", "where the figures go; the file's folder must exist")
	only = flag.String("only", "", "the one workload to run, uniform-5000 say; default: all")
	one  = flag.String("one", "", "the one run to do, uniform-5000-drainpack say; used by the benchmark itself")
)

// schedulers are run in turn for every workload, so that a slow spell of the machine does not fall on one of them.
var schedulers = []string{"default", "most-allocated", "drainpack"}

// workload: pods is how many are measured, after some that are there already; churn adds pods that start and end meanwhile. Of
// several repeats, by all but the slow MostAllocated, the median counts.
type workload struct {
	name, pod   string
	nodes, pods int
	churn       string
	repeats     int
}

var workloads = []workload{
	{"uniform", "pod", 500, 4000, "", 1},
	{"uniform", "pod", 5000, 4000, "", 5},
	{"uniform", "pod", 15000, 4000, "", 1},
	{"mixed-sizes", "pod-mixed", 5000, 4000, "", 1},
	{"churn", "pod", 5000, 4000, "pod-large", 1},
	{"node-affinity-and-taints", "pod-affinity", 5000, 4000, "", 1},
	{"spread", "pod-spread", 5000, 2000, "", 1},
	{"complex", "pod-complex", 5000, 2000, "", 5},
}

// figure is one run.
type figure struct {
	Workload              string  `json:"workload"`
	Nodes                 int     `json:"nodes"`
	Scheduler             string  `json:"scheduler"`
	PodsPerSecond         float64 `json:"podsPerSecond"`
	AlgorithmMillisPerPod float64 `json:"algorithmMillisPerPod"`
}

func TestMain(m *testing.M) {
	if err := perf.InitTests(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m.Run()
}

// BenchmarkScheduler does every run in a process of its own: the harness's histograms continue from one run to the next.
func BenchmarkScheduler(b *testing.B) {
	var figures []figure
	for _, w := range workloads {
		workload, runs := fmt.Sprintf("%s-%d", w.name, w.nodes), map[string][]figure{}
		for i := range w.repeats * len(schedulers) {
			scheduler := schedulers[i%len(schedulers)]
			name, f := workload+"-"+scheduler, figure{Workload: w.name, Nodes: w.nodes, Scheduler: scheduler}
			if name == *one {
				f.measure(b, name, w)
				write(b, f)
				return
			}
			if *one != "" || *only != "" && *only != workload || scheduler == "most-allocated" && i >= len(schedulers) {
				continue
			}
			file := filepath.Join(b.TempDir(), "figure.json")
			command := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=Scheduler", "-test.benchtime=1x",
				"-test.timeout=1h", "-one="+name, "-out="+file)
			if text, err := command.CombinedOutput(); err != nil {
				b.Fatalf("%s: %v\n%s", name, err, text)
			}
			text, err := os.ReadFile(file)
			if err := cmp.Or(err, json.Unmarshal(text, &f)); err != nil {
				b.Fatal(err)
			}
			runs[scheduler] = append(runs[scheduler], f)
			fmt.Fprintf(os.Stderr, "%+v\n", f)
		}
		if ratios := pairs(runs["drainpack"], runs["default"]); len(ratios) > 1 {
			fmt.Fprintf(os.Stderr, "%s: drainpack over default, each run beside the one before it: median %.2f, %.2f to %.2f\n",
				workload, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
		}
		for _, scheduler := range schedulers {
			if all := runs[scheduler]; len(all) > 0 {
				slices.SortFunc(all, func(a, b figure) int { return cmp.Compare(a.PodsPerSecond, b.PodsPerSecond) })
				figures = append(figures, all[len(all)/2])
			}
		}
	}
	write(b, figures)
}

// pairs are the ratios of pods per second, run by run, in ascending order.
func pairs(ours, theirs []figure) (ratios []float64) {
	for i := range min(len(ours), len(theirs)) {
		ratios = append(ratios, ours[i].PodsPerSecond/theirs[i].PodsPerSecond)
	}
	slices.Sort(ratios)
	return ratios
}

func write(b *testing.B, figures any) {
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	if *out == "" {
		return
	}
	if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
		b.Fatal(err)
	}
}

// measure does one run in this process.
func (f *figure) measure(b *testing.B, name string, w workload) {
	dir := b.TempDir()
	if err := os.CopyFS(dir, templates); err != nil {
		b.Fatal(err)
	}
	dir = filepath.Join(dir, "templates")
	b.Chdir(dir) // the harness takes paths as they are
	if err := flag.Set("data-items-dir", dir); err != nil {
		b.Fatal(err)
	}
	churn := ""
	if w.churn != "" {
		churn = fmt.Sprintf("  - {opcode: churn, mode: recreate, number: 20, intervalMilliseconds: 50, templatePaths: [%s.yaml]}\n", w.churn)
	}
	text := fmt.Sprintf(`- name: %s
  schedulerConfigPath: %s.yaml
  metricsCollectorConfig: {metrics: {scheduler_scheduling_algorithm_duration_seconds: []}}
  workloadTemplate:
  - {opcode: createNodes, countParam: $nodes, nodeTemplatePath: node.yaml, labelNodePrepareStrategy: {labelKey: topology.kubernetes.io/zone, labelValues: [zone1, zone2, zone3]}}
  - {opcode: createPods, countParam: $before, podTemplatePath: %s.yaml}
%s  - {opcode: createPods, countParam: $pods, podTemplatePath: %s.yaml, collectMetrics: true}
  workloads:
  - {name: w, labels: [performance], params: {nodes: %d, before: 500, pods: %d}}
`, name, f.Scheduler, w.pod, churn, w.pod, w.nodes, w.pods)
	if err := os.WriteFile("workload.yaml", []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Run(name, func(b *testing.B) {
		perf.RunBenchmarkPerfScheduling(b, "workload.yaml", name, runtime.Registry{drainpack.Name: drainpack.New})
	})
	if err := f.read(dir, name); err != nil {
		b.Fatal(err)
	}
}

// read takes the run's figures from the file that the harness wrote.
func (f *figure) read(dir, topic string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_benchmark_"+topic+"_*.json"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("the harness wrote no figures for %s: %w", topic, err)
	}
	text, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		return err
	}
	var items perf.DataItems
	if err := json.Unmarshal(text, &items); err != nil {
		return err
	}
	for _, item := range items.DataItems {
		switch metric := item.Labels["Metric"]; {
		case metric == "SchedulingThroughput":
			f.PodsPerSecond = item.Data["Average"]
		case strings.HasPrefix(metric, "scheduler_scheduling_algorithm_duration"):
			f.AlgorithmMillisPerPod = item.Data["Average"] * map[string]float64{"ms": 1, "s": 1000}[item.Unit]
		}
	}
	if f.PodsPerSecond == 0 || f.AlgorithmMillisPerPod == 0 {
		return fmt.Errorf("%s: a figure is missing: %+v", topic, *f)
	}
	return nil
}

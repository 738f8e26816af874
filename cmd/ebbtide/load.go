package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// loadFlags say what messages come.
type loadFlags struct {
	trace, generate, zone       string
	prometheus, query, from, to string
	runTimes                    string
	runTimesOf                  func() string
	step                        time.Duration
	demandFound                 *simulator.DemandFound
	pods                        string
	podsFound                   *simulator.PodsFound
	cluster                     string
	clusterFlags                clusterFlags
	note                        string // what the history leaves out
	seed                        uint64
	progress                    *progress
}

func (l *loadFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&l.trace, "trace", "", "recorded workload: a CSV of start,seconds,class[,milliCPU,memoryMiB], or a .swf of the Parallel Workloads Archive; - for standard input")
	flags.StringVar(&l.generate, "generate", "", "synthetic workload with weekday rhythm, bursts and heavy tails, such as weeks=4,perDay=2000")
	flags.StringVar(&l.zone, "time-zone", "UTC", "time zone of dates in --trace without one, and of synthetic days")
	flags.Uint64Var(&l.seed, "seed", 1, "seed of random numbers; the same seed gives the same result")
	flags.StringVar(&l.prometheus, "prometheus", "", "address of a Prometheus, such as http://localhost:9090, to run --query from --from until --to")
	flags.StringVar(&l.query, "query", defaultQuery, "PromQL for the number of messages that wait or are in progress; RabbitMQ's exporter has rabbitmq_queue_messages. Default: the scaler's metrics of all policies")
	flags.StringVar(&l.runTimes, "run-times", "", "histogram of run times in seconds that belongs to --query, such as "+scalerRunTimes+"{scaledjob=\"scans\"}; \"\" for none. Default: "+scalerRunTimes+" with the default of --query, else none")
	flags.DurationVar(&l.step, "step", time.Minute, "how far apart samples of --query are asked for: no finer than the scrape interval")
	flags.StringVar(&l.pods, "pods", "", "replaces --query: labels of pods, such as namespace=\"scan\", whose run times, requests and usage kube-state-metrics and cAdvisor recorded; each pod counts as one message")
	flags.StringVar(&l.from, "from", "", "first instant, or first day in --time-zone (2026-08-01), of the query; default: 28 days before --to")
	flags.StringVar(&l.to, "to", "", "last instant, or the day after the last one; default: now")
	flags.StringVar(&l.cluster, "cluster", "", "namespace with the finished Jobs of KEDA in a cluster; each counts as one message")
	l.clusterFlags.add(cmd)
	l.runTimesOf = func() string {
		if !flags.Changed("query") && !flags.Changed("run-times") {
			return scalerRunTimes
		}
		return l.runTimes
	}
	cmd.MarkFlagsMutuallyExclusive("trace", "generate", "prometheus", "cluster")
	cmd.MarkFlagsOneRequired("trace", "generate", "prometheus", "cluster")
}

// What the scaler shows. Every replica shows its own decisions, and one that is not asked shows old ones.
const (
	defaultQuery = "sum(max by (namespace, policy) ((ebbtide_backlog_ready_messages + ebbtide_backlog_in_flight_messages) " +
		"and (ebbtide_decision_timestamp_seconds > time() - 300)))"
	scalerRunTimes = "ebbtide_scans_run_seconds"
)

func (l *loadFlags) read(ctx context.Context) (simulator.Trace, error) {
	switch {
	case l.generate != "":
		return l.make()
	case l.prometheus != "":
		return l.ask(ctx)
	case l.cluster != "":
		config, err := l.clusterFlags.config()
		if err != nil {
			return simulator.Trace{}, err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return simulator.Trace{}, err
		}
		trace, note, err := finishedJobs(ctx, client, l.cluster)
		l.note = note
		return trace, err
	}
	from := os.Stdin
	if l.trace != "-" {
		file, err := os.Open(l.trace)
		if err != nil {
			return simulator.Trace{}, fmt.Errorf("--trace: %w", err)
		}
		defer file.Close()
		from = file
	}
	zone, err := calendar.LoadZone(l.zone)
	if err != nil {
		return simulator.Trace{}, fmt.Errorf("--time-zone: %w", err)
	}
	read := func(from io.Reader) (simulator.Trace, error) { return simulator.ReadCSVIn(from, zone) }
	if filepath.Ext(l.trace) == ".swf" {
		read = simulator.ReadSWF
	}
	trace, err := read(bufio.NewReaderSize(from, 1<<20))
	if err != nil {
		return trace, fmt.Errorf("--trace %s: %w", l.trace, err)
	}
	return trace, nil
}

// ask makes a load of what a Prometheus recorded.
func (l *loadFlags) ask(ctx context.Context) (simulator.Trace, error) {
	zone, err := calendar.LoadZone(l.zone)
	if err != nil {
		return simulator.Trace{}, fmt.Errorf("--time-zone: %w", err)
	}
	to := time.Now().Truncate(min(time.Minute, max(time.Second, l.step)))
	if l.to != "" {
		if to, err = instant("--to", l.to, zone); err != nil {
			return simulator.Trace{}, err
		}
	}
	from := to.AddDate(0, 0, -28)
	if l.from != "" {
		if from, err = instant("--from", l.from, zone); err != nil {
			return simulator.Trace{}, err
		}
	}
	if l.step < time.Second {
		return simulator.Trace{}, fmt.Errorf("--step is %s, want at least 1s", l.step)
	}
	if !from.Before(to) {
		return simulator.Trace{}, fmt.Errorf("--from %s is not before --to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	client, err := api.NewClient(api.Config{Address: l.prometheus})
	if err != nil {
		return simulator.Trace{}, fmt.Errorf("--prometheus: %w", err)
	}
	asked := func(known time.Time) {
		l.progress.say("asked Prometheus until %s", known.In(zone).Format(time.DateOnly))
	}
	var trace simulator.Trace
	if l.pods != "" {
		var found simulator.PodsFound
		trace, found, err = simulator.FromPods(ctx, prometheus.NewAPI(client), l.pods, from, to, asked)
		l.podsFound = &found
	} else {
		var found simulator.DemandFound
		trace, found, err = simulator.FromPrometheus(ctx, prometheus.NewAPI(client), simulator.Demand{Depth: l.query, Runs: l.runTimesOf(), Step: l.step}, from, to, asked)
		l.demandFound = &found
	}
	if err != nil {
		return trace, fmt.Errorf("--prometheus %s: %w", l.prometheus, err)
	}
	return trace, nil
}

func (l *loadFlags) make() (simulator.Trace, error) {
	values, err := pairs("--generate", l.generate, "weeks", "perDay")
	if err != nil {
		return simulator.Trace{}, err
	}
	weeks, err := strconv.Atoi(cmp.Or(values["weeks"], "4"))
	if err != nil || weeks < 1 || weeks > 520 {
		return simulator.Trace{}, fmt.Errorf("--generate: weeks is %q, want 1 to 520", values["weeks"])
	}
	perDay, err := strconv.ParseFloat(cmp.Or(values["perDay"], "2000"), 64)
	if err != nil || !(perDay >= 1 && perDay <= 1e7) {
		return simulator.Trace{}, fmt.Errorf("--generate: perDay is %q, want 1 to 1e7", values["perDay"])
	}
	zone, err := calendar.LoadZone(l.zone)
	if err != nil {
		return simulator.Trace{}, fmt.Errorf("--time-zone: %w", err)
	}
	return simulator.Weeks(rand.New(rand.NewPCG(l.seed, 0)), weeks, perDay, zone), nil
}

// pairs reads name=value,name=value. Unknown names are errors.
func pairs(flag, text string, known ...string) (map[string]string, error) {
	values := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		valid := false
		for _, k := range known {
			valid = valid || k == name
		}
		if !ok || !valid {
			return nil, fmt.Errorf("%s: %q is not one of %s=VALUE", flag, part, strings.Join(known, "=VALUE, "))
		}
		values[name] = value
	}
	return values, nil
}

// distributionFlag is a Distribution.
type distributionFlag struct{ value *simulator.Distribution }

// String implements pflag.Value.
func (f distributionFlag) String() string {
	if f.value == nil || *f.value == nil {
		return ""
	}
	return (*f.value).String()
}

// Type implements pflag.Value.
func (distributionFlag) Type() string { return "duration[..duration]" }

// Set implements pflag.Value.
func (f distributionFlag) Set(text string) (err error) {
	*f.value, err = simulator.ParseDistribution(text)
	return err
}

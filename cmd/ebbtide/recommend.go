package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

// recommendFlags are those of recommend.
type recommendFlags struct {
	load               loadFlags
	system             systemFlags
	waits, keep, today []string
	outputs            []string
	quantile           float64
	shapes, capacity   string
	daemonSets         string
	holidays           string
	name, namespace    string
	most               int32
	longerWaits        bool
	withoutDraining    bool
	nodeClass          map[string]string // of today's NodePool
	placement          []todayRequirement
	policies           *[]string
}

func recommendCommand() *cobra.Command {
	var f recommendFlags
	cmd := &cobra.Command{
		Use:   "recommend",
		Short: "Find a whole configuration for a load: nodes, queues, requests, workers and a calendar",
		Long: `Searches by simulation for the cheapest configuration that meets a wait objective: which node shapes, one queue or one for each size class,
what pods request, when workers exit, how often KEDA polls, how long empty nodes stay, a surplus while messages wait, and a calendar of
floors. It learns from the first half of the load and compares on the second: what runs today, the strongest alternative, which is KEDA with
MostAllocated on the same shapes, queues and requests, and the recommendation. Requests and the calendar are then learned again from the whole load. Nothing is deployed.

A configuration that costs more or waits longer than today on the second half is not recommended; if none is better, the exit code is 2.
With -o DIR it writes policy.yaml, values.yaml for charts/scan-jobs, nodepool.yaml and report.html.`,
		Example: `  ebbtide recommend --trace quarter.csv --time-zone Europe/Prague --wait 60s -o recommended

  # compare with what runs today, on spot nodes of Azure; keep the queues and the calendar
  ebbtide recommend --trace quarter.csv --today scaledjob.yaml,nodepool.yaml --shapes azure --capacity spot --keep queues,calendar

  # from what Ebbtide itself recorded, compared with what runs in the cluster
  ebbtide recommend --prometheus http://localhost:9090 --from 2026-08-01 --to 2026-11-01 --today cluster:scan`,
		Args: cobra.NoArgs,
	}
	f.load.add(cmd)
	f.system.add(cmd)
	f.policies = policyFlag(cmd, "current policy; its backlog and name are kept")
	flags := cmd.Flags()
	flags.StringSliceVar(&f.waits, "wait", []string{"30s"}, "objective: messages wait no longer than this for a worker; for one class: 60s,urgent=10s")
	flags.Float64Var(&f.quantile, "wait-quantile", 0.95, "share of the messages that --wait is for, above 0 and below 1")
	flags.StringVar(&f.shapes, "shapes", "aws", "price list of nodes to choose from: "+strings.Join(recommend.Shipped(), ", ")+", or a YAML file; with --node and without --shapes those of --node")
	flags.StringVar(&f.capacity, "capacity", "on-demand", "prices of the list to use: on-demand or spot")
	flags.StringVar(&f.daemonSets, "daemonsets", "cpu=230m,memory=512Mi", "what DaemonSets request on every node of the list")
	flags.StringSliceVar(&f.keep, "keep", nil, "parts to keep as they are today: "+strings.Join(recommend.Levers(), ", "))
	flags.StringSliceVar(&f.today, "today", nil, "files of what runs today: ScaledJobs, ScalingPolicies, NodePools, values of charts/scan-jobs; or cluster:NAMESPACE/SCALEDJOB. Default: KEDA with MostAllocated, as the other flags say")
	flags.BoolVar(&f.withoutDraining, "without-draining", false, "recommend nothing that needs scheduler.draining.enabled of the chart ebbtide")
	flags.BoolVar(&f.longerWaits, "longer-waits", false, "also recommend configurations that wait longer than today, up to --wait")
	flags.Int32Var(&f.most, "max-replicas", 200, "cap of the policy. Default with -f: the policy's")
	flags.StringVar(&f.holidays, "holidays", "", "iCalendar file of days to leave out of learning, without floors")
	flags.StringVar(&f.name, "name", "scans", "name of the policy, the Helm release and the NodePool")
	flags.StringVar(&f.namespace, "namespace", "default", "namespace of the policy")
	flags.StringSliceVarP(&f.outputs, "output", "o", nil, "how to print the result, "+strings.Join(outputs, ", ")+", or a folder to write files to; repeat for both. Default: table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
	return cmd
}

func (f *recommendFlags) run(cmd *cobra.Command) error {
	format, folder, err := f.output()
	if err != nil {
		return err
	}
	o := recommend.Options{LongerWaits: f.longerWaits, WithoutDraining: f.withoutDraining, Keep: map[string]bool{}, MaxReplicas: f.most}
	if o.Objective, err = f.objective(); err != nil {
		return err
	}
	if f.most < 1 {
		return fmt.Errorf("--max-replicas is %d, want at least 1", f.most)
	}
	for _, name := range f.keep {
		if !slices.Contains(recommend.Levers(), name) {
			return fmt.Errorf("--keep: %q is not one of %s", name, strings.Join(recommend.Levers(), ", "))
		}
		o.Keep[name] = true
	}
	if f.system.autoscaler != karpenter {
		return fmt.Errorf("--autoscaler %s: recommend decides on Karpenter's NodePool", f.system.autoscaler)
	}
	shown := newProgress(cmd.ErrOrStderr())
	f.load.progress = shown
	trace, err := f.load.read(cmd.Context())
	if err != nil {
		return err
	}
	kept := &v1alpha1.ScalingPolicy{}
	kept.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ScalingPolicy"))
	kept.Name, kept.Namespace = f.name, f.namespace
	kept.Spec.Backlog.RabbitMQ = exampleBacklog()
	zone := f.load.zone
	var inUse *policy.Policy
	if len(*f.policies) > 0 {
		policies, err := readPolicies(cmd.Context(), *f.policies)
		if err != nil {
			return err
		}
		if len(policies) != 1 {
			return fmt.Errorf("--policy: the files hold %d policies, and one is recommended", len(policies))
		}
		inUse = policies[0]
		kept.Name, kept.Namespace, kept.Spec = inUse.Name.Name, inUse.Name.Namespace, *inUse.Spec()
		if o.MaxReplicas = *kept.Spec.Target.MaxReplicas; !cmd.Flags().Changed("time-zone") {
			zone = inUse.TimeZone.String()
		}
	}
	kept.Spec.Target.MaxReplicas = ptr.To(o.MaxReplicas)
	if o.Zone, err = calendar.LoadZone(zone); err != nil {
		return fmt.Errorf("--time-zone: %w", err)
	}
	if o.System, err = f.system.read(&f.load, trace.Origin); err != nil {
		return err
	}
	if f.holidays != "" {
		text, err := os.ReadFile(f.holidays)
		if err != nil {
			return fmt.Errorf("--holidays: %w", err)
		}
		days, err := calendar.ParseHolidays(string(text), o.Zone)
		if err != nil {
			return fmt.Errorf("--holidays %s: %w", f.holidays, err)
		}
		o.Holiday = days.Is
	}
	list, err := f.candidates(cmd, &o)
	if err != nil {
		return err
	}
	notes, err := f.readToday(cmd.Context(), &o, inUse, list)
	if err != nil {
		return err
	}
	if kept.Spec.Backlog.Prometheus != nil {
		o.Keep["surplus"] = true
		notes = append(notes, "The policy's backlog is a Prometheus query, which does not tell what waits from what is in progress: a surplus is not decided on.")
	}
	if err := f.readRemoval(&o); err != nil {
		return err
	}
	o.Progress = func(share float64) {
		took := time.Since(shown.begin)
		left := time.Duration(float64(took) * (1 - share) / max(share, 0.01))
		shown.say("%.0f%% of the search, about %s left", 100*share, left.Round(time.Second))
	}
	result, err := recommend.Recommend(cmd.Context(), trace, o)
	shown.done()
	result.Notes = slices.Concat(f.load.found(trace), notes, result.Notes)
	if errors.Is(err, recommend.ErrNothing) {
		for _, note := range result.Notes {
			fmt.Fprintln(cmd.ErrOrStderr(), note)
		}
		return findings{err}
	}
	if err != nil {
		return err
	}
	out := newRecommendation(&result, kept, &o, list, f)
	if folder != "" {
		if err := out.write(folder, &result, o.Zone); err != nil {
			return err
		}
	}
	return format.print(cmd, out, func(t *table) { out.print(t, folder) })
}

// readRemoval takes what Karpenter needs to remove a node from --node-delay, which was measured with today's consolidateAfter.
func (f *recommendFlags) readRemoval(o *recommend.Options) error {
	if f.system.nodeDelay == nil {
		return nil
	}
	measured, ok := f.system.nodeDelay.(simulator.Range)
	after := time.Duration(o.Today.ConsolidateAfter)
	if !ok || measured.Min < after {
		return fmt.Errorf("--node-delay %s: want a duration or a range, as measured with today's consolidateAfter of %s, so no shorter", f.system.nodeDelay, o.Today.ConsolidateAfter)
	}
	o.Removal = simulator.Range{Min: measured.Min - after, Max: max(measured.Min, measured.Max) - after}
	return nil
}

// output reads -o: a format, a folder, or both.
func (f *recommendFlags) output() (format output, folder string, err error) {
	format = "table"
	for _, text := range f.outputs {
		switch {
		case format.Set(text) == nil:
		case folder == "":
			folder = text
		default:
			return format, "", fmt.Errorf("-o: %s and %s are two folders, want one", folder, text)
		}
	}
	return format, folder, nil
}

// objective reads --wait and --wait-quantile.
func (f *recommendFlags) objective() (recommend.Objective, error) {
	o := recommend.Objective{Quantile: f.quantile, Classes: map[string]time.Duration{}}
	if !(f.quantile > 0 && f.quantile < 1) {
		return o, fmt.Errorf("--wait-quantile is %v, want more than 0 and less than 1", f.quantile)
	}
	for _, text := range f.waits {
		class, value, ofClass := strings.Cut(text, "=")
		if !ofClass {
			value = text
		}
		wait, err := time.ParseDuration(strings.TrimSpace(value))
		if err != nil || wait <= 0 {
			return o, fmt.Errorf("--wait: %q is no duration above 0: 60s, or urgent=10s for a class", text)
		}
		if ofClass {
			o.Classes[strings.TrimSpace(class)] = wait
		} else {
			o.Wait = wait
		}
	}
	if o.Wait == 0 { // classes alone
		for _, wait := range o.Classes {
			o.Wait = max(o.Wait, wait)
		}
	}
	return o, nil
}

// candidates reads the price list, or makes one from --node if nothing else is given.
func (f *recommendFlags) candidates(cmd *cobra.Command, o *recommend.Options) (*recommend.PriceList, error) {
	if f.capacity != "on-demand" && f.capacity != "spot" {
		return nil, fmt.Errorf("--capacity is %q, want on-demand or spot", f.capacity)
	}
	if cmd.Flags().Changed("node") && !cmd.Flags().Changed("shapes") {
		for _, shape := range o.System.Nodes.Shapes {
			o.Candidates = append(o.Candidates, recommend.ShapeSet{Name: shape.Name, Shapes: []simulator.Shape{shape}})
		}
		if len(o.Candidates) > 1 {
			o.Candidates = append(o.Candidates, recommend.ShapeSet{Name: "all of --node", Shapes: o.System.Nodes.Shapes})
		}
		if slices.ContainsFunc(o.System.Nodes.Shapes, func(s simulator.Shape) bool { return s.Price == 0 }) {
			return nil, errors.New("--node: want a price of each, as cost decides: cpu=16,memory=64Gi,price=0.768")
		}
		return &recommend.PriceList{Currency: "USD"}, nil
	}
	list, err := recommend.ReadPriceList(f.shapes)
	if err != nil {
		return nil, fmt.Errorf("--shapes: %w", err)
	}
	reserved, err := f.reserved()
	if err != nil {
		return nil, err
	}
	if o.Candidates, err = list.Candidates(f.capacity == "spot", reserved); err != nil {
		return nil, fmt.Errorf("--shapes %s: %w", f.shapes, err)
	}
	return &list, nil
}

func (f *recommendFlags) reserved() (packing.Amounts, error) {
	values, err := pairs("--daemonsets", f.daemonSets, "cpu", "memory")
	if err != nil {
		return packing.Amounts{}, err
	}
	reserved, err := someAmounts("--daemonsets", values)
	reserved[3] = recommend.DaemonSets[3]
	return reserved, err
}

// found says what the history holds and what had to be assumed of it.
func (l *loadFlags) found(trace simulator.Trace) []string {
	classes, assumed, used := map[string]bool{}, 0, 0
	for i := range trace.Jobs {
		j := &trace.Jobs[i]
		classes[j.Class] = true
		if j.RequestsAssumed {
			assumed++
		}
		if j.Used != (packing.Amounts{}) {
			used++
		}
	}
	end := trace.Origin.Add(trace.Jobs[len(trace.Jobs)-1].Start)
	notes := []string{fmt.Sprintf("Found %d messages of %d classes from %s to %s.", len(trace.Jobs), len(classes),
		trace.Origin.Format(time.DateOnly), end.Format(time.DateOnly))}
	if assumed > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d messages do not state both a CPU and a memory request: 1 CPU and 2 GiB are assumed where they are missing (columns milliCPU and memoryMiB).",
			assumed, len(trace.Jobs)))
	}
	if used > 0 {
		notes = append(notes, fmt.Sprintf("What was used is known of %d of %d messages.", used, len(trace.Jobs)))
	}
	switch {
	case l.note != "":
		notes = append(notes, l.note)
	case l.podsFound != nil:
		f := l.podsFound
		notes = append(notes, fmt.Sprintf("Each of %d pods counts as one message that arrived when its pod was created: workers that take several are counted as one. Start or end was not "+
			"recorded of %d, requests of %d.", f.Pods, f.WithoutTimes, f.WithoutRequests))
	case l.demandFound != nil && l.demandFound.Runs > 0:
		notes = append(notes, fmt.Sprintf("Run times are those of %d messages as the histogram counted them, by day; %d messages came while as many ended, which the queue's depth does not show. "+
			"All are of one class.", l.demandFound.Runs, l.demandFound.Hidden))
	case l.demandFound != nil:
		notes = append(notes, fmt.Sprintf("The queue's depth is all that was found: run times include waits and are no finer than %s, messages that came while as many ended are not seen, "+
			"and all are of one class (--run-times names a histogram).", l.step))
	}
	return notes
}

// exampleBacklog is for a policy that is not kept from a file.
func exampleBacklog() *v1alpha1.RabbitMQBacklog {
	b := &v1alpha1.RabbitMQBacklog{Queue: "scans"}
	b.URI.SecretKeyRef = secretKey("scan-mq", "uri")
	return b
}

// changed is a change in percent, in words.
func changed(now, before float64) string {
	if before == 0 {
		return ""
	}
	by := 100 * (now/before - 1)
	if math.Abs(by) < 0.5 {
		return "the same"
	}
	return fmt.Sprintf("%+.0f%%", by)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// systemFlags say what a workload is simulated on.
type systemFlags struct {
	simulator.System
	shapes           []string
	pod, autoscaler  string
	overhead, limits string
	pluginArgs       string
	quantile         float64
	horizon          time.Duration
	nodeDelay        simulator.Distribution
	idleTimeoutGiven func() bool
}

// warmFor is how long workers of a trial wait for a message: a floor's would else leave and be started again at every poll.
const warmFor = 15 * time.Minute

func (s *systemFlags) add(cmd *cobra.Command) {
	s.System = simulator.Defaults()
	flags := cmd.Flags()
	flags.StringArrayVar(&s.shapes, "node", nil, "shape of nodes: cpu=16,memory=64Gi,pods=110,price=0.77 (an hour); repeat for several. Default: cpu=16,memory=64Gi,pods=110,price=0.768")
	flags.StringVar(&s.overhead, "node-overhead", defaultOverhead, "what the kubelet reserves of every node and its DaemonSets request, which is not for pods")
	flags.StringVar(&s.limits, "node-limits", "", "limits of the NodePool, cpu=200,memory=800Gi: no node is made beyond them. Default: none")
	flags.StringVar(&s.Statements, "statements", "", "how pods state the run time of the message that they will find: "+strings.Join(simulator.Predictions(), ", ")+". Default: absent")
	flags.StringVar(&s.pluginArgs, "drainpack-args", "", "arguments of the scheduler's plugin as its configuration has them: '{quantile: 0.8, unknownRunTime: 2m}', or @FILE")
	flags.Float64Var(&s.quantile, "quantile", 0, "the plugin's quantile of run times by which pods are placed. Default: that of --drainpack-args, or 0.5")
	flags.DurationVar(&s.horizon, "horizon", 0, "the plugin's horizon, beyond which run times are not told apart. Default: that of --drainpack-args, or none")
	flags.DurationVar(&s.QueueAdvance, "queue-advance", 0, "maxAdvance of the scheduler's queue sort DrainPackQueue, which schedules long and large pods earlier. Default: 0, pods are scheduled in order of arrival")
	flags.StringVar(&s.pod, "pod", "", "what a job's pod requests: cpu=1,memory=2Gi. Default: the most that any message of its queue does")
	flags.BoolVar(&s.QueuePerClass, "queue-per-class", false, "give every class of messages a separate queue and jobs; the policy applies to each")
	flags.DurationVar(&s.PollEvery, "poll", s.PollEvery, "KEDA's pollingInterval")
	flags.Var(distributionFlag{&s.Worker.Boot}, "pod-boot", "time from a pod's binding until it runs: 5s; 5s..20s; p50=8s,p95=40s; or observations, 4s,5s,31s")
	flags.Var(distributionFlag{&s.Worker.Connect}, "connect", "time from the start of the pod until the worker consumes")
	flags.Var(distributionFlag{&s.Worker.Leave}, "leave", "time from a worker's last message until its Job is seen as finished")
	flags.DurationVar(&s.Worker.MaxLifetime, "max-lifetime", 0, "a worker takes no further message after this time; 0: no limit")
	flags.IntVar(&s.Worker.MaxMessages, "max-messages", s.Worker.MaxMessages, "messages that a worker takes before it leaves; 0 for as long as there are any")
	flags.DurationVar(&s.Worker.IdleTimeout, "idle-timeout", warmFor, "after which a worker without a message leaves; for peers without a floor 5s unless it is given")
	s.idleTimeoutGiven = func() bool { return flags.Changed("idle-timeout") }
	flags.Var(distributionFlag{&s.Nodes.Boot}, "node-boot", "from the decision to make a node until it takes pods")
	flags.StringVar(&s.autoscaler, "autoscaler", karpenter, "what makes and removes nodes: "+karpenter+" or "+clusterAutoscaler)
	flags.StringVar(&s.Nodes.Consolidation, "consolidation", "", "Karpenter's consolidationPolicy: "+strings.Join(simulator.Consolidations(), ", ")+". The last two evict pods, whose messages are redelivered. Default: WhenEmpty, which applies to pods with karpenter.sh/do-not-disrupt")
	flags.Var(distributionFlag{&s.nodeDelay}, "node-delay", "from a node's last pod until it is removed. Default: 45s, Karpenter with consolidateAfter 30s; 10m for cluster-autoscaler. recommend subtracts the consolidateAfter of today")
	flags.Float64Var(&s.Faults.Crashes, "crashes", 0, "share of scans whose worker dies")
	flags.Float64Var(&s.Faults.NodeLossPerHour, "node-loss", 0, "nodes lost per node-hour, such as 0.05 for one in twenty")
}

// Values of --autoscaler.
const (
	karpenter         = "karpenter"
	clusterAutoscaler = "cluster-autoscaler"
)

// read completes the system for a load.
func (s *systemFlags) read(l *loadFlags, origin time.Time) (simulator.System, error) {
	system := s.System
	system.Seed, system.Origin = l.seed, origin
	switch s.autoscaler {
	case karpenter:
	case clusterAutoscaler:
		system.Nodes.ClusterAutoscaler = simulator.DefaultClusterAutoscaler()
		system.Nodes.Delay = simulator.Range{Min: 10 * time.Minute}
	default:
		return system, fmt.Errorf("--autoscaler is %q, want %s or %s", s.autoscaler, karpenter, clusterAutoscaler)
	}
	if s.nodeDelay != nil {
		system.Nodes.Delay = s.nodeDelay
	}
	overhead, err := s.readOverhead()
	if err != nil {
		return system, err
	}
	if system.Nodes.Limits, err = readLimits(s.limits); err != nil {
		return system, err
	}
	if system.DrainPack, err = s.readArgs(); err != nil {
		return system, err
	}
	if s.Statements != "" && !slices.Contains(simulator.Predictions(), s.Statements) {
		return system, fmt.Errorf("--statements is %q, want one of %s", s.Statements, strings.Join(simulator.Predictions(), ", "))
	}
	shapes := s.shapes
	if len(shapes) == 0 {
		shapes = []string{defaultNode}
	}
	system.Nodes.Shapes = nil
	for _, text := range shapes {
		values, err := pairs("--node", text, "cpu", "memory", "pods", "price")
		if err != nil {
			return system, err
		}
		size, err := amounts("--node", values)
		if err != nil {
			return system, err
		}
		size[3] = 110
		if text, given := values["pods"]; given {
			if size[3], err = strconv.ParseInt(text, 10, 32); err != nil || size[3] < 1 {
				return system, fmt.Errorf("--node: pods is %q, want a number from 1 on", text)
			}
		}
		price := 0.0
		if text, given := values["price"]; given {
			if price, err = strconv.ParseFloat(text, 64); err != nil || !(price >= 0) || math.IsInf(price, 0) {
				return system, fmt.Errorf("--node: price is %q, want a number from 0 on", text)
			}
		}
		if !size.Fit(overhead) {
			return system, fmt.Errorf("--node %s is smaller than --node-overhead %s", text, s.overhead)
		}
		system.Nodes.Shapes = append(system.Nodes.Shapes, simulator.NewShape(text, size, overhead, price))
	}
	if s.pod != "" {
		values, err := pairs("--pod", s.pod, "cpu", "memory")
		if err != nil {
			return system, err
		}
		if system.Pod, err = amounts("--pod", values); err != nil {
			return system, err
		}
		system.Pod[3] = 1
	}
	return system, nil
}

// Defaults of --node and --node-overhead: simulator.Defaults has the same.
const (
	defaultNode     = "cpu=16,memory=64Gi,pods=110,price=0.768"
	defaultOverhead = "cpu=340m,memory=1331Mi"
)

// readOverhead reads --node-overhead; 0 stands for none of a resource.
func (s *systemFlags) readOverhead() (packing.Amounts, error) {
	values, err := pairs("--node-overhead", s.overhead, "cpu", "memory")
	if err != nil {
		return packing.Amounts{}, err
	}
	return someAmounts("--node-overhead", values)
}

// readLimits reads --node-limits.
func readLimits(text string) (packing.Amounts, error) {
	if text == "" {
		return packing.Amounts{}, nil
	}
	values, err := pairs("--node-limits", text, "cpu", "memory")
	if err != nil {
		return packing.Amounts{}, err
	}
	return someAmounts("--node-limits", values)
}

// someAmounts reads quantities of CPU and memory, either of which may be left out.
func someAmounts(flag string, values map[string]string) (a packing.Amounts, err error) {
	for i, name := range []string{"cpu", "memory"} {
		text, given := values[name]
		if !given {
			continue
		}
		quantity, err := resource.ParseQuantity(text)
		if err != nil || quantity.Sign() < 0 {
			return a, fmt.Errorf("%s: %s is %q, want a quantity of at least 0: cpu=340m,memory=1331Mi", flag, name, text)
		}
		if a[i] = quantity.Value(); name == "cpu" {
			a[i] = quantity.MilliValue()
		}
	}
	return a, nil
}

// readArgs reads the arguments of the plugin as the scheduler does.
func (s *systemFlags) readArgs() (args schedulerv1.DrainPackArgs, err error) {
	text := []byte(s.pluginArgs)
	if file, ok := strings.CutPrefix(s.pluginArgs, "@"); ok {
		if text, err = os.ReadFile(file); err != nil {
			return args, fmt.Errorf("--drainpack-args: %w", err)
		}
	}
	if err := yaml.UnmarshalStrict(text, &args); err != nil {
		return args, fmt.Errorf("--drainpack-args: %w", err)
	}
	args.Quantile = cmp.Or(s.quantile, args.Quantile)
	args.Horizon.Duration = cmp.Or(s.horizon, args.Horizon.Duration)
	args.SetDefaults()
	if err := args.Validate(); err != nil {
		return args, fmt.Errorf("arguments of the plugin DrainPack: %w", err)
	}
	return args, nil
}

// amounts reads quantities of CPU and memory, which must both be there.
func amounts(flag string, values map[string]string) (a packing.Amounts, err error) {
	for i, name := range []string{"cpu", "memory"} {
		quantity, err := resource.ParseQuantity(values[name])
		if err != nil || quantity.Sign() <= 0 {
			return a, fmt.Errorf("%s: %s is %q, want a quantity: cpu=1500m,memory=2Gi", flag, name, values[name])
		}
		if a[i] = quantity.Value(); name == "cpu" {
			a[i] = quantity.MilliValue()
		}
	}
	return a, nil
}

// readPolicies reads the policies of files; without any it is one that only reacts.
func readPolicies(ctx context.Context, files []string) ([]*policy.Policy, error) {
	if len(files) == 0 {
		reactive, err := reactivePolicy()
		return []*policy.Policy{reactive}, err
	}
	var policies []*policy.Policy
	var wrong []error
	for _, file := range files {
		found, err := policy.ReadFile(ctx, file)
		policies, wrong = append(policies, found...), append(wrong, err)
	}
	return policies, errors.Join(wrong...)
}

// reactivePolicy has no calendar.
func reactivePolicy() (*policy.Policy, error) {
	limits, errs := calendar.New(nil, reactiveCap, nil)
	reactive := &policy.Policy{Calendar: limits, TimeZone: time.UTC, Target: sizing.Parameters{MessagesPerReplica: 1}}
	reactive.Name.Name = "reactive"
	return reactive, errs.ToAggregate()
}

// reactiveCap is far beyond what a trial needs.
const reactiveCap = 1_000_000

func policyFlag(cmd *cobra.Command, usage string) *[]string {
	files := cmd.Flags().StringArrayP("policy", "f", nil, usage)
	if err := cmd.MarkFlagFilename("policy", "yaml", "yml"); err != nil {
		panic(err) // the flag is there
	}
	return files
}

// percent of a share, for people.
func percent(part, whole int) string {
	if whole == 0 {
		return "0%"
	}
	return strings.TrimSuffix(strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64), ".0") + "%"
}

func secretKey(name, key string) *corev1.SecretKeySelector {
	return &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}
}

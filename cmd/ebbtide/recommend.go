package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

// recommendation is what recommend says in JSON and YAML.
type recommendation struct {
	Policy       *v1alpha1.ScalingPolicy `json:"policy"`
	Quantile     float64                 `json:"quantile"`
	Met          bool                    `json:"objectiveMet"`
	LearnedWeeks float64                 `json:"learnedWeeks"`
	TriedWeeks   float64                 `json:"triedWeeks"`
	Rhythm       float64                 `json:"rhythm"`
	BeatsStatic  bool                    `json:"beatsStaticFloor"`
	Backtest     []recommend.Trial       `json:"backtest"`
}

func recommendCommand() *cobra.Command {
	var load loadFlags
	var system systemFlags
	var wait time.Duration
	var most int32
	var holidays, name, namespace string
	cmd := &cobra.Command{
		Use:   "recommend",
		Short: "Learn a calendar of floors from history",
		Long: `Learns from the first half of a workload how many replicas should be warm in each hour of the week, so that 95% of messages wait no longer than
--wait with the fewest pod-hours. Then it tests the result on the second half, and compares it with a static floor and with no floor. It prints the
policy to standard output, with the reason for every number, and the comparison to standard error. It deploys nothing.

It refuses if there are fewer than two weeks, or if the first half does not predict the second.`,
		Example: `  ebbtide recommend --trace quarter.csv --time-zone Europe/Prague --wait 20s > policy.yaml

  # from what Ebbtide itself recorded, with the backlog and target of the policy in use
  ebbtide recommend --prometheus http://localhost:9090 --from 2026-08-01 --to 2026-11-01 -f policy.yaml \
    --query 'ebbtide_backlog_ready_messages{policy="scans"} + ebbtide_backlog_in_flight_messages{policy="scans"}'`,
		Args: cobra.NoArgs,
	}
	load.add(cmd)
	system.add(cmd)
	files := policyFlag(cmd, "policy whose backlog, target and name to keep")
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&wait, "wait", 30*time.Second, "objective: 95% of messages wait no longer than this for a worker")
	flags.Int32Var(&most, "max-replicas", 200, "cap of the policy; with -f, the policy's")
	flags.StringVar(&holidays, "holidays", "", "iCalendar file of days without floors, which are excluded from learning")
	flags.StringVar(&name, "name", "scans", "name of the policy")
	flags.StringVar(&namespace, "namespace", "default", "namespace of the policy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if wait <= 0 || most < 1 {
			return errors.New("--wait must be more than 0, and --max-replicas at least 1")
		}
		shown := newProgress(cmd.ErrOrStderr())
		load.progress = shown
		trace, err := load.read(cmd.Context())
		if err != nil {
			return err
		}
		policy := &v1alpha1.ScalingPolicy{}
		policy.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ScalingPolicy"))
		policy.Name, policy.Namespace = name, namespace
		policy.Spec.Backlog.RabbitMQ = exampleBacklog()
		zone := load.zone
		if len(*files) > 0 {
			kept, err := readPolicies(cmd.Context(), *files)
			if err != nil {
				return err
			}
			if len(kept) != 1 {
				return fmt.Errorf("--policy: the files hold %d policies, and one is recommended", len(kept))
			}
			policy.Name, policy.Namespace, policy.Spec = kept[0].Name.Name, kept[0].Name.Namespace, *kept[0].Spec()
			if most = *policy.Spec.Target.MaxReplicas; !cmd.Flags().Changed("time-zone") {
				zone = kept[0].TimeZone.String()
			}
		}
		policy.Spec.Target.MaxReplicas = ptr.To(most)
		o := recommend.Options{Wait: wait, MaxReplicas: most}
		if o.Zone, err = calendar.LoadZone(zone); err != nil {
			return fmt.Errorf("--time-zone: %w", err)
		}
		if o.System, err = system.read(&load, trace.Origin); err != nil {
			return err
		}
		if holidays != "" {
			text, err := os.ReadFile(holidays)
			if err != nil {
				return fmt.Errorf("--holidays: %w", err)
			}
			days, err := calendar.ParseHolidays(string(text), o.Zone)
			if err != nil {
				return fmt.Errorf("--holidays %s: %w", holidays, err)
			}
			o.Holiday = days.Is
		}
		shown.say("trying floors on %d messages", len(trace.Jobs))
		result, err := recommend.Learn(trace, o)
		shown.done()
		if err != nil {
			return findings{err}
		}
		policy.Spec.Calendar = result.Calendar
		if holidays != "" {
			policy.Spec.Calendar.Holidays = &v1alpha1.Holidays{
				ICS: v1alpha1.ValueSource{File: holidays}, Limits: &v1alpha1.Limits{MinReplicas: ptr.To[int32](0)},
			}
		}
		for i := range result.Backtest {
			result.Backtest[i].Series = simulator.Series{}
		}
		if *out != "table" {
			return out.print(cmd, recommendation{
				policy, result.Quantile, result.Met, result.LearnedWeeks, result.TriedWeeks, result.Rhythm, result.BeatsStatic, result.Backtest,
			}, nil)
		}
		text, err := commented(policy, &result, wait, o.Zone)
		if err != nil {
			return err
		}
		if _, err := cmd.OutOrStdout().Write(text); err != nil {
			return err
		}
		fmt.Fprint(cmd.ErrOrStderr(), verdict(&result, wait))
		return printBacktest(cmd, result.Backtest)
	}
	return cmd
}

// exampleBacklog is for a policy that is not kept from a file.
func exampleBacklog() *v1alpha1.RabbitMQBacklog {
	b := &v1alpha1.RabbitMQBacklog{Queue: "scans"}
	b.URI.SecretKeyRef = secretKey("scan-mq", "uri")
	return b
}

// commented is the policy as YAML in which every number of the calendar has its reason beside it.
func commented(policy *v1alpha1.ScalingPolicy, r *recommend.Result, wait time.Duration, zone *time.Location) ([]byte, error) {
	text, err := yaml.Marshal(struct {
		APIVersion string                     `json:"apiVersion"`
		Kind       string                     `json:"kind"`
		Metadata   map[string]string          `json:"metadata"`
		Spec       v1alpha1.ScalingPolicySpec `json:"spec"`
	}{policy.APIVersion, policy.Kind, map[string]string{"name": policy.Name, "namespace": policy.Namespace}, policy.Spec})
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	for _, f := range r.Floors {
		reasons[f.Period] = fmt.Sprintf("# demand at once: median %.0f, at most %.0f, in %d quarters of an hour", f.Median, f.Highest, f.Quarters)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `# Learned by ebbtide recommend from %.1f weeks until %s, tried on the %.1f weeks after that.
# Objective: 95%% of messages wait at most %s. Floors are the %.0f%% quantile of what was worked on at once in a quarter of an hour
# of the week and those beside it.%s
`, r.LearnedWeeks, r.Cut.In(zone).Format("2 Jan 2006"), r.TriedWeeks, wait, 100*r.Quantile, map[bool]string{false: " No floor met the objective: these come nearest."}[r.Met])
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "name: "); ok && reasons[name] != "" {
			indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
			out.WriteString(indent + reasons[name] + "\n")
		}
		out.WriteString(line)
	}
	return out.Bytes(), nil
}

// verdict says in words what the trial showed.
func verdict(r *recommend.Result, wait time.Duration) string {
	ours, static := r.Backtest[0], r.Backtest[1]
	compared := func(what string, a, b float64) string {
		return fmt.Sprintf("%s %s than %s", what, map[bool]string{true: "less", false: "no less"}[a < b], static.Name)
	}
	text := fmt.Sprintf("\nOn %.1f weeks that were not learned from (rhythm %.2f of 1): ", r.TriedWeeks, r.Rhythm)
	if r.BeatsStatic {
		text += "shorter p95 wait and fewer pod-hours than a " + static.Name + ".\n"
	} else {
		text += fmt.Sprintf("it does not beat a %s on both: %s, %s.\n", static.Name, compared("p95 wait", ours.Wait.P95, static.Wait.P95),
			compared("pod-hours", ours.PodHours, static.PodHours))
	}
	if ours.Wait.P95 > wait.Seconds() {
		text += fmt.Sprintf("There the p95 wait is %.0f s, the objective %.0f s: bursts that no week announced, or pods and nodes that start too slowly.\n",
			ours.Wait.P95, wait.Seconds())
	}
	return text
}

func printBacktest(cmd *cobra.Command, trials []recommend.Trial) error {
	w := cmd.ErrOrStderr()
	t := newTable(w)
	t.row("", "WAIT P50", "P95", "POD-HOURS", "IDLE", "NODE-HOURS", "COST")
	for _, r := range trials {
		t.row(r.Name, waited(r.Wait.P50), waited(r.Wait.P95), number(r.PodHours, 1), number(r.IdlePodHours, 1), number(r.NodeHours, 1), number(r.Cost, 1))
	}
	return t.w.Flush()
}

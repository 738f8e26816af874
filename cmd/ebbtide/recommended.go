package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// recommendation is what recommend says in JSON and YAML.
type recommendation struct {
	recommend.Recommendation
	Currency string `json:"currency"`
	Prices   string `json:"prices"`
	// Policies and NodePool that are recommended, and values of charts/scan-jobs by release.
	Policies []v1alpha1.ScalingPolicy  `json:"policies"`
	NodePool map[string]any            `json:"nodePool"`
	Values   map[string]map[string]any `json:"values"`

	options  *recommend.Options
	releases []string // in order
}

// newRecommendation makes what can be applied of what was found.
func newRecommendation(r *recommend.Recommendation, kept *v1alpha1.ScalingPolicy, o *recommend.Options, list *recommend.PriceList, f *recommendFlags) *recommendation {
	c := &r.Recommended.Configuration
	out := &recommendation{
		Recommendation: *r, Currency: list.Currency, options: o, Values: map[string]map[string]any{},
		Prices: strings.Join(slices.DeleteFunc([]string{f.shapes, list.Region, list.Date, f.capacity}, func(s string) bool { return s == "" }), ", "),
	}
	for _, result := range []*recommend.Result{&out.Today, &out.Alternative, &out.Recommended} {
		result.Series = simulator.Series{}
	}
	pool := dnsName(kept.Name)
	out.NodePool = f.nodePool(pool, c)
	queues := c.Queues.Names()
	for _, queue := range queues {
		p := *kept.DeepCopy()
		if len(queues) > 1 {
			p.Name = pool + "-" + dnsName(queue)
			if p.Spec.Backlog.RabbitMQ != nil {
				p.Spec.Backlog.RabbitMQ.Queue, p.Spec.Backlog.RabbitMQ.Queues, p.Spec.Backlog.RabbitMQ.QueuePattern = p.Name, nil, ""
			}
		}
		if !o.Keep["drain-within"] {
			p.Spec.Target.DrainWithin = nil
			if c.DrainWithin > 0 {
				p.Spec.Target.DrainWithin = &metav1.Duration{Duration: time.Duration(c.DrainWithin)}
			}
		}
		p.Spec.Calendar = r.CalendarOf(queue)
		if p.Spec.Calendar != nil && len(p.Spec.Calendar.Periods) > 0 && f.holidays != "" && !o.Keep["calendar"] {
			p.Spec.Calendar.Holidays = &v1alpha1.Holidays{ICS: v1alpha1.ValueSource{File: f.holidays}, Limits: &v1alpha1.Limits{MinReplicas: new(int32)}}
		}
		out.Policies = append(out.Policies, p)
		out.releases = append(out.releases, p.Name)
		out.Values[p.Name] = values(&p, pool, r, queue)
	}
	return out
}

var notDNS = regexp.MustCompile(`[^a-z0-9]+`)

// dnsName is a name that objects may have.
func dnsName(name string) string {
	name = strings.Trim(notDNS.ReplaceAllString(strings.ToLower(name), "-"), "-")
	return strings.Trim(name[:min(len(name), 40)], "-")
}

// nodePool is Karpenter's for the recommended shapes, with the node class of today's where that is known.
func (f *recommendFlags) nodePool(name string, c *recommend.Configuration) map[string]any {
	var types, cpus, memory []string
	for _, s := range c.Shapes.Shapes {
		types = append(types, s.Name)
		cpus, memory = append(cpus, fmt.Sprint(s.Size[0]/1000)), append(memory, fmt.Sprint(s.Size[1]>>20))
	}
	shapes := []any{map[string]any{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types}}
	if strings.Contains(types[0], "=") { // of --node: sizes without the names of instance types
		shapes = []any{
			map[string]any{"key": "karpenter.k8s.aws/instance-cpu", "operator": "In", "values": cpus},
			map[string]any{"key": "karpenter.k8s.aws/instance-memory", "operator": "In", "values": memory},
		}
	}
	class := map[string]any{"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
	if strings.HasPrefix(types[0], "Standard_") {
		class = map[string]any{"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
	}
	if f.nodeClass != nil {
		class = map[string]any{}
		for key, value := range f.nodeClass {
			class[key] = value
		}
	}
	shapes = append(shapes, map[string]any{"key": "karpenter.sh/capacity-type", "operator": "In", "values": []string{f.capacity}})
	for _, r := range f.placement {
		shapes = append(shapes, map[string]any{"key": r.Key, "operator": r.Operator, "values": r.Values})
	}
	return map[string]any{
		"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"ebbtide.dev/pool": name}},
				"spec": map[string]any{
					"nodeClassRef": class,
					"requirements": shapes,
					"taints":       []any{map[string]any{"key": "ebbtide.dev/pool", "value": name, "effect": "NoSchedule"}},
				},
			},
			"disruption": map[string]any{
				"consolidationPolicy": "WhenEmpty", "consolidateAfter": c.ConsolidateAfter.String(),
				"budgets": []any{
					map[string]any{"nodes": "100%", "reasons": []string{"Empty"}},
					map[string]any{"nodes": "10%", "reasons": []string{"Drifted", "Underutilized"}},
				},
			},
		},
	}
}

// drainingAddress is where workers find the scheduler's leader, with the chart ebbtide in its namespace and scheduler.draining.enabled.
const drainingAddress = "ebbtide-scheduler-workers.ebbtide-system.svc:10261"

// values of charts/scan-jobs for a queue.
func values(p *v1alpha1.ScalingPolicy, pool string, r *recommend.Recommendation, queue string) map[string]any {
	c := &r.Recommended.Configuration
	var most packing.Amounts
	for class, of := range r.Requests.Of {
		if c.Queues.Of[class] == queue {
			for d := range most {
				most[d] = max(most[d], of[d])
			}
		}
	}
	cpu, memory := resource.NewMilliQuantity(most[0], resource.DecimalSI).String(), resource.NewQuantity(most[1], resource.BinarySI).String()
	worker := map[string]any{"maxMessages": c.Workers.MaxMessages, "idleTimeout": c.Workers.IdleTimeout.String()}
	if c.Workers.MaxLifetime > 0 {
		worker["maxLifetime"] = c.Workers.MaxLifetime.String()
	} else if c.Workers.MaxMessages != 1 {
		worker["maxLifetime"] = "1h" // the chart ends Jobs after two
	}
	if c.Workers.Rules {
		worker["draining"] = map[string]any{"address": drainingAddress}
	}
	target := map[string]any{"maxReplicas": p.Spec.Target.MaxReplicas, "messagesPerReplica": max(1, p.Spec.Target.MessagesPerReplica)}
	if c.DrainWithin > 0 {
		target["drainWithin"] = c.DrainWithin.String()
	}
	target["calendar"] = calendarValues(p.Spec.Calendar)
	name := p.Name
	if b := p.Spec.Backlog.RabbitMQ; b != nil && b.Queue != "" {
		name = b.Queue
	}
	return map[string]any{
		"fullnameOverride": p.Name, "queue": name,
		"resources": map[string]any{
			"requests": map[string]any{"cpu": cpu, "memory": memory}, "limits": map[string]any{"memory": memory},
		},
		"worker":       worker,
		"scaledJob":    map[string]any{"pollingInterval": int(time.Duration(c.Poll).Seconds())},
		"policy":       target,
		"nodeSelector": map[string]any{"ebbtide.dev/pool": pool},
		"tolerations":  []any{map[string]any{"key": "ebbtide.dev/pool", "operator": "Equal", "value": pool, "effect": "NoSchedule"}},
	}
}

// calendarValues is a calendar as values. Helm merges them with the chart's own, so periods are there even if there are none.
func calendarValues(c *v1alpha1.Calendar) any {
	values := struct {
		v1alpha1.Calendar
		Periods []v1alpha1.Period `json:"periods"`
	}{Periods: []v1alpha1.Period{}}
	if c != nil {
		values.Calendar, values.Periods = *c, append(values.Periods, c.Periods...)
	}
	values.TimeZone = cmp.Or(values.TimeZone, "Etc/UTC")
	return values
}

// write writes the files of a recommendation.
func (r *recommendation) write(folder string, found *recommend.Recommendation, zone *time.Location) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("-o: %w", err)
	}
	head := r.head(zone)
	policies := bytes.NewBufferString(head + "# For installations without the chart scan-jobs: its release makes the same policy of values.yaml.\n")
	for i := range r.Policies {
		text, err := commented(&r.Policies[i], found.Reasons[found.Recommended.Configuration.Queues.Names()[i]])
		if err != nil {
			return err
		}
		policies.WriteString("---\n")
		policies.Write(text)
	}
	files := map[string][]byte{"policy.yaml": policies.Bytes()}
	pool, err := yaml.Marshal(r.NodePool)
	if err != nil {
		return err
	}
	files["nodepool.yaml"] = append([]byte(head+"# Check nodeClassRef: it is the platform's.\n"), pool...)
	for i, name := range r.releases {
		text, err := yaml.Marshal(r.Values[name])
		if err != nil {
			return err
		}
		file := "values.yaml"
		if len(r.releases) > 1 {
			file = "values-" + dnsName(found.Recommended.Configuration.Queues.Names()[i]) + ".yaml"
		}
		files[file] = append([]byte(head+fmt.Sprintf("# helm upgrade --install %s charts/scan-jobs -f your-values.yaml -f %s\n", name, file)), text...)
	}
	var page bytes.Buffer
	if err := report.WriteRecommendation(&page, &report.Recommended{Found: found, Currency: r.Currency, Prices: r.Prices, Objective: r.options.Objective, MaxReplicas: r.options.MaxReplicas}, zone); err != nil {
		return err
	}
	files["report.html"] = page.Bytes()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil { //nolint:gosec // they hold no secrets
			return fmt.Errorf("-o: %w", err)
		}
	}
	return nil
}

// head is the comment that each file begins with.
func (r *recommendation) head(zone *time.Location) string {
	return fmt.Sprintf("# Recommended by ebbtide recommend: searched on %s until %s, judged on %s after that.\n"+
		"# Objective: %.0f%% of messages wait at most %s. There it cost %.0f %s a month and waited %s; today %.0f and %s.\n",
		weeks(r.LearnedWeeks), r.Cut.In(zone).Format("2 Jan 2006"), weeks(r.JudgedWeeks), 100*r.options.Objective.Quantile, r.options.Objective.Wait,
		r.Recommended.CostMonth, r.Currency, waited(r.Recommended.Wait), r.Today.CostMonth, waited(r.Today.Wait))
}

func weeks(n float64) string {
	if n < 1 {
		return fmt.Sprintf("%.1f days", 7*n)
	}
	return fmt.Sprintf("%.1f weeks", n)
}

// commented is a policy as YAML in which every period of the calendar has its reason beside it.
func commented(p *v1alpha1.ScalingPolicy, reasons map[string]string) ([]byte, error) {
	text, err := yaml.Marshal(struct {
		APIVersion string                     `json:"apiVersion"`
		Kind       string                     `json:"kind"`
		Metadata   map[string]string          `json:"metadata"`
		Spec       v1alpha1.ScalingPolicySpec `json:"spec"`
	}{p.APIVersion, p.Kind, map[string]string{"name": p.Name, "namespace": p.Namespace}, p.Spec})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "name: "); ok && reasons[name] != "" {
			out.WriteString(line[:len(line)-len(strings.TrimLeft(line, " "))] + "# " + reasons[name] + "\n")
		}
		out.WriteString(line)
	}
	return out.Bytes(), nil
}

// print is the table that a manager reads.
func (r *recommendation) print(t *table, folder string) {
	c := &r.Recommended.Configuration
	q := fmt.Sprintf("P%g", 100*r.options.Objective.Quantile)
	t.line("%s a month in place of %s (%s), %s of the messages wait at most %s in place of %s.", money(r.Recommended.CostMonth, r.Currency),
		money(r.Today.CostMonth, r.Currency), changed(r.Recommended.CostMonth, r.Today.CostMonth), strings.ToLower(strings.Replace(q, "P", "", 1))+"%",
		waited(r.Recommended.Wait), waited(r.Today.Wait))
	t.line("Judged on %s that it was not learned from. Prices: %s; check them.\n", weeks(r.JudgedWeeks), r.Prices)
	t.row("", "CONFIGURATION", strings.ToUpper(r.Currency)+" A MONTH", "WAIT P50", "P95", "P99", "MEAN", "IDLE")
	for _, result := range []*recommend.Result{&r.Today, &r.Alternative, &r.Recommended} {
		of := &result.Configuration
		t.row(result.Name, of.Stack.Name+", "+of.Workers.String(), fmt.Sprintf("%.0f (%s)", result.CostMonth, changed(result.CostMonth, r.Today.CostMonth)),
			waited(result.Outcome.Wait.P50), waited(result.Outcome.Wait.P95), waited(result.Outcome.Wait.P99), waited(result.Outcome.Wait.Mean), fmt.Sprintf("%.0f%%", 100*result.IdleShare))
	}
	if !r.Met {
		t.line("\nThe objective is missed by %.0f%% there: bursts that no week announced, or pods and nodes that start too slowly.", 100*(r.Recommended.Excess-1))
	}
	t.line("")
	t.row("DECISION", "TODAY", "RECOMMENDED", "WITHOUT IT")
	for _, d := range r.Decisions {
		without := "no change"
		switch {
		case d.Impossible:
			without = "not possible"
		case d.CostWithout > 0:
			without = fmt.Sprintf("cost %s, wait %s", changed(d.CostWithout, r.Recommended.CostMonth), waited(d.WaitWithout))
		}
		t.row(d.Lever, d.Today, d.Recommended, without)
	}
	t.line("\nWhat would change it")
	for _, d := range r.Decisions {
		if d.Change != "" {
			t.line("  %s: %s", d.Lever, d.Change)
		}
	}
	if len(r.CostByClass) > 0 {
		t.line("\nCost by class: %s", r.costliest())
	}
	t.line("")
	for _, note := range r.Notes {
		t.line("%s", note)
	}
	t.line("%d configurations were tried. %s", r.Played, c.Shapes.Name)
	if folder != "" {
		t.line("Wrote policy.yaml, values, nodepool.yaml and report.html to %s.", folder)
	}
}

// costliest are the classes that cost most in the recommendation.
func (r *recommendation) costliest() string {
	const most = 6
	classes := slices.SortedFunc(maps.Keys(r.CostByClass), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.CostByClass[b], r.CostByClass[a]), strings.Compare(a, b))
	})
	var texts []string
	for _, class := range classes[:min(most, len(classes))] {
		texts = append(texts, fmt.Sprintf("%s %s", class, money(r.CostByClass[class], r.Currency)))
	}
	if others := len(classes) - most; others > 0 {
		rest := 0.0
		for _, class := range classes[most:] {
			rest += r.CostByClass[class]
		}
		texts = append(texts, fmt.Sprintf("%d others %s", others, money(rest, r.Currency)))
	}
	return strings.Join(texts, ", ")
}

func money(amount float64, currency string) string { return fmt.Sprintf("%.0f %s", amount, currency) }

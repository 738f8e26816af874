package scenario

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

// What the cluster must keep of a promise. The goal is 10% for both. On two cores that other work shares, start-up times change between the day
// that they are measured on and the day that is compared: costs were off by up to 12% and p95 waits, which are those of the seven scans of 130 that wait
// longest, by up to 72% (docs/how-to/recommend.md).
const (
	costWithin = 0.20             // of what was promised
	waitTimes  = 2                // the largest factor between a wait that was promised and the one that was measured
	objective  = 15 * time.Second // for the p95 wait
)

// TestRecommend follows docs/how-to/recommend.md on a cluster: a compressed day of two classes of scans with pods of different sizes, a
// recommendation for each class from the history that the cluster's Prometheus has of it, its files applied with kubectl and helm, and the same day
// again. What the recommendation promised for the part of the day that it had not learned from is compared with what that part then costs and waits.
//
// The day has a morning and an afternoon. Between them all nodes go, so that each has costs of its own; recommend learns on the first and judges on the
// second.
func TestRecommend(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 28*time.Minute)
	defer cancel()
	c, root := startWith(ctx, t, append([]string{"./cmd/ebbtide"}, scans.Programs...), func(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
		o.Draining = true
		return cluster.Start(ctx, o)
	})
	d := &rehearsal{T: t, c: c, root: root, folder: t.TempDir(), observed: scans.NewObserver(scans.Namespace, scans.NodePoolLabel, "")}
	client, err := kubernetes.NewForConfig(c.Admin())
	if err := errors.Join(err, c.StartPrometheus(ctx), d.install(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := d.observed.Watch(ctx, client); err != nil {
		t.Fatal(err)
	}
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	queues := map[string]bool{}
	for _, class := range classes {
		queues[class.Name+".results"], queues[class.Name+".dead"] = false, true
	}
	if d.settled, err = scans.CollectFrom(connection, queues); err != nil {
		t.Fatal(err)
	}
	if d.sender, err = scans.NewPublisher(connection); err != nil {
		t.Fatal(err)
	}
	if err := whilePodsRun(ctx, c, d.days); err != nil {
		t.Fatal(err)
	}
	for id, ends := range d.settled.Ends() {
		if len(ends) != 1 || ends[0].Dead {
			t.Errorf("scan %s ended as %+v, want one result", id, ends)
		}
	}
}

// scanClass is a class of scans that has a queue, a release and a NodePool of its name.
type scanClass struct {
	Name, CPU, Memory string
	// median of a scan's seconds; bursts at which seconds of a half of the day.
	median float64
	bursts []float64
}

var classes = []scanClass{
	{Name: "small", CPU: "500m", Memory: "1Gi", median: 5, bursts: []float64{15, 60}},
	{Name: "large", CPU: "2", Memory: "8Gi", median: 10, bursts: []float64{38, 82}},
}

// halfLength is how long scans are published in each half of a day: recommend wants 100 messages of a class in each.
const halfLength = 100 * time.Second

// halfDay are the scans of all classes: of each a trickle of 60, and two bursts of 35 within three seconds.
func halfDay(day, half string) []scans.Arrival {
	random := rand.New(rand.NewPCG(20260302, uint64(slices.Index(halves, half))))
	var arrivals []scans.Arrival
	for _, class := range classes {
		add := func(after float64) {
			seconds := math.Round(100*min(4*class.median, max(1, class.median*math.Exp(0.6*random.NormFloat64())))) / 100
			arrivals = append(arrivals, scans.Arrival{After: time.Duration(after * float64(time.Second)), Scan: scans.Scan{Repository: class.Name, Seconds: seconds}})
		}
		for range 60 {
			add(random.Float64() * halfLength.Seconds())
		}
		for _, burst := range class.bursts {
			for range 35 {
				add(burst + 3*random.Float64())
			}
		}
	}
	slices.SortFunc(arrivals, func(a, b scans.Arrival) int { return int(a.After - b.After) })
	for i := range arrivals {
		arrivals[i].Scan.ID = fmt.Sprintf("%s-%s-%s-%03d", day, half, arrivals[i].Scan.Repository, i)
	}
	return arrivals
}

// Halves of a day.
var halves = []string{"morning", "afternoon"}

// rehearsal is the scenario's state.
type rehearsal struct {
	*testing.T
	c            *cluster.Cluster
	root, folder string
	observed     *scans.Observer
	settled      *scans.Settlements
	sender       *scans.Publisher
}

// install makes the queues of the chart's releases, and the releases as somebody has them who has changed little.
func (d *rehearsal) install(ctx context.Context) error {
	values := struct {
		AMQP, Management, Scaler      string
		CACert, ClientCert, ClientKey string
		Classes                       []scanClass
	}{AMQP: d.c.Broker.AMQPURL("/"), Management: d.c.Broker.ManagementURL(), Classes: classes}
	for field, file := range map[*string]string{
		&values.CACert: cluster.ScalerCA + ".crt", &values.ClientCert: cluster.ScalerClient + ".crt", &values.ClientKey: cluster.ScalerClient + ".key",
	} {
		content, err := d.c.PKI(file)
		if err != nil {
			return err
		}
		*field = base64.StdEncoding.EncodeToString(content)
	}
	objects, err := render("recommend.yaml", values)
	if err != nil {
		return err
	}
	if err := d.c.ApplyYAML(ctx, objects); err != nil {
		return err
	}
	for _, class := range classes {
		yours, err := render("recommend-values.yaml", struct {
			scanClass
			Scaler string
		}{class, d.c.ScalerAddress()})
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.path(class, "yours.yaml"), yours, 0o600); err != nil {
			return err
		}
		if err := d.declare(ctx, class); err != nil {
			return fmt.Errorf("declare the queues of %s: %w", class.Name, err)
		}
		if err := d.upgrade(ctx, class); err != nil {
			return err
		}
	}
	return nil
}

func render(name string, values any) ([]byte, error) {
	text, err := template.ParseFS(manifests, "manifests/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = text.Execute(&out, values)
	return out.Bytes(), err
}

// path of a file of a class.
func (d *rehearsal) path(class scanClass, file string) string {
	return filepath.Join(d.folder, class.Name+"-"+file)
}

// upgrade installs or upgrades a class's release with its own values and more.
func (d *rehearsal) upgrade(ctx context.Context, class scanClass, more ...string) error {
	_, err := d.c.Exec(ctx, "helm", append([]string{
		"upgrade", "--install", class.Name, "charts/scan-jobs", "-n", scans.Namespace, "-f", d.path(class, "yours.yaml"),
	}, more...)...)
	return err
}

// declare declares a class's queues as the chart's Job would, which no simulated node can run: it needs a volume.
func (d *rehearsal) declare(ctx context.Context, class scanClass) error {
	text, err := d.c.Exec(ctx, "helm", "template", class.Name, "charts/scan-jobs", "-n", scans.Namespace, "-f", d.path(class, "yours.yaml"),
		"--set", "topology.mode=job", "--show-only", "templates/topology.yaml")
	if err != nil {
		return err
	}
	var definitions corev1.ConfigMap
	first, _, _ := strings.Cut(text[strings.Index(text, "apiVersion"):], "\n---")
	if err := yaml.Unmarshal([]byte(first), &definitions); err != nil {
		return err
	}
	file := d.path(class, "definitions.json")
	if err := os.WriteFile(file, []byte(definitions.Data["definitions.json"]), 0o600); err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, d.c.Bin("ebbtide-worker"), "topology", "apply", "-f", file)
	apply.Env = append(os.Environ(), "AMQP_URI="+d.c.Broker.AMQPURL("/"), "MANAGEMENT_URI="+d.c.Broker.ManagementURL())
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// period of time.
type period struct{ from, to time.Time }

// days runs a day, applies what is recommended for it and runs the same day again.
func (d *rehearsal) days(ctx context.Context) error {
	before, err := d.replay(ctx, "before")
	if err != nil {
		return err
	}
	var arrivals []scans.Arrival
	for _, half := range halves {
		arrivals = append(arrivals, halfDay("before", half)...)
	}
	times := startTimesOf(d.observed, arrivals, 0)
	for what, seen := range map[string][]time.Duration{
		"a pod runs after its creation and binding": d.podBoots(), "a Job is finished after its pod": d.observed.JobEnds(), "a node takes pods after its creation": d.observed.NodeStarts(),
		"a node has gone after its last pod": d.observed.Lingering(),
	} {
		d.Logf("%-42s p5 %5.1f p50 %5.1f p95 %5.1f s, %d", what, scans.Percentile(seen, 5), scans.Percentile(seen, 50), scans.Percentile(seen, 95), len(seen))
	}
	promised := map[string]recommend.Recommendation{}
	for _, class := range classes {
		found, err := d.recommend(ctx, class, times, before)
		if err != nil {
			return fmt.Errorf("recommend for %s: %w", class.Name, err)
		}
		promised[class.Name] = found
		if err := d.apply(ctx, class); err != nil {
			return fmt.Errorf("apply what is recommended for %s: %w", class.Name, err)
		}
	}
	after, err := d.replay(ctx, "after")
	if err != nil {
		return err
	}
	return d.compare(promised, before, after)
}

// replay publishes a day's scans, and returns when its halves were. Each ends when the last node has gone.
func (d *rehearsal) replay(ctx context.Context, day string) (map[string]period, error) {
	when := map[string]period{}
	for _, half := range halves {
		arrivals, from := halfDay(day, half), time.Now()
		fmt.Fprintf(os.Stderr, "%s, %s: %d scans\n", day, half, len(arrivals))
		for _, a := range arrivals {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Until(from.Add(a.After))):
			}
			if err := d.sender.PublishTo(ctx, a.Scan.Repository, a.Scan); err != nil {
				return nil, fmt.Errorf("publish %s: %w", a.Scan.ID, err)
			}
			d.settled.Published()
		}
		if err := scans.UntilQuiet(ctx, d.c, d.observed, d.settled); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", day, half, err)
		}
		when[half] = period{from, time.Now()}
	}
	return when, nil
}

// podBoots are the times from pods' binding until they run, and what a Job needs for its pod to be created, which recommend knows no other place for.
func (d *rehearsal) podBoots() []time.Duration {
	times, created := d.observed.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Bound, p.Running }), mean(d.observed.PodCreations())
	for i := range times {
		times[i] += created
	}
	return times
}

// observations are quantiles of durations in the form of the flags for start-up times.
func observations(times []time.Duration) string {
	const most = 40
	var texts []string
	for i := range min(most, len(times)) {
		texts = append(texts, scans.NearestRank(times, 100*(float64(i)+0.5)/float64(min(most, len(times)))).String())
	}
	return strings.Join(texts, ",")
}

// recommend asks for a class, as the how-to does, with what the day showed of how long things take to start.
func (d *rehearsal) recommend(ctx context.Context, class scanClass, times startTimes, day map[string]period) (recommend.Recommendation, error) {
	var found recommend.Recommendation
	current, err := d.c.Exec(ctx, "kubectl", "get", "scalingpolicy", class.Name, "-n", scans.Namespace, "-o", "yaml")
	if err != nil {
		return found, err
	}
	if err := os.WriteFile(d.path(class, "current.yaml"), []byte(current), 0o600); err != nil {
		return found, err
	}
	selected := fmt.Sprintf(`{namespace=%q,policy=%q}`, scans.Namespace, class.Name)
	leave := d.observed.JobEnds()
	for i := range leave {
		leave[i] += times.Around
	}
	command := exec.CommandContext(ctx, d.c.Bin("ebbtide"), "recommend", "--prometheus", d.c.PrometheusURL(),
		"--from", day["morning"].from.UTC().Format(time.RFC3339), "--to", day["afternoon"].to.UTC().Format(time.RFC3339), "--step", "1s",
		"--query", fmt.Sprintf("max(ebbtide_backlog_ready_messages%[1]s + ebbtide_backlog_in_flight_messages%[1]s)", selected),
		"--run-times", fmt.Sprintf(`ebbtide_scans_run_seconds{namespace=%q,scaledjob=%q}`, scans.Namespace, class.Name),
		"--today", "cluster:"+scans.Namespace+"/"+class.Name, "--policy", d.path(class, "current.yaml"),
		"--shapes", filepath.Join(d.root, "e2e", "scenario", "testdata", "prices.yaml"), "--daemonsets", "cpu=0,memory=0",
		"--pod-boot", observations(d.podBoots()), "--connect", times.Around.String(), "--leave", observations(leave),
		"--node-boot", observations(d.observed.NodeStarts()), "--node-delay", times.Linger.String(),
		"--wait", objective.String(), "-o", d.path(class, "recommended"), "-o", "json")
	command.Env = append(os.Environ(), "KUBECONFIG="+d.c.Kubeconfig("admin"))
	var out, progress bytes.Buffer
	command.Stdout, command.Stderr = &out, &progress
	begin := time.Now()
	if err := command.Run(); err != nil {
		return found, fmt.Errorf("%w: %s", err, progress.String())
	}
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		return found, err
	}
	r, drainWithin := &found.Recommended.Configuration, "a worker for each message"
	if r.DrainWithin > 0 {
		drainWithin = "drainWithin " + r.DrainWithin.String()
	}
	d.Logf("%s: recommended within %.0f s: nodes %s in place of %s, %s, polled every %s, consolidateAfter %s, %s. %s", class.Name, time.Since(begin).Seconds(),
		r.Shapes.Name, found.Today.Configuration.Shapes.Name, r.Workers, r.Poll, r.ConsolidateAfter, drainWithin, strings.Join(found.Notes, " "))
	return found, nil
}

// apply applies the files of a recommendation.
func (d *rehearsal) apply(ctx context.Context, class scanClass) error {
	folder := d.path(class, "recommended")
	if _, err := d.c.Exec(ctx, "kubectl", "apply", "-f", filepath.Join(folder, "nodepool.yaml")); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(folder, "values.yaml"))
	if err != nil {
		return err
	}
	more := []string{"-f", filepath.Join(folder, "values.yaml")}
	if strings.Contains(string(text), "draining:") { // the scheduler is not in a pod here
		more = append(more, "--set", "worker.draining.address="+d.c.SchedulerWorkers())
	}
	if err := d.upgrade(ctx, class, more...); err != nil {
		return err
	}
	// Who has no chart applies this one.
	if _, err := d.c.Exec(ctx, "kubectl", "apply", "--dry-run=server", "-f", filepath.Join(folder, "policy.yaml")); err != nil {
		return err
	}
	if text, err = os.ReadFile(filepath.Join(folder, "policy.yaml")); err != nil {
		return err
	}
	var recommended, live v1alpha1.ScalingPolicy
	if err := yaml.Unmarshal(text, &recommended); err != nil {
		return err
	}
	if err := d.c.Client().Get(ctx, types.NamespacedName{Namespace: scans.Namespace, Name: class.Name}, &live); err != nil {
		return err
	}
	if diff := cmp.Diff(recommended.Spec.Target, live.Spec.Target); diff != "" {
		d.Errorf("%s: the release's policy is another than policy.yaml (-file +release)\n%s", class.Name, diff)
	}
	return nil
}

// measured is what a class cost and waited in a time.
type measured struct {
	nodeSeconds, cost float64
	p50, p95          float64
}

func (d *rehearsal) measure(class scanClass, day, half string, within period, prices *recommend.PriceList) measured {
	var m measured
	for _, life := range d.observed.NodeLives() {
		if life.Pool != class.Name || life.Added.Before(within.from) || life.Added.After(within.to) {
			continue
		}
		i := slices.IndexFunc(prices.Shapes, func(s recommend.PriceShape) bool { return s.Name == life.InstanceType })
		if i < 0 {
			d.Errorf("a node is of the type %s, which has no price", life.InstanceType)
			continue
		}
		seconds := life.Removed.Sub(life.Added).Seconds()
		m.nodeSeconds += seconds
		m.cost += seconds / 3600 * prices.Shapes[i].Price
	}
	prefix := strings.Join([]string{day, half, class.Name, ""}, "-")
	waits := d.settled.WaitsOf(func(id string) bool { return strings.HasPrefix(id, prefix) })
	m.p50, m.p95 = scans.Percentile(waits, 50), scans.Percentile(waits, 95)
	return m
}

// compare compares the afternoons with what was promised for them.
func (d *rehearsal) compare(promised map[string]recommend.Recommendation, before, after map[string]period) error {
	prices, err := recommend.ReadPriceList(filepath.Join(d.root, "e2e", "scenario", "testdata", "prices.yaml"))
	if err != nil {
		return err
	}
	for _, class := range classes {
		found := promised[class.Name]
		was, is := d.measure(class, "before", "afternoon", before["afternoon"], &prices), d.measure(class, "after", "afternoon", after["afternoon"], &prices)
		for _, row := range []struct {
			what      string
			simulated *recommend.Result
			measured
		}{{"before", &found.Today, was}, {"recommended", &found.Recommended, is}} {
			d.Logf("%-5s %-11s cost %.4f, simulated %.4f (%+.0f%%); node-seconds %.0f, simulated %.0f; p50 wait %.1f s, simulated %.1f s; p95 %.1f s, simulated %.1f s (%+.0f%%)",
				class.Name, row.what, row.cost, row.simulated.Cost, 100*(row.cost/row.simulated.Cost-1), row.nodeSeconds, 3600*row.simulated.NodeHours,
				row.p50, row.simulated.Outcome.Wait.P50, row.p95, row.simulated.Wait, 100*(row.p95/row.simulated.Wait-1))
		}
		if promise := found.Recommended.Cost; math.Abs(is.cost-promise) > costWithin*promise {
			d.Errorf("%s: a cost of %.4f was promised, and the cluster's is %.4f, want it within %.0f%%", class.Name, promise, is.cost, 100*costWithin)
		}
		if promise := found.Recommended.Wait; is.p95 > waitTimes*promise || is.p95 < promise/waitTimes {
			d.Errorf("%s: a p95 wait of %.1f s was promised, and the cluster's is %.1f s, want a factor of at most %d between them", class.Name, promise, is.p95, waitTimes)
		}
		if is.p95 > objective.Seconds() {
			d.Errorf("%s: the p95 wait is %.1f s, and the objective is %s", class.Name, is.p95, objective)
		}
		if is.cost >= was.cost {
			d.Errorf("%s: the recommendation costs %.4f where what was there before costs %.4f", class.Name, is.cost, was.cost)
		}
	}
	return nil
}

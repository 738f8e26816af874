package docs

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// A message's life, its job's, and what statistics count meanwhile.
func TestPictureOfAMessage(t *testing.T) {
	const (
		created, runs, consumes, settled, finished = 6, 30, 38, 64, 67 // seconds after the message came
		lag                                        = 5
		left, scale, row                           = 250.0, 8.4, 30.0
	)
	c := newCanvas(330, "A message waits, is worked on and is settled; below it what every statistic counts at that time")
	y := 18.0
	name := func(text, note string) {
		y += row
		c.text(left-12, y+11, "e", "%s", text)
		if note != "" {
			c.text(left-12, y+24, "s e", "%s", note)
			y += 8
		}
	}
	bar := func(from, to float64, class, text string) {
		c.rect(left+from*scale, y-2, (to-from)*scale, 18, class)
		if text != "" {
			inside := "m i"
			if class == "g" {
				inside = "m"
			}
			c.text(left+(from+to)/2*scale, y+11, inside, "%s", text)
		}
	}
	for s := 0; s <= 70; s += 10 {
		c.line(left+float64(s)*scale, 28, left+float64(s)*scale, 306, "grid")
		c.text(left+float64(s)*scale, 322, "s m", "%d s", s)
	}
	c.text(14, 22, "h", "What happens")
	name("the message", "")
	bar(0, consumes, "b", "waits in the queue")
	bar(consumes, settled, "a", "is worked on")
	name("its job", "")
	bar(created, runs, "g", "node, image, pod")
	bar(runs, consumes, "g", "starts")
	bar(consumes, settled, "a", "consumes")
	bar(settled, finished, "g", "")
	y += 22
	c.text(14, y+24, "h", "What is counted")
	y += 6
	name("ready", "")
	bar(0, consumes, "b", "1")
	name("ready + consumers", "")
	bar(0, consumes, "b", "1")
	bar(consumes, settled, "a", "1")
	name("ready + unacknowledged, HTTP", "up to 5 s old")
	bar(0, consumes, "b", "1")
	bar(consumes, settled, "a", "1")
	bar(settled, settled+lag, "hatch", "")
	name("jobs that default subtracts", "unfinished")
	bar(created, finished, "g", "1")
	name("jobs that accurate subtracts", "pending")
	bar(created, runs, "g", "1")
	bar(runs, consumes, "hatch", "")
	c.check(t, "message.svg")
}

// What each trigger makes KEDA create at three moments, by KEDA's arithmetic.
func TestMomentsTable(t *testing.T) {
	type moment struct {
		what                        string
		ready, consumers, statistic int64
		unfinished, pending, right  int64
	}
	moments := []moment{
		{"10 jobs work, 10 more messages come", 10, 10, 20, 10, 0, 10},
		{"the 10 new jobs' pods run, but do not consume yet", 10, 10, 20, 20, 0, 0},
		{"all 20 work, and 10 of them finish", 0, 10, 20, 10, 0, 0},
	}
	var table strings.Builder
	table.WriteString("| moment | right | rabbitmq AMQP, `default` | rabbitmq HTTP, `default` | rabbitmq AMQP, `accurate` | **ready + consumers, `default`** |\n|---|---|---|---|---|---|\n")
	for _, m := range moments {
		create := func(value int64, name string) int64 {
			strategy, err := keda.NewStrategy(name)
			if err != nil {
				t.Fatal(err)
			}
			return strategy.Create(value, keda.Jobs{Unfinished: m.unfinished, Pending: m.pending, Max: 100})
		}
		ours := sizing.Decide(time.Unix(0, 0), sizing.Observation{Time: time.Unix(0, 0), Ready: m.ready, Consumers: m.consumers}, nil,
			calendar.Limits{MaxReplicas: 100}, sizing.Parameters{MessagesPerReplica: 1}, 0)
		cell := func(n int64) string {
			switch {
			case n > m.right:
				return fmt.Sprintf("%d: doubled", n)
			case n < m.right:
				return fmt.Sprintf("%d: starved", n)
			}
			return fmt.Sprint(n)
		}
		fmt.Fprintf(&table, "| %s | %d | %s | %s | %s | %s |\n", m.what, m.right, cell(create(m.ready, "default")), cell(create(m.statistic, "default")),
			cell(create(m.ready, "accurate")), cell(create(int64(ours.Target), "default")))
		if got := create(int64(ours.Target), "default"); got != m.right {
			t.Errorf("%s: ready + consumers creates %d, want %d", m.what, got, m.right)
		}
	}
	doctable.Check(t, "concepts/target.md", "moments", table.String())
}

// Bursts under each trigger, as the simulator shows them.
func TestPictureOfBursts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var messages []simulator.Job
	for burst := range 4 {
		for range 40 {
			messages = append(messages, simulator.Job{
				Start: time.Duration(burst)*75*time.Second + time.Duration(random.IntN(10))*time.Second,
				Run:   20*time.Second + time.Duration(random.ExpFloat64()*60)*time.Second, Requests: packing.Amounts{1000, 1 << 30, 0, 1},
			})
		}
	}
	unlimited, errs := calendar.New(nil, 1000, nil)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		t.Fatal(err)
	}
	runs := []struct {
		name, class string
		scaler      simulator.Scaler
		strategy    keda.Strategy
	}{
		{"rabbitmq AMQP, default", "b", simulator.RabbitMQ(false), nil},
		{"rabbitmq HTTP, default", "c", simulator.RabbitMQ(true), nil},
		{"rabbitmq AMQP, accurate", "d", simulator.RabbitMQ(false), accurate},
		{"ready + consumers, default", "a", simulator.Ebbtide(unlimited, sizing.Parameters{MessagesPerReplica: 1}), nil},
	}
	const left, right, top, bottom, minutes, highest = 44.0, 870.0, 130.0, 290.0, 14.0, 80.0
	c := newCanvas(322, "Messages that wait while four bursts of 40 come, under four triggers")
	c.text(14, 22, "h", "Four bursts of 40 messages: how many wait")
	at := func(minute, value float64) point {
		return point{left + minute/minutes*(right-left), bottom - value/highest*(bottom-top)}
	}
	for v := 0.0; v <= highest; v += 20 {
		p := at(0, v)
		c.line(left, p.y, right, p.y, "grid")
		c.text(left-8, p.y+4, "s e", "%.0f", v)
	}
	for m := 0.0; m <= minutes; m += 2 {
		c.text(at(m, 0).x, bottom+20, "s m", "%.0f min", m)
	}
	c.text(300, 46, "s e", "jobs")
	c.text(400, 46, "s e", "found none")
	c.text(500, 46, "s e", "p95 wait")
	for i, r := range runs {
		system := simulator.Defaults()
		system.Scaler, system.Strategy, system.PollEvery = r.scaler, r.strategy, 5*time.Second
		system.Worker.Boot, system.Worker.Connect = simulator.Range{Min: 10 * time.Second, Max: 20 * time.Second}, simulator.Range{Min: 5 * time.Second, Max: 10 * time.Second}
		out, err := system.Run(messages)
		if err != nil {
			t.Fatal(err)
		}
		var points []point
		for j, waiting := range out.Series.Backlog {
			if minute := (float64(j) + 0.5) * out.Series.StepSeconds / 60; minute <= minutes {
				points = append(points, at(minute, math.Min(waiting, highest)))
			}
		}
		c.curve(points, false, "l"+r.class)
		y := 64 + 18*float64(i)
		c.rect(46, y-9, 12, 10, r.class)
		c.text(64, y, "", "%s", r.name)
		c.text(300, y, "e", "%d", out.Jobs)
		c.text(400, y, "e", "%d", out.EmptyJobs)
		c.text(500, y, "e", "%.0f s", out.Wait.P95)
		if r.class == "a" && out.EmptyJobs > 0 {
			t.Errorf("%d of our jobs found no message", out.EmptyJobs)
		}
	}
	c.check(t, "bursts.svg")
}

// A pod of six minutes, the nodes that have room for it, and their order.
func TestPictureOfNodes(t *testing.T) {
	const pod = 6.0 // minutes
	type node struct {
		name    string
		pods    []float64 // minutes until they end; 0 for one that never ends
		full    float64   // share of its resources that is in use
		leaving bool
	}
	nodes := []node{
		{name: "node-1", pods: []float64{0, 3}, full: 0.5},
		{name: "node-2", pods: []float64{2, 7.5, 4}, full: 0.65},
		{name: "node-3", pods: []float64{21, 12}, full: 0.6},
		{name: "node-4", pods: []float64{1.5, 4.75}, full: 0.8},
		{name: "node-5", pods: []float64{1, 0.5, 0.75}, full: 0.85},
		{name: "node-6", full: 0},
		{name: "node-7", pods: []float64{19}, full: 0.3, leaving: true},
	}
	var candidates []packing.Node
	exits, fullest := map[string]float64{}, nodes[0]
	for i, n := range nodes {
		exit := 0.0
		for _, p := range n.pods {
			if exit = max(exit, p); p == 0 {
				exit = math.Inf(1)
			}
		}
		exits[n.name] = exit
		candidate := packing.Node{
			Name: n.name, Leaving: n.leaving, Created: time.Unix(int64(i), 0), Exit: time.Duration(exit * float64(time.Minute)),
			Allocatable: []int64{1000}, Free: []int64{900 - int64(1000*n.full)},
		}
		if math.IsInf(exit, 1) {
			candidate.Exit = packing.Never
		}
		candidates = append(candidates, candidate)
		if n.full > fullest.full {
			fullest = n
		}
	}
	order := packing.Order(candidates, &packing.Pod{Remaining: pod * time.Minute, Stated: 1}, nil, len(candidates))
	const left, right, top, row, minutes = 150.0, 620.0, 62.0, 56.0, 24.0
	c := newCanvas(top+row*float64(len(nodes))+40, "Nodes in the order in which they are taken for a pod that runs for six minutes")
	c.text(14, 22, "h", "A pod that runs for 6 minutes: where does it go?")
	at := func(minute float64) float64 { return left + min(minute, minutes)/minutes*(right-left) }
	bottom := top + row*float64(len(nodes))
	for m := 0.0; m < minutes; m += 4 {
		c.line(at(m), top-10, at(m), bottom, "grid")
		label := fmt.Sprintf("%.0f min", m)
		if m == 0 {
			label = "now"
		}
		c.text(at(m), bottom+18, "s m", "%s", label)
	}
	legend := left
	for _, l := range []struct{ class, name string }{{"g", "pods that run"}, {"a", "the pod"}, {"hatch", "extension: the node lives longer"}, {"p", "slack: it stays afterwards"}} {
		c.rect(legend, 36, 14, 11, l.class)
		c.text(legend+20, 46, "s", "%s", l.name)
		legend += 40 + 6.6*float64(len(l.name))
	}
	for i, key := range order {
		var n node
		for _, n = range nodes {
			if n.name == key.Name {
				break
			}
		}
		y := top + row*float64(i)
		exit := exits[n.name]
		c.text(16, y+24, "h", "%d", i+1)
		c.text(40, y+17, "", "%s", n.name)
		c.text(40, y+33, "s", "%.0f%% full", 100*n.full)
		height := 8.0
		for j, p := range n.pods {
			end := p
			if p == 0 {
				end = minutes
			}
			c.rect(left, y+float64(j)*(height+2), at(end)-left, height, "g")
		}
		if exit > pod {
			c.rect(at(pod), y+32, at(exit)-at(pod), height, "p")
		}
		c.rect(left, y+32, at(pod)-left, height, "a")
		if exit < pod {
			c.rect(at(exit), y+42, at(pod)-at(exit), 4, "hatch")
		}
		why := "extension " + (packing.Extension(pod*60*1e9, time.Duration(exit*float64(time.Minute)))).String()
		switch {
		case n.leaving:
			why = "is being removed"
		case math.IsInf(exit, 1):
			why = "stays for ever: its room costs nothing"
		case exit > pod:
			why = fmt.Sprintf("stays anyway, for %s more", time.Duration((exit-pod)*float64(time.Minute)))
		}
		c.text(right+16, y+17, "", "%s", why)
		if n.name == fullest.name {
			c.text(right+16, y+33, "s", "the fullest: MostAllocated takes this one")
		}
	}
	c.check(t, "nodes.svg")
}

// calendarOf compiles the policy of a page's first block of YAML.
func calendarOf(t *testing.T, file string) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range parse(file, string(text)).blocks() {
		if b.language == "yaml" {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			whole := "apiVersion: ebbtide.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: scans, namespace: scan}\nspec:\n" +
				"  backlog: {rabbitmq: {uri: {value: \"amqp://broker\"}, queue: scans}}\n  target: {maxReplicas: 60}\n  " +
				strings.ReplaceAll(strings.TrimSpace(b.text), "\n", "\n  ") + "\n"
			if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
				t.Fatal(err)
			}
			policies, err := policy.ReadFile(context.Background(), path)
			if err != nil {
				t.Fatal(err)
			}
			return policies[0]
		}
	}
	t.Fatalf("%s has no YAML", file)
	return nil
}

// Four days of the calendar on the page.
func TestPictureOfACalendar(t *testing.T) {
	p := calendarOf(t, "concepts/calendars.md")
	start := time.Date(2026, 12, 22, 0, 0, 0, 0, p.TimeZone)
	end := start.AddDate(0, 0, 4)
	const left, right, top, bottom, highest = 44.0, 886.0, 60.0, 250.0, 65.0
	c := newCanvas(344, "Floor and cap of the calendar on this page over four days")
	c.text(14, 22, "h", "Limits from Tuesday, 22 December, to Friday, 25 December 2026")
	at := func(instant time.Time, value float64) point {
		return point{left + instant.Sub(start).Hours()/end.Sub(start).Hours()*(right-left), bottom - value/highest*(bottom-top)}
	}
	for v := 0.0; v <= 60; v += 20 {
		y := at(start, v).y
		c.line(left, y, right, y, "grid")
		c.text(left-8, y+4, "s e", "%.0f", v)
	}
	for d := range 4 {
		day := start.AddDate(0, 0, d)
		x := at(day, 0).x
		c.line(x, top-10, x, bottom+26, "grid")
		for _, hour := range []int{6, 12, 18} {
			c.text(at(day.Add(time.Duration(hour)*time.Hour), 0).x, bottom+16, "s m", "%d", hour)
		}
		c.text(at(day.Add(12*time.Hour), 0).x, bottom+34, "m", "%s", day.Format("Mon 2 Jan"))
	}
	var floor, limit []point
	below := map[string]float64{"workday+evening-batch": 14, "evening-batch": 28} // so that names do not overlap
	for _, s := range p.Calendar.Timeline(start, end) {
		floor = append(floor, at(s.From, float64(s.Limits.MinReplicas)))
		limit = append(limit, at(s.From, float64(s.Limits.MaxReplicas)))
		from, to := at(s.From, 0), at(s.To, float64(s.Limits.MinReplicas))
		c.rect(from.x, to.y, to.x-from.x, from.y-to.y, "p")
		if s.Limits.Period != calendar.DefaultPeriod {
			c.text((from.x+to.x)/2, bottom+54+below[s.Limits.Period], "s m", "%s", s.Limits.Period)
		}
	}
	floor, limit = append(floor, at(end, 0)), append(limit, at(end, 20))
	floor[len(floor)-1].y, limit[len(limit)-1].y = floor[len(floor)-2].y, limit[len(limit)-2].y
	c.curve(floor, true, "la")
	c.curve(limit, true, "lb dash")
	c.line(46, 40, 70, 40, "l la")
	c.text(76, 44, "s", "floor (minReplicas)")
	c.line(216, 40, 240, 40, "l lb dash")
	c.text(246, 44, "s", "cap (maxReplicas)")
	c.check(t, "calendar.svg")
}

// A period that starts and one that ends in the hours that clocks skip and repeat.
func TestPictureOfClockChanges(t *testing.T) {
	zone, err := calendar.LoadZone("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	p := calendarOf(t, "concepts/calendars.md")
	const left, right, row = 190.0, 866.0, 108.0
	c := newCanvas(2*row+40, "What a period from 02:30 to 03:30 means on the days on which clocks change")
	c.text(14, 22, "h", "A period from 02:30 to 03:30 when clocks change (Europe/Prague)")
	for i, day := range []time.Time{time.Date(2027, 3, 28, 0, 0, 0, 0, zone), time.Date(2026, 10, 25, 0, 0, 0, 0, zone)} {
		y := 34 + row*float64(i)
		from, to := day.Add(time.Hour), day.Add(6*time.Hour)
		at := func(instant time.Time) float64 {
			return left + instant.Sub(from).Hours()/to.Sub(from).Hours()*(right-left)
		}
		c.text(14, y+34, "", "%s", day.Format("Mon 2 Jan 2006"))
		c.text(14, y+52, "s", "%s", []string{"02:00 to 03:00 is skipped", "02:00 to 03:00 comes twice"}[i])
		for instant := from; !instant.After(to); instant = instant.Add(30 * time.Minute) {
			x := at(instant)
			c.line(x, y+18, x, y+70, "grid")
			c.text(x, y+86, "s m", "%s", instant.Format("15:04"))
		}
		for _, s := range p.Calendar.Timeline(from, to) {
			if strings.Contains(s.Limits.Period, "reindex") {
				c.rect(at(s.From), y+30, at(s.To)-at(s.From), 26, "a")
				c.text((at(s.From)+at(s.To))/2, y+47, "m i", "%.0f min", s.To.Sub(s.From).Minutes())
			}
		}
	}
	c.check(t, "clock-change.svg")
}

// The target while a broker is away for twelve minutes.
func TestPictureOfAnOutage(t *testing.T) {
	const (
		left, right, top, bottom = 44.0, 870.0, 66.0, 250.0
		minutes, highest         = 20.0, 32.0
		away, back               = 4.0, 16.0
	)
	limits := calendar.Limits{Period: "workday", MinReplicas: 5, MaxReplicas: 200}
	rules := sizing.Parameters{MessagesPerReplica: 1, HoldFor: 5 * time.Minute}
	c := newCanvas(306, "The target before, during and after twelve minutes without the broker")
	c.text(14, 22, "h", "The broker is away for twelve minutes (holdFor 5m, a floor of 5)")
	at := func(minute, value float64) point {
		return point{left + minute/minutes*(right-left), bottom - value/highest*(bottom-top)}
	}
	c.rect(at(away, 0).x, top-8, at(back, 0).x-at(away, 0).x, bottom-top+8, "p")
	c.text(at((away+back)/2, 0).x, top+8, "s m", "the broker does not answer")
	for v := 0.0; v <= 30; v += 10 {
		y := at(0, v).y
		c.line(left, y, right, y, "grid")
		c.text(left-8, y+4, "s e", "%.0f", v)
	}
	for m := 0.0; m <= minutes; m += 2 {
		c.text(at(m, 0).x, bottom+18, "s m", "%.0f min", m)
	}
	origin := time.Unix(0, 0)
	var last sizing.Observation
	var targets, work []point
	var constraints []sizing.Constraint
	for minute := 0.0; minute <= minutes; minute += 1.0 / 12 {
		demand := int64(14 + 8*math.Sin(minute/2.6))
		now := origin.Add(time.Duration(minute * float64(time.Minute)))
		var failure error
		if minute >= away && minute < back {
			failure = context.DeadlineExceeded
		} else {
			last = sizing.Observation{Time: now, Ready: demand / 3, Consumers: demand - demand/3}
		}
		d := sizing.Decide(now, last, failure, limits, rules, 0)
		targets = append(targets, at(minute, float64(d.Target)))
		work = append(work, at(minute, float64(demand)))
		if n := len(constraints); n == 0 || constraints[n-1] != d.Constraint {
			constraints = append(constraints, d.Constraint)
			c.text(at(minute, 0).x+4, bottom+38, "s", "%s", d.Constraint)
			c.line(at(minute, 0).x, top-8, at(minute, 0).x, bottom+42, "grid")
		}
	}
	c.curve(work, true, "lg dash")
	c.curve(targets, true, "la")
	c.line(46, 42, 70, 42, "l la")
	c.text(76, 46, "s", "target")
	c.line(146, 42, 170, 42, "l lg dash")
	c.text(176, 46, "s", "what the messages would ask for")
	if got, want := fmt.Sprint(constraints), "[backlog hold outage backlog]"; got != want {
		t.Errorf("constraints %s, want %s", got, want)
	}
	c.check(t, "outage.svg")
}

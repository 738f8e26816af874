package main

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// officeZone is where the office weeks are.
const officeZone = "Europe/Prague"

func loads(weeks int, only string, traces []string) ([]load, error) {
	zone, err := calendar.LoadZone(officeZone)
	if err != nil {
		return nil, err
	}
	office := func(seed uint64) simulator.Trace {
		return simulator.Weeks(rand.New(rand.NewPCG(seed, 0)), weeks, 2000, zone)
	}
	list := []load{
		{"a burst that ebbs", false, func(seed uint64) simulator.Trace { return simulator.Trace{Jobs: ebb(rand.New(rand.NewPCG(seed, 0)))} }},
		{"office weeks (1 queue)", false, office},
		{"office weeks (5 queues)", true, office},
	}
	for _, text := range traces {
		l, err := recorded(text)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	if only != "" {
		names := strings.Split(only, ",")
		list = slices.DeleteFunc(list, func(l load) bool { return !slices.Contains(names, l.name) })
	}
	return list, nil
}

// recorded is the load of a flag -trace. Seeds change the copies; without them, only what else is left to chance.
func recorded(text string) (load, error) {
	name, path, ok := strings.Cut(text, "=")
	if !ok {
		return load{}, fmt.Errorf("-trace %s: want NAME=FILE or NAME*N=FILE", text)
	}
	copies := 1
	if _, times, found := strings.Cut(name, "*"); found {
		var err error
		if copies, err = strconv.Atoi(times); err != nil || copies < 1 {
			return load{}, fmt.Errorf("-trace %s: want NAME=FILE or NAME*N=FILE", text)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return load{}, err
	}
	trace, err := simulator.ReadCSV(file)
	_ = file.Close() // it was only read
	if err != nil {
		return load{}, fmt.Errorf("%s: %w", path, err)
	}
	sizesByClass(trace.Jobs)
	return load{name, true, func(seed uint64) simulator.Trace {
		if copies == 1 {
			return trace
		}
		random := rand.New(rand.NewPCG(seed, 77))
		t := simulator.Trace{Origin: trace.Origin}
		for _, j := range trace.Jobs {
			for range copies {
				other := j
				other.Start += time.Duration(random.Float64() * float64(time.Hour))
				t.Jobs = append(t.Jobs, other)
			}
		}
		return t.Sorted()
	}}, nil
}

// sizesByClass gives jobs whose record does not say requests, so that all are alike, half a core to four by their class.
func sizesByClass(jobs []simulator.Job) {
	if slices.ContainsFunc(jobs, func(j simulator.Job) bool { return j.Requests != jobs[0].Requests }) {
		return
	}
	for i := range jobs {
		h := fnv.New32a()
		_, _ = h.Write([]byte(jobs[i].Class)) // it never fails
		cpu := []int64{500, 1000, 2000, 4000}[h.Sum32()>>7%4]
		jobs[i].Requests = packing.Amounts{cpu, cpu * 2 << 20, 0, 1}
	}
}

// ebb is a burst within a minute, and then fewer and fewer scans for half an hour. They take a minute in the median.
func ebb(random *rand.Rand) []simulator.Job {
	const messages, burst, fades = 600, 60.0, 480.0
	jobs := make([]simulator.Job, messages)
	for i := range jobs {
		at := burst * random.Float64()
		if i >= messages/3 {
			at = burst + min(4*fades, fades*random.ExpFloat64())
		}
		seconds := min(600, max(5, 60*math.Exp(0.8*random.NormFloat64())))
		jobs[i] = simulator.Job{
			Start: time.Duration(at * float64(time.Second)), Run: time.Duration(seconds * float64(time.Second)), Class: "scan",
			Requests: packing.Amounts{1000, 2 << 30, 0, 1},
		}
	}
	slices.SortFunc(jobs, func(a, b simulator.Job) int { return int(a.Start - b.Start) })
	return jobs
}

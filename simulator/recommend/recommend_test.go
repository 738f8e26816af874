package recommend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

func options(t *testing.T) Options {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	s := simulator.Defaults()
	s.Worker.IdleTimeout = 15 * time.Minute
	return Options{Zone: zone, Wait: 10 * time.Second, MaxReplicas: 200, System: s}
}

// Four weeks of people at work: floors are high in their hours and low at night and at weekends, and on the weeks that were not learned from
// they beat a static floor of the same price.
func TestLearn(t *testing.T) {
	o := options(t)
	trace := simulator.Weeks(rand.New(rand.NewPCG(3, 3)), 4, 2500, o.Zone)
	r, err := Learn(trace, o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.BeatsStatic || r.Rhythm < 0.8 || len(r.Backtest) != 3 {
		t.Errorf("beats a static floor: %v, rhythm %.2f, %d trials", r.BeatsStatic, r.Rhythm, len(r.Backtest))
	}
	limits, errs := policy.CompileCalendar(r.Calendar, nil, o.MaxReplicas, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	at := func(day, hour int) int32 {
		return limits.Limits(time.Date(2026, 3, day, hour, 0, 0, 0, o.Zone)).MinReplicas
	}
	if noon, night, sunday := at(4, 10), at(4, 3), at(8, 10); noon < 10 || night > noon/4 || sunday > noon/4 {
		t.Errorf("floors: %d at ten, %d at three in the night, %d on Sunday", noon, night, sunday)
	}
	if len(r.Calendar.Periods) != len(r.Floors) || len(r.Floors) > 2*mostPeriods {
		t.Errorf("%d periods, %d explained", len(r.Calendar.Periods), len(r.Floors))
	}
	for _, f := range r.Floors {
		if f.Highest < f.Median || f.Quarters == 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestLearnRefuses(t *testing.T) {
	o := options(t)
	trace := simulator.Weeks(rand.New(rand.NewPCG(3, 3)), 1, 500, o.Zone)
	if _, err := Learn(trace, o); !errors.Is(err, errShort) {
		t.Errorf("one week: error %v", err)
	}
	random := rand.New(rand.NewPCG(1, 1))
	noise := simulator.Trace{Origin: trace.Origin}
	for at := time.Duration(0); at < 28*24*time.Hour; at += time.Duration(random.ExpFloat64() * float64(3*time.Minute)) {
		noise.Jobs = append(noise.Jobs, simulator.Job{Start: at, Run: 2 * time.Minute, Requests: trace.Jobs[0].Requests})
	}
	if _, err := Learn(noise, o); !errors.Is(err, errNoRhythm) {
		t.Errorf("noise: error %v", err)
	}
}

// A holiday says nothing of its day of the week.
func TestHolidaysAreLeftOut(t *testing.T) {
	day := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	samples := []sample{{day, 0}, {day.AddDate(0, 0, 7), 8}, {day.AddDate(0, 0, 14), 8}}
	p := newProfile(samples, func(at time.Time) bool { return at.Equal(day) })
	if got := p.floors(0.25, 100)[slot(day)]; got != 8 {
		t.Errorf("floor %d, want 8", got)
	}
}

// Neighbours become one where that costs least, and no quarter of an hour gets less than it had.
func TestSegments(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		var day [96]int32
		for i := range day {
			day[i] = int32(random.IntN(6))
		}
		all := segments(day)
		next := 0
		for _, s := range all {
			if s.from != next || s.to <= s.from {
				t.Fatalf("segments %v", all)
			}
			for i := s.from; i < s.to; i++ {
				if day[i] > s.floor {
					t.Fatalf("quarter %d has a floor of %d, was %d", i, s.floor, day[i])
				}
			}
			next = s.to
		}
		if next != 96 || len(all) > 2*mostPeriods+1 {
			t.Fatalf("segments %v", all)
		}
	}
}

func TestDemand(t *testing.T) {
	origin := time.Date(2026, 3, 2, 9, 10, 0, 0, time.UTC)
	trace := simulator.Trace{Origin: origin, Jobs: []simulator.Job{
		{Start: 0, Run: 10 * time.Minute}, {Start: time.Minute, Run: time.Minute}, {Start: 40 * time.Minute, Run: time.Minute},
	}}
	want := []float64{2, 1, 0, 1}
	got := demand(trace, time.UTC)
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i, s := range got {
		if s.demand != want[i] || !s.at.Equal(origin.Truncate(quarter).Add(time.Duration(i)*quarter)) {
			t.Errorf("quarter %d: %v, want %v", i, s, want[i])
		}
	}
}

// The days on which people work are found, whichever those are.
func TestGroups(t *testing.T) {
	for name, tc := range map[string]struct {
		busy map[time.Weekday]float64
		want string
	}{
		"Monday to Friday":       {map[time.Weekday]float64{1: 10, 2: 12, 3: 9, 4: 11, 5: 8, 6: 0.5, 0: 0.2}, "[weekday [Mon-Fri]] [weekend [Sat-Sun]]"},
		"Sunday to Thursday":     {map[time.Weekday]float64{0: 10, 1: 12, 2: 9, 3: 11, 4: 8, 5: 0, 6: 1}, "[weekday [Sun-Thu]] [weekend [Fri-Sat]]"},
		"Tuesday and Friday off": {map[time.Weekday]float64{1: 9, 3: 9, 4: 9, 6: 9, 0: 9}, "[weekday [Wed-Thu Sat-Mon]] [weekend [Tue Fri]]"},
		"one day only":           {map[time.Weekday]float64{3: 9}, "[weekday [Wed]] [weekend [Thu-Tue]]"},
		"all alike":              {map[time.Weekday]float64{0: 10, 1: 12, 2: 9, 3: 11, 4: 8, 5: 9, 6: 10}, "[day []]"},
		"nothing":                {nil, "[day []]"},
	} {
		var samples []sample
		for at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 3, 16, 0, 0, 0, 0, time.UTC)); at = at.Add(quarter) {
			samples = append(samples, sample{at, tc.busy[at.Weekday()]})
		}
		var got []string
		for _, g := range newProfile(samples, nil).groups() {
			got = append(got, fmt.Sprint([]any{g.name, g.names()}))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, " "), tc.want)
		}
	}
}

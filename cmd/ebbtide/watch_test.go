package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

// Replicas are replaced while their decisions are followed: the follower looks for the new ones, and shows each decision once.
func TestFollowerSurvivesReplacedPods(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	took := func(after time.Duration, ready int64) decision.View {
		return decision.View{Time: now.Add(after), Namespace: "scan", Policy: "scans", Ready: ready}
	}
	pods := map[string][]decision.View{
		"a": {took(0, 1), took(2*time.Second, 2)},
		"b": {took(100*time.Millisecond, 1), took(2100*time.Millisecond, 3)}, // the first one is a's
	}
	var warnings strings.Builder
	f := follower{
		reach: func(context.Context) (found []string, err error) {
			for _, name := range []string{"a", "b", "c"} {
				if pods[name] != nil {
					found = append(found, name)
				}
			}
			if found == nil {
				return nil, errors.New("no pod")
			}
			return found, nil
		},
		list: func(_ context.Context, addresses []string) (all []decision.View, err error) {
			for _, address := range addresses {
				if pods[address] == nil {
					return nil, errors.New("connection refused")
				}
				all = append(all, pods[address]...)
			}
			sortByTime(all)
			return all, nil
		},
		now: func() time.Time { return now }, warn: &warnings,
	}
	next := func(want ...int64) {
		t.Helper()
		list, err := f.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := []int64{}
		for _, d := range list {
			got = append(got, d.Ready)
		}
		if diff := cmp.Diff(append([]int64{}, want...), got); diff != "" {
			t.Errorf("decisions by what was ready (-want +got):\n%s", diff)
		}
	}
	next(1, 2, 3)
	next()
	pods = map[string][]decision.View{"b": pods["b"]}
	next() // a is gone
	next() // b is found again, and has nothing new
	pods = map[string][]decision.View{}
	next()
	next()
	pods = map[string][]decision.View{"c": {took(10*time.Second, 4)}}
	next(4)
	pods["c"] = append(pods["c"], took(11*time.Second, 4)) // the same, at the next poll
	next(4)
	now = now.Add(lookAgainAfter + time.Second)
	pods["a"] = []decision.View{took(-time.Second, 5)} // a new one beside c
	next(5)
	if got := strings.Count(warnings.String(), "\n"); got != 4 {
		t.Errorf("warnings, want one for each absence and one for its end:\n%s", &warnings)
	}
}

func TestFollowerNeedsAScaler(t *testing.T) {
	f := follower{reach: func(context.Context) ([]string, error) { return nil, errors.New("no pod") }, now: time.Now}
	if _, err := f.next(t.Context()); err == nil {
		t.Error("no scaler: no error")
	}
}

func TestColumns(t *testing.T) {
	var out strings.Builder
	c := columns{w: &out}
	c.row("A", "B", "REASON")
	c.row("long", "é", "why")
	c.flush()
	c.row("x", "wide", "a\nb")
	c.flush()
	if want := "A     B  REASON\nlong  é  why\nx     wide  a\\nb\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

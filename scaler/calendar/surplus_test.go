package calendar

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func TestParseSurplus(t *testing.T) {
	for text, want := range map[string]Surplus{
		"0": {}, "3": {Replicas: 3}, "100000": {Replicas: 100_000}, "0%": {}, "30%": {Percent: 30}, "1000%": {Percent: 1000},
	} {
		if got, err := ParseSurplus(text); err != nil || got != want {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "-1", "-1%", "+1", "01", "1.5", "30 %", "30%%", "100001", "1001%", "99999999999999999999", "many", "\u0663"} {
		if got, err := ParseSurplus(text); err == nil || !strings.Contains(err.Error(), "from 0 to 100000, or a percentage from \"0%\" to \"1000%\"") {
			t.Errorf("%q is %+v (%v), want an error that says what is allowed", text, got, err)
		}
	}
}

// Text is what was read, and Of is none where nothing waits, monotone, rounded down and never overflows.
func TestSurplusOf(t *testing.T) {
	for _, tc := range []struct {
		surplus       Surplus
		waiting, want int64
	}{
		{Surplus{}, 100, 0},
		{Surplus{Replicas: 2}, 0, 0},
		{Surplus{Replicas: 2}, 1, 2},
		{Surplus{Percent: 30}, 3, 0}, // 0.9
		{Surplus{Percent: 30}, 4, 1}, // 1.2
		{Surplus{Percent: 250}, 3, 7},
		{Surplus{Replicas: 5, Percent: 30}, 10, 5},
		{Surplus{Replicas: 5, Percent: 30}, 20, 6},
	} {
		if got := tc.surplus.Of(tc.waiting); got != tc.want {
			t.Errorf("%s of %d is %d, want %d", tc.surplus, tc.waiting, got, tc.want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		s := Surplus{Replicas: random.Int32N(MaxSurplusReplicas + 1)}
		if random.IntN(2) == 0 {
			s = Surplus{Percent: random.Int32N(MaxSurplusPercent + 1)}
		}
		if again, err := ParseSurplus(s.String()); err != nil || again != s {
			t.Fatalf("%s is read as %+v (%v)", s, again, err)
		}
		waiting := random.Int64N(1 << random.IntN(63))
		if waiting == 0 && s.Of(waiting) != 0 {
			t.Fatalf("%s of nothing is %d", s, s.Of(0))
		}
		more := s.merge(Surplus{Percent: 10})
		if a, b := s.Of(waiting), s.Of(waiting+1); a < 0 || b < a || more.Of(waiting) < a || s.Of(math.MaxInt64) < b {
			t.Fatalf("%s of %d is %d, and of one more %d", s, waiting, a, b)
		}
	}
}

func TestSurplusByPeriod(t *testing.T) {
	c := compile(t, &Spec{
		Default: Bounds{Surplus: "10%"},
		Periods: []Period{
			{Name: "work", Days: []string{"Mon-Fri"}, Hours: Hours{From: "07:00", To: "19:00"}, Bounds: Bounds{Surplus: "30%"}},
			{Name: "late", Days: []string{"Mon"}, Hours: Hours{From: "18:00", To: "20:00"}, Bounds: Bounds{Surplus: "2"}},
			{Name: "night", Days: []string{"Mon"}, Hours: Hours{From: "21:00", To: "22:00"}, Bounds: Bounds{Surplus: "0"}},
			{Name: "silent", Days: []string{"Mon"}, Hours: Hours{From: "22:00", To: "23:00"}, Bounds: floor(1)},
		},
		Exceptions: []Exception{{Name: "launch", From: "2026-11-27", SpecialDay: SpecialDay{Bounds: &Bounds{Surplus: "1"}}}},
	})
	for at, want := range map[string]Surplus{
		"2026-11-23T06:00:00Z": {Percent: 10},
		"2026-11-23T07:00:00Z": {Percent: 30},
		"2026-11-23T18:30:00Z": {Percent: 30, Replicas: 2},
		"2026-11-23T19:30:00Z": {Replicas: 2},
		"2026-11-23T21:30:00Z": {},
		"2026-11-23T22:30:00Z": {Percent: 10},
		"2026-11-27T12:00:00Z": {Replicas: 1},
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.Limits(instant).Surplus); diff != "" {
			t.Errorf("at %s (-want +got):\n%s", at, diff)
		}
	}
}

func TestSurplusIsChecked(t *testing.T) {
	spec := workweek()
	spec.Default.Surplus = "-1"
	spec.Periods[0].Bounds.Surplus = "1001%"
	spec.Exceptions[1].Bounds = &Bounds{MaxReplicas: ptr.To[int32](2), Surplus: "x"}
	_, errs := New(spec, maxReplicas, field.NewPath("calendar"))
	var fields []string
	for _, err := range errs {
		fields = append(fields, err.Field)
	}
	want := []string{"calendar.default.surplus", "calendar.periods[0].limits.surplus", "calendar.exceptions[1].limits.surplus"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

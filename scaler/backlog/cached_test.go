package backlog

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFresh(t *testing.T) {
	now := time.Unix(100, 0)
	reads, failure := 0, error(nil)
	limits := SampleBounds{Timeout: time.Second, Now: func() time.Time { return now }}
	fresh := NewCached(limits, func(context.Context) (int, error) { reads++; return reads, failure })
	get := func() int {
		t.Helper()
		value, err := fresh.Get(t.Context(), time.Minute)
		if !errors.Is(err, failure) {
			t.Fatal(err)
		}
		return value
	}
	get()
	if get() != 1 {
		t.Errorf("%d readings of a fresh value", reads)
	}
	now = now.Add(time.Minute)
	if get() != 2 {
		t.Error("a value of the maximum age was not read again")
	}
	now = now.Add(-time.Hour)
	if get() != 3 {
		t.Error("a value from the future, as after a clock was put back, was not read again")
	}
	now, failure = now.Add(time.Hour), errors.New("away")
	get()
	get()
	if reads != 5 {
		t.Errorf("%d readings: a failure must not be kept", reads)
	}
}

// Any number of callers share one reading; one that gives up does not end it for the others; a reading is bounded.
func TestFreshShares(t *testing.T) {
	var reads atomic.Int64
	release := make(chan struct{})
	limits := SampleBounds{Timeout: 10 * time.Second, Now: time.Now}
	fresh := NewCached(limits, func(ctx context.Context) (int64, error) {
		n := reads.Add(1)
		select {
		case <-release:
			return n, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
	hasty, giveUp := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := fresh.Get(hasty, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v of a caller that gave up", err)
		}
	})
	for reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	giveUp()
	for range 50 {
		wait.Go(func() {
			if value, err := fresh.Get(t.Context(), time.Minute); value != 1 || err != nil {
				t.Errorf("%d, %v; want the first reading", value, err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	close(release)
	wait.Wait()

	stuck := NewCached(SampleBounds{Timeout: 20 * time.Millisecond, Now: time.Now}, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	if _, err := stuck.Get(t.Context(), time.Minute); err == nil || err.Error() != "no answer within 20ms" {
		t.Errorf("error %v", err)
	}
}

// However many ask once a second, the broker is asked as often as for one, and about once a second.
func TestFreshCostIsFlat(t *testing.T) {
	const maxAge, seconds = 900 * time.Millisecond, 60
	for _, pollers := range []int{1, 2, 3, 4, 8, 50} {
		synctest.Test(t, func(t *testing.T) {
			reads := 0
			fresh := NewCached(SampleBounds{Timeout: time.Second, Now: time.Now}, func(context.Context) (int, error) {
				reads++
				time.Sleep(time.Millisecond)
				return 0, nil
			})
			var polls sync.WaitGroup
			for i := range pollers {
				polls.Go(func() {
					time.Sleep(time.Duration(i) * time.Second / time.Duration(pollers))
					for range seconds {
						if _, err := fresh.Get(t.Context(), maxAge); err != nil {
							t.Error(err)
						}
						time.Sleep(time.Second)
					}
				})
			}
			polls.Wait()
			if reads < seconds || float64(reads) > seconds/maxAge.Seconds()+1 {
				t.Errorf("%d readings in %d s for %d pollers", reads, seconds, pollers)
			}
		})
	}
}

// Who can do with an older value waits for none while a newer one is read.
func TestFreshRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		fresh := NewCached(SampleBounds{Timeout: time.Minute, Now: time.Now}, func(context.Context) (int, error) {
			reads++
			time.Sleep(100 * time.Millisecond)
			return reads, nil
		})
		for _, step := range []struct {
			sleep, wantWait time.Duration
			want            int
		}{
			{0, 100 * time.Millisecond, 1},           // there is none yet
			{500 * time.Millisecond, 0, 1},           // fresh
			{500 * time.Millisecond, 0, 1},           // past its age: read again meanwhile
			{50 * time.Millisecond, 0, 1},            // still being read
			{60 * time.Millisecond, 0, 2},            // newer
			{time.Minute, 100 * time.Millisecond, 3}, // too old to do with
		} {
			time.Sleep(step.sleep)
			begin := time.Now()
			got, err := fresh.Recent(t.Context(), time.Second, 5*time.Second)
			if wait := time.Since(begin); got != step.want || err != nil || wait != step.wantWait {
				t.Errorf("after %s: %d, %v after %s; want %d after %s", step.sleep, got, err, wait, step.want, step.wantWait)
			}
		}
	})
}

package simulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Default requests of a job whose trace does not say: one CPU, 2 GiB.
const (
	defaultMilliCPU = 1000
	defaultMiB      = 2048
)

// DefaultRequests are those of a job whose trace does not say, one CPU and 2 GiB; it has RequestsAssumed then.
func DefaultRequests() packing.Amounts { return requests(defaultMilliCPU, defaultMiB) }

// requests of a job: millicores, bytes, no ephemeral storage, one pod.
func requests(milliCPU, memoryMiB int64) packing.Amounts {
	return packing.Amounts{milliCPU, memoryMiB << 20, 0, 1}
}

// HeavyTailed is a day and a half of jobs that come in waves of a quarter of an hour, and run for a minute and a half in the
// median and for hours at the tail: lognormal of sigma 1.7. Classes differ in their median.
func HeavyTailed(random *rand.Rand) []Job {
	return waves(random, 0.1, 8, func(class int) (string, float64) {
		return fmt.Sprintf("class-%d", class), 90 * math.Exp(0.8*(float64(class)-3.5)/3.5+1.65*random.NormFloat64())
	})
}

// TwoQueues makes a load of a day and a half of jobs of two classes, with medians of 30 s and 15 min and lognormal of a sigma inside each. The
// greater sigma is, the less a class says: between the classes run times look predictable where inside them they are not.
func TwoQueues(sigma float64) func(*rand.Rand) []Job {
	return func(random *rand.Rand) []Job {
		return waves(random, 0.08, 2, func(class int) (string, float64) {
			return fmt.Sprintf("queue-%d", class), []float64{30, 900}[class] * math.Exp(sigma*random.NormFloat64())
		})
	}
}

// waves is a day and a half of jobs of some classes, at a rate a second that differs by the quarter of an hour. How long one of a class runs, in
// seconds, and what the class is called, is left to the caller.
func waves(random *rand.Rand, rate float64, classes int, draw func(class int) (name string, run float64)) []Job {
	const length, wave = 36 * time.Hour, 15 * time.Minute
	var jobs []Job
	for begin := time.Duration(0); begin < length; begin += wave {
		now := rate * math.Exp(0.7*random.NormFloat64())
		for at := begin; ; {
			if at += seconds(random.ExpFloat64() / now); at >= begin+wave {
				break
			}
			name, run := draw(random.IntN(classes))
			jobs = append(jobs, Job{
				Start: at, Run: seconds(min(run, 8*3600)), Class: name,
				Requests: requests(500*(1+random.Int64N(4)), 1024*(1+random.Int64N(4))),
			})
		}
	}
	return jobs
}

// Bursty is half a day of bursts of up to 400 short tasks with quiet between them.
func Bursty(random *rand.Rand) []Job {
	var jobs []Job
	for at := time.Duration(0); at < 12*time.Hour; at += seconds(300 + 600*random.Float64()) {
		for range 50 + random.IntN(350) {
			jobs = append(jobs, Job{
				Start: at + seconds(20*random.Float64()), Run: seconds(15 + 20*random.ExpFloat64()), Class: "task",
				Requests: requests(1000, 2048),
			})
		}
	}
	slices.SortFunc(jobs, func(a, b Job) int { return int(a.Start - b.Start) })
	return jobs
}

// Weeks is the load of a service that people use: by weekday, from eight to eight, jobs come with a rush in the morning and one after
// noon, the days unlike each other, and now and then a burst of up to a hundred at once; at night and at weekends hardly any come. Run
// times are lognormal of sigma 1.2 around a median that differs by class.
func Weeks(random *rand.Rand, weeks int, perDay float64, zone *time.Location) Trace {
	origin := time.Date(2026, 3, 2, 0, 0, 0, 0, zone) // a Monday
	var jobs []Job
	add := func(at time.Time) {
		class := random.IntN(5)
		jobs = append(jobs, Job{
			Start: at.Sub(Epoch), Run: seconds(min(4*3600, 25*math.Exp(0.5*float64(class)+1.2*random.NormFloat64()))),
			Class: fmt.Sprintf("scan-%d", class), Requests: requests(1000, defaultMiB),
		})
	}
	for day := range 7 * weeks {
		date := origin.AddDate(0, 0, day)
		weekend := date.Weekday() == time.Saturday || date.Weekday() == time.Sunday
		busy := perDay * math.Exp(0.25*random.NormFloat64())
		for quarter := range 96 {
			hour := float64(quarter) / 4
			rate := 0.03 / 24 // a quiet hour's share of a day
			if !weekend && hour >= 7 && hour < 20 {
				morning, noon := (hour-10)/1.6, (hour-14.5)/2
				rate += 0.14*math.Exp(-morning*morning) + 0.12*math.Exp(-noon*noon)
			}
			expected := busy * rate / 4
			begin := time.Date(date.Year(), date.Month(), date.Day(), quarter/4, quarter%4*15, 0, 0, zone)
			for at := random.ExpFloat64() / expected; at < 1; at += random.ExpFloat64() / expected {
				add(begin.Add(seconds(900 * at)))
			}
			if rate > 0.05 && random.IntN(12) == 0 {
				for range 10 + random.IntN(90) {
					add(begin.Add(seconds(30 * random.Float64())))
				}
			}
		}
	}
	return newTrace(jobs)
}

// Predictions are the ways in which State states run times.
func Predictions() []string { return []string{"exact", "noisy", "absent", "reversed", "liars"} }

// State is a copy of jobs that state their run times: exact; noisy by a lognormal factor of sigma 0.7; absent; reversed, the long ones as
// short and the short ones as long; or liars, half of them exact and half of them sixty times too long.
func State(jobs []Job, prediction string, random *rand.Rand) ([]Job, error) {
	stated := slices.Clone(jobs)
	longest := time.Duration(0)
	for _, job := range jobs {
		longest = max(longest, job.Run)
	}
	for i := range stated {
		job := &stated[i]
		switch prediction {
		case "exact":
			job.Stated = job.Run
		case "noisy":
			job.Stated = time.Duration(float64(job.Run) * math.Exp(0.7*random.NormFloat64()))
		case "absent":
			job.Stated = 0
		case "reversed":
			job.Stated = seconds(longest.Seconds() / max(1, job.Run.Seconds()))
		case "liars":
			if job.Stated = job.Run; random.IntN(2) == 0 {
				job.Stated = 60 * job.Run
			}
		default:
			return nil, fmt.Errorf("predictions %q are not known: one of %v", prediction, Predictions())
		}
	}
	return stated, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

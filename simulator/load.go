package simulator

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Default requests of a job whose trace does not say: one CPU, 2 GiB.
const (
	defaultMilliCPU = 1000
	defaultMiB      = 2048
)

// requests of a job: millicores, bytes, no ephemeral storage, one pod.
func requests(milliCPU, memoryMiB int64) packing.Amounts {
	return packing.Amounts{milliCPU, memoryMiB << 20, 0, 1}
}

// HeavyTailed is a day and a half of jobs that come in waves of a quarter of an hour, and run for a minute and a half in the
// median and for hours at the tail: lognormal of sigma 1.7. Classes differ in their median.
func HeavyTailed(random *rand.Rand) []Job {
	const length, wave = 36 * time.Hour, 15 * time.Minute
	var jobs []Job
	for begin := time.Duration(0); begin < length; begin += wave {
		rate := 0.1 * math.Exp(0.7*random.NormFloat64()) // per second
		for at := begin; ; {
			if at += seconds(random.ExpFloat64() / rate); at >= begin+wave {
				break
			}
			class := random.IntN(8)
			run := 90 * math.Exp(0.8*(float64(class)-3.5)/3.5+1.65*random.NormFloat64())
			jobs = append(jobs, Job{
				Start: at, Run: seconds(min(run, 8*3600)), Class: fmt.Sprintf("class-%d", class),
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

// Predictions are the ways in which State states run times.
func Predictions() []string { return []string{"exact", "noisy", "absent", "reversed"} }

// State is a copy of jobs that state their run times: exact; noisy by a lognormal factor of sigma 0.7; absent; or reversed,
// the long ones as short and the short ones as long.
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
		default:
			return nil, fmt.Errorf("predictions %q are not known: one of %v", prediction, Predictions())
		}
	}
	return stated, nil
}

// ReadCSV reads a trace of start,seconds,class[,milliCPU,memoryMiB], with or without a header; start in RFC 3339 or seconds.
// Jobs are in the order of their start, the first at the Epoch. An error names the line and the field.
func ReadCSV(from io.Reader) ([]Job, error) {
	reader := csv.NewReader(from)
	reader.FieldsPerRecord, reader.TrimLeadingSpace = -1, true
	var jobs []Job
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := reader.FieldPos(0)
		if line == 1 && record[0] == "start" {
			continue
		}
		job, err := parseJob(record)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return nil, errors.New("the trace has no jobs: want lines of start,seconds,class[,milliCPU,memoryMiB]")
	}
	slices.SortStableFunc(jobs, func(a, b Job) int { return int(a.Start - b.Start) })
	first := jobs[0].Start
	for i := range jobs {
		jobs[i].Start -= first
	}
	return jobs, nil
}

func parseJob(record []string) (Job, error) {
	if len(record) < 3 || len(record) > 5 {
		return Job{}, fmt.Errorf("%d fields, want start,seconds,class[,milliCPU,memoryMiB]", len(record))
	}
	start, err := parseStart(record[0])
	if err != nil {
		return Job{}, err
	}
	run, err := strconv.ParseFloat(record[1], 64)
	if err != nil || !(run >= 0 && run <= 1e9) {
		return Job{}, fmt.Errorf("seconds is %q, want a number from 0 to 1e9", record[1])
	}
	amounts := [2]int64{defaultMilliCPU, defaultMiB}
	for i, field := range record[3:] {
		name := [...]string{"milliCPU", "memoryMiB"}[i]
		if amounts[i], err = strconv.ParseInt(field, 10, 40); err != nil || amounts[i] < 0 {
			return Job{}, fmt.Errorf("%s is %q, want a whole number of at least 0", name, field)
		}
	}
	return Job{Start: start, Run: seconds(run), Class: record[2], Requests: requests(amounts[0], amounts[1])}, nil
}

func parseStart(text string) (time.Duration, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.Sub(Epoch), nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(s) < 9e9) {
		return 0, fmt.Errorf("start is %q, want an instant in RFC 3339 (2026-03-02T09:00:00Z) or seconds", text)
	}
	return seconds(s), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

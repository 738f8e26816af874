package simulator

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Trace is a load that was recorded.
type Trace struct {
	// Origin is the instant of the first job; the Epoch when the trace does not say.
	Origin time.Time
	// Jobs in the order of their start, the first at 0.
	Jobs []Job
}

// newTrace makes a trace of jobs whose starts count from the Epoch. There is at least one.
func newTrace(jobs []Job) Trace {
	slices.SortStableFunc(jobs, func(a, b Job) int { return int(a.Start - b.Start) })
	first := jobs[0].Start
	for i := range jobs {
		jobs[i].Start -= first
	}
	return Trace{Origin: Epoch.Add(first), Jobs: jobs}
}

// Until is the part of the trace before an instant, and After the rest. Either may have no jobs.
func (t Trace) Until(at time.Time) Trace {
	n, _ := slices.BinarySearchFunc(t.Jobs, at.Sub(t.Origin), func(j Job, at time.Duration) int { return int(j.Start - at) })
	return Trace{t.Origin, t.Jobs[:n]}
}

// After is the part of the trace from an instant on.
func (t Trace) After(at time.Time) Trace {
	jobs := slices.Clone(t.Jobs[len(t.Until(at).Jobs):])
	shift := at.Sub(t.Origin)
	for i := range jobs {
		jobs[i].Start -= shift
	}
	return Trace{at, jobs}
}

// ReadCSV reads a trace of start,seconds,class[,milliCPU,memoryMiB], with or without a header; start in RFC 3339 or seconds.
// An error names the line and the field.
func ReadCSV(from io.Reader) (Trace, error) {
	reader := csv.NewReader(from)
	reader.FieldsPerRecord, reader.TrimLeadingSpace = -1, true
	var jobs []Job
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, err
		}
		line, _ := reader.FieldPos(0)
		if line == 1 && record[0] == "start" {
			continue
		}
		job, err := parseJob(record)
		if err != nil {
			return Trace{}, fmt.Errorf("line %d: %w", line, err)
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return Trace{}, errors.New("the trace has no jobs: want lines of start,seconds,class[,milliCPU,memoryMiB]")
	}
	return newTrace(jobs), nil
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

// ReadSWF reads a trace in the Standard Workload Format of the Parallel Workloads Archive: a job's submit time, its run time, the
// processors that it was given and its queue as its class. Jobs that never ran are left out. An error names the line.
func ReadSWF(from io.Reader) (Trace, error) {
	const submit, run, processors, class = 1, 3, 4, 14
	var jobs []Job
	var origin float64
	scanner := bufio.NewScanner(from)
	for line := 1; scanner.Scan(); line++ {
		text := strings.TrimSpace(scanner.Text())
		if comment, ok := strings.CutPrefix(text, ";"); ok {
			if value, ok := strings.CutPrefix(strings.TrimSpace(comment), "UnixStartTime:"); ok {
				if s, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
					origin = s
				}
			}
			continue
		}
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 18 {
			return Trace{}, fmt.Errorf("line %d: %d fields, want the 18 of the Standard Workload Format", line, len(fields))
		}
		var numbers [5]float64
		for _, i := range []int{submit, run, processors} {
			var err error
			if numbers[i], err = strconv.ParseFloat(fields[i], 64); err != nil {
				return Trace{}, fmt.Errorf("line %d: field %d is %q, want a number", line, i+1, fields[i])
			}
		}
		if numbers[run] < 0 {
			continue
		}
		jobs = append(jobs, Job{
			Start: seconds(origin + numbers[submit]), Run: seconds(numbers[run]), Class: fields[class],
			Requests: requests(1000*int64(max(1, numbers[processors])), defaultMiB),
		})
	}
	if err := scanner.Err(); err != nil {
		return Trace{}, err
	}
	if len(jobs) == 0 {
		return Trace{}, errors.New("the trace has no jobs that ran")
	}
	return newTrace(jobs), nil
}

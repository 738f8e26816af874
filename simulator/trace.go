package simulator

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
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

// columns of a trace in CSV; the first three must be there, but arrival may stand for start. Those from arrival on need a header.
var columns = []string{"start", "seconds", "class", "milliCPU", "memoryMiB", "arrival", "usedMilliCPU", "usedMemoryMiB", "outOfMemory"}

const wantColumns = "start,seconds,class[,milliCPU,memoryMiB]"

// ReadCSV is ReadCSVIn with instants in UTC where they name no zone.
func ReadCSV(from io.Reader) (Trace, error) { return ReadCSVIn(from, time.UTC) }

// ReadCSVIn reads a trace of start,seconds,class[,milliCPU,memoryMiB]. A header may name more columns: arrival is when the message came, where that
// is known beside the start of its work; usedMilliCPU in the mean and usedMemoryMiB at most are what the job used, and outOfMemory is true for one
// that ran out of memory. Start is an instant in RFC 3339, a number of seconds, or a date with
// a time as spreadsheets write them, in the zone. With a header, whose names may be in any case, columns may come in any order. Spreadsheets'
// byte order marks, semicolons or tabs between fields, decimal commas and empty rows are read too. An error names the line, the field and
// what was wanted.
func ReadCSVIn(from io.Reader, zone *time.Location) (Trace, error) {
	text := bufio.NewReader(from)
	switch mark, _ := text.Peek(3); {
	case bytes.HasPrefix(mark, []byte("\xef\xbb\xbf")):
		_, _ = text.Discard(3) // they were there just now
	case bytes.HasPrefix(mark, []byte("\xff\xfe")), bytes.HasPrefix(mark, []byte("\xfe\xff")):
		return Trace{}, errors.New("line 1: the text is UTF-16, want UTF-8: save it as \"CSV UTF-8\"")
	}
	reader := csv.NewReader(text)
	reader.FieldsPerRecord, reader.TrimLeadingSpace, reader.Comma = -1, true, separator(text)
	p := csvParser{zone: zone, fields: []int{0, 1, 2, 3, 4, -1, -1, -1, -1}, decimalComma: reader.Comma != ','}
	var jobs []Job
	for first := true; ; {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, err
		}
		if strings.Join(record, "") == "" {
			continue
		}
		line, _ := reader.FieldPos(0)
		if first && isHeader(record) {
			if err := p.header(record); err != nil {
				return Trace{}, fmt.Errorf("line %d: %w", line, err)
			}
			first = false
			continue
		}
		first = false
		job, err := p.job(record)
		if err != nil {
			return Trace{}, fmt.Errorf("line %d: %w", line, err)
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return Trace{}, errors.New("the trace has no jobs: want lines of " + wantColumns)
	}
	if err := p.dates.settle(jobs); err != nil {
		return Trace{}, err
	}
	return newTrace(jobs), nil
}

// separator of fields: what the first line has, a comma else.
func separator(text *bufio.Reader) rune {
	begin, _ := text.Peek(text.Size())
	line, _, _ := bytes.Cut(begin, []byte("\n"))
	for _, other := range ";\t" {
		if bytes.ContainsRune(line, other) && (other == '\t' || !bytes.ContainsRune(line, ',') || bytes.Count(line, []byte(";")) >= 2) {
			return other
		}
	}
	return ','
}

// isHeader is true for a first line that holds names instead of a job.
func isHeader(record []string) bool {
	return !slices.ContainsFunc(record, func(field string) bool { return strings.ContainsAny(field, "0123456789") })
}

// csvParser reads jobs.
type csvParser struct {
	zone         *time.Location
	fields       []int // of each column; -1 for none
	width        int   // of the header; 0: there is none
	decimalComma bool
	dates        dates
}

func (p *csvParser) header(record []string) error {
	p.width, p.fields = len(record), slices.Repeat([]int{-1}, len(columns))
	for i, name := range record {
		name = strings.TrimSpace(name)
		at := slices.IndexFunc(columns, func(column string) bool { return strings.EqualFold(column, name) })
		switch {
		case name == "":
		case at < 0:
			return fmt.Errorf("column %q is not known, want a header of %s", name, wantColumns)
		case p.fields[at] >= 0:
			return fmt.Errorf("column %q is there twice", name)
		default:
			p.fields[at] = i
		}
	}
	for i, column := range columns[:3] {
		if p.fields[i] < 0 && (i > 0 || p.fields[columnArrival] < 0) {
			return fmt.Errorf("column %q is missing, want a header of %s", column, wantColumns)
		}
	}
	return nil
}

func (p *csvParser) job(record []string) (Job, error) {
	for p.width == 0 && len(record) > 5 && record[len(record)-1] == "" || p.width > 0 && len(record) > p.width && record[len(record)-1] == "" {
		record = record[:len(record)-1] // spreadsheets fill rows up
	}
	if p.width > 0 && len(record) > p.width || p.width == 0 && (len(record) < 3 || len(record) > 5) {
		return Job{}, fmt.Errorf("%d fields, want %s", len(record), wantColumns)
	}
	field := func(column int) string {
		if i := p.fields[column]; i >= 0 && i < len(record) {
			return strings.TrimSpace(record[i])
		}
		return ""
	}
	number := func(column int) (float64, error) {
		text := field(column)
		if p.decimalComma {
			text = strings.Replace(text, ",", ".", 1)
		}
		return strconv.ParseFloat(text, 64)
	}
	job := Job{Class: field(2)}
	var err error
	instant := "start"
	text := field(0)
	if p.fields[columnArrival] >= 0 {
		instant, text = "arrival", field(columnArrival)
	}
	if job.Start, err = p.start(text); err != nil {
		return job, fmt.Errorf("%s %w", instant, err)
	}
	run, err := number(1)
	if err != nil || !(run >= 0 && run <= 1e9) {
		return job, fmt.Errorf("seconds is %q, want a number from 0 to 1e9", field(1))
	}
	if job.Class == "" {
		return job, errors.New("class is empty, want a name: scan, if there is one kind")
	}
	amounts := [2]int64{defaultMilliCPU, defaultMiB}
	for i := range amounts {
		if text := field(3 + i); text != "" {
			if amounts[i], err = strconv.ParseInt(text, 10, 40); err != nil || amounts[i] < 0 {
				return job, fmt.Errorf("%s is %q, want a whole number of at least 0", columns[3+i], text)
			}
		} else {
			job.RequestsAssumed = true
		}
	}
	job.Run, job.Requests = seconds(run), requests(amounts[0], amounts[1])
	var used [2]float64
	for i := range used {
		column := columnUsed + i
		if text := field(column); text != "" {
			if used[i], err = number(column); err != nil || !(used[i] >= 0 && used[i] <= 1e9) {
				return job, fmt.Errorf("%s is %q, want a number from 0 to 1e9", columns[column], text)
			}
		}
	}
	job.Used = packing.Amounts{int64(math.Round(used[0])), int64(used[1] * (1 << 20)), 0, 0}
	if text := field(columnOutOfMemory); text != "" {
		if job.OutOfMemory, err = strconv.ParseBool(strings.ToLower(text)); err != nil {
			return job, fmt.Errorf("outOfMemory is %q, want true or false", text)
		}
	}
	return job, nil
}

// Places in columns.
const (
	columnArrival = 5 + iota
	columnUsed
	_
	columnOutOfMemory
)

// layouts of dates without a zone of which the order of day and month is sure. time.Parse takes fractions of seconds with any of them.
var layouts = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006/1/2 15:04:05", "2006/1/2 15:04", "2.1.2006 15:04:05", "2.1.2006 15:04"}

// start of a job. Dates with slashes are read when all are seen.
func (p *csvParser) start(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if !(math.Abs(s) < 9e9) {
			return 0, fmt.Errorf("is %q, want less than 9e9 seconds", text)
		}
		p.dates.add(nil)
		return seconds(s), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, strings.ToUpper(text)); err == nil {
			p.dates.add(nil)
			return t.Sub(Epoch), nil
		}
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, p.zone); err == nil {
			p.dates.add(nil)
			return t.Sub(Epoch), nil
		}
	}
	var readings [2]time.Time // day first, month first
	var ok bool
	for _, clock := range []string{"15:04:05", "15:04", "3:04:05 PM", "3:04 PM"} {
		for i, day := range []string{"2/1/2006 ", "1/2/2006 "} {
			if t, err := time.ParseInLocation(day+clock, strings.ToUpper(text), p.zone); err == nil {
				readings[i], ok = t, true
			}
		}
	}
	if !ok {
		return 0, fmt.Errorf("is %q, want an instant in RFC 3339 (2026-03-02T09:00:00Z), a date with a time (2026-03-02 09:00) or seconds", text)
	}
	p.dates.add(&readings)
	return 0, nil
}

// dates that may be read with the day first or with the month first: all of a trace are read alike.
type dates struct {
	readings []*[2]time.Time // of each job; nil where there is no doubt
	doubtful bool
}

func (d *dates) add(readings *[2]time.Time) {
	d.readings = append(d.readings, readings)
	d.doubtful = d.doubtful || readings != nil
}

// settle sets the starts of the jobs whose dates were in doubt.
func (d *dates) settle(jobs []Job) error {
	if !d.doubtful {
		return nil
	}
	var possible [2]bool
	for order := range possible {
		possible[order] = !slices.ContainsFunc(d.readings, func(r *[2]time.Time) bool { return r != nil && r[order].IsZero() })
	}
	if possible[0] && possible[1] {
		possible = d.shorter()
	}
	if possible[0] == possible[1] {
		what := "may have the day or the month first"
		if !possible[0] {
			what = "have the day first in some lines and the month first in others"
		}
		return fmt.Errorf("start: dates with slashes %s: write them as 2026-03-02 09:00", what)
	}
	for i, r := range d.readings {
		if r != nil {
			jobs[i].Start = r[map[bool]int{true: 0, false: 1}[possible[0]]].Sub(Epoch)
		}
	}
	return nil
}

// shorter says which order of day and month makes the dates span less than half of the time that the other does; both if neither does. Days that
// follow each other are months apart if they are read as months.
func (d *dates) shorter() (possible [2]bool) {
	var spans [2]time.Duration
	for order := range spans {
		var first, last time.Time
		for _, r := range d.readings {
			if r == nil {
				continue
			}
			if first.IsZero() || r[order].Before(first) {
				first = r[order]
			}
			if r[order].After(last) {
				last = r[order]
			}
		}
		spans[order] = last.Sub(first)
	}
	return [2]bool{spans[0] <= 2*spans[1], spans[1] <= 2*spans[0]}
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
			Requests: requests(1000*int64(max(1, numbers[processors])), defaultMiB), RequestsAssumed: true, // of memory
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

// Sorted is the trace with its jobs in the order of their start.
func (t Trace) Sorted() Trace {
	jobs := slices.Clone(t.Jobs)
	for i := range jobs {
		jobs[i].Start += t.Origin.Sub(Epoch)
	}
	return newTrace(jobs)
}

// Command fuzzcalendar compares the dates that scaler/calendar reads from iCalendar files with those of an independent
// implementation, oracle.py, on random files. A difference is written to a file that reproduces it:
//
//	go run ./hack/fuzzcalendar -for 10m
//	go run ./hack/fuzzcalendar -file fuzz-calendar-17.ics
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

//go:embed oracle.py
var oracle string

// mostDifferences end a run: many are usually one fault.
const mostDifferences = 10

func main() {
	duration := flag.Duration("for", 10*time.Minute, "how long to run")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "seed of the first case; each case after it has the next one")
	file := flag.String("file", "", "compare only this file, which a difference left behind")
	python := flag.String("python", "/usr/bin/python3", "Python with Debian's python3-dateutil and python3-icalendar")
	to := flag.String("to", ".", "directory for the files of differences")
	flag.Parse()
	err := run(*duration, *seed, *file, *python, *to)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzcalendar:", err)
		os.Exit(1)
	}
}

func run(duration time.Duration, seed uint64, file, python, to string) error {
	if err := exec.Command(python, "-c", "import dateutil, icalendar, zoneinfo").Run(); err != nil {
		return fmt.Errorf("%s needs Debian's packages python3-dateutil and python3-icalendar: %w", python, err)
	}
	peer, err := start(python)
	if err != nil {
		return err
	}
	defer peer.stop()
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		c, err := readCase(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		differences, err := peer.compare([]testCase{c})
		if err == nil && len(differences) > 0 {
			err = errors.New(differences[0].text)
		}
		return err
	}
	fmt.Printf("seed %d, for %s\n", seed, duration)
	begin, cases, events, found := time.Now(), 0, 0, 0
	figures := func() string {
		return fmt.Sprintf("%s: %d files, %d events, %d beyond the bounds of work, %d differences",
			time.Since(begin).Round(time.Second), cases, events, peer.beyond, found)
	}
	for said := begin; time.Since(begin) < duration && found < mostDifferences; {
		batch := make([]testCase, 200)
		for i := range batch {
			batch[i] = generate(seed + uint64(cases+i))
			events += strings.Count(batch[i].ICS, "BEGIN:VEVENT")
		}
		differences, err := peer.compare(batch)
		if err != nil {
			return err
		}
		for _, d := range differences {
			path := filepath.Join(to, fmt.Sprintf("fuzz-calendar-%d.ics", seed+uint64(cases+d.index)))
			if err := os.WriteFile(path, []byte(batch[d.index].ICS), 0o644); err != nil { //nolint:gosec // no secret
				return err
			}
			fmt.Printf("\n%s: %s\n%s", path, d.text, batch[d.index].ICS)
		}
		cases += len(batch)
		found += len(differences)
		if time.Since(said) > 30*time.Second {
			said = time.Now()
			fmt.Println(figures())
		}
	}
	fmt.Printf("%s; seeds %d to %d\n", figures(), seed, seed+uint64(cases)-1)
	if found > 0 {
		return fmt.Errorf("%d differences; reproduce one by: go run ./hack/fuzzcalendar -file FILE", found)
	}
	return nil
}

// testCase is a file with the zone it is read in and the dates that are compared.
type testCase struct {
	ICS  string `json:"ics"`
	Zone string `json:"zone"`
	From string `json:"from"`
	To   string `json:"to"`
}

var question = regexp.MustCompile(`(?m)^X-FUZZ:(\S+) (\S+) (\S+?)\r?$`)

// readCase reads what generate wrote.
func readCase(text string) (testCase, error) {
	match := question.FindStringSubmatch(text)
	if match == nil {
		return testCase{}, errors.New("the file has no line X-FUZZ:ZONE FROM TO")
	}
	return testCase{text, match[1], match[2], match[3]}, nil
}

// difference is a case of which the two say something else.
type difference struct {
	index int
	text  string
}

// peer is the oracle's process.
type peer struct {
	cases   *json.Encoder
	flush   func() error
	answers *json.Decoder
	stop    func()
	beyond  int // cases of which we work out no dates, as they make too many
}

func start(python string) (*peer, error) {
	cmd := exec.Command(python, "-c", oracle)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	buffered := bufio.NewWriterSize(in, 1<<20)
	stop := func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	return &peer{cases: json.NewEncoder(buffered), flush: buffered.Flush, answers: json.NewDecoder(out), stop: stop}, nil
}

// compare returns the cases of which the two say something else, in order.
func (p *peer) compare(batch []testCase) ([]difference, error) {
	sent := make(chan error, 1)
	go func() {
		for _, c := range batch {
			if err := p.cases.Encode(c); err != nil {
				sent <- err
				return
			}
		}
		sent <- p.flush()
	}()
	var differences []difference
	for i, c := range batch {
		var theirs struct {
			Dates []string `json:"dates"`
			Error string   `json:"error"`
		}
		if err := p.answers.Decode(&theirs); err != nil {
			return nil, fmt.Errorf("the oracle ended: %w", errors.Join(err, <-sent))
		}
		ours, err := read(c)
		switch {
		case errors.Is(err, errBeyond):
			p.beyond++
		case theirs.Error != "":
			differences = append(differences, difference{i, "the oracle: " + theirs.Error})
		case err != nil:
			differences = append(differences, difference{i, err.Error()})
		case !slices.Equal(ours, theirs.Dates):
			differences = append(differences, difference{i, fmt.Sprintf("only ours %s, only the oracle's %s", without(ours, theirs.Dates), without(theirs.Dates, ours))})
		}
	}
	return differences, <-sent
}

// errBeyond is that of an event that recurs more often than scaler/calendar works out, on purpose.
var errBeyond = errors.New("it recurs too often")

// read is what scaler/calendar says.
func read(c testCase) ([]string, error) {
	zone, err := calendar.LoadZone(c.Zone)
	if err != nil {
		return nil, fmt.Errorf("zone %q %w", c.Zone, err)
	}
	h, err := calendar.ParseHolidays(c.ICS, zone)
	if err != nil {
		return nil, err
	}
	if skipped := h.NotUnderstood(); len(skipped) > 0 {
		if strings.Contains(skipped[0].Reason, "recurs too often") {
			return nil, errBeyond
		}
		return nil, fmt.Errorf("skipped: %v", skipped)
	}
	list, err := h.List(c.From, c.To)
	dates := make([]string, len(list))
	for i, holiday := range list {
		dates[i] = holiday.Date
	}
	return dates, err
}

// without are the first of the dates that others lack, and how many there are.
func without(dates, others []string) string {
	lacking := slices.DeleteFunc(slices.Clone(dates), func(s string) bool { return slices.Contains(others, s) })
	return fmt.Sprintf("%d %v", len(lacking), lacking[:min(5, len(lacking))])
}

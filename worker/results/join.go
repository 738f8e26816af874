package results

import (
	"cmp"
	"slices"
	"time"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
)

// Join puts the results of each scan's engines together. It keeps them in memory only: acknowledge the messages of a scan when the
// scan is handled, not before, and the broker gives them again to whoever comes after a crash. The zero value is ready. It is not
// safe for concurrent use.
type Join struct {
	scans map[string]*partial
}

// partial is a scan that some engines' results are missing of.
type partial struct {
	since    time.Time
	expected []string
	results  map[string]*resultsv1alpha1.Result // by engine
}

// Add takes a result and returns its scan if that makes it complete, or nil. A result that came before changes nothing; one that
// comes after its scan was complete begins it again, so handle scans by their name, once.
func (j *Join) Add(now time.Time, result *resultsv1alpha1.Result) *resultsv1alpha1.ScanResult {
	name := result.GetScan()
	scan := j.scans[name]
	if scan == nil {
		scan = &partial{since: now, results: map[string]*resultsv1alpha1.Result{}}
		if j.scans == nil {
			j.scans = map[string]*partial{}
		}
		j.scans[name] = scan
	}
	if scan.results[result.GetEngine()] == nil {
		scan.results[result.GetEngine()] = result
	}
	// Workers should agree. Where they don't, during a rollout, no engine that anybody waits for is left out.
	for _, engine := range append(slices.Clone(result.GetExpectedEngines()), result.GetEngine()) {
		if !slices.Contains(scan.expected, engine) {
			scan.expected = append(scan.expected, engine)
		}
	}
	if len(scan.results) < len(scan.expected) {
		return nil
	}
	delete(j.scans, name)
	return scan.result(name)
}

// GiveUp returns the scans that began before an instant and are not complete, as failed, and forgets them.
func (j *Join) GiveUp(before time.Time) []*resultsv1alpha1.ScanResult {
	var given []*resultsv1alpha1.ScanResult
	for name, scan := range j.scans {
		if scan.since.Before(before) {
			given = append(given, scan.result(name))
			delete(j.scans, name)
		}
	}
	slices.SortFunc(given, func(a, b *resultsv1alpha1.ScanResult) int { return cmp.Compare(a.GetScan(), b.GetScan()) })
	return given
}

// Waiting is the number of scans that are not complete.
func (j *Join) Waiting() int { return len(j.scans) }

func (p *partial) result(name string) *resultsv1alpha1.ScanResult {
	s := &resultsv1alpha1.ScanResult{Scan: name, Status: resultsv1alpha1.Status_STATUS_SUCCEEDED}
	slices.Sort(p.expected)
	for _, engine := range p.expected {
		result := p.results[engine]
		if result == nil {
			s.MissingEngines = append(s.MissingEngines, engine)
		} else {
			s.Results = append(s.Results, result)
		}
		if result.GetStatus() != resultsv1alpha1.Status_STATUS_SUCCEEDED {
			s.Status = resultsv1alpha1.Status_STATUS_FAILED
		}
	}
	return s
}

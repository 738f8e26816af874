package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// slice says which part of a recorded load is run.
type slice struct {
	file, statements string
	pods             int
	// within is how long pods come for, which their run times are shortened alike for; none runs longer than longest.
	within, longest time.Duration
}

// sliceMilliCPU is the most that a pod of a slice requests: what a node of 8 CPUs has for it.
const sliceMilliCPU = 7500

// load is the nth of so many slices: pods that follow each other in the record, from as far into it as the others are apart.
func (s slice) load(n, slices int) ([]scans.Pod, error) {
	file, err := os.Open(s.file)
	if err != nil {
		return nil, err
	}
	trace, err := simulator.ReadCSV(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	jobs, err := simulator.State(trace.Jobs, s.statements, rand.New(rand.NewPCG(uint64(n), 2)))
	if err != nil {
		return nil, err
	}
	if len(jobs) < s.pods {
		return nil, fmt.Errorf("%s has %d jobs, want at least %d", s.file, len(jobs), s.pods)
	}
	from := n * (len(jobs) - s.pods) / max(1, slices-1)
	jobs = jobs[from : from+s.pods]
	begin, length := jobs[0].Start, max(time.Second, jobs[len(jobs)-1].Start-jobs[0].Start)
	faster := length.Seconds() / s.within.Seconds()
	shorten := func(d time.Duration) time.Duration { return time.Duration(float64(d) / faster) }
	load := make([]scans.Pod, len(jobs))
	for i, job := range jobs {
		p := &load[i]
		p.After, p.Class = shorten(job.Start-begin), fmt.Sprintf("class-%08x", hashOf(job.Class))
		p.Runs = min(max(time.Second, shorten(job.Run)), s.longest).Round(time.Second)
		p.MilliCPU = min(job.Requests[0], sliceMilliCPU)
		if job.Stated > 0 {
			p.Stated = min(max(time.Second, shorten(job.Stated)), 100*s.longest).Round(time.Second)
		}
		if s.statements == "exact" {
			p.Stated = p.Runs // as it is cut
		}
	}
	return load, nil
}

// hashOf a class, whose name may be no label.
func hashOf(class string) uint32 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(class)) // never fails
	return hash.Sum32()
}

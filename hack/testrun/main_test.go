package main

import (
	"os"
	"strings"
	"testing"
)

// A step that would share what it may not lets others pass, and is next once that is free.
func TestQueue(t *testing.T) {
	lint, race := step{"lint", processors}, step{"race", processors}
	install, demo := step{"e2e-install", realNodes}, step{target: "e2e-demo"}
	q := newQueue([]step{lint, race, install, demo})
	next := func(want step) {
		t.Helper()
		if got, ok := q.next(); !ok || got != want {
			t.Errorf("next step: %v, %t, want %v", got, ok, want)
		}
	}
	next(lint)
	next(install)
	next(demo)
	waited := make(chan step)
	go func() {
		s, _ := q.next()
		waited <- s
	}()
	select {
	case s := <-waited:
		t.Errorf("%v began beside %v", s, lint)
	default:
	}
	q.ended(install)
	q.ended(demo)
	q.ended(lint)
	if s := <-waited; s != race {
		t.Errorf("next step: %v, want %v", s, race)
	}
	if s, ok := q.next(); ok {
		t.Errorf("next step: %v, want none", s)
	}
}

// Every part is a target of the Makefile, and runs once.
func TestStages(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, steps := range stages {
		for _, s := range steps {
			if seen[s.target] {
				t.Errorf("%s runs twice", s.target)
			}
			seen[s.target] = true
			if !strings.Contains(string(makefile), "\n"+s.target+": ") {
				t.Errorf("the Makefile has no target %s", s.target)
			}
		}
	}
}

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// lookEvery is how often named queues are looked at for what they are: the kind of a queue changes only when it is deleted and declared again.
	lookEvery = 5 * time.Minute
	// listTolerated is how long the queues that matched a pattern are read while the management API does not list them again.
	listTolerated = time.Minute
	// maxMatches bounds the queues that a pattern matches.
	maxMatches = 100
)

// kind is what the management API tells of a queue, apart from its figures.
type kind struct {
	// single is that only one consumer at a time is given messages.
	single bool
	// classic is that it is a classic queue.
	classic bool
}

// look returns the queues that are to be read, and what is known of them. No stream is among them, as far as the management API tells: a
// stream's length says nothing of what its consumers have still to read.
func (s *source) look(ctx context.Context) ([]*queue, map[string]kind, error) {
	now := s.brokers.limits.Now()
	s.mu.Lock()
	kinds, age := s.kinds, now.Sub(s.listed)
	s.mu.Unlock()
	if s.management == nil || s.config.Pattern == "" && age >= 0 && age < lookEvery {
		return s.reading(), kinds, nil
	}
	list, err := s.management.queueTotals(ctx, s.followed)
	switch {
	case err != nil && s.config.Pattern == "":
		return s.reading(), kinds, nil // observe tells
	case err != nil && kinds != nil && age >= 0 && age < listTolerated:
		return s.reading(), kinds, nil
	case err != nil:
		if reason := s.management.failure(); reason != "" {
			err = errors.New(reason)
		}
		return nil, nil, fmt.Errorf("queuePattern %q: %w", s.config.Pattern, err)
	}
	names, listed := s.config.Queues, list.queues
	if s.config.Pattern != "" {
		if names, err = matching(s.config.Pattern, list); err != nil {
			return nil, nil, err
		}
	}
	kinds = map[string]kind{}
	for _, name := range names {
		switch listed[name].Type {
		case "stream":
			return nil, nil, fmt.Errorf("queue %q: %w", name, errStream)
		case "":
		default:
			kinds[name] = kind{single: listed[name].Arguments.Single, classic: listed[name].Type == "classic"}
		}
	}
	if s.config.Pattern != "" {
		s.read(names)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = kinds
	if len(kinds) == len(names) { // one that is not declared yet may become a stream
		s.listed = now
	}
	reading := s.reading()
	for _, q := range reading {
		q.classic.Store(kinds[q.name].classic)
	}
	return reading, kinds, nil
}

// lookAgain lets the next observation look at the queues.
func (s *source) lookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = time.Time{}
}

// matching are the names that match a pattern, in order.
func matching(pattern string, list *survey[totals]) (names []string, err error) {
	if n := list.matches[pattern]; n > maxMatches {
		return nil, fmt.Errorf("queuePattern %q matches %d queues, and at most %d can be read by one policy: narrow it, or use several policies",
			pattern, n, maxMatches)
	}
	parts := strings.Split(pattern, "*")
	for name := range list.queues {
		if matches(parts, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// matches says whether a name matches a pattern that was cut at its asterisks. It takes time in proportion to the name.
func matches(parts []string, name string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return name == first
	}
	rest, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	if rest, ok = strings.CutSuffix(rest, last); !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return true
}

// reading are the queues that are read.
func (s *source) reading() []*queue {
	s.brokers.mu.Lock()
	defer s.brokers.mu.Unlock()
	return s.queues
}

// read reads these queues from now on.
func (s *source) read(names []string) {
	s.brokers.mu.Lock()
	defer s.brokers.mu.Unlock()
	s.use(names)
}

// use is read with Brokers.mu held.
func (s *source) use(names []string) {
	if s.closed || slices.EqualFunc(s.queues, names, func(q *queue, name string) bool { return q.name == name }) {
		return
	}
	before := s.queues
	s.queues = make([]*queue, len(names))
	for i, name := range names {
		s.queues[i] = s.broker.use(name)
	}
	for _, q := range before {
		s.broker.leave(q)
	}
}

package packing

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The best of what the index finds is the first of all nodes in order, after any changes. Nodes are of one size.
func TestIndexAgainstOrder(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 0))
		index, model := NewIndex(), map[string]Entry{}
		allocatable, prices := Amounts{16, 64, 32, 8}, 1+int(seed%4)
		for range 400 {
			name := fmt.Sprintf("n%02d", random.IntN(50))
			if random.IntN(6) == 0 {
				index.Remove(name)
				delete(model, name)
				continue
			}
			e := Entry{
				Name: name, Created: time.Unix(int64(random.IntN(4)), 0), Price: 3 + random.IntN(prices), Allocatable: allocatable,
			}
			for d := range e.Free {
				e.Free[d] = random.Int64N(allocatable[d] + 1)
			}
			switch random.IntN(5) {
			case 0: // nothing that counts
			case 1:
				if random.IntN(8) == 0 {
					e.Exit = Forever
				}
			default:
				e.Exit = now.Add(time.Duration(random.IntN(2000)-100) * time.Second)
			}
			index.Set(e)
			model[name] = e
		}
		if index.Len() != len(model) {
			t.Fatalf("%d nodes, want %d", index.Len(), len(model))
		}
		for try := range 60 {
			requests := Amounts{random.Int64N(6), random.Int64N(20), random.Int64N(8), 1}
			pod := Pod{
				Remaining: time.Duration(1+random.IntN(700)) * time.Second, Spread: 2 * random.Float64(), Stated: float64(random.IntN(2)),
				Grouped: random.IntN(5) == 0, Followers: random.IntN(4),
			}
			switch random.IntN(10) {
			case 0:
				pod = Pod{Remaining: Never}
			case 1:
				pod = Pod{Remaining: Unknown}
			case 2:
				pod.Spread = 0
			}
			refused := fmt.Sprintf("n%02d", random.IntN(50))
			describe := func(e Entry) Node {
				n := Node{Name: e.Name, Created: e.Created, Price: e.Price - index.Cheapest(), Exit: max(0, e.Exit.Sub(now))}
				if e.Exit.Equal(Forever) {
					n.Exit = Never
				}
				n.More = e.Free.Minus(requests).Times(requests)
				for d := range Indexed - 1 {
					if requests[d] > 0 {
						n.Allocatable, n.Free = append(n.Allocatable, e.Allocatable[d]), append(n.Free, e.Free[d]-requests[d])
					}
				}
				return n
			}
			var all, found []Node
			for _, e := range model {
				if e.Free.Fit(requests) && e.Name != refused {
					all = append(all, describe(e))
				}
			}
			most := 1 + random.IntN(4)
			shown := map[string]bool{}
			for _, e := range index.Candidates(Query{
				Requests: requests, Now: now, Pod: pod, Most: most, Tries: 100,
				Accept: func(name string) bool {
					if shown[name] {
						t.Fatalf("%s is shown twice", name)
					}
					shown[name] = true
					return name != refused
				},
			}) {
				found = append(found, describe(e))
			}
			if len(all) > 0 && len(found) < min(most, len(all)) {
				t.Fatalf("seed %d, try %d: %d found of %d with room, want at least %d", seed, try, len(found), len(all), most)
			}
			want, got := Order(all, &pod, nil, 1), Order(found, &pod, nil, 1)
			if len(want) > 0 && got[0] != want[0] {
				t.Fatalf("seed %d, try %d: for %+v the index finds\n%+v, the best is\n%+v", seed, try, pod, got[0], want[0])
			}
		}
	}
}

// Where no node is accepted, no more than Tries are looked at.
func TestTries(t *testing.T) {
	index := NewIndex()
	for i := range 500 {
		index.Set(Entry{
			Name: fmt.Sprint(i), Price: i % 3, Exit: time.Unix(int64(i), 0), Allocatable: Amounts{1, 1, 1, 1}, Free: Amounts{1, 1, 1, 1},
		})
	}
	for name, pod := range map[string]Pod{
		"precise": {Remaining: time.Minute}, "vague": {Remaining: time.Minute, Spread: 2}, "endless": {Remaining: Never},
		"by distributions": {Remaining: time.Minute, Spread: 2, Lasting: &Probabilities{}},
	} {
		shown := map[string]bool{}
		got := index.Candidates(Query{
			Requests: Amounts{1, 0, 0, 1}, Now: time.Unix(250, 0), Pod: pod, Most: 4, Tries: 100,
			Accept: func(name string) bool { shown[name] = true; return false },
		})
		if len(got) > 0 || len(shown) == 0 || len(shown) > 100 {
			t.Errorf("%s: found %v after %d nodes, want none after at most 100", name, got, len(shown))
		}
	}
}

func BenchmarkCandidates(b *testing.B) {
	for _, count := range []int{500, 5000, 15000} {
		for name, pod := range map[string]Pod{"precise": {Stated: 1}, "vague": {Spread: 1.5}, "shared": {Stated: 1, Followers: 16}} {
			b.Run(fmt.Sprint(name, "/", count), func(b *testing.B) {
				now, random, index := time.Unix(1_000_000, 0), rand.New(rand.NewPCG(1, 1)), NewIndex()
				for i := range count {
					e := Entry{
						Name: fmt.Sprintf("node-%05d", i), Allocatable: Amounts{16000, 64 << 30, 0, 110},
						Exit: now.Add(time.Duration(random.IntN(3600)) * time.Second),
					}
					for d := range e.Free {
						e.Free[d] = random.Int64N(e.Allocatable[d] + 1)
					}
					index.Set(e)
				}
				for b.Loop() {
					pod.Remaining = time.Duration(1+random.IntN(4000)) * time.Second
					index.Candidates(Query{
						Requests: Amounts{1000, 2 << 30, 0, 1}, Now: now, Pod: pod,
						Most: 4, Tries: 100, Accept: func(string) bool { return true },
					})
				}
			})
		}
	}
}

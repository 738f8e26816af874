package packing

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The index finds what sorting all nodes finds, after any changes. Nodes are of one size; amounts are powers of two apart,
// so that no rounding tells equal nodes apart.
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
				Name: name, Created: time.Unix(int64(random.IntN(4)), 0), Price: random.IntN(prices), Allocatable: allocatable,
			}
			for d := range e.Free {
				e.Free[d] = random.Int64N(allocatable[d] + 1)
			}
			switch random.IntN(5) {
			case 0: // nothing that counts
			case 1:
				e.Exit = Forever
			default:
				e.Exit = now.Add(time.Duration(random.IntN(2000)-100) * time.Second)
			}
			index.Set(e)
			model[name] = e
		}
		if index.Len() != len(model) {
			t.Fatalf("%d nodes, want %d", index.Len(), len(model))
		}
		for range 30 {
			requests := Amounts{random.Int64N(6), random.Int64N(20), random.Int64N(8), 1}
			remaining := time.Duration(random.IntN(700)) * time.Second
			if random.IntN(5) == 0 {
				remaining = Never
			}
			refused := fmt.Sprintf("n%02d", random.IntN(50))
			most := 1 + random.IntN(60)
			var nodes []Node
			for _, e := range model {
				if !e.Free.Fit(requests) || e.Name == refused {
					continue
				}
				n := Node{Name: e.Name, Created: e.Created, Price: e.Price, Exit: max(0, e.Exit.Sub(now)), Allocatable: allocatable[:]}
				if e.Exit.Equal(Forever) {
					n.Exit = Never
				}
				for d := range e.Free {
					n.Free = append(n.Free, e.Free[d]-requests[d])
				}
				nodes = append(nodes, n)
			}
			want := names(Order(nodes, remaining, nil, len(nodes)))
			got := index.Candidates(Query{
				Requests: requests, Now: now, Remaining: remaining, Most: most, Tries: 100,
				Accept: func(name string) bool { return name != refused },
			})
			if diff := cmp.Diff(want[:min(most, len(want))], got, cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Fatalf("seed %d, %v for %s (-sorted +index):\n%s", seed, requests, remaining, diff)
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
	shown := map[string]bool{}
	got := index.Candidates(Query{
		Requests: Amounts{1, 0, 0, 1}, Now: time.Unix(250, 0), Remaining: time.Minute, Most: 4, Tries: 100,
		Accept: func(name string) bool { shown[name] = true; return false },
	})
	if len(got) > 0 || len(shown) != 100 {
		t.Errorf("found %v after %d nodes, want none after 100", got, len(shown))
	}
}

func BenchmarkCandidates(b *testing.B) {
	for _, count := range []int{500, 5000, 15000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
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
				index.Candidates(Query{
					Requests: Amounts{1000, 2 << 30, 0, 1}, Now: now, Remaining: time.Duration(random.IntN(4000)) * time.Second,
					Most: 4, Tries: 100, Accept: func(string) bool { return true },
				})
			}
		})
	}
}

package packing

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Indexed is how many resources an Index knows: CPU, memory, ephemeral storage and pods, say. What else a pod needs is for
// the caller of Candidates to accept or not.
const Indexed = 4

// Amounts are amounts of the indexed resources.
type Amounts [Indexed]int64

// Entry is a node in an Index.
type Entry struct {
	Name    string
	Created time.Time
	// Exit is when the last of the node's pods will be gone; the zero time when there is none that counts, and Forever
	// when it has no end.
	Exit time.Time
	// Price is its class: see PriceClass.
	Price int
	// Allocatable amounts, and those that are free now.
	Allocatable, Free Amounts
}

// Forever is the exit of a node that a pod without an end keeps.
var Forever = time.Unix(0, math.MaxInt64)

// Index finds the nodes among which the first of Order is, without looking at all of them. For each class of price it keeps two trees: in
// one the nodes are in the order of their exits, as the cost of a node has its least where the node and the pod end together and grows to
// both sides; in the other in the order of their age, which decides between nodes of about the same cost. A change costs O(log n). It is
// not safe for concurrent use.
type Index struct {
	shelves []shelf // by price
	nodes   map[string]*indexed
}

// shelf holds the nodes of one price.
type shelf struct {
	price         int
	byExit, byAge *branch
}

type indexed struct {
	Entry
	exit int64 // nanoseconds
}

// NewIndex makes an empty index.
func NewIndex() *Index { return &Index{nodes: map[string]*indexed{}} }

// Len is the number of nodes.
func (x *Index) Len() int { return len(x.nodes) }

// Cheapest is the class of the cheapest node.
func (x *Index) Cheapest() int {
	if len(x.shelves) == 0 {
		return 0
	}
	return x.shelves[0].price
}

// Get is a node's entry.
func (x *Index) Get(name string) (Entry, bool) {
	if n := x.nodes[name]; n != nil {
		return n.Entry, true
	}
	return Entry{}, false
}

// Set adds a node, or moves it to where it belongs now.
func (x *Index) Set(e Entry) {
	x.Remove(e.Name)
	n := &indexed{Entry: e, exit: nanoseconds(e.Exit)}
	x.nodes[e.Name] = n
	at, found := x.find(e.Price)
	if !found {
		x.shelves = slices.Insert(x.shelves, at, shelf{price: e.Price})
	}
	s := &x.shelves[at]
	s.byExit, s.byAge = insert(s.byExit, n, earlier), insert(s.byAge, n, older)
}

// Remove takes a node out; one that is not there is no error.
func (x *Index) Remove(name string) {
	n := x.nodes[name]
	if n == nil {
		return
	}
	delete(x.nodes, name)
	at, _ := x.find(n.Price)
	s := &x.shelves[at]
	s.byExit, s.byAge = remove(s.byExit, n, earlier), remove(s.byAge, n, older)
	if s.byExit == nil {
		x.shelves = slices.Delete(x.shelves, at, at+1)
	}
}

func (x *Index) find(price int) (int, bool) {
	return slices.BinarySearchFunc(x.shelves, price, func(s shelf, price int) int { return cmp.Compare(s.price, price) })
}

func older(a, b *indexed) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
}

func earlier(a, b *indexed) int { return cmp.Or(cmp.Compare(a.exit, b.exit), older(a, b)) }

// Query is what Candidates looks for.
type Query struct {
	// Requests of the pod, which starts at Now.
	Requests Amounts
	Now      time.Time
	Pod      Pod
	// Weights say how scarce resources are; all zero: alike.
	Weights [Indexed]float64
	// Most is how many nodes are wanted of each kind that may be the best; Tries is how many with room for the pod are shown to Accept,
	// which takes them or not. It is shown each of them once.
	Most, Tries int
	Accept      func(name string) bool
}

// nearby is the least number of nodes that are looked at to each side of the pod's end, and of the oldest, for a pod that is placed by
// distributions: what the best of them costs is within 0.6% of the best of all in bench/packing.
const nearby = 8

// lookedAt is how many times Tries nodes with room are looked at for the fullest: where more have room, the oldest of them are enough.
const lookedAt = 4

// Candidates are nodes with room for a pod, in no order: those that exit next after it and next before it, and the oldest of those that
// cost about as little. For a pod without Lasting and nodes of one size, the first of Order is among them.
func (x *Index) Candidates(q Query) []Entry {
	s := search{Query: &q, pricing: q.Pod.pricing(), now: q.Now.UnixNano(), cheapest: x.Cheapest()}
	s.run(x.shelves)
	found := make([]Entry, len(s.found))
	for i, n := range s.found {
		found[i] = n.Entry
	}
	return found
}

// span is a range of exits, both ends included.
type span struct{ from, to int64 }

const always, forever = math.MinInt64, math.MaxInt64

type search struct {
	*Query
	pricing
	now, end     int64 // of the pod, which starts now
	cheapest     int
	shown, found []*indexed
}

func (s *search) run(shelves []shelf) {
	s.end = s.after(s.Remaining.Seconds())
	most := s.Most
	if s.Lasting != nil {
		most = max(most, nearby)
	}
	all := func(shelf) []span { return []span{{always, forever}} }
	if s.Remaining == Unknown {
		s.oldest(shelves, all, 0, most)
		return
	}
	s.oldest(shelves, func(shelf) []span { return []span{{forever, forever}} }, 0, most)
	if s.Remaining == Never {
		s.oldest(shelves, all, 0, most)
		return
	}
	for _, each := range shelves {
		tries := max(most, s.Tries/(4*len(shelves)))
		s.next(each.byExit, span{s.end, forever - 1}, false, 0, most, tries)
		s.next(each.byExit, span{always, s.end - 1}, true, 0, most, tries)
	}
	s.roomy(shelves)
	if s.Lasting != nil {
		s.oldest(shelves, all, 0, most)
		return
	}
	best, least := (*indexed)(nil), math.Inf(1)
	for _, n := range s.found {
		if cost := s.cost(n); cost < least {
			best, least = n, cost
		}
	}
	if best != nil {
		more := 0
		if best.exit < s.end {
			more = s.sharing(s.more(best)) - 1 // with room for fewer the same extension costs more
		}
		s.oldest(shelves, func(of shelf) []span { return s.alike(best, least, of.price) }, more, most)
	}
}

// roomy takes, of the nodes that end before the pod and have room for more like it, those that end last: one for each number of pods that
// may share its extension.
func (s *search) roomy(shelves []shelf) {
	for _, each := range shelves {
		for more := 1; more < s.sharing(math.MaxInt); more++ {
			found := len(s.found)
			s.next(each.byExit, span{always, s.end - 1}, true, more, 1, s.Tries/4)
			if last := len(s.found) - 1; last >= found {
				more = max(more, s.sharing(s.more(s.found[last]))-1) // it is that for all up to here
			}
		}
	}
}

// more is how many pods like it would fit on a node besides the pod.
func (s *search) more(n *indexed) int { return n.Free.Minus(s.Requests).Times(s.Requests) }

// after is the instant that many seconds from now.
func (s *search) after(seconds float64) int64 {
	if seconds >= endless || s.now > forever-1-int64(seconds*1e9) {
		return forever - 1
	}
	return s.now + int64(seconds*1e9)
}

// cost of a node, as it is compared.
func (s *search) cost(n *indexed) float64 {
	if n.exit == forever {
		return 0
	}
	ends := s.remaining - max(0, float64(n.exit-s.now)/1e9)
	if n.exit < s.now {
		ends = s.remaining
	}
	return s.compared(max(0, ends)*rate(n.Price-s.cheapest)/float64(s.sharing(s.more(n))) + s.slack*max(0, -ends))
}

// alike are the exits on nodes of a price that cost as little as the best node, if they have as much room for others.
func (s *search) alike(best *indexed, least float64, price int) (spans []span) {
	if least == 0 {
		spans = append(spans, span{forever, forever})
	}
	perSecond := rate(price - s.cheapest)
	if s.width == 0 {
		switch {
		case least == 0 && s.slack == 0:
			return append(spans, span{s.end, forever - 1})
		case best.exit <= s.now && best.Price == price:
			return append(spans, span{always, s.now})
		default:
			return append(spans, span{best.exit, best.exit})
		}
	}
	// Costs from least to least + width.
	from, to := least/perSecond, (least+s.width)/perSecond
	below := span{always, s.after(s.remaining - from)}
	if to <= s.remaining {
		below.from = s.after(s.remaining - to)
	}
	if from <= s.remaining {
		spans = append(spans, below)
	}
	beyond := span{s.end, forever - 1}
	if s.slack > 0 {
		beyond = span{s.after(s.remaining + least/s.slack), s.after(s.remaining + (least+s.width)/s.slack)}
	} else if least > 0 {
		return spans
	}
	return append(spans, beyond)
}

// next takes nodes with room for the pod and some more like it, in the order of their exits or against it.
func (s *search) next(b *branch, within span, backward bool, more, most, tries int) {
	tries = max(0, len(s.shown)+min(tries, s.Tries-len(s.shown)))
	room := s.Requests.For(1 + more)
	b.walk([]span{within}, &room, backward, func(n *indexed) bool {
		if len(s.shown) < tries && s.take(n) {
			most--
		}
		return most > 0 && len(s.shown) < tries
	})
}

// oldest takes nodes with room for the pod and some more like it whose exits are in some spans: those that stay with the fewest quarters free,
// the oldest first.
func (s *search) oldest(shelves []shelf, within func(shelf) []span, more, most int) {
	room := s.Requests.For(1 + more)
	for _, of := range shelves {
		var fitting [4 + 1][]*indexed
		looked := 0
		of.byAge.walk(within(of), &room, false, func(n *indexed) bool {
			q := 0
			if s.vague() {
				q = quarters(s.share(n))
			}
			if len(fitting[q]) < s.Tries {
				fitting[q] = append(fitting[q], n)
			}
			looked++
			return len(fitting[0]) < s.Tries && looked < lookedAt*s.Tries
		})
		left := most
		for _, nodes := range fitting {
			for _, n := range nodes {
				if left > 0 && len(s.shown) < s.Tries && s.take(n) {
					left--
				}
			}
		}
	}
}

// share that stays free once the pod is placed.
func (s *search) share(n *indexed) float64 {
	sum, total := 0.0, 0.0
	for d := range Indexed - 1 {
		if s.Requests[d] == 0 || n.Allocatable[d] == 0 {
			continue
		}
		weight := s.Weights[d]
		if weight == 0 {
			weight = 1
		}
		sum += weight * float64(n.Free[d]-s.Requests[d]) / float64(n.Allocatable[d])
		total += weight
	}
	if total == 0 {
		return 0
	}
	return sum / total
}

// take shows a node to Accept, once.
func (s *search) take(n *indexed) bool {
	if slices.Contains(s.shown, n) {
		return slices.Contains(s.found, n)
	}
	s.shown = append(s.shown, n)
	if s.Accept(n.Name) {
		s.found = append(s.found, n)
		return true
	}
	return false
}

// Times is how many times requests fit into a, each resource of which they want some counted.
func (a Amounts) Times(requests Amounts) int {
	times := int64(math.MaxInt32)
	for d, request := range requests {
		if request > 0 {
			times = min(times, max(0, a[d])/request)
		}
	}
	return int(times)
}

// For is so many times a.
func (a Amounts) For(count int) Amounts {
	for d := range a {
		a[d] *= int64(count)
	}
	return a
}

// Fit is true when requests fit into a.
func (a Amounts) Fit(requests Amounts) bool {
	for d, request := range requests {
		if a[d] < request {
			return false
		}
	}
	return true
}

// Plus is the sum.
func (a Amounts) Plus(b Amounts) Amounts {
	for d := range a {
		a[d] += b[d]
	}
	return a
}

// Minus is the difference.
func (a Amounts) Minus(b Amounts) Amounts {
	for d := range a {
		a[d] -= b[d]
	}
	return a
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.UnixNano()
}

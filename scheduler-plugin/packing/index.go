package packing

import (
	"cmp"
	"hash/fnv"
	"iter"
	"math"
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
	// Allocatable amounts, and those that are free now.
	Allocatable, Free Amounts
}

// Forever is the exit of a node that a pod without an end keeps.
var Forever = time.Unix(0, math.MaxInt64)

// Index keeps nodes in the order of their free space and finds the first of Order without looking at all of them. It is a
// treap in which every subtree knows its latest and earliest exit and its largest free amounts, so whole subtrees are passed
// over. A change costs O(log n). It is not safe for concurrent use.
type Index struct {
	root  *treeNode
	nodes map[string]*treeNode
}

type treeNode struct {
	Entry
	share       float64 // of free space, over the resources that the node has
	exit        int64   // nanoseconds
	priority    uint64
	left, right *treeNode

	// Of the subtree.
	latest, earliest int64
	most             Amounts
}

// NewIndex makes an empty index.
func NewIndex() *Index { return &Index{nodes: map[string]*treeNode{}} }

// Len is the number of nodes.
func (x *Index) Len() int { return len(x.nodes) }

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
	n := &treeNode{Entry: e, exit: nanoseconds(e.Exit), priority: priority(e.Name)}
	shape := Node{Allocatable: e.Allocatable[:], Free: e.Free[:]}
	n.share = freeShare(&shape, nil)
	n.refresh()
	x.nodes[e.Name] = n
	before, after := split(x.root, n)
	x.root = join(join(before, n), after)
}

// Remove takes a node out; one that is not there is no error.
func (x *Index) Remove(name string) {
	n := x.nodes[name]
	if n == nil {
		return
	}
	delete(x.nodes, name)
	x.root = remove(x.root, n)
}

// Candidates are up to most names of nodes with room for requests that accept takes, in the order of their keys for a pod
// that starts now and runs for remaining. That is Order's for nodes of one size without locality; where sizes differ, the
// free space before placement stands for the one after it.
func (x *Index) Candidates(
	requests Amounts, now time.Time, remaining time.Duration, most int, accept func(name string) bool,
) []string {
	s := search{requests: requests, most: most, accept: accept}
	for exits := range searchOrder(now.UnixNano(), remaining) {
		s.exits = exits
		s.walk(x.root)
		if len(s.found) >= most {
			break
		}
	}
	return s.found
}

// span is a range of exits, both ends included.
type span struct{ from, to int64 }

// searchOrder is the spans of exits that make up the buckets of extension and slack, the best first.
func searchOrder(now int64, remaining time.Duration) iter.Seq[span] {
	const forever, never = math.MaxInt64, math.MinInt64
	return func(yield func(span) bool) {
		switch {
		case remaining == Unknown:
			yield(span{never, forever})
			return
		case !yield(span{forever, forever}):
			return
		case remaining == Never || now > forever-int64(remaining):
			yield(span{never, forever - 1})
			return
		}
		end := now + int64(remaining)
		for bucket, from := 0, end; ; bucket++ {
			limit := int64(slackLimit(bucket))
			last := limit >= forever-end
			to := int64(forever - 1)
			if !last {
				to = end + limit
			}
			if !yield(span{from, to}) {
				return
			}
			if last {
				break
			}
			from = to + 1
		}
		for bucket, to := 1, end-1; ; bucket++ {
			limit := bucketLimit(bucket)
			// A node whose exit is past counts as one that exits now.
			last := limit >= remaining
			from := int64(never)
			if !last {
				from = end - int64(limit)
			}
			if !yield(span{from, to}) || last {
				return
			}
			to = from - 1
		}
	}
}

// search looks through the tree in order.
type search struct {
	requests Amounts
	exits    span
	most     int
	accept   func(string) bool
	found    []string
}

func (s *search) walk(n *treeNode) {
	if n == nil || len(s.found) >= s.most || n.latest < s.exits.from || n.earliest > s.exits.to || !n.most.Fit(s.requests) {
		return
	}
	s.walk(n.left)
	if len(s.found) < s.most && n.exit >= s.exits.from && n.exit <= s.exits.to && n.Free.Fit(s.requests) && s.accept(n.Name) {
		s.found = append(s.found, n.Name)
	}
	s.walk(n.right)
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

// priority shapes the tree by names alone: the same nodes always make the same tree.
func priority(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	sum := h.Sum64()
	sum ^= sum >> 33 // FNV's high bits hardly differ between names that differ in the last letter
	sum *= 0xff51afd7ed558ccd
	return sum ^ sum>>33
}

func (n *treeNode) compare(other *treeNode) int {
	return cmp.Or(
		cmp.Compare(n.share, other.share),
		n.Created.Compare(other.Created),
		strings.Compare(n.Name, other.Name),
	)
}

// refresh recomputes what the node knows of its subtree.
func (n *treeNode) refresh() {
	n.latest, n.earliest, n.most = n.exit, n.exit, n.Free
	for _, child := range [...]*treeNode{n.left, n.right} {
		if child != nil {
			n.latest, n.earliest = max(n.latest, child.latest), min(n.earliest, child.earliest)
			for d := range n.most {
				n.most[d] = max(n.most[d], child.most[d])
			}
		}
	}
}

// split parts a tree into what comes before at and what comes after.
func split(n, at *treeNode) (before, after *treeNode) {
	if n == nil {
		return nil, nil
	}
	if n.compare(at) < 0 {
		n.right, after = split(n.right, at)
		before = n
	} else {
		before, n.left = split(n.left, at)
		after = n
	}
	n.refresh()
	return before, after
}

// join makes one tree of two, all of a before all of b.
func join(a, b *treeNode) *treeNode {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = join(a.right, b)
		a.refresh()
		return a
	default:
		b.left = join(a, b.left)
		b.refresh()
		return b
	}
}

func remove(n, gone *treeNode) *treeNode {
	if n == gone {
		return join(n.left, n.right)
	}
	if gone.compare(n) < 0 {
		n.left = remove(n.left, gone)
	} else {
		n.right = remove(n.right, gone)
	}
	n.refresh()
	return n
}

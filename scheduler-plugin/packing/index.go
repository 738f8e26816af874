package packing

import (
	"cmp"
	"hash/fnv"
	"iter"
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
	// Price is as in Node.
	Price int
	// Allocatable amounts, and those that are free now.
	Allocatable, Free Amounts
}

// Forever is the exit of a node that a pod without an end keeps.
var Forever = time.Unix(0, math.MaxInt64)

// Index keeps nodes in the order of their free space and finds the first of Order without looking at all of them. It is a
// treap, one for each class of price, in which every subtree knows its latest and earliest exit and its largest free amounts,
// so whole subtrees are passed over. A change costs O(log n). It is not safe for concurrent use.
type Index struct {
	trees []tree // by price
	nodes map[string]*treeNode
}

// tree holds the nodes of one price.
type tree struct {
	price int
	root  *treeNode
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
	at, found := x.find(e.Price)
	if !found {
		x.trees = slices.Insert(x.trees, at, tree{price: e.Price})
	}
	t := &x.trees[at]
	before, after := split(t.root, n)
	t.root = join(join(before, n), after)
}

// Remove takes a node out; one that is not there is no error.
func (x *Index) Remove(name string) {
	n := x.nodes[name]
	if n == nil {
		return
	}
	delete(x.nodes, name)
	at, _ := x.find(n.Price)
	if x.trees[at].root = remove(x.trees[at].root, n); x.trees[at].root == nil {
		x.trees = slices.Delete(x.trees, at, at+1)
	}
}

func (x *Index) find(price int) (int, bool) {
	return slices.BinarySearchFunc(x.trees, price, func(t tree, price int) int { return cmp.Compare(t.price, price) })
}

// Query is what Candidates looks for.
type Query struct {
	// Requests of the pod, which starts at Now and runs for Remaining.
	Requests  Amounts
	Now       time.Time
	Remaining time.Duration
	// Most is how many nodes are wanted; Tries is how many with room for the pod are shown to Accept, which takes them or
	// not. It is shown each of them once.
	Most, Tries int
	Accept      func(name string) bool
}

// Candidates are names of nodes with room for a pod, in the order of their keys. That is Order's for nodes of one size without
// locality; where sizes differ, the free space before placement stands for the one after it.
func (x *Index) Candidates(q Query) []string {
	var found []string
	for level := range searchOrder(q.Now.UnixNano(), q.Remaining) {
		var alike []*treeNode
		for _, t := range x.trees {
			if exits, ok := level(t.price); ok {
				s := search{Query: &q, exits: exits, left: q.Most - len(found)}
				s.walk(t.root)
				alike = append(alike, s.found...)
			}
		}
		slices.SortFunc(alike, (*treeNode).compare)
		for _, n := range alike[:min(len(alike), q.Most-len(found))] {
			found = append(found, n.Name)
		}
		if len(found) >= q.Most || q.Tries <= 0 {
			break
		}
	}
	return found
}

// span is a range of exits, both ends included.
type span struct{ from, to int64 }

// searchOrder is the buckets of extension and slack, the best first: for each the span of exits that makes it up on nodes of
// a price, false for none.
func searchOrder(now int64, remaining time.Duration) iter.Seq[func(price int) (span, bool)] {
	const forever, never = math.MaxInt64, math.MinInt64
	return func(yield func(func(int) (span, bool)) bool) {
		atAnyPrice := func(s span) bool { return yield(func(int) (span, bool) { return s, true }) }
		if remaining == Unknown {
			atAnyPrice(span{never, forever})
			return
		}
		if !atAnyPrice(span{forever, forever}) {
			return
		}
		end := int64(forever)
		if remaining != Never && now <= forever-int64(remaining) {
			end = now + int64(remaining)
		}
		for bucket, from := 0, end; from < forever; bucket++ {
			to := int64(forever - 1)
			if limit := int64(slackLimit(bucket)); limit < forever-end {
				to = end + limit
			}
			if !atAnyPrice(span{from, to}) {
				return
			}
			from = to + 1
		}
		// A node whose exit is past counts as one that exits now: the last bucket goes back for ever.
		last := ExtensionBucket(remaining)
		for level := 1; level <= last+dearest; level++ {
			if !yield(func(price int) (span, bool) {
				bucket := level - price
				if bucket < 1 || bucket > last {
					return span{}, false
				}
				exits := span{never, end - 1 - int64(bucketLimit(bucket-1))}
				if bucket < last {
					exits.from = end - int64(bucketLimit(bucket))
				}
				return exits, true
			}) {
				return
			}
		}
	}
}

// search looks through a tree in order, until left are found.
type search struct {
	*Query
	exits span
	left  int
	found []*treeNode
}

func (s *search) walk(n *treeNode) {
	if n == nil || s.left <= 0 || s.Tries <= 0 || n.latest < s.exits.from || n.earliest > s.exits.to || !n.most.Fit(s.Requests) {
		return
	}
	s.walk(n.left)
	if s.left > 0 && s.Tries > 0 && n.exit >= s.exits.from && n.exit <= s.exits.to && n.Free.Fit(s.Requests) {
		s.Tries--
		if s.Accept(n.Name) {
			s.found = append(s.found, n)
			s.left--
		}
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

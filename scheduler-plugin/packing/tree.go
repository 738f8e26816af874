package packing

import "hash/fnv"

// branch is a treap of nodes in some order, in which every subtree knows its latest and earliest exit and its largest free amounts, so that
// whole subtrees are passed over.
type branch struct {
	node        *indexed
	priority    uint64
	left, right *branch

	// Of the subtree.
	latest, earliest int64
	most             Amounts
}

// walk visits the nodes with room for a pod whose exits are in one of some spans, in order or against it, until visit returns false.
func (b *branch) walk(within []span, requests *Amounts, backward bool, visit func(*indexed) bool) bool {
	if b == nil || !b.most.Fit(*requests) || !meets(within, b.earliest, b.latest) {
		return true
	}
	first, last := b.left, b.right
	if backward {
		first, last = last, first
	}
	if !first.walk(within, requests, backward, visit) {
		return false
	}
	if b.node.Free.Fit(*requests) && meets(within, b.node.exit, b.node.exit) && !visit(b.node) {
		return false
	}
	return last.walk(within, requests, backward, visit)
}

// meets is true when a range of exits has some in common with spans.
func meets(spans []span, from, to int64) bool {
	for _, s := range spans {
		if from <= s.to && to >= s.from {
			return true
		}
	}
	return false
}

func insert(b *branch, n *indexed, compare func(a, b *indexed) int) *branch {
	leaf := &branch{node: n, priority: priority(n.Name)}
	leaf.refresh()
	before, after := split(b, n, compare)
	return join(join(before, leaf), after)
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

// refresh recomputes what the branch knows of its subtree.
func (b *branch) refresh() {
	b.latest, b.earliest, b.most = b.node.exit, b.node.exit, b.node.Free
	for _, child := range [...]*branch{b.left, b.right} {
		if child != nil {
			b.latest, b.earliest = max(b.latest, child.latest), min(b.earliest, child.earliest)
			for d := range b.most {
				b.most[d] = max(b.most[d], child.most[d])
			}
		}
	}
}

// split parts a tree into what comes before at and what comes after.
func split(b *branch, at *indexed, compare func(a, b *indexed) int) (before, after *branch) {
	if b == nil {
		return nil, nil
	}
	if compare(b.node, at) < 0 {
		b.right, after = split(b.right, at, compare)
		before = b
	} else {
		before, b.left = split(b.left, at, compare)
		after = b
	}
	b.refresh()
	return before, after
}

// join makes one tree of two, all of a before all of b.
func join(a, b *branch) *branch {
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

func remove(b *branch, gone *indexed, compare func(a, b *indexed) int) *branch {
	if b.node == gone {
		return join(b.left, b.right)
	}
	if compare(gone, b.node) < 0 {
		b.left = remove(b.left, gone, compare)
	} else {
		b.right = remove(b.right, gone, compare)
	}
	b.refresh()
	return b
}

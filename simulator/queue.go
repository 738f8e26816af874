package simulator

// queue is a heap of events, the first at 0. container/heap would make garbage of each of them.
type queue[E interface{ Before(E) bool }] []E

func (q *queue[E]) push(e E) {
	*q = append(*q, e)
	h, i := *q, len(*q)-1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].Before(h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// pop takes out the first event; there must be one.
func (q *queue[E]) pop() E {
	h, last := *q, len(*q)-1
	first := h[0]
	h[0] = h[last]
	var none E
	h[last] = none
	h = h[:last]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && h[child+1].Before(h[child]) {
			child++
		}
		if !h[child].Before(h[i]) {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

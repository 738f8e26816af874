package sizing

import "time"

// Peaks remembers the targets of a window of time, for scale-in stabilisation. The zero value is empty. It is not safe
// for concurrent use.
type Peaks struct{ targets highest }

// Stabilize returns the decision with the highest target of the window that ends with it, but no more than its cap. It
// keeps a decision's own reason in front.
func (p *Peaks) Stabilize(d Decision, window time.Duration) Decision {
	if highest := min(int32(p.targets.add(d.Time, int64(d.Target), window)), d.Limits.MaxReplicas); highest > d.Target {
		d.Reason = oneLine("%s; held at %d, the highest of the last %s", d.Reason, highest, window)
		d.Target, d.Constraint = highest, ScaleIn
	}
	return d
}

// highest finds the highest value of a window of time. It keeps no value that a later one exceeds.
type highest struct{ falling []valueAt }

type valueAt struct {
	at    time.Time
	value int64
}

// add takes a value that holds from now on, and returns the highest that held within the window that ends now.
func (h *highest) add(now time.Time, value int64, window time.Duration) int64 {
	for n := len(h.falling); n > 0 && h.falling[n-1].value <= value; n = len(h.falling) {
		h.falling = h.falling[:n-1]
	}
	if n := len(h.falling); n > 0 && now.Before(h.falling[n-1].at) { // the clock was put back
		h.falling = nil
	}
	h.falling = append(h.falling, valueAt{now, value})
	for now.Sub(h.falling[0].at) > window {
		h.falling = h.falling[1:]
	}
	return h.falling[0].value
}

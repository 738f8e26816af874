package sizing

import (
	"fmt"
	"time"
)

// Peaks remembers the targets of a window of time, for scale-in stabilisation. The zero value is empty. It is not safe
// for concurrent use.
type Peaks struct{ falling []peak } // later ones are lower

type peak struct {
	at     time.Time
	target int32
}

// Stabilize returns the decision with the highest target of the window that ends with it, but no more than its cap. It
// keeps a decision's own reason in front.
func (p *Peaks) Stabilize(d Decision, window time.Duration) Decision {
	for n := len(p.falling); n > 0 && p.falling[n-1].target <= d.Target; n = len(p.falling) {
		p.falling = p.falling[:n-1]
	}
	p.falling = append(p.falling, peak{d.Time, d.Target})
	for d.Time.Sub(p.falling[0].at) > window {
		p.falling = p.falling[1:]
	}
	if highest := min(p.falling[0].target, d.Limits.MaxReplicas); highest > d.Target {
		d.Reason = fmt.Sprintf("%s; held at %d, the highest of the last %s", d.Reason, highest, window)
		d.Target, d.Constraint = highest, ScaleIn
	}
	return d
}

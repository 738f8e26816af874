package sizing

import (
	"cmp"
	"slices"
	"time"
)

// Member is one policy of a group that shares a cap.
type Member struct {
	// Name orders members: of a remainder, the first get one more.
	Name string
	// Weight is at least 1.
	Weight int64
	// Wanted replicas, limits of its own applied.
	Wanted int64
	// Running replicas, booting ones included, which nobody ends.
	Running int64
	// Share of the cap that is the member's now.
	Share int64
	// Limit is the group's cap as this member states it; the smallest counts.
	Limit int64
}

// Split shares a cap among members by weighted max-min fairness: no member can get more but from one that has, for its
// weight, less or as much. What runs is never taken away, so while a member has more running than its share, the others
// get less; what a member does not want goes to the others. The sum exceeds the cap only where what runs does already.
// It returns the shares by name, and the cap. There must be a member. It takes O(n log n) for n members, whatever the cap.
//
// Think of water that rises in vessels as wide as the weights, each between its floor (what runs) and its rim (what is wanted).
func Split(members []Member) (share map[string]int64, limit int64) {
	limit = slices.MinFunc(members, func(a, b Member) int { return cmp.Compare(a.Limit, b.Limit) }).Limit
	share = make(map[string]int64, len(members))
	left := limit
	vessels := make([]vessel, 0, len(members))
	for _, m := range members {
		share[m.Name] = m.Running
		left -= m.Running
		if m.Wanted > m.Running {
			vessels = append(vessels, vessel{m.Name, max(1, m.Weight), m.Running, m.Wanted})
		}
	}
	if left <= 0 || len(vessels) == 0 {
		return share, limit
	}
	slices.SortFunc(vessels, func(a, b vessel) int { return cmp.Compare(a.name, b.name) })
	level := waterLevel(vessels, float64(left))
	// Whole replicas below the level first; then one each, the lowest first, for what is left over by rounding.
	for _, v := range vessels {
		whole := v.at(level)
		share[v.name] = whole
		left -= whole - v.floor
	}
	for left != 0 {
		moved := rest(vessels, share, left)
		if moved == 0 {
			break
		}
		left -= moved
	}
	return share, limit
}

// vessel is a member that wants more than it has running.
type vessel struct {
	name               string
	weight, floor, rim int64
}

// at is how many whole replicas a vessel holds when water stands at a level.
func (v vessel) at(level float64) int64 {
	water := level * float64(v.weight)
	switch {
	case water <= float64(v.floor):
		return v.floor
	case water >= float64(v.rim):
		return v.rim
	default:
		return int64(water)
	}
}

// waterLevel is how high, in replicas for each unit of weight, water rises that is poured into vessels.
func waterLevel(vessels []vessel, water float64) float64 {
	type edge struct {
		level float64
		width float64 // what the surface gains from there on
	}
	edges := make([]edge, 0, 2*len(vessels))
	for _, v := range vessels {
		w := float64(v.weight)
		edges = append(edges, edge{float64(v.floor) / w, w}, edge{float64(v.rim) / w, -w})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.level, b.level) })
	level, width := edges[0].level, 0.0
	for _, e := range edges {
		if rise := (e.level - level) * width; rise > water {
			break
		} else {
			water -= rise
		}
		level, width = e.level, width+e.width
	}
	if width > 0 {
		level += water / width
	}
	return level
}

// rest gives one replica more to as many vessels as there are replicas left, or removes one each where rounding gave too many, and
// returns how many it gave. Those that are lowest for their weight, and first by name, come first.
func rest(vessels []vessel, share map[string]int64, left int64) int64 {
	step := int64(1)
	if left < 0 {
		step = -1
	}
	var open []vessel
	for _, v := range vessels {
		if next := share[v.name] + step; next >= v.floor && next <= v.rim {
			open = append(open, v)
		}
	}
	slices.SortStableFunc(open, func(a, b vessel) int {
		// (share + step) / weight, compared without division
		return int(step) * cmp.Compare(float64(share[a.name]+step)*float64(b.weight), float64(share[b.name]+step)*float64(a.weight))
	})
	n := min(int64(len(open)), left*step)
	for _, v := range open[:n] {
		share[v.name] += step
	}
	return n * step
}

// SharedCap shares a cap out among members over time, so that the group never has more replicas than the cap, whatever answers are still on
// their way: the highest share that a member had within a time counts as running, as replicas may just be being created for it. A
// member that wants more than its share gets more once others have given up theirs and their replicas have ended. While each has what it
// wants nothing changes. What nobody wants is shared out as well, so that new work need not wait for its share.
//
// The zero value knows of no earlier shares. It is not safe for concurrent use.
type SharedCap struct {
	shares map[string]*highest // by member
}

// Share returns what each member's share should be from now on, and the cap. For a grace period after a share was lowered, replicas may still be
// created for it that Running does not count yet. There must be a member.
func (c *SharedCap) Share(now time.Time, grace time.Duration, members []Member) (shares map[string]int64, limit int64) {
	limit = slices.MinFunc(members, func(a, b Member) int { return cmp.Compare(a.Limit, b.Limit) }).Limit
	gone := c.shares
	c.shares = make(map[string]*highest, len(members))
	reserved := make([]Member, 0, len(members))
	content, sum := true, int64(0)
	shares = make(map[string]int64, len(members))
	for _, m := range members {
		past := gone[m.Name]
		delete(gone, m.Name)
		if past == nil {
			past = &highest{}
		}
		c.shares[m.Name] = past
		m.Running = max(m.Running, past.add(now, m.Share, grace))
		reserved = append(reserved, m)
		content, sum = content && m.Wanted <= m.Share, sum+m.Share
		shares[m.Name] = m.Share
	}
	left := limit
	for name, past := range gone {
		if still := past.add(now, 0, grace); still > 0 {
			c.shares[name], left = past, left-still
		}
	}
	if content && sum <= limit {
		return shares, limit
	}
	fair := fairShares(members)
	for i, m := range reserved {
		reserved[i].Wanted, reserved[i].Limit = max(fair[m.Name], m.Running), left
	}
	possible, _ := Split(reserved)
	for _, m := range members {
		shares[m.Name] = min(fair[m.Name], possible[m.Name])
	}
	return shares, limit
}

// fairShares is Split as if nothing ran, with what nobody wants shared out, too.
func fairShares(members []Member) map[string]int64 {
	members = slices.Clone(members)
	for i := range members {
		members[i].Running = 0
	}
	wanted, limit := Split(members)
	for i, m := range members {
		members[i].Running, members[i].Wanted = wanted[m.Name], limit
	}
	all, _ := Split(members)
	return all
}

// Within returns the decision with at most a share of a group's cap.
func (d Decision) Within(group string, share, limit int64) Decision {
	if int64(d.Target) <= share {
		return d
	}
	d.Reason = oneLine("%s; capped at %d, its share of the %d of group %s", d.Reason, share, limit, group)
	d.Target, d.Constraint = int32(share), Cap
	return d
}

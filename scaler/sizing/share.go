package sizing

import (
	"cmp"
	"fmt"
	"slices"
)

// Member is one policy of a group that shares a cap.
type Member struct {
	// Name orders members: of a remainder, the first get one more.
	Name string
	// Weight is at least 1.
	Weight int64
	// Wanted replicas, limits of its own applied.
	Wanted int64
	// Running replicas, which nobody ends.
	Running int64
	// Limit is the group's cap as this member states it; the smallest counts.
	Limit int64
}

// Split shares a cap among members by weighted max-min fairness: no member can get more but from one that has, for its
// weight, less or as much. What runs is never taken away, so while a member has more running than its share, the others
// get less; what a member does not want goes to the others. The sum exceeds the cap only where what runs does already.
// It returns the shares by name, and the cap. There must be a member.
func Split(members []Member) (share map[string]int64, limit int64) {
	members = slices.Clone(members)
	limit = slices.MinFunc(members, func(a, b Member) int { return cmp.Compare(a.Limit, b.Limit) }).Limit
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	share = make(map[string]int64, len(members))
	left := limit
	for _, m := range members {
		share[m.Name] = m.Running
		left -= m.Running
	}
	// Water rises in all that still want more, one replica at a time: the lowest for its weight is next.
	for ; left > 0; left-- {
		next := -1
		for i, m := range members {
			if share[m.Name] >= m.Wanted {
				continue
			}
			// share/weight, after one more, compared without division
			if next < 0 || (share[m.Name]+1)*members[next].Weight < (share[members[next].Name]+1)*m.Weight {
				next = i
			}
		}
		if next < 0 {
			break
		}
		share[members[next].Name]++
	}
	return share, limit
}

// Within returns the decision with at most a share of a group's cap.
func (d Decision) Within(group string, share, limit int64) Decision {
	if int64(d.Target) <= share {
		return d
	}
	d.Reason = fmt.Sprintf("%s; capped at %d, its share of the %d of group %s", d.Reason, share, limit, group)
	d.Target, d.Constraint = int32(share), Cap
	return d
}

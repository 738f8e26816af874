package decision

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// shareEvery is how often the cap of a group is shared out at most: a group of thousands costs others no more for being polled often.
	shareEvery = time.Second
	// memberAge is how old the decision of another policy of a group may be before it is taken again.
	memberAge = 5 * time.Second
	// refreshes bounds how many policies of a group are asked in the background at once.
	refreshes = 16
	// settleWatched is how long after an answer replicas may be created by it that a watch of them does not show yet, and settleUnwatched the
	// same where only those are seen that consume: they must have booted.
	settleWatched, settleUnwatched = 15 * time.Second, 2 * time.Minute
)

// groupName is a group's namespace and name: policies of different namespaces never share a cap.
type groupName types.NamespacedName

func groupOf(p *policy.Policy) groupName { return groupName{p.Name.Namespace, p.Group.Name} }

// group is what is known of policies that share a cap. Locks are taken in the order of state and group.
type group struct {
	mu       sync.Mutex
	cap      sizing.SharedCap
	sharedAt time.Time
	limit    int64
	members  map[types.NamespacedName]*member
}

// member is what is known of a policy of a group.
type member struct {
	wanted, consumers int64
	decidedAt         time.Time // zero: never
	share             int64
	refreshing        bool
}

func (d *Decider) group(name groupName) *group {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.groups[name]
	if g == nil {
		g = &group{members: map[types.NamespacedName]*member{}}
		d.groups[name] = g
	}
	return g
}

// withinGroup caps a decision by the policy's share of its group's cap.
func (d *Decider) withinGroup(decided sizing.Decision, p *policy.Policy, published Published) sizing.Decision {
	g := d.group(groupOf(p))
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[p.Name]
	if m == nil {
		m = &member{}
		g.members[p.Name] = m
	}
	m.wanted, m.consumers, m.decidedAt = int64(decided.Target), decided.Observation.Consumers, decided.Time
	share, limit := int64(0), p.Group.MaxReplicas
	if d.config.Published == nil {
		d.shareOut(g, p)
		share, limit = m.share, g.limit
	} else if published.Group == p.Group.Name {
		share = published.Share
	}
	// Pods of a ScaledObject are ended by a lower target, and nobody takes from a policy what works for it.
	if d.config.Workload == nil || !d.config.Workload.OfJobs(p.Name) {
		share = max(share, m.consumers)
	}
	return decided.Within(p.Group.Name, share, limit)
}

// shareOut shares a group's cap out again, if it is time to. P is one of its policies. The group is locked.
func (d *Decider) shareOut(g *group, p *policy.Policy) {
	now := d.config.Now()
	if !g.sharedAt.IsZero() && now.Sub(g.sharedAt).Abs() < shareEvery {
		return
	}
	g.sharedAt = now
	policies := d.config.Policies.Group(p)
	members, known := make([]sizing.Member, 0, len(policies)), make(map[types.NamespacedName]*member, len(policies))
	settle, refreshing := settleWatched, 0
	for _, p := range policies {
		m := g.members[p.Name]
		if m == nil {
			m = &member{}
		}
		known[p.Name] = m
		// One that never answered counts as wanting all that it may have.
		counted := sizing.Member{
			Name: p.Name.Name, Weight: p.Group.Weight, Wanted: m.wanted, Running: m.consumers, Share: m.share, Limit: p.Group.MaxReplicas,
		}
		if m.decidedAt.IsZero() {
			counted.Wanted = int64(p.Calendar.Limits(now).MaxReplicas)
		}
		if running, watched := d.unfinished(p.Name); watched {
			counted.Running = running
		} else {
			settle = settleUnwatched
		}
		if published := d.published(p.Name); published.Group == p.Group.Name {
			counted.Share = max(published.Share, m.share)
		}
		members = append(members, counted)
		if m.refreshing {
			refreshing++
		} else if now.Sub(m.decidedAt).Abs() > memberAge && refreshing < refreshes {
			m.refreshing = true
			refreshing++
			d.refresh(g, m, p.Name)
		}
	}
	g.members = known
	if len(members) == 0 { // all were deleted meanwhile
		return
	}
	shares, limit := g.cap.Share(now, settle, members)
	g.limit = limit
	for name, m := range known {
		m.share = shares[name.Name]
	}
}

func (d *Decider) unfinished(name types.NamespacedName) (n int64, known bool) {
	if d.config.Workload == nil {
		return 0, false
	}
	return d.config.Workload.Unfinished(name)
}

// refresh takes a decision that nobody asked for, in the background: nobody waits for the broker of another policy.
func (d *Decider) refresh(g *group, m *member, name types.NamespacedName) {
	d.config.Recorder.Guard("group", func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			m.refreshing = false
		}()
		_, _ = d.Decide(context.Background(), name) // its own triggers report what is wrong with it
	})
}

// ShareOut works out, until ctx ends, which share of their groups' caps policies should have, and calls changed for each whose published share
// is another one. Only the leader of the replicas may do so. What the leader before it has answered last is waited for.
func (d *Decider) ShareOut(ctx context.Context, changed func(types.NamespacedName)) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	began := d.config.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.shareOutAll(d.config.Now().Sub(began) < settleWatched, changed)
		}
	}
}

// shareOutAll shares the caps of all groups out. Freshly tells that another replica may have led a moment ago: groups that have shares already wait then.
func (d *Decider) shareOutAll(freshly bool, changed func(types.NamespacedName)) {
	done := map[groupName]bool{}
	for _, name := range d.config.Policies.Names() {
		p, _, _ := d.config.Policies.Get(name)
		if p == nil || p.Group == nil || done[groupOf(p)] {
			continue
		}
		done[groupOf(p)] = true
		if freshly && d.wasShared(p) {
			continue
		}
		g := d.group(groupOf(p))
		g.mu.Lock()
		d.shareOut(g, p)
		var moved []types.NamespacedName
		for name, m := range g.members {
			if published := d.published(name); published.Group != p.Group.Name || published.Share != m.share {
				moved = append(moved, name)
			}
		}
		g.mu.Unlock()
		for _, name := range moved {
			changed(name)
		}
	}
}

// wasShared reports whether a policy of p's group has a share of its cap.
func (d *Decider) wasShared(p *policy.Policy) bool {
	return slices.ContainsFunc(d.config.Policies.Group(p), func(member *policy.Policy) bool {
		return d.published(member.Name).Group == p.Group.Name
	})
}

// ShareOf returns the share of its group's cap that a policy should have, as ShareOut found it, and false where there is none yet.
func (d *Decider) ShareOf(p *policy.Policy) (share int64, known bool) {
	if p.Group == nil {
		return 0, false
	}
	g := d.group(groupOf(p))
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[p.Name]
	if m == nil || g.sharedAt.IsZero() {
		return 0, false
	}
	return m.share, true
}

// leaveGroups drops a deleted policy from its group, and the group with its last one.
func (d *Decider) leaveGroups(name types.NamespacedName) {
	d.mu.Lock()
	own := map[groupName]*group{}
	for key, g := range d.groups {
		if key.Namespace == name.Namespace {
			own[key] = g
		}
	}
	d.mu.Unlock()
	for key, g := range own {
		g.mu.Lock()
		delete(g.members, name)
		empty := len(g.members) == 0
		g.mu.Unlock()
		if empty {
			d.mu.Lock()
			delete(d.groups, key)
			d.mu.Unlock()
		}
	}
}

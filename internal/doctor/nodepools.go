package doctor

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// shortestExpiry is how long a node should live at least: scans of a day are not unusual.
const shortestExpiry = 24 * time.Hour

// longestEmpty is how long an empty node should stay at most. Longer times cost more than they save in waits: docs/concepts/karpenter.md.
const longestEmpty = 2 * time.Minute

// nodePoolChecks are of Karpenter's NodePools.
func nodePoolChecks() []Check {
	return []Check{
		{
			ID: "EBB209", Severity: Warning, Title: "NodePool that keeps empty nodes",
			Why: "Packing empties nodes; only their removal saves money.",
			Fix: "set spec.disruption.consolidateAfter to at most 2m, such as 30s, and let a budget allow the disruption of empty nodes",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, pool := range o.of("NodePool") {
					after := text(pool.Object, "spec", "disruption", "consolidateAfter")
					if d, err := time.ParseDuration(after); after == "Never" || err == nil && d > longestEmpty {
						found(pool, "consolidateAfter is %s", after)
					}
					for _, budget := range list(pool.Object, "spec", "disruption", "budgets") {
						nodes, reasons := text(budget, "nodes"), texts(budget, "reasons")
						if (nodes == "0" || nodes == "0%") && text(budget, "schedule") == "" && (len(reasons) == 0 || slices.Contains(reasons, "Empty")) {
							found(pool, "a budget of %s nodes at all times allows no node to be removed", nodes)
						}
					}
				}
			},
		},
		{
			ID: "EBB210", Severity: Error, Title: "nodes that expire under scans",
			Why: "Karpenter drains a node when its age reaches expireAfter, even if scans run there, and the scans start again.",
			Fix: "set spec.template.spec.expireAfter to 720h, the default, or to Never",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, pool := range o.of("NodePool") {
					after := text(pool.Object, "spec", "template", "spec", "expireAfter")
					if d, err := time.ParseDuration(after); err == nil && d < shortestExpiry {
						found(pool, "its nodes expire after %s", after)
					}
				}
			},
		},
		{
			ID: "EBB211", Severity: Warning, Title: "NodePools too small for the policy's cap",
			Why: "Pods beyond the limits stay pending: the target is never reached, and messages wait.",
			Fix: "raise the NodePools' limits, or lower the policy's maxReplicas",
			find: func(o *objects, found func(Object, string, ...any)) {
				pools := o.of("NodePool")
				for _, name := range []string{"cpu", "memory"} {
					var limit resource.Quantity
					bounded := len(pools) > 0
					for _, pool := range pools {
						q, err := resource.ParseQuantity(text(pool.Object, "spec", "limits", name))
						bounded = bounded && err == nil
						limit.Add(q)
					}
					for _, job := range o.ourScaledJobs() {
						ours, _ := triggers(job)
						policy, ok := o.get("ScalingPolicy", job.GetNamespace(), text(ours[0], "metadata", "policy"))
						if !ok || !bounded {
							continue
						}
						var pod resource.Quantity
						for _, c := range list(job.Object, "spec", "jobTargetRef", "template", "spec", "containers") {
							if q, err := resource.ParseQuantity(text(c, "resources", "requests", name)); err == nil {
								pod.Add(q)
							}
						}
						most := number(cmp.Or(text(policy.Object, "spec", "target", "maxReplicas"), "100"))
						if pod.AsApproximateFloat64()*float64(most) > limit.AsApproximateFloat64() {
							found(pools[0], "%d replicas of policy %s, at %s of %s each, do not fit into %s of all NodePools", most, policy.GetName(), pod.String(), name, limit.String())
						}
					}
				}
			},
		},
	}
}

// profileChecks are of the scheduler's profiles.
func profileChecks() []Check {
	return []Check{{
		ID: "EBB212", Severity: Error, Title: "scheduler profile with half of DrainPack",
		Why: "DrainPack needs other extension points to learn, and to evaluate all nodes before preemption.",
		Fix: "enable DrainPack under plugins.multiPoint, and under plugins.postFilter before DefaultPreemption",
		find: func(o *objects, found func(Object, string, ...any)) {
			for _, object := range o.of("ConfigMap", "KubeSchedulerConfiguration") {
				for _, config := range schedulerConfigs(object) {
					for _, profile := range list(config, "profiles") {
						if !enables(profile, "DrainPack", "score", "preFilter", "filter", "postFilter", "multiPoint") {
							continue
						}
						name := text(profile, "schedulerName")
						if !enables(profile, "DrainPack", "multiPoint") {
							found(object, "profile %s enables DrainPack at some extension points, and not under multiPoint", name)
						}
						var order []string
						for _, p := range list(profile, "plugins", "postFilter", "enabled") {
							order = append(order, text(p, "name"))
						}
						preemption, ours := slices.Index(order, "DefaultPreemption"), slices.Index(order, "DrainPack")
						if preemption >= 0 && (ours < 0 || preemption < ours) {
							found(object, "profile %s has DefaultPreemption before DrainPack under postFilter", name)
						}
					}
				}
			}
		},
	}}
}

// enables is true for a profile that enables a plugin at one of some extension points.
func enables(profile map[string]any, plugin string, points ...string) bool {
	return slices.ContainsFunc(points, func(point string) bool {
		return slices.ContainsFunc(list(profile, "plugins", point, "enabled"), func(p map[string]any) bool { return text(p, "name") == plugin })
	})
}

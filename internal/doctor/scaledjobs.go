package doctor

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// scaledJobChecks are of what KEDA is told.
func scaledJobChecks() []Check {
	return []Check{
		{
			ID: "EBB001", Severity: Error, Title: "strategy other than default",
			Why: "The scaler reports how many unfinished jobs should exist. Only the strategy `default` subtracts the existing ones; others start jobs for messages that already have one.",
			Fix: "set spec.scalingStrategy.strategy: default",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					if strategy := text(job.Object, "spec", "scalingStrategy", "strategy"); strategy != "" && strategy != "default" {
						found(job, "strategy %s starts jobs for messages that have one", strategy)
					}
				}
			},
		},
		{
			ID: "EBB002", Severity: Error, Title: "minReplicaCount on top of the policy's floor",
			Why: "KEDA adds minReplicaCount to the target of a trigger: 20 and a target of 100 are 120 jobs.",
			Fix: "remove spec.minReplicaCount; set floors with the policy's minReplicas",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					if least := text(job.Object, "spec", "minReplicaCount"); least != "" && least != "0" {
						found(job, "minReplicaCount %s is added to every target of the policy", least)
					}
				}
			},
		},
		{
			ID: "EBB003", Severity: Error, Title: "rollout that kills running jobs",
			Why: "Unless the rollout strategy is `gradual`, KEDA deletes running jobs whenever the ScaledJob is edited.",
			Fix: "set spec.rollout.strategy: gradual",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob") {
					if text(job.Object, "spec", "rollout", "strategy") != "gradual" && text(job.Object, "spec", "rolloutStrategy") != "gradual" {
						found(job, "the next edit deletes the jobs that run")
					}
				}
			},
		},
		{
			ID: "EBB004", Severity: Warning, Title: "maxReplicaCount below the policy's cap",
			Why: "KEDA starts no more than maxReplicaCount, regardless of the policy; the default is 100.",
			Fix: "set spec.maxReplicaCount to the policy's maxReplicas or more; the policy caps",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					if len(ours) == 0 {
						continue
					}
					bound := text(job.Object, "spec", "maxReplicaCount")
					policy, known := o.get("ScalingPolicy", job.GetNamespace(), text(ours[0], "metadata", "policy"))
					limit := number(cmp.Or(text(content(policy), "spec", "target", "maxReplicas"), "100"))
					switch {
					case known && number(cmp.Or(bound, "100")) < limit:
						found(job, "maxReplicaCount is %s, and the cap of policy %s is %d", cmp.Or(bound, "100 (the default)"), policy.GetName(), limit)
					case bound == "" && job.GetKind() == "ScaledJob":
						found(job, "maxReplicaCount is not set: KEDA starts no more than 100 jobs")
					}
				}
			},
		},
		{
			ID: "EBB005", Severity: Error, Title: "schedule in trigger metadata",
			Why: "A cron trigger next to Ebbtide's is another floor, without holidays, and its window may never close. Any edit of a trigger can restart jobs.",
			Fix: "remove the cron trigger, or the keys, and move the schedule to the policy's calendar",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, all := triggers(job)
					if len(ours) == 0 {
						continue
					}
					for _, t := range all {
						if text(t, "type") == "cron" {
							found(job, "a cron trigger next to Ebbtide's")
						}
						for _, key := range []string{"start", "end", "timezone", "desiredReplicas", "minReplicas", "maxReplicas"} {
							if text(t, "type") != "cron" && text(t, "metadata", key) != "" {
								found(job, "%s in the trigger's metadata means nothing to the scaler, which refuses it", key)
							}
						}
					}
				}
			},
		},
		{
			ID: "EBB006", Severity: Warning, Title: "scaler behind a ClusterIP",
			Why: "KEDA keeps one connection: through a ClusterIP, all its calls go to one replica of the scaler, and hang if it hangs.",
			Fix: "make the Service headless (clusterIP: None) and scalerAddress dns:///NAME.NAMESPACE:PORT",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					for _, t := range ours {
						address := text(t, "metadata", "scalerAddress")
						host, _, _ := strings.Cut(strings.TrimPrefix(address, "dns:///"), ":")
						name, rest, dotted := strings.Cut(host, ".")
						namespace, _, _ := strings.Cut(rest, ".")
						if service, ok := o.get("Service", namespace, name); ok && text(service.Object, "spec", "clusterIP") != "None" {
							found(job, "scalerAddress %s is Service %s/%s, which is not headless", address, service.GetNamespace(), name)
						} else if dotted && !strings.HasPrefix(address, "dns:///") && strings.Count(host, ".") != 3 {
							found(job, "scalerAddress %s is resolved once: without dns:/// only one replica is called", address)
						}
					}
				}
			},
		},
		{
			ID: "EBB007", Severity: Error, Title: "trigger without its policy",
			Why: "The scaler answers NotFound, and KEDA starts no jobs.",
			Fix: "create the ScalingPolicy in the same namespace, or correct the trigger's metadata.policy",
			find: func(o *objects, found func(Object, string, ...any)) {
				if len(o.of("ScalingPolicy")) == 0 && !o.scope.Cluster {
					return // they are elsewhere
				}
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					for _, t := range ours {
						if _, ok := o.get("ScalingPolicy", job.GetNamespace(), text(t, "metadata", "policy")); !ok && (!o.scope.Cluster || o.absent("scalingpolicies", job.GetNamespace())) {
							found(job, "there is no ScalingPolicy %s/%s", job.GetNamespace(), text(t, "metadata", "policy"))
						}
					}
				}
			},
		},
		{
			ID: "EBB008", Severity: Warning, Title: "KEDA is not authenticated",
			Why: "Anyone who reaches the scaler can query any policy, because the namespace in a request is only the caller's claim.",
			Fix: "add an authenticationRef to a TriggerAuthentication with caCert, tlsClientCert and tlsClientKey, and start the scaler with --tls-client-ca",
			find: func(o *objects, found func(Object, string, ...any)) {
				if o.mutualTLS() {
					return // it is worse than that: EBB010
				}
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					if slices.ContainsFunc(ours, func(t map[string]any) bool { return text(t, "authenticationRef", "name") == "" }) {
						found(job, "its trigger has no authenticationRef")
					}
				}
			},
		},
		{
			ID: "EBB009", Severity: Error, Title: "two ScaledJobs for one queue",
			Why: "Each starts a job for every message, because KEDA counts the jobs of each separately: half of them find no message.",
			Fix: "use a separate queue and policy for each kind of work, or one ScaledJob for both",
			find: func(o *objects, found func(Object, string, ...any)) {
				startedBy := map[backlog]Object{}
				for _, job := range o.ourScaledJobs() {
					ours, _ := triggers(job)
					for _, t := range ours {
						for _, b := range o.backlogs(job.GetNamespace(), text(t, "metadata", "policy")) {
							other, taken := startedBy[b]
							if taken && (other.GetNamespace() != job.GetNamespace() || other.GetName() != job.GetName()) {
								found(job, "ScaledJob %s/%s starts jobs for %s, too", other.GetNamespace(), other.GetName(), b.name)
								break // once is enough
							}
							startedBy[b] = job
						}
					}
				}
			},
		},
	}
}

// backlog is what jobs are started for, and where: that may hold a password.
type backlog struct{ name, where string }

// backlogs are the queues that a policy reads, and the policy itself where it does not say which.
func (o *objects) backlogs(namespace, name string) []backlog {
	var rabbitmq map[string]any
	if policy, ok := o.get("ScalingPolicy", namespace, name); ok {
		rabbitmq, _, _ = unstructured.NestedMap(policy.Object, "spec", "backlog", "rabbitmq")
	}
	queues := texts(rabbitmq, "queues")
	if queue := text(rabbitmq, "queue"); queue != "" {
		queues = append(queues, queue)
	}
	if len(queues) == 0 {
		return []backlog{{"ScalingPolicy " + name, namespace}}
	}
	where := text(rabbitmq, "uri")
	if text(rabbitmq, "uri", "value") == "" { // a reference means what it means in its namespace
		where += " " + namespace
	}
	var all []backlog
	for _, queue := range queues {
		all = append(all, backlog{"queue " + queue, where})
	}
	return all
}

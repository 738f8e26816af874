package doctor

import (
	"slices"
	"strings"
)

// scaledJobChecks are of what KEDA is told.
func scaledJobChecks() []Check {
	return []Check{
		{
			ID: "EBB001", Severity: Error, Title: "strategy other than default",
			Why: "The scaler reports how many unfinished jobs there should be. Only strategy `default` subtracts those that exist; any other " +
				"starts jobs for messages that have one.",
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
			Why: "KEDA adds minReplicaCount to what a trigger asks for: 20 and a target of 100 are 120 jobs.",
			Fix: "remove spec.minReplicaCount; floors are the policy's minReplicas",
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
			ID: "EBB004", Severity: Warning, Title: "maxReplicaCount not set",
			Why: "Unset it is 100, whatever the policy's maxReplicas say.",
			Fix: "set spec.maxReplicaCount above the policy's maxReplicas, 1000 say; the policy caps",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					if text(job.Object, "spec", "maxReplicaCount") == "" {
						found(job, "KEDA starts no more than 100 jobs")
					}
				}
			},
		},
		{
			ID: "EBB005", Severity: Error, Title: "schedule in trigger metadata",
			Why: "A cron trigger beside Ebbtide's counts as another floor that knows no holidays, and its window may never close; and any edit of " +
				"a trigger can restart jobs.",
			Fix: "remove the cron trigger, or the keys, and put the schedule into the policy's calendar",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, all := triggers(job)
					if len(ours) == 0 {
						continue
					}
					for _, t := range all {
						if text(t, "type") == "cron" {
							found(job, "a cron trigger stands beside Ebbtide's")
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
			Why: "KEDA keeps one connection: through a ClusterIP all its calls go to one replica of the scaler, and hang with it.",
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
			Why: "The scaler answers NotFound, and KEDA starts nothing.",
			Fix: "create the ScalingPolicy in the same namespace, or correct the trigger's metadata.policy",
			find: func(o *objects, found func(Object, string, ...any)) {
				if len(o.of("ScalingPolicy")) == 0 {
					return // they are elsewhere
				}
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					for _, t := range ours {
						if _, ok := o.get("ScalingPolicy", job.GetNamespace(), text(t, "metadata", "policy")); !ok {
							found(job, "there is no ScalingPolicy %s/%s", job.GetNamespace(), text(t, "metadata", "policy"))
						}
					}
				}
			},
		},
		{
			ID: "EBB008", Severity: Warning, Title: "KEDA is not authenticated",
			Why: "Whoever reaches the scaler may ask for any policy: the namespace in a request is the caller's claim.",
			Fix: "add an authenticationRef to a TriggerAuthentication with caCert, tlsClientCert and tlsClientKey, and start the scaler with --tls-client-ca",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.of("ScaledJob", "ScaledObject") {
					ours, _ := triggers(job)
					if slices.ContainsFunc(ours, func(t map[string]any) bool { return text(t, "authenticationRef", "name") == "" }) {
						found(job, "its trigger has no authenticationRef")
					}
				}
			},
		},
	}
}

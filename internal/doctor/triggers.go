package doctor

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// scalers are the Deployments of the scaler.
func (o *objects) scalers() []Object {
	var found []Object
	for _, d := range o.of("Deployment") {
		if d.GetName() == "ebbtide-scaler" || d.GetLabels()["app.kubernetes.io/name"] == "ebbtide-scaler" {
			found = append(found, d)
		}
	}
	return found
}

// mutualTLS is true if a scaler that is there asks its clients for certificates.
func (o *objects) mutualTLS() bool {
	return slices.ContainsFunc(o.scalers(), func(d Object) bool {
		return slices.ContainsFunc(list(d.Object, "spec", "template", "spec", "containers"), func(c map[string]any) bool {
			words := append(texts(c, "command"), texts(c, "args")...)
			return slices.ContainsFunc(words, func(word string) bool {
				return word == "--tls-client-ca" || strings.HasPrefix(word, "--tls-client-ca=")
			})
		})
	})
}

// serviceOf is the Service that an address names, as far as a name of a cluster can be told.
func serviceOf(address, namespace string) (name, in string, ok bool) {
	host, _, _ := strings.Cut(strings.TrimPrefix(address, "dns:///"), ":")
	parts := strings.Split(host, ".")
	switch {
	case host == "" || strings.Trim(host, "0123456789.") == "":
		return "", "", false
	case len(parts) == 1:
		return parts[0], namespace, true
	case len(parts) == 2 || parts[2] == "svc":
		return parts[0], parts[1], true
	}
	return "", "", false
}

// triggerChecks are of triggers and of what they need to be answered.
func triggerChecks() []Check {
	eachTrigger := func(o *objects, f func(job Object, trigger map[string]any)) {
		for _, job := range o.of("ScaledJob", "ScaledObject") {
			ours, _ := triggers(job)
			for _, t := range ours {
				f(job, t)
			}
		}
	}
	return []Check{
		{
			ID: "EBB010", Severity: Error, Title: "trigger that cannot authenticate",
			Why: "The scaler refuses calls without a client certificate. KEDA hides that: the ScaledJob is Ready, and no job starts.",
			Fix: "add authenticationRef: {kind: ClusterTriggerAuthentication, name: ebbtide-scaler}, or a TriggerAuthentication with caCert, tlsClientCert and tlsClientKey",
			find: func(o *objects, found func(Object, string, ...any)) {
				eachTrigger(o, func(job Object, t map[string]any) {
					name := text(t, "authenticationRef", "name")
					if name == "" {
						if o.mutualTLS() {
							found(job, "its trigger has no authenticationRef, and the scaler asks for a client certificate")
						}
						return
					}
					kind := cmp.Or(text(t, "authenticationRef", "kind"), "TriggerAuthentication")
					namespace := job.GetNamespace()
					if kind == "ClusterTriggerAuthentication" {
						namespace = ""
					}
					authentication, there := o.get(kind, namespace, name)
					if !there {
						if o.absent(strings.ToLower(kind)+"s", namespace) {
							found(job, "there is no %s %s", kind, name)
						}
						return
					}
					var has []string
					for _, source := range []string{"secretTargetRef", "configMapTargetRef", "env"} {
						for _, p := range list(authentication.Object, "spec", source) {
							has = append(has, text(p, "parameter"))
						}
					}
					_, vault := nested(authentication.Object, "spec", "hashiCorpVault")
					for _, parameter := range []string{"caCert", "tlsClientCert", "tlsClientKey"} {
						if o.mutualTLS() && !vault && !slices.Contains(has, parameter) {
							found(job, "%s %s has no %s, and the scaler asks for a client certificate", kind, name, parameter)
							return
						}
					}
				})
			},
		},
		{
			ID: "EBB011", Severity: Error, Title: "metricType Value",
			Why: "The scaler reports how many replicas there should be. Only AverageValue, the default, creates that number; Value multiplies it with the running ones.",
			Fix: "remove metricType from the trigger",
			find: func(o *objects, found func(Object, string, ...any)) {
				eachTrigger(o, func(job Object, t map[string]any) {
					if kind := text(t, "metricType"); kind != "" && kind != "AverageValue" {
						found(job, "its trigger has metricType %s", kind)
					}
				})
			},
		},
		{
			ID: "EBB012", Severity: Warning, Title: "cached metrics",
			Why: "With useCachedMetrics the autoscaler gets targets that are up to a polling interval old. The scaler shares its samples anyway.",
			Fix: "remove useCachedMetrics from the trigger",
			find: func(o *objects, found func(Object, string, ...any)) {
				eachTrigger(o, func(job Object, t map[string]any) {
					if text(t, "useCachedMetrics") == "true" {
						found(job, "its trigger has useCachedMetrics")
					}
				})
			},
		},
		{
			ID: "EBB013", Severity: Error, Title: "ScaledObject that never scales in",
			Why: "Without the management API the scaler does not know which consumers are idle: each counts as busy, and the number of workers never falls.",
			Fix: "set managementURI of the policy's rabbitmq",
			find: func(o *objects, found func(Object, string, ...any)) {
				eachTrigger(o, func(job Object, t map[string]any) {
					if job.GetKind() != "ScaledObject" {
						return
					}
					policy, ok := o.get("ScalingPolicy", job.GetNamespace(), text(t, "metadata", "policy"))
					if !ok {
						return
					}
					rabbitmq, isRabbitMQ, _ := unstructured.NestedMap(policy.Object, "spec", "backlog", "rabbitmq")
					if isRabbitMQ && rabbitmq["managementURI"] == nil {
						found(job, "policy %s has no managementURI", policy.GetName())
					}
				})
			},
		},
		{
			ID: "EBB014", Severity: Error, Title: "scaler that does not exist",
			Why: "KEDA gets no answer and starts no jobs.",
			Fix: "install Ebbtide, start its replicas, or correct the trigger's scalerAddress",
			find: func(o *objects, found func(Object, string, ...any)) {
				eachTrigger(o, func(job Object, t map[string]any) {
					address := text(t, "metadata", "scalerAddress")
					name, namespace, ok := serviceOf(address, job.GetNamespace())
					if !ok || !o.absent("services", namespace) {
						return
					}
					if _, there := o.get("Service", namespace, name); !there {
						found(job, "scalerAddress %s: there is no Service %s/%s", address, namespace, name)
					}
				})
				for _, d := range o.scalers() {
					if o.scope.Cluster && number(text(d.Object, "status", "availableReplicas")) == 0 {
						found(d, "none of its replicas is available")
					}
				}
				crd := &unstructured.Unstructured{Object: map[string]any{"kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "scalingpolicies.ebbtide.dev"}}}
				if slices.Contains(o.scope.Unknown, "scalingpolicies") {
					found(Object{crd, ""}, "the cluster does not know ScalingPolicies: Ebbtide is not installed")
				}
			},
		},
	}
}

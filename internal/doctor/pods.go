package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// template is a pod template and whose it is.
type template struct {
	Object
	spec, metadata map[string]any
}

// templates of what runs scans: ScaledJobs, and what our ScaledObjects scale.
func (o *objects) templates() []template {
	var found []template
	add := func(object Object, path ...string) {
		at := func(field string) map[string]any {
			m, _ := nested(object.Object, append(append([]string{}, path...), field)...)
			return m
		}
		found = append(found, template{object, at("spec"), at("metadata")})
	}
	for _, job := range o.of("ScaledJob") {
		add(job, "spec", "jobTargetRef", "template")
	}
	for _, scaled := range o.of("ScaledObject") {
		if ours, _ := triggers(scaled); len(ours) == 0 {
			continue
		}
		kind := cmp.Or(text(scaled.Object, "spec", "scaleTargetRef", "kind"), "Deployment")
		if target, ok := o.get(kind, scaled.GetNamespace(), text(scaled.Object, "spec", "scaleTargetRef", "name")); ok {
			add(target, "spec", "template")
		}
	}
	return found
}

func nested(content map[string]any, path ...string) (map[string]any, bool) {
	for _, step := range path {
		next, ok := content[step].(map[string]any)
		if !ok {
			return nil, false
		}
		content = next
	}
	return content, true
}

// podChecks are of the pods that work.
func podChecks() []Check {
	return []Check{
		{
			ID: "EBB101", Severity: Error, Title: "worker with prefetch above 1, or basic.get",
			Why: "The scaler counts one message for each consumer. A consumer with prefetch holds messages that others could work on, and a worker that polls with basic.get is not a consumer.",
			Fix: "consume with a prefetch of 1 and manual acknowledgement, as ebbtide-worker does",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, t := range o.templates() {
					for _, c := range list(t.spec, "containers") {
						if n := prefetch(c); n > 1 {
							found(t.Object, "container %s prefetches %d messages", text(c, "name"), n)
						}
						words := strings.Join(append(texts(c, "command"), texts(c, "args")...), " ")
						if strings.Contains(words, "basic.get") || strings.Contains(words, "basic_get") || strings.Contains(words, "rabbitmqadmin get") {
							found(t.Object, "container %s takes messages by basic.get", text(c, "name"))
						}
					}
				}
			},
		},
		{
			ID: "EBB102", Severity: Error, Title: "no idle timeout under a floor",
			Why: "A floor keeps workers that wait for a message. They are not killed when the floor falls: without an idle timeout, they and their nodes stay.",
			Fix: "set --idle-timeout of ebbtide-worker, for example 15m",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					ours, _ := triggers(job)
					policy, ok := o.get("ScalingPolicy", job.GetNamespace(), text(ours[0], "metadata", "policy"))
					if !ok || !hasFloor(policy) {
						continue
					}
					for _, c := range list(job.Object, "spec", "jobTargetRef", "template", "spec", "containers") {
						if timeout, worker := idleTimeout(c); worker && (timeout == "0" || timeout == "0s") {
							found(job, "container %s waits for ever, and policy %s has a floor", text(c, "name"), policy.GetName())
						}
					}
				}
			},
		},
		{
			ID: "EBB103", Severity: Warning, Title: "pods without requests",
			Why: "A pod without requests fits everywhere: it is placed on full nodes, no node is created for it, and packing can't account for it.",
			Fix: "set resources.requests.cpu and .memory of every container",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, t := range o.templates() {
					for _, c := range list(t.spec, "containers") {
						for _, resource := range []string{"cpu", "memory"} {
							if text(c, "resources", "requests", resource) == "" && text(c, "resources", "limits", resource) == "" {
								found(t.Object, "container %s requests no %s", text(c, "name"), resource)
							}
						}
					}
				}
			},
		},
		{
			ID: "EBB104", Severity: Warning, Title: "topology spread that fights packing",
			Why: "Pods that are spread over hosts keep every host alive.",
			Fix: "remove topologySpreadConstraints by kubernetes.io/hostname from scan pods; spread services, not scans",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, t := range o.templates() {
					for _, c := range list(t.spec, "topologySpreadConstraints") {
						if text(c, "topologyKey") == "kubernetes.io/hostname" {
							found(t.Object, "its pods are spread over hosts (%s)", text(c, "whenUnsatisfiable"))
						}
					}
				}
			},
		},
		{
			ID: "EBB105", Severity: Warning, Title: "job that Kubernetes also retries",
			Why: "The broker delivers a message again when its worker dies. A backoffLimit also starts a second worker for it.",
			Fix: "set spec.jobTargetRef.backoffLimit: 0; the queue's delivery limit limits the attempts",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					if limit := cmp.Or(text(job.Object, "spec", "jobTargetRef", "backoffLimit"), "6"); limit != "0" {
						found(job, "backoffLimit is %s", limit)
					}
				}
			},
		},
		{
			ID: "EBB110", Severity: Warning, Title: "grace period that is too long",
			Why: "A spot node ends two minutes after its notice, and a pod is killed after terminationGracePeriodSeconds. A worker with a longer grace period can't requeue its message: the broker must first notice the lost connection, and the work of the scan is lost.",
			Fix: "set --grace-period of ebbtide-worker to 100s, and terminationGracePeriodSeconds to ten more; on other nodes, as long as a scan",
			find: func(o *objects, found func(Object, string, ...any)) {
				const podDefault = 30 * time.Second // of Kubernetes
				for _, t := range o.templates() {
					pod := podDefault
					if seconds, err := strconv.Atoi(text(t.spec, "terminationGracePeriodSeconds")); err == nil {
						pod = time.Duration(seconds) * time.Second
					}
					if why := o.spot(t); why != "" && pod > spotNotice {
						found(t.Object, "its pods may take %s to end, and a spot node is gone after %s (%s)", pod, spotNotice, why)
						continue
					}
					for _, c := range list(t.spec, "containers") {
						value, worker := workerFlag(c, "--grace-period")
						if grace, err := time.ParseDuration(value); worker && err == nil && grace >= pod {
							found(t.Object, "container %s lets a scan run for %s after SIGTERM, and its pod is killed after %s", text(c, "name"), grace, pod)
						}
					}
				}
			},
		},
	}
}

// spotNotice is how long a spot node has left when it is told, on AWS. Elsewhere it is 30 seconds.
const spotNotice = 2 * time.Minute

// spot says why pods of a template may be on spot nodes, or nothing.
func (o *objects) spot(t template) string {
	selector, _ := nested(t.spec, "nodeSelector")
	for label, value := range map[string]string{
		"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT", "cloud.google.com/gke-spot": "true",
		"kubernetes.azure.com/scalesetpriority": "spot",
	} {
		if fmt.Sprint(selector[label]) == value {
			return "nodeSelector " + label
		}
	}
	for _, pool := range o.of("NodePool") {
		labels, _ := nested(pool.Object, "spec", "template", "metadata", "labels")
		chosen := false
		for label, value := range labels {
			chosen = chosen || selector[label] != nil && fmt.Sprint(selector[label]) == fmt.Sprint(value)
		}
		for _, r := range list(pool.Object, "spec", "template", "spec", "requirements") {
			if chosen && text(r, "key") == "karpenter.sh/capacity-type" && slices.Contains(texts(r, "values"), "spot") {
				return "NodePool " + pool.GetName()
			}
		}
	}
	return ""
}

// prefetch that a container's arguments or environment set; 0 when they do not.
func prefetch(container map[string]any) int {
	words := append(texts(container, "command"), texts(container, "args")...)
	for i, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !strings.Contains(strings.ToLower(name), "prefetch") {
			continue
		}
		if !ok && i+1 < len(words) {
			value = words[i+1]
		}
		if n, err := strconv.Atoi(value); err == nil {
			return n
		}
	}
	for _, e := range list(container, "env") {
		if strings.Contains(strings.ToUpper(text(e, "name")), "PREFETCH") {
			if n, err := strconv.Atoi(text(e, "value")); err == nil {
				return n
			}
		}
	}
	return 0
}

// idleTimeout of a container of ours; worker is false for another's.
func idleTimeout(container map[string]any) (timeout string, worker bool) {
	return workerFlag(container, "--idle-timeout")
}

// workerFlag is the value of a flag of a container of ours; worker is false for another's.
func workerFlag(container map[string]any, flag string) (value string, worker bool) {
	words := append(texts(container, "command"), texts(container, "args")...)
	for i, word := range words {
		worker = worker || strings.HasSuffix(word, "ebbtide-worker")
		if given, ok := strings.CutPrefix(word, flag+"="); ok {
			value = given
		} else if word == flag && i+1 < len(words) {
			value = words[i+1]
		}
	}
	return value, worker
}

// hasFloor is true for a policy that keeps replicas without work at some time.
func hasFloor(policy Object) bool {
	limits := []map[string]any{}
	if m, ok := nested(policy.Object, "spec", "calendar", "default"); ok {
		limits = append(limits, m)
	}
	for _, p := range list(policy.Object, "spec", "calendar", "periods") {
		if m, ok := nested(p, "limits"); ok {
			limits = append(limits, m)
		}
	}
	for _, l := range limits {
		for _, field := range []string{"minReplicas", "idleReplicas"} {
			if v := fmt.Sprint(l[field]); l[field] != nil && v != "0" {
				return true
			}
		}
	}
	return false
}

package doctor

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// number that a text is; 0 where it is none.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// lastBegin is how long after its start a worker of a pod may still begin a scan, plus the time limit of that scan; bounded is false if nothing limits
// the first, or if there is no worker of ours.
func lastBegin(pod map[string]any) (after time.Duration, bounded bool) {
	for _, c := range list(pod, "containers") {
		// An unset flag has the worker's default.
		flag := func(name, unset string) time.Duration {
			value, _ := workerFlag(c, name)
			d, err := time.ParseDuration(cmp.Or(value, unset))
			if err != nil {
				return 0
			}
			return d
		}
		messages, worker := workerFlag(c, "--max-messages")
		if !worker {
			continue
		}
		lifetime := flag("--max-lifetime", "0s")
		if cmp.Or(messages, "1") == "1" {
			waits := flag("--idle-timeout", "1m")
			if waits > 0 {
				waits = max(waits, flag("--stay", "0s"))
			}
			if lifetime == 0 || waits > 0 && waits < lifetime {
				lifetime = waits
			}
		}
		return lifetime + flag("--scan-timeout", "0s"), lifetime > 0
	}
	return 0, false
}

// jobChecks are of Jobs, and of what happens to pods.
func jobChecks() []Check {
	jobs := func(find func(job Object, spec map[string]any, found func(Object, string, ...any))) func(*objects, func(Object, string, ...any)) {
		return func(o *objects, found func(Object, string, ...any)) {
			for _, job := range o.ourScaledJobs() {
				if spec, ok := nested(job.Object, "spec", "jobTargetRef"); ok {
					find(job, spec, found)
				}
			}
		}
	}
	return []Check{
		{
			ID: "EBB106", Severity: Error, Title: "Jobs of several pods",
			Why: "KEDA counts Jobs, and the scaler requests one for each message: with a parallelism of 4, each message has four workers.",
			Fix: "remove parallelism and completions from spec.jobTargetRef, or set them to 1",
			find: jobs(func(job Object, spec map[string]any, found func(Object, string, ...any)) {
				for _, field := range []string{"parallelism", "completions"} {
					if n := cmp.Or(text(spec, field), "1"); n != "1" {
						found(job, "%s is %s", field, n)
						return
					}
				}
			}),
		},
		{
			ID: "EBB107", Severity: Error, Title: "deadline that kills scans",
			Why: "activeDeadlineSeconds counts from the start of the Job, not of a message: it kills the scan that runs then, which starts again from the beginning.",
			Fix: "raise activeDeadlineSeconds above ebbtide-worker's --max-lifetime and --scan-timeout together, or remove it; limit a scan with --scan-timeout",
			find: jobs(func(job Object, spec map[string]any, found func(Object, string, ...any)) {
				pod, _ := nested(spec, "template", "spec")
				begins, bounded := lastBegin(pod)
				for _, text := range []string{text(spec, "activeDeadlineSeconds"), text(pod, "activeDeadlineSeconds")} {
					if deadline := time.Duration(number(text)) * time.Second; text != "" && (!bounded || deadline <= begins) {
						found(job, "its pods are killed %s s after they start, when they may still scan", text)
					}
				}
			}),
		},
		{
			ID: "EBB108", Severity: Warning, Title: "short grace period",
			Why: "On SIGTERM a worker finishes its message or requeues it; a pod that is killed earlier does neither.",
			Fix: "set terminationGracePeriodSeconds to 30 at least, better to the length of a scan",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, t := range o.templates() {
					if seconds := text(t.spec, "terminationGracePeriodSeconds"); seconds != "" && number(seconds) < 30 {
						found(t.Object, "its pods are killed %s s after they are told to end", seconds)
					}
				}
			},
		},
		{
			ID: "EBB109", Severity: Warning, Title: "Jobs that are deleted when they end",
			Why: "Metrics of scans and learned run times are read from ended pods, and miss pods that are deleted at once.",
			Fix: "keep finished Jobs for a few minutes: ttlSecondsAfterFinished: 600, and history limits above 0",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, job := range o.ourScaledJobs() {
					if seconds := text(job.Object, "spec", "jobTargetRef", "ttlSecondsAfterFinished"); seconds != "" && number(seconds) < 60 {
						found(job, "ttlSecondsAfterFinished is %s", seconds)
					}
					for _, field := range []string{"successfulJobsHistoryLimit", "failedJobsHistoryLimit"} {
						if text(job.Object, "spec", field) == "0" {
							found(job, "%s is 0", field)
						}
					}
				}
			},
		},
		{
			ID: "EBB112", Severity: Warning, Title: "expected duration that can't be read",
			Why: "The scheduler uses it for packing, and ignores invalid values.",
			Fix: "write it as 90s, 15m or 24h",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, t := range o.templates() {
					annotations, _ := nested(t.metadata, "annotations")
					const key = "ebbtide.dev/expected-duration"
					if value, stated := annotations[key]; stated {
						if d, err := time.ParseDuration(text(annotations, key)); err != nil || d <= 0 {
							found(t.Object, "annotation %s is %q", key, value)
						}
					}
				}
			},
		},
		{
			ID: "EBB111", Severity: Warning, Title: "pods without Ebbtide's scheduler",
			Why: "The default scheduler spreads pods without the schedulerName; DrainPack has no effect on them.",
			Fix: "set schedulerName in the pod template",
			find: func(o *objects, found func(Object, string, ...any)) {
				var names []string
				for _, object := range o.of("ConfigMap", "KubeSchedulerConfiguration") {
					for _, config := range schedulerConfigs(object) {
						for _, profile := range list(config, "profiles") {
							if enables(profile, "DrainPack", "multiPoint", "score", "preFilter", "filter") {
								names = append(names, cmp.Or(text(profile, "schedulerName"), "default-scheduler"))
							}
						}
					}
				}
				if len(names) == 0 {
					return
				}
				for _, t := range o.templates() {
					if name := cmp.Or(text(t.spec, "schedulerName"), "default-scheduler"); !slices.Contains(names, name) {
						found(t.Object, "its pods go to %s; DrainPack packs those of %s", name, names[0])
					}
				}
			},
		},
	}
}

package doctor

import (
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// oldestKEDA that Ebbtide was tested with.
var oldestKEDA = [2]int{2, 16}

// clusterChecks are of what is around: scheduler, nodes, broker, KEDA.
func clusterChecks() []Check {
	return []Check{
		{
			ID: "EBB201", Severity: Warning, Title: "scheduler profile that still spreads",
			Why: "Scores of NodeResourcesFit, NodeResourcesBalancedAllocation and ImageLocality are added to DrainPack's and attract pods to empty nodes, or to nodes with the image.",
			Fix: "disable them under plugins.score of the profile that enables DrainPack",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, object := range o.of("ConfigMap", "KubeSchedulerConfiguration") {
					for _, config := range schedulerConfigs(object) {
						for _, profile := range list(config, "profiles") {
							if still := spreading(profile); len(still) > 0 {
								found(object, "profile %s enables DrainPack and still scores by %s", text(profile, "schedulerName"), strings.Join(still, ", "))
							}
						}
					}
				}
			},
		},
		{
			ID: "EBB202", Severity: Error, Title: "NodePool whose consolidation evicts jobs",
			Why: "WhenEmptyOrUnderutilized moves pods to empty a node: an evicted scan starts again from the beginning.",
			Fix: "set spec.disruption.consolidationPolicy: WhenEmpty, or annotate the pods karpenter.sh/do-not-disrupt: \"true\"",
			find: func(o *objects, found func(Object, string, ...any)) {
				unprotected := slices.ContainsFunc(o.templates(), func(t template) bool {
					annotations, _ := nested(t.metadata, "annotations")
					return text(annotations, "karpenter.sh/do-not-disrupt") != "true"
				})
				for _, pool := range o.of("NodePool") {
					policy := text(pool.Object, "spec", "disruption", "consolidationPolicy")
					if policy != "WhenEmpty" && unprotected {
						if policy == "" {
							policy = "WhenEmptyOrUnderutilized, the default,"
						}
						found(pool, "%s evicts pods that work", policy)
					}
				}
			},
		},
		{
			ID: "EBB205", Severity: Warning, Title: "old KEDA",
			Why: "KEDA 2.16 is the oldest tested version. Older ones may count jobs differently, and start too many or too few.",
			Fix: "upgrade KEDA to 2.16 or later",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, d := range o.of("Deployment") {
					if d.GetName() != "keda-operator" {
						continue
					}
					version := d.GetLabels()["app.kubernetes.io/version"]
					for _, c := range list(d.Object, "spec", "template", "spec", "containers") {
						if _, tag, ok := strings.Cut(text(c, "image"), "keda:"); ok && version == "" {
							version = tag
						}
					}
					if older(version, oldestKEDA) {
						found(d, "this is KEDA %s", version)
					}
				}
			},
		},
		{
			ID: "EBB217", Severity: Error, Title: "cluster that can't serve the scheduler",
			Why: "The scheduler ends with this message when it starts, so pods with its schedulerName stay pending.",
			Fix: "upgrade the cluster, turn on the API that the message names, or install Ebbtide with scheduler.enabled=false and remove schedulerName from the pods",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, d := range o.of("Deployment") {
					if d.GetLabels()["app.kubernetes.io/name"] != "ebbtide-scheduler" {
						continue
					}
					without := false
					for _, c := range list(d.Object, "spec", "template", "spec", "containers") {
						without = without || slices.Contains(texts(c, "args"), "--emulated-version=1.33")
					}
					if o.scope.Unfit != "" && (!without || !o.scope.OnlyDevices) {
						found(d, "%s", o.scope.Unfit)
					}
				}
			},
		},
	}
}

// older is true for a version, v2.15.1 say, before another. One that can't be read is not.
func older(version string, than [2]int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major < than[0] || major == than[0] && minor < than[1])
}

// schedulerConfigs are the KubeSchedulerConfigurations in an object.
func schedulerConfigs(object Object) []map[string]any {
	if object.GetKind() == "KubeSchedulerConfiguration" {
		return []map[string]any{object.Object}
	}
	data, _ := nested(object.Object, "data")
	var configs []map[string]any
	for key := range data {
		var config map[string]any
		if file := text(data, key); strings.Contains(file, "KubeSchedulerConfiguration") && yaml.Unmarshal([]byte(file), &config) == nil {
			configs = append(configs, config)
		}
	}
	return configs
}

// spreading are the score plugins that pull the other way in a profile with DrainPack.
func spreading(profile map[string]any) []string {
	enabled := false
	for _, point := range []string{"multiPoint", "score"} {
		for _, p := range list(profile, "plugins", point, "enabled") {
			enabled = enabled || text(p, "name") == "DrainPack"
		}
	}
	if !enabled {
		return nil
	}
	var off []string
	for _, point := range []string{"multiPoint", "score"} {
		for _, p := range list(profile, "plugins", point, "disabled") {
			off = append(off, text(p, "name"))
		}
	}
	var still []string
	for _, name := range []string{"NodeResourcesFit", "NodeResourcesBalancedAllocation", "ImageLocality"} {
		if !slices.Contains(off, name) && !slices.Contains(off, "*") {
			still = append(still, name)
		}
	}
	return still
}

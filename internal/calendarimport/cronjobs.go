package calendarimport

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/internal/doctor"
)

// scaling is what a CronJob does: so many replicas of something, from each time at which it runs on.
type scaling struct {
	job      doctor.Object
	target   string // namespace/kind/name
	replicas int32
	zone     *time.Location
	noZone   bool // it names none
	schedule *cron.SpecSchedule
	written  string
}

// readCronJobs puts CronJobs that scale the same object together. Those that scale nothing are left alone.
func readCronJobs(objects []doctor.Object, h horizon) ([]*original, []error) {
	byTarget := map[string][]scaling{}
	var order []string
	var errs []error
	for _, o := range objects {
		if o.GetKind() != "CronJob" {
			continue
		}
		found, err := readCronJob(o)
		if err != nil {
			errs = append(errs, err)
		}
		for _, s := range found {
			if byTarget[s.target] == nil {
				order = append(order, s.target)
			}
			byTarget[s.target] = append(byTarget[s.target], s)
		}
	}
	var list []*original
	for _, target := range order {
		made, err := onOff(target, byTarget[target], h)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, made)
	}
	return list, errs
}

func readCronJob(o doctor.Object) ([]scaling, error) {
	var job batchv1.CronJob
	if err := decode(o, &job); err != nil {
		return nil, err
	}
	var found []scaling
	for _, c := range job.Spec.JobTemplate.Spec.Template.Spec.Containers {
		values := map[string]string{}
		for _, e := range c.Env {
			values[e.Name] = e.Value
		}
		for _, command := range commands(append(slices.Clone(c.Command), c.Args...), values) {
			targets, replicas, err := kubectl(command, o.GetNamespace())
			if err != nil {
				return nil, fault(o, "container "+c.Name, "args", err.Error())
			}
			for _, target := range targets {
				found = append(found, scaling{job: o, target: target, replicas: replicas})
			}
		}
	}
	if len(found) == 0 || ptr.Deref(job.Spec.Suspend, false) {
		return nil, nil
	}
	expression, zoneName := strings.TrimSpace(job.Spec.Schedule), ptr.Deref(job.Spec.TimeZone, "")
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(expression, "CRON_"), "TZ="); ok {
		var name string
		name, expression, _ = strings.Cut(rest, " ")
		zoneName = cmp.Or(zoneName, name)
	}
	zone, err := loadZone(zoneName)
	if err != nil {
		return nil, fault(o, "", "spec.timeZone", err.Error())
	}
	schedule, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fault(o, "", "spec.schedule", fmt.Sprintf("%q: %v", expression, err))
	}
	at, ok := schedule.(*cron.SpecSchedule)
	if !ok {
		return nil, fault(o, "", "spec.schedule", fmt.Sprintf("%q is at no time of the day: write the hours by hand", expression))
	}
	for i := range found {
		found[i].zone, found[i].noZone, found[i].schedule, found[i].written = zone, zoneName == "", at, expression
	}
	return found, nil
}

// onOff makes windows of CronJobs that scale one object: from each run until the next one of any of them.
func onOff(target string, jobs []scaling, h horizon) (*original, error) {
	namespace, object, _ := strings.Cut(target, "/")
	first := jobs[0]
	base, most := first.replicas, first.replicas
	var written, sources []string
	for _, s := range jobs {
		base, most = min(base, s.replicas), max(most, s.replicas)
		written = append(written, fmt.Sprintf("%s: %s to %d", s.job.GetName(), s.written, s.replicas))
		if text := identity(s.job); !slices.Contains(sources, text) {
			sources = append(sources, text)
		}
		if s.zone.String() != first.zone.String() {
			return nil, fault(s.job, "", "spec.timeZone", fmt.Sprintf("%s, while %s of the same %s has %s: write the hours of both in one zone by hand",
				s.zone, first.job.GetName(), object, first.zone))
		}
	}
	if base == most {
		return nil, fault(first.job, "", "spec.schedule", fmt.Sprintf("nothing here scales %s to another number than %d: add the CronJob that scales it back, or write "+
			"the hours by hand", object, base))
	}
	var wall steps
	for _, s := range jobs {
		ticks, err := h.ticks(s.schedule)
		if err != nil {
			return nil, fault(s.job, "", "spec.schedule", fmt.Sprintf("%q: %v", s.written, err))
		}
		for _, t := range ticks {
			wall = append(wall, step{onWall(t), s.replicas})
		}
	}
	wall = wall.sorted()
	p := &part{
		where: "CronJobs", name: object[strings.Index(object, "/")+1:], zone: first.zone, replicas: most, base: base, written: strings.Join(written, "; "),
		who: "the CronJob", purpose: "the CronJobs do not say so",
		ran:   func(from, to time.Time) steps { return ranJobs(jobs, first.zone, from, to) },
		plain: func(from, to time.Time) steps { return ranJobs(jobs, time.UTC, from, to) },
	}
	for _, w := range wall.windows() {
		if w.replicas > base {
			p.windows = append(p.windows, w)
		}
	}
	made := &original{
		object: first.job, source: strings.Join(sources, ", "), name: object[strings.Index(object, "/")+1:], namespace: namespace, together: larger,
		floor: base, floorNote: "what it is scaled down to", limit: most, limitNote: "the most that a CronJob asks for: write what you allow",
		parts: []*part{p},
	}
	if first.noZone {
		made.notes = append(made.notes, "the CronJobs have no timeZone: they run in the time zone of kube-controller-manager, assumed to be UTC")
	}
	made.notes = append(made.notes, fmt.Sprintf("the CronJobs scale %s; delete them when its ScaledJob or ScaledObject asks this policy", object))
	return made, nil
}

// ranJobs are the numbers that CronJobs set between two instants, by the library that Kubernetes finds their times with.
func ranJobs(jobs []scaling, zone *time.Location, from, to time.Time) steps {
	var all steps
	for _, s := range jobs {
		for t := s.schedule.Next(from.AddDate(0, 0, -leadIn).In(zone)); !t.IsZero() && t.Before(to); t = s.schedule.Next(t) {
			all = append(all, step{t, s.replicas})
		}
	}
	return all.sorted()
}

// kubernetesVariable is one as Kubernetes replaces it in a container's arguments.
var kubernetesVariable = regexp.MustCompile(`\$\((\w+)\)`)

// commands are those of a container's words, the script of a shell among them, with its variables.
func commands(words []string, values map[string]string) [][]string {
	expand := func(text string) string {
		return os.Expand(kubernetesVariable.ReplaceAllString(text, "$${$1}"), func(name string) string {
			if value, ok := values[name]; ok {
				return value
			}
			return "$" + name
		})
	}
	plain := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsAny(w, " \n;") { // a script, if a shell reads it
			var list [][]string
			for _, c := range split(w) {
				for j := range c {
					c[j] = expand(c[j])
				}
				list = append(list, c)
			}
			if i > 0 && strings.HasPrefix(words[i-1], "-") && strings.HasSuffix(words[i-1], "c") {
				return list
			}
		}
		plain[i] = expand(w)
	}
	return [][]string{plain}
}

// split cuts a script into commands, and those into words, as a shell does as far as quotes, backslashes, comments and the signs between
// commands go.
func split(script string) [][]string {
	var list [][]string
	var command []string
	var word strings.Builder
	inWord := false
	endWord := func() {
		if inWord {
			command = append(command, word.String())
			word.Reset()
			inWord = false
		}
	}
	endCommand := func() {
		endWord()
		if len(command) > 0 {
			list = append(list, command)
			command = nil
		}
	}
	for i := 0; i < len(script); i++ {
		switch c := script[i]; c {
		case ' ', '\t':
			endWord()
		case '\n', ';', '&', '|':
			endCommand()
		case '#':
			if inWord {
				word.WriteByte(c)
				break
			}
			for i+1 < len(script) && script[i+1] != '\n' {
				i++
			}
		case '\\':
			if i++; i < len(script) && script[i] != '\n' {
				word.WriteByte(script[i])
				inWord = true
			}
		case '\'', '"':
			inWord = true
			for i++; i < len(script) && script[i] != c; i++ {
				if c == '"' && script[i] == '\\' && i+1 < len(script) {
					i++
				}
				word.WriteByte(script[i])
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return list
}

// kubectl reads what a command scales: kubectl scale, or kubectl patch of a number of replicas. Other commands scale nothing.
func kubectl(words []string, namespace string) (targets []string, replicas int32, err error) {
	i := slices.IndexFunc(words, func(w string) bool { return w == "kubectl" || w == "oc" || strings.HasSuffix(w, "/kubectl") })
	if i < 0 && len(words) > 0 && (words[0] == "scale" || words[0] == "patch") { // the image's entry point is kubectl
		i = -1
	} else if i < 0 {
		return nil, 0, nil
	}
	var names []string
	options := map[string]string{}
	for rest := words[i+1:]; len(rest) > 0; rest = rest[1:] {
		word := rest[0]
		if !strings.HasPrefix(word, "-") {
			names = append(names, word)
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !has && len(rest) > 1 && slices.Contains([]string{"replicas", "n", "namespace", "p", "patch", "type", "current-replicas", "timeout", "l", "selector",
			"context", "kubeconfig", "s", "server", "token", "as", "subresource", "patch-file", "f", "filename"}, name) {
			value, rest = rest[1], rest[1:]
		}
		options[name] = value
	}
	if len(names) == 0 || names[0] != "scale" && names[0] != "patch" {
		return nil, 0, nil
	}
	namespace = cmp.Or(options["namespace"], options["n"], namespace)
	text := options["replicas"]
	if names[0] == "patch" {
		patch := cmp.Or(options["patch"], options["p"])
		if text = patched(patch); text == "" {
			return nil, 0, nil // of something else
		}
	}
	if options["l"]+options["selector"]+options["f"]+options["filename"] != "" {
		return nil, 0, fmt.Errorf("%q: name what it scales, as deployment/scans, in place of -l or -f", strings.Join(words, " "))
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return nil, 0, fmt.Errorf("%q: the replicas %q are no number: write the hours by hand", strings.Join(words, " "), text)
	}
	kind := ""
	for _, name := range names[1:] {
		if k, rest, ok := strings.Cut(name, "/"); ok {
			targets = append(targets, namespace+"/"+kindOf(k)+"/"+rest)
		} else if kind == "" {
			kind = kindOf(name)
		} else {
			targets = append(targets, namespace+"/"+kind+"/"+name)
		}
	}
	if len(targets) == 0 {
		return nil, 0, fmt.Errorf("%q: it does not say what it scales: write deployment/scans, say", strings.Join(words, " "))
	}
	return targets, int32(n), nil
}

// kindOf is a resource's kind whichever of its names is written.
func kindOf(name string) string {
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	for kind, names := range map[string][]string{
		"deployment": {"deploy", "deployments"}, "statefulset": {"sts", "statefulsets"}, "replicaset": {"rs", "replicasets"},
		"horizontalpodautoscaler": {"hpa", "horizontalpodautoscalers"}, "scaledobject": {"so", "scaledobjects"}, "scaledjob": {"sj", "scaledjobs"},
	} {
		if slices.Contains(names, name) {
			return kind
		}
	}
	return name
}

// patched is the number of replicas that a patch sets: a merge patch of one of these fields, or a JSON patch of it.
func patched(patch string) string {
	fields := []string{"replicas", "minReplicas", "minReplicaCount"}
	var merge struct {
		Spec map[string]any `json:"spec"`
	}
	if json.Unmarshal([]byte(patch), &merge) == nil {
		for _, name := range fields {
			if value, ok := merge.Spec[name]; ok {
				return fmt.Sprint(value)
			}
		}
		return ""
	}
	var operations []struct {
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	if json.Unmarshal([]byte(patch), &operations) == nil {
		for _, o := range operations {
			if name, ok := strings.CutPrefix(o.Path, "/spec/"); ok && slices.Contains(fields, name) {
				return fmt.Sprint(o.Value)
			}
		}
	}
	return ""
}

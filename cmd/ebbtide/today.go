package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

// todayObject is what recommend reads of a ScaledJob, a NodePool, a ScalingPolicy or the values of charts/scan-jobs.
type todayObject struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		// of a ScaledJob
		PollingInterval *int64 `json:"pollingInterval"`
		ScalingStrategy struct {
			Strategy string `json:"strategy"`
		} `json:"scalingStrategy"`
		Triggers []struct {
			Type     string            `json:"type"`
			Metadata map[string]string `json:"metadata"`
		} `json:"triggers"`
		JobTargetRef struct {
			Template struct {
				Spec todayPod `json:"spec"`
			} `json:"template"`
		} `json:"jobTargetRef"`
		// of a NodePool
		Template struct {
			Spec struct {
				NodeClassRef map[string]string  `json:"nodeClassRef"`
				Requirements []todayRequirement `json:"requirements"`
			} `json:"spec"`
		} `json:"template"`
		Disruption struct {
			ConsolidateAfter string `json:"consolidateAfter"`
		} `json:"disruption"`
		// of a ScalingPolicy
		Calendar *v1alpha1.Calendar `json:"calendar"`
		Target   struct {
			DrainWithin string `json:"drainWithin"`
		} `json:"target"`
	} `json:"spec"`
	// values of the chart
	Resources todayResources `json:"resources"`
	Worker    *struct {
		MaxMessages *int   `json:"maxMessages"`
		IdleTimeout string `json:"idleTimeout"`
		MaxLifetime string `json:"maxLifetime"`
		Draining    struct {
			Address string `json:"address"`
		} `json:"draining"`
	} `json:"worker"`
	ScaledJob struct {
		PollingInterval *int64 `json:"pollingInterval"`
	} `json:"scaledJob"`
	Policy *struct {
		Calendar    *v1alpha1.Calendar `json:"calendar"`
		DrainWithin string             `json:"drainWithin"`
	} `json:"policy"`
	NodePools map[string]struct {
		Requirements     []todayRequirement `json:"requirements"`
		ConsolidateAfter string             `json:"consolidateAfter"`
	} `json:"nodePools"`
}

type todayPod struct {
	SchedulerName string `json:"schedulerName"`
	Containers    []struct {
		Args      []string       `json:"args"`
		Command   []string       `json:"command"`
		Resources todayResources `json:"resources"`
	} `json:"containers"`
}

type todayResources struct {
	Requests map[string]resource.Quantity `json:"requests"`
}

type todayRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values"`
}

// readToday completes what runs today: of --today, of the policy that is in use, else of the other flags. It says what it assumed.
func (f *recommendFlags) readToday(ctx context.Context, o *recommend.Options, inUse *policy.Policy, list *recommend.PriceList) ([]string, error) {
	t := &o.Today
	t.Stack = recommend.Peer
	t.Shapes = recommend.ShapeSet{Name: shapeNames(o), Shapes: o.System.Nodes.Shapes}
	t.Poll, t.ConsolidateAfter = recommend.Duration(o.System.PollEvery), recommend.Duration(30*time.Second)
	t.Workers = recommend.Workers{MaxMessages: o.System.Worker.MaxMessages, IdleTimeout: recommend.Duration(5 * time.Second), MaxLifetime: recommend.Duration(o.System.Worker.MaxLifetime)}
	if f.system.idleTimeoutGiven() {
		t.Workers.IdleTimeout = recommend.Duration(o.System.Worker.IdleTimeout)
	}
	if o.System.QueuePerClass {
		t.Queues.Name = "a queue for each class"
	}
	var notes []string
	if inUse != nil {
		t.Stack = recommend.Ours
		if err := giveCalendar(inUse.Spec().Calendar, o); err != nil {
			return nil, fmt.Errorf("--policy: %w", err)
		}
		if t.Workers.MaxMessages == 1 && !f.system.idleTimeoutGiven() { // workers of a floor stay
			t.Workers.IdleTimeout = recommend.Duration(warmFor)
		}
	}
	for _, file := range f.today {
		var text []byte
		var err error
		if name, inCluster := strings.CutPrefix(file, "cluster:"); inCluster {
			text, err = f.readCluster(ctx, name)
		} else {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("--today: %w", err)
		}
		if err := f.readObjects(text, o, list); err != nil {
			return nil, fmt.Errorf("--today %s: %w", file, err)
		}
	}
	if len(f.today) == 0 {
		notes = append(notes, fmt.Sprintf("What runs today was not given (--today): %s is assumed, %s, polled every %s, on nodes of %s.",
			t.Stack.Name, t.Workers, t.Poll, t.Shapes.Name))
	}
	return notes, nil
}

func shapeNames(o *recommend.Options) string {
	var names []string
	for _, s := range o.System.Nodes.Shapes {
		names = append(names, s.Name)
	}
	return strings.Join(names, "; ")
}

// readObjects reads the documents of a file.
func (f *recommendFlags) readObjects(text []byte, o *recommend.Options, list *recommend.PriceList) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	known := false
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var object todayObject
		if err := yaml.Unmarshal(document, &object); err != nil {
			return err
		}
		used, err := f.readObject(&object, o, list)
		if err != nil {
			return err
		}
		known = known || used
	}
	if !known {
		return errors.New("it holds no ScaledJob, ScalingPolicy, NodePool or values of charts/scan-jobs")
	}
	return nil
}

// readObject takes over what an object says; false for one of another kind.
func (f *recommendFlags) readObject(object *todayObject, o *recommend.Options, list *recommend.PriceList) (bool, error) {
	t := &o.Today
	switch object.Kind {
	case "ScaledJob":
		return true, readScaledJob(object, t)
	case "ScalingPolicy":
		t.Stack = recommend.Ours
		if err := setDuration("drainWithin", object.Spec.Target.DrainWithin, &t.DrainWithin); err != nil {
			return true, err
		}
		return true, giveCalendar(object.Spec.Calendar, o)
	case "NodePool":
		f.nodeClass = object.Spec.Template.Spec.NodeClassRef
		f.placement = slices.DeleteFunc(slices.Clone(object.Spec.Template.Spec.Requirements), func(r todayRequirement) bool { return !slices.Contains(placementKeys, r.Key) })
		return true, f.readNodePool(object.Spec.Template.Spec.Requirements, object.Spec.Disruption.ConsolidateAfter, o, list)
	case "":
	default:
		return false, nil
	}
	if object.Worker == nil && object.Policy == nil && len(object.Resources.Requests) == 0 && len(object.NodePools) == 0 {
		return false, nil
	}
	t.Stack = recommend.Ours
	requestAlike(object.Resources, t)
	// The chart's defaults, where the values say nothing else.
	t.Workers, t.Poll = recommend.Workers{IdleTimeout: recommend.Duration(30 * time.Second), MaxLifetime: recommend.Duration(5 * time.Minute)}, recommend.Duration(2*time.Second)
	if w := object.Worker; w != nil {
		if w.MaxMessages != nil {
			t.Workers.MaxMessages = min(1, *w.MaxMessages)
		}
		t.Workers.Rules = w.Draining.Address != ""
		for text, of := range map[string]*recommend.Duration{w.IdleTimeout: &t.Workers.IdleTimeout, w.MaxLifetime: &t.Workers.MaxLifetime} {
			if err := setDuration("worker", text, of); err != nil {
				return true, err
			}
		}
	}
	if seconds := object.ScaledJob.PollingInterval; seconds != nil {
		t.Poll = recommend.Duration(time.Duration(*seconds) * time.Second)
	}
	for _, pool := range object.NodePools {
		if err := f.readNodePool(pool.Requirements, pool.ConsolidateAfter, o, list); err != nil {
			return true, err
		}
	}
	if object.Policy != nil {
		if err := setDuration("policy.drainWithin", object.Policy.DrainWithin, &t.DrainWithin); err != nil {
			return true, err
		}
		return true, giveCalendar(object.Policy.Calendar, o)
	}
	return true, nil
}

func setDuration(field, text string, to *recommend.Duration) error {
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%s is %q, want a duration: 30s", field, text)
	}
	*to = recommend.Duration(d)
	return nil
}

// giveCalendar takes over today's calendar, and its default surplus by itself.
func giveCalendar(c *v1alpha1.Calendar, o *recommend.Options) error {
	if _, errs := policy.CompileCalendar(c, nil, o.MaxReplicas, nil); len(errs) > 0 {
		return errs.ToAggregate()
	}
	o.Today.Surplus = ""
	if c != nil && c.Default.Surplus != nil { // a decision of its own
		if surplus, err := calendar.ParseSurplus(c.Default.Surplus.String()); err == nil { // it was checked
			o.Today.Surplus = surplus.Text()
		}
		c = c.DeepCopy()
		c.Default.Surplus = nil
	}
	o.Today.Calendar.Given = map[string]*v1alpha1.Calendar{"": c}
	return nil
}

func readScaledJob(object *todayObject, t *recommend.Configuration) error {
	t.Poll = recommend.Duration(30 * time.Second)
	if seconds := object.Spec.PollingInterval; seconds != nil && *seconds > 0 {
		t.Poll = recommend.Duration(time.Duration(*seconds) * time.Second)
	}
	pod := &object.Spec.JobTargetRef.Template.Spec
	stack := recommend.Stack{Name: "KEDA", Strategy: object.Spec.ScalingStrategy.Strategy, Packer: "spread"}
	if pod.SchedulerName == "ebbtide" {
		stack.Packer = "drainpack"
	}
	for _, trigger := range object.Spec.Triggers {
		switch trigger.Type {
		case "external":
			stack.Ebbtide, stack.Name = true, "Ebbtide"
		case "rabbitmq":
			stack.HTTP = trigger.Metadata["protocol"] == "http" || strings.HasPrefix(trigger.Metadata["host"], "http")
		case "cron":
			zone, err := calendar.LoadZone(trigger.Metadata["timezone"])
			if err != nil {
				return fmt.Errorf("ScaledJob %s: cron trigger: %w", object.Metadata.Name, err)
			}
			floor, err := resource.ParseQuantity(trigger.Metadata["desiredReplicas"])
			if err != nil {
				return fmt.Errorf("ScaledJob %s: cron trigger: desiredReplicas: %w", object.Metadata.Name, err)
			}
			cron, err := keda.NewCron(zone, trigger.Metadata["start"], trigger.Metadata["end"], floor.Value())
			if err != nil {
				return fmt.Errorf("ScaledJob %s: cron trigger: %w", object.Metadata.Name, err)
			}
			t.Calendar.Crons = append(t.Calendar.Crons, cron)
		}
	}
	if _, err := keda.NewStrategy(stack.Strategy); err != nil {
		return fmt.Errorf("ScaledJob %s: %w", object.Metadata.Name, err)
	}
	if !stack.Ebbtide {
		stack.Name = strings.TrimSpace("KEDA " + stack.Strategy + ", default scheduler")
		if stack.Packer == "drainpack" {
			stack.Name = "KEDA " + stack.Strategy + ", DrainPack"
		}
	}
	t.Stack = stack
	for _, c := range pod.Containers {
		arguments := slices.Concat(c.Command, c.Args)
		for i, a := range arguments {
			name, value, inOne := strings.Cut(a, "=")
			if !inOne && i+1 < len(arguments) {
				value = arguments[i+1]
			}
			switch strings.TrimLeft(name, "-") {
			case "max-messages":
				t.Workers.MaxMessages = 1
				if value == "0" {
					t.Workers.MaxMessages = 0
				}
			case "idle-timeout":
				if err := setDuration("--idle-timeout", value, &t.Workers.IdleTimeout); err != nil {
					return err
				}
			case "max-lifetime":
				if err := setDuration("--max-lifetime", value, &t.Workers.MaxLifetime); err != nil {
					return err
				}
			}
		}
	}
	var sum todayResources
	for _, c := range pod.Containers {
		for name, quantity := range c.Resources.Requests {
			if sum.Requests == nil {
				sum.Requests = map[string]resource.Quantity{}
			}
			total := sum.Requests[name]
			total.Add(quantity)
			sum.Requests[name] = total
		}
	}
	requestAlike(sum, t)
	return nil
}

// requestAlike makes the pods of all classes request the same.
func requestAlike(r todayResources, t *recommend.Configuration) {
	if len(r.Requests) == 0 {
		return
	}
	cpu, memory := r.Requests["cpu"], r.Requests["memory"]
	t.Requests.Name = fmt.Sprintf("%s CPU, %s each", cpu.String(), memory.String())
	t.Requests.Of = map[string]packing.Amounts{"": {cpu.MilliValue(), memory.Value(), 0, 1}}
}

// placementKeys are requirements of a NodePool that are not about shapes: they stay.
var placementKeys = []string{"kubernetes.io/arch", "kubernetes.io/os", "topology.kubernetes.io/zone"}

// readCluster gathers a ScaledJob, its policy and the NodePools on whose nodes its pods may run.
func (f *recommendFlags) readCluster(ctx context.Context, name string) ([]byte, error) {
	config, err := f.load.clusterFlags.config()
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	namespace, job, _ := strings.Cut(name, "/")
	var refused error
	objects, _, err := doctor.ListKinds(ctx, client, []schema.GroupVersionResource{
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledjobs"},
		{Group: "ebbtide.dev", Version: "v1alpha1", Resource: "scalingpolicies"},
		{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"},
	}, namespace, func(kind schema.GroupVersionResource, err error) {
		refused = errors.Join(refused, fmt.Errorf("list %s: %w", kind.Resource, err))
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, err
	}
	return todayOf(objects, namespace, job)
}

// todayOf are the documents of what runs for a ScaledJob, of a cluster's objects. Without a name there must be one ScaledJob in the namespace.
func todayOf(objects []doctor.Object, namespace, name string) ([]byte, error) {
	var jobs []doctor.Object
	var names []string
	for _, o := range objects {
		if o.GetKind() == "ScaledJob" && (name == "" || o.GetName() == name) {
			jobs, names = append(jobs, o), append(names, o.GetName())
		}
	}
	switch {
	case len(jobs) == 0:
		return nil, fmt.Errorf("namespace %q has no ScaledJob %s", namespace, name)
	case len(jobs) > 1:
		return nil, fmt.Errorf("namespace %q has ScaledJobs %s: name one, cluster:%s/%s", namespace, strings.Join(names, ", "), namespace, names[0])
	}
	chosen := jobs[:1:1]
	triggers, _, _ := unstructured.NestedSlice(jobs[0].Object, "spec", "triggers")
	pod, _, _ := unstructured.NestedMap(jobs[0].Object, "spec", "jobTargetRef", "template", "spec")
	for _, o := range objects {
		switch o.GetKind() {
		case "ScalingPolicy":
			for _, t := range triggers {
				if trigger, ok := t.(map[string]any); ok {
					if policy, _, _ := unstructured.NestedString(trigger, "metadata", "policy"); policy == o.GetName() || policy == namespace+"/"+o.GetName() {
						chosen = append(chosen, o)
					}
				}
			}
		case "NodePool":
			if runsOn(pod, o) {
				chosen = append(chosen, o)
			}
		}
	}
	var text []byte
	for _, o := range chosen {
		one, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		text = append(append(text, "---\n"...), one...)
	}
	return text, nil
}

// runsOn is true when a pod's node selector and tolerations lead to a NodePool's nodes.
func runsOn(pod map[string]any, pool doctor.Object) bool {
	selector, _, _ := unstructured.NestedStringMap(pod, "nodeSelector")
	labels, _, _ := unstructured.NestedStringMap(pool.Object, "spec", "template", "metadata", "labels")
	named := false
	for key, value := range selector {
		switch has, known := labels[key]; {
		case key == "karpenter.sh/nodepool":
			if value != pool.GetName() {
				return false
			}
			named = true
		case known:
			if has != value {
				return false
			}
			named = true
		case !strings.Contains(key, "kubernetes.io/") && !strings.Contains(key, "karpenter"):
			return false // a label that its nodes do not have
		}
	}
	taints, _, _ := unstructured.NestedSlice(pool.Object, "spec", "template", "spec", "taints")
	tolerations, _, _ := unstructured.NestedSlice(pod, "tolerations")
	for _, t := range taints {
		taint, _ := t.(map[string]any)
		if !slices.ContainsFunc(tolerations, func(t any) bool {
			toleration, _ := t.(map[string]any)
			return toleration["key"] == taint["key"] || toleration["key"] == nil && toleration["operator"] == "Exists"
		}) {
			return false
		}
	}
	return named || len(taints) > 0 || len(selector) == 0
}

// readNodePool finds the shapes of a NodePool by their instance types in the price list.
func (f *recommendFlags) readNodePool(requirements []todayRequirement, after string, o *recommend.Options, list *recommend.PriceList) error {
	reserved, err := f.reserved()
	if err != nil {
		return err
	}
	spot, types := false, []string(nil)
	for _, r := range requirements {
		switch r.Key {
		case "node.kubernetes.io/instance-type":
			types = append(types, r.Values...)
		case "karpenter.sh/capacity-type":
			spot = slices.Contains(r.Values, "spot")
		}
	}
	if len(types) > 0 {
		set := list.Find(types, spot, reserved)
		if len(set.Shapes) < len(types) {
			return fmt.Errorf("NodePool: of the instance types %s the price list has %d: add those that are missing to it (--shapes FILE)", strings.Join(types, ", "), len(set.Shapes))
		}
		o.Today.Shapes = set
	}
	return setDuration("consolidateAfter", after, &o.Today.ConsolidateAfter)
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
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
				Requirements []todayRequirement `json:"requirements"`
			} `json:"spec"`
		} `json:"template"`
		Disruption struct {
			ConsolidateAfter string `json:"consolidateAfter"`
		} `json:"disruption"`
		// of a ScalingPolicy
		Calendar *v1alpha1.Calendar `json:"calendar"`
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
		Calendar *v1alpha1.Calendar `json:"calendar"`
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
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// readToday completes what runs today: of --today, of the policy that is in use, else of the other flags. It says what it assumed.
func (f *recommendFlags) readToday(o *recommend.Options, inUse *policy.Policy, list *recommend.PriceList) ([]string, error) {
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
		t.Calendar.Given = map[string]*v1alpha1.Calendar{"": inUse.Spec().Calendar}
		if t.Workers.MaxMessages == 1 && !f.system.idleTimeoutGiven() { // workers of a floor stay
			t.Workers.IdleTimeout = recommend.Duration(warmFor)
		}
	}
	for _, file := range f.today {
		text, err := os.ReadFile(file)
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
		return true, giveCalendar(object.Spec.Calendar, o)
	case "NodePool":
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

func giveCalendar(c *v1alpha1.Calendar, o *recommend.Options) error {
	if _, errs := policy.CompileCalendar(c, nil, o.MaxReplicas, nil); len(errs) > 0 {
		return errs.ToAggregate()
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

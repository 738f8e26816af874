package drainpack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// shippedProfile is the profile of manifests, without an address of its own, and with default constraints of PodTopologySpread if any are given.
func shippedProfile(t *testing.T, constraints string) config.KubeSchedulerProfile {
	t.Helper()
	text, err := os.ReadFile("../../manifests/scheduler/config/scheduler-config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shipped := strings.Replace(string(text), "explainAddress: 127.0.0.1:10260", "candidates: 4", 1)
	if constraints != "" {
		shipped = strings.Replace(shipped, "args: {defaultingType: List}", "args: {defaultingType: List, defaultConstraints: "+constraints+"}", 1)
	}
	decoded, _, err := scheme.Codecs.UniversalDecoder().Decode([]byte(shipped), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return decoded.(*config.KubeSchedulerConfiguration).Profiles[0]
}

// workers are pods of one CPU, of one owner.
func workers(count int, owner string, change func(*st.PodWrapper)) []*v1.Pod {
	pods, controller := make([]*v1.Pod, count), true
	for i := range pods {
		name := fmt.Sprint("p", i)
		pod := st.MakePod().Name(name).UID(name).Namespace("scan").Label("app", "w").SchedulerName("ebbtide").
			Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "workers", Controller: &controller}}
		if owner == "ReplicaSet" {
			pod.OwnerReferences[0].APIVersion = "apps/v1"
		}
		if change != nil {
			change(pod)
		}
		pods[i] = pod.Obj()
	}
	return pods
}

// The profile as it is shipped packs what clusters have: pods of Deployments, Services and Jobs beside CoreDNS, whose pods prefer to be apart
// from each other. Eight pods of one CPU come one after another to four nodes of eight CPUs; on none is a false condition written.
func TestShippedProfile(t *testing.T) {
	apart := func(p *st.PodWrapper) {
		p.PodAntiAffinity("kubernetes.io/hostname", st.MakeLabelSelector().Exists("app").Obj(), st.PodAntiAffinityWithPreferredReq)
	}
	for name, tc := range map[string]struct {
		owner  string
		change func(*st.PodWrapper)
		// spread is what the cluster's PodTopologySpread has for pods that say nothing.
		spread  string
		cluster testCluster
		want    string // pods by node, least first
	}{
		"jobs":                        {owner: "Job", want: "0 0 0 8"},
		"a Deployment":                {owner: "ReplicaSet", want: "0 0 0 8"},
		"a Service":                   {owner: "Job", cluster: testCluster{service: true}, want: "0 0 0 8"},
		"a Deployment with a Service": {owner: "ReplicaSet", cluster: testCluster{service: true}, want: "0 0 0 8"},
		"a cluster that likes Services to be spread": {
			owner: "Job", cluster: testCluster{service: true}, want: "0 0 0 8",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]",
		},
		"a cluster where Services must be spread": {
			owner: "Job", cluster: testCluster{service: true}, want: "2 2 2 2",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]",
		},
		"a cluster where Deployments must be spread": {
			owner: "ReplicaSet", want: "2 2 2 2",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]",
		},
		"a cluster where Services must be spread a little, and over zones if possible": {
			owner: "Job", cluster: testCluster{service: true}, want: "0 0 4 4",
			spread: "[{maxSkew: 4, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}," +
				" {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}]",
		},
		"a cluster where Services must be spread, and this pod is of none": {
			owner: "Job", want: "0 0 0 8",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]",
		},
		"a volume from an image": {owner: "Job", want: "0 0 0 8", change: func(p *st.PodWrapper) {
			p.Volume(v1.Volume{Name: "rules", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "rules:1"}}})
		}},
		"pods that say to be spread": {owner: "Job", change: func(p *st.PodWrapper) {
			p.SpreadConstraint(1, "kubernetes.io/hostname", v1.DoNotSchedule, st.MakeLabelSelector().Exists("app").Obj(), nil, nil, nil, nil)
		}, want: "2 2 2 2"},
		"pods that would rather be apart": {owner: "Job", change: apart, want: "2 2 2 2"},
		"pods that would rather be on other nodes than there are": {
			owner: "Job", change: func(p *st.PodWrapper) { prefers(p) }, want: "0 0 0 8",
		},
		"daemons": {owner: "Job", cluster: testCluster{daemons: true}, want: "0 0 0 8"},
		"nodes that had better be left": {
			owner: "Job", want: "0 0 0 8", cluster: testCluster{node: func(n *v1.Node) {
				if n.Name != "n3" {
					n.Spec.Taints = []v1.Taint{{Key: "old", Effect: v1.TaintEffectPreferNoSchedule}}
				}
			}},
		},
		"pods that are held back for a while": {owner: "Job", want: "0 0 0 8", change: func(p *st.PodWrapper) { p.SchedulingGates([]string{"kueue.x-k8s.io/admission"}) }},
		"an extender for other pods":          {owner: "Job", want: "0 0 0 8", cluster: testCluster{extender: "example.com/gpu"}},
		"an extender for these pods":          {owner: "Job", want: "0 0 0 8", cluster: testCluster{extender: v1.ResourceCPU}},
		"bindings whose answers are lost":     {owner: "Job", want: "0 0 0 8", cluster: testCluster{answersLost: true}},
	} {
		t.Run(name, func(t *testing.T) {
			counts, unschedulable := schedule(t, shippedProfile(t, tc.spread), tc.cluster, workers(8, tc.owner, tc.change))
			byNode := []int{counts["n1"], counts["n2"], counts["n3"], counts["n4"]}
			slices.Sort(byNode)
			got := strings.Trim(fmt.Sprint(byNode), "[]")
			if got != tc.want || unschedulable != 0 {
				t.Errorf("pods by node %s, and %d false conditions; want %s and none", got, unschedulable, tc.want)
			}
			if want := tc.cluster.only(); want != "" && counts[want] != 8 {
				t.Errorf("%d pods are on %s, want all", counts[want], want)
			}
		})
	}
}

// testCluster is what there is beside four nodes of eight CPUs and CoreDNS.
type testCluster struct {
	service, daemons bool
	node             func(*v1.Node)
	// extender refuses all nodes but n2 to pods that request a resource.
	extender v1.ResourceName
	// answersLost: bindings happen, and are reported to have failed.
	answersLost bool
}

// only is the one node that may be taken, empty for any.
func (c testCluster) only() string {
	switch {
	case c.extender == v1.ResourceCPU:
		return "n2"
	case c.node != nil:
		return "n3"
	default:
		return ""
	}
}

// schedule runs the whole scheduler on pods, one after another, and counts those on each node and the conditions that say that none has room.
func schedule(t *testing.T, p config.KubeSchedulerProfile, c testCluster, pods []*v1.Pod) (counts map[string]int, unschedulable int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	objects := []runtime.Object{
		&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "workers", Namespace: "scan"}, Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "w"}},
		}},
		st.MakePod().Name("coredns").UID("dns").Namespace("kube-system").Node("n4").Label("k8s-app", "kube-dns").SchedulerName("default-scheduler").
			PodAntiAffinity("kubernetes.io/hostname", st.MakeLabelSelector().Exists("k8s-app").Obj(), st.PodAntiAffinityWithPreferredReq).
			StartTime(metav1.Now()).Obj(),
	}
	for i, name := range []string{"n1", "n2", "n3", "n4"} {
		node := nodeWith(name, "0", nil).Node()
		node.CreationTimestamp = metav1.Unix(int64(i), 0)
		node.Labels = map[string]string{"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "z"}
		node.Status.Allocatable = node.Status.Capacity
		if c.node != nil {
			c.node(node)
		}
		objects = append(objects, node)
		if c.daemons {
			daemon, controller := st.MakePod().Name("log-"+name).UID("log-"+name).Namespace("kube-system").Node(name), true
			daemon.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "log", Controller: &controller}}
			objects = append(objects, daemon.StartTime(metav1.Now()).Obj())
		}
	}
	if c.service {
		objects = append(objects, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "metrics", Namespace: "scan"}, Spec: v1.ServiceSpec{Selector: map[string]string{"app": "w"}}})
	}
	client := fake.NewClientset(objects...)
	bound, refused := make(chan string, 100), atomic.Int64{}
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		binding := action.(clienttesting.CreateAction).GetObject().(*v1.Binding)
		object, err := client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "scan", binding.Name)
		if err != nil {
			return true, nil, err
		}
		pod := object.(*v1.Pod).DeepCopy()
		pod.Spec.NodeName = binding.Target.Name
		err = client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "scan")
		bound <- binding.Target.Name
		if c.answersLost {
			err = apierrors.NewTimeoutError("the answer is lost", 1)
		}
		return true, nil, err
	})
	client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() == "status" && strings.Contains(string(action.(clienttesting.PatchAction).GetPatch()), "Unschedulable") {
			refused.Add(1)
		}
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer broadcaster.Shutdown()
	options := []scheduler.Option{
		scheduler.WithProfiles(p), scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{Name: New}),
		scheduler.WithPodInitialBackoffSeconds(1), scheduler.WithPodMaxBackoffSeconds(1),
	}
	if c.extender != "" {
		options = append(options, scheduler.WithExtenders(serveExtender(t, c.extender)))
	}
	sched, err := scheduler.New(ctx, client, factory, nil, profile.NewRecorderFactory(broadcaster), options...)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := sched.WaitForHandlersSync(ctx); err != nil {
		t.Fatal(err)
	}
	go sched.Run(ctx)
	counts = map[string]int{}
	for _, pod := range pods {
		created, err := client.CoreV1().Pods("scan").Create(ctx, pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(created.Spec.SchedulingGates) > 0 {
			created.Spec.SchedulingGates, created.ResourceVersion = nil, "2" // the fake API server counts no versions, and the scheduler looks at them
			if _, err := client.CoreV1().Pods("scan").Update(ctx, created, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case node := <-bound:
			counts[node]++
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits; pods by node so far: %v", pod.Name, counts)
		}
	}
	return counts, refused.Load()
}

// serveExtender is an extender that refuses all nodes but n2 to pods that request a resource.
func serveExtender(t *testing.T, resource v1.ResourceName) config.Extender {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked extenderv1.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
			return
		}
		answer := extenderv1.ExtenderFilterResult{NodeNames: &[]string{}, FailedNodes: extenderv1.FailedNodesMap{}}
		for _, name := range *asked.NodeNames {
			if name == "n2" {
				*answer.NodeNames = append(*answer.NodeNames, name)
			} else {
				answer.FailedNodes[name] = "not n2"
			}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return config.Extender{
		URLPrefix: server.URL, FilterVerb: "filter", NodeCacheCapable: true, HTTPTimeout: metav1.Duration{Duration: 10 * time.Second},
		ManagedResources: []config.ExtenderManagedResource{{Name: string(resource)}},
	}
}

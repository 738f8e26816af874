package drainpack

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// The profile as it is shipped packs what clusters have: pods of Deployments, Services and Jobs beside CoreDNS, whose pods prefer to be apart
// from each other. Eight pods of one CPU come one after another to four nodes of eight CPUs; on none is a false condition written.
func TestShippedProfile(t *testing.T) {
	for name, tc := range map[string]struct {
		owner   string
		service bool
		change  func(*st.PodWrapper)
		// spread is what the cluster's PodTopologySpread has for pods that say nothing.
		spread string
		want   string // pods by node, least first
	}{
		"jobs":                        {owner: "Job", want: "0 0 0 8"},
		"a Deployment":                {owner: "ReplicaSet", want: "0 0 0 8"},
		"a Service":                   {owner: "Job", service: true, want: "0 0 0 8"},
		"a Deployment with a Service": {owner: "ReplicaSet", service: true, want: "0 0 0 8"},
		"a cluster that likes Services to be spread": {
			owner: "Job", service: true, want: "0 0 0 8",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]",
		},
		"a cluster where Services must be spread": {
			owner: "Job", service: true, want: "2 2 2 2",
			spread: "[{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]",
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
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("../../manifests/scheduler/config/scheduler-config.yaml")
			if err != nil {
				t.Fatal(err)
			}
			shipped := strings.Replace(string(text), "explainAddress: 127.0.0.1:10260", "candidates: 4", 1)
			if tc.spread != "" {
				shipped = strings.Replace(shipped, "args: {defaultingType: List}", "args: {defaultingType: List, defaultConstraints: "+tc.spread+"}", 1)
			}
			decoded, _, err := scheme.Codecs.UniversalDecoder().Decode([]byte(shipped), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			pods := make([]*v1.Pod, 8)
			for i := range pods {
				pod := st.MakePod().Name(fmt.Sprint("p", i)).UID(fmt.Sprint("p", i)).Namespace("scan").Label("app", "w").SchedulerName("ebbtide").
					Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})
				controller := true
				pod.OwnerReferences = []metav1.OwnerReference{{Kind: tc.owner, Name: "workers", Controller: &controller}}
				if tc.owner == "ReplicaSet" {
					pod.OwnerReferences[0].APIVersion = "apps/v1"
				}
				if tc.change != nil {
					tc.change(pod)
				}
				pods[i] = pod.Obj()
			}
			counts, unschedulable := schedule(t, decoded.(*config.KubeSchedulerConfiguration).Profiles[0], tc.service, pods)
			byNode := []int{counts["n1"], counts["n2"], counts["n3"], counts["n4"]}
			slices.Sort(byNode)
			got := strings.Trim(fmt.Sprint(byNode), "[]")
			if got != tc.want || unschedulable != 0 {
				t.Errorf("pods by node %s, and %d false conditions; want %s and none", got, unschedulable, tc.want)
			}
		})
	}
}

// schedule runs the whole scheduler on pods, one after another, and counts those on each node and the conditions that say that none has room.
func schedule(t *testing.T, p config.KubeSchedulerProfile, service bool, pods []*v1.Pod) (counts map[string]int, unschedulable int64) {
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
		objects = append(objects, node)
	}
	if service {
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
	sched, err := scheduler.New(ctx, client, factory, nil, profile.NewRecorderFactory(broadcaster), scheduler.WithProfiles(p),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{Name: New}))
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
		if _, err := client.CoreV1().Pods("scan").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		select {
		case node := <-bound:
			counts[node]++
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits; pods by node so far: %v", pod.Name, counts)
		}
		// The scheduler reads back what it bound before it counts it for the next pod.
		time.Sleep(50 * time.Millisecond)
	}
	return counts, refused.Load()
}

package drainpack

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/placement"
)

// get asks the plugin over HTTP.
func get[T any](t *testing.T, d *DrainPack, path string) (answer T) {
	t.Helper()
	recorder := httptest.NewRecorder()
	d.Explain().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, recorder.Code, recorder.Body)
	}
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// place puts a pod on the node that the plugin likes best of all, as the scheduler would.
func place(t *testing.T, d *DrainPack, pod *v1.Pod, nodes []*v1.Node) string {
	t.Helper()
	state := framework.NewCycleState()
	offer, _ := d.PreFilter(t.Context(), state, pod, nil)
	var infos []fwk.NodeInfo
	for _, node := range nodes {
		if offer == nil || offer.NodeNames.Has(node.Name) {
			info, err := d.handle.SnapshotSharedLister().NodeInfos().Get(node.Name)
			if err != nil {
				t.Fatal(err)
			}
			infos = append(infos, info)
		}
	}
	best := infos[0].Node().Name
	if len(infos) > 1 { // the scheduler scores no single node
		best = scoreAll(t, d, state, pod, infos)
	}
	if status := d.Reserve(t.Context(), state, pod, best); !status.IsSuccess() {
		t.Fatal(status)
	}
	d.PostBind(t.Context(), state, pod, best)
	return best
}

func TestExplain(t *testing.T) {
	var nodes []*v1.Node
	for _, name := range []string{"long", "short", "empty", "web"} {
		node := nodeWith(name, "0", nil).Node()
		node.Status.Allocatable = node.Status.Capacity
		node.Labels = map[string]string{"name": name}
		nodes = append(nodes, node)
	}
	pod := func(name, runs string) *st.PodWrapper {
		return toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})).
			Annotation(durationAnnotation, runs)
	}
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	running := []*v1.Pod{pod("l", "1h").Node("long").StartTime(metaTime(at)).Obj(), pod("s", "5m").Node("short").StartTime(metaTime(at)).Obj()}
	web := st.MakePod().Name("w").UID("w").Namespace("scan").Node("web").Obj()
	d := onCluster(t, nodes, append(running, web))

	if got := place(t, d, pod("first", "10m").Obj(), nodes); got == "" {
		t.Fatal("no node")
	}
	for i := range 100 { // what pods say of themselves proves right
		ran := time.Duration(1+i) * time.Second
		d.fleet.Finished(fleet.Ended{Pod: fleet.Pod{ID: fmt.Sprint("taught", i), Class: "scan/taught", Stated: ran}, Ran: ran, At: at, Well: true})
	}
	d.fleet.Restored(nil, at) // so of those that run already, too
	on := func(p *st.PodWrapper, name string) *v1.Pod {
		return p.NodeSelector(map[string]string{"name": name}).Obj()
	}
	place(t, d, pod("no-harm", "20m").Obj(), nodes)
	place(t, d, on(pod("outlasted", "20m"), "long"), nodes)
	place(t, d, on(pod("extends", "20m"), "short"), nodes)
	place(t, d, on(pod("fresh", "1m"), "empty"), nodes)

	placed := get[[]placement.Placement](t, d, "/placements")
	if len(placed) != 5 || placed[0].Pod != "fresh" || placed[4].Pod != "first" {
		t.Fatalf("%d placements, want the newest of 5 first: %+v", len(placed), placed)
	}
	for name, want := range map[string]struct{ tier, node, decided, reason string }{
		"first":     {"endless", "web", "extension", "little is known of the pod's run time"},
		"no-harm":   {"endless", "web", "slack", "web has a pod that never ends, so it stays anyway; the next best, long, lost by slack"},
		"outlasted": {"outlasts", "long", "", "long stays for 1h0m0s anyway, the pod runs for 20m0s"},
		"extends":   {"extended", "short", "", "longer for the pod"},
		"fresh":     {"empty", "empty", "", "no pod that keeps it"},
	} {
		found := get[[]placement.Placement](t, d, "/placements?namespace=scan&pod="+name)
		if len(found) != 1 {
			t.Fatalf("%s: %d placements", name, len(found))
		}
		p := found[0]
		if p.Tier != want.tier || p.DecidedBy != want.decided || !strings.Contains(p.Reason, want.reason) || want.node != "" && p.Node != want.node ||
			p.Key == nil || p.Key.Name != p.Node || p.Offer != offerCandidates {
			t.Errorf("%s: %+v, want %+v", name, p, want)
		}
	}
	views := get[[]fleet.View](t, d, "/nodes")
	if len(views) != 4 || views[0].Name != "empty" || views[3].Name != "web" || !views[3].Endless {
		t.Errorf("nodes %+v", views)
	}
	for path, want := range map[string]int{"/placements?pod=nobody": 404, "/placements?limit=x": 400, "/": 404} {
		recorder := httptest.NewRecorder()
		d.Explain().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		if recorder.Code != want {
			t.Errorf("%s: status %d, want %d", path, recorder.Code, want)
		}
	}
}

func TestPlacementsAreBounded(t *testing.T) {
	var p placements
	for i := range remembered + 10 {
		p.add(placement.Placement{Pod: fmt.Sprint(i)})
	}
	got := p.list("", "", remembered+10)
	if len(got) != remembered || got[0].Pod != fmt.Sprint(remembered+9) || got[remembered-1].Pod != "10" {
		t.Errorf("%d placements from %s to %s", len(got), got[0].Pod, got[len(got)-1].Pod)
	}
}

package drainpack

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as the scheduler's main package does
)

// A scheduler serves workers from when the election has chosen it, before it has placed a pod, and not before.
func TestElected(t *testing.T) {
	if elected() {
		t.Fatal("elected before there is an election")
	}
	client := fake.NewClientset()
	campaign := func(name string, leads chan<- struct{}) *leaderelection.LeaderElector {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: "ebbtide-system", Name: "ebbtide-scheduler"}, Client: client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 50 * time.Millisecond, Name: name,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(leads) }, OnStoppedLeading: func() {}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return elector
	}
	if campaign("standby", make(chan struct{})); elected() {
		t.Error("elected while it stands by")
	}
	leads := make(chan struct{})
	go campaign("leader", leads).Run(t.Context())
	select {
	case <-leads:
	case <-time.After(time.Minute):
		t.Fatal("nobody is elected")
	}
	if !elected() {
		t.Error("the election is not seen")
	}
}

package policy

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// A policy that is deleted and created again while the watch is broken comes as one update, of the same generation. Nothing of the old one
// is kept.
func TestFollowRecreated(t *testing.T) {
	b := newBundle(t)
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	informers := &informertest.FakeInformers{Scheme: scheme, Synced: ptr.To(true)}
	fake, err := informers.FakeInformerFor(t.Context(), &v1alpha1.ScalingPolicy{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	synced, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- Follow(ctx, informers, nil, b.store, func() { close(synced) }) }()
	select {
	case <-synced:
	case err := <-ended:
		t.Fatal(err)
	}
	made := func(uid string, limit int32) *v1alpha1.ScalingPolicy {
		return &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "scans", UID: types.UID(uid), Generation: 1},
			Spec: v1alpha1.ScalingPolicySpec{
				Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
				Target:  v1alpha1.Target{MaxReplicas: ptr.To(limit)},
			},
		}
	}
	until := func(want int32) {
		t.Helper()
		for begin := time.Now(); b.limit("scans") != want; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("cap %d, want %d", b.limit("scans"), want)
			}
		}
	}
	fake.Add(made("one", 5))
	until(5)
	fake.Update(made("one", 5), made("two", 50))
	until(50)
	fake.Delete(made("two", 50))
	until(-1)

	// A policy that is still being read exists.
	for range cap(b.store.turns) {
		b.store.turns <- struct{}{}
	}
	scans := types.NamespacedName{Namespace: "scan", Name: "scans"}
	fake.Add(made("three", 7))
	if _, _, known := b.store.Get(scans); known || !b.store.Announced(scans) {
		t.Errorf("known %t, announced %t; want a policy that is announced alone", known, b.store.Announced(scans))
	}
	for range cap(b.store.turns) {
		<-b.store.turns
	}
	until(7)
	if b.store.Announced(scans) {
		t.Error("a policy in force is still announced")
	}
	fake.Delete(made("three", 7))
	until(-1)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(b.forgotten) != 3 {
		t.Errorf("%v forgotten, want the three policies", b.forgotten)
	}
}

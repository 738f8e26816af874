// soak runs the scaler's own parts with ten thousand policies, whose credentials are in Secrets of a fake API server, against one real broker: first
// undisturbed, then beside hostile policies, then with edits, deletions, rotated Secrets, changes of leader and a broker that is killed and comes
// back, too. It fails when an answer is wrong, when healthy policies wait longer for theirs than before, or when memory grows.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/externalscaler"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/status"
)

const (
	queues     = 200
	namespaces = 100
	// memoryLimit is the chart's, of the container; the fake API server's objects are in it here.
	memoryLimit = 256 << 20
	// slack is what the 99th percentile may be longer on a machine that does other things, too, and memorySlack what may be live on top.
	slack, memorySlack = 5 * time.Millisecond, 16 << 20
	// warmWithin bounds the time until all policies are answered, inForceWithin that of an edit.
	warmWithin, inForceWithin = 5 * time.Minute, 20 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	policies := flag.Int("policies", 10_000, "how many healthy policies there are")
	every := flag.Duration("every", 15*time.Second, "how often each is asked for")
	phase := flag.Duration("phase", 45*time.Second, "how long each of the three phases takes")
	without := flag.String("without", "", "kinds of hostile policies to leave out, with commas between them: bomb, hung, away, password, long, missing, rule, answer, secret")
	flag.Parse()
	if err := run(ctx, *policies, *every, *phase, strings.Split(*without, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// soak is the scaler and what is around it.
type soak struct {
	broker    *rabbitmq.Broker
	api       client.Client
	informer  *controllertest.FakeInformer
	store     *policy.Store
	decider   *decision.Decider
	recorder  *decision.Recorder
	service   *externalscaler.Service
	brokerOff atomic.Int64 // until when, in Unix milliseconds, answers may be held or failures

	mu      sync.Mutex
	objects []*v1alpha1.ScalingPolicy // the healthy ones, as the API server has them now
	changes []int                     // of each, how many were begun and ended: odd while one is not in force yet
	wrong   []string
	hostile []types.NamespacedName
}

func (s *soak) Validated(name types.NamespacedName, err error) { s.recorder.Validated(name, err) }
func (s *soak) Forget(name types.NamespacedName) {
	s.decider.Forget(name)
	s.recorder.Forget(name)
}

func run(ctx context.Context, policies int, every, phase time.Duration, without []string) error {
	dir, err := os.MkdirTemp("", "ebbtide-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &soak{changes: make([]int, policies)}
	if s.broker, err = rabbitmq.Start(ctx, rabbitmq.Options{Dir: dir}); err != nil {
		return err
	}
	defer s.broker.Stop()
	if err := s.fill(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	begin := time.Now()
	if err := s.start(ctx, &background, policies); err != nil {
		return err
	}
	fmt.Printf("%d policies in force after %s\n", policies, time.Since(begin).Round(time.Millisecond))

	begin = time.Now()
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	fmt.Printf("all credentials read after %s\n", time.Since(begin).Round(time.Millisecond))
	runtime.GC()
	calm := s.poll(ctx, every, phase)
	calmMemory := memory()
	fmt.Printf("undisturbed: %s, %d MiB\n", calm, calmMemory>>20)

	if err := s.addHostile(ctx, without); err != nil {
		return err
	}
	beside := func(disturbances ...func(context.Context)) latencies {
		disturbing, stopDisturbing := context.WithTimeout(ctx, phase)
		defer stopDisturbing()
		var disturbed sync.WaitGroup
		for _, disturb := range disturbances {
			disturbed.Go(func() { disturb(disturbing) })
		}
		defer disturbed.Wait()
		return s.poll(ctx, every, phase)
	}
	hostile := beside(s.askHostile)
	fmt.Printf("beside %d hostile policies: %s, %d MiB\n", len(s.hostile), hostile, memory()>>20)
	storm := beside(s.edit, s.delete, s.rotate, s.askHostile, s.restartBroker)
	stormMemory := memory()
	fmt.Printf("disturbed:   %s, %d MiB\n", storm, stormMemory>>20)

	var errs []error
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) > 0 {
		errs = append(errs, fmt.Errorf("%d wrong answers, the first: %s", len(s.wrong), strings.Join(s.wrong[:min(5, len(s.wrong))], "; ")))
	}
	if limit := calm.p99*6/5 + slack; hostile.p99 > limit {
		errs = append(errs, fmt.Errorf("p99 of healthy policies beside hostile ones is %s, want at most %s", hostile.p99, limit))
	}
	if limit := 2*calm.p99 + slack; storm.p99 > limit {
		errs = append(errs, fmt.Errorf("p99 of healthy policies is %s, want at most %s", storm.p99, limit))
	}
	if stormMemory > memoryLimit || stormMemory > calmMemory*4/3+memorySlack {
		errs = append(errs, fmt.Errorf("%d MiB after %d MiB undisturbed, want no more than a third on top, and at most %d", stormMemory>>20, calmMemory>>20, memoryLimit>>20))
	}
	return errors.Join(errs...)
}

// memory is what is live.
func memory() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

// fill declares the queues; queue i has wanted(i) messages.
func (s *soak) fill(context.Context) error {
	connection, err := amqp.Dial(s.broker.AMQPURL("/"))
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	var last *amqp.DeferredConfirmation
	for i := range queues {
		if _, err := channel.QueueDeclare(queueName(i), true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic}); err != nil {
			return err
		}
		for range wanted(i) {
			if last, err = channel.PublishWithDeferredConfirm("", queueName(i), true, false, amqp.Publishing{DeliveryMode: amqp.Persistent}); err != nil {
				return err
			}
		}
	}
	last.Wait()
	return nil
}

func queueName(i int) string { return fmt.Sprint("scans-", i%queues) }
func wanted(i int) int       { return i % queues % 7 }

// healthy is the policy i of a generation: every second one has a cap of its own.
func healthy(i int, generation int64) *v1alpha1.ScalingPolicy {
	namespace := fmt.Sprint("tenant-", i%namespaces)
	return &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("scans-", i), UID: types.UID(fmt.Sprint(i)), Generation: generation},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: inSecret(fmt.Sprint("mq-", i)), Queue: queueName(i)}},
			Target:  v1alpha1.Target{MaxReplicas: ptr.To(int32(1000 - generation%2*998))}, // 2, when the generation is odd
		},
	}
}

func inSecret(name string) v1alpha1.ValueSource {
	return v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: "uri"}}
}

func (s *soak) secret(namespace, name, uri string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{"uri": []byte(uri)}}
}

// uri is one of two ways to reach the broker.
func (s *soak) uri(other bool) string {
	if other {
		return strings.Replace(s.broker.AMQPURL("/"), "127.0.0.1", "localhost", 1)
	}
	return s.broker.AMQPURL("/")
}

// start starts the scaler's parts, and feeds them policies as an informer does.
func (s *soak) start(ctx context.Context, background *sync.WaitGroup, policies int) error {
	scheme := kruntime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.ScalingPolicy{})
	for i := range policies {
		object := healthy(i, 2)
		s.objects = append(s.objects, object)
		builder.WithObjects(object, s.secret(object.Namespace, object.Spec.Backlog.RabbitMQ.URI.SecretKeyRef.Name, s.uri(false)))
	}
	s.api = builder.Build()
	informers := &informertest.FakeInformers{Scheme: scheme}
	var err error
	if s.informer, err = informers.FakeInformerFor(ctx, &v1alpha1.ScalingPolicy{}); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	s.recorder = decision.NewRecorder(decision.NewLedger(64), prometheus.NewRegistry(), log)
	s.store = policy.NewStore(policy.NewSources(backlog.SampleBounds{Timeout: 5 * time.Second, Now: time.Now}), s, log)
	s.decider = decision.NewDecider(decision.Config{
		Policies: s.store, Recorder: s.recorder, MaxAge: 900 * time.Millisecond, Timeout: 5 * time.Second, Now: time.Now,
	})
	s.service = externalscaler.New(externalscaler.Config{Decider: s.decider, MaxAge: 900 * time.Millisecond})
	background.Go(func() { _ = policy.Follow(ctx, informers, s.api, s.store, func() {}) })
	first := types.NamespacedName{Namespace: s.objects[0].Namespace, Name: s.objects[0].Name}
	for deadline := time.Now().Add(20 * time.Second); s.store.Newest(first) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("the informer's events do not arrive")
		}
		s.informer.Add(s.objects[0])
	}
	for _, object := range s.objects[1:] {
		s.informer.Add(object)
	}
	background.Go(func() { s.lead(ctx) })
	return nil
}

// lead writes statuses, with a new leader every ten seconds.
func (s *soak) lead(ctx context.Context) {
	for ctx.Err() == nil {
		leading, cancel := context.WithCancel(ctx)
		term := time.AfterFunc(10*time.Second, cancel)
		writer := status.New(status.Reconciler{
			Reader: s.api, Client: s.api, Policies: s.store, Ledger: s.recorder.Ledger, Decider: s.decider, Now: time.Now, Events: &record.FakeRecorder{},
		})
		for leading.Err() == nil {
			for _, name := range s.store.Names() {
				if leading.Err() != nil {
					break
				}
				if _, err := writer.Reconcile(leading, reconcile.Request{NamespacedName: name}); err != nil && leading.Err() == nil {
					s.say("status of %s: %v", name, err)
				}
			}
		}
		term.Stop()
		cancel()
	}
}

func (s *soak) say(format string, arguments ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, arguments...))
}

// latencies of answers.
type latencies struct {
	n             int
	p50, p99, max time.Duration
}

func (l latencies) String() string {
	return fmt.Sprintf("%d answers, p50 %s, p99 %s, max %s", l.n, l.p50.Round(10*time.Microsecond), l.p99.Round(10*time.Microsecond), l.max.Round(10*time.Microsecond))
}

// warmUp asks for every policy until it is answered: Secrets are read at a bounded rate.
func (s *soak) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, warmWithin, fmt.Errorf("not all policies are answered within %s", warmWithin))
	defer cancel()
	lanes, laneCtx := errgroup.WithContext(ctx)
	const many = 64
	for lane := range many {
		lanes.Go(func() error {
			for i := lane; i < len(s.objects); i += many {
				name := types.NamespacedName{Namespace: s.objects[i].Namespace, Name: s.objects[i].Name}
				for {
					decided, err := s.decider.Decide(laneCtx, name)
					if err == nil && decided.Failure == nil {
						break
					}
					if laneCtx.Err() != nil {
						return context.Cause(laneCtx)
					}
				}
			}
			return nil
		})
	}
	return lanes.Wait()
}

// poll asks for every policy once in every, as KEDA does, and checks each answer.
func (s *soak) poll(ctx context.Context, every, length time.Duration) latencies {
	const lanes = 64
	var mu sync.Mutex
	var all []time.Duration
	var work sync.WaitGroup
	end := time.Now().Add(length)
	for lane := range lanes {
		work.Go(func() {
			share := (len(s.objects) + lanes - 1 - lane) / lanes
			pause := every / time.Duration(share)
			next := time.Now().Add(time.Duration(rand.Int64N(int64(pause))))
			for i := lane; time.Now().Before(end) && ctx.Err() == nil; i = (i + lanes) % len(s.objects) {
				time.Sleep(time.Until(next))
				next = next.Add(pause)
				took, counts := s.ask(ctx, i)
				if counts {
					mu.Lock()
					all = append(all, took)
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		return latencies{}
	}
	return latencies{len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

// ask asks for the policy i and checks the answer. The time counts unless the broker was away, or the policy was.
func (s *soak) ask(ctx context.Context, i int) (took time.Duration, counts bool) {
	s.mu.Lock()
	object, changes := s.objects[i], s.changes[i]
	s.mu.Unlock()
	begin := time.Now()
	response, err := s.service.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: &pb.ScaledObjectRef{
		Namespace: object.Namespace, Name: "job", ScalerMetadata: map[string]string{"policy": object.Name},
	}})
	took = time.Since(begin)
	away := begin.UnixMilli() < s.brokerOff.Load() || time.Now().UnixMilli() < s.brokerOff.Load()
	s.mu.Lock()
	edited := changes%2 == 1 || s.changes[i] != changes
	s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return took, false
	case err != nil && !away && !edited:
		s.say("%s: %v", object.Name, err)
	case err == nil && !edited:
		most := int64(*object.Spec.Target.MaxReplicas)
		if got, want := response.MetricValues[0].MetricValue, min(most, int64(wanted(i))); got != want {
			s.say("%s: %d, want %d", object.Name, got, want)
		}
	}
	return took, !away && !edited
}

// often does something to random policies until ctx ends.
func (s *soak) often(ctx context.Context, pause time.Duration, do func(i int)) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do(rand.IntN(len(s.objects)))
		}
	}
}

// change replaces the policy i, as the API server and its watch show it, and waits until that is in force.
func (s *soak) change(i int, next func(before *v1alpha1.ScalingPolicy) *v1alpha1.ScalingPolicy, event func(before, after *v1alpha1.ScalingPolicy)) {
	s.mu.Lock()
	if s.changes[i]%2 == 1 { // somebody else's
		s.mu.Unlock()
		return
	}
	before := s.objects[i]
	after := next(before)
	s.objects[i] = after
	s.changes[i]++
	s.mu.Unlock()
	event(before, after)
	name := types.NamespacedName{Namespace: after.Namespace, Name: after.Name}
	for deadline := time.Now().Add(inForceWithin); ; time.Sleep(5 * time.Millisecond) {
		if newest := s.store.Newest(name); newest != nil && newest.UID == after.UID && newest.Generation == after.Generation {
			break
		}
		if time.Now().After(deadline) {
			s.say("%s: generation %d is not in force after %s", after.Name, after.Generation, inForceWithin)
			break
		}
	}
	s.mu.Lock()
	s.changes[i]++
	s.mu.Unlock()
}

func (s *soak) edit(ctx context.Context) {
	s.often(ctx, 50*time.Millisecond, func(i int) {
		s.change(i, func(before *v1alpha1.ScalingPolicy) *v1alpha1.ScalingPolicy {
			after := healthy(i, before.Generation+1)
			after.UID = before.UID
			return after
		}, func(before, after *v1alpha1.ScalingPolicy) { s.informer.Update(before, after) })
	})
}

// delete deletes policies and creates them again at once.
func (s *soak) delete(ctx context.Context) {
	created := 0
	s.often(ctx, 200*time.Millisecond, func(i int) {
		created++
		s.change(i, func(*v1alpha1.ScalingPolicy) *v1alpha1.ScalingPolicy {
			after := healthy(i, 2)
			after.UID = types.UID(fmt.Sprint("again-", created))
			return after
		}, func(before, after *v1alpha1.ScalingPolicy) {
			s.informer.Delete(before)
			s.informer.Add(after)
		})
	})
}

func (s *soak) rotate(ctx context.Context) {
	other := false
	s.often(ctx, 20*time.Millisecond, func(i int) {
		other = !other
		s.mu.Lock()
		object := s.objects[i]
		s.mu.Unlock()
		if err := s.api.Update(ctx, s.secret(object.Namespace, fmt.Sprint("mq-", i), s.uri(other))); err != nil && ctx.Err() == nil {
			s.say("rotate a Secret: %v", err)
		}
	})
}

func (s *soak) restartBroker(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(5 * time.Second):
	}
	const comesBack = 20 * time.Second // after its return: the scaler tries again within 15 s
	s.brokerOff.Store(time.Now().Add(time.Hour).UnixMilli())
	s.broker.Crash()
	if err := s.broker.Restart(context.WithoutCancel(ctx)); err != nil {
		s.say("restart the broker: %v", err)
	}
	s.brokerOff.Store(time.Now().Add(comesBack).UnixMilli())
}

// addHostile adds ten policies of each kind that harmed others once, but for some kinds.
func (s *soak) addHostile(ctx context.Context, without []string) error {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // accepted by the kernel, read by nobody
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { hung.Close() })
	endless, err := endlessAnswers(ctx)
	if err != nil {
		return err
	}
	const most = 2147483647
	value := func(uri string) v1alpha1.ValueSource { return v1alpha1.ValueSource{Value: uri} }
	for i := range 10 {
		for kind, spec := range map[string]v1alpha1.ScalingPolicySpec{
			"bomb": {
				Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value(s.uri(false)), Queue: queueName(6)}},
				Target: v1alpha1.Target{
					MaxReplicas: ptr.To[int32](most), MaxReplicasGroup: &v1alpha1.MaxReplicasGroup{Name: fmt.Sprint("g", i/2), MaxReplicas: most, Weight: 1},
				},
				Calendar: &v1alpha1.Calendar{Default: v1alpha1.Limits{MinReplicas: ptr.To[int32](most)}},
			},
			"hung":     {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value("amqp://u:p@" + hung.Addr().String()), Queue: "q"}}},
			"away":     {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value("amqp://u:p@127.0.0.1:1"), Queue: "q"}}},
			"password": {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value("amqp://guest:wr0ng#@" + strings.TrimPrefix(s.uri(false), "amqp://guest:guest@")), Queue: "q"}}},
			"long":     {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value(s.uri(false)), Queue: strings.Repeat("ж", 130)}}},
			"missing":  {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value(s.uri(false)), Queue: fmt.Sprint("nobody-declared-it-", i)}}},
			"rule": {
				Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: value(s.uri(false)), Queue: queueName(6)}},
				Calendar: &v1alpha1.Calendar{
					Periods:  []v1alpha1.Period{{Name: "all", Limits: v1alpha1.Limits{MinReplicas: ptr.To[int32](0)}}},
					Holidays: &v1alpha1.Holidays{Use: "all", ICS: value(everySecond())},
				},
			},
			"answer": {Backlog: v1alpha1.Backlog{Prometheus: &v1alpha1.PrometheusBacklog{URL: value(endless), Query: "x"}}},
			"secret": {Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: inSecret("nobody-made-it"), Queue: "q"}}},
		} {
			if slices.Contains(without, kind) {
				continue
			}
			object := &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "hostile", Name: fmt.Sprint(kind, "-", i), UID: types.UID(kind + fmt.Sprint(i)), Generation: 1}, Spec: spec}
			s.informer.Add(object)
			s.hostile = append(s.hostile, types.NamespacedName{Namespace: object.Namespace, Name: object.Name})
		}
	}
	return nil
}

// everySecond is a calendar with an event in each second of each day.
func everySecond() string {
	numbers := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprint(i)
		}
		return strings.Join(all, ",")
	}
	return "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART:20000101T000000Z\r\nRRULE:FREQ=DAILY;BYHOUR=" + numbers(24) + ";BYMINUTE=" + numbers(60) +
		";BYSECOND=" + numbers(60) + "\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
}

// endlessAnswers is a Prometheus server whose answers expand without end.
func endlessAnswers(ctx context.Context) (url string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	var zipped bytes.Buffer // of 64 MiB, made once: members of a gzip stream can be repeated
	zip := gzip.NewWriter(&zipped)
	for range 64 {
		if _, err := zip.Write(make([]byte, 1<<20)); err != nil {
			return "", err
		}
	}
	if err := zip.Close(); err != nil {
		return "", err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		for {
			if _, err := w.Write(zipped.Bytes()); err != nil {
				return
			}
		}
	}), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}

// askHostile asks for the hostile policies every two seconds each; what they are answered is theirs.
func (s *soak) askHostile(ctx context.Context) {
	var work sync.WaitGroup
	for _, name := range s.hostile {
		work.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.decider.Decide(ctx, name)
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second):
				}
			}
		})
	}
	work.Wait()
}

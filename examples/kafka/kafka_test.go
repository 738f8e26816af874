// Package kafka_test runs the example.
package kafka_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

const (
	scans, partitions = 60, 6
	// brokers as the example's files name them.
	brokers = "kafka.kafka:9092"
)

// script stands for a scanner: it fails on one scan, asks for another attempt at another, and dies of a third.
const script = `read scan
case $scan in
scan-7) echo "not a repository" >&2; exit 3;;
scan-11) [ $EBBTIDE_DELIVERY_COUNT = 2 ] || exit 75;;
scan-13) kill -9 $PPID; exit 1;;
esac
echo "scanned $scan"`

// Records become jobs, jobs results: with nothing but Kafka, the scaler, workers, and KEDA's arithmetic between them. One scan kills its
// worker each time, one fails, one succeeds at the third attempt.
func TestExample(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts programs")
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "scans"), kfake.SeedTopics(2, "scans-retry"),
		kfake.SeedTopics(1, "scan-results", "scan-dead"), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	address := strings.Join(cluster.ListenAddrs(), ",")
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("scan-results", "scan-dead"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs+"/", "../../cmd/ebbtide-scaler", "../../cmd/ebbtide-worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	for i := range scans {
		id := fmt.Sprintf("scan-%d", i)
		if err := client.ProduceSync(t.Context(), &kgo.Record{
			Topic: "scans", Key: fmt.Appendf(nil, "repository-%d", i%17), Value: []byte(id + "\n"), Headers: []kgo.RecordHeader{{Key: "message-id", Value: []byte(id)}},
		}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	group := proc.NewGroup(t.TempDir())
	defer group.Stop()
	scaler := startScaler(t, group, filepath.Join(programs, "ebbtide-scaler"), address)
	args := workerArgs(t, address)
	strategy, err := keda.NewStrategy("default")
	if err != nil {
		t.Fatal(err)
	}

	var jobs, unfinished, killed, most atomic.Int64
	ref := &pb.ScaledObjectRef{Name: "scans", Namespace: "scan", ScalerMetadata: map[string]string{"policy": "scans"}}
	// poll is what KEDA does.
	poll := func() int64 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		metrics, err := scaler.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref}, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded {
			t.Log(err) // it starts, or the machine is busy: KEDA asks again, too
			return 1
		}
		if err != nil {
			t.Fatal(err)
		}
		target := int64(metrics.MetricValues[0].MetricValueFloat)
		for range strategy.Create(target, keda.Jobs{Unfinished: unfinished.Load(), Max: 1000}) {
			name := fmt.Sprintf("scans-%d", jobs.Add(1))
			p, err := group.Start(t.Context(), proc.Spec{
				Name: name, Path: filepath.Join(programs, "ebbtide-worker"), Args: args, Env: []string{"JOB_NAME=" + name},
			})
			if err != nil {
				t.Fatal(err)
			}
			most.Store(max(most.Load(), unfinished.Add(1)))
			go func() {
				<-p.Done()
				if p.ExitCode() < 0 {
					killed.Add(1)
				} else if p.ExitCode() != 0 {
					text, _ := os.ReadFile(p.Log)
					t.Errorf("%s ended with %d: %s", name, p.ExitCode(), text)
				}
				unfinished.Add(-1)
			}()
		}
		return target
	}

	got, dead := map[string]*resultsv1alpha1.Result{}, map[string]*kgo.Record{}
	deadline := time.Now().Add(5 * time.Minute) // it takes half a minute
	for target := int64(-1); len(got) < scans || len(dead) < 2 || target > 0 || unfinished.Load() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d results, %d dead letters, target %d, %d unfinished jobs", len(got), len(dead), target, unfinished.Load())
		}
		target = poll()
		waiting, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		for _, record := range client.PollFetches(waiting).Records() {
			if record.Topic == "scan-dead" {
				dead[header(record, "message-id")] = record
				continue
			}
			result, err := results.Unmarshal(header(record, "content-type"), record.Value)
			if err != nil {
				t.Fatal(err)
			}
			got[result.GetKey()] = result
		}
		cancel()
	}
	for i := range scans {
		id := fmt.Sprintf("scan-%d", i)
		want, attempt, text := resultsv1alpha1.Status_STATUS_SUCCEEDED, int32(1), "scanned "+id+"\n"
		switch i {
		case 7:
			want, text = resultsv1alpha1.Status_STATUS_FAILED, ""
		case 11:
			attempt = 3
		case 13:
			want, attempt, text = resultsv1alpha1.Status_STATUS_FAILED, 4, ""
		}
		// Who was behind a worker that was killed may have been delivered before.
		if r := got[id]; r == nil || r.GetStatus() != want || r.GetText() != text || r.GetAttempt() < attempt {
			t.Errorf("%s: %v", id, r)
		}
	}
	if dead["scan-7"] == nil || dead["scan-13"] == nil || string(dead["scan-7"].Value) != "scan-7\n" ||
		header(dead["scan-7"], "ebbtide-reason") != "the command exited with 3: not a repository" {
		t.Errorf("dead letters %v", dead)
	}
	if killed.Load() != 3 || most.Load() > partitions+2 {
		t.Errorf("%d workers were killed, want 3; at most %d at once, for %d partitions", killed.Load(), most.Load(), partitions+2)
	}
	lag, err := kadm.NewClient(client).Lag(t.Context(), "scans")
	if err != nil || lag["scans"].Lag.Total() != 0 {
		t.Errorf("lag %v, %v", lag, err)
	}
	t.Logf("%d scans by %d jobs, %d at once", scans, jobs.Load(), most.Load())
}

func header(record *kgo.Record, key string) string {
	for _, h := range record.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// startScaler starts the scaler with the example's policy.
func startScaler(t *testing.T, group *proc.Group, program, address string) pb.ExternalScalerClient {
	t.Helper()
	policy, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := strings.ReplaceAll(string(policy), brokers, address)
	// The test runs at weekends too.
	text = strings.ReplaceAll(text, "maxReplicas: 10}", "maxReplicas: 50}")
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ports, err := proc.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	if _, err := group.Start(t.Context(), proc.Spec{
		Name: "scaler", Path: program, Args: []string{
			"--policy-dir", dir, "--listen", listen, "--metrics-listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])),
		},
	}); err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient(listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return pb.NewExternalScalerClient(connection)
}

// workerArgs are those of the example's ScaledJob, with a shell in the scanner's place and less patience.
func workerArgs(t *testing.T, address string) []string {
	t.Helper()
	var args []string
	text, err := os.ReadFile("scaledjob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job struct {
		Spec struct {
			JobTargetRef batchv1.JobSpec `json:"jobTargetRef"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	container := job.Spec.JobTargetRef.Template.Spec.Containers[0]
	for _, arg := range append(container.Command[1:], container.Args...) {
		switch {
		case strings.HasPrefix(arg, "--idle-timeout="):
			arg = "--idle-timeout=2s"
		case strings.HasPrefix(arg, "--retry-delays="):
			arg = "--retry-delays=1s"
		case arg == "--":
			// A worker that is silent for less than the session timeout is slow, not dead: on a busy machine seconds pass.
			// One scan kills its worker, which confinement does not let it.
			args = append(args, "--session-timeout=5s", "--rebalance-timeout=20s", "--confine=off", "--", "sh", "-c", script)
			return args
		}
		args = append(args, strings.ReplaceAll(arg, brokers, address))
	}
	t.Fatal("the example's worker has no command")
	return nil
}

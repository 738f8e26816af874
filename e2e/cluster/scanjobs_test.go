package cluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/examples/demo-scanner"
)

// What the containers of the chart's pods do, as processes with a real broker and a real scanner: the queues are declared, helm's test
// passes, each result is there once, and a message that can't be scanned is a dead letter. The demonstration, and both ways to run engines.
func TestIntegrationScanJobsProcesses(t *testing.T) {
	helm := newHelm(t)
	b := newScanBench(t)
	for name, test := range map[string]struct {
		values  []string
		results int // of a message
		wrong   string
	}{
		"demo":      {nil, 1, "exited with 128"},
		"one-pod":   {[]string{"-f", filepath.Join(b.root, "examples/engines-one-pod/values.yaml")}, 1, "exited with 128"},
		"pod-group": {[]string{"-f", filepath.Join(b.root, "examples/engines-pod-group/values.yaml")}, 2, "exited with 128"},
		"source":    {[]string{"-f", filepath.Join(b.root, "examples/source-store/values.yaml")}, 1, "no repository: give its URL"},
		"tenants":   {[]string{"--set", "tenants.queues[0].name=acme,test.messages[0].headers.tenant=acme,test.messages[1].headers.tenant=other"}, 1, "exited with 128"},
	} {
		t.Run(name, func(t *testing.T) {
			chart := filepath.Join(b.root, "charts", "scan-jobs")
			r := b.release(t, helm.run(t, append([]string{
				"template", name, chart, "-f", filepath.Join(chart, "values-test.yaml"), "--set",
				"broker.uri=" + b.broker.AMQPURL("/") + ",broker.managementURI=" + b.broker.ManagementURL() + ",worker.idleTimeout=5m",
			}, test.values...)...))
			if out, err := r.command(t, r.topology).CombinedOutput(); err != nil {
				t.Fatalf("declare the queues: %v\n%s", err, out)
			}
			var workers []*exec.Cmd
			for _, pod := range r.scans {
				workers = append(workers, r.start(t, pod))
			}
			var messages []struct{ Body string }
			if err := json.Unmarshal([]byte(r.files["messages.json"]), &messages); err != nil {
				t.Fatal(err)
			}
			out, err := r.command(t, r.test).CombinedOutput()
			if err != nil || strings.Count(string(out), "succeeded") != len(messages) {
				t.Fatalf("helm's test of %d messages: %v\n%s", len(messages), err, out)
			}
			r.files["messages.json"] = `[{"body": "no-such-repository"}]`
			if out, err = r.command(t, r.test).CombinedOutput(); err == nil || !strings.Contains(string(out), test.wrong) {
				t.Errorf("a repository that is not there: %v\n%s", err, out)
			}
			for _, worker := range workers {
				if err := errors.Join(worker.Process.Signal(syscall.SIGTERM), worker.Wait()); err != nil {
					t.Errorf("an idle worker that is asked to leave: %v\n%s", err, worker.Stderr)
				}
			}
			if name == "tenants" { // the first message, and no other, is acme's
				if log := fmt.Sprint(workers[1].Stderr); !strings.Contains(log, `"queue":"tenants.for.acme"`) || strings.Count(log, `"scan ended"`) != 1 {
					t.Errorf("the tenant's worker:\n%s", log)
				}
			}
			keys := b.drain(t, name+".results")
			want := (len(messages) + 1) * test.results
			if slices.Sort(keys); len(keys) != want || len(slices.Compact(keys)) != want {
				t.Errorf("%d results, want each of %d once: %v", len(keys), want, keys)
			}
			if dead := b.drain(t, name+".dead"); len(dead) != test.results {
				t.Errorf("%d dead letters, want %d", len(dead), test.results)
			}
		})
	}
}

// scanBench is what the demonstration's image, nodes and cluster bring.
type scanBench struct {
	root, dir string // the project's folder; and one with programs in bin, and with repositories
	broker    *rabbitmq.Broker
	channel   *amqp.Channel
}

func newScanBench(t *testing.T) *scanBench {
	t.Helper()
	b := &scanBench{broker: rabbitmq.StartForTest(t)}
	var err error
	if b.root, err = toolchain.Root(); err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: the path of a socket in it may be too long.
	if b.dir, err = os.MkdirTemp("", "scans-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	bin := filepath.Join(b.dir, "bin")
	for folder, program := range map[string]string{b.root: "./cmd/ebbtide-worker", filepath.Join(b.root, demoscanner.Module): "./gitleaks"} {
		if err := toolchain.BuildProject(t.Context(), folder, bin, os.Stderr, program); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(b.dir, "source"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := demoscanner.MakeRepositories(t.Context(), filepath.Join(b.dir, "repositories")); err != nil {
		t.Fatal(err)
	}
	connection, err := amqp.Dial(b.broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if b.channel, err = connection.Channel(); err != nil {
		t.Fatal(err)
	}
	return b
}

// drain takes all messages of a queue and returns their ids.
func (b *scanBench) drain(t *testing.T, queue string) []string {
	t.Helper()
	var ids []string
	for {
		delivery, ok, err := b.channel.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return ids
		}
		ids = append(ids, delivery.MessageId)
	}
}

// release is what of the chart's objects runs.
type release struct {
	bench          *scanBench
	files, secrets map[string]string
	topology, test corev1.Container
	scans          []corev1.PodSpec
}

// release reads the objects of a release.
func (b *scanBench) release(t *testing.T, text string) *release {
	t.Helper()
	r := &release{bench: b, files: map[string]string{}, secrets: map[string]string{}}
	for _, document := range strings.Split(text, "\n---\n") {
		var object struct {
			Kind             string
			Data, StringData map[string]string
			Spec             struct {
				corev1.PodSpec
				Template     corev1.PodTemplateSpec
				JobTargetRef struct{ Template corev1.PodTemplateSpec }
			}
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		switch object.Kind {
		case "ConfigMap":
			for name, content := range object.Data {
				r.files[name] = content
			}
		case "Secret":
			r.secrets = object.StringData
		case "Job":
			r.topology = object.Spec.Template.Spec.Containers[0]
		case "Pod":
			r.test = object.Spec.Containers[0]
		case "ScaledJob":
			r.scans = append(r.scans, object.Spec.JobTargetRef.Template.Spec)
		}
	}
	return r
}

// start starts a pod: the worker, after its sidecars, which end with the test.
func (r *release) start(t *testing.T, pod corev1.PodSpec) *exec.Cmd {
	t.Helper()
	for _, sidecar := range pod.InitContainers {
		if sidecar.RestartPolicy == nil {
			continue // the worker is there
		}
		cmd := r.command(t, sidecar)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // as Kubernetes does, after the worker
			if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
				t.Errorf("sidecar %s: %v", sidecar.Name, err)
			}
		})
	}
	cmd := r.command(t, pod.Containers[0])
	cmd.Stderr = &bytes.Buffer{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // where the test ended before it
	return cmd
}

// command is a container as a process: what it finds in its image and its volumes is elsewhere.
func (r *release) command(t *testing.T, container corev1.Container) *exec.Cmd {
	t.Helper()
	dir := r.bench.dir
	own := filepath.Join(dir, container.Name) // the folder of its socket, if it is an engine
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	words := append(slices.Clone(container.Command), container.Args...)
	if len(container.Command) == 0 {
		words = append([]string{"ebbtide-worker"}, words...) // the entry point of its image
	}
	places := strings.NewReplacer("/ebbtide/", dir+"/bin/", "/ebbtide-engines", dir, "/ebbtide-engine/", own+"/", "/ebbtide-source", dir+"/source", "/repositories/", dir+"/repositories/",
		"/definitions/", dir+"/", "/messages/", dir+"/", "/dev/termination-log", dir+"/termination-log")
	for i, word := range words {
		words[i] = places.Replace(word)
	}
	for name, content := range r.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(places.Replace(content)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(words[0], "/") {
		words[0] = filepath.Join(dir, "bin", words[0])
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"PATH=" + dir + "/bin:" + os.Getenv("PATH"), "HOME=" + dir}
	for _, variable := range container.Env {
		if from := variable.ValueFrom; from != nil && from.SecretKeyRef != nil {
			variable.Value = r.secrets[from.SecretKeyRef.Key]
		}
		cmd.Env = append(cmd.Env, variable.Name+"="+places.Replace(variable.Value))
	}
	return cmd
}

package podrunner

import (
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// A container's folders and termination message are its own. A process on this machine that got their names would empty the machine's /tmp.
func TestFilesOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	r := New(fake.NewClientset(), map[string]string{"ebbtide-worker": "/bin/worker", "e2e-scan": "/bin/scan"}, dir, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	own := files{filepath.Join(dir, "termination"), filepath.Join(dir, "scratch")}
	spec := func(command ...string) ([]string, error) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "scan"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Command: command, Args: []string{"e2e-scan"}, TerminationMessagePath: "/dev/termination-log"}}},
		}
		got, err := r.spec(t.Context(), pod, own)
		return append([]string{got.Path}, got.Args...), err
	}
	for name, test := range map[string]struct{ command, want []string }{
		"as charts/scan-jobs writes it": {
			[]string{"/usr/local/bin/ebbtide-worker", "--queue=scans", "--summary-file=/dev/termination-log", "--scratch=/tmp,/dev/shm", "--scratch-max-bytes=9", "--"},
			[]string{"/bin/worker", "--queue=scans", "--summary-file=" + own.terminationLog, "--scratch=" + own.scratch, "--scratch-max-bytes=9", "--", "/bin/scan"},
		},
		"words of their own": {
			[]string{"ebbtide-worker", "--summary-file", "/dev/termination-log", "--"},
			[]string{"/bin/worker", "--summary-file", own.terminationLog, "--", "/bin/scan"},
		},
	} {
		got, err := spec(test.command...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	if got, err := spec("ebbtide-worker", "--scratch", "/tmp"); err == nil || !strings.Contains(err.Error(), "--scratch=FOLDERS") {
		t.Errorf("--scratch /tmp runs as %v, %v; want an error that says how to write it", got, err)
	}
}

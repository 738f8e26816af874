package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebbtide-dev/ebbtide/e2e/gitserver"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/images"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// hostileScanner is the image of a scanner that its source has taken over.
const hostileScanner = "ebbtide-hostile"

// attack is a message whose scan attacks, or whose repository does, and how it has to end: with a result that has a text in it, or among the
// dead letters with a reason that has.
type attack struct {
	body, repository, revision string
	header                     string // whatever a producer puts there
	result, reason             string
}

const nothing = `{"got":null}`

// hostile scans code that attacks its worker, the store, the other tenant and the other engine, on real nodes: nothing leaks, nothing
// stays, and every message ends with its true reason.
func (s *scanQueue) hostile() {
	image, err := images.Build(s.ctx, s.root, images.Spec{Name: hostileScanner, Packages: []string{"./e2e/cmd/e2e-hostile"}, Arch: runtime.GOARCH})
	s.must(err)
	s.must(s.c.AddImage(s.ctx, hostileScanner, scans.ImageTag, image))
	folder, err := scans.SourceVolume(s.ctx, s.c, "evil-source")
	s.must(err)
	hostileRepositories(s.T, folder)

	// Two tenants, with a claim of one volume.
	s.helm("install", "evil", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", "e2e/scenario/manifests/hostile.yaml")
	s.helm("install", "victim", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", "e2e/scenario/manifests/hostile.yaml",
		"--set", "sourceStore.claim=evil-source,broker.secret=victim-mq")
	const repository = "file:///ebbtide-source/hidden.git"
	s.attack("evil", map[string]attack{
		"it looks for credentials":                  {body: "credentials", repository: repository, result: nothing},
		"it writes into the store":                  {body: "store", repository: repository, result: nothing},
		"it takes all memory":                       {body: "memory", repository: repository, reason: "out of memory: the kernel killed the command"},
		"a tree of ten thousand million files":      {body: "read", repository: "file:///ebbtide-source/bomb.git", reason: "more than 100000 files and folders"},
		"a repository that is not there":            {body: "read", repository: "file:///ebbtide-source/none.git", reason: "no such repository"},
		"a revision that is not there":              {body: "read", repository: repository, revision: "none", reason: `has no "none"`},
		"a protocol that runs programs":             {body: "read", repository: "ext::sh -c true", reason: "must be a URL"},
		"a revision that looks like an option":      {body: "read", repository: repository, revision: "--upload-pack=x", reason: "must be a branch"},
		"attributes that hide a file from scanners": {body: "read", repository: repository, result: "token = 0123456789"},
		"a scanner that fails":                      {body: "no such attack", repository: repository, reason: "no attack"},
		"a header of 90 KB":                         {body: "read", repository: repository, header: strings.Repeat("x", 90_000), reason: "its headers have 90"},
	})
	s.egress("evil")
	for range 3 { // so that some are in a pod that has had another
		s.attack("evil", map[string]attack{"it leaves a process and a file": {body: "leave", repository: repository, result: nothing}})
		s.attack("evil", map[string]attack{"nothing is left": {body: "look", repository: repository, result: nothing}})
	}
	s.attack("victim", map[string]attack{
		"the other tenant's source is as it was": {body: "read", repository: repository, result: "token = 0123456789"},
	})
	// A branch becomes a folder of branches, and the mirror still works.
	s.attack("victim", map[string]attack{"a branch": {body: "read", repository: repository, revision: "feature", result: "token"}})
	bare := filepath.Join(folder, "hidden.git")
	s.must(owned(folder, os.Getuid()))
	for _, args := range [][]string{{"branch", "-D", "feature"}, {"branch", "feature/a", "main"}, {"symbolic-ref", "HEAD", "refs/heads/gone"}} {
		_, err := gitserver.Git(bare, args...)
		s.must(err)
	}
	s.must(owned(folder, podUser))
	s.attack("victim", map[string]attack{
		"it becomes a folder":        {body: "read", repository: repository, revision: "feature/a", result: "token"},
		"a HEAD that names nothing":  {body: "read", repository: repository, reason: "has no default branch"},
		"and the branches are there": {body: "read", repository: repository, revision: "main", result: "token"},
	})
	s.helm("uninstall", "victim")
	s.helm("uninstall", "evil")

	// The default: the command runs beside its worker, which has the credentials.
	s.helm("install", "beside", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", "e2e/scenario/manifests/hostile.yaml",
		"--set", "sourceStore.enabled=false,commandIn=worker")
	s.attack("beside", map[string]attack{
		"it looks for its worker's credentials": {body: "credentials", result: nothing},
		"it leaves a process and a file":        {body: "leave", result: nothing},
	})
	s.attack("beside", map[string]attack{"nothing is left": {body: "look", result: nothing}})
	s.helm("uninstall", "beside")

	s.helm("install", "engines", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", "e2e/scenario/manifests/hostile-engines.yaml")
	s.attack("engines", map[string]attack{
		"an engine listens in another's place": {body: "impersonate", result: `{\"got\":null}`},
		"an engine looks for credentials":      {body: "credentials", result: `{\"got\":null}`},
	})
	s.helm("uninstall", "engines")
	for _, name := range []string{"mirrors/*/config", "mirrors/*/hooks", "planted"} {
		if found, err := filepath.Glob(filepath.Join(folder, name)); len(found) > 0 || err != nil {
			s.Errorf("%q is in the store, %v", found, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(folder, "checkouts/*/*")); len(left) > 0 || err != nil {
		s.Errorf("checkouts %q are left, %v", left, err)
	}
}

// attack sends messages to a release and looks at how each ends: once, with a result or a reason.
func (s *scanQueue) attack(name string, attacks map[string]attack) {
	s.Helper()
	for id, a := range attacks {
		headers := amqp.Table{}
		for header, value := range map[string]string{"repository": a.repository, "revision": a.revision, "header": a.header} {
			if value != "" {
				headers[header] = value
			}
		}
		s.must(s.channel.PublishWithContext(s.ctx, name, "", true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: id, Headers: headers, Body: []byte(a.body),
		}))
	}
	ends := map[string]string{}
	s.eventually("every message has ended", func() (string, bool) {
		for _, letter := range s.take(name + ".dead") {
			reason, _ := letter.Headers["ebbtide-reason"].(string)
			ends[letter.MessageId] += "dead: " + reason
		}
		for _, delivery := range s.take(name + ".results") {
			result, err := results.Unmarshal(delivery.ContentType, delivery.Body)
			s.must(err)
			if id, text := strings.SplitN(result.GetKey(), "/", 2)[0], result.GetText(); text != "" {
				ends[id] += "result: " + text
			}
		}
		return fmt.Sprintf("%d of %d have ended: %q", len(ends), len(attacks), ends), len(ends) >= len(attacks)
	})
	for id, a := range attacks {
		want, text := "result: ", a.result
		if a.reason != "" {
			want, text = "dead: ", a.reason
		}
		if end := ends[id]; !strings.HasPrefix(end, want) || !strings.Contains(end, text) || strings.Count(end, want) != 1 {
			s.Errorf("%s: %s: %q, want %s%q", name, id, end, want, text)
		}
		if strings.Contains(ends[id], "amqp://") {
			s.Errorf("%s: %s: credentials are in %q", name, id, ends[id])
		}
	}
}

// egress looks for what the pods of a release may not connect to: where credentials are handed out, and the API server, where this cluster's is.
// It takes a network that enforces policies to do more than look.
func (s *scanQueue) egress(name string) {
	s.Helper()
	policy, err := s.client.NetworkingV1().NetworkPolicies(scans.Namespace).Get(s.ctx, name, metav1.GetOptions{})
	s.must(err)
	service, err := s.client.CoreV1().Services("default").Get(s.ctx, "kubernetes", metav1.GetOptions{})
	s.must(err)
	slices, err := s.client.DiscoveryV1().EndpointSlices("default").List(s.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	s.must(err)
	closed := []string{"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "168.63.129.16/32", service.Spec.ClusterIP + "/32"}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			for _, address := range endpoint.Addresses {
				closed = append(closed, address+"/32")
			}
		}
	}
	text := fmt.Sprint(policy.Spec.Egress)
	for _, address := range closed {
		if !strings.Contains(text, address) {
			s.Errorf("pods of %s may connect to %s", name, address)
		}
	}
}

// hostileRepositories makes repositories on the volume, where the pods find them without a network.
func hostileRepositories(t *testing.T, folder string) {
	t.Helper()
	clone := t.TempDir()
	git := func(dir string, args ...string) {
		t.Helper()
		if _, err := gitserver.Git(dir, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"hidden.git", "bomb.git"} {
		git(folder, "init", "--quiet", "--bare", "-b", "main", name)
	}
	git(clone, "init", "--quiet", "-b", "main")
	for name, text := range map[string]string{"secret.env": "token = 0123456789\n", "attributes": "* -diff working-tree-encoding=UTF-16\n"} {
		if err := os.WriteFile(filepath.Join(clone, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git(clone, "add", ".")
	git(clone, "mv", "attributes", ".gitattributes") // after the file was added as it is
	git(clone, "commit", "--quiet", "-m", "hide")
	git(clone, "push", "--quiet", filepath.Join(folder, "hidden.git"), "HEAD:main", "HEAD:feature")
	bomb := filepath.Join(folder, "bomb.git")
	if err := gitserver.FastImport(bomb, strings.NewReader(gitserver.Bomb(10, 10, "x"))); err != nil {
		t.Fatal(err)
	}
	git(bomb, "branch", "main", "level9")
	if err := owned(folder, podUser); err != nil {
		t.Fatal(err)
	}
}

// podUser is the chart's.
const podUser = 65532

// owned gives the repositories on the volume to a user: git reads none of another's.
func owned(folder string, user int) error {
	for _, name := range []string{"hidden.git", "bomb.git"} {
		err := filepath.WalkDir(filepath.Join(folder, name), func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, user, user)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

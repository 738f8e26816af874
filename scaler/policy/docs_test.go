package policy

import (
	"errors"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// The policies of the documentation are valid.
func TestDocumentedPolicies(t *testing.T) {
	resolver := resolverFunc(func(v *v1alpha1.ValueSource) (string, error) {
		if v.ConfigMapKeyRef == nil {
			return "", errors.New("only holidays are read")
		}
		return holidayOn("20261228"), nil
	})
	for file, wrap := range map[string]func(string) string{
		"../../README.md": func(block string) string { first, _, _ := strings.Cut(block, "---\n"); return first },
		"../../docs/how-to/write-a-calendar.md": func(block string) string {
			return strings.Replace(scans, "  target: {maxReplicas: 7}\n", "  target: {maxReplicas: 200}\n", 1) +
				"  " + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n  ") + "\n"
		},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```yaml\n")[1:]
		if len(blocks) != 1 {
			t.Fatalf("%s: %d blocks of YAML, want the policy", file, len(blocks))
		}
		block, _, _ := strings.Cut(blocks[0], "```")
		policy, err := parse([]byte(wrap(block)))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		b := newBundle(t)
		b.store.Set(t.Context(), policy, resolver)
		if _, err, _ := b.store.Get(types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/yamldoc"
)

// ReadFile reads and compiles the policies of a YAML file, without their backlogs: for a look at what they would do. Objects of
// other kinds are left out. Values that policies refer to are read from files and the environment, as with --policy-dir. Errors
// begin with FILE:LINE.
func ReadFile(ctx context.Context, path string) ([]*Policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var policies []*Policy
	var errs []error
	var files parsedFiles
	at := func(line int, err error) { errs = append(errs, fmt.Errorf("%s:%d: %w", path, line, err)) }
	documents, err := yamldoc.Split(text)
	if wrong := (*yamldoc.Error)(nil); errors.As(err, &wrong) {
		at(wrong.Line, errors.New(wrong.Message))
	}
	for _, d := range documents {
		object, err := d.Object()
		if wrong := (*yamldoc.Error)(nil); errors.As(err, &wrong) {
			at(wrong.Line, errors.New(wrong.Message))
			continue
		}
		if object["kind"] != policyKind {
			continue
		}
		if _, err := identify(object); err != nil {
			at(d.Line, err)
			continue
		}
		completed, wrong := fileRules().complete(object)
		if len(wrong) == 0 {
			var policy *Policy
			if policy, wrong = compile(completed, files.read(ctx, completed, environment{filepath.Dir(path)})); policy != nil {
				policies = append(policies, policy)
			}
		}
		for _, e := range wrong {
			at(d.LineOf(e.Field), e)
		}
	}
	if len(errs) == 0 && len(policies) == 0 {
		errs = append(errs, fmt.Errorf("%s: holds no ScalingPolicy", path))
	}
	return policies, errors.Join(errs...)
}

const policyKind = "ScalingPolicy"

// identify returns the name of a policy that a file holds, whose namespace it fills in as kubectl does, or an error for another object.
func identify(object map[string]any) (types.NamespacedName, error) {
	if version, kind := object["apiVersion"], object["kind"]; version != v1alpha1.GroupVersion.String() || kind != policyKind {
		return types.NamespacedName{}, fmt.Errorf("apiVersion %q, kind %q: must be %s, %s", fmt.Sprint(version), fmt.Sprint(kind), v1alpha1.GroupVersion, policyKind)
	}
	meta, _ := object["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if name == "" {
		return types.NamespacedName{}, errors.New("metadata.name: name the policy")
	}
	namespace, _ := meta["namespace"].(string)
	if namespace == "" {
		namespace = "default"
		meta["namespace"] = namespace
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

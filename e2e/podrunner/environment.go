package podrunner

import (
	"context"
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/fieldpath"
)

// environment resolves a container's variables, NAME=value.
func (r *Runner) environment(ctx context.Context, pod *corev1.Pod, container corev1.Container) ([]string, error) {
	values := map[string]string{}
	for _, variable := range container.Env {
		value, err := r.value(ctx, pod, variable)
		if err != nil {
			return nil, fmt.Errorf("variable %s of pod %s: %w", variable.Name, pod.Name, err)
		}
		values[variable.Name] = value
	}
	env := make([]string, 0, len(values))
	for name, value := range values {
		env = append(env, name+"="+value)
	}
	sort.Strings(env)
	return env, nil
}

func (r *Runner) value(ctx context.Context, pod *corev1.Pod, variable corev1.EnvVar) (string, error) {
	from := variable.ValueFrom
	switch {
	case from == nil:
		return variable.Value, nil
	case from.FieldRef != nil:
		return fieldpath.ExtractFieldPathAsString(pod, from.FieldRef.FieldPath)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := r.client.CoreV1().Secrets(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) && ref.Optional != nil && *ref.Optional {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		value, ok := secret.Data[ref.Key]
		if !ok && (ref.Optional == nil || !*ref.Optional) {
			return "", fmt.Errorf("secret %s has no key %q", ref.Name, ref.Key)
		}
		return string(value), nil
	default:
		return "", fmt.Errorf("the pod runner knows values, fields and secrets only")
	}
}

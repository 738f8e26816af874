package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// objects resolves the values of policies that come from the API server. Secrets and ConfigMaps are read one by one,
// only where a policy refers to them, and from its own namespace.
type objects struct {
	reader client.Reader

	mu   sync.Mutex
	read map[objectKey]*backlog.Cached[map[string]string]
}

type objectKey struct {
	kind string
	name types.NamespacedName
}

const (
	// objectAge is how long the values of an object answer for all policies that refer to it.
	objectAge = 5 * time.Second
	// maxObjects bounds what is kept in memory; past it everything is read anew.
	maxObjects = 1000
)

func newObjects(reader client.Reader) *objects {
	return &objects{reader: reader, read: map[objectKey]*backlog.Cached[map[string]string]{}}
}

// Resolve implements Resolver.
func (o *objects) Resolve(ctx context.Context, namespace string, value *v1alpha1.ValueSource) (string, error) {
	switch {
	case value.Env != "":
		return "", errors.New("env: is for policies read from files: use secretKeyRef")
	case value.File != "":
		return "", errors.New("file: is for policies read from files: use configMapKeyRef")
	case value.SecretKeyRef != nil:
		return o.value(ctx, "secretKeyRef", "Secret", types.NamespacedName{Namespace: namespace, Name: value.SecretKeyRef.Name},
			value.SecretKeyRef.Key)
	case value.ConfigMapKeyRef != nil:
		return o.value(ctx, "configMapKeyRef", "ConfigMap",
			types.NamespacedName{Namespace: namespace, Name: value.ConfigMapKeyRef.Name}, value.ConfigMapKeyRef.Key)
	default:
		return value.Value, nil
	}
}

func (o *objects) value(ctx context.Context, at, kind string, name types.NamespacedName, key string) (string, error) {
	o.mu.Lock()
	object := objectKey{kind, name}
	fresh := o.read[object]
	if fresh == nil {
		if len(o.read) >= maxObjects {
			clear(o.read)
		}
		limits := backlog.SampleBounds{Timeout: resolveTimeout, Now: time.Now}
		fresh = backlog.NewCached(limits, func(ctx context.Context) (map[string]string, error) { return o.get(ctx, object) })
		o.read[object] = fresh
	}
	o.mu.Unlock()
	values, err := fresh.Get(ctx, objectAge)
	if err != nil {
		return "", fmt.Errorf("%s: %w", at, err)
	}
	text, ok := values[key]
	if !ok {
		return "", fmt.Errorf("%s: %s %s has no key %q", at, kind, name, key)
	}
	return text, nil
}

func (o *objects) get(ctx context.Context, object objectKey) (map[string]string, error) {
	values := map[string]string{}
	if object.kind == "ConfigMap" {
		var configMap corev1.ConfigMap
		if err := o.reader.Get(ctx, object.name, &configMap); err != nil {
			return nil, err
		}
		return configMap.Data, nil
	}
	var secret corev1.Secret
	if err := o.reader.Get(ctx, object.name, &secret); err != nil {
		return nil, err
	}
	for key, value := range secret.Data {
		values[key] = string(value)
	}
	return values, nil
}

// environment resolves the values of policies that come from the files of a directory.
type environment struct{ dir string }

// Resolve implements Resolver.
func (e environment) Resolve(_ context.Context, _ string, value *v1alpha1.ValueSource) (string, error) {
	switch {
	case value.SecretKeyRef != nil:
		return "", errors.New("secretKeyRef: a policy read from a file can't refer to a Secret: use env or file")
	case value.ConfigMapKeyRef != nil:
		return "", errors.New("configMapKeyRef: a policy read from a file can't refer to a ConfigMap: use file")
	case value.File != "":
		path := value.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(e.dir, path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("file: %w", err)
		}
		return string(text), nil
	case value.Env != "":
		text, ok := os.LookupEnv(value.Env)
		if !ok {
			return "", fmt.Errorf("env: the scaler has no environment variable %s", value.Env)
		}
		return text, nil
	default:
		return value.Value, nil
	}
}

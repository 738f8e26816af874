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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

const (
	// objectAge is how long the values of an object, or the failure to read it, answer for all policies that refer to it. With more than
	// a hundred objects it grows, so that all together they are read no more than twenty times a second.
	objectAge = 5 * time.Second
	// objectPace is how much each object adds to the age of all.
	objectPace = 50 * time.Millisecond
	// objectReads bounds how often the API server is asked a second: after a start, or when many policies fail and look for new
	// credentials.
	objectReads, objectReadsBurst = 80, 160
	// objectUnused is how long an object that nobody refers to any more is kept.
	objectUnused = 10 * time.Minute
	// maxValueBytes bounds a value.
	maxValueBytes = 1 << 20
)

// objects resolves the values of policies that come from the API server. Secrets and ConfigMaps are read one by one,
// only where a policy refers to them, and from its own namespace. It keeps no key that no policy refers to.
type objects struct {
	reader client.Reader
	now    func() time.Time
	reads  flowcontrol.RateLimiter

	mu       sync.Mutex
	kept     map[objectKey]*object
	tidiedAt time.Time
}

type objectKey struct {
	kind string
	name types.NamespacedName
}

// object is a Secret or ConfigMap.
type object struct {
	values *backlog.Cached[objectValues]

	mu   sync.Mutex
	keys map[string]bool // that policies refer to
	used time.Time
}

// objectValues are what was read of an object. A failure answers for a while, too.
type objectValues struct {
	of  map[string]string // by key; a key that is asked for and not there has none
	err error
}

func newObjects(reader client.Reader, now func() time.Time) *objects {
	return &objects{
		reader: reader, now: now, kept: map[objectKey]*object{},
		reads: flowcontrol.NewTokenBucketRateLimiter(objectReads, objectReadsBurst),
	}
}

// freshKey marks contexts of look-ups after a failure: the values may have changed.
type freshKey struct{}

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
	found, age := o.object(objectKey{kind, name})
	found.mu.Lock()
	if !found.keys[key] {
		found.keys[key], age = true, 0
	}
	found.used = o.now()
	found.mu.Unlock()
	if fresh, _ := ctx.Value(freshKey{}).(bool); fresh {
		age = min(age, objectAge)
	}
	values, err := found.values.Get(ctx, age)
	if err == nil {
		err = values.err
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", at, err)
	}
	text, ok := values.of[key]
	switch {
	case !ok:
		return "", fmt.Errorf("%s: %s %s has no key %q", at, kind, name, key)
	case len(text) > maxValueBytes:
		return "", fmt.Errorf("%s: key %q of %s %s is larger than %d bytes", at, key, kind, name, maxValueBytes)
	}
	return text, nil
}

// object returns what is kept of an object, and how old it may be.
func (o *objects) object(key objectKey) (*object, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if now.Sub(o.tidiedAt).Abs() > objectUnused {
		for key, kept := range o.kept {
			kept.mu.Lock()
			unused := now.Sub(kept.used) > objectUnused
			kept.mu.Unlock()
			if unused {
				delete(o.kept, key)
			}
		}
		o.tidiedAt = now
	}
	found := o.kept[key]
	if found == nil {
		found = &object{keys: map[string]bool{}, used: now}
		found.values = backlog.NewCached(backlog.SampleBounds{Timeout: resolveTimeout, Now: o.now},
			func(ctx context.Context) (objectValues, error) {
				if err := o.reads.Wait(ctx); err != nil {
					return objectValues{}, fmt.Errorf("%s %s is not read yet: too many are asked for at once", key.kind, key.name)
				}
				values, err := o.get(ctx, key, found)
				if apierrors.IsForbidden(err) {
					err = fmt.Errorf("%w: add the namespace to scaler.secretNamespaces of the chart, or bind the ClusterRole ebbtide-scaler-values there", err)
				}
				return objectValues{values, err}, nil
			})
		o.kept[key] = found
	}
	return found, max(objectAge, time.Duration(len(o.kept))*objectPace)
}

// get reads an object's keys that policies refer to.
func (o *objects) get(ctx context.Context, key objectKey, into *object) (map[string]string, error) {
	into.mu.Lock()
	keys := make([]string, 0, len(into.keys))
	for name := range into.keys {
		keys = append(keys, name)
	}
	into.mu.Unlock()
	values := map[string]string{}
	if key.kind == "ConfigMap" {
		var configMap corev1.ConfigMap
		if err := o.reader.Get(ctx, key.name, &configMap); err != nil {
			return nil, err
		}
		for _, name := range keys {
			if value, ok := configMap.Data[name]; ok {
				values[name] = value
			}
		}
		return values, nil
	}
	var secret corev1.Secret
	if err := o.reader.Get(ctx, key.name, &secret); err != nil {
		return nil, err
	}
	for _, name := range keys {
		if value, ok := secret.Data[name]; ok {
			values[name] = string(value)
		}
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
		return e.file(value.File)
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

// file is the content of a file, which is relative to the directory.
func (e environment) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(e.dir, path)
	}
	text, _, err := readRegular(path, maxValueBytes)
	if err != nil {
		return "", fmt.Errorf("file: %w", err)
	}
	return string(text), nil
}

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fieldManager owns the fields that the harness applies.
const fieldManager = "ebbtide-e2e"

// Apply applies the objects of YAML files and folders, given by path, in their order.
func (c *Cluster) Apply(ctx context.Context, paths ...string) error {
	return c.apply(ctx, nil, paths...)
}

// apply leaves out the objects for which skip is true.
func (c *Cluster) apply(ctx context.Context, skip func(*unstructured.Unstructured) bool, paths ...string) error {
	var all []*unstructured.Unstructured
	for _, path := range paths {
		objects, err := readObjects(path)
		if err != nil {
			return err
		}
		for _, object := range objects {
			if skip == nil || !skip(object) {
				all = append(all, object)
			}
		}
	}
	return c.applyObjects(ctx, all)
}

// ApplyYAML applies the objects of a YAML text.
func (c *Cluster) ApplyYAML(ctx context.Context, text []byte) error {
	objects, err := decode(text)
	if err != nil {
		return err
	}
	return c.applyObjects(ctx, objects)
}

// applyObjects applies objects and returns when the kinds that they define are served.
func (c *Cluster) applyObjects(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object),
			client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	for _, object := range objects {
		if object.GetKind() == "CustomResourceDefinition" {
			if err := c.awaitServed(ctx, object); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitServed waits until clients can discover the kind that a custom resource definition defines.
func (c *Cluster) awaitServed(ctx context.Context, definition *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("it is not served within 30 s"))
	defer cancel()
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	for {
		resources, err := c.discovery.ServerPreferredResources()
		if err == nil {
			for _, list := range resources {
				for i := range list.APIResources {
					if strings.HasPrefix(list.GroupVersion, group+"/") && list.APIResources[i].Name == plural {
						return nil
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("definition of %s.%s: %w", plural, group, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// readObjects reads a YAML file, or every YAML file of a folder but a kustomization.
func readObjects(path string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != path {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".yaml") || filepath.Base(name) == "kustomization.yaml" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		more, err := decode(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, more...)
		return nil
	})
	return inOrder(objects), err
}

// inOrder puts namespaces and custom resource definitions before what lives in them.
func inOrder(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	first := []string{"Namespace", "CustomResourceDefinition", "ServiceAccount"}
	rank := func(o *unstructured.Unstructured) int {
		if i := slices.Index(first, o.GetKind()); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects
}

func decode(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return inOrder(objects), nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 && object.GetKind() != "Kustomization" {
			objects = append(objects, object)
		}
	}
}

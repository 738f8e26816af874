package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// Parse reads the objects of a YAML file. Errors begin with FILE:LINE.
func Parse(name string, text []byte) ([]Object, error) {
	var found []Object
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for offset := 0; ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if at := bytes.Index(text[offset:], document); at >= 0 {
			offset += at
		}
		source := fmt.Sprintf("%s:%d", name, 1+bytes.Count(text[:offset], []byte("\n")))
		offset += len(document)
		content := map[string]any{}
		if err := yaml.Unmarshal(document, &content); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		object := Object{&unstructured.Unstructured{Object: content}, source}
		switch {
		case object.GetKind() == "":
		case object.IsList():
			for _, item := range list(content, "items") {
				found = append(found, Object{&unstructured.Unstructured{Object: item}, source})
			}
		default:
			found = append(found, object)
		}
	}
}

// Kinds that checks look at.
func Kinds() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledjobs"},
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledobjects"},
		{Group: "ebbtide.dev", Version: "v1alpha1", Resource: "scalingpolicies"},
		{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "configmaps"},
	}
}

// List reads the objects of a cluster, of one namespace or of all. Kinds that the cluster does not know are left out; those that may not
// be read are told to refused.
func List(ctx context.Context, client dynamic.Interface, namespace string, refused func(schema.GroupVersionResource, error)) ([]Object, error) {
	var found []Object
	for _, kind := range Kinds() {
		next := ""
		for {
			objects, err := resource(client, kind, namespace).List(ctx, metav1.ListOptions{Limit: 500, Continue: next})
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				if !apierrors.IsNotFound(err) {
					refused(kind, err)
				}
				break
			}
			for i := range objects.Items {
				found = append(found, Object{Unstructured: &objects.Items[i]})
			}
			if next = objects.GetContinue(); next == "" {
				break
			}
		}
	}
	return found, nil
}

// resource is a kind in a namespace; NodePools have none.
func resource(client dynamic.Interface, kind schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if kind.Group == "karpenter.sh" {
		return client.Resource(kind)
	}
	return client.Resource(kind).Namespace(namespace)
}

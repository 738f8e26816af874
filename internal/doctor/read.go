package doctor

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/ebbtide-dev/ebbtide/internal/yamldoc"
)

// Parse reads the objects of a YAML file. Errors begin with FILE:LINE.
func Parse(name string, text []byte) ([]Object, error) {
	documents, err := yamldoc.Split(text)
	if err != nil {
		return nil, at(name, err)
	}
	var found []Object
	for _, d := range documents {
		source := fmt.Sprintf("%s:%d", name, d.Line)
		content, err := d.Object()
		if err != nil {
			return nil, at(name, err)
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
	return found, nil
}

// at says in which file an error of its YAML is.
func at(name string, err error) error {
	if wrong := (*yamldoc.Error)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s:%d: %s", name, wrong.Line, wrong.Message)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Kinds that checks look at.
func Kinds() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledjobs"},
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledobjects"},
		{Group: "keda.sh", Version: "v1alpha1", Resource: "triggerauthentications"},
		{Group: "keda.sh", Version: "v1alpha1", Resource: "clustertriggerauthentications"},
		{Group: "ebbtide.dev", Version: "v1alpha1", Resource: "scalingpolicies"},
		{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "configmaps"},
	}
}

// List reads the objects of a cluster, of one namespace or of all, and says what their scope is. Kinds that may not be read are told to
// refused.
func List(ctx context.Context, client dynamic.Interface, namespace string, refused func(schema.GroupVersionResource, error)) ([]Object, Scope, error) {
	return ListKinds(ctx, client, Kinds(), namespace, refused)
}

// ListKinds is List of other kinds.
func ListKinds(
	ctx context.Context, client dynamic.Interface, kinds []schema.GroupVersionResource, namespace string, refused func(schema.GroupVersionResource, error),
) ([]Object, Scope, error) {
	scope := Scope{Cluster: true, Namespace: namespace}
	var found []Object
	for _, kind := range kinds {
		next := ""
		for {
			objects, err := resourceOf(client, kind, namespace).List(ctx, metav1.ListOptions{Limit: 500, Continue: next})
			if ctx.Err() != nil {
				return nil, scope, context.Cause(ctx)
			}
			if apierrors.IsNotFound(err) {
				scope.Unknown = append(scope.Unknown, kind.Resource)
				break
			}
			if err != nil {
				scope.Refused = append(scope.Refused, kind.Resource)
				refused(kind, err)
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
	return found, scope, nil
}

// resourceOf is a kind in a namespace; some have none.
func resourceOf(client dynamic.Interface, kind schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if kind.Group == "karpenter.sh" || kind.Resource == "clustertriggerauthentications" || kind.Resource == "clusterscalingschedules" {
		return client.Resource(kind)
	}
	return client.Resource(kind).Namespace(namespace)
}

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:generate go tool -modfile=../../hack/tools/go.mod controller-gen object crd paths=. output:crd:dir=../../manifests/crd
//go:generate go tool -modfile=../../hack/tools/go.mod crd-ref-docs --source-path=. --config=../../hack/tools/crd-ref-docs.yaml --renderer=markdown --output-path=../../docs/reference/scalingpolicy.md

// GroupVersion of the API.
var GroupVersion = schema.GroupVersion{Group: "ebbtide.dev", Version: "v1alpha1"}

// AddToScheme adds the API's types to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &ScalingPolicy{}, &ScalingPolicyList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

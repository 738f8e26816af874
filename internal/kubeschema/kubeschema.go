// Package kubeschema makes JSON Schemas of Kubernetes objects, in files that kubeconform finds, from what the API server publishes of its
// own objects and from custom resource definitions. A field that an object does not have is an error by them.
package kubeschema

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Location is where kubeconform finds the schemas of a folder: its argument -schema-location.
func Location(dir string) string { return filepath.Join(dir, "{{.ResourceKind}}{{.KindSuffix}}.json") }

// definitionsFile holds what the schemas of the kinds refer to.
const definitionsFile = "_definitions.json"

// WriteBuiltin writes the schemas of Kubernetes' own kinds into a folder. The text is that of api/openapi-spec/swagger.json of Kubernetes.
func WriteBuiltin(dir string, swagger []byte) error {
	var api struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(swagger, &api); err != nil {
		return fmt.Errorf("read the API's definitions: %w", err)
	}
	for name, definition := range api.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			fields, _ := kind.(map[string]any)
			gvk := schema.GroupVersionKind{Group: fmt.Sprint(fields["group"]), Version: fmt.Sprint(fields["version"]), Kind: fmt.Sprint(fields["kind"])}
			if err := write(dir, fileOf(gvk), map[string]any{"$ref": definitionsFile + "#/definitions/" + name}); err != nil {
				return err
			}
		}
		closed(definition)
	}
	// These are published as strings, and may be numbers.
	number := []any{map[string]any{"type": "string"}, map[string]any{"type": "number"}}
	for _, name := range []string{"io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity"} {
		api.Definitions[name] = map[string]any{"anyOf": number}
	}
	return write(dir, definitionsFile, map[string]any{"definitions": api.Definitions})
}

// WriteCustom writes the schemas of a custom resource definition's versions into the folder of WriteBuiltin's.
func WriteCustom(dir string, definition []byte) error {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(definition, &crd); err != nil {
		return err
	}
	for _, version := range crd.Spec.Versions {
		text, err := json.Marshal(version.Schema.OpenAPIV3Schema)
		if err != nil {
			return err
		}
		var object map[string]any
		if err := json.Unmarshal(text, &object); err != nil {
			return err
		}
		closed(object)
		properties, ok := object["properties"].(map[string]any)
		if !ok {
			return fmt.Errorf("%s %s has no properties", crd.Name, version.Name)
		}
		properties["metadata"] = map[string]any{"$ref": definitionsFile + "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
		gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
		if err := write(dir, fileOf(gvk), object); err != nil {
			return err
		}
	}
	return nil
}

// closed lets an object, and what is in it, have no fields but those that are listed.
func closed(object map[string]any) {
	properties, listed := object["properties"].(map[string]any)
	_, more := object["additionalProperties"]
	if listed && !more && object["x-kubernetes-preserve-unknown-fields"] != true {
		object["additionalProperties"] = false
	}
	for _, child := range properties {
		if child, ok := child.(map[string]any); ok {
			closed(child)
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if child, ok := object[key].(map[string]any); ok {
			closed(child)
		}
	}
}

// fileOf is the name that kubeconform looks for: of an API group, its first word.
func fileOf(gvk schema.GroupVersionKind) string {
	name := gvk.Kind
	if gvk.Group != "" {
		group, _, _ := strings.Cut(gvk.Group, ".")
		name += "-" + group
	}
	return strings.ToLower(name+"-"+gvk.Version) + ".json"
}

func write(dir, name string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}

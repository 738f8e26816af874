// values reads the values of a chart with their comments, and writes their JSON Schema and their reference page. With the schema, helm
// refuses a misspelt value instead of ignoring it.
//
//	values CHART PAGE
//
// A value's type is that of its default. The comment above it is its description; a line of it that begins with @schema holds more of its
// schema, as a YAML mapping in braces, whose $ref may name one of the shared definitions. A mapping takes just the keys that it has in
// the file, unless it is empty or its @schema says something of additionalProperties.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: values CHART PAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(chart, page string) error {
	file := filepath.Join(chart, "values.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	root, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	schema, err := schemaOf(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(chart, "values.schema.json"), schema, 0o644); err != nil {
		return err
	}
	return os.WriteFile(page, pageOf(filepath.Base(chart), root), 0o644)
}

// value is one of a chart's values, or all of them.
type value struct {
	path, name, doc string
	preset          string // the default, as JSON
	schema          map[string]any
	children        []value // of a mapping whose keys are known
}

// duration is the schema of what Go reads as a duration.
var duration = map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`}

// definitions are what the $ref of an @schema may name.
var definitions = map[string]map[string]any{
	"duration": duration,
	"pullSecrets": {"items": map[string]any{
		"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string", "minLength": 1}},
		"required": []string{"name"}, "additionalProperties": false,
	}},
	"DrainPackArgs": schemaOfType(reflect.TypeFor[schedulerv1.DrainPackArgs]()),
}

func parse(text []byte) (value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return value{}, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return value{}, errors.New("must be a mapping")
	}
	return parseValue("", "", nil, document.Content[0], strings.Split(string(text), "\n"))
}

// parseValue reads the value of a key; lines are those of the file.
func parseValue(path, doc string, more map[string]any, node *yaml.Node, lines []string) (value, error) {
	v := value{path: path, name: path[strings.LastIndex(path, ".")+1:], doc: doc, schema: map[string]any{}}
	var preset any
	if err := node.Decode(&preset); err != nil {
		return v, err
	}
	encoded, err := json.Marshal(preset)
	if err != nil {
		return v, fmt.Errorf("line %d: %s: %w", node.Line, path, err)
	}
	v.preset = string(encoded)
	switch preset.(type) {
	case string:
		v.schema["type"] = "string"
	case bool:
		v.schema["type"] = "boolean"
	case int:
		v.schema["type"] = "integer"
	case float64:
		v.schema["type"] = "number"
	case []any:
		v.schema["type"] = "array"
	case map[string]any:
		v.schema["type"] = "object"
	default:
		return v, fmt.Errorf("line %d: %s is %s: a default must say what type the value has", node.Line, path, v.preset)
	}
	if reference, ok := more["$ref"]; ok {
		definition := definitions[fmt.Sprint(reference)]
		if definition == nil {
			return v, fmt.Errorf("line %d: %s: @schema names %v: must be one of %v", node.Line, path, reference, slices.Sorted(maps.Keys(definitions)))
		}
		maps.Copy(v.schema, definition)
		delete(more, "$ref")
	}
	maps.Copy(v.schema, more)
	if doc != "" {
		v.schema["description"] = doc
	}
	if _, open := v.schema["additionalProperties"]; node.Kind != yaml.MappingNode || len(node.Content) == 0 || open {
		v.schema["default"] = preset
		if doc == "" {
			return v, fmt.Errorf("line %d: %s has no comment: say above it what it is for", node.Line, path)
		}
		return v, nil
	}
	properties := map[string]any{}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		doc, more, err := comment(lines, key.Line)
		if err != nil {
			return v, fmt.Errorf("line %d: %w", key.Line, err)
		}
		child, err := parseValue(strings.TrimPrefix(path+"."+key.Value, "."), doc, more, node.Content[i+1], lines)
		if err != nil {
			return v, err
		}
		properties[key.Value] = child.schema
		v.children = append(v.children, child)
	}
	v.schema["properties"], v.schema["additionalProperties"] = properties, path == "global" // of which other charts have their own
	return v, nil
}

// comment is what stands right above a line: the description, and what @schema says.
func comment(lines []string, line int) (doc string, schema map[string]any, err error) {
	first := line - 1
	for first > 0 && strings.HasPrefix(strings.TrimSpace(lines[first-1]), "#") {
		first--
	}
	var words []string
	for _, text := range lines[first : line-1] {
		text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "#"))
		if more, ok := strings.CutPrefix(text, "@schema "); ok {
			if err := yaml.Unmarshal([]byte(more), &schema); err != nil {
				return "", nil, fmt.Errorf("@schema %s: %w", more, err)
			}
			continue
		}
		words = append(words, text)
	}
	return strings.Join(words, " "), schema, nil
}

func schemaOf(root value) ([]byte, error) {
	properties := root.schema["properties"].(map[string]any)
	// A chart that this one is a part of hands these down.
	if properties["global"] == nil {
		properties["global"] = map[string]any{"type": "object", "description": "Values of all charts of a chart that this one is a part of; not used here."}
	}
	properties["enabled"] = map[string]any{"type": "boolean", "description": "For the condition of a chart that this one is a part of; not used here."}
	root.schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(root.schema)
	return out.Bytes(), err
}

// schemaOfType is the schema of what a Go type is decoded from.
func schemaOfType(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		return duration
	case t.Kind() == reflect.Pointer:
		return schemaOfType(t.Elem())
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOfType(t.Elem())}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOfType(t.Elem())}
	case t.Kind() == reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for field := range t.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				continue // apiVersion and kind
			}
			properties[name] = schemaOfType(field.Type)
			if !strings.Contains(options, "omitempty") {
				required = append(required, name)
			}
		}
		return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	case t.Kind() == reflect.Int:
		return map[string]any{"type": "integer"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	}
	panic(fmt.Sprintf("no schema of %s is known", t))
}

// pageOf is the reference page: a table for each part of the values.
func pageOf(chart string, root value) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Values of the chart %s\n\nMade from the comments in `charts/%s/values.yaml`. Helm refuses a value that is not here.\n", chart, chart)
	var top, parts []value
	for _, v := range root.children {
		if len(v.children) == 0 {
			top = append(top, v)
		} else {
			parts = append(parts, v)
		}
	}
	table(&out, top)
	for _, part := range parts {
		fmt.Fprintf(&out, "\n## %s\n", part.path)
		if part.doc != "" {
			fmt.Fprintf(&out, "\n%s\n", part.doc)
		}
		table(&out, leaves(part))
	}
	return out.Bytes()
}

func leaves(v value) []value {
	if len(v.children) == 0 {
		return []value{v}
	}
	var all []value
	for _, child := range v.children {
		all = append(all, leaves(child)...)
	}
	return all
}

func table(out *bytes.Buffer, values []value) {
	fmt.Fprint(out, "\n| value | default | meaning |\n|---|---|---|\n")
	for _, v := range values {
		doc := v.doc
		if allowed, ok := v.schema["enum"].([]any); ok && !strings.Contains(doc, fmt.Sprint(allowed[0])+":") {
			doc += " One of " + strings.ReplaceAll(strings.Trim(fmt.Sprint(allowed), "[]"), " ", ", ") + "."
		}
		fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", v.path, v.preset, strings.ReplaceAll(doc, "|", `\|`))
	}
}

package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
)

const example = `# Of the file, not of a value.

# How many, of
# all.
# @schema {minimum: 0}
replicas: 2

scaler:
  # How loud.
  # @schema {enum: [info, debug]}
  logLevel: info
  # A | B.
  # @schema {$ref: duration}
  timeout: 5s
  # As of a pod.
  # @schema {additionalProperties: true}
  resources:
    limits: {memory: 1Gi}
  # Anything.
  affinity: {}
`

func TestSchema(t *testing.T) {
	root, err := parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	text, err := schemaOf(root)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	properties := got["properties"].(map[string]any)
	delete(properties, "global")
	delete(properties, "enabled")
	want := map[string]any{
		"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false,
		"properties": map[string]any{
			"replicas": map[string]any{"type": "integer", "minimum": 0.0, "default": 2.0, "description": "How many, of all."},
			"scaler": map[string]any{
				"type": "object", "additionalProperties": false,
				"properties": map[string]any{
					"logLevel": map[string]any{"type": "string", "enum": []any{"info", "debug"}, "default": "info", "description": "How loud."},
					"timeout":  map[string]any{"type": "string", "pattern": duration["pattern"], "default": "5s", "description": "A | B."},
					"resources": map[string]any{
						"type": "object", "additionalProperties": true, "description": "As of a pod.",
						"default": map[string]any{"limits": map[string]any{"memory": "1Gi"}},
					},
					"affinity": map[string]any{"type": "object", "default": map[string]any{}, "description": "Anything."},
				},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPage(t *testing.T) {
	root, err := parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	page := string(pageOf("tide", root))
	for _, want := range []string{
		"# Values of the chart tide\n",
		"\n| `replicas` | `2` | How many, of all. |\n",
		"\n## scaler\n",
		"\n| `scaler.logLevel` | `\"info\"` | How loud. One of info, debug. |\n",
		"\n| `scaler.timeout` | `\"5s\"` | A \\| B. |\n",
		"\n| `scaler.resources` | `{\"limits\":{\"memory\":\"1Gi\"}}` | As of a pod. |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"- a":                                 "must be a mapping",
		"a: 1":                                "line 1: a has no comment",
		"a:\n  # X.\n  b: 1\n  c: 2":          "line 4: a.c has no comment",
		"# X.\na: null":                       "line 2: a is null: a default must say what type the value has",
		"# X.\n# @schema {$ref: time}\na: 1s": "line 3: a: @schema names time: must be one of [DrainPackArgs duration pullSecrets]",
		"# X.\n# @schema {enum: [}\na: b":     "line 3: @schema {enum: [}: yaml: ",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestSchemaOfType(t *testing.T) {
	got := schemaOfType(reflect.TypeFor[schedulerv1.PriceFactor]())
	want := map[string]any{
		"type": "object", "additionalProperties": false, "required": []string{"labels", "factor"},
		"properties": map[string]any{
			"labels": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}},
			"factor": map[string]any{"type": "number"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

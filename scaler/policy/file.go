package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ebbtide-dev/ebbtide/internal/yamldoc"
)

// ReadFile reads and compiles the policies of a YAML file, without their backlogs: for a look at what they would do. Objects of
// other kinds are left out. Values that policies refer to are read from files and the environment, as with --policy-dir. Errors
// begin with FILE:LINE.
func ReadFile(ctx context.Context, path string) ([]*Policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	documents, err := yamldoc.Split(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var policies []*Policy
	var errs []error
	var files parsedFiles
	for _, d := range documents {
		if !bytes.Contains(d.Text, []byte("ScalingPolicy")) {
			continue
		}
		at := func(line int, err error) error { return fmt.Errorf("%s:%d: %w", path, d.Line-1+max(1, line), err) }
		p, err := parse(d.Text)
		if err != nil {
			errs = append(errs, at(lineOfError(d.Text, err), err))
			continue
		}
		policy, wrong := compile(p, files.read(ctx, p, environment{filepath.Dir(path)}))
		for _, e := range wrong {
			errs = append(errs, at(lineOf(d.Text, e.Field), e))
		}
		policies = append(policies, policy)
	}
	if len(errs) == 0 && len(policies) == 0 {
		errs = append(errs, fmt.Errorf("%s: holds no ScalingPolicy", path))
	}
	return policies, errors.Join(errs...)
}

var (
	yamlLine     = regexp.MustCompile(`line (\d+)`)
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
)

// lineOfError finds where an error of decoding stands: it names a line, or a field.
func lineOfError(document []byte, err error) int {
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		line, _ := strconv.Atoi(found[1])
		return line
	}
	if found := unknownField.FindStringSubmatch(err.Error()); found != nil {
		return lineOf(document, found[1])
	}
	return 1
}

// lineOf is the line of a field, spec.calendar.periods[1].from say, in a document, or of what is nearest to it. A path that does
// not begin at the document's root may begin anywhere.
func lineOf(document []byte, path string) int {
	var root yaml.Node
	if yaml.Unmarshal(document, &root) != nil || len(root.Content) == 0 {
		return 1
	}
	steps := strings.FieldsFunc(strings.ReplaceAll(path, "[", "."), func(r rune) bool { return r == '.' || r == ']' })
	if line, found := walk(root.Content[0], steps); found > 0 || len(steps) == 0 {
		return line
	}
	return search(root.Content[0], steps[len(steps)-1])
}

// walk follows steps from a node as far as they go, and says how many that were.
func walk(node *yaml.Node, steps []string) (line, found int) {
	line = node.Line
	for _, step := range steps {
		next := child(node, step)
		if next == nil {
			return line, found
		}
		found++
		line, node = next.Line, next
	}
	return line, found
}

func child(node *yaml.Node, step string) *yaml.Node {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				value := node.Content[i+1]
				if value.Kind == yaml.MappingNode || value.Kind == yaml.SequenceNode {
					value.Line = node.Content[i].Line // where its name stands
				}
				return value
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i]
		}
	}
	return nil
}

// search finds a field by its name, anywhere.
func search(node *yaml.Node, name string) int {
	if node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return node.Content[i].Line
			}
		}
	}
	for _, c := range node.Content {
		if line := search(c, name); line > 1 {
			return line
		}
	}
	return 1
}

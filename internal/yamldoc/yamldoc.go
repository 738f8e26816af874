// Package yamldoc reads YAML files of several documents, for errors that name the line.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// Document of a file.
type Document struct {
	// Text is the document as it was parsed: two documents with the same text mean the same.
	Text []byte
	// Line of the file at which its content begins, from 1 on.
	Line int

	root *yaml.Node
}

// Error says what is wrong with a file's YAML. It quotes nothing of the file, which may hold a password.
type Error struct {
	Line    int
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// Split returns the documents of a file, without empty ones. Its error is an *Error, and comes with the documents before it.
func Split(file []byte) ([]Document, error) {
	var documents []Document
	decoder := yaml.NewDecoder(bytes.NewReader(file))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return documents, explain(err, 0)
		}
		if len(document.Content) == 0 || document.Content[0].Tag == "!!null" {
			continue
		}
		text, err := yaml.Marshal(&document)
		if err != nil {
			return documents, explain(err, document.Line)
		}
		documents = append(documents, Document{text, document.Content[0].Line, document.Content[0]})
	}
}

// maxExpanded bounds what the aliases of a document may make of it: nodes, and bytes of their values.
const maxExpanded = 16 << 20

// Object is the document as Kubernetes reads it: a key that stands twice is an error, an *Error.
func (d Document) Object() (map[string]any, error) {
	object := map[string]any{}
	if d.root != nil && expanded(d.root, map[*yaml.Node]int{}) > maxExpanded { // nil: the text was read before
		return nil, &Error{d.Line, fmt.Sprintf("its aliases make it larger than %d MiB", maxExpanded>>20)}
	}
	text, err := sigsyaml.YAMLToJSONStrict(d.Text)
	if err != nil {
		return nil, explain(err, d.Line)
	}
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, &Error{d.Line, "the document is not an object"}
	}
	return object, nil
}

// expanded is how large a node is with its aliases replaced by what they stand for, or more than maxExpanded. Sizes are of anchored nodes
// that were looked at; -1 marks one that is being looked at.
func expanded(node *yaml.Node, sizes map[*yaml.Node]int) int {
	if node.Kind == yaml.AliasNode {
		return expanded(node.Alias, sizes)
	}
	if size, known := sizes[node]; known {
		if size < 0 {
			return maxExpanded + 1 // it holds itself
		}
		return size
	}
	if node.Anchor != "" {
		sizes[node] = -1
	}
	size := 1 + len(node.Value)
	for _, child := range node.Content {
		if size += expanded(child, sizes); size > maxExpanded {
			size = maxExpanded + 1
			break
		}
	}
	if node.Anchor != "" {
		sizes[node] = size
	}
	return size
}

var (
	lineOfError = regexp.MustCompile(`line (\d+): ?`)
	repeated    = regexp.MustCompile(`key "([A-Za-z][A-Za-z0-9_-]{0,62})" already`)
	quoted      = regexp.MustCompile("'[^']*'|\"[^\"]*\"|`[^`]*`")
)

// explain makes an Error of one of a YAML library's, at the line that it names if line is 0.
func explain(err error, line int) *Error {
	message, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "\n  ")
	if at := lineOfError.FindStringSubmatchIndex(message); at != nil {
		if n, err := strconv.Atoi(message[at[2]:at[3]]); err == nil && line == 0 {
			line = n
		}
		message = message[at[1]:]
	}
	switch found := repeated.FindStringSubmatch(err.Error()); {
	case found != nil:
		message = "field " + found[1] + " stands twice"
	case strings.Contains(err.Error(), "already set in map"):
		message = "a field stands twice"
	case strings.Contains(message, "unknown anchor"):
		message = "an alias (*NAME) without its anchor: quote a value that begins with an asterisk"
	default:
		message = quoted.ReplaceAllString(message, "a value")
	}
	return &Error{max(line, 1), message}
}

// LineOf is the line of the file at which a field stands, spec.calendar.periods[1].from say, or what is nearest to it.
func (d Document) LineOf(path string) int {
	node, line := d.root, d.Line
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next, at := child(node, step)
		if next == nil {
			break
		}
		node, line = next, at
	}
	return line
}

// child is a field or an item of a node, and where it begins.
func child(node *yaml.Node, step string) (next *yaml.Node, line int) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if key := node.Content[i]; key.Value == step {
				return node.Content[i+1], key.Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i].Line
		}
	}
	return nil, 0
}

// Package yamldoc splits YAML files into their documents, for errors that name the line.
package yamldoc

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// Document of a file.
type Document struct {
	Text []byte
	// Line of the file at which it begins, from 1 on.
	Line int
}

// Split returns the documents of a file, empty ones included.
func Split(file []byte) ([]Document, error) {
	var documents []Document
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(file)))
	for offset := 0; ; {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		// They come in their order: each stands at the first place after the last one.
		if at := bytes.Index(file[offset:], text); at >= 0 {
			offset += at
		}
		documents = append(documents, Document{text, 1 + bytes.Count(file[:offset], []byte("\n"))})
		offset += len(text)
	}
}

// Generate writes the dashboards' JSON into the folder that it is given.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebbtide-dev/ebbtide/dashboards"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: generate FOLDER")
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	for name, dashboard := range dashboards.All() {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false) // queries compare
		encoder.SetIndent("", " ")
		if err := encoder.Encode(dashboard); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(args[0], name+".json"), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

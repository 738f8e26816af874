// image writes the image of the demonstration to a file, for `ctr images import` or `kind load image-archive`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebbtide-dev/ebbtide/examples/demo-scanner"
	"github.com/ebbtide-dev/ebbtide/images"
)

func main() {
	output := flag.String("output", "bin/images/"+demoscanner.Name+".tar", "file to write")
	version := flag.String("version", "dev", "tag of the image")
	flag.Parse()
	if err := run(context.Background(), *output, *version); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, output, version string) error {
	image, err := demoscanner.Build(ctx, ".")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	return images.WriteTarball(output, images.Reference(demoscanner.Name, version), image)
}

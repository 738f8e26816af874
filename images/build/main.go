// build writes the project's container images to a folder: an OCI layout and a tarball of each.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ebbtide-dev/ebbtide/images"
)

func main() {
	output := flag.String("output", "bin/images", "folder to write to")
	arch := flag.String("arch", runtime.GOARCH, "amd64 or arm64")
	version := flag.String("version", "dev", "tag of the images")
	only := flag.String("image", "", "name of the one image to build; default: all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *output, *arch, *version, *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, output, arch, version, only string) error {
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	for _, spec := range images.Specs(arch) {
		if only != "" && spec.Name != only {
			continue
		}
		start := time.Now()
		image, err := images.Build(ctx, ".", spec)
		if err != nil {
			return err
		}
		reference := fmt.Sprintf("ebbtide.dev/%s:%s", spec.Name, version)
		file := filepath.Join(output, fmt.Sprintf("%s-%s.tar", spec.Name, arch))
		if err := images.WriteTarball(file, reference, image); err != nil {
			return err
		}
		if err := images.WriteLayout(filepath.Join(output, "layout"), reference+"-"+arch, image); err != nil {
			return err
		}
		digest, err := image.Digest()
		if err != nil {
			return err
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		fmt.Printf("%-40s %5.1f MB  %4.0f s  %s\n", reference, float64(info.Size())/1e6, time.Since(start).Seconds(), digest)
	}
	return nil
}

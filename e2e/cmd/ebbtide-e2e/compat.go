package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/compat"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

func compatCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compat",
		Short: "Run a scenario on clusters of other releases, and write " + compat.PageFile,
		Long: `Runs the cells that have not passed with the sources of this commit, one after the other, and keeps each result in e2e/compat/results.json, so that a run
that was stopped continues where it was.`,
		Args: cobra.NoArgs,
	}
	names := cmd.Flags().StringSlice("cell", nil, "cells to run, whatever was run before; default: all that have not passed with the sources of this commit")
	list := cmd.Flags().Bool("list", false, "list the cells")
	build := cmd.Flags().Bool("build", false, "build the cells' programs, and run nothing")
	sums := cmd.Flags().Bool("sums", false, "write the checksums of the releases to e2e/toolchain/releases.sum, and run nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		root, err := toolchain.Root()
		if err != nil {
			return err
		}
		if *sums {
			text, err := toolchain.Sums(cmd.Context())
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(root, "e2e", "toolchain", "releases.sum"), text, 0o644)
		}
		results, err := compat.Read(root)
		if err != nil {
			return err
		}
		commit, err := commitOf(root)
		if err != nil {
			return err
		}
		var cells []compat.Cell
		for _, name := range *names {
			cell, ok := compat.CellOf(name)
			if !ok {
				return fmt.Errorf("no cell %q: --list lists them", name)
			}
			cells = append(cells, cell)
		}
		for _, cell := range compat.Cells() {
			result, run := results.Of(cell)
			done := run && result.Error == "" && sameSources(root, result.Commit, commit)
			if *list {
				fmt.Printf("%-18s %s %s %s  %s\n", cell.Name, cell.Version("kubernetes"), cell.Version("keda"), cell.Version("karpenter"), result.Commit)
			}
			if len(*names) == 0 && !done {
				cells = append(cells, cell)
			}
		}
		if *list {
			return nil
		}
		contain()
		_, tools, err := cluster.Prepare(cmd.Context(), scans.Programs...)
		if err != nil {
			return err
		}
		var failed []error
		for i, cell := range cells {
			if *build {
				if _, err := tools.With(cmd.Context(), os.Stderr, cell.Releases...); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(os.Stderr, "--- %s, %d of %d\n", cell.Name, i+1, len(cells))
			dir, err := os.MkdirTemp("", "ebbtide-compat-")
			if err != nil {
				return err
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), cellWithin, fmt.Errorf("not done within %s", cellWithin))
			err = compat.Play(ctx, cell, root, tools, dir, os.Stderr)
			cancel()
			if cmd.Context().Err() != nil {
				return err
			}
			result := compat.NewResult(cell, commit, begin, err)
			if err := compat.Keep(root, result); err != nil {
				return err
			}
			if result.Error != "" {
				failed = append(failed, fmt.Errorf("%s: %s (logs are in %s)", cell.Name, result.Error, dir))
				fmt.Fprintln(os.Stderr, failed[len(failed)-1])
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

// cellWithin bounds a cell, builds included, so that one that hangs does not keep the others from being run.
const cellWithin = time.Hour

// sources are all files but results and documentation.
var sources = []string{"--", ".", ":!e2e/compat/results.json", ":!*.md"}

// commitOf is the commit that is checked out, with -dirty if sources differ from it.
func commitOf(root string) (string, error) {
	cmd := exec.Command("git", "describe", "--always", "--abbrev=7", "--exclude=*")
	cmd.Dir = root
	commit, err := cmd.Output()
	if err != nil {
		return "", err
	}
	cmd = exec.Command("git", append([]string{"status", "--porcelain"}, sources...)...)
	cmd.Dir = root
	changed, err := cmd.Output()
	dirty := ""
	if len(changed) > 0 {
		dirty = "-dirty"
	}
	return strings.TrimSpace(string(commit)) + dirty, err
}

// sameSources reports whether two commits differ in nothing but results and documentation. A dirty one is like no other.
func sameSources(root, one, other string) bool {
	if strings.HasSuffix(one, "-dirty") || strings.HasSuffix(other, "-dirty") {
		return false
	}
	cmd := exec.Command("git", append([]string{"diff", "--quiet", one, other}, sources...)...)
	cmd.Dir = root
	return cmd.Run() == nil
}

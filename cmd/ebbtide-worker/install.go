package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// installCommand lets an init container put the worker beside a scanner in an image of its own: the worker's image has no cp.
func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "install DIR",
		Short:   "Copy this program into a folder",
		Long:    "install copies this program to DIR/ebbtide-worker. An init container uses it to add the worker to the container of a scanner.",
		Example: "  ebbtide-worker install /ebbtide",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if err := copyProgram(self, filepath.Join(args[0], "ebbtide-worker")); err != nil {
				return fmt.Errorf("install into %s: %w", args[0], err)
			}
			return nil
		},
	}
}

// pauseCommand is what runs in pods that only keep a place, or an image, on a node: the worker's image has no sleep.
func pauseCommand() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Do nothing until SIGTERM",
		Long:  "pause does nothing until SIGTERM. Pods that keep headroom or images on a node run it.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var over <-chan time.Time
			if cmd.Flags().Changed("for") {
				over = time.After(length)
			}
			select {
			case <-cmd.Context().Done():
			case <-over:
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "exit after this time; default: never")
	return cmd
}

// copyProgram replaces what is there in one step: an init container that runs again must not find half a program.
func copyProgram(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	partial, err := os.CreateTemp(filepath.Dir(to), ".ebbtide-worker-*")
	if err != nil {
		return err
	}
	defer os.Remove(partial.Name())
	_, err = io.Copy(partial, source)
	if err := errors.Join(err, partial.Chmod(0o755), partial.Close()); err != nil {
		return err
	}
	return os.Rename(partial.Name(), to)
}

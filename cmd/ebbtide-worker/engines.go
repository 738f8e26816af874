package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/engines"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

const enginesLong = `engines lets several scanners, each in a separate container of one pod, scan the same message at the same time.

Each container runs "engines serve" with its scanner as the command, and listens on a socket in a folder that it shares only with the worker. It
must not mount the folders of other engines, or a hostile scan could answer for them. The worker runs "engines call" as its command, which sends
the message to every engine, waits for all of them, and writes their joined results: a ScanResult of proto/ebbtide/results, in JSON.

If an engine fails, the others are stopped and the message becomes a dead letter. If an engine can't be reached, is killed by a signal or exits
with 75, the message is retried. If an engine runs out of memory, --on memory applies.

With one scanner, the worker runs "engines run", whose output and exit code are the scanner's. The worker then survives if the scanner's container
runs out of memory, and the scanner's container has no credentials.`

func enginesCommand() *cobra.Command {
	parent := &cobra.Command{Use: "engines", Short: "Scan a message with several scanners in containers of one pod", Long: enginesLong}
	// All containers of a pod have one limit of processes, which what is scanned may reach.
	parent.PersistentPreRun = func(*cobra.Command, []string) { child.ReserveThreads() }
	parent.AddCommand(serveEngineCommand(), callEnginesCommand(), runEngineCommand(), pingEngineCommand())
	return parent
}

func serveEngineCommand() *cobra.Command {
	server := engines.Server{Stderr: os.Stderr}
	var socket, confine string
	cmd := &cobra.Command{
		Use:     "serve --socket SOCKET [flags] -- COMMAND [ARG...]",
		Short:   "Run a scanner for the worker of the same pod",
		Example: "  ebbtide-worker engines serve --socket /ebbtide-engine/engine.sock -- gitleaks git /source",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server.Command = args
			server.OwnFolder = os.Getpid() == 1 // in a container
			var err error
			if server.Reaper, err = child.NewReaper(); err != nil {
				return err
			}
			server.Confinement, err = confinement(confine, nil, nil, func(reason error) {
				fmt.Fprintf(cmd.ErrOrStderr(), "commands are confined in part: %v\n", reason)
			})
			if err != nil {
				return err
			}
			var shared []string
			if server.Scratch, shared = ownScratch(os.Getpid(), server.Scratch); len(shared) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%q are not emptied: this is not the first process of a container, and others may use them\n", shared)
			}
			return server.Serve(cmd.Context(), socket)
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().DurationVar(&server.Grace, "command-grace", 4*time.Second,
		"time between SIGTERM and SIGKILL for a scanner that is stopped; keep it below the worker's --command-grace, which includes it")
	cmd.Flags().StringVar(&confine, "confine", "auto", confineUsage)
	cmd.Flags().StringSliceVar(&server.Scratch, "scratch", nil,
		"folders that belong to the scanner, emptied before and after each message: /tmp,/dev/shm in a container")
	scratchLimitFlags(cmd.Flags(), &server.ScratchLimit)
	cmd.Flags().IntVar(&server.OutputMaxBytes, "output-max-bytes", 16<<20, "limit of a scanner's output in bytes, which is kept in memory")
	return cmd
}

func callEnginesCommand() *cobra.Command {
	var pod engines.Pod
	cmd := &cobra.Command{
		Use:     "call --sockets FOLDER ENGINE...",
		Short:   "Scan the message on standard input with all engines, and join their results",
		Example: "  ebbtide-worker --queue scans --result-exchange scans.results -- ebbtide-worker engines call --sockets /ebbtide-engines secrets files",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			message, err := io.ReadAll(cmd.InOrStdin())
			if err != nil {
				return fmt.Errorf("read the message: %w", err)
			}
			key := os.Getenv("EBBTIDE_MESSAGE_ID")
			joined, err := pod.Call(cmd.Context(), args, cmp.Or(os.Getenv("EBBTIDE_CORRELATION_ID"), key), key, message, properties())
			if errors.Is(err, engines.ErrRetry) {
				return errors.Join(err, worker.ErrGivenBack)
			}
			if errors.As(err, new(engines.OutOfMemory)) {
				return errors.Join(err, worker.Ending{Memory: err.Error()}.Report())
			}
			if err != nil {
				return err
			}
			text, err := results.Marshal(joined, results.JSON)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&pod.Sockets, "sockets", "", "folder with a folder for each engine, ENGINE/engine.sock in it (required)")
	podFlags(cmd, &pod)
	_ = cmd.MarkFlagRequired("sockets")
	return cmd
}

func podFlags(cmd *cobra.Command, pod *engines.Pod) {
	cmd.Flags().DurationVar(&pod.StartWithin, "start-within", time.Minute, "how long to wait for a container that has not started")
	cmd.Flags().Int64Var(&pod.AnswerMaxBytes, "answer-max-bytes", engines.DefaultAnswerMaxBytes,
		"limit of a container's answer in bytes of JSON, which is kept in memory")
}

func runEngineCommand() *cobra.Command {
	var pod engines.Pod
	var socket string
	cmd := &cobra.Command{
		Use:     "run --socket SOCKET",
		Short:   "Scan the message on standard input in another container",
		Example: "  ebbtide-worker --queue scans --result-exchange scans.results -- ebbtide-worker engines run --socket /ebbtide-engines/command/engine.sock",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			message, err := io.ReadAll(cmd.InOrStdin())
			if err != nil {
				return fmt.Errorf("read the message: %w", err)
			}
			ended, err := pod.Run(cmd.Context(), socket, message, properties())
			if cmd.Context().Err() != nil { // the worker knows why
				_, saidErr := io.WriteString(cmd.ErrOrStderr(), ended.Said)
				return errors.Join(err, saidErr, worker.ErrGivenBack)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("the command's container can't be reached: %w", err), worker.ErrGivenBack)
			}
			_, err = cmd.OutOrStdout().Write(ended.Output)
			_, saidErr := io.WriteString(cmd.ErrOrStderr(), ended.Said)
			if ended.Memory != "" || ended.Scratch != "" || ended.Signal != 0 {
				// The worker says what it was.
				if err := (worker.Ending{Memory: ended.Memory, Scratch: ended.Scratch, Signal: ended.Signal}).Report(); err != nil {
					return err
				}
				return commandEnd(max(ended.ExitCode, exitGivenBack))
			}
			if ended.ExitCode != 0 {
				return commandEnd(ended.ExitCode)
			}
			return errors.Join(err, saidErr)
		},
	}
	socketFlag(cmd, &socket)
	podFlags(cmd, &pod)
	return cmd
}

func pingEngineCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "ping --socket SOCKET", Short: "Check whether an engine is ready, for a probe", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			return engines.Ping(ctx, socket)
		},
	}
	socketFlag(cmd, &socket)
	return cmd
}

func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", "", "socket in a folder that the pod's containers share (required)")
	_ = cmd.MarkFlagRequired("socket")
}

// properties of the message, as the worker handed them down. The message's file is another one in each container.
func properties() []string {
	var all []string
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "EBBTIDE_") && !strings.HasPrefix(variable, "EBBTIDE_MESSAGE_FILE=") {
			all = append(all, variable)
		}
	}
	return all
}

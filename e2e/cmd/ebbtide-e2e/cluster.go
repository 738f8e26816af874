package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// volumes of the cluster of real nodes, for the source stores and caches of a few releases.
const volumes = 8

// serveLog holds what the process in the background says.
const serveLog = "serve.log"

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster in the background and leave it running",
		Args:  cobra.NoArgs,
	}
	dir, nodes := dirFlag(cmd), nodesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if state, err := cluster.ReadState(*dir); err == nil && state.Running() {
			fmt.Printf("a cluster runs already, since %s\n", state.Started.Format(time.DateTime))
			printUse(*dir, state)
			return nil
		}
		if _, _, err := cluster.Prepare(cmd.Context(), scans.Programs...); err != nil {
			return err
		}
		if err := serveInBackground(cmd.Context(), *dir, *nodes); err != nil {
			return err
		}
		state, err := cluster.ReadState(*dir)
		if err != nil {
			return err
		}
		printUse(*dir, state)
		return nil
	}
	return cmd
}

// serveInBackground starts this program's serve command in a session of its own and returns once the cluster is up.
func serveInBackground(ctx context.Context, dir string, nodes int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	logPath := filepath.Join(dir, serveLog)
	logFile, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer logFile.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, "serve", "--dir", dir, "--nodes", strconv.Itoa(nodes))
	server.Stdout, server.Stderr = logFile, logFile
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What serve needs to find the project goes with the working directory.
	if err := server.Start(); err != nil {
		return err
	}
	ended, endErr := make(chan struct{}), error(nil)
	go func() {
		endErr = server.Wait()
		close(ended)
	}()
	shown := 0
	show := func() {
		text, err := os.ReadFile(logPath)
		if err == nil && len(text) > shown {
			fmt.Fprint(os.Stderr, string(text[shown:]))
			shown = len(text)
		}
	}
	for {
		select {
		case <-ctx.Done():
			_ = server.Process.Signal(syscall.SIGTERM)
			<-ended
			return context.Cause(ctx)
		case <-ended:
			show()
			return fmt.Errorf("the cluster did not start: %w: see %s", endErr, logPath)
		case <-time.After(100 * time.Millisecond):
			show()
			if state, err := cluster.ReadState(dir); err == nil && state.Running() {
				return nil
			}
		}
	}
}

func nodesFlag(cmd *cobra.Command) *int {
	return cmd.Flags().Int("nodes", 0, "start this many real nodes, with KEDA and the project's images but without Ebbtide, to install it there")
}

func printUse(dir string, state cluster.State) {
	if state.Helm != "" {
		fmt.Printf(`
The cluster is up, with KEDA, the project's images, and the archives of bin/images on its nodes. To install Ebbtide on it:

  export KUBECONFIG=%s
  alias kubectl=%s helm=%s
  helm install ebbtide charts/ebbtide -n ebbtide-system --create-namespace --set image.tag=%s

RabbitMQ for pods: %s
RabbitMQ for you:  %s  (AMQP %s)
Prometheus:        %s  (pods with the annotation prometheus.io/scrape)
Volumes:           %d, for either access mode
Load an image:     make load IMAGE=scanner.tar   (of docker save; without IMAGE, what make images wrote)
Send 20 messages:  make publish N=20   (to the queue scans, for a policy of yours; the tutorial's queue has a sender)
Logs:              make logs   (in %s)
Stop it:           make down
`, state.Kubeconfig, state.Kubectl, state.Helm, scans.ImageTag, cluster.AMQPURLInPods, state.Management, state.AMQP, state.Prometheus,
			volumes, filepath.Join(dir, "logs"))
		return
	}
	fmt.Printf(`
The cluster is up. To look at it:

  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get scalingpolicies,scaledjobs,jobs,pods -n scan; kubectl get nodes

Send it 20 scans:  make publish N=20
RabbitMQ:          %s  (AMQP %s)
Scaler's metrics:  %s
Prometheus:        %s
Logs:              make logs   (in %s)
Stop it:           make down
`, state.Kubeconfig, state.Kubectl, state.Management, state.AMQP, state.ScalerMetrics, state.Prometheus, filepath.Join(dir, "logs"))
}

// serveCommand is what up runs in the background.
func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "Run a cluster in the foreground until a signal",
		Hidden: true,
		Args:   cobra.NoArgs,
	}
	dir, nodes := dirFlag(cmd), nodesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		contain()
		serve := func(ctx context.Context, c *cluster.Cluster) error {
			if err := c.WriteState(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}
		if *nodes > 0 {
			return withNodes(cmd.Context(), *dir, *nodes, serve)
		}
		return withCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
			if err := c.StartPrometheus(ctx); err != nil {
				return err
			}
			return serve(ctx, c)
		})
	}
	return cmd
}

// contain puts this program into namespaces that end with it. Call it first: it runs the program from the start again.
func contain() {
	if err := proc.Contain(); err != nil {
		fmt.Fprintln(os.Stderr, "warning: should this be killed by SIGKILL, a few processes may stay:", err)
	}
}

// withCluster runs f on a cluster with the demo's objects in it and pods that run.
func withCluster(ctx context.Context, dir string, f func(context.Context, *cluster.Cluster) error) error {
	return cluster.Run(ctx, dir, cluster.Start, scans.Programs, func(ctx context.Context, c *cluster.Cluster) error {
		if err := scans.Install(ctx, c); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		work, workCtx := errgroup.WithContext(ctx)
		work.Go(func() error { return scans.RunPods(workCtx, c, nil) })
		work.Go(func() error {
			defer cancel()
			return f(workCtx, c)
		})
		return work.Wait()
	})
}

// withNodes runs f on a cluster of real nodes that the chart can be installed on.
func withNodes(ctx context.Context, dir string, nodes int, f func(context.Context, *cluster.Cluster) error) error {
	return cluster.Run(ctx, dir, cluster.RealNodes(nodes), scans.Programs, func(ctx context.Context, c *cluster.Cluster) error {
		if err := scans.PrepareInstall(ctx, c); err != nil {
			return err
		}
		if err := addArchives(ctx, c); err != nil {
			return err
		}
		if err := scans.Volumes(ctx, c, volumes); err != nil {
			return err
		}
		if err := c.StartPodPrometheus(ctx); err != nil {
			return err
		}
		return f(ctx, c)
	})
}

// addArchives gives the nodes what was built into bin/images, except the project's own images, which they have already.
func addArchives(ctx context.Context, c *cluster.Cluster) error {
	files, err := archives("amd64", "arm64")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := c.AddArchive(ctx, file); err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
		fmt.Fprintln(os.Stderr, "loaded", file)
	}
	return nil
}

// archives are the files in bin/images, except what make images wrote for some architectures.
func archives(except ...string) ([]string, error) {
	root, err := toolchain.Root()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, "bin", "images", "*.tar"))
	return slices.DeleteFunc(files, func(file string) bool {
		return slices.ContainsFunc(except, func(arch string) bool { return strings.HasSuffix(file, "-"+arch+".tar") })
	}), err
}

func loadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load [ARCHIVE...]",
		Short: "Load archives of images onto the nodes of the running cluster; without a name, those of bin/images",
	}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		if state, err := cluster.ReadState(*dir); err != nil || !state.Running() {
			return fmt.Errorf("no cluster runs in %s: make up NODES=2", *dir)
		}
		if len(files) == 0 {
			var err error
			if files, err = archives(map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]); err != nil {
				return err
			}
			if len(files) == 0 {
				return errors.New("bin/images has no archive to load: make images, docker save -o bin/images/NAME.tar IMAGE, or name a file")
			}
		}
		for _, file := range files {
			names, err := cluster.LoadArchive(cmd.Context(), *dir, file)
			if err != nil {
				return err
			}
			fmt.Printf("loaded %s: %s\n", file, strings.Join(names, ", "))
		}
		return nil
	}
	return cmd
}

func downCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "down", Short: "Stop the cluster", Args: cobra.NoArgs}
	dir := dirFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		state, err := cluster.ReadState(*dir)
		if err != nil || !state.Running() {
			fmt.Println("no cluster runs in", *dir)
			return nil
		}
		if err := syscall.Kill(state.PID, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop process %d: %w", state.PID, err)
		}
		deadline := time.Now().Add(time.Minute)
		for state.Running() {
			if time.Now().After(deadline) {
				fmt.Fprintf(os.Stderr, "process %d did not end within a minute: killing it\n", state.PID)
				return syscall.Kill(state.PID, syscall.SIGKILL)
			}
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Println("stopped")
		return nil
	}
	return cmd
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Say where the cluster is and whether it runs", Args: cobra.NoArgs}
	dir := dirFlag(cmd)
	output := cmd.Flags().StringP("output", "o", "", "json, or nothing for text")
	cmd.RunE = func(*cobra.Command, []string) error {
		state, err := cluster.ReadState(*dir)
		if err == nil && !state.Running() {
			err = fmt.Errorf("the cluster in %s is gone: its process %d does not run", *dir, state.PID)
		}
		if err != nil {
			return err
		}
		if *output == "json" {
			encoder := json.NewEncoder(os.Stdout)
			encoder.SetIndent("", "  ")
			return encoder.Encode(state)
		}
		fmt.Printf("runs since %s as process %d\n", state.Started.Format(time.DateTime), state.PID)
		printUse(*dir, state)
		return nil
	}
	return cmd
}

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs [COMPONENT]",
		Short: "Print the end of a component's log; without a name, list the components",
		Args:  cobra.MaximumNArgs(1),
	}
	dir := dirFlag(cmd)
	bytes := cmd.Flags().Int64("bytes", 16<<10, "how much of the log's end to print")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return components(*dir), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			fmt.Println(strings.Join(components(*dir), "\n"))
			return nil
		}
		tail, err := proc.Tail(filepath.Join(*dir, "logs", args[0]+".log"), *bytes)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("no log of %q; components: %s", args[0], strings.Join(components(*dir), ", "))
		}
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(tail)
		return err
	}
	return cmd
}

// components are those that have a log.
func components(dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	if err != nil {
		return nil
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".log")
	}
	return files
}

func publishCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "publish", Short: "Send scans to the running cluster", Args: cobra.NoArgs}
	dir := dirFlag(cmd)
	n := cmd.Flags().IntP("messages", "n", 20, "how many scans to send")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		state, err := cluster.ReadState(*dir)
		if err != nil {
			return err
		}
		if err := scans.Publish(cmd.Context(), state.AMQP, *n); err != nil {
			return err
		}
		fmt.Printf("sent %d scans\n", *n)
		return nil
	}
	return cmd
}

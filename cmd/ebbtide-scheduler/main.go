// ebbtide-scheduler is kube-scheduler with the plugin DrainPack, which packs pods so that nodes drain. Its flags and its
// configuration are kube-scheduler's. In a cluster that is older than itself it behaves as the kube-scheduler of that cluster's release.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of requests to the API server
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric of the version
	"k8s.io/component-base/version/verflag"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "github.com/ebbtide-dev/ebbtide/internal/roots"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/drainpack"
)

func main() { os.Exit(cli.Run(newCommand())) }

func newCommand() *cobra.Command {
	command := app.NewSchedulerCommand(app.WithPlugin(drainpack.Name, drainpack.New), app.WithPlugin(drainpack.QueueName, drainpack.NewQueue))
	command.Use = "ebbtide-scheduler"
	set := command.PersistentPreRunE
	command.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		verflag.PrintAndExitIfRequested()
		return setGates(cmd.Context(), cmd.Flags(), func() error { return set(cmd, args) })
	}
	return command
}

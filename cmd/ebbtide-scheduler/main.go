// ebbtide-scheduler is kube-scheduler with the plugin DrainPack, which packs pods so that nodes drain. Its flags and its
// configuration are kube-scheduler's.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of requests to the API server
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric of the version
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "github.com/ebbtide-dev/ebbtide/internal/roots"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/drainpack"
)

func main() {
	command := app.NewSchedulerCommand(app.WithPlugin(drainpack.Name, drainpack.New), app.WithPlugin(drainpack.QueueName, drainpack.NewQueue))
	command.Use = "ebbtide-scheduler"
	os.Exit(cli.Run(command))
}

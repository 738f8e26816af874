// Releases installs the releases of RabbitMQ that the scaler is tested with, each in a folder of the user's cache. Where one can't be
// installed it says so, and exits with 0: its tests are skipped then.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, release := range rabbitmq.Releases {
		if err := release.Install(ctx, os.Stderr); err != nil {
			fmt.Fprintf(os.Stderr, "RabbitMQ of %s can't be installed, and is not tested with: %v\n", release, err)
		}
	}
}

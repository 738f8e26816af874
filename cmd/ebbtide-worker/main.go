// ebbtide-worker takes messages from a queue and runs a command on each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	_ "github.com/ebbtide-dev/ebbtide/internal/roots"
	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

// exitGivenBack is EX_TEMPFAIL of sysexits.h: the message went back to the queue, or another attempt may succeed.
const exitGivenBack = 75

// mostProcessors are enough for what waits nearly always. Each that Go uses takes threads.
const mostProcessors = 4

func main() {
	begin := time.Now()
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), mostProcessors))
	secrets, err := secret.Take(secretVariables...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = command(begin, secrets).ExecuteContext(ctx)
	var end commandEnd
	switch {
	case errors.As(err, &end):
		os.Exit(int(end))
	case errors.Is(err, worker.ErrGivenBack), errors.Is(err, sourcestore.ErrUnavailable):
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(exitGivenBack)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

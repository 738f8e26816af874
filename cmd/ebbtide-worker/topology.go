package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/topology"
)

// managementVariable is the environment variable that holds the URI of the management API.
const managementVariable = "MANAGEMENT_URI"

const topologyLong = `topology apply declares exchanges, queues, bindings and policies at a RabbitMQ broker.

The file is JSON in the form of RabbitMQ's own definitions of a virtual host. Policies are created or changed; exchanges and queues are
created; if they exist with other arguments, that is an error. Nothing is deleted. $AMQP_URI selects the virtual host, and $MANAGEMENT_URI is the
address of the management API. Without credentials in it, those of $AMQP_URI are used.`

func topologyCommand(secrets secret.Values) *cobra.Command {
	parent := &cobra.Command{Use: "topology", Short: "Declare queues at the broker"}
	var file string
	var timeout time.Duration
	apply := &cobra.Command{
		Use:     "apply -f FILE",
		Short:   "Declare exchanges, queues, bindings and policies",
		Long:    topologyLong,
		Example: "  ebbtide-worker topology apply -f definitions.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			broker, err := managementOf(secrets[rabbitmq.URIVariable], secrets[managementVariable])
			if err != nil {
				return err
			}
			definitions, err := readDefinitions(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not done within --timeout %s", timeout))
			defer cancel()
			if err := applyUntil(ctx, broker, definitions, cmd.ErrOrStderr()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d policies, %d exchanges, %d queues and %d bindings are in virtual host %q\n", len(definitions.Policies),
				len(definitions.Exchanges), len(definitions.Queues), len(definitions.Bindings), broker.VHost)
			return nil
		},
	}
	apply.Flags().StringVarP(&file, "file", "f", "", "file with the definitions; - for standard input")
	apply.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for the broker")
	_ = apply.MarkFlagRequired("file")
	parent.AddCommand(apply)
	return parent
}

// applyUntil tries again while the broker is not up.
func applyUntil(ctx context.Context, broker topology.Broker, definitions topology.Definitions, progress io.Writer) error {
	broker.Warn = func(text string) { fmt.Fprintln(progress, "warning:", text) }
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := broker.Apply(ctx, definitions)
		if err == nil || topology.Refused(err) {
			return err
		}
		fmt.Fprintln(progress, "trying again:", err)
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

func readDefinitions(path string) (topology.Definitions, error) {
	if path == "-" {
		return topology.Read(os.Stdin)
	}
	file, err := os.Open(path)
	if err != nil {
		return topology.Definitions{}, fmt.Errorf("--file: %w", err)
	}
	defer file.Close()
	return topology.Read(file)
}

// managementOf is the management API of the broker that a worker talks AMQP with.
func managementOf(amqpURI, managementURI string) (topology.Broker, error) {
	broker := topology.Broker{Client: &http.Client{Timeout: 10 * time.Second}}
	uri, err := rabbitmq.ParseURI(amqpURI)
	if err != nil {
		return broker, fmt.Errorf("$%s: %w", rabbitmq.URIVariable, err)
	}
	broker.VHost = uri.Vhost
	broker.Management, err = endpoint.Form{Name: "$" + managementVariable, Example: "http://host:15672"}.HTTP(managementURI)
	if err != nil {
		return broker, err
	}
	if broker.Management.User == nil {
		broker.Management.User = url.UserPassword(uri.Username, uri.Password)
	}
	return broker, nil
}

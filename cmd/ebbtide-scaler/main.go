// ebbtide-scaler is a KEDA external scaler: it turns the backlogs and calendars of ScalingPolicies into replica targets.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"k8s.io/apimachinery/pkg/types"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	_ "github.com/ebbtide-dev/ebbtide/internal/roots"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/externalscaler"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/workload"
)

const (
	// sampleMaxAge is just under a second, KEDA's shortest polling interval: a trigger that alone asks for a queue always gets a new
	// sample, and a queue is asked no more than about once a second, however many ask.
	sampleMaxAge = 900 * time.Millisecond
	// ledgerSize is how many decisions of each policy are kept; repeated ones count once.
	ledgerSize = 64
	// stopWithin is how long calls may keep running after SIGTERM.
	stopWithin = 5 * time.Second
)

type options struct {
	policyDir, kubeconfig       string
	leaderElect                 bool
	namespace, lease            string
	listen, metricsListen       string
	tlsCert, tlsKey, tlsClients string
	allowClients                []string
	sampleMaxAge, timeout       time.Duration
	logLevel                    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "ebbtide-scaler",
		Short: "KEDA external scaler that follows backlogs and calendars",
		Long: `ebbtide-scaler answers KEDA's triggers of type external. It reads ScalingPolicies from the API server, or with
--policy-dir from files, in which case it needs no API server at all.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policyDir, "policy-dir", "", "read ScalingPolicies from the YAML files of this directory, and follow its changes")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the API server; default: $KUBECONFIG, else the pod's service account")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "let one of several replicas write the status of policies; false: this one writes")
	flags.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "ebbtide-system"),
		"namespace of the leader's lease; default: $POD_NAMESPACE, else ebbtide-system")
	flags.StringVar(&o.lease, "lease-name", "ebbtide-scaler", "name of the leader's lease, for deployments that share a namespace")
	flags.StringVar(&o.listen, "listen", ":9090", "address of the gRPC service that KEDA calls")
	flags.StringVar(&o.metricsListen, "metrics-listen", ":8080", "address of /metrics, /healthz, /readyz and /decisions")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "certificate file of the gRPC service; it is read again when it changes")
	flags.StringVar(&o.tlsKey, "tls-key", "", "key file of the gRPC service")
	flags.StringVar(&o.tlsClients, "tls-client-ca", "", "CA file of the clients that may call; without it any client may")
	flags.StringArrayVar(&o.allowClients, "allow-client", nil, "client that may ask: NAME, its certificate's common or DNS name, or "+
		"NAME=NAMESPACE,NAMESPACE; may be repeated; without it any client with a certificate may")
	flags.DurationVar(&o.sampleMaxAge, "sample-max-age", sampleMaxAge, "a queue is asked again only when its last answer is older; "+
		"push triggers look at theirs four times a second")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "bound of a call, and of a question to a broker")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func run(ctx context.Context, o options) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q: must be debug, info, warn or error", o.logLevel)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	serving, err := newCertificates(tlsfiles.Files{Cert: o.tlsCert, Key: o.tlsKey, CA: o.tlsClients})
	if err != nil {
		return err
	}
	if len(o.allowClients) > 0 && o.tlsClients == "" {
		return errors.New("--allow-client needs --tls-client-ca: without it clients have no names")
	}
	authorize, err := authorizer(o.allowClients)
	if err != nil {
		return err
	}
	stopTracing, err := startTracing(ctx)
	if err != nil {
		return err
	}
	defer stopTracing()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	recorder := decision.NewRecorder(decision.NewLedger(ledgerSize), registry, log)

	observer := &policyObserver{recorder: recorder}
	sources := policy.NewSources(backlog.SampleBounds{Timeout: o.timeout, Now: time.Now, OnPanic: func(cause any) {
		recorder.Panicked("source", cause)
	}})
	store := policy.NewStore(sources, observer, log)
	ofPolicies := func(cause any) { recorder.Panicked("source", cause) }
	store.OnPanic(ofPolicies)
	registry.MustRegister(&decision.CalendarMetrics{Policies: store, Now: time.Now, OnPanic: ofPolicies})
	if serving != nil {
		registry.MustRegister(expiry(serving))
	}
	loaded := make(chan struct{})
	config := decision.Config{
		Policies: store, Recorder: recorder, Loaded: loaded, MaxAge: o.sampleMaxAge, Timeout: o.timeout, Now: time.Now,
	}
	var api *cluster
	if o.policyDir == "" {
		watch := workload.New(time.Now, log)
		registry.MustRegister(watch)
		if api, err = newCluster(o, watch); err != nil {
			return err
		}
		config.Workload, config.Published = watch, api.published
	}
	decider := decision.NewDecider(config)
	observer.decider = decider
	scaler := externalscaler.New(externalscaler.Config{Decider: decider, MaxAge: o.sampleMaxAge, Authorize: authorize})
	decisions := &decision.API{Ledger: recorder.Ledger, Policies: store, Now: time.Now, Authorize: authorize}

	work, workCtx := errgroup.WithContext(ctx)
	healthServer := health.NewServer()
	healthServer.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	server := newServer(workCtx, credentialsOf(serving), recorder)
	scaler.Register(server)
	decisions.Register(server)
	healthpb.RegisterHealthServer(server, healthServer)
	reflection.Register(server)
	listener, err := listen(ctx, o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	web, err := newWeb(o.metricsListen, registry, recorder.Ledger, o.tlsClients != "", loaded)
	if err != nil {
		return err
	}

	nowLoaded := func() {
		healthServer.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		close(loaded)
		log.Info("ready", "listen", listener.Addr().String(), "metricsListen", web.listener.Addr().String())
	}
	work.Go(func() error {
		if api == nil {
			return policy.NewDirectory(o.policyDir, store, log).Run(workCtx, nowLoaded)
		}
		return api.run(workCtx, store, decider, recorder, nowLoaded)
	})
	work.Go(func() error { store.FollowHolidays(workCtx); return nil })
	work.Go(func() error { return server.Serve(newCrowd(listener, maxCallers)) })
	work.Go(func() error {
		if err := web.server.Serve(web.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	work.Go(func() error {
		<-workCtx.Done()
		healthServer.Shutdown()
		stopped := time.AfterFunc(stopWithin, server.Stop)
		defer stopped.Stop()
		server.GracefulStop()
		return web.server.Close()
	})
	return work.Wait()
}

// policyObserver is told of policies that change, and tells those who keep something of them.
type policyObserver struct {
	recorder *decision.Recorder
	decider  *decision.Decider
}

func (o *policyObserver) Validated(name types.NamespacedName, err error) {
	o.recorder.Validated(name, err)
}

func (o *policyObserver) Forget(name types.NamespacedName) {
	o.decider.Forget(name)
	o.recorder.Forget(name)
}

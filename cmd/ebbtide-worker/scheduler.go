package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	"github.com/ebbtide-dev/ebbtide/worker/draining"
)

// podUIDVariable is the environment variable with the pod's UID. Commands do not get it: with it, a worker proves who it is.
const podUIDVariable = "EBBTIDE_POD_UID"

// schedulerOptions say where the scheduler is that may ask the worker to leave.
type schedulerOptions struct {
	address string
	files   tlsfiles.Files
	uid     string
	config  *tls.Config
}

func (s *schedulerOptions) addFlags(flags *pflag.FlagSet, stay *time.Duration) {
	flags.DurationVar(stay, "stay", 2*time.Minute,
		"with --scheduler: longest to wait for a message while another pod on the node works; else --idle-timeout after the last work on the node")
	flags.StringVar(&s.address, "scheduler", "",
		"address of ebbtide-scheduler, host:port, that says whether the node works and may ask this worker to leave; it needs $POD_NAME and $"+
			podUIDVariable+"; default: none, and --idle-timeout alone counts")
	flags.StringVar(&s.files.CA, "scheduler-ca", "", "file with the authority of the scheduler's certificate; default: no TLS")
	flags.StringVar(&s.files.Cert, "scheduler-cert", "", "file with the certificate that this worker presents to the scheduler")
	flags.StringVar(&s.files.Key, "scheduler-key", "", "file with the key of --scheduler-cert")
}

// complete says what is wrong, and returns the files that commands may not read.
func (s *schedulerOptions) complete(stay time.Duration, secrets secret.Values) (hidden []string, err error) {
	s.uid = secrets[podUIDVariable]
	switch {
	case stay < 0:
		return nil, fmt.Errorf("--stay %s: must not be negative", stay)
	case s.address == "" && s.files.Set():
		return nil, errors.New("--scheduler-ca, --scheduler-cert and --scheduler-key: they need --scheduler")
	case s.address == "" || !s.files.Set():
		return nil, nil
	}
	if err := s.files.Check(); err != nil {
		return nil, fmt.Errorf("--scheduler-ca, --scheduler-cert, --scheduler-key: %w", err)
	}
	s.config, err = s.files.Client()
	return []string{s.files.Key}, err
}

// attend opens the stream, where there is to be one.
func (o *runOptions) attend() (stop func(), err error) {
	if o.scheduler.address == "" {
		return func() {}, nil
	}
	stream, err := draining.Open(draining.Config{
		Address: o.scheduler.address, PodName: os.Getenv("POD_NAME"), PodUID: o.scheduler.uid, TLS: o.scheduler.config, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("--scheduler: %w", err)
	}
	o.Scheduler = stream
	return stream.Close, nil
}

package scenario

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// scanProcess is a scan that runs in a container.
type scanProcess struct {
	worker int // process id of its worker
	pod    string
}

// awaitScan waits for the only scan that runs, and finds its worker and its pod.
func awaitScan(ctx context.Context) (scanProcess, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("no scan started within two minutes"))
	defer cancel()
	for {
		found, err := filepath.Glob("/proc/[0-9]*/comm")
		if err != nil {
			return scanProcess{}, err
		}
		for _, path := range found {
			if comm, err := os.ReadFile(path); err == nil && string(comm) == "e2e-scan\n" {
				if p, err := describeScan(filepath.Dir(path)); err == nil {
					return p, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return scanProcess{}, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func describeScan(proc string) (scanProcess, error) {
	var p scanProcess
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return p, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if parent, ok := strings.CutPrefix(line, "PPid:"); ok {
			if p.worker, err = strconv.Atoi(strings.TrimSpace(parent)); err != nil {
				return p, err
			}
		}
	}
	environment, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err != nil {
		return p, err
	}
	for _, variable := range bytes.Split(environment, []byte{0}) {
		if name, ok := bytes.CutPrefix(variable, []byte("POD_NAME=")); ok {
			p.pod = string(name)
		}
	}
	if p.pod == "" || p.worker <= 1 {
		return p, errors.New("not the scan of a worker in a pod")
	}
	return p, nil
}

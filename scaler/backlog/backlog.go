// Package backlog reads how much work waits. A Source knows one kind of broker.
package backlog

import (
	"context"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Source reads the backlog of one policy. It is safe for concurrent use.
type Source interface {
	// Observe returns the backlog as it is now, or as it was at most the source's maximum age ago. It honours ctx. Its
	// errors tell a person what to do; they hold no credentials.
	Observe(ctx context.Context) (target.Observation, error)
	// Close gives back what the source holds.
	Close() error
}

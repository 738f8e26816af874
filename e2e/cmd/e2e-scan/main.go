// e2e-scan stands for a scanner in the end-to-end scenarios: it reads a scan order from standard input, works for as
// long as the order says and prints a result. An order may ask for a failure.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// order is the part of a message that concerns the scanner.
type order struct {
	ID        string    `json:"id"`
	Seconds   float64   `json:"seconds"`
	Published time.Time `json:"published"`
	// ExitCode to end with instead of 0, until the message was delivered SucceedsAt times before; 0 is never.
	ExitCode   int   `json:"exitCode"`
	SucceedsAt int64 `json:"succeedsAt"`
}

// result is what a scan prints.
type result struct {
	ID        string    `json:"id"`
	Published time.Time `json:"published"`
	Started   time.Time `json:"started"`
	Finished  time.Time `json:"finished"`
}

func main() {
	started := time.Now()
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Fprintln(os.Stderr, "the message is not a scan order:", err)
		os.Exit(65) // EX_DATAERR
	}
	time.Sleep(time.Duration(o.Seconds * float64(time.Second)))
	deliveries, err := strconv.ParseInt(os.Getenv("EBBTIDE_DELIVERY_COUNT"), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "EBBTIDE_DELIVERY_COUNT:", err)
		os.Exit(65)
	}
	if o.ExitCode != 0 && (o.SucceedsAt == 0 || deliveries < o.SucceedsAt) {
		fmt.Fprintln(os.Stderr, "the order asks for exit code", o.ExitCode)
		os.Exit(o.ExitCode)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result{o.ID, o.Published, started, time.Now()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(74) // EX_IOERR
	}
}

// e2e-boot stands for the start of a large image in the end-to-end scenarios: it waits for a time between two durations,
// drawn at random, and becomes the program that follows.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

func main() {
	if err := boot(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "usage: e2e-boot LEAST MOST PROGRAM [ARG...]:", err)
		os.Exit(64) // EX_USAGE
	}
}

func boot(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%d arguments", len(args))
	}
	least, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	most, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	time.Sleep(least + rand.N(max(1, most-least)))
	return syscall.Exec(args[2], args[2:], os.Environ())
}

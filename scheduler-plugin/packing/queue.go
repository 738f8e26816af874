package packing

import "time"

// Advance is how much is subtracted from the time at which a pod came, in a queue that lets long and large pods go before: up to most, half of it
// for how long the pod is expected to run, Never included, and half for its CPUs. It does not depend on the time, so that pods age by standing still.
func Advance(runs time.Duration, milliCPU int64, most time.Duration) time.Duration {
	const middleRun, middleCPUs = 5 * time.Minute, 2000 // those that get half of a half; millicores
	r, c := max(0, runs).Seconds(), float64(max(0, milliCPU))
	share := r/(r+middleRun.Seconds()) + c/(c+middleCPUs)
	return time.Duration(share / 2 * float64(most))
}

//go:build !race

package policy

// raceFactor is 1 without the race detector.
const raceFactor = 1

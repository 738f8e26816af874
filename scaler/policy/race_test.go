//go:build race

package policy

// raceFactor is how many times less is done under the race detector, which makes it that much slower.
const raceFactor = 10

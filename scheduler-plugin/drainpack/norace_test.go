//go:build !race

package drainpack

const raceDetector = false

//go:build race

package drainpack

const raceDetector = true

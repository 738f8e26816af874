package calendar

import (
	"fmt"
	"strconv"
	"strings"
)

// Surplus is how many more replicas there are while messages wait: a number, or a percentage of those that the waiting messages ask for.
// Where both are set, as in overlapping periods, the larger counts. The zero value adds none.
type Surplus struct{ Replicas, Percent int32 }

// What a surplus may be.
const (
	MaxSurplusReplicas = 100_000
	MaxSurplusPercent  = 1000
)

// ParseSurplus reads a number (3) or a percentage (30%).
func ParseSurplus(text string) (Surplus, error) {
	digits, isPercent := strings.CutSuffix(text, "%")
	limit := int64(MaxSurplusReplicas)
	if isPercent {
		limit = MaxSurplusPercent
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || n > limit || digits != strconv.FormatInt(n, 10) {
		return Surplus{}, fmt.Errorf("must be a number of replicas from 0 to %d, or a percentage from \"0%%\" to \"%d%%\"", MaxSurplusReplicas, MaxSurplusPercent)
	}
	if isPercent {
		return Surplus{Percent: int32(n)}, nil
	}
	return Surplus{Replicas: int32(n)}, nil
}

// String is what ParseSurplus reads, or both of overlapping periods.
func (s Surplus) String() string {
	switch {
	case s.Percent == 0:
		return strconv.Itoa(int(s.Replicas))
	case s.Replicas == 0:
		return fmt.Sprintf("%d%%", s.Percent)
	}
	return fmt.Sprintf("%d%%, but at least %d", s.Percent, s.Replicas)
}

// Text is String, or empty where there is none.
func (s Surplus) Text() string {
	if s == (Surplus{}) {
		return ""
	}
	return s.String()
}

// Of is the surplus on top of so many replicas for waiting messages: none if nothing waits. A percentage is rounded down.
func (s Surplus) Of(waiting int64) int64 {
	if waiting <= 0 {
		return 0
	}
	const most = 1 << 31 // no target is above, and the product of the two does not overflow
	return max(int64(s.Replicas), min(waiting, most)*int64(s.Percent)/100)
}

// merge is the larger of two.
func (s Surplus) merge(other Surplus) Surplus {
	return Surplus{max(s.Replicas, other.Replicas), max(s.Percent, other.Percent)}
}

package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Headers that say something to the worker.
const (
	// enginesHeader names the engines that the scan is complete with, separated by commas. It goes before what the worker was told.
	enginesHeader = "ebbtide-engines"
	// timeoutHeader lowers the scan timeout: a Go duration, such as 90s.
	timeoutHeader = "ebbtide-scan-timeout"
)

// Bounds of what a producer may put beside a message. They keep the environment within what a program can be started with, and a message
// within what a broker takes once the worker has added to it.
const (
	MaxHeaderBytes = 64 << 10
	maxHeaders     = 256
	maxEngines     = 64
	// MaxIDBytes bounds keys and ids: AMQP's own limit.
	MaxIDBytes = 255
)

// engineName is what an engine may be called.
var engineName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]{0,62}$`)

// ValidEngine reports whether an engine may have a name.
func ValidEngine(name string) bool { return engineName.MatchString(name) }

// Identity is an id as it can be sent everywhere: itself, or what stands for it if it is longer than limit bytes or not text.
func Identity(id string, limit int) string {
	if len(id) <= limit && utf8.ValidString(id) && !strings.ContainsRune(id, 0) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// order is what a message's headers ask of the worker.
type order struct {
	engines []string
	timeout time.Duration // 0: none
}

// admit reads a message's headers. An error is the message's, and the same at every attempt.
func (c *Config) admit(message *Message) (order, error) {
	o := order{engines: c.Engines, timeout: c.ScanTimeout}
	if n := message.HeaderBytes; n > MaxHeaderBytes {
		return o, fmt.Errorf("its headers have %d bytes: at most %d; put what is longer into the body", n, MaxHeaderBytes)
	}
	if n := len(message.Headers); n > maxHeaders {
		return o, fmt.Errorf("it has %d headers: at most %d", n, maxHeaders)
	}
	if n := len(message.RoutingKey); n > MaxHeaderBytes {
		return o, fmt.Errorf("its key has %d bytes: at most %d", n, MaxHeaderBytes)
	}
	if text := message.Headers[timeoutHeader]; text != "" {
		timeout, err := time.ParseDuration(text)
		if err != nil || timeout <= 0 {
			return o, fmt.Errorf("header %s is %.64q: want a duration over 0, such as 90s", timeoutHeader, text)
		}
		if o.timeout == 0 || timeout < o.timeout {
			o.timeout = timeout
		}
	}
	text := message.Headers[enginesHeader]
	if text == "" {
		return o, nil
	}
	engines := strings.Split(strings.ReplaceAll(text, " ", ""), ",")
	if len(engines) > maxEngines {
		return o, fmt.Errorf("header %s names %d engines: at most %d", enginesHeader, len(engines), maxEngines)
	}
	for _, engine := range engines {
		if !ValidEngine(engine) {
			return o, fmt.Errorf("header %s names %.64q: an engine's name has up to 63 letters, digits, points, hyphens and underscores",
				enginesHeader, engine)
		}
	}
	o.engines = slices.Compact(slices.Sorted(slices.Values(engines)))
	return o, nil
}

package v1

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"time"
)

// SetDefaults fills in what was left out.
func (a *DrainPackArgs) SetDefaults() {
	setDefault(&a.Candidates, 4)
	setDefault(&a.Quantile, 0.5)
	setDefault(&a.HalfLife.Duration, 7*24*time.Hour)
	setDefault(&a.UnknownRunTime.Duration, 5*time.Minute)
	setDefault(&a.MinCorrelation, 0.3)
	setDefault(&a.ClassLabel, "ebbtide.dev/duration-class")
	setDefault(&a.GroupLabel, "scheduling.x-k8s.io/pod-group")
	if d := a.Draining; d != nil {
		setDefault(&d.ListenAddress, ":10261")
		setDefault(&d.MaxWorkers, 10_000)
		setDefault(&d.Spare, 2)
		setDefault(&d.Longest.Duration, time.Hour)
		setDefault(&d.TaintsPerHour, 600)
		setDefault(&d.Promise.Duration, 3*time.Second)
		setDefault(&d.Every.Duration, 5*time.Second)
	}
}

// SetDefaults fills in what was left out.
func (a *DrainPackQueueArgs) SetDefaults() { setDefault(&a.MaxAdvance.Duration, 30*time.Second) }

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports the fields whose values are not allowed.
func (a *DrainPackArgs) Validate() error {
	var c checker
	c.check(a.Candidates >= 1 && a.Candidates <= 100, "candidates", a.Candidates, "1 to 100")
	c.check(a.Quantile > 0 && a.Quantile < 1, "quantile", a.Quantile, "more than 0 and less than 1")
	c.check(a.HalfLife.Duration >= time.Minute, "halfLife", a.HalfLife.Duration, "at least 1m")
	c.check(a.UnknownRunTime.Duration >= time.Second, "unknownRunTime", a.UnknownRunTime.Duration, "at least 1s")
	c.check(a.Horizon.Duration == 0 || a.Horizon.Duration >= time.Minute, "horizon", a.Horizon.Duration, "0, or at least 1m")
	c.check(a.MinCorrelation > 0 && a.MinCorrelation <= 1, "minCorrelation", a.MinCorrelation, "more than 0, at most 1")
	for _, name := range slices.Sorted(maps.Keys(a.Weights)) {
		c.check(a.Weights[name] > 0 && !math.IsInf(a.Weights[name], 1), "weights."+name, a.Weights[name], "more than 0")
	}
	for i, f := range a.PriceFactors {
		field := fmt.Sprintf("priceFactors[%d]", i)
		c.check(len(f.Labels) > 0, field+".labels", "empty", "at least one label")
		c.check(f.Factor > 0 && !math.IsInf(f.Factor, 1), field+".factor", f.Factor, "more than 0")
	}
	if a.ExplainAddress != "" {
		host, _, err := net.SplitHostPort(a.ExplainAddress)
		ip := net.ParseIP(host)
		c.check(err == nil && ip != nil && ip.IsLoopback(), "explainAddress", a.ExplainAddress,
			"a loopback address and a port, such as 127.0.0.1:10260, to be reached by kubectl port-forward")
	}
	if a.Draining != nil {
		a.Draining.validate(&c)
	}
	return errors.Join(c...)
}

func (d *DrainingArgs) validate(c *checker) {
	_, _, err := net.SplitHostPort(d.ListenAddress)
	c.check(err == nil, "draining.listenAddress", d.ListenAddress, "an address and a port, such as :10261")
	files := 0
	for _, file := range []string{d.CertFile, d.KeyFile, d.ClientCAFile} {
		if file != "" {
			files++
		}
	}
	c.check(files == 0 || files == 3, "draining.certFile", d.CertFile, "certFile, keyFile and clientCAFile together, or none of them")
	c.check(d.MaxWorkers >= 1 && d.MaxWorkers <= 100_000, "draining.maxWorkers", d.MaxWorkers, "1 to 100000")
	c.check(d.Spare >= 1 && d.Spare <= 100, "draining.spare", d.Spare, "1 to 100")
	c.check(d.Longest.Duration >= time.Minute && d.Longest.Duration <= 24*time.Hour, "draining.longest", d.Longest.Duration, "1m to 24h")
	c.check(d.TaintsPerHour >= 1 && d.TaintsPerHour <= 36_000, "draining.taintsPerHour", d.TaintsPerHour, "1 to 36000")
	c.check(d.Promise.Duration >= 500*time.Millisecond && d.Promise.Duration <= 30*time.Second, "draining.promise", d.Promise.Duration, "500ms to 30s")
	c.check(d.Every.Duration >= time.Second && d.Every.Duration <= time.Minute, "draining.every", d.Every.Duration, "1s to 1m")
}

// Validate reports the fields whose values are not allowed.
func (a *DrainPackQueueArgs) Validate() error {
	var c checker
	c.check(a.MaxAdvance.Duration >= time.Second && a.MaxAdvance.Duration <= time.Hour, "maxAdvance", a.MaxAdvance.Duration, "1s to 1h")
	return errors.Join(c...)
}

// checker gathers what is wrong.
type checker []error

func (c *checker) check(ok bool, field string, value any, allowed string) {
	if !ok {
		*c = append(*c, fmt.Errorf("%s is %v, want %s", field, value, allowed))
	}
}

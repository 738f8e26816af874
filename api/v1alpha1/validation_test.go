package v1alpha1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is multiplied with numbers of messages is bounded.
func TestDrainBounds(t *testing.T) {
	for name, tc := range map[string]struct {
		drainWithin, serviceTime time.Duration
		want                     string
	}{
		"usual":        {10 * time.Minute, 30 * time.Second, ""},
		"longest":      {168 * time.Hour, 168 * time.Hour, ""},
		"a moment":     {1, 30 * time.Second, "spec.target.drainWithin"},
		"negative":     {-time.Minute, 30 * time.Second, "spec.target.drainWithin"},
		"centuries":    {10 * time.Minute, 2562047 * time.Hour, "spec.target.serviceTime"},
		"no time":      {10 * time.Minute, 0, "spec.target.serviceTime"},
		"both at once": {1, 2562047 * time.Hour, "spec.target.drainWithin"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &ScalingPolicy{Spec: ScalingPolicySpec{
				Backlog: Backlog{RabbitMQ: &RabbitMQBacklog{URI: ValueSource{Value: "amqp://x"}, Queue: "q"}},
				Target:  Target{DrainWithin: &metav1.Duration{Duration: tc.drainWithin}, ServiceTime: &metav1.Duration{Duration: tc.serviceTime}},
			}}
			SetDefaults(p)
			errs := Validate(p)
			if (tc.want == "") != (len(errs) == 0) || len(errs) > 0 && !strings.Contains(errs.ToAggregate().Error(), tc.want) {
				t.Errorf("%v, want an error of %q", errs, tc.want)
			}
		})
	}
}

package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultMaxReplicas = 100
	defaultHoldFor     = 5 * time.Minute
)

// SetDefaults fills in what the user left out, as the CRD's schema does for policies that come from the API server.
func SetDefaults(p *ScalingPolicy) {
	if p.Spec.Target.MessagesPerReplica == 0 {
		p.Spec.Target.MessagesPerReplica = 1
	}
	if p.Spec.Target.MaxReplicas == nil {
		limit := int32(defaultMaxReplicas)
		p.Spec.Target.MaxReplicas = &limit
	}
	if p.Spec.Outage.HoldFor == nil {
		p.Spec.Outage.HoldFor = &metav1.Duration{Duration: defaultHoldFor}
	}
	if calendar := p.Spec.Calendar; calendar != nil && calendar.TimeZone == "" {
		calendar.TimeZone = "UTC"
	}
	if group := p.Spec.Target.MaxReplicasGroup; group != nil && group.Weight == 0 {
		group.Weight = 1
	}
	if rabbitmq := p.Spec.Backlog.RabbitMQ; rabbitmq != nil && rabbitmq.OnMissingQueue == "" {
		rabbitmq.OnMissingQueue = MissingQueueZero
	}
	if kafka := p.Spec.Backlog.Kafka; kafka != nil && kafka.OnMissingOffset == "" {
		kafka.OnMissingOffset = MissingOffsetEarliest
	}
	if kafka := p.Spec.Backlog.Kafka; kafka != nil && kafka.IsolationLevel == "" {
		kafka.IsolationLevel = ReadUncommitted
	}
	if prometheus := p.Spec.Backlog.Prometheus; prometheus != nil && prometheus.OnNoData == "" {
		prometheus.OnNoData = NoDataError
	}
}

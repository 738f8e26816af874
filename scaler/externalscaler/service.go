// Package externalscaler answers KEDA: it is the gRPC service that a trigger of type external names.
//
// KEDA asks GetMetricSpec, GetMetrics and IsActive one after the other, without a deadline, and takes an error of the
// first for nothing at all. So GetMetricSpec is static and can't fail, the other two answer from one decision, and every
// call is bounded here.
package externalscaler

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

const (
	// metricName is the same for every policy: KEDA tells triggers apart by itself.
	metricName = "ebbtide-target-replicas"
	// pushEvery is how often a stream looks for work to announce.
	pushEvery = 500 * time.Millisecond
)

// Config of a service.
type Config struct {
	Policies *policy.Store
	Recorder *decision.Recorder
	// MaxAge is how long a decision answers further calls; about as long as an observation stays fresh.
	MaxAge time.Duration
	// Timeout bounds a call.
	Timeout time.Duration
	Now     func() time.Time
}

// Service implements KEDA's external scaler. Make one with New.
type Service struct {
	pb.UnimplementedExternalScalerServer
	config Config

	mu   sync.Mutex
	last map[types.NamespacedName]held
}

// held is what is kept of a policy from call to call.
type held struct {
	policy      *policy.Policy
	decision    target.Decision
	observation target.Observation
}

var _ pb.ExternalScalerServer = &Service{}

// New returns a service.
func New(config Config) *Service {
	return &Service{config: config, last: map[types.NamespacedName]held{}}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar) { pb.RegisterExternalScalerServer(server, s) }

// Forget drops what is kept of a deleted policy.
func (s *Service) Forget(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, name)
}

// Decide takes a decision for a policy, or returns the one taken a moment ago. Its errors are gRPC statuses.
func (s *Service) Decide(ctx context.Context, name types.NamespacedName) (target.Decision, error) {
	p, invalid, known := s.config.Policies.Get(name)
	switch {
	case !known:
		return target.Decision{}, status.Errorf(codes.NotFound,
			"ScalingPolicy %s does not exist: create it, or correct `policy` in the trigger's metadata", name)
	case p == nil:
		return target.Decision{}, status.Error(codes.FailedPrecondition, invalid.Error())
	}
	s.mu.Lock()
	last, again := s.last[name]
	s.mu.Unlock()
	now := s.config.Now()
	if again && last.policy == p && now.Sub(last.decision.Time) < s.config.MaxAge {
		return last.decision, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no answer within %s", s.config.Timeout))
	defer cancel()
	observation, failure := p.Source.Observe(ctx)
	if failure != nil {
		observation = last.observation
	}
	now = s.config.Now()
	d := target.Decide(now, observation, failure, p.Calendar.Limits(now), p.Target)
	s.mu.Lock()
	s.last[name] = held{policy: p, decision: d, observation: observation}
	s.mu.Unlock()
	s.config.Recorder.Record(name, d)
	return d, nil
}

// answer is Decide, with an outage in which the calendar asks for nothing as an error: it would create no job anyway,
// and as an error it shows in the ScaledJob's conditions.
func (s *Service) answer(ctx context.Context, ref *pb.ScaledObjectRef) (target.Decision, error) {
	name, err := policyName(ref)
	if err != nil {
		return target.Decision{}, err
	}
	d, err := s.Decide(ctx, name)
	if err == nil && d.Constraint == target.Outage && d.Target == 0 {
		err = status.Error(codes.Unavailable, d.Reason)
	}
	return d, err
}

// policyName is the policy that a trigger means: the one of that name in the ScaledJob's namespace.
func policyName(ref *pb.ScaledObjectRef) (types.NamespacedName, error) {
	name := types.NamespacedName{Namespace: ref.GetNamespace(), Name: ref.GetScalerMetadata()["policy"]}
	if name.Name == "" {
		return name, status.Errorf(codes.InvalidArgument,
			"the trigger of %s/%s has no `policy` in its metadata: name a ScalingPolicy of its namespace", ref.GetNamespace(), ref.GetName())
	}
	return name, nil
}

// GetMetricSpec implements ExternalScaler. KEDA divides the metric by the target size: with 1 the metric is the number
// of replicas.
func (s *Service) GetMetricSpec(context.Context, *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{
		{MetricName: metricName, TargetSize: 1, TargetSizeFloat: 1},
	}}, nil
}

// GetMetrics implements ExternalScaler.
func (s *Service) GetMetrics(ctx context.Context, request *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	d, err := s.answer(ctx, request.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{
		{MetricName: metricName, MetricValue: int64(d.Target), MetricValueFloat: float64(d.Target)},
	}}, nil
}

// IsActive implements ExternalScaler.
func (s *Service) IsActive(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	d, err := s.answer(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &pb.IsActiveResponse{Result: d.Target > 0}, nil
}

// StreamIsActive implements ExternalScaler for triggers of type external-push: it says at once when a target leaves or
// reaches zero. Failures are left to the calls that KEDA makes anyway.
func (s *Service) StreamIsActive(ref *pb.ScaledObjectRef, stream pb.ExternalScaler_StreamIsActiveServer) error {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	var announced *bool
	for {
		if d, err := s.answer(stream.Context(), ref); err == nil {
			if active := d.Target > 0; announced == nil || *announced != active {
				if err := stream.Send(&pb.IsActiveResponse{Result: active}); err != nil {
					return err
				}
				announced = &active
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

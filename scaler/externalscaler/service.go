// Package externalscaler answers KEDA: it is the gRPC service that a trigger of type external names. It only translates between KEDA's calls
// and package decision.
//
// KEDA asks GetMetricSpec, GetMetrics and IsActive one after the other, without a deadline, and takes an error of the
// first for nothing at all. So GetMetricSpec is static and can't fail, the other two answer from one decision, and every
// call is bounded.
package externalscaler

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// metricName is the same for every policy: KEDA tells triggers apart by itself.
	metricName = "ebbtide-target-replicas"
	// pushEvery is how often a stream looks for work to announce, in samples that are no older.
	pushEvery = 250 * time.Millisecond
	// maxStreams bounds the streams that do so; KEDA opens one for each trigger.
	maxStreams = 20_000
)

// Config of a service.
type Config struct {
	Decider *decision.Decider
	// MaxAge is how old a sample of a backlog may be that answers a call, or the failure to take one.
	MaxAge time.Duration
	// Authorize returns an error, a gRPC status, for a caller that may not ask about a namespace's policies. Nil: all may.
	Authorize func(ctx context.Context, namespace string) error
}

// Service implements KEDA's external scaler. Make one with New.
type Service struct {
	pb.UnimplementedExternalScalerServer
	config  Config
	streams atomic.Int64 // that look for work
}

var _ pb.ExternalScalerServer = &Service{}

// New returns a service.
func New(config Config) *Service { return &Service{config: config} }

// Register adds the service to a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar) { pb.RegisterExternalScalerServer(server, s) }

// answer is a decision, with an outage in which the calendar asks for nothing as an error: it would create no job anyway,
// and as an error it shows in the ScaledJob's conditions.
func (s *Service) answer(ctx context.Context, ref *pb.ScaledObjectRef, maxAge time.Duration) (sizing.Decision, error) {
	name, err := policyName(ref)
	if err != nil {
		return sizing.Decision{}, err
	}
	if s.config.Authorize != nil {
		if err := s.config.Authorize(ctx, name.Namespace); err != nil {
			return sizing.Decision{}, err
		}
	}
	d, err := s.config.Decider.DecideBy(ctx, name, maxAge)
	if err != nil {
		return d, statusOf(err)
	}
	if d.Constraint == sizing.Outage && d.Target == 0 {
		return d, status.Error(codes.Unavailable, d.Reason)
	}
	return d, nil
}

// statusOf is the gRPC status of a decision that could not be taken.
func statusOf(err error) error {
	var failure *decision.Failure
	if !errors.As(err, &failure) {
		return status.Error(codes.Internal, err.Error())
	}
	return status.Error(statusCodes[failure.Kind], failure.Text)
}

var statusCodes = map[decision.FailureKind]codes.Code{
	decision.NotFound: codes.NotFound, decision.NotValid: codes.FailedPrecondition, decision.NotReady: codes.Unavailable,
	decision.GivenUp: codes.Canceled,
}

// policyName is the policy that a trigger means: the one of that name in the ScaledJob's namespace.
func policyName(ref *pb.ScaledObjectRef) (types.NamespacedName, error) {
	name := types.NamespacedName{Namespace: ref.GetNamespace(), Name: ref.GetScalerMetadata()["policy"]}
	if name.Name == "" {
		return name, status.Errorf(codes.InvalidArgument,
			"the trigger of %s/%s has no `policy` in its metadata: name a ScalingPolicy of its namespace", ref.GetNamespace(), ref.GetName())
	}
	for key := range ref.GetScalerMetadata() {
		if !slices.Contains(metadataKeys, key) {
			return name, status.Errorf(codes.InvalidArgument, "the trigger of %s/%s has %q in its metadata, which means nothing here: "+
				"limits and schedules belong in ScalingPolicy %s, where an edit does not restart jobs", ref.GetNamespace(), ref.GetName(), key, name)
		}
	}
	return name, nil
}

// metadataKeys are our own key and those of KEDA's external scaler.
var metadataKeys = []string{
	"policy", "scalerAddress", "enableTLS", "unsafeSsl", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey",
}

// GetMetricSpec implements ExternalScaler. KEDA divides the metric by the target size: with 1 the metric is the number
// of replicas.
func (s *Service) GetMetricSpec(context.Context, *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{
		{MetricName: metricName, TargetSize: 1, TargetSizeFloat: 1},
	}}, nil
}

// StreamMetricSpec implements ExternalScaler for triggers of type external-push: the specification is sent once, as it never
// changes.
func (s *Service) StreamMetricSpec(ref *pb.ScaledObjectRef, stream pb.ExternalScaler_StreamMetricSpecServer) error {
	spec, err := s.GetMetricSpec(stream.Context(), ref)
	if err != nil {
		return err
	}
	if err := stream.Send(spec); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// GetMetrics implements ExternalScaler.
func (s *Service) GetMetrics(ctx context.Context, request *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	d, err := s.answer(ctx, request.GetScaledObjectRef(), s.config.MaxAge)
	if err != nil {
		return nil, err
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{
		{MetricName: metricName, MetricValue: int64(d.Target), MetricValueFloat: float64(d.Target)},
	}}, nil
}

// IsActive implements ExternalScaler.
func (s *Service) IsActive(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	d, err := s.answer(ctx, ref, s.config.MaxAge)
	if err != nil {
		return nil, err
	}
	return &pb.IsActiveResponse{Result: d.Target > 0}, nil
}

// StreamIsActive implements ExternalScaler for triggers of type external-push: it says at once when a target leaves or
// reaches zero. Failures that pass are left to the calls that KEDA makes anyway. With its context it ends without an error: KEDA opens it again
// 2 s later then, but after an error later each time, up to a minute.
func (s *Service) StreamIsActive(ref *pb.ScaledObjectRef, stream pb.ExternalScaler_StreamIsActiveServer) error {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d streams are open already", maxStreams)
	}
	defer s.streams.Add(-1)
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	var announced *bool
	for {
		d, err := s.answer(stream.Context(), ref, min(pushEvery, s.config.MaxAge))
		switch code := status.Code(err); {
		case code == codes.PermissionDenied, code == codes.InvalidArgument: // which asking again does not change
			return err
		case err == nil:
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

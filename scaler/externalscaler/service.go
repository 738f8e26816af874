// Package externalscaler answers KEDA: it is the gRPC service that a trigger of type external names.
//
// KEDA asks GetMetricSpec, GetMetrics and IsActive one after the other, without a deadline, and takes an error of the
// first for nothing at all. So GetMetricSpec is static and can't fail, the other two answer from one decision, and every
// call is bounded here.
package externalscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// metricName is the same for every policy: KEDA tells triggers apart by itself.
	metricName = "ebbtide-target-replicas"
	// pushEvery is how often a stream looks for work to announce, in samples that are no older.
	pushEvery = 250 * time.Millisecond
	// memberAge is how old the decision of another policy of a group may be before it is taken anew.
	memberAge = 5 * time.Second
)

// Config of a service.
type Config struct {
	Policies *policy.Store
	Recorder *decision.Recorder
	// MaxAge is how old a sample of a backlog may be that answers a call, or the failure to take one.
	MaxAge time.Duration
	// Timeout bounds a call.
	Timeout time.Duration
	Now     func() time.Time
	// Authorize returns an error, a gRPC status, for a caller that may not ask about a namespace's policies. Nil: all may.
	Authorize func(ctx context.Context, namespace string) error
}

// Service implements KEDA's external scaler. Make one with New.
type Service struct {
	pb.UnimplementedExternalScalerServer
	config Config

	mu     sync.Mutex
	states map[types.NamespacedName]*state
}

// state is what is kept of a policy from call to call.
type state struct {
	mu sync.Mutex
	memory
	refreshing bool // a decision that nobody asked for is being taken
}

// memory is what is forgotten when a policy gets another backlog.
type memory struct {
	policy      *policy.Policy     // that the rest is of
	observation sizing.Observation // the last good one
	decision    sizing.Decision
	wanted      int64 // the target before a group's cap
	serviceTime sizing.ServiceTime
	peaks       sizing.Peaks
}

var _ pb.ExternalScalerServer = &Service{}

// New returns a service.
func New(config Config) *Service {
	return &Service{config: config, states: map[types.NamespacedName]*state{}}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar) { pb.RegisterExternalScalerServer(server, s) }

// Forget drops what is kept of a deleted policy.
func (s *Service) Forget(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.states, name)
}

func (s *Service) state(name types.NamespacedName) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.states[name]
	if st == nil {
		st = &state{}
		s.states[name] = st
	}
	return st
}

// Decide takes a decision for a policy, or returns the last one while the sample and the limits that it was taken by are
// those of the moment. Its errors are gRPC statuses.
func (s *Service) Decide(ctx context.Context, name types.NamespacedName) (sizing.Decision, error) {
	return s.decide(ctx, name, s.config.MaxAge)
}

func (s *Service) decide(ctx context.Context, name types.NamespacedName, maxAge time.Duration) (sizing.Decision, error) {
	p, invalid, known := s.config.Policies.Get(name)
	switch {
	case !known:
		return sizing.Decision{}, status.Errorf(codes.NotFound,
			"ScalingPolicy %s does not exist: create it, or correct `policy` in the trigger's metadata", name)
	case p == nil:
		return sizing.Decision{}, status.Error(codes.FailedPrecondition, invalid.Error())
	}
	bounded, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no answer within %s", s.config.Timeout))
	defer cancel()
	begin := s.config.Now()
	observation, failure := p.Source.Observe(bounded, maxAge)
	if failure != nil && errors.Is(ctx.Err(), context.Canceled) {
		return sizing.Decision{}, status.Error(codes.Canceled, "the call was canceled before the backlog was read") // the broker may be well
	}
	others := s.others(p)
	st := s.state(name)
	st.mu.Lock()
	defer st.mu.Unlock()
	now := s.config.Now()
	limits := p.Calendar.Limits(now)
	if last := &st.decision; st.policy == p && last.Limits == limits {
		sameSample := failure == nil && last.Failure == nil && last.Observation.Time.Equal(observation.Time)
		sameFailure := failure != nil && last.Failure != nil && now.Sub(last.Time).Abs() < maxAge
		if sameSample || sameFailure {
			return *last, nil
		}
	}
	if st.policy == nil || st.policy.Source != p.Source {
		st.memory = memory{}
	}
	st.policy = p
	if failure != nil {
		observation = st.observation
	} else {
		st.observation = observation
		st.serviceTime.Observe(observation)
	}
	d := sizing.Decide(now, observation, failure, limits, p.Target, st.serviceTime.Mean())
	if window := p.Target.ScaleInStabilization; window > 0 {
		d = st.peaks.Stabilize(d, window)
	}
	st.wanted = int64(d.Target)
	if p.Group != nil {
		own := sizing.Member{
			Name: name.Name, Weight: p.Group.Weight, Wanted: st.wanted, Running: observation.Consumers, Limit: p.Group.MaxReplicas,
		}
		shares, limit := sizing.Split(append(others, own))
		d = d.Within(p.Group.Name, shares[name.Name], limit)
	}
	st.decision = d
	s.config.Recorder.Record(ctx, name, d, begin)
	if _, _, still := s.config.Policies.Get(name); !still { // it was deleted meanwhile: leave nothing behind
		s.config.Recorder.Forget(name)
		s.Forget(name)
	}
	return d, nil
}

// others returns what the other policies of p's group want, as far as it is known. Those that were not asked for a while
// are asked in the background: nobody waits for the broker of another policy. One that never answered counts as wanting
// all that it may have.
func (s *Service) others(p *policy.Policy) []sizing.Member {
	if p.Group == nil {
		return nil
	}
	var members []sizing.Member
	for _, member := range s.config.Policies.Group(p) {
		if member.Name == p.Name {
			continue
		}
		now := s.config.Now()
		m := sizing.Member{
			Name: member.Name.Name, Weight: member.Group.Weight, Wanted: int64(member.Calendar.Limits(now).MaxReplicas),
			Limit: member.Group.MaxReplicas,
		}
		st := s.state(member.Name)
		st.mu.Lock()
		if st.policy == member {
			m.Wanted, m.Running = st.wanted, st.observation.Consumers
		}
		refresh := !st.refreshing && (st.policy != member || now.Sub(st.decision.Time).Abs() > memberAge)
		st.refreshing = st.refreshing || refresh
		st.mu.Unlock()
		if refresh {
			go func() {
				_, _ = s.Decide(context.Background(), member.Name) // its own triggers report what is wrong with it
				st.mu.Lock()
				st.refreshing = false
				st.mu.Unlock()
			}()
		}
		members = append(members, m)
	}
	return members
}

// answer is Decide, with an outage in which the calendar asks for nothing as an error: it would create no job anyway,
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
	d, err := s.decide(ctx, name, maxAge)
	if err == nil && d.Constraint == sizing.Outage && d.Target == 0 {
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

// StreamMetricSpec implements ExternalScaler for triggers of type external-push: the specification is said once, as it never
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
// reaches zero. Failures are left to the calls that KEDA makes anyway. With its context it ends without an error: KEDA opens it again
// 2 s later then, but after an error later each time, up to a minute.
func (s *Service) StreamIsActive(ref *pb.ScaledObjectRef, stream pb.ExternalScaler_StreamIsActiveServer) error {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	var announced *bool
	for {
		if d, err := s.answer(stream.Context(), ref, min(pushEvery, s.config.MaxAge)); err == nil {
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

package decision

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/types"

	pb "github.com/ebbtide-dev/ebbtide/proto/ebbtide/decisions/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// defaultListed decisions of each of defaultPage policies are listed where a request does not say, and of no more than MaxPage in any case.
	defaultListed, defaultPage = 20, 100
	// MaxPage is the most policies of an answer.
	MaxPage = 500
	// maxWatches bounds those who watch at the same time: each decision is handed to all.
	maxWatches = 100
	// explainedChanges is how many of the next changes of the limits an explanation names.
	explainedChanges = 5
)

// API is the gRPC service that lists, watches and explains decisions.
type API struct {
	pb.UnimplementedDecisionServiceServer
	Ledger   *Ledger
	Policies *policy.Store
	Now      func() time.Time
	// Authorize returns an error, a gRPC status, for a caller that may not see a namespace's decisions; the empty
	// namespace means all. Nil: all may.
	Authorize func(ctx context.Context, namespace string) error

	watches atomic.Int64 // that are open
}

// Register adds the service to a gRPC server.
func (a *API) Register(server grpc.ServiceRegistrar) { pb.RegisterDecisionServiceServer(server, a) }

func (a *API) authorize(ctx context.Context, namespace string) error {
	if a.Authorize == nil {
		return nil
	}
	return a.Authorize(ctx, namespace)
}

// ListDecisions implements DecisionService.
func (a *API) ListDecisions(ctx context.Context, request *pb.ListDecisionsRequest) (*pb.ListDecisionsResponse, error) {
	if err := a.authorize(ctx, request.GetNamespace()); err != nil {
		return nil, err
	}
	limit := int(cmp.Or(request.GetLimit(), defaultListed))
	if limit < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "limit %d: must not be negative", limit)
	}
	size := int(cmp.Or(request.GetPageSize(), defaultPage))
	if size < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "page_size %d: must not be negative", size)
	}
	page, next := a.Ledger.page(request.GetNamespace(), request.GetName(), limit, min(size, MaxPage), request.GetPageToken())
	response := &pb.ListDecisionsResponse{NextPageToken: next}
	for _, e := range page {
		response.Decisions = append(response.Decisions, toProto(e.Policy, e.Decision))
	}
	return response, nil
}

// WatchDecisions implements DecisionService.
func (a *API) WatchDecisions(
	request *pb.WatchDecisionsRequest, stream grpc.ServerStreamingServer[pb.WatchDecisionsResponse],
) error {
	if err := a.authorize(stream.Context(), request.GetNamespace()); err != nil {
		return err
	}
	if a.watches.Add(1) > maxWatches {
		a.watches.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d clients watch already: list decisions, or end a watch", maxWatches)
	}
	defer a.watches.Add(-1)
	watcher := a.Ledger.Watch()
	defer watcher.Close()
	for {
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case e, ok := <-watcher.Entries():
			if !ok {
				return status.Error(codes.ResourceExhausted, "the client was too slow: watch again, or select fewer policies")
			}
			if !selected(e.Policy, request.GetNamespace(), request.GetName()) {
				continue
			}
			if err := stream.Send(&pb.WatchDecisionsResponse{Decision: toProto(e.Policy, e.Decision)}); err != nil {
				return err
			}
		}
	}
}

// ExplainDecision implements DecisionService.
func (a *API) ExplainDecision(ctx context.Context, request *pb.ExplainDecisionRequest) (*pb.ExplainDecisionResponse, error) {
	name := types.NamespacedName{Namespace: request.GetPolicy().GetNamespace(), Name: request.GetPolicy().GetName()}
	if err := a.authorize(ctx, name.Namespace); err != nil {
		return nil, err
	}
	p, invalid, known := a.Policies.Get(name)
	switch {
	case !known && a.Policies.Announced(name):
		return nil, status.Errorf(codes.Unavailable, "ScalingPolicy %s is not known yet: it is being loaded", name)
	case !known:
		return nil, status.Errorf(codes.NotFound, "ScalingPolicy %s does not exist", name)
	case p == nil:
		return nil, status.Error(codes.FailedPrecondition, invalid.Error())
	case request.GetReady() < 0 || request.GetConsumers() < 0 || request.GetUnacknowledged() < 0:
		return nil, status.Error(codes.InvalidArgument, "ready, consumers and unacknowledged must not be negative")
	}
	at := a.Now()
	if request.GetTime() != nil {
		if err := request.GetTime().CheckValid(); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "time: %v", err)
		}
		at = request.GetTime().AsTime()
	}
	observation := sizing.Observation{
		Time: at, Source: "the question", Ready: request.GetReady(), Consumers: request.GetConsumers(),
		Unacknowledged: request.GetUnacknowledged(), UnacknowledgedKnown: request.Unacknowledged != nil,
		ReadyHoldsInFlight: p.ReadyHoldsInFlight(),
	}
	d := sizing.Decide(at, observation, nil, p.Calendar.Limits(at), p.Target, 0)
	response := &pb.ExplainDecisionResponse{Decision: toProto(name, d)}
	for range explainedChanges {
		next, limits, ok := p.Calendar.NextChange(at)
		if !ok {
			break
		}
		response.NextChanges = append(response.NextChanges, &pb.Change{Time: timestamppb.New(next), Limits: limitsToProto(limits)})
		at = next
	}
	return response, nil
}

func selected(policy types.NamespacedName, namespace, name string) bool {
	return (namespace == "" || namespace == policy.Namespace) && (name == "" || name == policy.Name)
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

var constraintsToProto = map[sizing.Constraint]pb.Constraint{
	sizing.Backlog: pb.Constraint_CONSTRAINT_BACKLOG, sizing.Drain: pb.Constraint_CONSTRAINT_DRAIN,
	sizing.Floor: pb.Constraint_CONSTRAINT_FLOOR, sizing.Idle: pb.Constraint_CONSTRAINT_IDLE, sizing.Surplus: pb.Constraint_CONSTRAINT_SURPLUS,
	sizing.Cap: pb.Constraint_CONSTRAINT_CAP, sizing.ScaleIn: pb.Constraint_CONSTRAINT_SCALE_IN,
	sizing.Hold: pb.Constraint_CONSTRAINT_HOLD, sizing.Outage: pb.Constraint_CONSTRAINT_OUTAGE,
}

func toProto(policy types.NamespacedName, d sizing.Decision) *pb.Decision {
	p := &pb.Decision{
		Policy: &pb.PolicyRef{Namespace: policy.Namespace, Name: policy.Name}, Time: timestamppb.New(d.Time),
		Observation: &pb.Observation{Source: d.Observation.Source, Ready: d.Observation.Ready, Consumers: d.Observation.Consumers},
		Limits:      limitsToProto(d.Limits), InFlight: d.InFlight, Demand: d.Demand, Surplus: d.Surplus, Target: d.Target,
		Constraint: constraintsToProto[d.Constraint], Reason: d.Reason,
	}
	if !d.Observation.Time.IsZero() {
		p.Observation.Time = timestamppb.New(d.Observation.Time)
	}
	if d.Observation.UnacknowledgedKnown {
		p.Observation.Unacknowledged = &d.Observation.Unacknowledged
	}
	if d.Failure != nil {
		p.Failure = sizing.OneLine(d.Failure.Error())
	}
	return p
}

func limitsToProto(l calendar.Limits) *pb.Limits {
	return &pb.Limits{
		Period: l.Period, MinReplicas: l.MinReplicas, IdleReplicas: l.IdleReplicas, MaxReplicas: l.MaxReplicas,
		SurplusReplicas: l.Surplus.Replicas, SurplusPercent: l.Surplus.Percent,
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The calls that make a poll.
const (
	keda  = "keda"  // those that KEDA makes
	empty = "empty" // as many that ask for nothing: the floor of any external scaler
)

// poll asks the scaler at o.poll for every policy once a second, spread over it, as KEDA does: three calls, one after the other.
func poll(ctx context.Context, o options) error {
	// The collector of who measures is none of what is measured.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	connection, err := grpc.NewClient(o.poll, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := pb.NewExternalScalerClient(connection)
	once := func(ref *pb.ScaledObjectRef) error {
		if o.calls == empty {
			for range 3 {
				if _, err := client.GetMetricSpec(ctx, ref); err != nil {
					return err
				}
			}
			return nil
		}
		_, err := client.GetMetricSpec(ctx, ref)
		if err == nil {
			_, err = client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref, MetricName: "m"})
		}
		if err == nil {
			_, err = client.IsActive(ctx, ref)
		}
		return err
	}
	if _, err := pollAll(once, o, 3); err != nil { // warm: connected, every policy asked
		return err
	}
	fmt.Println("ready")
	polls, err := pollAll(once, o, o.seconds)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"p50Millis": polls[len(polls)/2].Seconds() * 1000, "p99Millis": polls[len(polls)*99/100].Seconds() * 1000,
	})
}

// pollAll returns how long polls took, the shortest first.
func pollAll(once func(*pb.ScaledObjectRef) error, o options, seconds int) ([]time.Duration, error) {
	pollers := o.queues * o.perQueue
	polls, errs := make([]time.Duration, pollers*seconds), make([]error, pollers)
	var wait sync.WaitGroup
	start := time.Now()
	for i := range pollers {
		queue, which := i/o.perQueue, i%o.perQueue
		ref := &pb.ScaledObjectRef{
			Name: fmt.Sprintf("%s-%d", queueName(queue), which), Namespace: "scan",
			ScalerMetadata: map[string]string{"policy": o.policyName(queue, which)},
		}
		after := time.Duration(queue) * time.Second / time.Duration(o.queues)
		if o.spread {
			after = (after + time.Duration(which)*time.Second/time.Duration(o.perQueue)) % time.Second
		}
		wait.Go(func() {
			for second := range seconds {
				time.Sleep(time.Until(start.Add(time.Duration(second)*time.Second + after)))
				begin := time.Now()
				if err := once(ref); err != nil {
					errs[i] = err
					return
				}
				polls[i*seconds+second] = time.Since(begin)
			}
		})
	}
	wait.Wait()
	slices.Sort(polls)
	return polls, errors.Join(errs...)
}

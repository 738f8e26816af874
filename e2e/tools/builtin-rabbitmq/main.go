// builtin-rabbitmq polls RabbitMQ queues with KEDA's own rabbitmq scaler, as the KEDA operator does for a ScaledJob each,
// and prints how long polls took. It lies in the tools' module because KEDA's scalers pull in much.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	host := flag.String("host", "", "amqp:// or http:// URI of the broker")
	protocol := flag.String("protocol", "amqp", "amqp or http")
	queues := flag.Int("queues", 1000, "poll the queues queue-0000 and on")
	seconds := flag.Int("seconds", 60, "how long to poll, once a second each")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	if err := run(*host, *protocol, *queues, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(host, protocol string, queues, seconds int) error {
	ctx := context.Background()
	all := make([]scalers.Scaler, queues)
	for i := range all {
		var err error
		all[i], err = scalers.NewRabbitMQScaler(&scalersconfig.ScalerConfig{
			ScalableObjectName: fmt.Sprint("job-", i), ScalableObjectNamespace: "scan", ScalableObjectType: "ScaledJob",
			GlobalHTTPTimeout: 3 * time.Second,
			TriggerMetadata: map[string]string{
				"queueName": fmt.Sprintf("queue-%04d", i), "mode": "QueueLength", "value": "1", "protocol": protocol,
			},
			AuthParams: map[string]string{"host": host},
		})
		if err != nil {
			return err
		}
	}
	fmt.Println("ready") // connected: what follows is polling alone
	var mu sync.Mutex
	var polls []time.Duration
	var failed int
	var wait sync.WaitGroup
	begin := time.Now()
	for i, scaler := range all {
		wait.Go(func() {
			for second := range seconds {
				time.Sleep(time.Until(begin.Add(time.Duration(second)*time.Second + time.Duration(i)*time.Second/time.Duration(queues))))
				start := time.Now()
				specs := scaler.GetMetricSpecForScaling(ctx)
				_, _, err := scaler.GetMetricsAndActivity(ctx, specs[0].External.Metric.Name)
				mu.Lock()
				polls = append(polls, time.Since(start))
				if err != nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if failed > 0 {
		return fmt.Errorf("%d of %d polls failed", failed, len(polls))
	}
	slices.Sort(polls)
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"p50Millis": polls[len(polls)/2].Seconds() * 1000, "p99Millis": polls[len(polls)*99/100].Seconds() * 1000,
	})
}

// quickstart is a scan service of the tutorial: send publishes scans to a queue, and scan, started by ebbtide-worker for each of them, takes
// as long as the message says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// queue that the policy of scans.yaml watches.
const queue = "quickstart"

// order is a message's body.
type order struct {
	// Seconds that the scan takes.
	Seconds float64 `json:"seconds"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "scan":
		return scan(os.Stdin, os.Stdout)
	case len(args) == 3 && args[0] == "send":
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 0 {
			return fmt.Errorf("send: %q is no number of messages", args[1])
		}
		each, err := time.ParseDuration(args[2])
		if err != nil || each < 0 {
			return fmt.Errorf("send: %q is no duration, such as 20s", args[2])
		}
		return send(context.Background(), os.Getenv("AMQP_URI"), n, each)
	}
	return errors.New("call it as: quickstart send N DURATION, or: quickstart scan")
}

func scan(in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("the message is no scan order: %w", err)
	}
	time.Sleep(time.Duration(o.Seconds * float64(time.Second)))
	_, err := fmt.Fprintf(out, "scanned for %v s\n", o.Seconds)
	return err
}

// send declares the queue, where it is not there, and publishes n messages that the broker confirms.
func send(ctx context.Context, uri string, n int, each time.Duration) error {
	connection, err := amqp.Dial(uri)
	if err != nil {
		return fmt.Errorf("connect to the broker at $AMQP_URI: %w", err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	arguments := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": 5}
	if _, err := channel.QueueDeclare(queue, true, false, false, false, arguments); err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	body, err := json.Marshal(order{each.Seconds()})
	if err != nil {
		return err
	}
	for range n {
		message := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body}
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false, message)
		if err != nil {
			return err
		}
		if confirmed, err := confirmation.WaitContext(ctx); err != nil || !confirmed {
			return errors.Join(errors.New("the broker did not confirm a message"), err)
		}
	}
	fmt.Printf("sent %d scans of %s to queue %s\n", n, each, queue)
	return nil
}

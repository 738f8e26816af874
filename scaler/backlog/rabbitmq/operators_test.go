package rabbitmq

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
)

// What an operator does to a broker under a running scaler is an error until it is undone, and never an empty queue.
func TestIntegrationOperators(t *testing.T) {
	t.Parallel()
	b := rabbitmq.StartForTest(t)
	remove := func(t *testing.T, path string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, b.ManagementURL()+"/api/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode/100 != 2 {
			t.Fatalf("%s: %s", path, response.Status)
		}
	}
	allow := func(t *testing.T, vhost, user string) {
		put(t, b, "users/"+user, `{"password": "s3cret", "tags": "management"}`)
		put(t, b, "permissions/"+vhost+"/"+user, `{"configure": "", "write": "", "read": ".*"}`)
	}
	fill := func(t *testing.T, vhost string) {
		put(t, b, "vhosts/"+vhost, `{}`)
		put(t, b, "permissions/"+vhost+"/guest", `{"configure": ".*", "write": ".*", "read": ".*"}`)
		connection, err := amqp.Dial(b.AMQPURL(vhost))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		ch, err := connection.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		declare(t, ch, "q", amqp.QueueTypeClassic)
		publish(t, ch, "q", 3)
	}
	for name, tc := range map[string]struct {
		do, undo func(t *testing.T, vhost, user string)
		want     string // of the error; empty: the queue may stay visible
	}{
		"virtual host deleted": {
			func(t *testing.T, vhost, _ string) { remove(t, "vhosts/"+vhost) },
			func(t *testing.T, vhost, user string) { fill(t, vhost); allow(t, vhost, user) }, "virtual host",
		},
		"user deleted":        {func(t *testing.T, _, user string) { remove(t, "users/"+user) }, allow, "the broker refuses user"},
		"permissions revoked": {func(t *testing.T, vhost, user string) { remove(t, "permissions/"+vhost+"/"+user) }, allow, ""},
		"password changed": {
			func(t *testing.T, _, user string) { put(t, b, "users/"+user, `{"password": "an0ther", "tags": ""}`) }, allow, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vhost := strings.ReplaceAll(name, " ", "-")
			user := "of-" + vhost
			fill(t, vhost)
			allow(t, vhost, user)
			uri := strings.Replace(b.AMQPURL(vhost), "guest:guest", user+":s3cret", 1)
			source := open(t, NewBrokers(limits(10*time.Second)), Config{Identity: at(uri), Queues: []string{"q"}})
			seen := func() error {
				o, err := source.Observe(t.Context(), 0)
				if err == nil && (o.Ready != 3 || len(o.Missing) > 0) {
					t.Errorf("%d ready, missing: %q", o.Ready, o.Missing)
				}
				if err != nil && strings.Contains(err.Error(), "s3cret") {
					t.Error(err)
				}
				return err
			}
			eventually(t, seen)
			tc.do(t, vhost, user)
			for range 20 {
				_ = seen()
			}
			eventually(t, func() error {
				if err := seen(); tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
					return fmt.Errorf("error %w, want %q", err, tc.want)
				}
				return nil
			})
			if name == "virtual host deleted" { // while it is filled again the queue is there with less in it
				tc.undo(t, vhost, user)
				eventually(t, func() error {
					o, err := source.Observe(t.Context(), 0)
					if err == nil && o.Ready != 3 {
						err = fmt.Errorf("%d ready", o.Ready)
					}
					return err
				})
				return
			}
			tc.undo(t, vhost, user)
			eventually(t, seen)
		})
	}
	t.Run("declared again as another type", func(t *testing.T) {
		ch := channel(t, b)
		source := open(t, NewBrokers(limits(10*time.Second)), Config{Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{"changing"}})
		for _, kind := range []string{amqp.QueueTypeClassic, amqp.QueueTypeQuorum, amqp.QueueTypeStream} {
			declare(t, ch, "changing", kind)
			publish(t, ch, "changing", 2)
			eventually(t, func() error {
				o, err := source.Observe(t.Context(), 0)
				switch {
				case kind == amqp.QueueTypeStream && (err == nil || !strings.Contains(err.Error(), "it is a stream")):
					return fmt.Errorf("%s: %d ready, error %w", kind, o.Ready, err)
				case kind != amqp.QueueTypeStream && (err != nil || o.Ready != 2 || len(o.Missing) > 0):
					return fmt.Errorf("%s: %d ready, missing %q, error %w", kind, o.Ready, o.Missing, err)
				}
				return nil
			})
			if _, err := ch.QueueDelete("changing", false, false, false); err != nil {
				t.Fatal(err)
			}
			if kind != amqp.QueueTypeStream {
				eventually(t, func() error {
					if o, err := source.Observe(t.Context(), 0); err != nil || len(o.Missing) == 0 {
						return fmt.Errorf("%s: %d ready after it was deleted, error %w", kind, o.Ready, err)
					}
					return nil
				})
			}
		}
	})
	t.Run("exclusive to another connection", func(t *testing.T) {
		ch := channel(t, b)
		if _, err := ch.QueueDeclare("mine", false, false, true, false, nil); err != nil {
			t.Fatal(err)
		}
		brokers := NewBrokers(limits(10 * time.Second))
		declare(t, ch, "beside", amqp.QueueTypeClassic)
		publish(t, ch, "beside", 1)
		beside := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"beside"}})
		mine := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), Queues: []string{"mine"}})
		for range 5 {
			if _, err := mine.Observe(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "exclusive to another connection") {
				t.Errorf("error %v", err)
			}
			if o, err := beside.Observe(t.Context(), 0); err != nil || o.Ready != 1 {
				t.Errorf("the queue beside it: %d ready, %v", o.Ready, err)
			}
		}
	})
}

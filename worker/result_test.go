package worker

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

func TestResult(t *testing.T) {
	queued, started, finished := time.Unix(10, 0), time.Unix(20, 0), time.Unix(30, 0)
	code := 0
	good := outcome{exitCode: &code, started: started, finished: finished, output: content{inline: []byte("ok"), digest: results.Digest([]byte("ok")), size: 2}}
	base := &resultsv1alpha1.Result{
		Key: "m-1", Scan: "m-1", Status: resultsv1alpha1.Status_STATUS_SUCCEEDED, ExitCode: proto.Int32(0), Attempt: 2, Queue: "scans", Worker: "job-7",
		QueuedTime: timestamppb.New(queued), StartedTime: timestamppb.New(started), FinishedTime: timestamppb.New(finished),
		ContentType: "text/plain", Digest: good.output.digest, Size: 2, Content: &resultsv1alpha1.Result_Text{Text: "ok"},
	}
	for name, tc := range map[string]struct {
		config  func(*Config)
		message func(*Message)
		outcome func(*outcome)
		want    func(*resultsv1alpha1.Result)
	}{
		"as it is": {},
		"a scan": {
			message: func(m *Message) { m.CorrelationID = "s-1" },
			want:    func(r *resultsv1alpha1.Result) { r.Scan = "s-1" },
		},
		"an engine": {
			config: func(c *Config) { c.Engine, c.Engines = "a", []string{"a", "b"} },
			want:   func(r *resultsv1alpha1.Result) { r.Key, r.Engine, r.ExpectedEngines = "m-1/a", "a", []string{"a", "b"} },
		},
		"engines that the message names": {
			config:  func(c *Config) { c.Engine, c.Engines = "a", []string{"a", "b"} },
			message: func(m *Message) { m.Headers = map[string]string{"ebbtide-engines": "b, c"} },
			want: func(r *resultsv1alpha1.Result) {
				r.Key, r.Engine, r.ExpectedEngines = "m-1/a", "a", []string{"b", "c", "a"}
			},
		},
		"bytes": {
			outcome: func(o *outcome) { o.output.inline = []byte{255, 0} },
			want:    func(r *resultsv1alpha1.Result) { r.Content = &resultsv1alpha1.Result_Data{Data: []byte{255, 0}} },
		},
		"in the store": {
			outcome: func(o *outcome) { o.output = content{reference: "sha256/ab/abc", digest: "sha256:abc", size: 9} },
			want: func(r *resultsv1alpha1.Result) {
				r.Digest, r.Size, r.Content = "sha256:abc", 9, &resultsv1alpha1.Result_Reference{Reference: "sha256/ab/abc"}
			},
		},
		"never run": {
			outcome: func(o *outcome) { *o = outcome{verdict: Fail, reason: "gone", finished: finished} },
			want: func(r *resultsv1alpha1.Result) {
				r.Status, r.Reason, r.ExitCode, r.StartedTime = resultsv1alpha1.Status_STATUS_FAILED, "gone", nil, nil
				r.ContentType, r.Digest, r.Size, r.Content = "", "", 0, nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Name: "job-7", ResultContentType: "text/plain"}
			m, o, want := &Message{Key: "m-1", ID: "m-1", Attempt: 2, Queued: queued}, good, proto.Clone(base).(*resultsv1alpha1.Result)
			if tc.config != nil {
				tc.config(&c)
			}
			if tc.message != nil {
				tc.message(m)
			}
			if tc.outcome != nil {
				tc.outcome(&o)
			}
			if tc.want != nil {
				tc.want(want)
			}
			order, err := c.admit(m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, c.result("scans", m, order.engines, o), protocmp.Transform()); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}

// What a command writes ends in memory, in the store or as an error, by its size; escapes count.
func TestResultLimit(t *testing.T) {
	const limit = 1000
	for name, tc := range map[string]struct {
		text        string
		store       bool
		maximum     int64
		stored      bool
		fails, says string
	}{
		"small":                       {text: "found", store: true},
		"over the limit":              {text: strings.Repeat("x", 1001), store: true, stored: true},
		"over the limit when encoded": {text: strings.Repeat("\x01", 300), store: true, stored: true},
		"no store":                    {text: strings.Repeat("x", 1001), fails: "write", says: "more than 1000 bytes on standard output, and no result store is set"},
		"no store, when encoded":      {text: strings.Repeat("\x01", 300), fails: "encode", says: "bytes encoded, more than 1000, and no result store is set"},
		"over all limits":             {text: strings.Repeat("x", 3000), store: true, maximum: 2000, fails: "write", says: "more than 2000 bytes on standard output"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{ResultFormat: results.JSON, ResultLimit: limit}
			if tc.store {
				c.ResultStore = results.Store(t.TempDir())
			}
			out := &output{inline: limit, maximum: 1 << 20, store: c.ResultStore}
			if tc.maximum > 0 {
				out.maximum = tc.maximum
			}
			defer out.discard()
			var err error
			for rest := []byte(tc.text); len(rest) > 0 && err == nil; { // as a pipe does, in pieces
				n := min(300, len(rest))
				_, err = out.Write(rest[:n])
				rest = rest[n:]
			}
			if tc.fails == "write" {
				if !errors.Is(err, errTooLarge) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("error %v, want one with %q", err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var o outcome
			if o.output, err = out.keep(); err != nil {
				t.Fatal(err)
			}
			r := c.result("scans", &Message{Key: "k"}, nil, o)
			p, err := c.publication(r, o.output.inline)
			if tc.fails == "encode" {
				if !errors.Is(err, errTooLarge) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("error %v, want one with %q", err, tc.says)
				}
				return
			}
			if err != nil || len(p.Body) > limit {
				t.Fatalf("%d bytes, %v", len(p.Body), err)
			}
			got, err := results.Unmarshal(string(p.ContentType), p.Body)
			if err != nil {
				t.Fatal(err)
			}
			if stored := got.GetReference() != ""; stored != tc.stored {
				t.Errorf("stored: %v, want %v", stored, tc.stored)
			}
			content, err := c.ResultStore.Open(got)
			if err != nil {
				t.Fatal(err)
			}
			defer content.Close()
			var text bytes.Buffer
			if _, err := text.ReadFrom(content); err != nil || text.String() != tc.text || got.GetSize() != int64(len(tc.text)) {
				t.Errorf("%d bytes, size %d, %v; want %d", text.Len(), got.GetSize(), err, len(tc.text))
			}
		})
	}
}

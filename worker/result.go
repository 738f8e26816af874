package worker

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// result says how a message ended. Whatever is in the message, it can be encoded, and without content it fits minimumResultLimit.
func (c *Config) result(queue string, message *Message, engines []string, o outcome) *resultsv1alpha1.Result {
	r := &resultsv1alpha1.Result{
		Key: Identity(message.Key, MaxIDBytes), Scan: Identity(cmp.Or(message.CorrelationID, message.Key), MaxIDBytes),
		Engine: c.Engine, ExpectedEngines: engines,
		Status: resultsv1alpha1.Status_STATUS_SUCCEEDED, Reason: printable(o.reason),
		QueuedTime: timestamp(message.Queued), StartedTime: timestamp(o.started), FinishedTime: timestamp(o.finished),
		Attempt: int32(message.Attempt), Queue: queue, Worker: c.Name,
	}
	if c.Engine != "" {
		r.Key = Identity(message.Key, MaxIDBytes-1-len(c.Engine)) + "/" + c.Engine
	}
	if len(r.ExpectedEngines) > 0 && !slices.Contains(r.ExpectedEngines, c.Engine) {
		r.ExpectedEngines = append(slices.Clone(r.ExpectedEngines), c.Engine)
	}
	if o.exitCode != nil {
		r.ExitCode = proto.Int32(int32(*o.exitCode))
	}
	if o.verdict != Succeed {
		r.Status = resultsv1alpha1.Status_STATUS_FAILED
		return r
	}
	r.ContentType, r.Digest, r.Size = c.ResultContentType, o.output.digest, o.output.size
	switch {
	case o.output.reference != "":
		r.Content = &resultsv1alpha1.Result_Reference{Reference: o.output.reference}
	case utf8.Valid(o.output.inline):
		r.Content = &resultsv1alpha1.Result_Text{Text: string(o.output.inline)}
	default:
		r.Content = &resultsv1alpha1.Result_Data{Data: o.output.inline}
	}
	return r
}

// publication encodes a result. One that grows over the limit by being encoded goes to the store after all.
func (c *Config) publication(r *resultsv1alpha1.Result, inline []byte) (Publication, error) {
	p := Publication{Key: r.GetKey(), Scan: r.GetScan(), ContentType: c.ResultFormat}
	var err error
	if p.Body, err = results.Marshal(r, c.ResultFormat); err != nil || len(p.Body) <= c.ResultLimit || len(inline) == 0 {
		return p, err
	}
	if c.ResultStore == "" {
		return p, fmt.Errorf("%w for a message: %d bytes encoded, more than %d, and no result store is set",
			errTooLarge, len(p.Body), c.ResultLimit)
	}
	file, err := c.ResultStore.Create()
	if err != nil {
		return p, fmt.Errorf("write the result to the store: %w", err)
	}
	defer file.Discard()
	if _, err := file.Write(inline); err != nil {
		return p, fmt.Errorf("write the result to the store: %w", err)
	}
	reference, _, _, err := file.Keep()
	if err != nil {
		return p, fmt.Errorf("write the result to the store: %w", err)
	}
	r.Content = &resultsv1alpha1.Result_Reference{Reference: reference}
	p.Body, err = results.Marshal(r, c.ResultFormat)
	return p, err
}

// deadLetter describes a failed result.
func deadLetter(r *resultsv1alpha1.Result) (DeadLetter, error) {
	text, err := results.Marshal(r, results.JSON)
	return DeadLetter{Reason: r.GetReason(), Result: string(text)}, err
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	stamp := timestamppb.New(t)
	if t.IsZero() || !stamp.IsValid() { // a producer may say the year 100,000
		return nil
	}
	return stamp
}

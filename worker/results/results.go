// Package results is for those who take what ebbtide-worker publishes: it reads a result whatever its encoding, fetches content
// that was too large for a message, and puts the results of a scan's engines together. It knows no broker.
//
// A result may come more than once, with the same key.
package results

import (
	"fmt"
	"mime"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
)

// Type is the type that messages with a result have.
const Type = "ebbtide.results.v1alpha1.Result"

// Format is an encoding of results, by its media type.
type Format string

// The encodings. JSON is what people, consoles and scripts can read.
const (
	JSON     Format = "application/json"
	Protobuf Format = "application/x-protobuf"
)

// Marshal encodes a message of package resultsv1alpha1.
func Marshal(message proto.Message, format Format) ([]byte, error) {
	if format == Protobuf {
		return proto.Marshal(message)
	}
	return protojson.Marshal(message)
}

// Unmarshal reads a result by its media type. Fields that a newer worker added are dropped.
func Unmarshal(contentType string, body []byte) (*resultsv1alpha1.Result, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fmt.Errorf("content type %q: %w", contentType, err)
	}
	result := &resultsv1alpha1.Result{}
	switch Format(media) {
	case JSON:
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, result)
	case Protobuf:
		err = proto.Unmarshal(body, result)
	default:
		return nil, fmt.Errorf("content type %q: a result is %s or %s", contentType, JSON, Protobuf)
	}
	if err != nil {
		return nil, fmt.Errorf("not a result: %w", err)
	}
	return result, nil
}

package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// maxSamples bounds the samples of a vector. They are added up, which a query can do itself.
const maxSamples = 10_000

// answer is what is kept of an answer of the query API (https://prometheus.io/docs/prometheus/latest/querying/api/). It is read element by
// element: what a server sends is not collected, so that many answers of a hostile one cost no more memory than one.
type answer struct {
	// failure is why the query failed, empty if it did not.
	status, failure string
	// kind of the result, and the sum of its samples.
	kind    string
	sum     float64
	samples int
	// partial is the first warning that says that the answer is not whole.
	partial string
}

// errNoAnswer is that a text is no answer of the query API.
var errNoAnswer = errors.New("its answer is not that of Prometheus' query API: correct the URL")

// readAnswer reads an answer. IsPartial tells of a warning whether it says that a part is missing.
func readAnswer(body io.Reader, isPartial func(warning string) bool) (*answer, error) {
	a := &answer{}
	decoder := json.NewDecoder(body)
	err := members(decoder, func(name string) error {
		switch name {
		case "status":
			return decoder.Decode(&a.status)
		case "error":
			return decoder.Decode(&a.failure)
		case "warnings":
			return elements(decoder, func() error {
				var warning string
				err := decoder.Decode(&warning)
				if a.partial == "" && isPartial(warning) {
					a.partial = warning
				}
				return err
			})
		case "data":
			return members(decoder, func(name string) error {
				switch name {
				case "resultType":
					return decoder.Decode(&a.kind)
				case "result":
					return a.readResult(decoder)
				default:
					return skip(decoder)
				}
			})
		default:
			return skip(decoder)
		}
	})
	return a, err
}

// readResult reads a vector, a list of samples, or a scalar, a time and a value.
func (a *answer) readResult(decoder *json.Decoder) error {
	e := element{answer: a}
	return elements(decoder, func() error {
		defer func() { e.number++ }()
		return decoder.Decode(&e)
	})
}

// element of a result.
type element struct {
	answer *answer
	number int // from 0 on
}

// UnmarshalJSON implements json.Unmarshaler. It keeps nothing of the text, most of which are labels.
func (e *element) UnmarshalJSON(text []byte) error {
	a := e.answer
	if text[0] != '{' { // the time of a scalar, and its value
		if e.number == 1 {
			a.samples = 1
			a.sum = parse(text)
		}
		return nil
	}
	var sample struct {
		Value     [2]json.RawMessage `json:"value"`
		Histogram json.RawMessage    `json:"histogram"`
	}
	switch err := json.Unmarshal(text, &sample); {
	case a.kind == "matrix": // which is refused as a whole
		return nil
	case err != nil:
		return errNoAnswer
	case sample.Histogram != nil:
		return errHistogram
	case sample.Value[1] == nil:
		return errNoAnswer
	case a.samples == maxSamples:
		return errSamples
	}
	a.sum += parse(sample.Value[1])
	a.samples++
	return nil
}

var (
	errHistogram = errors.New("the query's value is a native histogram, which is no amount of work: use histogram_count() or histogram_sum()")
	errSamples   = fmt.Errorf("the query's value has more than %d samples: add them up in the query, with sum()", maxSamples)
)

// parse is the number of a value: "3", and also "NaN", "+Inf" and "-Inf". What is none is no amount of work either.
func parse(value []byte) float64 {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return math.NaN()
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// work is the sum of the samples of an instant query.
func (a *answer) work() (float64, error) {
	if a.kind != "scalar" && a.kind != "vector" {
		if len(a.kind) > 20 || a.kind == "" {
			return 0, errNoAnswer
		}
		return 0, fmt.Errorf("the query's value is a %s: it must be a scalar or an instant vector", a.kind)
	}
	if math.IsNaN(a.sum) || math.IsInf(a.sum, 0) {
		return 0, fmt.Errorf("the query's value is %v, which is no amount of work", a.sum)
	}
	return min(a.sum, math.MaxInt32), nil
}

// members calls read for the name of each member of an object, to read its value.
func members(decoder *json.Decoder, read func(name string) error) error {
	if err := expect(decoder, '{'); err != nil {
		return err
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		if err := read(name.(string)); err != nil { // JSON has no other names
			return err
		}
	}
	return expect(decoder, '}')
}

// elements calls read for each element of a list, to read it. Null is an empty one.
func elements(decoder *json.Decoder, read func() error) error {
	start, err := decoder.Token()
	if err != nil || start == nil {
		return err
	}
	if start != json.Delim('[') {
		return errNoAnswer
	}
	for decoder.More() {
		if err := read(); err != nil {
			return err
		}
	}
	return expect(decoder, ']')
}

func expect(decoder *json.Decoder, want json.Delim) error {
	got, err := decoder.Token()
	if err == nil && got != want {
		err = errNoAnswer
	}
	return err
}

func skip(decoder *json.Decoder) error {
	var unused json.RawMessage
	return decoder.Decode(&unused)
}

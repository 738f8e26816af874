package submit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
)

func TestRead(t *testing.T) {
	got, err := Read(strings.NewReader(`[{"body": "a", "headers": {"repository": "r"}, "contains": "x"}, {"body": ""}]`))
	want := []Message{{Body: "a", Headers: map[string]string{"repository": "r"}, Contains: "x"}, {}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		`[]`: "there is no message", `{}`: "messages must be a JSON array", `[{"text": "a"}]`: `unknown field "text"`,
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestWrong(t *testing.T) {
	result := func(engine, text, reason string) *resultsv1alpha1.Result {
		r := &resultsv1alpha1.Result{
			Engine: engine, Status: resultsv1alpha1.Status_STATUS_SUCCEEDED, Content: &resultsv1alpha1.Result_Text{Text: text}, Reason: reason,
		}
		if reason != "" {
			r.Status = resultsv1alpha1.Status_STATUS_FAILED
		}
		return r
	}
	cases := map[string]struct {
		results  []*resultsv1alpha1.Result
		contains string
		want     string
	}{
		"anything":             {results: []*resultsv1alpha1.Result{result("", "", "")}},
		"what it contains":     {[]*resultsv1alpha1.Result{result("", "one two", "")}, "two", ""},
		"what it does not":     {[]*resultsv1alpha1.Result{result("", "one two", "")}, "three", `"three" is not in its result`},
		"in any engine's":      {[]*resultsv1alpha1.Result{result("a", "one", ""), result("b", "two", "")}, "two", ""},
		"a failure":            {[]*resultsv1alpha1.Result{result("", "", "exited with 3")}, "", "exited with 3"},
		"an engine's failure":  {[]*resultsv1alpha1.Result{result("a", "", ""), result("b", "", "exited with 3")}, "", "engine b: exited with 3"},
		"not across the parts": {[]*resultsv1alpha1.Result{result("a", "on", ""), result("b", "e", "")}, "one", `"one" is not in its result`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := wrong(&resultsv1alpha1.ScanResult{Results: tc.results}, Message{Contains: tc.contains}); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

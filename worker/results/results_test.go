package results

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
)

func TestUnmarshal(t *testing.T) {
	result := &resultsv1alpha1.Result{
		Key: "m-1/secrets", Scan: "s-1", Engine: "secrets", ExitCode: proto.Int32(0), Content: &resultsv1alpha1.Result_Data{Data: []byte{0, 255}},
	}
	for _, format := range []Format{JSON, Protobuf} {
		body, err := Marshal(result, format)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Unmarshal(string(format)+"; charset=utf-8", body); err != nil || !proto.Equal(got, result) {
			t.Errorf("%s: %v, %v", format, got, err)
		}
	}
	// A worker newer than its consumer.
	if got, err := Unmarshal("application/json", []byte(`{"key": "k", "exitCode": 0, "mood": "good"}`)); err != nil || got.GetKey() != "k" || got.ExitCode == nil {
		t.Errorf("%v, %v", got, err)
	}
	for name, tc := range map[string]struct{ contentType, body, want string }{
		"no content type":      {"", "{}", `content type ""`},
		"another content type": {"text/plain", "{}", `content type "text/plain": a result is application/json or application/x-protobuf`},
		"no result":            {"application/json", "[1]", "not a result"},
	} {
		if _, err := Unmarshal(tc.contentType, []byte(tc.body)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
}

func TestStore(t *testing.T) {
	store := Store(t.TempDir())
	keep := func(text string) *resultsv1alpha1.Result {
		t.Helper()
		file, err := store.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(file, text); err != nil {
			t.Fatal(err)
		}
		reference, digest, size, err := file.Keep()
		if err != nil {
			t.Fatal(err)
		}
		if digest != Digest([]byte(text)) || size != int64(len(text)) {
			t.Errorf("digest %s, size %d", digest, size)
		}
		return &resultsv1alpha1.Result{Key: "k", Digest: digest, Content: &resultsv1alpha1.Result_Reference{Reference: reference}}
	}
	read := func(store Store, result *resultsv1alpha1.Result) (string, error) {
		content, err := store.Open(result)
		if err != nil {
			return "", err
		}
		defer content.Close()
		text, err := io.ReadAll(content)
		return string(text), err
	}
	result := keep("found")
	if again := keep("found"); !proto.Equal(result, again) {
		t.Errorf("the same content is %v and %v", result, again)
	}
	if text, err := read(store, result); text != "found" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	discarded, err := store.Create()
	if err != nil {
		t.Fatal(err)
	}
	discarded.Discard()
	if left, err := os.ReadDir(filepath.Join(string(store), "partial")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}

	if _, err := read("", result); err == nil || !strings.Contains(err.Error(), "say where that is mounted") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(filepath.Join(string(store), result.GetReference()), []byte("lost!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(store, result); err == nil || !strings.Contains(err.Error(), "has digest") {
		t.Errorf("error %v of a file that was changed", err)
	}
	outside := &resultsv1alpha1.Result{Content: &resultsv1alpha1.Result_Reference{Reference: "../../etc/passwd"}}
	if _, err := read(store, outside); err == nil {
		t.Error("a reference leads out of the store")
	}
	text := &resultsv1alpha1.Result{Content: &resultsv1alpha1.Result_Text{Text: "small"}, Digest: Digest([]byte("small"))}
	if got, err := read("", text); got != "small" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestJoin(t *testing.T) {
	at := time.Unix(1000, 0)
	result := func(scan, engine string, status resultsv1alpha1.Status, expected ...string) *resultsv1alpha1.Result {
		return &resultsv1alpha1.Result{Key: scan + "/" + engine, Scan: scan, Engine: engine, Status: status, ExpectedEngines: expected}
	}
	const ok, bad = resultsv1alpha1.Status_STATUS_SUCCEEDED, resultsv1alpha1.Status_STATUS_FAILED
	type step struct {
		result *resultsv1alpha1.Result
		want   string // the scan's engines, or "" for not yet
		status resultsv1alpha1.Status
	}
	for name, steps := range map[string][]step{
		"one engine": {{result("s", "", ok), "", ok}},
		"two engines": {
			{result("s", "secrets", ok, "licences", "secrets"), "-", 0},
			{result("s", "licences", ok, "licences", "secrets"), "licences,secrets", ok},
		},
		"the same result twice": {
			{result("s", "secrets", ok, "licences", "secrets"), "-", 0},
			{result("s", "secrets", ok, "licences", "secrets"), "-", 0},
			{result("s", "licences", ok, "licences", "secrets"), "licences,secrets", ok},
		},
		"one fails": {
			{result("s", "secrets", bad, "licences", "secrets"), "-", 0},
			{result("s", "licences", ok, "licences", "secrets"), "licences,secrets", bad},
		},
		"two scans": {
			{result("s", "a", ok, "a", "b"), "-", 0},
			{result("r", "b", ok, "a", "b"), "-", 0},
			{result("s", "b", ok, "a", "b"), "a,b", ok},
			{result("r", "a", ok, "a", "b"), "a,b", ok},
		},
		"workers that disagree": {
			{result("s", "a", ok, "a", "b"), "-", 0},
			{result("s", "b", ok, "a", "b", "c"), "-", 0},
			{result("s", "c", ok, "a", "b", "c"), "a,b,c", ok},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var join Join
			for i, s := range steps {
				scan := join.Add(at, s.result)
				if s.want == "-" {
					if scan != nil {
						t.Fatalf("step %d: complete with %v", i, scan)
					}
					continue
				}
				if scan == nil {
					t.Fatalf("step %d: not complete", i)
				}
				var engines []string
				for _, r := range scan.GetResults() {
					engines = append(engines, r.GetEngine())
				}
				if got := strings.Join(engines, ","); got != s.want || scan.GetStatus() != s.status || scan.GetScan() != s.result.GetScan() {
					t.Errorf("step %d: %v", i, scan)
				}
			}
			if join.Waiting() != 0 {
				t.Errorf("%d scans are left", join.Waiting())
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		var join Join
		join.Add(at, result("s", "a", ok, "a", "b"))
		join.Add(at.Add(time.Minute), result("r", "a", ok, "a", "b"))
		given := join.GiveUp(at.Add(time.Second))
		if len(given) != 1 || given[0].GetScan() != "s" || given[0].GetStatus() != bad || strings.Join(given[0].GetMissingEngines(), ",") != "b" || join.Waiting() != 1 {
			t.Errorf("given up %v, %d left", given, join.Waiting())
		}
	})
}

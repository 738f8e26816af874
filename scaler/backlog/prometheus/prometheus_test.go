package prometheus

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// server answers queries as Prometheus' HTTP API does: with a result, or with an error's text.
func server(t *testing.T, result, failure string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.URL.Path != "/prefix/api/v1/query" || r.FormValue("query") != "sum(work)" ||
			(user != "u" || password != "secret") && r.Header.Get("Authorization") != "Bearer token" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if failure != "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"status":"error","errorType":"bad_data","error":%q}`, failure)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":%s}`, result)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRead(t *testing.T) {
	const two = `{"resultType":"vector","result":[{"metric":{"q":"a"},"value":[1,"2.5"]},{"metric":{"q":"b"},"value":[1,"4"]}]}`
	const none = `{"resultType":"vector","result":[]}`
	for name, tc := range map[string]struct {
		result, failure string
		zero, token     bool
		want            int64
		err             string
	}{
		"a vector":       {result: two, want: 7},
		"bearer token":   {result: two, token: true, want: 7},
		"a scalar":       {result: `{"resultType":"scalar","result":[1,"3"]}`, want: 3},
		"negative":       {result: `{"resultType":"scalar","result":[1,"-3"]}`, want: 0},
		"no data":        {result: none, err: "the query has no data: correct it, or set onNoData to Zero"},
		"no data, zero":  {result: none, zero: true, want: 0},
		"not a number":   {result: `{"resultType":"scalar","result":[1,"NaN"]}`, err: "the query's value is NaN, which is no amount of work"},
		"a range":        {result: `{"resultType":"matrix","result":[]}`, err: "the query's value is a matrix: it must be a scalar or an instant vector"},
		"a wrong query":  {failure: "parse error: unexpected end", err: "the query failed: parse error: unexpected end"},
		"not Prometheus": {result: "<html>", err: "the query failed"},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{URL: strings.Replace(server(t, tc.result, tc.failure).URL, "//", "//u:secret@", 1) + "/prefix", Query: "sum(work)", ZeroOnNoData: tc.zero}
			if tc.token {
				config.URL, config.BearerToken = strings.Replace(config.URL, "u:secret@", "", 1), "token"
			}
			reader, err := Open(config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = reader.Close() }()
			o, err := reader.Read(t.Context())
			if (err == nil) != (tc.err == "") || err != nil && (!strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "secret")) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err == nil && (o.Ready != tc.want || !o.ReadyHoldsInFlight) {
				t.Errorf("%+v, want %d", o, tc.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, url := range []string{"prometheus:9090", "ftp://p", "http://"} {
		if _, err := Open(Config{URL: url, Query: "1"}); err == nil || !strings.Contains(err.Error(), "must look like https://") {
			t.Errorf("%s: error %v", url, err)
		}
	}
	reader, err := Open(Config{URL: "http://u:secret@127.0.0.1:1", Query: "1"})
	if err != nil {
		t.Fatal(err)
	}
	source := backlog.NewSource(reader, backlog.SampleBounds{Timeout: time.Second, Now: time.Now})
	_, err = source.Observe(t.Context(), 0)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "prometheus 127.0.0.1:1: dial tcp 127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}

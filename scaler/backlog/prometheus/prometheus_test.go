package prometheus

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
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
		"infinite":       {result: `{"resultType":"vector","result":[{"metric":{},"value":[1,"+Inf"]}]}`, err: "the query's value is +Inf, which is no amount of work"},
		"both infinite":  {result: `{"resultType":"vector","result":[{"metric":{},"value":[1,"+Inf"]},{"metric":{},"value":[1,"-Inf"]}]}`, err: "NaN, which is no amount"},
		"beyond all":     {result: `{"resultType":"scalar","result":[1,"1e300"]}`, want: math.MaxInt32},
		"a histogram":    {result: `{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"9","sum":"9"}]}]}`, zero: true, err: "native histogram, which is no amount of work: use histogram_count()"},
		"a text":         {result: `{"resultType":"string","result":[1,"3"]}`, err: "the query's value is a string"},
		"no value":       {result: `{"resultType":"vector","result":[{"metric":{"q":"a"}}]}`, zero: true, err: "its answer is not that of Prometheus' query API"},
		"no number":      {result: `{"resultType":"vector","result":[{"metric":{"q":"a"},"value":[1,"many"]}]}`, err: "NaN, which is no amount"},
		"no result":      {result: `{"resultType":"vector"}`, err: "the query has no data"},
		"no type":        {result: `{"result":[1,"3"]}`, err: "its answer is not that of Prometheus' query API"},
		"more to come":   {result: `{"stats":{"a":[{}]},"resultType":"scalar","result":[1,"3"],"z":null}`, want: 3},
		"cut off":        {result: `{"resultType":"vector","result":[{"metric":{"q":"a"},"value":[1,"7"]}`, err: "the query failed"},
		"too many":       {result: `{"resultType":"vector","result":[` + strings.Repeat(`{"value":[1,"1"]},`, maxSamples) + `{"value":[1,"1"]}]}`, err: "more than 10000 samples: add them up in the query, with sum()"},
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

// serve answers each query with a body, compressed if it says so, after looking at the request.
func serve(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, config Config) (int64, error) {
	t.Helper()
	reader, err := Open(config)
	if err != nil {
		return 0, err
	}
	defer func() { _ = reader.Close() }()
	o, err := reader.Read(t.Context())
	return o.Ready, err
}

const one = `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`

func TestHeadersAndParameters(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Scope-OrgID") != "team-a" || r.URL.Query().Get("dedup") != "true" || r.FormValue("query") != "up" || r.Header.Get("Authorization") != "Basic dTpw" {
			t.Errorf("%s, %v", r.URL, r.Header)
		}
		fmt.Fprint(w, one)
	})
	header := v1alpha1.HTTPHeader{Name: "X-Scope-OrgID", Value: v1alpha1.ValueSource{Value: "team-a"}}
	config := Config{
		URL: strings.Replace(s.URL, "//", "//u:p@", 1), Query: "up", Headers: []v1alpha1.HTTPHeader{header},
		Parameters: []v1alpha1.QueryParameter{{Name: "dedup", Value: "true"}},
	}
	if n, err := ask(t, config); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// No credential leaves for another server, whatever the one that is named answers.
func TestRedirectKeepsSecrets(t *testing.T) {
	thief := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("another server was asked: %v", r.Header) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+"/?t="+r.Header.Get("Authorization")[7:], http.StatusTemporaryRedirect)
	})
	_, err := ask(t, Config{URL: s.URL, Query: "up", BearerToken: "t0ken-of-mine"})
	if err == nil || !strings.Contains(err.Error(), "redirects to another server") || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("error %v", err)
	}
}

// An answer costs no more memory than its limit, however well it was compressed.
func TestBomb(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer func() { _ = zip.Close() }()
		zeros := bytes.Repeat([]byte(" "), 1<<20)
		for range 1 << 10 {
			if _, err := zip.Write(zeros); err != nil {
				return
			}
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ask(t, Config{URL: s.URL, Query: "up"})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "the answer has more than 2 MiB") {
		t.Errorf("error %v", err)
	}
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 64 {
		t.Errorf("%d MiB", used)
	}
}

// A server that sends labels without end costs little memory, however many policies ask it.
func TestManyLargeAnswers(t *testing.T) {
	labels := `{"metric":{"a":"` + strings.Repeat("x", 100) + `"},"value":[1,"1"]},`
	body := `{"status":"success","data":{"resultType":"vector","result":[` + strings.Repeat(labels, (maxAnswer-1000)/len(labels)-1) + labels[:len(labels)-1] + `]}}`
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ask(t, Config{URL: s.URL, Query: "up"}); err == nil || !strings.Contains(err.Error(), "more than 10000 samples") {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 10; used > 8<<10 {
		t.Errorf("%d KiB are allocated for %d KiB", used, len(body)>>10)
	}
}

// A server that takes no POST is asked with GET.
func TestOnlyGet(t *testing.T) {
	for _, code := range []int{http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				w.WriteHeader(code)
				return
			}
			if r.URL.Query().Get("query") != "up" || r.URL.Query().Get("dedup") != "true" || r.Header.Get("Authorization") != "Bearer t0ken" {
				t.Errorf("%s, %v", r.URL, r.Header)
			}
			fmt.Fprint(w, one)
		})
		n, err := ask(t, Config{URL: s.URL + "?dedup=true", Query: "up", BearerToken: "t0ken"})
		if n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}

// What a server answers in place of a value is told, and no secret of the policy in it, in whichever form it comes back.
func TestSecretsComeBack(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"of basic authentication": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"status":"error","error":"who is %s"}`, r.Header.Get("Authorization"))
		},
		"of the URL's parameters": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"status":"error","error":"unknown key %s, %s"}`, r.URL.Query().Get("key"), r.URL.RawQuery)
		},
		"in a header that can't be read": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://%zz/"+r.URL.Query().Get("key")+r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusFound)
		},
		"in a status": func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 403 no %s\r\nContent-Length: 0\r\n\r\n", r.URL.Query().Get("key"))
		},
	} {
		s := serve(t, answer)
		_, err := ask(t, Config{URL: strings.Replace(s.URL, "//", "//u:pa55-w0rd@", 1) + "?key=k3y%2Fof%2Fmine", Query: "up"})
		if err == nil || strings.Contains(err.Error(), "k3y") || strings.Contains(err.Error(), "pa55") || strings.Contains(err.Error(), "dTpwYTU1") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestSecretsInAnswers(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"status":"error","errorType":"bad_data","error":"bad token %s\nforged line %s"}`, r.Header.Get("Authorization"), strings.Repeat("x", 5000))
	})
	_, err := ask(t, Config{URL: s.URL, Query: "up", BearerToken: "t0ken-of-mine"})
	if err == nil || strings.Contains(err.Error(), "t0ken") || strings.ContainsAny(err.Error(), "\n") || len(err.Error()) > 500 {
		t.Errorf("error %v", err)
	}
}

// What is not whole is not an amount of work.
func TestPartialAnswer(t *testing.T) {
	warning := ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]},"warnings":[%q]}`, warning)
	})
	asked := []v1alpha1.QueryParameter{{Name: "partial_response", Value: "true"}}
	for text, wrong := range map[string]bool{"No StoreAPIs matched for this query": true, "PromQL info: metric might not be a counter": false} {
		warning = text
		if _, err := ask(t, Config{URL: s.URL, Query: "up"}); (err != nil) != wrong {
			t.Errorf("%s: error %v", text, err)
		}
		if _, err := ask(t, Config{URL: s.URL, Query: "up", Parameters: asked}); err != nil {
			t.Errorf("%s, asked for: %v", text, err)
		}
	}
}

package endpoint

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var broker = Form{
	Name: "the broker's URI", Example: "amqp://user:password@host:5672/vhost", Several: true, Otherwise: "use username and password",
}

func TestAMQP(t *testing.T) {
	for text, want := range map[string]string{
		"amqp://broker":                                 "guest:guest broker:5672 / amqp",
		"AMQPS://broker/":                               "guest:guest broker:5671 / amqps",
		"amqp://u:p%23%2F%3F%40s@b:1/%2":                "",
		"amqp://u:p%23%2F%3F%40s@b:1/v":                 "u:p#/?@s b:1 v amqp",
		"amqp://u:p:q@b/%2fteam%2f":                     "u:p:q b:5672 /team/ amqp",
		"amqp://u@b,c:9/":                               "u:guest b:5672 / amqp, u:guest c:9 / amqp",
		"amqp://u:p@[::1]:5/x":                          "u:p ::1:5 x amqp",
		"amqps://b?auth_mechanism=external&heartbeat=3": "guest:guest b:5671 / amqps",
		"amqp://b/" + strings.Repeat("v", 255):          "guest:guest b:5672 " + strings.Repeat("v", 255) + " amqp",
	} {
		uris, err := broker.AMQP(text)
		var got []string
		for _, u := range uris {
			got = append(got, fmt.Sprintf("%s:%s %s:%d %s %s", u.Username, u.Password, u.Host, u.Port, u.Vhost, u.Scheme))
		}
		if text := strings.Join(got, ", "); text != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

// Whatever character a password holds, and wherever: it is read as it was meant, or refused, and never shown nor taken for a host.
func TestNoPartIsShown(t *testing.T) {
	const first, second = "sEcReT", "WoRd42"
	for c := rune(0); c < 0x250; c++ {
		for _, password := range []string{first + string(c) + second, "1234" + string(c) + second, string(c) + first, first + string(c), string(c) + "12"} {
			for _, form := range []string{"amqp://user7:%s@127.0.0.1:5672/", "amqp://user7:%s@one:1,two:2/team", "amqp://user7:%s@[::1]/"} {
				text := strings.Replace(form, "%s", password, 1)
				uris, err := broker.AMQP(text)
				if err != nil {
					for _, part := range []string{first, second, "user7", "1234"} {
						if strings.Contains(err.Error(), part) {
							t.Fatalf("%q: the error shows %q: %v", text, part, err)
						}
					}
					if !strings.Contains(err.Error(), "percent-encode special characters of the user and the password, or use username and password") {
						t.Fatalf("%q: no way out: %v", text, err)
					}
					continue
				}
				meant, _ := url.PathUnescape(password) // %12 is a character that was encoded
				for _, u := range uris {
					if u.Password != meant || u.Username != "user7" || !slices.Contains([]string{"127.0.0.1", "one", "two", "::1"}, u.Host) {
						t.Fatalf("%q is read as user %q, password %q, host %q", text, u.Username, u.Password, u.Host)
					}
				}
			}
			form := Form{Name: "url", Example: "https://prometheus.example:9090"}
			text := "https://user7:" + password + "@prometheus:9090/base"
			if u, err := form.HTTP(text); err == nil && u.Host != "prometheus:9090" {
				t.Fatalf("%q is read as host %q", text, u.Host)
			} else if err != nil && (strings.Contains(err.Error(), first) || strings.Contains(err.Error(), second) || strings.Contains(err.Error(), "user7")) {
				t.Fatalf("%q: %v", text, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"broker:5672":                                     "it must begin with amqp:// or amqps://",
		"http://u:secret@broker":                          "it must begin with amqp:// or amqps://",
		"amqp://u:secret@one:5672,/v":                     "a host is missing",
		"amqp://":                                         "a host is missing",
		"amqp://u:secret":                                 "a port is not a number",
		"amqp://u:secret@b:70000":                         "a port is not a number",
		"amqp://u:secret:5672/":                           "a port is not a number",
		"amqp://u:se@cret@b":                              "a second @",
		"amqp://u:secret@[::1":                            "brackets",
		"amqp://u:secret@b?heartbeat=often":               "heartbeat, connection_timeout and channel_max are numbers",
		"amqp://u:secret@b?auth_mechanism=kerberos":       "auth_mechanism must be plain, amqplain or external",
		"amqp://u:secret@b/" + strings.Repeat("v", 256):   "a virtual host's name has at most 255 bytes",
		"amqp://u:secret@b/" + strings.Repeat("%76", 256): "a virtual host's name has at most 255 bytes",
	} {
		if _, err := broker.AMQP(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestSaid(t *testing.T) {
	for text, want := range map[string]string{
		"access refused\nfor user": "access refused for user",
		"refused pa55, says pa55":  "refused (secret), says (secret)",
		"bad \xff byte":            "bad ? byte",
		strings.Repeat("é", 200):   strings.Repeat("é", 150) + "...",
	} {
		if got := Said(text, "", "s", "pa55"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	const secret = "p#a/s\"s 7w0rd"
	for name, text := range map[string]string{
		"as it is": secret, "percent-encoded": url.QueryEscape(secret), "encoded for a path": url.PathEscape(secret), "quoted": strconv.Quote(secret),
		"cut off": secret[:9], "cut off with dots": secret[:5] + "...",
	} {
		if got := Said("it refuses "+text, secret); !strings.HasPrefix(got, "it refuses ") || !strings.Contains(got, "(secret)") || strings.Contains(got, "p#a") || strings.Contains(got, "7w0") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := Said("a\u202eb\u2066c\u009b31md\u200be"); got != "a b c 31md e" {
		t.Errorf("characters that forge what is shown: %q", got)
	}
}

func client(t *testing.T, server string, limit int64) *http.Client {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(u, nil, limit, func(r *http.Request) { r.Header.Set("Authorization", "Bearer t0ken") })
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestRedirect(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked, with %v", r.Header)
	}))
	defer thief.Close()
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("no credentials for %s", r.URL)
		}
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		case "/name": // the same machine by another name is another server
			http.Redirect(w, r, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
		case "/tls":
			http.Redirect(w, r, strings.Replace(server.URL, "http:", "https:", 1), http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/there", http.StatusFound)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{
		"/away": "redirects to another server", "/name": "redirects to another server", "/tls": "redirects to another server",
		"/round": "redirects without end", "/here": "",
	} {
		response, err := client(t, server.URL, 1<<20).Get(server.URL + path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
		if response != nil {
			response.Body.Close()
		}
	}
}

// A gigabyte of zeros is a megabyte of gzip.
func TestLimit(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var size int64
		if _, err := fmt.Sscan(r.URL.Path[1:], &size); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer func() { _ = zip.Close() }()
		zeros := make([]byte, 1<<16)
		for ; size > 0; size -= int64(len(zeros)) {
			if _, err := zip.Write(zeros[:min(size, int64(len(zeros)))]); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	for size, want := range map[int]int{0: 0, 1 << 20: 1 << 20, 1<<20 + 1: -1, 1 << 30: -1} {
		response, err := client(t, server.URL, 1<<20).Get(fmt.Sprintf("%s/%d", server.URL, size))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if want < 0 && (err == nil || !strings.Contains(err.Error(), "more than 1 MiB") || n > 1<<20) || want >= 0 && (err != nil || n != int64(want)) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
	}
}

func TestCause(t *testing.T) {
	inner := errors.New("refused")
	if got := Cause(fmt.Errorf("x: %w", &url.Error{Op: "Get", URL: "http://u:secret@h", Err: inner})); !errors.Is(got, inner) || got.Error() != inner.Error() {
		t.Error(got)
	}
	if got := Cause(inner); !errors.Is(got, inner) {
		t.Error(got)
	}
	forged := errors.New("failed to parse Location header \"s3cret\nforged\": " + strings.Repeat("x", 5000))
	if got := Cause(forged, "s3cret").Error(); strings.ContainsAny(got, "\n") || strings.Contains(got, "s3cret") || len(got) > 500 {
		t.Errorf("%q", got)
	}
}

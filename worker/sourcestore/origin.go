package sourcestore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credentials for repositories over HTTP. They reach git in its environment only.
type Credentials struct {
	// For is the start of the URLs that get them: https://code.example/. They go nowhere else, whatever a message asks for and wherever an
	// origin redirects to.
	For         string
	User, Token string
	// Owner names whose credentials they are, those for SSH too. Each owner has mirrors of its own. Without it every token has, so that one
	// that changes fetches everything again.
	Owner string
}

// apply reports whether a URL is one that the credentials are for: of the same protocol, host and port, and under the same path.
func (c Credentials) apply(to *url.URL) bool {
	return c.Token != "" && strings.HasPrefix(c.For, "http") && under(to, c.For)
}

// under reports whether a URL is the start of another's: with the same protocol, host and port, and a path that its path begins with.
func under(u *url.URL, start string) bool {
	scope, err := url.Parse(start)
	if err != nil || scope.Scheme != u.Scheme || !strings.EqualFold(hostPort(scope), hostPort(u)) ||
		slices.Contains(strings.Split(u.Path, "/"), "..") {
		return false
	}
	rest, ok := strings.CutPrefix(u.EscapedPath(), strings.TrimSuffix(scope.EscapedPath(), "/"))
	return ok && (rest == "" || rest[0] == '/')
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// key tells whose credentials a repository is fetched with. A token can't be computed from it in any useful time.
func (c Credentials) key(repository string) (string, error) {
	u, err := url.Parse(repository)
	if err != nil {
		return "", err
	}
	switch {
	case u.Scheme == "ssh":
		return "owner " + c.Owner, nil // whose key it is only the owner says
	case !c.apply(u):
		return "", nil
	case c.Owner != "":
		return "owner " + c.Owner, nil
	}
	const iterations = 100_000
	key, err := pbkdf2.Key(sha256.New, c.User+":"+c.Token, []byte(repository), iterations, sha256.Size)
	return "token " + hex.EncodeToString(key), err
}

const (
	maxRedirects = 5
	// lineBytes is the most that a packet of git's protocol holds.
	lineBytes = 65520
)

// origin is where a repository is, as an HTTP server says: what it redirects to is contacted instead.
type origin struct {
	client      *http.Client
	protocols   []string
	credentials Credentials
	base        *url.URL
	v2          bool
	format      string // of object ids, if the server names it
}

// unreachable says no more than that. What there is instead of a git server, a port that is closed or one of something else, is not for
// whoever sent the message: they would learn what the network of scans looks like from the inside.
func unreachable(r Request, why error) error {
	err := fmt.Errorf("%w: no git server answers at %s", ErrUnavailable, r.Repository)
	if r.Explain {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return err
}

// list asks an HTTP origin for the refs that a mirror has, and says where it really is.
func list(ctx context.Context, r Request) (refs, *url.URL, error) {
	base, err := url.Parse(strings.TrimSuffix(r.Repository, "/"))
	if err != nil {
		return nil, nil, err
	}
	o := &origin{protocols: r.Protocols, credentials: r.Credentials, base: base, client: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ResponseHeaderTimeout: time.Minute,
			TLSHandshakeTimeout: 30 * time.Second, DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	all, err := o.discover(ctx, r)
	if err == nil && o.v2 {
		all, err = o.lsRefs(ctx, r)
	}
	return all, o.base, err
}

// do sends a request with the credentials that its own URL gets, which are not those of the URL that redirected to it.
func (o *origin) do(ctx context.Context, method string, to *url.URL, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Git-Protocol", "version=2")
	request.Header.Set("User-Agent", "git/2.39 (ebbtide-worker)") // origins tell git by it
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		request.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if o.credentials.apply(to) {
		request.SetBasicAuth(o.credentials.User, o.credentials.Token)
	}
	return o.client.Do(request)
}

// discover asks what the server can do, and follows it where it redirects to. A server of the old protocol answers with its refs.
func (o *origin) discover(ctx context.Context, r Request) (refs, error) {
	const service = "/info/refs"
	for range maxRedirects {
		at := o.base.JoinPath(service)
		at.RawQuery = "service=git-upload-pack"
		response, err := o.do(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, unreachable(r, err)
		}
		if response.StatusCode >= 300 && response.StatusCode < 400 {
			location, err := response.Location()
			response.Body.Close()
			if err != nil || !strings.HasSuffix(location.Path, service) {
				return nil, fmt.Errorf("%s redirects to what is no repository", o.base)
			}
			if location.User = nil; !slices.Contains(o.protocols, location.Scheme) {
				return nil, fmt.Errorf("%s redirects to protocol %q: it is not one of %s", o.base, location.Scheme, strings.Join(o.protocols, ", "))
			}
			location.Path, location.RawPath, location.RawQuery = strings.TrimSuffix(location.Path, service), "", ""
			if err := CheckOrigin(location.String(), r.Origins); err != nil {
				return nil, err
			}
			o.base = location
			continue
		}
		defer response.Body.Close()
		if err := o.status(response); err != nil {
			return nil, err
		}
		if response.Header.Get("Content-Type") != "application/x-git-upload-pack-advertisement" {
			return nil, unreachable(r, errors.New("its answer is not git's"))
		}
		return o.advertisement(response.Body, r)
	}
	return nil, fmt.Errorf("%s redirects more than %d times", r.Repository, maxRedirects)
}

// status says what an answer's status code means for the message.
func (o *origin) status(response *http.Response) error {
	sent := response.Request.Header.Get("Authorization") != ""
	code := response.StatusCode
	limited := response.Header.Get("Retry-After") != "" || response.Header.Get("X-Ratelimit-Remaining") == "0"
	switch {
	case code == http.StatusOK:
		return nil
	case code == http.StatusUnauthorized && sent:
		// This is our fault to fix, not the message's.
		return fmt.Errorf("%w: the origin refuses $%s: it has expired, perhaps", ErrUnavailable, TokenVariable)
	case code == http.StatusUnauthorized:
		return fmt.Errorf("the origin wants credentials: set $%s, and --token-for to the start of its URL", TokenVariable)
	case code == http.StatusNotFound || code == http.StatusGone || code == http.StatusForbidden && !limited:
		return fmt.Errorf("the origin answers %s: there is no such repository, or not for these credentials", response.Status)
	default:
		return fmt.Errorf("%w: the origin answers %s", ErrUnavailable, response.Status)
	}
}

func (o *origin) advertisement(body io.Reader, r Request) (refs, error) {
	l, first, flushes := listing{all: refs{}}, true, 0
	err := packets(body, func(line string) error {
		switch capabilities, _, found := strings.Cut(line, "\x00"); {
		case line == "":
			flushes++
		case strings.HasPrefix(line, "# service="):
		case line == "version 2":
			o.v2 = true
		case o.v2:
			if format, ok := strings.CutPrefix(line, "object-format="); ok {
				o.format = format
			}
		case found && first:
			first = false
			return l.add(capabilities, r)
		default:
			return l.add(line, r)
		}
		return nil
	})
	if err == nil && !o.v2 && first && flushes == 0 {
		err = unreachable(r, errors.New("its answer is not git's"))
	}
	return l.all, named(err, r)
}

// lsRefs asks for the refs that a mirror has and no others: a large origin has millions of them, for its pull requests say.
func (o *origin) lsRefs(ctx context.Context, r Request) (refs, error) {
	lines := []string{"command=ls-refs\n", "agent=git/2.39-ebbtide-worker"}
	if o.format != "" {
		lines = append(lines, "object-format="+o.format)
	}
	var body bytes.Buffer
	packet := func(line string) { fmt.Fprintf(&body, "%04x%s", len(line)+4, line) }
	for _, line := range lines {
		packet(line)
	}
	body.WriteString("0001")
	for _, prefix := range append([]string{"HEAD", "refs/heads/*", "refs/tags/*"}, r.Refs...) {
		prefix, _, _ = strings.Cut(prefix, "*")
		packet("ref-prefix " + prefix)
	}
	body.WriteString("0000")
	response, err := o.do(ctx, http.MethodPost, o.base.JoinPath("git-upload-pack"), body.Bytes())
	if err != nil {
		return nil, unreachable(r, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return nil, fmt.Errorf("%s redirects a request for its refs, which no origin should", o.base)
	}
	if err := o.status(response); err != nil {
		return nil, err
	}
	l := listing{all: refs{}}
	err = packets(response.Body, func(line string) error {
		if line == "" {
			return nil
		}
		return l.add(line, r)
	})
	return l.all, named(err, r)
}

// listing is what an origin lists.
type listing struct {
	all    refs
	weight int
}

// add takes a ref, as git lists it: an object's id and a name.
func (l *listing) add(line string, r Request) error {
	// A name may hold what Unicode takes for a space, and no other.
	id, name, _ := strings.Cut(strings.Replace(line, "\t", " ", 1), " ")
	name, _, _ = strings.Cut(name, " ")
	if !isCommit(id) {
		return nil // what is unborn, a capability without a ref
	}
	as, ok := wanted(name, r.Refs)
	if !ok {
		return nil
	}
	const usual = 128 // bytes of a name; all are in memory, and a longer one counts as several
	l.all[as] = id
	if l.weight += 1 + (len(as)-1)/usual; l.weight > r.Limits.Refs {
		return tooLarge("refs", int64(r.Limits.Refs), "--max-refs")
	}
	return nil
}

// named is an error of an answer that breaks off, or is not git's.
func named(err error, r Request) error {
	var netErr net.Error
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errNotGit) || errors.As(err, &netErr) {
		return unreachable(r, err)
	}
	return err
}

var errNotGit = errors.New("its answer is not git's")

// packets reads lines in the form of git's protocol. A line is empty where a section ends.
func packets(body io.Reader, line func(string) error) error {
	in := bufio.NewReader(body)
	buffer := make([]byte, lineBytes)
	for {
		if _, err := io.ReadFull(in, buffer[:4]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		length, err := strconv.ParseUint(string(buffer[:4]), 16, 16)
		if err != nil || length > lineBytes {
			return errNotGit
		}
		text := ""
		if length >= 4 {
			if _, err := io.ReadFull(in, buffer[:length-4]); err != nil {
				return io.ErrUnexpectedEOF
			}
			text = strings.TrimSuffix(string(buffer[:length-4]), "\n")
		}
		if after, ok := strings.CutPrefix(text, "ERR "); ok {
			return fmt.Errorf("the origin answers: %.200q", after)
		}
		if err := line(text); err != nil {
			return err
		}
	}
}

// CheckOrigin says whether a repository is under one of the URLs that may be fetched from. With none, all may.
func CheckOrigin(repository string, origins []string) error {
	if len(origins) == 0 {
		return nil
	}
	u, err := url.Parse(repository)
	if err != nil {
		return err
	}
	for _, allowed := range origins {
		if under(u, allowed) {
			return nil
		}
	}
	return fmt.Errorf("repository %q: is under none of --origins %s", withoutUser(repository), strings.Join(origins, ", "))
}

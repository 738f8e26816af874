package sourcestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Request asks for a repository's source.
type Request struct {
	// Repository is the URL, without credentials.
	Repository string
	// Revision is a branch, a tag, a full name of a ref, or a commit's whole id; empty for the default branch.
	Revision string
	// MaxAge of a mirror that will do without a fetch; 0: it must be fetched after this request. A commit that is there will do.
	MaxAge time.Duration
	// StaleFor is how old the mirror may be when it can't be fetched; 0: that is an error.
	StaleFor time.Duration
	// Filter makes a new mirror a partial clone: blob:none.
	Filter string
	// Refs are patterns of refs to fetch besides branches and tags: refs/pull/*/head.
	Refs []string

	Protocols []string
	// Origins are the starts of the URLs that may be fetched from; none: all.
	Origins     []string
	Credentials Credentials
	Limits      Limits
	// FetchTimeout and CheckoutTimeout bound how long each may take; CheckoutTimeout 0 is FetchTimeout.
	FetchTimeout, CheckoutTimeout time.Duration
	// Explain puts into errors what there is in place of a git server: for senders who may know what the network looks like.
	Explain bool
}

// check says what is wrong with a request.
func (r Request) check() error {
	err := errors.Join(CheckRepository(r.Repository, r.Protocols), checkRevision(r.Revision))
	for _, pattern := range r.Refs {
		err = errors.Join(err, checkRefPattern(pattern))
	}
	return cmp.Or(err, CheckOrigin(r.Repository, r.Origins))
}

// Checkout is a scan's working tree. It is in use until it is released, or this process dies.
type Checkout struct {
	Path   string `json:"path"`
	Commit string `json:"commit"`
	// Fetched is true if this request's own fetch brought it.
	Fetched bool `json:"fetched"`
	// AgeSeconds since the mirror was fetched; Stale says why there is no newer one, if the fetch that was due failed.
	AgeSeconds float64 `json:"ageSeconds"`
	Stale      string  `json:"stale,omitempty"`

	mirror *mirror
	// lock is the checkout's own, use the mirror's.
	lock, use *lock
}

// Get brings a repository's mirror up to date as far as asked, and makes a checkout. An error that wraps ErrUnavailable is not the
// request's fault, and the same one may succeed; any other comes back each time.
func (s *Store) Get(ctx context.Context, r Request) (*Checkout, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	r.Limits = r.Limits.orDefaults()
	c, err := s.get(ctx, r)
	if errors.Is(err, ErrFull) && s.makeRoom(ctx) == nil {
		c, err = s.get(ctx, r)
	}
	return c, err
}

func (s *Store) get(ctx context.Context, r Request) (_ *Checkout, err error) {
	defer func() { err = classify(err) }()
	if err := s.ready(); err != nil {
		return nil, err
	}
	key, err := r.Credentials.key(r.Repository)
	if err != nil {
		return nil, err
	}
	m := s.mirror(r.Repository, r.Filter, key)
	// No collector removes the mirror from here on.
	use, err := awaitLock(ctx, m.lockPath("use"), shared)
	if errors.Is(err, os.ErrNotExist) {
		return nil, emptied(err)
	}
	if err != nil {
		return nil, err
	}
	updated := false
	defer func() {
		if err == nil {
			return
		}
		if (use.lost() || updated && m.lost()) && !errors.Is(err, ErrUnavailable) {
			err = emptied(err)
		}
		use.close()
	}()
	u, err := m.use(ctx, func(u *usage) { u.Used = s.Now().UTC() })
	if err != nil {
		return nil, err
	}
	m.generation = u.Generation
	fetched, stale, err := m.update(ctx, r)
	if err != nil {
		return nil, err
	}
	updated = true
	all, err := m.readRefs()
	if err != nil {
		return nil, err
	}
	commit, err := m.resolve(ctx, r, all)
	if err != nil {
		return nil, err
	}
	current, err := m.state()
	if err != nil {
		return nil, err
	}
	c := &Checkout{
		Commit: commit, Fetched: fetched, Stale: stale, AgeSeconds: s.Now().Sub(current.CompletedTime).Seconds(), mirror: m, use: use,
	}
	if err := c.make(ctx, r, all); err != nil {
		return nil, fmt.Errorf("check out %s of %s: %w", commit, r.Repository, err)
	}
	return c, nil
}

// update fetches unless somebody else just did. Stale says why the mirror is older than was asked for.
func (m *mirror) update(ctx context.Context, r Request) (fetched bool, stale string, err error) {
	asked, err := m.state()
	if err != nil {
		return false, "", err
	}
	if ok, err := m.suffices(ctx, r, asked); ok || err != nil {
		return false, "", err
	}
	if m.store.asked != nil {
		m.store.asked()
	}
	fetching, err := awaitLock(ctx, m.lockPath("fetch"), exclusive)
	if err != nil {
		return false, "", err
	}
	defer fetching.close()
	var current state
	if err := fetching.read(&current); err != nil {
		return false, "", err
	}
	current = m.current(current)
	enough, err := m.suffices(ctx, r, current)
	switch {
	case err != nil:
		return false, "", err
	// Fetches are numbered in the order of their starts, so these started after this request read the state.
	case current.Completed > asked.Started, enough:
		return false, "", nil
	case current.Failed > asked.Started:
		err = current.failure() // fifty that wait ask a dead origin once
	default:
		current, err = m.fetch(ctx, r, current, fetching)
		fetched = err == nil
	}
	if err == nil || ctx.Err() != nil {
		return fetched, "", err
	}
	err = fmt.Errorf("fetch %s: %w", r.Repository, err)
	if !errors.Is(err, ErrUnavailable) {
		return false, "", err // what is wrong with it stays wrong, and an older mirror would hide that
	}
	if current.Completed == 0 {
		return false, "", fmt.Errorf("%w; there is no mirror of it yet", err)
	}
	age := m.store.Now().Sub(current.CompletedTime).Round(time.Second)
	if r.StaleFor == 0 || age > r.StaleFor {
		return false, "", fmt.Errorf("%w; the last good mirror is %s old, more than --stale-for %s allows", err, age, r.StaleFor)
	}
	return false, err.Error(), nil
}

// suffices reports whether a mirror has what is asked for as it is.
func (m *mirror) suffices(ctx context.Context, r Request, s state) (bool, error) {
	if s.Completed == 0 || m.lost() {
		return false, nil
	}
	if isCommit(r.Revision) {
		there, err := m.has(ctx, []string{r.Revision})
		return there[r.Revision] == "commit", err
	}
	age := m.store.Now().Sub(s.CompletedTime)
	return age < r.MaxAge && age > -r.MaxAge, nil // a clock that is ahead by more is wrong
}

// has says which objects a mirror has, and of which type. It reaches no other repository, not even for what a partial clone lacks.
func (m *mirror) has(ctx context.Context, ids []string) (types map[string]string, err error) {
	types = make(map[string]string, len(ids))
	err = m.inspect(ctx, ids, func(id, kind string, _ int64) error {
		types[id] = kind
		return nil
	})
	return types, err
}

// fetch fetches and writes down that it did. The mirror is as it was if that fails.
func (m *mirror) fetch(ctx context.Context, r Request, s state, fetching *lock) (state, error) {
	if err := os.MkdirAll(filepath.Join(m.path(), "objects", "pack"), 0o775); err != nil {
		return s, err
	}
	if err := removeLeftovers(m.path()); err != nil {
		return s, err
	}
	s.URL, s.Filter = r.Repository, r.Filter
	s.Started++
	if err := fetching.write(s); err != nil {
		return s, err
	}
	began := m.store.Now()
	timed, cancel := context.WithTimeoutCause(ctx, r.FetchTimeout, fmt.Errorf("%w: not done within --fetch-timeout %s", ErrUnavailable, r.FetchTimeout))
	defer cancel()
	err := classify(m.fetchAll(timed, r, fetching))
	if ctx.Err() != nil {
		return s, context.Cause(ctx) // this request's end is no failure of the origin
	}
	if cause := context.Cause(timed); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		s.fail(err)
		return s, errors.Join(err, fetching.write(s))
	}
	s.Completed, s.CompletedTime, s.Error, s.Permanent = s.Started, began, "", false
	if s.Bytes, err = objectBytes(m.path()); err != nil {
		return s, err
	}
	return s, fetching.write(s)
}

// errorBytes is how much of an error is written down for those that wait.
const errorBytes = 512

// fail writes down how a fetch failed.
func (s *state) fail(err error) {
	text := err.Error()
	s.Failed, s.Permanent = s.Started, !errors.Is(err, ErrUnavailable)
	s.Error = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' ' // what needs six bytes in a record
	}, strings.ToValidUTF8(text[:min(errorBytes, len(text))], ""))
}

// failure is how another's fetch failed.
func (s *state) failure() error {
	if s.Permanent {
		return errors.New(s.Error)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, strings.TrimPrefix(s.Error, ErrUnavailable.Error()+": "))
}

// fetchAttempts is how often an origin is asked again for its refs, when it no longer has what it listed.
const fetchAttempts = 3

// fetchAll asks the origin for its refs, fetches what they need, and then takes them.
func (m *mirror) fetchAll(ctx context.Context, r Request, fetching *lock) error {
	old, err := m.readRefs()
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		all, to, err := m.list(ctx, r)
		if err != nil {
			return err
		}
		missing := map[string]bool{}
		have := map[string]bool{}
		for _, id := range old {
			have[id] = true
		}
		for _, id := range all {
			if !have[id] {
				missing[id] = true
			}
		}
		if err = m.fetchObjects(ctx, r, to, old, slices.Sorted(maps.Keys(missing)), fetching); err == nil {
			return m.writeRefs(all)
		}
		// A branch was moved between the two questions.
		if attempt == fetchAttempts || !says(err, "not our ref", "did not send all necessary objects") {
			return err
		}
	}
}

// list asks the origin for its refs, and says how git reaches it.
func (m *mirror) list(ctx context.Context, r Request) (refs, access, error) {
	to := access{protocols: r.Protocols, credentials: r.Credentials, filter: r.Filter}
	u, err := url.Parse(r.Repository)
	if err != nil {
		return nil, to, err
	}
	to.origin = u
	if u.Scheme == "http" || u.Scheme == "https" {
		all, base, err := list(ctx, r)
		to.origin = base
		return all, to, err
	}
	g, err := m.scratch("")
	if err != nil {
		return nil, to, err
	}
	defer g.close()
	l := listing{all: refs{}}
	err = m.store.git(ctx, gitCall{
		env: g.environment(os.Environ(), to),
		out: &records{end: '\n', each: func(line []byte) error { return l.add(string(line), r) }},
	}, "ls-remote", "--quiet", r.Repository)
	return l.all, to, reached(err, r)
}

// reached says of git's failure to reach an origin no more than whoever sent the message may know.
func reached(err error, r Request) error {
	var failed *gitError
	if !errors.As(err, &failed) || failed.said == "" || classify(err) != err { //nolint:errorlint // whether it is the same one
		return err
	}
	switch {
	case says(err, "Repository not found", "does not appear to be a git repository", "does not exist"):
		return errors.New("the origin reports no such repository, or not for these credentials")
	case says(err, "not our ref", "did not send all necessary objects"):
		return err
	}
	return unreachable(r, err)
}

// fetchObjects brings objects and all that they need into the mirror.
func (m *mirror) fetchObjects(ctx context.Context, r Request, to access, have refs, ids []string, fetching *lock) error {
	if len(ids) == 0 {
		return nil
	}
	g, err := m.scratch(r.Filter)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.writeRefs(have); err != nil { // git tells the origin what is here by these
		return err
	}
	args := []string{
		"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", "--no-write-fetch-head", "--refmap=", "--stdin",
	}
	if r.Filter != "" {
		// Git refers to a remote by its name when it fetches what a partial clone has left out.
		args = append(args, "--filter="+r.Filter, "origin")
	} else {
		args = append(args, to.origin.String())
	}
	err = m.store.git(ctx, gitCall{
		env: g.environment(os.Environ(), to), stdin: strings.NewReader(strings.Join(ids, "\n") + "\n"), held: fetching,
		fileBytes: r.Limits.FetchBytes,
	}, args...)
	if err == nil {
		return nil
	}
	// Git, ended for a file that became too large, does not say so.
	grown, walkErr := overgrown(m.path(), r.Limits.FetchBytes)
	if err := errors.Join(walkErr, removeLeftovers(m.path())); err != nil {
		return err
	}
	if grown {
		return tooLarge("bytes to fetch at once", r.Limits.FetchBytes, "--max-fetch-bytes")
	}
	return reached(err, r)
}

// resolve finds the commit of what is asked for.
func (m *mirror) resolve(ctx context.Context, r Request, all refs) (string, error) {
	id := ""
	switch {
	case isCommit(r.Revision):
		id = r.Revision
	case r.Revision == "" || r.Revision == "HEAD": // a branch of this name is no default
		if id = all[headRef]; id == "" {
			return "", fmt.Errorf("%s has no default branch: its HEAD names a missing one; name a revision", r.Repository)
		}
	case strings.HasPrefix(r.Revision, "refs/"):
		id = all[r.Revision]
	default:
		id = cmp.Or(all["refs/heads/"+r.Revision], all["refs/tags/"+r.Revision])
	}
	none := fmt.Errorf("%s has no %q among its branches and tags: name another revision, or fetch its ref with --refs",
		r.Repository, r.Revision)
	if id == "" {
		return "", none
	}
	// What a tag is of; and whoever may write to the volume may have written anything.
	var commit string
	err := m.inspect(ctx, []string{id + "^{commit}"}, func(id, kind string, _ int64) error {
		if kind == "commit" {
			commit = id
		}
		return nil
	})
	if err == nil && commit == "" {
		err = none
	}
	return commit, err
}

// isCommit reports whether a revision is a commit's whole id, which never means anything else later.
func isCommit(revision string) bool {
	return (len(revision) == 40 || len(revision) == 64) && strings.Trim(revision, "0123456789abcdef") == ""
}

func checkRevision(revision string) error {
	name := revision
	if !strings.HasPrefix(name, "refs/") {
		name = "refs/heads/" + name
	}
	if revision != "" && (revision[0] == '-' || !checkRefName(name)) {
		return fmt.Errorf("revision %q: must be a branch, a tag, the full name of a ref, or a commit's whole id", revision)
	}
	return nil
}

// relative is the path of the mirror's objects as a checkout's .git/objects sees it: it holds wherever the volume is mounted.
func (m *mirror) relative() string {
	return filepath.Join("..", "..", "..", "..", "..", "mirrors", m.folder(), "objects")
}

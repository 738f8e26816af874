package sourcestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
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

	Protocols    []string
	Credentials  Credentials
	FetchTimeout time.Duration
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

// ErrUnavailable is wrapped by errors after which the same request may succeed.
var ErrUnavailable = errors.New("the source can't be had now")

// emptied is an error that came of a store which lost what was in it.
func emptied(err error) error {
	return fmt.Errorf("%w: somebody emptied the store: %w", ErrUnavailable, err)
}

// Get brings a repository's mirror up to date as far as asked, and makes a checkout.
func (s *Store) Get(ctx context.Context, r Request) (_ *Checkout, err error) {
	if err := errors.Join(CheckRepository(r.Repository, r.Protocols), checkRevision(r.Revision)); err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	m := s.mirror(r.Repository, r.Filter)
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
	commit, err := m.resolve(ctx, r)
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
	if err := c.make(ctx, r); err != nil {
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
	if m.suffices(ctx, r, asked) {
		return false, "", nil
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
	switch {
	// Fetches are numbered in the order of their starts, so these started after this request read the state.
	case current.Completed > asked.Started:
		return false, "", nil
	case current.Failed > asked.Started:
		err = errors.New(current.Error) // fifty that wait ask a dead origin once
	case m.suffices(ctx, r, current):
		return false, "", nil
	default:
		current, err = m.fetch(ctx, r, current, fetching)
		fetched = err == nil
	}
	if err == nil || ctx.Err() != nil {
		return fetched, "", err
	}
	if current.Completed == 0 {
		return false, "", fmt.Errorf("%w: fetch %s: %w; there is no mirror of it yet",
			ErrUnavailable, r.Repository, err)
	}
	age := m.store.Now().Sub(current.CompletedTime).Round(time.Second)
	if r.StaleFor == 0 || age > r.StaleFor {
		return false, "", fmt.Errorf("%w: fetch %s: %w; the last good mirror is %s old, more than --stale-for %s allows",
			ErrUnavailable, r.Repository, err, age, r.StaleFor)
	}
	return false, err.Error(), nil
}

// suffices reports whether a mirror has what is asked for as it is.
func (m *mirror) suffices(ctx context.Context, r Request, s state) bool {
	if s.Completed == 0 || m.lost() {
		return false
	}
	if isCommit(r.Revision) {
		_, err := m.git(ctx, nil, "cat-file", "-e", r.Revision+"^{commit}")
		return err == nil
	}
	age := m.store.Now().Sub(s.CompletedTime)
	return age < r.MaxAge && age > -r.MaxAge // a clock that is ahead by more is wrong
}

// git runs git on the mirror alone. It reaches no other repository, not even for what a partial clone lacks.
func (m *mirror) git(ctx context.Context, held *lock, args ...string) (string, error) {
	return m.store.git(ctx, environment(os.Environ(), nil, Credentials{}, "GIT_DIR="+m.path()), held, args...)
}

// fetch fetches and writes down that it did. The mirror is as it was if that fails.
func (m *mirror) fetch(ctx context.Context, r Request, s state, fetching *lock) (state, error) {
	if s.Completed == 0 || m.lost() {
		// One that was begun before may be there. It does no harm to begin again.
		if _, err := m.git(ctx, fetching, "init", "--quiet", "--bare", "--template="); err != nil {
			return s, err
		}
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
	err := m.fetchObjects(ctx, r, fetching)
	if ctx.Err() != nil {
		return s, context.Cause(ctx) // this request's end is no failure of the origin
	}
	if err != nil {
		s.Failed, s.Error = s.Started, strings.ToValidUTF8(err.Error()[:min(errorBytes, len(err.Error()))], "")
		return s, errors.Join(err, fetching.write(s))
	}
	s.Completed, s.CompletedTime, s.Error = s.Started, began, ""
	if s.Bytes, err = objectBytes(m.path()); err != nil {
		return s, err
	}
	return s, fetching.write(s)
}

// errorBytes is how much of an error is written down for those that wait.
const errorBytes = 1 << 10

// headRef is where the origin's default branch is kept.
const headRef = "refs/ebbtide/HEAD"

func (m *mirror) fetchObjects(ctx context.Context, r Request, fetching *lock) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.FetchTimeout, fmt.Errorf("not done within --fetch-timeout %s", r.FetchTimeout))
	defer cancel()
	args := []string{
		"fetch", "--quiet", "--prune", "--force", "--atomic", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance",
		"--no-write-fetch-head",
	}
	if r.Filter != "" {
		// Git refers to a remote by its name when it fetches what a partial clone has left out.
		for _, setting := range [][2]string{
			{"remote.origin.url", r.Repository}, {"remote.origin.promisor", "true"}, {"remote.origin.partialclonefilter", r.Filter},
			{"core.repositoryformatversion", "1"}, {"extensions.partialClone", "origin"},
		} {
			if _, err := m.git(ctx, fetching, "config", setting[0], setting[1]); err != nil {
				return err
			}
		}
		args = append(args, "--filter="+r.Filter, "origin")
	} else {
		args = append(args, r.Repository)
	}
	args = append(args, "+HEAD:"+headRef, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
	for _, ref := range r.Refs {
		args = append(args, "+"+ref+":"+ref)
	}
	env := environment(os.Environ(), r.Protocols, r.Credentials, "GIT_DIR="+m.path())
	_, err := m.store.git(ctx, env, fetching, args...)
	return err
}

// resolve finds the commit of what is asked for.
func (m *mirror) resolve(ctx context.Context, r Request) (string, error) {
	names := []string{headRef}
	switch {
	case isCommit(r.Revision), strings.HasPrefix(r.Revision, "refs/"):
		names = []string{r.Revision}
	case r.Revision != "":
		names = []string{"refs/heads/" + r.Revision, "refs/tags/" + r.Revision}
	}
	var err error
	for _, name := range names {
		var commit string
		if commit, err = m.git(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}"); err == nil {
			return commit, nil
		}
	}
	if ctx.Err() != nil {
		return "", err
	}
	return "", fmt.Errorf("%s has no %q among its branches and tags: name another revision, or fetch its ref with --refs",
		r.Repository, r.Revision)
}

// isCommit reports whether a revision is a commit's whole id, which never means anything else later.
func isCommit(revision string) bool {
	return (len(revision) == 40 || len(revision) == 64) && strings.Trim(revision, "0123456789abcdef") == ""
}

func checkRevision(revision string) error {
	if strings.HasPrefix(revision, "-") || strings.ContainsAny(revision, " ~^:?*[\\\x7f") || strings.Contains(revision, "..") ||
		strings.Contains(revision, "@{") {
		return fmt.Errorf("revision %q: must be a branch, a tag, the full name of a ref, or a commit's whole id", revision)
	}
	return nil
}

// relative is the path of the mirror's objects as a checkout's .git/objects sees it: it holds wherever the volume is mounted.
func (m *mirror) relative() string {
	return filepath.Join("..", "..", "..", "..", "..", "mirrors", m.folder(), "objects")
}

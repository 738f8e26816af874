// Package sourcestore keeps repositories on a volume that many pods mount: one mirror for each, fetched once however many scans ask
// at once, and a checkout for each scan, which takes its history from the mirror.
//
//	mirrors/ID.N/         objects/ and packed-refs of a repository, fetched with one owner's credentials
//	checkouts/ID/NAME/    a scan's working tree, with a .git that borrows the mirror's objects
//	locks/ID.fetch        held by the one that fetches ID; it says which fetches there were
//	locks/ID.use          held shared by those that use the mirror, exclusively by a collector that removes it
//	locks/ID.used         when it was used last, until when it is leased, and N: how many mirrors of it were removed
//	locks/ID.NAME         held as long as the checkout is in use; it says until when it is leased
//	locks/collect         held by the one collector
//	trash/                what is being removed
//
// Invariants:
//   - A mirror is usable from its first complete fetch on. Its refs are one file, which is written and renamed when all that they need
//     is there: a fetch that fails, or is killed, changes none.
//   - The volume holds what git reads and nothing that git obeys: configuration, attributes, hooks are in a folder of each process.
//   - What a repository makes the store write is counted before: refs, files and bytes have limits.
//   - Objects leave a mirror only when it is in nobody's use: it is never pruned, and repacked by a collector alone.
//   - Whatever one pod learns from another is in a file that it opens or locks, never in a folder's listing or a file's attributes,
//     which an NFS client may remember for a minute. The path of a mirror that was removed never comes back.
//   - What is removed leaves its place first, in one step, while its lock is held.
//   - No credential is on the volume: not in a mirror's configuration, not in its URL.
//
// Git does the work, as a program: see docs/design/source-store.md.
package sourcestore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// Store is a folder on a volume.
type Store struct {
	Root string
	// Git is the program's name or path.
	Git string
	Now func() time.Time

	// asked is called, by tests, when a request knows which fetch will do, and does not wait for one yet.
	asked func()
}

// mirror is a repository's place in the store.
type mirror struct {
	store *Store
	id    string
	// generation is the number of mirrors of it that were removed.
	generation int
}

// state says which fetches of a mirror there were. It changes under the fetch lock only. Fetches are counted, so that no clocks of
// different nodes are compared where one fetch is told from another.
type state struct {
	URL    string `json:"url"`
	Filter string `json:"filter,omitempty"`
	// Started, Completed and Failed are the numbers of the newest fetch that did.
	Started   int `json:"started"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	// CompletedTime is when the newest complete fetch began, on the clock of the node that fetched; Error is why the newest failed.
	CompletedTime time.Time `json:"completedTime"`
	Error         string    `json:"error,omitempty"`
	// Permanent: that failure comes back each time.
	Permanent bool `json:"permanent,omitempty"`
	// Bytes of its objects.
	Bytes int64 `json:"bytes"`
	// Generation of the mirror that was fetched to.
	Generation int `json:"generation"`
}

// usage says how a mirror is used.
type usage struct {
	Used        time.Time `json:"used"`
	LeasedUntil time.Time `json:"leasedUntil"`
	Generation  int       `json:"generation"`
}

// ready makes the folders of the store.
func (s *Store) ready() error {
	for _, folder := range []string{"mirrors", "checkouts", "locks", "trash"} {
		if err := os.MkdirAll(filepath.Join(s.Root, folder), 0o775); err != nil {
			return fmt.Errorf("the source store: %w", err)
		}
	}
	return nil
}

// mirror is the place of a repository, with a name that a person knows it by. Key says whose credentials it is fetched with.
func (s *Store) mirror(repository, filter, key string) *mirror {
	sum := sha256.Sum256([]byte(repository + "\n" + filter + "\n" + key))
	readable := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, strings.TrimSuffix(repository[strings.LastIndexByte(repository, '/')+1:], ".git"))
	return &mirror{store: s, id: readable[:min(40, len(readable))] + "-" + hex.EncodeToString(sum[:12])}
}

func (m *mirror) folder() string { return fmt.Sprintf("%s.%d", m.id, m.generation) }

func (m *mirror) path() string { return filepath.Join(m.store.Root, "mirrors", m.folder()) }

// lost reports whether the mirror of a complete fetch is gone: whoever empties a volume may not have come to the locks yet. Ask it of no
// other, or an NFS client remembers that it is not there.
func (m *mirror) lost() bool { return isLost(filepath.Join(m.path(), refsFile)) }

func isLost(path string) bool {
	info, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular()
}

func (m *mirror) lockPath(kind string) string {
	return filepath.Join(m.store.Root, "locks", m.id+"."+kind)
}

// state of the mirror, as it is without a lock; the zero state of one that is not there.
func (m *mirror) state() (state, error) {
	var s state
	file, err := os.Open(m.lockPath("fetch"))
	if err == nil {
		defer file.Close()
		err = readRecord(file, &s)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return m.current(s), err
}

// current is a state without what it says of a mirror that was removed.
func (m *mirror) current(s state) state {
	if s.Generation != m.generation {
		s.Generation, s.Completed, s.CompletedTime, s.Bytes = m.generation, 0, time.Time{}, 0
	}
	return s
}

// use changes what is written about the mirror's use.
func (m *mirror) use(ctx context.Context, change func(*usage)) (usage, error) {
	var u usage
	held, err := awaitLock(ctx, m.lockPath("used"), exclusive)
	if err != nil {
		return u, err
	}
	defer held.close()
	if err := held.read(&u); err != nil {
		return u, err
	}
	before := u
	change(&u)
	if u != before {
		err = held.write(u)
	}
	return u, err
}

// discard removes a folder: out of its place at once, from the volume then.
func (s *Store) discard(path string) error {
	trash := filepath.Join(s.Root, "trash", rand.Text())
	if err := os.Rename(path, trash); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return removal.All(trash)
}

// urlBytes is the longest URL that is taken. It is written into records.
const urlBytes = 1 << 10

// CheckRepository says what is wrong with a repository's URL, which may come from anyone who can send a message.
func CheckRepository(repository string, protocols []string) error {
	u, err := url.Parse(repository)
	switch {
	case repository == "":
		return errors.New("no repository: give its URL")
	case len(repository) > urlBytes || !utf8.ValidString(repository):
		return fmt.Errorf("repository: its URL must be text of at most %d bytes", urlBytes)
	case err != nil || u.Scheme == "" || u.Host == "" && u.Scheme != "file":
		return fmt.Errorf("repository %q: must be a URL, PROTOCOL://HOST/PATH; write git@HOST:PATH as ssh://git@HOST/PATH",
			withoutUser(repository))
	case !slices.Contains(protocols, u.Scheme):
		return fmt.Errorf("repository %q: protocol %s is not one of %s", withoutUser(repository), u.Scheme, strings.Join(protocols, ", "))
	case strings.ContainsFunc(repository, func(r rune) bool { return r <= ' ' || r == 0x7f }) || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return fmt.Errorf("repository %q: must have no space, query or fragment", withoutUser(repository))
	case strings.HasPrefix(u.Host, "-") || strings.HasPrefix(u.User.Username(), "-") || strings.HasPrefix(u.Path, "-"):
		return fmt.Errorf("repository %q: no part may begin with a hyphen", withoutUser(repository))
	case u.User != nil && u.Scheme != "ssh":
		return fmt.Errorf("repository %q: the URL must not hold credentials: set $%s", withoutUser(repository), TokenVariable)
	}
	if _, password := u.User.Password(); password {
		return fmt.Errorf("repository %q: the URL must not hold a password", withoutUser(repository))
	}
	return nil
}

// withoutUser leaves out what may be credentials of what may be a URL: all before the last @, whatever it is written as, and a query.
func withoutUser(repository string) string {
	scheme, rest := "", repository
	if before, after, ok := strings.Cut(repository, "://"); ok && !strings.Contains(before, "@") {
		scheme, rest = before+"://", after
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i] + rest[i:i+1] + "..."
	}
	return scheme + rest
}

package sourcestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// Collection is what a collector may remove.
type Collection struct {
	// UnusedFor is how long a mirror may be unused; 0: for ever.
	UnusedFor time.Duration
	// Quota of all mirrors together, in bytes; 0: none. The least recently used go first.
	Quota int64
}

// Collected is what a collector did.
type Collected struct {
	// Checkouts left by dead scans, and mirrors, that were removed.
	Checkouts int `json:"checkouts"`
	Mirrors   int `json:"mirrors"`
	Repacked  int `json:"repacked"`
	// Bytes of the mirrors that are left, and how many are in use.
	Bytes int64 `json:"bytes"`
	Left  int   `json:"left"`
	InUse int   `json:"inUse"`
	// Busy: another collector is at work, and nothing was done.
	Busy bool `json:"busy,omitempty"`
}

// packsBeforeRepack is how many packs a mirror may have: each fetch adds one, and each is looked into for an object.
const packsBeforeRepack = 50

// orphanAge is when a checkout without a lock, which nobody makes or leaves, counts as dead.
const orphanAge = time.Hour

// Collect removes checkouts that nobody uses, and mirrors that nobody has used for a time or that are over the quota.
func (s *Store) Collect(ctx context.Context, what Collection) (Collected, error) {
	var c Collected
	if err := s.ready(); err != nil {
		return c, err
	}
	path := filepath.Join(s.Root, "locks", "collect")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o660)
	if err != nil {
		return c, err
	}
	file.Close()
	collecting, err := tryLock(path, exclusive)
	if errors.Is(err, errLocked) {
		c.Busy = true
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer collecting.close()
	// Nobody else removes things, but those who release their checkouts, and they have their eye on them.
	trash, err := os.ReadDir(filepath.Join(s.Root, "trash"))
	if err != nil {
		return c, err
	}
	for _, entry := range trash {
		if err := removal.All(filepath.Join(s.Root, "trash", entry.Name())); err != nil {
			return c, err
		}
	}
	if err := s.collectCheckouts(&c); err != nil {
		return c, err
	}
	return c, s.collectMirrors(ctx, what, &c)
}

// makeRoom removes half of what nobody uses, the least recently used first, from a volume that is full. It returns an error where that is
// not the volume's fault.
func (s *Store) makeRoom(ctx context.Context) error {
	var volume unix.Statfs_t
	if err := unix.Statfs(s.Root, &volume); err != nil {
		return err
	}
	const full = 5 // a fifth is left
	if volume.Bavail > volume.Blocks/full {
		return errors.New("the volume has room")
	}
	all, err := s.Collect(ctx, Collection{})
	if err == nil && all.Bytes > 0 {
		_, err = s.Collect(ctx, Collection{Quota: max(1, all.Bytes/2)})
	}
	return err
}

// collectCheckouts removes checkouts whose scan is dead.
func (s *Store) collectCheckouts(c *Collected) error {
	mirrors, err := os.ReadDir(filepath.Join(s.Root, "checkouts"))
	if err != nil {
		return err
	}
	for _, entry := range mirrors {
		m := &mirror{store: s, id: entry.Name()}
		checkouts, err := os.ReadDir(filepath.Join(s.Root, "checkouts", m.id))
		if err != nil {
			return err
		}
		for _, checkout := range checkouts {
			name := checkout.Name()
			removed, err := s.collectCheckout(filepath.Join(s.Root, "checkouts", m.id, name), m.lockPath(name))
			if err != nil {
				return err
			}
			if removed {
				c.Checkouts++
			}
		}
	}
	return s.collectLocks()
}

func (s *Store) collectCheckout(path, lockPath string) (removed bool, err error) {
	held, err := tryLock(lockPath, exclusive)
	if errors.Is(err, errLocked) {
		return false, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		info, err := os.Stat(path)
		if err != nil || s.Now().Sub(info.ModTime()) < orphanAge {
			return false, nil
		}
		return true, s.discard(path)
	}
	if err != nil {
		return false, err
	}
	defer held.close()
	var lease usage
	if err := held.read(&lease); err != nil || s.Now().Before(lease.LeasedUntil) {
		return false, err
	}
	return true, s.remove(path, held)
}

// collectLocks removes locks of checkouts that were never made, or are gone.
func (s *Store) collectLocks() error {
	locks, err := os.ReadDir(filepath.Join(s.Root, "locks"))
	if err != nil {
		return err
	}
	for _, entry := range locks {
		id, name := splitLock(entry.Name())
		if name == "" || name == "fetch" || name == "use" || name == "used" {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.Root, "checkouts", id, name)); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		held, err := tryLock(filepath.Join(s.Root, "locks", entry.Name()), exclusive)
		if err != nil {
			continue // its checkout is being made, or it is gone
		}
		err = os.Remove(held.file.Name())
		held.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func splitLock(name string) (id, kind string) {
	extension := filepath.Ext(name)
	if extension == "" {
		return name, ""
	}
	return name[:len(name)-len(extension)], extension[1:]
}

// candidate is a mirror that may have to go.
type candidate struct {
	mirror *mirror
	usage  usage
	bytes  int64
}

func (s *Store) collectMirrors(ctx context.Context, what Collection, c *Collected) error {
	entries, err := os.ReadDir(filepath.Join(s.Root, "mirrors"))
	if err != nil {
		return err
	}
	var candidates []candidate
	var total int64
	for _, entry := range entries {
		k, err := s.candidate(ctx, entry.Name())
		if err != nil {
			return err
		}
		if k != nil {
			candidates = append(candidates, *k)
			total += k.bytes
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(a.usage.Used.Compare(b.usage.Used), cmp.Compare(a.mirror.id, b.mirror.id))
	})
	for _, k := range candidates {
		unused := what.UnusedFor > 0 && s.Now().Sub(k.usage.Used) >= what.UnusedFor
		over := what.Quota > 0 && total > what.Quota
		done, err := s.collectMirror(ctx, k, unused || over)
		if err != nil {
			return fmt.Errorf("mirror %s: %w", k.mirror.id, err)
		}
		switch done {
		case removed:
			total -= k.bytes
			c.Mirrors++
			continue
		case repacked:
			c.Repacked++
		case inUse:
			c.InUse++
		}
		c.Left++
	}
	c.Bytes = total
	return nil
}

// candidate looks at a folder of mirrors. One that a collector has left is removed.
func (s *Store) candidate(ctx context.Context, folder string) (*candidate, error) {
	id, generation := splitLock(folder)
	m := &mirror{store: s, id: id}
	u, err := m.use(ctx, func(*usage) {})
	if err != nil {
		return nil, err
	}
	m.generation = u.Generation
	if generation != strconv.Itoa(u.Generation) {
		return nil, s.discard(filepath.Join(s.Root, "mirrors", folder))
	}
	state, err := m.state()
	return &candidate{m, u, state.Bytes}, err
}

// What happened to a mirror.
const (
	kept = iota
	inUse
	repacked
	removed
)

// collectMirror removes a mirror, or makes its packs one, unless somebody uses it.
func (s *Store) collectMirror(ctx context.Context, k candidate, remove bool) (int, error) {
	use, err := tryLock(k.mirror.lockPath("use"), exclusive)
	if errors.Is(err, errLocked) {
		return inUse, nil
	}
	if err != nil {
		return kept, err
	}
	defer use.close()
	// Since it was looked at somebody may have used it.
	now, used := s.Now(), false
	u, err := k.mirror.use(ctx, func(u *usage) {
		used = now.Before(u.LeasedUntil) || !u.Used.Equal(k.usage.Used)
		if remove && !used {
			u.Generation++ // whoever comes next makes a new one, elsewhere
		}
	})
	if err != nil {
		return kept, err
	}
	if used {
		return inUse, nil
	}
	if u.Generation > k.usage.Generation {
		return removed, s.discard(k.mirror.path())
	}
	packs, err := filepath.Glob(filepath.Join(k.mirror.path(), "objects", "pack", "*.pack"))
	if err != nil || len(packs) <= packsBeforeRepack {
		return kept, err
	}
	return repacked, s.repack(ctx, k.mirror)
}

// repack makes one pack of all. The caller has the use lock, so nobody reads the old ones.
func (s *Store) repack(ctx context.Context, m *mirror) error {
	fetching, err := awaitLock(ctx, m.lockPath("fetch"), exclusive)
	if err != nil {
		return err
	}
	defer fetching.close()
	var state state
	if err := fetching.read(&state); err != nil {
		return err
	}
	if err := m.repack(ctx, state, fetching); err != nil {
		return err
	}
	if state.Bytes, err = objectBytes(m.path()); err != nil {
		return err
	}
	return fetching.write(state)
}

func (m *mirror) repack(ctx context.Context, s state, fetching *lock) error {
	all, err := m.readRefs()
	if err != nil {
		return err
	}
	g, err := m.scratch(s.Filter)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.writeRefs(all); err != nil {
		return err
	}
	err = m.store.git(ctx, gitCall{env: g.environment(os.Environ(), access{filter: s.Filter}), held: fetching},
		"repack", "-a", "-d", "-k", "--quiet")
	return err
}

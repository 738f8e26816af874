package sourcestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// make makes the working tree of the commit, and takes its lock.
func (c *Checkout) make(ctx context.Context, r Request, all refs) (err error) {
	timeout := cmp.Or(r.CheckoutTimeout, r.FetchTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within --checkout-timeout %s: the repository is too large", timeout))
	defer cancel()
	m, name := c.mirror, strings.ToLower(rand.Text())
	size, err := m.measure(ctx, r, c.Commit)
	if err != nil {
		return err
	}
	if err := m.store.room(size); err != nil {
		return err
	}
	c.Path = filepath.Join(m.store.Root, "checkouts", m.id, name)
	if c.lock, err = awaitLock(ctx, m.lockPath(name), exclusive); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.store.remove(c.Path, c.lock))
			c.lock.close()
		}
	}()
	var packed strings.Builder
	if err := all.public().write(&packed); err != nil {
		return err
	}
	gitDir := filepath.Join(c.Path, ".git")
	if err := writeRepository(gitDir, map[string]string{
		"HEAD": c.Commit + "\n", "config": fmt.Sprintf(gitConfig, 0, false), refsFile: packed.String(),
		"info/attributes": attributes, "objects/info/alternates": m.relative() + "\n",
	}); err != nil {
		return err
	}
	g, err := m.scratch("")
	if err != nil {
		return err
	}
	defer g.close()
	err = m.store.git(ctx, gitCall{
		env:       g.environment(os.Environ(), access{}, "GIT_WORK_TREE="+c.Path, "GIT_INDEX_FILE="+filepath.Join(gitDir, "index")),
		fileBytes: r.Limits.CheckoutBytes,
	}, "read-tree", "--reset", "-u", c.Commit)
	if err != nil {
		err = cmp.Or(m.store.room(size), err) // git does not say why it can't write
	}
	return err
}

// room returns an error where the volume has no room for so many bytes.
func (s *Store) room(size int64) error {
	var volume unix.Statfs_t
	if err := unix.Statfs(s.Root, &volume); err != nil {
		return err
	}
	if free := volume.Bavail * uint64(volume.Bsize); free < uint64(size) { //nolint:gosec // sizes are not negative
		return fmt.Errorf("%w: %w: the store has %d bytes left, and the checkout takes %d", ErrUnavailable, ErrFull, free, size)
	}
	return nil
}

// Lease keeps the checkout in use for a time, even if this process ends: for one that other processes than this one use. A collector removes it
// when the time is over.
func (c *Checkout) Lease(ctx context.Context, until time.Time) error {
	defer c.close()
	until = until.UTC()
	_, err := c.mirror.use(ctx, func(u *usage) {
		if until.After(u.LeasedUntil) {
			u.LeasedUntil = until
		}
	})
	return errors.Join(err, c.lock.write(usage{LeasedUntil: until}))
}

// Lost reports whether the store lost the checkout while it was in use, with its volume say: what was read from it may not be all there was.
func (c *Checkout) Lost() bool {
	return c.lock.lost() || c.mirror.lost() || isLost(filepath.Join(c.Path, ".git", "HEAD"))
}

// Release removes the checkout.
func (c *Checkout) Release() error {
	defer c.close()
	return c.mirror.store.remove(c.Path, c.lock)
}

func (c *Checkout) close() {
	c.lock.close()
	c.use.close()
}

// Release removes a checkout that was leased, by its path.
func (s *Store) Release(path string) error {
	mirrorID, name := filepath.Base(filepath.Dir(path)), filepath.Base(path)
	if filepath.Clean(path) != filepath.Join(s.Root, "checkouts", mirrorID, name) {
		return fmt.Errorf("%s is no checkout of the source store %s", path, s.Root)
	}
	held, err := tryLock((&mirror{store: s, id: mirrorID}).lockPath(name), exclusive)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // it is released
	case errors.Is(err, errLocked):
		return fmt.Errorf("checkout %s is in use by a process that runs", path)
	case err != nil:
		return err
	}
	defer held.close()
	return s.remove(path, held)
}

// remove removes a checkout, and then its lock, which the caller holds, or leaves that to whoever is emptying the store.
func (s *Store) remove(path string, held *lock) error {
	if err := s.discard(path); err != nil {
		return err
	}
	if err := os.Remove(held.file.Name()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

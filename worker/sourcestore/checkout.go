package sourcestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// checkoutConfig is the configuration of a checkout: there is no remote, and nothing of the repository's is run.
const checkoutConfig = `[core]
	repositoryformatversion = 0
	bare = false
	symlinks = false
	hooksPath = /dev/null
[gc]
	auto = 0
`

// make makes the working tree of the commit, and takes its lock.
func (c *Checkout) make(ctx context.Context, r Request) (err error) {
	m, name := c.mirror, strings.ToLower(rand.Text())
	c.Path = filepath.Join(m.store.Root, "checkouts", m.id, name)
	if c.lock, err = awaitLock(ctx, m.lockPath(name), exclusive); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Release())
		}
	}()
	refs, err := m.git(ctx, nil, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
	if err != nil {
		return err
	}
	gitDir := filepath.Join(c.Path, ".git")
	for _, folder := range []string{"refs", "objects/info", "info"} {
		if err := os.MkdirAll(filepath.Join(gitDir, folder), 0o775); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{
		"HEAD": c.Commit + "\n", "config": checkoutConfig, "packed-refs": refs + "\n", "objects/info/alternates": m.relative() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(gitDir, file), []byte(text), 0o664); err != nil {
			return err
		}
	}
	// By the mirror and not by the checkout, so that what a partial clone lacks is fetched for all that come later.
	env := environment(os.Environ(), r.Protocols, r.Credentials, "GIT_DIR="+m.path(), "GIT_WORK_TREE="+c.Path,
		"GIT_INDEX_FILE="+filepath.Join(gitDir, "index"))
	if _, err := m.store.git(ctx, env, nil, "read-tree", "--reset", "-u", c.Commit); err != nil {
		return err
	}
	return nil
}

// Lease lets the checkout be in use for a time, whoever lives: for one that other processes than this one use. A collector removes it
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

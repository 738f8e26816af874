package sourcestore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// inspect says of objects, in their order, which type and size they have. The type of one that is not there is "missing".
func (m *mirror) inspect(ctx context.Context, names []string, each func(id, kind string, size int64) error) error {
	if len(names) == 0 {
		return nil
	}
	g, err := m.scratch("")
	if err != nil {
		return err
	}
	defer g.close()
	err = m.store.git(ctx, gitCall{
		env:   g.environment(os.Environ(), access{}),
		stdin: strings.NewReader(strings.Join(names, "\n") + "\n"),
		out: &records{end: '\n', each: func(line []byte) error {
			fields := strings.Fields(string(line))
			if len(fields) != 3 {
				return each(strings.TrimSuffix(fields[0], "^{commit}"), "missing", 0)
			}
			size, err := strconv.ParseInt(fields[2], 10, 64)
			if err != nil {
				return fmt.Errorf("git cat-file says %q", line)
			}
			return each(fields[0], fields[1], size)
		}},
	}, "cat-file", "--batch-check", "--buffer")
	return err
}

// measure counts the files of a commit and their bytes, before any is written, and brings what a partial clone lacks of them.
func (m *mirror) measure(ctx context.Context, r Request, commit string) (bytesOfFiles int64, err error) {
	g, err := m.scratch("")
	if err != nil {
		return 0, err
	}
	defer g.close()
	files, times := 0, map[string]int64{}
	err = m.store.git(ctx, gitCall{
		env: g.environment(os.Environ(), access{}),
		out: &records{end: 0, each: func(entry []byte) error {
			if files++; files > r.Limits.Files {
				return tooLarge("files and folders", int64(r.Limits.Files), "--max-files")
			}
			about, _, _ := bytes.Cut(entry, []byte("\t"))
			if fields := strings.Fields(string(about)); len(fields) == 3 && fields[1] == "blob" {
				times[fields[2]]++
			}
			return nil
		}},
	}, "ls-tree", "-r", "-t", "-z", "--full-tree", commit)
	if err != nil {
		return 0, err
	}
	ids := slices.Sorted(maps.Keys(times))
	missing, total, err := m.weigh(ctx, r, ids, times)
	if err == nil && len(missing) > 0 && r.Filter != "" {
		if err := m.complete(ctx, r, missing); err != nil {
			return 0, fmt.Errorf("fetch %d files: %w", len(missing), err)
		}
		missing, total, err = m.weigh(ctx, r, ids, times)
	}
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%d files of it are not there", len(missing))
	}
	return total, err
}

// weigh adds up what files take, each as often as it is there, and says which are missing.
func (m *mirror) weigh(ctx context.Context, r Request, ids []string, times map[string]int64) (missing []string, total int64, err error) {
	err = m.inspect(ctx, ids, func(id, kind string, size int64) error {
		switch {
		case kind == "missing":
			missing = append(missing, id)
		case size > (r.Limits.CheckoutBytes-total)/times[id]:
			return tooLarge("bytes of files", r.Limits.CheckoutBytes, "--max-checkout-bytes")
		default:
			total += size * times[id]
		}
		return nil
	})
	return missing, total, err
}

// complete fetches files that a partial clone has left out. One at a time does, because two would bring the same.
func (m *mirror) complete(ctx context.Context, r Request, ids []string) error {
	fetching, err := awaitLock(ctx, m.lockPath("fetch"), exclusive)
	if err != nil {
		return err
	}
	defer fetching.close()
	there, err := m.has(ctx, ids)
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return there[id] != "missing" })
	if len(ids) == 0 {
		return nil
	}
	all, to, err := m.list(ctx, r)
	if err != nil {
		return err
	}
	return m.fetchObjects(ctx, r, to, all, ids, fetching)
}

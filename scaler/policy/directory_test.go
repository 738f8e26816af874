package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// overwrite writes a file in place, as a shell's redirection does.
func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func capped(name, limit string) string {
	return strings.NewReplacer("name: scans, ", "name: "+name+", ", "maxReplicas: 7", "maxReplicas: "+limit).Replace(scans)
}

// A file that is written in place is read when it is left alone, one that looks cut off a minute later, and one that was moved into
// place at once.
func TestDirectoryWaitsForWholeFiles(t *testing.T) {
	b := newBundle(t)
	now := time.Now()
	b.directory.now = func() time.Time { return now }
	file := filepath.Join(b.dir, "scans.yaml")
	check := func(when string, after time.Duration, want int32) {
		t.Helper()
		now = time.Now().Add(after)
		b.directory.Load(t.Context())
		if got := b.limit("scans"); got != want {
			t.Errorf("%s: cap %d, want %d\n%s", when, got, want, b.log)
		}
	}
	full := capped("scans", "5")
	write(t, file, full)
	check("moved into place", 0, 5)
	cut := full[:strings.Index(full, "  target")]
	overwrite(t, file, cut)
	check("half of it", 0, 5)
	check("half of it, left alone", 10*time.Second, 5)
	check("half of it, left alone for longer", 11*time.Second, 5)
	if n := strings.Count(b.log.String(), "looks cut off"); n != 1 || strings.Contains(b.log.String(), "good again") {
		t.Errorf("it is said %d times that the file looks cut off\n%s", n, b.log)
	}
	overwrite(t, file, cut[:len(cut)-3])
	check("cut in a line", 10*time.Second, 5)
	overwrite(t, file, "")
	check("emptied", 10*time.Second, 5)
	overwrite(t, file, full)
	check("whole again", 10*time.Second, 5)
	overwrite(t, file, cut)
	check("its end was deleted on purpose", 2*time.Minute, 100)
	edit := capped("scans", "6")
	overwrite(t, file, edit)
	check("just edited", 0, 100)
	check("edited", 3*time.Second, 6)
	write(t, file, strings.TrimSuffix(capped("scans", "8"), "\n"))
	check("without a last newline, moved into place", 0, 8)
	b.directory.written[filepath.Join(b.dir, "new.yaml")] = true // as the watch tells
	overwrite(t, filepath.Join(b.dir, "new.yaml"), capped("new", "3"))
	check("a new file", 0, 8)
	if b.limit("new") != -1 {
		t.Error("a new file is read while it is written")
	}
	check("a new file, left alone", 3*time.Second, 8)
	if b.limit("new") != 3 {
		t.Errorf("cap %d of a new file", b.limit("new"))
	}
}

// A broken file keeps its own policies, and no others.
func TestDirectoryDeletesBesideBrokenFiles(t *testing.T) {
	b := newBundle(t)
	file := func(name string) string { return filepath.Join(b.dir, name+".yaml") }
	write(t, file("a"), capped("one", "1")+"---\n"+capped("two", "2"))
	write(t, file("b"), capped("three", "3")+"---\n"+capped("four", "4"))
	b.directory.Load(t.Context())
	write(t, file("b"), "kind: [ # three")
	write(t, file("a"), capped("two", "20"))
	b.directory.Load(t.Context())
	for name, want := range map[string]int32{"one": -1, "two": 20, "three": 3, "four": 4} {
		if got := b.limit(name); got != want {
			t.Errorf("cap %d of %s, want %d", got, name, want)
		}
	}
	// A policy may have moved into the file that can't be read.
	write(t, file("b"), capped("two", "200")+"kind: [")
	if err := os.Remove(file("a")); err != nil {
		t.Fatal(err)
	}
	b.directory.Load(t.Context())
	if b.limit("two") != 20 || b.limit("three") != 3 {
		t.Errorf("caps %d and %d", b.limit("two"), b.limit("three"))
	}
	write(t, file("b"), capped("two", "200"))
	b.directory.Load(t.Context())
	if b.limit("two") != 200 || b.limit("three") != -1 {
		t.Errorf("caps %d and %d after the file was corrected", b.limit("two"), b.limit("three"))
	}
}

// The definition in force stays when another appears, wherever that stands, and the log says which.
func TestDirectoryDuplicates(t *testing.T) {
	b := newBundle(t)
	file := func(name string) string { return filepath.Join(b.dir, name+".yaml") }
	write(t, file("m"), capped("scans", "5"))
	b.directory.Load(t.Context())
	write(t, file("a"), "# another\n"+capped("scans", "50")+"---\n"+capped("more", "2"))
	b.directory.Load(t.Context())
	if b.limit("scans") != 5 || b.limit("more") != 2 {
		t.Errorf("caps %d and %d", b.limit("scans"), b.limit("more"))
	}
	if log := b.log.String(); !strings.Contains(log, "line 2: ScalingPolicy scan/scans is defined twice: m.yaml:1 stays in force, and this one is ignored") ||
		!strings.Contains(log, "file="+file("a")) {
		t.Errorf("log %s", log)
	}
	write(t, file("m"), capped("scans", "6"))
	b.directory.Load(t.Context())
	if b.limit("scans") != 6 {
		t.Errorf("cap %d: an edit of the definition in force", b.limit("scans"))
	}
	write(t, file("m"), capped("scans", "50")+"---\n"+capped("scans", "6"))
	b.directory.Load(t.Context())
	if b.limit("scans") != 6 {
		t.Errorf("cap %d: another before it in its file", b.limit("scans"))
	}
	if err := os.Remove(file("m")); err != nil {
		t.Fatal(err)
	}
	b.directory.Load(t.Context())
	if b.limit("scans") != 50 || len(b.forgotten) != 0 {
		t.Errorf("cap %d, forgotten %v: the other takes its place", b.limit("scans"), b.forgotten)
	}
}

// What is no file of a bounded size is an error of its own, and the others are loaded.
func TestDirectoryReadsOnlyFiles(t *testing.T) {
	b := newBundle(t)
	at := func(name string) string { return filepath.Join(b.dir, name) }
	write(t, at("z.yaml"), scans)
	if err := syscall.Mkfifo(at("fifo.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", at("zero.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("nothing"), at("dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	huge, err := os.Create(at("huge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := huge.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	huge.Close()
	b.directory.Load(t.Context())
	if b.limit("scans") != 7 {
		t.Errorf("cap %d", b.limit("scans"))
	}
	for _, want := range []string{"fifo.yaml is not a regular file", "zero.yaml is not a regular file", "dir.yaml is not a regular file",
		"huge.yaml is too large: at most 4194304 bytes", "dangling.yaml: no such file"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("the log has no %q: %s", want, b.log)
		}
	}
	for _, name := range []string{"fifo.yaml", "zero.yaml", "huge.yaml"} {
		if _, err := (environment{b.dir}).file(name); err == nil {
			t.Errorf("a value is read of %s", name)
		}
	}
}

// A policy that takes long to compile delays no other's, and no call for any.
func TestPoliciesCompileByThemselves(t *testing.T) {
	b := newBundle(t)
	b.directory.Load(t.Context())
	asked, answer := make(chan struct{}), make(chan struct{})
	slow := withHolidays("slow")
	go b.store.Set(t.Context(), slow, holidayResolver(func() (string, error) {
		close(asked)
		<-answer
		return holidayOn("20260501"), nil
	}))
	<-asked
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.store.Set(t.Context(), withHolidays("quick"), holidayResolver(func() (string, error) { return holidayOn("20260501"), nil }))
		_, _, _ = b.store.Get(types.NamespacedName{Namespace: "scan", Name: "slow"})
		b.store.Delete(types.NamespacedName{Namespace: "scan", Name: "quick"})
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("another policy waits for the slow one")
	}
	close(answer)
}

// A file that is being written when the scaler starts is read when it is left alone; one that a link names is whole, as a ConfigMap's are.
func TestDirectoryStartsWithWholeFiles(t *testing.T) {
	for name, linked := range map[string]bool{"written": false, "linked": true} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t)
			full, at := capped("scans", "5"), filepath.Join(b.dir, "scans.yaml")
			if linked {
				at = filepath.Join(t.TempDir(), "data")
				if err := os.Symlink(at, filepath.Join(b.dir, "scans.yaml")); err != nil {
					t.Fatal(err)
				}
			}
			overwrite(t, at, full[:strings.Index(full, "  target")])
			// The clock of the test stands still but for what is waited for.
			began := time.Now()
			rest := time.AfterFunc(quiet/4, func() { overwrite(t, at, full) })
			defer rest.Stop()
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				ended <- b.directory.Run(ctx, func() {
					if waited, want := time.Since(began), b.limit("scans"); linked != (waited < quiet/8) || !linked && want != 5 {
						t.Errorf("loaded after %s, with a cap of %d", waited, want)
					}
					stop()
				})
			}()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// A file of aliases that would fill the memory is an error of its own.
func TestDirectoryAliases(t *testing.T) {
	b := newBundle(t)
	write(t, filepath.Join(b.dir, "a.yaml"), "a: &a \""+strings.Repeat("x", 1<<20)+"\"\nb: ["+strings.Repeat("*a,", 900)+"*a]\n")
	write(t, filepath.Join(b.dir, "b.yaml"), scans)
	b.directory.Load(t.Context())
	if b.limit("scans") != 7 || !strings.Contains(b.log.String(), "its aliases make it larger than 16 MiB") {
		t.Errorf("cap %d, log %s", b.limit("scans"), b.log)
	}
}

package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/yamldoc"
)

const (
	// rescanEvery catches what a watch can miss: changes on network file systems, say.
	rescanEvery = 10 * time.Second
	// settle is how long file events are gathered: an editor's save, a ConfigMap's swap of links.
	settle = 100 * time.Millisecond
	// quiet is how long a file that is written in place must be left alone before it is read: half of a file can be a valid policy. A
	// file that is moved into place is whole, and read at once.
	quiet = 2 * time.Second
	// quietCut is that time for a file that looks as if it were cut off. Whoever wrote it may be slow, or may have failed.
	quietCut = time.Minute
	// maxFileBytes bounds one file, and maxFilesBytes all of them.
	maxFileBytes  = 4 << 20
	maxFilesBytes = 64 << 20
)

// Directory keeps a store in step with the YAML files of a directory.
type Directory struct {
	path     string
	store    *Store
	log      *slog.Logger
	now      func() time.Time
	resolver Resolver

	files   map[string]*policyFile                  // by path
	written map[string]bool                         // files that were seen to be written in place since they were read
	waiting bool                                    // a file is not read yet because it may not be whole
	inForce map[types.NamespacedName]fileDefinition // what each policy in the store was made of
	faults  map[string]string                       // what was last logged of each file
}

// policyFile is a file as it was last read.
type policyFile struct {
	info    fs.FileInfo
	text    []byte
	defines []fileDefinition // of its last version that could be read
	broken  error            // why its newest version can't be
}

// fileDefinition is a policy that a file defines.
type fileDefinition struct {
	name types.NamespacedName
	path string
	line int
	text []byte // of its document
	// object is what the text says; nil once it was put in force.
	object map[string]any
}

// NewDirectory returns a feeder for the files *.yaml and *.yml of a directory.
func NewDirectory(path string, store *Store, log *slog.Logger) *Directory {
	return &Directory{
		path: path, store: store, log: log, now: time.Now, resolver: environment{path}, files: map[string]*policyFile{},
		written: map[string]bool{}, inForce: map[types.NamespacedName]fileDefinition{}, faults: map[string]string{},
	}
}

// Run loads the directory and follows it until ctx ends. Loaded is called after the first load.
func (d *Directory) Run(ctx context.Context, loaded func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", d.path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(d.path); err != nil {
		return fmt.Errorf("watch --policy-dir %s: %w", d.path, err)
	}
	d.awaitWhole(ctx)
	d.Load(ctx)
	loaded()
	rescan := time.NewTicker(rescanEvery)
	defer rescan.Stop()
	gathered := time.NewTimer(settle)
	defer gathered.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rescan.C:
			d.Load(ctx)
		case <-gathered.C:
			d.Load(ctx)
			if d.waiting {
				gathered.Reset(quiet / 4)
			}
		case event := <-watcher.Events:
			if event.Has(fsnotify.Write) {
				d.written[event.Name] = true
			}
			gathered.Reset(settle)
		case err := <-watcher.Errors:
			d.log.Warn("watch of the policy directory; it is read again every "+rescanEvery.String(), "error", err)
		}
	}
}

// awaitWhole waits for files that were written a moment ago, before anything is known of how: half of one can be a valid policy. A ConfigMap's
// are links to whole files.
func (d *Directory) awaitWhole(ctx context.Context) {
	for begin := d.now(); d.now().Sub(begin).Abs() < 2*quiet; {
		entries, err := os.ReadDir(d.path)
		if err != nil {
			return
		}
		var wait time.Duration
		for _, entry := range entries {
			if info, err := entry.Info(); err == nil && isPolicyFile(entry) && info.Mode().IsRegular() {
				if age := d.now().Sub(info.ModTime()); age >= 0 {
					wait = max(wait, quiet-age)
				}
			}
		}
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func isPolicyFile(entry fs.DirEntry) bool {
	extension := filepath.Ext(entry.Name())
	return (extension == ".yaml" || extension == ".yml") && !strings.HasPrefix(entry.Name(), ".")
}

// Load reads the directory once and applies what changed. The policies of a file that can't be read or parsed stay as they were.
func (d *Directory) Load(ctx context.Context) {
	entries, err := os.ReadDir(d.path)
	d.fault(d.path, err, "the policy directory can't be read; its policies stay as they were")
	if err != nil {
		return
	}
	d.waiting = false
	there, total := map[string]bool{}, 0
	for _, entry := range entries {
		if !isPolicyFile(entry) {
			continue
		}
		path := filepath.Join(d.path, entry.Name())
		there[path] = true
		cut := d.read(path, maxFilesBytes-total)
		file := d.files[path]
		if file != nil {
			total += len(file.text)
		}
		switch {
		case cut != nil:
			d.fault(path, cut, "policy file looks cut off; its policies stay as they were for a minute after it was last written")
		case file != nil:
			d.fault(path, file.broken, "policy file is not valid; its policies stay as they were")
		}
	}
	maps.DeleteFunc(d.files, func(path string, _ *policyFile) bool { return !there[path] })
	maps.DeleteFunc(d.written, func(path string, _ bool) bool { return !there[path] })
	maps.DeleteFunc(d.faults, func(path, _ string) bool { return path != d.path && !there[strings.TrimSuffix(path, twice)] })
	d.apply(ctx)
}

// read reads a file if it changed and is whole. Cut is why one that has been left alone for a moment looks as if it were not.
func (d *Directory) read(path string, bound int) (cut error) {
	old := d.files[path]
	text, info, err := readRegular(path, int64(min(maxFileBytes, bound)))
	switch {
	case err != nil && old == nil:
		d.files[path] = &policyFile{broken: err}
		return nil
	case err != nil:
		old.broken, old.text, old.info = err, nil, nil
		return nil
	case old != nil && old.info != nil && bytes.Equal(old.text, text):
		old.info = info
		return nil
	}
	inPlace := d.written[path] || old != nil && old.info != nil && os.SameFile(old.info, info)
	wait := quiet
	if old != nil && looksCut(text, old.text) {
		wait = quietCut
	}
	if age := d.now().Sub(info.ModTime()); inPlace && age >= 0 && age < wait {
		d.waiting = true
		if wait == quietCut && age > quiet {
			return errors.New("it ends in the middle of a line, or where its last version continued")
		}
		return nil
	}
	delete(d.written, path)
	file := &policyFile{info: info, text: text}
	if file.defines, file.broken = definitions(path, text); file.broken != nil && old != nil {
		file.defines = old.defines
	}
	d.files[path] = file
	return nil
}

// looksCut is true for text that ends in the middle of a line, or where the last version of the file continued.
func looksCut(text, last []byte) bool {
	return !bytes.HasSuffix(text, []byte("\n")) || len(text) < len(last) && bytes.HasPrefix(last, text)
}

// definitions are the policies of a file. It is read whole or not at all.
func definitions(path string, text []byte) ([]fileDefinition, error) {
	documents, err := yamldoc.Split(text)
	if err != nil {
		return nil, err
	}
	var found []fileDefinition
	for _, document := range documents {
		object, err := document.Object()
		if err != nil {
			return nil, err
		}
		name, err := identify(object)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", document.Line, err)
		}
		found = append(found, fileDefinition{name, path, document.Line, document.Text, object})
	}
	return found, nil
}

// twice marks the fault of a file that defines a policy which another definition has in force.
const twice = " (twice)"

// apply puts in force what the files define. Where several define a policy, the definition in force stays.
func (d *Directory) apply(ctx context.Context) {
	found := map[types.NamespacedName][]fileDefinition{}
	mentioned := map[string]bool{} // in files that can't be read: a policy may have moved there
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		file := d.files[path]
		for _, definition := range file.defines {
			found[definition.name] = append(found[definition.name], definition)
		}
		if file.broken != nil {
			for word := range bytes.FieldsFuncSeq(file.text, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-.", r) }) {
				mentioned[string(word)] = true
			}
		}
	}
	repeated := map[string][]string{}
	for name, candidates := range found {
		chosen := candidates[0]
		last, known := d.inForce[name]
		if known {
			chosen = candidates[best(candidates, last)]
		}
		for _, other := range candidates {
			if other.path != chosen.path || other.line != chosen.line {
				repeated[other.path] = append(repeated[other.path], fmt.Sprintf("line %d: ScalingPolicy %s is defined twice: %s:%d stays in force, and this one is ignored",
					other.line, name, filepath.Base(chosen.path), chosen.line))
			}
		}
		object := chosen.object
		chosen.object = nil
		d.inForce[name] = chosen
		if known && bytes.Equal(last.text, chosen.text) {
			continue
		}
		if object == nil { // another definition of it was in force meanwhile
			var err error
			if object, err = (yamldoc.Document{Text: chosen.text, Line: chosen.line}).Object(); err == nil {
				_, err = identify(object)
			}
			if err != nil {
				continue // it was read before
			}
		}
		named := &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		d.store.set(ctx, name, d.store.version(named, d.resolver, func() (*v1alpha1.ScalingPolicy, field.ErrorList) {
			return fileRules().complete(object)
		}))
	}
	for _, file := range d.files {
		for i := range file.defines {
			file.defines[i].object = nil
		}
	}
	for path := range d.files {
		slices.Sort(repeated[path])
		var err error
		if len(repeated[path]) > 0 {
			err = errors.New(strings.Join(repeated[path], "; "))
		}
		d.fault(path+twice, err, "policy file defines a policy that is defined elsewhere")
	}
	for name := range d.inForce {
		if _, still := found[name]; !still && !mentioned[name.Name] {
			d.store.Delete(name)
			delete(d.inForce, name)
		}
	}
}

// best is the candidate that is nearest to what is in force.
func best(candidates []fileDefinition, last fileDefinition) int {
	for _, same := range []func(fileDefinition) bool{
		func(c fileDefinition) bool {
			return c.path == last.path && bytes.Equal(c.text, last.text)
		},
		func(c fileDefinition) bool { return c.path == last.path },
		func(c fileDefinition) bool { return bytes.Equal(c.text, last.text) },
	} {
		if i := slices.IndexFunc(candidates, same); i >= 0 {
			return i
		}
	}
	return 0
}

// fault logs an error of a file when it is new, and its end.
func (d *Directory) fault(path string, err error, message string) {
	switch was, had := d.faults[path]; {
	case err == nil && had:
		d.log.Info("policy file is good again", "file", strings.TrimSuffix(path, twice))
		delete(d.faults, path)
	case err != nil && was != err.Error():
		d.log.Error(message, "file", strings.TrimSuffix(path, twice), "error", err)
		d.faults[path] = err.Error()
	}
}

// readRegular reads a regular file of at most so many bytes. Anything else, a FIFO say, may never end.
func readRegular(path string, bound int64) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may have become a FIFO
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, bound+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(text)) > bound {
		return nil, nil, fmt.Errorf("%s is too large: at most %d bytes are read of it", path, bound)
	}
	return text, info, nil
}

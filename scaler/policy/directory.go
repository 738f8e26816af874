package policy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

const (
	// rescanEvery catches what a watch can miss: changes on network file systems, say.
	rescanEvery = 10 * time.Second
	// settle is how long a burst of file events is gathered: an editor's save, a ConfigMap's swap of links.
	settle = 100 * time.Millisecond
)

// Directory keeps a store in step with the YAML files of a directory.
type Directory struct {
	path  string
	store *Store
	log   *slog.Logger

	texts    map[string][]byte               // each file as last read
	seen     map[types.NamespacedName][]byte // each policy's document as last applied
	faults   map[string]string               // each broken file's error as last logged
	resolver Resolver
}

// NewDirectory returns a feeder for the files *.yaml and *.yml of a directory.
func NewDirectory(path string, store *Store, log *slog.Logger) *Directory {
	return &Directory{
		path: path, store: store, log: log, seen: map[types.NamespacedName][]byte{}, faults: map[string]string{},
		resolver: environment{path},
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
	d.Load(ctx)
	loaded()
	rescan := time.NewTicker(rescanEvery)
	defer rescan.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rescan.C:
			d.Load(ctx)
		case <-watcher.Events:
			time.Sleep(settle)
			for len(watcher.Events) > 0 {
				<-watcher.Events
			}
			d.Load(ctx)
		case err := <-watcher.Errors:
			d.log.Warn("watch of the policy directory; it is read again every "+rescanEvery.String(), "error", err)
		}
	}
}

// Load reads the directory once and applies what changed. A file that can't be read or parsed keeps its policies as
// they were.
func (d *Directory) Load(ctx context.Context) {
	files, err := os.ReadDir(d.path)
	d.fault(d.path, err)
	if err != nil {
		return
	}
	texts, broken := map[string][]byte{}, false
	for _, file := range files {
		if extension := filepath.Ext(file.Name()); file.IsDir() || extension != ".yaml" && extension != ".yml" ||
			strings.HasPrefix(file.Name(), ".") {
			continue
		}
		path := filepath.Join(d.path, file.Name())
		if texts[path], err = os.ReadFile(path); err != nil {
			d.fault(path, err)
			delete(texts, path)
			broken = true
		}
	}
	if !broken && maps.EqualFunc(texts, d.texts, bytes.Equal) {
		return
	}
	d.texts = texts
	found := map[types.NamespacedName][]byte{}
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		err := d.apply(ctx, texts[path], found)
		d.fault(path, err)
		broken = broken || err != nil
	}
	if broken {
		return // a policy that is not found may stand in the broken file
	}
	for name := range d.seen {
		if _, still := found[name]; !still {
			d.store.Delete(name)
			delete(d.seen, name)
		}
	}
}

// apply puts a file's documents in force, and adds them to found.
func (d *Directory) apply(ctx context.Context, text []byte, found map[types.NamespacedName][]byte) error {
	var errs []error
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		policy, err := parse(document)
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", n, err))
			continue
		}
		name := types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}
		if _, twice := found[name]; twice {
			errs = append(errs, fmt.Errorf("document %d: ScalingPolicy %s is defined twice in the directory", n, name))
			continue
		}
		found[name] = document
		if !bytes.Equal(d.seen[name], document) {
			d.seen[name] = slices.Clone(document)
			d.store.Set(ctx, policy, d.resolver)
		}
	}
}

// parse reads one policy. Unknown fields are errors: a misspelt limit must not vanish.
func parse(document []byte) (*v1alpha1.ScalingPolicy, error) {
	policy := &v1alpha1.ScalingPolicy{}
	if err := yaml.UnmarshalStrict(document, policy); err != nil {
		return nil, err
	}
	if policy.Kind != "ScalingPolicy" || policy.APIVersion != v1alpha1.GroupVersion.String() {
		return nil, fmt.Errorf("apiVersion %q, kind %q: must be %s, ScalingPolicy", policy.APIVersion, policy.Kind, v1alpha1.GroupVersion)
	}
	if policy.Name == "" {
		return nil, errors.New("metadata.name: name the policy")
	}
	if policy.Namespace == "" {
		policy.Namespace = "default"
	}
	return policy, nil
}

// fault logs a file's error when it is new, and its end.
func (d *Directory) fault(path string, err error) {
	switch was, had := d.faults[path]; {
	case err == nil && had:
		d.log.Info("policy file is good again", "file", path)
		delete(d.faults, path)
	case err != nil && was != err.Error():
		d.log.Error("policy file is not valid; its policies stay as they were", "file", path, "error", err)
		d.faults[path] = err.Error()
	}
}

package results

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
)

// Store is a folder, on a volume that workers and consumers mount, with content that is too large for a message. A file's name is
// its digest: the same content is stored once, and a file is never changed. What is no longer wanted can be deleted by age.
type Store string

// File is content that is being stored.
type File struct {
	store Store
	file  *os.File
	hash  hash.Hash
	size  int64
}

const digestPrefix = "sha256:"

// Digest is the form that results have of content's SHA-256.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// Create begins a file. Keep or Discard ends it.
func (s Store) Create() (*File, error) {
	// Not at the root, so that a file of a killed worker is not taken for content.
	folder := filepath.Join(string(s), "partial")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(folder, "result-")
	if err != nil {
		return nil, err
	}
	return &File{store: s, file: file, hash: sha256.New()}, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.hash.Write(p[:n])
	f.size += int64(n)
	return n, err
}

// Keep makes the file part of the store. It is on the volume, not only in memory, when Keep returns.
func (f *File) Keep() (reference, digest string, size int64, err error) {
	defer f.Discard()
	sum := hex.EncodeToString(f.hash.Sum(nil))
	reference = filepath.Join("sha256", sum[:2], sum)
	path := filepath.Join(string(f.store), reference)
	if err := errors.Join(f.file.Chmod(0o644), f.file.Sync(), f.file.Close(), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
		return "", "", 0, err
	}
	if err := os.Rename(f.file.Name(), path); err != nil {
		return "", "", 0, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", "", 0, err
	}
	defer folder.Close()
	return reference, digestPrefix + sum, f.size, folder.Sync()
}

// Discard removes the file unless it was kept.
func (f *File) Discard() {
	f.file.Close()
	os.Remove(f.file.Name())
}

// Open returns a result's content, wherever it is. Reading it to the end fails if it is not what its digest says.
func (s Store) Open(result *resultsv1alpha1.Result) (io.ReadCloser, error) {
	var content io.ReadCloser
	switch c := result.GetContent().(type) {
	case nil:
		return io.NopCloser(bytes.NewReader(nil)), nil
	case *resultsv1alpha1.Result_Text:
		content = io.NopCloser(strings.NewReader(c.Text))
	case *resultsv1alpha1.Result_Data:
		content = io.NopCloser(bytes.NewReader(c.Data))
	case *resultsv1alpha1.Result_Reference:
		if s == "" {
			return nil, fmt.Errorf("the content of result %q is in the result store: say where that is mounted", result.GetKey())
		}
		// No reference leads out of the store.
		file, err := os.OpenInRoot(string(s), c.Reference)
		if err != nil {
			return nil, err
		}
		content = file
	}
	return &verified{content, sha256.New(), result}, nil
}

// verified reads content that has a digest.
type verified struct {
	io.ReadCloser
	hash   hash.Hash
	result *resultsv1alpha1.Result
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := digestPrefix + hex.EncodeToString(v.hash.Sum(nil)); got != v.result.GetDigest() {
			return n, fmt.Errorf("the content of result %q has digest %s, want %s", v.result.GetKey(), got, v.result.GetDigest())
		}
	}
	return n, err
}

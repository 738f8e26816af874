// Package demoscanner builds the image of the demonstration of charts/scan-jobs: gitleaks, a shell, git, and repositories made for the
// purpose, some of which have secrets in their history. It stands for a user's image: nothing of Ebbtide's is in it.
//
// The shell and git are those of the machine that builds it, with the libraries that they need.
package demoscanner

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ebbtide-dev/ebbtide/images"
)

// Name of the image.
const Name = "ebbtide-demo-scanner"

// Module is the folder of the module that builds gitleaks, as package ./gitleaks. It needs many modules that the project does not.
const Module = "examples/demo-scanner/scanner"

// user owns everything that is added: git reads no repository of another user.
const user = 65532

// Build builds the image; root is the project's folder.
func Build(ctx context.Context, root string) (v1.Image, error) {
	image, err := images.Build(ctx, filepath.Join(root, Module), images.Spec{Name: Name, Packages: []string{"./gitleaks"}, Arch: runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "demo-scanner-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := fill(ctx, dir); err != nil {
		return nil, err
	}
	archive, err := pack(dir)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layer)
}

// fill puts what is in the image beside gitleaks into a folder.
func fill(ctx context.Context, dir string) error {
	// By git-upload-pack, which git is too, and /bin/sh a repository is fetched from a folder.
	for place, program := range map[string]string{
		"usr/local/bin/git": "git", "usr/local/bin/git-upload-pack": "git", "usr/local/bin/sh": "sh", "bin/sh": "sh",
		"usr/local/bin/sleep": "sleep",
	} {
		if err := install(ctx, dir, program, place); err != nil {
			return fmt.Errorf("put %s into the image: %w", program, err)
		}
	}
	return MakeRepositories(ctx, filepath.Join(dir, "repositories"))
}

// library finds the files in what ldd prints.
var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// install copies a program of this machine and the libraries that it is linked with.
func install(ctx context.Context, dir, program, place string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", path, err)
	}
	files := map[string]string{path: place}
	for _, found := range library.FindAllStringSubmatch(string(out), -1) {
		files[found[1]] = found[1]
		// The C library loads it when a thread ends, so ldd does not know it.
		if unwind := filepath.Join(filepath.Dir(found[1]), "libgcc_s.so.1"); strings.HasPrefix(filepath.Base(found[1]), "libc.so") {
			files[unwind] = unwind
		}
	}
	for from, to := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, to), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func write(path string, content []byte, mode fs.FileMode) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, mode))
}

// pack makes a tar archive of a folder. It depends on nothing but names, modes and contents.
func pack(dir string) ([]byte, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{
			Name: path, Mode: int64(info.Mode().Perm()), Uid: user, Gid: user, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX, Typeflag: tar.TypeReg,
		}
		if entry.IsDir() {
			header.Name, header.Typeflag = path+"/", tar.TypeDir
			return writer.WriteHeader(header)
		}
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		header.Size = int64(len(content))
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		_, err = writer.Write(content)
		return err
	})
	return archive.Bytes(), errors.Join(err, writer.Close())
}

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	_ "embed"
)

// epoch is the time of everything in an archive, so that the same source makes the same archive.
var epoch = time.Unix(0, 0).UTC()

// pack writes files into an archive: a zip for Windows, else a compressed tar. The first is a program.
func pack(to, system string, files ...string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	var content bytes.Buffer
	if system == "windows" {
		err = packZip(&content, files)
	} else {
		err = packTar(&content, files)
	}
	if err == nil {
		_, err = out.Write(content.Bytes())
	}
	return errors.Join(err, out.Close())
}

func packZip(content *bytes.Buffer, files []string) error {
	writer := zip.NewWriter(content)
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := filepath.Base(file)
		if i == 0 {
			name += ".exe"
		}
		entry, err := writer.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)})
		if err != nil {
			return err
		}
		if _, err := entry.Write(text); err != nil {
			return err
		}
	}
	return writer.Close()
}

func packTar(content *bytes.Buffer, files []string) error {
	compressed := gzip.NewWriter(content)
	writer := tar.NewWriter(compressed)
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if i == 0 {
			mode = 0o755
		}
		header := &tar.Header{Name: filepath.Base(file), Mode: mode, Size: int64(len(text)), ModTime: epoch, Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		if _, err := writer.Write(text); err != nil {
			return err
		}
	}
	return errors.Join(writer.Close(), compressed.Close())
}

//go:embed krew.yaml.tmpl
var krewManifest string

//go:embed artifacthub-pkg.yml.tmpl
var artifactHub string

// metadata writes the krew manifest, and what Artifact Hub reads of the KEDA scaler.
func (r *release) metadata(context.Context) error {
	type download struct{ System, Arch, File, SHA256 string }
	values := struct {
		Version, Date string
		Downloads     []download
	}{Version: r.version, Date: time.Now().UTC().Format(time.RFC3339)}
	for _, platform := range r.platforms {
		system, arch, _ := strings.Cut(platform, "/")
		file := archive(r.version, system, arch)
		sum, err := checksum(filepath.Join(r.output, file))
		if err != nil {
			return err
		}
		values.Downloads = append(values.Downloads, download{system, arch, file, sum})
	}
	for file, text := range map[string]string{"krew.yaml": krewManifest, "artifacthub-pkg.yml": artifactHub} {
		parsed, err := template.New(file).Parse(text)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := parsed.Execute(&out, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.output, file), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// checksums writes those of all files of the release, as sha256sum --check reads them.
func (r *release) checksums(context.Context) error {
	entries, err := os.ReadDir(r.output)
	if err != nil {
		return err
	}
	var lines []string
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		sum, err := checksum(filepath.Join(r.output, entry.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%s  %s\n", sum, entry.Name()))
	}
	slices.Sort(lines)
	return os.WriteFile(filepath.Join(r.output, "checksums.txt"), []byte(strings.Join(lines, "")), 0o644)
}

func checksum(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

package sourcestore

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// TokenVariable is the environment variable that holds the password, or token, for repositories over HTTP.
const TokenVariable = "EBBTIDE_GIT_TOKEN"

// Credentials for repositories over HTTP. They reach git in its environment only.
type Credentials struct {
	// For is the start of the URLs that get them: https://code.example/. They go nowhere else, whatever a message asks for.
	For         string
	User, Token string
}

// variables that would lead git to another repository or configuration than ours, or hold what it gets in another way.
func foreign(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	switch name {
	case TokenVariable, "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
		"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_CONFIG_PARAMETERS", "LANG", "LC_ALL":
		return true
	}
	return strings.HasPrefix(name, "GIT_CONFIG_")
}

// environment of git: nobody's configuration, no prompt, the credentials for where they are meant.
func environment(own []string, protocols []string, credentials Credentials, more ...string) []string {
	var env []string
	for _, variable := range own {
		if !foreign(variable) {
			env = append(env, variable)
		}
	}
	settings := [][2]string{
		{"gc.auto", "0"},              // objects that checkouts borrow are not pruned
		{"fetch.unpackLimit", "1"},    // one pack, not a file for each object
		{"maintenance.auto", "false"}, // nor is anything done in the background, after the lock
		{"core.hooksPath", "/dev/null"},
		{"core.symlinks", "false"}, // a repository's symlink leads no scanner to what is not the repository's
		{"core.fsync", "objects,reference"},
		{"safe.directory", "*"}, // the volume is written by pods that may have other users
		{"http.lowSpeedLimit", "1000"},
		{"http.lowSpeedTime", "60"},
	}
	if credentials.Token != "" {
		basic := base64.StdEncoding.EncodeToString([]byte(credentials.User + ":" + credentials.Token))
		settings = append(settings, [2]string{"http." + credentials.For + ".extraHeader", "Authorization: Basic " + basic})
	}
	for i, setting := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, setting[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, setting[1]))
	}
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1", "GIT_ALLOW_PROTOCOL="+strings.Join(protocols, ":"), "LC_ALL=C")
	return append(env, more...)
}

// git runs git and returns its output. The lock, if there is one, is held until git and all that it started have ended, even if this
// process has not lived to see that.
func (s *Store) git(ctx context.Context, env []string, held *lock, args ...string) (string, error) {
	cmd := exec.Command(s.Git, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	if held != nil {
		cmd.ExtraFiles = []*os.File{held.file}
	}
	err := child.Run(ctx, cmd)
	if err == nil {
		return strings.TrimSpace(stdout.String()), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: the image needs git", err)
	}
	command := args[0]
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			command = arg
			break
		}
	}
	if said := strings.TrimSpace(stderr.String()); said != "" && ctx.Err() == nil {
		if strings.Contains(said, "could not read Username") || strings.Contains(said, "Authentication failed") {
			said += fmt.Sprintf(": the origin wants credentials: set $%s, and --token-for to the start of its URL", TokenVariable)
		}
		return "", fmt.Errorf("git %s: %s", command, said)
	}
	return "", fmt.Errorf("git %s: %w", command, err)
}

// removeLeftovers removes what a git that was killed left in a mirror: locks of refs, which git would not go past, and half a pack.
// The caller has the fetch lock, so no git of ours writes there.
func removeLeftovers(mirror string) error {
	return filepath.WalkDir(mirror, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); !entry.IsDir() && (strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_")) {
			return os.Remove(path)
		}
		return nil
	})
}

// objectBytes is the size of a mirror's objects.
func objectBytes(mirror string) (int64, error) {
	var total int64
	err := filepath.WalkDir(filepath.Join(mirror, "objects"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

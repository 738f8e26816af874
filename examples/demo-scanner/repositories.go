package demoscanner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A repository that is made for the demonstration: its commits, and what gitleaks must find in them.
type repository struct {
	name    string
	commits []map[string]string // files by their paths; an empty text removes one
	finds   []string            // ids of gitleaks' rules
}

// Repositories maps the names of the repositories in the image to what is in them: ids of gitleaks' rules, empty where nothing is.
func Repositories() map[string][]string {
	all := map[string][]string{}
	for _, r := range repositories() {
		all[r.name] = r.finds
	}
	return all
}

// MakeRepositories makes them in a folder, as bare repositories NAME.git.
func MakeRepositories(ctx context.Context, folder string) error {
	for _, r := range repositories() {
		if err := r.make(ctx, folder); err != nil {
			return fmt.Errorf("repository %s: %w", r.name, err)
		}
	}
	return nil
}

func repositories() []repository {
	// Nobody's secrets, and none in this file: scanners of this project's own source would find them.
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int, alphabet string) string {
		out := make([]byte, n)
		for i := range out {
			out[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(out)
	}
	const upper, letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	aws, github := "AKIA"+text(16, upper), "ghp_"+text(36, letters)
	key := "-----BEGIN RSA " + "PRIVATE KEY-----\n" + text(64, letters) + "\n" + text(64, letters) + "\n-----END RSA " + "PRIVATE KEY-----\n"
	return []repository{
		{name: "website", commits: []map[string]string{{"index.html": "<h1>Hello</h1>\n"}, {"style.css": "h1 { color: teal }\n"}}},
		{
			// Removed from the files, but not from the history.
			name: "payments", finds: []string{"aws-access-token"}, commits: []map[string]string{
				{"main.go": "package main\n", "deploy.sh": "export AWS_ACCESS_KEY_ID=" + aws + "\n"}, {"deploy.sh": "exec ./deploy\n"},
			},
		},
		{
			name: "infrastructure", finds: []string{"github-pat", "private-key"}, commits: []map[string]string{
				{"README": "Keys of the build.\n", "build.key": key}, {"ci.env": "GITHUB_TOKEN=" + github + "\n"}, {"build.key": ""},
			},
		},
		{name: "library", commits: []map[string]string{{"sum.c": "int sum(int a, int b) { return a + b; }\n"}}},
	}
}

// make makes a bare repository in a folder. The same commits have the same ids, whenever and wherever they are made.
func (r repository) make(ctx context.Context, folder string) error {
	work, err := os.MkdirTemp("", "demo-repository-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	git := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = work
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + work, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=demo", "GIT_AUTHOR_EMAIL=demo@ebbtide.dev", "GIT_AUTHOR_DATE=2026-01-05T09:00:00Z",
			"GIT_COMMITTER_NAME=demo", "GIT_COMMITTER_EMAIL=demo@ebbtide.dev", "GIT_COMMITTER_DATE=2026-01-05T09:00:00Z",
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := git("init", "--quiet", "--initial-branch=main"); err != nil {
		return err
	}
	for i, files := range r.commits {
		for path, text := range files {
			path = filepath.Join(work, path)
			if text == "" {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, []byte(text), 0o644)
			}
			if err != nil {
				return err
			}
		}
		if err := git("add", "--all"); err != nil {
			return err
		}
		if err := git("commit", "--quiet", "--message", fmt.Sprintf("change %d", i+1)); err != nil {
			return err
		}
	}
	return git("clone", "--quiet", "--bare", "--template=", "--no-local", work, filepath.Join(folder, r.name+".git"))
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

const sourceLong = `source keeps repositories on a shared volume: one mirror of each, which is fetched once for all concurrent scans, and a checkout for each scan
that uses the mirror's history. The image needs git.`

const sourceGetLong = `get updates the mirror of a repository and creates a checkout.

With a COMMAND it runs that in the checkout, with $EBBTIDE_SOURCE, $EBBTIDE_SOURCE_COMMIT and, if the mirror could not be fetched,
$EBBTIDE_SOURCE_STALE, and removes the checkout afterwards. With --hold it keeps the checkout until SIGTERM, for a
sidecar of engines. Otherwise it keeps the checkout for --lease. It prints a description of the checkout as JSON, with a COMMAND to standard
error.

Submodules and Git LFS files are not fetched. A symbolic link becomes a file with its target. .gitattributes is ignored, in the checkout and by
a git that reads it, because it would hide files from scanners.

Exit codes: the COMMAND's; 75 if the source is not available for a reason outside the message (the origin is down, the volume is full, the token is
refused), or if the COMMAND was killed; 1 for all other errors (no such repository or revision, too large).`

func sourceCommand(secrets secret.Values) *cobra.Command {
	parent := &cobra.Command{Use: "source", Short: "Keep sources of scans on a volume", Long: sourceLong}
	store := &sourcestore.Store{Now: time.Now}
	flags := parent.PersistentFlags()
	flags.StringVar(&store.Root, "store", os.Getenv("EBBTIDE_SOURCE_STORE"), "folder on the volume; default: $EBBTIDE_SOURCE_STORE")
	flags.StringVar(&store.Git, "git", "git", "the git program")
	parent.PersistentPreRunE = func(*cobra.Command, []string) error {
		if info, err := os.Stat(store.Root); err != nil || !info.IsDir() {
			return fmt.Errorf("--store %q: is not a folder: is the volume mounted?", store.Root)
		}
		return nil
	}
	parent.AddCommand(sourceGetCommand(store, secrets), sourceReleaseCommand(store), sourceGCCommand(store))
	return parent
}

func sourceGetCommand(store *sourcestore.Store, secrets secret.Values) *cobra.Command {
	var r sourcestore.Request
	var lease time.Duration
	var quota int64
	var hold bool
	cmd := &cobra.Command{
		Use:   "get --repository URL [flags] [-- COMMAND [ARG...]]",
		Short: "Create a checkout of a repository",
		Long:  sourceGetLong,
		Example: "  ebbtide-worker --queue scans --result-exchange scan-results -- \\\n" +
			"    ebbtide-worker source get --max-age 1m -- gitleaks git .    # the message's header names the repository",
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Credentials.Token = secrets[sourcestore.TokenVariable]
			scope, err := url.Parse(r.Credentials.For)
			if r.Credentials.Token != "" && (err != nil || scope.Host == "" || scope.User != nil || scope.Scheme != "https" && scope.Scheme != "http") {
				return fmt.Errorf("--token-for: say for which URLs $%s is, https://HOST/ say, without credentials", sourcestore.TokenVariable)
			}
			if hold && len(args) > 0 {
				return errors.New("--hold: not with a command, which holds the checkout itself")
			}
			if err := r.Limits.Check(); err != nil {
				return err
			}
			c, err := store.Get(cmd.Context(), r)
			if err != nil {
				return err
			}
			if quota > 0 && c.Fetched {
				// What this fetch brought may be too much; the checkout that it was for is in use.
				if _, err := store.Collect(cmd.Context(), sourcestore.Collection{Quota: quota}); err != nil {
					return errors.Join(err, c.Release())
				}
			}
			switch {
			case len(args) > 0:
				err := errors.Join(describe(cmd.ErrOrStderr(), c), runIn(cmd.Context(), c, args))
				if c.Lost() {
					return fmt.Errorf("%w: somebody emptied the store while the command ran in %s", sourcestore.ErrUnavailable, c.Path)
				}
				return errors.Join(err, c.Release())
			case hold:
				err := describe(cmd.OutOrStdout(), c)
				<-cmd.Context().Done()
				return errors.Join(err, c.Release())
			default:
				return errors.Join(describe(cmd.OutOrStdout(), c), c.Lease(cmd.Context(), time.Now().Add(lease)))
			}
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Repository, "repository", os.Getenv("EBBTIDE_HEADER_REPOSITORY"),
		"URL of the repository, without credentials; default: $EBBTIDE_HEADER_REPOSITORY, the message's header")
	flags.StringVar(&r.Revision, "revision", os.Getenv("EBBTIDE_HEADER_REVISION"),
		"branch, tag, full name of a ref, or whole id of a commit; default: $EBBTIDE_HEADER_REVISION, or the default branch")
	flags.DurationVar(&r.MaxAge, "max-age", 0,
		"use a mirror that was fetched this recently; 0: always fetch")
	flags.DurationVar(&r.StaleFor, "stale-for", 0, "use a mirror of up to this age if it can't be fetched; 0: fail")
	flags.StringVar(&r.Filter, "filter", "",
		"objects that the mirror omits until a checkout needs them: blob:none; such a mirror has no history of files")
	flags.StringSliceVar(&r.Refs, "refs", nil, "patterns of refs to fetch in addition to branches and tags, such as refs/pull/*/head")
	flags.StringSliceVar(&r.Protocols, "protocols", []string{"https", "ssh"}, "allowed protocols")
	flags.StringVar(&r.Credentials.For, "token-for", "", "prefix of URLs that get $"+sourcestore.TokenVariable+" as their password")
	flags.StringVar(&r.Credentials.User, "token-user", "x-access-token", "user of the token")
	flags.StringVar(&r.Credentials.Owner, "token-owner", "",
		"owner of the credentials, including those for SSH; each owner has separate mirrors; default: each token is an owner, and SSH is one")
	flags.StringSliceVar(&r.Origins, "origins", nil, "prefixes of allowed URLs, such as https://code.example/team/; default: all")
	flags.DurationVar(&r.FetchTimeout, "fetch-timeout", 10*time.Minute, "time limit of a fetch")
	flags.DurationVar(&r.CheckoutTimeout, "checkout-timeout", 10*time.Minute, "time limit for creating a checkout")
	limits := sourcestore.DefaultLimits
	flags.IntVar(&r.Limits.Refs, "max-refs", limits.Refs, "most refs of a repository")
	flags.Int64Var(&r.Limits.FetchBytes, "max-fetch-bytes", limits.FetchBytes, "limit of one fetch in bytes")
	flags.IntVar(&r.Limits.Files, "max-files", limits.Files, "most files and folders of a checkout")
	flags.Int64Var(&r.Limits.CheckoutBytes, "max-checkout-bytes", limits.CheckoutBytes, "limit of a checkout's files in bytes")
	flags.BoolVar(&r.Explain, "explain", false,
		"include in errors why no git server answers; this tells senders of messages which ports are open in the network of scans")
	flags.Int64Var(&quota, "quota", 0, "limit of all mirrors in bytes; over it, the least recently used are removed; 0: no limit")
	flags.DurationVar(&lease, "lease", 6*time.Hour, "time after which the checkout may be removed; without a command only")
	flags.BoolVar(&hold, "hold", false, "keep the checkout until SIGTERM, then remove it")
	return cmd
}

func sourceReleaseCommand(store *sourcestore.Store) *cobra.Command {
	return &cobra.Command{
		Use: "release CHECKOUT", Short: "Remove a checkout of get", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return store.Release(args[0]) },
	}
}

func sourceGCCommand(store *sourcestore.Store) *cobra.Command {
	var what sourcestore.Collection
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove checkouts of dead scans and unused mirrors",
		Long: "gc removes checkouts whose scan is dead or whose lease is over, mirrors unused for --unused-for, and the least recently\n" +
			"used mirrors over --quota. It keeps everything that is in use, and prints a summary as JSON.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := store.Collect(cmd.Context(), what)
			return errors.Join(err, describe(cmd.OutOrStdout(), done))
		},
	}
	cmd.Flags().DurationVar(&what.UnusedFor, "unused-for", 14*24*time.Hour, "remove mirrors that were not used for this long; 0: none")
	cmd.Flags().Int64Var(&what.Quota, "quota", 0, "limit of all mirrors in bytes; 0: no limit")
	return cmd
}

func describe(out io.Writer, value any) error { return json.NewEncoder(out).Encode(value) }

// commandEnd is how a command ended that is not this program's failure.
type commandEnd int

func (e commandEnd) Error() string { return fmt.Sprintf("the command exited with %d", int(e)) }

// runIn runs a command in a checkout. The end of ctx is a SIGTERM to it.
func runIn(ctx context.Context, c *sourcestore.Checkout, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Path, os.Stdin, os.Stdout, os.Stderr
	for _, variable := range sourcestore.CommandEnvironment(os.Environ()) {
		if !strings.HasPrefix(variable, sourcestore.TokenVariable+"=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	if os.Getenv("EBBTIDE_MESSAGE_FILE") == worker.MessageFile { // which this process inherited, and its command is to
		cmd.ExtraFiles = []*os.File{os.NewFile(worker.MessageDescriptor, "message")}
	}
	cmd.Env = append(cmd.Env, "EBBTIDE_SOURCE="+c.Path, "EBBTIDE_SOURCE_COMMIT="+c.Commit)
	if c.Stale != "" {
		cmd.Env = append(cmd.Env, "EBBTIDE_SOURCE_STALE="+c.Stale)
	}
	ended, err := child.Start(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		err = <-ended
	}
	var exit *exec.ExitError
	switch {
	case !errors.As(err, &exit):
		return err
	case exit.ExitCode() < 0:
		return commandEnd(exitGivenBack)
	default:
		return commandEnd(exit.ExitCode())
	}
}

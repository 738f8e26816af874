// ebbtide tries, explains, learns and checks scaling policies, before anyone deploys them and after. As kubectl-ebbtide on the PATH it
// is a plugin of kubectl.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // calendars need it wherever this runs

	"github.com/spf13/cobra"

	_ "github.com/ebbtide-dev/ebbtide/internal/roots"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newCommand(filepath.Base(os.Args[0])).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(exitCode(err))
	}
}

// newCommand is the whole program, by the name that it was called by.
func newCommand(calledAs string) *cobra.Command {
	root := &cobra.Command{
		Use:           "ebbtide",
		Short:         "Try, explain, learn and check scaling policies",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	if strings.HasPrefix(calledAs, "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl ebbtide"}
	}
	root.AddCommand(simulateCommand(), compareCommand(), recommendCommand(), explainCommand(), calendarCommand(), holidaysCommand(), doctorCommand(), decisionsCommand(),
		placementsCommand(), nodesCommand(), versionCommand())
	return root
}

// version of a release, which its build sets.
var version string

// versionInfo is what a build knows of itself.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the versions", Args: cobra.NoArgs}
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versionInfo{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			v.Version = cmp.Or(version, info.Main.Version)
			for _, s := range info.Settings {
				switch s.Key {
				case "vcs.revision":
					v.Revision = s.Value
				case "vcs.modified":
					v.Modified = s.Value == "true"
				}
			}
		}
		return out.print(cmd, v, func(t *table) { t.row("ebbtide", v.Version, v.Revision, v.Go, v.Platform) })
	}
	return cmd
}

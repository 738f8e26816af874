package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/ebbtide-dev/ebbtide/internal/apiserver"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

func doctorCommand() *cobra.Command {
	var cluster clusterFlags
	var files []string
	var namespace string
	var strict, list bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find faults in the configuration of scaling and packing, and how to fix them",
		Long: `Reads the ScaledJobs, policies, NodePools, schedulers and services of a cluster, or of files with -f, and reports settings that lose work, start it
twice or keep nodes. Each finding names the object, the reason and the fix. The command changes nothing.

It exits with 2 if there is an error, and with --strict if there is a warning.`,
		Example: `  ebbtide doctor
  ebbtide doctor -f scans.yaml -f nodepool.yaml
  helm template my-scans ./chart | ebbtide doctor -f - -o json`,
		Args: cobra.NoArgs,
	}
	cluster.add(cmd)
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "filename", "f", nil, "YAML file to read instead of a cluster; - for standard input; repeat for several")
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace to read; default: all")
	flags.BoolVar(&strict, "strict", false, "fail on warnings too")
	flags.BoolVar(&list, "list-checks", false, "list all checks")
	if err := cmd.MarkFlagFilename("filename", "yaml", "yml"); err != nil {
		panic(err) // the flag is there
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if list {
			return listChecks(cmd, out)
		}
		objects, found, scope, err := gather(cmd, files, &cluster, namespace)
		if err != nil {
			return err
		}
		found = append(found, doctor.Examine(objects, scope)...)
		if err := out.print(cmd, found, func(t *table) { printFindings(t, found, len(objects)) }); err != nil {
			return err
		}
		wrong := map[doctor.Severity]int{}
		for _, f := range found {
			wrong[f.Severity]++
		}
		if wrong[doctor.Error] > 0 || strict && wrong[doctor.Warning] > 0 {
			return findings{fmt.Errorf("%d errors, %d warnings", wrong[doctor.Error], wrong[doctor.Warning])}
		}
		return nil
	}
	return cmd
}

// gather reads objects. Policies of files are compiled, and what is wrong with them is a finding.
func gather(cmd *cobra.Command, files []string, cluster *clusterFlags, namespace string) ([]doctor.Object, []doctor.Finding, doctor.Scope, error) {
	found, scope := []doctor.Finding{}, doctor.Scope{Now: time.Now()}
	if len(files) == 0 {
		config, err := cluster.config()
		if err != nil {
			return nil, nil, scope, fmt.Errorf("%w (to read files instead: -f)", err)
		}
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, nil, scope, err
		}
		objects, scope, err := doctor.List(cmd.Context(), client, namespace, func(kind schema.GroupVersionResource, err error) {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s are not looked at: %v\n", kind.Resource, err)
		})
		scope.Now = time.Now()
		if err != nil {
			return nil, nil, scope, err
		}
		server, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			return nil, nil, scope, err
		}
		if err := apiserver.Fit(server); err != nil {
			unfit := (*apiserver.UnfitError)(nil)
			if errors.As(err, &unfit) {
				scope.Unfit, scope.OnlyDevices = unfit.Sentence, unfit.OnlyDevices
			} else {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: whether the cluster can serve the scheduler is not looked at: %v\n", err)
			}
		}
		return objects, found, scope, nil
	}
	var objects []doctor.Object
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			return nil, nil, scope, fmt.Errorf("--filename: %w", err)
		}
		parsed, err := doctor.Parse(file, text)
		if err != nil {
			return nil, nil, scope, err
		}
		policies := false
		for _, o := range parsed {
			policies = policies || o.GetKind() == "ScalingPolicy"
		}
		if policies && file != "-" {
			if _, err := policy.ReadFile(cmd.Context(), file); err != nil {
				found = append(found, doctor.Finding{
					ID: "EBB204", Severity: doctor.Error, Object: "ScalingPolicy", Message: err.Error(), Source: file,
					Fix: "correct the field that the message names", Doc: "docs/reference/doctor.md#ebb204",
				})
			}
		}
		objects = append(objects, parsed...)
	}
	return objects, found, scope, nil
}

func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

func printFindings(t *table, found []doctor.Finding, objects int) {
	for _, f := range found {
		where := ""
		if f.Source != "" {
			where = " (" + f.Source + ")"
		}
		t.line("%s %s  %s%s\n    %s\n    fix: %s\n    %s", f.ID, f.Severity, f.Object, where, f.Message, f.Fix, f.Doc)
	}
	if len(found) == 0 {
		t.line("%d objects, nothing wrong", objects)
	}
}

// listedCheck is a check without its code.
type listedCheck struct {
	ID       string          `json:"id"`
	Severity doctor.Severity `json:"severity"`
	Title    string          `json:"title"`
	Why      string          `json:"why"`
	Fix      string          `json:"fix"`
}

func listChecks(cmd *cobra.Command, out *output) error {
	var checks []listedCheck
	for _, c := range doctor.Checks() {
		checks = append(checks, listedCheck{c.ID, c.Severity, c.Title, c.Why, c.Fix})
	}
	return out.print(cmd, checks, func(t *table) {
		for _, c := range checks {
			t.row(c.ID, c.Severity, c.Title)
		}
	})
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/calendarimport"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
)

func calendarCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "calendar", Short: "Create calendars from schedules that exist today"}
	cmd.AddCommand(calendarImportCommand())
	return cmd
}

// importedCalendar is a policy and what was found on the way to it.
type importedCalendar struct {
	Source string                  `json:"source"`
	Policy *v1alpha1.ScalingPolicy `json:"policy"`
	Notes  []string                `json:"notes,omitempty"`
	// Periods has what the original does otherwise than a period, by the period's name.
	Periods map[string][]string `json:"periods"`
	Check   importCheck         `json:"check"`
}

type importCheck struct {
	From        time.Time          `json:"from"`
	To          time.Time          `json:"to"`
	Minutes     int64              `json:"minutes"`
	Same        int64              `json:"same"`
	Differences []importDifference `json:"differences"`
}

type importDifference struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Original int32     `json:"original"`
	Calendar int32     `json:"calendar"`
	Reason   string    `json:"reason"`
}

func calendarImportCommand() *cobra.Command {
	var cluster clusterFlags
	var files []string
	var namespace, from, format string
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Create a calendar from KEDA's cron triggers, CronJobs that scale, or Zalando's ScalingSchedules",
		Long: `Reads ScaledObjects and ScaledJobs with cron triggers, CronJobs that run kubectl scale or kubectl patch, and ScalingSchedules and
ClusterScalingSchedules with the HorizontalPodAutoscalers that follow them, from a cluster or from files with -f, and prints a ScalingPolicy for
each workload. Comments list differences at clock changes, and times at which the original stays on without an end.

The two are compared in every minute of a year. The calendar differs only at clock changes and in unintended effects, such as a cron trigger that
stays on over a weekend. A schedule that a calendar can't express is an error that names the object and the field; the others are still printed.

The backlog is not imported: write it by hand. The command changes nothing in a cluster.`,
		Example: `  ebbtide calendar import -f scaledjob.yaml > policy.yaml
  ebbtide calendar import --namespace scan
  kubectl get scaledobjects,cronjobs -A -o yaml | ebbtide calendar import -f - -o json`,
		Args: cobra.NoArgs,
	}
	cluster.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "filename", "f", nil, "YAML file to read instead of a cluster; - for standard input; repeat for several")
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace to read; default: all")
	flags.StringVar(&from, "from", "", "first day of the compared year, such as 2026-01-01; default: today")
	flags.StringVarP(&format, "output", "o", "yaml", "output format: yaml, json")
	if err := errors.Join(cmd.MarkFlagFilename("filename", "yaml", "yml"),
		cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))); err != nil {
		panic(err) // the flags are there
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if format != "yaml" && format != "json" {
			return fmt.Errorf("--output %q: must be one of yaml, json", format)
		}
		begin := time.Now()
		if from != "" {
			var err error
			if begin, err = time.Parse(time.DateOnly, from); err != nil {
				return fmt.Errorf("--from %q must be a date such as 2026-01-01", from)
			}
		}
		objects, err := gatherSchedules(cmd, files, &cluster, namespace)
		if err != nil {
			return err
		}
		imported, wrong := calendarimport.Import(objects, begin)
		return errors.Join(printImported(cmd, imported, format), wrong)
	}
	return cmd
}

func gatherSchedules(cmd *cobra.Command, files []string, cluster *clusterFlags, namespace string) ([]doctor.Object, error) {
	var objects []doctor.Object
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("--filename: %w", err)
		}
		parsed, err := doctor.Parse(file, text)
		if err != nil {
			return nil, err
		}
		for _, o := range parsed {
			if namespace == "" || o.GetNamespace() == "" || o.GetNamespace() == namespace {
				objects = append(objects, o)
			}
		}
	}
	if len(files) > 0 {
		return objects, nil
	}
	config, err := cluster.config()
	if err != nil {
		return nil, fmt.Errorf("%w (to read files instead: -f)", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, _, err = doctor.ListKinds(cmd.Context(), client, calendarimport.Kinds(), namespace, func(kind schema.GroupVersionResource, err error) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s are not looked at: %v\n", kind.Resource, err)
	})
	return objects, err
}

func printImported(cmd *cobra.Command, imported []calendarimport.Imported, format string) error {
	w := cmd.OutOrStdout()
	if format == "yaml" {
		for i := range imported {
			if i > 0 {
				fmt.Fprintln(w, "---")
			}
			fmt.Fprint(w, imported[i].YAML())
		}
		return nil
	}
	list := []importedCalendar{}
	for _, one := range imported {
		check := importCheck{one.Check.From, one.Check.To, one.Check.Minutes, one.Check.Same, []importDifference{}}
		for _, d := range one.Check.Differences {
			check.Differences = append(check.Differences, importDifference{d.From, d.To, d.Original, d.Calendar, string(d.Reason)})
		}
		list = append(list, importedCalendar{one.Source, one.Policy, one.Notes, one.PeriodNotes, check})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

var formats = []string{"table", "json", "yaml", "name"}

// outputFlag adds -o to a read command.
func outputFlag(cmd *cobra.Command) *string {
	o := cmd.Flags().StringP("output", "o", "table", "format: table, json, yaml or name")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// A listing is what a read command found: value for json and yaml, rows for
// the table, of which the first cell is the name.
type listing struct {
	value any
	head  []string
	rows  [][]string
}

// print writes a listing in a format.
func (l listing) print(w io.Writer, format string) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(l.value)
	case "yaml":
		b, err := json.Marshal(l.value) // the JSON names are the names
		if err != nil {
			return err
		}
		b, err = yaml.JSONToYAML(b)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	case "name":
		for _, r := range l.rows {
			fmt.Fprintln(w, r[0])
		}
		return nil
	case "table":
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(tw, strings.Join(l.head, "\t"))
		for _, r := range l.rows {
			fmt.Fprintln(tw, strings.Join(r, "\t"))
		}
		return tw.Flush()
	}
	return usage("use one of "+strings.Join(formats, ", "), "%q is no output format", format)
}

// checkFormat refuses an unknown format before anything is asked of a server.
func checkFormat(format string) error {
	if slices.Contains(formats, format) {
		return nil
	}
	return usage("use one of "+strings.Join(formats, ", "), "%q is no output format", format)
}

// clean makes foreign text safe for a terminal: control characters and escape
// sequences from inside a workspace must not move the administrator's cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// cleanLines is clean, keeping line ends and tabs.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

func ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	d := time.Since(*t)
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

func optional(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

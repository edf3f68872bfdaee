package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

// rulesOnServer are the commands about the rules of a server.
func rulesOnServer(s *streams) []*cobra.Command {
	return []*cobra.Command{
		rulesStatus(s), rulesFindings(s), rulesShadow(s),
		rulesChange(s, "activate", "Put the rules on trial in force on the server", func(r *remote, cmd *cobra.Command) (*client.RuleStatus, int, []byte, error) {
			a, err := r.api.ActivateRulesWithResponse(cmd.Context())
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
		rulesChange(s, "rollback", "Put the rules in force that were before the last activation", func(r *remote, cmd *cobra.Command) (*client.RuleStatus, int, []byte, error) {
			a, err := r.api.RollbackRulesWithResponse(cmd.Context())
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
		rulesChange(s, "reload", "Have the server read its rule files now", func(r *remote, cmd *cobra.Command) (*client.RuleStatus, int, []byte, error) {
			a, err := r.api.ReloadRulesWithResponse(cmd.Context())
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
	}
}

func rulesStatus(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Which rules are in force on the server, and how those on trial differ", Args: cobra.NoArgs,
	}
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.FilterStatusWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200, head: []string{"SET", "HASH", "RULE", "ACTIVE", "TRIAL"}}
		l.rows = append(l.rows, []string{"in force", a.JSON200.Hash, strconv.FormatInt(a.JSON200.Rules, 10) + " rules", "", ""})
		if t := a.JSON200.Trial; t != nil {
			l.rows = append(l.rows, []string{"on trial", t.Hash, "since " + t.Since.Local().Format(time.DateTime), "", ""})
			for _, d := range t.Differences {
				l.rows = append(l.rows, []string{"", "", d.Rule, strconv.FormatInt(d.Active, 10), strconv.FormatInt(d.Trial, 10)})
			}
		}
		if p := optional(a.JSON200.Problem); p != "" {
			fmt.Fprintf(s.err, "The newest rule files are not in force: %s\n", p)
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func rulesFindings(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "findings", Short: "What the server's filter found: who, which rule, where, how often", Args: cobra.NoArgs,
		Long: "The found text itself is nowhere. SUM is the same for the same value; filter.allow in the configuration takes it.",
	}
	format := outputFlag(cmd)
	since := cmd.Flags().String("since", "", "RFC 3339 time, or an age like 2h")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		from, err := parseTime(*since)
		if err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListFindingsWithResponse(cmd.Context(), &client.ListFindingsParams{Since: from})
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Findings, head: []string{"RULE", "MODE", "USER", "WORKSPACE", "ROUTE", "DIRECTION", "COUNT", "VALUES", "LAST", "SUM"}}
		for _, f := range a.JSON200.Findings {
			direction, mode := "out", f.Mode
			if f.Input {
				direction = "in"
			}
			if f.Trial {
				mode = "trial"
			}
			l.rows = append(l.rows, []string{
				f.Rule, mode, f.User, f.Workspace, f.Route, direction, strconv.FormatInt(f.Count, 10),
				strconv.FormatInt(f.Values, 10), f.Last.Local().Format(time.DateTime), f.Sum,
			})
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func rulesShadow(s *streams) *cobra.Command {
	var end bool
	cmd := &cobra.Command{
		Use: "shadow FILE…", Short: "Run rule files on trial on the server: they are counted and do nothing",
		Long:    "The files come on top of the built-in rules and those of filter.rule_dirs, in place of what was activated before. bailey rules status shows how findings differ; then activate them, or end the trial.",
		Example: "  bailey rules shadow team.toml\n  bailey rules status\n  bailey rules activate\n  bailey rules shadow --end",
		RunE: func(cmd *cobra.Command, args []string) error {
			if end == (len(args) > 0) {
				return usage("give rule files, or --end alone", "nothing to put on trial")
			}
			r, err := connect()
			if err != nil {
				return err
			}
			if end {
				a, err := r.api.EndShadowWithResponse(cmd.Context())
				if err != nil {
					return unreachable(err)
				}
				if a.StatusCode() != http.StatusNoContent {
					return refusal(a.StatusCode(), a.Body)
				}
				fmt.Fprintln(s.err, "The trial is over; the rules in force are as they were.")
				return nil
			}
			body := client.ShadowInputBody{}
			for _, path := range args {
				text, err := os.ReadFile(path)
				if err != nil {
					return usage("name a rule file", "%v", err)
				}
				body.Files = append(body.Files, client.RuleFile{Name: filepath.Base(path), Text: string(text)})
			}
			a, err := r.api.ShadowRulesWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "On trial. See what they would find with: bailey rules status")
			return nil
		},
	}
	cmd.Flags().BoolVar(&end, "end", false, "end the trial without a change")
	return cmd
}

func rulesChange(s *streams, use, short string, do func(*remote, *cobra.Command) (*client.RuleStatus, int, []byte, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			status, code, body, err := do(r, cmd)
			if err != nil {
				return unreachable(err)
			}
			if status == nil {
				return refusal(code, body)
			}
			fmt.Fprintf(s.err, "In force: %d rules, %s\n", status.Rules, status.Hash)
			return nil
		},
	}
}

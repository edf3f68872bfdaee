package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/client"
)

func auditCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The audit journal: search, follow, verify"}
	cmd.AddCommand(auditMine(s), auditSearch(s), auditTail(s), auditVerify(s))
	return cmd
}

// auditFlags are the filter's flags.
func auditFlags(cmd *cobra.Command, p *client.SearchAuditParams) func() error {
	f := cmd.Flags()
	actor := f.String("actor", "", "name or id of who did it")
	action := f.String("action", "", `an action ("session.signin"), or a prefix that ends in a dot ("workspace.")`)
	target := f.String("target", "", "name or id of what it was done to")
	outcome := f.String("outcome", "", "success, failure or refused")
	ip := f.String("ip", "", "address")
	since := f.String("since", "", "RFC 3339 time, or an age like 2h")
	until := f.String("until", "", "RFC 3339 time, or an age like 2h")
	limit := f.Int64("limit", 100, "the newest so many, up to 10000")
	return func() error {
		for _, s := range []struct {
			from *string
			to   **string
		}{{actor, &p.Actor}, {action, &p.Action}, {target, &p.Target}, {ip, &p.Ip}} {
			if *s.from != "" {
				*s.to = s.from
			}
		}
		if *outcome != "" {
			p.Outcome = new(client.SearchAuditParamsOutcome(*outcome))
		}
		p.Limit = limit
		var err error
		if p.Since, err = parseTime(*since); err != nil {
			return err
		}
		p.Until, err = parseTime(*until)
		return err
	}
}

func parseTime(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no time given is no filter
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return new(time.Now().Add(-d)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usage("write 2026-11-20T08:00:00Z, or an age like 2h", "%q is no time", text)
	}
	return &t, nil
}

func auditSearch(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "search", Short: "Events that match, oldest first", Args: cobra.NoArgs}
	format := outputFlag(cmd)
	p := &client.SearchAuditParams{}
	fill := auditFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		if err := fill(); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.SearchAuditWithResponse(cmd.Context(), p)
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Events, head: []string{"SEQ", "TIME", "ACTOR", "ACTION", "TARGET", "OUTCOME", "REASON", "IP"}}
		for _, e := range a.JSON200.Events {
			l.rows = append(l.rows, auditRow(e))
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func auditRow(e client.Event) []string {
	return []string{
		fmt.Sprint(e.Seq), e.Ts.Local().Format(time.DateTime), dash(optional(e.Actor.Name)), e.Action,
		dash(optional(e.Target.Name)), e.Outcome, dash(optional(e.Reason)), dash(optional(e.Actor.Ip)),
	}
}

func auditTail(s *streams) *cobra.Command {
	var follow bool
	var lines int64
	cmd := &cobra.Command{Use: "tail", Short: "The newest events, one JSON object a line", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().Int64VarP(&lines, "lines", "n", 20, "how many to begin with")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := connect()
		if err != nil {
			return err
		}
		p := &client.SearchAuditParams{Limit: &lines}
		for {
			a, err := r.api.SearchAuditWithResponse(cmd.Context(), p)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			for _, e := range a.JSON200.Events {
				b, err := json.Marshal(e)
				if err != nil {
					return err
				}
				fmt.Fprintf(s.out, "%s\n", b)
				p.After = new(e.Seq)
			}
			if !follow {
				return nil
			}
			p.Limit = new(int64(10000))
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	return cmd
}

func auditVerify(s *streams) *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check the journal's hash chain, offline; exit 3 when it is broken",
		Long: "Reads the journal on this machine and recomputes its chain. It finds changed, removed and reordered events. It cannot find that somebody with root rewrote the whole journal: keep copies elsewhere.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			report, err := audit.Verify(filepath.Join(state, "audit"))
			if err != nil {
				return &failure{code: exitFailure, msg: "read the audit journal", hint: "give --state DIR as the server has it, and run it as the server's user", err: err}
			}
			if !report.OK {
				fmt.Fprintf(s.err, "bailey: the audit journal is broken: %s\n", report.Break)
				return silentError(exitFindings)
			}
			fmt.Fprintf(s.out, "%d events in %d segments, %s to %s: the chain is whole.\n", report.Events, report.Segments,
				report.First.Local().Format(time.DateTime), report.Last.Local().Format(time.DateTime))
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "/var/lib/bailey", "the server's state folder")
	return cmd
}

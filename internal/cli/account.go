package cli

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

func accountCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Your own account: browsers signed in, everything that is open"}
	sessions := &cobra.Command{Use: "sessions", Short: "The browsers that are signed in as you"}
	ls := &cobra.Command{Use: "ls", Short: "List them", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListSessionsWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Sessions, head: []string{"ID", "FROM", "SEEN", "ENDS", "BROWSER"}}
		for _, x := range a.JSON200.Sessions {
			l.rows = append(l.rows, []string{x.Id, clean(x.Ip), ago(&x.SeenAt), x.ExpiresAt.Format(time.DateTime), dash(clean(x.UserAgent))})
		}
		return l.print(s.out, *format)
	}
	end := &cobra.Command{
		Use: "end ID", Short: "Sign one of them out", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.EndSessionWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "Signed out.")
			return nil
		},
	}
	sessions.AddCommand(ls, end)
	cmd.AddCommand(sessions, endAllCommand(s))
	return cmd
}

func endAllCommand(s *streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "end-all", Short: "End all of your access: browsers, tokens (this one too), SSH, open connections",
		Long: "End every session, token and open connection of yours within a second. Workspaces go on running.\n" +
			"You are signed out here as well; sign in again with bailey login.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "End all of your access, this token included?", r.p.User); err != nil {
				return err
			}
			a, err := r.api.EndEverythingWithResponse(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "All of your access has ended.")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func userEnd(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "end NAME", Short: "End all access of somebody: sessions, tokens, SSH, open connections", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.EndUserWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "All access of %s has ended. The account is open: they may sign in again.\n", args[0])
			return nil
		},
	}
}

func auditMine(s *streams) *cobra.Command {
	var limit int64
	cmd := &cobra.Command{Use: "mine", Short: "What was done by you, and to what is yours", Args: cobra.NoArgs}
	format := outputFlag(cmd)
	cmd.Flags().Int64Var(&limit, "limit", 100, "the newest so many, 1000 at most")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.MyEventsWithResponse(cmd.Context(), &client.MyEventsParams{Limit: &limit})
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Events, head: []string{"TIME", "WHO", "ACTION", "TARGET", "OUTCOME"}}
		for _, e := range a.JSON200.Events {
			target := optional(e.Target.Name)
			if target == "" {
				target = optional(e.Target.Id)
			}
			l.rows = append(l.rows, []string{
				e.Ts.Local().Format(time.DateTime), dash(clean(optional(e.Actor.Name))), e.Action, dash(clean(target)), e.Outcome,
			})
		}
		return l.print(s.out, *format)
	}
	return cmd
}

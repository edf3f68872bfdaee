package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

// groupCommand is for administrators, and for those who manage a group.
func groupCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", Short: "Who is in which group, and who manages it",
		Long: "Groups. A group begins with its first member and ends with its last.\n" +
			"Administrators change all of it; a group's managers add and remove its members, and see and stop their workspaces.",
	}
	ls := &cobra.Command{Use: "ls", Short: "List the groups that you may look into", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListGroupsWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Groups, head: []string{"NAME", "MEMBERS", "MANAGERS"}}
		for _, g := range a.JSON200.Groups {
			l.rows = append(l.rows, []string{g.Name, dash(strings.Join(g.Members, ",")), dash(strings.Join(g.Managers, ","))})
		}
		return l.print(s.out, *format)
	}
	cmd.AddCommand(ls,
		groupChange(s, "add GROUP USER", "Add somebody to a group", func(cmd *cobra.Command, r *remote, g, u string) (*client.Membership, int, []byte, error) {
			a, err := r.api.AddMemberWithResponse(cmd.Context(), g, u)
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
		groupChange(s, "rm GROUP USER", "Take somebody out of a group", func(cmd *cobra.Command, r *remote, g, u string) (*client.Membership, int, []byte, error) {
			a, err := r.api.RemoveMemberWithResponse(cmd.Context(), g, u)
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
		groupChange(s, "appoint GROUP USER", "Let somebody manage a group", func(cmd *cobra.Command, r *remote, g, u string) (*client.Membership, int, []byte, error) {
			a, err := r.api.AppointManagerWithResponse(cmd.Context(), g, u)
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}),
		groupChange(s, "dismiss GROUP USER", "Let somebody manage a group no more", func(cmd *cobra.Command, r *remote, g, u string) (*client.Membership, int, []byte, error) {
			a, err := r.api.DismissManagerWithResponse(cmd.Context(), g, u)
			if err != nil {
				return nil, 0, nil, err
			}
			return a.JSON200, a.StatusCode(), a.Body, nil
		}))
	return cmd
}

func groupChange(s *streams, use, short string, change func(*cobra.Command, *remote, string, string) (*client.Membership, int, []byte, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			m, status, body, err := change(cmd, r, args[0], args[1])
			if err != nil {
				return unreachable(err)
			}
			if m == nil {
				return refusal(status, body)
			}
			is := "is not in"
			if m.Member {
				is = "is in"
			}
			manages := "does not manage it"
			if m.Manager {
				manages = "manages it"
			}
			fmt.Fprintf(s.err, "%s %s %s and %s.\n", m.User, is, m.Group, manages)
			return nil
		},
	}
}

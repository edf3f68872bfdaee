package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

const scopesHelp = "The scopes: all, workspaces:read, workspaces:write, workspaces:open, ssh, account, groups, audit:read, admin:read, admin.\n" +
	"A token made with a token is no wider than that one, and ends with it."

// tokenFlags are what a new token can be limited to.
type tokenFlags struct {
	note       string
	days       int64
	scopes     []string
	workspaces []string
	networks   []string
}

func (f *tokenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.note, "note", "", "what it is for")
	cmd.Flags().Int64Var(&f.days, "days", 0, "lifetime, 365 at most; 0 means 90")
	cmd.Flags().StringSliceVar(&f.scopes, "scope", nil, "what it may be used for; may be given again, or separated by commas; none: everything")
	cmd.Flags().StringSliceVar(&f.workspaces, "workspace", nil, "name or id of the only workspaces that it is for")
	cmd.Flags().StringSliceVar(&f.networks, "from", nil, "networks or addresses that it may be used from, such as 10.1.0.0/16")
}

func (f *tokenFlags) body(ctx context.Context, r *remote) (client.CreateTokenInputBody, error) {
	b := client.CreateTokenInputBody{Note: f.note}
	if f.days != 0 {
		b.Days = &f.days
	}
	if len(f.scopes) > 0 {
		b.Scopes = &f.scopes
	}
	if len(f.networks) > 0 {
		b.Networks = &f.networks
	}
	var ids []string
	for _, name := range f.workspaces {
		a, err := r.api.GetWorkspaceWithResponse(ctx, name)
		if err != nil {
			return b, unreachable(err)
		}
		if a.JSON200 == nil {
			return b, refusal(a.StatusCode(), a.Body)
		}
		ids = append(ids, a.JSON200.Id)
	}
	if ids != nil {
		b.Workspaces = &ids
	}
	return b, nil
}

// printToken writes the secret to stdout and everything else to stderr.
func (s *streams) printToken(t *client.NewToken) error {
	fmt.Fprintf(s.err, "Made token %s for %s (%s) until %s. It is not shown again:\n",
		t.Id, clean(t.User), strings.Join(t.Scopes, ", "), t.ExpiresAt.Local().Format("2 Jan 2006"))
	_, err := fmt.Fprintln(s.out, t.Token)
	return err
}

func tokenListing(list []client.Token) listing {
	l := listing{value: list, head: []string{"ID", "NOTE", "SCOPES", "FROM", "USED", "EXPIRES"}}
	for _, t := range list {
		from := "everywhere"
		if t.Networks != nil {
			from = strings.Join(*t.Networks, ",")
		}
		used := "never"
		if t.UsedAt != nil {
			used = ago(t.UsedAt) + " from " + dash(optional(t.UsedIp))
		}
		scopes := strings.Join(t.Scopes, ",")
		if t.Workspaces != nil {
			scopes += fmt.Sprintf(" (%d workspaces)", len(*t.Workspaces))
		}
		l.rows = append(l.rows, []string{t.Id, dash(clean(t.Note)), scopes, from, used, t.ExpiresAt.Format(time.DateOnly)})
	}
	return l
}

func tokenCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Your API tokens", Long: "API tokens for programs.\n\n" + scopesHelp}
	var f tokenFlags
	create := &cobra.Command{
		Use: "create", Short: "Make a token; it is printed once, on stdout", Long: "Make a token; it is printed once, on stdout.\n\n" + scopesHelp,
		Example: "  bailey token create --note ci --scope workspaces:write,workspaces:open --from 10.1.0.0/16 --days 30",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			b, err := f.body(cmd.Context(), r)
			if err != nil {
				return err
			}
			a, err := r.api.CreateTokenWithResponse(cmd.Context(), b)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			return s.printToken(a.JSON200)
		},
	}
	f.add(create)
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
		a, err := r.api.ListTokensWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		return tokenListing(a.JSON200.Tokens).print(s.out, *format)
	}
	rm := &cobra.Command{
		Use: "rm ID", Short: "Void a token, and those made with it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.RevokeTokenWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "The token is void.")
			return nil
		},
	}
	cmd.AddCommand(create, ls, rm)
	return cmd
}

// adminTokenCommand is tokenCommand for service accounts.
func adminTokenCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens of service accounts"}
	var f tokenFlags
	create := &cobra.Command{
		Use: "create ACCOUNT", Short: "Make a token for a service account; it is printed once, on stdout", Long: "Make a token for a service account; it is printed once, on stdout.\n\n" + scopesHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			b, err := f.body(cmd.Context(), r)
			if err != nil {
				return err
			}
			a, err := r.api.CreateServiceTokenWithResponse(cmd.Context(), args[0], client.CreateServiceTokenInputBody(b))
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			return s.printToken(a.JSON200)
		},
	}
	f.add(create)
	ls := &cobra.Command{Use: "ls ACCOUNT", Short: "List them", Args: cobra.ExactArgs(1)}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListServiceTokensWithResponse(cmd.Context(), args[0])
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		return tokenListing(a.JSON200.Tokens).print(s.out, *format)
	}
	rm := &cobra.Command{
		Use: "rm ACCOUNT ID", Short: "Void one of them", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.RevokeServiceTokenWithResponse(cmd.Context(), args[0], args[1])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "The token is void.")
			return nil
		},
	}
	cmd.AddCommand(create, ls, rm)
	return cmd
}

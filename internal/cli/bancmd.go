package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

func banCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ban", Short: "Who is locked out",
		Long: `Whoever fails to sign in again and again is locked out for a while: a name from the
place where it failed, or a place that failed on many names. An administrator may
ban a network as well; nobody gets in from there then, not even with a session.`,
	}
	cmd.AddCommand(banList(s), banAdd(s), banLift(s))
	return cmd
}

func banRows(bans []client.Ban) (rows [][]string) {
	for _, b := range bans {
		rows = append(rows, []string{
			b.Id, string(b.Kind), b.Place, optional(b.User), optional(b.By), b.Until.Local().Format(time.DateTime), strconv.FormatInt(b.Repeated, 10),
		})
	}
	return rows
}

func banList(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "List locks and bans in force", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListBansWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Bans, head: []string{"ID", "KIND", "PLACE", "USER", "BY", "UNTIL", "TIMES"}, rows: banRows(a.JSON200.Bans)}
		return l.print(s.out, *format)
	}
	return ls
}

func banAdd(s *streams) *cobra.Command {
	var d time.Duration
	cmd := &cobra.Command{
		Use: "add NETWORK", Short: "Ban an address or a network from every door", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if d < time.Minute {
				return usage("write --for 1h, or 168h for a week", "a ban lasts a minute at least")
			}
			r, err := connect()
			if err != nil {
				return err
			}
			seconds := int64(d / time.Second)
			a, err := r.api.AddBanWithResponse(cmd.Context(), client.AddBanInputBody{Network: args[0], Seconds: &seconds})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Banned %s until %s. Lift it with: bailey admin ban lift %s\n", a.JSON201.Place, a.JSON201.Until.Local().Format(time.DateTime), a.JSON201.Id)
			return nil
		},
	}
	cmd.Flags().DurationVar(&d, "for", 24*time.Hour, "how long: 1m to 8784h")
	return cmd
}

func banLift(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "lift ID|ADDRESS|NETWORK", Short: "Let somebody in again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.LiftBanWithResponse(cmd.Context(), client.LiftBanInputBody{What: args[0]})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			for _, b := range a.JSON200.Bans {
				of := b.Place
				if u := optional(b.User); u != "" {
					of = u + " from " + of
				}
				fmt.Fprintf(s.err, "Lifted the %s of %s.\n", b.Kind, of)
			}
			return nil
		},
	}
}

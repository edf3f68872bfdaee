package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/client"
)

// maxSecretFile is above what the server takes, so that the server's own words
// are seen.
const maxSecretFile = 36 << 10

func secretCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret", Short: "Values that the filter looks for and workspaces have as files",
		Long: `Registered secrets are found in all that leaves a workspace, in whatever encoding,
and replaced by [REDACTED:secret:NAME]. Workspaces that start from then on have
the value as the file /run/secrets/NAME. Values are never shown again.`,
	}
	cmd.AddCommand(secretSet(s), secretList(s), secretRemove(s))
	return cmd
}

func secretSet(s *streams) *cobra.Command {
	var from, class, mode string
	var keepNewline bool
	cmd := &cobra.Command{
		Use: "set NAME --from-file FILE", Short: "Register a value, or give a secret another one", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return usage("give --from-file FILE, or - for stdin; an argument would be in the shell's history and in the list of processes", "no file was given")
			}
			value, err := readValue(from, s.in)
			if err != nil {
				return err
			}
			if !keepNewline {
				value = trimNewline(value)
			}
			r, err := connect()
			if err != nil {
				return err
			}
			body := client.SetSecretInputBody{Value: value}
			if class != "" {
				body.Class = &class
			}
			if mode != "" {
				m := client.SetSecretInputBodyMode(mode)
				if !m.Valid() {
					return usage("take one of "+strings.Join(bailey.SecretModes, ", "), "--mode %s: there is no such mode", mode)
				}
				body.Mode = &m
			}
			a, err := r.api.SetSecretWithResponse(cmd.Context(), args[0], body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			of := "every class"
			if c := optional(a.JSON200.Class); c != "" {
				of = "class " + c
			}
			if a.JSON200.Mode != nil {
				of += ", mode " + string(*a.JSON200.Mode)
			}
			fmt.Fprintf(s.err, "Registered %s (%d bytes, %s). Workspaces that start from now on have it as /run/secrets/%s.\n", a.JSON200.Name, a.JSON200.Bytes, of, a.JSON200.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from-file", "", `file that holds the value ("-" for stdin)`)
	cmd.Flags().StringVar(&class, "class", "", "only workspaces of this class have it; the filter looks for it everywhere")
	cmd.Flags().StringVar(&mode, "mode", "", "what the filter does about it: "+strings.Join(bailey.SecretModes, ", ")+" (default: what it did before; for a new one, as its settings say)")
	cmd.Flags().BoolVar(&keepNewline, "keep-newline", false, "the newline at the end of the file belongs to the value")
	return cmd
}

func readValue(path string, in io.Reader) (value []byte, err error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usage("name a file that you may read", "%v", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = f
	}
	value, err = io.ReadAll(io.LimitReader(in, maxSecretFile))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	return value, nil
}

// trimNewline takes off the line end that editors and echo add.
func trimNewline(value []byte) []byte {
	if n := len(value); n > 0 && value[n-1] == '\n' {
		value = value[:n-1]
	}
	if n := len(value); n > 0 && value[n-1] == '\r' {
		value = value[:n-1]
	}
	return value
}

func secretList(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "List them, without their values", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListSecretsWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Secrets, head: []string{"NAME", "CLASS", "MODE", "BYTES", "SET"}}
		for _, k := range a.JSON200.Secrets {
			class := optional(k.Class)
			if class == "" {
				class = "all"
			}
			mode := "-"
			if k.Mode != nil {
				mode = string(*k.Mode)
			}
			l.rows = append(l.rows, []string{k.Name, class, mode, strconv.FormatInt(k.Bytes, 10), k.CreatedAt.Local().Format(time.DateTime)})
		}
		return l.print(s.out, *format)
	}
	return ls
}

func secretRemove(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a value: the filter no longer looks for it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.RemoveSecretWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Forgot %s. Workspaces that run keep their file until they stop.\n", args[0])
			return nil
		},
	}
}

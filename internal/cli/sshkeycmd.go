package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/sshkey"
)

func sshKeyCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ssh-key", Short: "The SSH keys that sign you in",
		Long: "Add, list and remove the public keys that sign you in with ssh. Removing one ends its connections at once.",
	}
	cmd.AddCommand(sshKeyAdd(s), sshKeyLs(s), sshKeyRm(s), sshKeyRename(s))
	return cmd
}

// defaultKeys are the files that ssh offers by itself, the best first.
var defaultKeys = []string{"id_ed25519.pub", "id_ed25519_sk.pub", "id_ecdsa.pub", "id_ecdsa_sk.pub", "id_rsa.pub"}

func sshKeyAdd(s *streams) *cobra.Command {
	var name string
	var days int64
	cmd := &cobra.Command{
		Use: "add [FILE.pub]", Short: "Add a public key", Args: cobra.MaximumNArgs(1),
		Long: "Add a public key from a file, from standard input (-), or the first of those in ~/.ssh that ssh offers by itself.\n" +
			"Only public keys leave your machine: a private one is refused before anything is sent.",
		Example: "  bailey ssh-key add\n  bailey ssh-key add ~/.ssh/work.pub --name work\n  ssh-add -L | head -1 | bailey ssh-key add -",
		RunE: func(cmd *cobra.Command, args []string) error {
			from := ""
			if len(args) == 1 {
				from = args[0]
			}
			file, text, err := s.publicKey(from)
			if err != nil {
				return err
			}
			key, err := sshkey.ParseLine(text)
			if err != nil {
				return err
			}
			line, err := sshkey.Line(key.Wire, key.Comment) // the key and nothing else
			if err != nil {
				return err
			}
			r, err := connect()
			if err != nil {
				return err
			}
			body := client.AddSSHKeyInputBody{Key: line}
			if name != "" {
				body.Name = &name
			}
			if days != 0 {
				body.Days = &days
			}
			a, err := r.api.AddSSHKeyWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			end := ""
			if a.JSON201.ExpiresAt != nil {
				end = ", until " + a.JSON201.ExpiresAt.Local().Format("2 Jan 2006")
			}
			fmt.Fprintf(s.err, "Added %s from %s%s.\n", clean(a.JSON201.Name), file, end)
			fmt.Fprintln(s.out, a.JSON201.Fingerprint)
			return nil
		},
	}
	cmd.Flags().StringVarP(&name, "name", "n", "", "what to call it; from the key's comment when empty")
	cmd.Flags().Int64Var(&days, "days", 0, "how long it lives; a year when 0, and never longer than the token you are signed in with")
	return cmd
}

// publicKey returns the text of a public key and where it is from.
func (s *streams) publicKey(from string) (file, text string, err error) {
	switch from {
	case "-":
		b, err := io.ReadAll(io.LimitReader(s.in, sshkey.MaxLine+1))
		if err != nil {
			return "", "", fmt.Errorf("read the key: %w", err)
		}
		return "standard input", string(b), nil
	case "":
		dir, err := sshDir(false)
		if err != nil {
			return "", "", err
		}
		for _, name := range defaultKeys {
			b, err := readFile(filepath.Join(dir, name))
			if err != nil {
				return "", "", err
			}
			if b != nil {
				return "~/.ssh/" + name, string(b), nil
			}
		}
		others, _ := filepath.Glob(filepath.Join(dir, "*.pub")) // the pattern is well-formed
		if len(others) > 0 {
			return "", "", usage("name the file: bailey ssh-key add "+others[0], "there are keys in ~/.ssh, but none that ssh offers by itself")
		}
		return "", "", &failure{code: exitNotFound, msg: "there is no public key in ~/.ssh", hint: `make one with "ssh-keygen -t ed25519", or get a certificate for a day with "bailey ssh login"`}
	}
	f, err := os.Open(from)
	if err != nil {
		return "", "", &failure{code: exitUsage, msg: "read the key", err: err}
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, sshkey.MaxLine+1))
	if err != nil {
		return "", "", &failure{code: exitUsage, msg: "read the key", err: err}
	}
	return from, string(b), nil
}

func sshKeyLs(s *streams) *cobra.Command {
	var user string
	cmd := &cobra.Command{Use: "ls", Short: "List your keys", Args: cobra.NoArgs}
	format := outputFlag(cmd)
	cmd.Flags().StringVar(&user, "user", "", "somebody else's, for administrators and auditors")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		keys, err := r.keysOf(cmd.Context(), user)
		if err != nil {
			return err
		}
		l := listing{value: keys, head: []string{"NAME", "TYPE", "FINGERPRINT", "EXPIRES", "USED", "FROM"}}
		for _, k := range keys {
			l.rows = append(l.rows, []string{clean(k.Name), clean(k.Type), clean(k.Fingerprint), day(k.ExpiresAt), ago(k.UsedAt), dash(optional(k.UsedFrom))})
			if note := optional(k.Reminder); note != "" {
				fmt.Fprintf(s.err, "%s %s\n", clean(k.Name), clean(note))
			}
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func day(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "never"
	}
	return t.Local().Format("2006-01-02")
}

// findKey finds one of the account's keys by name, id or fingerprint.
func (r *remote) findKey(ctx context.Context, user, ref string) (client.SSHKey, error) {
	keys, err := r.keysOf(ctx, user)
	if err != nil {
		return client.SSHKey{}, err
	}
	i := slices.IndexFunc(keys, func(k client.SSHKey) bool { return k.Name == ref || k.Id == ref || k.Fingerprint == ref })
	if i < 0 {
		return client.SSHKey{}, &failure{code: exitNotFound, msg: "there is no SSH key " + clean(ref), hint: "bailey ssh-key ls lists them by name"}
	}
	return keys[i], nil
}

func sshKeyRm(s *streams) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Remove a key and end its connections", Args: cobra.ExactArgs(1),
		Long: "Remove a key, by its name, id or fingerprint. Connections that were made with it end at once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			k, err := r.findKey(cmd.Context(), user, args[0])
			if err != nil {
				return err
			}
			status, body := 0, []byte(nil)
			if user != "" {
				a, err := r.api.RemoveUserSSHKeyWithResponse(cmd.Context(), user, k.Id)
				if err != nil {
					return unreachable(err)
				}
				status, body = a.StatusCode(), a.Body
			} else {
				a, err := r.api.RemoveSSHKeyWithResponse(cmd.Context(), k.Id)
				if err != nil {
					return unreachable(err)
				}
				status, body = a.StatusCode(), a.Body
			}
			if status != http.StatusNoContent {
				return refusal(status, body)
			}
			fmt.Fprintf(s.err, "Removed %s. Its connections have ended.\n", clean(k.Name))
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "somebody else's, for administrators")
	return cmd
}

func sshKeyRename(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "rename NAME NEW", Short: "Call a key something else", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			k, err := r.findKey(cmd.Context(), "", args[0])
			if err != nil {
				return err
			}
			a, err := r.api.RenameSSHKeyWithResponse(cmd.Context(), k.Id, client.RenameSSHKeyInputBody{Name: args[1]})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "%s is called %s now.\n", clean(k.Name), clean(a.JSON200.Name))
			return nil
		},
	}
}

// sshCertCommand lists and revokes certificates; "bailey ssh login" gets them.
func sshCertCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "ssh-cert", Short: `The SSH certificates that "bailey ssh login" got you`}
	var user string
	ls := &cobra.Command{Use: "ls", Short: "List those that have not expired", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.Flags().StringVar(&user, "user", "", "somebody else's, for administrators and auditors")
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		certs, err := r.certificatesOf(cmd.Context(), user)
		if err != nil {
			return err
		}
		l := listing{value: certs, head: []string{"SERIAL", "FINGERPRINT", "EXPIRES", "USED", "FROM", "STATE"}}
		for _, c := range certs {
			state := "valid"
			if c.RevokedAt != nil {
				state = "revoked"
			}
			l.rows = append(l.rows, []string{clean(c.Serial), clean(c.Fingerprint), c.ExpiresAt.Local().Format("2006-01-02 15:04"), ago(c.UsedAt), dash(optional(c.UsedFrom)), state})
		}
		return l.print(s.out, *format)
	}
	cmd.AddCommand(ls, sshCertRevoke(s))
	return cmd
}

func (r *remote) certificatesOf(ctx context.Context, user string) ([]client.SSHCertificate, error) {
	if user != "" {
		a, err := r.api.ListUserSSHCertificatesWithResponse(ctx, user)
		if err != nil {
			return nil, unreachable(err)
		}
		if a.JSON200 == nil {
			return nil, refusal(a.StatusCode(), a.Body)
		}
		return a.JSON200.Certificates, nil
	}
	a, err := r.api.ListSSHCertificatesWithResponse(ctx)
	if err != nil {
		return nil, unreachable(err)
	}
	if a.JSON200 == nil {
		return nil, refusal(a.StatusCode(), a.Body)
	}
	return a.JSON200.Certificates, nil
}

func sshCertRevoke(s *streams) *cobra.Command {
	var user string
	var all bool
	cmd := &cobra.Command{
		Use: "revoke [SERIAL]", Short: "Revoke a certificate, or all, and end their connections", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) || user != "" && !all {
				return usage("bailey ssh-cert revoke SERIAL, or --all; of somebody else with --user NAME --all", "name one certificate, or --all")
			}
			r, err := connect()
			if err != nil {
				return err
			}
			status, body, err := r.revokeCertificates(cmd.Context(), user, strings.Join(args, ""))
			if err != nil {
				return unreachable(err)
			}
			if status != http.StatusNoContent {
				return refusal(status, body)
			}
			fmt.Fprintln(s.err, "Revoked. Connections that were made with it have ended.")
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoke all")
	cmd.Flags().StringVar(&user, "user", "", "somebody else's, for administrators")
	return cmd
}

func (r *remote) revokeCertificates(ctx context.Context, user, serial string) (int, []byte, error) {
	switch {
	case user != "":
		a, err := r.api.RevokeUserSSHCertificatesWithResponse(ctx, user)
		if err != nil {
			return 0, nil, err
		}
		return a.StatusCode(), a.Body, nil
	case serial != "":
		a, err := r.api.RevokeSSHCertificateWithResponse(ctx, serial)
		if err != nil {
			return 0, nil, err
		}
		return a.StatusCode(), a.Body, nil
	}
	a, err := r.api.RevokeSSHCertificatesWithResponse(ctx)
	if err != nil {
		return 0, nil, err
	}
	return a.StatusCode(), a.Body, nil
}

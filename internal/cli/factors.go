package cli

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/secret"
)

// codes says what was typed: six digits are an app's code, anything else is a
// recovery code.
func codes(typed secret.Value) (totp, recovery *string) {
	text := strings.TrimSpace(typed.Reveal())
	digits := strings.ReplaceAll(text, " ", "")
	switch {
	case text == "":
		return nil, nil
	case len(digits) == 6 && strings.Trim(digits, "0123456789") == "":
		return &digits, nil
	}
	return nil, &text
}

// code asks a person for a second factor.
func (s *streams) code() (secret.Value, error) {
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return secret.Value{}, &failure{
			code: exitSignIn, msg: "a second factor is needed and there is no terminal to ask on",
			hint: "give --otp CODE with a code of your authenticator app or a recovery code; or sign in with bailey login URL, without --user: the browser takes passkeys, too",
		}
	}
	return s.hidden(f, "Code of your authenticator app, or a recovery code: ")
}

// A proof is how somebody shows again who they are when the server asks.
type proof struct{ otp, passwordFile string }

func (p *proof) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&p.otp, "otp", "", "a code of your authenticator app, or a recovery code, when a fresh proof is asked for; it counts once")
	cmd.PersistentFlags().StringVar(&p.passwordFile, "password-file", "", `file that holds the password ("-" for stdin), for accounts without a second factor`)
}

// proven does something that takes a fresh proof of who somebody is: when the
// server asks for it, it is given, and the thing is done again.
func (s *streams) proven(ctx context.Context, r *remote, p *proof, do func() (status int, body []byte, err error)) error {
	status, body, err := do()
	if err == nil && problemCode(body) == "step_up" {
		if err := s.prove(ctx, r, p); err != nil {
			return err
		}
		status, body, err = do()
	}
	switch {
	case err != nil:
		return unreachable(err)
	case status >= http.StatusMultipleChoices:
		return refusal(status, body)
	}
	return nil
}

func (s *streams) prove(ctx context.Context, r *remote, p *proof) error {
	mine, err := r.api.ListFactorsWithResponse(ctx)
	if err != nil {
		return unreachable(err)
	}
	if mine.JSON200 == nil {
		return refusal(mine.StatusCode(), mine.Body)
	}
	body := client.StepUpInputBody{}
	if len(mine.JSON200.Factors) == 0 {
		fmt.Fprintln(s.err, "This takes a fresh proof of who you are: your password.")
		given, err := s.password(p.passwordFile)
		if err != nil {
			return err
		}
		body.Password = new(given.Reveal())
	} else {
		given := secret.New(p.otp)
		if given.Empty() {
			fmt.Fprintln(s.err, "This takes a fresh proof of who you are: your second factor.")
			if given, err = s.code(); err != nil {
				return err
			}
		}
		body.Totp, body.RecoveryCode = codes(given)
	}
	a, err := r.api.StepUpWithResponse(ctx, body)
	if err != nil {
		return unreachable(err)
	}
	if a.StatusCode() != http.StatusNoContent {
		return refusal(a.StatusCode(), a.Body)
	}
	return nil
}

func factorCommand(s *streams) *cobra.Command {
	p := &proof{}
	cmd := &cobra.Command{Use: "factor", Short: "Your second factors", Long: "Second factors: authenticator apps, passkeys and recovery codes. Passkeys are made in the browser.\nChanging them takes a fresh proof of who you are, and ends your other sessions."}
	p.add(cmd)
	cmd.AddCommand(factorList(s), factorAdd(s, p), factorRemove(s, p), factorCodes(s, p))
	return cmd
}

func factorListing(list []client.Factor, value any) listing {
	l := listing{value: value, head: []string{"ID", "KIND", "NAME", "ADDED", "USED"}}
	for _, f := range list {
		name := clean(f.Name)
		if f.Cloned != nil && *f.Cloned {
			name += " (may have been copied)"
		}
		used := "never"
		if f.UsedAt != nil {
			used = ago(f.UsedAt)
		}
		l.rows = append(l.rows, []string{f.Id, string(f.Kind), name, f.CreatedAt.Format(time.DateOnly), used})
	}
	return l
}

func factorList(s *streams) *cobra.Command {
	var format *string
	cmd := &cobra.Command{
		Use: "ls", Short: "Your second factors", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.ListFactorsWithResponse(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			if len(a.JSON200.Factors) > 0 {
				fmt.Fprintf(s.err, "%d recovery codes are left.\n", a.JSON200.RecoveryCodes)
			} else if a.JSON200.Required {
				fmt.Fprintln(s.err, "Your account must have a second factor at the next sign-in: bailey factor add")
			}
			return factorListing(a.JSON200.Factors, a.JSON200).print(s.out, *format)
		},
	}
	format = outputFlag(cmd)
	return cmd
}

func factorAdd(s *streams, p *proof) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "add", Short: "Set up an authenticator app", Args: cobra.NoArgs,
		Long: "Shows a secret for an authenticator app, and reads the code that the app then shows: from the terminal, or one line of stdin.\n" +
			"With your first factor there are ten recovery codes, on stdout. Passkeys are made on the account page.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			var offer *client.OfferOutputBody
			err = s.proven(ctx, r, p, func() (int, []byte, error) {
				a, err := r.api.OfferFactorWithResponse(ctx)
				if err != nil {
					return 0, nil, err
				}
				offer = a.JSON200
				return a.StatusCode(), a.Body, nil
			})
			if err != nil {
				return err
			}
			if offer == nil {
				return &failure{code: exitFailure, msg: "the server offered nothing", hint: "is it a bailey server?"}
			}
			fmt.Fprintf(s.err, "Add this to your authenticator app, as letters or as a link:\n  %s\n  %s\nCode that the app shows now: ", clean(offer.Secret), clean(offer.Uri))
			code, err := bufio.NewReader(s.in).ReadString('\n')
			if err != nil && code == "" {
				return usage("type the six digits that the app shows", "no code was given")
			}
			fmt.Fprintln(s.err)
			a, err := r.api.AddFactorWithResponse(ctx, client.AddFactorInputBody{Name: &name, Note: offer.Note, Code: strings.TrimSpace(code)})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "Set up. Signing in takes a code from now on.")
			return s.printCodes(a.JSON201.RecoveryCodes)
		},
	}
	cmd.Flags().StringVar(&name, "name", "authenticator app", "what to call it")
	return cmd
}

func (s *streams) printCodes(codes []string) error {
	if len(codes) == 0 {
		return nil
	}
	fmt.Fprintln(s.err, "Recovery codes: each stands in once for your second factor. They are not shown again.")
	for _, c := range codes {
		if _, err := fmt.Fprintln(s.out, c); err != nil {
			return err
		}
	}
	return nil
}

func factorRemove(s *streams, p *proof) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm ID|NAME", Short: "Remove one of your second factors", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			mine, err := r.api.ListFactorsWithResponse(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if mine.JSON200 == nil {
				return refusal(mine.StatusCode(), mine.Body)
			}
			id, found := args[0], 0
			for _, f := range mine.JSON200.Factors {
				if f.Id == args[0] || f.Name == args[0] {
					id, found = f.Id, found+1
				}
			}
			if found > 1 {
				return usage("give the id: bailey factor ls", "%d of your second factors are called %q", found, args[0])
			}
			if err := s.confirm(yes, "Remove the second factor "+clean(args[0])+"?", clean(args[0])); err != nil {
				return err
			}
			err = s.proven(cmd.Context(), r, p, func() (int, []byte, error) {
				a, err := r.api.RemoveFactorWithResponse(cmd.Context(), id)
				if err != nil {
					return 0, nil, err
				}
				return a.StatusCode(), a.Body, nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(s.err, "Removed. Your other sessions have ended.")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func factorCodes(s *streams, p *proof) *cobra.Command {
	return &cobra.Command{
		Use: "codes", Short: "Make your recovery codes anew; the old ones are void", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			var fresh []string
			err = s.proven(cmd.Context(), r, p, func() (int, []byte, error) {
				a, err := r.api.NewRecoveryCodesWithResponse(cmd.Context())
				if err != nil {
					return 0, nil, err
				}
				if a.JSON200 != nil {
					fresh = a.JSON200.RecoveryCodes
				}
				return a.StatusCode(), a.Body, nil
			})
			if err != nil {
				return err
			}
			return s.printCodes(fresh)
		},
	}
}

// userFactors is an administrator's look at somebody's second factors, and the
// way out for whoever lost them.
func userFactors(s *streams) *cobra.Command {
	p := &proof{}
	cmd := &cobra.Command{Use: "factors", Short: "Somebody's second factors"}
	p.add(cmd)
	cmd.AddCommand(userFactorList(s), userFactorReset(s, p))
	return cmd
}

func userFactorList(s *streams) *cobra.Command {
	var format *string
	cmd := &cobra.Command{
		Use: "ls NAME", Short: "Which there are, when they were used", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.ListUserFactorsWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, strconv.FormatInt(a.JSON200.RecoveryCodes, 10)+" recovery codes are left.")
			return factorListing(a.JSON200.Factors, a.JSON200).print(s.out, *format)
		},
	}
	format = outputFlag(cmd)
	return cmd
}

func userFactorReset(s *streams, p *proof) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "reset NAME", Short: "Remove all second factors of somebody who lost them", Args: cobra.ExactArgs(1),
		Long: "Removes authenticator apps, passkeys and recovery codes of an account, ends its sessions and voids its tokens.\n" +
			"Its owner is told at the next sign-in. It takes a fresh proof of who you are.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "Remove all second factors of "+clean(args[0])+"? Be sure that it is really them who asked.", clean(args[0])); err != nil {
				return err
			}
			err = s.proven(cmd.Context(), r, p, func() (int, []byte, error) {
				a, err := r.api.ResetFactorsWithResponse(cmd.Context(), args[0])
				if err != nil {
					return 0, nil, err
				}
				return a.StatusCode(), a.Body, nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(s.err, "Removed the second factors of %s.\n", clean(args[0]))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

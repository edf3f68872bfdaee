package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/secret"
)

func loginCommand(s *streams) *cobra.Command {
	var user, passwordFile, otp, caFile, fingerprint string
	var scopes []string
	cmd := &cobra.Command{
		Use:   "login URL",
		Short: "Sign in to a server and remember it",
		Long: "Sign in and keep an API token in your profile (mode 0600). It shows a code, which you type at the console in\n" +
			"a browser where you are signed in. With --user it asks for the password instead, and for a second factor if you have one.\n" +
			"A server with its own CA is trusted by --ca FILE or by --fingerprint, both of which it prints at start.",
		Example: "  bailey login https://hub.example.org:8443\n  bailey login https://10.0.0.5:8443 --user alice --fingerprint SHA256:AB:CD:…",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := profile{URL: strings.TrimSuffix(args[0], "/"), Fingerprint: fingerprint, User: user}
			if !strings.Contains(p.URL, "://") {
				p.URL = "https://" + p.URL
			}
			if caFile != "" && fingerprint != "" {
				return usage("one of the two is enough", "--ca and --fingerprint were both given")
			}
			if caFile != "" {
				pem, err := certificates(caFile)
				if err != nil {
					return err
				}
				p.CA = pem
			}
			if user == "" && passwordFile == "" {
				if otp != "" {
					return usage("leave it out: the browser asks for it; or give --user", "--otp is for signing in with a password")
				}
				return s.loginByDevice(cmd.Context(), p, scopes)
			}
			if len(scopes) > 0 {
				return usage("leave out --user", "--scope is for signing in by a code")
			}
			var err error
			if p.User, err = s.ask(p.User, "Name: "); err != nil {
				return err
			}
			password, err := s.password(passwordFile)
			if err != nil {
				return err
			}
			return s.login(cmd.Context(), p, password, secret.New(otp))
		},
	}
	cmd.Flags().StringVarP(&user, "user", "u", "", "your name, to sign in with a password instead of a code")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what the token is for; none: everything that you may")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", `file that holds the password ("-" for stdin); asked for when empty`)
	cmd.Flags().StringVar(&otp, "otp", "", "with --user: a code of your authenticator app, or a recovery code; it counts once. Asked for when one is needed")
	cmd.Flags().StringVar(&caFile, "ca", "", "PEM file of the CA that signed the server's certificate")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the server's CA or certificate")
	return cmd
}

func (s *streams) login(ctx context.Context, p profile, password, code secret.Value) error {
	r, err := p.connect()
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	note := "cli"
	if host != "" {
		note = "cli on " + host
	}
	body := client.SignInInputBody{User: p.User, Password: password.Reveal(), Note: &note}
	body.Totp, body.RecoveryCode = codes(code)
	a, err := r.api.SignInForTokenWithResponse(ctx, body)
	if err == nil && code.Empty() && problemCode(a.Body) == "second_factor" {
		if code, err = s.code(); err != nil {
			return err
		}
		body.Totp, body.RecoveryCode = codes(code)
		a, err = r.api.SignInForTokenWithResponse(ctx, body)
	}
	if err != nil {
		return unreachable(err)
	}
	if a.StatusCode() != http.StatusOK || a.JSON200 == nil {
		return refusal(a.StatusCode(), a.Body)
	}
	p.Token, p.User = a.JSON200.Token, a.JSON200.User
	path, err := p.save()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "Signed in to %s as %s until %s.\nThe token is in %s.\n", p.URL, p.User, a.JSON200.ExpiresAt.Local().Format("2 Jan 2006"), path)
	return nil
}

// loginByDevice signs in by a code that is approved in a browser.
func (s *streams) loginByDevice(ctx context.Context, p profile, scopes []string) error {
	grant, err := s.deviceLogin(ctx, p, scopes...)
	if err != nil {
		return err
	}
	p.Token, p.User = grant.AccessToken, grant.User
	path, err := p.save()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "Signed in to %s as %s until %s.\nThe token is in %s.\n", p.URL, p.User, grant.ExpiresAt.Local().Format("2 Jan 2006"), path)
	return nil
}

// ask returns have, or asks a person for it.
func (s *streams) ask(have, prompt string) (string, error) {
	if have != "" {
		return have, nil
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", usage("give --user NAME", "no name was given and there is no terminal to ask on")
	}
	fmt.Fprint(s.err, prompt)
	var name string
	if _, err := fmt.Fscanln(f, &name); err != nil {
		return "", usage("", "no name was given")
	}
	return name, nil
}

// password reads the password from a file or, without echo, from a person. It
// is never an argument: arguments stand in the process list.
func (s *streams) password(file string) (secret.Value, error) {
	if file != "" {
		return readSecretFile(file, s.in)
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return secret.Value{}, usage("give --password-file FILE, or - for stdin", "no password was given and there is no terminal to ask on")
	}
	return s.hidden(f, "Password: ")
}

// hidden asks for a line on a terminal without echo.
func (s *streams) hidden(f *os.File, prompt string) (secret.Value, error) {
	fmt.Fprint(s.err, prompt)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(s.err)
	if err != nil {
		return secret.Value{}, fmt.Errorf("read from the terminal: %w", err)
	}
	return secret.New(string(b)), nil
}

func logoutCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Void the stored token and forget the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			if id, _, ok := strings.Cut(strings.TrimPrefix(r.p.Token, "bly_"), "_"); ok {
				a, err := r.api.RevokeTokenWithResponse(ctx, id)
				if err != nil {
					fmt.Fprintf(s.err, "The server did not answer; the token lives until it expires. (%v)\n", err)
				} else if a.StatusCode() >= http.StatusMultipleChoices && a.StatusCode() != http.StatusUnauthorized && a.StatusCode() != http.StatusNotFound {
					return refusal(a.StatusCode(), a.Body)
				}
			}
			path, err := profilePath()
			if err != nil {
				return err
			}
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("forget the server: %w", err)
			}
			fmt.Fprintln(s.err, "Signed out.")
			return nil
		},
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/password"
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

func (s *streams) codeFile(file string) (secret.Value, error) {
	if file == "" {
		return secret.Value{}, nil
	}
	return readSecretFile(file, s.in)
}

// code asks a person for a second factor.
func (s *streams) code(in io.Reader) (secret.Value, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return secret.Value{}, &failure{code: exitSignIn, msg: "a second factor is needed and there is no terminal to ask on", hint: "give --totp-file FILE with a code of your authenticator app; an account with passkeys alone makes a token on the account page"}
	}
	return s.hidden(f, "Code of your authenticator app, or a recovery code: ")
}

func problemCode(body []byte) string {
	var p struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(body, &p) != nil {
		return ""
	}
	return p.Code
}

// A stepper proves again who somebody is when the server asks for it, and then
// repeats the request: what matters most takes a proof of the last minutes.
type stepper struct {
	next  http.RoundTripper
	base  string
	token secret.Value
	s     *streams
}

// RoundTrip implements [http.RoundTripper].
func (t *stepper) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := t.next.RoundTrip(r)
	if err != nil || a.StatusCode != http.StatusForbidden || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") {
		return a, err
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	_ = a.Body.Close() // it was read
	a.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil || problemCode(body) != "step_up" || r.Body != nil && r.GetBody == nil {
		return a, err
	}
	f, ok := t.s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return a, nil // its hint says what to do
	}
	if err := t.stepUp(r, f); err != nil {
		return nil, err
	}
	again := r.Clone(r.Context())
	if r.GetBody != nil {
		if again.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.next.RoundTrip(again)
}

func (t *stepper) stepUp(r *http.Request, f *os.File) error {
	var mine struct {
		Factors []json.RawMessage `json:"factors"`
	}
	if err := t.call(r, http.MethodGet, "/api/v1/me/factors", nil, &mine); err != nil {
		return err
	}
	fmt.Fprintln(t.s.err, "This takes a fresh proof of who you are.")
	proof := map[string]string{}
	if len(mine.Factors) == 0 {
		given, err := t.s.hidden(f, "Password: ")
		if err != nil {
			return err
		}
		proof["password"] = given.Reveal()
	} else {
		given, err := t.s.code(f)
		if err != nil {
			return err
		}
		if totp, recovery := codes(given); totp != nil {
			proof["totp"] = *totp
		} else if recovery != nil {
			proof["recovery_code"] = *recovery
		}
	}
	return t.call(r, http.MethodPost, "/api/v1/me/stepup", proof, nil)
}

func (t *stepper) call(like *http.Request, method, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(like.Context(), method, t.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+t.token.Reveal())
	a, err := t.next.RoundTrip(r)
	if err != nil {
		return err
	}
	defer a.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return err
	}
	if a.StatusCode >= http.StatusMultipleChoices {
		return refusal(a.StatusCode, body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

func hashPasswordCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Print the hash of a password, for bailey admin user import",
		Long: "Reads a password from the terminal, twice and without echo, or one line from stdin, and prints its argon2id hash.\n" +
			"It is never an argument: arguments stand in the process list and in the shell's history.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			given, err := s.freshPassword()
			if err != nil {
				return err
			}
			if err := (password.Rules{Length: password.MinLength}).Check(given); err != nil {
				return err
			}
			fmt.Fprintln(s.out, password.New(password.DefaultParams(), given))
			return nil
		},
	}
}

// freshPassword reads a new password: twice from a person, once from a pipe.
func (s *streams) freshPassword() (secret.Value, error) {
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return readSecretFile("-", s.in)
	}
	first, err := s.hidden(f, "Password: ")
	if err != nil {
		return first, err
	}
	again, err := s.hidden(f, "Again: ")
	if err == nil && !first.Equal(again) {
		err = usage("type the same one twice", "the two passwords differ")
	}
	return first, err
}

func userResetFactors(s *streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "reset-factors NAME", Short: "Remove all second factors of somebody who lost them", Args: cobra.ExactArgs(1),
		Long: "Removes authenticator apps, passkeys and recovery codes of an account, ends its sessions and voids its tokens. Its owner is told at the next sign-in.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "Remove all second factors of "+args[0]+"? Be sure that it is really them who asked.", args[0]); err != nil {
				return err
			}
			a, err := r.api.ResetFactorsWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Removed the second factors of %s.\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

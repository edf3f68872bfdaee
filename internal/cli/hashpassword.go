package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

func hashPasswordCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Print the hash of a password, for bailey admin user import",
		Long: "Reads a password from the terminal, twice and without echo, or one line from stdin, and prints its argon2id hash.\n" +
			"It is never an argument: arguments stand in the process list and in the shell's history.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // what it is, is not repeated
				return usage("type it when you are asked, or pipe it in; whatever stood on the command line may be in your shell's history", "bailey hash-password takes no argument")
			}
			return nil
		},
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

package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/app"
	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/external"
)

func signInCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "sign-in", Short: "Company accounts: try what the configuration says about them"}
	cmd.AddCommand(signInTest(s))
	return cmd
}

// signInTest tries an entry from the configuration file, on the server and
// without a running one: before it is in force is when it should be tried.
func signInTest(s *streams) *cobra.Command {
	var f serverFlags
	var user string
	cmd := &cobra.Command{
		Use: "test [oidc|ldap] [NAME]", Short: "Try a company account step by step, and say for what fails what to do; exit 3",
		Long: "Reads the configuration file on this machine and tries an identity provider (address, certificate, issuer, clocks, keys, client id and secret, redirect address) " +
			"or a directory (address, certificate, bind DN, people, and with --user somebody's entry, groups and what they are here). No password of a person is asked for.\n\n" +
			"Without arguments it tries every entry.",
		Example: "  bailey admin sign-in test oidc corp\n  bailey admin sign-in test ldap corp --user alice",
		Args:    cobra.MaximumNArgs(2),
	}
	format := outputFlag(cmd)
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file (default "+config.DefaultPath+")")
	cmd.Flags().StringVar(&f.https, "https", "", "address of the HTTPS listener, if the server is started with another")
	cmd.Flags().StringVarP(&user, "user", "u", "", "with ldap: somebody to look for, as they would sign in")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		cfg, err := config.Load(cmd.Context(), f.source())
		if err != nil {
			return configFailure(err)
		}
		entries, err := signInEntries(cfg, args)
		if err != nil {
			return err
		}
		bad := false
		l := listing{}
		var all []external.Step
		for _, e := range entries {
			steps, err := app.TestSignIn(cmd.Context(), cfg, e[0], e[1], user)
			if err != nil {
				return err
			}
			for _, step := range steps {
				bad = bad || !step.OK
				step.Name = e[0] + " " + e[1] + ": " + step.Name
				all = append(all, step)
				l.rows = append(l.rows, []string{step.Name})
				if *format == "table" {
					printStep(s, step)
				}
			}
		}
		if *format != "table" {
			l.value = all
			if err := l.print(s.out, *format); err != nil {
				return err
			}
		}
		if bad {
			return silentError(exitFindings)
		}
		return nil
	}
	return cmd
}

// signInEntries returns kind and name of what is to be tried.
func signInEntries(cfg *config.Config, args []string) ([][2]string, error) {
	var all [][2]string
	for _, o := range cfg.SignIn.OIDC {
		all = append(all, [2]string{"oidc", o.Name})
	}
	for _, d := range cfg.SignIn.LDAP {
		all = append(all, [2]string{"ldap", d.Name})
	}
	if len(args) > 0 && args[0] != "oidc" && args[0] != "ldap" {
		return nil, usage("bailey admin sign-in test oidc NAME, or ldap NAME", "%q is neither oidc nor ldap", clean(args[0]))
	}
	if len(args) == 2 {
		return [][2]string{{args[0], args[1]}}, nil
	}
	var out [][2]string
	for _, e := range all {
		if len(args) == 0 || e[0] == args[0] {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, &failure{code: exitNotFound, msg: "the configuration " + cfg.File() + " names no such company account", hint: "docs/sign-in.md shows how to write one below sign_in"}
	}
	return out, nil
}

func printStep(s *streams, step external.Step) {
	mark := "ok  "
	switch {
	case !step.OK:
		mark = "FAIL"
	case step.Warn:
		mark = "warn"
	}
	fmt.Fprintf(s.out, "%s  %s", mark, clean(step.Name))
	if step.Detail != "" {
		fmt.Fprintf(s.out, ": %s", clean(step.Detail))
	}
	fmt.Fprintln(s.out)
	if step.Fix != "" {
		fmt.Fprintf(s.out, "      → %s\n", clean(step.Fix))
	}
}

func userLinks(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "links NAME", Short: "The company accounts that an account is tied to", Args: cobra.ExactArgs(1)}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListLinksWithResponse(cmd.Context(), args[0])
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Links, head: []string{"ID", "SOURCE", "LOGIN", "SUBJECT", "ROLE", "GROUPS", "CHECKED", "STATE"}}
		for _, e := range a.JSON200.Links {
			state := "open"
			if c := optional(e.Closed); c != "" {
				state = "closed: " + c
			}
			l.rows = append(l.rows, []string{e.Id, e.Source, dash(clean(optional(e.Login))), clean(e.Subject), string(e.Role), dash(strings.Join(e.Groups, ",")), ago(e.CheckedAt), state})
		}
		return l.print(s.out, *format)
	}
	return ls
}

func userLink(s *streams) *cobra.Command {
	var source, login, subject string
	cmd := &cobra.Command{
		Use: "link NAME", Short: "Tie an account to a company account; its password here goes",
		Long: "Ties an account that exists to who its owner is at an identity provider or in a directory. From then on they sign in there, and the account's password here is removed.\n\n" +
			"For a directory give the login, which is looked up; for a provider the subject (the claim sub), which its administrators see.",
		Example: "  bailey admin user link alice --source ldap:corp --login a.smith\n  bailey admin user link alice --source oidc:corp --subject 248289761001",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := client.LinkUserInputBody{Source: source}
			switch {
			case strings.HasPrefix(source, "ldap:") && login != "" && subject == "":
				body.Login = &login
			case strings.HasPrefix(source, "oidc:") && subject != "" && login == "":
				body.Subject = &subject
			default:
				return usage("bailey admin user link --help shows both ways", "--source ldap:NAME goes with --login, --source oidc:NAME with --subject")
			}
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.LinkUserWithResponse(cmd.Context(), args[0], body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "%s is %s at %s. The password here is removed.\n", args[0], clean(a.JSON201.Subject), clean(a.JSON201.Source))
			return nil
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "oidc:NAME or ldap:NAME, by the name in the configuration")
	cmd.Flags().StringVar(&login, "login", "", "with ldap: how they sign in there")
	cmd.Flags().StringVar(&subject, "subject", "", "with oidc: the claim sub")
	return cmd
}

func userUnlink(s *streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "unlink NAME ID", Short: "Take a tie away; ends every session and token of the account", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "Unlink "+args[0]+"? The account has no way in until it gets a password or another link.", args[0]); err != nil {
				return err
			}
			a, err := r.api.UnlinkUserWithResponse(cmd.Context(), args[0], args[1])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Unlinked %s. Give it a password: bailey admin user set %s --password-file FILE\n", args[0], args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// Package cli is the bailey command: it parses what a person typed, asks the
// API or builds the server, and prints. stdout is data, stderr is messages;
// every failure says what, why and what next, and has its exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey"
)

// Exit codes, as docs/cli.md lists them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitFindings    = 3
	exitSignIn      = 4
	exitNotFound    = 5
	exitRefused     = 6
	exitUnreachable = 7
	exitInterrupted = 130
)

// A failure is an error with its exit code and the next thing to do.
type failure struct {
	code int
	msg  string
	hint string
	err  error
}

func (f *failure) Error() string {
	if f.msg == "" && f.err != nil {
		return f.err.Error()
	}
	if f.err != nil {
		return f.msg + ": " + f.err.Error()
	}
	return f.msg
}

func (f *failure) Unwrap() error { return f.err }

// usage returns a failure about what was typed.
func usage(hint, format string, args ...any) error {
	return &failure{code: exitUsage, msg: fmt.Sprintf(format, args...), hint: hint}
}

// silentError ends with its code when everything was printed already.
type silentError int

func (e silentError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// A streams is where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Run runs one command line (without the program's name) and returns its exit
// code. The first interrupt ends ctx, so that commands stop what they began;
// the second kills.
func Run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	s := &streams{in: in, out: out, err: errw}
	root := newRoot(s)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := fang.Execute(ctx, root,
		fang.WithVersion(bailey.Version),
		fang.WithErrorHandler(func(io.Writer, fang.Styles, error) {}),
	)
	return s.report(ctx, err)
}

// newRoot lists the commands.
func newRoot(s *streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "bailey",
		Short: "Walled, shared GPU workspaces for PyTorch teams",
		Long: "bailey gives each person of a team a hardened container of their own, with GPUs of their own, behind one HTTPS address.\n\n" +
			"On a server: bailey up. On your machine: bailey login URL, then bailey run.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure{code: exitUsage, msg: err.Error(), hint: cmd.CommandPath() + " --help lists the flags"}
	})
	root.AddCommand(
		upCommand(s), serveCommand(s), doctorCommand(s), configCommand(s),
		loginCommand(s), logoutCommand(s), hashPasswordCommand(s), accountCommand(s), factorCommand(s), tokenCommand(s),
		runCommand(s), lsCommand(s), openCommand(s), stopCommand(s), rmCommand(s), logsCommand(s),
		classCommand(s, "class"), imageCommand(s), volumeCommand(s), auditCommand(s), adminCommand(s),
		redactCommand(s), scanCommand(s), stripCommand(s), hooksCommand(s), rulesCommand(s),
		egressCommand(s), sessionsCommand(s),
		sshCommand(s), sshConfigCommand(s), sshKeyCommand(s), sshCertCommand(s), cpCommand(s),
		verifyCommand(s), trustCommand(s), imageVerifierCommand(s), rekorCommand(s),
	)
	return root
}

// report prints what went wrong and returns the exit code.
func (s *streams) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if silent, ok := errors.AsType[silentError](err); ok {
		return int(silent)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(s.err, "bailey: interrupted")
		return exitInterrupted
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = classify(err)
	}
	fmt.Fprintf(s.err, "bailey: %s\n", strings.TrimSpace(f.Error()))
	if f.hint != "" {
		fmt.Fprintf(s.err, "  → %s\n", f.hint)
	}
	return f.code
}

// classify gives an error that no command dressed its code.
func classify(err error) *failure {
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		return &failure{code: codeOf(e.Kind.String()), msg: e.Error(), hint: e.Hint}
	}
	msg := err.Error()
	// cobra has no types for these.
	for _, p := range []string{"unknown command", "unknown flag", "accepts ", "requires at least", "required flag", "invalid argument"} {
		if strings.HasPrefix(msg, p) {
			return &failure{code: exitUsage, msg: msg, hint: "bailey --help lists the commands"}
		}
	}
	return &failure{code: exitFailure, msg: msg}
}

// codeOf maps the API's code to an exit code.
func codeOf(code string) int {
	switch code {
	case "invalid":
		return exitUsage
	case "unauthenticated", "second_factor", "step_up":
		return exitSignIn
	case "not_found":
		return exitNotFound
	case "denied", "quota":
		return exitRefused
	}
	return exitFailure
}

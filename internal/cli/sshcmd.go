package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/sshconfig"
	"github.com/baileyhq/bailey/internal/sshkey"
)

func sshCommand(s *streams) *cobra.Command {
	var local, remoteForward, dynamic []string
	var agent, noCommand, tty, noTTY bool
	var identity string
	var verbose int
	cmd := &cobra.Command{
		Use: "ssh WORKSPACE [-- COMMAND…]", Short: "Open a shell in a workspace, or run a command there",
		Long: "Run this machine's ssh with the server's address and host keys, without touching your SSH configuration.\n" +
			"A workspace that is stopped is started first. ssh's exit code is passed on.",
		Example:           "  bailey ssh lab\n  bailey ssh lab -- nvidia-smi\n  bailey ssh lab -L 6006:127.0.0.1:6006\n  bailey ssh login",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.running(cmd.Context(), r, args[0]); err != nil {
				return err
			}
			argv, done, err := r.sshOptions(cmd.Context(), args[0], identity)
			if err != nil {
				return err
			}
			defer done()
			for _, set := range []struct {
				flag string
				on   bool
			}{{"-A", agent}, {"-N", noCommand}, {"-t", tty}, {"-T", noTTY}} {
				if set.on {
					argv = append(argv, set.flag)
				}
			}
			for range verbose {
				argv = append(argv, "-v")
			}
			for flag, values := range map[string][]string{"-L": local, "-R": remoteForward, "-D": dynamic} {
				for _, v := range values {
					argv = append(argv, flag, v)
				}
			}
			argv = append(argv, "--", args[0]+sshconfig.Suffix)
			return s.foreground("ssh", append(argv, args[1:]...))
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&local, "local", "L", nil, "forward a local port, as ssh -L does")
	f.StringArrayVarP(&remoteForward, "remote", "R", nil, "forward a port of the workspace, as ssh -R does")
	f.StringArrayVarP(&dynamic, "dynamic", "D", nil, "a SOCKS proxy into the workspace, as ssh -D does")
	f.BoolVarP(&agent, "agent", "A", false, "forward your SSH agent")
	f.BoolVarP(&noCommand, "no-command", "N", false, "run nothing: only forward")
	f.BoolVarP(&tty, "tty", "t", false, "ask for a terminal, also for a command")
	f.BoolVarP(&noTTY, "no-tty", "T", false, "ask for no terminal")
	f.StringVarP(&identity, "identity", "i", "", "private key file to offer")
	f.CountVarP(&verbose, "verbose", "v", "let ssh say what it does")
	cmd.AddCommand(sshLogin(s))
	return cmd
}

// running starts a workspace that is stopped, and waits until it answers.
func (s *streams) running(ctx context.Context, r *remote, name string) error {
	a, err := r.api.GetWorkspaceWithResponse(ctx, name)
	if err != nil {
		return unreachable(err)
	}
	if a.JSON200 == nil {
		return refusal(a.StatusCode(), a.Body)
	}
	ws := a.JSON200
	if ws.State == "running" {
		return nil
	}
	if ws.State != "starting" {
		b, err := r.api.StartWorkspaceWithResponse(ctx, ws.Id)
		if err != nil {
			return unreachable(err)
		}
		if b.JSON202 == nil {
			return refusal(b.StatusCode(), b.Body)
		}
		ws = b.JSON202
	}
	fmt.Fprintf(s.err, "Starting %s.\n", ws.Name)
	_, err = s.await(ctx, r, ws)
	return err
}

// sshOptions returns the options by which ssh and scp reach a workspace, and
// what cleans up afterwards. The host keys stand in a file of this one call.
func (r *remote) sshOptions(ctx context.Context, workspace, identity string) (argv []string, done func(), err error) {
	door, err := r.door(ctx)
	if err != nil {
		return nil, nil, err
	}
	known, err := door.KnownHosts()
	if err != nil {
		return nil, nil, &failure{code: exitFailure, msg: err.Error()}
	}
	files := []string{identity}
	if identity == "" {
		if files, err = r.identities(ctx); err != nil {
			return nil, nil, err
		}
	}
	dir, err := os.MkdirTemp("", "bailey-ssh-") // made 0700
	if err != nil {
		return nil, nil, fmt.Errorf("make a folder for the host keys: %w", err)
	}
	done = func() { _ = os.RemoveAll(dir) }
	path := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(path, []byte(known), 0o600); err != nil {
		done()
		return nil, nil, fmt.Errorf("write the host keys: %w", err)
	}
	options, err := door.Options(workspace, path)
	if err != nil {
		done()
		return nil, nil, usage("bailey ls lists your workspaces", "%v", err)
	}
	if len(files) > 0 {
		options = append(options, "IdentitiesOnly=yes")
	}
	for _, o := range options {
		argv = append(argv, "-o", o)
	}
	for _, f := range files {
		argv = append(argv, "-i", expandHome(f))
	}
	return argv, done, nil
}

func expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, filepath.FromSlash(rest))
		}
	}
	return path
}

// foreground runs a program in our place and passes its exit code on. Signals
// from the terminal reach it by themselves.
func (s *streams) foreground(name string, argv []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return &failure{code: exitFailure, msg: "there is no " + name + " on this machine", hint: "install OpenSSH's client (on Debian: apt install openssh-client)"}
	}
	cmd := exec.Command(path, argv...) //nolint:noctx // the arguments are checked; ssh ends itself
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.out, s.err
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return silentError(128 + int(status.Signal()))
		}
		return silentError(exit.ExitCode())
	}
	if err != nil {
		return &failure{code: exitFailure, msg: "run " + name, err: err}
	}
	return nil
}

func sshLogin(s *streams) *cobra.Command {
	var hours float64
	var key string
	var sources []string
	cmd := &cobra.Command{
		Use: "login", Short: "Get an SSH certificate for a day at most", Args: cobra.NoArgs,
		Long: "Sign in for SSH without storing a key on the server: a certificate that says who you are for 12 hours, for a key that is\n" +
			"made on this machine when it is not there (~/.ssh/bailey_ed25519). It ends with the token that you are signed in with.",
		Example: "  bailey ssh login\n  bailey ssh login --hours 1 --source 10.20.0.0/16",
		RunE: func(cmd *cobra.Command, _ []string) error {
			minutes := int64(hours * 60)
			if hours < 0 || hours > 24 || hours != 0 && minutes < 1 {
				return usage("ask for up to 24 hours", "a certificate of %g hours cannot be had", hours)
			}
			r, err := connect()
			if err != nil {
				return err
			}
			return s.certify(cmd.Context(), r, expandHome(key), minutes, sources)
		},
	}
	cmd.Flags().Float64Var(&hours, "hours", 12, "how long it is valid, 24 at most")
	cmd.Flags().StringVarP(&key, "key", "k", "", "private key file to certify; its .pub must be beside it")
	cmd.Flags().StringSliceVar(&sources, "source", nil, "address or network that it may be used from; any when not given")
	return cmd
}

// certify gets a certificate and puts it where ssh looks for it: beside the key.
func (s *streams) certify(ctx context.Context, r *remote, private string, minutes int64, sources []string) error {
	line, private, err := ownKey(private, r.p.User)
	if err != nil {
		return err
	}
	parsed, err := sshkey.ParseLine(line)
	if err != nil {
		return err
	}
	if line, err = sshkey.Line(parsed.Wire, parsed.Comment); err != nil {
		return err
	}
	body := client.IssueSSHCertificateInputBody{Key: line}
	if minutes > 0 {
		body.Minutes = &minutes
	}
	if len(sources) > 0 {
		body.Sources = &sources
	}
	a, err := r.api.IssueSSHCertificateWithResponse(ctx, body)
	if err != nil {
		return unreachable(err)
	}
	if a.StatusCode() != http.StatusCreated || a.JSON201 == nil {
		return refusal(a.StatusCode(), a.Body)
	}
	cert := strings.TrimSpace(a.JSON201.Certificate)
	if strings.ContainsAny(cert, "\r\n") || !strings.Contains(cert, "-cert-v01@openssh.com ") {
		return &failure{code: exitFailure, msg: "the server answered with something that is no certificate", hint: "is it a bailey server?"}
	}
	path := private + "-cert.pub"
	if err := writeWhole(path, []byte(cert+"\n"), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(s.err, "Certificate %s is in %s, valid until %s.\n", a.JSON201.Serial, path, a.JSON201.ExpiresAt.Local().Format("2 Jan 15:04"))
	if dir, err := sshDir(false); err == nil {
		if b, err := readFile(filepath.Join(dir, sshconfig.ConfigName)); err == nil && b == nil {
			fmt.Fprintln(s.err, "Run bailey ssh-config, so that ssh finds it; bailey ssh and bailey cp find it by themselves.")
			return nil
		}
		return s.writeSSHConfig(ctx, r, "", false)
	}
	return nil
}

// ownKey returns the public line of a private key file, making the pair of
// bailey's own when none is named.
func ownKey(private, user string) (line, path string, err error) {
	if private != "" {
		b, err := os.ReadFile(private + ".pub")
		if err != nil {
			return "", "", &failure{code: exitUsage, msg: "read the public half of " + private, hint: "ssh-keygen -y -f " + private + " > " + private + ".pub", err: err}
		}
		return string(b), private, nil
	}
	dir, err := sshDir(true)
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, sshconfig.KeyName)
	if b, err := os.ReadFile(path + ".pub"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return string(b), path, nil
		}
	}
	host, _ := os.Hostname()
	secret, line, err := sshkey.NewPair("bailey " + user + "@" + host + " " + time.Now().Format("2006-01-02"))
	if err != nil {
		return "", "", err
	}
	if err := writeWhole(path, secret, 0o600); err != nil {
		return "", "", err
	}
	return line, path, writeWhole(path+".pub", []byte(line+"\n"), 0o644)
}

func cpCommand(s *streams) *cobra.Command {
	var identity string
	var quiet bool
	cmd := &cobra.Command{
		Use: "cp SOURCE… TARGET", Short: "Copy files into a workspace or out of it", Args: cobra.MinimumNArgs(2),
		Long: "Copy files and folders with this machine's scp. WORKSPACE:PATH is a path in a workspace, relative to /workspace;\n" +
			"everything else is here. Folders are copied with all that is in them. A workspace that is stopped is started first.",
		Example: "  bailey cp data.csv lab:data/\n  bailey cp lab:runs/7 lab:log.txt .",
		RunE: func(cmd *cobra.Command, args []string) error {
			workspace, paths, err := copyPaths(args)
			if err != nil {
				return err
			}
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.running(cmd.Context(), r, workspace); err != nil {
				return err
			}
			argv, done, err := r.sshOptions(cmd.Context(), workspace, identity)
			if err != nil {
				return err
			}
			defer done()
			argv = append(argv, "-r", "-p")
			if quiet {
				argv = append(argv, "-q")
			}
			return s.foreground("scp", append(append(argv, "--"), paths...))
		},
	}
	cmd.Flags().StringVarP(&identity, "identity", "i", "", "private key file to offer")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

// copyPaths finds the one workspace in the arguments, and writes them as scp
// reads them. All that is remote must be on one side: scp knows no other way.
func copyPaths(args []string) (workspace string, paths []string, err error) {
	const hint = `write WORKSPACE:PATH on one side, as in "bailey cp data.csv lab:data/"`
	remotes := 0
	for i, arg := range args {
		name, path, ok := remotePath(arg)
		if !ok {
			if strings.HasPrefix(arg, "-") || strings.Contains(arg, ":") && !filepath.IsAbs(arg) {
				arg = "." + string(filepath.Separator) + arg // scp would take it for something else
			}
			paths = append(paths, arg)
			continue
		}
		if workspace != "" && workspace != name {
			return "", nil, usage("copy to this machine first", "two workspaces cannot be copied between: %s and %s", workspace, name)
		}
		remotes++
		workspace = name
		if last := i == len(args)-1; last && remotes > 1 {
			return "", nil, usage(hint, "both sides are in the workspace")
		}
		if path == "" {
			path = "."
		}
		paths = append(paths, name+sshconfig.Suffix+":"+path)
	}
	_, _, toRemote := remotePath(args[len(args)-1])
	switch {
	case remotes == 0:
		return "", nil, usage(hint, "neither side is in a workspace")
	case !toRemote && remotes != len(args)-1:
		return "", nil, usage(hint, "some of the sources are here and so is the target")
	}
	return workspace, paths, nil
}

// remotePath takes "lab:runs/7" apart. A path with a slash before its colon,
// and a drive's letter, are here.
func remotePath(arg string) (workspace, path string, ok bool) {
	workspace, path, ok = strings.Cut(arg, ":")
	if !ok || sshconfig.CheckName(workspace) != nil {
		return "", "", false
	}
	return workspace, path, true
}

// editorLink returns the address by which an editor opens a workspace over SSH.
// It carries no token: the SSH key is what signs in.
func editorLink(editor, workspace string) (string, error) {
	if err := sshconfig.CheckName(workspace); err != nil {
		return "", usage("bailey ls lists your workspaces", "%v", err)
	}
	switch editor {
	case "vscode", "vscode-insiders", "vscodium", "cursor", "windsurf":
		return editor + "://vscode-remote/ssh-remote+" + workspace + sshconfig.Suffix + "/workspace", nil
	}
	return "", usage("use vscode, vscode-insiders, vscodium, cursor or windsurf; for JetBrains see docs/ssh.md", "there is no link for the editor %q", editor)
}

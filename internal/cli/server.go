package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/app"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/doctor"
)

// serverFlags are what up and serve share.
type serverFlags struct {
	config, state, https, metrics, ssh, dockerHost string
	logLevel, logFormat                            string
	adminPasswordFile, agent                       string
	demo                                           bool
}

func (f *serverFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "configuration file (default "+config.DefaultPath+", if it is there)")
	fl.StringVar(&f.state, "state", "", "folder for everything the server keeps (default /var/lib/bailey)")
	fl.StringVar(&f.https, "https", "", "address of the HTTPS listener (default 127.0.0.1:8443)")
	fl.StringVar(&f.metrics, "metrics", "", "address of metrics and health (default 127.0.0.1:9443)")
	fl.StringVar(&f.ssh, "ssh", "", "address of SSH into workspaces, 0.0.0.0:2222 for instance (default: there is none)")
	fl.StringVar(&f.dockerHost, "docker-host", "", "Docker's socket (default unix:///var/run/docker.sock)")
	fl.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "", "text or json")
	fl.StringVar(&f.adminPasswordFile, "admin-password-file", "", `for automation: make the account "admin" with the password in this file, instead of a set-up link`)
	fl.StringVar(&f.agent, "agent", "", "the bailey-agent binary (default: beside bailey)")
	fl.BoolVar(&f.demo, "demo", false, "small classes, for a trial on a laptop")
}

// memoryLimit is where the garbage collector begins to work harder; the budget
// of a server with 50 users is 300 MB resident.
const memoryLimit = 256 << 20

// source says where the configuration comes from.
func (f *serverFlags) source() config.Source {
	src := config.Source{Path: f.config, Required: f.config != "", Env: os.Environ(), Flags: map[string]string{}}
	state := f.state
	if state != "" {
		if abs, err := filepath.Abs(state); err == nil {
			state = abs
		}
	}
	for path, v := range map[string]string{
		"state": state, "listen.https": f.https, "listen.metrics": f.metrics, "listen.ssh": f.ssh, "docker.host": f.dockerHost,
		"log.level": f.logLevel, "log.format": f.logFormat,
	} {
		if v != "" {
			src.Flags[path] = v
		}
	}
	return src
}

func upCommand(s *streams) *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Check the machine, make the state, and serve in the foreground",
		Long: "Checks the machine (bailey doctor), makes what is missing in the state folder, serves, and prints the address, the certificate's fingerprint and, the first time, a one-time link that makes the administrator.\n\n" +
			"Ctrl-C stops the server. Workspaces go on running and are served again by the next start.",
		Example: "  bailey up\n  bailey up --state ./state --https 127.0.0.1:8443 --demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.serve(cmd.Context(), f, true)
		},
	}
	f.add(cmd)
	return cmd
}

func serveCommand(s *streams) *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve, without the checks and the greeting; for service managers",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.serve(cmd.Context(), f, false)
		},
	}
	f.add(cmd)
	return cmd
}

func (s *streams) serve(ctx context.Context, f serverFlags, greet bool) error {
	src := f.source()
	cfg, err := config.Load(ctx, src)
	if err != nil {
		return configFailure(err)
	}
	log := logger(s, cfg)
	if greet {
		s.preflight(ctx, cfg)
	}
	ac := app.Config{File: cfg, Source: src, Demo: f.demo, Log: log, Agent: f.agent}
	if ac.Agent == "" {
		if ac.Agent, err = besideMe("bailey-agent"); err != nil {
			return err
		}
	}
	if f.adminPasswordFile != "" {
		if ac.Admin, err = readSecretFile(f.adminPasswordFile, s.in); err != nil {
			return err
		}
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	reload := make(chan struct{}, 1)
	ac.Reload = reload
	go func() {
		for range hup {
			select {
			case reload <- struct{}{}:
			default:
			}
		}
	}()
	defer close(hup)

	// Each password check leaves 19 MiB of garbage: collect before it piles up.
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	a, err := app.New(ctx, ac)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if greet {
		s.greet(a, cfg)
	}
	if err := a.Run(ctx); err != nil {
		return err
	}
	if greet {
		fmt.Fprintln(s.err, "bailey stopped. Workspaces go on running; the next start serves them again.")
	}
	return nil
}

// preflight shows what is wrong with the machine; warnings are only counted.
func (s *streams) preflight(ctx context.Context, cfg *config.Config) {
	warnings := 0
	for _, finding := range s.examine(ctx, cfg, nil) {
		switch finding.Severity {
		case doctor.Fail:
			s.printFinding(s.err, finding)
		case doctor.Warn:
			warnings++
		case doctor.OK:
		}
	}
	if warnings > 0 {
		fmt.Fprintf(s.err, "This machine has %d warnings: bailey doctor --running shows them and how to mend them.\n", warnings)
	}
}

// reach says who can get to an address that is listened on.
func reach(listen string) string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return listen // checked by config: it does not happen
	}
	if host == "" {
		return "every address of this machine"
	}
	if addr, err := netip.ParseAddr(host); host == "localhost" || err == nil && addr.Unmap().IsLoopback() {
		return "this machine alone"
	} else if err == nil && addr.Unmap().IsUnspecified() {
		return "every address of this machine"
	}
	return host
}

// greet prints the one address, who reaches it, the set-up link and the
// fingerprint.
func (s *streams) greet(a *app.App, cfg *config.Config) {
	sum, ca := a.Fingerprint()
	sum = "SHA256:" + strings.TrimPrefix(sum, "SHA256:")
	fmt.Fprintf(s.out, "\nbailey %s is up.\n\n  Open         %s\n", bailey.Version, a.Console())
	closed := reach(cfg.Listen.HTTPS) == "this machine alone"
	fmt.Fprintf(s.out, "  Reached by   %s (%s)", reach(cfg.Listen.HTTPS), cfg.Listen.HTTPS)
	if cfg.Listen.SSH == "" {
		fmt.Fprint(s.out, "; no SSH")
	} else {
		fmt.Fprintf(s.out, "; SSH: %s (%s)", reach(cfg.Listen.SSH), cfg.Listen.SSH)
	}
	fmt.Fprintln(s.out)
	if closed {
		fmt.Fprintln(s.out, "               (listen and origin in the configuration open it to others: docs/edge.md)")
	}
	if link := a.SetupLink(); link != "" {
		fmt.Fprintf(s.out, "  Set up       %s\n               (makes the administrator; works once, for 30 minutes)\n", link)
	}
	if authority := a.Authority(); authority != "" {
		fmt.Fprintf(s.out, "  Certificate  from %s; until it has come, %s\n", authority, sum)
	} else {
		fmt.Fprintf(s.out, "  Certificate  %s\n", sum)
	}
	if ca != "" {
		fmt.Fprintf(s.out, "               (of the own CA in %s; your browser will ask, compare)\n", ca)
	}
	pin := " --fingerprint " + sum
	if a.Authority() != "" {
		pin = "" // the system trusts the authority, and its certificates change
	}
	fmt.Fprintf(s.out, "  Sign in      bailey login %s --user NAME%s\n\n", a.Console(), pin)
	if a.SharedOrigin() {
		fmt.Fprintln(s.err, "WARNING: origin.mode is path. The console and all workspaces are one origin, so browsers do not keep them apart:\n"+
			"  a script in a notebook can look like the console, and reaches the other workspaces of whoever opens it.\n"+
			"  It is for people who trust one another's code.\n"+
			"  → origin.mode: subdomain, or port without DNS; docs/edge.md says what holds and what does not")
	}
	launchable := 0
	for _, c := range a.Classes() {
		if c.Digest != "" {
			launchable++
		}
	}
	if launchable == 0 {
		fmt.Fprintln(s.err, "No class can be launched: no workspace image is on this machine.\n  → make images builds them; they are found within seconds")
	}
}

// logger writes the server's own log to stderr.
func logger(s *streams, cfg *config.Config) *slog.Logger {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(cfg.Log.Level)) // checked by config
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(s.err, opts))
	}
	return slog.New(slog.NewTextHandler(s.err, opts))
}

// besideMe finds a program that is installed with this one.
func besideMe(name string) (string, error) {
	me, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find bailey's own folder: %w", err)
	}
	if me, err = filepath.EvalSymlinks(me); err != nil {
		return "", fmt.Errorf("find bailey's own folder: %w", err)
	}
	for _, dir := range []string{filepath.Dir(me), "/usr/libexec/bailey", "/usr/lib/bailey"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return filepath.Join(dir, name), nil
		}
	}
	return "", &failure{code: exitFailure, msg: name + " was not found beside " + me, hint: "make build makes both; or name it with --agent FILE"}
}

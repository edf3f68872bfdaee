package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/app"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/doctor"
)

func doctorCommand(s *streams) *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check this machine: Docker, kernel, disk, ports, clock; exit 3 on a failure",
		Long: "Looks at the machine, offline and in under a second, and says for each finding how to mend it. Failures make the exit code 3, warnings do not.",
		Args: cobra.NoArgs,
	}
	format := outputFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "configuration file")
	fl.StringVar(&f.state, "state", "", "the server's state folder")
	fl.StringVar(&f.dockerHost, "docker-host", "", "Docker's socket")
	running := fl.Bool("running", false, "a server is running here: its ports are meant to be taken")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		cfg, err := config.Load(cmd.Context(), f.source())
		if err != nil {
			return configFailure(err)
		}
		var listen []string
		if !*running {
			listen = []string{cfg.Listen.HTTPS, cfg.Listen.Metrics}
		}
		findings := s.examine(cmd.Context(), cfg, listen)
		if *format == "table" {
			for _, finding := range findings {
				s.printFinding(s.out, finding)
			}
		} else {
			l := listing{value: findings}
			for _, finding := range findings {
				l.rows = append(l.rows, []string{finding.ID})
			}
			if err := l.print(s.out, *format); err != nil {
				return err
			}
		}
		if doctor.Worst(findings) == doctor.Fail {
			return silentError(exitFindings)
		}
		return nil
	}
	return cmd
}

// examine runs every check against this machine.
func (s *streams) examine(ctx context.Context, cfg *config.Config, listen []string) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	caps, err := app.Probe(ctx, cfg.Docker.Host, slog.New(slog.DiscardHandler))
	var bridged []string
	for _, c := range cfg.Classes {
		if c.Network == config.NetworkBridge {
			bridged = append(bridged, c.Name)
		}
	}
	return doctor.Run(ctx, doctor.Facts{
		Caps: caps, ProbeErr: err, DockerHost: cfg.Docker.Host, StateDir: cfg.State, Listen: listen, Bridged: bridged, OneOrigin: cfg.Web.Mode == "path",
	})
}

// printFinding shows a finding for people.
func (s *streams) printFinding(w io.Writer, f doctor.Finding) {
	mark := map[doctor.Severity]string{doctor.OK: "ok  ", doctor.Warn: "warn", doctor.Fail: "FAIL"}[f.Severity]
	fmt.Fprintf(w, "%s  %s", mark, f.Title)
	if f.Detail != "" {
		fmt.Fprintf(w, ": %s", f.Detail)
	}
	fmt.Fprintln(w)
	if f.Severity != doctor.OK && f.Fix != "" {
		fmt.Fprintf(w, "      → %s\n", strings.ReplaceAll(f.Fix, "\n", "\n        "))
	}
}

func configCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check and show the configuration"}
	var path string
	cmd.PersistentFlags().StringVar(&path, "config", "", "configuration file (default "+config.DefaultPath+")")
	source := func(args []string) config.Source {
		src := config.Source{Path: path, Required: path != "", Env: os.Environ()}
		if len(args) == 1 {
			src.Path, src.Required = args[0], true
		}
		return src
	}
	validate := &cobra.Command{
		Use: "validate [FILE]", Short: "Report every problem, each with its place and what to write instead; exit 3", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(cmd.Context(), source(args))
			if err != nil {
				fmt.Fprintln(s.err, strings.TrimRight(err.Error(), "\n"))
				return silentError(exitFindings)
			}
			fmt.Fprintf(s.out, "%s is valid.\n", cfg.File())
			return nil
		},
	}
	var origin bool
	show := &cobra.Command{
		Use: "show", Short: "Print the effective configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(cmd.Context(), source(args))
			if err != nil {
				return configFailure(err)
			}
			b, err := cfg.Show(origin)
			if err != nil {
				return err
			}
			_, err = s.out.Write(b)
			return err
		},
	}
	show.Flags().BoolVar(&origin, "origin", false, "say for every value where it comes from")
	schema := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the file, for editors", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = s.out.Write(b)
			return err
		},
	}
	cmd.AddCommand(validate, show, schema)
	return cmd
}

// configFailure is a configuration that cannot be used: a usage error.
func configFailure(err error) error {
	return &failure{code: exitUsage, msg: "the configuration cannot be used:\n" + strings.TrimRight(err.Error(), "\n"), hint: "bailey config validate checks it again"}
}

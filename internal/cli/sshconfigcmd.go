package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/sshconfig"
)

func sshConfigCommand(s *streams) *cobra.Command {
	var dryRun, remove bool
	var identity string
	cmd := &cobra.Command{
		Use: "ssh-config", Short: "Teach ssh, scp, VS Code and others your workspaces", Args: cobra.NoArgs,
		Long: "Write ~/.ssh/bailey_config with a host for each of your workspaces (NAME.bailey), ~/.ssh/bailey_known_hosts with the server's\n" +
			"host keys, and one Include line at the top of ~/.ssh/config. Nothing else of your file is touched. Run it again after\n" +
			"launching a new workspace; --remove takes all of it away.",
		Example: "  bailey ssh-config --dry-run\n  bailey ssh-config && ssh lab.bailey",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if remove {
				return s.removeSSHConfig(dryRun)
			}
			r, err := connect()
			if err != nil {
				return err
			}
			return s.writeSSHConfig(cmd.Context(), r, identity, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	cmd.Flags().BoolVar(&remove, "remove", false, "take away what this command wrote")
	cmd.Flags().StringVarP(&identity, "identity", "i", "", "private key file to offer; those the server knows when empty")
	return cmd
}

// A change is a file as it is and as it is to be; a nil want removes it.
type change struct {
	path       string
	have, want []byte
	mode       os.FileMode
}

func (s *streams) writeSSHConfig(ctx context.Context, r *remote, identity string, dryRun bool) error {
	door, err := r.door(ctx)
	if err != nil {
		return err
	}
	workspaces, err := r.api.ListWorkspacesWithResponse(ctx, nil)
	if err != nil {
		return unreachable(err)
	}
	if workspaces.JSON200 == nil {
		return refusal(workspaces.StatusCode(), workspaces.Body)
	}
	var names []string
	for _, w := range workspaces.JSON200.Workspaces {
		if w.Owner == door.User {
			names = append(names, w.Name)
		}
	}
	slices.Sort(names)
	files := []string{identity}
	if identity == "" {
		if files, err = r.identities(ctx); err != nil {
			return err
		}
	}
	config, err := sshconfig.Config(door, names, files)
	if err != nil {
		return &failure{code: exitFailure, msg: err.Error()}
	}
	known, err := door.KnownHosts()
	if err != nil {
		return &failure{code: exitFailure, msg: err.Error()}
	}
	dir, err := sshDir(!dryRun)
	if err != nil {
		return err
	}
	own, err := readFile(filepath.Join(dir, "config"))
	if err != nil {
		return err
	}
	included, _ := sshconfig.AddInclude(own)
	changes := []change{
		{filepath.Join(dir, sshconfig.KnownHostsName), nil, []byte(known), 0o600},
		{filepath.Join(dir, sshconfig.ConfigName), nil, []byte(config), 0o600},
		{filepath.Join(dir, "config"), own, included, 0o600}, // last: what it includes is there
	}
	for i := range changes[:2] {
		if changes[i].have, err = readFile(changes[i].path); err != nil {
			return err
		}
	}
	if err := s.apply(changes, dryRun); err != nil || dryRun {
		return err
	}
	fmt.Fprintln(s.err, "ssh bailey is your running workspace.")
	for _, n := range names {
		fmt.Fprintf(s.err, "ssh %s%s\n", n, sshconfig.Suffix)
	}
	return nil
}

func (s *streams) removeSSHConfig(dryRun bool) error {
	dir, err := sshDir(false)
	if err != nil {
		return err
	}
	var changes []change
	for _, name := range []string{"config", sshconfig.ConfigName, sshconfig.KnownHostsName} {
		path := filepath.Join(dir, name)
		have, err := readFile(path)
		if err != nil {
			return err
		}
		if have == nil {
			continue
		}
		c := change{path: path, have: have, mode: 0o600}
		if name == "config" {
			// An empty file stays: it may be one that was there before.
			c.want, _ = sshconfig.RemoveInclude(have)
			if c.want == nil {
				c.want = []byte{}
			}
		}
		changes = append(changes, c)
	}
	return s.apply(changes, dryRun)
}

// apply makes the changes, or says what they would be.
func (s *streams) apply(changes []change, dryRun bool) error {
	same := true
	for _, c := range changes {
		if c.want != nil && c.have != nil && bytes.Equal(c.have, c.want) {
			continue
		}
		same = false
		if dryRun {
			s.showChange(c)
			continue
		}
		if c.want == nil {
			if err := os.Remove(c.path); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("remove %s: %w", c.path, err)
			}
			fmt.Fprintln(s.err, "Removed "+c.path+".")
			continue
		}
		if err := writeWhole(c.path, c.want, c.mode); err != nil {
			return err
		}
		fmt.Fprintln(s.err, "Wrote "+c.path+".")
	}
	if same {
		fmt.Fprintln(s.err, "Nothing to change.")
	}
	return nil
}

// showChange prints a change as lines that go and lines that come.
func (s *streams) showChange(c change) {
	fmt.Fprintf(s.out, "--- %s\n+++ %s\n", c.path, c.path)
	have, want := bytes.SplitAfter(c.have, []byte("\n")), bytes.SplitAfter(c.want, []byte("\n"))
	start := 0
	for start < len(have) && start < len(want) && bytes.Equal(have[start], want[start]) {
		start++
	}
	end := 0
	for end < len(have)-start && end < len(want)-start && bytes.Equal(have[len(have)-1-end], want[len(want)-1-end]) {
		end++
	}
	for _, part := range []struct {
		sign  string
		lines [][]byte
	}{{"-", have[start : len(have)-end]}, {"+", want[start : len(want)-end]}} {
		for _, line := range part.lines {
			if len(line) > 0 {
				fmt.Fprintln(s.out, part.sign+clean(string(bytes.TrimRight(line, "\r\n"))))
			}
		}
	}
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/watch"
)

func rekorCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "rekor", Short: "Watch a transparency log for signatures by our identities", Args: cobra.NoArgs}
	cmd.AddCommand(rekorWatchCommand(s))
	return cmd
}

// watchFlags say what is watched.
type watchFlags struct {
	url, identity, prefix, issuer string
	root, state, known            string
	every                         time.Duration
	once                          bool
}

func rekorWatchCommand(s *streams) *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch --url URL (--identity ID | --identity-prefix P) [--known FILE]",
		Short: "Report entries by our identities that our builds do not know, one JSON line each",
		Long: "Polls a log for signatures by an identity. What --known does not list (digests, UUIDs or log indexes, one per line, as builds record them) is an alert: " +
			"a line of JSON on stdout, and with --once exit code 3. A v2 log is read by its tiles and must stay consistent; a v1 log is searched, which works for e-mail addresses.",
		Example: "  bailey rekor watch --url https://log2025-1.rekor.sigstore.dev --identity-prefix https://github.com/our/repo/ --state /var/lib/bailey/rekor.json",
		Args:    cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.url, "url", "", "the log's address; required")
	fl.StringVar(&f.identity, "identity", "", "our identity, exactly")
	fl.StringVar(&f.prefix, "identity-prefix", "", "how our identities begin")
	fl.StringVar(&f.issuer, "issuer", "", "who vouches for the identity; empty: anybody")
	fl.StringVar(&f.root, "trusted-root", "", "trusted root that knows the log's key")
	fl.StringVar(&f.state, "state", "", "file that remembers how far was read")
	fl.StringVar(&f.known, "known", "", "file with what our builds signed")
	fl.DurationVar(&f.every, "interval", 5*time.Minute, "how often to look")
	fl.BoolVar(&f.once, "once", false, "look once; exit 3 if there is something unknown")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.url == "" || (f.identity == "") == (f.prefix == "") || f.every < time.Second {
			return usage("add --url, and --identity or --identity-prefix", "which log is watched for whom is not said")
		}
		return s.watchLog(cmd.Context(), f)
	}
	return cmd
}

func (s *streams) watchLog(ctx context.Context, f watchFlags) error {
	r, err := (&whomFlags{root: f.root}).trustedRoot()
	if err != nil {
		return err
	}
	cfg := watch.Config{URL: f.url, Identity: policy.Exact(f.identity), Issuer: f.issuer, Root: r}
	if f.prefix != "" {
		cfg.Identity = policy.Prefix(f.prefix)
	} else if strings.Contains(f.identity, "@") && !strings.Contains(f.identity, "/") {
		cfg.Email = f.identity
	}
	w, err := watch.New(cfg)
	if err != nil {
		return usage("", "%v", err)
	}
	state, err := readState(f.state)
	if err != nil {
		return &failure{code: exitFailure, err: err, hint: "delete the file to begin again at the log's end"}
	}
	for {
		alerts, next, err := s.pollOnce(ctx, w, f.known, state)
		switch {
		case errors.Is(err, watch.ErrLogMisbehaves):
			return &failure{code: exitFindings, err: err, hint: "do not trust this log until its operators explain it"}
		case err != nil && f.once:
			return &failure{code: exitUnreachable, err: err}
		case err != nil:
			fmt.Fprintf(s.err, "bailey: %v; trying again in %s\n", err, f.every)
		default:
			state = next
			if err := writeState(f.state, state); err != nil {
				return &failure{code: exitFailure, err: err}
			}
		}
		if f.once {
			if alerts > 0 {
				return silentError(exitFindings)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.every):
		}
	}
}

// pollOnce looks once and prints what is unknown. What builds know is read
// anew: they add to it while we run.
func (s *streams) pollOnce(ctx context.Context, w *watch.Watcher, knownFile string, state watch.State) (int, watch.State, error) {
	found, next, err := w.Poll(ctx, state)
	if err != nil {
		return 0, state, err //nolint:wrapcheck // its words are for the person
	}
	var known []string
	if knownFile != "" {
		data, err := readAtMost(knownFile, 64<<20)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, state, err
		}
		known = strings.Fields(string(data))
	}
	alerts := 0
	for _, e := range found {
		if slices.Contains(known, e.Digest) || e.UUID != "" && slices.Contains(known, e.UUID) || slices.Contains(known, strconv.FormatInt(e.Index, 10)) {
			continue
		}
		alerts++
		line, err := json.Marshal(struct {
			Event string `json:"event"`
			watch.Entry
		}{"signature_unknown_to_builds", e})
		if err != nil {
			return alerts, state, fmt.Errorf("write alert: %w", err)
		}
		fmt.Fprintf(s.out, "%s\n", line)
	}
	return alerts, next, nil
}

func readState(name string) (watch.State, error) {
	var state watch.State
	if name == "" {
		return state, nil
	}
	data, err := readAtMost(name, 256<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		return state, fmt.Errorf("read state %s: %w", name, err)
	}
	return state, nil
}

func writeState(name string, state watch.State) error {
	if name == "" {
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

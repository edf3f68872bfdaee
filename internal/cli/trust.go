package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/root"
	"github.com/baileyhq/bailey/internal/trust/update"
)

func trustCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "trust", Short: "Signatures of files, image policies, and roots of trust", Args: cobra.NoArgs}
	cmd.AddCommand(verifyBundleCommand(s), checkPolicyCommand(s), rootCommand(s))
	return cmd
}

func verifyBundleCommand(s *streams) *cobra.Command {
	var whom whomFlags
	var bundle string
	cmd := &cobra.Command{
		Use:   "verify-bundle --bundle FILE (--key FILE | --certificate-identity ID --certificate-oidc-issuer URL) FILE|sha256:HEX",
		Short: "Check a sigstore bundle over a file or digest, offline; exit 1 if it does not hold",
		Args:  cobra.ExactArgs(1),
	}
	whom.add(cmd)
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle (JSON)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		of, _, err := whom.authorities()
		if err != nil {
			return err
		}
		if len(of) != 1 || bundle == "" {
			return usage("add --bundle, and --key or --certificate-identity with --certificate-oidc-issuer", "one bundle is checked against one key or identity")
		}
		data, err := readAtMost(bundle, 32<<20)
		if err != nil {
			return usage("", "%v", err)
		}
		file, done, err := openFile(args[0])
		if err != nil {
			return err
		}
		defer done()
		signer, err := trust.VerifyBundle(data, of[0], file)
		if err != nil {
			return &failure{code: exitFailure, err: err}
		}
		fmt.Fprintf(s.out, "verified: %s is signed by %s %s\n", clean(args[0]), signer.Kind, clean(signer.ID))
		return nil
	}
	return cmd
}

func checkPolicyCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check POLICY", Short: "Read an image policy and report everything that is wrong with it; exit 1 if anything is",
		Args: cobra.ExactArgs(1),
	}
	format := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		p, err := (&whomFlags{policy: args[0]}).policyInForce()
		if err != nil {
			return err
		}
		type row struct {
			Name  string   `json:"name"`
			Match []string `json:"match"`
			Wants string   `json:"wants"`
		}
		var rows []row
		l := listing{head: []string{"RULE", "MATCH", "WANTS"}}
		for _, r := range p.Rules {
			var match []string
			for _, m := range r.Match {
				match = append(match, string(m))
			}
			rows = append(rows, row{r.Name, match, r.Describe()})
			l.rows = append(l.rows, []string{r.Name, strings.Join(match, " "), r.Describe()})
		}
		l.value = map[string]any{"file": p.Name, "hash": p.Hash, "rules": rows}
		return l.print(s.out, *format)
	}
	return cmd
}

func rootCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "root", Short: "Roots of trust: what keyless signatures hang from", Args: cobra.NoArgs}
	cmd.AddCommand(rootShowCommand(s), rootImportCommand(s), rootUpdateCommand(s))
	return cmd
}

// shownRoot is a root as JSON shows it.
type shownRoot struct {
	Name   string      `json:"name"`
	Hash   string      `json:"hash"`
	Taken  time.Time   `json:"taken,omitzero"`
	Age    int         `json:"age_days,omitempty"`
	Newest time.Time   `json:"newest_part"`
	Parts  []root.Part `json:"parts"`
}

func rootShowCommand(s *streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "show", Short: "Show what a root trusts, and how old it is", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&file, "file", "", "a trusted_root.json instead of the embedded one")
	format := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := (&whomFlags{root: file}).trustedRoot()
		if err != nil {
			return err
		}
		now := time.Now()
		shown := shownRoot{Name: r.Name, Hash: r.Hash, Taken: r.Taken, Newest: r.Newest(), Parts: r.Parts()}
		age, known := r.Age(now)
		shown.Age = int(age.Hours() / 24)
		l := listing{value: shown, head: []string{"KIND", "ADDRESS", "SINCE", "UNTIL"}}
		for _, p := range shown.Parts {
			until := "in use"
			if !p.End.IsZero() {
				until = p.End.Format(time.DateOnly)
			}
			l.rows = append(l.rows, []string{p.Kind, clean(p.URI), p.Start.Format(time.DateOnly), until})
		}
		if err := l.print(s.out, *format); err != nil {
			return err
		}
		switch {
		case !known:
			fmt.Fprintf(s.err, "root %s: youngest part of %s; when it was fetched is not known\n", clean(r.Name), r.Newest().Format(time.DateOnly))
		case age > root.OldAfter:
			fmt.Fprintf(s.err, "root %s is %d days old: signatures in a newer log do not verify\n  → bailey trust root update, or import a newer one\n", clean(r.Name), shown.Age)
		default:
			fmt.Fprintf(s.err, "root %s is %d days old\n", clean(r.Name), shown.Age)
		}
		return nil
	}
	return cmd
}

func rootImportCommand(s *streams) *cobra.Command {
	var to string
	var force bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Take a newer trusted root from a file, for machines without a way out",
		Long: "Checks FILE, shows what it adds and what it loses against the one in place, and writes it to --to, which a policy names under roots. A root that is older, or that loses a part still in use, is refused without --force.",
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&to, "to", "", "where to write it; required")
	cmd.Flags().BoolVar(&force, "force", false, "also an older root, or one that loses parts in use")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if to == "" {
			return usage("add --to /etc/bailey/trust/root.json", "where to write the root is not said")
		}
		data, err := readAtMost(args[0], root.MaxBytes)
		if err != nil {
			return usage("", "%v", err)
		}
		return s.installRoot(data, to, force)
	}
	return cmd
}

// installRoot compares a root with the one in place and replaces it in one
// step, so that nobody reads half of it.
func (s *streams) installRoot(data []byte, to string, force bool) error {
	r, err := root.Parse(filepath.Base(to), data, time.Now())
	if err != nil {
		return &failure{code: exitFailure, err: err, hint: "a trusted root is trusted_root.json of a Sigstore instance"}
	}
	old, err := (&whomFlags{root: existing(to)}).trustedRoot()
	if err != nil && !force {
		return err
	}
	if old != nil {
		lost := old.Lost(r, time.Now())
		for _, p := range lost {
			fmt.Fprintf(s.err, "loses %s %s: signatures that hang from it will not verify\n", p.Kind, clean(p.URI))
		}
		for _, p := range r.Lost(old, time.Now()) {
			fmt.Fprintf(s.err, "adds %s %s\n", p.Kind, clean(p.URI))
		}
		if older := r.Newest().Before(old.Newest()); (older || len(lost) > 0) && !force {
			why := "it loses parts that are in use"
			if older {
				why = "it is older: its youngest part is of " + r.Newest().Format(time.DateOnly) + ", that of the one in place of " + old.Newest().Format(time.DateOnly)
			}
			return &failure{code: exitRefused, msg: "the root is not taken: " + why, hint: "if it is of another Sigstore instance, or you mean it: --force"}
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".root-*")
	if err != nil {
		return &failure{code: exitFailure, err: err}
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	for _, step := range []func() error{tmp.Sync, func() error { return tmp.Chmod(0o644) }, tmp.Close, func() error { return os.Rename(tmp.Name(), to) }} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return &failure{code: exitFailure, msg: "write root", err: err}
	}
	fmt.Fprintf(s.out, "%s %s\n", to, r.Hash)
	return nil
}

// existing returns the name if there is such a file, else "", which stands for
// the embedded root.
func existing(name string) string {
	if _, err := os.Stat(name); err != nil {
		return ""
	}
	return name
}

func rootUpdateCommand(s *streams) *cobra.Command {
	var to, mirror string
	var force bool
	cmd := &cobra.Command{
		Use: "update", Short: "Fetch the newest public root by TUF; the only command that does",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&to, "to", "", "where to write it; required")
	cmd.Flags().StringVar(&mirror, "mirror", "", "a TUF repository instead of Sigstore's")
	cmd.Flags().BoolVar(&force, "force", false, "also a root that loses parts in use")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return usage("add --to /etc/bailey/trust/root.json", "where to write the root is not said")
		}
		data, err := update.Fetch(cmd.Context(), mirror)
		if err != nil {
			return &failure{code: exitUnreachable, err: err, hint: "without a way out, fetch trusted_root.json elsewhere and use bailey trust root import"}
		}
		return s.installRoot(data, to, force)
	}
	return cmd
}

// maxReason is how much containerd reads of a verifier's answer.
const maxReason = 16 << 10

func imageVerifierCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "image-verifier --policy FILE -name NAME -digest DIGEST -stdin-media-type TYPE",
		Short: "Answer containerd's image verifier plugin: exit 0 allows, the reason is on stdout",
		Long: "Speaks the protocol of containerd's bindir image verifier. containerd gives only -name, -digest and -stdin-media-type, so put a script into its bin_dir:\n\n" +
			"  #!/bin/sh\n  exec /usr/bin/bailey image-verifier --policy /etc/bailey/images.yaml \"$@\"\n\n" +
			"Anything but a clear yes is a no: an unknown flag, a policy with problems, a registry that does not answer.",
		DisableFlagParsing: true, // containerd writes -name, not --name
		RunE: func(cmd *cobra.Command, args []string) error {
			fl := flag.NewFlagSet("image-verifier", flag.ContinueOnError)
			fl.SetOutput(io.Discard)
			name := fl.String("name", "", "")
			digest := fl.String("digest", "", "")
			media := fl.String("stdin-media-type", "", "")
			file := fl.String("policy", "", "")
			platform := fl.String("platform", "linux/amd64", "")
			plain := fl.Bool("plain-http", false, "")
			if err := fl.Parse(args); err != nil {
				if err == flag.ErrHelp { //nolint:errorlint // the package returns it bare
					return cmd.Help()
				}
				return s.answer("deny: " + err.Error())
			}
			return s.verifyForContainerd(cmd, *name, *digest, *media, *file, *platform, *plain)
		},
	}
}

func (s *streams) verifyForContainerd(cmd *cobra.Command, name, digest, media, file, platform string, plain bool) error {
	// The descriptor says nothing that the flags do not; it is read so that
	// containerd's pipe does not break.
	descriptor, err := io.ReadAll(io.LimitReader(s.in, 1<<20))
	if err != nil {
		return s.answer("deny: the descriptor cannot be read")
	}
	var d struct {
		Digest string `json:"digest"`
	}
	if strings.HasSuffix(media, "descriptor.v1+json") && (json.Unmarshal(descriptor, &d) != nil || d.Digest != digest) {
		return s.answer("deny: the descriptor is not of the digest that is asked about")
	}
	ref, err := trust.ParseReference(name)
	if err != nil {
		return s.answer("deny: " + err.Error())
	}
	if _, err := trust.ParseDigest(digest); err != nil || ref.Digest != "" && ref.Digest != digest {
		return s.answer("deny: name and digest do not fit together")
	}
	ref.Digest = digest
	p, err := (&whomFlags{policy: file}).policyInForce()
	if err != nil {
		return s.answer("deny: " + err.Error())
	}
	cfg := registry.Config{Credentials: dockerCredentials()}
	if plain {
		cfg.Plain = []string{ref.Registry()}
	}
	reg, err := registry.New(cfg)
	if err != nil {
		return s.answer("deny: " + err.Error())
	}
	v, err := trust.New(trust.Config{Policies: func() *policy.Policy { return p }, Source: reg, Platform: platform})
	if err != nil {
		return s.answer("deny: " + err.Error())
	}
	verdict, err := v.Decide(cmd.Context(), trust.Request{Image: ref})
	if err != nil {
		return s.answer("deny: " + err.Error())
	}
	if !verdict.Starts() {
		return s.answer(fmt.Sprintf("deny (%s/%s): %s; %s", verdict.Class, verdict.Reason, verdict.Msg, verdict.Hint))
	}
	fmt.Fprintln(s.out, clipReason(fmt.Sprintf("allow (%s/%s): %s", verdict.Class, verdict.Reason, verdict.Msg)))
	return nil
}

// answer prints a refusal and ends with a code that refuses.
func (s *streams) answer(reason string) error {
	fmt.Fprintln(s.out, clipReason(reason))
	return silentError(exitFindings)
}

func clipReason(s string) string {
	s = clean(strings.Join(strings.Fields(s), " "))
	if len(s) > maxReason-1 {
		s = strings.ToValidUTF8(s[:maxReason-1], "")
	}
	return s
}

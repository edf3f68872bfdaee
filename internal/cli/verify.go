package cli

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/layout"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/root"
)

// whomFlags say whose signature counts.
type whomFlags struct {
	policy         string
	keys           []string
	identity       string
	identityRegexp string
	issuer         string
	root           string
	log            bool
}

func (f *whomFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.keys, "key", nil, "public key in PEM form; may be repeated")
	fl.StringVar(&f.identity, "certificate-identity", "", "keyless: the identity that must have signed, exactly")
	fl.StringVar(&f.issuer, "certificate-oidc-issuer", "", "keyless: who vouches for the identity")
	fl.StringVar(&f.root, "trusted-root", "", "trusted root (JSON) instead of Sigstore's public one")
}

// authorities returns whom the flags name.
func (f *whomFlags) authorities() ([]*policy.Authority, *root.Root, error) {
	r, err := f.trustedRoot()
	if err != nil {
		return nil, nil, err
	}
	var all []*policy.Authority
	for _, name := range f.keys {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, usage("name a file with a public key", "the key cannot be read: %v", err)
		}
		k, err := policy.ParseKey(text)
		if err != nil {
			return nil, nil, usage("cosign public-key, or openssl pkey -pubout, writes what is needed", "%s: %v", name, err)
		}
		all = append(all, &policy.Authority{Name: filepath.Base(name), Key: k, Root: r, Log: f.log})
	}
	if f.identity == "" && f.identityRegexp == "" && f.issuer == "" {
		return all, r, nil
	}
	if (f.identity == "") == (f.identityRegexp == "") || f.issuer == "" {
		return nil, nil, usage("give both --certificate-identity and --certificate-oidc-issuer", "an identity means nothing without who vouches for it")
	}
	m := policy.Exact(f.identity)
	if f.identityRegexp != "" {
		if m, err = policy.Regex(f.identityRegexp); err != nil {
			return nil, nil, usage("", "--certificate-identity-regexp: %v", err)
		}
	}
	return append(all, &policy.Authority{
		Name: "identity", Root: r, Log: true, SCT: true,
		Keyless: &policy.Keyless{Issuer: f.issuer, Identity: m},
	}), r, nil
}

func (f *whomFlags) trustedRoot() (*root.Root, error) {
	if f.root == "" {
		r, err := root.PublicGood()
		if err != nil {
			return nil, fmt.Errorf("read embedded root: %w", err)
		}
		return r, nil
	}
	data, err := os.ReadFile(f.root)
	if err != nil {
		return nil, usage("name a trusted_root.json", "the trusted root cannot be read: %v", err)
	}
	r, err := root.Parse(filepath.Base(f.root), data, time.Time{})
	if err != nil {
		return nil, usage("bailey trust root show reads one", "%v", err)
	}
	return r, nil
}

// policyInForce returns the policy file, or one made of the other flags.
func (f *whomFlags) policyInForce() (*policy.Policy, error) {
	of, r, err := f.authorities()
	if err != nil {
		return nil, err
	}
	switch {
	case f.policy != "" && len(of) > 0:
		return nil, usage("give either --policy or --key and --certificate-identity", "a policy says itself who may sign")
	case f.policy == "" && len(of) == 0 && existing(config.DefaultPolicy) != "":
		f.policy = config.DefaultPolicy
	case f.policy == "" && len(of) == 0:
		return nil, usage("add --policy FILE, --key FILE, or --certificate-identity and --certificate-oidc-issuer", "whose signature counts is not said")
	case f.policy == "":
		return policy.AdHoc(r, of...) //nolint:wrapcheck // cannot fail: there is somebody
	}
	p, err := policy.Load(f.policy)
	if err != nil {
		if list, ok := errors.AsType[*policy.Errors](err); ok {
			return nil, &failure{code: exitFailure, msg: list.Error(), hint: "docs/image-trust.md describes the policy file"}
		}
		return nil, &failure{code: exitFailure, err: err}
	}
	return p, nil
}

func verifyCommand(s *streams) *cobra.Command {
	var whom whomFlags
	var offline, explain, plain, refresh bool
	var platform, as string
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Decide whether an image may start, and say why; exit 3 if not, 7 if it could not look",
		Long: "Looks up what is signed about an image and judges it by a policy, or by the keys and identities named here. IMAGE is a reference (quay.io/team/app:1, or …@sha256:…), " +
			"an OCI layout (a directory or a tar), or an archive of docker save. Nothing is started, and no server is needed.",
		Example: "  bailey verify --key team.pub registry.example.org/team/app:1\n" +
			"  bailey verify --policy images.yaml --explain quay.io/jupyter/scipy-notebook:latest",
		Args: cobra.ExactArgs(1),
	}
	fl := cmd.Flags()
	whom.add(cmd)
	fl.StringVar(&whom.policy, "policy", "", "image policy (YAML); without it and without keys this machine's, "+config.DefaultPolicy)
	fl.StringVar(&whom.identityRegexp, "certificate-identity-regexp", "", "keyless: an expression that must cover the whole identity")
	fl.BoolVar(&whom.log, "require-log", false, "with --key: the signature must be in a transparency log")
	fl.BoolVar(&offline, "offline", false, "ask no registry: judge only what files hold")
	fl.BoolVar(&explain, "explain", false, "show every check, also of an allowed image")
	fl.BoolVar(&plain, "plain-http", false, "the registry speaks HTTP without TLS")
	fl.BoolVar(&refresh, "refresh", false, "look again even if stored evidence suffices")
	fl.StringVar(&platform, "platform", "linux/amd64", "which manifest of an index will run")
	fl.StringVar(&as, "as", "", "for files: the repository they are from, which the policy matches")
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		p, err := whom.policyInForce()
		if err != nil {
			return err
		}
		req := trust.Request{Offline: offline, Refresh: refresh}
		var evidence *trust.Evidence
		if _, statErr := os.Stat(args[0]); statErr == nil {
			ev, err := fileEvidence(args[0], as, platform)
			if err != nil {
				return err
			}
			evidence, req.Offline = &ev, true
			req.Image = trust.Reference{Repository: ev.Repository, Digest: ev.Digest}
		} else if req.Image, err = trust.ParseReference(args[0]); err != nil {
			return usage("write it as registry/repository:tag or …@sha256:…, or name a file that exists", "%v", err)
		} else if req.Image.Digest == "" && req.Image.Tag == "" {
			req.Image.Tag = "latest"
		}
		regCfg := registry.Config{Credentials: dockerCredentials()}
		if plain {
			regCfg.Plain = []string{req.Image.Registry()}
		}
		reg, err := registry.New(regCfg)
		if err != nil {
			return fmt.Errorf("prepare registry client: %w", err)
		}
		v, err := trust.New(trust.Config{Policies: func() *policy.Policy { return p }, Source: reg, Platform: platform})
		if err != nil {
			return fmt.Errorf("prepare verifier: %w", err)
		}
		if evidence != nil {
			if err := v.Offer(cmd.Context(), *evidence); err != nil {
				return fmt.Errorf("take evidence: %w", err)
			}
		}
		verdict, err := v.Decide(cmd.Context(), req)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if err := s.printVerdict(&verdict, *format, explain, p, req.Image); err != nil {
			return err
		}
		return verdictCode(&verdict)
	}
	return cmd
}

// verdictCode returns how a command that printed a verdict ends.
func verdictCode(v *trust.Verdict) error {
	switch v.Class {
	case trust.Allowed:
		return nil
	case trust.Unavailable, trust.Stale:
		return silentError(exitUnreachable)
	case trust.Denied:
	}
	return silentError(exitFindings)
}

func (s *streams) printVerdict(v *trust.Verdict, format string, explain bool, p *policy.Policy, image trust.Reference) error {
	if format != "table" {
		return listing{value: v, rows: [][]string{{v.Digest}}}.print(s.out, format)
	}
	fmt.Fprintf(s.out, "%s: %s\n", strings.ToUpper(string(v.Class)), clean(image.String()))
	fmt.Fprintf(s.out, "  %s\n", clean(v.Msg))
	if v.Hint != "" {
		fmt.Fprintf(s.out, "  → %s\n", clean(v.Hint))
	}
	if v.Digest != "" {
		fmt.Fprintf(s.out, "  digest  %s\n", v.Digest)
	}
	for _, signer := range v.Signers {
		at := ""
		if !signer.SignedAt.IsZero() {
			at = ", " + signer.SignedAt.Format(time.RFC3339)
		}
		fmt.Fprintf(s.out, "  signer  %s: %s %s (%s%s)\n", signer.Authority, signer.Kind, clean(signer.ID), signer.Format, at)
	}
	if explain || v.Class != trust.Allowed {
		for _, c := range v.Checks {
			mark := "✓"
			if !c.OK {
				mark = "✗"
			}
			fmt.Fprintf(s.out, "  %s %s: %s\n", mark, clean(c.Name), clean(c.Detail))
		}
	}
	if explain {
		fmt.Fprintf(s.out, "  policy  %s %s\n", clean(p.Name), v.PolicyHash)
		for _, name := range slices.Sorted(mapKeys(p.Roots)) {
			if age, known := p.Roots[name].Age(time.Now()); known {
				fmt.Fprintf(s.out, "  root    %s, %d days old\n", name, int(age.Hours()/24))
			} else {
				fmt.Fprintf(s.out, "  root    %s, of unknown age\n", name)
			}
		}
	}
	return nil
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// fileEvidence reads an image from files.
func fileEvidence(path, as, platform string) (trust.Evidence, error) {
	l, err := layout.Open(path, platform)
	if err != nil {
		return trust.Evidence{}, &failure{code: exitFailure, err: err, hint: "name an OCI layout, or what docker save wrote"}
	}
	im, err := l.Image("")
	if err != nil {
		return trust.Evidence{}, &failure{code: exitFailure, err: err}
	}
	if im.Digest == "" {
		return trust.Evidence{}, &failure{code: exitFailure, msg: path + " holds an image without its manifest, so no signature can be about it", hint: "save it as an OCI layout: skopeo copy, or docker save of Docker 25 and newer"}
	}
	ev := im.Evidence
	ev.Repository = cmp.Or(ev.Repository, "localhost/"+strings.ToLower(filepath.Base(path)))
	if as != "" {
		ref, err := trust.ParseReference(as)
		if err != nil {
			return trust.Evidence{}, usage("", "--as: %v", err)
		}
		ev.Repository = ref.Repository
	}
	return ev, nil
}

// dockerCredentials reads what docker login wrote for this user, if anything.
// Helpers that keep passwords elsewhere are not run.
func dockerCredentials() func(host string) (string, secret.Value, bool) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(home, ".docker", "config.json"))
	if err != nil {
		return nil
	}
	var cfg struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if json.Unmarshal(data, &cfg) != nil {
		return nil
	}
	return func(host string) (string, secret.Value, bool) {
		names := []string{host}
		if host == "docker.io" {
			names = append(names, "https://index.docker.io/v1/")
		}
		for _, n := range names {
			text, err := base64.StdEncoding.DecodeString(cfg.Auths[n].Auth)
			if user, password, ok := strings.Cut(string(text), ":"); err == nil && ok {
				return user, secret.New(password), true
			}
		}
		return "", secret.Value{}, false
	}
}

// openFile returns what verify-bundle is about: a file, or a digest.
func openFile(name string) (trust.File, func(), error) {
	if f, err := trust.ParseFileDigest(name); err == nil {
		return f, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return trust.File{}, nil, usage("name a file, or sha256: and 64 hex digits", "%v", err)
	}
	return trust.File{Content: bufio.NewReader(f)}, func() { _ = f.Close() }, nil
}

// readAtMost reads a file that should be small.
func readAtMost(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, limit>>20)
	}
	return data, nil
}

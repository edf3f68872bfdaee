package trust_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// A cosign is the real command, of one version.
type cosign struct {
	t     *testing.T
	path  string
	major string
	dir   string // its home: keys, no configuration of anybody
}

// cosigns returns the commands below BAILEY_TEST_COSIGN (scripts/cosign.sh
// installs them).
func cosigns(t *testing.T) []*cosign {
	t.Helper()
	dir := os.Getenv("BAILEY_TEST_COSIGN") //nolint:forbidigo // asked for by name, as the other tiers are
	if dir == "" {
		t.Skip("BAILEY_TEST_COSIGN names no folder with cosign commands; scripts/cosign.sh installs them")
	}
	var all []*cosign
	for _, major := range []string{"2", "3"} {
		found, err := filepath.Glob(filepath.Join(dir, "cosign-v"+major+".*", "cosign"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no cosign v%s below %s", major, dir)
		}
		all = append(all, &cosign{t: t, path: found[len(found)-1], major: major, dir: t.TempDir()})
	}
	return all
}

func (c *cosign) try(args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.path, args...)
	cmd.Dir = c.dir
	// A proxy that is not there: whatever is not on loopback fails at once.
	cmd.Env = []string{"HOME=" + c.dir, "COSIGN_PASSWORD=", "PATH=/usr/bin:/bin", "HTTPS_PROXY=http://127.0.0.1:9", "COSIGN_YES=true"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cosign) run(args ...string) {
	c.t.Helper()
	if out, err := c.try(args...); err != nil {
		c.t.Fatalf("cosign v%s %s: %v\n%s", c.major, strings.Join(args, " "), err, out)
	}
}

// unlogged are the flags that keep cosign from the public log.
func (c *cosign) unlogged() []string {
	if c.major == "3" {
		return []string{"--tlog-upload=false", "--use-signing-config=false"}
	}
	return []string{"--tlog-upload=false"}
}

func (c *cosign) bundleFlag(bundle bool) string {
	if bundle {
		return "--new-bundle-format=true"
	}
	return "--new-bundle-format=false"
}

// TestCosignInterop: what cosign signs, of both versions and in every format
// it writes, we verify; what we sign, it verifies. Where we are stricter than
// it is, a case says why.
func TestCosignInterop(t *testing.T) {
	for _, c := range cosigns(t) {
		t.Run("v"+c.major, func(t *testing.T) {
			c.t = t
			c.run("generate-key-pair")
			public, err := os.ReadFile(filepath.Join(c.dir, "cosign.pub"))
			if err != nil {
				t.Fatal(err)
			}
			for _, referrers := range []bool{true, false} {
				for _, bundle := range []bool{true, false} {
					name := map[bool]string{true: "bundle", false: "legacy"}[bundle] + map[bool]string{true: " by referrers", false: " by tag"}[referrers]
					t.Run(name, func(t *testing.T) {
						c.t = t
						c.bothWays(public, referrers, bundle)
					})
				}
			}
		})
	}
}

func (c *cosign) bothWays(public []byte, referrers, bundle bool) {
	t := c.t
	reg := trusttest.NewRegistry(t, referrers)
	format := c.bundleFlag(bundle)
	image := func(name string) (digest, ref string) {
		digest = reg.Image("team/"+name, "v1", name)
		return digest, reg.Host + "/team/" + name + "@" + digest
	}
	v := verifier(t, reg.Policy(public))

	digest, ref := image("signed")
	c.run(append([]string{"sign", "--key", "cosign.key", format, "--allow-insecure-registry", ref}, c.unlogged()...)...)
	wantAllowed(t, decide(t, v, reg.Ref("team/signed", digest)))

	// Annotated, as our own rules about age want it.
	digest, ref = image("annotated")
	c.run(append([]string{"sign", "--key", "cosign.key", format, "--allow-insecure-registry", "-a", "dev.bailey.signed-at=2026-11-01T00:00:00Z", ref}, c.unlogged()...)...)
	early, late := verifier(t, reg.Policy(public, "not_before: 2026-10-31")), verifier(t, reg.Policy(public, "not_before: 2026-11-02"))
	if bundle && c.major == "2" { // which leaves annotations out of its bundles
		wantDenied(t, decide(t, early, reg.Ref("team/annotated", digest)), trust.Denied, trust.ReasonNoTime, "does not say when it was made")
	} else {
		wantAllowed(t, decide(t, early, reg.Ref("team/annotated", digest)))
		wantDenied(t, decide(t, late, reg.Ref("team/annotated", digest)), trust.Denied, trust.ReasonBefore, "before 2026-11-02")
	}

	twin, _ := image("twin")
	wantDenied(t, decide(t, v, reg.Ref("team/twin", twin)), trust.Denied, trust.ReasonUnsigned, "nobody signed")

	// Statements of every type that the policy has a name for.
	digest, ref = image("attested")
	c.run(append([]string{"sign", "--key", "cosign.key", format, "--allow-insecure-registry", ref}, c.unlogged()...)...)
	for kind, predicate := range map[string]string{
		"slsaprovenance1": `{"buildDefinition":{"buildType":"https://example.org/t","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.org/b"}}}`,
		"spdxjson":        `{"spdxVersion":"SPDX-2.3","name":"app"}`,
		"cyclonedx":       `{"bomFormat":"CycloneDX","specVersion":"1.5"}`,
		"vuln":            `{"invocation":{},"scanner":{"uri":"s","version":"1","db":{},"result":{"critical":0}},"metadata":{"scanStartedOn":"2026-11-01T00:00:00Z","scanFinishedOn":"2026-11-01T00:00:00Z"}}`,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, kind), []byte(predicate), 0o600); err != nil {
			t.Fatal(err)
		}
		c.run(append([]string{"attest", "--key", "cosign.key", format, "--allow-insecure-registry", "--type", kind, "--predicate", kind, ref}, c.unlogged()...)...)
	}
	wants := reg.Policy(public, `attestations:
  - {type: slsa-provenance, condition: predicate.runDetails.builder.id == "https://example.org/b"}
  - {type: spdx, condition: predicate.name == "app"}
  - {type: cyclonedx, condition: predicate.bomFormat == "CycloneDX"}
  - {type: vuln, condition: predicate.scanner.result.critical == 0.0}`)
	wantAllowed(t, decide(t, verifier(t, wants), reg.Ref("team/attested", digest)))
	wantDenied(t, decide(t, verifier(t, strings.Replace(wants, "critical == 0.0", "critical > 0.0", 1)), reg.Ref("team/attested", digest)), trust.Denied, trust.ReasonCondition, "vuln")

	c.ours(reg, bundle)
}

// ours signs with our signer and has cosign verify it.
func (c *cosign) ours(reg *trusttest.Registry, bundle bool) {
	t := c.t
	us := newParty(t)
	if err := os.WriteFile(filepath.Join(c.dir, "us.pub"), us.public, 0o600); err != nil {
		t.Fatal(err)
	}
	repo := reg.Host + "/team/ours"
	digest := reg.Image("team/ours", "v1", "ours")
	switch {
	case !bundle:
		reg.Legacy("team/ours", digest, ".sig", us.legacy(t, repo, digest))
	default:
		reg.Attach("team/ours", digest, us.bundle(t, repo, digest))
		if !hasReferrers(t, reg, digest) {
			reg.AttachByTag("team/ours", digest, us.bundle(t, repo, digest))
		}
	}
	// A bundle is checked against a trusted root even when a key signed it.
	if err := os.WriteFile(filepath.Join(c.dir, "root.json"), trusttest.NewSigstore(t).RootJSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(key string) (string, error) {
		args := []string{"verify", "--key", key, c.bundleFlag(bundle), "--insecure-ignore-tlog", "--allow-insecure-registry"}
		if bundle {
			args = append(args, "--trusted-root", "root.json")
		}
		return c.try(append(args, repo+"@"+digest)...)
	}
	if out, err := verify("us.pub"); err != nil {
		t.Errorf("cosign v%s does not verify what we signed: %v\n%s", c.major, err, out)
	}
	if out, err := verify("cosign.pub"); err == nil {
		t.Errorf("cosign v%s verifies it with another key: %s", c.major, out)
	}
}

func hasReferrers(t *testing.T, reg *trusttest.Registry, digest string) bool {
	t.Helper()
	v := decide(t, verifier(t, reg.Policy(newParty(t).public)), reg.Ref("team/ours", digest))
	return v.Reason != trust.ReasonUnsigned
}

// TestStricterThanCosign names where the two differ on purpose.
func TestStricterThanCosign(t *testing.T) {
	for _, c := range cosigns(t) {
		t.Run("v"+c.major, func(t *testing.T) {
			c.t = t
			c.run("generate-key-pair")
			public, err := os.ReadFile(filepath.Join(c.dir, "cosign.pub"))
			if err != nil {
				t.Fatal(err)
			}
			reg := trusttest.NewRegistry(t, true)
			digest := reg.Image("team/app", "v1", "app")
			c.run(append([]string{"sign", "--key", "cosign.key", c.bundleFlag(false), "--allow-insecure-registry", reg.Host + "/team/app@" + digest}, c.unlogged()...)...)
			verify := func(image string) error {
				_, err := c.try("verify", "--key", "cosign.pub", c.bundleFlag(false), "--insecure-ignore-tlog", "--allow-insecure-registry", image)
				return err
			}
			// cosign never looks at the repository that a signature names; a rule
			// that binds does, so that an image cannot be passed off as another.
			reg.Image("copy/app", "v1", "app")
			copyTag(t, reg, "team/app", "copy/app", digest)
			if err := verify(reg.Host + "/copy/app@" + digest); err != nil {
				t.Errorf("cosign refuses the copy: %v", err)
			}
			wantDenied(t, decide(t, verifier(t, reg.Policy(public, "bind_repository: true")), reg.Ref("copy/app", digest)), trust.Denied, trust.ReasonWrongRepository, "team/app")

			// cosign's text for a registry that throttles is the one for an image
			// that nobody signed; here they are two classes.
			var exit *exec.ExitError
			if err := verify(reg.Host + "/none/app@" + digest); !errors.As(err, &exit) {
				t.Errorf("cosign verifies an image that is not there: %v", err)
			}
			wantDenied(t, decide(t, verifier(t, reg.Policy(public)), reg.Ref("none/app", digest)), trust.Unavailable, trust.ReasonUnavailable, "not the same as unsigned")
		})
	}
}

// copyTag copies the ".sig" tag of an image to another repository.
func copyTag(t *testing.T, reg *trusttest.Registry, from, to, digest string) {
	t.Helper()
	data := reg.Get(from, strings.Replace(digest, ":", "-", 1)+".sig")
	for _, d := range reg.LayersOf(data) {
		reg.Blob(to, reg.GetBlob(from, d))
	}
	reg.Manifest(to, strings.Replace(digest, ":", "-", 1)+".sig", trusttest.OCIManifest, data)
}

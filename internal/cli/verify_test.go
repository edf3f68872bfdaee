package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/cli"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// TestVerifyAsANewUser signs an image with a new key and asks about it, about
// its tampered twin, and about it while the registry is away, in every way
// that the command line has.
func TestVerifyAsANewUser(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	private, public, err := sign.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	reg := trusttest.NewRegistry(t, true)
	repo := reg.Host + "/team/app"
	good := reg.Image("team/app", "v1", "good")
	twin := reg.Image("team/app", "v2", "twin")
	bundle, err := sign.Bundle(key, repo, good, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	reg.Attach("team/app", good, bundle)
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile, policyFile := file("us.pub", public), file("images.yaml", []byte(reg.Policy(public)))
	bundleFile := file("bundle.json", bundle)
	manifest, _, _ := trusttest.ImageManifest("good")
	manifestFile := file("manifest.json", manifest)

	run := func(want int, stdin string, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := cli.Run(t.Context(), args, strings.NewReader(stdin), &out, &errs); got != want {
			t.Errorf("bailey %s exited %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
	wants := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%q does not say %q", text, w)
			}
		}
	}

	out, _ := run(0, "", "verify", "--key", keyFile, repo+":v1")
	wants(out, "ALLOWED", good, "signed by us.pub")
	out, _ = run(0, "", "verify", "--policy", policyFile, "--explain", repo+"@"+good)
	wants(out, "✓ policy: rule ours", "✓ signature", "root    public-good")
	out, _ = run(3, "", "verify", "--policy", policyFile, repo+":v2")
	wants(out, "DENIED", "nobody signed the image", "→ sign it", twin)
	out, _ = run(3, "", "verify", "--policy", policyFile, "-o", "json", repo+":v2")
	var v trust.Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Class != trust.Denied || v.Reason != trust.ReasonUnsigned || len(v.Checks) == 0 {
		t.Errorf("the verdict as JSON is %s, %v", out, err)
	}
	out, _ = run(3, "", "verify", "--policy", policyFile, "elsewhere.example.org/x")
	wants(out, "no rule of the image policy matches")
	reg.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	out, _ = run(7, "", "verify", "--key", keyFile, repo+":v1")
	wants(out, "UNAVAILABLE", "429", "not the same as unsigned")
	reg.Fault(nil)
	run(7, "", "verify", "--key", keyFile, "--offline", repo+"@"+good)
	_, text := run(2, "", "verify", "--certificate-oidc-issuer", "https://x", repo+":v1")
	wants(text, "an identity means nothing")
	run(2, "", "verify", "--key", keyFile, "--policy", policyFile, repo+":v1")
	run(2, "", "verify", "--certificate-identity", "me", repo+":v1")

	out, _ = run(0, "", "trust", "verify-bundle", "--bundle", bundleFile, "--key", keyFile, manifestFile)
	wants(out, "verified")
	run(0, "", "trust", "verify-bundle", "--bundle", bundleFile, "--key", keyFile, good)
	run(1, "", "trust", "verify-bundle", "--bundle", bundleFile, "--key", keyFile, twin)
	run(1, "", "trust", "verify-bundle", "--bundle", bundleFile, "--certificate-identity", "me", "--certificate-oidc-issuer", "https://x", good)
	run(1, "", "trust", "verify-bundle", "--bundle", manifestFile, "--key", keyFile, good)
	run(2, "", "trust", "verify-bundle", "--bundle", bundleFile, good)

	descriptor := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + good + `","size":1}`
	ask := func(want int, digest string) string {
		t.Helper()
		out, _ := run(want, descriptor, "image-verifier", "--policy", policyFile, "-name", repo+":v1", "-digest", digest, "-stdin-media-type", "application/vnd.oci.descriptor.v1+json")
		return out
	}
	wants(ask(0, good), "allow (allowed/met)")
	wants(ask(3, twin), "deny", "descriptor is not of the digest")
	descriptor = strings.Replace(descriptor, good, twin, 1)
	wants(ask(3, twin), "deny (denied/unsigned)", "nobody signed")
	wants(ask(3, "latest"), "deny")
	run(3, "", "image-verifier", "-name", repo+":v1", "-digest", good, "-unknown")

	out, _ = run(0, "", "trust", "check", policyFile)
	wants(out, "ours", "signed by us")
	run(1, "", "trust", "check", keyFile)
}

// TestRootImport: an older root is not taken unasked, and nobody reads half of
// one.
func TestRootImport(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	to, older := filepath.Join(dir, "root.json"), filepath.Join(dir, "other.json")
	if err := os.WriteFile(older, trusttest.NewSigstore(t).RootJSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := cli.Run(t.Context(), args, strings.NewReader(""), &out, &errs); got != want {
			t.Errorf("bailey %v exited %d, want %d\n%s%s", args, got, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	text := run(6, "trust", "root", "import", older, "--to", to)
	if !strings.Contains(text, "loses") || !strings.Contains(text, "--force") {
		t.Errorf("the refusal says %q", text)
	}
	run(0, "trust", "root", "import", older, "--to", to, "--force")
	run(0, "trust", "root", "show", "--file", to)
	run(0, "trust", "root", "import", older, "--to", to)
	run(2, "trust", "root", "import", os.Args[0], "--to", to) // larger than any root
	run(1, "trust", "root", "import", "verify_test.go", "--to", to)
	run(2, "trust", "root", "show", "--file", filepath.Join(dir, "none"))
}

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// cache is where make images puts what it builds.
func cache() string {
	if dir := os.Getenv("BAILEY_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/bailey/images"
}

// An image that was built and not signed starts for nobody. Signed with the
// key of the machine it starts, with a receipt; with the key taken out of the
// policy it does not start again, within a second and without a network.
func TestOnlyWhatIsSignedStarts(t *testing.T) {
	dir := t.TempDir()
	layouts, policy, key := filepath.Join(dir, "images"), filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "images.key")
	if err := os.Mkdir(layouts, 0o755); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(layouts, "notebook.oci")
	if err := os.Symlink(filepath.Join(cache(), "notebook.oci"), layout); err != nil {
		t.Fatal(err)
	}
	trusted := "version: 1\nauthorities:\n  us: {key: {file: images.pub}}\nrules:\n  - {name: ours, match: [\"localhost/bailey/*\"], require: {of: [us]}}\n"
	conf := filepath.Join(dir, "bailey.yaml")
	write(t, conf, "trust: {policy: "+policy+", key: "+key+", layouts: "+layouts+"}\nclasses:\n  - {name: notebook, image: notebook, memory: 1GiB}\n")
	s, _ := server(t, "--config", conf)
	// Any signature makes the key; this one is of no image of ours.
	if out, err := exec.CommandContext(t.Context(), s.Bin, "image", "sign", "--key", key, filepath.Join(dir, "none.oci")).CombinedOutput(); err == nil {
		t.Fatalf("a layout that is not there was signed: %s", out)
	}
	write(t, policy, trusted)
	admin := start(t, s)
	ctx := deadline(t, 3*time.Minute)
	write(t, filepath.Join(dir, "bob.password"), "seven orange bridges 81")
	if _, err := admin.CLI(ctx, "admin", "user", "add", "bob", "--password-file", filepath.Join(dir, "bob.password")); err != nil {
		t.Fatal(err)
	}
	bob := s.Person("bob", filepath.Join(dir, "bob.password"))
	if err := bob.Login(ctx); err != nil {
		t.Fatal(err)
	}

	for _, who := range []*drive.Person{admin, bob} {
		_, err := who.CLI(ctx, "run", "notebook")
		if drive.ExitCode(err) != 6 || !strings.Contains(err.Error(), "image notebook (localhost/bailey/notebook@") || !strings.Contains(err.Error(), "nobody signed the image") || !strings.Contains(err.Error(), "→") {
			t.Errorf("an unsigned image: %v (exit %d); want exit 6, which check failed and how to mend it", err, drive.ExitCode(err))
		}
	}
	if out, err := exec.CommandContext(ctx, s.Bin, "image", "sign", "--key", key, layout).CombinedOutput(); err != nil {
		t.Fatalf("sign: %v\n%s", err, out)
	}
	until(t, ctx, "the signed image to be in the catalogue", func() bool {
		out, err := bob.CLI(ctx, "image", "ls", "-o", "json")
		return err == nil && strings.Contains(out, `"approved"`)
	})
	if _, err := bob.CLI(ctx, "image", "retire", "notebook"); drive.ExitCode(err) != 6 {
		t.Errorf("bob retires an image: %v (exit %d), want exit 6", err, drive.ExitCode(err))
	}
	remove(t, bob, "notebook")
	out, err := bob.CLI(ctx, "run", "notebook", "--receipt")
	if err != nil {
		t.Fatal(err)
	}
	var receipt struct {
		Image, Digest, Started, Signer, Engine, Decision string
		PolicyHash                                       string `json:"policy_hash"`
	}
	if err := json.Unmarshal([]byte(out), &receipt); err != nil {
		t.Fatalf("receipt %q: %v", out, err)
	}
	if receipt.Image != "notebook" || !strings.HasPrefix(receipt.Signer, "us (key sha256:") || !strings.HasPrefix(receipt.Engine, "docker ") ||
		!strings.HasPrefix(receipt.Digest, "sha256:") || receipt.Digest == receipt.Started || receipt.PolicyHash == "" {
		t.Errorf("receipt = %+v", receipt)
	}

	if _, err := bob.CLI(ctx, "stop", "notebook"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "images.pub"), filepath.Join(dir, "kept.pub")); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "the start to be refused", func() bool {
		_, err := bob.CLI(ctx, "run", "--detach", "notebook")
		if err == nil {
			_, _ = bob.CLI(ctx, "stop", "notebook") // it was faster than the look at the policy
			return false
		}
		return drive.ExitCode(err) == 6
	})
	audit, err := admin.CLI(ctx, "audit", "search", "--action", "image.decide", "--outcome", "refused", "-o", "json")
	if err != nil || !strings.Contains(audit, `"bob"`) || !strings.Contains(audit, receipt.Digest) {
		t.Errorf("the journal of the refusals: %s, %v", audit, err)
	}
}

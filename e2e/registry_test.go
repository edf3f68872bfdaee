package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/baileyhq/bailey/e2e/drive"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// relabelled is the notebook image with another label: the same files, another
// image.
func relabelled(t *testing.T, value string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(cache(), "notebook.oci"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	delete(file.Config.Labels, "dev.bailey.image") // it is nobody's catalogue that knows it
	file.Config.Labels["org.example.build"] = value
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// A team signs an image with a key that this server has never seen. One rule
// in the policy, one approval, and it starts, pulled by digest. Its tampered
// twin under the same tag does not, and with the registry gone what was approved
// goes on starting.
func TestATeamsImageStartsAfterOnePolicyLine(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	conf := filepath.Join(dir, "bailey.yaml")
	write(t, conf, "trust: {policy: "+policy+", key: "+filepath.Join(dir, "own.key")+", layouts: \"\"}\n")
	s, _ := server(t, "--config", conf)
	registry := trusttest.NewRegistry(t, true)
	private, public, err := sign.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "team.pub"), string(public))
	rule := func(more string) string {
		return "version: 1\nauthorities:\n  team: {key: {file: team.pub}}\nrules:\n  - {name: other, match: [registry.example/*], require: {of: [team]}}\n" + more
	}
	write(t, policy, rule(""))
	admin := start(t, s)
	ctx := deadline(t, 5*time.Minute)

	push := func(img v1.Image) (digest string) {
		ref, err := name.NewTag(registry.Host+"/team/lab:v1", name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = exec.Command("docker", "image", "rm", "--force", config.String()).Run() })
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	good := push(relabelled(t, "good"))
	key, err := sign.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := sign.Bundle(key, registry.Host+"/team/lab", good, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	registry.Attach("team/lab", good, bundle)
	ref := registry.Host + "/team/lab:v1"

	registry.Requests()
	if _, err := admin.CLI(ctx, "image", "add", "lab", ref); drive.ExitCode(err) != 6 || !strings.Contains(err.Error(), "no rule of the image policy matches") {
		t.Errorf("add without a rule: %v; want exit 6 and that no rule matches", err)
	}
	if asked := registry.Requests(); len(asked) != 0 {
		t.Errorf("a registry that no rule names was asked: %v", asked)
	}
	write(t, policy, rule("  - {name: team, match: [\""+registry.Host+"/team/*\"], require: {of: [team]}}\n"))
	until(t, ctx, "the new rule to count", func() bool {
		out, err := admin.CLI(ctx, "image", "add", "lab", ref)
		return err == nil && strings.TrimSpace(out) == good
	})
	if _, err := admin.CLI(ctx, "image", "approve", "lab"); err != nil {
		t.Fatalf("approve: %v", err)
	}
	remove(t, admin, "lab")
	if _, err := admin.CLI(ctx, "run", "lab"); err != nil {
		t.Fatalf("run: %v", err)
	}
	if _, err := admin.CLI(ctx, "stop", "lab"); err != nil {
		t.Fatal(err)
	}

	twin := push(relabelled(t, "with a guest")) // over the same tag
	out, err := admin.CLI(ctx, "image", "add", "twin", ref)
	if err != nil || strings.TrimSpace(out) != twin {
		t.Errorf("add the twin: %q, %v", out, err)
	}
	if _, err := admin.CLI(ctx, "image", "approve", "twin"); drive.ExitCode(err) != 6 || !strings.Contains(err.Error(), "nobody signed the image") {
		t.Errorf("approve the tampered twin: %v; want exit 6 and that nobody signed it", err)
	}
	registry.Fault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	out, err = admin.CLI(ctx, "run", "lab", "--receipt")
	if err != nil || !strings.Contains(out, good) || !strings.Contains(out, "team (key sha256:") {
		t.Errorf("with the tag moved and the registry gone: %s, %v; want %s by team", out, err, good)
	}
	if _, err := os.Stat(filepath.Join(dir, "own.key")); err != nil {
		t.Errorf("the server has no key of its own: %v", err)
	}
}

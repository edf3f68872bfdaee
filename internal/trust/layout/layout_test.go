package layout_test

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/layout"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// files is an OCI layout in the making.
type files map[string][]byte

func (f files) blob(data []byte) string {
	d := trusttest.Digest(data)
	f["blobs/sha256/"+strings.TrimPrefix(d, "sha256:")] = data
	return d
}

func (f files) dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range f {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f files) tar(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	for name, data := range f {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

const repository = "localhost/bailey/notebook"

// newKey returns somebody who signs, and the policy that trusts them.
func newKey(t *testing.T) (bundle func(digest string) []byte, p *policy.Policy) {
	t.Helper()
	private, public, err := sign.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := "version: 1\nauthorities:\n  us:\n    key:\n      pem: |\n        " + strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n        ") +
		"\nrules:\n  - {name: ours, match: [localhost/bailey/*], require: {of: [us]}}\n"
	p, err = policy.Parse("policy.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(digest string) []byte {
		b, err := sign.Bundle(key, repository, digest, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, p
}

// TestSignedLayout reads a layout with its signature, as a directory and as a
// tar, and judges it; what was exchanged afterwards is noticed.
func TestSignedLayout(t *testing.T) {
	bundle, p := newKey(t)
	manifest, config, layer := trusttest.ImageManifest("notebook")
	make := func(sig []byte) files {
		f := files{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
		digest := f.blob(manifest)
		f.blob(config)
		f.blob(layer)
		f.blob(sig)
		attached := trusttest.JSON(map[string]any{
			"schemaVersion": 2, "mediaType": trusttest.OCIManifest, "artifactType": trusttest.BundleType,
			"config": trusttest.Descriptor("application/vnd.oci.empty.v1+json", []byte("{}")),
			"layers": []any{trusttest.Descriptor(trusttest.BundleType, sig)}, "subject": trusttest.Descriptor(trusttest.OCIManifest, manifest),
		})
		ref := trusttest.Descriptor(trusttest.OCIManifest, manifest)
		ref["annotations"] = map[string]string{"org.opencontainers.image.ref.name": repository + ":latest"}
		_ = digest
		f.blob(attached)
		f["index.json"] = trusttest.JSON(map[string]any{"schemaVersion": 2, "manifests": []any{ref, trusttest.Descriptor(trusttest.OCIManifest, attached)}})
		return f
	}
	judge := func(im layout.Image) trust.Verdict {
		return trust.Judge(im.Evidence, p, trust.Reference{Repository: repository, Digest: im.Digest}, "linux/amd64", time.Now())
	}
	good := make(bundle(trusttest.Digest(manifest)))
	for kind, path := range map[string]string{"directory": good.dir(t), "tar": good.tar(t)} {
		l, err := layout.Open(path, "linux/amd64")
		if err != nil {
			t.Fatalf("Open(%s): %v", kind, err)
		}
		im, err := l.Image(repository + ":latest")
		if err != nil {
			t.Fatalf("Image in %s: %v", kind, err)
		}
		if v := judge(im); v.Class != trust.Allowed || v.ConfigDigest != trusttest.Digest(config) || im.Evidence.Repository != repository {
			t.Errorf("%s: %s/%s %s, config %s, want allowed with config %s", kind, v.Class, v.Reason, v.Msg, v.ConfigDigest, trusttest.Digest(config))
		}
		if _, err := l.Image("other"); !errors.Is(err, layout.ErrNoImage) {
			t.Errorf("Image(other) in %s: %v, want ErrNoImage", kind, err)
		}
	}

	t.Run("signature of another image", func(t *testing.T) {
		l, err := layout.Open(make(bundle(trusttest.Digest([]byte("other")))).dir(t), "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		im, _ := l.Image("")
		if v := judge(im); v.Class != trust.Denied || v.Reason != trust.ReasonWrongImage {
			t.Errorf("%s/%s, want denied/wrong_image", v.Class, v.Reason)
		}
	})
	t.Run("manifest exchanged in place", func(t *testing.T) {
		f := make(bundle(trusttest.Digest(manifest)))
		other, _, _ := trusttest.ImageManifest("evil")
		f["blobs/sha256/"+strings.TrimPrefix(trusttest.Digest(manifest), "sha256:")] = other
		if _, err := layout.Open(f.dir(t), "linux/amd64"); err == nil || !strings.Contains(err.Error(), "missing or not that") {
			t.Errorf("Open: %v, want a refusal", err)
		}
	})
	t.Run("two faces", func(t *testing.T) {
		f := make(bundle(trusttest.Digest(manifest)))
		_, evil, _ := trusttest.ImageManifest("evil")
		f.blob(evil)
		f["manifest.json"] = trusttest.JSON([]any{map[string]any{"Config": "blobs/sha256/" + strings.TrimPrefix(trusttest.Digest(evil), "sha256:")}})
		if _, err := layout.Open(f.tar(t), "linux/amd64"); err == nil || !strings.Contains(err.Error(), "two faces") {
			t.Errorf("Open: %v, want a refusal", err)
		}
		f["manifest.json"] = trusttest.JSON([]any{map[string]any{"Config": "blobs/sha256/" + strings.TrimPrefix(trusttest.Digest(config), "sha256:")}})
		if _, err := layout.Open(f.tar(t), "linux/amd64"); err != nil {
			t.Errorf("Open of what newer engines write: %v", err)
		}
	})
	t.Run("a link out of the directory", func(t *testing.T) {
		dir := good.dir(t)
		if err := errors.Join(os.Remove(filepath.Join(dir, "index.json")), os.Symlink("/etc/passwd", filepath.Join(dir, "index.json"))); err != nil {
			t.Fatal(err)
		}
		if _, err := layout.Open(dir, "linux/amd64"); err == nil {
			t.Error("Open followed a link")
		}
	})
}

// TestDockerSave ties a signed manifest to an archive that holds only configs.
func TestDockerSave(t *testing.T) {
	bundle, p := newKey(t)
	manifest, config, _ := trusttest.ImageManifest("notebook")
	save := func(config []byte) layout.Image {
		name := strings.TrimPrefix(trusttest.Digest(config), "sha256:") + ".json"
		l, err := layout.Open(files{
			name:            config,
			"manifest.json": trusttest.JSON([]any{map[string]any{"Config": name, "RepoTags": []string{repository + ":latest"}, "Layers": []string{}}}),
		}.tar(t), "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		im, err := l.Image(repository + ":latest")
		if err != nil {
			t.Fatal(err)
		}
		return im
	}
	ev, err := save(config).Beside(repository, manifest, bundle(trusttest.Digest(manifest)))
	if err != nil {
		t.Fatal(err)
	}
	v := trust.Judge(ev, p, trust.Reference{Repository: repository, Digest: ev.Digest}, "linux/amd64", time.Now())
	if v.Class != trust.Allowed || v.ConfigDigest != trusttest.Digest(config) {
		t.Errorf("%s/%s %s, want allowed", v.Class, v.Reason, v.Msg)
	}
	_, evil, _ := trusttest.ImageManifest("evil")
	if _, err := save(evil).Beside(repository, manifest, bundle(trusttest.Digest(manifest))); err == nil || !strings.Contains(err.Error(), "for another image") {
		t.Errorf("a signed manifest was taken for another archive: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"digest":"sha256:x"}]}`), []byte(`[{"Config":"a.json"}]`))
	f.Add([]byte(`{}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, index, manifest []byte) {
		dir := t.TempDir()
		_ = os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600)
		_ = os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600)
		if l, err := layout.Open(dir, "linux/amd64"); err == nil {
			_, _ = l.Image("")
		}
	})
}

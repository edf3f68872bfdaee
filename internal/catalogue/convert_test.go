package catalogue_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/catalogue"
)

// saved writes an archive of name and content pairs.
func saved(tb testing.TB, files ...string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

const (
	savedConfig   = `{"architecture":"amd64","os":"linux"}`
	savedManifest = `[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]`
)

// FuzzWriteLayout: whatever a file claims to be, nothing is written outside the
// layout, and what comes out of it is one image or nothing.
func FuzzWriteLayout(f *testing.F) {
	f.Add(saved(f, "c.json", savedConfig, "l/layer.tar", "layer", "manifest.json", savedManifest))
	f.Add(saved(f, "../../c.json", savedConfig, "/l/layer.tar", "layer", "manifest.json", savedManifest))
	f.Add(saved(f, "manifest.json", `[{"Config":"../../../etc/passwd","Layers":[]}]`))
	f.Add(saved(f, "manifest.json", `[]`))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "x.oci")
		digest, err := catalogue.WriteLayout(bytes.NewReader(archive), dir)
		left, _ := os.ReadDir(parent)
		if err != nil {
			if len(left) != 0 {
				t.Errorf("after %v there is %v", err, left)
			}
			return
		}
		if len(left) != 1 || left[0].Name() != "x.oci" {
			t.Errorf("beside the layout there is %v", left)
		}
		if _, err := os.Stat(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))); err != nil {
			t.Errorf("the layout has no manifest: %v", err)
		}
	})
}

// FuzzImport: whatever a file says of itself, what nobody signed is not taken
// in, and the engine gets nothing of it.
func FuzzImport(f *testing.F) {
	const evidence = `{"version":1,"name":"torch","evidence":{"repository":"registry.example/team/torch","digest":"sha256:` +
		`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","items":[{"kind":"bundle","data":"e30="}]}}`
	f.Add(saved(f, "bailey/evidence.json", evidence, "c.json", savedConfig, "l/layer.tar", "layer", "manifest.json", savedManifest))
	f.Add(saved(f, "bailey/evidence.json", "{", "manifest.json", savedManifest))
	f.Add(saved(f, "c.json", savedConfig, "l/layer.tar", "layer", "manifest.json", savedManifest))
	f.Add(saved(f, "index.json", `{"schemaVersion":2,"manifests":[]}`))
	var w *world
	f.Fuzz(func(t *testing.T, archive []byte) {
		if w == nil || w.Context().Err() != nil {
			w = newWorld(t)
		}
		if err := os.WriteFile(w.file("transfer/x.tar"), archive, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := w.images.Import(t.Context(), w.admin, catalogue.Import{File: "x.tar", Name: "torch", Repository: w.registry.Host + "/team/torch"})
		if err == nil {
			t.Errorf("imported %+v", e)
		}
		if n := w.fake.Calls("Load"); n != 0 {
			t.Errorf("the engine was given something %d times", n)
		}
	})
}

package catalogue_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/engine/docker"
	"github.com/baileyhq/bailey/internal/trust/sign"
)

// onDocker returns a world whose engine is the machine's Docker.
func onDocker(t *testing.T) *world {
	t.Helper()
	if os.Getenv("BAILEY_TEST_DOCKER") != "1" {
		t.Skip("needs Docker and root: set BAILEY_TEST_DOCKER=1")
	}
	agent := filepath.Join(t.TempDir(), "bailey-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", agent, "github.com/baileyhq/bailey/cmd/bailey-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	e, err := docker.New(docker.Config{Instance: bailey.NewID(), Root: filepath.Join(t.TempDir(), "state"), AgentPath: agent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return newWorldOn(t, e)
}

// pushReal pushes an image that Docker can hold.
func (w *world) pushReal(repository, tag string, signed bool) (digest, config string) {
	w.Helper()
	img, err := random.Image(4096, 2)
	w.must(err)
	img = platform{img}
	ref, err := name.NewTag(w.registry.Host+"/"+repository+":"+tag, name.Insecure)
	w.must(err)
	w.must(remote.Write(ref, img, remote.WithContext(w.Context())))
	d, err := img.Digest()
	w.must(err)
	c, err := img.ConfigName()
	w.must(err)
	w.Cleanup(func() { w.forget(c.String()) })
	if signed {
		w.sign(repository, d.String())
	}
	return d.String(), c.String()
}

// platform is an image as it is; random images have no platform of their own,
// which Docker takes for the machine's.
type platform struct{ v1.Image }

// docker runs the docker command.
func (w *world) docker(args ...string) string {
	w.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput() //nolint:noctx // also used while the test is being cleaned up
	if err != nil {
		w.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// forget removes an image, if it is there.
func (w *world) forget(id string) {
	_ = exec.Command("docker", "image", "rm", "--force", id).Run() //nolint:errcheck,noctx // it may be gone already
}

func TestOnDockerAMovedTagIsNotFollowed(t *testing.T) {
	w := onDocker(t)
	digest, config := w.pushReal("team/torch", "v1", true)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	_, twin := w.pushReal("team/torch", "v1", false) // the tag is moved before anybody pulls
	r, err := w.verify("torch", "")
	w.must(err)
	var told []int
	w.must(w.images.Fetch(t.Context(), r, func(p int) { told = append(told, p) }))
	if got, err := w.engine.Image(t.Context(), r.Started); err != nil || got.ID != config {
		t.Errorf("Docker holds %+v, %v; want %s", got, err, config)
	}
	if _, err := w.engine.Image(t.Context(), twin); err == nil {
		t.Error("the moved tag's image was pulled too")
	}
	if told[len(told)-1] != 100 {
		t.Errorf("progress = %v", told)
	}

	// Removed, and another image tagged with every name that it had.
	w.forget(config)
	evil, _ := w.pushReal("team/evil", "v1", false)
	w.docker("pull", "--quiet", w.registry.Host+"/team/evil:v1")
	w.docker("tag", w.registry.Host+"/team/evil:v1", w.registry.Host+"/team/torch:v1")
	r, err = w.verify("torch", "")
	w.must(err)
	if r.Digest != digest || r.Started != config {
		t.Errorf("receipt = %+v; want %s, whatever the tag is", r, digest)
	}
	if _, err := w.engine.Image(t.Context(), r.Started); err == nil {
		t.Error("Docker still has what was removed")
	}
	_, err = w.verify("torch", evil)
	w.refused("what was tagged in its place", err, bailey.Denied, "not what was signed and approved")
	w.must(w.images.Fetch(t.Context(), r, nil))
	if got, err := w.engine.Image(t.Context(), r.Started); err != nil || got.ID != config {
		t.Errorf("Docker holds %+v, %v after fetching again", got, err)
	}
}

// From a server with a registry to one without: one file.
func TestOnDockerAnExportStartsBehindAnAirGap(t *testing.T) {
	w := onDocker(t)
	digest, config := w.pushReal("team/torch", "v1", true)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	_, err = w.images.Export(t.Context(), w.admin, "torch")
	w.refused("an export of what is not here", err, bailey.Conflict, "is not on this machine")
	_, err = w.images.Prefetch(t.Context(), w.admin, "torch")
	w.must(err)
	r, err := w.verify("torch", "")
	w.must(err)
	w.must(w.images.Fetch(t.Context(), r, nil))
	_, err = w.images.Export(t.Context(), w.alice, "torch")
	w.refused("alice exports", err, bailey.Denied)
	file, err := w.images.Export(t.Context(), w.admin, "torch")
	w.must(err)

	w.forget(config)
	other := newWorldOn(t, w.engine)
	other.registry.Host = w.registry.Host // its policy is about the same images
	w.registry.Fault(down)
	archive, err := os.ReadFile(file)
	w.must(err)
	put := func(name string, data []byte) { w.must(os.WriteFile(other.file("transfer/"+name), data, 0o600)) }
	put("torch.tar", archive)
	_, err = other.images.Import(t.Context(), other.admin, catalogue.Import{File: "torch.tar"})
	w.refused("an import under a policy that knows nobody of there", err, bailey.Denied, "may not start")
	if _, err := w.engine.Image(t.Context(), config); err == nil {
		t.Fatal("what was refused was loaded")
	}

	other.trust(w.public)
	for what, change := range map[string]func(name string, data []byte) []byte{
		"a layer": func(name string, data []byte) []byte {
			if strings.HasSuffix(name, "/layer.tar") || strings.HasSuffix(name, ".tar") {
				data[600] ^= 1
			}
			return data
		},
		"the configuration": func(name string, data []byte) []byte {
			if name == strings.TrimPrefix(config, "sha256:")+".json" {
				return bytes.Replace(data, []byte(`"os":`), []byte(`"oz":`), 1)
			}
			return data
		},
	} {
		put("changed.tar", rewriteTar(t, archive, change))
		if _, err := other.images.Import(t.Context(), other.admin, catalogue.Import{File: "changed.tar"}); err == nil {
			t.Errorf("an archive with %s changed was imported", what)
		}
		if _, err := w.engine.Image(t.Context(), config); err == nil {
			t.Fatalf("after %s was changed Docker holds the image", what)
		}
	}

	e, err := other.images.Import(t.Context(), other.admin, catalogue.Import{File: "torch.tar"})
	w.must(err)
	if e.Digest != digest || e.State != bailey.ImageVerified || e.Source != bailey.FromArchive || !e.Here {
		t.Errorf("imported = %+v", e)
	}
	_, err = other.verify("torch", "")
	w.refused("a start before the approval", err, bailey.Denied, "nobody has approved")
	_, err = other.images.Approve(t.Context(), other.admin, "torch")
	w.must(err)
	if r, err := other.verify("torch", ""); err != nil || r.Started != config {
		t.Errorf("receipt = %+v, %v", r, err)
	}
}

// What docker save wrote has no manifest in it; the signed one comes beside it,
// and names the configuration that has to be in the file.
func TestOnDockerADockerSaveFileWithItsSignedManifest(t *testing.T) {
	w := onDocker(t)
	digest, config := w.pushReal("team/torch", "v1", false)
	_, otherConfig := w.pushReal("team/other", "v1", false)
	ref, err := name.NewDigest(w.registry.Host+"/team/torch@"+digest, name.Insecure)
	w.must(err)
	d, err := remote.Get(ref)
	w.must(err)
	key, err := sign.ParseKey(w.team)
	w.must(err)
	bundle, err := sign.Bundle(key, w.registry.Host+"/team/torch", digest, time.Now())
	w.must(err)
	for _, r := range []string{"torch", "other"} {
		w.docker("pull", "--quiet", w.registry.Host+"/team/"+r+":v1")
		w.docker("save", "--output", w.file("transfer/"+r+".tar"), w.registry.Host+"/team/"+r+":v1")
	}
	w.must(os.WriteFile(w.file("transfer/manifest.json"), d.Manifest, 0o600))
	w.must(os.WriteFile(w.file("transfer/bundle.json"), bundle, 0o600))
	w.forget(config)
	w.forget(otherConfig)
	in := catalogue.Import{File: "torch.tar", Name: "torch", Repository: w.registry.Host + "/team/torch", Manifest: "manifest.json"}
	_, err = w.images.Import(t.Context(), w.admin, catalogue.Import{File: "torch.tar", Name: "torch"})
	w.refused("without a manifest", err, bailey.Invalid, "the manifest is what was signed")
	_, err = w.images.Import(t.Context(), w.admin, in)
	w.refused("without the signature", err, bailey.Denied, "nobody signed the image")
	in.Bundle = "bundle.json"
	wrong := in
	wrong.File = "other.tar"
	_, err = w.images.Import(t.Context(), w.admin, wrong)
	w.refused("another image under the signed manifest", err, bailey.Denied, "is for another image")
	for _, id := range []string{config, otherConfig} {
		if _, err := w.engine.Image(t.Context(), id); err == nil {
			t.Fatalf("a refused import loaded %s", id)
		}
	}
	e, err := w.images.Import(t.Context(), w.admin, in)
	w.must(err)
	if _, err := w.engine.Image(t.Context(), config); err != nil || e.Digest != digest {
		t.Errorf("imported %s, and Docker says %v", e.Digest, err)
	}
}

// rewriteTar changes files of an archive.
func rewriteTar(t *testing.T, archive []byte, change func(name string, data []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	in, w := tar.NewReader(bytes.NewReader(archive)), tar.NewWriter(&out)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			data = change(h.Name, data)
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(fmt.Errorf("write %s: %w", h.Name, err))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What was built with Docker gets a manifest that can be signed, and Docker
// knows it by the configuration that this names. It comes back from the layout.
func TestOnDockerWhatWasBuiltWithDockerIsSignedAndStarts(t *testing.T) {
	w := onDocker(t)
	_, config := w.pushReal("team/built", "v1", false)
	w.docker("pull", "--quiet", w.registry.Host+"/team/built:v1")
	w.docker("save", "--output", w.file("built.tar"), w.registry.Host+"/team/built:v1")
	f, err := os.Open(w.file("built.tar"))
	w.must(err)
	defer f.Close() //nolint:errcheck // only read
	w.must(os.MkdirAll(w.file("layouts"), 0o755))
	dir := w.file("layouts/built.oci")
	digest, err := catalogue.WriteLayout(f, dir)
	w.must(err)
	key, err := catalogue.ReadKey(w.file("own.key"))
	w.must(err)
	_, _, err = catalogue.SignLayout(key, dir)
	w.must(err)
	w.images.Scan(t.Context())
	r, err := w.verify("built", config)
	w.must(err)
	if r.Digest != digest || r.Started != config {
		t.Errorf("receipt = %+v, want %s and %s", r, digest, config)
	}
	w.forget(config)
	w.must(w.images.Fetch(t.Context(), r, nil))
	if got, err := w.engine.Image(t.Context(), r.Started); err != nil || got.ID != config {
		t.Errorf("Docker holds %+v, %v after loading the layout", got, err)
	}
	w.forget("bailey/built:" + strings.TrimPrefix(digest, "sha256:")[:12])
}

// An OCI layout, as a folder and as a tar, without any registry.
func TestOnDockerAnOCILayoutIsImported(t *testing.T) {
	w := onDocker(t)
	img, err := random.Image(4096, 2)
	w.must(err)
	index, err := layout.Write(w.file("transfer/app.oci"), empty.Index)
	w.must(err)
	repository := w.registry.Host + "/team/app"
	w.must(index.AppendImage(img, layout.WithAnnotations(map[string]string{"io.containerd.image.name": repository + ":v1"})))
	d, err := img.Digest()
	w.must(err)
	c, err := img.ConfigName()
	w.must(err)
	t.Cleanup(func() { w.forget(c.String()) })
	key, err := sign.ParseKey(w.team)
	w.must(err)
	bundle, err := sign.Bundle(key, repository, d.String(), time.Now())
	w.must(err)
	w.must(os.WriteFile(w.file("transfer/app.json"), bundle, 0o600))
	w.registry.Fault(down)
	w.must(os.CopyFS(w.file("transfer/changed.oci"), os.DirFS(w.file("transfer/app.oci"))))
	layers, err := img.Layers()
	w.must(err)
	l, err := layers[0].Digest()
	w.must(err)
	w.must(os.WriteFile(w.file("transfer/changed.oci/blobs/sha256/"+l.Hex), []byte("something else"), 0o600))
	out, err := exec.CommandContext(t.Context(), "tar", "-C", w.file("transfer/app.oci"), "-cf", w.file("transfer/app.tar"), ".").CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}

	_, err = w.images.Import(t.Context(), w.admin, catalogue.Import{File: "app.oci"})
	w.refused("without a signature", err, bailey.Denied, "nobody signed the image")
	if _, err := w.images.Import(t.Context(), w.admin, catalogue.Import{File: "changed.oci", Bundle: "app.json"}); err == nil {
		t.Error("a layout with another layer was imported")
	}
	if _, err := w.engine.Image(t.Context(), c.String()); err == nil {
		t.Fatal("a refused import loaded the image")
	}
	for _, file := range []string{"app.oci", "app.tar"} {
		e, err := w.images.Import(t.Context(), w.admin, catalogue.Import{File: file, Bundle: "app.json"})
		w.must(err)
		if e.Name != "app" || e.Digest != d.String() || !e.Here {
			t.Errorf("imported %s: %+v", file, e)
		}
		w.forget(c.String())
	}
}

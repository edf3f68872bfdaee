// Package trusttest holds what tests about image trust share: a registry in
// this process that can be made to lie, images in it, and somebody who signs
// them.
package trusttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log" //nolint:depguard // the foreign registry takes no other
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/baileyhq/bailey/internal/trust"
)

// A Registry is a real registry on loopback.
type Registry struct {
	Host string // "127.0.0.1:port"

	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex // guards the rest
	requests []string   // "GET /v2/…"
	fault    func(w http.ResponseWriter, r *http.Request) bool
}

// NewRegistry starts a registry that ends with the test. Without the referrers
// API, clients must keep the list in a tag.
func NewRegistry(t testing.TB, referrers bool) *Registry {
	t.Helper()
	r := &Registry{t: t}
	real := registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		fault := r.fault
		r.mu.Unlock()
		if fault != nil && fault(w, req) {
			return
		}
		real.ServeHTTP(w, req)
	}))
	t.Cleanup(r.server.Close)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

// Fault puts something between clients and the registry, until it is called
// again; it returns true when it answered itself. nil removes it.
func (r *Registry) Fault(f func(w http.ResponseWriter, req *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// Requests returns what was asked since the last call.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.requests
	r.requests = nil
	return all
}

// Ref returns the reference of a digest in a repository of this registry.
func (r *Registry) Ref(repository, digest string) trust.Reference {
	return trust.Reference{Repository: r.Host + "/" + repository, Digest: digest}
}

// Digest returns the digest of data.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Descriptor returns the descriptor of data.
func Descriptor(mediaType string, data []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": Digest(data), "size": len(data)}
}

func (r *Registry) do(method, path, contentType string, body []byte) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := r.server.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		r.t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
	}
}

// Blob pushes data.
func (r *Registry) Blob(repository string, data []byte) {
	r.t.Helper()
	r.do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+Digest(data), "application/octet-stream", data)
}

// Manifest pushes a manifest under a tag, or under its digest if tag is empty,
// and returns its digest.
func (r *Registry) Manifest(repository, tag, mediaType string, data []byte) string {
	r.t.Helper()
	name := tag
	if name == "" {
		name = Digest(data)
	}
	r.do(http.MethodPut, "/v2/"+repository+"/manifests/"+name, mediaType, data)
	return Digest(data)
}

// The media types that tests push.
const (
	OCIManifest = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex    = "application/vnd.oci.image.index.v1+json"
	OCIConfig   = "application/vnd.oci.image.config.v1+json"
	OCILayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	BundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	SigningType = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// JSON marshals v, which must be marshallable.
func JSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// ImageManifest returns a manifest of one config and one layer that differ by
// name.
func ImageManifest(name string) (manifest, config, layer []byte) {
	config = JSON(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Labels": map[string]string{"name": name}}})
	layer = []byte("layer of " + name)
	manifest = JSON(map[string]any{
		"schemaVersion": 2, "mediaType": OCIManifest,
		"config": Descriptor(OCIConfig, config), "layers": []any{Descriptor(OCILayer, layer)},
	})
	return manifest, config, layer
}

// Image pushes a small image and returns its digest.
func (r *Registry) Image(repository, tag, name string) string {
	r.t.Helper()
	manifest, config, layer := ImageManifest(name)
	r.Blob(repository, config)
	r.Blob(repository, layer)
	return r.Manifest(repository, tag, OCIManifest, manifest)
}

// Index pushes an index of the manifests that platforms ("linux/amd64") name,
// and returns its digest.
func (r *Registry) Index(repository, tag string, platforms map[string]string) string {
	r.t.Helper()
	var entries []any
	for _, p := range []string{"linux/amd64", "linux/arm64", "unknown/unknown"} {
		digest, ok := platforms[p]
		if !ok {
			continue
		}
		os, arch, _ := strings.Cut(p, "/")
		entries = append(entries, map[string]any{
			"mediaType": OCIManifest, "digest": digest, "size": 1,
			"platform": map[string]string{"os": os, "architecture": arch},
		})
	}
	return r.Manifest(repository, tag, OCIIndex, JSON(map[string]any{"schemaVersion": 2, "mediaType": OCIIndex, "manifests": entries}))
}

// A Layer is one entry of a ".sig" or ".att" tag.
type Layer struct {
	Data        []byte
	MediaType   string // "" means a simple-signing payload
	Annotations map[string]string
}

// Legacy replaces the tag of an image that holds its signatures (".sig") or
// attestations (".att").
func (r *Registry) Legacy(repository, digest, suffix string, layers ...Layer) {
	r.t.Helper()
	config := []byte("{}")
	r.Blob(repository, config)
	entries := []any{}
	pushed := map[string]bool{}
	for _, l := range layers {
		if l.MediaType == "" {
			l.MediaType = SigningType
		}
		if d := Digest(l.Data); !pushed[d] {
			pushed[d] = true
			r.Blob(repository, l.Data)
		}
		d := Descriptor(l.MediaType, l.Data)
		d["annotations"] = l.Annotations
		entries = append(entries, d)
	}
	r.Manifest(repository, strings.Replace(digest, ":", "-", 1)+suffix, OCIManifest, JSON(map[string]any{
		"schemaVersion": 2, "mediaType": OCIManifest, "config": Descriptor(OCIConfig, config), "layers": entries,
	}))
}

// Attach attaches a bundle to an image by a manifest that refers to it, and
// returns that manifest's digest.
func (r *Registry) Attach(repository, subject string, bundle []byte) string {
	r.t.Helper()
	manifest := r.attachment(repository, subject, bundle)
	return r.Manifest(repository, "", OCIManifest, manifest)
}

func (r *Registry) attachment(repository, subject string, bundle []byte) []byte {
	empty := []byte("{}")
	r.Blob(repository, empty)
	r.Blob(repository, bundle)
	return JSON(map[string]any{
		"schemaVersion": 2, "mediaType": OCIManifest, "artifactType": BundleType,
		"config":  Descriptor("application/vnd.oci.empty.v1+json", empty),
		"layers":  []any{Descriptor(BundleType, bundle)},
		"subject": map[string]any{"mediaType": OCIManifest, "digest": subject, "size": 1},
	})
}

// AttachByTag attaches bundles the way clients do where the registry does not
// know referrers: by a list in a tag.
func (r *Registry) AttachByTag(repository, subject string, bundles ...[]byte) {
	r.t.Helper()
	entries := []any{}
	for _, b := range bundles {
		m := r.attachment(repository, subject, b)
		r.Manifest(repository, "", OCIManifest, m)
		d := Descriptor(OCIManifest, m)
		d["artifactType"] = BundleType
		entries = append(entries, d)
	}
	r.Manifest(repository, strings.Replace(subject, ":", "-", 1), OCIIndex, JSON(map[string]any{
		"schemaVersion": 2, "mediaType": OCIIndex, "manifests": entries,
	}))
}

// Policy returns a policy with one rule for everything in this registry:
// signed by the key.
func (r *Registry) Policy(public []byte, more ...string) string {
	return fmt.Sprintf(`version: 1
authorities:
  us:
    key:
      pem: |
%s
rules:
  - name: ours
    match: [%s/**]
    require: {of: [us]}
%s`, indent(string(public), 8), r.Host, indent(strings.Join(more, "\n"), 4))
}

func indent(s string, n int) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.Repeat(" ", n) + line)
	}
	return b.String()
}

func (r *Registry) get(path string) []byte {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.server.URL+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", OCIManifest+", "+OCIIndex)
	resp, err := r.server.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %s %v", path, resp.Status, err)
	}
	return data
}

// Get returns a manifest by its tag or digest.
func (r *Registry) Get(repository, name string) []byte {
	r.t.Helper()
	return r.get("/v2/" + repository + "/manifests/" + name)
}

// GetBlob returns a blob by its digest.
func (r *Registry) GetBlob(repository, digest string) []byte {
	r.t.Helper()
	return r.get("/v2/" + repository + "/blobs/" + digest)
}

// LayersOf returns the digests of a manifest's config and layers.
func (r *Registry) LayersOf(manifest []byte) []string {
	r.t.Helper()
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var m struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		r.t.Fatal(err)
	}
	all := []string{m.Config.Digest}
	for _, l := range m.Layers {
		all = append(all, l.Digest)
	}
	return all
}

// Package layout reads images that come as files instead of from a registry:
// an OCI image layout (a directory or a tar of it) and what docker save
// writes. It finds the image's manifest, the config it names (which is what an
// engine without registries calls the image) and the signatures beside it, as
// evidence for the engine to judge. It loads nothing and believes nothing.
package layout

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
)

// Limits of what is read into memory, and of how much of an archive is walked.
const (
	maxDocument = 4 << 20  // a manifest, an index, a bundle
	maxPayload  = 64 << 10 // a simple-signing payload
	maxEntries  = 100_000  // of a tar
	maxImages   = 256
	maxItems    = 64
	maxArchive  = 1 << 40
	maxKept     = 128 << 20 // of all documents together
)

// ErrNoImage is for files that hold no image of that name.
var ErrNoImage = errors.New("no such image in it")

// An Image is one image found in files.
type Image struct {
	Names    []string // as annotated or tagged; may be empty
	Digest   string   // of its manifest or index; empty in an archive of docker save that has only configs
	Config   string   // of a docker save archive: the digest of the config that its manifest.json names
	Evidence trust.Evidence
}

// A Layout is what files hold. The manifests and signatures are in memory,
// layers are not.
type Layout struct {
	Path   string
	Images []Image

	kept  int64
	files map[string][]byte // small files by their cleaned path
	large map[string]bool   // files that were too large to keep, so known but not read
}

// Open reads a directory, a tar or a gzipped tar. platform ("linux/amd64")
// names the manifest of an index that will run.
func Open(name, platform string) (*Layout, error) {
	l := &Layout{Path: name, files: map[string][]byte{}, large: map[string]bool{}}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("open image files: %w", err)
	}
	if info.IsDir() {
		err = l.readDir(name)
	} else {
		err = l.readTar(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read image files %s: %w", name, err)
	}
	if err := l.find(platform, info.ModTime()); err != nil {
		return nil, fmt.Errorf("read image files %s: %w", name, err)
	}
	return l, nil
}

// Image returns the image of a name ("quay.io/team/app:1"), a digest, or the
// only one if name is empty.
func (l *Layout) Image(name string) (Image, error) {
	var found []Image
	for _, im := range l.Images {
		if name == "" || im.Digest == name || im.Config == name || slices.ContainsFunc(im.Names, func(n string) bool { return n == name || sameName(n, name) }) {
			found = append(found, im)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Image{}, fmt.Errorf("look for %q in %s: %w", name, l.Path, ErrNoImage)
	}
	return Image{}, fmt.Errorf("look for %q in %s: %d images fit; name one", name, l.Path, len(found))
}

func sameName(a, b string) bool {
	x, err1 := trust.ParseReference(a)
	y, err2 := trust.ParseReference(b)
	return err1 == nil && err2 == nil && x.Repository == y.Repository && x.Tag == y.Tag
}

// Read returns a blob of the layout by its digest, checked, up to 4 MiB.
func (l *Layout) Read(digest string) ([]byte, bool) {
	if _, err := trust.ParseDigest(digest); err != nil {
		return nil, false
	}
	data, ok := l.files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
	if !ok || digestOf(data) != digest {
		return nil, false
	}
	return data, true
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// readDir keeps the small files of a directory. It follows no link: one could
// lead out of it.
func (l *Layout) readDir(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	n := 0
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error { //nolint:wrapcheck // Open adds its words
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if n++; n > maxEntries {
			return errors.New("more files than an image has")
		}
		f, err := root.Open(filepath.FromSlash(name))
		if err != nil {
			return fmt.Errorf("open file: %w", err)
		}
		defer func() { _ = f.Close() }()
		return l.keep(name, f)
	})
}

func (l *Layout) keep(name string, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxDocument || len(data) > 0 && !looksJSON(data) {
		l.large[name] = true
		return nil
	}
	if _, twice := l.files[name]; twice {
		return fmt.Errorf("%s is in it twice", name)
	}
	if l.kept += int64(len(data)); l.kept > maxKept {
		return errors.New("its documents are larger than an image's")
	}
	l.files[name] = data
	return nil
}

// looksJSON tells documents from layers, which need not be kept.
func looksJSON(data []byte) bool {
	t := bytes.TrimLeft(data, " \t\r\n")
	return len(t) > 0 && (t[0] == '{' || t[0] == '[')
}

// readTar keeps the small files of an archive.
func (l *Layout) readTar(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = f.Close() }()
	var r io.Reader = bufio.NewReaderSize(f, 1<<20)
	if head, _ := r.(*bufio.Reader).Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		r = z
	}
	archive := tar.NewReader(io.LimitReader(r, maxArchive))
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if n > maxEntries {
			return errors.New("more files than an image has")
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		clean := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if !fs.ValidPath(clean) {
			return fmt.Errorf("it holds a file named %q", h.Name)
		}
		if err := l.keep(clean, archive); err != nil {
			return err
		}
	}
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Digest       string            `json:"digest"`
	Annotations  map[string]string `json:"annotations"`
}

type document struct {
	MediaType    string       `json:"mediaType"`
	ArtifactType string       `json:"artifactType"`
	Subject      *descriptor  `json:"subject"`
	Config       *descriptor  `json:"config"`
	Layers       []descriptor `json:"layers"`
	Manifests    []descriptor `json:"manifests"`
}

const (
	refName      = "org.opencontainers.image.ref.name"
	fullName     = "io.containerd.image.name"
	bundlePrefix = "application/vnd.dev.sigstore.bundle"
	simpleType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	dsseType     = "application/vnd.dsse.envelope.v1+json"
)

// find sorts what the index lists into images and what is said about them.
func (l *Layout) find(platform string, at time.Time) error {
	ix, err := l.index()
	if err != nil {
		return err
	}
	if ix == nil {
		return l.dockerSave()
	}
	if len(ix.Manifests) > maxImages {
		return errors.New("it lists too many images")
	}
	attached := map[string][]trust.Item{}
	for _, d := range ix.Manifests {
		name := d.Annotations[refName]
		data, ok := l.Read(d.Digest)
		var doc document
		if !ok || json.Unmarshal(data, &doc) != nil {
			return fmt.Errorf("its index names %s, which is missing or not that", clip(d.Digest))
		}
		if subject, items, is := l.evidence(name, doc); is {
			attached[subject] = append(attached[subject], items...)
			continue
		}
		names := nonEmpty(d.Annotations[fullName], name)
		if i := slices.IndexFunc(l.Images, func(im Image) bool { return im.Digest == d.Digest }); i >= 0 {
			l.Images[i].Names = append(l.Images[i].Names, names...)
			continue
		}
		l.Images = append(l.Images, Image{Names: names, Digest: d.Digest, Evidence: trust.Evidence{
			Digest: d.Digest, Collected: at.UTC(),
			Items: []trust.Item{{Kind: trust.ImageManifest, Subject: d.Digest, Digest: d.Digest, MediaType: doc.MediaType, Data: data}},
		}})
	}
	for i := range l.Images {
		l.complete(&l.Images[i], platform, attached)
	}
	return l.twoFaced()
}

// twoFaced refuses an archive whose manifest.json, which older engines load,
// names another image than its index, which was signed.
func (l *Layout) twoFaced() error {
	if _, ok := l.files["manifest.json"]; !ok {
		return nil
	}
	configs := map[string]bool{}
	for _, im := range l.Images {
		for _, it := range im.Evidence.Items {
			var doc document
			if it.Kind == trust.ImageManifest && json.Unmarshal(it.Data, &doc) == nil && doc.Config != nil {
				configs[doc.Config.Digest] = true
			}
		}
	}
	old := &Layout{files: l.files}
	if err := old.dockerSave(); err != nil {
		return err
	}
	for _, im := range old.Images {
		if !configs[im.Config] {
			return fmt.Errorf("it has two faces: its manifest.json names the config %s, which no image of its index has", im.Config)
		}
	}
	return nil
}

// index reads index.json, or returns nil if there is none.
func (l *Layout) index() (*document, error) {
	data, ok := l.files["index.json"]
	if !ok {
		return nil, nil
	}
	var ix document
	if err := json.Unmarshal(data, &ix); err != nil {
		return nil, fmt.Errorf("its index.json cannot be read: %w", err)
	}
	return &ix, nil
}

// evidence reports whether a manifest of the index is something said about an
// image, rather than an image, and returns it.
func (l *Layout) evidence(name string, doc document) (subject string, items []trust.Item, is bool) {
	if doc.Subject != nil {
		if len(doc.Layers) == 1 && strings.HasPrefix(doc.Layers[0].MediaType, bundlePrefix) {
			if data, ok := l.Read(doc.Layers[0].Digest); ok {
				items = append(items, trust.Item{Kind: trust.SigstoreBundle, Subject: doc.Subject.Digest, Digest: doc.Layers[0].Digest, MediaType: doc.Layers[0].MediaType, Data: data})
			}
		}
		return doc.Subject.Digest, items, true
	}
	for suffix, want := range map[string]struct {
		kind trust.ItemKind
		of   string
		max  int
	}{
		".sig": {trust.LegacySignature, simpleType, maxPayload},
		".att": {trust.LegacyAttestation, dsseType, maxDocument},
	} {
		// The name may be the whole reference or its tag.
		base, ok := strings.CutSuffix(name[strings.LastIndexByte(name, ':')+1:], suffix)
		if !ok || !strings.HasPrefix(base, "sha256-") {
			continue
		}
		subject = strings.Replace(base, "-", ":", 1)
		for _, d := range doc.Layers[:min(len(doc.Layers), maxItems)] {
			if data, ok := l.Read(d.Digest); ok && d.MediaType == want.of && len(data) <= want.max {
				items = append(items, trust.Item{Kind: want.kind, Subject: subject, Digest: d.Digest, MediaType: d.MediaType, Annotations: d.Annotations, Data: data})
			}
		}
		return subject, items, true
	}
	return "", nil, false
}

// complete adds to an image's evidence what was said about it and about the
// platforms of its index.
func (l *Layout) complete(im *Image, platform string, attached map[string][]trust.Item) {
	top := im.Evidence.Items[0].Data
	subjects := []string{im.Digest}
	run, isIndex := trust.Children(top, platform)
	for _, digest := range run {
		if data, ok := l.Read(digest); ok {
			im.Evidence.Items = append(im.Evidence.Items, trust.Item{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: data})
		}
	}
	if isIndex {
		subjects = append(subjects, trust.Platforms(top)...)
	}
	for _, s := range subjects {
		items := attached[s]
		if n := len(items) - maxItems; n > 0 {
			im.Evidence.Skipped += n
			items = items[:maxItems]
		}
		im.Evidence.Items = append(im.Evidence.Items, items...)
	}
	if len(im.Names) == 1 {
		if ref, err := trust.ParseReference(im.Names[0]); err == nil && strings.Contains(im.Names[0], "/") {
			im.Evidence.Repository = ref.Repository
		}
	}
}

// dockerSave reads manifest.json of an archive that older engines write. It
// names configs, but no manifest: a signature has to be brought beside it.
func (l *Layout) dockerSave() error {
	data, ok := l.files["manifest.json"]
	if !ok {
		return errors.New("it is neither an OCI image layout nor what docker save writes")
	}
	var entries []struct {
		Config   string
		RepoTags []string
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		return fmt.Errorf("its manifest.json cannot be read: %w", err)
	}
	for _, e := range entries[:min(len(entries), maxImages)] {
		config, ok := l.files[path.Clean(e.Config)]
		if !ok {
			return fmt.Errorf("its manifest.json names the config %s, which is missing", clip(e.Config))
		}
		l.Images = append(l.Images, Image{Names: e.RepoTags, Config: digestOf(config)})
	}
	return nil
}

// Beside makes evidence of a manifest and bundles that came beside an archive
// of docker save. The manifest must name the config that the archive holds:
// that, and nothing in the archive itself, ties the signature to what will be
// loaded.
func (im Image) Beside(repository string, manifest []byte, bundles ...[]byte) (trust.Evidence, error) {
	var doc document
	if err := json.Unmarshal(manifest, &doc); err != nil || doc.Config == nil {
		return trust.Evidence{}, fmt.Errorf("read manifest of %s: it names no config", repository)
	}
	if im.Config != "" && doc.Config.Digest != im.Config {
		return trust.Evidence{}, fmt.Errorf("the manifest of %s is for another image: it names the config %s, and the archive holds %s", repository, clip(doc.Config.Digest), im.Config)
	}
	digest := digestOf(manifest)
	ev := trust.Evidence{Repository: repository, Digest: digest, Items: []trust.Item{
		{Kind: trust.ImageManifest, Subject: digest, Digest: digest, MediaType: doc.MediaType, Data: manifest},
	}}
	for _, b := range bundles[:min(len(bundles), maxItems)] {
		ev.Items = append(ev.Items, trust.Item{Kind: trust.SigstoreBundle, Subject: digest, Digest: digestOf(b), Data: b})
	}
	return ev, nil
}

func nonEmpty(all ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

func clip(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strings.ToValidUTF8(s, "·")
}

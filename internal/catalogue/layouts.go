package catalogue

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/sign"
)

// localPrefix is the repository of what was built on this machine: no registry
// answers for it.
const localPrefix = "localhost/bailey/"

func isLocal(repository string) bool { return strings.HasPrefix(repository, "localhost/") }

// Limits of what is read of a layout.
const (
	maxManifest = 4 << 20
	maxBundle   = 4 << 20
	pullTime    = 30 * time.Minute
)

// A layoutState tells whether a layout has to be looked at again.
type layoutState struct {
	dir    string
	digest string // of the manifest
	bundle string // digest of the signature file; "" without one
	policy string // hash of the policy it was judged by
}

// Scan looks at the layouts and takes what is new into the catalogue. What the
// policy allows is approved at once: whoever holds the key of a rule has said
// so with the signature. What it does not allow is listed as a candidate, with
// the reason.
func (s *Service) Scan(ctx context.Context) {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	for _, dir := range s.cfg.Layouts {
		found, err := filepath.Glob(filepath.Join(dir, "*.oci"))
		if err != nil {
			s.log.WarnContext(ctx, "layouts not looked at", slog.String("dir", dir), slog.Any("error", err))
		}
		for _, layout := range found {
			name := strings.TrimSuffix(filepath.Base(layout), ".oci")
			if bailey.CheckName("image", name) != nil {
				continue
			}
			if err := s.scan(ctx, name, layout); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.log.WarnContext(ctx, "layout not taken into the catalogue", slog.String("layout", layout), slog.Any("error", err))
			}
		}
	}
}

func (s *Service) scan(ctx context.Context, name, dir string) error {
	repository := localPrefix + name
	ev, m, err := readLayout(dir, repository)
	if err != nil {
		return err
	}
	now := layoutState{dir: dir, digest: ev.Digest}
	if p := s.cfg.Policies(); p != nil {
		now.policy = p.Hash + p.Broken
	}
	for _, it := range ev.Items {
		if it.Kind == trust.SigstoreBundle {
			now.bundle = it.Digest
		}
	}
	s.mu.Lock()
	same := s.layouts[repository] == now
	s.layouts[repository] = now
	s.mu.Unlock()
	if same {
		return nil
	}
	img, err := s.enter(ctx, name, repository, ev, m)
	if err == nil {
		err = s.judgeLayout(ctx, img)
	}
	if err != nil {
		s.mu.Lock()
		delete(s.layouts, repository) // again next time
		s.mu.Unlock()
	}
	return err
}

// enter stores a layout's evidence and its entry, if it has none.
func (s *Service) enter(ctx context.Context, name, repository string, ev trust.Evidence, m manifest) (bailey.Image, error) {
	if err := s.trust.Offer(ctx, ev); err != nil {
		return bailey.Image{}, err
	}
	all, err := s.cfg.Store.Images(ctx)
	if err != nil {
		return bailey.Image{}, err
	}
	if i := slices.IndexFunc(all, func(i bailey.Image) bool { return i.Name == name && i.Digest == ev.Digest }); i >= 0 {
		return all[i], nil
	}
	img := bailey.Image{
		Name: name, Repository: repository, Digest: ev.Digest, Source: bailey.FromLayout, State: bailey.ImageCandidate, RekorIndex: -1,
		Platforms: []bailey.ImagePlatform{{Platform: m.platform, Manifest: ev.Digest, Config: m.Config.Digest}},
		Size:      m.size(), CreatedAt: m.created, AddedBy: bailey.System().Name,
	}
	if err := s.before(ctx, s.change(audit.By(bailey.System()), audit.ImageAdd, img)); err != nil {
		return bailey.Image{}, err
	}
	img, err = s.cfg.Store.AddImage(ctx, img)
	if bailey.KindOf(err) == bailey.Conflict { // another server was faster
		return s.find(ctx, name, ev.Digest)
	}
	return img, err
}

// judgeLayout approves a layout's image that the policy allows. One that an
// administrator has retired stays retired.
func (s *Service) judgeLayout(ctx context.Context, img bailey.Image) error {
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return err
	}
	system := audit.By(bailey.System())
	if v.Class == trust.Allowed && img.State != bailey.ImageRetired && img.State != bailey.ImageApproved {
		if err := s.before(ctx, s.change(system, audit.ImageApprove, img)); err != nil {
			return err
		}
	}
	if v.Class != trust.Allowed {
		s.refused(ctx, system, img, audit.Untrusted, verdictOf(v), v)
	}
	img, err = s.cfg.Store.ChangeImage(ctx, img.ID, "a newer build was signed", func(i *bailey.Image) error {
		note(i, v)
		if v.Class == trust.Allowed && i.State != bailey.ImageRetired && i.State != bailey.ImageApproved {
			i.State, i.DecidedAt = bailey.ImageApproved, s.cfg.Now().UTC()
		}
		return nil
	})
	if err == nil {
		s.log.InfoContext(ctx, "image judged", slog.String("image", img.Name), slog.String("digest", img.Digest),
			slog.String("state", string(img.State)), slog.String("verdict", verdictOf(v)), slog.String("why", v.Msg))
		s.cfg.Changed(ctx)
	}
	return err
}

// note keeps what a verdict says of an entry, for those who look at it.
func note(img *bailey.Image, v trust.Verdict) {
	img.Policy, img.Signer, img.RekorIndex = v.Rule, signerWords(v), logIndex(v)
	img.Words, img.SignedAt = v.Msg, time.Time{}
	if v.Class == trust.Allowed {
		img.Words = words(v)
	}
	for _, s := range v.Signers {
		if s.SignedAt.After(img.SignedAt) {
			img.SignedAt = s.SignedAt
		}
	}
}

// A descriptor names a blob.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant,omitempty"`
	} `json:"platform,omitempty"`
}

// A manifest is what we need to know of one.
type manifest struct {
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"` // of an index

	raw      []byte // as it was signed
	platform string
	version  string
	created  time.Time
}

func (m manifest) size() int64 {
	n := m.Config.Size
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// readLayout reads the one image of a layout and the signature beside it.
func readLayout(dir, repository string) (trust.Evidence, manifest, error) {
	var index manifest
	text, err := readSmall(filepath.Join(dir, "index.json"), maxManifest)
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil {
		return trust.Evidence{}, manifest{}, fmt.Errorf("read layout %s: %w", dir, err)
	}
	if len(index.Manifests) != 1 {
		return trust.Evidence{}, manifest{}, fmt.Errorf("layout %s has %d images, not one", dir, len(index.Manifests))
	}
	digest := index.Manifests[0].Digest
	text, err = readBlob(dir, digest)
	if err != nil {
		return trust.Evidence{}, manifest{}, err
	}
	m, err := parseManifest(text, func(d string) ([]byte, error) { return readBlob(dir, d) })
	if err != nil {
		return trust.Evidence{}, manifest{}, fmt.Errorf("read layout %s: %w", dir, err)
	}
	ev := trust.Evidence{Repository: repository, Digest: digest, Items: []trust.Item{{
		Kind: trust.ImageManifest, Subject: digest, Digest: digest, MediaType: m.MediaType, Data: text,
	}}}
	bundle, err := readSmall(BundlePath(dir), maxBundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trust.Evidence{}, manifest{}, fmt.Errorf("read the signature of %s: %w", dir, err)
	}
	if err == nil {
		ev.Items = append(ev.Items, bundleItem(digest, bundle))
	}
	return ev, m, nil
}

func bundleItem(subject string, bundle []byte) trust.Item {
	return trust.Item{Kind: trust.SigstoreBundle, Subject: subject, Digest: digestOf(bundle), MediaType: sign.BundleType, Data: bundle}
}

// parseManifest reads an image's manifest, and of its configuration what it is
// for.
func parseManifest(text []byte, blob func(digest string) ([]byte, error)) (manifest, error) {
	m, err := decodeManifest(text)
	if err != nil {
		return m, err
	}
	config, err := blob(m.Config.Digest)
	if err != nil {
		return m, err
	}
	var c struct {
		OS           string    `json:"os"`
		Architecture string    `json:"architecture"`
		Variant      string    `json:"variant"`
		Created      time.Time `json:"created"`
		Config       struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return m, fmt.Errorf("read configuration: %w", err)
	}
	m.platform, m.created, m.version = c.OS+"/"+c.Architecture, c.Created, c.Config.Labels["org.opencontainers.image.version"]
	if c.Variant != "" {
		m.platform += "/" + c.Variant
	}
	return m, nil
}

func decodeManifest(text []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if !bailey.IsDigest(m.Config.Digest) || len(m.Manifests) > 0 {
		return m, errors.New("read manifest: it is not that of one image")
	}
	m.raw = text
	return m, nil
}

// readBlob reads a small blob and checks that it is the one that was asked for.
func readBlob(dir, digest string) ([]byte, error) {
	if !bailey.IsDigest(digest) {
		return nil, fmt.Errorf("layout %s names %.80q, which is no digest", dir, digest)
	}
	b, err := readSmall(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), maxManifest)
	if err != nil {
		return nil, err
	}
	if digestOf(b) != digest {
		return nil, fmt.Errorf("layout %s: blob %s is not what its name says", dir, digest)
	}
	return b, nil
}

func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// BundlePath returns where the signature of a layout lies: beside it, so that
// the layout and its digest are the same whoever signs.
func BundlePath(layout string) string {
	return strings.TrimSuffix(filepath.Clean(layout), ".oci") + ".sigstore.json"
}

func writeWhole(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// collectLayout is what a layout says now, for a question about its image.
func (s *Service) collectLayout(ref trust.Reference) (trust.Evidence, error) {
	s.mu.Lock()
	l, ok := s.layouts[ref.Repository]
	s.mu.Unlock()
	if !ok || l.digest != ref.Digest {
		return trust.Evidence{}, &trust.UnavailableError{What: "no layout on this machine has " + ref.String()}
	}
	ev, _, err := readLayout(l.dir, ref.Repository)
	if err != nil || ev.Digest != ref.Digest {
		return trust.Evidence{}, &trust.UnavailableError{What: "the layout of " + ref.Repository + " has changed", Err: err}
	}
	ev.Collected = s.cfg.Now().UTC()
	return ev, nil
}

// loadLayout loads a layout's image into the engine.
func (s *Service) loadLayout(ctx context.Context, repository, digest string, progress func(percent int)) error {
	s.mu.Lock()
	l, ok := s.layouts[repository]
	s.mu.Unlock()
	if !ok || l.digest != digest {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: fmt.Sprintf("image %s (%s) is not on this machine any more", strings.TrimPrefix(repository, localPrefix), short(digest)),
			Hint: "an administrator builds and loads the images with: make images",
		}
	}
	_, m, err := readLayout(l.dir, repository)
	if err != nil {
		return err
	}
	tag := "bailey/" + strings.TrimPrefix(repository, localPrefix) + ":" + m.version
	if m.version == "" {
		tag += strings.TrimPrefix(digest, "sha256:")[:12]
	}
	return s.load(ctx, m, tag, progress, func(digest string) (io.ReadCloser, int64, error) {
		return openBlob(l.dir, digest)
	})
}

func openBlob(dir, digest string) (io.ReadCloser, int64, error) {
	if !bailey.IsDigest(digest) {
		return nil, 0, fmt.Errorf("%.80q is no digest", digest)
	}
	f, err := os.Open(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// load writes an image as a Docker archive into the engine. Docker hashes what
// it reads: the configuration becomes the image's ID, and each layer must be
// what the configuration says.
func (s *Service) load(ctx context.Context, m manifest, tag string, progress func(int), blob func(string) (io.ReadCloser, int64, error)) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // ends when the archive is written or the reader is closed
		err := writeArchive(w, m, tag, progress, blob)
		written <- errors.Join(err, w.CloseWithError(err))
	}()
	err := s.cfg.Engine.Load(ctx, r)
	_ = r.CloseWithError(errors.New("the engine has stopped reading"))
	if werr := <-written; err == nil && werr != nil {
		err = werr
	}
	return err
}

// writeArchive writes an archive with two faces of one image: an OCI layout
// with the very manifest that was signed, by which newer engines know it, and
// the manifest.json that older ones read.
func writeArchive(w io.Writer, m manifest, tag string, progress func(int), blob func(string) (io.ReadCloser, int64, error)) error {
	a := archiveWriter{out: tar.NewWriter(w), blob: blob, progress: progress, total: m.size()}
	name := func(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }
	repository, version, _ := strings.Cut(tag, ":")
	digest := digestOf(m.raw)
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{map[string]any{
			"mediaType": m.MediaType, "digest": digest, "size": len(m.raw),
			"annotations": map[string]string{
				"io.containerd.image.name": "docker.io/" + repository + ":" + version, "org.opencontainers.image.ref.name": version,
			},
		}},
	})
	if err != nil {
		return err
	}
	e := archiveEntry{Config: name(m.Config.Digest), RepoTags: []string{tag}}
	err = errors.Join(
		a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), a.put("index.json", index), a.put(name(digest), m.raw),
		a.copy(name(m.Config.Digest), m.Config),
	)
	seen := map[string]bool{}
	for _, l := range m.Layers {
		e.Layers = append(e.Layers, name(l.Digest))
		if err == nil && !seen[l.Digest] {
			seen[l.Digest] = true
			err = a.copy(name(l.Digest), l)
		}
	}
	if err != nil {
		return err
	}
	text, err := json.Marshal([]archiveEntry{e})
	if err != nil {
		return err
	}
	return errors.Join(a.put("manifest.json", text), a.out.Close())
}

// An archiveWriter writes blobs into a tar and tells how far it is.
type archiveWriter struct {
	out         *tar.Writer
	blob        func(digest string) (io.ReadCloser, int64, error)
	progress    func(percent int) // may be nil
	total, done int64
}

func (a *archiveWriter) put(name string, data []byte) error {
	if err := a.out.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
		return err
	}
	_, err := a.out.Write(data)
	return err
}

// copy writes a blob, and fails when it is not what its digest says.
func (a *archiveWriter) copy(name string, d descriptor) error {
	f, size, err := a.blob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if size != d.Size {
		return fmt.Errorf("blob %s has %d bytes, not %d", d.Digest, size, d.Size)
	}
	if err := a.out.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	count := writerFunc(func(p []byte) (int, error) {
		a.done += int64(len(p))
		if a.progress != nil && a.total > 0 {
			a.progress(int(min(99, 100*a.done/a.total)))
		}
		return len(p), nil
	})
	if _, err := io.Copy(io.MultiWriter(a.out, sum, count), f); err != nil {
		return err
	}
	if "sha256:"+hex.EncodeToString(sum.Sum(nil)) != d.Digest {
		return fmt.Errorf("blob %s is not what its name says", d.Digest)
	}
	return nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

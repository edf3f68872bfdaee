package catalogue

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/layout"
)

// Names of what an export adds to a Docker archive.
const (
	fileEvidence = "bailey/evidence.json"
	filePolicy   = "bailey/policy.yaml"
	fileRoots    = "bailey/roots/" // NAME.json each
)

// An Import says what to take out of the transfer folder. File is the image: an
// export of ours, an OCI layout (a folder or a tar), or what docker save wrote.
type Import struct {
	File       string
	Name       string // what classes will call it; "": what the file says
	Repository string // where it comes from, for the policy; "": what the file says
	Manifest   string // file with the signed manifest, for what docker save wrote
	Bundle     string // file with a signature that is not in File
}

var transferName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// inTransfer returns the path of a name in the transfer folder. Nothing else on
// this machine is read or written for somebody who asks over the network.
func (s *Service) inTransfer(name string) (string, error) {
	if s.cfg.Transfer == "" || !transferName.MatchString(name) {
		return "", &bailey.Error{
			Kind: bailey.Invalid, Msg: "that is not the name of a file in the transfer folder",
			Hint: "put the file into " + s.cfg.Transfer + " on the server, and name it without folders",
		}
	}
	file := filepath.Join(s.cfg.Transfer, name)
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return "", &bailey.Error{Kind: bailey.Invalid, Msg: name + " is neither a file nor a folder"}
	}
	return file, nil
}

// Export writes an image with its evidence, the policy and the roots of trust
// into one archive in the transfer folder, and returns its path. The archive is
// also one that docker load takes. What the policy does not allow is not
// exported.
func (s *Service) Export(ctx context.Context, actor bailey.Actor, ref string) (file string, err error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return "", err
	}
	img, err := s.named(ctx, ref)
	if err != nil {
		return "", err
	}
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return "", err
	}
	if v.Class != trust.Allowed {
		return "", inCatalogue(img, v.Err())
	}
	held, err := s.held(ctx, img, v)
	if err != nil {
		return "", err
	}
	if _, err := s.cfg.Engine.Image(ctx, held); err != nil {
		return "", &bailey.Error{Kind: bailey.Conflict, Msg: "image " + img.Name + " is not on this machine", Hint: "bring it here first: bailey image fetch " + img.Name, Cause: err}
	}
	ev, err := evidence{s.cfg.Store}.Evidence(ctx, img.Repository, img.Digest)
	if err != nil {
		return "", err
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageExport, img)); err != nil {
		return "", err
	}
	file = filepath.Join(s.cfg.Transfer, img.Name+"-"+strings.TrimPrefix(img.Digest, "sha256:")[:12]+".tar")
	return file, s.export(ctx, file, img, held, ev)
}

func (s *Service) export(ctx context.Context, file string, img bailey.Image, held string, ev trust.Evidence) (err error) {
	f, err := os.CreateTemp(s.cfg.Transfer, ".new-*")
	if err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), file)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	out := tar.NewWriter(f)
	put := func(name string, data []byte) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	text, err := json.Marshal(exported{Version: 1, Name: img.Name, Evidence: ev})
	if err == nil {
		err = put(fileEvidence, text)
	}
	p := s.cfg.Policies()
	if err == nil && p != nil {
		if text, rerr := readSmall(p.Name, maxManifest); rerr == nil {
			err = put(filePolicy, text)
		}
		for name, r := range p.Roots {
			if err == nil {
				err = put(fileRoots+name+".json", r.JSON)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	saved, err := s.cfg.Engine.Save(ctx, held)
	if err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	defer saved.Close() //nolint:errcheck // only read
	if err := copyTar(out, saved); err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	return errors.Join(out.Close(), f.Sync())
}

// exported is what an export says beside the image and the policy.
type exported struct {
	Version  int            `json:"version"`
	Name     string         `json:"name"`
	Evidence trust.Evidence `json:"evidence"`
}

// copyTar copies the entries of a tar that an engine wrote.
func copyTar(out *tar.Writer, r io.Reader) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil { //nolint:gosec // nothing is unpacked: as many bytes come out as go in
			return err
		}
	}
}

// Import takes an image from the transfer folder. Its signatures are judged by
// this server's own policy, and what the file holds is compared with what was
// signed, before the engine gets a byte of it. The result is verified, not
// approved.
func (s *Service) Import(ctx context.Context, actor bailey.Actor, in Import) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	file, err := s.inTransfer(in.File)
	if err != nil {
		return Entry{}, err
	}
	found, err := layout.Open(file, s.cfg.Platform)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Entry{}, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no " + in.File + " in the transfer folder", Hint: "put it into " + s.cfg.Transfer + " on the server"}
		}
		return Entry{}, &bailey.Error{Kind: bailey.Invalid, Msg: in.File + " is not an image: " + err.Error(), Hint: "it is an export of bailey, an OCI layout, or what docker save writes", Cause: err}
	}
	one, err := found.Image("")
	if err != nil {
		return Entry{}, &bailey.Error{Kind: bailey.Invalid, Msg: in.File + " does not hold exactly one image", Cause: err}
	}
	ev, name, err := s.imported(file, one, in)
	if err != nil {
		return Entry{}, err
	}
	img := bailey.Image{Name: name, Repository: ev.Repository, Digest: ev.Digest, Source: bailey.FromArchive, State: bailey.ImageVerified, AddedBy: actor.Name}
	if err := bailey.CheckName("image", name); err != nil {
		return Entry{}, err
	}
	if _, err := trust.ParseReference(ev.Repository + "@" + ev.Digest); err != nil {
		return Entry{}, &bailey.Error{Kind: bailey.Invalid, Msg: "the file does not say which repository the image comes from", Hint: "say it: --repository REGISTRY/PATH", Cause: err}
	}
	if err := s.trust.Offer(ctx, ev); err != nil {
		return Entry{}, err
	}
	v, err := s.trust.Decide(ctx, trust.Request{Image: trust.Reference{Repository: ev.Repository, Digest: ev.Digest}, Offline: true})
	if err != nil {
		return Entry{}, err
	}
	by := audit.By(actor)
	if v.Class != trust.Allowed {
		s.refused(ctx, by, img, audit.Untrusted, verdictOf(v), v)
		return Entry{}, inCatalogue(img, v.Err())
	}
	if one.Config != "" && one.Config != v.ConfigDigest {
		s.refused(ctx, by, img, audit.Mismatch, "denied config", v)
		return Entry{}, &bailey.Error{
			Kind: bailey.Denied, Msg: fmt.Sprintf("%s was not loaded: it holds %s, and what was signed is %s", in.File, short(one.Config), short(v.ConfigDigest)),
			Hint: "the file was changed, or the evidence is of another image; export it again",
		}
	}
	note(&img, v)
	img.Platforms = []bailey.ImagePlatform{{Platform: s.cfg.Platform, Manifest: v.PlatformDigest, Config: v.ConfigDigest}}
	img.Size = sizeOf(ev, v.PlatformDigest)
	if err := s.before(ctx, s.change(by, audit.ImageImport, img)); err != nil {
		return Entry{}, err
	}
	if err := s.loadFile(ctx, file, one, v, name); err != nil {
		return Entry{}, fmt.Errorf("import image %s: %w", name, err)
	}
	if held, err := s.held(ctx, img, v); err != nil {
		return Entry{}, err
	} else if _, err := s.cfg.Engine.Image(ctx, held); err != nil {
		return Entry{}, &bailey.Error{Kind: bailey.Denied, Msg: "the engine does not hold what was signed after loading " + in.File, Hint: "the file is damaged: its layers are not those of the signed image", Cause: err}
	}
	added, err := s.cfg.Store.AddImage(ctx, img)
	if bailey.KindOf(err) == bailey.Conflict { // loaded again
		added, err = s.find(ctx, name, img.Digest)
	}
	if err != nil {
		return Entry{}, err
	}
	e := s.entry(ctx, added)
	e.Verdict = v
	return e, nil
}

// imported returns the evidence that came with a file, and the image's name.
func (s *Service) imported(file string, one layout.Image, in Import) (ev trust.Evidence, name string, err error) {
	beside := func(what string, limit int64) ([]byte, error) {
		if what == "" {
			return nil, nil
		}
		p, err := s.inTransfer(what)
		if err != nil {
			return nil, err
		}
		b, err := readSmall(p, limit)
		if err != nil {
			return nil, &bailey.Error{Kind: bailey.Invalid, Msg: what + " cannot be read from the transfer folder", Cause: err}
		}
		return b, nil
	}
	bundle, err := beside(in.Bundle, maxBundle)
	if err != nil {
		return ev, "", err
	}
	ours, err := readExported(file)
	switch {
	case err != nil:
		return ev, "", err
	case ours != nil:
		ev, name = ours.Evidence, ours.Name
	case one.Digest != "":
		ev = one.Evidence
	default:
		text, err := beside(in.Manifest, maxManifest)
		if err != nil {
			return ev, "", err
		}
		if text == nil {
			return ev, "", &bailey.Error{
				Kind: bailey.Invalid, Msg: in.File + " is what docker save writes: it holds no manifest, and the manifest is what was signed",
				Hint: "bring the manifest and its signature: --manifest FILE --bundle FILE; or export with bailey image export",
			}
		}
		if ev, err = one.Beside(in.Repository, text); err != nil {
			return ev, "", &bailey.Error{Kind: bailey.Denied, Msg: err.Error(), Cause: err}
		}
	}
	if in.Repository != "" {
		ev.Repository = in.Repository
	}
	if in.Name != "" {
		name = in.Name
	}
	if name == "" {
		name = path.Base(ev.Repository)
	}
	if bundle != nil {
		ev.Items = append(ev.Items, bundleItem(ev.Digest, bundle))
	}
	return ev, name, nil
}

// readExported returns what an export says, or nil if file is none.
func readExported(file string) (*exported, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	// It is the first entry, so there is no need to look further.
	in := tar.NewReader(f)
	h, err := in.Next()
	if err != nil || h.Name != fileEvidence {
		return nil, nil //nolint:nilnil // a folder, another format: not ours
	}
	const limit = 64 << 20
	text, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", fileEvidence, err)
	}
	var e exported
	if err := json.Unmarshal(text, &e); err != nil || e.Version != 1 {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "the archive's evidence cannot be read", Hint: "was it exported by a newer bailey?", Cause: err}
	}
	return &e, nil
}

// loadFile gives the engine what was verified, and nothing else of the file.
func (s *Service) loadFile(ctx context.Context, file string, one layout.Image, v trust.Verdict, name string) error {
	tag := "bailey/" + name + ":" + strings.TrimPrefix(v.Digest, "sha256:")[:12]
	if one.Config != "" { // a Docker archive, with more than we have looked at
		return s.loadDocker(ctx, file, v.ConfigDigest, tag)
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	blob := func(digest string) (io.ReadCloser, int64, error) { return openBlob(file, digest) }
	if !info.IsDir() {
		blob = func(digest string) (io.ReadCloser, int64, error) {
			return openEntry(file, "blobs/sha256/"+strings.TrimPrefix(digest, "sha256:"))
		}
	}
	for _, it := range one.Evidence.Items {
		if it.Kind == trust.ImageManifest && it.Digest == v.PlatformDigest {
			m, err := decodeManifest(it.Data)
			if err != nil {
				return err
			}
			return s.load(ctx, m, tag, nil, blob)
		}
	}
	return errors.New("the layout does not hold the manifest of this machine's platform")
}

// loadDocker rewrites a Docker archive while the engine reads it: one image,
// the signed one, under a name of ours. Other images in the file, and names it
// would take away from others, do not come along.
func (s *Service) loadDocker(ctx context.Context, file, config, tag string) error {
	list, _, err := openEntry(file, "manifest.json")
	if err != nil {
		return err
	}
	defer list.Close() //nolint:errcheck // only read
	var entries []archiveEntry
	if err := json.NewDecoder(io.LimitReader(list, maxManifest)).Decode(&entries); err != nil || len(entries) != 1 {
		return errors.Join(errors.New("the archive does not hold exactly one image"), err)
	}
	e := entries[0]
	e.RepoTags = []string{tag}
	wanted := map[string]bool{path.Clean(e.Config): true}
	for _, l := range e.Layers {
		wanted[path.Clean(l)] = true
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // ends when the archive is copied or the reader is closed
		err := rewrite(w, file, e, wanted, config)
		written <- errors.Join(err, w.CloseWithError(err))
	}()
	err = s.cfg.Engine.Load(ctx, r)
	_ = r.CloseWithError(errors.New("the engine has stopped reading"))
	return errors.Join(err, <-written)
}

// An archiveEntry is one image in the manifest.json of a Docker archive.
type archiveEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func rewrite(w io.Writer, file string, e archiveEntry, wanted map[string]bool, config string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	in, out := tar.NewReader(f), tar.NewWriter(w)
	put := func(name string, data []byte) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		switch {
		case !wanted[name]:
		case name == path.Clean(e.Config):
			// The bytes that are loaded are hashed, not those that were looked
			// at before: the file may have been changed in between.
			data, err := io.ReadAll(io.LimitReader(in, maxManifest))
			if err == nil && digestOf(data) != config {
				err = errors.New("the archive's configuration is not the signed one")
			}
			if err == nil {
				err = put(name, data)
			}
			if err != nil {
				return err
			}
		case h.Typeflag == tar.TypeSymlink && fs.ValidPath(path.Join(path.Dir(name), h.Linkname)): //nolint:gosec // a name inside the archive
			// docker save writes a layer once and links to it.
			wanted[path.Join(path.Dir(name), h.Linkname)] = true //nolint:gosec // likewise
			if err := out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: h.Linkname, Mode: 0o777}); err != nil {
				return err
			}
		case h.Typeflag == tar.TypeReg:
			if err := out.WriteHeader(&tar.Header{Name: name, Size: h.Size, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
				return err
			}
			if _, err := io.Copy(out, in); err != nil { //nolint:gosec // nothing is unpacked: as many bytes come out as go in
				return err
			}
		}
	}
	text, err := json.Marshal([]archiveEntry{e})
	if err != nil {
		return err
	}
	return errors.Join(put("manifest.json", text), out.Close())
}

// openEntry opens one file of a tar.
func openEntry(file, name string) (io.ReadCloser, int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if err != nil {
			return nil, 0, errors.Join(fmt.Errorf("look for %s in the archive: %w", name, err), f.Close())
		}
		if h.Typeflag == tar.TypeReg && path.Clean(strings.TrimPrefix(h.Name, "./")) == name {
			return &entryReader{Reader: in, file: f}, h.Size, nil
		}
	}
}

// An entryReader reads one file of a tar and closes the tar.
type entryReader struct {
	io.Reader

	file *os.File
}

func (e *entryReader) Close() error { return e.file.Close() }

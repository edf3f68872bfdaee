package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrHostile is what a tar is refused with that holds something no root file
// system of ours has: a path that leaves it, a device, a set-user-ID program.
var ErrHostile = errors.New("refused")

// An entry is one file of a tar: what its header says, and where its bytes lie.
type entry struct {
	header *tar.Header
	offset int64
}

// readIndex reads the headers of the tar in f and puts them into the one order
// and form that a layer has: sorted by name, owners by number only, no time but
// the time of change, and that never after newest. A file with several names
// has its bytes under the first of them.
func readIndex(f *os.File, newest time.Time) ([]*entry, error) {
	at := &position{file: f}
	tr := tar.NewReader(at)
	entries := map[string]*entry{}
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		e := &entry{offset: at.n}
		if e.header, err = canonical(header, newest); err != nil {
			return nil, err
		}
		name := e.header.Name
		if name == "." {
			continue // The root itself: every engine makes its own.
		}
		if entries[name] != nil {
			return nil, fmt.Errorf("%w: %q is in the tar twice", ErrHostile, name)
		}
		entries[name] = e
	}
	if err := orderLinks(entries); err != nil {
		return nil, err
	}
	sorted := make([]*entry, 0, len(entries))
	for _, e := range entries {
		sorted = append(sorted, e)
	}
	slices.SortFunc(sorted, func(a, b *entry) int { return strings.Compare(a.header.Name, b.header.Name) })
	if err := checkParents(sorted, entries); err != nil {
		return nil, err
	}
	return sorted, nil
}

// canonical returns what is kept of a header.
func canonical(h *tar.Header, newest time.Time) (*tar.Header, error) {
	name, err := insidePath(h.Name)
	if err != nil {
		return nil, err
	}
	if h.Mode&0o6000 != 0 && h.Typeflag != tar.TypeSymlink {
		return nil, fmt.Errorf("%w: %q is set-user-ID or set-group-ID", ErrHostile, name)
	}
	for key := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, "GNU.sparse"):
			return nil, fmt.Errorf("%w: %q is sparse", ErrHostile, name)
		case strings.HasPrefix(key, "SCHILY.xattr.security.capability"):
			return nil, fmt.Errorf("%w: %q has file capabilities", ErrHostile, name)
		}
	}
	out := &tar.Header{
		Typeflag: h.Typeflag,
		Name:     name,
		Mode:     h.Mode & 0o1777,
		Uid:      h.Uid,
		Gid:      h.Gid,
		ModTime:  h.ModTime.Truncate(time.Second),
	}
	if out.ModTime.After(newest) {
		out.ModTime = newest
	}
	switch h.Typeflag {
	case tar.TypeReg:
		out.Size = h.Size
	case tar.TypeDir:
	case tar.TypeSymlink:
		// Where a link points is its own business: it is followed inside the
		// container only. Its mode means nothing, so it is always the same.
		out.Linkname, out.Mode = h.Linkname, 0o777
	case tar.TypeLink:
		if out.Linkname, err = insidePath(h.Linkname); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: %q is of type %q; a layer has files, directories and links", ErrHostile, name, h.Typeflag)
	}
	return out, nil
}

// insidePath cleans a name of the tar, and refuses one that leaves the root.
func insidePath(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	if name == "" || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: %q leaves the root", ErrHostile, name)
	}
	if base := path.Base(clean); strings.HasPrefix(base, ".wh.") {
		return "", fmt.Errorf("%w: %q would delete a file of another layer", ErrHostile, name)
	}
	return clean, nil
}

// orderLinks moves the bytes of every file with several names to the name that
// sorts first, so that no link comes before what it points to.
func orderLinks(entries map[string]*entry) error {
	groups := map[string][]string{}
	for name, e := range entries {
		if e.header.Typeflag != tar.TypeLink {
			continue
		}
		target := entries[e.header.Linkname]
		if target == nil || target.header.Typeflag != tar.TypeReg {
			return fmt.Errorf("%w: %q is a hard link to %q, which is no file", ErrHostile, name, e.header.Linkname)
		}
		groups[e.header.Linkname] = append(groups[e.header.Linkname], name)
	}
	for target, names := range groups {
		names = append(names, target)
		slices.Sort(names)
		file := entries[target]
		for i, name := range names {
			header := *file.header
			header.Name = name
			if i > 0 {
				header.Typeflag, header.Size, header.Linkname = tar.TypeLink, 0, names[0]
			}
			entries[name] = &entry{header: &header, offset: file.offset}
		}
	}
	return nil
}

// checkParents refuses a file below something that is no directory: unpacked
// with a link in between, it would land elsewhere.
func checkParents(sorted []*entry, entries map[string]*entry) error {
	for _, e := range sorted {
		for dir := path.Dir(e.header.Name); dir != "."; dir = path.Dir(dir) {
			if parent := entries[dir]; parent == nil || parent.header.Typeflag != tar.TypeDir {
				return fmt.Errorf("%w: %q lies below %q, which is no directory of the tar", ErrHostile, e.header.Name, dir)
			}
		}
	}
	return nil
}

// A position is a file being read that knows how far. The tar reader skips the
// bytes of a file by seeking.
type position struct {
	file *os.File
	n    int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	p.n += int64(n)
	return n, err
}

func (p *position) Seek(offset int64, whence int) (int64, error) {
	n, err := p.file.Seek(offset, whence)
	if err == nil {
		p.n = n
	}
	return n, err
}

// A Layer is a compressed layer in a file. It implements [v1.Layer].
type Layer struct {
	digest, diffID         v1.Hash
	size, uncompressedSize int64
	path                   string
}

// writeLayer writes the files of the tar at rootfs as a layer into directory
// blobs, under the name of its digest.
func writeLayer(rootfs, blobs string, newest time.Time) (_ *Layer, err error) {
	in, err := os.Open(rootfs)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	defer in.Close()
	entries, err := readIndex(in, newest)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errors.New("the root file system is empty")
	}

	out, err := os.CreateTemp(blobs, ".layer-*")
	if err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	defer func() {
		if err != nil {
			_ = out.Close()
			_ = os.Remove(out.Name())
		}
	}()

	// Two sums are made on the way: of what is compressed, which is the layer's
	// place in a registry, and of what is not, which the image ID rests on.
	packed := &meter{w: bufio.NewWriterSize(out, 1<<20), sum: sha256.New()}
	// BestSpeed: the layer is read far more often on this machine than sent.
	zip, err := gzip.NewWriterLevel(packed, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	plain := &meter{w: bufio.NewWriterSize(zip, 1<<20), sum: sha256.New()}
	if err = writeTar(plain, in, entries); err != nil {
		return nil, err
	}
	err = errors.Join(
		plain.w.Flush(), zip.Close(), packed.w.Flush(),
		out.Chmod(0o644), out.Close())
	if err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	layer := &Layer{
		digest: packed.digest(), diffID: plain.digest(),
		size: packed.n, uncompressedSize: plain.n,
	}
	layer.path = filepath.Join(blobs, layer.digest.Hex)
	if err = os.Rename(out.Name(), layer.path); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return layer, nil
}

func writeTar(w io.Writer, in *os.File, entries []*entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		header := *e.header
		if header.Typeflag == tar.TypeDir {
			header.Name += "/"
		}
		if err := tw.WriteHeader(&header); err != nil {
			return fmt.Errorf("write %s: %w", header.Name, err)
		}
		if header.Typeflag != tar.TypeReg || header.Size == 0 {
			continue
		}
		if _, err := io.Copy(tw, io.NewSectionReader(in, e.offset, header.Size)); err != nil {
			return fmt.Errorf("write %s: %w", header.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

// A meter counts and sums what is written through it.
type meter struct {
	w   *bufio.Writer
	sum hash.Hash
	n   int64
}

func (m *meter) Write(b []byte) (int, error) {
	n, err := m.w.Write(b)
	m.sum.Write(b[:n])
	m.n += int64(n)
	return n, err
}

func (m *meter) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(m.sum.Sum(nil))}
}

// Digest returns the digest of the compressed layer.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID returns the digest of the layer before compression.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size returns the size of the compressed layer.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType returns the OCI type of a gzip layer.
func (l *Layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// Compressed opens the layer as it lies on disk.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed opens the layer's tar.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &unzipped{Reader: zip, file: f}, nil
}

type unzipped struct {
	*gzip.Reader
	file *os.File
}

func (u *unzipped) Close() error { return errors.Join(u.Reader.Close(), u.file.Close()) }

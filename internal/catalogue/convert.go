package catalogue

import (
	"archive/tar"
	"bytes"
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
	"strings"
)

// A kept is a file of an archive, under the digest of its content.
type kept struct {
	digest string
	size   int64
	head   []byte // its first bytes
}

// WriteLayout makes an OCI layout of what "docker save" writes, so that an image
// that was built with Docker has a manifest that can be signed. The manifest
// names the very configuration by which Docker knows the image. dir must not
// exist; what is left of it after an error is removed.
func WriteLayout(archive io.Reader, dir string) (digest string, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // images are no secret
		return "", fmt.Errorf("make the layout: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil { //nolint:gosec // see above
		return "", fmt.Errorf("make the layout: %w", err)
	}
	files, err := unpack(archive, blobs)
	if err != nil {
		return "", fmt.Errorf("read the archive: %w", err)
	}
	text, m, err := describe(files, blobs)
	if err != nil {
		return "", fmt.Errorf("read the archive: %w", err)
	}
	if _, err := parseManifest(text, func(d string) ([]byte, error) { return readBlob(dir, d) }); err != nil {
		return "", err
	}
	// What no part of the image is stays behind.
	wanted := map[string]bool{m.Config.Digest: true, digestOf(text): true}
	for _, l := range m.Layers {
		wanted[l.Digest] = true
	}
	for _, k := range files {
		if !wanted[k.digest] {
			if err := os.Remove(filepath.Join(blobs, strings.TrimPrefix(k.digest, "sha256:"))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
	}
	digest = digestOf(text)
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{map[string]any{"mediaType": m.MediaType, "digest": digest, "size": len(text)}},
	})
	if err != nil {
		return "", err
	}
	return digest, errors.Join(
		writeWhole(filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:")), text),
		writeWhole(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		writeWhole(filepath.Join(dir, "index.json"), index),
	)
}

// maxEntries bounds the files of an archive.
const maxEntries = 10_000

// unpack writes every file of an archive under the digest of its content, and
// returns them by their names. Names are never used as paths.
func unpack(archive io.Reader, blobs string) (map[string]kept, error) {
	files, links := map[string]kept{}, map[string]string{}
	in := tar.NewReader(archive)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n > maxEntries {
			return nil, errors.New("it has more files than an image has")
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		switch h.Typeflag {
		case tar.TypeReg:
			if files[name], err = keep(in, blobs); err != nil {
				return nil, err
			}
		case tar.TypeSymlink: // docker save writes a layer once and links to it
			links[name] = path.Join(path.Dir(name), h.Linkname) //nolint:gosec // a key of a map, never a path on this machine
		}
	}
	for name, to := range links {
		if k, ok := files[to]; ok {
			files[name] = k
		}
	}
	return files, nil
}

func keep(r io.Reader, blobs string) (_ kept, err error) {
	f, err := os.CreateTemp(blobs, ".new-*")
	if err != nil {
		return kept{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	sum := sha256.New()
	var head bytes.Buffer
	first := writerFunc(func(p []byte) (int, error) {
		if head.Len() < 2 {
			head.Write(p[:min(len(p), 2)])
		}
		return len(p), nil
	})
	size, err := io.Copy(io.MultiWriter(f, sum, first), r)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return kept{}, err
	}
	name := hex.EncodeToString(sum.Sum(nil))
	return kept{digest: "sha256:" + name, size: size, head: head.Bytes()}, os.Rename(f.Name(), filepath.Join(blobs, name))
}

// describe writes the manifest of the one image of an archive.
func describe(files map[string]kept, blobs string) ([]byte, manifest, error) {
	list, ok := files["manifest.json"]
	if !ok {
		return nil, manifest{}, errors.New("it is not what docker save writes: it has no manifest.json")
	}
	text, err := readSmall(filepath.Join(blobs, strings.TrimPrefix(list.digest, "sha256:")), maxManifest)
	if err != nil {
		return nil, manifest{}, err
	}
	var entries []archiveEntry
	if err := json.Unmarshal(text, &entries); err != nil || len(entries) != 1 {
		return nil, manifest{}, errors.Join(errors.New("it does not hold exactly one image: save one, by its name"), err)
	}
	config, ok := files[path.Clean(entries[0].Config)]
	if !ok {
		return nil, manifest{}, errors.New("its configuration is missing")
	}
	m := manifest{
		MediaType: "application/vnd.oci.image.manifest.v1+json",
		Config:    descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: config.digest, Size: config.size},
	}
	for _, name := range entries[0].Layers {
		l, ok := files[path.Clean(name)]
		if !ok {
			return nil, manifest{}, errors.New("one of its layers is missing")
		}
		kind := "application/vnd.oci.image.layer.v1.tar"
		if bytes.HasPrefix(l.head, []byte{0x1f, 0x8b}) {
			kind += "+gzip"
		}
		m.Layers = append(m.Layers, descriptor{MediaType: kind, Digest: l.digest, Size: l.size})
	}
	text, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": m.MediaType, "config": m.Config, "layers": m.Layers})
	return text, m, err
}

package main

import (
	"archive/tar"
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Recipe says how an image is described and run.
type Recipe struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	User        string            `json:"user"`    // numeric, and not root
	Workdir     string            `json:"workdir"` // absolute
	Env         []string          `json:"env"`
	Cmd         []string          `json:"cmd"`
	Labels      map[string]string `json:"labels,omitempty"`
}

var (
	numericUser = regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`)
	secretName  = regexp.MustCompile(`(?i)(TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY)`)
)

func readRecipe(file string) (*Recipe, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open image configuration: %w", err)
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	var r Recipe
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("read image configuration %s: %w", file, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("image configuration %s: %w", file, err)
	}
	return &r, nil
}

// check refuses a recipe that no image of ours may have.
func (r *Recipe) check() error {
	if !numericUser.MatchString(r.User) {
		return fmt.Errorf("user %q is root, or not a number: an image runs as a numeric user who is not root", r.User)
	}
	if !path.IsAbs(r.Workdir) {
		return fmt.Errorf("workdir %q is not absolute", r.Workdir)
	}
	for _, env := range r.Env {
		key, _, ok := strings.Cut(env, "=")
		if !ok || key == "" {
			return fmt.Errorf("env %q is not NAME=value", env)
		}
		if secretName.MatchString(key) {
			return fmt.Errorf("env %s looks like a secret: whoever pulls an image reads it", key)
		}
	}
	return nil
}

// BuildConfig says what to make an image of.
type BuildConfig struct {
	Name           string
	Rootfs         string // file: tar of the root file system
	Recipe         *Recipe
	Created        time.Time // date of the image; no file in it is newer
	Version        string
	PackagesSHA256 string
	Architecture   string
	Layout         string // directory to make
}

// A Result is what came out of a build.
type Result struct {
	Name             string `json:"name"`
	ImageID          string `json:"image_id"`        // digest of the configuration
	ManifestDigest   string `json:"manifest_digest"` // what a registry calls it
	DiffID           string `json:"diff_id"`
	Created          string `json:"created"`
	Version          string `json:"version,omitempty"`
	PackagesSHA256   string `json:"packages_sha256,omitempty"`
	Size             int64  `json:"size"`
	CompressedSize   int64  `json:"compressed_size"`
	Architecture     string `json:"architecture"`
	ConfiguredToRun  string `json:"user"`
	WorkingDirectory string `json:"workdir"`
}

// Build writes the image cfg describes as an OCI layout. What it leaves in
// cfg.Layout after an error is not an image.
func Build(cfg BuildConfig) (*Result, error) {
	if err := cfg.Recipe.check(); err != nil {
		return nil, err
	}
	blobs := filepath.Join(cfg.Layout, "blobs", "sha256")
	if _, err := os.Lstat(cfg.Layout); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("layout %s is already there", cfg.Layout)
	}
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, fmt.Errorf("make layout: %w", err)
	}
	layer, err := writeLayer(cfg.Rootfs, blobs, cfg.Created)
	if err != nil {
		return nil, err
	}
	img, err := assemble(cfg, layer)
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	index, err := layout.Write(cfg.Layout, empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	if err := index.AppendImage(img, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": cfg.Name,
	})); err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	id, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("name image: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("name image: %w", err)
	}
	return &Result{
		Name:             cfg.Name,
		ImageID:          id.String(),
		ManifestDigest:   digest.String(),
		DiffID:           layer.diffID.String(),
		Created:          cfg.Created.UTC().Format(time.RFC3339),
		Version:          cfg.Version,
		PackagesSHA256:   cfg.PackagesSHA256,
		Size:             layer.uncompressedSize,
		CompressedSize:   layer.size,
		Architecture:     cfg.Architecture,
		ConfiguredToRun:  cfg.Recipe.User,
		WorkingDirectory: cfg.Recipe.Workdir,
	}, nil
}

// assemble makes the image of one layer. Nothing in it comes from the clock or
// from this machine.
func assemble(cfg BuildConfig, layer *Layer) (v1.Image, error) {
	created := v1.Time{Time: cfg.Created.UTC()}
	labels := map[string]string{
		"dev.bailey.image":                     cfg.Name,
		"org.opencontainers.image.title":       cfg.Recipe.Title,
		"org.opencontainers.image.description": cfg.Recipe.Description,
		"org.opencontainers.image.created":     created.Format(time.RFC3339),
		"org.opencontainers.image.source":      "https://github.com/baileyhq/bailey",
		"org.opencontainers.image.vendor":      "bailey",
	}
	if cfg.Version != "" {
		labels["org.opencontainers.image.version"] = cfg.Version
	}
	if cfg.PackagesSHA256 != "" {
		labels["dev.bailey.packages"] = "sha256:" + cfg.PackagesSHA256
	}
	for key := range cfg.Recipe.Labels {
		if _, taken := labels[key]; taken {
			return nil, fmt.Errorf("label %s is set here, not in the configuration", key)
		}
	}
	maps.Copy(labels, cfg.Recipe.Labels)

	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(img, mutate.Addendum{
		Layer: layer,
		History: v1.History{
			Created:   created,
			CreatedBy: "bailey imagepack",
			Comment:   cfg.Recipe.Description,
		},
	})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Created = created
	file.OS = "linux"
	file.Architecture = cfg.Architecture
	file.Config = v1.Config{
		User:       cfg.Recipe.User,
		WorkingDir: cfg.Recipe.Workdir,
		Env:        cfg.Recipe.Env,
		Cmd:        cfg.Recipe.Cmd,
		Labels:     labels,
	}
	return mutate.ConfigFile(img, file)
}

// Save writes the image of the layout in dir to w as docker load wants it.
func Save(dir, tag string, w io.Writer) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return fmt.Errorf("read tag: %w", err)
	}
	img, err := open(dir)
	if err != nil {
		return err
	}
	if err := tarball.Write(ref, img, w); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	return nil
}

// List writes a line for every file of the image in dir: mode, owner, time,
// digest of the contents, name.
func List(dir string, w io.Writer) error {
	img, err := open(dir)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("open layout: %w", err)
	}
	out := bufio.NewWriter(w)
	for _, layer := range layers {
		if err := listLayer(layer, out); err != nil {
			return fmt.Errorf("list layer: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("list layer: %w", err)
	}
	return nil
}

func listLayer(layer v1.Layer, w io.Writer) error {
	r, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		what := h.Linkname
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if _, err := io.Copy(sum, tr); err != nil {
				return err
			}
			what = hex.EncodeToString(sum.Sum(nil))
		}
		if _, err := fmt.Fprintf(w, "%c %04o %d:%d %s %s %q\n", h.Typeflag, h.Mode, h.Uid, h.Gid,
			h.ModTime.UTC().Format(time.RFC3339), cmp.Or(what, "-"), h.Name); err != nil {
			return err
		}
	}
}

// open returns the one image of the layout in dir.
func open(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("open layout: %w", err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("layout %s has %d images, not one", dir, len(manifest.Manifests))
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return nil, fmt.Errorf("open layout: %w", err)
	}
	return img, nil
}

package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// Images implements [engine.Engine].
func (e *Engine) Images(ctx context.Context) ([]engine.Image, error) {
	list, err := e.api.ImageList(ctx, client.ImageListOptions{
		Filters: client.Filters{}.Add("label", engine.LabelImage),
	})
	if err != nil {
		return nil, wrap("list images", err)
	}
	var out []engine.Image
	for _, img := range list.Items {
		tags := slices.DeleteFunc(slices.Clone(img.RepoTags), func(tag string) bool { return strings.HasPrefix(tag, "<none>") })
		out = append(out, engine.Image{ID: img.ID, Labels: img.Labels, Size: img.Size, Tags: tags})
	}
	slices.SortFunc(out, func(a, b engine.Image) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Image implements [engine.Engine].
func (e *Engine) Image(ctx context.Context, digest string) (engine.Image, error) {
	img, err := e.resolve(ctx, digest)
	if err != nil {
		return engine.Image{}, err
	}
	return engine.Image{ID: img.ID, Labels: img.Labels, Size: img.Size}, nil
}

// A resolvedImage is what a digest stands for here.
type resolvedImage struct {
	ID      string
	Labels  map[string]string
	Env     []string
	Volumes []string
	Size    int64
}

// resolve finds the image under a digest: by its ID, or by the digest it was
// pulled under. What the daemon answers is compared with what was asked, so
// that a repository that somebody called "sha256" is not taken for a digest.
func (e *Engine) resolve(ctx context.Context, ref string) (resolvedImage, error) {
	if err := engine.CheckImage(ref); err != nil {
		return resolvedImage{}, err
	}
	found, err := e.api.ImageInspect(ctx, ref)
	if cerrdefs.IsNotFound(err) && !strings.Contains(ref, "@") {
		var id string
		if id, err = e.findRepoDigest(ctx, ref); err == nil {
			found, err = e.api.ImageInspect(ctx, id)
		}
	}
	if cerrdefs.IsNotFound(err) || errors.Is(err, engine.ErrNoImage) {
		return resolvedImage{}, fmt.Errorf("image %s: %w", ref, engine.ErrNoImage)
	}
	if err != nil {
		return resolvedImage{}, wrap("inspect image "+ref, err)
	}
	if !imageMatches(ref, found.InspectResponse) {
		return resolvedImage{}, fmt.Errorf("image %s: the engine answers with %s, which is another: %w", ref, found.ID, engine.ErrNoImage)
	}
	out := resolvedImage{ID: found.ID, Size: found.Size}
	if c := found.Config; c != nil {
		out.Labels, out.Env = c.Labels, c.Env
		out.Volumes = slices.Sorted(maps.Keys(c.Volumes))
	}
	return out, nil
}

// imageMatches reports whether img is what ref names.
func imageMatches(ref string, img image.InspectResponse) bool {
	if img.ID == ref {
		return true
	}
	_, digest, byName := strings.Cut(ref, "@")
	if !byName {
		digest = ref
	}
	return slices.ContainsFunc(img.RepoDigests, func(d string) bool {
		return d == ref || strings.HasSuffix(d, "@"+digest)
	})
}

// findRepoDigest returns the ID of the image that was pulled under a bare
// manifest digest.
func (e *Engine) findRepoDigest(ctx context.Context, digest string) (string, error) {
	list, err := e.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return "", err
	}
	for _, img := range list.Items {
		if slices.ContainsFunc(img.RepoDigests, func(d string) bool { return strings.HasSuffix(d, "@"+digest) }) {
			return img.ID, nil
		}
	}
	return "", engine.ErrNoImage
}

// fit refuses images that would bring along what no Spec can ask for.
func (img resolvedImage) fit(ref string) error {
	if len(img.Volumes) > 0 {
		return &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  fmt.Sprintf("image %s declares volumes (%s), which would be unlimited space on the host", ref, strings.Join(img.Volumes, ", ")),
			Hint: "build the image without VOLUME; files belong under /workspace",
		}
	}
	for name := range img.Labels {
		// Ours are dev.bailey.image… and descriptions; never those by which we
		// recognise containers.
		if isOwnLabel(name) {
			return &bailey.Error{
				Kind: bailey.Invalid,
				Msg:  fmt.Sprintf("image %s carries the label %s, which only bailey may set on a container", ref, name),
				Hint: "build the image without it",
			}
		}
	}
	return nil
}

func isOwnLabel(name string) bool {
	return slices.Contains([]string{
		labelInstance, labelRun, labelWorkspace, labelOwner, labelName, labelClass, labelUID, labelSpec, labelProfile,
	}, name)
}

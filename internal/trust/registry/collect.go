package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
)

const (
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	dsseEnvelope  = "application/vnd.dsse.envelope.v1+json"
	bundlePrefix  = "application/vnd.dev.sigstore.bundle"
	indexType     = "application/vnd.oci.image.index.v1+json"
)

// Resolve returns the digest that the reference's tag names now. The bytes are
// fetched and hashed: a header is only somebody's word.
func (r *Registry) Resolve(ctx context.Context, ref trust.Reference) (string, error) {
	if ref.Digest != "" {
		return ref.Digest, nil
	}
	if ref.Tag == "" {
		return "", errors.New("neither a tag nor a digest is named")
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	l := r.look(ref)
	a, err := l.get(ctx, http.MethodGet, "/manifests/"+url.PathEscape(ref.Tag), maxManifest)
	switch {
	case errors.Is(err, errNotFound):
		return "", unavailable(fmt.Sprintf("registry %s has no %s", l.host, ref), nil)
	case err != nil:
		return "", fmt.Errorf("resolve %s: %w", ref, err)
	}
	return digestOf(a.data), nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Collect gathers what is attached to ref.Digest: its manifest (and of an
// index the child that will run), bundles by referrers or the fallback tag,
// and legacy signatures and attestations. It fails with a
// [trust.UnavailableError] if any of it could not be asked for; what is over
// budget is counted in Skipped.
func (r *Registry) Collect(ctx context.Context, ref trust.Reference, want trust.Want) (trust.Evidence, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	c := &collector{look: r.look(ref), want: want, ev: trust.Evidence{
		Repository: ref.Repository, Digest: ref.Digest, Collected: r.cfg.Now().UTC(),
	}}
	if err := c.run(ctx); err != nil {
		if _, ok := errors.AsType[*trust.UnavailableError](err); !ok {
			err = unavailable("registry "+c.host+" could not be asked", err)
		}
		return trust.Evidence{}, err
	}
	c.ev.Requests = c.requests
	// The order must not depend on which answer came first.
	slices.SortStableFunc(c.ev.Items, func(a, b trust.Item) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Digest, b.Digest))
	})
	return c.ev, nil
}

type collector struct {
	*look
	want trust.Want

	evMu sync.Mutex // guards ev
	ev   trust.Evidence
}

func (c *collector) add(items ...trust.Item) {
	c.evMu.Lock()
	defer c.evMu.Unlock()
	c.ev.Items = append(c.ev.Items, items...)
}

func (c *collector) skip(n int) {
	c.evMu.Lock()
	defer c.evMu.Unlock()
	c.ev.Skipped += n
}

// object fetches something by its digest and checks that it is that.
func (c *collector) object(ctx context.Context, kind, digest string, limit int64) (answer, error) {
	if _, err := trust.ParseDigest(digest); err != nil {
		return answer{}, errNotFound
	}
	a, err := c.get(ctx, http.MethodGet, "/"+kind+"/"+digest, limit)
	if err != nil {
		return answer{}, err
	}
	if digestOf(a.data) != digest {
		return answer{}, unavailable(fmt.Sprintf("registry %s answered with other bytes than were asked for (%s)", c.host, digest), nil)
	}
	return a, nil
}

func (c *collector) run(ctx context.Context) error {
	top, err := c.object(ctx, "manifests", c.ref.Digest, maxManifest)
	switch {
	case errors.Is(err, errNotFound):
		return unavailable(fmt.Sprintf("registry %s does not have %s@%s", c.host, c.ref.Repository, c.ref.Digest), nil)
	case errors.Is(err, errTooLarge):
		return unavailable(fmt.Sprintf("registry %s answered with a manifest larger than 4 MiB", c.host), nil)
	case err != nil:
		return err
	}
	c.add(trust.Item{Kind: trust.ImageManifest, Subject: c.ref.Digest, Digest: c.ref.Digest, MediaType: top.header.Get("Content-Type"), Data: top.data})
	subjects := []string{c.ref.Digest}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	children, _ := trust.Children(top.data, c.want.Platform)
	for _, child := range children {
		g.Go(func() error { return c.child(gctx, child) })
	}
	switch c.want.Platforms {
	case policy.Runtime:
		subjects = append(subjects, children...)
	case policy.All:
		subjects = append(subjects, trust.Platforms(top.data)...)
	case policy.Index:
		if c.want.Attestations { // BuildKit and others attest the platform, not the index
			subjects = append(subjects, children...)
		}
	}
	slices.Sort(subjects[1:])
	for _, s := range slices.Compact(subjects) {
		g.Go(func() error { return c.bundles(gctx, s) })
		g.Go(func() error { return c.legacy(gctx, s, ".sig", simpleSigning, trust.LegacySignature) })
		if c.want.Attestations {
			g.Go(func() error { return c.legacy(gctx, s, ".att", dsseEnvelope, trust.LegacyAttestation) })
		}
	}
	return g.Wait() //nolint:wrapcheck // the words are in it
}

func (c *collector) child(ctx context.Context, digest string) error {
	a, err := c.object(ctx, "manifests", digest, maxManifest)
	if errors.Is(err, errNotFound) || errors.Is(err, errTooLarge) {
		return nil // the engine says that it is missing
	}
	if err != nil {
		return c.overBudget(err, 1)
	}
	c.add(trust.Item{Kind: trust.ImageManifest, Subject: digest, Digest: digest, MediaType: a.header.Get("Content-Type"), Data: a.data})
	return nil
}

// overBudget turns a spent budget into a count; every other error stays.
func (c *collector) overBudget(err error, n int) error {
	if errors.Is(err, errBudget) || errors.Is(err, errTooLarge) {
		c.skip(n)
		return nil
	}
	return err
}

// descriptor is what is read of an entry in an index or manifest.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
}

type index struct {
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	ArtifactType string       `json:"artifactType"`
	Subject      *descriptor  `json:"subject"`
	Layers       []descriptor `json:"layers"`
}

func tagOf(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// referrers lists what says that it refers to a digest.
func (c *collector) referrers(ctx context.Context, digest string) ([]descriptor, error) {
	var all []descriptor
	address := c.base + "/referrers/" + digest
	for page := 0; ; page++ {
		if page == maxPages {
			c.skip(1)
			return all, nil
		}
		a, err := c.fetch(ctx, http.MethodGet, address, maxManifest)
		if page == 0 && (errors.Is(err, errNotFound) || errors.Is(err, errUnknownQuestion) || err == nil && !strings.HasPrefix(a.header.Get("Content-Type"), indexType)) {
			// A registry that does not know the question keeps the list in a tag.
			if a, err = c.get(ctx, http.MethodGet, "/manifests/"+tagOf(digest), maxManifest); errors.Is(err, errNotFound) {
				return nil, nil
			}
		}
		if err != nil {
			return all, c.overBudget(err, 1)
		}
		var ix index
		if json.Unmarshal(a.data, &ix) != nil {
			c.skip(1)
			return all, nil //nolint:nilerr // what cannot be read is counted as not looked at
		}
		all = append(all, ix.Manifests...)
		next := c.nextPage(address, a.header.Get("Link"))
		if next == "" {
			return all, nil
		}
		address = next
	}
}

// nextPage returns the address of the next page, if it is on this registry.
func (c *collector) nextPage(address, link string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, `rel="next"`) && !strings.Contains(rest, "rel=next") {
		return ""
	}
	base, err := url.Parse(address)
	if err != nil {
		return ""
	}
	next, err := base.Parse(target)
	if err != nil || next.Scheme != base.Scheme || next.Host != base.Host || next.User != nil || !strings.HasPrefix(next.Path, base.Path[:strings.LastIndexByte(base.Path, '/')]) {
		return ""
	}
	return next.String()
}

// bundles fetches the sigstore bundles that refer to a digest.
func (c *collector) bundles(ctx context.Context, subject string) error {
	all, err := c.referrers(ctx, subject)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(d descriptor) bool {
		kind := d.ArtifactType
		twice := seen[d.Digest]
		seen[d.Digest] = true
		// An old producer's entry does not say what it is: look inside.
		return twice || kind != "" && !strings.HasPrefix(kind, bundlePrefix) && kind != "application/vnd.oci.empty.v1+json"
	})
	// Signatures before statements, what says what it is before what does not;
	// among equals an order that nobody can choose without effort.
	slices.SortFunc(all, func(a, b descriptor) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Digest, b.Digest)) })
	if n := len(all) - maxBundles; n > 0 {
		c.skip(n)
		all = all[:maxBundles]
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, d := range all {
		g.Go(func() error { return c.overBudget(c.bundle(ctx, subject, d), 1) })
	}
	return g.Wait() //nolint:wrapcheck // the words are in it
}

func rank(d descriptor) int {
	switch {
	case d.Annotations["dev.sigstore.bundle.predicateType"] == "https://sigstore.dev/cosign/sign/v1":
		return 0
	case strings.HasPrefix(d.ArtifactType, bundlePrefix):
		return 1
	}
	return 2
}

func (c *collector) bundle(ctx context.Context, subject string, d descriptor) error {
	a, err := c.object(ctx, "manifests", d.Digest, 256<<10)
	if errors.Is(err, errNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var m manifest
	if json.Unmarshal(a.data, &m) != nil || m.Subject == nil || m.Subject.Digest != subject || len(m.Layers) != 1 {
		return nil //nolint:nilerr // it does not refer to this image, whatever the list says
	}
	layer := m.Layers[0]
	if !strings.HasPrefix(layer.MediaType, bundlePrefix) {
		return nil
	}
	if layer.Size > maxBundle {
		return errTooLarge
	}
	blob, err := c.object(ctx, "blobs", layer.Digest, maxBundle)
	if errors.Is(err, errNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c.add(trust.Item{Kind: trust.SigstoreBundle, Subject: subject, Digest: layer.Digest, MediaType: layer.MediaType, Data: blob.data})
	return nil
}

// legacy fetches what a ".sig" or ".att" tag holds. Layers with one payload
// between them (every plain signature of one image) cost one request, so that
// a thousand signatures do not hide a good one.
func (c *collector) legacy(ctx context.Context, subject, suffix, mediaType string, kind trust.ItemKind) error {
	a, err := c.get(ctx, http.MethodGet, "/manifests/"+tagOf(subject)+suffix, maxManifest)
	if errors.Is(err, errNotFound) {
		return nil
	}
	if err != nil {
		return c.overBudget(err, 1)
	}
	var m manifest
	if json.Unmarshal(a.data, &m) != nil {
		c.skip(1)
		return nil //nolint:nilerr // what cannot be read is counted as not looked at
	}
	layers := slices.DeleteFunc(m.Layers, func(d descriptor) bool { return d.MediaType != mediaType })
	if n := len(layers) - maxLayers; n > 0 {
		c.skip(n)
		layers = layers[:maxLayers]
	}
	limit := int64(maxPayload)
	if kind == trust.LegacyAttestation {
		limit = maxBundle
	}
	order, by := c.group(layers, subject)
	if n := len(order) - maxPayloads; n > 0 {
		for _, digest := range order[maxPayloads:] {
			c.skip(len(by[digest]))
		}
		order = order[:maxPayloads]
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, digest := range order {
		g.Go(func() error {
			same := by[digest]
			if same[0].Size > limit {
				c.skip(len(same))
				return nil
			}
			blob, err := c.object(ctx, "blobs", digest, limit)
			if errors.Is(err, errNotFound) {
				return nil
			}
			if err != nil {
				return c.overBudget(err, len(same))
			}
			items := make([]trust.Item, 0, len(same))
			for _, d := range same {
				items = append(items, trust.Item{Kind: kind, Subject: subject, Digest: digest, MediaType: mediaType, Annotations: known(d.Annotations), Data: blob.data})
			}
			c.add(items...)
			return nil
		})
	}
	return g.Wait() //nolint:wrapcheck // the words are in it
}

// group collects layers by payload, the payload that a plain signature of this
// image has first.
func (c *collector) group(layers []descriptor, subject string) (order []string, by map[string][]descriptor) {
	by = map[string][]descriptor{}
	for _, d := range layers {
		if by[d.Digest] == nil {
			order = append(order, d.Digest)
		}
		by[d.Digest] = append(by[d.Digest], d)
	}
	plain := map[string]bool{}
	for _, name := range []string{c.ref.Repository, strings.Replace(c.ref.Repository, "docker.io/", "index.docker.io/", 1)} {
		plain[digestOf(fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, name, subject))] = true
	}
	slices.SortStableFunc(order, func(a, b string) int {
		switch {
		case plain[a] == plain[b]:
			return 0
		case plain[a]:
			return -1
		}
		return 1
	})
	return order, by
}

// known keeps the annotations that the engine reads: a layer may carry a
// million others.
func known(all map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range []string{
		"dev.cosignproject.cosign/signature", "dev.sigstore.cosign/certificate",
		"dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp", "predicateType",
	} {
		if v, ok := all[name]; ok && len(v) <= 64<<10 {
			out[name] = v
		}
	}
	return out
}

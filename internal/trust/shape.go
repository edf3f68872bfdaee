package trust

import (
	"encoding/json"
	"slices"
	"strings"
)

// The media types of images.
const (
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// maxChildren bounds the manifests of one index.
const maxChildren = 256

// An imageManifest is what the engine reads of a manifest or an index.
type imageManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config"`
	Layers        []descriptor `json:"layers"`
	Manifests     []descriptor `json:"manifests"`
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

func isIndex(mediaType string) bool { return mediaType == typeIndex || mediaType == typeDockerList }

// shape reads the image's manifest and finds what will run: the digest of the
// platform's manifest and of its config. It returns the digests of all
// platforms of an index.
func (j *judgement) shape() (children []string, ok bool) {
	malformed := func(format string, args ...any) ([]string, bool) {
		j.v.deny("image", ReasonMalformed, "build and push the image again", format, args...)
		return nil, false
	}
	data, have := j.ev.manifest(j.image.Digest)
	if !have {
		if slices.ContainsFunc(j.ev.Items, func(it Item) bool { return it.Kind == ImageManifest && it.Digest == j.image.Digest }) {
			j.v.deny("image", ReasonEvidenceTampered, "look at who can write to the evidence store; then verify again with --refresh", "the stored manifest is not what its digest says")
			return nil, false
		}
		if len(j.ev.Items) == 0 {
			j.v.deny("evidence", ReasonUnsigned, "bailey verify "+j.image.String(), "nothing is known about this image")
			return nil, false
		}
		return malformed("the image's own manifest is not among the evidence")
	}
	m, why := readManifest(data)
	if why != "" {
		return malformed("the image's manifest cannot be used: %s", why)
	}
	if m.Manifests == nil {
		j.v.PlatformDigest, j.v.ConfigDigest = j.image.Digest, m.Config.Digest
		j.v.check("image", true, "", "one manifest, config %s", m.Config.Digest)
		return nil, true
	}
	chosen := map[string]bool{}
	var exact string
	for _, d := range m.Manifests {
		if isAttestation(d) {
			continue
		}
		children = append(children, d.Digest)
		if fits, plain := d.fits(j.platform); fits {
			if isIndex(d.MediaType) {
				return malformed("its entry for %s is an index in an index", j.platform)
			}
			chosen[d.Digest] = true
			if plain {
				exact = d.Digest
			}
		}
	}
	switch {
	case len(chosen) == 0:
		j.v.deny("image", ReasonPlatform, "build it for this platform", "the image has no manifest for %s", j.platform)
		return nil, false
	case len(chosen) > 1 && exact == "":
		return malformed("it has %d manifests for %s, and engines may choose differently", len(chosen), j.platform)
	case exact == "":
		for d := range chosen {
			exact = d
		}
	}
	slices.Sort(children)
	children = slices.Compact(children)
	j.v.PlatformDigest = exact
	child, have := j.ev.manifest(exact)
	if !have {
		return malformed("the manifest for %s (%s) is not among the evidence", j.platform, exact)
	}
	cm, why := readManifest(child)
	if why != "" || cm.Manifests != nil {
		return malformed("the manifest for %s cannot be used: %s", j.platform, cmpOr(why, "it is an index itself"))
	}
	j.v.ConfigDigest = cm.Config.Digest
	j.v.check("image", true, "", "an index; for %s it names %s, config %s", j.platform, exact, cm.Config.Digest)
	return children, true
}

// readManifest reads an image's manifest or index strictly enough that two
// readers cannot see two things in it.
func readManifest(data []byte) (*imageManifest, string) {
	var m imageManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, "it is not JSON of the right form"
	}
	switch m.MediaType {
	case typeIndex, typeDockerList:
		if m.Config != nil || m.Layers != nil {
			return nil, "it is an index and a manifest at once"
		}
		if len(m.Manifests) == 0 {
			return nil, "an index of nothing"
		}
	case typeManifest, typeDockerManifest:
		if m.Manifests != nil {
			return nil, "it is an index and a manifest at once"
		}
	case "":
		if (m.Manifests != nil) == (m.Config != nil || m.Layers != nil) {
			return nil, "it says neither clearly that it is an index nor that it is a manifest"
		}
	default:
		return nil, "it is of type " + clip(m.MediaType)
	}
	if m.SchemaVersion != 2 {
		return nil, "it is not of schema version 2"
	}
	if len(m.Manifests) > maxChildren {
		return nil, "it has too many entries"
	}
	if m.Manifests == nil {
		if m.Config == nil {
			return nil, "it names no config"
		}
		if _, err := ParseDigest(m.Config.Digest); err != nil {
			return nil, "its config has no digest"
		}
	}
	for _, d := range m.Manifests {
		if _, err := ParseDigest(d.Digest); err != nil {
			return nil, "an entry has no digest"
		}
	}
	return &m, ""
}

// Children returns the digests of an index's platforms that could run here,
// and whether data is an index at all. Sources use it to know what to fetch.
func Children(data []byte, platform string) (digests []string, index bool) {
	m, why := readManifest(data)
	if why != "" || m.Manifests == nil {
		return nil, false
	}
	for _, d := range m.Manifests {
		if fits, _ := d.fits(platform); fits && !isAttestation(d) && !isIndex(d.MediaType) && !slices.Contains(digests, d.Digest) {
			digests = append(digests, d.Digest)
		}
	}
	return digests, true
}

// Platforms returns the digests of every platform of an index.
func Platforms(data []byte) []string {
	m, why := readManifest(data)
	if why != "" {
		return nil
	}
	var all []string
	for _, d := range m.Manifests {
		if !isAttestation(d) && !slices.Contains(all, d.Digest) {
			all = append(all, d.Digest)
		}
	}
	return all
}

// isAttestation reports whether an entry of an index is BuildKit's record of
// the build, which is never to be run.
func isAttestation(d descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && (d.Platform.OS == "unknown" || d.Platform.Architecture == "unknown")
}

// fits reports whether the entry runs on a platform ("linux/amd64"), and
// whether it is the plain one among its variants.
func (d descriptor) fits(platform string) (fits, plain bool) {
	os, arch, _ := strings.Cut(platform, "/")
	arch, variant, _ := strings.Cut(arch, "/")
	if d.Platform == nil || d.Platform.OS != os || d.Platform.Architecture != arch {
		return false, false
	}
	have := d.Platform.Variant
	if arch == "arm64" && have == "v8" {
		have = ""
	}
	return true, have == variant
}

// clip makes foreign text short and visible.
func clip(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == '\u2028' || r == '\u2029' || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "·"))
}

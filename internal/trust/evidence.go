package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// An ItemKind says what a piece of evidence is.
type ItemKind string

// The kinds of evidence.
const (
	ImageManifest     ItemKind = "image-manifest"     // the image's own manifest or index, as served
	LegacySignature   ItemKind = "legacy-signature"   // a simple-signing payload of a ".sig" tag, with its annotations
	LegacyAttestation ItemKind = "legacy-attestation" // a DSSE envelope of an ".att" tag, with its annotations
	SigstoreBundle    ItemKind = "bundle"             // a sigstore bundle, by referrers or beside the file
)

// An Item is one piece of evidence, as it was found and whoever put it there:
// nothing in it is trusted before it is judged.
type Item struct {
	Kind        ItemKind          `json:"kind"`
	Subject     string            `json:"subject"` // the digest it was attached to
	Digest      string            `json:"digest"`  // of Data
	MediaType   string            `json:"media_type,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"` // of a legacy layer: its signature and certificate
	Data        []byte            `json:"data,omitempty"`
}

// Evidence is what was found about one image in one repository.
type Evidence struct {
	Repository string    `json:"repository"`
	Digest     string    `json:"digest"` // the image's: of its manifest or index
	Collected  time.Time `json:"collected"`
	Items      []Item    `json:"items"`
	Skipped    int       `json:"skipped,omitempty"`  // items beyond the budget, never looked at
	Requests   int       `json:"requests,omitempty"` // what gathering it cost
}

// digestOf returns the digest of data, as registries write it.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// manifest returns the manifest with that digest, if the evidence has it. The
// bytes are hashed here: whoever stored them is not believed.
func (e *Evidence) manifest(digest string) ([]byte, bool) {
	for i := range e.Items {
		if it := &e.Items[i]; it.Kind == ImageManifest && it.Digest == digest && digestOf(it.Data) == digest {
			return it.Data, true
		}
	}
	return nil, false
}

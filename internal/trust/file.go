package trust

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// A File is what a bundle is about: its content, or its digest alone.
type File struct {
	Content   io.Reader // nil: Digest is given
	Digest    []byte
	Algorithm string // of Digest: "sha256", "sha384" or "sha512"
}

// ParseFileDigest reads "sha256:HEX" (or sha384, sha512) into a File.
func ParseFileDigest(s string) (File, error) {
	algorithm, text, _ := strings.Cut(s, ":")
	size := map[string]int{"sha256": 32, "sha384": 48, "sha512": 64}[algorithm]
	sum, err := hex.DecodeString(text)
	if err != nil || size == 0 || len(sum) != size || strings.ToLower(text) != text {
		return File{}, fmt.Errorf("%q is no digest", s)
	}
	return File{Digest: sum, Algorithm: algorithm}, nil
}

// VerifyBundle checks that an authority signed a file, by a sigstore bundle
// and a root alone, without any network. A certificate must be proven by a
// certificate log, a transparency log and a time that was observed; a key by
// whatever the bundle claims beside it: what is claimed must be true.
func VerifyBundle(data []byte, a *policy.Authority, f File) (signer Signer, err error) {
	defer func() {
		if r := recover(); r != nil {
			signer, err = Signer{}, fmt.Errorf("verify bundle: its reader broke on it: %v", r)
		}
	}()
	if len(data) > 32<<20 {
		return Signer{}, errors.New("verify bundle: larger than 32 MiB")
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return Signer{}, fmt.Errorf("read bundle: %w", err)
	}
	artifact := verify.WithArtifactDigest(f.Algorithm, f.Digest)
	if f.Content != nil {
		artifact = verify.WithArtifact(f.Content)
	} else if len(f.Digest) < 32 || f.Algorithm == "" {
		return Signer{}, errors.New("verify bundle: neither a file nor its digest is given")
	}
	m := b.GetVerificationMaterial()
	entries := m.GetTlogEntries()
	times := observedTime(b.Bundle)
	material := a.Root.Material
	var opts []verify.VerifierOption
	signer = Signer{Authority: a.Name, Format: "bundle", Evidence: digestOf(data)}
	identity := verify.WithKey()
	if a.Key != nil {
		if _, plain := a.Key.Public.(ed25519.PublicKey); plain && f.Content == nil && b.GetMessageSignature() != nil {
			return Signer{}, errors.New("verify bundle: an Ed25519 signature needs the file itself, its digest is not enough")
		}
		signer.Kind, signer.ID = "key", a.Key.Fingerprint
		material = keyMaterial{TrustedMaterial: a.Root.Material, key: a.Key}
		if len(entries) > 0 {
			opts = append(opts, verify.WithTransparencyLog(1))
		}
		if times {
			opts = append(opts, verify.WithObserverTimestamps(1))
		} else {
			opts = append(opts, verify.WithNoObserverTimestamps())
		}
	} else {
		opts = []verify.VerifierOption{verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
		identity = verify.WithoutIdentitiesUnsafe() // compared below, more strictly
	}
	v, err := verify.NewVerifier(material, opts...)
	if err != nil {
		return Signer{}, fmt.Errorf("prepare verifier: %w", err)
	}
	res, err := v.Verify(&b, verify.NewPolicy(artifact, identity))
	if err != nil {
		return Signer{}, fmt.Errorf("verify bundle: %w", err)
	}
	if a.Keyless != nil {
		c := &claim{format: "bundle", item: &Item{}}
		vc, err := b.VerificationContent()
		if err != nil || vc.Certificate() == nil {
			return Signer{}, errors.New("verify bundle: it is signed with a key, not by an identity")
		}
		c.setLeaf(vc.Certificate().Raw)
		if c.broken != nil {
			return Signer{}, fmt.Errorf("verify bundle: %s", c.broken.detail)
		}
		if m := mismatch(a.Keyless, c, a.Name); m != nil {
			return Signer{}, fmt.Errorf("verify bundle: %s", m.detail)
		}
		signer.Kind, signer.ID, signer.Issuer = "keyless", c.identity, c.issuer
	}
	signer.observe(res, b.Bundle, len(entries) > 0)
	return signer, nil
}

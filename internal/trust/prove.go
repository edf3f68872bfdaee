package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	sigroot "github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// What proving costs, in checks of one P-256 signature (50 µs), and how much
// of it one decision may spend: about 100 ms.
const (
	maxEffort      = 2000
	effortSlowKey  = 8
	effortVerifier = 40
)

func (j *judgement) spend(n int) bool {
	if j.effort+n > maxEffort {
		j.spent = true
		return false
	}
	j.effort += n
	return true
}

var errSpent = &miss{reason: ReasonTooMany, detail: "more signatures are attached than one decision looks at"}

// prove checks that an authority made a claim, and that it was made when and
// for what the rule wants.
func (j *judgement) prove(c *claim, a *policy.Authority, subject string, maxAge time.Duration) (Signer, *miss) {
	if c.broken != nil {
		return Signer{}, c.broken
	}
	s := Signer{Authority: a.Name, Format: c.format, Repository: c.named, Evidence: c.item.Digest}
	var m *miss
	var after time.Time // it was made at or after this, and nobody but the signer could have said so
	if a.Key != nil {
		s.Kind, s.ID = "key", a.Key.Fingerprint
		m = j.proveKey(c, a, &s, subject)
		after = c.at
	} else {
		s.Kind, s.ID, s.Issuer = "keyless", c.identity, c.issuer
		m = j.proveKeyless(c, a, &s, subject)
		if m == nil {
			// A log's or timestamp's time can be later than the signature by as
			// much as somebody waits to ask for it; the certificate cannot be
			// older than the signature by more than its ten minutes.
			after = c.leaf.NotBefore
		}
	}
	if m != nil {
		return Signer{}, m
	}
	if j.rule.Bind && s.Repository != j.image.Repository {
		if s.Repository == "" {
			return Signer{}, &miss{reason: ReasonWrongRepository, detail: fmt.Sprintf("the signature by %s names no repository, and rule %s binds images to theirs", a.Name, j.rule.Name), hint: "sign in the .sig format, which names it, or leave bind_repository out"}
		}
		return Signer{}, &miss{reason: ReasonWrongRepository, detail: fmt.Sprintf("the signature by %s is for %s, and the image is in %s", a.Name, s.Repository, j.image.Repository), hint: "use the image from " + s.Repository}
	}
	if m := j.inTime(a, after, maxAge); m != nil {
		return Signer{}, m
	}
	return s, nil
}

// inTime checks a rule's words about age. Only a time that nobody but the
// signer could have chosen counts: with a fresh timestamp anybody can make an
// old signature look new.
func (j *judgement) inTime(a *policy.Authority, after time.Time, maxAge time.Duration) *miss {
	if maxAge == 0 && j.rule.NotBefore.IsZero() {
		return nil
	}
	switch {
	case after.IsZero():
		return &miss{
			reason: ReasonNoTime,
			detail: fmt.Sprintf("rule %s limits the age of signatures, and the one by %s does not say when it was made (a log or timestamp may be added to an old signature at any time)", j.rule.Name, a.Name),
			hint:   "sign with -a " + claimedAtName + "=$(date -u +%FT%TZ), or keyless",
		}
	case after.After(j.now.Add(10 * time.Minute)):
		return &miss{reason: ReasonNoTime, detail: fmt.Sprintf("the signature by %s says it was made at %s, which is still to come", a.Name, after.UTC().Format(time.RFC3339)), hint: "look at the clocks of the signer and of this machine"}
	case maxAge > 0 && j.now.Sub(after) > maxAge:
		return &miss{reason: ReasonTooOld, detail: fmt.Sprintf("it was signed by %s on %s, longer ago than the %d days that rule %s takes", a.Name, after.UTC().Format(time.DateOnly), int(maxAge.Hours()/24), j.rule.Name), hint: "use a newer image, or have it signed again"}
	case !j.rule.NotBefore.IsZero() && after.Before(j.rule.NotBefore):
		return &miss{reason: ReasonBefore, detail: fmt.Sprintf("it was signed by %s on %s, before %s, where rule %s begins", a.Name, after.UTC().Format(time.DateOnly), j.rule.NotBefore.Format(time.DateOnly), j.rule.Name), hint: "use a newer image"}
	}
	return nil
}

func (j *judgement) proveKey(c *claim, a *policy.Authority, s *Signer, subject string) *miss {
	cost := 1
	if k, ok := a.Key.Public.(*ecdsa.PublicKey); ok && k.Curve != elliptic.P256() {
		cost = effortSlowKey
	}
	if !j.spend(cost) {
		return errSpent
	}
	windowed := !a.Key.NotBefore.IsZero() || !a.Key.NotAfter.IsZero()
	if c.leaf != nil && (c.format == "bundle" || a.Log || windowed) {
		return &miss{reason: ReasonUntrusted, detail: "it is signed with a certificate of " + clip(c.identity) + ", not with the key of " + a.Name}
	}
	// The signature first, and nothing else: this is what junk fails at.
	if c.payload != nil {
		if err := newKeyVerifier(a.Key.Public).VerifySignature(bytes.NewReader(c.signature), bytes.NewReader(c.payload)); err != nil {
			return otherKey(a)
		}
		if !a.Log && !windowed {
			return nil
		}
	}
	if !j.spend(effortVerifier / 4) {
		return errSpent
	}
	pb := c.pb
	if pb == nil {
		pb = c.legacyBundle()
	}
	material := keyMaterial{TrustedMaterial: a.Root.Material, key: a.Key}
	if a.Log || windowed {
		if !c.hasObservers() {
			return &miss{reason: ReasonNoLog, detail: fmt.Sprintf("the signature by %s has no log entry or timestamp, which the policy wants", a.Name), hint: "sign with a transparency log or timestamp authority of root " + a.Root.Name}
		}
		opts := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
		if !windowed && !observedTime(pb) {
			opts[0] = verify.WithNoObserverTimestamps() // a log of the second kind keeps no time, and none is asked for
		}
		if a.Log {
			opts = append(opts, verify.WithTransparencyLog(1))
		}
		res, err := j.verify(c, pb, material, subject, opts, verify.WithKey())
		if err != nil {
			return observerMiss(err, a, otherKey(a))
		}
		s.observe(res, pb, a.Log)
		return nil
	}
	if _, err := j.verify(c, pb, material, subject, []verify.VerifierOption{verify.WithNoObserverTimestamps()}, verify.WithKey()); err != nil {
		return otherKey(a)
	}
	return nil
}

// observedTime reports whether a bundle comes with somebody's word on when its
// signature was there.
func observedTime(pb *protobundle.Bundle) bool {
	m := pb.GetVerificationMaterial()
	for _, e := range m.GetTlogEntries() {
		if e.GetInclusionPromise() != nil {
			return true
		}
	}
	return len(m.GetTimestampVerificationData().GetRfc3161Timestamps()) > 0
}

func otherKey(a *policy.Authority) *miss {
	return &miss{reason: ReasonUntrusted, detail: "it is signed, but not with the key of " + a.Name}
}

func (j *judgement) proveKeyless(c *claim, a *policy.Authority, s *Signer, subject string) *miss {
	if c.leaf == nil {
		return &miss{reason: ReasonUntrusted, detail: "it is signed with a key, not by the identity that " + a.Name + " stands for"}
	}
	// What the certificate says is only a claim until it is verified, but one
	// that does not even claim the right thing needs no verifying.
	if m := mismatch(a.Keyless, c, a.Name); m != nil {
		return m
	}
	if !j.spend(effortVerifier) {
		return errSpent
	}
	pb := c.pb
	if pb == nil {
		pb = c.legacyBundle()
	}
	opts := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if a.Log {
		opts = append(opts, verify.WithTransparencyLog(1))
	}
	if a.SCT {
		opts = append(opts, verify.WithSignedCertificateTimestamps(1))
	}
	res, err := j.verify(c, pb, a.Root.Material, subject, opts, verify.WithoutIdentitiesUnsafe())
	if err != nil {
		return observerMiss(err, a, &miss{reason: ReasonInvalid, detail: fmt.Sprintf("the signature claims to be by %s and does not verify: %s", clip(c.identity), oneLine(err)), hint: "look at root " + a.Root.Name + ": bailey trust root show"})
	}
	// The identity that was verified must be the one that was compared.
	if sum := res.Signature.Certificate; sum == nil || sum.Issuer != c.issuer {
		return &miss{reason: ReasonInvalid, detail: "two readers see different issuers in the certificate"}
	}
	s.observe(res, pb, a.Log)
	return nil
}

// mismatch compares the certificate with a keyless authority.
func mismatch(k *policy.Keyless, c *claim, name string) *miss {
	wrong := func(what, have, want string) *miss {
		return &miss{
			reason: ReasonWrongIdentity,
			detail: fmt.Sprintf("it is signed by %s %s, and %s is %s", what, clip(have), name, want),
			hint:   "if this signer should count, an administrator adds the identity to the policy",
		}
	}
	if c.issuer != k.Issuer {
		return wrong("an identity from the issuer", c.issuer, "from "+k.Issuer)
	}
	if !k.Identity.Match(c.identity) {
		return wrong("the identity", c.identity, k.Identity.String())
	}
	for _, e := range []struct{ want, oid, what string }{
		{k.SourceRepository, "12", "a build of"},
		{k.SourceRef, "14", "a build of the branch or tag"},
		{k.RunnerEnvironment, "11", "a build on a runner that is"},
		{k.Workflow, "18", "the workflow"},
	} {
		if e.want == "" {
			continue
		}
		if have := c.extension(e.oid); have != e.want {
			return wrong(e.what, cmpOr(have, "(nothing)"), e.want)
		}
	}
	return nil
}

// observerMiss sorts the verifier's error: what is wrong with the log, the
// times or the certificate is told from a signature that is not this
// authority's.
func observerMiss(err error, a *policy.Authority, other *miss) *miss {
	text := err.Error()
	for _, about := range []string{"failed to verify log inclusion", "failed to verify timestamps", "failed to verify signed certificate timestamp", "signature time outside of public key validity", "SCTs required"} {
		if strings.HasPrefix(text, about) {
			return &miss{reason: ReasonNoLog, detail: fmt.Sprintf("the signature by %s has no log entry, timestamp or certificate proof that root %s vouches for: %s", a.Name, a.Root.Name, oneLine(err)), hint: "bailey trust root show says how old the root is; a newer log needs a newer root"}
		}
	}
	return other
}

// verify runs sigstore's verifier over one bundle.
func (j *judgement) verify(c *claim, pb *protobundle.Bundle, material sigroot.TrustedMaterial, subject string, opts []verify.VerifierOption, identity verify.PolicyOption) (_ *verify.VerificationResult, err error) {
	defer func() {
		// A panic on what a stranger attached must never read as "verified".
		if r := recover(); r != nil {
			err = fmt.Errorf("the verifier broke on it: %v", r)
		}
	}()
	b, err := bundle.NewBundle(pb)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	v, err := verify.NewVerifier(material, append(opts, verify.WithoutStatementPredicate())...)
	if err != nil {
		return nil, fmt.Errorf("prepare verifier: %w", err)
	}
	var artifact verify.ArtifactPolicyOption
	if c.payload != nil {
		artifact = verify.WithArtifact(bytes.NewReader(c.payload))
	} else {
		sum, err := hex.DecodeString(strings.TrimPrefix(subject, "sha256:"))
		if err != nil {
			return nil, fmt.Errorf("read digest: %w", err)
		}
		artifact = verify.WithArtifactDigest("sha256", sum)
	}
	return v.Verify(b, verify.NewPolicy(artifact, identity)) //nolint:wrapcheck // its words are sorted by observerMiss
}

// observe notes what a log or timestamp authority proved.
func (s *Signer) observe(res *verify.VerificationResult, pb *protobundle.Bundle, logged bool) {
	for _, t := range res.VerifiedTimestamps {
		if s.SignedAt.IsZero() || t.Timestamp.Before(s.SignedAt) {
			s.SignedAt = t.Timestamp.UTC()
		}
		if t.Type == "Tlog" {
			s.LogName = t.URI
		}
	}
	if entries := pb.GetVerificationMaterial().GetTlogEntries(); logged && len(entries) == 1 {
		index := entries[0].GetLogIndex()
		s.LogIndex = &index
	}
}

// keyMaterial is a root with one key, which stands for any hint: the hint in a
// bundle is unsigned and says nothing.
type keyMaterial struct {
	sigroot.TrustedMaterial
	key *policy.Key
}

// PublicKeyVerifier returns the one key.
func (m keyMaterial) PublicKeyVerifier(string) (sigroot.TimeConstrainedVerifier, error) {
	return sigroot.NewExpiringKey(newKeyVerifier(m.key.Public), m.key.NotBefore, m.key.NotAfter), nil
}

// A keyVerifier checks signatures of one key. On P-384 and P-521 it takes
// SHA-256, as cosign has always used, and the curve's own hash.
type keyVerifier struct {
	pub crypto.PublicKey
	by  []signature.Verifier
}

func newKeyVerifier(pub crypto.PublicKey) *keyVerifier {
	v := &keyVerifier{pub: pub}
	hashes := []crypto.Hash{crypto.SHA256}
	if k, ok := pub.(*ecdsa.PublicKey); ok {
		switch k.Curve {
		case elliptic.P384():
			hashes = append(hashes, crypto.SHA384)
		case elliptic.P521():
			hashes = append(hashes, crypto.SHA512)
		}
	}
	for _, h := range hashes {
		if one, err := signature.LoadVerifier(pub, h); err == nil {
			v.by = append(v.by, one)
		}
	}
	return v
}

// PublicKey returns the key.
func (v *keyVerifier) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return v.pub, nil
}

// VerifySignature returns nil if the key made the signature.
func (v *keyVerifier) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	s, err := io.ReadAll(sig)
	if err != nil {
		return fmt.Errorf("read signature: %w", err)
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	var digest []byte
	for _, o := range opts {
		o.ApplyDigest(&digest)
	}
	if _, plain := v.pub.(ed25519.PublicKey); plain && digest != nil {
		// Ed25519 signs the message itself; a verifier that is given only a
		// digest would check the signature of nothing.
		return errors.New("an Ed25519 signature cannot be checked by digest")
	}
	err = errors.New("no verifier for this key")
	for _, one := range v.by {
		if err = one.VerifySignature(bytes.NewReader(s), bytes.NewReader(m), opts...); err == nil {
			return nil
		}
	}
	return err //nolint:wrapcheck // the caller says whose signature it is not
}

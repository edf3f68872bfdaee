package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// Names of the formats.
const (
	payloadInToto     = "application/vnd.in-toto+json"
	payloadType       = "cosign container image signature"
	annotationSig     = "dev.cosignproject.cosign/signature"
	annotationCert    = "dev.sigstore.cosign/certificate"
	annotationBundle  = "dev.sigstore.cosign/bundle"
	annotationStamp   = "dev.sigstore.cosign/rfc3161timestamp"
	annotationAtt     = "predicateType"
	bundleV01         = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	maxPayload        = 64 << 10
	maxBundle         = 4 << 20
	maxSubjects       = 1024
	claimedAtName     = "dev.bailey.signed-at" // RFC 3339, inside what is signed
	issuerOIDPrefix   = "1.3.6.1.4.1.57264.1."
	maxClaimsPerImage = 1100
)

// signatureTypes are the predicate types of a signature, as opposed to a
// statement about something else. Neither is taken for the other.
var signatureTypes = []string{"https://sigstore.dev/cosign/sign/v1"}

// A claim is one item read, but not yet believed.
type claim struct {
	item      *Item
	subject   string // the digest it was attached to, and that its content names
	format    string // "bundle" or "legacy"
	predicate string // type of the statement; empty in a simple-signing payload
	statement []byte // the DSSE payload
	payload   []byte // the simple-signing payload
	named     string // the repository that it names, if it does
	at        time.Time
	broken    *miss // why it cannot count, whoever made it

	signature []byte // of a legacy payload
	leaf      *x509.Certificate
	identity  string // of the leaf
	issuer    string

	pb *protobundle.Bundle // nil for a legacy payload until it is needed
}

// read turns the items into claims.
func (j *judgement) read() {
	for i := range j.ev.Items {
		it := &j.ev.Items[i]
		if it.Kind == ImageManifest || len(j.claims) >= maxClaimsPerImage {
			continue
		}
		c := &claim{item: it, subject: it.Subject, format: "legacy"}
		if digestOf(it.Data) != it.Digest {
			c.fail(ReasonMalformed, "a stored piece of evidence is not what its digest says")
		} else {
			switch it.Kind {
			case LegacySignature:
				c.readLegacy()
			case LegacyAttestation:
				c.readLegacyAttestation()
			case SigstoreBundle:
				c.format = "bundle"
				c.readBundle()
			case ImageManifest:
			}
		}
		j.claims = append(j.claims, c)
	}
}

func (c *claim) fail(reason Reason, format string, args ...any) {
	if c.broken == nil {
		c.broken = &miss{reason: reason, detail: fmt.Sprintf(format, args...)}
	}
}

// simpleSigning is the payload of a ".sig" tag.
type simpleSigning struct {
	Critical *struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// readLegacy reads a payload, and binds it to the image before anything else
// is looked at.
func (c *claim) readLegacy() {
	c.payload = c.item.Data
	if len(c.payload) > maxPayload {
		c.fail(ReasonMalformed, "a signature's payload is larger than 64 KiB")
		return
	}
	var p simpleSigning
	if err := strictJSON(c.payload, &p); err != nil || p.Critical == nil {
		c.fail(ReasonMalformed, "a signature's payload cannot be read")
		return
	}
	if p.Critical.Type != payloadType {
		c.fail(ReasonMalformed, "a signature's payload is of type %q", clip(p.Critical.Type))
		return
	}
	if p.Critical.Image.Digest != c.subject {
		c.fail(ReasonWrongImage, "the signature attached to it is of another image, %s", clip(p.Critical.Image.Digest))
		return
	}
	if r, err := ParseReference(p.Critical.Identity.Reference); err == nil {
		c.named = r.Repository
	}
	if s, ok := p.Optional[claimedAtName].(string); ok {
		c.at, _ = time.Parse(time.RFC3339, s)
	}
	sig, err := base64.StdEncoding.DecodeString(c.item.Annotations[annotationSig])
	if err != nil || len(sig) == 0 || len(sig) > 4096 {
		c.fail(ReasonMalformed, "a payload is attached without a signature that can be read")
		return
	}
	c.signature = sig
	c.readLeaf()
}

// readLeaf reads the certificate of a legacy layer, if it has one.
func (c *claim) readLeaf() {
	text := c.item.Annotations[annotationCert]
	if text == "" {
		return
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		c.fail(ReasonMalformed, "a signature's certificate cannot be read")
		return
	}
	c.setLeaf(block.Bytes)
}

func (c *claim) setLeaf(der []byte) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		c.fail(ReasonMalformed, "a signature's certificate cannot be read")
		return
	}
	identity, issuer, err := certificateNames(leaf)
	if err != nil {
		c.fail(ReasonWrongIdentity, "a signature's certificate is not for one plain identity: %v", err)
		return
	}
	c.leaf, c.identity, c.issuer = leaf, identity, issuer
}

// certificateNames returns the one identity of a certificate and its issuer.
// A certificate with several names, or with one of a kind that two readers
// may see differently, is refused.
func certificateNames(leaf *x509.Certificate) (identity, issuer string, err error) {
	var san []byte
	for _, e := range leaf.Extensions {
		switch e.Id.String() {
		case "2.5.29.17":
			if san != nil {
				return "", "", fmt.Errorf("two lists of names")
			}
			san = e.Value
		case issuerOIDPrefix + "8":
			var s string
			if rest, err := asn1.Unmarshal(e.Value, &s); err != nil || len(rest) > 0 {
				return "", "", fmt.Errorf("its issuer cannot be read")
			}
			if issuer != "" && issuer != s {
				return "", "", fmt.Errorf("two issuers")
			}
			issuer = s
		case issuerOIDPrefix + "1":
			if issuer != "" && issuer != string(e.Value) {
				return "", "", fmt.Errorf("two issuers")
			}
			issuer = string(e.Value)
		}
	}
	var list asn1.RawValue
	if rest, err := asn1.Unmarshal(san, &list); err != nil || len(rest) > 0 || list.Tag != asn1.TagSequence {
		return "", "", fmt.Errorf("no name")
	}
	var name asn1.RawValue
	rest, err := asn1.Unmarshal(list.Bytes, &name)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("no name")
	case len(rest) > 0:
		return "", "", fmt.Errorf("several names")
	case name.Class != asn1.ClassContextSpecific || name.Tag != 1 && name.Tag != 6:
		return "", "", fmt.Errorf("its name is neither an address nor an e-mail")
	case len(name.Bytes) == 0 || len(name.Bytes) > 2048:
		return "", "", fmt.Errorf("its name is empty or too long")
	}
	return string(name.Bytes), issuer, nil
}

// inToto is what is read of a statement before it is proven.
type inToto struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name        string            `json:"name"`
		Digest      map[string]string `json:"digest"`
		Annotations map[string]any    `json:"annotations"`
	} `json:"subject"`
}

func (c *claim) readStatement(env *protodsse.Envelope) {
	c.statement = env.GetPayload()
	if env.GetPayloadType() != payloadInToto {
		c.fail(ReasonMalformed, "a signed envelope holds %q, not a statement", clip(env.GetPayloadType()))
		return
	}
	if len(env.GetSignatures()) != 1 {
		c.fail(ReasonMalformed, "a signed envelope has %d signatures; exactly one is taken", len(env.GetSignatures()))
		return
	}
	var s inToto
	if err := strictJSON(c.statement, &s); err != nil || s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1" {
		c.fail(ReasonMalformed, "a signed statement cannot be read")
		return
	}
	c.predicate = s.PredicateType
	if s.PredicateType == "" {
		c.predicate = "none"
		c.fail(ReasonMalformed, "a signed statement does not say what it is")
	}
	if len(s.Subject) > maxSubjects {
		c.fail(ReasonMalformed, "a signed statement has too many subjects")
		return
	}
	want := strings.TrimPrefix(c.subject, "sha256:")
	for _, sub := range s.Subject {
		if sub.Digest["sha256"] != want {
			continue
		}
		if r, err := ParseReference(sub.Name); err == nil && strings.ContainsAny(sub.Name, "/") {
			c.named = r.Repository
		}
		if at, ok := sub.Annotations[claimedAtName].(string); ok {
			c.at, _ = time.Parse(time.RFC3339, at)
		}
		return
	}
	other := "nothing"
	if len(s.Subject) > 0 {
		other = "sha256:" + clip(s.Subject[0].Digest["sha256"])
	}
	c.fail(ReasonWrongImage, "the statement attached to it is of another image, %s", other)
}

// readBundle reads a sigstore bundle.
func (c *claim) readBundle() {
	defer func() {
		if r := recover(); r != nil {
			c.broken = nil
			c.fail(ReasonMalformed, "a bundle broke its reader")
		}
	}()
	if len(c.item.Data) > maxBundle {
		c.fail(ReasonMalformed, "a bundle is larger than 4 MiB")
		return
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(c.item.Data); err != nil {
		c.fail(ReasonMalformed, "a bundle cannot be read: %s", oneLine(err))
		return
	}
	c.pb = b.Bundle
	env := c.pb.GetDsseEnvelope()
	if env == nil {
		c.predicate = "none"
		c.fail(ReasonMalformed, "a bundle holds a signature of bytes, not a statement about an image")
		return
	}
	m := c.pb.GetVerificationMaterial()
	switch {
	case m.GetCertificate() != nil:
		c.setLeaf(m.GetCertificate().GetRawBytes())
	case m.GetX509CertificateChain() != nil:
		if certs := m.GetX509CertificateChain().GetCertificates(); len(certs) > 0 {
			c.setLeaf(certs[0].GetRawBytes())
		}
	}
	c.readStatement(env)
}

// readLegacyAttestation reads a layer of an ".att" tag.
func (c *claim) readLegacyAttestation() {
	var env struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	}
	c.predicate = "none"
	if len(c.item.Data) > maxBundle || strictJSON(c.item.Data, &env) != nil {
		c.fail(ReasonMalformed, "an attestation's envelope cannot be read")
		return
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil || len(env.Signatures) == 0 {
		c.fail(ReasonMalformed, "an attestation's envelope cannot be read")
		return
	}
	pb := &protodsse.Envelope{Payload: payload, PayloadType: env.PayloadType}
	for _, s := range env.Signatures {
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil {
			c.fail(ReasonMalformed, "an attestation's signature cannot be read")
			return
		}
		pb.Signatures = append(pb.Signatures, &protodsse.Signature{Sig: sig})
	}
	c.readLeaf()
	c.readStatement(pb)
	c.pb = c.legacyBundle()
	c.pb.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: pb}
}

// legacyBundle makes a bundle of what stands in a legacy layer's annotations.
// It is of version 0.1: from 0.2 on an inclusion proof is demanded, which this
// format never had.
func (c *claim) legacyBundle() *protobundle.Bundle {
	m := &protobundle.VerificationMaterial{}
	if c.leaf != nil {
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: c.leaf.Raw}},
		}}
	} else {
		m.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "key"}}
	}
	if e := legacyEntry(c.item.Annotations[annotationBundle]); e != nil {
		m.TlogEntries = []*protorekor.TransparencyLogEntry{e}
	}
	var stamp struct {
		Stamp []byte `json:"SignedRFC3161Timestamp"`
	}
	if err := json.Unmarshal([]byte(c.item.Annotations[annotationStamp]), &stamp); err == nil && len(stamp.Stamp) > 0 {
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.Stamp}},
		}
	}
	b := &protobundle.Bundle{MediaType: bundleV01, VerificationMaterial: m}
	if c.payload != nil {
		sum := sha256.Sum256(c.payload)
		b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     c.signature,
		}}
	}
	return b
}

// legacyEntry reads the log entry in a legacy annotation, or returns nil.
func legacyEntry(text string) *protorekor.TransparencyLogEntry {
	var b struct {
		SET     []byte `json:"SignedEntryTimestamp"`
		Payload struct {
			Body  string `json:"body"`
			Time  int64  `json:"integratedTime"`
			Index int64  `json:"logIndex"`
			LogID string `json:"logID"`
		} `json:"Payload"`
	}
	if text == "" || json.Unmarshal([]byte(text), &b) != nil {
		return nil
	}
	body, err := base64.StdEncoding.DecodeString(b.Payload.Body)
	if err != nil {
		return nil
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil {
		return nil
	}
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if json.Unmarshal(body, &kind) != nil {
		return nil
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: b.Payload.Index, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: b.Payload.Time,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: b.SET},
		CanonicalizedBody: body,
	}
}

// strictJSON reads exactly one value.
func strictJSON(data []byte, into any) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("read JSON: something follows it")
	}
	return nil
}

// hasObservers reports whether the claim comes with a log entry or timestamp.
func (c *claim) hasObservers() bool {
	if c.pb != nil {
		m := c.pb.GetVerificationMaterial()
		return len(m.GetTlogEntries()) > 0 || len(m.GetTimestampVerificationData().GetRfc3161Timestamps()) > 0
	}
	return c.item.Annotations[annotationBundle] != "" || c.item.Annotations[annotationStamp] != ""
}

// extension returns a text extension of the leaf by its last number.
func (c *claim) extension(n string) string {
	for _, e := range c.leaf.Extensions {
		if e.Id.String() == issuerOIDPrefix+n {
			var s string
			if rest, err := asn1.Unmarshal(e.Value, &s); err == nil && len(rest) == 0 {
				return s
			}
		}
	}
	return ""
}

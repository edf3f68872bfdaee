package trusttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	ctutil "github.com/google/certificate-transparency-go/x509util"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	sigroot "github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/baileyhq/bailey/internal/trust/root"
)

// A Sigstore is a whole instance in memory: certificate authority, certificate
// log, transparency log of both kinds, timestamp authority.
type Sigstore struct {
	t     testing.TB
	vs    *ca.VirtualSigstore
	rootC *x509.Certificate
	inter *x509.Certificate
	key   *ecdsa.PrivateKey
	ctKey *ecdsa.PrivateKey
}

// NewSigstore returns an instance of its own.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	s := &Sigstore{t: t}
	var err error
	s.vs, err = ca.NewVirtualSigstore()
	s.must(err)
	rootCert, rootKey, err := ca.GenerateRootCa()
	s.must(err)
	s.rootC = rootCert
	s.inter, s.key, err = ca.GenerateFulcioIntermediate(rootCert, rootKey)
	s.must(err)
	s.ctKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	return s
}

func (s *Sigstore) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func keyID(pub crypto.PublicKey) [32]byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic(err)
	}
	return sha256.Sum256(der)
}

// RootJSON returns trusted_root.json of the instance.
func (s *Sigstore) RootJSON() []byte {
	s.t.Helper()
	rekor := map[string]*sigroot.TransparencyLog{}
	for id, l := range s.vs.RekorLogs() {
		l.ID, _ = hex.DecodeString(id) // the library keeps it as text
		l.ValidityPeriodEnd = time.Time{}
		rekor[id] = l
	}
	ctID := keyID(s.ctKey.Public())
	cas := []sigroot.CertificateAuthority{&sigroot.FulcioCertificateAuthority{
		Root: s.rootC, Intermediates: []*x509.Certificate{s.inter}, URI: "https://fulcio.test",
		ValidityPeriodStart: time.Now().Add(-24 * time.Hour),
	}}
	tr, err := sigroot.NewTrustedRoot(sigroot.TrustedRootMediaType01, append(cas, s.vs.FulcioCertificateAuthorities()...),
		map[string]*sigroot.TransparencyLog{hex.EncodeToString(ctID[:]): {
			BaseURL: "https://ct.test", ID: ctID[:], HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
			PublicKey: s.ctKey.Public(), ValidityPeriodStart: time.Now().Add(-24 * time.Hour),
		}}, s.vs.TimestampingAuthorities(), rekor)
	s.must(err)
	data, err := tr.MarshalJSON()
	s.must(err)
	return data
}

// Root returns the instance's trusted root.
func (s *Sigstore) Root() *root.Root {
	s.t.Helper()
	r, err := root.Parse("test", s.RootJSON(), time.Now())
	s.must(err)
	return r
}

// An Identity is what a certificate says about its holder.
type Identity struct {
	URI, Email string
	Issuer     string
	Extensions map[string]string // last number of the OID → text
	NoSCT      bool              // the certificate is not logged
	NotBefore  time.Time         // zero: a minute ago
	OtherName  string            // instead of URI and Email
}

// A Cert is a certificate with its key.
type Cert struct {
	Leaf *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Issue returns a certificate for an identity, valid for ten minutes.
func (s *Sigstore) Issue(id Identity) Cert {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	if id.NotBefore.IsZero() {
		id.NotBefore = time.Now().Add(-time.Minute)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: id.NotBefore, NotAfter: id.NotBefore.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if id.URI != "" {
		u, err := url.Parse(id.URI)
		s.must(err)
		tmpl.URIs = []*url.URL{u}
	}
	if id.Email != "" {
		tmpl.EmailAddresses = []string{id.Email}
	}
	text := func(n int, v string) {
		der, err := asn1.MarshalWithParams(v, "utf8")
		s.must(err)
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: der})
	}
	text(8, id.Issuer)
	for n, v := range id.Extensions {
		var i int
		_, _ = fmt.Sscan(n, &i)
		text(i, v)
	}
	if id.OtherName != "" {
		// [0] { OID 1.3.6.1.4.1.57264.1.7, [0] UTF8String }
		inner, err := asn1.MarshalWithParams(id.OtherName, "utf8")
		s.must(err)
		oid, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 7})
		s.must(err)
		explicit, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner})
		s.must(err)
		other, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, explicit...)})
		s.must(err)
		list, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: other})
		s.must(err)
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: list})
	}
	make := func() *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, s.inter, key.Public(), s.key)
		s.must(err)
		c, err := x509.ParseCertificate(der)
		s.must(err)
		return c
	}
	leaf := make()
	if !id.NoSCT {
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, s.sct(leaf))
		leaf = make()
	}
	return Cert{leaf, key}
}

// sct logs a certificate and returns the extension that proves it.
func (s *Sigstore) sct(leaf *x509.Certificate) pkix.Extension {
	s.t.Helper()
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: keyID(s.ctKey.Public())}, Timestamp: uint64(time.Now().UnixMilli())}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(s.inter.RawSubjectPublicKeyInfo), TBSCertificate: leaf.RawTBSCertificate},
		},
	}})
	s.must(err)
	sum := sha256.Sum256(input)
	sig, err := ecdsa.SignASN1(rand.Reader, s.ctKey, sum[:])
	s.must(err)
	sct.Signature = ct.DigitallySigned{Algorithm: cttls.SignatureAndHashAlgorithm{Hash: cttls.SHA256, Signature: cttls.ECDSA}, Signature: sig}
	list, err := ctutil.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	s.must(err)
	raw, err := cttls.Marshal(*list)
	s.must(err)
	der, err := asn1.Marshal(raw)
	s.must(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier(ctx509.OIDExtensionCTSCT), Value: der}
}

// Statement returns an in-toto statement about an image.
func Statement(digest, predicateType string, predicate any) []byte {
	return JSON(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "predicate": predicate,
		"subject": []any{map[string]any{"digest": map[string]string{"sha256": digest[len("sha256:"):]}}},
	})
}

// A Signed is everything of one signature, to be made into a bundle after a
// test has changed it.
type Signed struct {
	Cert      Cert
	Envelope  *dsse.Envelope
	Payload   []byte // of the envelope
	Signature []byte
	Entries   []*protorekor.TransparencyLogEntry
	Stamps    [][]byte
}

// Sign signs a statement with a certificate and logs it, now, in a Rekor v1
// log with an inclusion proof, and has it stamped.
func (s *Sigstore) Sign(c Cert, statement []byte) *Signed {
	s.t.Helper()
	return s.SignAt(c, statement, time.Now())
}

// SignAt is Sign with the time that the log notes.
func (s *Sigstore) SignAt(c Cert, statement []byte, logged time.Time) *Signed {
	s.t.Helper()
	const kind = "application/vnd.in-toto+json"
	sum := sha256.Sum256(dsse.PAE(kind, statement))
	sig, err := ecdsa.SignASN1(rand.Reader, c.Key, sum[:])
	s.must(err)
	env := &dsse.Envelope{
		PayloadType: kind, Payload: base64.StdEncoding.EncodeToString(statement),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
	}
	entry, err := s.vs.GenerateTlogEntry(c.Leaf, env, sig, logged.Unix(), true)
	s.must(err)
	logEntry := entry.TransparencyLogEntry()
	logEntry.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"} // the library leaves both out
	logEntry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: s.set(logEntry)}
	stamp, err := s.vs.TimestampResponse(sig)
	s.must(err)
	return &Signed{
		Cert: c, Envelope: env, Payload: statement, Signature: sig,
		Entries: []*protorekor.TransparencyLogEntry{logEntry}, Stamps: [][]byte{stamp},
	}
}

// logged is what a Rekor v1 log signs about an entry.
func logged(e *protorekor.TransparencyLogEntry) tlog.RekorPayload {
	return tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(e.GetCanonicalizedBody()),
		IntegratedTime: e.GetIntegratedTime(), LogIndex: e.GetLogIndex(), LogID: hex.EncodeToString(e.GetLogId().GetKeyId()),
	}
}

func (s *Sigstore) set(e *protorekor.TransparencyLogEntry) []byte {
	s.t.Helper()
	set, err := s.vs.RekorSignPayload(logged(e))
	s.must(err)
	return set
}

// SignV2 signs a statement by an e-mail identity and logs it in a Rekor v2
// log, which keeps no time; a timestamp stands for it. The certificate is not
// logged.
func (s *Sigstore) SignV2(email, issuer string, statement []byte) *Signed {
	s.t.Helper()
	e, err := s.vs.AttestHashedRekordV2(email, issuer, statement)
	s.must(err)
	vc, err := e.VerificationContent()
	s.must(err)
	sc, err := e.SignatureContent()
	s.must(err)
	stamps, err := e.Timestamps()
	s.must(err)
	entries, err := e.TlogEntries()
	s.must(err)
	out := &Signed{Cert: Cert{Leaf: vc.Certificate()}, Envelope: sc.EnvelopeContent().RawEnvelope(), Payload: statement, Signature: sc.Signature(), Stamps: stamps}
	for _, e := range entries {
		out.Entries = append(out.Entries, e.TransparencyLogEntry())
	}
	return out
}

// Stamp returns a timestamp over a signature.
func (s *Sigstore) Stamp(signature []byte) []byte {
	s.t.Helper()
	b, err := s.vs.TimestampResponse(signature)
	s.must(err)
	return b
}

// Bundle returns the bundle of a signature.
func (g *Signed) Bundle() []byte {
	payload, _ := base64.StdEncoding.DecodeString(g.Envelope.Payload)
	env := &protodsse.Envelope{Payload: payload, PayloadType: g.Envelope.PayloadType}
	for _, s := range g.Envelope.Signatures {
		raw, _ := base64.StdEncoding.DecodeString(s.Sig)
		env.Signatures = append(env.Signatures, &protodsse.Signature{Sig: raw})
	}
	m := &protobundle.VerificationMaterial{
		Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: g.Cert.Leaf.Raw}},
		TlogEntries: g.Entries, TimestampVerificationData: &protobundle.TimestampVerificationData{},
	}
	for _, s := range g.Stamps {
		m.TimestampVerificationData.Rfc3161Timestamps = append(m.TimestampVerificationData.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: s})
	}
	b, err := protojson.Marshal(&protobundle.Bundle{MediaType: BundleType, VerificationMaterial: m, Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: env}})
	if err != nil {
		panic(err)
	}
	return b
}

// KeylessLegacy signs an image by an e-mail identity in the older form, with
// its certificate, log entry and timestamp in the annotations.
func (s *Sigstore) KeylessLegacy(email, issuer, repository, digest string) Layer {
	s.t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repository, digest)
	e, err := s.vs.SignAtTime(email, issuer, payload, time.Now())
	s.must(err)
	vc, err := e.VerificationContent()
	s.must(err)
	sc, err := e.SignatureContent()
	s.must(err)
	entries, err := e.TlogEntries()
	s.must(err)
	p := entries[0].TransparencyLogEntry()
	set := s.set(p)
	return Layer{Data: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sc.Signature()),
		"dev.sigstore.cosign/certificate":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: vc.Certificate().Raw})),
		"dev.sigstore.cosign/bundle": string(JSON(map[string]any{
			"SignedEntryTimestamp": set,
			"Payload":              logged(p),
		})),
	}}
}

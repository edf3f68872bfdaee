package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/root"
	"github.com/baileyhq/bailey/internal/trust/sign"
)

// subject returns the first digest that a bundle's statement names.
func subject(t *testing.T, raw []byte) string {
	t.Helper()
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	var s struct {
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Envelope.Payload, &s); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sha256", "sha512"} {
		if d := s.Subject[0].Digest[a]; d != "" {
			return a + ":" + d
		}
	}
	t.Fatal("no digest")
	return ""
}

// tamper changes one letter of a bundle's payload.
func tamper(raw []byte) []byte {
	out := bytes.Clone(raw)
	i := bytes.Index(out, []byte(`"payload"`))
	i += bytes.Index(out[i:], []byte("eyJ")) + 100
	if out[i]++; out[i] == '0'+10 || out[i] == 'Z'+1 || out[i] == 'z'+1 || out[i] > 'z' {
		out[i] = 'A'
	}
	return out
}

// TestProductionBundle checks a bundle that the public Sigstore made, by the
// root that this program carries.
func TestProductionBundle(t *testing.T) {
	raw, err := os.ReadFile("testdata/production.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := root.PublicGood()
	if err != nil {
		t.Fatal(err)
	}
	const who = "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"
	by := func(issuer, identity string) *policy.Authority {
		return &policy.Authority{Name: "js", Root: r, Log: true, SCT: true, Keyless: &policy.Keyless{Issuer: issuer, Identity: policy.Exact(identity)}}
	}
	digest := subject(t, raw)
	file, err := trust.ParseFileDigest(digest)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := trust.VerifyBundle(raw, by(github, who), file)
	if err != nil || signer.ID != who || signer.SignedAt.IsZero() {
		t.Fatalf("VerifyBundle: %+v, %v", signer, err)
	}
	wrong := file
	wrong.Digest = bytes.Clone(file.Digest)
	wrong.Digest[0] ^= 1
	key, err := policy.ParseKey(newParty(t).public)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() (trust.Signer, error){
		"identity": func() (trust.Signer, error) { return trust.VerifyBundle(raw, by(github, who+"x"), file) },
		"issuer":   func() (trust.Signer, error) { return trust.VerifyBundle(raw, by(github+"x", who), file) },
		"digest":   func() (trust.Signer, error) { return trust.VerifyBundle(raw, by(github, who), wrong) },
		"algorithm": func() (trust.Signer, error) {
			f := file
			f.Algorithm = "sha384"
			return trust.VerifyBundle(raw, by(github, who), f)
		},
		"nothing": func() (trust.Signer, error) { return trust.VerifyBundle(raw, by(github, who), trust.File{}) },
		"a key instead": func() (trust.Signer, error) {
			return trust.VerifyBundle(raw, &policy.Authority{Name: "k", Root: r, Key: key}, file)
		},
		"payload": func() (trust.Signer, error) {
			return trust.VerifyBundle(tamper(raw), by(github, who), file)
		},
	} {
		if s, err := try(); err == nil {
			t.Errorf("another %s: verified as %+v", name, s)
		}
	}
	two, err := os.ReadFile("testdata/two-signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := trust.ParseFileDigest(subject(t, two)); err == nil {
		if s, err := trust.VerifyBundle(two, by(github, who), f); err == nil {
			t.Errorf("an envelope with two signatures verified as %+v", s)
		}
	}
}

// TestEveryKindOfKey signs and verifies with each kind that a policy takes,
// over bundles and the older payloads, and refuses the neighbour's.
func TestEveryKindOfKey(t *testing.T) {
	for name, generate := range map[string]func() (any, error){
		"P-256":    func() (any, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"P-384":    func() (any, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"P-521":    func() (any, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"Ed25519":  func() (any, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err },
		"RSA 2048": func() (any, error) { return rsa.GenerateKey(rand.Reader, 2048) },
	} {
		t.Run(name, func(t *testing.T) {
			us, them := partyOf(t, generate), partyOf(t, generate)
			digest, ev := evidenceOf(t, name, us)
			ref := trust.Reference{Repository: teamApp, Digest: digest}
			layer := us.legacy(t, teamApp, digest)
			old := ev
			old.Items = []trust.Item{ev.Items[0], {Kind: trust.LegacySignature, Subject: digest, Digest: sha(layer.Data), Data: layer.Data, Annotations: layer.Annotations}}
			for _, ev := range []trust.Evidence{ev, old} {
				wantAllowed(t, trust.Judge(ev, parse(t, keyPolicy(us.public, "")), ref, "linux/amd64", time.Now()))
				wantDenied(t, trust.Judge(ev, parse(t, keyPolicy(them.public, "")), ref, "linux/amd64", time.Now()), trust.Denied, trust.ReasonUntrusted, "not with the key of us")
			}
		})
	}
	for name, generate := range map[string]func() (any, error){
		"P-224":    func() (any, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) },
		"RSA 1024": func() (any, error) { return rsa.GenerateKey(rand.Reader, 1024) },
	} {
		key, err := generate()
		if err != nil {
			continue // the library itself refuses it
		}
		if signer, ok := key.(interface{ Public() any }); ok {
			if _, err := policy.NewKey(signer.Public()); err == nil {
				t.Errorf("a key of kind %s was taken", name)
			}
		}
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.NewKey(&weak.PublicKey); err == nil {
		t.Error("a key on P-224 was taken")
	}
	if _, err := policy.ParseKey([]byte(strings.Repeat("x", 100))); err == nil {
		t.Error("garbage was taken for a key")
	}
}

// TestVerifyFileByKey is the smallest use: a statement about a file.
func TestVerifyFileByKey(t *testing.T) {
	us, them := newParty(t), newParty(t)
	content := []byte("#!/bin/sh\necho hello\n")
	sum := sha256.Sum256(content)
	b, err := sign.Attest(us.key, "", "sha256:"+hexOf(sum[:]), "https://example.org/reviewed", map[string]any{"by": "us"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := root.PublicGood()
	if err != nil {
		t.Fatal(err)
	}
	by := func(p party) *policy.Authority {
		k, err := policy.ParseKey(p.public)
		if err != nil {
			t.Fatal(err)
		}
		return &policy.Authority{Name: "k", Key: k, Root: r}
	}
	if _, err := trust.VerifyBundle(b, by(us), trust.File{Content: bytes.NewReader(content)}); err != nil {
		t.Errorf("the file: %v", err)
	}
	if _, err := trust.VerifyBundle(b, by(us), trust.File{Digest: sum[:], Algorithm: "sha256"}); err != nil {
		t.Errorf("its digest: %v", err)
	}
	if _, err := trust.VerifyBundle(b, by(them), trust.File{Content: bytes.NewReader(content)}); err == nil {
		t.Error("verified with another key")
	}
	if _, err := trust.VerifyBundle(b, by(us), trust.File{Content: strings.NewReader("evil")}); err == nil {
		t.Error("another file verified")
	}
}

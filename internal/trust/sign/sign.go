// Package sign makes the two signatures of an image that the engine verifies
// and cosign understands: a bundle over a statement, and the older payload of
// a ".sig" tag. It signs what it is told to; deciding what deserves a
// signature, and keeping the key, is its callers' part.
package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// BundleType is the media type of what [Bundle] writes, and the artifact type
// under which it is attached to an image.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// PredicateType says that a statement is a signature of an image.
const PredicateType = "https://sigstore.dev/cosign/sign/v1"

// signedAt is the annotation in which the signer says when it signed. It is
// inside what is signed, so that nobody else can make a signature look newer.
const signedAt = "dev.bailey.signed-at"

// GenerateKey makes a P-256 key and returns it in PEM form: the private part
// as PKCS #8, unencrypted, for a file that only its owner reads, and the
// public part for a policy.
func GenerateKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("write signing key: %w", err)
	}
	pub, err := PublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pub, nil
}

// PublicKey returns the public part of a key in PEM form.
func PublicKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParseKey reads an unencrypted private key in PEM form: PKCS #8, or the
// older forms of EC and RSA.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("read signing key: no PEM block in it")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("read signing key: it holds a %q; an unencrypted private key is needed", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read signing key: a %T cannot sign", key)
	}
	return signer, nil
}

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     any       `json:"predicate"`
}

type subject struct {
	Name        string            `json:"name,omitempty"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Bundle signs an image's digest ("sha256:…") and returns a sigstore bundle
// v0.3. The statement names the repository and says when it was made.
func Bundle(key crypto.Signer, repository, digest string, at time.Time) ([]byte, error) {
	return Attest(key, repository, digest, PredicateType, map[string]any{}, at)
}

// Attest signs a statement about an image and returns a sigstore bundle v0.3.
func Attest(key crypto.Signer, repository, digest, predicateType string, predicate any, at time.Time) ([]byte, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 {
		return nil, fmt.Errorf("sign image: %q is no sha256 digest", digest)
	}
	payload, err := json.Marshal(statement{
		Type:          "https://in-toto.io/Statement/v1",
		PredicateType: predicateType,
		Predicate:     predicate,
		Subject: []subject{{
			Name: repository, Digest: map[string]string{"sha256": hex},
			Annotations: map[string]string{signedAt: at.UTC().Format(time.RFC3339)},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("write statement: %w", err)
	}
	const payloadType = "application/vnd.in-toto+json"
	sig, err := signMessage(key, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	hint := sha256.Sum256(der)
	out, err := json.Marshal(map[string]any{
		"mediaType":            BundleType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": base64.StdEncoding.EncodeToString(hint[:])}},
		"dsseEnvelope": map[string]any{
			"payload": payload, "payloadType": payloadType,
			"signatures": []any{map[string]any{"sig": sig}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	return out, nil
}

// Payload signs an image's digest in the older form: the payload that a
// ".sig" tag holds as a layer, and the signature that stands beside it.
func Payload(key crypto.Signer, repository, digest string, at time.Time) (payload []byte, signature string, err error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": repository},
			"image":    map[string]any{"docker-manifest-digest": digest},
			"type":     "cosign container image signature",
		},
		"optional": map[string]any{signedAt: at.UTC().Format(time.RFC3339)},
	}); err != nil {
		return nil, "", fmt.Errorf("write payload: %w", err)
	}
	payload = bytes.TrimRight(b.Bytes(), "\n")
	sig, err := signMessage(key, payload)
	if err != nil {
		return nil, "", err
	}
	return payload, base64.StdEncoding.EncodeToString(sig), nil
}

func signMessage(key crypto.Signer, message []byte) ([]byte, error) {
	digest, opts := message, crypto.Hash(0)
	switch key.Public().(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey, *rsa.PublicKey:
		sum := sha256.Sum256(message)
		digest, opts = sum[:], crypto.SHA256
	default:
		return nil, fmt.Errorf("sign image: keys of type %T are not used", key.Public())
	}
	sig, err := key.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign image: %w", err)
	}
	return sig, nil
}

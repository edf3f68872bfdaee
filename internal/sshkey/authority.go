package sshkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// An Authority signs certificates.
type Authority struct{ signer ssh.Signer }

// NewSeed returns the secret of a new authority, for [OpenAuthority].
func NewSeed() []byte {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails since Go 1.24
	return seed
}

// OpenAuthority returns the authority of a seed.
func OpenAuthority(seed []byte) (*Authority, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("sshkey: an authority's seed has %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, fmt.Errorf("sshkey: open the authority: %w", err)
	}
	return &Authority{signer: signer}, nil
}

// Wire returns the authority's public key.
func (a *Authority) Wire() []byte { return a.signer.PublicKey().Marshal() }

// A UserRequest is a certificate to be signed. All but Sources are required.
type UserRequest struct {
	Key     Key
	Name    string // the one account
	Serial  uint64
	ID      string // what sshd's and our logs call it
	From    time.Time
	Until   time.Time
	Sources []string // addresses and networks; empty: any
}

// SignUser returns a user certificate in wire form, which [Checker.Check]
// accepts. It refuses to make one that it would not.
func (a *Authority) SignUser(r UserRequest) ([]byte, error) {
	pub, err := parse(r.Key.Wire)
	if err != nil {
		return nil, err
	}
	if _, err := judge(pub); err != nil {
		return nil, err
	}
	switch {
	case !principal.MatchString(r.Name):
		return nil, fmt.Errorf("%w: %q", ErrPrincipal, r.Name)
	case r.Serial == 0:
		return nil, errors.New("sshkey: a certificate needs a serial")
	case !r.From.Before(r.Until), r.Until.Sub(r.From) > MaxCertificate:
		return nil, ErrValidity
	}
	cert := &ssh.Certificate{
		Key: pub, Serial: r.Serial, CertType: ssh.UserCert, KeyId: Printable(r.ID, 128), ValidPrincipals: []string{r.Name},
		ValidAfter: uint64(r.From.Unix()), ValidBefore: uint64(r.Until.Unix()), //nolint:gosec // after 1970
		Permissions: ssh.Permissions{
			Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": ""},
		},
	}
	if len(r.Sources) > 0 {
		prefixes, err := ParseSources(r.Sources)
		if err != nil {
			return nil, err
		}
		list := make([]string, len(prefixes))
		for i, p := range prefixes {
			list[i] = p.String()
		}
		cert.CriticalOptions = map[string]string{"source-address": strings.Join(list, ",")}
	}
	return a.sign(cert)
}

func (a *Authority) sign(cert *ssh.Certificate) ([]byte, error) {
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		return nil, fmt.Errorf("sshkey: sign the certificate: %w", err)
	}
	return cert.Marshal(), nil
}

// NewPair makes a key pair for somebody's machine: the private half in
// OpenSSH's file format, without a passphrase, and the line of the public one.
func NewPair(comment string) (private []byte, line string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("sshkey: make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, Printable(comment, maxComment))
	if err != nil {
		return nil, "", fmt.Errorf("sshkey: make a key: %w", err)
	}
	public, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, "", fmt.Errorf("sshkey: make a key: %w", err)
	}
	line, err = Line(public.Marshal(), comment)
	return pem.EncodeToMemory(block), line, err
}

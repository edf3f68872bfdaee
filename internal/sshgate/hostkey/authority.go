package hostkey

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// How long a certificate of a host key is good, and the clocks' difference that
// it bears. It is made anew when half of that is over, while the server runs.
const (
	certified = 30 * 24 * time.Hour
	skew      = time.Hour
)

// An Authority certifies the server's host keys, so that clients who trust it need
// not be told when one changes. It says one thing alone: that a key is of the
// server under its public names. Its methods may be called concurrently.
type Authority struct {
	key   ssh.Signer
	names []string

	mu    sync.Mutex            // guards the rest
	made  map[string]ssh.Signer // by the key's wire form
	renew map[string]time.Time
}

// LoadAuthority reads the authority's key from a directory, or makes it. names are
// those by which clients call the server; without any a certificate would be good
// for every host there is, so that is an error.
func LoadAuthority(dir string, names []string) (*Authority, error) {
	if len(names) == 0 || slices.Contains(names, "") {
		return nil, errors.New("host authority: no public name")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("host authority: %w", err)
	}
	path := filepath.Join(dir, "host_ca")
	key, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = generate(path, Ed25519)
	}
	if err != nil {
		return nil, fmt.Errorf("host authority %s: %w", path, err)
	}
	return &Authority{key: key, names: names, made: map[string]ssh.Signer{}, renew: map[string]time.Time{}}, nil
}

// PublicKey is what clients trust.
func (a *Authority) PublicKey() ssh.PublicKey { return a.key.PublicKey() }

// Certify returns a key with a certificate that is good at the time.
func (a *Authority) Certify(key ssh.Signer, now time.Time) (ssh.Signer, error) {
	blob := string(key.PublicKey().Marshal())
	a.mu.Lock()
	defer a.mu.Unlock()
	if made, ok := a.made[blob]; ok && now.Before(a.renew[blob]) {
		return made, nil
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return nil, err
	}
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.HostCert, KeyId: "bailey " + a.names[0], ValidPrincipals: a.names,
		Serial:     binary.BigEndian.Uint64(serial[:]),
		ValidAfter: uint64(now.Add(-skew).Unix()), ValidBefore: uint64(now.Add(certified).Unix()), //nolint:gosec // after 1970
	}
	if err := cert.SignCert(rand.Reader, a.key); err != nil {
		return nil, fmt.Errorf("certify a host key: %w", err)
	}
	made, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certify a host key: %w", err)
	}
	a.made[blob], a.renew[blob] = made, now.Add(certified/2)
	return made, nil
}

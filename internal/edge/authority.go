package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const caLife = 10 * 365 * 24 * time.Hour

// clockFloor is older than this code. A machine whose clock says less has not
// set it yet; a CA made then would be over before anyone used it.
var clockFloor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// An authority is bailey's own CA. Its certificate may sign servers only (no
// clients, no code, no further CAs), but it can vouch for any server's name:
// whoever trusts it trusts the state directory that its key lies in. It is not
// name-constrained, because hosts may change later and the CA should not.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // certificate alone, for clients
}

// loadAuthority reads dir/ca.pem (key and certificate in one file, so that
// they cannot be half there) or makes it when it is not there. dir/ca.crt is
// the public copy, written again when it differs.
func loadAuthority(dir string, now time.Time) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make certificate directory: %w", err)
	}
	path := filepath.Join(dir, "ca.pem")
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = newAuthority(now); err == nil {
			err = createFile(path, text, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("own CA: %w", err)
	}
	a, err := parseAuthority(text, now)
	if err != nil {
		return nil, fmt.Errorf("own CA: %s: %w; restore the file from a backup, or move it away to make a new CA that everybody must trust anew", path, err)
	}
	a.file = filepath.Join(dir, "ca.crt")
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if old, err := os.ReadFile(a.file); err == nil && slices.Equal(old, public) {
		return a, nil
	}
	if err := replaceFile(a.file, public, 0o644); err != nil {
		return nil, fmt.Errorf("own CA: %w", err)
	}
	return a, nil
}

// readPrivate reads a file that must be closed to everybody but its owner.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, fmt.Errorf("%s is not a small regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds a private key and others may read it (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if int64(n) != info.Size() {
		return nil, err
	}
	return text, nil
}

// newAuthority makes a key and a self-signed certificate as one PEM text.
func newAuthority(now time.Time) ([]byte, error) {
	if now.Before(clockFloor) {
		return nil, fmt.Errorf("the clock says %s; set it before the first start", now.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	name := pkix.Name{CommonName: "bailey CA " + hex.EncodeToString(serial.Bytes()[:4]), Organization: []string{"bailey"}}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: name,
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

// newSerial returns a positive number of 127 random bits.
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil
}

// parseAuthority reads what newAuthority wrote, and nothing else.
func parseAuthority(text []byte, now time.Time) (*authority, error) {
	keyBlock, rest := pem.Decode(text)
	certBlock, _ := pem.Decode(rest)
	if keyBlock == nil || certBlock == nil || keyBlock.Type != "PRIVATE KEY" || certBlock.Type != "CERTIFICATE" {
		return nil, errors.New("the file is damaged: it must hold a private key and a certificate")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key is damaged: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not an ECDSA key")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate is damaged: %w", err)
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("key and certificate do not belong together")
	}
	if now.After(cert.NotAfter) {
		return nil, fmt.Errorf("the CA ended on %s", cert.NotAfter.Format(time.DateOnly))
	}
	return &authority{cert: cert, key: key}, nil
}

// issue signs a server certificate for hosts. A nil like means a fresh key; or
// it shares the key and the dates of like, a certificate issued before.
func (a *authority) issue(now time.Time, hosts []string, like *tls.Certificate) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "bailey"},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	var key *ecdsa.PrivateKey
	if like != nil {
		template.NotBefore, template.NotAfter = like.Leaf.NotBefore, like.Leaf.NotAfter
		key, _ = like.PrivateKey.(*ecdsa.PrivateKey)
	}
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	if a.cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if !template.NotAfter.After(template.NotBefore) {
		return nil, fmt.Errorf("the CA ended on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The CA goes along, so that a client who knows only its fingerprint can
	// check the chain.
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// createFile writes a new file that is either whole or not there, and fails if
// there is one of that name.
func createFile(path string, content []byte, mode os.FileMode) error {
	tmp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) //nolint:errcheck // left over at worst
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// replaceFile puts content in place of what was there, all at once.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	tmp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, content []byte, mode os.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

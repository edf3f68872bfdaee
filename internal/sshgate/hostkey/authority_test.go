package hostkey

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A certificate says that a key is the server's under its own names, to those who
// trust the authority, for a month; it is made anew in time, and the authority
// stays the same when the server starts again or has another key.
func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	keys, _, err := Load(dir, []string{Ed25519, ECDSA})
	if err != nil {
		t.Fatal(err)
	}
	a, err := LoadAuthority(dir, []string{"gpu.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	at := now
	trust := a.PublicKey().Marshal()
	checker := &ssh.CertChecker{
		Clock:           func() time.Time { return at },
		IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return bytes.Equal(key.Marshal(), trust) },
	}
	check := func(key ssh.PublicKey, host string) error {
		return checker.CheckHostKey(net.JoinHostPort(host, "2222"), &net.TCPAddr{}, key)
	}
	for _, key := range keys {
		made, err := a.Certify(key, now)
		if err != nil {
			t.Fatal(err)
		}
		cert := made.PublicKey()
		if err := check(cert, "gpu.example.org"); err != nil {
			t.Errorf("%s: %v", key.PublicKey().Type(), err)
		}
		if check(cert, "other.example.org") == nil {
			t.Errorf("%s: a certificate is good for another host", key.PublicKey().Type())
		}
		if same, _ := a.Certify(key, now.Add(10*24*time.Hour)); !bytes.Equal(same.PublicKey().Marshal(), cert.Marshal()) {
			t.Error("a certificate that is good is made anew")
		}
		at = now.Add(31 * 24 * time.Hour)
		if check(cert, "gpu.example.org") == nil {
			t.Error("a certificate is good for ever")
		}
		renewed, err := a.Certify(key, at)
		if err != nil || check(renewed.PublicKey(), "gpu.example.org") != nil {
			t.Errorf("after a month: %v, %v", err, check(renewed.PublicKey(), "gpu.example.org"))
		}
		at = now
	}
	if err := os.Remove(filepath.Join(dir, "host_ed25519")); err != nil {
		t.Fatal(err)
	}
	again, err := LoadAuthority(dir, []string{"gpu.example.org"})
	if err != nil || !bytes.Equal(again.PublicKey().Marshal(), trust) {
		t.Fatalf("the authority is another after a start: %v", err)
	}
	if keys, _, err = Load(dir, []string{Ed25519}); err != nil {
		t.Fatal(err)
	}
	if made, err := again.Certify(keys[0], now); err != nil || check(made.PublicKey(), "gpu.example.org") != nil {
		t.Errorf("a new key is not known by the authority: %v", err)
	}
}

// In doubt there is no authority: without a name, and with a key that others read.
func TestAnAuthorityThatIsNone(t *testing.T) {
	for _, names := range [][]string{nil, {""}, {"a", ""}} {
		if _, err := LoadAuthority(t.TempDir(), names); err == nil {
			t.Errorf("an authority for the names %q", names)
		}
	}
	dir := t.TempDir()
	if _, err := LoadAuthority(dir, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "host_ca"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(dir, []string{"a"}); err == nil {
		t.Error("a key that everybody may read is used")
	}
}

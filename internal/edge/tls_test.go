package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var localHosts = []string{"*.localhost", "127.0.0.1", "::1", "localhost"}

func hostsOf(h ...string) func() []string { return func() []string { return h } }

func ownCA(tb testing.TB, cfg CertConfig) *Certs {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.Hosts == nil {
		cfg.Hosts = hostsOf(localHosts...)
	}
	c, err := NewCerts(cfg)
	if err != nil {
		tb.Fatalf("NewCerts: %v", err)
	}
	return c
}

func poolOf(tb testing.TB, c *Certs) *x509.CertPool {
	tb.Helper()
	text, err := os.ReadFile(c.CAFile())
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		tb.Fatalf("%s has no certificate", c.CAFile())
	}
	return pool
}

// handshake connects a client to a server over a pipe.
func handshake(tb testing.TB, c *Certs, client *tls.Config) (tls.ConnectionState, error) {
	tb.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(a, c.TLSConfig()).HandshakeContext(tb.Context())
		_ = a.Close()
	}()
	conn := tls.Client(b, client)
	err := conn.HandshakeContext(tb.Context())
	_ = b.Close()
	<-done
	return conn.ConnectionState(), err
}

func TestOwnCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	c := ownCA(t, CertConfig{Dir: dir})
	info, err := os.Stat(filepath.Join(dir, "ca.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.pem: mode %v, %v, want 0600", info.Mode(), err)
	}
	public, _ := os.ReadFile(c.CAFile())
	if bytes.Contains(public, []byte("PRIVATE")) {
		t.Errorf("the public file holds the key")
	}
	if again := ownCA(t, CertConfig{Dir: dir}); again.Fingerprint() != c.Fingerprint() {
		t.Errorf("fingerprint after a restart = %s, want %s", again.Fingerprint(), c.Fingerprint())
	}
	pool := poolOf(t, c)
	for name, good := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true, "ada-1f00.localhost": true, "bob-2e11.localhost": true,
		"a.b.localhost": false, "example.org": false, "10.0.0.1": false,
	} {
		state, err := handshake(t, c, &tls.Config{RootCAs: pool, ServerName: name})
		if (err == nil) != good {
			t.Errorf("handshake for %s: %v, want success: %v", name, err, good)
			continue
		}
		if good && state.Version != tls.VersionTLS13 {
			t.Errorf("handshake for %s: version %x, want TLS 1.3", name, state.Version)
		}
	}
	// A workspace's name gets a certificate of its own: browsers refuse
	// *.localhost, and must not put two workspaces on one connection.
	state, err := handshake(t, c, &tls.Config{RootCAs: pool, ServerName: "ada-1f00.localhost"})
	if err != nil || len(state.PeerCertificates[0].DNSNames) != 1 || state.PeerCertificates[0].DNSNames[0] != "ada-1f00.localhost" {
		t.Errorf("names on a workspace's certificate = %q (%v), want its own alone", state.PeerCertificates[0].DNSNames, err)
	}
	// Who knows only the fingerprint can check the chain that is sent.
	sent := state.PeerCertificates[len(state.PeerCertificates)-1]
	if fingerprint(sent.Raw) != c.Fingerprint() {
		t.Errorf("the chain ends with %s, want the CA %s", fingerprint(sent.Raw), c.Fingerprint())
	}
	if ca := c.ca.cert; ca.MaxPathLen != 0 || !ca.MaxPathLenZero || len(ca.ExtKeyUsage) != 1 || ca.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("the CA may do more than sign servers: path length %d, usages %v", ca.MaxPathLen, ca.ExtKeyUsage)
	}
}

func TestTLSRefusesOldCrypto(t *testing.T) {
	c := ownCA(t, CertConfig{})
	pool := poolOf(t, c)
	for _, tt := range []struct {
		name   string
		client *tls.Config
		good   bool
	}{
		{"1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"1.2 with AEAD", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, true},
		{"1.2 with CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		{"1.2 without forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
		{"1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
	} {
		tt.client.RootCAs, tt.client.ServerName = pool, "localhost"
		if _, err := handshake(t, c, tt.client); (err == nil) != tt.good {
			t.Errorf("TLS %s: %v, want success: %v", tt.name, err, tt.good)
		}
	}
}

// A CA that people trust is never replaced because it could not be read.
func TestDamagedCAIsAnErrorAndStays(t *testing.T) {
	good, other := t.TempDir(), t.TempDir()
	ownCA(t, CertConfig{Dir: good})
	ownCA(t, CertConfig{Dir: other})
	text, _ := os.ReadFile(filepath.Join(good, "ca.pem"))
	foreign, _ := os.ReadFile(filepath.Join(other, "ca.pem"))
	key, cert := pem.Decode(text)
	_, foreignCert := pem.Decode(foreign)
	for _, tt := range []struct {
		name string
		text []byte
		mode os.FileMode
		now  time.Duration
		want string
	}{
		{"empty", nil, 0o600, 0, "damaged"},
		{"half", text[:len(text)/2], 0o600, 0, "damaged"},
		{"garbage", []byte("<html>"), 0o600, 0, "damaged"},
		{"certificate alone", cert, 0o600, 0, "damaged"},
		{"another's certificate", append(pem.EncodeToMemory(key), foreignCert...), 0o600, 0, "do not belong together"},
		{"readable by others", text, 0o640, 0, "chmod 600"},
		{"over", text, 0o600, 11 * 365 * 24 * time.Hour, "the CA ended on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "ca.pem")
			if err := os.WriteFile(path, tt.text, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := NewCerts(CertConfig{Dir: dir, Hosts: hostsOf("localhost"), Now: func() time.Time { return time.Now().Add(tt.now) }})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewCerts = %v, want an error with %q", err, tt.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, tt.text) {
				t.Errorf("the file was changed")
			}
		})
	}
}

func TestNoCAWhileTheClockIsUnset(t *testing.T) {
	dir := t.TempDir()
	_, err := NewCerts(CertConfig{Dir: dir, Hosts: hostsOf("localhost"), Now: func() time.Time { return time.Unix(1000, 0) }})
	if err == nil || !strings.Contains(err.Error(), "the clock says 1970-01-01") {
		t.Errorf("NewCerts in 1970 = %v, want an error about the clock", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.pem")); err == nil {
		t.Errorf("a CA was made all the same")
	}
}

func TestNewCertsConfig(t *testing.T) {
	for _, cfg := range []CertConfig{
		{Dir: t.TempDir()},
		{Hosts: hostsOf("localhost")},
		{Hosts: hostsOf("localhost"), CertFile: "a"},
		{Hosts: hostsOf("localhost"), CertFile: "a", KeyFile: "b", Dir: "c"},
		{Hosts: hostsOf("localhost"), CertFile: "/none/a", KeyFile: "/none/b"},
	} {
		if _, err := NewCerts(cfg); err == nil {
			t.Errorf("NewCerts(%+v) succeeded", cfg)
		}
	}
}

// The certificate follows the clock and the hosts while the server runs.
func TestLeafIsRenewedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hosts, jump := localHosts, 30*365*24*time.Hour // a bubble's clock begins in 2000
		c := ownCA(t, CertConfig{
			Hosts: func() []string { mu.Lock(); defer mu.Unlock(); return hosts },
			Now:   func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(jump) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		serial := func() string { return c.Leaf().SerialNumber.String() }
		step := func(what string, wait time.Duration, change func(), want bool) {
			t.Helper()
			before := serial()
			mu.Lock()
			change()
			mu.Unlock()
			time.Sleep(wait)
			synctest.Wait()
			if got := serial() != before; got != want {
				t.Errorf("%s: certificate changed: %v, want %v", what, got, want)
			}
		}
		nothing := func() {}
		step("a month", 30*24*time.Hour, nothing, false)
		step("two thirds of its life", 31*24*time.Hour, nothing, true)
		step("a new host", time.Minute, func() { hosts = append(hosts, "gpu1.example.org") }, true)
		if err := c.Leaf().VerifyHostname("gpu1.example.org"); err != nil {
			t.Errorf("after a new host: %v", err)
		}
		step("the clock goes a year back", time.Minute, func() { jump -= 365 * 24 * time.Hour }, true)
		step("the clock is set right", time.Minute, func() { jump += 365 * 24 * time.Hour }, true)
		step("the clock jumps past the CA", time.Minute, func() { jump += 20 * 365 * 24 * time.Hour }, false)
		step("and back", time.Minute, func() { jump -= 20 * 365 * 24 * time.Hour }, false)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// pairOf makes a certificate for hosts as two PEM texts.
func pairOf(t *testing.T, now time.Time, hosts ...string) (cert, key []byte) {
	t.Helper()
	c := ownCA(t, CertConfig{Now: func() time.Time { return now }})
	issued, err := c.ca.issue(now, hosts, nil)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestCertificateFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(cert, key []byte) {
		t.Helper()
		for path, text := range map[string][]byte{certFile: cert, keyFile: key} {
			if text != nil {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cert1, key1 := pairOf(t, time.Now(), "hub.example.org", "*.apps.example.net")
	cert2, key2 := pairOf(t, time.Now(), "hub.example.org")
	write(cert1, key1)
	var log syncBuffer
	c, err := NewCerts(CertConfig{
		CertFile: certFile, KeyFile: keyFile, Hosts: hostsOf("*.apps.example.net", "hub.example.org"),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Fingerprint()
	if c.CAFile() != "" {
		t.Errorf("CAFile = %q, want none", c.CAFile())
	}
	// The renewal tool has written one file, not yet the other.
	write(cert2, nil)
	if err := c.Refresh(); err == nil || c.Fingerprint() != first {
		t.Errorf("half a renewal: %v, fingerprint changed: %v; want an error and the old pair", err, c.Fingerprint() != first)
	}
	write([]byte("broken"), nil)
	if err := c.Refresh(); err == nil || c.Fingerprint() != first {
		t.Errorf("a broken file: %v; want an error and the old pair", err)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(); err == nil || c.Fingerprint() != first {
		t.Errorf("no file: %v; want an error and the old pair", err)
	}
	write(cert2, key2)
	if err := c.Refresh(); err != nil || c.Fingerprint() == first {
		t.Errorf("a renewal: %v, fingerprint changed: %v; want the new pair", err, c.Fingerprint() != first)
	}
	if !strings.Contains(log.String(), `does not cover a name that is served" host=*.apps.example.net`) {
		t.Errorf("log = %s, want a warning about the name that the new certificate lacks", log.String())
	}
}

func TestCertsComplainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := pairOf(t, time.Now().AddDate(30, 0, 0), "localhost") // a bubble's clock begins in 2000
		certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		_ = os.WriteFile(certFile, cert, 0o600)
		_ = os.WriteFile(keyFile, key, 0o600)
		var log syncBuffer
		c, err := NewCerts(CertConfig{CertFile: certFile, KeyFile: keyFile, Hosts: hostsOf("localhost"), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		_ = os.WriteFile(certFile, []byte("broken"), 0o600)
		time.Sleep(time.Hour)
		synctest.Wait()
		cancel()
		<-done
		if n := strings.Count(log.String(), "certificate not renewed"); n != 1 {
			t.Errorf("complaints in an hour = %d, want 1:\n%s", n, log.String())
		}
	})
}

func TestExactLeavesAreBounded(t *testing.T) {
	c := ownCA(t, CertConfig{})
	for i := range maxExact + 10 {
		if _, err := c.certificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("w%d.localhost", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.now.Load().exact); n > maxExact || n == 0 {
		t.Errorf("exact-name certificates kept = %d, want 1 to %d", n, maxExact)
	}
}

// syncBuffer is a buffer for a log that is written and read at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

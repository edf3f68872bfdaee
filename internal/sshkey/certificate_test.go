package sshkey_test

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey/internal/sshkey"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// authority is one whose private half the test has, to sign what our own code
// would not.
func authority(t testing.TB) ssh.Signer { return signer(t, "ed25519") }

// TestCertificates is attack 21: everything that can be wrong with a
// certificate that is signed by our own authority, and some that are not.
func TestCertificates(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	user := signer(t, "ed25519").PublicKey()
	unix := func(at time.Time) uint64 { return uint64(at.Unix()) } //nolint:gosec // after 1970
	good := func() *ssh.Certificate {
		return &ssh.Certificate{
			Key: user, Serial: 7, CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{"alice"},
			ValidAfter: unix(noon.Add(-time.Hour)), ValidBefore: unix(noon.Add(11 * time.Hour)),
			Permissions: ssh.Permissions{
				CriticalOptions: map[string]string{}, Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""},
			},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*ssh.Certificate)
		by     ssh.Signer
		want   error
	}{
		{"good", func(*ssh.Certificate) {}, ours, nil},
		{"several names", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob", "alice"} }, ours, nil},
		{"other authority", func(*ssh.Certificate) {}, theirs, sshkey.ErrAuthority},
		{"no names", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, ours, sshkey.ErrPrincipal},
		{"empty name", func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }, ours, sshkey.ErrPrincipal},
		{"empty name beside a good one", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", ""} }, ours, sshkey.ErrPrincipal},
		{"comma", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob,alice"} }, ours, sshkey.ErrPrincipal},
		{"comma beside a good one", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", "x,y"} }, ours, sshkey.ErrPrincipal},
		{"upper case", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"Alice"} }, ours, sshkey.ErrPrincipal},
		{"wildcard", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*"} }, ours, sshkey.ErrPrincipal},
		{"line break", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice\n"} }, ours, sshkey.ErrPrincipal},
		{"part of a name", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ali", "alice2"} }, ours, sshkey.ErrPrincipal},
		{"65 letters", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", strings.Repeat("a", 65)} }, ours, sshkey.ErrPrincipal},
		{"somebody else's", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob"} }, ours, sshkey.ErrPrincipal},
		{"host type", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, ours, sshkey.ErrType},
		{"type 0", func(c *ssh.Certificate) { c.CertType = 0 }, ours, sshkey.ErrType},
		{"expired", func(c *ssh.Certificate) { c.ValidBefore = unix(noon) }, ours, sshkey.ErrValidity},
		{"not yet", func(c *ssh.Certificate) { c.ValidAfter = unix(noon.Add(time.Second)) }, ours, sshkey.ErrValidity},
		{"for a day", func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 86400 }, ours, nil},
		{"for more than a day", func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 86401 }, ours, sshkey.ErrValidity},
		{"for ever", func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }, ours, sshkey.ErrValidity},
		{"since ever, for ever", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, ours, sshkey.ErrValidity},
		{"times that overflow", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 1<<63, 1<<63+5 }, ours, sshkey.ErrValidity},
		{"ends before it begins", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = c.ValidBefore, c.ValidAfter }, ours, sshkey.ErrValidity},
		{"unknown critical option", func(c *ssh.Certificate) { c.CriticalOptions["verify-required"] = "" }, ours, sshkey.ErrOption},
		{"another unknown one", func(c *ssh.Certificate) { c.CriticalOptions["x@example.org"] = "1" }, ours, sshkey.ErrOption},
		{"empty force-command", func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "" }, ours, sshkey.ErrOption},
		{"force-command", func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "id" }, ours, nil},
		{"source-address fits", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "10.0.0.0/8,192.0.2.0/24" }, ours, nil},
		{"source-address is one address", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.10" }, ours, nil},
		{"source-address differs", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "198.51.100.0/24" }, ours, sshkey.ErrAddress},
		{"source-address is empty", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "" }, ours, sshkey.ErrAddress},
		{"source-address with junk", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.0/24,x" }, ours, sshkey.ErrAddress},
		{"source-address negated", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "!192.0.2.10" }, ours, sshkey.ErrAddress},
		{"source-address in IPv6 clothing", func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "::ffff:0:0/96" }, ours, sshkey.ErrAddress},
		{"weak key", func(c *ssh.Certificate) { c.Key = signer(t, "rsa2048").PublicKey() }, ours, errAny},
		{"no touch asked", func(c *ssh.Certificate) { c.Extensions["no-touch-required"] = "" }, ours, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert := good()
			tt.change(cert)
			if err := cert.SignCert(rand.Reader, tt.by); err != nil {
				t.Fatal(err)
			}
			c := sshkey.Checker{Authorities: [][]byte{ours.PublicKey().Marshal()}, Name: "alice", IP: netip.MustParseAddr("192.0.2.10"), Now: noon}
			got, err := c.Check(cert.Marshal())
			if tt.want == nil && (err != nil || got.Serial != 7 || got.ForceCommand != cert.CriticalOptions["force-command"] ||
				!got.PTY || !got.PortForwarding || got.AgentForwarding || got.Key.Fingerprint != ssh.FingerprintSHA256(user)) {
				t.Errorf("Check = %+v, %v; want it accepted as it is", got, err)
			}
			if tt.want != nil && (err == nil || tt.want != errAny && !errors.Is(err, tt.want)) { //nolint:errorlint // a mark of this test
				t.Errorf("Check = %+v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

var errAny = errors.New("any")

// A certificate whose authority is a certificate is no certificate, however
// deep. The library cannot make one, so it is put together by hand.
func TestNestedCertificates(t *testing.T) {
	ours := authority(t)
	cert := &ssh.Certificate{
		Key: ours.PublicKey(), Serial: 7, CertType: ssh.UserCert, ValidPrincipals: []string{"alice"},
		ValidAfter: uint64(noon.Add(-time.Hour).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()), //nolint:gosec // after 1970
	}
	if err := cert.SignCert(rand.Reader, ours); err != nil {
		t.Fatal(err)
	}
	c := sshkey.Checker{Authorities: [][]byte{ours.PublicKey().Marshal(), cert.Marshal()}, Name: "alice", IP: netip.MustParseAddr("192.0.2.10"), Now: noon}
	wire := cert.Marshal()
	for depth := range 8 {
		var raw struct {
			Algorithm                                     string
			Nonce, Key                                    []byte
			Serial                                        uint64
			Kind                                          uint32
			ID                                            string
			Names                                         []byte
			After, Before                                 uint64
			Critical, Extensions, Reserved, Authority, By []byte
		}
		if err := ssh.Unmarshal(wire, &raw); err != nil {
			t.Fatal(err)
		}
		raw.Authority = wire
		wire = ssh.Marshal(raw)
		if got, err := c.Check(wire); err == nil {
			t.Fatalf("%d deep: accepted as %+v", depth+1, got)
		}
		if !sshkey.IsCertificate(wire) {
			t.Errorf("%d deep: not seen as a certificate", depth+1)
		}
	}
}

// Whoever changes a byte of a certificate has none.
func TestEveryByteOfACertificateIsSigned(t *testing.T) {
	ours := authority(t)
	cert := &ssh.Certificate{
		Key: signer(t, "ed25519").PublicKey(), Serial: 7, CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{"alice"},
		ValidAfter: uint64(noon.Add(-time.Hour).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()), //nolint:gosec // after 1970
		Permissions: ssh.Permissions{CriticalOptions: map[string]string{"source-address": "192.0.2.10"}},
	}
	if err := cert.SignCert(rand.Reader, ours); err != nil {
		t.Fatal(err)
	}
	c := sshkey.Checker{Authorities: [][]byte{ours.PublicKey().Marshal()}, Name: "alice", IP: netip.MustParseAddr("192.0.2.10"), Now: noon}
	wire := cert.Marshal()
	if _, err := c.Check(wire); err != nil {
		t.Fatal(err)
	}
	for i := range wire {
		changed := append([]byte{}, wire...)
		changed[i] ^= 1
		if got, err := c.Check(changed); err == nil {
			t.Fatalf("byte %d of %d changed and it was accepted: %+v", i, len(wire), got)
		}
	}
}

func TestSignUser(t *testing.T) {
	a, err := sshkey.OpenAuthority(sshkey.NewSeed())
	if err != nil {
		t.Fatal(err)
	}
	key, err := sshkey.ParseLine(line(t, "ecdsa"))
	if err != nil {
		t.Fatal(err)
	}
	r := sshkey.UserRequest{Key: key, Name: "alice", Serial: 9, ID: "alice\x1b[2J", From: noon, Until: noon.Add(12 * time.Hour), Sources: []string{"192.0.2.7", "2001:db8::/32"}}
	wire, err := a.SignUser(r)
	if err != nil {
		t.Fatal(err)
	}
	c := sshkey.Checker{Authorities: [][]byte{a.Wire()}, Name: "alice", IP: netip.MustParseAddr("::ffff:192.0.2.7"), Now: noon}
	got, err := c.Check(wire)
	if err != nil || got.Serial != 9 || got.ID != "alice[2J" || !got.PTY || !got.PortForwarding || !got.AgentForwarding || !got.Expires.Equal(r.Until) {
		t.Errorf("Check = %+v, %v", got, err)
	}
	c.IP = netip.MustParseAddr("192.0.2.8")
	if _, err := c.Check(wire); !errors.Is(err, sshkey.ErrAddress) {
		t.Errorf("from elsewhere: %v", err)
	}
	for name, change := range map[string]func(*sshkey.UserRequest){
		"a day and a second": func(r *sshkey.UserRequest) { r.Until = noon.Add(24*time.Hour + time.Second) },
		"no time at all":     func(r *sshkey.UserRequest) { r.Until = r.From },
		"no serial":          func(r *sshkey.UserRequest) { r.Serial = 0 },
		"two names":          func(r *sshkey.UserRequest) { r.Name = "alice,bob" },
		"nobody":             func(r *sshkey.UserRequest) { r.Name = "" },
		"junk address":       func(r *sshkey.UserRequest) { r.Sources = []string{"192.0.2.7,0.0.0.0/0"} },
	} {
		bad := r
		change(&bad)
		if wire, err := a.SignUser(bad); err == nil {
			t.Errorf("%s: signed %x", name, wire)
		}
	}
	if _, err := sshkey.OpenAuthority([]byte("short")); err == nil {
		t.Error("OpenAuthority took a short seed")
	}
}

// OpenSSH's own tool reads what we sign as we meant it.
func TestOpenSSHReadsOurCertificates(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	a, err := sshkey.OpenAuthority(sshkey.NewSeed())
	if err != nil {
		t.Fatal(err)
	}
	key, err := sshkey.ParseLine(line(t, "ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	user, err := a.SignUser(sshkey.UserRequest{Key: key, Name: "alice", Serial: 9, ID: "alice", From: noon, Until: noon.Add(time.Hour), Sources: []string{"192.0.2.0/24"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		wire []byte
		want []string
	}{
		"user": {user, []string{"user certificate", "Serial: 9", "alice", "source-address 192.0.2.0/24", "permit-pty"}},
	} {
		text, err := sshkey.Line(tt.wire, "")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "cert.pub")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), keygen, "-L", "-f", file).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen -L: %v\n%s", err, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s certificate: ssh-keygen does not say %q:\n%s", name, want, out)
			}
		}
	}
}

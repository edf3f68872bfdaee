package sshkey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// signer makes a key of a kind.
func signer(t testing.TB, kind string) ssh.Signer {
	t.Helper()
	var private any
	var err error
	switch kind {
	case "ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa2048":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa3072":
		private, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		t.Fatalf("no such kind: %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(t testing.TB, kind string) string {
	t.Helper()
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer(t, kind).PublicKey())))
}

// securityKey is the public half of a key in hardware.
func securityKey(t testing.TB) []byte {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Marshal(struct {
		Name string
		Key  []byte
		App  string
	}{ssh.KeyAlgoSKED25519, pub, "ssh:"})
}

// Lines that do not depend on the day they were made.
const dsaLine = "ssh-dss AAAAB3NzaC1kc3MAAACBAOeB5TaqEXGJL8n9Wmqiv0CbPXdTo0tkD2pYcQgkYxqHPKmDXdHtYMEOWHTtEWM79xMdWD5Y0f7XaKSVAdsJEN3BJ4EVpW7wMbL5IFIP5aHyxWM+FpR4sDChHkDWBfnvE2M6C7PmGJqB2AQQ8F7D0bQaN58XrmlYxfSnKrIxyRDHAAAAFQDPrBhhzbTL7bNvSmqzMCXUYsZPVwAAAIEAnx6qAZ6SOZhCxHnCkjqdoGP7i3uVC6Dw1bUWm5RhkX4R1jcjQzA8RCr7vl5gNTBPdNnXAi6rnqN7c6Hj0oI8e3VqFQk8YBdFVYyqQv5vAJ4Oo0gNM3nF5oSGWmnPAMYbdd0d3b3Zk5ynVfCRGBkg3GYcY3nB9CJcJvDGqkJ8NhIAAACAHlJx0zzBzKHUOBEGSRJN3jH9IrIpjX8gWcJdAWTWAi2bkJdVJ1qwVjA4y2L1nRzcLwQkN5R9sCPZkL6NQfGYh2k3Op9Bgs9EmvdZxP5ha2R9xKmC3OQEbFiQm0vJ4p5F6F5nKcVYE2CqJyMeQ1Rn9g9vX4w9oD5t3v8xWbY="

func TestParseLine(t *testing.T) {
	ed := line(t, "ed25519")
	sk := ssh.KeyAlgoSKED25519 + " " + base64.StdEncoding.EncodeToString(securityKey(t))
	kind, body, _ := strings.Cut(ed, " ")
	for _, tt := range []struct {
		name, text string
		want       string // a type, or a word of the refusal
		bits       int
		comment    string
	}{
		{"ed25519", ed, "ssh-ed25519", 256, ""},
		{"with comment", ed + " alice@laptop of mine", "ssh-ed25519", 256, "alice@laptop of mine"},
		{"with an evil comment", ed + " a\x1b[31mb\x07\u202ec", "ssh-ed25519", 256, "a[31mbc"},
		{"windows line ends", "\r\n" + ed + " x\r\n", "ssh-ed25519", 256, "x"},
		{"tabs", kind + "\t" + body + "\tx", "ssh-ed25519", 256, "x"},
		{"comment lines", "# mine\n\n" + ed + "\n", "ssh-ed25519", 256, ""},
		{"ecdsa", line(t, "ecdsa"), "ecdsa-sha2-nistp256", 256, ""},
		{"security key", sk, "sk-ssh-ed25519@openssh.com", 256, ""},
		{"rsa 3072", line(t, "rsa3072"), "ssh-rsa", 3072, ""},
		{"rsa 2048", line(t, "rsa2048"), "!2048 bits and is too weak", 0, ""},
		{"dsa", dsaLine, "!", 0, ""},
		{"nothing", " \n", "!empty", 0, ""},
		{"prose", "please add my key", "!no public SSH key", 0, ""},
		{"two keys", ed + "\n" + line(t, "ecdsa"), "!one key at a time", 0, ""},
		{"options", `command="rm -rf /",no-pty ` + ed, "!options", 0, ""},
		{"a space in front of options", `from="10.0.0.0/8" ` + ed, "!options", 0, ""},
		{"private", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----", "!private key", 0, ""},
		{"putty's private", "PuTTY-User-Key-File-3: ssh-ed25519", "!private key", 0, ""},
		{"putty's public", "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA", "!another format", 0, ""},
		{"pkcs8", "-----BEGIN PUBLIC KEY-----\nAAAA", "!another format", 0, ""},
		{"cut", ed[:len(ed)-6], "!", 0, ""},
		{"type alone", "ssh-ed25519", "!not whole", 0, ""},
		{"type lies", "ssh-rsa " + body, "!the line says ssh-rsa", 0, ""},
		{"trailing junk", kind + " " + base64.StdEncoding.EncodeToString(append(wireOf(t, ed), 0)), "!cannot be read", 0, ""},
		{"too long", ed + " " + strings.Repeat("x", sshkey.MaxLine), "!too long", 0, ""},
		{"binary", "ssh-ed25519 \xff\xfe", "!no text", 0, ""},
		{"certificate", "ssh-ed25519-cert-v01@openssh.com AAAA", "!certificate", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := sshkey.ParseLine(tt.text)
			if word, refused := strings.CutPrefix(tt.want, "!"); refused {
				e, ok := err.(*bailey.Error) //nolint:errorlint // just this
				if !ok || e.Kind != bailey.Invalid || e.Hint == "" || !strings.Contains(e.Msg, word) {
					t.Errorf("ParseLine(%.60q) = %v, want Invalid with a hint that says %q", tt.text, err, word)
				}
				return
			}
			if err != nil || k.Type != tt.want || k.Bits != tt.bits || k.Comment != tt.comment {
				t.Errorf("ParseLine(%.60q) = %+v, %v; want %s of %d bits, comment %q", tt.text, k, err, tt.want, tt.bits, tt.comment)
			}
			again, err := sshkey.ParseWire(k.Wire)
			if err != nil || again.Fingerprint != k.Fingerprint {
				t.Errorf("its wire form gives %+v, %v", again, err)
			}
		})
	}
}

func wireOf(t testing.TB, line string) []byte {
	t.Helper()
	k, err := sshkey.ParseLine(line)
	if err != nil {
		t.Fatal(err)
	}
	return k.Wire
}

// Two spellings of one number must not be two keys, or a key that is taken
// could be added a second time.
func TestAKeyHasOneForm(t *testing.T) {
	pub := signer(t, "rsa3072").PublicKey().Marshal()
	var rsaKey struct {
		Name string
		E, N []byte
	}
	if err := ssh.Unmarshal(pub, &rsaKey); err != nil {
		t.Fatal(err)
	}
	other := rsaKey
	other.N = append([]byte{0}, rsaKey.N...)
	spelled := ssh.Marshal(other)
	if bytes.Equal(pub, spelled) {
		t.Fatal("the test spells the key the same way twice")
	}
	a, err := sshkey.ParseWire(pub)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := sshkey.ParseWire(spelled); err == nil && (b.Fingerprint != a.Fingerprint || !bytes.Equal(a.Wire, b.Wire)) {
		t.Errorf("one key, two fingerprints: %s and %s", a.Fingerprint, b.Fingerprint)
	}
}

// What ssh-keygen says of a key, we say.
func TestTheFingerprintIsOpenSSHs(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key")
			if out, err := exec.CommandContext(t.Context(), keygen, "-q", "-t", kind, "-N", "", "-C", "alice@laptop", "-f", file).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen: %v\n%s", err, out)
			}
			text, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			k, err := sshkey.ParseLine(string(text))
			if err != nil || k.Comment != "alice@laptop" {
				t.Fatalf("ParseLine = %+v, %v", k, err)
			}
			out, err := exec.CommandContext(t.Context(), keygen, "-l", "-f", file+".pub").Output()
			if err != nil || !strings.Contains(string(out), " "+k.Fingerprint+" ") {
				t.Errorf("ssh-keygen -l says %s (%v), we say %s", out, err, k.Fingerprint)
			}
			line, err := sshkey.Line(k.Wire, k.Comment)
			if err != nil || line != strings.TrimSpace(string(text)) {
				t.Errorf("Line = %q, %v; want %q", line, err, text)
			}
			private, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sshkey.ParseLine(string(private)); err == nil || !strings.Contains(err.Error(), "private key") {
				t.Errorf("the private half: %v", err)
			}
		})
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(line(f, "ed25519") + " me")
	f.Add(dsaLine)
	f.Add("command=\"x\" ssh-ed25519 AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := sshkey.ParseLine(text)
		if err != nil {
			if bailey.KindOf(err) != bailey.Invalid {
				t.Fatalf("ParseLine(%q): %v, want kind invalid", text, err)
			}
			return
		}
		again, err := sshkey.Line(k.Wire, k.Comment)
		if err != nil {
			t.Fatal(err)
		}
		back, err := sshkey.ParseLine(again)
		if err != nil || back.Fingerprint != k.Fingerprint || back.Comment != k.Comment || strings.ContainsAny(again, "\n\r\x1b\x00") {
			t.Fatalf("%q came back as %q: %+v, %v", text, again, back, err)
		}
	})
}

func FuzzParseWire(f *testing.F) {
	f.Add(wireOf(f, line(f, "ed25519")))
	f.Add(securityKey(f))
	f.Fuzz(func(t *testing.T, wire []byte) {
		k, err := sshkey.ParseWire(wire)
		if err == nil && (k.Fingerprint == "" || k.Bits < 256 || len(k.Wire) > sshkey.MaxWire+64) {
			t.Fatalf("ParseWire(%x) = %+v", wire, k)
		}
		if err != nil && bailey.KindOf(err) != bailey.Invalid {
			t.Fatalf("ParseWire(%x): %v", wire, err)
		}
		sshkey.IsCertificate(wire)
		_, _ = sshkey.Checker{Name: "alice"}.Check(wire)
	})
}

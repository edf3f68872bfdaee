// Package sshkey judges what SSH clients and people bring: it reads public
// keys, refuses weak ones, checks certificates by rules of its own, and signs
// certificates. It knows no account and keeps nothing; whose a key is, identity
// decides.
package sshkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
)

// Limits of what is read.
const (
	MaxLine    = 16 << 10 // bytes of a line of authorized_keys; the largest RSA key has 2.8 KB
	MaxWire    = 16 << 10 // bytes of a key or certificate on the wire
	MinRSA     = 3072     // bits
	maxComment = 128      // bytes that are kept of a comment
)

// A Key is a public key that is strong enough, in its one written form.
type Key struct {
	Type        string // "ssh-ed25519", "sk-ssh-ed25519@openssh.com", …
	Bits        int
	Wire        []byte // canonical: two spellings of one key are equal here
	Fingerprint string // "SHA256:…" of Wire, as ssh-keygen -l prints it
	Comment     string // printable, cut
}

// accepted lists the types of keys that may sign in.
func accepted() []string {
	return []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA,
	}
}

// dsa is a type that is recognised to be refused with a word about it.
const dsa = "ssh-dss"

const makeOne = `make one with "ssh-keygen -t ed25519" and give the file that ends in .pub`

func refuse(hint, format string, args ...any) error {
	return &bailey.Error{Kind: bailey.Invalid, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// ParseLine reads one public key as it stands in a .pub file: type, base64,
// comment. Invalid for everything else, with what to do: private keys, options,
// certificates, weak keys, several keys.
func ParseLine(text string) (Key, error) {
	if err := notAKey(text); err != nil {
		return Key{}, err
	}
	line, err := onlyLine(text)
	if err != nil {
		return Key{}, err
	}
	kind, rest := cutField(line)
	switch {
	case strings.Contains(kind, "-cert-v0"):
		return Key{}, refuse("give the key itself: the file that ends in .pub and not in -cert.pub", "this is a certificate, not a key")
	case !knownType(kind):
		for field := range strings.FieldsSeq(rest) {
			if knownType(field) {
				return Key{}, refuse("give only type, key and comment; what a key may do is the workspace class's to say", "options before a key are not supported")
			}
		}
		return Key{}, refuse(makeOne, "this is no public SSH key: it does not begin with a type such as ssh-ed25519")
	}
	body, comment := cutField(rest)
	wire, err := base64.StdEncoding.DecodeString(body)
	if err != nil || len(wire) == 0 {
		return Key{}, refuse("copy the line whole, without line breaks in it", "the key after %s is not whole: it is no valid base64", kind)
	}
	key, err := ParseWire(wire)
	if err != nil {
		return Key{}, err
	}
	if key.Type != kind {
		return Key{}, refuse(makeOne, "the line says %s, but the key in it is of type %s", kind, key.Type)
	}
	key.Comment = Printable(comment, maxComment)
	return key, nil
}

// notAKey recognises what people give by mistake.
func notAKey(text string) error {
	switch {
	case len(text) > MaxLine:
		return refuse(makeOne, "this is too long for a public key: more than %d bytes", MaxLine)
	case strings.Contains(text, "PRIVATE KEY-----"), strings.Contains(text, "PuTTY-User-Key-File"):
		return refuse(
			"keep it to yourself and give the file that ends in .pub; if it has left your machine, make a new pair with \"ssh-keygen -t ed25519\"",
			"this is a private key: nobody but you may have it")
	case strings.Contains(text, "BEGIN SSH2 PUBLIC KEY"), strings.Contains(text, "BEGIN PUBLIC KEY"), strings.Contains(text, "BEGIN RSA PUBLIC KEY"):
		return refuse(`"ssh-keygen -i -f FILE" turns it into one line (with "-m PKCS8" for a file that begins with BEGIN PUBLIC KEY)`, "this public key is in another format than OpenSSH's")
	case !utf8.ValidString(text):
		return refuse(makeOne, "this is no text: a public key is one line of it")
	}
	return nil
}

// onlyLine returns the one line that is neither empty nor a comment.
func onlyLine(text string) (string, error) {
	found := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if found != "" {
			return "", refuse("add them one by one, so that each has a name", "this is more than one line: one key at a time")
		}
		found = line
	}
	if found == "" {
		return "", refuse(makeOne, "there is no key in this: it is empty")
	}
	return found, nil
}

func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

func knownType(t string) bool {
	return slices.Contains(accepted(), t) || t == dsa || strings.HasPrefix(t, "ssh-mldsa") || strings.Contains(t, "-cert-v0")
}

// ParseWire reads a public key in wire form and judges its strength. A
// certificate is refused: see [Checker].
func ParseWire(wire []byte) (Key, error) {
	pub, err := parse(wire)
	if err != nil {
		return Key{}, err
	}
	if _, ok := pub.(*ssh.Certificate); ok {
		return Key{}, refuse("give the key itself: the file that ends in .pub and not in -cert.pub", "this is a certificate, not a key")
	}
	return judge(pub)
}

// IsCertificate reports whether wire claims to be a certificate, without
// looking further.
func IsCertificate(wire []byte) bool {
	if len(wire) < 4 {
		return false
	}
	n := int(wire[0])<<24 | int(wire[1])<<16 | int(wire[2])<<8 | int(wire[3])
	return n > 0 && n <= len(wire)-4 && n <= 64 && bytes.Contains(wire[4:4+n], []byte("-cert-v0"))
}

func parse(wire []byte) (ssh.PublicKey, error) {
	if len(wire) > MaxWire {
		return nil, refuse(makeOne, "this is too long for a public key: more than %d bytes", MaxWire)
	}
	pub, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "this public key cannot be read: it is damaged or of a type that bailey does not know", Hint: makeOne, Cause: err}
	}
	return pub, nil
}

// judge refuses keys that are too weak.
func judge(pub ssh.PublicKey) (Key, error) {
	k := Key{Type: pub.Type()}
	if k.Type == dsa {
		return Key{}, refuse(makeOne, "DSA keys are not accepted: they are too weak")
	}
	if !slices.Contains(accepted(), k.Type) {
		return Key{}, refuse(makeOne, "keys of type %s are not accepted; accepted are ed25519, ecdsa, rsa of %d bits and more, and security keys", Printable(k.Type, 64), MinRSA)
	}
	k.Bits = 256
	if c, ok := pub.(ssh.CryptoPublicKey); ok {
		switch p := c.CryptoPublicKey().(type) {
		case *rsa.PublicKey:
			k.Bits = p.N.BitLen()
			if k.Bits < MinRSA {
				return Key{}, refuse(makeOne+", or an RSA key with -b 4096", "this RSA key has %d bits and is too weak; %d are needed", k.Bits, MinRSA)
			}
			if p.N.Bit(0) == 0 {
				return Key{}, refuse(makeOne, "this RSA key is broken: its modulus is even")
			}
		case *ecdsa.PublicKey:
			k.Bits = p.Params().BitSize
		}
	}
	k.Wire = pub.Marshal()
	k.Fingerprint = ssh.FingerprintSHA256(pub)
	return k, nil
}

// Fingerprint returns the fingerprint of the key on the wire, of a certificate
// that of the key in it; what is no key has none.
func Fingerprint(wire []byte) string {
	pub, err := parse(wire)
	if err != nil {
		return ""
	}
	if cert, ok := pub.(*ssh.Certificate); ok {
		pub = cert.Key
	}
	return ssh.FingerprintSHA256(pub)
}

// Line returns the key or certificate as a line of a .pub file, without its
// end.
func Line(wire []byte, comment string) (string, error) {
	pub, err := parse(wire)
	if err != nil {
		return "", err
	}
	line := pub.Type() + " " + base64.StdEncoding.EncodeToString(pub.Marshal())
	if comment = Printable(comment, maxComment); comment != "" {
		line += " " + comment
	}
	return line, nil
}

// Printable returns a stranger's text in one line of at most n bytes, without
// what could act on a terminal.
func Printable(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text[:min(len(text), 4*n)])
	for len(text) > n {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return strings.TrimSpace(text)
}

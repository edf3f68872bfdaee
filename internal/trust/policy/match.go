package policy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// A Matcher compares a certificate's identity. Exactly one of its ways is
// used. The zero Matcher matches nothing.
type Matcher struct {
	kind string
	text string
	re   *regexp.Regexp
}

// Exact matches one identity.
func Exact(identity string) Matcher { return Matcher{kind: "exact", text: identity} }

// Prefix matches every identity that begins so. It should end where a name
// ends ("/", "@"); [Lint] says when it does not.
func Prefix(prefix string) Matcher { return Matcher{kind: "prefix", text: prefix} }

// Regex matches identities by a regular expression, which must cover the
// whole identity: it is anchored at both ends whatever it says itself.
func Regex(expr string) (Matcher, error) {
	if len(expr) > 1000 {
		return Matcher{}, errors.New("longer than 1,000 characters")
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return Matcher{}, fmt.Errorf("read the expression: %w", err)
	}
	return Matcher{kind: "regex", text: expr, re: re}, nil
}

// String returns the matcher in words.
func (m Matcher) String() string {
	switch m.kind {
	case "exact":
		return m.text
	case "prefix":
		return m.text + "…"
	case "regex":
		return "/" + m.text + "/"
	}
	return "nobody"
}

// Match reports whether an identity matches. One with characters that a
// person would not see as what they are never does.
func (m Matcher) Match(identity string) bool {
	if identity == "" || strings.ContainsFunc(identity, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return false
	}
	switch m.kind {
	case "exact":
		return identity == m.text
	case "prefix":
		return m.text != "" && strings.HasPrefix(identity, m.text) && !strings.Contains(identity[len(m.text):], "/../")
	case "regex":
		return m.re.MatchString(identity)
	}
	return false
}

// Lint returns what about the matcher lets in more than its author is likely
// to mean, or nothing.
func (m Matcher) Lint() (what, fix string) {
	switch m.kind {
	case "prefix":
		if !strings.HasSuffix(m.text, "/") && !strings.HasSuffix(m.text, "@") {
			return "the prefix ends in the middle of a name: " + m.text + "-evil begins so too", "end it with / (or @)"
		}
		if rest, ok := strings.CutPrefix(m.text, "https://"); ok && strings.Count(rest, "/") < 2 {
			return "the prefix names no owner: everybody at " + rest + " begins so", "name the owner or the repository: https://github.com/OWNER/REPO/"
		}
	case "regex":
		if wide := regexp.MustCompile(`\Ahttps?://(?:[^/]*/)?(?:\.[*+]|\[\^[^\]]*\][*+])`); wide.MatchString(strings.ReplaceAll(strings.TrimPrefix(m.text, "^"), `\`, "")) {
			return "the expression leaves the owner open: anybody may create a repository that fits", "name the owner literally"
		}
		if strings.Trim(m.text, "^$") == ".*" || strings.Trim(m.text, "^$") == ".+" {
			return "the expression matches everybody", "name who may sign"
		}
		if i := looseDot(m.text); i >= 0 {
			return fmt.Sprintf("the dot after %q stands for any character", m.text[:i]), `write \. where a dot is meant`
		}
	}
	return "", ""
}

// looseDot returns the place of a dot that is neither escaped, nor in a
// class, nor repeated: one that was most likely meant literally; or -1.
func looseDot(expr string) int {
	class := false
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '\\':
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '.' && !class:
			if i+1 == len(expr) || !strings.ContainsRune("*+?{", rune(expr[i+1])) {
				return i
			}
		}
	}
	return -1
}

// ParseKey reads a public key in PEM form: ECDSA on P-256, P-384 or P-521,
// Ed25519, or RSA of at least 2,048 bits.
func ParseKey(text []byte) (*Key, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("more than one PEM block in it; one key per authority")
	}
	switch {
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("it is a private key; the policy takes the public one, and nobody but the signer should have this file")
	case block.Type == "RSA PUBLIC KEY":
		pub, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read RSA key: %w", err)
		}
		return NewKey(pub)
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("it holds a %q, not a public key", block.Type)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return NewKey(pub)
}

// NewKey takes a public key of a kind that [ParseKey] takes.
func NewKey(pub any) (*Key, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return nil, errors.New("the curve is none of P-256, P-384 and P-521")
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return nil, fmt.Errorf("an RSA key of %d bits; from 2,048 to 8,192 are taken", n)
		}
	default:
		return nil, fmt.Errorf("keys of type %T are not taken", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Key{Public: pub, Fingerprint: "sha256:" + hex.EncodeToString(sum[:])}, nil
}

package rules

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Why a text is not a host name. ErrLiteral is told apart because people are
// told something else: names are allowed, addresses never.
var (
	ErrLiteral = errors.New("it is an address, and only names can be allowed")
	ErrName    = errors.New("it is not a host name")
)

const (
	maxHost  = 253 // RFC 1035 2.3.4, as text without the last dot
	maxLabel = 63
)

// profile maps as browsers do (UTS 46, not transitional) and checks less than
// it could: which characters may stand in a name is checked below, underscores
// being in use.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// CanonicalHost returns the one spelling of a host name by which it is decided,
// resolved and audited: ASCII, lower case, without the trailing dot. It refuses
// every notation of an address, IPv4 in all the forms that inet_aton(3) takes
// (decimal, octal, hexadecimal, with fewer than four parts) and IPv6 with or
// without brackets and zones, wrapping [ErrLiteral]; and what is no name of two
// labels or more, wrapping [ErrName].
func CanonicalHost(s string) (string, error) {
	if s == "" || len(s) > 4*maxHost || !utf8.ValidString(s) {
		return "", ErrName
	}
	if strings.ContainsAny(s, ":[]%") {
		if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			return "", ErrLiteral
		}
		return "", ErrName
	}
	host := s
	if !plain(s) || strings.Contains(s, "xn--") {
		ascii, err := profile.ToASCII(s)
		if err != nil {
			return "", ErrName
		}
		host = ascii
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(host) > maxHost {
		return "", ErrName
	}
	labels := strings.Split(host, ".")
	if isNumber(labels[len(labels)-1]) {
		// As URLs have it: a name whose last label is a number is an IPv4 address,
		// or nothing. No top-level domain is one.
		return "", ErrLiteral
	}
	for _, label := range labels {
		if !isLabel(label) {
			return "", ErrName
		}
	}
	if len(labels) < 2 {
		return "", ErrName // "localhost", "metadata": names that mean something only here
	}
	return host, nil
}

// plain reports whether s is lower-case ASCII already.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || 'A' <= r && r <= 'Z' })
}

func isLabel(label string) bool {
	return label != "" && len(label) <= maxLabel && label[0] != '-' && label[len(label)-1] != '-' &&
		!strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
}

// isNumber reports whether inet_aton(3) would take label for a number.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	if hex {
		return !strings.ContainsFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
	}
	return label != "" && !strings.ContainsFunc(label, func(r rune) bool { return r < '0' || r > '9' })
}

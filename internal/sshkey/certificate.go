package sshkey

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// MaxCertificate is the longest that a user certificate may be valid.
const MaxCertificate = 24 * time.Hour

// A Checker says which certificates are accepted. All fields are required.
type Checker struct {
	Authorities [][]byte   // wire forms of the keys that may have signed
	Name        string     // the account that the certificate must name
	IP          netip.Addr // where the client calls from
	Now         time.Time
}

// A Certificate is what a certificate that passed every rule says. Whether its
// serial was revoked is the caller's to ask.
type Certificate struct {
	Serial       uint64
	ID           string // its key id: printable, cut
	Key          Key    // that it certifies, and that must have signed the sign-in
	Expires      time.Time
	ForceCommand string

	PTY, PortForwarding, AgentForwarding bool
}

// Why a certificate is refused. The words are for the log: a client reads no
// more than that the key was not accepted.
var (
	ErrNoCertificate = errors.New("sshkey: not a certificate")
	ErrAuthority     = errors.New("sshkey: the certificate is signed by an authority that is not ours")
	ErrSignature     = errors.New("sshkey: the certificate's signature is wrong")
	ErrType          = errors.New("sshkey: the certificate is not for users")
	ErrValidity      = errors.New("sshkey: the certificate is not valid at this time, or for too long")
	ErrPrincipal     = errors.New("sshkey: the certificate is not for this account")
	ErrOption        = errors.New("sshkey: the certificate has an option that is not understood")
	ErrAddress       = errors.New("sshkey: the certificate is not for this address")
)

// principal is what a certificate may call an account. A comma, as in
// CVE-2026-35414, has no place in it.
var principal = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// Check judges a certificate in wire form. It fails with one of the errors
// above, or with kind Invalid for what cannot be read or is too weak.
func (c Checker) Check(wire []byte) (Certificate, error) {
	pub, err := parse(wire)
	if err != nil {
		return Certificate{}, err
	}
	cert, ok := pub.(*ssh.Certificate)
	if !ok {
		return Certificate{}, ErrNoCertificate
	}
	// Who signed comes first: nothing that a stranger wrote is looked at
	// before it is known that no stranger wrote it.
	if err := c.signed(cert); err != nil {
		return Certificate{}, err
	}
	if cert.CertType != ssh.UserCert {
		return Certificate{}, fmt.Errorf("%w: type %d", ErrType, cert.CertType)
	}
	if _, nested := cert.Key.(*ssh.Certificate); nested {
		return Certificate{}, fmt.Errorf("%w: it certifies a certificate", ErrType)
	}
	key, err := judge(cert.Key)
	if err != nil {
		return Certificate{}, err
	}
	until, err := c.validUntil(cert)
	if err != nil {
		return Certificate{}, err
	}
	if err := c.forName(cert.ValidPrincipals); err != nil {
		return Certificate{}, err
	}
	out := Certificate{
		Serial: cert.Serial, ID: Printable(cert.KeyId, 128), Key: key, Expires: until,
		PTY: has(cert, "permit-pty"), PortForwarding: has(cert, "permit-port-forwarding"), AgentForwarding: has(cert, "permit-agent-forwarding"),
	}
	out.ForceCommand, err = c.options(cert.CriticalOptions)
	return out, err
}

func has(cert *ssh.Certificate, extension string) bool {
	_, ok := cert.Extensions[extension]
	return ok
}

// signed reports whether one of our authorities signed the certificate.
func (c Checker) signed(cert *ssh.Certificate) error {
	if cert.SignatureKey == nil || cert.Signature == nil {
		return ErrSignature
	}
	if _, nested := cert.SignatureKey.(*ssh.Certificate); nested {
		return fmt.Errorf("%w: it is itself certified", ErrAuthority)
	}
	by := cert.SignatureKey.Marshal()
	if !slices.ContainsFunc(c.Authorities, func(a []byte) bool { return bytes.Equal(a, by) }) {
		return ErrAuthority
	}
	if cert.Signature.Format != ssh.KeyAlgoED25519 {
		return fmt.Errorf("%w: of another kind than our authority makes", ErrSignature)
	}
	// The library's own checks of options, names and times are laxer than
	// ours, or not there; it is asked for the signature alone.
	bare := &ssh.CertChecker{
		SupportedCriticalOptions: keys(cert.CriticalOptions),
		Clock:                    func() time.Time { return time.Unix(clampUnix(cert.ValidAfter), 0) },
	}
	name := ""
	if len(cert.ValidPrincipals) > 0 {
		name = cert.ValidPrincipals[0]
	}
	if clampUnix(cert.ValidAfter) >= clampUnix(cert.ValidBefore) {
		return fmt.Errorf("%w: it ends before it begins", ErrValidity)
	}
	if err := bare.CheckCert(name, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

func keys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// clampUnix turns a certificate's time into seconds that do not overflow.
func clampUnix(t uint64) int64 {
	const most = 1 << 40 // about the year 36800
	return int64(min(t, most))
}

// validUntil returns when the certificate ends. One without an end, or one
// that was made for longer than a day, is refused even if it were ours.
func (c Checker) validUntil(cert *ssh.Certificate) (time.Time, error) {
	from, until := time.Unix(clampUnix(cert.ValidAfter), 0), time.Unix(clampUnix(cert.ValidBefore), 0)
	switch {
	case cert.ValidBefore == ssh.CertTimeInfinity:
		return until, fmt.Errorf("%w: it never ends", ErrValidity)
	case until.Sub(from) > MaxCertificate:
		return until, fmt.Errorf("%w: for more than %v", ErrValidity, MaxCertificate)
	case c.Now.Before(from):
		return until, fmt.Errorf("%w: not yet", ErrValidity)
	case !c.Now.Before(until):
		return until, fmt.Errorf("%w: it has ended", ErrValidity)
	}
	return until, nil
}

// forName wants the account to be named, exactly. An empty list means
// "everybody" to the library and nobody to us; one bad name spoils the list.
func (c Checker) forName(names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("%w: it names nobody", ErrPrincipal)
	}
	for _, n := range names {
		if !principal.MatchString(n) {
			return fmt.Errorf("%w: a name in it cannot be one", ErrPrincipal)
		}
	}
	if !slices.Contains(names, c.Name) {
		return ErrPrincipal
	}
	return nil
}

// options honours force-command and source-address; whatever else is critical
// was meant to restrict, and is not understood.
func (c Checker) options(opts map[string]string) (force string, err error) {
	for name, value := range opts {
		switch name {
		case "force-command":
			if value == "" || strings.ContainsRune(value, 0) {
				return "", fmt.Errorf("%w: an empty or broken force-command", ErrOption)
			}
			force = value
		case "source-address":
			if err := c.fromAddress(value); err != nil {
				return "", err
			}
		default:
			return "", fmt.Errorf("%w: %s", ErrOption, Printable(name, 64))
		}
	}
	return force, nil
}

// fromAddress wants the caller to be in the list. A list with something in it
// that is no address is refused whole.
func (c Checker) fromAddress(list string) error {
	prefixes, err := ParseSources(strings.Split(list, ","))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddress, err)
	}
	ip := c.IP.Unmap().WithZone("")
	if !ip.IsValid() || !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return ErrAddress
	}
	return nil
}

// maxSources is how many addresses a certificate may be bound to: as many as a
// token that asks for one.
const maxSources = 64

// ParseSources reads addresses and networks such as "192.0.2.0/24". Invalid
// when one cannot be read, when there are none, or too many.
func ParseSources(list []string) ([]netip.Prefix, error) {
	if len(list) == 0 || len(list) > maxSources {
		return nil, refuse("give 1 to 64 addresses or networks such as 192.0.2.0/24", "the list of source addresses has %d entries", len(list))
	}
	out := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				return nil, refuse("give addresses or networks such as 192.0.2.0/24", "%q is no address and no network", Printable(text, 64))
			}
			a = a.Unmap()
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, refuse("write it as an IPv4 network", "%q is an IPv4 network in IPv6 clothing", Printable(text, 64))
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

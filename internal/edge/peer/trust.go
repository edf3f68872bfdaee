// Package peer finds out who is really calling when proxies stand in front:
// by a header that a trusted proxy sets, or by the PROXY protocol before the
// first byte. It believes nobody who is not listed, and refuses lists that
// name everybody.
package peer

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The headers that a trusted proxy may tell the caller's address in.
const (
	XForwardedFor = "x-forwarded-for"
	Forwarded     = "forwarded" // RFC 7239
)

// The widest networks that may be trusted. Wider ones are how "trust my proxy"
// becomes "believe anybody": every address there is fits into two of the half.
const (
	widest4 = 8
	widest6 = 7 // fc00::/7 is all of the private networks
)

// maxHops bounds how many entries of a header are looked at, from the right.
const maxHops = 32

// A Trust is a list of networks whose word is taken. The zero Trust trusts
// nobody. It is not changed after it was made.
type Trust struct{ nets []netip.Prefix }

// ParseTrust reads addresses and networks ("192.0.2.7", "10.0.0.0/8"). It
// refuses what is no network, a network with bits set behind its length, and
// networks so wide that they could only mean everybody.
func ParseTrust(texts []string) (Trust, error) {
	var t Trust
	for _, text := range texts {
		p, err := ParseNet(text)
		if err != nil {
			return Trust{}, err
		}
		if widest := widestOf(p); p.Bits() < widest {
			return Trust{}, fmt.Errorf("%s is too wide to be trusted: name the proxies themselves, at the most a /%d", text, widest)
		}
		t.nets = append(t.nets, p)
	}
	return t, nil
}

func widestOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return widest4
	}
	return widest6
}

// ParseNet reads one address or network. An IPv4 network in IPv6 clothing comes
// out as what it is.
func ParseNet(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", text)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its length; did you mean %s?", text, p.Masked())
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q mixes IPv4 and IPv6", text)
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p, nil
}

// Empty reports whether nobody is trusted.
func (t Trust) Empty() bool { return len(t.nets) == 0 }

// Has reports whether a is trusted.
func (t Trust) Has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(t.nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Client returns who is calling: the socket's own address, unless that is
// trusted. Then it is the right-most address in the header that is not trusted
// itself, because everything to its left was written by whoever that is. What
// cannot be read ends the search: the last address that a trusted proxy vouched
// for is the answer then.
func (t Trust) Client(socket netip.Addr, header string, h http.Header) netip.Addr {
	client := socket.Unmap().WithZone("")
	if !t.Has(client) {
		return client
	}
	hops, read := h.Values("X-Forwarded-For"), parseHop
	if header == Forwarded {
		hops, read = h.Values("Forwarded"), parseElement
	}
	seen := 0
	for _, line := range slices.Backward(hops) {
		elements := splitQuoted(line, ',')
		for _, element := range slices.Backward(elements) {
			if seen++; seen > maxHops {
				return client
			}
			a, err := read(strings.TrimSpace(element))
			if err != nil {
				return client
			}
			if client = a; !t.Has(a) {
				return client
			}
		}
	}
	return client
}

var errNoAddress = errors.New("no address")

// parseHop reads an address, alone, in brackets, or with a port.
func parseHop(text string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, errNoAddress
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, errNoAddress
	}
	return a.Unmap().WithZone(""), nil
}

// parseElement reads the "for" of one element of a Forwarded header. An
// element with two of them, or with none, has no address.
func parseElement(element string) (netip.Addr, error) {
	found := ""
	for _, pair := range splitQuoted(element, ';') {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || !strings.EqualFold(name, "for") {
			continue
		}
		if found != "" {
			return netip.Addr{}, errNoAddress
		}
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			if value, ok = strings.CutSuffix(quoted, `"`); !ok || strings.ContainsAny(value, `"\`) {
				return netip.Addr{}, errNoAddress
			}
		}
		found = value
	}
	return parseHop(found)
}

// splitQuoted cuts at sep, but not inside of quotes.
func splitQuoted(text string, sep byte) []string {
	var parts []string
	quoted, from := false, 0
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == sep && !quoted:
			parts = append(parts, text[from:i])
			from = i + 1
		}
	}
	return append(parts, text[from:])
}

// Strip removes everything by which proxies tell a server who is asking, and
// under which address, whoever set it: nothing behind this point may go by it.
// Names are compared as other servers might read them, "_" and "." like "-".
func Strip(h http.Header) {
	for name := range h {
		if tellsWho(name) {
			delete(h, name)
		}
	}
}

func tellsWho(name string) bool {
	// The first letters decide for nearly every header without allocating.
	if name == "" || !strings.ContainsRune("fFxXvVtTcC", rune(name[0])) {
		return false
	}
	name = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
	switch name {
	case "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "client-ip",
		"cf-connecting-ip", "fastly-client-ip", "x-scheme", "x-url-scheme", "front-end-https":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded") || strings.HasPrefix(name, "x-original-")
}

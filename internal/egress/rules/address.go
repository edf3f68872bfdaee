package rules

import (
	"fmt"
	"net/netip"
	"slices"
)

// A Guard says which addresses a name may lead to. The zero Guard allows the
// public internet alone. It may be used concurrently.
type Guard struct {
	// Private are networks that may be reached although they are not public:
	// where an organisation's mirror lies. A network opens only the special
	// range that it lies in as a whole, so that 0.0.0.0/0 opens nothing, and
	// none opens a metadata address.
	Private []netip.Prefix
	// Own are this machine's addresses. They are refused, whatever range they
	// are in, unless Private names one alone (/32, /128) or, on loopback, with
	// its network.
	Own []netip.Addr
}

// A special range is not the public internet.
type special struct {
	prefix netip.Prefix
	name   string
}

// The ranges are those of the IANA special-purpose address registries (IPv4 and
// IPv6) that are not globally reachable, those through which an IPv4 address is
// reached inside an IPv6 one, and multicast. Metadata services come first: they
// are inside wider ranges, and nothing opens them.
var specials = []special{
	{netip.MustParsePrefix("169.254.169.254/32"), metadata}, // most clouds
	{netip.MustParsePrefix("169.254.170.0/24"), metadata},   // credentials of AWS containers
	{netip.MustParsePrefix("168.63.129.16/32"), metadata},   // Azure's host
	{netip.MustParsePrefix("100.100.100.200/32"), metadata}, // Alibaba Cloud
	{netip.MustParsePrefix("192.0.0.192/32"), metadata},     // Oracle Cloud
	{netip.MustParsePrefix("fd00:ec2::/32"), metadata},      // AWS
	{netip.MustParsePrefix("fd20:ce::/32"), metadata},       // Google Cloud

	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared between carriers"},
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a relay of 6to4"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("64:ff9b::/96"), "an IPv4 address behind NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "an IPv4 address behind NAT64"},
	{netip.MustParsePrefix("2001::/32"), "an IPv4 address behind Teredo"},
	{netip.MustParsePrefix("2002::/16"), "an IPv4 address behind 6to4"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	// What of IPv6 is not given out (RFC 4291 2.4): all but 2000::/3.
	{netip.MustParsePrefix("::/3"), "reserved"},
	{netip.MustParsePrefix("4000::/2"), "reserved"},
	{netip.MustParsePrefix("8000::/1"), "reserved"},
}

const (
	metadata = "a cloud's metadata service"
	loopback = "loopback"
)

// Check returns nil when a may be connected to. The error says what a is.
func (g Guard) Check(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("%v is not a plain address", a)
	}
	var within special // zero: the public internet
	if i := slices.IndexFunc(specials, func(s special) bool { return s.prefix.Contains(a) }); i >= 0 {
		within = specials[i]
	}
	own := slices.Contains(g.Own, a)
	if within.name != metadata && slices.ContainsFunc(g.Private, func(p netip.Prefix) bool {
		return p.Contains(a) && (p.IsSingleIP() ||
			within.name != "" && within.prefix.Bits() <= p.Bits() && (!own || within.name == loopback))
	}) {
		return nil
	}
	switch {
	case within.name == "" && !own:
		return nil
	case within.name == "":
		return fmt.Errorf("%v is this machine", a)
	}
	return fmt.Errorf("%v is %s", a, within.name)
}

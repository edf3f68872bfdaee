package guard

import "net/netip"

// nowhere is the prefix of all addresses that are none.
const nowhere = "unknown"

// Prefix returns what failures from ip are counted under: the address itself
// for IPv4, the /64 for IPv6, where whoever has one address has all of those.
// An IPv4 address in IPv6 clothing counts as IPv4; a zone is left out. What is
// no address comes out as "unknown", one prefix for all of it.
func Prefix(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nowhere
	}
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}

// carrierGrade is the space of addresses that providers share among customers.
func carrierGrade() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)
}

// classify returns the /48 around an IPv6 /64, and whether the prefix is one
// that a container bridge, a tunnel or a proxy may put before many people: a
// ban of it could lock out everybody, the administrator first.
func classify(prefix string) (wide string, private bool) {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return "", true
	}
	a := p.Addr()
	private = a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || carrierGrade().Contains(a)
	if a.Is6() && p.Bits() == 64 {
		wide = netip.PrefixFrom(a, 48).Masked().String()
	}
	return wide, private
}

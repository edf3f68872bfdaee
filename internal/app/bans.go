package app

import (
	"net"
	"net/netip"
)

// ownAddress reports whether an address is this machine's. Docker's own proxy
// for published ports, a tunnel or a test on the host calls from there, with
// many people behind it.
func ownAddress(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, have := range addrs {
		if n, ok := have.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == a.Unmap() {
				return true
			}
		}
	}
	return false
}

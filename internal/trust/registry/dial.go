package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// dialTimeout bounds the name service and every address of a name together.
const dialTimeout = 5 * time.Second

// carrier is the shared address space of RFC 6598: inside a provider's house.
var carrier = netip.MustParsePrefix("100.64.0.0/10")

// A place says how near an address is.
type place int

const (
	public    place = iota
	private         // somebody's house
	loopback        // this machine
	forbidden       // metadata services, and what is no place at all
)

func placeOf(ip netip.Addr) place {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), ip.IsInterfaceLocalMulticast(),
		ip == netip.MustParseAddr("255.255.255.255"), ip == netip.MustParseAddr("fd00:ec2::254"), ip == netip.MustParseAddr("168.63.129.16"):
		return forbidden
	case ip.IsLoopback():
		return loopback
	case ip.IsPrivate(), carrier.Contains(ip):
		return private
	case ip.Is6() && netip.MustParsePrefix("64:ff9b::/96").Contains(ip), ip.Is6() && netip.MustParsePrefix("2002::/16").Contains(ip):
		return forbidden // IPv4 in disguise
	}
	return public
}

// dial connects on behalf of one registry. The name is resolved once and what
// was judged is what is dialled: a name service that answers differently the
// second time changes nothing. Where the registry may be is the
// administrator's word (no other is asked); where it may send us depends on
// where it is itself, so that one outside cannot reach inside.
func (r *Registry) dial(ctx context.Context, registry, network, address string) (net.Conn, error) {
	// The HTTP client dials on when nobody waits any more.
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	addrs, err := r.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	last := errors.New("the name has no address")
	for _, ip := range addrs {
		if err := r.allowed(ctx, registry, host, ip); err != nil {
			last = err
			continue
		}
		conn, err := r.cfg.Dial(ctx, network, net.JoinHostPort(ip.String(), port))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, fmt.Errorf("dial %s: %w", host, last)
}

func (r *Registry) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if host == "localhost" { // never by a name service
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, nil
	}
	addrs, err := r.cfg.Lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return addrs[:min(len(addrs), 8)], nil
}

func (r *Registry) allowed(ctx context.Context, registry, host string, ip netip.Addr) error {
	own := host == hostname(registry)
	switch placeOf(ip) {
	case public:
		return nil
	case loopback:
		// Only a registry that is called by a loopback name is on loopback.
		if loopbackName(hostname(registry)) && loopbackName(host) {
			return nil
		}
	case private:
		if own || r.isPrivate(ctx, hostname(registry)) {
			return nil
		}
	case forbidden:
	}
	if own {
		return fmt.Errorf("%s is at %s, where no registry may be", host, ip)
	}
	return fmt.Errorf("the registry sends us to %s (%s), which is not for it to reach", host, ip)
}

func (r *Registry) isPrivate(ctx context.Context, host string) bool {
	if loopbackName(host) {
		return true
	}
	addrs, err := r.addresses(ctx, host)
	if err != nil {
		return false
	}
	for _, ip := range addrs {
		if placeOf(ip) != private {
			return false
		}
	}
	return len(addrs) > 0
}

package peer

import (
	"errors"
	"net"
	"net/netip"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/baileyhq/bailey/internal/mutant"
)

// headerTime is how long a trusted proxy may take for its PROXY header.
const headerTime = 5 * time.Second

// Listen returns ln with the PROXY protocol (versions 1 and 2) for connections
// from trusted proxies, and for nobody else. A trusted proxy must begin with a
// header; a connection of its without one fails at the first read. Everybody
// else speaks for themselves: a header of theirs is just the wrong first bytes
// of whatever is spoken here. With an empty Trust it returns ln itself.
//
// A connection's RemoteAddr is the caller that the header names, and its
// LocalAddr always that of the socket: a header does not move a connection to
// another door. Asking for RemoteAddr, like reading, waits for the header; do
// it in the connection's own goroutine.
func Listen(ln net.Listener, trusted Trust) net.Listener {
	if trusted.Empty() {
		return ln
	}
	return &listener{Listener: ln, trusted: trusted}
}

type listener struct {
	net.Listener
	trusted Trust
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.trusted.Has(AddrOf(c.RemoteAddr())) {
		return c, nil
	}
	needs := proxyproto.REQUIRE
	if mutant.ProxyHeader {
		needs = proxyproto.USE
	}
	p := proxyproto.NewConn(c,
		proxyproto.WithPolicy(needs),
		proxyproto.SetReadHeaderTimeout(headerTime),
		proxyproto.ValidateHeader(checkHeader))
	return &conn{Conn: p, local: c.LocalAddr(), socket: c.RemoteAddr()}, nil
}

var errNotTCP = errors.New("the PROXY header names no TCP address")

// checkHeader refuses headers that name no caller, unless they say that it is
// the proxy itself who calls (LOCAL: a health check).
func checkHeader(h *proxyproto.Header) error {
	if h.Command.IsLocal() {
		return nil
	}
	if a, ok := h.SourceAddr.(*net.TCPAddr); !ok || !AddrOf(a).IsValid() {
		return errNotTCP
	}
	return nil
}

type conn struct {
	*proxyproto.Conn
	local, socket net.Addr
}

// LocalAddr returns the socket's own address.
func (c *conn) LocalAddr() net.Addr { return c.local }

// Socket returns the address of the proxy.
func (c *conn) Socket() net.Addr { return c.socket }

// CloseWrite ends the sending half.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Raw().(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Close()
}

// AddrOf returns the IP address of a TCP address, or the zero Addr.
func AddrOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

package egress

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

const (
	resolveLimit = 5 * time.Second
	besideLimit  = 2 * time.Second        // the same, where a proxy resolves as well
	dialLimit    = 20 * time.Second       // all addresses together
	oneLimit     = 10 * time.Second       // one address
	stagger      = 250 * time.Millisecond // before the next address is tried as well (RFC 8305 5)
	maxTried     = 6
	ownEvery     = 5 * time.Second
)

// ownAddresses are this machine's, read again when they are old.
type ownAddresses struct {
	read func() ([]netip.Addr, error)

	mu   sync.Mutex // guards the rest
	list []netip.Addr
	at   time.Time
}

func (o *ownAddresses) get() ([]netip.Addr, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.at.IsZero() && time.Since(o.at) < ownEvery {
		return o.list, nil
	}
	read := o.read
	if read == nil {
		read = interfaceAddrs
	}
	list, err := read()
	if err != nil {
		return nil, err
	}
	o.list, o.at = list, time.Now()
	return list, nil
}

func interfaceAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				list = append(list, ip.Unmap())
			}
		}
	}
	return list, nil
}

// guard returns what addresses are checked by now.
func (p *Proxy) guard() (rules.Guard, error) {
	own, err := p.own.get()
	if err != nil {
		return rules.Guard{}, fmt.Errorf("read this machine's addresses: %w", err)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return rules.Guard{Private: p.policy.Private, Own: own}, nil
}

// resolve returns the addresses of a host that may be connected to, in the
// order in which to try them. It fails when there is none; forbidden says that
// there were, but nobody may be led there.
func (p *Proxy) resolve(ctx context.Context, host string, limit time.Duration) (ok []netip.Addr, forbidden, err error) {
	guard, err := p.guard()
	if err != nil {
		return nil, err, err // what cannot be checked is not gone to, not by a proxy either
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Separately, so that an IPv4 address that came as an answer for IPv6, which
	// only somebody who has something in mind sends, is told from one.
	var v4, v6 []netip.Addr
	var err4, err6 error
	var wg sync.WaitGroup
	wg.Go(func() { v4, err4 = p.cfg.Resolver.LookupNetIP(ctx, "ip4", host+".") })
	wg.Go(func() { v6, err6 = p.cfg.Resolver.LookupNetIP(ctx, "ip6", host+".") })
	wg.Wait()
	for i := range v4 {
		v4[i] = v4[i].Unmap()
	}
	for i := range max(len(v4), len(v6)) { // alternating, IPv6 first
		for _, family := range [][]netip.Addr{v6, v4} {
			if i >= len(family) || slices.Contains(ok, family[i]) {
				continue
			}
			if why := guard.Check(family[i]); why != nil {
				forbidden = why
				continue
			}
			ok = append(ok, family[i])
		}
	}
	if len(ok) > 0 {
		return ok[:min(len(ok), maxTried)], nil, nil
	}
	if forbidden != nil {
		return nil, forbidden, forbidden
	}
	return nil, nil, errors.Join(err4, err6, errNoAddress)
}

var errNoAddress = errors.New("the name has no address")

// A route is how a host is reached: by one of its addresses, or through the
// upstream proxy.
type route struct {
	addrs    []netip.Addr
	upstream *Upstream // nil: directly
}

// route resolves and checks a flow's host.
func (p *Proxy) route(ctx context.Context, f *flow) (route, error) {
	p.mu.RLock()
	upstream := p.policy.Upstream
	p.mu.RUnlock()
	limit := resolveLimit
	if upstream.URL != nil {
		limit = besideLimit
	}
	addrs, forbidden, err := p.resolve(ctx, f.host, limit)
	switch {
	case forbidden != nil:
		// The name and the place are told apart in what people read: where a
		// name leads inside the organisation is nobody's business in there.
		return route{}, &refusal{
			status: http.StatusForbidden, error: "destination_ip_prohibited", reason: audit.BadAddress, host: f.host, port: f.port, class: f.who.Class,
			msg:  f.host + " leads to an address that workspaces may not reach",
			hint: "If it is a server of your organisation, an administrator can name its network in egress.private.", cause: forbidden,
		}
	case upstream.URL != nil && (err != nil || !p.private(addrs)):
		// Behind a proxy names outside often resolve for the proxy alone. Then
		// where they lead is for it to check.
		return route{upstream: &upstream}, nil //nolint:nilerr // the name is the proxy's to resolve
	case err != nil:
		return route{}, f.unreachable("dns_error", "has no address", err)
	}
	return route{addrs: addrs}, nil
}

// dial connects a flow to its host, through a tunnel of the upstream's if there
// is one.
func (p *Proxy) dial(ctx context.Context, f *flow) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	r, err := p.route(ctx, f)
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(ctx, f, r)
	if err != nil || r.upstream == nil {
		return conn, err
	}
	return askUpstream(ctx, conn, f, *r.upstream)
}

// connect opens the connection of a route, to the upstream if there is one.
func (p *Proxy) connect(ctx context.Context, f *flow, r route) (net.Conn, error) {
	if up := r.upstream; up != nil {
		port := cmp.Or(up.URL.Port(), map[string]string{"http": "80", "https": "443"}[up.URL.Scheme])
		// The administrator named it, so its address is not checked.
		conn, err := p.cfg.Dialer.DialContext(ctx, "tcp", net.JoinHostPort(up.URL.Hostname(), port))
		if err != nil {
			return nil, f.unreachable("destination_unavailable", "the proxy to the internet does not answer", err)
		}
		return conn, nil
	}
	conn, err := p.dialAddrs(ctx, r.addrs, f.port)
	if err != nil {
		return nil, f.failed(err)
	}
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		f.at(a.Addr().Unmap())
	}
	return conn, nil
}

// private reports whether all addresses are in networks that were opened by
// name: those are reached directly, not through the upstream.
func (p *Proxy) private(addrs []netip.Addr) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, a := range addrs {
		if !slices.ContainsFunc(p.policy.Private, func(n netip.Prefix) bool { return n.Contains(a) }) {
			return false
		}
	}
	return true
}

func (f *flow) unreachable(code, what string, err error) *refusal {
	status := http.StatusBadGateway
	if code == "connection_timeout" {
		status = http.StatusGatewayTimeout
	}
	return &refusal{
		status: status, error: code, reason: audit.Unreachable, host: f.host, port: f.port, class: f.who.Class,
		msg: fmt.Sprintf("%s is allowed, but %s", net.JoinHostPort(f.host, strconv.Itoa(f.port)), what), cause: err,
	}
}

func (f *flow) failed(err error) *refusal {
	switch timeout := net.Error(nil); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return f.unreachable("connection_refused", "refuses connections", err)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return f.unreachable("connection_timeout", "does not answer", err)
	}
	return f.unreachable("destination_unavailable", "cannot be reached", err)
}

// dialAddrs connects to the first address that answers, beginning with the next
// one when the one before takes long. Nothing is resolved here any more.
func (p *Proxy) dialAddrs(ctx context.Context, addrs []netip.Addr, port int) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result) // closed by nobody; every sender is received from
	dial := func(a netip.Addr) {
		ctx, cancel := context.WithTimeout(ctx, oneLimit)
		defer cancel()
		conn, err := p.cfg.Dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(a, uint16(port)).String()) //nolint:gosec // a checked port
		results <- result{conn, err}
	}
	var errs []error
	next, running := 0, 0
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if next < len(addrs) {
				go dial(addrs[next])
				next++
				running++
				t.Reset(stagger)
			}
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				go func(n int) { // those that lost the race
					for range n {
						if late := <-results; late.conn != nil {
							_ = late.conn.Close()
						}
					}
				}(running)
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if next < len(addrs) {
				t.Reset(0)
			} else if running == 0 {
				return nil, errors.Join(errs...)
			}
		}
	}
}

const maxUpstreamHead = 16 << 10

// askUpstream asks the upstream proxy for a tunnel to the flow's host.
func askUpstream(ctx context.Context, raw net.Conn, f *flow, up Upstream) (_ net.Conn, err error) {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = f.unreachable("connection_timeout", "the proxy to the internet does not answer", ctx.Err())
		}
		if err != nil {
			_ = raw.Close()
		}
	}()
	conn := raw
	if up.URL.Scheme == "https" {
		secured := tls.Client(raw, &tls.Config{ServerName: up.URL.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, f.unreachable("tls_protocol_error", "the proxy to the internet cannot be trusted", err)
		}
		conn = secured
	}
	at := net.JoinHostPort(f.host, strconv.Itoa(f.port))
	head := "CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n"
	if up.User != "" {
		head += "Proxy-Authorization: " + up.basic() + "\r\n"
	}
	if _, err := conn.Write([]byte(head + "\r\n")); err != nil {
		return nil, f.unreachable("connection_terminated", "the proxy to the internet broke off", err)
	}
	br := bufio.NewReader(&limitedConn{Conn: conn, left: maxUpstreamHead})
	res, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // of CONNECT: the tunnel
	if err != nil {
		return nil, f.unreachable("http_response_incomplete", "the proxy to the internet broke off", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, f.unreachable("destination_unavailable", "the proxy to the internet refuses it", fmt.Errorf("upstream proxy: %s", visible(res.Status)))
	}
	if n := br.Buffered(); n > 0 {
		early, _ := br.Peek(n)
		return &earlyConn{Conn: conn, early: slices.Clone(early)}, nil
	}
	return conn, nil
}

func (u Upstream) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User+":"+u.Password.Reveal()))
}

// address returns the upstream with its credentials, as http.Transport wants it.
func (u Upstream) address() *url.URL {
	out := *u.URL
	if u.User != "" {
		out.User = url.UserPassword(u.User, u.Password.Reveal())
	}
	return &out
}

// A limitedConn ends after some bytes were read.
type limitedConn struct {
	net.Conn
	left int
}

func (c *limitedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the head of the answer is too long")
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// An earlyConn gives first what came before it was asked for.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// CloseWrite ends what is sent.
func (c *earlyConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite tells the other end that nothing more comes, if conn can.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}

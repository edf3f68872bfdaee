package edge

import (
	"context"
	"errors"
	"fmt"
	"log" //nolint:depguard // http.Server.ErrorLog is one
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/baileyhq/bailey/internal/edge/peer"
)

// The limits of the front door. None of them is a deadline for a whole request
// or answer: notebooks upload for hours and stream for days.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 120 * time.Second
	maxHeaderBytes = 32 << 10
	maxStreams     = 128 // of one HTTP/2 connection
)

// ServerConfig is what a Server needs. Addr, Handler, Certs and Origins are
// required.
type ServerConfig struct {
	Addr     string       // "host:port" of the HTTPS listener; in port mode the workspaces' ports open on the same host
	Listener net.Listener // in place of Addr: an open TCP listener, which the Server then owns
	Handler  http.Handler // sees only requests for an origin of ours, with paths as they were sent
	Certs    *Certs
	Origins  *Origins
	Plain    string       // "host:port" of a plain HTTP listener that redirects to HTTPS and proves names to an authority; empty: none
	Log      *slog.Logger // nil: silent

	Proxies     peer.Trust // who may say in a header who is calling; none by default
	ProxyHeader string     // that header: peer.XForwardedFor (also when empty) or peer.Forwarded
	Protocol    peer.Trust // whose connections begin with a PROXY header; none by default

	MaxConns        int // open connections in all; 0 means 16384
	MaxConnsPerAddr int // open connections per client address (IPv6: per /64), but of proxies; 0 means 4096
}

// A Server listens and hands requests to its handler after refusing what no
// handler should see.
type Server struct {
	cfg       ServerConfig
	http      *http.Server
	listeners []net.Listener
	plain     *http.Server
	plainLn   net.Listener // nil: there is none
}

// NewServer checks cfg and opens the listeners, so that a port that is taken is
// an error at the start and not later, in front of a user. In port mode it
// opens the whole range: a listening socket costs next to nothing.
func NewServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Handler == nil || cfg.Certs == nil || cfg.Origins == nil || (cfg.Addr == "") == (cfg.Listener == nil) {
		return nil, errors.New("edge: Handler, Certs, Origins and one of Addr and Listener are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 16384
	}
	if cfg.MaxConnsPerAddr == 0 {
		cfg.MaxConnsPerAddr = 4096
	}
	s := &Server{cfg: cfg}
	listeners, err := listenAll(ctx, cfg)
	if err != nil {
		return nil, err
	}
	limits := &connLimits{total: cfg.MaxConns, each: cfg.MaxConnsPerAddr, open: map[netip.Prefix]int{}}
	for _, ln := range listeners {
		s.listeners = append(s.listeners, limits.around(ln, cfg))
	}
	if cfg.Plain != "" {
		ln, err := keepAlive().Listen(ctx, "tcp", cfg.Plain)
		if err != nil {
			for _, open := range s.listeners {
				_ = open.Close()
			}
			return nil, fmt.Errorf("listen for HTTP: %w", err)
		}
		s.plainLn, s.plain = limits.around(ln, cfg), newPlain(cfg)
	}
	s.http = &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		TLSConfig:                    cfg.Certs.TLSConfig(),
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(quietLog{cfg.Log}, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      30 * time.Second,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     60 * time.Second,
		},
	}
	return s, nil
}

// around puts the limits and the PROXY protocol before a listener. Connections
// are counted by the socket's address, before anybody waits for a PROXY header:
// a silent connection must not hold up Accept.
func (l *connLimits) around(ln net.Listener, cfg ServerConfig) net.Listener {
	many := func(a netip.Addr) bool { return cfg.Proxies.Has(a) || cfg.Protocol.Has(a) }
	return peer.Listen(&limitedListener{Listener: ln, limits: l, many: many}, cfg.Protocol)
}

// keepAlive notices half-open tunnels: a laptop lid closes without a FIN.
func keepAlive() *net.ListenConfig {
	return &net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 25 * time.Second, Interval: 15 * time.Second, Count: 4}}
}

func listenAll(ctx context.Context, cfg ServerConfig) (open []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range open {
				_ = ln.Close()
			}
		}
	}()
	lc := keepAlive()
	first := cfg.Listener
	if first == nil {
		if first, err = lc.Listen(ctx, "tcp", cfg.Addr); err != nil {
			return nil, fmt.Errorf("listen for HTTPS: %w", err)
		}
	}
	open = append(open, first)
	addr := cfg.Addr
	if addr == "" {
		addr = first.Addr().String()
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return open, fmt.Errorf("listen for HTTPS: %w", err)
	}
	for _, port := range cfg.Origins.workspacePorts() {
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return open, fmt.Errorf("listen on a workspace port: %w", err)
		}
		open = append(open, ln)
	}
	return open, nil
}

// Addr returns the address of the HTTPS listener.
func (s *Server) Addr() net.Addr { return s.listeners[0].Addr() }

// Serve answers requests on all listeners until [Server.Shutdown], and then
// returns nil.
func (s *Server) Serve() error {
	var g errgroup.Group
	if s.plainLn != nil {
		g.Go(func() error {
			if err := s.plain.Serve(s.plainLn); !errors.Is(err, http.ErrServerClosed) {
				_ = s.http.Close()
				return fmt.Errorf("serve HTTP on %s: %w", s.plainLn.Addr(), err)
			}
			return nil
		})
	}
	for _, ln := range s.listeners {
		g.Go(func() error {
			if err := s.http.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
				_ = s.http.Close() // one door fails, all close
				if s.plain != nil {
					_ = s.plain.Close()
				}
				return fmt.Errorf("serve HTTPS on %s: %w", ln.Addr(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Shutdown stops listening and waits for open requests until ctx ends; then it
// cuts them off and returns ctx's error. It does not see hijacked connections:
// WebSockets are the gateway's to drain, at the same time.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.plain != nil {
		_ = s.plain.Close() // what it answers takes no time
		_ = s.plainLn.Close()
	}
	err := s.http.Shutdown(ctx)
	for _, ln := range s.listeners {
		_ = ln.Close() // those that Serve never took
	}
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// quietLog takes what net/http has to say about strangers' broken connections:
// it is of interest to nobody but us, and strangers choose its words.
type quietLog struct{ log *slog.Logger }

func (q quietLog) Write(p []byte) (int, error) {
	q.log.Debug("http server", slog.String("text", Printable(strings.TrimSpace(string(p)), 256)))
	return len(p), nil
}

// connLimits counts open connections, so that one address cannot take every
// file descriptor.
type connLimits struct {
	total, each int

	mu   sync.Mutex // guards the rest
	sum  int
	open map[netip.Prefix]int
}

// enter counts a connection, if it may be open; many says that p is a proxy,
// behind which there are many people.
func (l *connLimits) enter(p netip.Prefix, many bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum >= l.total || !many && l.open[p] >= l.each {
		return false
	}
	l.sum++
	l.open[p]++
	return true
}

func (l *connLimits) leave(p netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.open[p]--; l.open[p] <= 0 {
		delete(l.open, p)
	}
}

// prefixOf returns whom a connection is counted for: an IPv4 address or an
// IPv6 /64, which is what one customer has.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}

type limitedListener struct {
	net.Listener
	limits *connLimits
	many   func(netip.Addr) bool
}

// Accept closes connections above the limits at once: no handshake, no answer,
// no memory.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := prefixOf(c.RemoteAddr())
		if l.limits.enter(p, l.many(peer.AddrOf(c.RemoteAddr()))) {
			return &limitedConn{Conn: c, limits: l.limits, prefix: p}, nil
		}
		_ = c.Close()
	}
}

type limitedConn struct {
	net.Conn
	limits *connLimits
	prefix netip.Prefix
	once   sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { c.limits.leave(c.prefix) })
	return c.Conn.Close()
}

// CloseWrite lets crypto/tls and tunnels half-close.
func (c *limitedConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Conn.Close()
}

package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/opening"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

const (
	idleLimit  = time.Hour       // of a tunnel in which nothing moves
	halfLimit  = 2 * time.Minute // the same, when one side has finished
	stallLimit = 2 * time.Minute // to take what is written
	quick      = 50 * time.Millisecond

	portHTTP  = 80
	portHTTPS = 443
)

// tunnelTo opens a tunnel and carries it to its end.
func (s *session) tunnelTo(ctx context.Context, host string, port int, a answers) {
	ctx, f, err := s.p.open(ctx, s.lane, s.who, host, port, "")
	if err != nil {
		a.refused(asRefusal(err))
		return
	}
	defer func() { f.end(ctx, err) }()
	up, err := s.p.dial(ctx, f)
	if err != nil {
		a.refused(asRefusal(err))
		return
	}
	defer up.Close() //nolint:errcheck // the tunnel has ended
	stop := context.AfterFunc(ctx, func() {
		_ = s.conn.Close()
		_ = up.Close()
	})
	defer stop()
	_ = s.conn.SetDeadline(time.Now().Add(headLimit))
	if _, err = s.conn.Write(a.granted); err != nil {
		return
	}
	f.connected()
	err = s.carry(ctx, f, up)
}

// carry looks at how a tunnel begins, as far as its port and rule ask for it,
// and moves the bytes both ways.
func (s *session) carry(ctx context.Context, f *flow, up net.Conn) error {
	switch {
	case f.port == portHTTPS: // TLS, or what a lenient policy lets through
	case f.port == portHTTP || f.rule().Checked:
		// Where requests are limited by method, or plain on a web server's port,
		// they are read one by one; a tunnel is no way around that.
		kind, err := opening.Sniff(s.br)
		if err != nil {
			return err
		}
		if kind == opening.HTTP {
			return s.inner(ctx, f, up)
		}
		if kind != opening.TLS {
			return f.badBeginning("neither HTTP nor TLS is spoken on it")
		}
	default:
		// The other end may be the first to speak, as it is in SSH.
		_ = s.conn.SetDeadline(time.Time{})
		return s.both(f, up, func() ([]byte, error) {
			if kind, err := opening.Sniff(s.br); err != nil || kind != opening.TLS {
				return nil, err
			}
			return s.hello(f)
		})
	}
	first, err := s.hello(f)
	if err != nil {
		return err
	}
	_ = s.conn.SetDeadline(time.Time{})
	return s.both(f, up, func() ([]byte, error) { return first, nil })
}

// hello reads a ClientHello and checks whom it is for. It returns the bytes,
// which are to be passed on as they are.
func (s *session) hello(f *flow) (first []byte, err error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(headLimit))
	defer func() { _ = s.conn.SetReadDeadline(time.Time{}) }()
	s.p.mu.RLock()
	lenient := s.p.policy.Lenient
	s.p.mu.RUnlock()
	for {
		// Wait for one byte more, and take what came with it.
		if _, err := s.br.Peek(1); err != nil {
			return nil, err
		}
		b, _ := s.br.Peek(s.br.Buffered())
		first = append(first, b...)
		_, _ = s.br.Discard(len(b))
		h, err := opening.ParseHello(first)
		switch {
		case errors.Is(err, opening.ErrMore) && len(first) < opening.MaxHello:
			continue
		case err != nil && lenient && !f.rule().Checked:
			return first, nil
		case err != nil:
			return nil, f.badBeginning(err.Error())
		}
		if why := f.checkHello(h, lenient); why != "" {
			r := f.badBeginning(why)
			r.reason = audit.BadServerName
			s.say(tlsAlert(alertUnrecognizedName))
			return nil, r
		}
		return first, nil
	}
}

// checkHello says what is wrong with whom a ClientHello is for; nothing when it
// is for the flow's host.
func (f *flow) checkHello(h opening.Hello, lenient bool) string {
	switch {
	case h.Encrypted && !lenient:
		return "its TLS hides the server name (ECH)"
	case h.ServerName == "" && !lenient:
		return "its TLS has no server name (SNI)"
	case h.ServerName == "":
		return ""
	}
	if name, err := rules.CanonicalHost(h.ServerName); err != nil || name != f.host {
		return fmt.Sprintf("its TLS is for another server, %.80q", h.ServerName)
	}
	return ""
}

func (f *flow) badBeginning(why string) *refusal {
	return &refusal{
		status: 403, error: "tls_protocol_error", reason: audit.BadRequest, host: f.host, port: f.port, class: f.who.Class,
		msg: fmt.Sprintf("the tunnel to %s was closed: %s", f.host, why), cause: errors.New(why),
	}
}

// both moves bytes both ways until both sides have finished or one has failed.
// opening returns what the client has said already.
func (s *session) both(f *flow, up net.Conn, opening func() ([]byte, error)) error {
	down := make(chan error, 1)
	go func() { down <- f.pump(s.conn, up, f.received) }()
	err := s.upward(f, up, opening)
	if err != nil {
		_ = s.conn.Close()
		_ = up.Close()
	}
	if other := <-down; err == nil {
		err = other
	}
	return err
}

// upward is the client's direction: what it has said, what is in the reader,
// and then what comes.
func (s *session) upward(f *flow, up net.Conn, opening func() ([]byte, error)) error {
	first, err := opening()
	if errors.Is(err, io.EOF) {
		return closeWrite(up)
	}
	if err != nil {
		return err
	}
	rest, _ := s.br.Peek(s.br.Buffered())
	first = append(first, rest...)
	s.giveBack()
	if len(first) > 0 {
		_ = up.SetWriteDeadline(time.Now().Add(stallLimit))
		if _, err := up.Write(first); err != nil {
			return err
		}
		f.sent(len(first))
	}
	return f.pump(up, s.conn, f.sent)
}

// pump moves bytes from src to dst until src has no more, and says so to dst. A
// buffer is held only while something is being moved.
func (f *flow) pump(dst, src net.Conn, count func(int)) error {
	r := newPuller(f.lane, src)
	fast := false
	var waits, stalls time.Time // when the deadlines were set
	for {
		now := time.Now()
		if now.Sub(waits) > halfLimit/4 {
			_ = src.SetReadDeadline(now.Add(halfLimit))
			waits = now
		}
		b, giveBack, err := r.pull(fast)
		if len(b) > 0 {
			begin := time.Now()
			if begin.Sub(stalls) > stallLimit/4 {
				_ = dst.SetWriteDeadline(begin.Add(stallLimit))
				stalls = begin
			}
			_, werr := dst.Write(b)
			fast = len(b) >= smallBuffer && time.Since(begin) < quick
			n := len(b)
			giveBack()
			if werr != nil {
				_ = src.Close()
				_ = dst.Close()
				return werr
			}
			count(n)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			f.half.Store(true)
			return closeWrite(dst)
		case errors.Is(err, os.ErrDeadlineExceeded) && f.still() < f.patience():
			waits = time.Time{}
		default:
			_ = src.Close()
			_ = dst.Close()
			return err
		}
	}
}

// A puller reads from a connection into a buffer that it takes when there is
// something to read, not before.
type puller struct {
	lane *lane
	conn net.Conn
	raw  syscall.RawConn // nil: not a socket
	fast bool
	buf  []byte
	back func()
	n    int
	err  error
}

func newPuller(l *lane, conn net.Conn) *puller {
	p := &puller{lane: l, conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			p.raw = raw
		}
	}
	return p
}

// pull returns what could be read, and how to give its buffer back; with no
// bytes there is nothing to give back.
func (p *puller) pull(fast bool) (b []byte, giveBack func(), err error) {
	p.fast, p.n, p.err = fast, 0, nil
	if p.raw == nil {
		buf, back := p.lane.buffer(fast)
		n, err := p.conn.Read(buf)
		if n == 0 {
			back()
		}
		return buf[:n], back, err
	}
	if err := p.raw.Read(p.try); err != nil {
		return nil, nil, err
	}
	return p.buf[:p.n], p.back, p.err
}

// try reads without waiting; false means that there was nothing yet.
func (p *puller) try(fd uintptr) bool {
	p.buf, p.back = p.lane.buffer(p.fast)
	n, err := syscall.Read(int(fd), p.buf)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), p.buf)
	}
	if n > 0 {
		p.n = n
		return true
	}
	p.back()
	p.buf = nil
	if errors.Is(err, syscall.EAGAIN) {
		return false
	}
	if p.err = err; err == nil {
		p.err = io.EOF
	}
	return true
}

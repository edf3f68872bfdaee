package egress

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/opening"
)

const (
	firstLimit = 30 * time.Second // for the first byte
	headLimit  = 10 * time.Second // for the rest of a request's head, or a ClientHello
	keepLimit  = 60 * time.Second // for the next request
)

// readers are for the heads of requests; tunnels give theirs back.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// A session is one connection out of a workspace.
type session struct {
	p    *Proxy
	who  Who
	lane *lane
	conn net.Conn
	br   *bufio.Reader
}

// Serve carries one connection of who to where it asks, if that is allowed, and
// closes it. It returns when the connection has ended, or soon after ctx or the
// Proxy has. conn should support CloseWrite; without it, tunnels end as a whole
// when one side has finished.
func (p *Proxy) Serve(ctx context.Context, conn net.Conn, who Who) {
	defer conn.Close() //nolint:errcheck // it has ended
	defer func() {
		// What one workspace sends must not end the server for all.
		if v := recover(); v != nil {
			p.log.ErrorContext(ctx, "egress connection ended by a defect", slog.String("workspace", who.WorkspaceID), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.serving.Add(1)
	p.mu.Unlock()
	defer p.serving.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer p.atEnd(func() { _ = conn.Close() })()
	s := &session{p: p, who: who, conn: conn}
	lane, ok, tell := p.shares.join(who)
	if !ok {
		r := tooMany(who)
		p.note(ctx, who, r)
		if tell {
			s.refuse(r, "")
			lane.leave(true)
		}
		return
	}
	defer lane.leave(false)
	s.lane = lane
	s.br = readers.Get().(*bufio.Reader) //nolint:forcetypeassert // the pool's own
	s.br.Reset(conn)
	defer s.giveBack()
	s.serve(ctx)
}

// giveBack returns the reader; what is in it is lost.
func (s *session) giveBack() {
	if s.br != nil {
		s.br.Reset(nil)
		readers.Put(s.br)
		s.br = nil
	}
}

func (s *session) serve(ctx context.Context) {
	_ = s.conn.SetDeadline(time.Now().Add(firstLimit))
	kind, err := opening.Sniff(s.br)
	if err != nil {
		return
	}
	_ = s.conn.SetDeadline(time.Now().Add(headLimit))
	switch kind {
	case opening.HTTP:
		s.requests(ctx)
	case opening.SOCKS5:
		s.socks(ctx)
	case opening.SOCKS4:
		s.say([]byte{0, 0x5b, 0, 0, 0, 0, 0, 0}) // request rejected
		s.malformed(ctx, "SOCKS4 names addresses")
	case opening.TLS, opening.Other:
		s.refuse(&refusal{
			status: http.StatusBadRequest, error: "http_protocol_error", msg: "this is an HTTP and SOCKS5 proxy, spoken to without TLS",
			hint: "Write http:// in the address of the proxy, also for https.",
		}, "")
		s.malformed(ctx, "neither HTTP nor SOCKS5")
	}
}

// malformed records bytes that are none of ours.
func (s *session) malformed(ctx context.Context, what string) {
	s.p.note(ctx, s.who, &refusal{reason: audit.BadRequest, cause: errors.New(what)})
}

// requests serves HTTP requests until one is a tunnel or the last.
func (s *session) requests(ctx context.Context) {
	h := &plain{session: s}
	defer h.close()
	for {
		req, err := opening.ReadRequest(s.br, opening.ToProxy)
		if err != nil {
			s.badRequest(ctx, err)
			return
		}
		if req.Method == http.MethodConnect {
			s.tunnelTo(ctx, req.Host, req.Port, answers{
				granted: []byte("HTTP/1.1 200 Connection established\r\n\r\n"),
				refused: func(r *refusal) { s.refuse(r, strings.Join(req.Header["Accept"], ",")) },
			})
			return
		}
		if !h.serve(ctx, req) || !s.next() {
			return
		}
	}
}

// next waits for the first byte of one more request.
func (s *session) next() bool {
	_ = s.conn.SetDeadline(time.Now().Add(keepLimit))
	if _, err := s.br.Peek(1); err != nil {
		return false
	}
	_ = s.conn.SetDeadline(time.Now().Add(headLimit))
	return true
}

// badRequest answers a head that could not be read.
func (s *session) badRequest(ctx context.Context, err error) {
	if _, ok := errors.AsType[*opening.BadError](err); !ok {
		return // it broke off, or took too long
	}
	r := asRefusal(err)
	r.class = s.who.Class
	s.refuse(r, "")
	s.malformed(ctx, r.msg)
}

// answers are what a client is told before its tunnel begins.
type answers struct {
	granted []byte
	refused func(*refusal)
}

// socks serves SOCKS5.
func (s *session) socks(ctx context.Context) {
	host, port, err := opening.ReadSocks(s.br, s.conn)
	if bad, ok := errors.AsType[*opening.SocksError](err); ok {
		s.say(opening.SocksReply(bad.Reply))
		s.malformed(ctx, bad.Msg)
		return
	}
	if err != nil {
		return
	}
	s.tunnelTo(ctx, host, port, answers{
		granted: opening.SocksReply(opening.SocksGranted),
		refused: func(r *refusal) { s.say(opening.SocksReply(r.socksReply())) },
	})
}

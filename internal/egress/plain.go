package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/opening"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

const (
	answerWait  = 5 * time.Minute // for the head of an answer
	maxAnswer   = 64 << 10        // the head of an answer
	bodyWait    = time.Minute     // for more of a request's body
	maxTrailers = 8 << 10
)

// plain serves the plain HTTP requests of one session: each is read, decided
// and written anew, so that what arrives outside is exactly what was decided
// about, whatever the sender would have liked another server to read.
type plain struct {
	*session
	transport *http.Transport // made for the first request; its connections are this session's alone
	target    string          // host:port that the transport is for
	flow      atomic.Pointer[flow]
	ready     net.Conn // already connected to the target; the transport's first
	fixed     *flow    // the tunnel in which the requests are; nil: none
}

// inner serves plain HTTP requests inside a tunnel, which are to name the
// tunnel's host.
func (s *session) inner(ctx context.Context, tunnel *flow, up net.Conn) error {
	h := &plain{session: s, ready: up, fixed: tunnel}
	defer h.close()
	_ = s.conn.SetDeadline(time.Now().Add(headLimit))
	for {
		req, err := opening.ReadRequest(s.br, opening.ToOrigin)
		if err != nil {
			s.badRequest(ctx, err)
			return err
		}
		if host, err := rules.CanonicalHost(req.Host); err != nil || host != tunnel.host || req.Port != tunnel.port && req.Port != portHTTP {
			r := tunnel.badBeginning(fmt.Sprintf("a request in it is for another server, %.80q", req.Host))
			s.refuse(r, "")
			return r
		}
		req.Port = tunnel.port
		if !h.serve(ctx, req) || !s.next() {
			return nil
		}
	}
}

func (h *plain) close() {
	if h.transport != nil {
		h.transport.CloseIdleConnections()
	}
}

// serve answers one request and reports whether another may follow.
func (h *plain) serve(ctx context.Context, q *opening.Request) (more bool) {
	ctx, f, err := h.p.open(ctx, h.lane, h.who, q.Host, q.Port, q.Method)
	if err != nil {
		h.refuse(asRefusal(err), strings.Join(q.Header["Accept"], ","))
		return false
	}
	defer func() { f.end(ctx, err) }()
	stop := context.AfterFunc(ctx, func() { _ = h.conn.Close() })
	defer stop()
	body := h.body(q)
	defer body.stop()
	h.flow.Store(f)
	defer h.flow.Store(nil)
	res, err := h.ask(ctx, f, q, body)
	if err != nil {
		body.stop()
		err = f.refusalOf(err)
		h.refuse(asRefusal(err), strings.Join(q.Header["Accept"], ","))
		return false
	}
	defer res.Body.Close() //nolint:errcheck // read only
	f.connected()
	_ = h.conn.SetWriteDeadline(time.Time{})
	if res.StatusCode == http.StatusSwitchingProtocols {
		h.upgraded(q, res)
		return false
	}
	more, err = h.answer(ctx, f, q, res, body)
	return more && body.finished()
}

// refusalOf says what went wrong with a request outside.
func (f *flow) refusalOf(err error) error {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return f.unreachable("http_response_timeout", "does not answer", err)
	}
	return f.unreachable("http_response_incomplete", "its answer is not HTTP, or broke off", err)
}

// ask sends a request and returns the head of the answer.
func (h *plain) ask(ctx context.Context, f *flow, q *opening.Request, body *body) (*http.Response, error) {
	u, err := url.ParseRequestURI(q.Target)
	if q.Target == "*" {
		u, err = &url.URL{Path: "*"}, nil
	}
	if err != nil {
		return nil, &refusal{status: 400, error: "http_request_error", reason: audit.BadRequest, host: f.host, port: f.port, msg: "the URL's path is malformed", cause: err}
	}
	at := net.JoinHostPort(f.host, strconv.Itoa(f.port))
	u.Scheme, u.Host = "http", f.host
	if f.port != portHTTP {
		u.Host = at
	}
	out := (&http.Request{
		Method: q.Method, URL: u, Host: u.Host, Header: forward(q.Header),
		ContentLength: q.Length, Body: http.NoBody, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if q.Length != 0 {
		out.Body = body
		if h.p.cfg.Filter != nil {
			out.ContentLength = -1
			out.Body = struct {
				io.Reader
				io.Closer
			}{h.p.cfg.Filter.Body(ctx, h.who, f.host, true, q.Header.Get("Content-Type"), body), body}
		}
	}
	out.Header.Add("Via", "1."+strconv.Itoa(q.Minor)+" bailey")
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // none, instead of Go's
	}
	if q.Expect {
		out.Header.Set("Expect", "100-continue")
	}
	if q.Upgrade {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", "websocket")
	}
	if h.target != at {
		h.close()
		h.target, h.transport = at, h.newTransport()
	}
	res, err := h.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusSwitchingProtocols && !q.Upgrade {
		_ = res.Body.Close()
		return nil, errors.New("an upgrade that nobody asked for")
	}
	return res, nil
}

// newTransport returns what speaks HTTP/1.1 to one host for this session.
func (h *plain) newTransport() *http.Transport {
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			f := h.flow.Load()
			if f == nil {
				return nil, net.ErrClosed
			}
			if h.ready != nil || h.fixed != nil {
				return nil, nil //nolint:nilnil // no proxy
			}
			way, err := h.p.route(r.Context(), f)
			if err != nil {
				return nil, err
			}
			f.by(way)
			if way.upstream != nil {
				return way.upstream.address(), nil
			}
			return nil, nil //nolint:nilnil // no proxy
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			f := h.flow.Load()
			if f == nil {
				return nil, net.ErrClosed
			}
			conn := h.ready
			h.ready = nil
			if conn == nil {
				ctx, cancel := context.WithTimeout(ctx, dialLimit)
				defer cancel()
				var err error
				if h.fixed != nil {
					conn, err = h.p.dial(ctx, f)
				} else {
					conn, err = h.p.connect(ctx, f, f.way())
				}
				if err != nil {
					return nil, err
				}
			}
			return &counted{conn, &h.flow}, nil
		},
		DisableCompression: true, MaxIdleConnsPerHost: 1, MaxConnsPerHost: 1, IdleConnTimeout: keepLimit,
		ResponseHeaderTimeout: answerWait, ExpectContinueTimeout: 2 * time.Second, TLSHandshakeTimeout: dialLimit,
		MaxResponseHeaderBytes: maxAnswer,
	}
}

// A counted connection accounts for its bytes to the request it is used for.
type counted struct {
	net.Conn
	flow *atomic.Pointer[flow]
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if f := c.flow.Load(); f != nil && n > 0 {
		f.received(n)
	}
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(stallLimit))
	n, err := c.Conn.Write(b)
	if f := c.flow.Load(); f != nil && n > 0 {
		f.sent(n)
	}
	return n, err
}

// hops are the fields that are for the next hop alone (RFC 9110 7.6.1).
var hops = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
}

// forward returns the fields that travel on. What Connection names goes, too;
// Host and Content-Length are not taken from here.
func forward(h http.Header) http.Header {
	out := h.Clone()
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			out.Del(strings.Trim(name, " \t"))
		}
	}
	for _, name := range append([]string{"Host", "Content-Length"}, hops...) {
		out.Del(name)
	}
	return out
}

// answer writes an answer and reports whether the connection can go on.
func (h *plain) answer(ctx context.Context, f *flow, q *opening.Request, res *http.Response, body *body) (more bool, err error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", res.StatusCode, http.StatusText(res.StatusCode))
	length := res.ContentLength
	empty := q.Method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified
	fields := forward(res.Header)
	content := io.Reader(res.Body)
	if h.p.cfg.Filter != nil && !empty {
		content, length = h.p.cfg.Filter.Body(ctx, h.who, f.host, false, res.Header.Get("Content-Type"), content), -1
	}
	more = !q.Close && q.Minor == 1 && body.finished()
	chunked := false
	switch {
	case res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotModified:
	case length >= 0:
		fmt.Fprintf(&head, "Content-Length: %d\r\n", length)
	case empty:
	case q.Minor == 1:
		chunked = true
		head.WriteString("Transfer-Encoding: chunked\r\n")
	default:
		more = false
	}
	if !more {
		head.WriteString("Connection: close\r\n")
	}
	fields.Add("Via", "1.1 bailey")
	_ = fields.Write(&head)
	head.WriteString("\r\n")
	if err := h.write(head.Bytes()); err != nil {
		return false, err
	}
	if empty {
		return more, nil
	}
	if err := h.copyBody(content, chunked); err != nil {
		return false, err
	}
	return more, nil
}

// copyBody writes a body, in chunks if that is how its end is to be known. A
// body that breaks off leaves the connection unusable, so that nobody takes
// half a file for a whole one.
func (h *plain) copyBody(from io.Reader, chunked bool) error {
	const frame = 16 // before and after a chunk
	fast := false
	for {
		b, giveBack := h.lane.buffer(fast)
		n, err := from.Read(b[frame : len(b)-2])
		var werr error
		if n > 0 {
			out := b[frame : frame+n]
			if chunked {
				size := strconv.FormatInt(int64(n), 16) + "\r\n"
				copy(b[frame-len(size):], size)
				out = b[frame-len(size) : frame+n+copy(b[frame+n:], "\r\n")]
			}
			begin := time.Now()
			werr = h.write(out)
			fast = n >= smallBuffer/2 && time.Since(begin) < quick
		}
		giveBack()
		switch {
		case werr != nil:
			return werr
		case errors.Is(err, io.EOF):
			if chunked {
				return h.write([]byte("0\r\n\r\n"))
			}
			return nil
		case err != nil:
			return err
		}
	}
}

func (h *plain) write(b []byte) error {
	_ = h.conn.SetWriteDeadline(time.Now().Add(stallLimit))
	_, err := h.conn.Write(b)
	return err
}

// upgraded carries a WebSocket to its end.
func (h *plain) upgraded(q *opening.Request, res *http.Response) {
	peer, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	_ = forward(res.Header).Write(&head)
	head.WriteString("\r\n")
	if h.write(head.Bytes()) != nil {
		return
	}
	_ = h.conn.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = h.copyBody(peer, false)
		_ = h.conn.Close()
	})
	_, _ = io.Copy(peer, struct{ io.Reader }{h.br})
	_ = peer.Close()
	wg.Wait()
}

// A body is a request's body while it is being read. Reading and stopping may
// happen at once: what sends a request outside goes on reading after the answer
// has come.
type body struct {
	h      *plain
	expect bool // the client waits for a word first

	mu      sync.Mutex // guards the rest, and the session's reader while it is read
	from    io.Reader
	chunked bool
	done    bool // read to its end
	stopped bool
}

func (h *plain) body(q *opening.Request) *body {
	b := &body{h: h, expect: q.Expect}
	switch {
	case q.Length == 0:
		b.done = true
	case q.Length > 0:
		b.from = &exactly{h.br, q.Length}
	default:
		b.chunked, b.from = true, httputil.NewChunkedReader(h.br)
	}
	return b
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.done:
		return 0, io.EOF
	case b.stopped:
		return 0, http.ErrBodyReadAfterClose
	}
	if b.expect {
		b.expect = false
		if err := b.h.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return 0, err
		}
	}
	_ = b.h.conn.SetReadDeadline(time.Now().Add(bodyWait))
	n, err := b.from.Read(p)
	if errors.Is(err, io.EOF) {
		if b.chunked {
			if err := skipTrailers(b.h.br); err != nil {
				return n, err
			}
		}
		b.done = true
	}
	return n, err
}

// Close implements [io.Closer]; stop is what ends reading.
func (b *body) Close() error { return nil }

// stop ends reading for good and returns when nobody reads any more.
func (b *body) stop() {
	if b.mu.TryLock() {
		b.stopped = true
		b.mu.Unlock()
		return
	}
	_ = b.h.conn.SetReadDeadline(time.Unix(1, 0)) // wakes whoever waits for the client
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
}

// finished reports whether the body was read to its end, so that what follows
// is the next request.
func (b *body) finished() bool {
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	return b.done
}

// exactly reads n bytes; fewer are an error.
type exactly struct {
	r *bufio.Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	if e.n -= int64(n); e.n == 0 {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// skipTrailers reads what is behind the last chunk. Fields that come after
// everything was decided are not passed on.
func skipTrailers(r *bufio.Reader) error {
	for size := 0; ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if size += len(line); size > maxTrailers {
			return errors.New("the trailers are too long")
		}
		if len(line) <= 2 && strings.Trim(string(line), "\r\n") == "" {
			return nil
		}
	}
}

package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxIdleUpstream   = 64
	idleUpstream      = 60 * time.Second // well below Tornado's own
	maxUpstreamHeader = 256 << 10
	maxInterim        = 5 // answers of class 1xx before the one that counts
)

// An upstream speaks HTTP/1.1 to one run's Jupyter. It brings back the answer
// and nothing around it: no informational answers and no trailers, whose
// headers nobody has looked at.
//
// A request without a body, which is nearly every one, is written and answered
// on the caller's own goroutine: [http.Transport] hands each to two others and
// back, which costs more than everything else here. What has a body goes
// through an [http.Transport], because an answer may come before its end.
// Safe for concurrent use.
type upstream struct {
	dial   func(context.Context) (net.Conn, error)
	bodies *http.Transport

	mu     sync.Mutex // guards what follows
	idle   []*upstreamConn
	sweep  *time.Timer // closes what has been idle for long; nil when nothing is
	closed bool
}

func newUpstream(dial func(context.Context) (net.Conn, error)) *upstream {
	return &upstream{
		dial: dial,
		bodies: &http.Transport{
			Proxy:                  nil, // no proxy of the environment stands between us and a workspace
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression:     true, // what the browser accepts is its own affair
			MaxIdleConnsPerHost:    maxIdleUpstream,
			MaxConnsPerHost:        256,
			IdleConnTimeout:        idleUpstream,
			MaxResponseHeaderBytes: maxUpstreamHeader,
			WriteBufferSize:        16 << 10,
			ReadBufferSize:         16 << 10,
			// A workspace that never reads or never answers holds a request until
			// the client, the run or the session ends; cells may take hours.
		},
	}
}

// close closes the connections that nobody uses, now and from now on.
func (u *upstream) close() {
	u.bodies.CloseIdleConnections()
	u.mu.Lock()
	idle := u.idle
	u.idle, u.closed = nil, true
	u.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// RoundTrip implements [http.RoundTripper].
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody || r.ContentLength != 0 {
		res, err := u.bodies.RoundTrip(r.WithContext(plain{r.Context()}))
		if err != nil {
			return nil, err
		}
		// The body fills in the trailers of the response it came with, not of this copy.
		bare := *res
		bare.Trailer = nil
		return &bare, nil
	}
	for {
		c, used, err := u.conn(r.Context())
		if err != nil {
			return nil, err
		}
		res, answered, err := c.roundTrip(r)
		if err == nil {
			return res, nil
		}
		_ = c.Close()
		// Jupyter may have closed a kept connection just now. Only what may be
		// asked twice is.
		if used && !answered && (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Context().Err() == nil {
			continue
		}
		if cause := context.Cause(r.Context()); cause != nil {
			err = cause // closing the connection was only its consequence
		}
		return nil, err
	}
}

// conn returns a kept connection, used is true then, or a new one.
func (u *upstream) conn(ctx context.Context) (c *upstreamConn, used bool, err error) {
	for {
		u.mu.Lock()
		n := len(u.idle)
		if n == 0 {
			u.mu.Unlock()
			break
		}
		c := u.idle[n-1]
		u.idle[n-1] = nil
		u.idle = u.idle[:n-1]
		u.mu.Unlock()
		if c.quiet() {
			return c, true, nil
		}
		_ = c.Close()
	}
	conn, err := u.dial(ctx)
	if err != nil {
		return nil, false, err
	}
	return newConn(conn, u), false, nil
}

// keep takes a connection back whose answer was read to its end.
func (u *upstream) keep(c *upstreamConn) {
	c.since = time.Now()
	u.mu.Lock()
	keep := !u.closed && len(u.idle) < maxIdleUpstream
	if keep {
		u.idle = append(u.idle, c)
		if u.sweep == nil {
			u.sweep = time.AfterFunc(idleUpstream, u.closeOld)
		}
	}
	u.mu.Unlock()
	if !keep {
		_ = c.Close()
	}
}

// closeOld closes what has been idle for too long, and comes back while there
// is something to come back for.
func (u *upstream) closeOld() {
	u.mu.Lock()
	old := 0
	for old < len(u.idle) && time.Since(u.idle[old].since) >= idleUpstream {
		old++
	}
	gone := u.idle[:old:old]
	u.idle = append([]*upstreamConn(nil), u.idle[old:]...)
	u.sweep = nil
	if len(u.idle) > 0 {
		u.sweep = time.AfterFunc(idleUpstream-time.Since(u.idle[0].since), u.closeOld)
	}
	u.mu.Unlock()
	for _, c := range gone {
		_ = c.Close()
	}
}

// An upstreamConn is one connection, used by one request at a time.
type upstreamConn struct {
	net.Conn
	of    *upstream
	limit io.LimitedReader // what the header of an answer may still take
	in    *bufio.Reader
	out   *bufio.Writer
	raw   syscall.RawConn // nil: what it is like cannot be seen
	since time.Time       // idle
}

func newConn(conn net.Conn, of *upstream) *upstreamConn {
	c := &upstreamConn{Conn: conn, of: of}
	c.limit.R = conn
	c.in = bufio.NewReaderSize(&c.limit, 4<<10)
	c.out = bufio.NewWriterSize(conn, 2<<10)
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	return c
}

// quiet reports whether nothing has come since the last answer, neither an end
// nor bytes that nobody asked for: those would be taken for the next answer.
func (c *upstreamConn) quiet() bool {
	if c.raw == nil {
		return false
	}
	var err error
	cerr := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return cerr == nil && errors.Is(err, unix.EAGAIN)
}

// roundTrip writes a request without a body and reads the head of its answer;
// answered is true when at least a byte of one came.
func (c *upstreamConn) roundTrip(r *http.Request) (res *http.Response, answered bool, err error) {
	stop := context.AfterFunc(r.Context(), func() { _ = c.Close() })
	defer func() {
		if err != nil {
			stop()
		}
	}()
	c.limit.N = maxUpstreamHeader
	if err := r.Write(c.out); err != nil {
		return nil, false, err
	}
	if err := c.out.Flush(); err != nil {
		return nil, false, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return nil, false, err
	}
	for range maxInterim + 1 {
		res, err = http.ReadResponse(c.in, r)
		if err != nil {
			if c.limit.N <= 0 {
				err = errors.New("the header of the answer is too long")
			}
			return nil, true, err
		}
		if res.StatusCode >= 200 {
			break
		}
	}
	if res.StatusCode < 200 {
		return nil, true, errors.New("informational answers without end, or an upgrade that nobody asked for")
	}
	c.limit.N = 1<<63 - 1
	body := &upstreamBody{conn: c, from: res.Body, stop: stop, again: !res.Close}
	// The body fills in the trailers of the response it came with, not of this copy.
	bare := *res
	bare.Trailer, bare.Body = nil, body
	if res.Body == http.NoBody || res.ContentLength == 0 || r.Method == http.MethodHead {
		body.end(true)
		bare.Body = http.NoBody
	}
	return &bare, true, nil
}

// An upstreamBody reads an answer to its end and gives the connection back.
type upstreamBody struct {
	conn  *upstreamConn
	from  io.ReadCloser
	stop  func() bool
	again bool // the connection may be used again
	over  bool
}

// Read implements [io.Reader].
func (b *upstreamBody) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	n, err := b.from.Read(p)
	if err != nil {
		b.end(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close implements [io.Closer]. What was not read is not waited for.
func (b *upstreamBody) Close() error {
	if !b.over {
		b.end(false)
	}
	return nil
}

func (b *upstreamBody) end(whole bool) {
	b.over = true
	if b.stop() && whole && b.again && b.conn.in.Buffered() == 0 {
		b.conn.of.keep(b.conn)
		return
	}
	_ = b.conn.Close()
}

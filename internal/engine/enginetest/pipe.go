package enginetest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// half is one direction of a connection in memory: a bounded buffer with a
// reader and a writer, deadlines, and an end. It blocks on channels only, so
// that a synctest bubble sees it as idle.
type half struct {
	mu      sync.Mutex // guards the rest
	buf     []byte
	eof     bool          // the writer is done
	broken  bool          // the reader is gone
	changed chan struct{} // closed and replaced at every change
	rd, wr  time.Time     // deadlines
}

const halfBuffer = 64 << 10

func newHalf() *half { return &half{changed: make(chan struct{})} }

// wake tells waiters to look again; mu is held.
func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(p []byte) (int, error) {
	for {
		h.mu.Lock()
		switch {
		case h.broken:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.wake()
			h.mu.Unlock()
			return n, nil
		case h.eof:
			h.mu.Unlock()
			return 0, io.EOF
		}
		changed, deadline := h.changed, h.rd
		h.mu.Unlock()
		if !waitFor(changed, deadline) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (h *half) write(p []byte) (int, error) {
	written := 0
	for {
		h.mu.Lock()
		switch {
		case h.eof:
			h.mu.Unlock()
			return written, net.ErrClosed
		case h.broken:
			h.mu.Unlock()
			return written, io.ErrClosedPipe
		}
		if room := halfBuffer - len(h.buf); room > 0 && len(p) > 0 {
			n := min(room, len(p))
			h.buf = append(h.buf, p[:n]...)
			p = p[n:]
			written += n
			h.wake()
		}
		changed, deadline := h.changed, h.wr
		h.mu.Unlock()
		if len(p) == 0 {
			return written, nil
		}
		if !waitFor(changed, deadline) {
			return written, os.ErrDeadlineExceeded
		}
	}
}

// waitFor waits for a change; false means that the deadline passed first.
func waitFor(changed <-chan struct{}, deadline time.Time) bool {
	if deadline.IsZero() {
		<-changed
		return true
	}
	left := time.Until(deadline)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
		return false
	}
}

func (h *half) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.wake()
}

// conn is one end of a connection in memory. Unlike [net.Pipe] it has a buffer,
// as sockets have, and supports CloseWrite.
type conn struct {
	in, out *half
	addr    addr
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

// newConn returns the two ends of a connection.
func newConn(name string) (client, server *conn) {
	a, b := newHalf(), newHalf()
	return &conn{in: a, out: b, addr: addr(name)}, &conn{in: b, out: a, addr: addr(name)}
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.in.read(p)
}

func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite ends the direction away from here; the other end reads EOF.
func (c *conn) CloseWrite() error {
	c.out.set(func() { c.out.eof = true })
	return nil
}

func (c *conn) Close() error {
	c.out.set(func() { c.out.eof = true })
	c.in.set(func() { c.in.broken = true })
	return nil
}

// closed reports whether this end was closed.
func (c *conn) closed() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.broken
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // neither ever fails
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.in.rd = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func() { c.out.wr = t })
	return nil
}

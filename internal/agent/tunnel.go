package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/wire"
)

// chunk is how much is moved at once.
const chunk = 64 << 10

// farewell is how long an address may go on talking after the client has gone
// altogether: long enough to read what the client sent last, too short to
// hold one of maxConns for ever.
const farewell = 10 * time.Second

// buffers lends out copy buffers. A connection borrows one only while bytes
// are there to move, so that a thousand idle WebSockets hold none.
type buffers struct {
	pool     sync.Pool
	farewell time.Duration
}

func newBuffers() *buffers {
	return &buffers{farewell: farewell, pool: sync.Pool{New: func() any { return new([chunk]byte) }}}
}

// connect connects to something inside and says how that went, in words where
// it failed, before the first byte. DIAL says nothing: its caller cannot tell a
// port on which nobody listens from one that closes at once.
func (x *sessions) connect(ctx context.Context, c duplex, early []byte) {
	r := wire.NewReader(io.MultiReader(bytes.NewReader(early), c))
	var want wire.Socket
	if first(c, r, &want) != nil {
		return
	}
	out := &frames{c: c}
	to, err := parseTarget(want.Network, want.Addr)
	if err == nil && to.network == "unix" && to.addrs[0] == x.self {
		err = errors.New("that is the agent's own socket")
	}
	var t duplex
	if err == nil {
		t, err = to.connect(ctx)
	}
	if err != nil {
		_ = out.send(wire.Failed, []byte(plainly(want, err)))
		_ = c.CloseWrite()
		return
	}
	defer t.Close() //nolint:errcheck // the tunnel has ended
	if out.send(wire.Started, nil) == nil {
		x.bufs.tunnel(c, t, r.Rest())
	}
}

// plainly says why something cannot be connected to.
func plainly(to wire.Socket, err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return fmt.Sprintf("nothing listens on %.120s in the workspace", to.Addr)
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf("%.120s in the workspace may not be connected to", to.Addr)
	}
	return err.Error()
}

// tunnel sends early to the target and then copies both ways until both sides
// have finished. The end of one side is passed on as the end of that
// direction only. It does not splice: a pipe per direction would count
// against the tenant's pipe quota, which their own programs need.
func (b *buffers) tunnel(client, target duplex, early []byte) {
	b.tunnelHearing(client, target, early, nil)
}

// tunnelHearing is tunnel, and shows the first bytes that come back to heard,
// which may be nil and must not keep or change them.
func (b *buffers) tunnelHearing(client, target duplex, early []byte, heard func([]byte)) {
	var left atomic.Int32
	left.Store(2)
	done := func() (last bool) {
		if left.Add(-1) > 0 {
			return false
		}
		_ = client.Close()
		_ = target.Close()
		return true
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b.copy(client, target, heard)
		done()
	})
	_, err := target.Write(early)
	if err == nil {
		b.copy(target, client, nil)
	}
	if !done() && gone(client) {
		// Not a half-close: nobody is left to hear the answer. An address that
		// sleeps on a half-open connection would otherwise keep it for ever.
		_ = target.SetReadDeadline(time.Now().Add(b.farewell))
	}
	wg.Wait()
}

// copy moves bytes from src to dst until src ends or either fails, then ends
// dst's direction. The first of them heard sees, unless it is nil.
func (b *buffers) copy(dst, src duplex, heard func([]byte)) {
	raw, err := src.SyscallConn()
	if err != nil {
		return
	}
	var buf *[chunk]byte
	var n int
	var rerr error
	read := func(fd uintptr) bool {
		buf = b.pool.Get().(*[chunk]byte) //nolint:forcetypeassert // the pool holds nothing else
		for {
			n, rerr = unix.Read(int(fd), buf[:])
			if !errors.Is(rerr, unix.EINTR) {
				break
			}
		}
		if errors.Is(rerr, unix.EAGAIN) {
			b.pool.Put(buf)
			return false // wait, holding nothing
		}
		return true
	}
	for {
		if err := raw.Read(read); err != nil {
			break // closed by us, or the farewell is over
		}
		if rerr != nil || n == 0 {
			b.pool.Put(buf)
			break
		}
		if heard != nil {
			heard(buf[:n])
			heard = nil
		}
		_, err := dst.Write(buf[:n])
		b.pool.Put(buf)
		if err != nil {
			_ = src.CloseRead() // tell src that nobody listens any more
			return
		}
	}
	_ = dst.CloseWrite()
}

// gone waits until the peer of c has closed both directions (true) or c was
// closed here (false).
func gone(c duplex) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // an fd fits
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}) == nil
}

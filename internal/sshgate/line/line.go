// Package line is the connection under SSH. It hears what a client calls itself
// before the library does, and moves bytes in pieces that suit bulk: the library
// reads and writes through 4 KiB, which makes two system calls of every packet,
// and wakes whoever is at the other end twice. It knows nothing of what passes.
package line

import (
	"bytes"
	"net"
	"sync"
	"time"
)

const (
	versionWait = time.Second // clients speak at once; one that waits for our word gets it then
	maxVersion  = 255         // RFC 4253, 4.2
)

// The library's own buffers, of package bufio, and ours.
const (
	theirs = 4 << 10
	few    = theirs    // what is read of a connection that has little to say
	many   = 132 << 10 // four of the largest packets
	bulk   = 16 << 10  // a reader with so much room of its own needs none of ours
)

// linger is the longest that something waits for what follows it.
const linger = time.Millisecond

// A Conn is a connection that was overheard. One goroutine reads, as the library
// does; the other methods may be called concurrently.
type Conn struct {
	net.Conn

	rest []byte      // was read and not given out; it lies in one of these:
	had  []byte      // a buffer of its own
	big  *[many]byte // or one that is lent while there is much; nil: none
	more bool        // the last read filled its buffer

	mu    sync.Mutex  // held for the length of a write; guards the rest
	corks int         // who has said that more follows
	held  int         // bytes that wait for what follows them
	lent  *[many]byte // where they lie; nil: nothing waits
	timer *time.Timer
	err   error // of writing what was held
}

// buffers are lent to connections that have much to say.
var buffers = sync.Pool{New: func() any { return new([many]byte) }}

// Overhear returns what a client calls itself, and the connection with that
// still to be read. It is a claim, and only chooses between sound ciphers. The
// connection's deadline for reading is grace from now afterwards.
func Overhear(nc net.Conn, grace time.Duration) (c *Conn, version string) {
	end := time.Now().Add(grace)
	_ = nc.SetReadDeadline(time.Now().Add(min(versionWait, grace)))
	heard := make([]byte, 0, maxVersion)
	for len(heard) < maxVersion && bytes.IndexByte(heard, '\n') < 0 {
		n, err := nc.Read(heard[len(heard):maxVersion])
		heard = heard[:len(heard)+n]
		if err != nil {
			break // the handshake meets it again
		}
	}
	_ = nc.SetReadDeadline(end)
	line, _, _ := bytes.Cut(heard, []byte("\n"))
	return &Conn{Conn: nc, rest: heard}, string(bytes.TrimSpace(line))
}

// Read implements [net.Conn]. A connection that is silent holds no more than a
// small buffer.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if len(p) >= bulk {
			return c.Conn.Read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// fill reads what has come. It returns an error only with nothing read.
func (c *Conn) fill() error {
	var buf []byte
	if c.more {
		if c.big == nil {
			c.big = buffers.Get().(*[many]byte) //nolint:forcetypeassert // the pool holds nothing else
		}
		buf = c.big[:]
	} else {
		if c.big != nil {
			buffers.Put(c.big)
			c.big = nil
		}
		if c.had == nil {
			c.had = make([]byte, few)
		}
		buf = c.had
	}
	n, err := c.Conn.Read(buf)
	c.rest, c.more = buf[:n], n == len(buf)
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// Cork says that more follows what will be written: it goes out together, with
// [Conn.Uncork] at the latest, or when it has waited for a moment. So nobody has to
// fear that what a client waits for stays here.
func (c *Conn) Cork() {
	c.mu.Lock()
	c.corks++
	c.mu.Unlock()
}

// Uncork is called once for each Cork.
func (c *Conn) Uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corks--; c.corks == 0 {
		c.flush()
	}
}

// Write implements [net.Conn]. A piece that fills the library's buffer is most
// likely the beginning of a packet, and is sent with what follows; so is what is
// corked. An error of that is returned by the next Write.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held+len(p) > many {
		c.flush()
	}
	if c.err != nil {
		return 0, c.err
	}
	begins := c.corks > 0 || len(p) == theirs && c.held == 0
	if len(p) > many || c.held == 0 && !begins {
		return c.Conn.Write(p)
	}
	if c.lent == nil {
		c.lent = buffers.Get().(*[many]byte) //nolint:forcetypeassert // the pool holds nothing else
	}
	if c.held == 0 {
		if c.timer == nil {
			c.timer = time.AfterFunc(linger, c.release)
		} else {
			c.timer.Reset(linger)
		}
	}
	c.held += copy(c.lent[c.held:], p)
	if !begins {
		if c.flush(); c.err != nil {
			return 0, c.err
		}
	}
	return len(p), nil
}

// release sends what has waited for long enough.
func (c *Conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

// flush sends what waits. The caller holds mu.
func (c *Conn) flush() {
	if c.held == 0 {
		return
	}
	c.timer.Stop()
	_, c.err = c.Conn.Write(c.lent[:c.held])
	buffers.Put(c.lent)
	c.lent, c.held = nil, 0
}

// Close implements [net.Conn]. What waits is sent, if the other side takes it
// at once.
func (c *Conn) Close() error {
	if c.mu.TryLock() { // otherwise somebody is writing it
		if c.held > 0 {
			_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			c.flush()
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

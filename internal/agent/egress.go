package agent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOut bounds the connections carried out at once: more than the server
	// takes from one workspace.
	maxOut = 512
	// serverPatience is how long a connection waits for a server that is being
	// restarted, and serverPause how often it looks.
	serverPatience = 10 * time.Second
	serverPause    = 100 * time.Millisecond
)

// An egress carries connections from a loopback port to the server's socket.
// What is a proxy request and what is allowed is the server's business, and a
// tenant who talks to the socket without the agent gains nothing. One thing it
// reads: a refusal's first line, because programs such as git and curl keep it
// to themselves, and people in a terminal are told it at their next prompt.
type egress struct {
	ln     *net.TCPListener
	socket string
	bufs   *buffers
	notice string // file that terminals show; empty: none

	wg    sync.WaitGroup
	mu    sync.Mutex // guards conns, ended and drop
	conns map[net.Conn]struct{}
	ended bool
	drop  *time.Timer // takes the notice away; nil: there is none
}

// listenEgress listens on the port that the environment names as the proxy.
func listenEgress(cfg egressConfig) (*egress, error) {
	addr, err := net.ResolveTCPAddr("tcp", cfg.Listen) // a literal: nothing is looked up
	if err != nil {
		return nil, err
	}
	ln, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &egress{ln: ln, socket: cfg.Socket, bufs: newBuffers(), notice: cfg.Notice, conns: map[net.Conn]struct{}{}}, nil
}

// serve accepts until close. Past maxOut it closes new connections at once.
func (e *egress) serve(ctx context.Context) {
	e.mu.Lock()
	if e.ended {
		e.mu.Unlock()
		return
	}
	e.wg.Add(1)
	e.mu.Unlock()
	defer e.wg.Done()
	for {
		c, err := e.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: wait for some to come back.
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if !e.track(c) {
			_ = c.Close()
			continue
		}
		e.wg.Go(func() {
			defer e.forget(c)
			e.carry(ctx, c)
		})
	}
}

func (e *egress) track(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended || len(e.conns) >= maxOut {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

func (e *egress) forget(c net.Conn) {
	_ = c.Close()
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
}

// carry connects c to the server and copies both ways until both have finished.
func (e *egress) carry(ctx context.Context, c *net.TCPConn) {
	out, err := e.connect(ctx)
	if err != nil {
		return
	}
	defer out.Close() //nolint:errcheck // the tunnel has ended
	e.bufs.tunnelHearing(c, out, nil, e.heard)
}

// connect opens the server's socket. While nobody listens there it waits: a
// server that is replaced by a newer one is back within seconds, and a
// download that is refused in between would be somebody's lost hour.
func (e *egress) connect(ctx context.Context) (duplex, error) {
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", e.socket)
		if err == nil {
			return c.(duplex), nil //nolint:forcetypeassert // a *net.UnixConn
		}
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(serverPause):
		}
	}
}

// noticeFor is how long a refusal waits for somebody at a prompt.
const noticeFor = 30 * time.Second

// refusalRE is the status line of a refusal, as the server writes it.
var refusalRE = regexp.MustCompile(`^HTTP/1\.[01] [45][0-9][0-9] (bailey: [ -~]{1,400})\r\n`)

// heard looks at the first bytes of an answer and leaves a refusal where
// terminals find it. What cannot be written is not shown.
func (e *egress) heard(first []byte) {
	m := refusalRE.FindSubmatch(first[:min(len(first), 512)])
	if m == nil || e.notice == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended || os.WriteFile(e.notice, append(m[1], '\n'), 0o600) != nil {
		return
	}
	if e.drop != nil {
		e.drop.Stop()
	}
	e.drop = time.AfterFunc(noticeFor, func() { _ = os.Remove(e.notice) })
}

// close stops listening, cuts every connection and waits for all goroutines.
func (e *egress) close() {
	_ = e.ln.Close()
	e.mu.Lock()
	e.ended = true
	if e.drop != nil {
		e.drop.Stop()
	}
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	e.wg.Wait()
}

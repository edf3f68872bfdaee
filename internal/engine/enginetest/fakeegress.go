package enginetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/baileyhq/bailey/internal/engine"
)

// Egress implements [engine.Engine].
func (f *Fake) Egress(ctx context.Context, run string, uid int) (net.Listener, error) {
	if err := cmp.Or(f.enter(ctx, "Egress"), engine.CheckID("run", run), engine.CheckUID(uid)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.byRun(run)
	if b == nil || b.spec.Network != engine.NetworkProxied {
		return nil, fmt.Errorf("listen for the workspace of run %s: %w", run, engine.ErrNotFound)
	}
	if b.out != nil {
		_ = b.out.Close() // in memory: never fails
	}
	b.out = &listener{uid: uid, conns: make(chan net.Conn, 16), over: make(chan struct{})}
	return b.out, nil
}

// Reach opens a connection as a process of uid in the workspace of a run does:
// through the socket to whoever listens at [Fake.Egress]. It fails when nobody
// does, or when the workspace does not run.
func (f *Fake) Reach(ctx context.Context, run string, uid int) (net.Conn, error) {
	f.mu.Lock()
	b := f.byRun(run)
	if b == nil || !b.status.Running || b.out == nil || b.spec.UID != uid {
		f.mu.Unlock()
		return nil, fmt.Errorf("reach out of run %s: %w", run, engine.ErrUnavailable)
	}
	out := b.out
	client, server := newConn("egress")
	b.conns = append(slices.DeleteFunc(b.conns, (*conn).closed), client)
	f.mu.Unlock()
	if out.uid != uid { // as the peer's credentials show
		_ = server.Close() // in memory: never fails
		return client, nil
	}
	if err := ctx.Err(); err != nil || !out.put(server) {
		return nil, errors.Join(fmt.Errorf("reach out of run %s: %w", run, engine.ErrUnavailable), err)
	}
	return client, nil
}

// listener hands out the server's ends of connections in memory. Connections
// wait in a backlog, as at a socket, and are cut when it is closed.
type listener struct {
	uid   int
	conns chan net.Conn
	over  chan struct{} // closed by Close

	mu     sync.Mutex // guards closed, and that nothing enters the backlog afterwards
	closed bool
}

// put adds a connection to the backlog.
func (l *listener) put(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.conns <- c:
		return true
	default:
		return false
	}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.over:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	close(l.over)
	for {
		select {
		case c := <-l.conns:
			_ = c.Close() // in memory: never fails
		default:
			return nil
		}
	}
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return addr("egress") }

package enginetest

import (
	"cmp"
	"context"
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
	select {
	case out.conns <- server:
		return client, nil
	case <-out.over:
		return nil, fmt.Errorf("reach out of run %s: %w", run, engine.ErrUnavailable)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listener hands out the server's ends of connections in memory.
type listener struct {
	uid   int
	conns chan net.Conn
	once  sync.Once
	over  chan struct{} // closed by Close
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
	l.once.Do(func() { close(l.over) })
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return addr("egress") }

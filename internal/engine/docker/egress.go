package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// Egress implements [engine.Engine]. The socket lies in a directory of ours
// that the workspace has mounted read-only, below a directory that only root
// enters: a tenant can connect to it and cannot replace, link or take it with
// them. Which workspace a connection is from is known by the socket; that it is
// from nobody else on the host, by the peer's credentials.
func (e *Engine) Egress(ctx context.Context, run string, uid int) (net.Listener, error) {
	if err := errors.Join(engine.CheckID("run", run), engine.CheckUID(uid)); err != nil {
		return nil, fmt.Errorf("listen for a workspace: %w", err)
	}
	defer e.lockRun(run)()
	l, err := e.listenEgress(ctx, run, uid)
	if err != nil {
		return nil, fmt.Errorf("listen for the workspace of run %s: %w", run, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.Join(fmt.Errorf("listen for the workspace of run %s: %w", run, net.ErrClosed), l.UnixListener.Close())
	}
	if old := e.outs[run]; old != nil {
		_ = old.UnixListener.Close() // its socket has lost its name already
	}
	e.outs[run] = l
	return l, nil
}

// listenEgress makes the socket under a name of its own and moves it into
// place, so that the workspace finds the old one or the new one, never none.
func (e *Engine) listenEgress(ctx context.Context, run string, uid int) (_ *egressListener, err error) {
	runDir, err := openDirAt(e.runs, run)
	if errors.Is(err, unix.ENOENT) {
		return nil, engine.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer runDir.Close() //nolint:errcheck // a directory, read only
	dir, err := openDirAt(runDir, egressDir)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("it does not reach out: %w", engine.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // a directory, read only
	fd := int(dir.Fd())
	tmp := newPrefix + rand.Text()
	// Through the descriptor: short enough for any state directory.
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd)+"/"+tmp)
	if err != nil {
		return nil, err
	}
	l, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix listener"), ln.Close())
	}
	l.SetUnlinkOnClose(false) // its path is gone by then
	// Until it is the tenant's, nobody but root may write to it, which is what
	// connecting needs.
	err = unix.Fchmodat(fd, tmp, 0o600, 0)
	if err == nil {
		err = unix.Fchownat(fd, tmp, uid, uid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Renameat(fd, tmp, fd, filepath.Base(engine.EgressSocket))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make socket: %w", err), l.Close(), ignoreMissing(unix.Unlinkat(fd, tmp, 0)))
	}
	return &egressListener{UnixListener: l, e: e, run: run, uid: uid}, nil
}

// closeEgress ends the listener of a run, if there is one.
func (e *Engine) closeEgress(run string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.outs[run]; l != nil {
		_ = l.UnixListener.Close()
		delete(e.outs, run)
	}
}

// egressListener accepts what one tenant says in one run.
type egressListener struct {
	*net.UnixListener

	e   *Engine
	run string
	uid int
}

// Accept implements [net.Listener]. Whoever is not the tenant is turned away
// without a word.
func (l *egressListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		err = checkPeer(c, l.uid)
		if err == nil {
			return c, nil
		}
		l.e.log.Warn("a stranger at a workspace's socket was turned away", slog.String("run", l.run), slog.Any("error", err))
		_ = c.Close()
	}
}

// Close implements [net.Listener].
func (l *egressListener) Close() error {
	l.e.mu.Lock()
	if l.e.outs[l.run] == l {
		delete(l.e.outs, l.run)
	}
	l.e.mu.Unlock()
	return l.UnixListener.Close()
}

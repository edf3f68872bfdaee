package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// Dial implements [engine.Engine]. The tenant owns the directory in which the
// agent's socket lies, so everything in it is what a tenant wants it to be: a
// link to Docker's own socket, for one. The socket is opened without following
// links, looked at through that same descriptor, connected through it, and the
// process at its other end must be the tenant's.
//
// [engine.ErrUnavailable] means that the agent does not listen (yet).
func (e *Engine) Dial(ctx context.Context, run string, uid int, network, addr string) (net.Conn, error) {
	if err := errors.Join(engine.CheckID("run", run), engine.CheckUID(uid), engine.CheckDial(network, addr)); err != nil {
		return nil, fmt.Errorf("dial workspace: %w", err)
	}
	conn, err := e.dialAgent(ctx, run, uid)
	if err != nil {
		return nil, fmt.Errorf("dial workspace of run %s: %w", run, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetWriteDeadline(deadline)
	}
	if err == nil {
		_, err = conn.Write([]byte("DIAL " + network + " " + addr + "\n"))
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial workspace of run %s: %w: %w", run, engine.ErrUnavailable, err), conn.Close())
	}
	return conn, nil
}

// dialAgent connects to the agent of a run.
func (e *Engine) dialAgent(ctx context.Context, run string, uid int) (*net.UnixConn, error) {
	sock, err := e.openSocket(run, uid)
	if err != nil {
		return nil, err
	}
	defer sock.Close() //nolint:errcheck // a path descriptor
	// The path of an open descriptor is short enough for any state directory
	// (socket addresses end at 108 bytes) and cannot be exchanged.
	conn, err := connectUnix(ctx, "/proc/self/fd/"+strconv.Itoa(int(sock.Fd())))
	if err != nil {
		return nil, err
	}
	if err := checkPeer(conn, uid); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// openSocket returns the agent's socket as a path descriptor, after making sure
// that it is a socket of the tenant's in the directory of this run.
func (e *Engine) openSocket(run string, uid int) (*os.File, error) {
	const pathOnly = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(e.runs.Fd()), run, pathOnly|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, engine.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open run directory: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // a path descriptor
	dir, err := unix.Openat(fd, sockDir, pathOnly|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket directory: %w", err)
	}
	defer unix.Close(dir) //nolint:errcheck // a path descriptor
	sock, err := unix.Openat(dir, filepath.Base(engine.AgentSocket), pathOnly, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: the agent does not listen yet", engine.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: open: %w", engine.ErrHostile, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(sock, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("look at socket: %w", err), unix.Close(sock))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != uid {
		return nil, errors.Join(fmt.Errorf("%w: mode %o, owner %d, want a socket of %d", engine.ErrHostile, st.Mode, st.Uid, uid), unix.Close(sock))
	}
	return os.NewFile(uintptr(sock), "agent.sock"), nil
}

// connectUnix connects, and goes on trying while the backlog is full, which is
// a burst, or a tenant who does not accept: the context decides how long.
func connectUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	var dialer net.Dialer
	wait := time.NewTicker(5 * time.Millisecond)
	defer wait.Stop()
	for {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			unixConn, ok := conn.(*net.UnixConn)
			if !ok {
				return nil, errors.Join(errors.New("not a Unix connection"), conn.Close())
			}
			return unixConn, nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w: the agent does not answer: %w", engine.ErrUnavailable, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the agent accepts no connection: %w", engine.ErrUnavailable, ctx.Err())
		case <-wait.C:
		}
	}
}

// checkPeer makes sure that the process that listens is the tenant's.
func checkPeer(conn *net.UnixConn, uid int) error {
	cred, err := peerOf(conn)
	if err != nil {
		return err
	}
	if int(cred.Uid) != uid {
		return fmt.Errorf("%w: its process runs as %d, want %d", engine.ErrHostile, cred.Uid, uid)
	}
	return nil
}

// peerOf returns who listens at the other end of a connection.
func peerOf(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask for the peer: %w", err)
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("ask for the peer: %w", err)
	}
	return cred, nil
}

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxConns    = 1024
	lineTimeout = 5 * time.Second
)

// A server answers on the workspace's Unix socket.
type server struct {
	ln      *net.UnixListener
	version string
	self    string   // the socket's own path: dialling it would only be a loop
	allowed []uint32 // peers that may ask
	bufs    *buffers
	people  *sessions // nil: nobody is let in

	wg    sync.WaitGroup
	mu    sync.Mutex // guards conns and ended
	conns map[*net.UnixConn]struct{}
	ended bool
}

// listen makes the socket, 0600. A socket that an earlier run left is
// removed; anything else in its place is an error.
func listen(path, version string) (*server, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is in the way and is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}
	// The mask makes the socket private from its first moment. It is the
	// process's, and put back so that the tenant's files keep their modes.
	old := unix.Umask(0o177)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	return &server{
		ln: ln, version: version, self: path, allowed: allowedPeers(),
		bufs: newBuffers(), conns: map[*net.UnixConn]struct{}{},
	}, nil
}

// serve accepts until close. Past maxConns it closes new connections at once:
// a client that sees EOF knows, one that waits in the backlog does not.
func (s *server) serve(ctx context.Context) {
	if !s.begin() {
		return
	}
	defer s.wg.Done()
	for {
		c, err := s.ln.AcceptUnix()
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
		if !s.track(c) {
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.forget(c)
			s.handle(ctx, c)
		})
	}
}

// begin counts the accepting goroutine, unless close came first: close waits
// for everything that was counted before it set ended.
func (s *server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.wg.Add(1)
	return true
}

func (s *server) track(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.conns) >= maxConns {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) forget(c *net.UnixConn) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// close stops listening, cuts every connection and waits for all goroutines.
func (s *server) close() {
	_ = s.ln.Close()
	s.mu.Lock()
	s.ended = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// handle serves one connection. A refusal has no words: the connection is
// closed, and the server, which knows what it asked for, finds them.
func (s *server) handle(ctx context.Context, c *net.UnixConn) {
	uid, err := peerUID(c)
	if err != nil || !mayAsk(s.allowed, uid) {
		return
	}
	line, early, err := readLine(c)
	if err != nil {
		return
	}
	req, err := parseRequest(line)
	if err != nil {
		return
	}
	if req.ping {
		_, _ = fmt.Fprintf(c, "PONG %s\n", s.version)
		return
	}
	if req.verb != "" {
		if s.people != nil {
			s.people.answer(ctx, c, req, early)
		}
		return
	}
	if req.dial.network == "unix" && req.dial.addrs[0] == s.self {
		return
	}
	t, err := req.dial.connect(ctx)
	if err != nil {
		return
	}
	defer t.Close() //nolint:errcheck // the tunnel has ended
	s.bufs.tunnel(c, t, early)
}

// readLine reads the request line, without its newline, and returns what came
// after it in the same breath. It waits lineTimeout at most.
func readLine(c net.Conn) (line string, early []byte, err error) {
	if err := c.SetReadDeadline(time.Now().Add(lineTimeout)); err != nil {
		return "", nil, err
	}
	buf := make([]byte, maxLine)
	for n := 0; n < len(buf); {
		m, err := c.Read(buf[n:])
		if i := bytes.IndexByte(buf[n:n+m], '\n'); i >= 0 {
			line, rest := string(buf[:n+i]), buf[n+i+1:n+m]
			if len(rest) > 0 {
				early = bytes.Clone(rest)
			}
			return line, early, c.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return "", nil, err
		}
		n += m
	}
	return "", nil, errors.New("request line too long")
}

// allowedPeers are root and the agent's own user. In a user namespace the
// host's root has no number of its own and shows as the overflow user.
func allowedPeers() []uint32 {
	uids := []uint32{0, uint32(os.Getuid())} //nolint:gosec // a uid fits
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		if f := strings.Fields(string(m)); len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295" {
			uids = append(uids, 65534)
		}
	}
	return uids
}

func mayAsk(allowed []uint32, uid uint32) bool {
	return slices.Contains(allowed, uid)
}

// peerUID returns who opened the other end, as the kernel knows it.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

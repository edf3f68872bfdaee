package agent

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const soon = 10 * time.Second

// newServer serves on a socket in a fresh directory until the test ends.
func newServer(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "agent.sock")
	srv, err := listen(path, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	go srv.serve(t.Context())
	t.Cleanup(srv.close)
	return path
}

func dialAgent(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("write %.40q: %v", text, err)
	}
}

func readAll(t *testing.T, c io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("read: %v (after %.40q)", err, data)
	}
	return string(data)
}

// serveTCP hands every connection to a loopback port to f.
func serveTCP(t *testing.T, f func(*net.TCPConn)) (addr string) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	return ln.Addr().String()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.Close()
}

func TestSocketIsPrivate(t *testing.T) {
	path := newServer(t)
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fi.Mode(), fs.ModeSocket|0o600; got != want {
		t.Errorf("mode of the socket = %v, want %v", got, want)
	}
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: stale}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Close(fd); err != nil { // the file stays
		t.Fatal(err)
	}
	srv, err := listen(stale, "")
	if err != nil {
		t.Fatalf("listen on a stale socket: %v", err)
	}
	srv.close()

	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("thesis"), 0o600); err != nil {
		t.Fatal(err)
	}
	if srv, err := listen(file, ""); err == nil {
		srv.close()
		t.Errorf("listen replaced a file that is no socket")
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "thesis" {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

func TestPing(t *testing.T) {
	c := dialAgent(t, newServer(t))
	send(t, c, "PING\n")
	if got, want := readAll(t, c), "PONG 1.2.3\n"; got != want {
		t.Errorf("PING got %q, want %q", got, want)
	}
}

func TestDialForwards(t *testing.T) {
	path, addr := newServer(t), serveTCP(t, echo)
	t.Run("bytes in the same breath as the line", func(t *testing.T) {
		c := dialAgent(t, path)
		send(t, c, "DIAL tcp "+addr+"\nearly\n")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, want := readAll(t, c), "early\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("line in pieces", func(t *testing.T) {
		c := dialAgent(t, path)
		for _, b := range "DIAL tcp " + addr + "\nx" {
			send(t, c, string(b))
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, want := readAll(t, c), "x"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("to a unix socket, much", func(t *testing.T) {
		ln, err := net.Listen("unix", filepath.Join(filepath.Dir(path), "app.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
		c := dialAgent(t, path)
		send(t, c, "DIAL unix "+ln.Addr().String()+"\n")
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
		go func() {
			_, _ = c.Write(big)
			_ = c.CloseWrite()
		}()
		if got := readAll(t, c); got != string(big) {
			t.Errorf("got %d bytes back, want the same %d", len(got), len(big))
		}
	})
}

// TestHalfClose: a client that has said all it has to say still gets the
// answer, and a server that has finished still hears the client.
func TestHalfClose(t *testing.T) {
	path := newServer(t)
	t.Run("client first", func(t *testing.T) {
		addr := serveTCP(t, func(c *net.TCPConn) {
			asked, _ := io.ReadAll(c) // returns only at the client's half-close
			_, _ = c.Write(append([]byte("you said "), asked...))
			_ = c.Close()
		})
		c := dialAgent(t, path)
		send(t, c, "DIAL tcp "+addr+"\nhello")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, want := readAll(t, c), "you said hello"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("server first", func(t *testing.T) {
		heard := make(chan string, 1)
		addr := serveTCP(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "bye")
			_ = c.CloseWrite()
			data, _ := io.ReadAll(c)
			heard <- string(data)
			_ = c.Close()
		})
		c := dialAgent(t, path)
		send(t, c, "DIAL tcp "+addr+"\n")
		if got, want := readAll(t, c), "bye"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		send(t, c, "one more thing")
		_ = c.Close()
		if got, want := <-heard, "one more thing"; got != want {
			t.Errorf("the server heard %q, want %q", got, want)
		}
	})
}

// TestAbandonedConnectionEnds: the client goes altogether, the program inside
// neither speaks nor closes. Its slot must come back all the same.
func TestAbandonedConnectionEnds(t *testing.T) {
	client, far := unixPair(t), make(chan *net.TCPConn, 1)
	addr := serveTCP(t, func(c *net.TCPConn) { far <- c }) // sits on it
	target, err := target{"tcp", []string{addr}}.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := <-far
	defer server.Close()
	done := make(chan struct{})
	bufs := newBuffers()
	bufs.farewell = 10 * time.Millisecond
	go func() { bufs.tunnel(client[0], target, nil); close(done) }()
	_ = client[1].Close()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatal("the tunnel is still there after the client has gone")
	}
}

// TestHalfOpenClientIsKept is the other half: a client that only finished
// sending is not taken for gone.
func TestHalfOpenClientIsKept(t *testing.T) {
	client := unixPair(t)
	addr := serveTCP(t, func(c *net.TCPConn) {
		_, _ = io.ReadAll(c)
		// Longer than a hang-up takes to be seen.
		deadline := time.Now().Add(200 * time.Millisecond)
		for time.Now().Before(deadline) {
			runtime.Gosched()
		}
		_, _ = io.WriteString(c, "late")
		_ = c.Close()
	})
	target, err := target{"tcp", []string{addr}}.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go newBuffers().tunnel(client[0], target, nil)
	if err := client[1].CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, want := readAll(t, client[1]), "late"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func unixPair(t *testing.T) [2]*net.UnixConn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var pair [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		pair[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return pair
}

// TestRefusalsAreSilent: refused, failed and nonsensical requests end in EOF
// without a byte, and nothing was connected.
func TestRefusalsAreSilent(t *testing.T) {
	path := newServer(t)
	var reached atomic.Int32
	addr := serveTCP(t, func(c *net.TCPConn) { reached.Add(1); _ = c.Close() })
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"DIAL tcp 0.0.0.0:" + port + "\n",
		"DIAL tcp [::ffff:127.0.0.1]:" + port + "\n",
		"DIAL tcp 2130706433:" + port + "\n",
		"DIAL tcp 0177.0.0.1:" + port + "\n",
		"DIAL tcp 127.0.0.1:" + port + "\r\n",
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:" + port + "\r\n\r\n",
		"DIAL tcp 127.0.0.1:1\n",
		"DIAL unix " + path + "\n", // itself
		"DIAL unix /nowhere\n",
		strings.Repeat("A", maxLine) + "DIAL tcp " + addr + "\n",
		"\n",
	} {
		c := dialAgent(t, path)
		send(t, c, line)
		// What was not read when the agent closed shows as a reset.
		if data, err := io.ReadAll(c); len(data) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%.60q got %.40q, %v; want nothing and EOF", line, data, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d refused requests reached the port", n)
	}
}

// TestSlowLineIsCut: a byte now and then does not buy more time.
func TestSlowLineIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := far.Write([]byte("D")); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // the bubble's time
			}
		})
		begin := time.Now()
		_, _, err := readLine(near)
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != lineTimeout {
			t.Errorf("readLine = %v after %v, want a deadline after %v", err, took, lineTimeout)
		}
		_ = near.Close()
		wg.Wait()
	})
}

func TestPeers(t *testing.T) {
	pair := unixPair(t)
	uid, err := peerUID(pair[0])
	if err != nil || uid != uint32(os.Getuid()) {
		t.Errorf("peerUID = %d, %v; want our own %d", uid, err, os.Getuid())
	}
	allowed := []uint32{0, 20001}
	for uid, want := range map[uint32]bool{0: true, 20001: true, 20002: false, 65534: false} {
		if got := mayAsk(allowed, uid); got != want {
			t.Errorf("mayAsk(%v, %d) = %v, want %v", allowed, uid, got, want)
		}
	}
	if got := allowedPeers(); !slices.Contains(got, uint32(os.Getuid())) || !slices.Contains(got, 0) {
		t.Errorf("allowedPeers() = %v, want root and %d in it", got, os.Getuid())
	}
}

// TestManyConnections: a thousand idle connections work, cost little, and one
// beyond the limit is turned away without harm to the rest.
func TestManyConnections(t *testing.T) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if lim.Cur < 5*maxConns { // two ends of two sockets each
		t.Skipf("the limit of open files is %d, this test needs %d", lim.Cur, 5*maxConns)
	}
	path, addr := newServer(t), serveTCP(t, echo)
	conns := make([]*net.UnixConn, maxConns)
	before := inUse()
	for i := range conns {
		conns[i] = dialAgent(t, path)
		send(t, conns[i], "DIAL tcp "+addr+"\n!")
		var b [1]byte
		if _, err := io.ReadFull(conns[i], b[:]); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	// Both ends and the echo server are in this process; their share is small
	// beside forgotten 64 KiB buffers, two per connection, which we are after.
	if per := (int64(inUse()) - int64(before)) / maxConns; per > 96<<10 {
		t.Errorf("%d bytes per idle connection, both ends; want at most %d", per, 96<<10)
	} else {
		t.Logf("%d bytes per idle connection, both ends and echo server", per)
	}
	c := dialAgent(t, path)
	if data, err := io.ReadAll(c); len(data) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection %d got %q, %v; want EOF", maxConns+1, data, err)
	}
	for i, c := range conns {
		send(t, c, "x")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c); got != "x" {
			t.Fatalf("connection %d got %q, want x", i, got)
		}
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkTunnel is bulk transfer through the agent on one machine.
func BenchmarkTunnel(b *testing.B) {
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // b.TempDir can be too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	srv, err := listen(filepath.Join(dir, "s"), "")
	if err != nil {
		b.Fatal(err)
	}
	go srv.serve(b.Context())
	defer srv.close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(c, "DIAL tcp "+ln.Addr().String()+"\n"); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

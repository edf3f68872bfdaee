package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newEgress carries to a socket where nobody listens yet.
func newEgress(t *testing.T) (e *egress, addr, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "egress.sock")
	e, err = listenEgress(egressConfig{Listen: "127.0.0.1:0", Socket: socket, Notice: filepath.Join(dir, "refused")})
	if err != nil {
		t.Fatal(err)
	}
	go e.serve(t.Context())
	t.Cleanup(e.close)
	return e, e.ln.Addr().String(), socket
}

func listenUnix(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(soon))
	return c.(*net.TCPConn)
}

// TestEgressCarriesBytes: whatever they are, both ways, each direction ending
// by itself, and nothing is added or read.
func TestEgressCarriesBytes(t *testing.T) {
	_, addr, socket := newEgress(t)
	l := listenUnix(t, socket)
	said := make(chan []byte, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c) // returns only at the half-close
		said <- b
		_, _ = c.Write([]byte("HTTP/1.1 403 no\r\n\r\n\x00\xff"))
		_ = c.Close()
	}()
	c := dialTCP(t, addr)
	hello := append([]byte("CONNECT evil\n\x00DIAL tcp 10.0.0.1:1\n"), bytes.Repeat([]byte{0xfe}, 1<<20)...)
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "HTTP/1.1 403 no\r\n\r\n\x00\xff" {
		t.Errorf("the workspace heard %q, %v", got, err)
	}
	if b := <-said; !bytes.Equal(b, hello) {
		t.Errorf("the server heard %d bytes, want the same %d", len(b), len(hello))
	}
}

// TestEgressWaitsForTheServer: while the server is being replaced a connection
// waits; another server's socket is found without a restart.
func TestEgressWaitsForTheServer(t *testing.T) {
	_, addr, socket := newEgress(t)
	greet := func(word string) func() {
		l := listenUnix(t, socket)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, word)
				_ = c.Close()
			}
		}()
		return func() { _ = l.Close(); <-done }
	}
	early := dialTCP(t, addr) // nobody listens yet
	stop := greet("first")
	if got, err := io.ReadAll(early); err != nil || string(got) != "first" {
		t.Errorf("a connection from before the server: %q, %v", got, err)
	}
	stop()
	between := dialTCP(t, addr)
	defer greet("second")()
	if got, err := io.ReadAll(between); err != nil || string(got) != "second" {
		t.Errorf("a connection from between two servers: %q, %v", got, err)
	}
}

// TestEgressIsBounded: a program that opens connections without end finds them
// closed, and those that were there go on.
func TestEgressIsBounded(t *testing.T) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if lim.Cur < 6*maxOut {
		t.Skipf("the limit of open files is %d, this test needs %d", lim.Cur, 6*maxOut)
	}
	e, addr, socket := newEgress(t)
	l := listenUnix(t, socket)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	var held []*net.TCPConn
	for range maxOut {
		c := dialTCP(t, addr)
		held = append(held, c)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(dialTCP(t, addr)); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection %d: %q, %v; want the end", maxOut+1, got, err)
	}
	if _, err := held[0].Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(held[0], make([]byte, 1)); err != nil {
		t.Errorf("an older connection: %v", err)
	}
	_ = held[0].Close()
	waitFor(t, "a place to be free", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.conns) < maxOut
	})
	c := dialTCP(t, addr)
	if _, err := c.Write([]byte("z")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("a connection in its place: %v", err)
	}
}

func TestEgressConfig(t *testing.T) {
	good := strings.Replace(goodConfig, `"user"`, `"egress":{"listen":"127.0.0.1:3128","socket":"/opt/bailey/egress/egress.sock"},"user"`, 1)
	if c, err := parseConfig([]byte(good)); err != nil || c.Egress.Listen != "127.0.0.1:3128" {
		t.Fatalf("the documented file gives %+v, %v", c, err)
	}
	for _, bad := range []string{"0.0.0.0:3128", "localhost:3128", "10.0.0.1:3128", "127.0.0.1", ""} {
		if _, err := parseConfig([]byte(strings.Replace(good, "127.0.0.1:3128", bad, 1))); err == nil || !strings.Contains(err.Error(), "egress.listen") {
			t.Errorf("listening on %q: %v", bad, err)
		}
	}
	if _, err := parseConfig([]byte(strings.Replace(good, "/opt/bailey/egress/egress.sock", "egress.sock", 1))); err == nil || !strings.Contains(err.Error(), "egress.socket") {
		t.Errorf("a relative socket: %v", err)
	}
}

// TestARefusalIsShown: what git and curl keep to themselves stands where a
// terminal finds it, and nothing else does: not what a site says, and no
// sequence that would move somebody's cursor.
func TestARefusalIsShown(t *testing.T) {
	e, addr, socket := newEgress(t)
	l := listenUnix(t, socket)
	answer := make(chan string)
	go func() {
		for text := range answer {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}()
	defer close(answer)
	hear := func(text string) string {
		t.Helper()
		answer <- text
		got, err := io.ReadAll(dialTCP(t, addr))
		if err != nil || string(got) != text {
			t.Errorf("%q arrived as %q, %v", text, got, err)
		}
		said, _ := os.ReadFile(e.notice)
		_ = os.Remove(e.notice)
		return string(said)
	}
	if got := hear("HTTP/1.1 403 bailey: x.example.org:443 is not open to class ml\r\nContent-Length: 0\r\n\r\n"); got != "bailey: x.example.org:443 is not open to class ml\n" {
		t.Errorf("a refusal shows as %q", got)
	}
	for _, text := range []string{
		"HTTP/1.1 200 bailey: come in\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n\r\nbailey: x", "\x00\xff", "HTTP/1.1 403 bailey: \x1b[2J\r\n\r\n",
		"HTTP/1.1 403 bailey: " + strings.Repeat("a", 1000) + "\r\n\r\n", "HTTP/1.1 403 bailey: unfinished",
	} {
		if got := hear(text); got != "" {
			t.Errorf("%.60q shows as %q", text, got)
		}
	}
}

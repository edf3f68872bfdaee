package line

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A wire is a connection whose far end is the test: what is sent lies in pieces
// as they were sent, and what is read comes in pieces as they were given.
type wire struct {
	net.Conn // nil: nothing else is asked of it

	mu     sync.Mutex
	sent   [][]byte
	in     [][]byte
	closed bool
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	w.sent = append(w.sent, bytes.Clone(p))
	return len(p), nil
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, w.in[0])
	if w.in[0] = w.in[0][n:]; len(w.in[0]) == 0 {
		w.in = w.in[1:]
	}
	return n, nil
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return nil
}

func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) sizes() (n []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.sent {
		n = append(n, len(p))
	}
	return n
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func write(t *testing.T, c *Conn, n int) {
	t.Helper()
	if m, err := c.Write(make([]byte, n)); m != n || err != nil {
		t.Fatalf("Write of %d: %d, %v", n, m, err)
	}
}

// What the library writes of one packet goes out as one piece, a packet that
// ends with the library's buffer soon, and nothing stays when the connection ends.
func TestWhatIsWritten(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, c *Conn)
		want []int
	}{
		{"a keystroke", func(t *testing.T, c *Conn) { write(t, c, 36) }, []int{36}},
		{"a large packet", func(t *testing.T, c *Conn) { write(t, c, 4096); write(t, c, 28708) }, []int{32804}},
		{"two of them", func(t *testing.T, c *Conn) {
			for range 2 {
				write(t, c, 4096)
				write(t, c, 28708)
			}
		}, []int{32804, 32804}},
		{"a packet that fills the buffer", func(t *testing.T, c *Conn) {
			write(t, c, 4096)
			time.Sleep(2 * linger) // the bubble's time
			write(t, c, 36)
		}, []int{4096, 36}},
		{"corked", func(t *testing.T, c *Conn) {
			c.Cork()
			for range 4 {
				write(t, c, 4096)
				write(t, c, 28708)
			}
			c.Uncork()
		}, []int{4 * 32804}},
		{"more than fits", func(t *testing.T, c *Conn) {
			c.Cork()
			for range 5 {
				write(t, c, 4096)
				write(t, c, 28708)
			}
			c.Uncork()
		}, []int{4 * 32804, 32804}},
		{"corked twice", func(t *testing.T, c *Conn) {
			c.Cork()
			c.Cork()
			write(t, c, 10)
			c.Uncork()
			write(t, c, 11)
			c.Uncork()
		}, []int{21}},
		{"corked, and somebody waits", func(t *testing.T, c *Conn) {
			c.Cork()
			write(t, c, 100)
			time.Sleep(2 * linger) // a window that is full: the writer waits for the client, and the client for this
			write(t, c, 101)
			c.Uncork()
		}, []int{100, 101}},
		{"longer than the buffer", func(t *testing.T, c *Conn) { c.Cork(); write(t, c, 7); write(t, c, many+1); c.Uncork() }, []int{7, many + 1}},
		{"closed at once", func(t *testing.T, c *Conn) { write(t, c, 4096); _ = c.Close() }, []int{4096}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{}
				c := &Conn{Conn: w}
				tt.do(t, c)
				if got := w.sizes(); !equal(got, tt.want) {
					t.Errorf("sent in pieces of %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// An error of what was held back is told by the next write, and nothing is sent
// after it.
func TestAnErrorOfWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{closed: true}
		c := &Conn{Conn: w}
		write(t, c, 4096)
		time.Sleep(2 * linger)
		if _, err := c.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after a failed one: %v", err)
		}
	})
}

// A client's name is heard and still there to be read, whatever comes with it.
func TestOverhear(t *testing.T) {
	for name, in := range map[string][][]byte{
		"a line":           {[]byte("SSH-2.0-x\r\nrest")},
		"in pieces":        {[]byte("SSH"), []byte("-2.0-x\r"), []byte("\n"), []byte("rest")},
		"with much behind": {append([]byte("SSH-2.0-x\r\n"), make([]byte, 9000)...)},
	} {
		all := bytes.Join(in, nil)
		c, version := Overhear(&wire{in: in}, time.Minute)
		got, err := io.ReadAll(c)
		if version != "SSH-2.0-x" || err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: %q, %d bytes of %d, %v", name, version, len(got), len(all), err)
		}
	}
	if _, version := Overhear(&wire{in: [][]byte{bytes.Repeat([]byte("x"), 4096)}}, time.Minute); len(version) != maxVersion {
		t.Errorf("of a line without an end %d bytes are read", len(version))
	}
}

// FuzzConn moves bytes through the connection in any order of reads, writes and
// corks: none is lost, doubled or exchanged.
func FuzzConn(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, 70000)
	f.Add([]byte{5, 1, 1, 1, 1, 6, 2, 0, 3}, 300000)
	f.Fuzz(func(t *testing.T, ops []byte, size int) {
		if len(ops) > 200 || size < 0 || size > 1<<20 {
			return
		}
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 7 >> 3)
		}
		w := &wire{}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%9000+len(w.in)*37%70000)
			w.in, rest = append(w.in, rest[:n]), rest[n:]
		}
		c := &Conn{Conn: w}
		var read, written []byte
		corked := 0
		for i, op := range ops {
			n := []int{1, 4, 4096, 28708, 100, 32 << 10, 4096, 200000}[op%8]
			if op&0x40 != 0 {
				p := make([]byte, n)
				m, err := c.Read(p)
				read = append(read, p[:m]...)
				if err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				continue
			}
			switch op % 16 {
			case 14:
				c.Cork()
				corked++
			case 15:
				if corked > 0 {
					c.Uncork()
					corked--
				}
			default:
				p := bytes.Repeat([]byte{byte(i)}, n)
				written = append(written, p...)
				if m, err := c.Write(p); m != n || err != nil {
					t.Fatal(m, err)
				}
			}
		}
		if !bytes.HasPrefix(data, read) {
			t.Error("what was read is not what came")
		}
		_ = c.Close()
		if got := bytes.Join(w.sent, nil); !bytes.Equal(got, written) {
			t.Errorf("%d bytes written, %d sent, or others", len(written), len(got))
		}
	})
}

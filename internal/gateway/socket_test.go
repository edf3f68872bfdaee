package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	"github.com/baileyhq/bailey/internal/gateway"
)

const kernelPath = "/api/kernels/6f1c/channels"

// echoSocket is a WebSocket that sends back what it gets; to anything else it
// is a mirror.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		mirror(w, r)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"v1.kernel.websocket.jupyter.org"}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(64 << 20)
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if strings.HasPrefix(string(data), "close 4001") {
			_ = c.Close(4001, "as asked")
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}

// socket opens a WebSocket as a real client does, with ada's token.
func (w *world) socket(slug, path string, protocols ...string) (*websocket.Conn, *http.Response, error) {
	w.tb.Helper()
	tr := w.transport(false)
	w.tb.Cleanup(tr.CloseIdleConnections)
	c, res, err := websocket.Dial(w.tb.Context(), w.origin(slug)+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: tr}, Subprotocols: protocols,
		HTTPHeader:      http.Header{"Authorization": {"token bly_" + slug[:3] + "_secret"}},
		CompressionMode: websocket.CompressionContextTakeover, // offered, and never agreed to
	})
	if err == nil {
		c.SetReadLimit(64 << 20)
		w.tb.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, res, err
}

func TestSocketCarriesMessagesOfAllSizes(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	c, res, err := w.socket(adaSlug, kernelPath, "v1.kernel.websocket.jupyter.org")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Subprotocol(); got != "v1.kernel.websocket.jupyter.org" {
		t.Errorf("subprotocol = %q", got)
	}
	if got := res.Header["Sec-Websocket-Extensions"]; len(got) != 0 {
		t.Errorf("extensions = %q, want none", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// Sizes around every buffer on the way: a relay that waits for more when
	// there is no more stands still at one of them.
	for _, size := range []int{0, 1, 125, 126, 498, 504, 505, 506, 510, 511, 512, 513, 1020, 1024, 1025, 4096, 16384, 16385, 32768, 32769, 65535, 65536, 200_000, 5 << 20} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		if err := c.Write(ctx, websocket.MessageBinary, data); err != nil {
			t.Fatalf("send %d bytes: %v", size, err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, data) {
			t.Fatalf("echo of %d bytes: %v, %d bytes, %v", size, kind, len(got), err)
		}
	}
	if err := c.Ping(contextReading(ctx, c)); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// contextReading keeps a reader on the connection, which pongs need.
func contextReading(ctx context.Context, c *websocket.Conn) context.Context {
	return c.CloseRead(ctx)
}

func TestSocketCloseCodesPassBothWays(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	c, _, err := w.socket(adaSlug, kernelPath)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Write(t.Context(), websocket.MessageText, []byte("close 4001"))
	_, _, err = c.Read(t.Context())
	if got, ok := errors.AsType[websocket.CloseError](err); !ok || got.Code != 4001 || got.Reason != "as asked" {
		t.Errorf("the workspace closes with 4001, the client sees %v", err)
	}

	seen := make(chan websocket.StatusCode, 1)
	w.rooms.stop(adaSlug)
	w.rooms.start(adaSlug, w.ada, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		_, _, err = c.Read(r.Context())
		seen <- websocket.CloseStatus(err)
	}))
	if c, _, err = w.socket(adaSlug, kernelPath); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(4002, "bye")
	if got := <-seen; got != 4002 {
		t.Errorf("the client closes with 4002, the workspace sees %d", got)
	}
}

// A script is what a raw upstream does with one connection after it has read
// the handshake.
type script func(c net.Conn, br *bufio.Reader, r *http.Request)

// scripted makes ada's workspace follow f for every connection.
func (w *world) scripted(f script) *room {
	ln := w.rooms.listen(adaSlug)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				f(c, br, r)
			}()
		}
	}()
	return w.rooms.startAt(adaSlug, w.ada, ln, func() {})
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

// rawSocket opens a WebSocket by hand and returns what follows the 101.
func (w *world) rawSocket(extra string, headers ...string) (net.Conn, *bufio.Reader) {
	w.tb.Helper()
	c := w.dial(adaSlug)
	text := handshake(w.host(adaSlug), kernelPath, append(headers, "Authorization: token bly_ada_secret")...)
	if _, err := io.WriteString(c, text+extra); err != nil {
		w.tb.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		body := ""
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			body = string(b)
		}
		w.tb.Fatalf("handshake: %v %v %s", res, err, body)
	}
	return c, br
}

func masked(op ws.OpCode, fin bool, payload string) string {
	var b bytes.Buffer
	f := ws.MaskFrameInPlace(ws.NewFrame(op, fin, []byte(payload)))
	_ = ws.WriteFrame(&b, f)
	return b.String()
}

func plain(op ws.OpCode, payload string) string {
	var b bytes.Buffer
	_ = ws.WriteFrame(&b, ws.NewFrame(op, true, []byte(payload)))
	return b.String()
}

// Frames arrive as they were sent: fragments stay fragments, control frames
// stay between them, and masks are kept.
func TestSocketKeepsFrames(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	sent := masked(ws.OpText, false, "first ") + masked(ws.OpPing, true, "still there?") + masked(ws.OpContinuation, true, "second") +
		masked(ws.OpBinary, true, strings.Repeat("x", 70_000)) + masked(ws.OpClose, true, "\x03\xe8")
	got := make(chan string, 1)
	w.scripted(func(c net.Conn, br *bufio.Reader, _ *http.Request) {
		_, _ = io.WriteString(c, switching+"\r\n"+plain(ws.OpText, "early")) // a frame right behind the 101
		b := make([]byte, len(sent))
		_, _ = io.ReadFull(br, b)
		got <- string(b)
		_, _ = io.WriteString(c, plain(ws.OpPong, "still there?"))
	})
	_, br := w.rawSocket(sent) // frames right behind the handshake
	if s := <-got; s != sent {
		t.Errorf("the workspace saw other bytes than were sent")
	}
	want := plain(ws.OpText, "early") + plain(ws.OpPong, "still there?")
	b := make([]byte, len(want))
	if _, err := io.ReadFull(br, b); err != nil || string(b) != want {
		t.Errorf("the client saw %q, %v, want %q", b, err, want)
	}
}

// What a client offers of sub-protocols goes upstream exactly, and nothing
// about extensions does.
func TestSocketHandshakeUpstream(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	heads := make(chan http.Header, 1)
	hosts := make(chan string, 4)
	w.scripted(func(c net.Conn, _ *bufio.Reader, r *http.Request) {
		heads <- r.Header
		hosts <- r.Host + " " + r.RequestURI
		_, _ = io.WriteString(c, switching+"\r\n")
	})
	w.rawSocket("", "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org, x", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "Origin: "+w.origin(adaSlug))
	h := <-heads
	for name, want := range map[string]string{
		"Sec-Websocket-Protocol": "v1.kernel.websocket.jupyter.org, x", "Sec-Websocket-Extensions": "", "Sec-Websocket-Version": "13",
		"Origin": "http://127.0.0.1:8888", "Authorization": "token " + w.rooms.get(adaSlug).route.Token.Reveal(),
	} {
		if got := h.Get(name); got != want {
			t.Errorf("upstream %s = %q, want %q", name, got, want)
		}
	}
	if got := <-hosts; got != "127.0.0.1:8888 "+kernelPath {
		t.Errorf("upstream saw %q", got)
	}
	w.rawSocket("")
	if h = <-heads; h["Sec-Websocket-Protocol"] != nil || h["Origin"] != nil {
		t.Errorf("upstream saw protocol %q and origin %q though the client sent neither", h["Sec-Websocket-Protocol"], h["Origin"])
	}
	w.rawSocket("", "Sec-WebSocket-Protocol: a,b", "Sec-WebSocket-Protocol: v1.token.websocket.jupyter.org.bly_ada_secret, c")
	if h = <-heads; strings.Join(h["Sec-Websocket-Protocol"], "|") != "a,b|c" {
		t.Errorf("upstream saw protocols %q, want them without our token", h["Sec-Websocket-Protocol"])
	}
	// A token client's foreign origin is not passed off as the workspace's own.
	w.rawSocket("", "Origin: https://evil.example")
	if h = <-heads; h["Origin"] != nil {
		t.Errorf("upstream saw origin %q of a foreign page", h["Origin"])
	}
}

// A workspace that answers a handshake with anything but a right 101 gets no
// tunnel, and its connection is closed.
func TestSocketBadAnswers(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	for name, tt := range map[string]struct {
		answer string
		want   int
	}{
		"nothing":                   {"", 503},
		"garbage":                   {"hello\r\n\r\n", 503},
		"half a head":               {"HTTP/1.1 101 Switching", 503},
		"wrong accept":              {strings.Replace(switching, "s3pP", "xxxx", 1) + "\r\n", 503},
		"no accept":                 {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 503},
		"other upgrade":             {strings.Replace(switching, "websocket", "h2c", 1) + "\r\n", 503},
		"a protocol nobody asked":   {switching + "Sec-WebSocket-Protocol: evil\r\n\r\n", 503},
		"an extension nobody asked": {switching + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 503},
		"endless head":              {"HTTP/1.1 101 X\r\nX: " + strings.Repeat("a", 1<<20), 503},
		"informational for ever":    {strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-Bailey-User: x\r\n\r\n", 50), 503},
		"one informational, then":   {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404},
		"not found":                 {"HTTP/1.1 404 Not Found\r\nSet-Cookie: __Host-bailey=x\r\nServer: y\r\nContent-Length: 9\r\n\r\nnot there", 404},
		"forbidden, chunked":        {"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n", 403},
		"a page without end":        {"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 3<<20), 200},
	} {
		t.Run(name, func(t *testing.T) {
			room := w.scripted(func(c net.Conn, _ *bufio.Reader, _ *http.Request) { _, _ = io.WriteString(c, tt.answer) })
			res, body := w.raw(adaSlug, handshake(w.host(adaSlug), kernelPath, "Authorization: token bly_ada_secret"))
			if res.StatusCode != tt.want {
				t.Errorf("handshake answered %s = %d %.200s, want %d", name, res.StatusCode, body, tt.want)
			}
			if res.Header.Get("Set-Cookie") != "" || res.Header.Get("Server") != "" || res.Header.Get("X-Bailey-User") != "" {
				t.Errorf("headers that should stay inside came through: %v", res.Header)
			}
			if len(body) > 1<<20 {
				t.Errorf("%d bytes of a failed handshake came through", len(body))
			}
			eventually(t, "the connection to the workspace is closed", func() bool { return room.conns.Load() == 0 })
		})
	}
	if s := w.gateway.Tunnels(); s.Open != 0 || s.Opened != 0 {
		t.Errorf("tunnels = %+v, want none", s)
	}
}

func TestSocketToADeadWorkspace(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	room := w.rooms.get(adaSlug)
	room.close() // nobody listens, but the run goes on
	for range 3 {
		res, body := w.raw(adaSlug, handshake(w.host(adaSlug), kernelPath, "Authorization: token bly_ada_secret"))
		if res.StatusCode != 503 {
			t.Errorf("a dead workspace = %d %s, want 503", res.StatusCode, body)
		}
	}
	if res, body := w.ask("GET", w.origin(adaSlug)+"/", nil, "Authorization: token bly_ada_secret"); res.StatusCode != 503 || !strings.Contains(body, "does not answer") {
		t.Errorf("a page of a dead workspace = %d %s, want 503", res.StatusCode, body)
	}
	if n := room.conns.Load(); n != 0 {
		t.Errorf("connections left = %d", n)
	}
}

func TestSocketHandshakesThatAreNone(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	host, auth := w.host(adaSlug), "Authorization: token bly_ada_secret\r\n"
	good := "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, text := range map[string]string{
		"another protocol":   "GET / HTTP/1.1\r\n" + strings.Replace(good, "websocket", "h2c", 1),
		"two protocols":      "GET / HTTP/1.1\r\n" + strings.Replace(good, "websocket", "websocket, h2c", 1),
		"two upgrade lines":  "GET / HTTP/1.1\r\nUpgrade: tcp\r\n" + good,
		"POST":               "POST / HTTP/1.1\r\nContent-Length: 0\r\n" + good,
		"HTTP/1.0":           "GET / HTTP/1.0\r\n" + good,
		"a body":             "GET / HTTP/1.1\r\nContent-Length: 1\r\n" + good,
		"a chunked body":     "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + good,
		"version 8":          "GET / HTTP/1.1\r\n" + strings.Replace(good, "13", "8", 1),
		"no version":         "GET / HTTP/1.1\r\n" + strings.Replace(good, "Sec-WebSocket-Version: 13\r\n", "", 1),
		"no key":             "GET / HTTP/1.1\r\n" + strings.Replace(good, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 1),
		"two keys":           "GET / HTTP/1.1\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + good,
		"short key":          "GET / HTTP/1.1\r\n" + strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1),
		"key without base64": "GET / HTTP/1.1\r\n" + strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "????????????????????????", 1),
	} {
		before := w.rooms.get(adaSlug).dials.Load()
		res, body := w.raw(adaSlug, text+auth+"Host: "+host+"\r\n\r\n0\r\n\r\n")
		if res.StatusCode != 422 {
			t.Errorf("handshake with %s = %d %s, want 422", name, res.StatusCode, body)
		}
		if strings.Contains(name, "version") && res.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("handshake with %s is not told the right version", name)
		}
		if w.rooms.get(adaSlug).dials.Load() != before {
			t.Errorf("handshake with %s reached the workspace", name)
		}
	}
	// Without "Connection: upgrade" an Upgrade header is of no meaning.
	if res, body := w.raw(adaSlug, "GET / HTTP/1.1\r\nUpgrade: h2c\r\n"+auth+"Host: "+host+"\r\n\r\n"); res.StatusCode != 200 || strings.Contains(body, "h2c") {
		t.Errorf("a lone Upgrade header = %d %s, want it dropped", res.StatusCode, body)
	}
}

// readClose reads frames until a close frame, and returns its code.
func readClose(t *testing.T, br *bufio.Reader) (code int, before string) {
	t.Helper()
	for {
		f, err := ws.ReadFrame(br)
		if err != nil {
			return 0, before
		}
		if f.Header.OpCode == ws.OpClose {
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("after the close frame: %q, %v, want the end", rest, err)
			}
			return int(binary.BigEndian.Uint16(f.Payload)), before
		}
		before += string(f.Payload)
	}
}

// Attack 25: an open WebSocket dies with its session, its run and the server,
// and says why.
func TestAttack25SocketsEndWithWhatAllowedThem(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(t *testing.T, w *world)
		want int
	}{
		"session": {func(_ *testing.T, w *world) { w.identity.revoke("t-ada") }, 1008},
		"run":     {func(_ *testing.T, w *world) { close(w.rooms.get(adaSlug).done) }, 1001},
		"server": {func(t *testing.T, w *world) {
			if err := w.gateway.Drain(t.Context()); err != nil {
				t.Errorf("Drain: %v", err)
			}
		}, 1001},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.HandlerFunc(echoSocket), nil)
			room := w.rooms.get(adaSlug)
			bob, _, err := w.socket(bobSlug, kernelPath)
			if err != nil {
				t.Fatal(err)
			}
			_, br := w.rawSocket("")
			_, br2 := w.rawSocket("")
			eventually(t, "three tunnels are open", func() bool { return w.gateway.Tunnels().Open == 3 })
			done := make(chan struct{})
			go func() { defer close(done); tt.end(t, w) }()
			begin := time.Now()
			for _, r := range []*bufio.Reader{br, br2} {
				if code, _ := readClose(t, r); code != tt.want {
					t.Errorf("close code = %d, want %d", code, tt.want)
				}
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("closed %v after the end of its %s, want at once", took, name)
			}
			eventually(t, "connections to the workspace are closed", func() bool { return room.conns.Load() == 0 })
			<-done
			if name == "server" {
				if res, body := w.raw(bobSlug, handshake(w.host(bobSlug), kernelPath, "Authorization: token bly_bob_secret")); res.StatusCode != 503 {
					t.Errorf("a new upgrade while draining = %d %s, want 503", res.StatusCode, body)
				}
				return
			}
			// Bob's is none of it.
			if err := bob.Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
				t.Errorf("bob's socket: %v", err)
			}
			if _, got, err := bob.Read(t.Context()); err != nil || string(got) != "still here" {
				t.Errorf("bob's socket: %q, %v", got, err)
			}
		})
	}
}

// A close frame is never put into the middle of another.
func TestSocketClosesBetweenFrames(t *testing.T) {
	for name, rest := range map[string]string{"the frame is finished": strings.Repeat("b", 1990), "the frame is never finished": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.NotFoundHandler(), nil)
			goOn := make(chan struct{})
			w.scripted(func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
				_, _ = io.WriteString(c, switching+"\r\n\x82\x7e\x07\xd0"+strings.Repeat("a", 10)) // 2000 bytes announced
				<-goOn
				if rest != "" {
					_, _ = io.WriteString(c, rest+plain(ws.OpText, "one more that must not come"))
				}
				_, _ = io.Copy(io.Discard, c)
			})
			_, br := w.rawSocket("")
			if _, err := br.Peek(14); err != nil {
				t.Fatal(err)
			}
			w.identity.revoke("t-ada")
			time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
			if rest == "" {
				got, _ := io.ReadAll(br)
				if string(got) != "\x82\x7e\x07\xd0"+strings.Repeat("a", 10) {
					t.Errorf("the client got %q, want half a frame and the end", got)
				}
				return
			}
			code, before := readClose(t, br)
			if code != 1008 || before != strings.Repeat("a", 10)+rest {
				t.Errorf("the client got %d bytes and code %d, want the whole frame and 1008", len(before), code)
			}
		})
	}
}

// A client that takes nothing cannot hold up the end.
func TestDrainCutsOffWhoDoesNotListen(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	w.scripted(func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
		_, _ = io.WriteString(c, switching+"\r\n")
		for {
			if _, err := io.WriteString(c, plain(ws.OpBinary, strings.Repeat("x", 60_000))); err != nil {
				return
			}
		}
	})
	c := w.dial(adaSlug)
	_, _ = io.WriteString(c, handshake(w.host(adaSlug), kernelPath, "Authorization: token bly_ada_secret"))
	eventually(t, "the tunnel is open", func() bool { return w.gateway.Tunnels().Open == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := w.gateway.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain = %v, want the context's error", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Drain took %v", took)
	}
	if n := w.gateway.Tunnels().Open; n != 0 {
		t.Errorf("tunnels after Drain = %d", n)
	}
}

// One side may finish sending and still hear the rest.
func TestSocketHalfClose(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		w := newWorld(t, http.NotFoundHandler(), nil)
		room := w.scripted(func(c net.Conn, br *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(c, switching+"\r\n")
			got, _ := io.ReadAll(br) // until the client's end
			_, _ = io.WriteString(c, plain(ws.OpText, fmt.Sprintf("%d bytes", len(got))))
		})
		c, br := w.rawSocket("hello")
		if err := c.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(br)
		if want := plain(ws.OpText, "5 bytes"); err != nil || string(all) != want {
			t.Errorf("after its own end the client got %q, %v, want %q", all, err, want)
		}
		eventually(t, "all is closed", func() bool { return room.conns.Load() == 0 && w.gateway.Tunnels().Open == 0 })
	})
	t.Run("workspace", func(t *testing.T) {
		w := newWorld(t, http.NotFoundHandler(), nil)
		got := make(chan string, 1)
		room := w.scripted(func(c net.Conn, br *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(c, switching+"\r\n"+plain(ws.OpText, "last"))
			_ = c.(*net.UnixConn).CloseWrite()
			b := make([]byte, 4)
			_, _ = io.ReadFull(br, b)
			got <- string(b)
		})
		c, br := w.rawSocket("")
		if all, err := io.ReadAll(br); err != nil || string(all) != plain(ws.OpText, "last") {
			t.Errorf("the client got %q, %v", all, err)
		}
		_, _ = io.WriteString(c, "more")
		if s := <-got; s != "more" {
			t.Errorf("after its own end the workspace got %q", s)
		}
		_ = c.Close()
		eventually(t, "all is closed", func() bool { return room.conns.Load() == 0 && w.gateway.Tunnels().Open == 0 })
	})
}

// Attack 25: one user cannot take all the tunnels.
func TestAttack25TunnelLimits(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), func(c *gateway.Config) {
		c.Limits = gateway.Limits{TunnelsPerWorkspace: 2, TunnelsPerUser: 3}
	})
	w.rooms.start("ada-2222", w.ada, http.HandlerFunc(echoSocket))
	open := func(slug string) (*websocket.Conn, int) {
		t.Helper()
		c, res, err := w.socket(slug, kernelPath)
		if err != nil {
			return nil, res.StatusCode
		}
		return c, 101
	}
	first, got := open(adaSlug)
	for i, tt := range []struct {
		slug string
		want int
	}{{adaSlug, 101}, {adaSlug, 429}, {"ada-2222", 101}, {"ada-2222", 429}, {bobSlug, 101}} {
		if _, status := open(tt.slug); got != 101 || status != tt.want {
			t.Errorf("tunnel %d, to %s = %d, want %d", i+2, tt.slug, status, tt.want)
		}
	}
	eventually(t, "four tunnels are open", func() bool { return w.gateway.Tunnels() == gateway.TunnelStats{Open: 4, Opened: 4, Refused: 2} })
	_ = first.CloseNow()
	eventually(t, "a closed tunnel makes room", func() bool { return w.gateway.Tunnels().Open == 3 })
	if _, status := open(adaSlug); status != 101 {
		t.Errorf("tunnel after one was closed = %d, want 101", status)
	}
}

// Attack 25: frames that are none go through untouched and harm nobody.
func TestAttack25OddFrames(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	for name, bad := range map[string]string{
		"length 2^63":             "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04data",
		"unmasked":                "\x81\x05hello",
		"reserved bits":           "\xf1\x85\x01\x02\x03\x04hello",
		"reserved opcode":         "\x83\x85\x01\x02\x03\x04hello",
		"fragmented control":      "\x09\x85\x01\x02\x03\x04hello",
		"oversized ping":          "\x89\xfe\x04\x00\x01\x02\x03\x04" + strings.Repeat("x", 1024),
		"continuation first":      "\x80\x85\x01\x02\x03\x04hello",
		"half a head":             "\x81",
		"no WebSocket at all":     "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"zeroes":                  strings.Repeat("\x00", 5000),
		"empty frames for a page": strings.Repeat("\x81\x80\x01\x02\x03\x04", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			w.scripted(func(c net.Conn, br *bufio.Reader, r *http.Request) {
				_, _ = io.WriteString(c, switching+"\r\n")
				b := make([]byte, len(bad))
				_, _ = io.ReadFull(br, b)
				got <- string(b)
			})
			c, _ := w.rawSocket("")
			_, _ = io.WriteString(c, bad)
			if s := <-got; s != bad {
				t.Errorf("the workspace saw %q, want it as it was sent", s)
			}
			_ = c.Close()
		})
	}
	eventually(t, "all is closed", func() bool { return w.gateway.Tunnels().Open == 0 })
	if n := w.rooms.touches(adaSlug); n > 1 {
		t.Errorf("frames that are none counted %d times as a person's input", n)
	}
}

// Nothing is left behind: no goroutine, no connection, no place taken.
func TestSocketsLeaveNothingBehind(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	cycle := func() {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				c, _, err := w.socket(adaSlug, kernelPath)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Write(t.Context(), websocket.MessageBinary, make([]byte, i*1000))
				_, _, _ = c.Read(t.Context())
				switch i % 3 {
				case 0:
					_ = c.Close(websocket.StatusNormalClosure, "")
				default:
					_ = c.CloseNow()
				}
			})
		}
		wg.Wait()
		eventually(t, "tunnels and connections are closed", func() bool {
			return w.gateway.Tunnels().Open == 0 && w.rooms.get(adaSlug).conns.Load() == 0
		})
	}
	cycle()
	var base int
	eventually(t, "goroutines settle", func() bool {
		n := runtime.NumGoroutine()
		settled := n == base
		base = n
		return settled
	})
	for range 3 {
		cycle()
	}
	eventually(t, fmt.Sprintf("goroutines are back to about %d", base), func() bool { return runtime.NumGoroutine() <= base+5 })
}

// While a person works in a workspace it is touched; while only its pages
// talk, it is not.
func TestActivity(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	w := newWorld(t, http.HandlerFunc(echoSocket), func(c *gateway.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); now = now.Add(time.Minute); return now }
	})
	kernelMessage := func(msgType string) string {
		return `{"buffers":[],"channel":"shell","content":{"code":"x = '\"msg_type\": \"execute_request\"'"},"header":{"msg_id":"1","msg_type":"` + msgType + `"},"parent_header":{}}`
	}
	for _, tt := range []struct {
		name, path string
		send       string // a text message; empty: an HTTP request
		method     string
		want       bool
	}{
		{"a cell is run", kernelPath, kernelMessage("execute_request"), "", true},
		{"a completion", kernelPath, kernelMessage("complete_request"), "", true},
		{"a page asks what kernel it is", kernelPath, kernelMessage("kernel_info_request"), "", false},
		{"a widget talks", kernelPath, kernelMessage("comm_msg"), "", false},
		{"a key in a terminal", "/terminals/websocket/1", `["stdin", "l"]`, "", true},
		{"a terminal is resized", "/terminals/websocket/1", `["set_size", 24, 80]`, "", false},
		{"an app of the workspace", "/proxy/8000/ws", "anything", "", true},
		{"Jupyter's events", "/api/events/subscribe", "anything", "", false},
		{"a page is loaded", "/lab", "", "GET", false},
		{"a list is polled", "/api/kernels", "", "GET", false},
		{"a file is saved", "/api/contents/a.ipynb", "", "PUT", true},
		{"a kernel is restarted", "/api/kernels/1/restart", "", "POST", true},
		{"a terminal is opened", "/api/terminals", "", "POST", true},
		{"the layout is saved", "/lab/api/workspaces/default", "", "PUT", false},
		{"settings are saved", "/lab/api/settings/x", "", "PUT", false},
		{"a session is renamed", "/api/sessions/1", "", "PATCH", false},
		{"a policy report", "/api/security/csp-report", "", "POST", false},
	} {
		before := w.rooms.touches(adaSlug)
		if tt.send == "" {
			w.ask(tt.method, w.origin(adaSlug)+tt.path, nil, "Authorization: token bly_ada_secret")
		} else {
			c, _, err := w.socket(adaSlug, tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Write(t.Context(), websocket.MessageText, []byte(tt.send)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Read(t.Context()); err != nil { // the echo: it has been seen
				t.Fatal(err)
			}
			if err := c.Ping(c.CloseRead(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.rooms.touches(adaSlug) - before; got != map[bool]int{true: 1}[tt.want] {
			t.Errorf("%s: touched %d times, want %v", tt.name, got, tt.want)
		}
	}
}

// However much a person does, the service hears of it every few seconds only.
func TestActivityIsToldSparingly(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), func(c *gateway.Config) {
		begin := time.Now()
		c.Now = func() time.Time { return begin }
	})
	for range 20 {
		w.ask("PUT", w.origin(adaSlug)+"/api/contents/a", nil, "Authorization: token bly_ada_secret")
	}
	if n := w.rooms.touches(adaSlug); n != 1 {
		t.Errorf("touches for 20 requests at one time = %d, want 1", n)
	}
}

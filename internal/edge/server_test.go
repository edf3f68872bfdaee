package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
)

// A house is a Server on loopback, in mode localhost, and how to reach it.
type house struct {
	*Server
	origins *Origins
	tls     *tls.Config
	log     *syncBuffer
}

func listen(tb testing.TB) (net.Listener, int) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return ln, ln.Addr().(*net.TCPAddr).Port
}

func serve(tb testing.TB, h http.Handler, change func(*ServerConfig)) *house {
	tb.Helper()
	ln, port := listen(tb)
	certs := ownCA(tb, CertConfig{})
	log := &syncBuffer{}
	cfg := ServerConfig{
		Listener: ln, Handler: h, Certs: certs,
		Origins: origins(tb, OriginConfig{Mode: "localhost", Port: port}),
		Log:     slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("NewServer: %v", err)
	}
	done := make(chan error)
	go func() { done <- s.Serve() }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			tb.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return &house{Server: s, origins: cfg.Origins, log: log, tls: &tls.Config{RootCAs: poolOf(tb, certs), ServerName: "localhost"}}
}

func (h *house) host(name string) string {
	_, port, _ := net.SplitHostPort(h.Addr().String())
	return net.JoinHostPort(name, port)
}

func (h *house) dial(tb testing.TB, protos ...string) *tls.Conn {
	tb.Helper()
	cfg := h.tls.Clone()
	cfg.NextProtos = protos
	c, err := tls.Dial("tcp", h.Addr().String(), cfg)
	if err != nil {
		tb.Fatalf("dial: %v", err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// raw sends bytes as they are and returns the first answer.
func (h *house) raw(tb testing.TB, text string) (*http.Response, string) {
	tb.Helper()
	c := h.dial(tb)
	go func() { _, _ = io.WriteString(c, text) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		tb.Fatalf("answer to %.80q: %v", text, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// client returns a client whose every host name leads to the house.
func (h *house) client(http2 bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: h.tls.RootCAs},
			ForceAttemptHTTP2: http2,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, h.Addr().String())
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %q %v", r.Method, r.RequestURI, body, err)
}

func TestWhatNoHandlerSees(t *testing.T) {
	seen := make(chan string, 100)
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.RequestURI
		echo(w, r)
	}), nil)
	console, ada := h.host("localhost"), h.host("ada-1f00.localhost")
	get := func(target, host string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	}
	tests := []struct {
		name string
		text string
		want int
	}{
		{"plain", get("/x?q=%2f%00", console), 200},
		{"plain, of a workspace", get("/lab/tree/a%20b?q=1", ada), 200},
		{"encoded slash for Jupyter", get("/api/contents/a%2Fb", ada), 200},
		{"encoded dots for Jupyter", get("/files/%2e%2e/b", ada), 200},
		{"dots for Jupyter", get("/a/../b//c/;d", ada), 200},
		{"encoded slash", get("/workspaces/a%2Fb", console), 400},
		{"encoded dots", get("/workspaces/%2e%2E/admin", console), 400},
		{"encoded backslash", get("/workspaces/%5cadmin", console), 400},
		{"encoded twice", get("/workspaces/%252e%252e/admin", console), 400},
		{"dots", get("/workspaces/../admin", console), 400},
		{"one dot", get("/workspaces/./admin", console), 400},
		{"empty segment", get("//admin", console), 400},
		{"parameter", get("/admin;x=/workspaces", console), 400},
		{"backslash", get("/\\evil.example", console), 400},
		{"backslash, of a workspace", get("/\\evil.example", ada), 400},
		{"NUL, of a workspace", get("/files/a%00.txt", ada), 400},
		{"fragment", get("/a#b", ada), 400},
		{"foreign host", get("/", "evil.example"), 421},
		{"trailing dot", get("/", strings.Replace(ada, "localhost", "localhost.", 1)), 421},
		{"other port", get("/", "localhost:1"), 421},
		{"no host", "GET / HTTP/1.0\r\n\r\n", 421},
		{"two hosts", "GET / HTTP/1.1\r\nHost: " + console + "\r\nHost: " + ada + "\r\n\r\n", 400},
		{"absolute form", get("https://"+console+"/x", ada), 400},
		{"absolute form to a stranger", get("http://evil.example/x", console), 421},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: " + console + "\r\n\r\n", 400},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: " + console + "\r\n\r\n", 405},
		{"CONNECT", "CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: 10.0.0.1:22\r\n\r\n", 405},
		{"folded header", "GET / HTTP/1.1\r\nHost: " + console + "\r\nX-A: b\r\n c\r\n\r\n", 200}, // net/http joins it into one value
		{"space before the colon", "GET / HTTP/1.1\r\nHost : " + console + "\r\n\r\n", 400},
		{"lengths that differ", "POST / HTTP/1.1\r\nHost: " + console + "\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		{"signed length", "POST / HTTP/1.1\r\nHost: " + console + "\r\nContent-Length: +1\r\n\r\na", 400},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: " + console + "\r\nTransfer-Encoding: chunked , identity\r\n\r\n", 501},
		{"coding twice", "POST / HTTP/1.1\r\nHost: " + console + "\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
		{"1 MiB of headers", "GET / HTTP/1.1\r\nHost: " + console + "\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, body := h.raw(t, tt.text)
			if res.StatusCode != tt.want {
				t.Errorf("answer to %.80q = %d %s, want %d", tt.text, res.StatusCode, body, tt.want)
			}
			reached := len(seen) > 0
			for len(seen) > 0 {
				<-seen
			}
			if reached != (tt.want == 200) {
				t.Errorf("%.80q reached the handler: %v", tt.text, reached)
			}
		})
	}
}

// The path goes on to a workspace exactly as it was sent.
func TestWorkspacePathsAreVerbatim(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), nil)
	for _, target := range []string{"/api/contents/a%2Fb%2e%2e", "/a//b/../c", "/%E4%BD%A0?x=%00&y", "/lab/tree/a%5cb"} {
		_, body := h.raw(t, "GET "+target+" HTTP/1.1\r\nHost: "+h.host("ada-1f00.localhost")+"\r\n\r\n")
		if want := "GET " + target + ` "" <nil>`; body != want {
			t.Errorf("handler saw %s, want %s", body, want)
		}
	}
}

// After a request with Transfer-Encoding nothing on the connection counts:
// a proxy in front may have seen other borders than we did.
func TestNoRequestIsSmuggledBehindAChunkedOne(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		echo(w, r)
	}), nil)
	host := h.host("localhost")
	for _, extra := range []string{"Content-Length: 4\r\n", "Content-Length: 400\r\n", ""} {
		mu.Lock()
		seen = nil
		mu.Unlock()
		c := h.dial(t)
		text := "POST /first HTTP/1.1\r\nHost: " + host + "\r\n" + extra + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
			"GET /smuggled HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
		_, _ = io.WriteString(c, text)
		answers, _ := io.ReadAll(c) // until the server closes
		mu.Lock()
		if len(seen) != 1 || seen[0] != "POST /first" {
			t.Errorf("with %q the handler saw %q, want the first request alone", extra, seen)
		}
		mu.Unlock()
		if n := bytes.Count(answers, []byte("HTTP/1.1 ")); n != 1 {
			t.Errorf("with %q there were %d answers, want 1:\n%s", extra, n, answers)
		}
	}
}

// Browsers would open WebSockets over HTTP/2 if we said we could; Go's server
// cannot hand such a stream over.
func TestHTTP2SettingsDoNotOfferExtendedCONNECT(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), nil)
	c := h.dial(t, "h2")
	if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Fatalf("protocol = %q, want h2", got)
	}
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("first frame %x, %v: want SETTINGS", head, err)
	}
	settings := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, settings); err != nil {
		t.Fatal(err)
	}
	streams := uint32(0)
	for s := settings; len(s) >= 6; s = s[6:] {
		id, value := int(s[0])<<8|int(s[1]), uint32(s[2])<<24|uint32(s[3])<<16|uint32(s[4])<<8|uint32(s[5])
		switch id {
		case 3:
			streams = value
		case 8:
			t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL = %d is offered", value)
		}
	}
	if streams != maxStreams {
		t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS = %d, want %d", streams, maxStreams)
	}
}

func TestHTTP2(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), nil)
	client := h.client(true)
	defer client.CloseIdleConnections()
	res, err := client.Post("https://"+h.host("localhost")+"/x", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.ProtoMajor != 2 || string(body) != `POST /x "hello" <nil>` {
		t.Errorf("answer = %s %s", res.Proto, body)
	}
}

// http2Request is a request as HTTP/2 frames, its header fields as they are.
func http2Request(fields ...string) string {
	block := ""
	for _, f := range fields {
		i := strings.Index(f[1:], ":") + 1
		name, value := f[:i], f[i+1:]
		block += "\x00" + string(rune(len(name))) + name + string(rune(len(value))) + value
	}
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + "\x00\x00" + string(rune(len(block))) + "\x01\x05\x00\x00\x00\x01" + block
}

// HTTP/2 can name a host twice, and differently.
func TestHTTP2RequestsThatContradictThemselves(t *testing.T) {
	seen := make(chan string, 10)
	h := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.Path }), nil)
	host := h.host("localhost")
	for _, tt := range []struct {
		name   string
		fields []string
		want   bool
	}{
		{"plain", []string{":method:GET", ":scheme:https", ":path:/plain", ":authority:" + host}, true},
		{"host alone", []string{":method:GET", ":scheme:https", ":path:/alone", "host:" + host}, true},
		{"the same host twice", []string{":method:GET", ":scheme:https", ":path:/twice", ":authority:" + host, "host:" + host}, true},
		{"another host", []string{":method:GET", ":scheme:https", ":path:/other", ":authority:" + host, "host:" + h.host("a.localhost")}, false},
		{"two other hosts", []string{":method:GET", ":scheme:https", ":path:/others", ":authority:" + host, "host:" + host, "host:" + host}, false},
		{"a space in the path", []string{":method:GET", ":scheme:https", ":path:/a b", ":authority:" + host}, false},
		{"an absolute path", []string{":method:GET", ":scheme:https", ":path:https://" + host + "/x", ":authority:" + host}, false},
		{"extended CONNECT", []string{":method:CONNECT", ":protocol:websocket", ":scheme:https", ":path:/ws", ":authority:" + host}, false},
		{"a connection header", []string{":method:GET", ":scheme:https", ":path:/x", ":authority:" + host, "connection:upgrade"}, false},
	} {
		c := h.dial(t, "h2")
		if _, err := io.WriteString(c, http2Request(tt.fields...)); err != nil {
			t.Fatal(err)
		}
		// Until the server's answer to our stream, a HEADERS or RST_STREAM frame.
		for kind := byte(0); kind != 1 && kind != 3; {
			frame := make([]byte, 9)
			if _, err := io.ReadFull(c, frame); err != nil {
				break // it closed the connection, which is an answer too
			}
			kind = frame[3]
			_, _ = io.CopyN(io.Discard, c, int64(frame[0])<<16|int64(frame[1])<<8|int64(frame[2]))
		}
		_ = c.Close()
		if reached := len(seen) > 0; reached != tt.want {
			t.Errorf("%s reached the handler: %v, want %v", tt.name, reached, tt.want)
		}
		for len(seen) > 0 {
			<-seen
		}
	}
}

func TestLoopbackAddressLeadsToTheConsole(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), nil)
	for _, host := range []string{"127.0.0.1", "::1"} {
		res, _ := h.raw(t, "GET /signin?a=b HTTP/1.1\r\nHost: "+h.host(host)+"\r\n\r\n")
		if got, want := res.Header.Get("Location"), h.origins.Console()+"/signin?a=b"; res.StatusCode != 308 || got != want {
			t.Errorf("by %s: %d to %q, want 308 to %q", host, res.StatusCode, got, want)
		}
		res, _ = h.raw(t, "POST /signin HTTP/1.1\r\nContent-Length: 0\r\nHost: "+h.host(host)+"\r\n\r\n")
		if res.StatusCode != 421 {
			t.Errorf("POST by %s = %d, want 421", host, res.StatusCode)
		}
		res, _ = h.raw(t, "GET //evil.example HTTP/1.1\r\nHost: "+h.host(host)+"\r\n\r\n")
		if res.StatusCode != 421 || res.Header.Get("Location") != "" {
			t.Errorf("GET //evil.example by %s = %d to %q, want 421", host, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

// Programs keep their token for the host they were told; the cookies of an
// address belong to every port of it, so they are not taken there.
func TestLoopbackAddressServesTheAPIWithoutCookies(t *testing.T) {
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s cookies=%d token=%q", r.Method, r.URL.Path, len(r.Cookies()), r.Header.Get("Authorization"))
	}), nil)
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, method := range []string{"GET", "POST"} {
			res, body := h.raw(t, method+" /api/v1/me HTTP/1.1\r\nContent-Length: 0\r\nAuthorization: Bearer t\r\nCookie: __Host-bailey=x\r\nHost: "+h.host(host)+"\r\n\r\n")
			if want := method + ` /api/v1/me cookies=0 token="Bearer t"`; res.StatusCode != 200 || body != want {
				t.Errorf("%s by %s = %d %q, want 200 %q", method, host, res.StatusCode, body, want)
			}
		}
		res, _ := h.raw(t, "POST /api/../signin HTTP/1.1\r\nContent-Length: 0\r\nHost: "+h.host(host)+"\r\n\r\n")
		if res.StatusCode < 400 {
			t.Errorf("POST /api/../signin by %s = %d, want a refusal", host, res.StatusCode)
		}
	}
	res, body := h.raw(t, "GET /api/v1/me HTTP/1.1\r\nCookie: __Host-bailey=x\r\nHost: "+h.host("localhost")+"\r\n\r\n")
	if res.StatusCode != 200 || !strings.Contains(body, "cookies=1") {
		t.Errorf("by the console's own name = %d %q, want its cookie", res.StatusCode, body)
	}
}

func TestErrorsTellAStrangerNothing(t *testing.T) {
	var err error
	log := &syncBuffer{}
	handler := Handle(slog.New(slog.NewTextHandler(log, nil)), func(http.ResponseWriter, *http.Request) error { return err })
	h := serve(t, handler, nil)
	ask := func(accept string) (*http.Response, string) {
		t.Helper()
		return h.raw(t, "GET /p%3Cb%3E HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\nAccept: "+accept+"\r\n\r\n")
	}

	err = fmt.Errorf("open /var/lib/bailey/db: %w", errors.New("secret place"))
	res, body := ask("*/*")
	var p Problem
	if e := json.Unmarshal([]byte(body), &p); e != nil || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answer %q (%s): %v", body, res.Header.Get("Content-Type"), e)
	}
	if res.StatusCode != 500 || p.Status != 500 || p.Code != "internal" || p.Detail != "internal error" || strings.Contains(body, "secret") {
		t.Errorf("internal error shown as %d %s", res.StatusCode, body)
	}
	if p.RequestID == "" || !strings.Contains(log.String(), p.RequestID) || !strings.Contains(log.String(), "secret place") {
		t.Errorf("the log lacks request %s or its cause:\n%s", p.RequestID, log.String())
	}

	err = fmt.Errorf("start: %w", &bailey.Error{Kind: bailey.OverQuota, Msg: "no <b>GPU</b>", Hint: "wait", Cause: errors.New("secret place")})
	res, body = ask("*/*")
	if e := json.Unmarshal([]byte(body), &p); e != nil || res.StatusCode != 403 || p.Code != "quota" || p.Detail != "no <b>GPU</b>" || p.Hint != "wait" || strings.Contains(body, "secret") {
		t.Errorf("quota error shown as %d %s", res.StatusCode, body)
	}
	res, body = ask("text/html")
	if res.StatusCode != 403 || !strings.Contains(body, "no &lt;b&gt;GPU&lt;/b&gt;") || strings.Contains(body, "secret") {
		t.Errorf("quota error as a page = %d %s", res.StatusCode, body)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("page's CSP = %q", csp)
	}

	err = &http.MaxBytesError{Limit: 8192}
	if res, body = ask("*/*"); res.StatusCode != 422 || !strings.Contains(body, "8192 bytes") {
		t.Errorf("too large a body shown as %d %s", res.StatusCode, body)
	}
	err = bailey.Errorf(bailey.Unavailable, "the engine does not answer")
	if res, _ = ask("*/*"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("unavailable = %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		panic("secret\nplace")
	}), nil)
	res, body := h.raw(t, "GET / HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\n\r\n")
	if res.StatusCode != 500 || strings.Contains(body, "secret") {
		t.Errorf("panic shown as %d %s", res.StatusCode, body)
	}
	if !strings.Contains(h.log.String(), "secret?place") || !strings.Contains(h.log.String(), "server_test.go") {
		t.Errorf("log lacks the panic or its stack:\n%s", h.log.String())
	}
	c := h.dial(t)
	_, _ = io.WriteString(c, "GET /half HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("an answer that a panic cut off looks whole")
	}
}

// What strangers choose stands in the log in one line, without credentials.
func TestAccessLogIsEscaped(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), nil)
	h.raw(t, "GET /a?token=bly_1_secret HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\nUser-Agent: red\u202e"+strings.Repeat("x", 500)+"\r\nCookie: __Host-bailey=secret\r\n\r\n")
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(h.log.String(), "msg=request") && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	got := h.log.String()
	if strings.Contains(got, "secret") || strings.ContainsAny(got, "\x1b\u202e") || strings.Contains(got, strings.Repeat("x", 200)) {
		t.Errorf("access log = %s", got)
	}
	if !strings.Contains(got, "path=/a ") || !strings.Contains(got, "status=200") || !strings.Contains(got, "ip=127.0.0.1") {
		t.Errorf("access log = %s, want path, status and address", got)
	}
}

func TestConnectionLimits(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), func(c *ServerConfig) { c.MaxConnsPerAddr = 2 })
	a, b := h.dial(t), h.dial(t)
	if c, err := tls.Dial("tcp", h.Addr().String(), h.tls); err == nil {
		t.Errorf("a third connection from one address was served")
		_ = c.Close()
	}
	_, _ = a.Close(), b.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := tls.Dial("tcp", h.Addr().String(), h.tls)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after two closed, a connection is still refused: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPrefixOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::9": "2001:db8:1:2::/64",
	} {
		if got := prefixOf(&net.TCPAddr{IP: net.ParseIP(addr)}).String(); got != want {
			t.Errorf("prefixOf(%s) = %s, want %s", addr, got, want)
		}
	}
}

func TestClientIP(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8::1]:1": "2001:db8::1",
		"[fe80::1%eth0]:1": "fe80::1", "pipe": "", "": "",
	} {
		r := request("localhost:8443", 8443)
		r.RemoteAddr = addr
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.Header.Set("X-Real-Ip", "203.0.113.9")
		r.Header.Set("Forwarded", "for=203.0.113.9")
		if got := ClientIP(r); got != want {
			t.Errorf("ClientIP of %q = %q, want %q", addr, got, want)
		}
	}
}

// A port range is opened whole, and a port leads to one workspace.
func TestPortMode(t *testing.T) {
	ln, port := listen(t)
	free, lo := listen(t)
	_ = free.Close()
	o := origins(t, OriginConfig{Mode: "port", Host: "127.0.0.1", Port: port, Ports: [2]int{lo, lo}})
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slug, console, _ := o.Match(r)
		fmt.Fprintf(w, "%q %v", slug, console)
	}), func(c *ServerConfig) { c.Listener, c.Origins = ln, o })
	ask := func(addr, host string) (int, string) {
		t.Helper()
		cfg := h.tls.Clone()
		cfg.ServerName = "127.0.0.1"
		c, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	workspacePort := fmt.Sprintf("127.0.0.1:%d", lo)
	if status, _ := ask(workspacePort, workspacePort); status != 421 {
		t.Errorf("a port that nobody has = %d, want 421", status)
	}
	if got := o.Workspace("ada-1f00"); got != "https://"+workspacePort {
		t.Fatalf("origin = %q, want %q", got, "https://"+workspacePort)
	}
	if status, body := ask(workspacePort, workspacePort); status != 200 || body != `"ada-1f00" false` {
		t.Errorf("ada's port = %d %s, want hers", status, body)
	}
	if status, body := ask(h.Addr().String(), h.Addr().String()); status != 200 || body != `"" true` {
		t.Errorf("the console's port = %d %s, want the console", status, body)
	}
	if status, _ := ask(h.Addr().String(), workspacePort); status != 421 {
		t.Errorf("ada's host at the console's port = %d, want 421", status)
	}
	if status, _ := ask(workspacePort, h.Addr().String()); status != 421 {
		t.Errorf("the console's host at ada's port = %d, want 421", status)
	}
}

func TestNewServerSaysWhichPortIsTaken(t *testing.T) {
	taken, port := listen(t)
	defer taken.Close()
	o := origins(t, OriginConfig{Mode: "localhost", Port: port})
	_, err := NewServer(t.Context(), ServerConfig{Addr: taken.Addr().String(), Handler: http.NotFoundHandler(), Certs: ownCA(t, CertConfig{}), Origins: o})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("NewServer on a taken port = %v, want an error that names it", err)
	}
	if _, err := NewServer(t.Context(), ServerConfig{}); err == nil {
		t.Errorf("NewServer without anything succeeded")
	}
}

func TestConsoleHeaders(t *testing.T) {
	var nonces []string
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonces = append(nonces, ConsoleHeaders(w, r))
	})
	h := serve(t, page, nil)
	res, _ := h.raw(t, "GET / HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\n\r\n")
	h.raw(t, "GET / HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\n\r\n")
	csp := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'", "'nonce-" + nonces[0] + "'", "frame-ancestors 'none'", "base-uri 'none'",
		"form-action 'self' https://*." + h.host("localhost"),
	} {
		if !strings.Contains(csp, want) {
			t.Errorf("CSP = %q, want %q in it", csp, want)
		}
	}
	if nonces[0] == nonces[1] || len(nonces[0]) < 22 {
		t.Errorf("nonces = %q, want a fresh one each time", nonces)
	}
	if got := res.Header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("HSTS on localhost = %q, want none", got)
	}
	if strings.Contains(csp, "unsafe") {
		t.Errorf("CSP = %q allows something unsafe", csp)
	}
}

func TestHSTSOnlyOnARealDomain(t *testing.T) {
	h := serve(t, http.HandlerFunc(echo), func(c *ServerConfig) {
		c.Origins = origins(t, OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "apps.example.net", Port: 443})
	})
	res, _ := h.raw(t, "GET / HTTP/1.1\r\nHost: hub.example.org\r\n\r\n")
	if got := res.Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("HSTS = %q, want a year without includeSubDomains", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\r\nb": "a??b", "\x1b[2J": "?[2J", "你好": "你好", "a\u202eb": "a?b", "\xff": "?",
		"0123456789abcdef": "0123456789…",
	} {
		if got := Printable(in, 10); got != want {
			t.Errorf("Printable(%q, 10) = %q, want %q", in, got, want)
		}
	}
}

// FuzzCheckTarget: a console path that passes has one reading, whoever decodes
// it and however often it is cleaned.
func FuzzCheckTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/b?c=%2f", "//", "/a//b", "/a/../b", "/%2e%2e/", "/a%2fb", "/a\\b", "/%00", "*", "http://x/", "/;a", "/a%25%32%66", "/a/.", "/.well-known/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r := request("localhost:8443", 8443)
		r.RequestURI = target
		if checkTarget(r, true) != nil {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		u, err := r.URL.Parse("https://localhost:8443" + path)
		if err != nil {
			return // net/http refuses it before us
		}
		if u.Host != "localhost:8443" || u.Fragment != "" || u.RawQuery != "" {
			t.Errorf("%q is read as %q", target, u)
		}
		decoded := u.Path
		if strings.ContainsAny(decoded, "\\\x00;") || strings.Count(decoded, "/") != strings.Count(path, "/") {
			t.Errorf("%q decodes to %q", target, decoded)
		}
		for segment := range strings.SplitSeq(decoded, "/") {
			if segment == ".." || segment == "." {
				t.Errorf("%q decodes to %q, with a dot segment", target, decoded)
			}
		}
	})
}

package egress_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/secret"
)

// Plain HTTP as apt, curl and old tools speak it: one connection, many requests.
func TestPlainRequests(t *testing.T) {
	w := newWorld(t)
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Proxy-Authorization", "Proxy-Connection", "X-Hop", "Keep-Alive", "Te"} {
			if r.Header.Get(h) != "" {
				t.Errorf("%s travelled on", h)
			}
		}
		switch r.URL.Path {
		case "/echo":
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(rw, "%s %d %s", r.Method, r.ContentLength, b)
		case "/stream":
			for range 3 {
				_, _ = io.WriteString(rw, "part")
				_ = http.NewResponseController(rw).Flush()
			}
		case "/none":
			rw.WriteHeader(http.StatusNoContent)
		case "/same":
			rw.Header().Set("Etag", `"x"`)
			rw.WriteHeader(http.StatusNotModified)
		case "/broken":
			rw.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(rw, "half")
		default:
			rw.Header().Set("X-Path", r.RequestURI)
			_, _ = io.WriteString(rw, "hello")
		}
	})
	c := w.dial(alice)
	br := bufio.NewReader(c)
	ask := func(method, path, head, body string) (*http.Response, string) {
		t.Helper()
		_, err := fmt.Fprintf(c, "%s http://files.example.org%s HTTP/1.1\r\nHost: files.example.org\r\n%s\r\n%s", method, path, head, body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil && path != "/broken" {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return res, string(b)
	}
	hops := "Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
	if res, body := ask("GET", "/a//b%2fc?q=%20", hops, ""); body != "hello" || res.Header.Get("X-Path") != "/a//b%2fc?q=%20" || res.Header.Get("Via") == "" {
		t.Errorf("GET: %q, %v", body, res.Header)
	}
	if _, body := ask("POST", "/echo", "Content-Length: 5\r\n", "hello"); body != "POST 5 hello" {
		t.Errorf("POST: %q", body)
	}
	if _, body := ask("PUT", "/echo", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"); body != "PUT -1 abcde" {
		t.Errorf("PUT in chunks: %q", body)
	}
	if res, body := ask("GET", "/stream", "", ""); body != "partpartpart" || len(res.TransferEncoding) != 1 {
		t.Errorf("a stream: %q, %v", body, res.TransferEncoding)
	}
	if res, body := ask("HEAD", "/", "", ""); body != "" || res.ContentLength != 5 {
		t.Errorf("HEAD: %q, %d", body, res.ContentLength)
	}
	if res, _ := ask("GET", "/none", "", ""); res.StatusCode != http.StatusNoContent {
		t.Errorf("204: %v", res.Status)
	}
	if res, _ := ask("GET", "/same", "", ""); res.StatusCode != http.StatusNotModified || res.Header.Get("Etag") == "" {
		t.Errorf("304: %v", res.Status)
	}
	// 100-continue: the word comes before the body is sent.
	_, _ = io.WriteString(c, "POST http://files.example.org/echo HTTP/1.1\r\nHost: files.example.org\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	if line, _ := br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("Expect: %q", line)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(c, "ok")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "POST 2 ok" {
		t.Errorf("after 100: %q", b)
	}
	// Two at once in one packet.
	_, _ = io.WriteString(c, strings.Repeat("GET http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\n\r\n", 2))
	for range 2 {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	if _, body := ask("GET", "/broken", "", ""); body != "half" {
		t.Errorf("an answer that breaks off: %q", body)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after half an answer the connection goes on: %v", err)
	}
	if got := w.raw(alice, "GET http://files.example.org/stream HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "\r\n\r\npartpartpart") || strings.Contains(got, "chunked") {
		t.Errorf("HTTP/1.0: %q", got)
	}
}

// An upload that outlives its answer is not read as the next request.
func TestAnswerBeforeTheBodyIsSent(t *testing.T) {
	w := newWorld(t)
	hits := new(atomic.Int64)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		}
	}()
	w.net.at("files.example.org", "80", ln.Addr().String())
	got := w.raw(alice, "POST http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\nContent-Length: 1000\r\n\r\nGET http://files.example.org/evil HTTP/1.1\r\nHost: files.example.org\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 ") != 1 || !strings.Contains(got, "Connection: close") && strings.HasPrefix(got, "HTTP/1.1 413") || hits.Load() != 1 {
		t.Errorf("%q, %d connections", got, hits.Load())
	}
}

// A rule's limit of bytes ends what goes beyond it, in a tunnel and without.
func TestBytesOfARule(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		*p = policyOf(rules.Rule{ID: "small", Host: "*.example.org", Limits: rules.Limits{Bytes: 100 << 10}})
	})
	big := func(rw http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for range 64 {
			if _, err := rw.Write(b); err != nil {
				return
			}
		}
	}
	w.https("a.example.org", big)
	w.http("b.example.org", big)
	for _, url := range []string{"https://a.example.org/", "http://b.example.org/"} {
		if _, body, err := w.get(alice, url); err == nil || len(body) > 1<<20 {
			t.Errorf("%s: %d bytes, %v", url, len(body), err)
		}
	}
	eventually(t, "both are counted as cut", func() bool { return w.proxy.Stats().Cut == 2 })
}

// What was carried is in the journal, summed up.
func TestTrafficIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = rw.Write(make([]byte, 10_000))
	})
	for range 3 {
		res, err := w.client(alice).Post("http://files.example.org/", "text/plain", bytes.NewReader(make([]byte, 5000)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	if err := w.proxy.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := w.audit.of(audit.EgressTraffic)
	if len(list) != 1 {
		t.Fatalf("%d events: %+v", len(list), list)
	}
	e := list[0]
	if a := e.Attrs; a.Count != 3 || a.Up < 15_000 || a.Up > 20_000 || a.Down < 30_000 || a.Down > 35_000 || a.Host != "files.example.org" || a.Port != 80 || a.Rule != "set/files" || a.Class != "ml" || a.Run != "r-alice" {
		t.Errorf("attributes: %+v", a)
	}
	if e.Actor.Name != "alice" || e.Target.ID != "w-alice" || len(w.audit.of(audit.EgressConnect)) != 1 {
		t.Errorf("event: %+v", e)
	}
	w.proxy.Serve(t.Context(), mustPipe(t), alice) // after Close it returns
}

func mustPipe(t *testing.T) net.Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	return theirs
}

// An upper makes bodies louder: it stands for the filter of what leaves.
type upper struct{}

func (upper) Body(_ context.Context, who egress.Who, host string, up bool, _ string, body io.Reader) io.Reader {
	b, err := io.ReadAll(body)
	if err != nil {
		return io.MultiReader(bytes.NewReader(b), failing{err})
	}
	return strings.NewReader(fmt.Sprintf("[%s %s %v %s]", who.User, host, up, b))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPlainBodiesPassTheFilter(t *testing.T) {
	w := newWorld(t, func(c *egress.Config, _ *egress.Policy) { c.Filter = upper{} })
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(b)
	})
	for _, tunnelled := range []bool{false, true} {
		var got string
		if tunnelled { // a tunnel is no way around it
			c, br, _ := w.connect(alice, "files.example.org:80")
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: files.example.org\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			got = string(b)
		} else {
			res, err := w.client(alice).Post("http://files.example.org/", "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			got = string(b)
		}
		if want := "[alice files.example.org false [alice files.example.org true body]]"; got != want {
			t.Errorf("tunnelled %v: %q, want %q", tunnelled, got, want)
		}
	}
}

// Behind an organisation's proxy: tunnels and plain requests go through it with
// its credentials, and what lies in an opened private network does not.
func TestUpstreamProxy(t *testing.T) {
	var asked []string
	var login atomic.Pointer[string]
	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if len(r.Header["Proxy-Authorization"]) > 0 {
			t.Error("the credentials of the proxy arrived at the origin")
		}
		_, _ = io.WriteString(rw, "origin")
	}))
	up := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		login.Store(new(r.Header.Get("Proxy-Authorization")))
		asked = append(asked, r.Method+" "+r.RequestURI)
		if r.Method != http.MethodConnect {
			_, _ = io.WriteString(rw, "by the proxy")
			return
		}
		if strings.HasPrefix(r.Host, "no.") {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		conn, err := net.Dial("tcp", origin.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		client, _, _ := http.NewResponseController(rw).Hijack()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(conn, client); _ = conn.Close() }()
		_, _ = io.Copy(client, conn)
		_ = client.Close()
	}))
	defer up.Close()
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		p.Upstream = egress.Upstream{URL: &url.URL{Scheme: "http", Host: "10.9.9.9:3128"}, User: "bailey", Password: secret.New("s3cret")}
		p.Private = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	})
	origin.TLS = w.https("x.example.com", nil).TLS.Clone() // the same certificate
	origin.StartTLS()
	defer origin.Close()
	w.net.at("", "3128", up.Listener.Addr().String(), "10.9.9.9")

	if _, body, err := w.get(alice, "https://files.example.org/"); err != nil || body != "origin" { // a name that resolves for the proxy alone
		t.Errorf("a tunnel: %q, %v", body, err)
	}
	if _, body, err := w.get(alice, "http://files.example.org/x?y"); err != nil || body != "by the proxy" {
		t.Errorf("a plain request: %q, %v", body, err)
	}
	if l := login.Load(); l == nil || *l != "Basic "+base64.StdEncoding.EncodeToString([]byte("bailey:s3cret")) {
		t.Errorf("credentials: %v", l)
	}
	if _, _, err := w.get(alice, "https://no.example.net/"); err == nil || !strings.Contains(err.Error(), "refuses it") {
		t.Errorf("what the proxy refuses: %v", err)
	}
	want := []string{"CONNECT files.example.org:443", "GET http://files.example.org/x?y", "CONNECT no.example.net:443"}
	if strings.Join(asked, ", ") != strings.Join(want, ", ") {
		t.Errorf("the proxy was asked %v", asked)
	}
	w.net.at("inside.example.net", "80", "", "10.99.0.1")
	if status, _, err := w.get(alice, "http://inside.example.net/"); err != nil || status != http.StatusForbidden {
		t.Errorf("a name that leads inside, behind a proxy: %d, %v", status, err)
	}
	w.http("mirror.example.net", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "mirror") })
	w.net.at("mirror.example.net", "80", w.net.servers[w.net.names["mirror.example.net"][0]+":80"], "10.20.0.7")
	if _, body, err := w.get(alice, "http://mirror.example.net/"); err != nil || body != "mirror" {
		t.Errorf("a mirror in a private network: %q, %v", body, err)
	}
}

// The first address does not answer: the next one is tried.
func TestNextAddress(t *testing.T) {
	w := newWorld(t)
	w.http("files.example.org", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "second") })
	good := w.net.names["files.example.org"][0]
	w.net.answer = func(string) []string { return []string{"2606:4700::9", "93.184.217.9", good} }
	if _, body, err := w.get(alice, "http://files.example.org/"); err != nil || body != "second" {
		t.Errorf("%q, %v", body, err)
	}
	w.net.answer = func(string) []string { return []string{"93.184.217.9"} }
	status, body, err := w.get(alice, "http://files.example.org/")
	if err != nil || status != http.StatusBadGateway || !strings.Contains(body, "is allowed, but cannot be reached") {
		t.Errorf("nobody answers: %d %q, %v", status, body, err)
	}
	w.net.answer = func(string) []string { return nil }
	if status, body, _ := w.get(alice, "http://files.example.org/"); status != http.StatusBadGateway || !strings.Contains(body, "has no address") {
		t.Errorf("no such name: %d %q", status, body)
	}
}

package egress_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

// socks returns the bytes that ask for a host over SOCKS5.
func socks(host string, port int) string {
	return "\x05\x01\x00\x05\x01\x00\x03" + string([]byte{byte(len(host))}) + host + string([]byte{byte(port >> 8), byte(port)})
}

// Somebody with full code execution inside asks for addresses, in every
// notation and by every protocol. Nothing is dialled and nothing looked up.
func TestAddressesAreNeverReached(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		p.Private = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} // even then
	})
	for _, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25eth0]",
		"localhost", "metadata", "0", "１２７.0.0.1",
	} {
		for what, text := range map[string]string{
			"CONNECT": "CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + ":443\r\n\r\n",
			"GET":     "GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
			"SOCKS5":  socks(host, 443),
		} {
			got := w.raw(alice, text)
			if refused := strings.HasPrefix(got, "HTTP/1.1 40") || strings.HasPrefix(got, "\x05\x00\x05\x02") || strings.HasPrefix(got, "\x05\x00\x05\x01"); !refused {
				t.Errorf("%s %s: %.80q", what, host, got)
			}
		}
	}
	for what, text := range map[string]string{
		"IPv4 over SOCKS5": "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb",
		"SOCKS4":           "\x04\x01\x01\xbb\x7f\x00\x00\x01\x00",
		"TLS to the proxy": string(hello(t, "files.example.org")),
		"rubbish":          "\x00\x01\x02\x03",
	} {
		if got := w.raw(alice, text); strings.Contains(got, "200") || strings.HasPrefix(got, "\x05\x00\x05\x00") {
			t.Errorf("%s: %.80q", what, got)
		}
	}
	if asked, dialled := w.net.seen(); len(asked) > 0 || len(dialled) > 0 {
		t.Errorf("looked up %v, dialled %v", asked, dialled)
	}
}

// An allowed name leads to where nobody may be led: its owner rebinds it, or
// makes it an alias of something private.
func TestNamesThatLeadInside(t *testing.T) {
	w := newWorld(t)
	s := w.https("files.example.org", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "public") })
	good := w.net.names["files.example.org"][0]
	inside := []string{"10.0.0.5", "127.0.0.1", "169.254.169.254", "100.64.0.1", "198.41.0.4", "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::1"}
	for _, a := range inside { // whoever dials it finds somebody
		w.net.at("", "443", s.Listener.Addr().String(), a)
	}
	for _, a := range inside {
		w.net.answer = func(string) []string { return []string{a} }
		c, _, line := w.connect(alice, "files.example.org:443")
		if !strings.Contains(line, "403") || !strings.Contains(line, "may not reach") || strings.Contains(line, a) {
			t.Errorf("a name that leads to %s: %q", a, line)
		}
		_ = c.Close()
	}
	// First one thing and then another: what was checked is what is dialled.
	turn := new(atomic.Int64)
	w.net.answer = func(string) []string {
		if turn.Add(1) <= 2 { // A and AAAA of the first look
			return []string{good}
		}
		return []string{"10.0.0.5"}
	}
	if _, body, err := w.get(alice, "https://files.example.org/"); err != nil || body != "public" {
		t.Errorf("the first look: %q, %v", body, err)
	}
	if _, _, err := w.get(alice, "https://files.example.org/"); err == nil {
		t.Error("the second look, which leads inside, was followed")
	}
	// Both at once: the public one alone is tried.
	w.net.answer = func(string) []string { return []string{"10.0.0.5", good, "fd00::1"} }
	if _, body, err := w.get(alice, "https://files.example.org/"); err != nil || body != "public" {
		t.Errorf("a mixed answer: %q, %v", body, err)
	}
	_, dialled := w.net.seen()
	if slices.ContainsFunc(dialled, func(a string) bool { return a != good+":443" }) {
		t.Errorf("dialled %v", dialled)
	}
	if e := w.audit.of(audit.EgressRefused); len(e) == 0 || e[0].Reason != audit.BadAddress || e[0].Attrs.Host != "files.example.org" {
		t.Errorf("refusals in the journal: %+v", e)
	}
}

// A redirect is an answer like any other: where it leads is asked anew.
func TestRedirectsAreAskedAnew(t *testing.T) {
	w := newWorld(t)
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, map[string]string{"/out": "http://secret.example.com/", "/ip": "http://169.254.169.254/latest", "/port": "http://files.example.org:8080/"}[r.URL.Path], http.StatusFound)
	})
	w.http("secret.example.com", func(rw http.ResponseWriter, _ *http.Request) { t.Error("reached") })
	for path, want := range map[string]string{"/out": "secret.example.com:80 is not open", "/ip": "169.254.169.254 cannot be reached", "/port": "not open to class ml on port 8080"} {
		status, body, err := w.get(alice, "http://files.example.org"+path)
		if err != nil || status < 400 || !strings.Contains(body, want) {
			t.Errorf("GET %s = %d %q, %v; want %q", path, status, body, err, want)
		}
	}
}

func TestOddPortsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.https("files.example.org", func(http.ResponseWriter, *http.Request) {})
	for _, port := range []int{1, 22, 25, 53, 2375, 3128, 6379, 8080, 8443, 9443, 65535} {
		c, _, line := w.connect(alice, net.JoinHostPort("files.example.org", strconv.Itoa(port)))
		if !strings.HasPrefix(line, "HTTP/1.1 403") {
			t.Errorf("port %d: %s", port, line)
		}
		_ = c.Close()
	}
	if _, dialled := w.net.seen(); len(dialled) > 0 {
		t.Errorf("dialled %v", dialled)
	}
}

// What one request says never becomes two outside, and what is behind a CONNECT
// is not read as a request of the proxy's.
func TestSmuggling(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		*p = policyOf(rules.Rule{ID: "read", Host: "files.example.org", Ports: []int{80}, Methods: []string{"GET", "POST"}})
	})
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s%s %q %v", r.Method, r.Host, r.URL.Path, b, r.Header["X-Evil"]))
	})
	const evil = "DELETE /evil HTTP/1.1\r\nHost: files.example.org\r\nX-Evil: 1\r\n\r\n"
	post := func(head, body string) string {
		return "POST http://files.example.org/ok HTTP/1.1\r\nHost: files.example.org\r\n" + head + "\r\n\r\n" + body
	}
	for what, text := range map[string]string{
		"CL.TE":       post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+evil),
		"TE.CL":       post("Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\n"+evil+"\r\n0\r\n\r\n"),
		"TE.TE":       post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"+evil),
		"TE tab":      post("Transfer-Encoding:\tchunked, x", "0\r\n\r\n"+evil),
		"CL.0":        post("Content-Length: 0\r\nContent-Length: 70", evil),
		"folded":      post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"+evil),
		"bare LF":     strings.ReplaceAll(post("Content-Length: 0", evil), "\r\n", "\n"),
		"next":        post("Content-Length: 0", evil), // the proxy's next request: refused, being no URL
		"in the path": "GET http://files.example.org/%0d%0aX-Evil:1%0d%0a HTTP/1.1\r\nHost: files.example.org\r\n\r\n",
		"by method":   "DELETE http://files.example.org/evil HTTP/1.1\r\nHost: files.example.org\r\n\r\n",
		"in a tunnel": "CONNECT files.example.org:80 HTTP/1.1\r\nHost: files.example.org:80\r\n\r\n" + evil,
		"in a chunk":  post("Transfer-Encoding: chunked", "3;x=\"\r\n"+evil+"\"\r\nabc\r\n0\r\n\r\n"),
		"in trailers": post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX-Evil: 1\r\n\r\n"),
		"connection":  post("Content-Length: 3\r\nConnection: Content-Length, Host", "abc"),
	} {
		got := w.raw(alice, text)
		if strings.HasPrefix(got, "HTTP/1.1 200 OK\r\nContent-Length: 0") && strings.Count(got, "HTTP/1.1 200") > 1 {
			t.Errorf("%s: two answers: %q", what, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range seen {
		if strings.Contains(s, "DELETE") || strings.HasSuffix(s, "[1]") {
			t.Errorf("outside arrived: %s", s)
		}
	}
	if !slices.Contains(seen, `POST files.example.org/ok "abc" []`) {
		t.Errorf("nothing honest arrived: %q", seen)
	}
}

// The name that was allowed is the name that TLS must be for.
func TestServerNameMustBeTheHost(t *testing.T) {
	for _, tt := range []struct {
		what    string
		first   []byte
		lenient bool
		ok      bool
	}{
		{"the host", hello(t, "files.example.org"), false, true},
		{"the host in capitals", hello(t, "FILES.example.org"), false, true},
		{"another host", hello(t, "evil.example.com"), false, false},
		{"another host, lenient", hello(t, "evil.example.com"), true, false},
		{"a host below", hello(t, "x.files.example.org"), false, false},
		{"no name", hello(t, ""), false, false},
		{"no name, lenient", hello(t, ""), true, true},
		{"SSH", []byte("SSH-2.0-x\r\n"), false, false},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: files.example.org\r\n\r\n"), false, false},
		{"HTTP, lenient", []byte("GET / HTTP/1.1\r\nHost: files.example.org\r\n\r\n"), true, true},
	} {
		w := newWorld(t, func(_ *egress.Config, p *egress.Policy) { p.Lenient = tt.lenient })
		got := make(chan []byte, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			_ = c.Close()
			got <- b
		}()
		w.net.at("files.example.org", "443", ln.Addr().String())
		c, _, line := w.connect(alice, "files.example.org:443")
		if !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Fatal(line)
		}
		for i := range tt.first { // one byte at a time, as hostile or slow senders do
			_, _ = c.Write(tt.first[i : i+1])
		}
		_ = c.CloseWrite()
		_, _ = io.ReadAll(c)
		if arrived := <-got; (string(arrived) == string(tt.first)) != tt.ok || !tt.ok && len(arrived) > 0 {
			t.Errorf("%s: %d of %d bytes arrived, want ok = %v", tt.what, len(arrived), len(tt.first), tt.ok)
		}
	}
}

// A tunnel on a web server's plain port is read like plain requests: a CDN
// would serve whatever Host says.
func TestPlainTunnelNamesItsHost(t *testing.T) {
	w := newWorld(t)
	var hosts []string
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		_, _ = io.WriteString(rw, "hello")
	})
	get := func(host string) string {
		c, br, line := w.connect(alice, "files.example.org:80")
		if !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Fatal(line)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(br)
		return string(b)
	}
	if got := get("files.example.org"); !strings.HasSuffix(got, "hello") {
		t.Errorf("its own host: %q", got)
	}
	if got := get("evil.example.com"); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("another host: %q", got)
	}
	if !slices.Equal(hosts, []string{"files.example.org"}) {
		t.Errorf("arrived: %v", hosts)
	}
}

// HTTP/2 and WebSockets are what people use; they pass, in TLS and without.
func TestHTTP2AndWebSockets(t *testing.T) {
	w := newWorld(t)
	h := func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(rw, r.Proto)
			return
		}
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			_ = c.Write(r.Context(), kind, b)
		}
	}
	w.https("files.example.org", h)
	w.http("a.example.net", h)
	if _, body, err := w.get(alice, "https://files.example.org/"); err != nil || body != "HTTP/2.0" {
		t.Errorf("h2: %q, %v", body, err)
	}
	for _, url := range []string{"wss://files.example.org/ws", "ws://a.example.net/ws"} {
		client := w.client(alice)
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		client.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
		c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		big := strings.Repeat("x", 30<<10)
		for range 5 {
			if err := c.Write(t.Context(), websocket.MessageText, []byte(big)); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(t.Context()); err != nil || string(b) != big {
				t.Fatalf("%s: %d bytes, %v", url, len(b), err)
			}
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
	}
}

// SSH and its like speak second: the server's banner comes first.
func TestServerSpeaksFirst(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		*p = policyOf(rules.Rule{ID: "ssh", Host: "files.example.org", Ports: []int{22}})
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "banner\n")
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "got %s", b)
		_ = c.Close()
	}()
	w.net.at("files.example.org", "22", ln.Addr().String())
	c := w.dial(alice)
	_, _ = io.WriteString(c, socks("files.example.org", 22))
	head := make([]byte, 2+10+7)
	if _, err := io.ReadFull(c, head); err != nil || string(head[12:]) != "banner\n" {
		t.Fatalf("%q, %v", head, err)
	}
	_, _ = io.WriteString(c, "hello")
	_ = c.CloseWrite() // half a close: the answer still comes
	if b, _ := io.ReadAll(c); string(b) != "got hello" {
		t.Errorf("%q", b)
	}
}

// Ten thousand connections that say next to nothing: their workspace has its
// share and no more, memory stays bounded, and Bob does not notice.
func TestTenThousandSlowConnections(t *testing.T) {
	w := newWorld(t)
	w.https("files.example.org", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "quick") })
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	var clients []net.Conn
	for range 10_000 {
		ours, theirs := net.Pipe()
		clients = append(clients, ours)
		served.Go(func() { w.proxy.Serve(ctx, theirs, alice) })
		go func() { _, _ = io.WriteString(ours, "CONNECT files.ex") }()
	}
	if _, body, err := w.get(bob, "https://files.example.org/"); err != nil || body != "quick" {
		t.Errorf("Bob meanwhile: %q, %v", body, err)
	}
	eventually(t, "all but a share were sent away", func() bool {
		return w.proxy.Stats().Refused[string(audit.OverQuota)] >= 10_000-256
	})
	for _, c := range clients {
		_ = c.SetDeadline(time.Now()) // the senders of this test end
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d MiB for ten thousand connections", grown>>20)
	}
	cancel()
	served.Wait()
}

func TestHugeHeadersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/huge" {
			rw.Header().Set("X", strings.Repeat("a", 200<<10))
		}
	})
	for what, text := range map[string]string{
		"a line":     "GET http://files.example.org/" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n",
		"a field":    "GET http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\nX: " + strings.Repeat("a", 1<<20),
		"many":       "GET http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\n" + strings.Repeat("X: y\r\n", 5000) + "\r\n",
		"to CONNECT": "CONNECT files.example.org:443 HTTP/1.1\r\nX: " + strings.Repeat("a", 1<<20),
	} {
		if got := w.raw(alice, text); !strings.HasPrefix(got, "HTTP/1.1 431") {
			t.Errorf("%s: %.60q", what, got)
		}
	}
	if status, _, err := w.get(alice, "http://files.example.org/huge"); err != nil || status != http.StatusBadGateway {
		t.Errorf("an answer with a huge head: %d, %v", status, err)
	}
	if status, _, err := w.get(alice, "http://files.example.org/"); err != nil || status != http.StatusOK {
		t.Errorf("an honest one: %d, %v", status, err)
	}
}

// A hostile agent writes anything to its socket. The proxy stays up, others are
// served, and nothing but allowed hosts is dialled.
func TestHostileBytes(t *testing.T) {
	w := newWorld(t)
	w.https("files.example.org", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "fine") })
	r := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"CONNECT ", "GET ", "http://", "files.example.org", ":443", ":80", " HTTP/1.1\r\n", "Host: ", "\r\n\r\n", "\r\n", "\x05\x01\x00", "\x05\x01\x00\x03", "\x16\x03\x01\x00\x05", "\x00", "10.0.0.1",
		"Transfer-Encoding: chunked\r\n", "Content-Length: 9\r\n", "0\r\n\r\n", strings.Repeat("A", 5000), "\xff\xfe", string(hello(t, "files.example.org")), string(hello(t, "evil.example.com")),
	}
	for range 300 {
		var b strings.Builder
		for range r.IntN(8) + 1 {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		w.raw(alice, b.String())
	}
	if _, body, err := w.get(bob, "https://files.example.org/"); err != nil || body != "fine" {
		t.Errorf("Bob afterwards: %q, %v", body, err)
	}
	_, dialled := w.net.seen()
	for _, a := range dialled {
		if !strings.HasPrefix(a, public) {
			t.Errorf("dialled %s", a)
		}
	}
}

func FuzzServe(f *testing.F) {
	for _, s := range []string{
		"CONNECT files.example.org:443 HTTP/1.1\r\nHost: files.example.org\r\n\r\n\x16\x03\x01", "GET http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\n\r\n",
		socks("files.example.org", 22), "POST http://files.example.org/ HTTP/1.1\r\nHost: files.example.org\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	n := newInternet()
	n.names["files.example.org"] = []string{public + "1"}
	p, err := egress.New(f.Context(), egress.Config{Store: newMemory(), Audit: &events{}, Resolver: n, Dialer: n})
	if err != nil {
		f.Fatal(err)
	}
	if err := p.Apply(policyOf(rules.Rule{ID: "files", Host: "files.example.org", Ports: []int{22, 80, 443}})); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			p.Serve(t.Context(), theirs, alice)
			close(done)
		}()
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		_, _ = ours.Write(b)
		_ = ours.Close()
		<-done
		_, dialled := n.seen()
		for _, a := range dialled {
			if !strings.HasPrefix(a, public+"1:") {
				t.Errorf("%q dialled %s", b, a)
			}
		}
	})
}

// Nobody is served from another's share: Bob's grants, rules and requests are
// his, whatever Alice's bytes say about who they are.
func TestWhoIsTheSocketNotTheBytes(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		*p = policyOf(rules.Rule{ID: "bobs", Host: "files.example.org", Users: []string{"bob"}})
	})
	w.https("files.example.org", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "for bob") })
	if _, body, err := w.get(bob, "https://files.example.org/"); err != nil || body != "for bob" {
		t.Errorf("Bob: %q, %v", body, err)
	}
	got := w.raw(alice, "CONNECT files.example.org:443 HTTP/1.1\r\nHost: files.example.org\r\nProxy-Authorization: Basic Ym9iOmJvYg==\r\nX-Bailey-User: bob\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "not open to alice") {
		t.Errorf("Alice, saying that she is Bob: %.100q", got)
	}
}

// Rules change while a download runs: it is cut, and another that is still
// allowed is not.
func TestRulesCutWhatTheyNoLongerAllow(t *testing.T) {
	w := newWorld(t)
	stream := func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, "tick\n"); err != nil {
				return
			}
			_ = http.NewResponseController(rw).Flush()
			<-time.After(time.Millisecond)
		}
	}
	w.https("files.example.org", stream)
	w.http("files.example.net", stream)
	w.https("a.example.net", stream)
	open := func(who egress.Who, url string) *http.Response {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		res, err := w.client(who).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 50)); err != nil {
			t.Fatal(err)
		}
		return res
	}
	w.apply(policyOf(rules.Rule{ID: "files", Host: "files.example.org"}, rules.Rule{ID: "wild", Host: "*.example.net"}, rules.Rule{ID: "plain", Host: "files.example.net"}))
	tunnel, plain, other := open(alice, "https://files.example.org/"), open(bob, "http://files.example.net/"), open(bob, "https://a.example.net/")
	w.apply(policyOf(rules.Rule{ID: "only", Host: "a.example.net"}))
	for what, res := range map[string]*http.Response{"tunnel": tunnel, "plain request": plain} {
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Errorf("the %s ended as if nothing had happened", what)
		}
	}
	if _, err := io.ReadFull(other.Body, make([]byte, 500)); err != nil {
		t.Errorf("what is still allowed was cut: %v", err)
	}
	_ = other.Body.Close()
	eventually(t, "both cuts are counted and recorded", func() bool { return w.proxy.Stats().Cut == 2 && len(w.audit.of(audit.EgressCut)) == 2 })
	if e := w.audit.of(audit.EgressCut)[0]; e.Reason != audit.RuleChanged || e.Attrs.Down == 0 || e.Attrs.Host == "" {
		t.Errorf("a cut in the journal: %+v", e)
	}
	if _, _, err := w.get(alice, "https://files.example.org/"); err == nil {
		t.Error("a new connection to what is no longer allowed")
	}
}

// A class that is not in the policy reaches nothing, and what cannot be decided
// by is not applied.
func TestInDoubtItStaysShut(t *testing.T) {
	w := newWorld(t)
	w.https("files.example.org", func(http.ResponseWriter, *http.Request) {})
	carol := alice
	carol.Class = "gone"
	if _, _, err := w.get(carol, "https://files.example.org/"); err == nil {
		t.Error("a class without rules reaches something")
	}
	for _, p := range []egress.Policy{policyOf(rules.Rule{Host: "*"}), {Classes: map[string]string{"ml": "nosuch"}}} {
		if err := w.proxy.Apply(p); err == nil {
			t.Errorf("Apply(%+v) = nil", p)
		}
	}
	if _, _, err := w.get(alice, "https://files.example.org/"); err != nil {
		t.Errorf("the policy before is gone: %v", err)
	}
	w.audit.down.Store(true)
	if _, _, err := w.get(bob, "https://files.example.org/"); err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
		t.Errorf("without a journal: %v", err)
	}
	w.audit.down.Store(false)
	if _, _, err := w.get(bob, "https://files.example.org/"); err != nil {
		t.Errorf("with the journal again: %v", err)
	}
	w.store.mu.Lock()
	w.store.down = io.ErrClosedPipe
	w.store.mu.Unlock()
	if got := w.raw(alice, "CONNECT data.example.com:443 HTTP/1.1\r\nHost: data.example.com\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("without a store: %.80q", got)
	}
	if err := w.proxy.Apply(egress.Policy{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.get(alice, "https://files.example.org/"); err == nil {
		t.Error("the empty policy allows something")
	}
}

// When it cannot be known which addresses are this machine's, none is dialled,
// and no proxy is sent there either.
func TestWithoutOwnAddressesNothingIsReached(t *testing.T) {
	var broken atomic.Bool
	w := newWorld(t, func(c *egress.Config, p *egress.Policy) {
		c.Own = func() ([]netip.Addr, error) {
			if broken.Load() {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, nil
		}
		p.Upstream.URL = &url.URL{Scheme: "http", Host: "proxy.example.com:3128"}
	})
	broken.Store(true)
	w.https("files.example.org", func(http.ResponseWriter, *http.Request) {})
	if _, _, err := w.get(alice, "https://files.example.org/"); err == nil || !strings.Contains(err.Error(), "may not reach") {
		t.Errorf("%v, want a refusal", err)
	}
	if _, dialled := w.net.seen(); len(dialled) > 0 {
		t.Errorf("dialled %v", dialled)
	}
}

// A rule with methods opens no other way on the port of TLS, and on another
// port no tunnel in which the method is not seen.
func TestMethodsHoldInTunnels(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		p.Lenient = true
		*p = policyOf(rules.Rule{ID: "read", Host: "files.example.org", Ports: []int{443, 8080}, Methods: []string{"GET"}})
	})
	reached := new(atomic.Int64)
	s := w.http("files.example.org", func(rw http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		_, _ = io.WriteString(rw, r.Method)
	})
	for _, port := range []string{"443", "8080"} {
		w.net.at("files.example.org", port, s.Listener.Addr().String())
		for _, first := range []string{"DELETE /x HTTP/1.1\r\nHost: files.example.org:" + port + "\r\n\r\n", "SSH-2.0-x\r\n", "\x00\x01", "delete /x"} {
			c, _, _ := w.connect(alice, "files.example.org:"+port)
			_, _ = io.WriteString(c, first)
			_ = c.CloseWrite()
			_, _ = io.ReadAll(c)
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
	c, br, _ := w.connect(alice, "files.example.org:8080")
	_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nHost: files.example.org:8080\r\nConnection: close\r\n\r\n")
	if b, _ := io.ReadAll(br); !strings.HasSuffix(string(b), "GET") {
		t.Errorf("an allowed method in a tunnel: %q", b)
	}
}

// Two hundred downloads that nobody reads: each stands still with what it has,
// together they hold a bounded part of memory, and Bob's download is whole.
func TestDownloadsThatNobodyReads(t *testing.T) {
	w := newWorld(t, func(_ *egress.Config, p *egress.Policy) {
		*p = policyOf(rules.Rule{ID: "raw", Host: "files.example.org", Ports: []int{9000}}, rules.Rule{ID: "web", Host: "a.example.net"})
	})
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
			go func() {
				for b := make([]byte, 64<<10); ; {
					if _, err := c.Write(b); err != nil {
						_ = c.Close()
						return
					}
				}
			}()
		}
	}()
	w.net.at("files.example.org", "9000", ln.Addr().String())
	size := 8 << 20
	w.http("a.example.net", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, size)) })
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	before := heap()
	for range 200 {
		if _, _, line := w.connect(alice, "files.example.org:9000"); !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Fatal(line)
		}
	}
	still := int64(-1)
	eventually(t, "all stand still", func() bool {
		last := still
		still = w.proxy.Stats().Down
		if still == last && still > 0 {
			return true
		}
		runtime.Gosched()
		return false
	})
	if _, body, err := w.get(bob, "http://a.example.net/"); err != nil || len(body) != size {
		t.Errorf("Bob's download: %d bytes, %v", len(body), err)
	}
	// The 200 senders above have 64 KiB each, and are in this process.
	if grown := heap() - before; grown > 48<<20 {
		t.Errorf("%d MiB for 200 downloads that nobody reads", grown>>20)
	}
}

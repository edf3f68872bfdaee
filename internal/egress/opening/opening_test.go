package opening_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/egress/opening"
)

func read(s string, form opening.Form) (*opening.Request, string, error) {
	br := bufio.NewReaderSize(strings.NewReader(s), 64)
	q, err := opening.ReadRequest(br, form)
	rest, _ := io.ReadAll(br)
	return q, string(rest), err
}

func TestRequests(t *testing.T) {
	q, rest, err := read("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\nUser-Agent: x\r\n\r\n\x16\x03", opening.ToProxy)
	if err != nil || q.Method != "CONNECT" || q.Host != "example.org" || q.Port != 443 || rest != "\x16\x03" {
		t.Errorf("CONNECT: %+v, rest %q, %v", q, rest, err)
	}
	q, rest, err = read("POST http://Example.org:8080/a//b?x=%20 HTTP/1.1\r\nHost: example.org:8080\r\nContent-Length: 3\r\n\r\nabc", opening.ToProxy)
	if err != nil || q.Host != "Example.org" || q.Port != 8080 || q.Target != "/a//b?x=%20" || q.Length != 3 || q.Close || rest != "abc" {
		t.Errorf("POST: %+v, rest %q, %v", q, rest, err)
	}
	q, _, err = read("GET http://example.org?x HTTP/1.0\r\n\r\n", opening.ToProxy)
	if err != nil || q.Target != "/?x" || q.Port != 80 || !q.Close || q.Minor != 0 {
		t.Errorf("HTTP/1.0: %+v, %v", q, err)
	}
	q, _, err = read("PUT /x HTTP/1.1\r\nhOST: example.org\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", opening.ToOrigin)
	if err != nil || q.Host != "example.org" || q.Length != -1 || !q.Expect {
		t.Errorf("PUT: %+v, %v", q, err)
	}
	q, _, err = read("GET /x HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", opening.ToOrigin)
	if err != nil || !q.Upgrade {
		t.Errorf("WebSocket: %+v, %v", q, err)
	}
	q, _, err = read("GET /x HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n", opening.ToOrigin)
	if err != nil || q.Upgrade {
		t.Errorf("h2c: %+v, %v; want it not to be upgraded", q, err)
	}
}

// What somebody inside writes so that two readers read two things.
func TestOneSpellingIsTaken(t *testing.T) {
	get := func(lines ...string) string {
		return "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	bad := map[string]string{
		"both lengths":               get("Content-Length: 5", "Transfer-Encoding: chunked"),
		"two lengths":                get("Content-Length: 5", "Content-Length: 6"),
		"two equal lengths":          get("Content-Length: 5", "Content-Length: 5"),
		"a list of lengths":          get("Content-Length: 5, 5"),
		"a signed length":            get("Content-Length: +5"),
		"a negative length":          get("Content-Length: -5"),
		"a hexadecimal length":       get("Content-Length: 0x5"),
		"an empty length":            get("Content-Length:"),
		"a huge length":              get("Content-Length: 99999999999999999999"),
		"chunked twice":              get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
		"chunked, identity":          get("Transfer-Encoding: chunked, identity"),
		"gzip, chunked":              get("Transfer-Encoding: gzip, chunked"),
		"chunked with a tab":         get("Transfer-Encoding: \vchunked"),
		"xchunked":                   get("Transfer-Encoding: xchunked"),
		"capital chunked":            get("Transfer-Encoding: Chunked"),
		"blank before colon":         get("Transfer-Encoding : chunked"),
		"folded line":                get("Transfer-Encoding:", " chunked"),
		"a name with a NUL":          get("Transfer\x00-Encoding: chunked"),
		"a value with a NUL":         get("X: a\x00b"),
		"a bare CR":                  get("X: a\rTransfer-Encoding: chunked"),
		"no colon":                   get("Transfer-Encoding"),
		"an empty name":              get(": x"),
		"two Hosts":                  get("Host: evil.example.com"),
		"an unknown expectation":     get("Expect: 200-ok"),
		"too many fields":            get(slices.Repeat([]string{"X: y"}, 200)...),
		"a huge field":               get("X: " + strings.Repeat("a", 40<<10)),
		"a bare LF":                  "GET http://example.org/ HTTP/1.1\nHost: example.org\n\n",
		"a LF among CRLFs":           "GET http://example.org/ HTTP/1.1\r\nHost: example.org\nX: y\r\n\r\n",
		"an empty line first":        "\r\nGET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"no Host":                    "GET http://example.org/ HTTP/1.1\r\n\r\n",
		"another Host":               "GET http://example.org/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
		"another Host's port":        "GET http://example.org/ HTTP/1.1\r\nHost: example.org:81\r\n\r\n",
		"CONNECT and another Host":   "CONNECT example.org:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n",
		"CONNECT and another port":   "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:80\r\n\r\n",
		"CONNECT without a port":     "CONNECT example.org HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"CONNECT with a URL":         "CONNECT https://example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"CONNECT with a body":        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\n\r\nabc",
		"CONNECT with a path":        "CONNECT example.org:443/x HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"port 0":                     "CONNECT example.org:0 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"port 65536":                 "CONNECT example.org:65536 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"port 0443":                  "CONNECT example.org:0443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a port with a sign":         "CONNECT example.org:+443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a user":                     "GET http://example.org@evil.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
		"a backslash is no path":     "GET http://example.org\\@evil.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
		"https as a URL":             "GET https://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"ftp":                        "GET ftp://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a path to a proxy":          "GET /x HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a fragment":                 "GET http://example.org/#x HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a blank in the target":      "GET http://example.org/a b HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a tab in the request line":  "GET\thttp://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"two blanks":                 "GET  http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"HTTP/0.9":                   "GET http://example.org/\r\n\r\n",
		"HTTP/2":                     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/1.2":                   "GET http://example.org/ HTTP/1.2\r\nHost: example.org\r\n\r\n",
		"http/1.1":                   "GET http://example.org/ http/1.1\r\nHost: example.org\r\n\r\n",
		"chunked in HTTP/1.0":        "POST http://example.org/ HTTP/1.0\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a control character method": "G\x01T http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"a long method":              strings.Repeat("G", 50) + " http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"an endless line":            "GET http://example.org/" + strings.Repeat("a", 64<<10),
	}
	for name, text := range bad {
		q, _, err := read(text, opening.ToProxy)
		b, ok := errors.AsType[*opening.BadError](err)
		if !ok || b.Status < 400 || b.Msg == "" {
			t.Errorf("%s: %+v, %v; want a BadError", name, q, err)
		}
	}
	for name, text := range map[string]string{
		"a URL": "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n", "CONNECT": "CONNECT a.org:1 HTTP/1.1\r\nHost: a.org:1\r\n\r\n",
		"no Host": "GET / HTTP/1.0\r\n\r\n", "a star": "GET * HTTP/1.1\r\nHost: a.org\r\n\r\n", "a user": "GET / HTTP/1.1\r\nHost: u@a.org\r\n\r\n",
	} {
		if q, _, err := read(text, opening.ToOrigin); err == nil {
			t.Errorf("inside a tunnel, %s: %+v", name, q)
		}
	}
	for _, text := range []string{"", "GET http", "GET http://example.org/ HTTP/1.1\r\nHost:"} {
		if _, _, err := read(text, opening.ToProxy); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q broken off: %v", text, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\nx", "GET http://example.org/a?b HTTP/1.1\r\nHost: example.org\r\nConnection: close, x\r\n\r\n",
		"POST http://a.org/ HTTP/1.1\r\nHost: a.org\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a.org\r\n\r\n",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, origin bool) {
		form := opening.ToProxy
		if origin {
			form = opening.ToOrigin
		}
		q, _, err := read(s, form)
		if err != nil {
			return
		}
		// Whatever is taken must be the same to a reader that forgives more.
		std, err := http.ReadRequest(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			t.Skip() // ours is checked against more in the tests above
		}
		chunked := len(std.TransferEncoding) > 0
		if std.Method != q.Method || chunked != (q.Length == -1) || !chunked && std.ContentLength != q.Length {
			t.Errorf("%q: ours %+v, net/http's %+v", s, q, std)
		}
		if host := std.URL.Hostname(); form == opening.ToProxy && q.Method != http.MethodConnect && !strings.EqualFold(host, strings.Trim(q.Host, "[]")) {
			t.Errorf("%q: our host is %q, net/http's %q", s, q.Host, host)
		}
	})
}

func TestSocks(t *testing.T) {
	name := func(host string, port uint16) string {
		return "\x05\x01\x00\x03" + string(rune(len(host))) + host + string(binary.BigEndian.AppendUint16(nil, port))
	}
	var out bytes.Buffer
	host, port, err := opening.ReadSocks(bufio.NewReader(strings.NewReader("\x05\x02\x01\x00"+name("example.org", 443))), &out)
	if host != "example.org" || port != 443 || err != nil || out.String() != "\x05\x00" {
		t.Errorf("ReadSocks = %q, %d, %v, answering %q", host, port, err, out.String())
	}
	for what, tt := range map[string]struct {
		in    string
		reply byte
	}{
		"IPv4":           {"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb", opening.SocksNotAllowed},
		"IPv6":           {"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb", opening.SocksNotAllowed},
		"BIND":           {"\x05\x01\x00\x05\x02\x00\x03\x05a.org\x01\xbb", opening.SocksNoCommand},
		"UDP":            {"\x05\x01\x00\x05\x03\x00\x03\x05a.org\x01\xbb", opening.SocksNoCommand},
		"an odd address": {"\x05\x01\x00\x05\x01\x00\x07\x05a.org\x01\xbb", opening.SocksNoAddress},
		"no name":        {"\x05\x01\x00\x05\x01\x00\x03\x00\x01\xbb", opening.SocksFailed},
		"port 0":         {"\x05\x01\x00" + name("a.org", 0), opening.SocksFailed},
		"reserved":       {"\x05\x01\x00\x05\x01\x01\x03\x05a.org\x01\xbb", opening.SocksFailed},
		"a password":     {"\x05\x01\x02", 0xff},
		"no method":      {"\x05\x00", 0xff},
	} {
		_, _, err := opening.ReadSocks(bufio.NewReader(strings.NewReader(tt.in)), io.Discard)
		if e, ok := errors.AsType[*opening.SocksError](err); !ok || e.Reply != tt.reply {
			t.Errorf("%s: %v, want reply %d", what, err, tt.reply)
		}
	}
}

func FuzzReadSocks(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x05a.org\x01\xbb"))
	f.Add([]byte("\x05\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		host, port, err := opening.ReadSocks(bufio.NewReader(bytes.NewReader(b)), io.Discard)
		if err == nil && (host == "" || len(host) > 255 || port < 1 || port > 65535) {
			t.Errorf("%q: %q, %d", b, host, port)
		}
	})
}

// clientHello returns what a real client sends first.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, cfg).Handshake()
		_ = theirs.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// records cuts a handshake message into records of n bytes.
func records(hello []byte, n int) (out []byte) {
	for chunk := range slices.Chunk(hello[5:], n) {
		out = append(out, 22, 3, 1, byte(len(chunk)>>8), byte(len(chunk)))
		out = append(out, chunk...)
	}
	return out
}

func TestHelloHoweverItComes(t *testing.T) {
	whole := clientHello(t, &tls.Config{ServerName: "files.example.org"})
	if h, err := opening.ParseHello(whole); err != nil || h.ServerName != "files.example.org" || h.Encrypted {
		t.Fatalf("ParseHello = %+v, %v", h, err)
	}
	for n := range len(whole) {
		if _, err := opening.ParseHello(whole[:n]); !errors.Is(err, opening.ErrMore) {
			t.Fatalf("the first %d bytes of %d: %v, want ErrMore", n, len(whole), err)
		}
	}
	for _, n := range []int{100, 300, 1000} {
		cut := records(whole, n)
		if h, err := opening.ParseHello(cut); err != nil || h.ServerName != "files.example.org" {
			t.Errorf("in records of %d bytes: %+v, %v", n, h, err)
		}
	}
	if _, err := opening.ParseHello(records(whole, 1)); !errors.Is(err, opening.ErrNotTLS) {
		t.Errorf("in records of one byte: %v", err)
	}
	if h, err := opening.ParseHello(clientHello(t, &tls.Config{InsecureSkipVerify: true})); err != nil || h.ServerName != "" {
		t.Errorf("without a server name: %+v, %v", h, err)
	}
	for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS10} {
		if h, err := opening.ParseHello(clientHello(t, &tls.Config{ServerName: "a.example.org", MinVersion: tls.VersionTLS10, MaxVersion: max})); err != nil || h.ServerName != "a.example.org" {
			t.Errorf("version %x: %+v, %v", max, h, err)
		}
	}
}

// hello builds a ClientHello with the extensions given.
func hello(exts ...[]byte) []byte {
	list := bytes.Join(exts, nil)
	msg := []byte{3, 3}
	msg = append(msg, make([]byte, 32)...)
	msg = append(msg, 0, 0, 2, 0x13, 0x01, 1, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(list)))
	msg = append(msg, list...)
	b := []byte{22, 3, 1, byte((len(msg) + 4) >> 8), byte(len(msg) + 4), 1, 0, byte(len(msg) >> 8), byte(len(msg))}
	return append(b, msg...)
}

func ext(id uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), uint16(len(body))), body...)
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(binary.BigEndian.AppendUint16(append(list, 0), uint16(len(n))), n...)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
}

func TestHelloThatTwoReadDifferently(t *testing.T) {
	good := ext(0, sni("a.example.org"))
	if h, err := opening.ParseHello(hello(good)); err != nil || h.ServerName != "a.example.org" {
		t.Fatalf("the builder's own: %+v, %v", h, err)
	}
	if h, err := opening.ParseHello(hello(good, ext(0xfe0d, []byte{1}))); err != nil || !h.Encrypted {
		t.Errorf("with an encrypted one inside: %+v, %v", h, err)
	}
	long := hello(good)
	long[7]++ // the message says it is longer: its rest is to come
	if _, err := opening.ParseHello(long); !errors.Is(err, opening.ErrMore) {
		t.Errorf("a message that is not whole: %v", err)
	}
	behind := hello(good)
	behind[4]++
	for name, b := range map[string][]byte{
		"two names":               hello(ext(0, sni("a.example.org", "b.example.org"))),
		"the extension twice":     hello(good, ext(0, sni("b.example.org"))),
		"another extension twice": hello(good, ext(5, nil), ext(5, nil)),
		"an empty list":           hello(ext(0, []byte{0, 0})),
		"an empty name":           hello(ext(0, sni(""))),
		"a name with a NUL":       hello(ext(0, sni("a.example.org\x00.evil.com"))),
		"a name with a blank":     hello(ext(0, sni("a example.org"))),
		"rubbish behind the name": hello(ext(0, append(sni("a.example.org"), 0))),
		"a name of another type":  hello(ext(0, []byte{0, 4, 1, 0, 1, 'a'})),
		"a length beyond the end": hello(ext(0, []byte{0, 200, 0, 0, 1, 'a'})),
		"a byte behind it":        append(behind, 0),
		"an alert":                {21, 3, 3, 0, 2, 1, 0},
		"a ServerHello":           {22, 3, 3, 0, 4, 2, 0, 0, 0},
		"a record without bytes":  {22, 3, 1, 0, 0},
		"a record too long":       {22, 3, 1, 0xff, 0xff},
		"a message too long":      {22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff},
		"SSLv2":                   {0x80, 46, 1, 3, 1},
		"SSH":                     []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"HTTP":                    []byte("GET / HTTP/1.1\r\n"),
	} {
		if name == "a message too long" {
			b = append(b, make([]byte, 0x4000)...)
		}
		if h, err := opening.ParseHello(b); !errors.Is(err, opening.ErrNotTLS) {
			t.Errorf("%s: %+v, %v; want ErrNotTLS", name, h, err)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(hello(ext(0, sni("a.example.org"))))
	f.Add(records(hello(ext(0, sni("a.example.org")), ext(0xfe0d, []byte{1})), 7))
	f.Add([]byte{22, 3, 1, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := opening.ParseHello(b)
		// More bytes never change an answer, and fewer never give another one.
		again, later := opening.ParseHello(append(bytes.Clone(b), 0, 0, 0, 0, 0, 0))
		switch {
		case err == nil && (later != nil || again != h):
			t.Errorf("%x: %+v, and with more bytes behind %+v, %v", b, h, again, later)
		case errors.Is(err, opening.ErrNotTLS) && !errors.Is(later, opening.ErrNotTLS):
			t.Errorf("%x: %v, and with more bytes behind %+v, %v", b, err, again, later)
		case errors.Is(err, opening.ErrMore) && len(b) > opening.MaxHello:
			t.Errorf("%d bytes are not enough", len(b))
		}
	})
}

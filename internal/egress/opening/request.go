package opening

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	// MaxHead is the longest head of a request, in bytes, with its last CRLF.
	MaxHead = 32 << 10
	// maxFields is the most header fields of a request.
	maxFields = 128
	maxMethod = 20
)

// A Request is the head of a request, checked and taken apart.
type Request struct {
	Method string
	Minor  int    // of HTTP/1.x
	Scheme string // "http"; "" of CONNECT and of a request in origin form
	Host   string // as it was written, without the port; brackets stay
	Port   int
	Target string // path and query, beginning with "/"; "*" of OPTIONS; "" of CONNECT

	Header  http.Header // as sent, hop-by-hop fields among them
	Length  int64       // of the body; -1: chunked
	Close   bool        // the sender wants the connection to end after this
	Upgrade bool        // the sender wants a WebSocket
	Expect  bool        // 100-continue
}

// Form says which requests ReadRequest takes.
type Form int

// The forms.
const (
	ToProxy  Form = iota // CONNECT host:port, or an absolute URI
	ToOrigin             // a path, Host saying whose
)

// ReadRequest reads the head of one request, and nothing behind it. An error of
// type [BadError] says what is wrong with it; the connection is of no use then.
// io.EOF means that nothing came.
func ReadRequest(r *bufio.Reader, form Form) (*Request, error) {
	head, err := readHead(r)
	if err != nil {
		return nil, err
	}
	line, rest, _ := strings.Cut(head, "\r\n")
	q := &Request{}
	if err := q.requestLine(line, form); err != nil {
		return nil, err
	}
	if err := q.fields(rest); err != nil {
		return nil, err
	}
	if err := q.host(form); err != nil {
		return nil, err
	}
	return q, q.body()
}

// readHead returns the lines of a head, each with its CRLF, without the empty one.
func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadSlice('\n')
		if head.Len()+len(line) > MaxHead {
			return "", bad(http.StatusRequestHeaderFieldsTooLarge, "the request's head is longer than %d bytes", MaxHead)
		}
		head.Write(line)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			if head.Len() > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		switch s := head.String(); {
		case !strings.HasSuffix(s, "\r\n"):
			return "", bad(http.StatusBadRequest, "a line ends without CR")
		case s == "\r\n":
			return "", bad(http.StatusBadRequest, "the request begins with an empty line")
		case strings.HasSuffix(s, "\r\n\r\n"):
			return s[:len(s)-2], nil
		}
	}
}

func (q *Request) requestLine(line string, form Form) error {
	method, rest, ok := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	switch {
	case !ok || !ok2 || strings.Contains(proto, " "):
		return bad(http.StatusBadRequest, "the request line is not a method, a target and a version")
	case len(method) > maxMethod || !isToken(method):
		return bad(http.StatusBadRequest, "the method is not one")
	case proto != "HTTP/1.1" && proto != "HTTP/1.0":
		return bad(http.StatusHTTPVersionNotSupported, "HTTP/1.1 is spoken here")
	case target == "" || !isVisible(target):
		return bad(http.StatusBadRequest, "the target has a character that must be encoded")
	}
	q.Method, q.Minor = method, int(proto[7]-'0')
	switch {
	case form == ToOrigin:
		if method == http.MethodConnect || target[0] != '/' && (target != "*" || method != http.MethodOptions) {
			return bad(http.StatusBadRequest, "the target is not a path")
		}
		q.Target = target
		return nil
	case method == http.MethodConnect:
		return q.authority(target, 0)
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok {
		return bad(http.StatusBadRequest, "this is a proxy: the target must be a whole URL, http://…")
	}
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		return bad(http.StatusNotImplemented, "https is carried by CONNECT, not as a URL: this proxy does not open TLS")
	default:
		return bad(http.StatusNotImplemented, "only http and, by CONNECT, https are carried")
	}
	q.Scheme = "http"
	authority, path := rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if strings.Contains(path, "#") {
		return bad(http.StatusBadRequest, "the URL has a fragment")
	}
	if path[0] == '?' {
		path = "/" + path
	}
	q.Target = path
	return q.authority(authority, 80)
}

// authority takes host and port apart. A port of 0 means that one must be there.
func (q *Request) authority(s string, port int) error {
	if strings.Contains(s, "@") {
		return bad(http.StatusBadRequest, "a user or password has no place before a host name")
	}
	host, text := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, ']') {
		host, text = s[:i], s[i+1:]
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 || text[0] == '0' || text[0] == '+' {
			return bad(http.StatusBadRequest, "the port is not one")
		}
		port = int(n)
	}
	if host == "" || port == 0 {
		return bad(http.StatusBadRequest, "the target is not a host name and a port")
	}
	q.Host, q.Port = host, port
	return nil
}

func (q *Request) fields(lines string) error {
	q.Header = http.Header{}
	n := 0
	for line := range strings.SplitSeq(lines, "\r\n") {
		if line == "" {
			continue // behind the last CRLF
		}
		if n++; n > maxFields {
			return bad(http.StatusRequestHeaderFieldsTooLarge, "the request has more than %d header fields", maxFields)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) { // also a folded line, which begins with a blank
			return bad(http.StatusBadRequest, "a header line is not a name, a colon and a value")
		}
		value = strings.Trim(value, " \t")
		if !isFieldValue(value) {
			return bad(http.StatusBadRequest, "a header field has a control character")
		}
		q.Header.Add(name, value)
	}
	return nil
}

// host checks the Host field: exactly one, and the same as the URL's.
func (q *Request) host(form Form) error {
	hosts := q.Header["Host"]
	if len(hosts) > 1 || len(hosts) == 0 && (q.Minor > 0 || form == ToOrigin) {
		return bad(http.StatusBadRequest, "the request must have one Host")
	}
	if len(hosts) == 0 {
		return nil
	}
	var named Request
	if err := named.authority(hosts[0], 80); err != nil {
		return err
	}
	if form == ToOrigin {
		q.Host, q.Port = named.Host, named.Port
		return nil
	}
	if q.Method == http.MethodConnect && !strings.Contains(hosts[0], ":") {
		named.Port = q.Port // clients leave the port out, or write it
	}
	if !strings.EqualFold(named.Host, q.Host) || named.Port != q.Port {
		return bad(http.StatusBadRequest, "Host is not the host of the URL")
	}
	return nil
}

// body finds out how long the body is, in the one way that cannot be read in
// another, and what the sender wants of the connection.
func (q *Request) body() error {
	codings, lengths := q.Header["Transfer-Encoding"], q.Header["Content-Length"]
	switch {
	case len(codings) > 0 && (len(codings) > 1 || codings[0] != "chunked"):
		return bad(http.StatusNotImplemented, "of transfer codings, chunked is taken, once")
	case len(codings) > 0 && len(lengths) > 0:
		return bad(http.StatusBadRequest, "the request has both Transfer-Encoding and Content-Length")
	case len(codings) > 0 && q.Minor == 0:
		return bad(http.StatusBadRequest, "HTTP/1.0 has no transfer codings")
	case len(lengths) > 1:
		return bad(http.StatusBadRequest, "the request has more than one Content-Length")
	case len(codings) > 0:
		q.Length = -1
	case len(lengths) > 0:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || lengths[0][0] == '+' {
			return bad(http.StatusBadRequest, "Content-Length is not a number")
		}
		q.Length = int64(n)
	}
	if q.Method == http.MethodConnect && (q.Length != 0 || len(codings) > 0) {
		return bad(http.StatusBadRequest, "CONNECT has no body")
	}
	q.Close = hasToken(q.Header, "Connection", "close") || hasToken(q.Header, "Proxy-Connection", "close") ||
		q.Minor == 0 && !hasToken(q.Header, "Connection", "keep-alive") && !hasToken(q.Header, "Proxy-Connection", "keep-alive")
	if up := q.Header["Upgrade"]; len(up) > 0 && hasToken(q.Header, "Connection", "upgrade") {
		// Another protocol (h2c) would carry requests that nobody here reads; the
		// field is dropped, and the answer is HTTP/1.1.
		q.Upgrade = len(up) == 1 && strings.EqualFold(up[0], "websocket") && q.Method == http.MethodGet && q.Minor == 1 && q.Length == 0
	}
	if e := q.Header["Expect"]; len(e) > 0 {
		if len(e) > 1 || !strings.EqualFold(e[0], "100-continue") {
			return bad(http.StatusExpectationFailed, "of expectations, 100-continue is taken")
		}
		q.Expect = q.Minor == 1 && q.Length != 0
	}
	return nil
}

// hasToken reports whether a comma-separated field has a token.
func hasToken(h http.Header, field, token string) bool {
	for _, line := range h[field] {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// isToken is RFC 9110 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// isFieldValue is RFC 9110 5.5: no control characters but tabs. Bytes above
// ASCII are looked at one by one, whatever they are as UTF-8.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

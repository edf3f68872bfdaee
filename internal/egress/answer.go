package egress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/opening"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

const (
	answerLimit = 5 * time.Second // to take an answer
	lingerLimit = time.Second     // for what the client still sends
	maxLinger   = 64 << 10
)

// A refusal is why a connection does not happen, in words for the person
// inside.
type refusal struct {
	status int
	error  string // of RFC 9209 2.3
	reason audit.Reason
	msg    string // what and why
	hint   string // what to do
	host   string
	port   int
	class  string
	state  bailey.AskState // of the request that it became; empty: none
	cause  error           // for the log
}

func (r *refusal) Error() string { return r.msg }
func (r *refusal) Unwrap() error { return r.cause }

// notAllowed is the refusal of something that no rule allows.
func notAllowed(who Who, host string, port int, method string, d rules.Decision, state bailey.AskState) *refusal {
	at := net.JoinHostPort(host, strconv.Itoa(port))
	r := &refusal{
		status: http.StatusForbidden, error: "http_request_denied", reason: audit.NotAllowed,
		host: host, port: port, class: who.Class, state: state,
	}
	switch d.Why { //nolint:exhaustive // the others are one
	case rules.Closed:
		r.msg = fmt.Sprintf("%s is not open to class %s at this time of day", at, who.Class)
	case rules.BadPort:
		r.msg = fmt.Sprintf("%s is not open to class %s on port %d", host, who.Class, port)
	case rules.BadMethod:
		r.msg = fmt.Sprintf("%s is not open to class %s for %s", at, who.Class, method)
	case rules.OtherUser:
		r.msg = fmt.Sprintf("%s is not open to %s in class %s", at, who.User, who.Class)
	default:
		r.msg = fmt.Sprintf("%s is not open to class %s", at, who.Class)
	}
	switch state {
	case bailey.AskDenied:
		r.hint = "An administrator was asked and said no."
	case "":
		r.hint = "This was not passed on: there are too many open requests. Ask an administrator, who can run: " + allowCommand(who, host, port)
	case bailey.AskOpen, bailey.AskAllowed:
		r.hint = "An administrator has been asked (bailey egress requests, or Network in the console)."
	}
	return r
}

func allowCommand(who Who, host string, port int) string {
	return fmt.Sprintf("bailey egress allow %s:%d --class %s", host, port, who.Class)
}

// tooMany is the refusal of a connection over the limit.
func tooMany(who Who) *refusal {
	return &refusal{
		status: http.StatusTooManyRequests, error: "connection_limit_reached", reason: audit.OverQuota, class: who.Class,
		msg: "this workspace has too many connections open", hint: "Close some and try again.",
	}
}

// asRefusal says for strangers what went wrong.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if b, ok := errors.AsType[*opening.BadError](err); ok {
		return &refusal{status: b.Status, error: "http_request_error", reason: audit.BadRequest, msg: b.Msg}
	}
	return &refusal{status: http.StatusBadGateway, error: "proxy_internal_error", reason: audit.Unreachable, msg: "the connection failed", cause: err}
}

// response returns the whole HTTP answer for a refusal. The status line says it
// too: pip and requests show that of a refused tunnel, and nothing else.
func (r *refusal) response(accept string) []byte {
	line := "bailey: " + r.msg
	if r.hint != "" {
		line += ". " + r.hint
	}
	text, kind := []byte(line+"\n"), "text/plain; charset=utf-8"
	if strings.Contains(accept, "application/json") || strings.Contains(accept, "application/problem+json") {
		kind = "application/json"
		text, _ = json.Marshal(struct { // strings and numbers always encode
			Error   string          `json:"error"`
			Message string          `json:"message"`
			Hint    string          `json:"hint,omitempty"`
			Host    string          `json:"host,omitempty"`
			Port    int             `json:"port,omitempty"`
			Class   string          `json:"class,omitempty"`
			Request bailey.AskState `json:"request,omitempty"`
		}{string(r.reason), r.msg, r.hint, r.host, r.port, r.class, r.state})
		text = append(text, '\n')
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %03d %s\r\n", r.status, visible(line))
	fmt.Fprintf(&b, "Proxy-Status: bailey; error=%s; details=%q\r\n", r.error, strings.NewReplacer(`"`, "'", `\`, "/").Replace(visible(r.msg)))
	if r.status == http.StatusTooManyRequests {
		b.WriteString("Retry-After: 1\r\n")
	}
	fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", kind, len(text))
	b.Write(text)
	return b.Bytes()
}

// visible keeps what may stand in a status line.
func visible(s string) string {
	if len(s) > 300 {
		s = s[:300]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// refuse answers a request and lets the answer arrive: a socket that is closed
// while something unread lies in it takes the answer with it.
func (s *session) refuse(r *refusal, accept string) {
	s.say(r.response(accept))
}

func (s *session) say(b []byte) {
	_ = s.conn.SetDeadline(time.Now().Add(answerLimit))
	if _, err := s.conn.Write(b); err != nil {
		return
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = s.conn.SetReadDeadline(time.Now().Add(lingerLimit))
		_, _ = io.CopyN(io.Discard, s.conn, maxLinger)
	}
}

// socksReply is the reply of SOCKS5 for a refusal.
func (r *refusal) socksReply() byte {
	switch r.reason { //nolint:exhaustive // those that refusals have
	case audit.NotAllowed, audit.BadAddress, audit.BadServerName, audit.OverQuota:
		return opening.SocksNotAllowed
	case audit.Unreachable:
		if r.error == "connection_refused" {
			return opening.SocksRefused
		}
		return opening.SocksUnreachable
	}
	return opening.SocksFailed
}

// tlsAlert is a fatal alert in a record of its own (RFC 8446 6): the client's
// library says what it means, instead of that a connection broke.
func tlsAlert(description byte) []byte { return []byte{21, 3, 3, 0, 2, 2, description} }

// Alerts.
const (
	alertAccessDenied     = 49
	alertUnrecognizedName = 112
)

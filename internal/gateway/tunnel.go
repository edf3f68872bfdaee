package gateway

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; it protects nothing
	"encoding/base64"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/workspace"
)

const (
	handshakeLimit  = 30 * time.Second
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 1 << 20 // of an answer that is not a 101
)

// upgradeOf returns what a request wants to become; ok is false when nothing.
func upgradeOf(h http.Header) (kind string, ok bool) {
	if !hasToken(h["Connection"], "upgrade") {
		return "", false
	}
	kinds := h["Upgrade"]
	return strings.TrimSpace(strings.Join(kinds, ",")), len(kinds) > 0
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// A versionError says which WebSocket version would be right.
type versionError struct {
	err  *bailey.Error
	want string
}

func (v *versionError) Error() string { return v.err.Error() }
func (v *versionError) Unwrap() error { return v.err }

// checkHandshake refuses every upgrade but a WebSocket's as RFC 6455 4.2.1 has
// it. What is not exactly one could be read differently upstream.
func checkHandshake(r *http.Request, kind string) error {
	switch {
	case !strings.EqualFold(kind, "websocket"):
		return bailey.Errorf(bailey.Invalid, "only upgrades to websocket are served")
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return bailey.Errorf(bailey.Invalid, "a WebSocket begins with GET and HTTP/1.1")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return bailey.Errorf(bailey.Invalid, "a WebSocket handshake has no body")
	}
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || v[0] != "13" {
		return &versionError{bailey.Errorf(bailey.Invalid, "WebSocket version 13 is served"), "13"}
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return bailey.Errorf(bailey.Invalid, "a WebSocket handshake has one key")
	}
	if b, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(b) != 16 || len(keys[0]) != 24 {
		return bailey.Errorf(bailey.Invalid, "the WebSocket key is not 16 bytes in base64")
	}
	return nil
}

// acceptOf is the answer to a WebSocket key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// tunnel opens a WebSocket to the workspace and then to the client. When it
// returns nil, either an answer was written or the tunnel runs on its own; the
// server's goroutine and buffers for the connection are free then.
func (q *request) tunnel(w http.ResponseWriter, route Route) error {
	g := q.gateway
	run, err := g.runFor(route)
	if err != nil {
		return err
	}
	if run.inspected() {
		if err := run.refuseRoom(q.URL.Path); err != nil {
			return err
		}
	}
	if err := g.reserve(run, q.actor.UserID); err != nil {
		return err
	}
	taken := false
	defer func() {
		if !taken {
			g.unreserve(run, q.actor.UserID)
		}
	}()
	ctx, cancel := context.WithTimeout(q.Context(), dialLimit)
	conn, err := route.Dial(ctx, "tcp", workspace.JupyterAddr)
	cancel()
	if err != nil {
		return upstreamError(err)
	}
	// The client going away while Jupyter thinks ends the wait.
	forget := context.AfterFunc(q.Context(), func() { _ = conn.Close() })
	res, early, err := q.shakeHands(conn, route) //nolint:bodyclose // passOn closes it, and a 101 has none
	if err != nil {
		forget()
		_ = conn.Close()
		return upstreamError(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer forget()
		err := q.passOn(w, res, run)
		_ = conn.Close()
		return err
	}
	if !forget() {
		return context.Cause(q.Context()) // too late: conn is closed
	}
	t := &tunnel{
		g: g, run: run, actor: q.actor, upstream: conn, input: snifferFor(q.URL.Path),
	}
	if run.inspected() || run.scope != nil && g.watchesCells(route.Workspace.Class) && isKernel(q.URL.Path) {
		q.inspect(t, route, res.Header.Get("Sec-Websocket-Protocol"))
	}
	if err := t.open(w, res, early, q.Header.Get("Sec-Websocket-Key")); err != nil {
		_ = conn.Close()
		return err
	}
	taken = true
	return nil
}

// shakeHands sends the handshake upstream and reads the answer. early is what
// Jupyter sent right behind a 101.
func (q *request) shakeHands(conn net.Conn, route Route) (res *http.Response, early []byte, err error) {
	rest, _ := splitQuery(q.URL.RawQuery)
	target := q.base + q.URL.EscapedPath()
	if rest != "" {
		target += "?" + rest
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return nil, nil, bailey.Errorf(bailey.Invalid, "the address has a character that must be encoded")
		}
	}
	h := q.upstreamHeader(route.Token)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	h["Sec-Websocket-Version"] = []string{"13"}
	h["Sec-Websocket-Key"] = q.Header["Sec-Websocket-Key"]
	// Exactly as asked: Jupyter's kernels speak two protocols. Extensions are
	// not passed on: what is compressed cannot be looked into.
	if p, _ := splitProtocols(q.Header["Sec-Websocket-Protocol"]); len(p) > 0 {
		h["Sec-Websocket-Protocol"] = p
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return nil, nil, err
	}
	var b strings.Builder
	b.WriteString("GET " + target + " HTTP/1.1\r\nHost: " + upstreamHost + "\r\n")
	_ = h.Write(&b) // a strings.Builder takes everything
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, nil, err
	}
	limit := &io.LimitedReader{R: conn, N: maxAnswerHeader}
	br := bufio.NewReader(limit)
	for informational := 0; res == nil || res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols; informational++ {
		if informational > 4 {
			return nil, nil, errors.New("the workspace sends nothing but informational answers")
		}
		if res, err = http.ReadResponse(br, q.Request); err != nil {
			return nil, nil, err
		}
	}
	limit.N = math.MaxInt64
	if res.StatusCode != http.StatusSwitchingProtocols {
		return res, nil, nil
	}
	if err := q.checkAnswer(res.Header); err != nil {
		return nil, nil, err
	}
	early, _ = br.Peek(br.Buffered())
	return res, slices.Clone(early), conn.SetDeadline(time.Time{})
}

// checkAnswer refuses a 101 that is not the answer to what was asked.
func (q *request) checkAnswer(h http.Header) error {
	accept, protocols := h["Sec-Websocket-Accept"], h["Sec-Websocket-Protocol"]
	kind, ok := upgradeOf(h)
	switch {
	case !ok || !strings.EqualFold(kind, "websocket"),
		len(accept) != 1 || accept[0] != acceptOf(q.Header.Get("Sec-Websocket-Key")),
		len(h["Sec-Websocket-Extensions"]) > 0,
		len(protocols) > 1,
		len(protocols) == 1 && !hasToken(q.Header["Sec-Websocket-Protocol"], protocols[0]):
		return errors.New("the workspace's answer to a WebSocket handshake is not one")
	}
	return nil
}

// passOn answers with what Jupyter answered in place of a 101. It is an answer
// like any other, and is looked at.
func (q *request) passOn(w http.ResponseWriter, res *http.Response, run *run) error {
	body := res.Body
	defer func() { _ = body.Close() }()
	res.Body = io.NopCloser(io.LimitReader(body, maxAnswerBody))
	res.ContentLength = min(res.ContentLength, maxAnswerBody)
	if res.Request == nil {
		res.Request = q.Request
	}
	looked, err := q.exchange(run)
	if err != nil {
		return err
	}
	if err := q.leaving(res, looked, run); err != nil {
		return upstreamError(err)
	}
	q.downstreamHeader(res.Header)
	res.Header.Del("Content-Length")
	for name, values := range res.Header {
		w.Header()[name] = append(w.Header()[name], values...)
	}
	w.Header().Set("Connection", "close")
	w.WriteHeader(res.StatusCode)
	if err := q.pass(w, res); err != nil && q.Context().Value(http.ServerContextKey) != nil {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	return nil
}

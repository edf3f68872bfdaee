package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/cells"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// What an inspected WebSocket may hold of a message. Messages are looked at
// whole; opaque ones flow through.
const (
	maxMessage    = 64 << 20  // one message
	freeMessage   = 256 << 10 // up to here it costs nothing of the run's share
	maxRunHolding = 96 << 20  // all unfinished messages of a run together
)

// Close codes for what an inspected WebSocket refuses (RFC 6455, 7.4.1).
const (
	closeProtocol = 1002
	closeInvalid  = 1007
	closeTooBig   = 1009
)

// inspectedRoute says what the WebSocket at a path carries.
func inspectedRoute(p string) filter.Route {
	switch {
	case strings.HasPrefix(p, "/api/kernels/") && strings.HasSuffix(p, "/channels"):
		return filter.Kernel
	case strings.HasPrefix(p, "/terminals/websocket/"):
		return filter.Terminal
	case strings.HasPrefix(p, "/api/events/"):
		return filter.Events
	}
	return filter.Socket
}

// refuseRoom refuses WebSockets in which documents are edited by several: what
// they carry is a shared history of changes, from which nothing can be taken
// out without the editors' copies drifting apart.
func (r *run) refuseRoom(p string) error {
	if r.scope.Rooms() {
		return nil
	}
	for _, room := range []string{"/api/collaboration/", "/api/yjs/"} {
		if strings.Contains(p+"/", room) {
			return &bailey.Error{
				Kind: bailey.Denied, Msg: "real-time collaboration cannot be inspected and is switched off here",
				Hint: "remove the jupyter-collaboration extension, or ask an administrator about filter.collaboration",
			}
		}
	}
	return nil
}

// An inspection is what a tunnel whose messages are looked at has on top.
type inspection struct {
	conn  *filter.Conn
	stop  func(context.Context) // interrupts the kernel, closes the terminal
	lock  chan struct{}         // held by whoever writes to the client
	timer *time.Timer           // flushes what waits; nil until it is needed
	armed bool                  // guarded by lock
	hung  atomic.Bool           // a flush found the connection closed
	cells *cells.Watch          // sees which code is run; nil: nobody wants to know

	down, up judging
}

// inspect sets up the inspection of a tunnel.
func (q *request) inspect(t *tunnel, route Route, protocol string) {
	kind, path := inspectedRoute(q.URL.Path), strings.Clone(q.URL.Path)
	key := q.actor.UserID + " " + path + " " + q.URL.Query().Get("session_id")
	token, base := route.Token, q.base
	conn := t.run.scope.Conn(kind, key, protocol == jupyter.ProtocolV1)
	t.insp = &inspection{
		conn: conn,
		down: judging{conn: conn, done: make(chan struct{}, 1)},
		up:   judging{conn: conn, up: true, done: make(chan struct{}, 1)},
		lock: make(chan struct{}, 1),
		// It holds on to nothing of the request: a WebSocket may be open for days.
		stop: func(ctx context.Context) { t.g.stopWhatRuns(ctx, t.run, token, base, kind, path) },
	}
	if kind == filter.Kernel {
		t.insp.cells = q.gateway.watchCells(t, route, protocol)
	}
}

// stopWhatRuns asks Jupyter to interrupt a kernel or to close a terminal.
func (g *Gateway) stopWhatRuns(ctx context.Context, run *run, token secret.Value, base string, kind filter.Route, p string) {
	method, target := http.MethodPost, ""
	switch kind { //nolint:exhaustive // nothing else runs
	case filter.Kernel:
		target = strings.TrimSuffix(p, "/channels") + "/interrupt"
	case filter.Terminal:
		method, target = http.MethodDelete, "/api/terminals/"+strings.TrimPrefix(p, "/terminals/websocket/")
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+upstreamHost+(&url.URL{Path: base + target}).EscapedPath(), nil)
	if err != nil {
		return
	}
	r.Header.Set("Authorization", "token "+token.Reveal())
	res, err := run.upstream.RoundTrip(r)
	if err != nil {
		g.cfg.Log.WarnContext(ctx, "cell not interrupted after a block", logWorkspace(run), logError(err))
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	_ = res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest && res.StatusCode != http.StatusNotFound {
		g.cfg.Log.WarnContext(ctx, "cell not interrupted after a block", logWorkspace(run), logStatus(res.StatusCode))
	}
}

// A messages reads one direction of a WebSocket, message by message. Between
// messages it holds no memory but the few bytes in small.
type messages struct {
	src    net.Conn
	small  []byte
	have   []byte // read and not used
	masked bool   // frames must be masked: a client sends them
	run    *run
	pool   *buffers
	head   [ws.MaxHeaderSize]byte
}

// Read implements [io.Reader].
func (m *messages) Read(p []byte) (int, error) {
	if len(m.have) > 0 {
		n := copy(p, m.have)
		m.have = m.have[n:]
		return n, nil
	}
	if len(p) >= len(m.small) {
		return m.src.Read(p)
	}
	n, err := m.src.Read(m.small)
	if n == 0 {
		return 0, err
	}
	m.have = m.small[:n]
	return m.Read(p)
}

// A closing is an error with a close code for whoever sent what caused it.
type closing struct {
	code   int32
	reason string
}

func (c *closing) Error() string { return c.reason }

// next reads frames until a message is whole and gives it to data; control
// frames in between go to control. The payload is valid during the call only.
func (m *messages) next(data func(op ws.OpCode, payload []byte) error, control func(op ws.OpCode, payload []byte) error) error {
	var op ws.OpCode
	var buf []byte
	var pooled []byte
	held := int64(0)
	defer func() {
		m.run.holding.Add(-held)
		if pooled != nil {
			m.pool.Put(pooled)
		}
	}()
	for {
		h, err := ws.ReadHeaderBuffer(m, m.head[:])
		if err != nil {
			if errors.Is(err, ws.ErrHeaderLengthMSB) || errors.Is(err, ws.ErrHeaderLengthUnexpected) {
				return &closing{closeTooBig, "a message of more than 64 MiB cannot be looked at"}
			}
			return err
		}
		if err := m.check(h, op != 0); err != nil {
			return err
		}
		if h.OpCode.IsControl() {
			var payload [ws.MaxControlFramePayloadSize]byte
			p := payload[:h.Length]
			if _, err := io.ReadFull(m, p); err != nil {
				return err
			}
			if h.Masked {
				ws.Cipher(p, h.Mask, 0)
			}
			if err := control(h.OpCode, p); err != nil {
				return err
			}
			continue
		}
		if op == 0 {
			op = h.OpCode
		}
		if h.Length > maxMessage-int64(len(buf)) {
			return &closing{closeTooBig, "a message of more than 64 MiB cannot be looked at"}
		}
		if pooled == nil && h.Length > 0 {
			pooled = m.pool.Get()
			buf = pooled[:0]
		}
		from := len(buf)
		// Grown by what has come, never by what is promised.
		for left := h.Length; left > 0; {
			if len(buf) == cap(buf) {
				grown := int64(2 * cap(buf))
				if grown > freeMessage {
					if m.run.holding.Add(grown-held) > maxRunHolding {
						m.run.holding.Add(held - grown)
						return &closing{closeTooBig, "too many unfinished messages of this workspace"}
					}
					held = grown
				}
				buf = append(make([]byte, 0, grown), buf...)
			}
			n, err := m.Read(buf[len(buf):min(int64(cap(buf)), int64(len(buf))+left)])
			buf = buf[:len(buf)+n]
			if left -= int64(n); err != nil && left > 0 {
				return err
			}
		}
		if h.Masked {
			ws.Cipher(buf[from:], h.Mask, 0)
		}
		if h.Fin {
			if op == ws.OpText && !utf8.Valid(buf) {
				return &closing{closeInvalid, "a text message that is not UTF-8"}
			}
			return data(op, buf)
		}
	}
}

// check is RFC 6455, 5.2 to 5.5. No extension was negotiated.
func (m *messages) check(h ws.Header, within bool) error {
	bad := ""
	switch {
	case h.Rsv != 0:
		bad = "reserved bits are set"
	case h.Masked != m.masked:
		bad = "a frame is masked, or not, against the rules"
	case h.OpCode.IsControl() && (!h.Fin || h.Length > ws.MaxControlFramePayloadSize):
		bad = "a control frame is too long, or in pieces"
	case !h.OpCode.IsControl() && h.OpCode > ws.OpBinary, h.OpCode > ws.OpPong:
		bad = "a frame of an unknown kind"
	case !h.OpCode.IsControl() && within != (h.OpCode == ws.OpContinuation):
		bad = "the frames of two messages are mixed up"
	}
	if bad != "" {
		return &closing{closeProtocol, bad}
	}
	return nil
}

// down is the direction to the client.
func (t *tunnel) inspectDown(had []byte) {
	defer t.done()
	m := &messages{src: t.upstream, small: t.downBuf, have: had, run: t.run, pool: t.g.buffers}
	var err error
	for err == nil {
		err = m.next(func(op ws.OpCode, p []byte) error {
			t.insp.acquire()
			defer t.insp.release()
			if t.insp.cells != nil {
				t.insp.cells.Down(p, op == ws.OpText)
			}
			return t.settle(t.g.judge(&t.insp.down, filter.Message{Text: op == ws.OpText, Data: p}), false)
		}, func(op ws.OpCode, p []byte) error {
			t.insp.acquire()
			defer t.insp.release()
			return t.send(t.client, op, t.plainControl(op, p), &t.downMark, false)
		})
		if t.why.Load() != 0 {
			err = errEnding
		}
	}
	t.insp.acquire()
	defer t.insp.release()
	t.insp.hung.Store(true)
	t.insp.conn.End()
	if t.insp.cells != nil {
		t.insp.cells.End()
	}
	if c, ok := errors.AsType[*closing](err); ok {
		t.why.CompareAndSwap(0, c.code)
		t.bye(c.code, c.reason)
		return
	}
	switch {
	case t.why.Load() != 0:
		t.sayGoodbye()
	case errors.Is(err, io.EOF) && halfClose(t.client):
		time.AfterFunc(lingerTime, t.cut)
	default:
		t.cut()
	}
}

// up is the direction to the workspace.
func (t *tunnel) inspectUp(had []byte) {
	defer t.done()
	m := &messages{src: t.client, small: t.upBuf, have: had, masked: true, run: t.run, pool: t.g.buffers}
	var err error
	for err == nil {
		err = m.next(func(op ws.OpCode, p []byte) error {
			if t.why.Load() != 0 {
				return errEnding
			}
			if t.input != nil && t.input.message(p) {
				t.g.touch(t.run)
			}
			v := t.g.judge(&t.insp.up, filter.Message{Text: op == ws.OpText, Data: p})
			if t.insp.cells != nil {
				t.insp.cells.Up(p, op == ws.OpText, len(v.On) > 0)
			}
			return t.settle(v, true)
		}, func(op ws.OpCode, p []byte) error {
			if t.why.Load() != 0 {
				return errEnding
			}
			return t.send(t.upstream, op, p, &t.upMark, true)
		})
	}
	if c, ok := errors.AsType[*closing](err); ok {
		t.insp.acquire()
		if t.why.CompareAndSwap(0, c.code) {
			t.bye(c.code, c.reason)
			_ = t.upstream.SetReadDeadline(time.Unix(1, 0))
		}
		t.insp.release()
		t.hearOut()
		t.cut()
		return
	}
	switch {
	case t.why.Load() != 0:
		if !isTimeout(err) {
			t.hearOut()
		}
	case errors.Is(err, io.EOF) && halfClose(t.upstream):
		time.AfterFunc(lingerTime, t.cut)
	default:
		t.cut()
	}
}

func (i *inspection) acquire() { i.lock <- struct{}{} }
func (i *inspection) release() { <-i.lock }

// settle does what a verdict says. On the way down the caller holds the lock.
func (t *tunnel) settle(v filter.Verdict, up bool) error {
	if v.Stop {
		t.g.wg.Go(func() { t.insp.stop(context.Background()) }) //nolint:forbidigo // it outlives the message
	}
	if up {
		for _, m := range v.On {
			if err := t.send(t.upstream, opOf(m), m.Data, &t.upMark, true); err != nil {
				return err
			}
		}
		t.insp.acquire()
		defer t.insp.release()
		v.On = v.Back
	}
	for _, m := range v.On {
		if err := t.send(t.client, opOf(m), m.Data, &t.downMark, false); err != nil {
			return err
		}
	}
	if v.Close != "" {
		return &closing{closePolicy, v.Close}
	}
	t.arm()
	return nil
}

func opOf(m filter.Message) ws.OpCode {
	if m.Text {
		return ws.OpText
	}
	return ws.OpBinary
}

// arm sets the timer for what waits. The caller holds the lock.
func (t *tunnel) arm() {
	due := t.insp.conn.Due()
	if due.IsZero() || t.insp.armed {
		return
	}
	t.insp.armed = true
	wait := time.Until(due)
	if t.insp.timer == nil {
		t.insp.timer = time.AfterFunc(wait, t.flush)
		return
	}
	t.insp.timer.Reset(wait)
}

// flush sends what has waited long enough.
func (t *tunnel) flush() {
	t.insp.acquire()
	defer t.insp.release()
	t.insp.armed = false
	if t.insp.hung.Load() || t.why.Load() != 0 {
		return
	}
	if due := t.insp.conn.Due(); due.IsZero() || time.Until(due) > 0 {
		t.arm()
		return
	}
	if err := t.settle(t.insp.conn.Flush(), false); err != nil {
		if c, ok := errors.AsType[*closing](err); ok && t.why.CompareAndSwap(0, c.code) {
			t.bye(c.code, c.reason)
		}
		_ = t.upstream.SetReadDeadline(time.Unix(1, 0))
	}
}

// plainControl is the payload of a control frame as it may pass: what speaks
// to programs is short, and what a page can read is looked at.
func (t *tunnel) plainControl(op ws.OpCode, p []byte) []byte {
	return t.insp.conn.Control(op == ws.OpClose, p)
}

// send writes one message as one frame.
func (t *tunnel) send(dst net.Conn, op ws.OpCode, p []byte, mark *time.Time, mask bool) error {
	buf := t.g.buffers.Get()
	defer t.g.buffers.Put(buf)
	out := append(buf[:0], 0x80|byte(op), 0)
	switch n := len(p); {
	case n < 126:
		out[1] = byte(n)
	case n <= 0xffff:
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out[1] = 127
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	var key [4]byte
	if mask {
		out[1] |= 0x80
		_, _ = rand.Read(key[:])
		out = append(out, key[:]...)
	}
	for at := 0; ; {
		n := min(len(p)-at, bufferSize-len(out))
		from := len(out)
		out = append(out, p[at:at+n]...)
		if mask {
			ws.Cipher(out[from:], key, at)
		}
		if err := t.write(dst, out, mark); err != nil {
			return err
		}
		if at += n; at == len(p) {
			return nil
		}
		out = buf[:0]
	}
}

// bye closes the client's side with a code and a reason. The caller holds the
// lock.
func (t *tunnel) bye(code int32, reason string) {
	if len(reason) > 120 {
		reason = strings.ToValidUTF8(reason[:120], "")
	}
	p := binary.BigEndian.AppendUint16(nil, uint16(code)) //nolint:gosec // four digits
	_ = t.client.SetWriteDeadline(time.Now().Add(closeTime))
	frame := append([]byte{0x88, byte(2 + len(reason))}, append(p, reason...)...) //nolint:gosec // at most 122
	_, _ = t.client.Write(frame)
	_ = t.client.SetReadDeadline(time.Now().Add(closeTime))
	_ = t.upstream.Close()
	if !halfClose(t.client) {
		_ = t.client.Close()
	}
}

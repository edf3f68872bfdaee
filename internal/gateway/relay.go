package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
)

// The close codes that we send (RFC 6455, 7.4.1).
const (
	closeGoingAway = 1001 // the server, or the workspace, is going down
	closePolicy    = 1008 // the session is over
)

// How a tunnel treats its ends.
const (
	smallRead  = 512                   // what is read into while a direction is quiet
	headRead   = 128                   // the same where messages are looked at: mostly a frame's head
	burstWait  = 50 * time.Millisecond // how long a direction keeps a big buffer for more
	stallLimit = 4 * time.Minute       // how long one end may take nothing
	stallCheck = time.Minute
	lingerTime = 10 * time.Second // for one end after the other has half-closed
	closeTime  = 2 * time.Second  // for an end that was told to close
)

// A tunnel is an open WebSocket: two connections, one goroutine per direction,
// and while nothing happens no buffers but two of half a KiB. Waiting for the
// socket to become readable would need none at all, but a TLS connection may
// hold a whole record that it has read already, and the wait would never end.
type tunnel struct {
	g        *Gateway
	run      *run
	actor    bailey.Actor
	watch    *watch
	watchKey string

	client, upstream net.Conn
	input            *sniffer    // nil: nothing on this path is a person's input
	insp             *inspection // nil: the tunnel is opaque
	down             frames      // follows what went to the client: where a frame may be put in

	why   atomic.Int32 // close code once it must end; 0 before
	loops atomic.Int32 // directions that have ended

	upBuf, downBuf   []byte
	upMark, downMark time.Time // when the write deadlines were last moved on
}

// open answers the client, takes over its connection and starts relaying. An
// error means that the connection is still the server's.
func (t *tunnel) open(w http.ResponseWriter, res *http.Response, early []byte, key string) error {
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	t.client = client
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\n"
	if p := res.Header["Sec-Websocket-Protocol"]; len(p) == 1 {
		answer += "Sec-WebSocket-Protocol: " + p[0] + "\r\n"
	}
	// The client may have sent frames already; they are in the server's buffer.
	had, _ := buffered.Peek(buffered.Reader.Buffered())
	had = slices.Clone(had)
	_ = client.SetDeadline(time.Now().Add(dialLimit))
	_, err = io.WriteString(client, answer+"\r\n")
	if err == nil {
		err = client.SetDeadline(time.Time{})
	}
	if err == nil {
		err = t.g.join(t)
	}
	if err != nil {
		t.cut()
		t.g.unreserve(t.run, t.actor.UserID)
		return nil //nolint:nilerr // there is nobody left to tell
	}
	small := smallRead
	if t.insp != nil {
		small = headRead
	}
	t.upBuf, t.downBuf = make([]byte, small), make([]byte, small)
	if t.insp != nil {
		go t.inspectDown(early)
		go t.inspectUp(had)
		return nil
	}
	go t.loop(t.upstream, client, early, t.downBuf, t.passDown)
	go t.loop(client, t.upstream, had, t.upBuf, t.passUp)
	return nil
}

// loop is one direction: first what had come already, then what comes.
func (t *tunnel) loop(src, dst net.Conn, had, small []byte, pass func([]byte) error) {
	defer t.done()
	err := t.relay(src, had, small, pass)
	switch {
	case t.why.Load() != 0:
		if src == t.upstream {
			t.sayGoodbye()
		} else if !isTimeout(err) { // or the client has had its time
			t.hearOut()
		}
	case errors.Is(err, io.EOF) && halfClose(dst):
		// The other direction may have more to say, but not for ever.
		time.AfterFunc(lingerTime, t.cut)
	default:
		t.cut()
	}
}

func (t *tunnel) relay(src net.Conn, had, small []byte, pass func([]byte) error) error {
	if len(had) > 0 {
		if err := pass(had); err != nil {
			return err
		}
	}
	for {
		n, err := src.Read(small)
		if n > 0 {
			if err := pass(small[:n]); err != nil {
				return err
			}
		}
		if err == nil && n == len(small) {
			err = t.burst(src, pass)
		}
		if err != nil {
			return err
		}
	}
}

// burst relays with a big buffer for as long as the source keeps sending.
func (t *tunnel) burst(src net.Conn, pass func([]byte) error) error {
	buf := t.g.buffers.Get()
	defer t.g.buffers.Put(buf)
	for {
		if err := src.SetReadDeadline(time.Now().Add(burstWait)); err != nil {
			return err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if err := pass(buf[:n]); err != nil {
				return err
			}
		}
		if isTimeout(err) {
			err = src.SetReadDeadline(time.Time{})
			if t.why.Load() != 0 { // end set a deadline, which may be the one just removed
				return errEnding
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

var errEnding = errors.New("the tunnel is being closed")

// passUp relays to the workspace, and notices a person's input.
func (t *tunnel) passUp(p []byte) error {
	if t.why.Load() != 0 {
		return errEnding
	}
	if t.input != nil && t.input.feed(p) {
		t.g.touch(t.run)
	}
	return t.write(t.upstream, p, &t.upMark)
}

// passDown relays to the client, and follows where frames end. Once the tunnel
// must end it lets only the present frame through.
func (t *tunnel) passDown(p []byte) error {
	ending := t.why.Load() != 0
	for rest := p; len(rest) > 0 && !t.down.lost; {
		if ending && t.down.boundary() {
			p = p[:len(p)-len(rest)]
			break
		}
		n, _ := t.down.next(rest)
		rest = rest[n:]
	}
	if err := t.write(t.client, p, &t.downMark); err != nil {
		return err
	}
	if ending && t.down.boundary() {
		return errEnding
	}
	return nil
}

// write writes to one end, and gives it up when it takes nothing for minutes.
// mark belongs to the direction; its deadline moves on every minute only.
func (t *tunnel) write(dst net.Conn, p []byte, mark *time.Time) error {
	if len(p) == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(*mark) > stallCheck {
		*mark = now
		limit := stallLimit
		err := dst.SetWriteDeadline(now.Add(limit))
		if t.why.Load() != 0 {
			err = dst.SetWriteDeadline(now.Add(closeTime))
		}
		if err != nil {
			return err
		}
	}
	_, err := dst.Write(p)
	return err
}

// end closes the tunnel in an orderly way, with a close code for the client.
// Only the first call counts. It does not wait.
func (t *tunnel) end(code int32) {
	if !t.why.CompareAndSwap(0, code) {
		return
	}
	soon := time.Now().Add(closeTime)
	_ = t.client.SetDeadline(soon)
	_ = t.upstream.SetWriteDeadline(soon)
	_ = t.upstream.SetReadDeadline(time.Unix(1, 0)) // wakes the direction that says goodbye
}

// sayGoodbye sends the client a close frame, after the end of the frame that
// it is in the middle of, if that comes soon.
func (t *tunnel) sayGoodbye() {
	_ = t.upstream.SetReadDeadline(time.Now().Add(closeTime))
	for !t.down.boundary() && !t.down.lost {
		n, err := t.upstream.Read(t.downBuf[:])
		if n > 0 && t.passDown(t.downBuf[:n]) != nil || err != nil {
			break
		}
	}
	if t.down.boundary() {
		frame := "\x88\x0c\x03\xe9going away"
		if t.why.Load() == closePolicy {
			frame = "\x88\x0e\x03\xf0session over"
		}
		_ = t.client.SetWriteDeadline(time.Now().Add(closeTime))
		_, _ = io.WriteString(t.client, frame)
	}
	_ = t.upstream.Close()
	if !halfClose(t.client) {
		_ = t.client.Close()
	}
}

// hearOut reads what the client still sends, so that closing the connection
// does not make the close frame disappear with it.
func (t *tunnel) hearOut() {
	_ = t.client.SetReadDeadline(time.Now().Add(closeTime))
	for {
		if _, err := t.client.Read(t.upBuf[:]); err != nil {
			return
		}
	}
}

// cut closes both ends at once.
func (t *tunnel) cut() {
	_ = t.client.Close()
	_ = t.upstream.Close()
}

// done is the end of one direction. The second to end cleans up.
func (t *tunnel) done() {
	defer t.g.wg.Done()
	if t.loops.Add(1) < 2 {
		return
	}
	t.cut()
	t.g.leave(t)
	t.g.unreserve(t.run, t.actor.UserID)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// halfClose tells one end that nothing more comes; false when it cannot be told.
func halfClose(c net.Conn) bool {
	cw, ok := c.(interface{ CloseWrite() error })
	return ok && cw.CloseWrite() == nil
}

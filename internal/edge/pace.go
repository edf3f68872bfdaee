package edge

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/baileyhq/bailey/internal/mutant"
)

// How slow a client may be. Uploads may take hours, but each paceBytes of them
// at most paceTime of waiting: 1 KiB/s. An answer may take hours too, but a
// client that takes nothing for stallTime is gone.
const (
	paceBytes = 60 << 10
	paceTime  = 60 * time.Second
	stallTime = 120 * time.Second
	lateTime  = 5 * time.Second // for the rest of a body that nobody wanted
)

func withExchange(ctx context.Context, e *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, e)
}

// A pacedBody is a request body with a lower bound on its speed. Only time
// spent waiting for the client counts: while the handler, or the workspace
// behind it, is slow, the client's clock stands still.
type pacedBody struct {
	io.ReadCloser
	rc   *http.ResponseController
	left time.Duration // to wait for the bytes of this window
	n    int           // bytes of this window so far
	done bool          // at its end, or failed
}

func newPacedBody(body io.ReadCloser, rc *http.ResponseController) *pacedBody {
	b := &pacedBody{ReadCloser: body, rc: rc, left: paceTime}
	// Also when nobody reads it: net/http itself reads the rest of a body
	// before it answers, and would wait for ever.
	if mutant.SlowBodies {
		return b
	}
	_ = rc.SetReadDeadline(time.Now().Add(paceTime)) // not supported in some tests
	return b
}

func (b *pacedBody) Read(p []byte) (int, error) {
	begin := time.Now()
	if !mutant.SlowBodies {
		_ = b.rc.SetReadDeadline(begin.Add(b.left))
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= time.Since(begin)
	if b.n += n; b.n >= paceBytes {
		b.n, b.left = 0, paceTime
	}
	// At the end of the body net/http itself takes the deadline away.
	b.done = b.done || err != nil
	return n, err
}

// finish gives a body that was not read to its end a last moment, and one that
// was too slow none: net/http still reads on for a while before it answers.
func (b *pacedBody) finish() {
	if !b.done {
		_ = b.rc.SetReadDeadline(time.Now().Add(lateTime))
	}
}

// An answer counts what is written, and gives up on a client that takes
// nothing: its deadline moves on with every write.
type answer struct {
	http.ResponseWriter
	rc       *http.ResponseController
	begin    time.Time
	deadline time.Time // when it was last moved on
	http1    bool
	hijacked bool
	status   int
	bytes    int64
}

// Unwrap is how [http.ResponseController] finds what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack hands the connection over: from then on its deadlines are not ours.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := a.rc.Hijack()
	if err == nil {
		a.hijacked, a.status = true, http.StatusSwitchingProtocols
	}
	return conn, buf, err
}

// WriteHeader notes the final status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	// An HTTP/2 stream's deadline costs a message to another goroutine; the
	// first 32 KiB fit in any window, so they cannot stall.
	if a.http1 || a.bytes > 32<<10 {
		if now := time.Now(); now.Sub(a.deadline) > time.Second {
			a.deadline = now
			_ = a.rc.SetWriteDeadline(now.Add(stallTime))
		}
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// refreshDeadline gives the end of an answer, which net/http writes after the
// handler, its own time: the last write may have been long ago.
func (a *answer) refreshDeadline() {
	if a.http1 && !a.hijacked {
		_ = a.rc.SetWriteDeadline(time.Now().Add(stallTime))
	}
}

package gateway

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/filter"
)

const (
	headBytes = 4 << 10 // of an answer, by which it is decided how to look at it
	// primed is how much of an answer is looked at before its status is sent:
	// a refusal within is a page that says why, and later a broken download.
	primed   = 1 << 20
	holdTime = 100 * time.Millisecond // how long text of an answer that comes in pieces waits
)

// exchange returns the inspection of the request, or nil when there is none.
func (q *request) exchange(run *run) (*filter.Exchange, error) {
	if !run.inspected() {
		return nil, nil
	}
	e := run.scope.Exchange(q.Method, q.URL.Path)
	if e.Static() {
		return nil, nil
	}
	if r := e.Refused(); r != nil {
		return nil, refusedBy(r)
	}
	if err := run.refuseRoom(q.URL.Path); err != nil && q.Method == http.MethodGet {
		return nil, err
	}
	return e, nil
}

// refusedBy says to a person what the filter refused.
func refusedBy(err error) error {
	r, ok := errors.AsType[*filter.Refusal](err)
	if !ok {
		return err
	}
	return &bailey.Error{Kind: bailey.Denied, Msg: r.Reason, Hint: "an administrator sees which rule it was, and can allow it", Cause: err}
}

// incoming prepares a request for inspection: its answer must come whole and
// readable, and its body is looked at.
func (q *request) incoming(in *http.Request, e *filter.Exchange, run *run, route Route) error {
	// Parts, and "not modified since", are about bytes that the client never
	// saw: a token could be fetched in two halves.
	for _, name := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"} {
		in.Header.Del(name)
	}
	in.Header.Set("Accept-Encoding", "identity")
	if in.Body == nil || in.Body == http.NoBody || in.ContentLength == 0 {
		return nil
	}
	if enc := in.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "a compressed request cannot be looked into", Hint: "send it without Content-Encoding"}
	}
	if e.Whole() {
		return q.incomingWhole(in, e, run, route)
	}
	if b := e.Incoming(); b != nil {
		in.Body = &lookedAt{ReadCloser: in.Body, body: b}
	}
	return nil
}

// incomingWhole reads a body of the contents API whole.
func (q *request) incomingWhole(in *http.Request, e *filter.Exchange, run *run, route Route) error {
	body, release, err := readWhole(in.Body, in.ContentLength, run)
	if err != nil {
		return err
	}
	out, err := e.Request(body)
	if filter.NeedsOriginal(err) {
		// A page that was open over a restart of ours: the file tells again
		// what its placeholders stand for.
		if q.remember(in.Context(), run, route) {
			out, err = e.Request(body)
		}
	}
	if err != nil {
		release()
		return refusedBy(err)
	}
	in.Body = &releasing{Reader: bytes.NewReader(out), release: release}
	in.ContentLength = int64(len(out))
	return nil
}

// remember fetches the file of a contents request, as the editor did.
func (q *request) remember(ctx context.Context, run *run, route Route) bool {
	u := url.URL{Scheme: "http", Host: upstreamHost, Path: q.base + q.URL.Path, RawQuery: "content=1"}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "token "+route.Token.Reveal())
	r.Header.Set("Accept-Encoding", "identity")
	res, err := run.upstream.RoundTrip(r)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	body, release, err := readWhole(res.Body, res.ContentLength, run)
	if err != nil {
		return false
	}
	defer release()
	_, err = run.scope.Exchange(http.MethodGet, q.URL.Path).AnswerWhole(res.Header.Get("Content-Type"), body)
	return err == nil && res.StatusCode == http.StatusOK
}

// readWhole reads a body that is looked at whole. Its memory is the run's, as
// that of WebSocket messages is; release gives it back.
func readWhole(r io.Reader, length int64, run *run) (_ []byte, release func(), err error) {
	tooBig := &bailey.Error{
		Kind: bailey.Invalid, Msg: "more than 64 MiB at once cannot be looked into here",
		Hint: "download large files instead of opening them, or wait until others have been read",
	}
	if length > filter.MaxWhole {
		return nil, nil, tooBig
	}
	var buf bytes.Buffer
	held := int64(0)
	release = sync.OnceFunc(func() { run.holding.Add(-held) })
	for {
		// Grown by what comes, never by what is promised.
		step := min(max(int64(buf.Len()), 64<<10), 8<<20)
		if held += step; run.holding.Add(step) > maxRunHolding || buf.Len() > filter.MaxWhole {
			release()
			return nil, nil, tooBig
		}
		n, err := io.CopyN(&buf, r, step)
		if errors.Is(err, io.EOF) {
			if buf.Len() > filter.MaxWhole {
				release()
				return nil, nil, tooBig
			}
			return buf.Bytes(), release, nil
		}
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("read after %d bytes: %w", int64(buf.Len())+n, err)
		}
	}
}

// releasing gives memory back when it is closed.
type releasing struct {
	io.Reader
	whole   []byte // all of it, if it is an answer
	release func()
}

// Close implements [io.Closer].
func (r *releasing) Close() error {
	r.release()
	return nil
}

// lookedAt is a request body that is looked at as it passes.
type lookedAt struct {
	io.ReadCloser
	body *filter.Body
}

// Read implements [io.Reader].
func (l *lookedAt) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if _, refused := l.body.Write(nil, p[:n]); refused != nil {
		return 0, refusedBy(refused)
	}
	if errors.Is(err, io.EOF) {
		if _, refused := l.body.Close(nil); refused != nil {
			return 0, refusedBy(refused)
		}
	}
	return n, err
}

// leaving makes an answer fit to leave: of the image's own files, which are not
// looked into, the header.
func (q *request) leaving(res *http.Response, looked *filter.Exchange, run *run) error {
	switch {
	case looked != nil:
		return q.outgoing(res, looked, run)
	case !run.inspected():
		return nil
	}
	if err := run.scope.Exchange(q.Method, q.URL.Path).Headers(res.Header); err != nil {
		return refusedBy(err)
	}
	return nil
}

// outgoing makes an answer fit to leave.
func (q *request) outgoing(res *http.Response, e *filter.Exchange, run *run) error {
	h := res.Header
	for _, name := range []string{
		"Etag", "Last-Modified", "Accept-Ranges", "Content-Range", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest",
		"Want-Digest", "Link",
	} {
		h.Del(name)
	}
	if err := e.Headers(h); err != nil {
		return refusedBy(err)
	}
	if res.StatusCode == http.StatusPartialContent || res.StatusCode == http.StatusMultiStatus && res.Request.Method == http.MethodGet {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the workspace sends a part of something that was asked for whole, which cannot be looked into"}
	}
	if res.Request.Method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		h.Del("Content-Length")
		return nil
	}
	return q.outgoingBody(res, e, run)
}

// outgoingBody decides how the body is looked at.
func (q *request) outgoingBody(res *http.Response, e *filter.Exchange, run *run) error {
	if err := decompress(res); err != nil {
		return err
	}
	kind, length := res.Header.Get("Content-Type"), res.ContentLength
	res.Header.Del("Content-Length")
	res.ContentLength = -1
	live := length < 0 && strings.HasPrefix(kind, "text/event-stream")
	buf := q.gateway.buffers.Get()
	n, err := readSome(res.Body, buf, !live)
	if err != nil && !errors.Is(err, io.EOF) {
		q.gateway.buffers.Put(buf)
		return err
	}
	if err != nil { // all of it is here
		return q.outgoingSmall(res, e, kind, buf, n)
	}
	begin := bytes.Clone(buf[:n])
	q.gateway.buffers.Put(buf)
	head := begin[:min(n, headBytes)]
	src := struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(begin), res.Body), res.Body}
	if e.Plan(kind, head, length) == filter.AsWhole {
		body, release, err := readWhole(src, length, run)
		_ = res.Body.Close()
		if err != nil {
			return err
		}
		out, err := e.AnswerWhole(kind, body)
		if err != nil {
			release()
			return refusedBy(err)
		}
		res.Body = &releasing{Reader: bytes.NewReader(out), release: release}
		res.ContentLength = int64(len(out))
		res.Header.Set("Content-Length", strconv.Itoa(len(out)))
		return nil
	}
	body := &filteredBody{src: src, body: e.Stream(kind, head, live), buf: q.gateway.buffers.Get(), pool: q.gateway.buffers}
	if live {
		body.pump()
	} else if err := body.prime(); err != nil {
		_ = body.Close()
		return refusedBy(err)
	}
	res.Body = body
	return nil
}

// outgoingSmall looks at a body that is whole in a buffer, where it stands.
func (q *request) outgoingSmall(res *http.Response, e *filter.Exchange, kind string, buf []byte, n int) error {
	_ = res.Body.Close()
	out, err := e.AnswerSmall(kind, buf[:n])
	if err != nil {
		q.gateway.buffers.Put(buf)
		return refusedBy(err)
	}
	res.Body = &releasing{Reader: bytes.NewReader(out), whole: out, release: func() { q.gateway.buffers.Put(buf) }}
	res.ContentLength = int64(len(out))
	res.Header["Content-Length"] = []string{strconv.Itoa(len(out))}
	return nil
}

// readSome reads what comes next, or with all as much as buf has room for. The
// error is io.EOF when the body ended, which may be with n bytes read.
func readSome(r io.Reader, buf []byte, all bool) (n int, err error) {
	for n < len(buf) && err == nil && (all || n == 0) {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	return n, err
}

// decompress undoes a compression that nobody asked for. What is compressed in
// another way cannot be looked into, and does not pass.
func decompress(res *http.Response) error {
	encodings := strings.ToLower(strings.Join(res.Header["Content-Encoding"], ","))
	var r io.Reader
	switch strings.TrimSpace(encodings) {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(res.Body)
		if err != nil {
			return &bailey.Error{Kind: bailey.Unavailable, Msg: "the workspace's answer says that it is compressed and is not", Cause: err}
		}
		r = zr
	case "deflate":
		r = flate.NewReader(res.Body)
	default:
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the workspace's answer is compressed in a way that cannot be looked into"}
	}
	res.Header.Del("Content-Encoding")
	res.ContentLength = -1
	res.Body = struct {
		io.Reader
		io.Closer
	}{r, res.Body}
	return nil
}

// A filteredBody is an answer that is looked at as it passes. It holds one
// buffer, however much the answer unpacks to.
type filteredBody struct {
	src  io.ReadCloser
	body *filter.Body
	pool *buffers
	buf  []byte
	out  []byte // looked at, not yet read
	keep []byte // out's memory
	done error  // what comes after out

	pieces chan piece    // of an answer that comes in pieces; nil otherwise
	stop   chan struct{} // closed by Close
	closed sync.Once
}

type piece struct {
	data []byte
	err  error
}

// prime looks at the beginning, so that a refusal there can be said.
func (f *filteredBody) prime() error {
	for read := 0; f.done == nil && read < primed && len(f.out) < 2*bufferSize; {
		n, err := f.src.Read(f.buf)
		read += n
		f.take(f.buf[:n], err)
	}
	if f.done != nil && !errors.Is(f.done, io.EOF) {
		return f.done
	}
	return nil
}

// take looks at a piece and at what came behind it.
func (f *filteredBody) take(p []byte, err error) {
	if len(f.out) == 0 {
		f.keep = f.keep[:0]
	}
	from := len(f.keep)
	out, refused := f.body.Write(f.keep, p)
	if refused == nil && errors.Is(err, io.EOF) {
		out, refused = f.body.Close(out)
	}
	if refused != nil {
		f.done = refused
		return
	}
	if err != nil {
		f.done = err
	}
	have := len(f.out)
	f.keep = out
	f.out = out[from-have:]
}

// pump reads on its own, so that what waits too long can be released.
func (f *filteredBody) pump() {
	f.pieces, f.stop = make(chan piece), make(chan struct{})
	go func() {
		for {
			buf := make([]byte, 4<<10)
			n, err := f.src.Read(buf)
			select {
			case f.pieces <- piece{buf[:n], err}:
			case <-f.stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
}

// Read implements [io.Reader].
func (f *filteredBody) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if f.done != nil {
			return 0, f.done
		}
		if f.pieces == nil {
			n, err := f.src.Read(f.buf)
			f.take(f.buf[:n], err)
			continue
		}
		var tick <-chan time.Time
		if f.body.Held() {
			tick = time.After(holdTime)
		}
		select {
		case got := <-f.pieces:
			f.take(got.data, got.err)
		case <-tick:
			out, err := f.body.Tick(f.keep[:0])
			f.keep, f.out = out, out
			if err != nil {
				f.out, f.done = nil, err
			}
		case <-f.stop:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}

// Close implements [io.Closer].
func (f *filteredBody) Close() (err error) {
	f.closed.Do(func() {
		if f.stop != nil {
			close(f.stop)
		}
		err = f.src.Close()
		f.pool.Put(f.buf)
		f.buf = nil
	})
	return err
}

package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/mutant"
)

// longAfter is when a request is long: from then on it is watched, and cut off
// when the session or the run ends. Shorter ones end by themselves.
const longAfter = time.Second

// proxy passes one ordinary request on and its answer back.
func (q *request) proxy(w http.ResponseWriter, route Route) error {
	run, err := q.gateway.runFor(route)
	if err != nil {
		return err
	}
	defer run.requests.Add(-1)
	if run.requests.Add(1) > int64(q.gateway.cfg.Limits.RequestsPerWorkspace) {
		return &bailey.Error{
			Kind: bailey.TooMany, Msg: "too many requests to this workspace at once", Hint: "wait until some are answered",
		}
	}
	if isActivity(q.Request) {
		q.gateway.touch(run)
	}
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	long := time.AfterFunc(longAfter, func() { q.gateway.cutWhenOver(ctx, cancel, q.actor, route) })
	defer long.Stop()

	looked, err := q.exchange(run)
	if err != nil {
		return err
	}
	in := q.WithContext(ctx)
	in.Header = q.upstreamHeader(route.Token)
	if looked != nil {
		if err := q.incoming(in, looked, run, route); err != nil {
			return err
		}
	}
	if in.ContentLength == 0 && (in.Method == http.MethodGet || in.Method == http.MethodHead) {
		return q.fetch(w, in, looked, run)
	}
	var failed error
	p := &httputil.ReverseProxy{
		Rewrite:    q.rewrite,
		Transport:  run.upstream,
		BufferPool: q.gateway.buffers,
		ErrorLog:   slog.NewLogLogger(q.gateway.cfg.Log.Handler(), slog.LevelDebug),
		ModifyResponse: func(res *http.Response) error {
			if err := q.leaving(res, looked, run); err != nil {
				return err
			}
			q.downstreamHeader(res.Header)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	p.ServeHTTP(w, in)
	if failed != nil {
		return upstreamError(failed)
	}
	return nil
}

// fetch is what [httputil.ReverseProxy] does for a request that brings nothing
// with it and is answered with nothing before its answer, without copying its
// header twice: nearly all requests are such.
func (q *request) fetch(w http.ResponseWriter, in *http.Request, looked *filter.Exchange, run *run) error {
	rest, _ := splitQuery(in.URL.RawQuery)
	in.URL = &url.URL{Scheme: "http", Host: upstreamHost, Path: in.URL.Path, RawPath: in.URL.RawPath, RawQuery: rest}
	q.above(in.URL)
	in.Host, in.Close, in.Body, in.Trailer = upstreamHost, false, nil, nil
	if _, says := in.Header["User-Agent"]; !says {
		in.Header["User-Agent"] = []string{""} // not Go's
	}
	res, err := run.upstream.RoundTrip(in)
	if err != nil {
		return upstreamError(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := q.leaving(res, looked, run); err != nil {
		return upstreamError(err)
	}
	q.downstreamHeader(res.Header)
	h := w.Header()
	for name, values := range res.Header {
		h[name] = append(h[name], values...)
	}
	w.WriteHeader(res.StatusCode)
	if err := q.pass(w, res); err != nil {
		if q.Context().Value(http.ServerContextKey) != nil {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
	}
	return nil
}

// pass writes a body. What has no known length is written as it comes.
func (q *request) pass(w http.ResponseWriter, res *http.Response) error {
	if b, ok := res.Body.(*releasing); ok && b.whole != nil {
		_, err := w.Write(b.whole) //nolint:gosec // the workspace's own origin shows what it likes
		return err
	}
	if res.Body == http.NoBody {
		return nil
	}
	buf := q.gateway.buffers.Get()
	defer q.gateway.buffers.Put(buf)
	live := res.ContentLength < 0
	flush := http.NewResponseController(w)
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil { //nolint:gosec // a workspace shows what it likes
				return err
			}
			if live {
				if err := flush.Flush(); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// rewrite sends a request to Jupyter under the path that the client sent. Its
// headers are done already; ReverseProxy's own cleaning finds nothing to do.
func (q *request) rewrite(p *httputil.ProxyRequest) {
	rest, _ := splitQuery(p.In.URL.RawQuery)
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.User = "http", upstreamHost, nil
	p.Out.URL.RawQuery = rest
	q.above(p.Out.URL)
	p.Out.Host = upstreamHost
	p.Out.Trailer = nil
	if p.Out.ContentLength == 0 {
		p.Out.Body = nil
	}
}

// cutWhenOver cancels a long request when its session or its run ends, or when
// nobody may come any more from where it came.
func (g *Gateway) cutWhenOver(ctx context.Context, cancel context.CancelFunc, actor bailey.Actor, route Route) {
	ended, release := g.cfg.Identity.Ended(actor)
	defer release()
	tick := time.NewTicker(placeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if g.misplaced(actor) {
				cancel()
				return
			}
		case <-ended:
			if !mutant.Endings {
				cancel()
			}
			return
		case <-route.Done:
			cancel()
			return
		}
	}
}

// upstreamError says what went wrong between us and the workspace.
func upstreamError(err error) error {
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		return e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the request came too slowly, or the workspace did not take it", Cause: err}
	}
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "the workspace does not answer",
		Hint: "wait a moment and try again; if that does not help, stop and start the workspace", Cause: err,
	}
}

// plain is a context without values: ReverseProxy asks for informational
// answers by a value in the request's context.
type plain struct{ context.Context } //nolint:containedctx // it is a context

// Value implements [context.Context].
func (plain) Value(any) any { return nil }

// Package load puts load on a proxy and counts what comes back: small requests
// on kept-alive connections, and WebSockets that are open and do nothing. It
// speaks HTTP/1.1 by hand, because it shares the machine with what it measures
// and a full client would take more of it than the proxy does.
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// HTTP is a load of equal GET requests, each connection asking again as soon as
// it was answered.
type HTTP struct {
	Addr   string      // host:port to connect to
	TLS    *tls.Config // nil: plain
	Host   string      // the Host header
	Path   string
	Header map[string]string // further request headers
	Want   int               // bytes of body every answer must have; 0: any
	Conns  int
}

// A Window is what happened while it was measured.
type Window struct {
	Requests  int64
	Elapsed   time.Duration
	Latencies measure.Samples // seconds, of every request that ended in the window
}

// Run keeps the connections busy for warm and then for length, calls begin and
// end around the second, and returns what happened between them. Any answer but
// the wanted one ends it with an error: a refusal is served quickly, and would
// look like a good proxy.
func (l HTTP) Run(ctx context.Context, warm, length time.Duration, begin, end func() error) (Window, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]*conn, l.Conns)
	for i := range conns {
		c, err := l.dial(ctx)
		if err != nil {
			return Window{}, fmt.Errorf("connect to %s: %w", l.Addr, err)
		}
		defer c.Close()
		conns[i] = c
	}
	stop := context.AfterFunc(ctx, func() { // ends reads that would wait for ever
		for _, c := range conns {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()

	var g sync.WaitGroup
	var counting, over atomic.Bool
	for _, c := range conns {
		g.Go(func() {
			for !over.Load() {
				if err := c.ask(l.Want, &counting); err != nil {
					cancel(fmt.Errorf("GET %s from %s: %w", l.Path, l.Addr, err))
					return
				}
			}
		})
	}
	w, err := window(ctx, warm, length, &counting, begin, end)
	over.Store(true)
	g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return Window{}, cause
	}
	for _, c := range conns {
		w.Requests += int64(len(c.took))
		w.Latencies = append(w.Latencies, c.took...)
	}
	if err == nil && w.Requests == 0 {
		err = errors.New("no request ended while it was measured")
	}
	return w, err
}

// window lets warm pass, and counts during length.
func window(ctx context.Context, warm, length time.Duration, counting *atomic.Bool, begin, end func() error) (w Window, err error) {
	if err := wait(ctx, warm); err != nil {
		return w, err
	}
	if err := begin(); err != nil {
		return w, err
	}
	counting.Store(true)
	started := time.Now()
	err = wait(ctx, length)
	counting.Store(false)
	w.Elapsed = time.Since(started)
	return w, errors.Join(err, end())
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A conn is one kept-alive connection with its request, and what it counted.
type conn struct {
	net.Conn
	r       *bufio.Reader
	request []byte
	took    measure.Samples
}

func (l HTTP) dial(ctx context.Context) (*conn, error) {
	c, err := Dial(ctx, l.Addr, l.TLS)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", l.Path, l.Host)
	for k, v := range l.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	b.WriteString("\r\n")
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4<<10), request: b.Bytes()}, nil
}

// Dial connects to addr, over TLS if cfg is given, and finishes the handshake.
func Dial(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	if cfg != nil {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// ask does one request.
func (c *conn) ask(want int, counting *atomic.Bool) error {
	begin := time.Now()
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	length, err := c.head()
	if err != nil {
		return err
	}
	if want > 0 && length != want {
		return fmt.Errorf("the body has %d bytes, want %d", length, want)
	}
	if _, err := io.CopyN(io.Discard, c.r, int64(length)); err != nil {
		return err
	}
	if counting.Load() {
		c.took = append(c.took, time.Since(begin).Seconds())
	}
	return nil
}

// head reads status line and headers and returns the body's length.
func (c *conn) head() (length int, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered %.60q", bytes.TrimSpace(line))
	}
	length = -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(key, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		case bytes.EqualFold(key, []byte("Connection")) && strings.EqualFold(string(bytes.TrimSpace(value)), "close"):
			return 0, errors.New("the proxy does not keep the connection alive")
		}
	}
	if length < 0 {
		return 0, errors.New("the answer has no Content-Length")
	}
	return length, nil
}

// Streams is the same load over HTTP/2: streams requests at a time on one
// connection of client, which must speak HTTP/2.
func Streams(ctx context.Context, client *http.Client, r *http.Request, streams int, warm, length time.Duration, begin, end func() error) (Window, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g sync.WaitGroup
	var counting, over atomic.Bool
	var requests atomic.Int64
	for range streams {
		g.Go(func() {
			for !over.Load() {
				if err := get(ctx, client, r); err != nil {
					cancel(err)
					return
				}
				if counting.Load() {
					requests.Add(1)
				}
			}
		})
	}
	w, err := window(ctx, warm, length, &counting, begin, end)
	over.Store(true)
	g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return Window{}, cause
	}
	w.Requests = requests.Load()
	if err == nil && w.Requests == 0 {
		err = errors.New("no request ended while it was measured")
	}
	return w, err
}

func get(ctx context.Context, client *http.Client, r *http.Request) error {
	resp, err := client.Do(r.Clone(ctx))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && (resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2) {
		err = fmt.Errorf("GET %s answered %s over %s, want 200 over HTTP/2", r.URL.Path, resp.Status, resp.Proto)
	}
	return err
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// proxy serves Go's own ReverseProxy behind TLS, tuned as its documentation
// says, and nothing else: no sign-in, no header rules, no limits, no journal.
// It is the least that a proxy on net/http can take on a machine, and what
// bailey takes beyond it is bailey's own.
func proxy(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("gwserver proxy", flag.ContinueOnError)
	backend := fs.String("backend", "", "the Unix socket behind it")
	cert := fs.String("cert", "", "PEM file with the certificate")
	key := fs.String("key", "", "PEM file with its key")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "backend" },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", *backend)
			},
			MaxIdleConnsPerHost: 256, DisableCompression: true,
		},
		BufferPool: &pool{},
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	s := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A pool lends buffers of the size that io.Copy makes.
type pool struct{ free sync.Pool }

// Get implements httputil.BufferPool.
func (p *pool) Get() []byte {
	if b, ok := p.free.Get().(*[32 << 10]byte); ok {
		return b[:]
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (p *pool) Put(b []byte) { p.free.Put((*[32 << 10]byte)(b)) }

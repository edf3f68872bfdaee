package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/store"
)

// sourceHost is what the source is called; every name leads to this machine.
const sourceHost = "files.example.org"

// nearby resolves every name to this machine.
type nearby struct{}

// LookupNetIP implements egress.Resolver.
func (nearby) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	if network != "ip4" {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

// serveEgress serves bailey's way out of one workspace on a Unix socket: rules,
// checks of addresses and TLS, store and journal are the real ones. The ports
// of the source are opened in the rules, and loopback by name.
func serveEgress(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("gwserver egress", flag.ContinueOnError)
	dir := fs.String("dir", "", "an empty folder for state")
	ports := fs.String("ports", "", "two ports of the source, with a comma")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var secure, open int
	if _, err := fmt.Sscanf(*ports, "%d,%d", &secure, &open); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	journal, err := audit.Open(audit.Config{Dir: filepath.Join(*dir, "audit"), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	st, err := store.Open(ctx, store.Config{Path: filepath.Join(*dir, "bailey.db"), Key: make([]byte, 32), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	p, err := egress.New(ctx, egress.Config{Store: st, Audit: journal, Log: log, Resolver: nearby{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close(context.WithoutCancel(ctx))) }()
	if err := p.Apply(egress.Policy{
		Classes: map[string]string{"ml": "bench"},
		Sets:    map[string]rules.Set{"bench": {Name: "bench", Rules: []rules.Rule{{ID: "source", Host: sourceHost, Ports: []int{secure, open}}}}},
		Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}); err != nil {
		return err
	}
	socket := filepath.Join(*dir, "e.sock")
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	fmt.Println(socket)
	who := egress.Who{UserID: "01jd3k8q9m4s7v2x5z8b1c4f6m", User: "bench", WorkspaceID: "01jd3k8q9m4s7v2x5z8b1c4f6n", Workspace: "bench", Run: "01jd3k8q9m4s7v2x5z8b1c4f6p", Class: "ml"}
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil //nolint:nilerr // closed
		}
		go p.Serve(ctx, c, who)
	}
}

// serveConnect is the proxy that people write in an evening: it takes CONNECT,
// dials what it is told, and lets io.Copy move the bytes, which on Linux do not
// even enter the process. It checks nothing.
func serveConnect(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, err := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "CONNECT is spoken here", http.StatusBadRequest)
			return
		}
		var d net.Dialer
		up, err := d.DialContext(r.Context(), "tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			http.Error(w, "it does not answer", http.StatusBadGateway)
			return
		}
		defer up.Close()
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(up, client)
			_ = up.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(client, up)
	})}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	fmt.Println(ln.Addr())
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveSource answers whoever connects with bytes: on the first of its ports in
// TLS, on the second without.
func serveSource(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("gwserver source", flag.ContinueOnError)
	cert := fs.String("cert", "", "PEM file with the certificate")
	key := fs.String("key", "", "PEM file with its key")
	size := fs.Int64("size", 1<<30, "how many bytes")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	var ports [2]int
	for i := range ports {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		ports[i] = ln.Addr().(*net.TCPAddr).Port
		if i == 0 {
			ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go pour(c, *size)
			}
		}()
	}
	fmt.Printf("%d,%d\n", ports[0], ports[1])
	<-ctx.Done()
	return nil
}

// pour waits for one byte and then sends size bytes.
func pour(c net.Conn, size int64) {
	defer c.Close()
	b := make([]byte, 256<<10)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return
	}
	for size > 0 {
		n, err := c.Write(b[:min(int64(len(b)), size)])
		if size -= int64(n); err != nil {
			return
		}
	}
}

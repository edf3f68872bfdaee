package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// egressHost is the name by which the source is asked for.
const egressHost = "files.example.org"

// A wayOut is a proxy that a workspace could be behind.
type wayOut struct {
	name          string
	network, addr string
	c             *child
	rate, cpu     map[string]measure.Samples // by kind: bytes a second, CPU seconds per GiB
}

// egressDownload measures a large download through bailey's way out and through
// a CONNECT proxy in a few lines of Go, in turns: once in TLS, as people
// download, and once without, where the proxy is all there is to measure.
func egressDownload(ctx context.Context, b *bench) (r result, err error) {
	size := pick(b, int64(512<<20), 32<<20)
	rounds := pick(b, 5, 1)
	dir := filepath.Join(b.work, "egress")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, err
	}
	cert, key, _, err := selfSigned(b.work)
	if err != nil {
		return r, err
	}
	helper := filepath.Join(b.tools, "gwserver")
	source, err := start(nil, helper, "source", "--cert", cert, "--key", key, "--size", fmt.Sprint(size))
	if err != nil {
		return r, err
	}
	defer source.stop()
	ports, err := source.line(ctx, 10*time.Second)
	if err != nil {
		return r, err
	}
	secure, open, _ := strings.Cut(ports, ",")
	ours, err := startWayOut(ctx, "bailey", "unix", helper, "egress", "--dir", dir, "--ports", ports)
	if err != nil {
		return r, err
	}
	defer ours.c.stop()
	peer, err := startWayOut(ctx, "peer", "tcp", helper, "connect")
	if err != nil {
		return r, err
	}
	defer peer.c.stop()
	cfg := &tls.Config{ServerName: egressHost, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} //nolint:gosec // the certificate is for localhost; what is measured is the way
	for i := range rounds {
		for _, kind := range []struct {
			name, port string
			tls        *tls.Config
		}{{"tls", secure, cfg}, {"open", open, nil}} {
			pair := []*wayOut{ours, peer}
			if i%2 == 1 {
				pair[0], pair[1] = pair[1], pair[0]
			}
			for _, w := range pair {
				if err := w.download(ctx, kind.name, kind.port, kind.tls, size); err != nil {
					return r, fmt.Errorf("%s, %s: %w", w.name, kind.name, err)
				}
			}
		}
	}
	row := func(id, path, kind string, budget measure.Budget) {
		r.Rows = append(r.Rows, measure.Row{
			ID: "egress." + id, Path: path, Unit: measure.PerSecond,
			Ours: ours.rate[kind].Median() / (1 << 20), Peer: new(peer.rate[kind].Median() / (1 << 20)), Budget: budget,
		}, measure.Row{
			ID: "egress.cpu." + id, Path: path + ": CPU of the proxy per GiB", Unit: measure.Seconds,
			Ours: ours.cpu[kind].Median(), Peer: new(peer.cpu[kind].Median()),
			Why: "The peer's bytes are spliced and never enter it; ours are counted and limited on their way, and cut when rules change.",
		})
	}
	most := measure.Budget{Kind: measure.Times, Limit: 0.9}
	row("tls", "download of 512 MiB out of a workspace's socket, in TLS, MiB", "tls", most)
	row("open", "the same without TLS, MiB", "open", most)
	r.Said = []string{fmt.Sprintf("internal/egress with its real store and journal in a process of its own, on a Unix socket; the peer on TCP, where io.Copy splices. %d downloads of %s each, in turns, from one source on loopback; the client, the source and the proxy share the cores. The agent inside a workspace, which carries the bytes to the socket, is not part of it.", rounds, measure.Bytes.Format(float64(size)))}
	return r, nil
}

func startWayOut(ctx context.Context, name, network, helper string, args ...string) (*wayOut, error) {
	c, err := start(nil, helper, args...)
	if err != nil {
		return nil, err
	}
	addr, err := c.line(ctx, 20*time.Second)
	if err != nil {
		c.stop()
		return nil, err
	}
	return &wayOut{name: name, network: network, addr: addr, c: c, rate: map[string]measure.Samples{}, cpu: map[string]measure.Samples{}}, nil
}

// download takes size bytes from the source's port through the proxy.
func (w *wayOut) download(ctx context.Context, kind, port string, cfg *tls.Config, size int64) (err error) {
	before, err := w.c.usage()
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, w.network, w.addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	begin := time.Now()
	at := net.JoinHostPort(egressHost, port)
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", at, at); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy answers %s", res.Status)
	}
	stream := conn
	if cfg != nil {
		stream = tls.Client(conn, cfg)
	}
	if _, err := stream.Write([]byte{1}); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	var got int64
	for got < size {
		n, err := stream.Read(buf)
		got += int64(n)
		if err != nil && got < size {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("after %d bytes: %w", got, err)
		}
	}
	took := time.Since(begin).Seconds()
	after, err := w.c.usage()
	if err != nil {
		return err
	}
	w.rate[kind] = append(w.rate[kind], float64(got)/took)
	w.cpu[kind] = append(w.cpu[kind], (after.CPU-before.CPU).Seconds()/(float64(got)/(1<<30)))
	return nil
}

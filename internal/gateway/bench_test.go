package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/gateway"
)

// The benchmarks run the server in a process of its own, so that its processor
// time and memory are not mixed with those of the clients and the workspace.

var (
	childUpstream = flag.String("gateway.upstream", "", "run as the benchmarks' server, with the workspace at this Unix socket")
	childFilter   = flag.Bool("gateway.filter", false, "with -gateway.upstream: look into what passes")
	childProfile  = flag.String("gateway.profile", "", "with -gateway.upstream: write a processor profile here")
	childBare     = flag.Bool("gateway.bare", false, "with -gateway.upstream: nothing but TLS and httputil.ReverseProxy")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *childUpstream != "" {
		runChild()
		return
	}
	os.Exit(m.Run())
}

// A processTB stands in for a test in a process that runs none.
type processTB struct {
	testing.TB
	dir string
}

func (processTB) Helper()                     {}
func (processTB) Cleanup(func())              {}
func (processTB) Context() context.Context    { return context.Background() }
func (p processTB) Fatal(v ...any)            { fmt.Fprintln(os.Stderr, v...); os.Exit(1) }
func (p processTB) Fatalf(s string, v ...any) { fmt.Fprintf(os.Stderr, s+"\n", v...); os.Exit(1) }
func (p processTB) Errorf(s string, v ...any) { fmt.Fprintf(os.Stderr, s+"\n", v...) }
func (p processTB) TempDir() string {
	dir, err := os.MkdirTemp(p.dir, "x")
	if err != nil {
		p.Fatal(err)
	}
	return dir
}

// A birth is what a child says when it is ready, and a state what it says of
// itself when asked.
type birth struct{ Addr, CA string }

type state struct {
	CPU        time.Duration
	RSS        int64 // bytes
	Live       uint64
	Goroutines int
}

func runChild() {
	tb := processTB{dir: filepath.Dir(*childUpstream)}
	quiet := func(c *gateway.Config) {
		c.Log = slog.New(slog.DiscardHandler)
		c.Limits = gateway.Limits{TunnelsPerWorkspace: 1 << 20, TunnelsPerUser: 1 << 20}
		if *childFilter {
			var err error
			if c.Filter, err = filter.New(filter.Config{Rules: compile(tb), Report: func(filter.Finding) {}}); err != nil {
				tb.Fatal(err)
			}
		}
	}
	w := newWorld(tb, http.NotFoundHandler(), quiet)
	ca := filepath.Join(tb.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, w.ca, 0o600); err != nil {
		tb.Fatal(err)
	}
	w.rooms.startAt(adaSlug, w.ada, fixedListener(*childUpstream), func() {})
	if *childBare {
		w.front = bare(*childUpstream)
	}
	_ = json.NewEncoder(os.Stdout).Encode(birth{w.addr, ca})
	if *childProfile != "" {
		f, err := os.Create(*childProfile)
		if err != nil || pprof.StartCPUProfile(f) != nil {
			tb.Fatal("no profile: ", err)
		}
		defer pprof.StopCPUProfile()
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "collect" {
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory()
		}
		_ = json.NewEncoder(os.Stdout).Encode(measure())
	}
}

// fixedListener only knows its address: the server is in another process.
type fixedListener string

func (fixedListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (fixedListener) Close() error              { return nil }
func (f fixedListener) Addr() net.Addr          { return &net.UnixAddr{Name: string(f), Net: "unix"} }

// bare is what a proxy cannot do without.
func bare(socket string) http.HandlerFunc {
	p := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "127.0.0.1:8888"})
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			DisableCompression: true, MaxIdleConnsPerHost: 64,
		},
	}
	return p.ServeHTTP
}

func measure() state {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := state{CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()), Live: m.HeapAlloc + m.StackInuse, Goroutines: runtime.NumGoroutine()}
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			s.RSS = kib << 10
		}
	}
	return s
}

// A child is the server in its own process, and the world as seen from here.
type child struct {
	*world
	in  io.Writer
	out *json.Decoder
}

func newChild(b *testing.B, h http.Handler, args ...string) *child {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "ws")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	upstream := &http.Server{Handler: h}
	go func() { _ = upstream.Serve(ln) }()
	cmd := exec.Command(os.Args[0], append([]string{"-gateway.upstream=" + socket}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close() // ends it
		_ = cmd.Wait()
		_ = upstream.Close()
	})
	c := &child{in: in, out: json.NewDecoder(out)}
	var born birth
	if err := c.out.Decode(&born); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(born.CA)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	_, port, _ := net.SplitHostPort(born.Addr)
	n, _ := strconv.Atoi(port)
	origins, err := edge.NewOrigins(edge.OriginConfig{Mode: "localhost", Port: n})
	if err != nil {
		b.Fatal(err)
	}
	c.world = &world{tb: b, addr: born.Addr, origins: origins, pool: pool}
	return c
}

func (c *child) ask(what string) (s state) {
	c.tb.Helper()
	fmt.Fprintln(c.in, what)
	if err := c.out.Decode(&s); err != nil {
		c.tb.Fatal(err)
	}
	return s
}

// BenchmarkProxiedGET is a small GET over TLS by a browser that is signed in,
// on kept connections. Beside it is the same through nothing but TLS and
// httputil.ReverseProxy. The figure that counts is cpu-µs/req.
func BenchmarkProxiedGET(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	upstream := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	for _, bb := range []struct {
		name string
		args []string
	}{{"filtered", []string{"-gateway.filter"}}, {"unfiltered", nil}, {"bare", []string{"-gateway.bare"}}} {
		b.Run(bb.name, func(b *testing.B) {
			args := bb.args
			if *childProfile != "" {
				args = append(args, "-gateway.profile="+*childProfile+"."+bb.name)
			}
			c := newChild(b, upstream, args...)
			cookies := "x=y"
			if bb.name != "bare" {
				cookies = c.pass("ada", adaSlug)
			}
			get := []byte("GET /api/contents/a%20b?content=1 HTTP/1.1\r\nHost: " + c.host(adaSlug) + "\r\nCookie: _xsrf=2|abc; " + cookies +
				"\r\nAccept: */*\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: " + c.origin(adaSlug) +
				"/lab\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\r\n")
			const conns = 16
			var ready, done sync.WaitGroup
			begin := make(chan struct{})
			for i := range conns {
				n := b.N / conns
				if i < b.N%conns {
					n++
				}
				ready.Add(1)
				done.Go(func() {
					conn := c.dial(adaSlug)
					_ = conn.SetDeadline(time.Now().Add(10 * time.Minute))
					br := bufio.NewReader(conn)
					c.roundTrip(conn, br, get)
					ready.Done()
					<-begin
					for range n {
						c.roundTrip(conn, br, get)
					}
				})
			}
			ready.Wait()
			before := c.ask("now")
			b.ResetTimer()
			close(begin)
			done.Wait()
			b.StopTimer()
			after := c.ask("now")
			b.ReportMetric(float64(after.CPU-before.CPU)/float64(b.N)/1000, "cpu-µs/req")
		})
	}
}

func (c *child) roundTrip(conn net.Conn, br *bufio.Reader, get []byte) {
	if _, err := conn.Write(get); err != nil {
		c.tb.Error(err)
		return
	}
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		c.tb.Error(err)
		return
	}
	n, _ := io.Copy(io.Discard, res.Body)
	if res.StatusCode != 200 || n != 1024 {
		c.tb.Errorf("answer = %d with %d bytes", res.StatusCode, n)
	}
}

// BenchmarkIdleWebSockets opens 1000 WebSockets over TLS, sends a message both
// ways on each, and measures what the server keeps for each: resident memory
// as it comes, and after a collection.
func BenchmarkIdleWebSockets(b *testing.B) {
	b.Run("opaque", func(b *testing.B) { idleWebSockets(b) })
	b.Run("inspected", func(b *testing.B) { idleWebSockets(b, "-gateway.filter") })
}

func idleWebSockets(b *testing.B, flags ...string) {
	const sockets = 1000
	for b.Loop() {
		c := newChild(b, http.HandlerFunc(echoSocket), flags...)
		cookies := c.pass("ada", adaSlug)
		open := func() *tls.Conn {
			conn := c.dial(adaSlug)
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			msg := masked(1, true, `{"header":{"msg_id":"1","msg_type":"kernel_info_request"},"parent_header":{},"metadata":{},"content":{"padding":"`+strings.Repeat("x ", 100)+`"},"channel":"shell","buffers":[]}`)
			_, _ = io.WriteString(conn, handshake(c.host(adaSlug), kernelPath, "Cookie: "+cookies, "Origin: "+c.origin(adaSlug)))
			br := bufio.NewReaderSize(conn, 1024)
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != 101 {
				b.Fatalf("handshake: %v, %v", res, err)
			}
			_, _ = io.WriteString(conn, msg)
			if _, err := io.ReadFull(br, make([]byte, len(msg)-4)); err != nil {
				b.Fatal(err)
			}
			return conn
		}
		kept := []*tls.Conn{open()} // what is made once is made
		before, beforeCollected := c.ask("now"), c.ask("collect")
		for range sockets {
			kept = append(kept, open())
		}
		after, afterCollected := c.ask("now"), c.ask("collect")
		each := func(n int64) float64 { return float64(n) / sockets / 1024 }
		b.ReportMetric(each(after.RSS-before.RSS), "KiB-rss/socket")
		b.ReportMetric(each(afterCollected.RSS-beforeCollected.RSS), "KiB-rss-collected/socket")
		b.ReportMetric(each(int64(afterCollected.Live)-int64(beforeCollected.Live)), "KiB-live/socket")
		b.ReportMetric(float64(afterCollected.Goroutines-beforeCollected.Goroutines)/sockets, "goroutines/socket")
		for _, k := range kept {
			_ = k.Close()
		}
	}
}

// BenchmarkWebSocketBulk is big messages to and from a workspace.
func BenchmarkWebSocketBulk(b *testing.B) {
	c := newChild(b, http.HandlerFunc(echoSocket))
	conn := c.dial(adaSlug)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Minute))
	_, _ = io.WriteString(conn, handshake(c.host(adaSlug), kernelPath, "Cookie: "+c.pass("ada", adaSlug), "Origin: "+c.origin(adaSlug)))
	br := bufio.NewReaderSize(conn, 64<<10)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		b.Fatalf("handshake: %v, %v", res, err)
	}
	const size = 1 << 20
	msg := []byte(masked(2, true, strings.Repeat("x", size)))
	b.SetBytes(2 * size)
	before := c.ask("now")
	b.ResetTimer()
	for b.Loop() {
		go func() { _, _ = conn.Write(msg) }()
		if _, err := io.CopyN(io.Discard, br, int64(len(msg)-4)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	after := c.ask("now")
	b.ReportMetric((after.CPU-before.CPU).Seconds()/float64(b.N)/(2*size)*1e9, "cpu-s/GB")
}

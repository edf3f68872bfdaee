package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/load"
	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/e2e/drive"
)

// bodySize is what the backend answers with.
const bodySize = 1024

// A gate is a proxy with the request that goes through it.
type gate struct {
	name  string
	pid   int
	agent int // process id of the agent behind it; 0: none is looked at
	load  load.HTTP
	two   *http.Client // not nil: over HTTP/2 instead
}

// A tally is what a gate showed in all rounds.
type tally struct {
	cpu   measure.Samples // seconds of CPU per request, one per round
	agent measure.Samples // the same of the agent
	rate  measure.Samples // requests per second, one per round
	waits measure.Samples // of every request
	n     int64
}

// get measures small requests through the proxies.
func get(ctx context.Context, b *bench) (r result, err error) {
	var gates []*gate
	closers := []func() error{}
	defer func() {
		for _, c := range closers {
			err = errors.Join(err, c())
		}
	}()
	add := func(close func() error, g ...*gate) {
		closers = append([]func() error{close}, closers...)
		gates = append(gates, g...)
	}
	backend, addr, err := b.startBackend(ctx, "")
	if err != nil {
		return r, err
	}
	add(func() error { backend.stop(); return nil })
	for _, secure := range []bool{true, false} {
		p, err := b.startCHP(ctx, addr, secure)
		if err != nil {
			return r, err
		}
		name := "chp"
		if secure {
			name = "chp-tls"
		}
		add(func() error { p.stop(); return nil }, &gate{
			name: name, pid: p.pid(),
			load: load.HTTP{Addr: p.addr, TLS: p.tls, Host: "localhost", Path: chpPath + "api/bench", Want: bodySize},
		})
	}
	whole, err := b.wholePath(ctx)
	if err != nil {
		return r, fmt.Errorf("bailey with a container: %w", err)
	}
	add(whole.close, whole.gates...)
	without, err := b.withoutContainers(ctx)
	if err != nil {
		return r, fmt.Errorf("bailey without containers: %w", err)
	}
	add(without.close, without.gates...)
	bareGo, err := b.bareProxy(ctx)
	if err != nil {
		return r, fmt.Errorf("Go's ReverseProxy: %w", err)
	}
	add(bareGo.close, bareGo.gates...)

	tallies := map[string]*tally{}
	for round := range pick(b, 5, 1) {
		for _, conns := range []int{16, 64} {
			for _, g := range gates {
				key := fmt.Sprintf("%s.%d", g.name, conns)
				if tallies[key] == nil {
					tallies[key] = &tally{}
				}
				if err := b.settle(ctx); err != nil {
					return r, err
				}
				if err := g.round(ctx, b, conns, tallies[key]); err != nil {
					return r, fmt.Errorf("%s with %d connections: %w", g.name, conns, err)
				}
				t := tallies[key]
				b.say("round %d, %s: %s CPU per request, %s", round+1, key, measure.Seconds.Format(t.cpu[len(t.cpu)-1]), measure.PerSecond.Format(t.rate[len(t.rate)-1]))
			}
		}
	}
	r.Rows = getRows(tallies)
	r.Said = []string{
		fmt.Sprintf("GET of %d bytes on kept-alive connections, the load generator, the proxy and the backend on the same cores; CPU time is utime+stime of the proxy process alone, from /proc, over the requests that ended meanwhile; the median of %d rounds.", bodySize, len(tallies["bailey.16"].cpu)),
		"bailey is the real server: TLS 1.3, the workspace's cookie, header rules, a Unix socket, the agent inside a real container, and behind it a Go server that takes Jupyter's place, so that the backend is not what is measured.",
		"configurable-http-proxy 5.3.0, on Node.js as npm installs it, is in front of the same Go server on loopback, with TLS (ECDSA P-256, as bailey's) and, where it says so, without. It checks nobody's sign-in: in JupyterHub the notebook server does that.",
	}
	if b.profile != "" {
		return r, b.look(ctx, without, "get")
	}
	return r, nil
}

// round measures once and adds to the tally.
func (g *gate) round(ctx context.Context, b *bench, conns int, t *tally) error {
	var before, after, agentBefore, agentAfter measure.Usage
	look := func(proxy, agent *measure.Usage) (err error) {
		if *proxy, err = measure.Of(g.pid); err == nil && g.agent != 0 {
			*agent, err = measure.Of(g.agent)
		}
		return err
	}
	begin := func() error { return look(&before, &agentBefore) }
	end := func() error { return look(&after, &agentAfter) }
	warm, length := pick(b, time.Second, 200*time.Millisecond), pick(b, 4*time.Second, 500*time.Millisecond)
	var w load.Window
	var err error
	if g.two != nil {
		var r *http.Request
		if r, err = http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.load.Host+g.load.Path, http.NoBody); err != nil {
			return err
		}
		for k, v := range g.load.Header {
			r.Header.Set(k, v)
		}
		w, err = load.Streams(ctx, g.two, r, conns, warm, length, begin, end)
	} else {
		l := g.load
		l.Conns = conns
		w, err = l.Run(ctx, warm, length, begin, end)
	}
	if err != nil {
		return err
	}
	t.cpu = append(t.cpu, (after.CPU-before.CPU).Seconds()/float64(w.Requests))
	t.agent = append(t.agent, (agentAfter.CPU-agentBefore.CPU).Seconds()/float64(w.Requests))
	t.rate = append(t.rate, float64(w.Requests)/w.Elapsed.Seconds())
	t.waits = append(t.waits, w.Latencies...)
	t.n += w.Requests
	return nil
}

func getRows(t map[string]*tally) (rows []measure.Row) {
	cpu := func(key string) float64 { return t[key].cpu.Median() }
	row := func(id, path, ours, peer string, budget measure.Budget) measure.Row {
		r := measure.Row{ID: id, Path: path, Unit: measure.Seconds, Ours: cpu(ours), Budget: budget}
		if peer != "" {
			r.Peer = new(cpu(peer))
		}
		return r
	}
	for _, n := range []string{"16", "64"} {
		on := ", TLS, " + n + " connections"
		one := row("get.cpu."+n, "small GET, signed in"+on+": CPU per request", "bailey."+n, "chp-tls."+n, measure.Budget{Kind: measure.AtMost, Limit: 50e-6})
		one.Why = fmt.Sprintf("On this machine Go's own ReverseProxy with TLS and nothing else takes %s, and bailey on an engine in memory, with the same backend on a Unix socket, %s.",
			measure.Seconds.Format(cpu("go."+n)), measure.Seconds.Format(cpu("memory."+n)))
		ten := row("get.times."+n, "the same, requests per core", "bailey."+n, "chp-tls."+n, measure.Budget{Kind: measure.Times, Limit: 10})
		ten.Unit, ten.Ours, ten.Peer = measure.PerSecond, 1/ten.Ours, new(1 / *ten.Peer)
		rows = append(rows, one, ten)
	}
	for _, n := range []string{"16", "64"} {
		on := ", " + n + " connections"
		rows = append(rows,
			row("get.plain."+n, "small GET"+on+", bailey with TLS, the peer without: CPU per request", "bailey."+n, "chp."+n, measure.Budget{}),
			row("get.token."+n, "small GET"+on+", an API token in place of the cookie", "token."+n, "chp-tls."+n, measure.Budget{}),
			row("get.two."+n, "small GET, HTTP/2, one connection, "+n+" streams", "two."+n, "", measure.Budget{}),
			row("get.memory."+n, "small GET"+on+", bailey without containers (backend on a Unix socket)", "memory."+n, "chp-tls."+n, measure.Budget{}),
			row("get.go."+n, "the same, with Go's ReverseProxy and TLS alone as the peer", "memory."+n, "go."+n, measure.Budget{}),
			measure.Row{ID: "get.agent." + n, Path: "CPU per request of the agent inside the container" + on, Unit: measure.Seconds, Ours: t["bailey."+n].agent.Median()},
			row("get.jupyter."+n, "GET /api/status of a real Jupyter through bailey"+on, "jupyter."+n, "", measure.Budget{}),
		)
		rate := measure.Row{
			ID: "get.rate." + n, Path: "small GET, TLS" + on + ": requests per second, generator and backend on the same cores",
			Unit: measure.PerSecond, Ours: t["bailey."+n].rate.Median(), Peer: new(t["chp-tls."+n].rate.Median()),
		}
		wait := measure.Row{
			ID: "get.wait." + n, Path: fmt.Sprintf("the same: p50 of the waits (n = %d)", t["bailey."+n].n),
			Unit: measure.Seconds, Ours: t["bailey."+n].waits.Median(), Peer: new(t["chp-tls."+n].waits.Median()),
		}
		rows = append(rows, rate, wait)
	}
	return rows
}

// A path is a running bailey with gates through it.
type path struct {
	s     *server
	gates []*gate
	debug string
	close func() error
}

// open launches a workspace as somebody's browser would open it, and returns
// the request that such a browser sends.
func (s *server) open(ctx context.Context, base string) (load.HTTP, error) {
	u, err := url.Parse(base)
	if err != nil {
		return load.HTTP{}, err
	}
	browser, err := s.Person("admin", s.Admin).Browser(ctx)
	if err != nil {
		return load.HTTP{}, err
	}
	resp, body, err := drive.Navigate(ctx, browser, base+"api/status")
	if err != nil {
		return load.HTTP{}, err
	}
	if resp.StatusCode != http.StatusOK || resp.Request.URL.Host != u.Host {
		return load.HTTP{}, fmt.Errorf("the browser ended at %s with %s: %.200s", resp.Request.URL, resp.Status, body)
	}
	var cookies []string
	for _, c := range browser.Jar.Cookies(u) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	cfg, err := s.tls("http/1.1")
	if err != nil {
		return load.HTTP{}, err
	}
	cfg.ServerName = u.Hostname()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	return load.HTTP{
		Addr: net.JoinHostPort("127.0.0.1", u.Port()), TLS: cfg, Host: u.Host, Path: "/api/bench", Want: bodySize,
		// What Chromium sends with a fetch of JupyterLab's, as far as it matters.
		Header: map[string]string{
			"Cookie": strings.Join(cookies, "; "), "Accept": "*/*", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty",
			"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
		},
	}, nil
}

// wholePath starts the real bailey with two workspaces: in one the backend has
// taken Jupyter's place, in the other Jupyter is what it is.
func (b *bench) wholePath(ctx context.Context) (p path, err error) {
	if p.s, err = b.startBailey(ctx, "get"); err != nil {
		return p, err
	}
	p.close = p.s.stop
	defer func() {
		if err != nil {
			err = errors.Join(err, p.s.stop())
		}
	}()
	notebook, _, err := p.s.admin.launch(ctx, "real", "notebook")
	if err != nil {
		return p, err
	}
	fast, err := p.s.replaceJupyter(ctx, filepath.Join(b.tools, "backend"))
	if err != nil {
		return p, fmt.Errorf("put the backend in Jupyter's place: %w", err)
	}
	l, err := p.s.open(ctx, fast.URL)
	if err != nil {
		return p, err
	}
	jl, err := p.s.open(ctx, notebook.URL)
	if err != nil {
		return p, err
	}
	jl.Path, jl.Want = "/api/status", 0
	token := l
	token.Header = map[string]string{"Authorization": "token " + p.s.admin.token}
	two, err := p.s.http2()
	if err != nil {
		return p, err
	}
	agent, err := agentPid(ctx, fast)
	if err != nil {
		return p, err
	}
	p.gates = []*gate{
		{name: "bailey", pid: p.s.Pid(), agent: agent, load: l},
		{name: "token", pid: p.s.Pid(), load: token},
		{name: "two", pid: p.s.Pid(), load: l, two: two},
		{name: "jupyter", pid: p.s.Pid(), load: jl},
	}
	return p, nil
}

// withoutContainers starts bailey on an engine in memory.
func (b *bench) withoutContainers(ctx context.Context) (p path, err error) {
	socket := filepath.Join(b.work, "get.sock")
	backend, _, err := b.startBackend(ctx, socket)
	if err != nil {
		return p, err
	}
	p.close = func() error { backend.stop(); return nil }
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.s, p.debug, err = b.startWithout(ctx, "memory-get", socket); err != nil {
		return p, err
	}
	p.close = func() error { err := p.s.stop(); backend.stop(); return err }
	w, _, err := p.s.admin.launch(ctx, "fast", "notebook")
	if err != nil {
		return p, err
	}
	l, err := p.s.open(ctx, w.URL)
	if err != nil {
		return p, err
	}
	p.gates = []*gate{{name: "memory", pid: p.s.Pid(), load: l}}
	return p, nil
}

// bareProxy starts Go's own ReverseProxy with TLS, the backend on a Unix socket.
func (b *bench) bareProxy(ctx context.Context) (p path, err error) {
	socket := filepath.Join(b.work, "bare.sock")
	backend, _, err := b.startBackend(ctx, socket)
	if err != nil {
		return p, err
	}
	p.close = func() error { backend.stop(); return nil }
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	cert, key, roots, err := selfSigned(b.work)
	if err != nil {
		return p, err
	}
	c, err := start(nil, filepath.Join(b.tools, "gwserver"), "proxy", "--backend", socket, "--cert", cert, "--key", key)
	if err != nil {
		return p, err
	}
	p.close = func() error { c.stop(); backend.stop(); return nil }
	addr, err := c.line(ctx, 10*time.Second)
	if err != nil {
		return p, err
	}
	p.gates = []*gate{{name: "go", pid: c.pid(), load: load.HTTP{
		Addr: addr, TLS: &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}}, Host: "localhost", Path: "/api/bench", Want: bodySize,
	}}}
	return p, nil
}

// replaceJupyter launches a workspace in which our backend answers instead of
// Jupyter: it becomes the python3 of the venv on the workspace's volume, which
// is the tenant's to change, and the agent starts it as it would start Jupyter.
func (s *server) replaceJupyter(ctx context.Context, backend string) (workspace, error) {
	const name = "fast"
	w, _, err := s.admin.launch(ctx, name, "notebook") // makes the venv
	if err != nil {
		return w, err
	}
	if err := errors.Join(s.admin.settle(ctx, w.ID), s.admin.stop(ctx, w.ID)); err != nil {
		return w, err
	}
	volume, err := s.admin.volume(ctx, name)
	if err != nil {
		return w, err
	}
	python := filepath.Join(s.State, "volumes", volume, ".venv", "bin", "python3")
	b, err := os.ReadFile(backend)
	if err != nil {
		return w, err
	}
	if err := errors.Join(os.Remove(python), os.WriteFile(python, b, 0o755), os.Chmod(python, 0o755)); err != nil {
		return w, err
	}
	if w, _, err = s.admin.launch(ctx, name, "notebook"); err != nil {
		return w, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"api/bench", http.NoBody)
	if err != nil {
		return w, err
	}
	r.Header.Set("Authorization", "token "+s.admin.token)
	resp, err := s.admin.http.Do(r)
	if err != nil {
		return w, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.Header.Get("X-Bench-Backend") == "" {
		err = fmt.Errorf("it is not the backend that answers, but %q with %s", resp.Header.Get("Server"), resp.Status)
	}
	return w, err
}

// agentPid returns the process id, on this machine, of a workspace's agent.
func agentPid(ctx context.Context, w workspace) (int, error) {
	id, err := run1(ctx, "docker", "ps", "--quiet", "--filter", "label=dev.bailey.workspace="+w.ID)
	if err != nil {
		return 0, err
	}
	out, err := run1(ctx, "docker", "inspect", "--format", "{{.State.Pid}}", id)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(out)
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("docker says that the agent of %s is process %q", w.ID, out)
	}
	return pid, nil
}

// http2 returns a client that keeps one HTTP/2 connection.
func (s *server) http2() (*http.Client, error) {
	cfg, err := s.tls("h2")
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		TLSClientConfig: cfg, ForceAttemptHTTP2: true, MaxConnsPerHost: 1,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	return &http.Client{Transport: t}, nil
}

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
	"strings"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/load"
	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// The sockets are spread as people's are, and below the gateway's limits for
// one workspace and for one person.
const (
	wsPeople     = 4
	wsWorkspaces = 8 // of each
)

// An idleSide is what idle sockets cost one proxy, a value per round.
type idleSide struct {
	settled measure.Samples // resident bytes per socket after a garbage collection
	asIs    measure.Samples // and before, as the process stands
	files   measure.Samples // descriptors per socket
}

// sockets measures what open WebSockets that do nothing cost. Every round has
// fresh processes, because a heap that was large once stays large.
func sockets(ctx context.Context, b *bench) (r result, err error) {
	each := pick(b, 63, 4) // per workspace: 2,016 in all
	total := wsPeople * wsWorkspaces * each
	sides := map[string]*idleSide{"bailey": {}, "chp": {}, "chp-tls": {}}
	rounds := pick(b, 3, 1)
	for round := range rounds {
		for _, side := range []struct {
			name string
			do   func() (idle, error)
		}{
			{"bailey", func() (idle, error) { return b.idleBailey(ctx, fmt.Sprintf("ws%d", round), each) }},
			{"chp", func() (idle, error) { return b.idleCHP(ctx, total, false) }},
			{"chp-tls", func() (idle, error) { return b.idleCHP(ctx, total, true) }},
		} {
			got, err := side.do()
			if err != nil {
				return r, fmt.Errorf("%s: %w", side.name, err)
			}
			s, n := sides[side.name], float64(total)
			s.settled = append(s.settled, float64(got.settled.RSS-got.before.RSS)/n)
			s.asIs = append(s.asIs, float64(got.asIs.RSS-got.before.RSS)/n)
			s.files = append(s.files, float64(got.settled.Files-got.before.Files)/n)
			b.say("round %d, %s: %s per socket", round+1, side.name, measure.Bytes.Format(s.settled[len(s.settled)-1]))
		}
	}
	us, plain, secure := sides["bailey"], sides["chp"], sides["chp-tls"]
	what := fmt.Sprintf("%d open in %d workspaces of %d people", total, wsPeople*wsWorkspaces, wsPeople)
	r.Rows = []measure.Row{
		{
			ID: "ws.idle", Path: "idle TLS WebSocket: resident memory each, " + what, Unit: measure.Bytes,
			Ours: us.settled.Median(), Peer: new(secure.settled.Median()), Budget: measure.Budget{Kind: measure.AtMost, Limit: 24 << 10},
		},
		{ID: "ws.plain", Path: "the same, bailey with TLS, the peer without", Unit: measure.Bytes, Ours: us.settled.Median(), Peer: new(plain.settled.Median())},
		{ID: "ws.asis", Path: "the same with TLS, before a garbage collection is asked for", Unit: measure.Bytes, Ours: us.asIs.Median(), Peer: new(secure.asIs.Median())},
		{ID: "ws.files", Path: "file descriptors of an idle WebSocket", Unit: measure.Count, Ours: us.files.Median(), Peer: new(secure.files.Median())},
	}
	r.Said = []string{
		fmt.Sprintf("VmRSS of the proxy process with %d sockets, each of which has carried one message there and back, minus VmRSS before, both after a garbage collection and a rest; %d rounds with fresh processes, the median.", total, rounds),
		"bailey is the whole server on an engine in memory (e2e/bench/gwserver), whose workspaces lead to the backend's Unix socket: no machine of this size holds as many containers. The peer is configurable-http-proxy 5.3.0 in front of the same backend on loopback, with TLS or without.",
	}
	return r, nil
}

// idle is one round on one side.
type idle struct{ before, asIs, settled measure.Usage }

// hold opens the sockets, looks, and closes them again.
func (b *bench) hold(ctx context.Context, pid int, collect func() error, open func() ([]*load.Idle, error)) (got idle, err error) {
	rest := pick(b, 5*time.Second, 300*time.Millisecond)
	look := func(into *measure.Usage) error {
		if err := pause(ctx, rest); err != nil {
			return err
		}
		*into, err = measure.Of(pid)
		return err
	}
	settled := func(into *measure.Usage) error {
		if err := collect(); err != nil {
			return err
		}
		return look(into)
	}
	if err := settled(&got.before); err != nil {
		return got, err
	}
	held, err := open()
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	if err != nil {
		return got, err
	}
	if err := errors.Join(look(&got.asIs), settled(&got.settled)); err != nil {
		return got, err
	}
	if b.profile != "" {
		if err := b.lookHeap(ctx); err != nil {
			return got, err
		}
	}
	for _, h := range held {
		if err := h.Alive(ctx); err != nil {
			return got, err
		}
	}
	return got, nil
}

func (b *bench) idleBailey(ctx context.Context, name string, each int) (got idle, err error) {
	socket := filepath.Join(b.work, name+".sock")
	backend, _, err := b.startBackend(ctx, socket)
	if err != nil {
		return got, err
	}
	defer backend.stop()
	s, debug, err := b.startWithout(ctx, name, socket)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	cfg, err := s.tls("http/1.1")
	if err != nil {
		return got, err
	}
	var all []load.Sockets
	for i := range wsPeople {
		c, err := s.addUser(ctx, i)
		if err != nil {
			return got, err
		}
		for k := range wsWorkspaces {
			w, _, err := c.launch(ctx, fmt.Sprintf("w%d", k), "notebook")
			if err != nil {
				return got, err
			}
			one, err := socketsOf(w, c.token, cfg, each)
			if err != nil {
				return got, err
			}
			all = append(all, one)
		}
	}
	b.debug = debug
	defer func() { b.debug = "" }()
	collect := func() error { return post(ctx, "http://"+debug+"/gc") }
	warm := all[0]
	warm.N = 2
	if err := openAndClose(ctx, warm); err != nil {
		return got, err
	}
	return b.hold(ctx, s.Pid(), collect, func() (held []*load.Idle, err error) {
		for _, one := range all {
			h, err := one.Open(ctx)
			if err != nil {
				return held, err
			}
			held = append(held, h)
		}
		return held, nil
	})
}

// socketsOf says how to open terminals of a workspace.
func socketsOf(w workspace, token string, cfg *tls.Config, n int) (load.Sockets, error) {
	u, err := url.Parse(w.URL)
	if err != nil {
		return load.Sockets{}, err
	}
	return load.Sockets{
		Addr: net.JoinHostPort("127.0.0.1", u.Port()), TLS: cfg, N: n,
		URL:    strings.Replace(w.URL, "https://", "wss://", 1) + "terminals/websocket/bench",
		Header: http.Header{"Authorization": {"token " + token}},
	}, nil
}

func (b *bench) idleCHP(ctx context.Context, n int, secure bool) (idle, error) {
	backend, addr, err := b.startBackend(ctx, "")
	if err != nil {
		return idle{}, err
	}
	defer backend.stop()
	p, err := b.startCHP(ctx, addr, secure)
	if err != nil {
		return idle{}, err
	}
	defer p.stop()
	s := load.Sockets{Addr: p.addr, TLS: p.tls, URL: "ws://localhost" + chpPath + "terminals/websocket/bench", N: n}
	if secure {
		s.URL = strings.Replace(s.URL, "ws://", "wss://", 1)
	}
	warm := s
	warm.N = 2
	if err := openAndClose(ctx, warm); err != nil {
		return idle{}, err
	}
	collect := func() error { return p.cmd.Process.Signal(syscall.SIGUSR2) }
	return b.hold(ctx, p.pid(), collect, func() ([]*load.Idle, error) {
		h, err := s.Open(ctx)
		if err != nil {
			return nil, err
		}
		return []*load.Idle{h}, nil
	})
}

// openAndClose lets a proxy load what it loads with its first socket.
func openAndClose(ctx context.Context, s load.Sockets) error {
	h, err := s.Open(ctx)
	if err != nil {
		return err
	}
	h.Close()
	return nil
}

func post(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	_, err = fetch(r)
	return err
}

// fetch does one request to our own helper and returns the body.
func fetch(r *http.Request) ([]byte, error) {
	c := &http.Client{Timeout: time.Minute}
	defer c.CloseIdleConnections()
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", r.URL, resp.Status, body)
	}
	return body, err
}

// save keeps what a pprof path of our helper answers, for a person to look at.
func (b *bench) save(ctx context.Context, debug, path, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+debug+"/debug/pprof/"+path, http.NoBody)
	if err != nil {
		return err
	}
	body, err := fetch(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.profile, file), body, 0o644)
}

// lookHeap keeps the heap and the goroutines of bailey while the sockets are
// open.
func (b *bench) lookHeap(ctx context.Context) error {
	if b.debug == "" {
		return nil
	}
	return errors.Join(b.save(ctx, b.debug, "heap", "ws-heap.pprof"), b.save(ctx, b.debug, "goroutine?debug=1", "ws-goroutines.txt"))
}

// look keeps a CPU profile of bailey under a load of small requests.
func (b *bench) look(ctx context.Context, p path, name string) error {
	l := p.gates[0].load
	l.Conns = 16
	done := make(chan error, 1)
	none := func() error { return nil }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, err := l.Run(ctx, 0, 10*time.Second, none, none); done <- err }()
	err := b.save(ctx, p.debug, "profile?seconds=8", name+"-cpu.pprof")
	return errors.Join(err, <-done)
}

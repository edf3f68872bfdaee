package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/load"
	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/e2e/drive"
)

// The crowd that guesses passwords.
const (
	guessesPerSecond = 2000
	guessersFrom     = 2000 // addresses, as a trusted proxy in front names them
	guessersConns    = 64   // connections of that proxy
	guessedNames     = 500  // half of them accounts that nobody has; user0 is attacked by all
	readsPerSecond   = 100  // of the person who works meanwhile
)

// guessing measures what somebody who works notices of a crowd that guesses
// passwords, and whether the attacked person can still sign in.
func guessing(ctx context.Context, b *bench) (r result, err error) {
	// From addresses of the internet: private ones may be a bridge with everybody
	// behind it, and are treated more gently.
	b.extra = "proxies: {trusted: [127.0.0.0/8]}\n"
	p, err := b.withoutContainers(ctx)
	b.extra = ""
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	name, password := "user0", drive.Password()
	if err := p.s.admin.call(ctx, http.MethodPost, "/users", map[string]string{"name": name, "password": password}, nil); err != nil {
		return r, err
	}
	owner, err := p.s.client("")
	if err != nil {
		return r, err
	}
	owner.http.Transport = &forwarded{owner.http.Transport, "198.51.100.7"} // where user0 has signed in before
	if err := owner.signIn(ctx, name, password); err != nil {
		return r, err
	}
	quietFor, noisyFor := pick(b, 20*time.Second, 2*time.Second), pick(b, time.Minute, 15*time.Second)
	if err := b.settle(ctx); err != nil {
		return r, err
	}
	quiet, err := reads(ctx, p.gates[0].load, quietFor)
	if err != nil {
		return r, err
	}
	before, err := measure.Of(p.s.Pid())
	if err != nil {
		return r, err
	}

	crowd, stop := context.WithCancel(ctx)
	defer stop()
	g, err := newGuessers(p.s)
	if err != nil {
		return r, err
	}
	var all sync.WaitGroup
	all.Go(func() { g.run(crowd) })
	var back ownersReturn
	all.Go(func() { back.run(crowd, owner, name, password) })
	noisy, err := reads(ctx, p.gates[0].load, noisyFor)
	stop()
	all.Wait()
	if err != nil {
		return r, err
	}
	after, err := measure.Of(p.s.Pid())
	if err != nil {
		return r, err
	}
	if g.answered.Load() == 0 {
		return r, fmt.Errorf("no guess was answered: %w", g.failure())
	}
	if g.right.Load() > 0 {
		return r, fmt.Errorf("%d wrong passwords were taken", g.right.Load())
	}
	recorded, err := recordedGuesses(ctx, p.s, g.answered.Load(), pick(b, 2*time.Minute, time.Second))
	if err != nil {
		return r, err
	}
	if back.err != nil {
		b.say("the owner's own sign-in: %v", back.err)
	}
	took := noisyFor.Seconds()
	r.Rows = []measure.Row{
		{ID: "guessing.p99", Path: fmt.Sprintf("proxied GET of somebody who works, p99, while %d passwords a second are guessed; the peer is the same without", guessesPerSecond), Unit: measure.Seconds, Ours: noisy.Quantile(0.99), Peer: new(quiet.Quantile(0.99)), Budget: measure.Budget{Kind: measure.Over, Limit: 0.010}},
		{ID: "guessing.p50", Path: "the same, p50", Unit: measure.Seconds, Ours: noisy.Median(), Peer: new(quiet.Median())},
		{ID: "guessing.rate", Path: fmt.Sprintf("guesses answered, from %d addresses", guessersFrom), Unit: measure.PerSecond, Ours: float64(g.answered.Load()) / took},
		{ID: "guessing.owner", Path: "of the attacked person's own sign-ins, one in ten seconds from where they had signed in before: those that worked, in hundredths", Unit: measure.Count, Ours: 100 * float64(back.ok) / max(1, float64(back.tried)), Budget: measure.Budget{Kind: measure.AtLeast, Limit: 100}},
		{ID: "guessing.journal", Path: "of the guesses, those that the journal counts, in hundredths", Unit: measure.Count, Ours: 100 * float64(recorded) / float64(g.answered.Load()), Budget: measure.Budget{Kind: measure.AtLeast, Limit: 99}},
		{ID: "guessing.cpu", Path: "CPU time of the server for one guess, all else included", Unit: measure.Seconds, Ours: (after.CPU - before.CPU).Seconds() / float64(g.answered.Load())},
		{ID: "guessing.before", Path: "resident memory of the server before the guessing", Unit: measure.Bytes, Ours: float64(before.RSS)},
		{ID: "guessing.rss", Path: "the most of it during the guessing", Unit: measure.Bytes, Ours: float64(after.Peak)},
	}
	r.Said = []string{fmt.Sprintf(
		"One process guesses %d passwords a second for %v, at times set beforehand, from %d addresses over %d TLS connections of a trusted proxy, %d names in turn, every other guess at one account; meanwhile one person reads through the gateway %d times a second, timed from when each read was due.",
		guessesPerSecond, noisyFor, guessersFrom, guessersConns, guessedNames, readsPerSecond)}
	return r, nil
}

// forwarded says, as a proxy in front does, from where a request came.
type forwarded struct {
	http.RoundTripper

	from string
}

func (f *forwarded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", f.from)
	return f.RoundTripper.RoundTrip(r)
}

// reads makes requests at fixed times and returns how long after its time each
// was answered, in seconds: what waits behind a slow one counts as waiting.
func reads(ctx context.Context, l load.HTTP, length time.Duration) (measure.Samples, error) {
	tr := &http.Transport{
		TLSClientConfig: l.TLS, MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr)
		},
	}
	defer tr.CloseIdleConnections()
	every := time.Second / readsPerSecond
	n := int(length / every)
	took := make(measure.Samples, n)
	failed := make(chan error, n)
	var all sync.WaitGroup
	begin := time.Now().Add(every)
	for i := range n {
		due := begin.Add(time.Duration(i) * every)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Until(due)):
		}
		all.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.Host+l.Path, http.NoBody)
			if err != nil {
				failed <- err
				return
			}
			for k, v := range l.Header {
				r.Header.Set(k, v)
			}
			resp, err := tr.RoundTrip(r)
			if err != nil {
				failed <- err
				return
			}
			got, err := io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || got != int64(l.Want) {
				failed <- fmt.Errorf("a read was answered with %s and %d bytes: %w", resp.Status, got, err)
				return
			}
			took[i] = time.Since(due).Seconds()
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return took, nil
	}
}

// guessers are a crowd behind a proxy.
type guessers struct {
	url      string
	client   *http.Client
	answered atomic.Int64
	right    atomic.Int64

	mu  sync.Mutex
	err error // the last failure
}

func newGuessers(s *server) (*guessers, error) {
	cfg, err := s.tls("http/1.1")
	if err != nil {
		return nil, err
	}
	return &guessers{url: s.URL + "/api/v1/tokens/signin", client: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: cfg, MaxConnsPerHost: guessersConns, MaxIdleConnsPerHost: guessersConns,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
			},
		},
		Timeout: 30 * time.Second,
	}}, nil
}

// run guesses at fixed times until ctx ends. It never waits for answers, but
// what is open at once is bounded.
func (g *guessers) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	open := make(chan struct{}, 4*guessersConns)
	begin := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		if wait := time.Until(begin.Add(time.Duration(i) * time.Second / guessesPerSecond)); wait > 0 {
			time.Sleep(wait)
		}
		select {
		case <-ctx.Done():
			return
		case open <- struct{}{}:
		}
		all.Go(func() {
			defer func() { <-open }()
			g.guess(context.WithoutCancel(ctx), i)
		})
	}
}

func (g *guessers) guess(ctx context.Context, i int) {
	name := "user0"
	if i%2 == 1 {
		name = fmt.Sprintf("user%d", i%guessedNames)
	}
	body := fmt.Appendf(nil, `{"user":%q,"password":"wrong horse battery %d"}`, name, i)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url, bytes.NewReader(body))
	if err != nil {
		g.fail(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	from := i * 7919 % guessersFrom
	r.Header.Set("X-Forwarded-For", fmt.Sprintf("203.%d.%d.9", from/250, from%250))
	resp, err := g.client.Do(r)
	if err != nil {
		g.fail(err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	g.answered.Add(1)
	if resp.StatusCode < http.StatusBadRequest {
		g.right.Add(1)
	}
}

func (g *guessers) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *guessers) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// ownersReturn counts the attacked person's own sign-ins.
type ownersReturn struct {
	tried, ok int
	err       error // the last refusal
}

func (o *ownersReturn) run(ctx context.Context, c *client, name, password string) {
	// Six a minute: a person's own limit is ten.
	for tick := time.NewTicker(10 * time.Second); ; {
		o.tried++
		err := c.call(context.WithoutCancel(ctx), http.MethodPost, "/tokens/signin", map[string]string{"user": name, "password": password}, nil)
		if err == nil {
			o.ok++
		} else {
			o.err = err
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// recordedGuesses counts the failed and refused sign-ins in the journal. Those
// that a limit refused are counted together, so it waits until the last counts
// are written, or for as long as that may take.
func recordedGuesses(ctx context.Context, s *server, want int64, wait time.Duration) (int64, error) {
	for end := time.Now().Add(wait); ; {
		var list struct {
			Events []struct {
				Outcome string
				Attrs   struct{ Count int64 }
			}
		}
		if err := s.admin.call(ctx, http.MethodGet, "/audit?action=session.signin&limit=10000", nil, &list); err != nil {
			return 0, err
		}
		var sum int64
		for _, e := range list.Events {
			if e.Outcome != "success" {
				sum += max(1, e.Attrs.Count)
			}
		}
		if sum >= want || time.Now().After(end) {
			return sum, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// A world is a server with a console, a gateway, and two people: ada and bob,
// each with a running workspace of their own.
type world struct {
	tb       testing.TB
	addr     string
	origins  *edge.Origins
	pool     *x509.CertPool
	ca       []byte // the certificate in pool, as PEM
	front    http.HandlerFunc
	gateway  *gateway.Gateway
	identity *people
	rooms    *rooms
	journal  *journal
	log      *logBuffer
	ada, bob bailey.Actor
}

const adaSlug, bobSlug = "ada-1f00", "bob-2e11"

// newWorld makes a world whose workspaces answer with h. change may alter the
// gateway's configuration.
func newWorld(tb testing.TB, h http.Handler, change func(*gateway.Config)) *world {
	tb.Helper()
	return newWorldAt(tb, h, change, func(port int) edge.OriginConfig {
		return edge.OriginConfig{Mode: "localhost", Port: port}
	})
}

func newWorldAt(tb testing.TB, h http.Handler, change func(*gateway.Config), mode func(port int) edge.OriginConfig) *world {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{
		tb: tb, addr: ln.Addr().String(), log: &logBuffer{}, journal: &journal{},
		ada:      bailey.Actor{UserID: "u-ada", Name: "ada", Role: bailey.RoleUser, Method: "password", Session: "s-ada"},
		bob:      bailey.Actor{UserID: "u-bob", Name: "bob", Role: bailey.RoleUser, Method: "password", Session: "s-bob"},
		identity: newPeople(), rooms: &rooms{tb: tb, dir: tb.TempDir(), bySlug: map[string]*room{}, touched: map[string]int{}},
	}
	if w.origins, err = edge.NewOrigins(mode(ln.Addr().(*net.TCPAddr).Port)); err != nil {
		tb.Fatal(err)
	}
	for _, a := range []bailey.Actor{w.ada, w.bob} {
		w.identity.signIn("console-"+a.Name, a)
		token := a
		token.Method, token.Session, token.Scopes = "token", "t-"+a.Name, []bailey.Scope{bailey.ScopeAll}
		w.identity.signIn("bly_"+a.Name+"_secret", token)
	}
	w.rooms.start(adaSlug, w.ada, h)
	w.rooms.start(bobSlug, w.bob, h)
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := gateway.Config{Workspaces: w.rooms, Identity: w.identity, Origins: w.origins, Audit: w.journal, Log: log}
	if change != nil {
		change(&cfg)
	}
	if w.gateway, err = gateway.New(cfg); err != nil {
		tb.Fatal(err)
	}
	certs, err := edge.NewCerts(edge.CertConfig{Dir: tb.TempDir(), Hosts: w.origins.CertHosts})
	if err != nil {
		tb.Fatal(err)
	}
	text, err := os.ReadFile(certs.CAFile())
	if err != nil {
		tb.Fatal(err)
	}
	w.ca, w.pool = text, x509.NewCertPool()
	w.pool.AppendCertsFromPEM(text)
	w.front = w.wired
	server, err := edge.NewServer(tb.Context(), edge.ServerConfig{Listener: ln, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.front(rw, r) }), Certs: certs, Origins: w.origins, Log: cfg.Log})
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.Serve() }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.gateway.Drain(ctx); err != nil {
			tb.Errorf("Drain: %v", err)
		}
		if err := server.Shutdown(ctx); err != nil {
			tb.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
		if n := w.gateway.Tunnels().Open; n != 0 {
			tb.Errorf("tunnels open after Drain = %d", n)
		}
	})
	return w
}

// wired is what the server's wiring does: the console's origin and the rest.
func (w *world) wired(rw http.ResponseWriter, r *http.Request) {
	if _, console, _ := w.origins.Match(r); !console {
		w.gateway.ServeHTTP(rw, r)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /open/", w.gateway.OpenHandler())
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "console %s", r.RequestURI) })
	mux.ServeHTTP(rw, r)
}

func (w *world) origin(slug string) string { return w.origins.Workspace(slug) }

func (w *world) host(slug string) string { return strings.TrimPrefix(w.origin(slug), "https://") }

func (w *world) transport(http2 bool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: w.pool},
		ForceAttemptHTTP2: http2,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if w.origins.SharedHost() {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, w.addr)
		},
	}
}

// A browser opens pages like one: it keeps cookies, follows redirects, and
// tells where requests come from.
type browser struct {
	*http.Client
	w   *world
	jar *cookiejar.Jar
}

type navigation struct{ http.RoundTripper }

func (n navigation) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Sec-Fetch-Mode") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Accept", "text/html")
	}
	return n.RoundTripper.RoundTrip(r)
}

func (w *world) browser(name string) *browser {
	w.tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.tb.Fatal(err)
	}
	tr := w.transport(false)
	w.tb.Cleanup(tr.CloseIdleConnections)
	b := &browser{&http.Client{Jar: jar, Transport: navigation{tr}, Timeout: 20 * time.Second}, w, jar}
	if name != "" {
		console, _ := url.Parse(w.origins.Console())
		jar.SetCookies(console, []*http.Cookie{{Name: w.origins.Cookie(""), Value: "console-" + name, Secure: true, Path: "/"}})
	}
	return b
}

// open visits an address and returns where it ended and what it read.
func (b *browser) open(address string) (res *http.Response, body string) {
	b.w.tb.Helper()
	res, err := b.Get(address)
	if err != nil {
		b.w.tb.Fatalf("open %s: %v", address, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.tb.Fatalf("read %s: %v", address, err)
	}
	return res, string(text)
}

// cookies returns the Cookie header that the browser sends to an address.
func (b *browser) cookies(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		b.w.tb.Fatal(err)
	}
	var pairs []string
	for _, c := range b.jar.Cookies(u) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// pass signs name in, opens their workspace and returns the Cookie header.
func (w *world) pass(name, slug string) string {
	w.tb.Helper()
	b := w.browser(name)
	if res, body := b.open(w.origin(slug) + "/"); res.StatusCode != http.StatusOK {
		w.tb.Fatalf("%s opens %s: %d %s", name, slug, res.StatusCode, body)
	}
	return b.cookies(w.origin(slug) + "/")
}

// ask sends one request without following redirects. Headers are "Name: value".
func (w *world) ask(method, address string, body io.Reader, headers ...string) (*http.Response, string) {
	w.tb.Helper()
	r, err := http.NewRequest(method, address, body)
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
	tr := w.transport(false)
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(r)
	if err != nil {
		w.tb.Fatalf("%s %s: %v", method, address, err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res, string(text)
}

// dial connects to the server as a workspace's host.
func (w *world) dial(slug string) *tls.Conn {
	w.tb.Helper()
	host := w.host(slug)
	name, _, _ := net.SplitHostPort(host)
	addr := w.addr
	if w.origins.SharedHost() {
		addr = host
	}
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: w.pool, ServerName: name, NextProtos: []string{"http/1.1"}})
	if err != nil {
		w.tb.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	w.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// raw sends bytes as they are to a workspace's host and returns the answer.
func (w *world) raw(slug, text string) (*http.Response, string) {
	w.tb.Helper()
	c := w.dial(slug)
	go func() { _, _ = io.WriteString(c, text) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		w.tb.Fatalf("answer to %.200q: %v", text, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res, ""
	}
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// eventually waits for something that another goroutine does.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("never happened: %s", what)
		}
	}
}

// people is an identity service with the sign-ins it is told of.
type people struct {
	mu    sync.Mutex
	by    map[string]bailey.Actor // by cookie or token
	ended map[string]chan struct{}
	shut  string // the user who may not come from anywhere any more
}

func (p *people) Permitted(u bailey.User, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.ID == p.shut {
		return &bailey.Error{Kind: bailey.Denied, Msg: "not from there"}
	}
	return nil
}

// ban closes the addresses that a person comes from.
func (p *people) ban(userID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = userID
}

func newPeople() *people {
	return &people{by: map[string]bailey.Actor{}, ended: map[string]chan struct{}{}}
}

func (p *people) signIn(credential string, a bailey.Actor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by[credential], p.ended[a.Session] = a, make(chan struct{})
}

// revoke ends a session or token.
func (p *people) revoke(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for credential, a := range p.by {
		if a.Session == session {
			delete(p.by, credential)
		}
	}
	close(p.ended[session])
}

var errNobody = &bailey.Error{Kind: bailey.Unauthenticated, Msg: "not signed in"}

func (p *people) find(ip string, ok func(credential string, a bailey.Actor) bool) (bailey.Actor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for credential, a := range p.by {
		if ok(credential, a) {
			a.IP = ip
			return a, nil
		}
	}
	return bailey.Actor{}, errNobody
}

func (p *people) BySession(_ context.Context, cookie secret.Value, ip string) (bailey.Actor, error) {
	return p.find(ip, func(c string, a bailey.Actor) bool { return c == cookie.Reveal() && a.Method == "password" })
}

func (p *people) BySessionID(_ context.Context, userID, id, ip string) (bailey.Actor, error) {
	return p.find(ip, func(_ string, a bailey.Actor) bool { return a.UserID == userID && a.Session == id })
}

func (p *people) ByToken(_ context.Context, token secret.Value, ip string) (bailey.Actor, error) {
	return p.find(ip, func(c string, a bailey.Actor) bool { return c == token.Reveal() && a.Method == "token" })
}

func (p *people) Ended(a bailey.Actor) (<-chan struct{}, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended[a.Session], func() {}
}

// rooms is a workspace service with real servers on Unix sockets behind it.
type rooms struct {
	tb  testing.TB
	dir string

	mu      sync.Mutex
	bySlug  map[string]*room
	touched map[string]int
	runs    int
}

type room struct {
	route gateway.Route
	conns atomic.Int64 // open connections to what runs inside
	dials atomic.Int64
	done  chan struct{}
	close func()
}

// start runs h as the workspace slug of owner, in place of what ran there.
func (s *rooms) start(slug string, owner bailey.Actor, h http.Handler) *room {
	s.tb.Helper()
	ln := s.listen(slug)
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(ln) }()
	return s.startAt(slug, owner, ln, func() { _ = server.Close() })
}

func (s *rooms) listen(slug string) net.Listener {
	s.tb.Helper()
	s.mu.Lock()
	s.runs++
	path := filepath.Join(s.dir, fmt.Sprintf("%s-%d", slug[:3], s.runs))
	s.mu.Unlock()
	ln, err := net.Listen("unix", path)
	if err != nil {
		s.tb.Fatal(err)
	}
	return ln
}

// startAt makes what listens there the workspace slug.
func (s *rooms) startAt(slug string, owner bailey.Actor, ln net.Listener, closer func()) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &room{done: make(chan struct{})}
	run := filepath.Base(ln.Addr().String())
	r.route = gateway.Route{
		Workspace: bailey.Workspace{
			ID: "w-" + slug, OwnerID: owner.UserID, Owner: owner.Name, Name: "lab", Slug: slug, Class: "small",
			State: bailey.Running, RunID: run, StartedAt: time.Now(),
		},
		Token: secret.New("run-token-" + run),
		Done:  r.done,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			select {
			case <-r.done:
				return nil, bailey.Errorf(bailey.Unavailable, "that run is over")
			default:
			}
			if network != "tcp" || addr != "127.0.0.1:8888" {
				return nil, fmt.Errorf("dialled %s %s", network, addr)
			}
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", ln.Addr().String())
			if err != nil {
				return nil, err
			}
			r.dials.Add(1)
			r.conns.Add(1)
			return &countedConn{UnixConn: c.(*net.UnixConn), room: r}, nil
		},
	}
	r.close = sync.OnceFunc(func() { _ = ln.Close(); closer() })
	s.tb.Cleanup(r.close)
	s.bySlug[slug] = r
	return r
}

// change alters the way into a workspace.
func (s *rooms) change(slug string, alter func(*gateway.Route)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	alter(&s.bySlug[slug].route)
}

type countedConn struct {
	*net.UnixConn
	room *room
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.room.conns.Add(-1) })
	return c.UnixConn.Close()
}

// stop ends the run of slug, and what runs inside.
func (s *rooms) stop(slug string) {
	r := s.end(slug)
	r.close()
}

// end says that the run of slug is over, while what runs inside still does.
func (s *rooms) end(slug string) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.bySlug[slug]
	r.route.Workspace.State = bailey.Stopped
	close(r.done)
	return r
}

func (s *rooms) get(slug string) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bySlug[slug]
}

func (s *rooms) Get(_ context.Context, actor bailey.Actor, slug string) (bailey.Workspace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.bySlug[slug]
	if r == nil || !policy.Decide(actor, policy.WorkspaceView, policy.Thing{OwnerID: r.route.Workspace.OwnerID}) {
		return bailey.Workspace{}, bailey.Errorf(bailey.NotFound, "no such workspace")
	}
	return r.route.Workspace, nil
}

func (s *rooms) Route(ctx context.Context, actor bailey.Actor, slug string) (gateway.Route, error) {
	ws, err := s.Get(ctx, actor, slug)
	if err != nil {
		return gateway.Route{}, err
	}
	if !policy.Decide(actor, policy.WorkspaceOpen, policy.Thing{OwnerID: ws.OwnerID, WorkspaceID: ws.ID}) {
		return gateway.Route{}, bailey.Errorf(bailey.NotFound, "no such workspace")
	}
	if ws.State != bailey.Running {
		return gateway.Route{}, bailey.Errorf(bailey.Conflict, "not running")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bySlug[slug].route, nil
}

func (s *rooms) Touch(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched[id]++
}

func (s *rooms) touches(slug string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.touched["w-"+slug]
}

// journal remembers what was recorded.
type journal struct {
	mu     sync.Mutex
	events []audit.Event
	broken bool
}

func (j *journal) Append(_ context.Context, e audit.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return audit.ErrUnwritable
	}
	j.events = append(j.events, e)
	return nil
}

func (j *journal) of(action audit.Action) []audit.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []audit.Event
	for _, e := range j.events {
		if e.Action == action {
			out = append(out, e)
		}
	}
	return out
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// mirror answers with what it saw: method, target, host, headers, body.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	for name, values := range r.Trailer {
		lines = append(lines, fmt.Sprintf("Trailer %s: %q", name, values))
	}
	slices.Sort(lines)
	fmt.Fprintf(w, "%s\n\n%s", strings.Join(lines, "\n"), body)
}

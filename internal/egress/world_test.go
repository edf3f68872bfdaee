package egress_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

// The people: Alice and Bob, each with a workspace, in class ml.
var (
	alice = egress.Who{UserID: "u-alice", User: "alice", WorkspaceID: "w-alice", Workspace: "lab", Run: "r-alice", Class: "ml"}
	bob   = egress.Who{UserID: "u-bob", User: "bob", WorkspaceID: "w-bob", Workspace: "den", Run: "r-bob", Class: "ml"}
	admin = bailey.Actor{UserID: "u-root", Name: "root", Role: bailey.RoleAdmin, Method: "password"}
)

// A world is a Proxy with an internet of its own: names lead where the test
// says, and an address of that internet is a server on loopback. Addresses are
// checked by the real check; only what is dialled after it is redirected.
type world struct {
	*testing.T
	proxy *egress.Proxy
	store *memory
	audit *events
	net   *internet
	sock  string
	wait  sync.WaitGroup

	dialling sync.Mutex // one at a time has the socket's name
}

// public is where the test's servers are, for all that the Proxy knows.
const public = "93.184.216."

func newWorld(t *testing.T, change ...func(*egress.Config, *egress.Policy)) *world {
	t.Helper()
	w := &world{T: t, store: newMemory(), audit: &events{}, net: newInternet(), sock: filepath.Join(t.TempDir(), "s")}
	cfg := egress.Config{
		Store: w.store, Audit: w.audit, Resolver: w.net, Dialer: w.net,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Own: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("198.41.0.4")}, nil },
	}
	policy := policyOf(rules.Rule{ID: "files", Host: "files.example.org"}, rules.Rule{ID: "wild", Host: "*.example.net"})
	for _, c := range change {
		c(&cfg, &policy)
	}
	var err error
	if w.proxy, err = egress.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	w.apply(policy)
	t.Cleanup(func() {
		if err := w.proxy.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		w.wait.Wait()
	})
	return w
}

func policyOf(list ...rules.Rule) egress.Policy {
	return egress.Policy{
		Classes: map[string]string{"ml": "set"},
		Sets:    map[string]rules.Set{"set": {Name: "set", Rules: list}},
	}
}

func (w *world) apply(p egress.Policy) {
	w.Helper()
	if err := w.proxy.Apply(p); err != nil {
		w.Fatal(err)
	}
}

// dial opens a connection as who, over a real Unix socket.
func (w *world) dial(who egress.Who) *net.UnixConn {
	w.Helper()
	w.dialling.Lock()
	defer w.dialling.Unlock()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.sock, Net: "unix"})
	if err != nil {
		w.Fatal(err)
	}
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.sock, Net: "unix"})
	if err != nil {
		w.Fatal(err)
	}
	conn, err := ln.AcceptUnix()
	if err != nil {
		w.Fatal(err)
	}
	_ = ln.Close()
	ctx := w.Context()
	w.wait.Go(func() { w.proxy.Serve(ctx, conn, who) })
	w.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(20 * time.Second)) // of a test that hangs
	return client
}

// client returns an HTTP client of who's workspace.
func (w *world) client(who egress.Who) *http.Client {
	t := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return w.dial(who), nil },
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"}),
		TLSClientConfig:   &tls.Config{RootCAs: w.net.roots},
		ForceAttemptHTTP2: true,
	}
	w.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// get returns what a GET of who's gives.
func (w *world) get(who egress.Who, url string) (status int, body string, err error) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		w.Fatal(err)
	}
	res, err := w.client(who).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// raw sends bytes as who and returns all that comes back.
func (w *world) raw(who egress.Who, text string) string {
	w.Helper()
	c := w.dial(who)
	_, _ = io.WriteString(c, text)
	_ = c.CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

// connect opens a tunnel as who and returns it with its answer's status line.
func (w *world) connect(who egress.Who, target string) (*net.UnixConn, *bufio.Reader, string) {
	w.Helper()
	c := w.dial(who)
	_, _ = io.WriteString(c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	br := bufio.NewReader(c)
	line, err := br.ReadString('\n')
	if err != nil {
		w.Fatalf("CONNECT %s: %v", target, err)
	}
	for {
		next, err := br.ReadString('\n')
		if err != nil || strings.TrimSpace(next) == "" {
			return c, br, strings.TrimSpace(line)
		}
	}
}

// An internet resolves names and dials addresses.
type internet struct {
	cert  tls.Certificate
	roots *x509.CertPool

	mu      sync.Mutex
	names   map[string][]string // host → addresses
	servers map[string]string   // "address:port" → where it really is
	asked   []string            // names that were resolved
	dialled []string
	next    int
	answer  func(host string) []string // in place of names, when set
}

func newInternet() *internet {
	n := &internet{names: map[string][]string{}, servers: map[string]string{}}
	n.cert, n.roots = certificate()
	return n
}

// certificate is valid for every name that the tests have.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"*.example.org", "*.example.net", "*.example.com"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
})

// at makes host lead to addresses, and port of each be the server at really.
func (n *internet) at(host string, port, really string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(addresses) == 0 {
		n.next++
		addresses = []string{public + strconv.Itoa(n.next)}
	}
	n.names[host] = addresses
	for _, a := range addresses {
		n.servers[net.JoinHostPort(a, port)] = really
	}
}

func (n *internet) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, absolute := strings.CutSuffix(host, ".")
	if !absolute {
		return nil, errors.New("a name without its last dot is looked up in search domains")
	}
	if network == "ip4" {
		n.asked = append(n.asked, name)
	}
	texts := n.names[name]
	if n.answer != nil {
		texts = n.answer(name)
	}
	var list []netip.Addr
	for _, text := range texts {
		if a := netip.MustParseAddr(text); a.Is4() == (network == "ip4") {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return list, nil
}

func (n *internet) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dialled = append(n.dialled, addr)
	really, ok := n.servers[addr]
	n.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("nobody is there: " + addr)}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, really)
	if err != nil {
		return nil, err
	}
	return &elsewhere{c.(*net.TCPConn), addr}, nil
}

func (n *internet) seen() (asked, dialled []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked), slices.Clone(n.dialled)
}

// An elsewhere is a connection that says that it leads where it was dialled to.
type elsewhere struct {
	*net.TCPConn
	addr string
}

func (e *elsewhere) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(e.addr))
}

// https starts a TLS server that is host's port 443, http a plain one on 80.
func (w *world) https(host string, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{w.net.cert}}
	s.EnableHTTP2 = true
	s.StartTLS()
	w.Cleanup(s.Close)
	w.net.at(host, "443", s.Listener.Addr().String())
	return s
}

func (w *world) http(host string, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	w.Cleanup(s.Close)
	w.net.at(host, "80", s.Listener.Addr().String())
	return s
}

// memory is a Store in memory. The real ones pass the suite in storetest.
type memory struct {
	mu       sync.Mutex
	requests []bailey.EgressRequest
	grants   []bailey.EgressGrant
	asks     int
	down     error
}

func newMemory() *memory { return &memory{} }

func (m *memory) AskEgress(_ context.Context, r bailey.EgressRequest) (bailey.EgressRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asks++
	if m.down != nil {
		return r, m.down
	}
	for i := range m.requests {
		old := &m.requests[i]
		if old.UserID == r.UserID && old.Class == r.Class && old.Host == r.Host && old.Port == r.Port {
			old.Count += r.Count
			old.LastAt, old.WorkspaceID, old.Workspace, old.Method = r.LastAt, r.WorkspaceID, r.Workspace, r.Method
			if old.State == bailey.AskAllowed {
				old.State = bailey.AskOpen
			}
			return *old, nil
		}
	}
	m.requests = append(m.requests, r)
	return r, nil
}

func (m *memory) EgressRequests(_ context.Context, userID string) ([]bailey.EgressRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(m.requests), func(r bailey.EgressRequest) bool { return userID != "" && r.UserID != userID })
	slices.SortFunc(list, func(a, b bailey.EgressRequest) int {
		return cmp.Or(b.LastAt.Compare(a.LastAt), cmp.Compare(b.ID, a.ID))
	})
	return list, m.down
}

func (m *memory) DecideEgress(_ context.Context, id string, state bailey.AskState, by string, at time.Time) (bailey.EgressRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.requests {
		if r := &m.requests[i]; r.ID == id {
			r.State, r.DecidedBy, r.DecidedAt = state, by, at
			return *r, m.down
		}
	}
	return bailey.EgressRequest{}, bailey.Errorf(bailey.NotFound, "there is no such request")
}

func (m *memory) GrantEgress(_ context.Context, g bailey.EgressGrant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	m.grants = append(slices.DeleteFunc(m.grants, func(old bailey.EgressGrant) bool { return old.ID == g.ID }), g)
	return nil
}

func (m *memory) EgressGrants(context.Context) ([]bailey.EgressGrant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.grants), m.down
}

func (m *memory) RevokeEgress(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.grants)
	m.grants = slices.DeleteFunc(m.grants, func(g bailey.EgressGrant) bool { return g.ID == id })
	if len(m.grants) == n {
		return bailey.Errorf(bailey.NotFound, "there is no such grant")
	}
	return m.down
}

// events is a journal in memory.
type events struct {
	mu   sync.Mutex
	list []audit.Event
	down atomic.Bool
}

func (e *events) Append(_ context.Context, ev audit.Event) error {
	if e.down.Load() {
		return audit.ErrUnwritable
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
	return nil
}

func (e *events) of(action audit.Action) []audit.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.list), func(ev audit.Event) bool { return ev.Action != action })
}

// eventually waits for what happens in another goroutine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("it did not happen that %s", what)
		case <-tick.C:
		}
	}
}

// hello returns the ClientHello of a Go client for a server name.
func hello(t *testing.T, name string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}).Handshake()
		_ = theirs.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8+int(head[4]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	return bytes.Join([][]byte{head, body}, nil)
}

// Package apptest has a whole server in process for the tests of doors: the
// real store, journal, identity and workspace services behind the real edge,
// on an engine in memory, with alice, bob, an auditor and an administrator to
// knock on it. Each door's tests put their own handler in front.
package apptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/gatehouse"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/trust"
	trustpolicy "github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/vault"
	"github.com/baileyhq/bailey/internal/witness"
	"github.com/baileyhq/bailey/internal/workspace"
)

// The people of a World. All have [Password].
const (
	Alice   = "alice"   // a user, in group research
	Bob     = "bob"     // a user
	Auditor = "watcher" // an auditor
	Admin   = "root-admin"
)

// Password is everybody's password.
const Password = "violet harbour 62 lanterns"

// Card is the GPU of the class "gpu".
const Card = "GPU-00000000-0000-0000-0000-000000000001"

// A World is a server and the people who know it.
type World struct {
	Store      *store.Store
	Engine     *enginetest.Fake
	Journal    *audit.Journal
	Guard      *guard.Guard
	Bans       *gatehouse.Keeper
	Identity   *identity.Service
	Workspaces *workspace.Service
	Vault      *vault.Vault
	Rules      *rulebook.Book
	Egress     *egress.Proxy      // class small is proxied and reaches files.example.org alone
	Images     *catalogue.Service // its policy knows its own key and nobody else
	SSHLive    *sshlive.Registry
	SSH        *witness.Service
	Origins    *edge.Origins

	SignInRules identity.Rules // what holds for passwords and factors; a test may change it before anybody signs in
	Log         *Log
	URL         string // the console's origin

	tb       testing.TB
	listener net.Listener
	certs    *edge.Certs
	people   map[string]bailey.User
	setup    secret.Value
}

// New returns a World in which everybody has an account and nothing is served
// yet; see [World.Serve]. It ends with the test.
func New(tb testing.TB, modes ...func(*edge.OriginConfig)) *World {
	tb.Helper()
	w := NewEmpty(tb, modes...)
	for _, u := range []bailey.User{
		{Name: Alice, Role: bailey.RoleUser, Groups: []string{"research"}},
		{Name: Bob, Role: bailey.RoleUser, Groups: []string{}},
		{Name: Auditor, Role: bailey.RoleAuditor, Groups: []string{}},
		{Name: Admin, Role: bailey.RoleAdmin, Groups: []string{}},
	} {
		made, err := w.Store.CreateUser(tb.Context(), u, passwordHash())
		if err != nil {
			tb.Fatalf("create %s: %v", u.Name, err)
		}
		w.people[u.Name] = made
	}
	return w
}

// NewEmpty is [New] before set-up: nobody has an account.
func NewEmpty(tb testing.TB, modes ...func(*edge.OriginConfig)) *World {
	tb.Helper()
	dir := tb.TempDir()
	w := &World{tb: tb, Log: &Log{}, people: map[string]bailey.User{}}
	log := slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the server's log:\n%s", w.Log)
		}
	})
	var err error
	check := func(what string) {
		tb.Helper()
		if err != nil {
			tb.Fatalf("%s: %v", what, err)
		}
	}
	w.Store, err = store.Open(tb.Context(), store.Config{Path: filepath.Join(dir, "state.db"), Key: bytes.Repeat([]byte{7}, 32), Log: log})
	check("open store")
	tb.Cleanup(func() { _ = w.Store.Close() }) // a test may have closed it
	w.Journal, err = audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Log: log})
	check("open journal")
	tb.Cleanup(func() { _ = w.Journal.Close() })
	w.Engine = enginetest.NewFake(enginetest.Config{Dial: enginetest.HTTP(http.HandlerFunc(jupyter)), Exec: selfCheck})
	tb.Cleanup(func() { _ = w.Engine.Close() })
	w.listener, err = (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	check("listen")
	port := w.listener.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
	origins := edge.OriginConfig{Mode: edge.ModeLocalhost, Port: port}
	for _, mode := range modes {
		mode(&origins)
	}
	w.Origins, err = edge.NewOrigins(origins)
	check("origins")
	w.URL = w.Origins.Console()
	w.Guard, err = guard.New(guard.Config{})
	check("guard")
	w.Bans, err = gatehouse.New(tb.Context(), gatehouse.Config{
		Guard: w.Guard, Store: w.Store, Audit: w.Journal, Log: log, Fresh: func(a bailey.Actor) error { return w.Identity.Fresh(a) },
	})
	check("bans")
	w.Identity, err = identity.New(identity.Config{
		Store: w.Store, Guard: w.Guard, Audit: w.Journal, Log: log, UnknownKey: []byte("apptest"), SSHLink: func(code string) string { return "/ssh/" + code }, External: map[string]external.Rules{"oidc:corp": {Everyone: true, Create: true}},
		Host: "localhost", Origin: w.URL, Rules: func() identity.Rules { return w.SignInRules },
	})
	check("identity")
	w.Vault, err = vault.New(vault.Config{Store: w.Store, Audit: w.Journal, Log: log, Fresh: w.Identity.Fresh, Class: func(string) bool { return true }})
	check("vault")
	ruleDir := filepath.Join(dir, "rules")
	set, err := rulebook.Load(ruleDir, nil, secret.New("apptest"))
	check("filter rules")
	looks, err := filter.New(filter.Config{Rules: set, Report: func(filter.Finding) {}})
	check("filter")
	w.Rules, err = rulebook.New(rulebook.Config{Filter: looks, Dir: ruleDir, Key: secret.New("apptest"), Audit: w.Journal, Log: log})
	check("rulebook")
	_, err = catalogue.EnsureKey(filepath.Join(dir, "own.key"))
	check("key")
	imageRules, err := trustpolicy.Parse(filepath.Join(dir, "policy.yaml"), []byte(catalogue.DefaultPolicy("own.pub")), os.ReadFile)
	if err != nil {
		tb.Fatalf("image policy: %v", err)
	}
	w.Images, err = catalogue.New(catalogue.Config{
		Store: w.Store, Engine: w.Engine, Policies: func() *trustpolicy.Policy { return imageRules }, Source: elsewhere{}, Audit: w.Journal,
		Transfer: filepath.Join(dir, "transfer"), Key: filepath.Join(dir, "own.key"), Log: log, Fresh: w.Identity.Fresh,
	})
	check("catalogue")
	w.Workspaces, err = workspace.New(workspace.Config{
		BasePath: func(ws bailey.Workspace) string { return w.Origins.Base(ws.Slug) + "/" },
		Store:    w.Store, Engine: w.Engine, Verifier: w, Settings: settings{}, GPUs: cards{}, Audit: w.Journal, Log: log,
	})
	check("workspace")
	w.runWorkspaces()
	w.Egress, err = egress.New(tb.Context(), egress.Config{Store: w.Store, Audit: w.Journal, Log: log, Fresh: w.Identity.Fresh})
	check("egress")
	tb.Cleanup(func() { _ = w.Egress.Close(context.WithoutCancel(tb.Context())) }) // of a test that is over
	err = w.Egress.Apply(egress.Policy{
		Classes: map[string]string{"small": "files"},
		Sets:    map[string]rules.Set{"files": {Name: "files", Rules: []rules.Rule{{ID: "1", Host: "files.example.org"}}}},
	})
	check("egress rules")
	recorder, err := recording.New(recording.Config{Dir: filepath.Join(dir, "recordings"), Key: bytes.Repeat([]byte{9}, 32), Reserve: 1, Flush: time.Millisecond, Log: log})
	check("recordings")
	w.SSHLive = &sshlive.Registry{}
	w.SSH, err = witness.New(tb.Context(), witness.Config{
		Store: w.Store, Recorder: recorder, Live: w.SSHLive, Audit: w.Journal, Server: "apptest", Limits: func() witness.Limits { return witness.Limits{} }, Log: log,
	})
	check("witness")
	w.certs, err = edge.NewCerts(edge.CertConfig{Dir: filepath.Join(dir, "tls"), Hosts: w.Origins.CertHosts, Log: log})
	check("certificates")
	w.setup, err = w.Identity.BeginSetup(tb.Context())
	check("begin set-up")
	return w
}

// runWorkspaces runs the reconciler until the test ends.
func (w *World) runWorkspaces() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.tb.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Workspaces.Run(ctx) }()
	w.tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.tb.Errorf("workspace service: %v", err)
		}
	})
}

// Logger returns a logger that writes to [World.Log].
func (w *World) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Serve puts a handler behind the edge, until the test ends.
func (w *World) Serve(h http.Handler) {
	w.tb.Helper()
	server, err := edge.NewServer(w.tb.Context(), edge.ServerConfig{
		Listener: w.listener, Handler: h, Certs: w.certs, Origins: w.Origins, Log: w.Logger(),
	})
	if err != nil {
		w.tb.Fatalf("serve: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	w.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.tb.Context()), 10*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-ended); err != nil {
			w.tb.Errorf("shut down: %v", err)
		}
	})
}

// Client returns an HTTP client that trusts the server, keeps no cookies and
// follows no redirects.
func (w *World) Client() *http.Client {
	w.tb.Helper()
	pem, err := os.ReadFile(w.certs.CAFile())
	if err != nil {
		w.tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.listener.Addr().String())
		},
	}
	w.tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Dial connects to the server over TLS as a client of one of its origins, for
// requests that no HTTP client would send.
func (w *World) Dial(origin string) net.Conn {
	w.tb.Helper()
	pem, err := os.ReadFile(w.certs.CAFile())
	if err != nil {
		w.tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	host, _, err := net.SplitHostPort(strings.TrimPrefix(origin, "https://"))
	if err != nil {
		w.tb.Fatal(err)
	}
	conn, err := tls.Dial("tcp", w.listener.Addr().String(), &tls.Config{
		RootCAs: roots, ServerName: host, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	w.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// SetupCode returns the one-time secret that was pending when the World was
// made; it is empty after [New].
func (w *World) SetupCode() string { return w.setup.Reveal() }

// User returns somebody's account.
func (w *World) User(name string) bailey.User {
	w.tb.Helper()
	u, ok := w.people[name]
	if !ok {
		w.tb.Fatalf("nobody is called %s", name)
	}
	return u
}

// Actor returns somebody as the services see them after a sign-in, without
// one.
func (w *World) Actor(name string) bailey.Actor {
	w.tb.Helper()
	u := w.User(name)
	return bailey.Actor{UserID: u.ID, Name: u.Name, Role: u.Role, Groups: u.Groups, Method: "password", IP: "192.0.2.1", AuthTime: time.Now(), Methods: []string{"pwd"}}
}

// Session signs somebody in and returns the cookie's value.
func (w *World) Session(name string) string {
	w.tb.Helper()
	grant, _, err := w.Identity.SignIn(w.tb.Context(), identity.SignInRequest{
		Name: name, Password: secret.New(Password), IP: "192.0.2.1", UserAgent: "apptest",
	})
	if err != nil {
		w.tb.Fatalf("sign in as %s: %v", name, err)
	}
	return grant.Secret.Reveal()
}

// Token makes an API token for somebody and returns its text and its row.
func (w *World) Token(name string) (string, bailey.Token) {
	w.tb.Helper()
	return w.LimitedToken(name, identity.TokenRequest{Note: "apptest"})
}

// LimitedToken is [World.Token] for a token that is not for everything.
func (w *World) LimitedToken(name string, r identity.TokenRequest) (string, bailey.Token) {
	w.tb.Helper()
	grant, err := w.Identity.CreateToken(w.tb.Context(), w.Actor(name), r)
	if err != nil {
		w.tb.Fatalf("token for %s: %v", name, err)
	}
	return grant.Secret.Reveal(), grant.Row
}

// Launch starts a workspace of class "small" and waits until it runs.
func (w *World) Launch(owner, name string) bailey.Workspace {
	w.tb.Helper()
	return w.LaunchClass(owner, name, "small")
}

// LaunchClass is [World.Launch] with a class.
func (w *World) LaunchClass(owner, name, class string) bailey.Workspace {
	w.tb.Helper()
	ws, err := w.Workspaces.Launch(w.tb.Context(), w.Actor(owner), name, class)
	if err != nil {
		w.tb.Fatalf("launch %s/%s: %v", owner, name, err)
	}
	return w.Await(ws.ID, bailey.Running)
}

// Await waits until a workspace is in a state.
func (w *World) Await(id string, want bailey.State) bailey.Workspace {
	w.tb.Helper()
	var ws bailey.Workspace
	w.Until("workspace "+id+" is "+string(want), func() bool {
		var err error
		if ws, err = w.Store.Workspace(w.tb.Context(), id); err != nil {
			w.tb.Fatalf("workspace %s: %v", id, err)
		}
		return ws.State == want
	})
	return ws
}

// Until waits, with a deadline, for what happens in the background.
func (w *World) Until(what string, done func() bool) {
	w.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			w.tb.Fatalf("after 30 s still not so: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // the server runs in real time beside us
	}
}

// Events returns what the journal has of an action, newest last.
func (w *World) Events(action audit.Action) []audit.Event {
	w.tb.Helper()
	events, err := w.Journal.Search(w.tb.Context(), audit.Filter{Action: string(action), Limit: 10_000})
	if err != nil {
		w.tb.Fatalf("search the journal: %v", err)
	}
	return events
}

// A Log keeps what a server logs. It may be used concurrently.
type Log struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Contains reports whether a line was logged that has all of words.
func (l *Log) Contains(words ...string) bool {
	for line := range strings.Lines(l.String()) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return true
		}
	}
	return false
}

// passwordHash hashes [Password] once, as identity does it.
var passwordHash = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "apptest-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)     //nolint:errcheck // a temporary folder
	ctx := context.Background() //nolint:forbidigo // made once, for all tests
	s, err := store.Open(ctx, store.Config{Path: filepath.Join(dir, "state.db"), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		panic(err)
	}
	defer s.Close() //nolint:errcheck // a temporary store
	limits, err := guard.New(guard.Config{})
	if err != nil {
		panic(err)
	}
	people, err := identity.New(identity.Config{Store: s, Guard: limits, Audit: silence{}})
	if err != nil {
		panic(err)
	}
	if err := people.EnsureAdmin(ctx, "somebody", secret.New(Password)); err != nil {
		panic(err)
	}
	u, err := s.UserByName(ctx, "somebody")
	if err != nil {
		panic(err)
	}
	hash, err := s.PasswordHash(ctx, u.ID)
	if err != nil {
		panic(err)
	}
	return hash
})

// silence is a journal that keeps nothing.
type silence struct{}

func (silence) Append(context.Context, audit.Event) error { return nil }

// jupyter answers inside workspaces.
func jupyter(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/status":
		_, _ = fmt.Fprint(w, `{"started":"2026-01-01T00:00:00Z","connections":0,"kernels":0}`)
	case "/api/kernels":
		_, _ = fmt.Fprint(w, `[]`)
	default:
		_, _ = fmt.Fprintf(w, "inside: %s", r.URL.Path)
	}
}

// selfCheck is the self check of workspaces, which works.
func selfCheck(call enginetest.ExecCall) int {
	_ = json.NewEncoder(call.Stdout).Encode(map[string]any{"version": "2.6.0", "cuda": true, "devices": 1, "sum": 8})
	return 0
}

// settings are the configuration: classes for everybody, and "secret" for the
// group research.
type settings struct{}

// Classes implements workspace.Settings.
func (settings) Classes() []bailey.Class {
	class := func(name string, gpus int, check string, groups ...string) bailey.Class {
		return bailey.Class{
			Name: name, Title: "A " + name + " one", Image: name, Digest: enginetest.FakeImage, CPUMillis: 1000, MemoryBytes: 2 << 30,
			GPUs: gpus, IdleStop: 2 * time.Hour, StartLimit: time.Minute, SelfCheck: check, Groups: groups,
		}
	}
	missing := class("missing", 0, "none")
	missing.Digest = ""
	return []bailey.Class{class("small", 0, "python"), class("gpu", 1, "cuda"), class("secret", 0, "none", "research"), missing}
}

// Class implements workspace.Settings.
func (s settings) Class(name string) (bailey.Class, bool) {
	for _, c := range s.Classes() {
		if c.Name == name {
			return c, true
		}
	}
	return bailey.Class{}, false
}

// QuotaFor implements workspace.Settings.
func (settings) QuotaFor(bailey.User) bailey.Quota { return bailey.Quota{Workspaces: 5} }

// GroupQuotas implements workspace.Settings.
func (settings) GroupQuotas(bailey.User) map[string]bailey.Quota { return nil }

// cards is the GPU inventory.
type cards struct{}

// Inventory implements workspace.GPUs.
func (cards) Inventory(context.Context) ([]bailey.GPU, error) {
	return []bailey.GPU{{UUID: Card, Model: "Example 9000"}}, nil
}

// Verify implements workspace.Verifier: everything that is here may start.
func (w *World) Verify(_ context.Context, _ audit.Actor, name, digest string) (bailey.Receipt, error) {
	if digest == "" {
		return bailey.Receipt{}, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no image " + name}
	}
	return bailey.Receipt{
		Image: name, Digest: digest, Started: digest, Source: bailey.FromArchive, Signer: "key build", RekorIndex: -1,
		Words: "signed by key build",
	}, nil
}

// Fetch implements workspace.Verifier: there is nowhere to fetch from.
func (w *World) Fetch(context.Context, bailey.Receipt, func(percent int)) error {
	return engine.ErrNoImage
}

// AddImage takes an image of a registry into the catalogue, as far as the
// state: nobody has signed it, so an administrator vouches for it. The engine
// holds it if its name begins with "here".
func (w *World) AddImage(name string, state bailey.ImageState) bailey.Image {
	w.tb.Helper()
	admin := w.Actor(Admin)
	ctx := w.tb.Context()
	e, err := w.Images.Add(ctx, admin, name, "registry.example/team/"+name+":v1")
	if err == nil && state != bailey.ImageCandidate {
		e, err = w.Images.Countersign(ctx, admin, name)
	}
	if err == nil && (state == bailey.ImageApproved || state == bailey.ImageRetired) {
		e, err = w.Images.Approve(ctx, admin, name)
	}
	if err == nil && state == bailey.ImageRetired {
		e, err = w.Images.Retire(ctx, admin, name, "it is old", "")
	}
	if err != nil {
		w.tb.Fatalf("add image %s: %v", name, err)
	}
	return e.Image
}

// elsewhere is a registry with an unsigned image in every repository.
type elsewhere struct{}

func (elsewhere) manifest(repository string) (text []byte, digest string) {
	of := func(b []byte) string { sum := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(sum[:]) }
	config := of([]byte(repository))
	if strings.Contains(repository, "/here") {
		config = enginetest.FakeImage
	}
	text = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"annotations":{"of":%q},"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":7},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":4096}]}`, repository, config, config)
	return text, of(text)
}

// Resolve implements trust.Source.
func (e elsewhere) Resolve(_ context.Context, ref trust.Reference) (string, error) {
	_, digest := e.manifest(ref.Repository)
	return digest, nil
}

// Collect implements trust.Source.
func (e elsewhere) Collect(_ context.Context, ref trust.Reference, _ trust.Want) (trust.Evidence, error) {
	text, digest := e.manifest(ref.Repository)
	return trust.Evidence{Repository: ref.Repository, Digest: digest, Items: []trust.Item{
		{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: text},
	}}, nil
}

package sshgate_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/agent"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshgate"
	"github.com/baileyhq/bailey/internal/workspace"
)

const soon = 20 * time.Second

// TestMain lets the test binary be the agent of a workspace: the real one, in a
// process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("BAILEY_TEST_AGENT") != "" {
		os.Exit(agent.Main(agent.Process{Args: os.Args[1:], Env: os.Environ(), Version: "test", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
	}
	os.Exit(m.Run())
}

// A world is a gate and two people, each with a key and a workspace. What runs
// inside the workspaces is the real agent with real processes.
type world struct {
	t        *testing.T
	gate     *sshgate.Gate
	addr     string
	people   *people
	rooms    *rooms
	journal  *journal
	findings *findings
	hostKey  ssh.Signer

	mu     sync.Mutex // guards policy
	policy sshgate.Policy
}

func (w *world) setPolicy(p sshgate.Policy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policy = p
}

// newWorld makes a world. change may alter the gate's configuration.
func newWorld(t *testing.T, change func(*sshgate.Config)) *world {
	t.Helper()
	w := &world{t: t, people: newPeople(), journal: &journal{}, findings: &findings{}, hostKey: newKey(t)}
	w.rooms = &rooms{t: t, byOwner: map[string]*room{}, touched: map[string]int{}}
	for _, name := range []string{"ada", "bob"} {
		key, raw := newRawKey(t)
		w.people.add(name, key)
		w.people.raw[name] = raw
		w.rooms.start(w.people.actors[name])
	}
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := filter.New(filter.Config{Rules: set, Report: w.findings.add, Secrets: func(string) map[string]secret.Value {
		return map[string]secret.Value{"db": secret.New(knownSecret)}
	}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := sshgate.Config{
		People: w.people, Workspaces: w.rooms, Filter: f, Audit: w.journal, HostKeys: []ssh.Signer{w.hostKey},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Policy: func(string) sshgate.Policy {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.policy
		},
	}
	if change != nil {
		change(&cfg)
	}
	if w.gate, err = sshgate.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.gate.Serve(ln) }()
	t.Cleanup(func() {
		_ = ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := w.gate.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if got := w.gate.Stats(); got.Open != 0 || got.Strangers != 0 {
			t.Errorf("after Drain there are %d connections and %d strangers", got.Open, got.Strangers)
		}
		if got := w.gate.Live().List(); len(got) != 0 {
			t.Errorf("after Drain there are %d sessions", len(got))
		}
	})
	return w
}

const knownSecret = "correct-Horse-7battery-staple"

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	signer, _ := newRawKey(t)
	return signer
}

func newRawKey(t testing.TB) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// try signs in as user with keys.
func (w *world) try(user string, keys ...ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", w.addr, w.clientConfig(user, keys...))
}

func (w *world) clientConfig(user string, keys ...ssh.Signer) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()), Timeout: soon,
	}
}

// client signs in as one of the two.
func (w *world) client(name string) *ssh.Client {
	w.t.Helper()
	c, err := w.try(name, w.people.signers[name])
	if err != nil {
		w.t.Fatalf("%s cannot sign in: %v", name, err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func session(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatalf("NewSession: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// run runs a command and returns what it wrote and how it ended.
func run(t *testing.T, c *ssh.Client, command, stdin string) (stdout, stderr string, err error) {
	t.Helper()
	s := session(t, c)
	var out, errs bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(stdin), &out, &errs
	err = s.Run(command)
	return out.String(), errs.String(), err
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*ssh.ExitError](err); ok {
		return e.ExitStatus()
	}
	if err != nil {
		return -1
	}
	return 0
}

// people is identity, as far as this door goes, with real keys.
type people struct {
	mu      sync.Mutex // guards what follows
	keys    map[string]ssh.PublicKey
	grants  map[string]identity.SSHGrant
	ended   map[string]chan struct{}
	signIns []identity.SSHSignIn
	failed  []string
	offers  int
	banned  bool
	link    string
	groups  map[string][]string // what somebody is in now
	gone    map[string]bool     // whose sign-in is no longer good

	contacts int
	raw      map[string]ed25519.PrivateKey

	actors  map[string]bailey.Actor
	signers map[string]ssh.Signer
}

func newPeople() *people {
	return &people{
		keys: map[string]ssh.PublicKey{}, grants: map[string]identity.SSHGrant{}, ended: map[string]chan struct{}{},
		raw: map[string]ed25519.PrivateKey{}, actors: map[string]bailey.Actor{}, signers: map[string]ssh.Signer{},
	}
}

func (p *people) add(name string, key ssh.Signer) {
	p.actors[name] = bailey.Actor{UserID: "u-" + name, Name: name, Role: bailey.RoleUser, Method: "ssh", Session: "k-" + name}
	p.signers[name], p.keys[name] = key, key.PublicKey()
	p.ended["k-"+name] = make(chan struct{})
}

func (p *people) end(name string) { close(p.ended["k-"+name]) }

func (p *people) OfferSSHKey(_ context.Context, name string, key ssh.PublicKey, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offers++
	if known := p.keys[name]; known != nil && bytes.Equal(known.Marshal(), key.Marshal()) {
		return nil
	}
	return errors.New("unknown key")
}

func (p *people) SignInSSH(ctx context.Context, in identity.SSHSignIn) (bailey.Actor, identity.SSHGrant, error) {
	if err := p.OfferSSHKey(ctx, in.Name, in.Key, in.IP); err != nil {
		return bailey.Actor{}, identity.SSHGrant{}, bailey.Errorf(bailey.Unauthenticated, "no")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signIns = append(p.signIns, in)
	g := p.grants[in.Name]
	g.Fingerprint = ssh.FingerprintSHA256(in.Key)
	return p.actors[in.Name], g, nil
}

func (p *people) SSHActor(_ context.Context, a bailey.Actor) (bailey.Actor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone[a.Name] {
		return bailey.Actor{}, bailey.Errorf(bailey.Unauthenticated, "this key is not accepted for this account")
	}
	a.Groups = p.groups[a.Name]
	return a, nil
}

func (p *people) FailedSSH(_ context.Context, name, _ string, offered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = append(p.failed, fmt.Sprint(name, " ", offered))
}

func (p *people) AllowSSH(context.Context, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.banned {
		return bailey.Errorf(bailey.TooMany, "later")
	}
	return nil
}

func (p *people) Ended(a bailey.Actor) (<-chan struct{}, func()) {
	return p.ended[a.Session], func() {}
}

func (p *people) FirstContact(context.Context, string, ssh.PublicKey, string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.contacts++
	return p.link, nil
}

// rooms are workspaces with a real agent each.
type rooms struct {
	t  *testing.T
	mu sync.Mutex // guards what follows

	byOwner map[string]*room
	touched map[string]int
}

type room struct {
	ws   bailey.Workspace
	dir  string
	sock string
	done chan struct{}
	cmd  *exec.Cmd
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	container string
	asked     bailey.Actor // who wanted in last
}

// start starts a workspace: an agent with its sessions' directory.
func (r *rooms) start(owner bailey.Actor) {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "ssh") //nolint:usetesting // t.TempDir can be too long for a socket
	if err != nil {
		r.t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		r.t.Fatal(err)
	}
	ro := &room{
		ws: bailey.Workspace{
			ID: "w-" + owner.Name, Name: "lab", Slug: "lab-" + owner.Name, OwnerID: owner.UserID, Owner: owner.Name,
			Class: "small", State: bailey.Running, RunID: "r-" + owner.Name,
		},
		dir: dir, sock: filepath.Join(dir, "a.sock"), done: make(chan struct{}),
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	ro.cmd = exec.Command(self, "serve", "--socket", ro.sock, "--dir", home)
	ro.cmd.Env = []string{"BAILEY_TEST_AGENT=1", "PATH=" + os.Getenv("PATH"), "HOME=" + home, "USER=" + owner.Name, "SHELL=/bin/bash", "TMPDIR=" + dir, "LANG=C.UTF-8"}
	ro.cmd.Stderr = os.Stderr
	if err := ro.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = ro.cmd.Process.Signal(os.Interrupt)
		_ = ro.cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	for until := time.Now().Add(soon); ; {
		c, err := net.Dial("unix", ro.sock)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(until) {
			r.t.Fatalf("the agent does not answer: %v", err)
		}
	}
	ro.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if err := engine.CheckDial(network, addr); err != nil {
			return nil, err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", ro.sock)
		if err == nil {
			_, err = fmt.Fprintf(conn, "DIAL %s %s\n", network, addr)
		}
		return conn, err
	}
	r.byOwner[owner.UserID] = ro
}

// stop takes a workspace away, as a stop of it does.
func (r *rooms) stop(owner string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ro := r.byOwner["u-"+owner]
	ro.ws.State = bailey.Stopped
	close(ro.done)
}

func (r *rooms) home(owner string) string { return filepath.Join(r.byOwner["u-"+owner].dir, "home") }

func (r *rooms) List(_ context.Context, actor bailey.Actor, _ bool) ([]bailey.Workspace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ro := r.byOwner[actor.UserID]; ro != nil {
		return []bailey.Workspace{ro.ws}, nil
	}
	return nil, nil
}

func (r *rooms) Get(ctx context.Context, actor bailey.Actor, ref string) (bailey.Workspace, error) {
	all, err := r.List(ctx, actor, false)
	if err == nil && len(all) == 1 && (all[0].ID == ref || all[0].Name == ref) {
		return all[0], nil
	}
	return bailey.Workspace{}, bailey.Errorf(bailey.NotFound, "none")
}

func (r *rooms) Start(ctx context.Context, actor bailey.Actor, id string) (bailey.Workspace, error) {
	r.mu.Lock()
	if ro := r.byOwner[actor.UserID]; ro.ws.State != bailey.Running {
		ro.ws.State = bailey.Running
		ro.done = make(chan struct{})
	}
	r.mu.Unlock()
	return r.Get(ctx, actor, id)
}

func (r *rooms) Follow(context.Context, bailey.Actor, string, int64) (<-chan bailey.Stage, error) {
	c := make(chan bailey.Stage)
	close(c)
	return c, nil
}

func (r *rooms) Route(_ context.Context, actor bailey.Actor, slug string) (workspace.Route, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ro := range r.byOwner {
		if ro.ws.Slug != slug {
			continue
		}
		ro.asked = actor
		if !policy.Decide(actor, policy.WorkspaceOpen, policy.Thing{OwnerID: ro.ws.OwnerID}) {
			return workspace.Route{}, bailey.Errorf(bailey.NotFound, "there is no such workspace")
		}
		if ro.ws.State != bailey.Running {
			return workspace.Route{}, bailey.Errorf(bailey.Conflict, "workspace %s is %s", ro.ws.Name, ro.ws.State)
		}
		return workspace.RouteTo(ro.ws, "run-token-"+ro.ws.Owner, ro.done, ro.dial), nil
	}
	return workspace.Route{}, bailey.Errorf(bailey.NotFound, "there is no such workspace")
}

func (r *rooms) Touch(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.touched[id]++
}

func (r *rooms) touches(owner string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.touched["w-"+owner]
}

// journal keeps events, or fails.
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

func (j *journal) count(action audit.Action) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, e := range j.events {
		if e.Action == action {
			n++
		}
	}
	return n
}

type findings struct {
	mu  sync.Mutex
	all []filter.Finding
}

func (f *findings) add(one filter.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, one)
}

func (f *findings) rules() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, one := range f.all {
		out = append(out, one.Rule)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// within waits until something is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(soon); !so(); {
		if time.Now().After(until) {
			t.Fatalf("not so after %v: %s", soon, what)
		}
		time.Sleep(time.Millisecond)
	}
}

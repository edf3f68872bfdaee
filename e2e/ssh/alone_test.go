package ssh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// alone starts a server of a test's own, with one person who has a key.
func alone(t *testing.T, w *world, more string) *world {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	conf := filepath.Join(dir, "bailey.yaml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listen: {ssh: \"127.0.0.1:%d\"}\nclasses:\n  - {name: lab, image: notebook, cpus: 1, memory: 1GiB}\n%s", port, more), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := drive.New(w.s.Bin, dir, "--config", conf)
	if err != nil {
		t.Fatal(err)
	}
	mine := &world{s: s, dir: dir, port: port, knownHosts: filepath.Join(dir, "known_hosts")}
	mine.start(t)
	t.Cleanup(func() { _ = s.Stop() })
	p := &person{Person: s.Person("admin", s.Admin), key: filepath.Join(dir, "key")}
	mine.admin = p
	if err := p.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", p.key).CombinedOutput(); err != nil {
		t.Fatalf("make a key: %v: %s", err, out)
	}
	if _, err := p.CLI(t.Context(), "ssh-key", "add", "--name", "laptop", p.key+".pub"); err != nil {
		t.Fatal(err)
	}
	return mine
}

func (w *world) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.s.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// A door is what the server says of where SSH is.
type door struct {
	HostKeys   []string `json:"host_keys"`
	HostCA     string   `json:"host_ca"`
	KnownHosts []string `json:"known_hosts"`
}

func (w *world) access(t *testing.T) (a door) {
	t.Helper()
	status, b, err := w.admin.API(t.Context(), http.MethodGet, w.s.URL+"/api/v1/ssh", nil)
	if err != nil || status != http.StatusOK || json.Unmarshal(b, &a) != nil || a.HostCA == "" || len(a.HostKeys) == 0 {
		t.Fatalf("where is SSH: %d %s, %v", status, b, err)
	}
	return a
}

// The server's key changes without a word of warning, and nobody who trusts its
// authority is asked anything; whoever knows the key alone is warned. The authority
// speaks for this server under its own name, and nobody else speaks for it.
func TestHostCertificates(t *testing.T) {
	w := alone(t, open(t), "")
	p := w.admin
	first := w.access(t)
	at := fmt.Sprintf("[%s]:%d ", host, w.port)
	byCA, byKey := "@cert-authority "+at+first.HostCA, at+first.HostKeys[0]
	if !strings.Contains(strings.Join(first.KnownHosts, "\n"), "@cert-authority [") {
		t.Errorf("the lines for known_hosts are %q", first.KnownHosts)
	}
	if out, err := p.CLI(t.Context(), "ssh-config", "--dry-run"); err != nil || !strings.Contains(out, "@cert-authority ") {
		t.Errorf("bailey ssh-config would write %s, %v", out, err)
	}
	other := filepath.Join(w.dir, "other")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other).CombinedOutput(); err != nil {
		t.Fatalf("make a key: %v: %s", err, out)
	}
	pub, err := os.ReadFile(other + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	// Whoever gets past the host key is told that there is no workspace yet.
	const past = "you have no workspace yet"
	try := func(known, name, want string) {
		t.Helper()
		if err := os.WriteFile(w.knownHosts, []byte(known+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := run(deadline(t, time.Minute), nil, "ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "admin@"+name, "true")...)
		if !strings.Contains(o.errs, want) || want != past && strings.Contains(o.errs, past) {
			t.Errorf("with %.60q, to %s: %s; want %q", known, name, o, want)
		}
	}
	try(byCA, host, past)
	try(byKey, host, past)
	try("@cert-authority "+at+string(pub), host, "verification failed")
	try(fmt.Sprintf("@cert-authority [127.0.0.1]:%d %s", w.port, first.HostCA), "127.0.0.1", "not a listed principal")
	try("@revoked "+at+first.HostCA+"\n"+byCA, host, "REVOKED")

	if err := w.s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.s.State, "ssh", "host_ed25519")); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	second := w.access(t)
	if second.HostKeys[0] == first.HostKeys[0] || second.HostCA != first.HostCA {
		t.Fatalf("after the change the keys are %v and the authority %s; before %v and %s", second.HostKeys, second.HostCA, first.HostKeys, first.HostCA)
	}
	try(byCA, host, past)
	try(byCA+"\n"+byKey, host, past)
	try(byKey, host, "REMOTE HOST IDENTIFICATION HAS CHANGED")
}

// A relay stands before Docker's socket, and can be cut.
type relay struct {
	path string

	mu    sync.Mutex // guards the rest
	ln    net.Listener
	conns map[net.Conn]struct{}
}

func (r *relay) open(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.ln, r.conns = ln, map[net.Conn]struct{}{}
	r.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("unix", "/var/run/docker.sock")
			if err != nil {
				c.Close()
				continue
			}
			r.mu.Lock()
			if r.ln != ln { // cut meanwhile
				c.Close()
				d.Close()
			} else {
				r.conns[c], r.conns[d] = struct{}{}, struct{}{}
			}
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					if half, ok := pair[0].(*net.UnixConn); ok {
						_ = half.CloseWrite()
					}
				}()
			}
		}
	}()
}

// cut ends everything, as a daemon that dies does.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln != nil {
		_ = r.ln.Close()
	}
	for c := range r.conns {
		_ = c.Close()
	}
	r.ln, r.conns = nil, nil
}

// Docker's daemon goes away under an open session. The session, whose bytes do not
// pass through it, goes on, and so does a new one in the same connection; when the
// daemon is back, so is everything else.
func TestDockerGoesAwayUnderASession(t *testing.T) {
	shared := open(t)
	r := &relay{path: filepath.Join(t.TempDir(), "docker.sock")}
	r.open(t)
	defer r.cut()
	w := alone(t, shared, "docker: {host: \"unix://"+r.path+"\"}\n")
	p := w.admin
	if _, err := p.CLI(deadline(t, 2*time.Minute), "run", "lab", "--name", "lab"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, _ = p.CLI(ctx, "rm", "--yes", "lab")
	})
	a := w.access(t)
	if err := os.WriteFile(w.knownHosts, fmt.Appendf(nil, "[%s]:%d %s\n", host, w.port, a.HostKeys[0]), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx := deadline(t, 4*time.Minute)
	cmd := exec.CommandContext(ctx, "ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-T", w.to(p), "cat; exit 7")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended
	echo := func(word string) {
		t.Helper()
		if _, err := io.WriteString(in, word+"\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(word)+1)
		if _, err := io.ReadFull(out, got); err != nil || string(got) != word+"\n" {
			t.Fatalf("%q came back as %q, %v", word, got, err)
		}
	}
	echo("before")
	r.cut()
	echo("while it is away")
	// Somebody who comes now is let in or told why not, and does not hang.
	if o := w.ssh(ctx, p, nil, nil, "echo in"); (o.code != 0 || o.out != "in\n") && !strings.Contains(o.errs, "bailey: ") {
		t.Errorf("a session while Docker is away: %s", o)
	}
	echo("still away")
	r.open(t)
	until(t, "a new session works", func() bool { return w.ssh(ctx, p, nil, nil, "echo in").out == "in\n" })
	echo("and after")
	_ = in.Close()
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) || ended.ExitCode() != 7 {
		t.Errorf("the session that was open ended with %v, want its own exit code 7", err)
	}
}

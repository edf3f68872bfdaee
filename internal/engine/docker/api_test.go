package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// bare returns an Engine whose daemon is not there.
func bare(t *testing.T) *Engine {
	t.Helper()
	return withDaemon(t, nil)
}

// withDaemon returns an Engine whose daemon is h: for the answers that a real
// one does not give on demand.
func withDaemon(t *testing.T, h http.Handler) *Engine {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "d.sock")
	if h != nil {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/_ping") {
				w.Header().Set("Api-Version", "1.41")
				return
			}
			if rest, ok := strings.CutPrefix(r.URL.Path, "/v1.41"); ok {
				r.URL.Path = rest
			}
			h.ServeHTTP(w, r)
		})}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
	}
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	volumes, runs, err := openState(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	// New wants a static agent; this test binary may not be one.
	e, err := newEngine(Config{Host: "unix://" + socket, Instance: "01k9z0000000000000000000h1", Root: filepath.Join(dir, "state"), AgentPath: agent}, volumes, runs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func TestDaemonAway(t *testing.T) {
	e := bare(t)
	ctx := t.Context()
	id := strings.Repeat("ab", 32)
	for name, call := range map[string]func() error{
		"Probe":   func() error { _, err := e.Probe(ctx); return err },
		"List":    func() error { _, err := e.List(ctx); return err },
		"Images":  func() error { _, err := e.Images(ctx); return err },
		"Image":   func() error { _, err := e.Image(ctx, "sha256:"+id); return err },
		"Inspect": func() error { _, err := e.Inspect(ctx, id); return err },
		"Create":  func() error { _, err := e.Create(ctx, testSpec()); return err },
		"Start":   func() error { return e.Start(ctx, id) },
		"Stop":    func() error { return e.Stop(ctx, id) },
		"Remove":  func() error { return e.Remove(ctx, id) },
		"Exec":    func() error { _, err := e.Exec(ctx, id, engine.ExecSpec{Cmd: []string{"x"}}); return err },
		"Logs":    func() error { _, err := e.Logs(ctx, id, 1, 1); return err },
		"Stats":   func() error { _, err := e.Stats(ctx, id); return err },
		"Verify":  func() error { _, err := e.Verify(ctx, id, testSpec()); return err },
	} {
		if err := call(); !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("%s without a daemon: %v, want %v", name, err, engine.ErrUnavailable)
		}
	}
}

// The daemon is killed while it answers.
func TestDaemonDiesInTheMiddle(t *testing.T) {
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[{")
		conn.Close()
	}))
	if _, err := e.List(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("List = %v, want %v", err, engine.ErrUnavailable)
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "agent")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	good := Config{Instance: bailey.NewID(), Root: filepath.Join(dir, "state"), AgentPath: script}
	for name, change := range map[string]func(*Config){
		"a daemon over the network": func(c *Config) { c.Host = "tcp://10.0.0.1:2375" },
		"no instance":               func(c *Config) { c.Instance = "" },
		"no agent":                  func(c *Config) { c.AgentPath = filepath.Join(dir, "none") },
		"a relative agent":          func(c *Config) { c.AgentPath = "agent" },
		"an agent that is a script": func(*Config) {},
		"a dynamic agent":           func(c *Config) { c.AgentPath = "/bin/bash" },
	} {
		cfg := good
		change(&cfg)
		if e, err := New(cfg); err == nil {
			e.Close()
			t.Errorf("New accepts %s", name)
		}
	}
}

// Somebody exchanged the image between the check and the making: what was made
// goes away again, and nobody gets its id.
func TestCreateOfAnotherImage(t *testing.T) {
	needRoot(t)
	s := testSpec()
	id := strings.Repeat("cd", 32)
	var removed atomic.Bool
	made := false
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			removed.Store(true)
			w.WriteHeader(http.StatusNoContent)
		case strings.HasPrefix(r.URL.Path, "/images/"):
			answer(w, image.InspectResponse{ID: s.Image, Size: 1})
		case r.URL.Path == "/info":
			answer(w, system.Info{NCPU: 4})
		case r.URL.Path == "/containers/create":
			made = true
			w.WriteHeader(http.StatusCreated)
			answer(w, container.CreateResponse{ID: id})
		case strings.HasPrefix(r.URL.Path, "/containers/"+id):
			answer(w, container.InspectResponse{ID: id, Image: "sha256:" + strings.Repeat("ee", 32)})
		default:
			http.Error(w, `{"message":"No such container"}`, http.StatusNotFound)
		}
	}))
	got, err := e.Create(t.Context(), s)
	if err == nil || got != "" || !strings.Contains(err.Error(), strings.Repeat("ee", 32)) {
		t.Errorf("Create = %q, %v; want an error that names the other image", got, err)
	}
	if !made || !removed.Load() {
		t.Errorf("made %t, removed %t; want both", made, removed.Load())
	}
	if _, err := statAt(e.runs, s.Run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run's directory is still there: %v", err)
	}
}

func TestCreateRefusesImages(t *testing.T) {
	for name, cfg := range map[string]map[string]any{
		"volumes":    {"Volumes": map[string]any{"/data": map[string]any{}}},
		"our labels": {"Labels": map[string]string{labelInstance: "01k9z0000000000000000000h1", engine.LabelImage: "x"}},
	} {
		s := testSpec()
		e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/images/") {
				answer(w, map[string]any{"Id": s.Image, "Size": 1, "Config": cfg})
				return
			}
			http.Error(w, `{"message":"no"}`, http.StatusNotFound)
		}))
		if id, err := e.Create(t.Context(), s); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("Create of an image with %s = %q, %v; want a refusal", name, id, err)
		}
	}
}

// A daemon that has been told that "sha256" is a repository's name.
func TestImageIsTheOneAsked(t *testing.T) {
	asked := "sha256:" + strings.Repeat("ab", 32)
	other := "sha256:" + strings.Repeat("ee", 32)
	tests := []struct {
		name, ref string
		img       image.InspectResponse
		ok        bool
	}{
		{"by ID", asked, image.InspectResponse{ID: asked}, true},
		{"another", asked, image.InspectResponse{ID: other}, false},
		{"by the digest it was pulled under", asked, image.InspectResponse{ID: other, RepoDigests: []string{"x/y@" + asked}}, true},
		{"by name and digest", "x/y@" + asked, image.InspectResponse{ID: other, RepoDigests: []string{"docker.io/x/y@" + asked}}, true},
		{"by name and another digest", "x/y@" + asked, image.InspectResponse{ID: other, RepoDigests: []string{"x/y@" + other}}, false},
		{"a digest that ends alike", asked, image.InspectResponse{ID: other, RepoDigests: []string{"x" + asked}}, false},
	}
	for _, tt := range tests {
		if got := imageMatches(tt.ref, tt.img); got != tt.ok {
			t.Errorf("%s: imageMatches(%s, %+v) = %t, want %t", tt.name, tt.ref, tt.img, got, tt.ok)
		}
	}
}

// The daemon goes away twice while somebody watches.
func TestWatchReconnects(t *testing.T) {
	var streams atomic.Int64
	const instance = "01k9z0000000000000000000h1"
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			http.NotFound(w, r)
			return
		}
		n := streams.Add(1)
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for _, attrs := range []map[string]string{
			{"name": "stranger"},
			{"name": "stranger", labelInstance: instance}, // a label that came with an image
			{"name": "bailey-alice-r", labelInstance: instance, labelName: "alice", labelRun: "r"},
		} {
			answer(w, map[string]any{"Type": "container", "Action": "die", "Actor": map[string]any{"ID": fmt.Sprint(n), "Attributes": attrs}})
		}
		w.(http.Flusher).Flush()
		if n > 2 {
			<-r.Context().Done()
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	events := e.Watch(ctx)
	for len(got) < 6 {
		ev, ok := <-events
		if !ok {
			break
		}
		got = append(got, ev.Action+ev.ID)
		if ev.Action == "die" && ev.Run != "r" {
			t.Errorf("an event of somebody else: %+v", ev)
		}
	}
	if want := "resync die1 resync die2 resync die3"; strings.Join(got, " ") != want {
		t.Errorf("events %q, want %q", strings.Join(got, " "), want)
	}
	cancel()
	for range events { //nolint:revive // until it is closed
	}
}

// An exec that has not begun is not one that ended with 0.
func TestWaitForAnExecThatHasNotBegun(t *testing.T) {
	s := testSpec()
	c := compileDocker(s, testFacts())
	id := strings.Repeat("ab", 32)
	var asked atomic.Int64
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/containers/" + id + "/json":
			answer(w, container.InspectResponse{ID: id, Name: "/" + c.Name, Config: &c.Config, HostConfig: &c.Host, State: &container.State{Running: true}})
		case "/containers/" + id + "/exec":
			var asks container.ExecCreateRequest
			json.NewDecoder(r.Body).Decode(&asks)
			if asks.User != "20001:20001" || asks.Privileged || asks.WorkingDir != "/workspace" {
				t.Errorf("the daemon is asked for %+v", asks)
			}
			w.WriteHeader(http.StatusCreated)
			answer(w, map[string]string{"Id": "e1"})
		case "/exec/e1/start":
			io.Copy(io.Discard, r.Body)
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			conn.Write([]byte{1, 0, 0, 0, 0, 0, 0, 3, 'o', 'u', 't', 2, 0, 0, 0, 0, 0, 0, 3, 'e', 'r', 'r'})
			conn.Close()
		case "/exec/e1/json":
			switch asked.Add(1) {
			case 1:
				answer(w, map[string]any{"Running": false, "ExitCode": nil, "Pid": 0})
			case 2:
				answer(w, map[string]any{"Running": true, "ExitCode": nil, "Pid": 0})
			default:
				answer(w, map[string]any{"Running": false, "ExitCode": 5, "Pid": 7})
			}
		default:
			t.Errorf("the daemon is asked for %s", r.URL.Path)
		}
	}))
	session, err := e.Exec(t.Context(), id, engine.ExecSpec{Cmd: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	go io.Copy(io.Discard, session.Stderr())
	if out, err := io.ReadAll(session.Stdout()); string(out) != "out" || err != nil {
		t.Errorf("Stdout = %q, %v", out, err)
	}
	if code, err := session.Wait(t.Context()); code != 5 || err != nil {
		t.Errorf("Wait = %d, %v; want 5", code, err)
	}
}

// A container that runs as somebody else than its label says gets no exec.
func TestExecNeedsATenant(t *testing.T) {
	for _, user := range []string{"", "root", "0:0", "20001", "20001:0", "20002:20002"} {
		c := compileDocker(testSpec(), testFacts())
		c.Config.User = user
		if got, err := tenantOf(container.InspectResponse{Config: &c.Config}); err == nil {
			t.Errorf("a container of user %q gives execs as %q", user, got)
		}
	}
}

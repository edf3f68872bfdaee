package workspace_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/docker"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A realWorld is a server on real Docker with a real store.
type realWorld struct {
	t      *testing.T
	engine *docker.Engine
	store  *store.Store
	audit  *realJournal
	class  bailey.Class
	alice  bailey.Actor

	workspaces *workspace.Service
	stop       func()
}

// A realJournal remembers what was written, in order.
type realJournal struct{ events chan audit.Event }

func (j *realJournal) Append(_ context.Context, e audit.Event) error {
	j.events <- e
	return nil
}

func newRealWorld(t *testing.T) *realWorld {
	t.Helper()
	if os.Getenv("BAILEY_TEST_DOCKER") != "1" {
		t.Skip("needs Docker, root and the notebook image: set BAILEY_TEST_DOCKER=1")
	}
	w := &realWorld{t: t, audit: &realJournal{events: make(chan audit.Event, 1000)}}
	agent := filepath.Join(t.TempDir(), "bailey-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", agent, "github.com/baileyhq/bailey/cmd/bailey-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	// The tenant has to reach the agent through all of the path.
	if err := os.Chmod(agent, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	w.engine, err = docker.New(docker.Config{Instance: bailey.NewID(), Root: filepath.Join(t.TempDir(), "state"), AgentPath: agent})
	if err != nil {
		t.Fatal(err)
	}
	w.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "state.db"), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	u, err := w.store.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleUser}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	w.alice = bailey.Actor{UserID: u.ID, Name: "alice", Role: bailey.RoleUser, Method: "password"}
	w.class = bailey.Class{
		Name: "notebook", Image: "notebook", Digest: w.image(), CPUMillis: 1000, MemoryBytes: 1 << 30, StartLimit: 2 * time.Minute, SelfCheck: "python",
	}
	w.serve()
	t.Cleanup(func() {
		w.stop()
		w.clean()
		if err := w.engine.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
		if err := w.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return w
}

// image finds the notebook image that "make images" has made.
func (w *realWorld) image() string {
	w.t.Helper()
	all, err := w.engine.Images(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, img := range all {
		if img.Labels[engine.LabelImage] == "notebook" {
			return img.ID
		}
	}
	w.t.Fatal("there is no notebook image: make images")
	return ""
}

func (w *realWorld) serve() {
	w.t.Helper()
	var err error
	w.workspaces, err = workspace.New(workspace.Config{
		Store: w.store, Engine: w.engine, Verifier: &verifier{engine: w.engine}, GPUs: &cards{}, Audit: w.audit, Settings: &settings{classes: []bailey.Class{w.class}},
		Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), ReconcileEach: time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func(s *workspace.Service) { ended <- s.Run(ctx) }(w.workspaces)
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.stop = func() {}
	}
}

// clean removes what a failed test has left.
func (w *realWorld) clean() {
	ctx := context.WithoutCancel(w.t.Context())
	left, err := w.engine.List(ctx)
	if err != nil {
		w.t.Errorf("list containers: %v", err)
	}
	for _, st := range left {
		if err := w.engine.Remove(ctx, st.ID); err != nil {
			w.t.Errorf("remove container: %v", err)
		}
	}
	volumes, err := w.store.Volumes(ctx, "")
	if err != nil {
		w.t.Errorf("list volumes: %v", err)
	}
	for _, v := range volumes {
		if err := w.engine.RemoveVolume(ctx, v.ID); err != nil {
			w.t.Errorf("remove volume: %v", err)
		}
	}
}

// until waits for something outside, with a deadline.
func (w *realWorld) until(what string, cond func(ws bailey.Workspace) bool, id string) bailey.Workspace {
	w.t.Helper()
	var ws bailey.Workspace
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var err error
		if ws, err = w.store.Workspace(w.t.Context(), id); err != nil {
			w.t.Fatal(err)
		}
		if cond(ws) {
			return ws
		}
	}
	w.t.Fatalf("%s: after three minutes the workspace is %+v", what, ws)
	return ws
}

// TestOnDocker is a workspace's life on a real engine, with a real Jupyter.
func TestOnDocker(t *testing.T) {
	w := newRealWorld(t)
	running := func(ws bailey.Workspace) bool { return ws.State == bailey.Running }
	begin := time.Now()
	ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "")
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	w.until("launch", running, ws.ID)
	t.Logf("ready after %s", time.Since(begin).Round(time.Millisecond))
	checked := w.until("self check", func(ws bailey.Workspace) bool { return ws.SelfCheck != "" }, ws.ID)
	if !strings.HasPrefix(checked.SelfCheck, "Python 3.") {
		t.Errorf("self check: %q", checked.SelfCheck)
	}
	stages, err := w.workspaces.Stages(t.Context(), w.alice, ws.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range stages {
		if st.Status != "begin" {
			t.Logf("%-10s %-7s %8s %s", st.Name, st.Status, st.Took.Round(time.Millisecond), st.Detail)
		}
	}
	w.wantJupyter(ws)

	// A new server takes over what runs.
	w.stop()
	w.serve()
	w.wantJupyter(ws)

	// What ends by itself, here by its tenant's hand, comes back as another run.
	run, err := w.store.Run(t.Context(), ws.RunID)
	if err != nil {
		t.Fatal(err)
	}
	kill, err := w.engine.Exec(t.Context(), run.ContainerID, engine.ExecSpec{Cmd: []string{"python3", "-c", "import os; os.kill(1, 15)"}})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	back := w.until("kill", func(now bailey.Workspace) bool { return running(now) && now.RunID != ws.RunID }, ws.ID)
	_ = kill.Close() // its container is gone
	if run, err = w.store.Run(t.Context(), ws.RunID); err != nil || !strings.Contains(run.EndReason, "exit code 0") {
		t.Errorf("end reason %q, %v", run.EndReason, err)
	}
	w.wantJupyter(back)
	if out, err := w.workspaces.Logs(t.Context(), w.alice, ws.ID, 100); err != nil || !strings.Contains(string(out), "jupyter") {
		t.Errorf("logs: %q, %v", out, err)
	}

	if got, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil || got.State != bailey.Stopped {
		t.Errorf("Stop = %+v, %v", got, err)
	}
	if left, err := w.engine.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("containers left: %+v, %v", left, err)
	}
	if err := w.workspaces.Delete(t.Context(), w.alice, ws.ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := w.workspaces.DeleteVolume(t.Context(), w.alice, ws.VolumeID, "one"); err != nil {
		t.Errorf("DeleteVolume: %v", err)
	}
}

// wantJupyter asks Jupyter for its status through a route.
func (w *realWorld) wantJupyter(ws bailey.Workspace) {
	w.t.Helper()
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		route, err := w.workspaces.Route(w.t.Context(), w.alice, ws.Slug)
		if err != nil {
			last = err
			continue
		}
		got, err := (&world{t: w.t}).ask(route, "/api/status")
		if err != nil || !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "kernels") {
			w.t.Errorf("through the route: %q, %v", got, err)
		}
		return
	}
	w.t.Errorf("there is no route: %v", last)
}

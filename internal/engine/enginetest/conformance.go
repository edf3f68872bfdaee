package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Harness is an engine under test and the hands the suite needs beside it.
// In its workspaces an HTTP server answers every request on
// [engine.JupyterAddr] with the owner's name, and a Unix socket at EchoPath
// sends back what it reads until it reads the end. A Unix socket dialled by its
// path is connected inside: [engine.EgressSocket] leads to whoever listens there.
type Harness struct {
	Engine engine.Engine // the installation under test
	Other  engine.Engine // another one on the same daemon
	Image  string        // the ID of an image that is there

	EchoPath string
	// Command spells one of the commands of Tools for this engine's image.
	Command func(tool string, args ...string) []string
	// Foreign starts a container that no installation made, and removes it when
	// the test ends; ForeignLives reports whether it still runs.
	Foreign      func(t *testing.T) (id string)
	ForeignLives func(t *testing.T, id string) bool
	// Plant replaces the agent's socket of a running workspace; see the constants.
	Plant func(t *testing.T, s engine.Spec, kind string)
	// Tamper changes a running container behind the engine's back.
	Tamper func(t *testing.T, id string)
	// Crash makes the workspace's first process end by itself with a code.
	Crash func(t *testing.T, id string, code int)
	// Volume tells who owns a volume and whether only its owner can enter it.
	Volume func(t *testing.T, volumeID string) (uid int, private, exists bool)
	// RunFiles reports whether anything of a run is left on the host.
	RunFiles func(t *testing.T, run string) bool
}

// patience bounds every wait for the outside world.
const patience = 30 * time.Second

// Run runs the suite; newHarness makes a fresh installation for each case.
func Run(t *testing.T, newHarness func(t *testing.T) *Harness) {
	t.Helper()
	for _, group := range [][]testCase{lifeCases(), refusalCases(), tenancyCases(), execCases(), dialCases(), egressCases(), seeCases()} {
		for _, tc := range group {
			t.Run(tc.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				tc.run(&env{T: t, Harness: newHarness(t), ctx: ctx})
			})
		}
	}
}

type testCase struct {
	name string
	run  func(e *env)
}

// env is one case at work.
type env struct {
	*testing.T
	*Harness

	ctx context.Context //nolint:containedctx // of one test
}

// spec returns a small Spec of fresh ids for a user.
func (e *env) spec(name string, uid int) engine.Spec {
	return engine.Spec{
		Run: bailey.NewID(), Workspace: bailey.NewID(), Owner: bailey.NewID(), Name: name, Class: "small",
		Image: e.Image, UID: uid, VolumeID: bailey.NewID(),
		CPUMillis: 500, MemoryBytes: 256 << 20, ShmBytes: 32 << 20, TmpBytes: 64 << 20, Pids: 256,
		JupyterToken: secret.Random(24), StopGrace: 2 * time.Second,
	}
}

func (e *env) alice() engine.Spec { return e.spec("alice", 20001) }
func (e *env) bob() engine.Spec   { return e.spec("bob", 20002) }

// create makes a container that goes with the test.
func (e *env) create(s engine.Spec) string {
	e.Helper()
	id, err := e.Engine.Create(e.ctx, s)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	e.Cleanup(func() { e.scrap(id, s.VolumeID) })
	return id
}

// scrap removes what a case made, also when its context is over.
func (e *env) scrap(id, volumeID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), patience)
	defer cancel()
	if err := errors.Join(e.Engine.Remove(ctx, id), e.Engine.RemoveVolume(ctx, volumeID)); err != nil {
		e.Errorf("clean up: %v", err)
	}
}

// start makes a container, starts it and waits until its agent answers.
func (e *env) start(s engine.Spec) string {
	e.Helper()
	id := e.create(s)
	e.ok("Start", e.Engine.Start(e.ctx, id))
	e.ready(s)
	return id
}

// ready waits until something answers on Jupyter's address.
func (e *env) ready(s engine.Spec) {
	e.Helper()
	e.eventually("the agent answers", func() bool {
		got, err := e.get(s, s.UID)
		if err == nil && strings.Contains(got, s.Name) {
			return true
		}
		for _, st := range e.list(e.Engine) {
			if st.Run == s.Run && !st.Running {
				logs, err := e.Engine.Logs(e.ctx, st.ID, 20, 4096)
				e.Fatalf("the container ended: %+v\n%s %v", st, logs, err)
			}
		}
		return false
	})
}

func (e *env) ok(what string, err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s: %v", what, err)
	}
}

// fails makes sure that err is want.
func (e *env) fails(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// eventually polls until ok, and fails the test when that takes too long.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			e.Fatalf("waited %v in vain: %s", patience, what)
		case <-e.ctx.Done():
			e.Fatalf("%v while waiting: %s", e.ctx.Err(), what)
		case <-tick.C:
		}
	}
}

// get asks a workspace's HTTP server by Dial.
func (e *env) get(s engine.Spec, uid int) (string, error) {
	conn, err := e.Engine.Dial(e.ctx, s.Run, uid, "tcp", engine.JupyterAddr)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // a test
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

// result of a command.
type result struct {
	out, err string
	code     int
}

// exec runs a command to its end.
func (e *env) exec(id string, spec engine.ExecSpec, stdin string) (result, error) {
	session, err := e.Engine.Exec(e.ctx, id, spec)
	if err != nil {
		return result{}, err
	}
	defer session.Close() //nolint:errcheck // a test
	var out, errOut bytes.Buffer
	done := make(chan error, 3)
	go func() { _, err := io.Copy(&out, session.Stdout()); done <- err }()
	go func() { _, err := io.Copy(&errOut, session.Stderr()); done <- err }()
	go func() {
		_, err := io.WriteString(session.Stdin(), stdin)
		if stdin == "" || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
			err = nil // the command may end without reading
		}
		done <- errors.Join(err, session.Stdin().Close())
	}()
	for range 3 {
		err = errors.Join(err, <-done)
	}
	code, waitErr := session.Wait(e.ctx)
	return result{out.String(), errOut.String(), code}, errors.Join(err, waitErr)
}

// tool runs one of Tools' commands and returns what it wrote.
func (e *env) tool(id, name string, args ...string) result {
	e.Helper()
	r, err := e.exec(id, engine.ExecSpec{Cmd: e.Command(name, args...)}, "")
	e.ok("exec "+name, err)
	return r
}

// status inspects.
func (e *env) status(id string) engine.Status {
	e.Helper()
	st, err := e.Engine.Inspect(e.ctx, id)
	e.ok("Inspect", err)
	return st
}

// await reads events until one fits.
func (e *env) await(events <-chan engine.Event, what string, fits func(engine.Event) bool) {
	e.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				e.Fatalf("the events ended before %s", what)
			}
			if fits(ev) {
				return
			}
		case <-deadline.C:
			e.Fatalf("waited %v in vain for the event %s", patience, what)
		}
	}
}

// lineReader reads a stream line by line.
func lineReader(r io.Reader) func() (string, error) {
	buf := bufio.NewReader(r)
	return func() (string, error) {
		line, err := buf.ReadString('\n')
		return strings.TrimRight(line, "\r\n"), err
	}
}

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// Exec implements [engine.Engine]. The user is the container's own, read back
// from the daemon: there is no parameter that could name another, and none
// that could ask for privilege. Callers read Stdout and Stderr concurrently;
// neither is buffered.
func (e *Engine) Exec(ctx context.Context, id string, spec engine.ExecSpec) (engine.Session, error) {
	if err := spec.Check(); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	c, err := e.own(ctx, id)
	if err != nil {
		return nil, err
	}
	user, err := tenantOf(c)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	if !c.State.Running || c.State.Restarting || c.State.Paused {
		return nil, fmt.Errorf("exec in container %s: it is not running: %w", c.ID, engine.ErrConflict)
	}
	dir := spec.Dir
	if dir == "" {
		dir = engine.HomeDir
	}
	size := client.ConsoleSize{}
	if spec.TTY {
		size = client.ConsoleSize{Height: uint(spec.Rows), Width: uint(spec.Cols)}
	}
	made, err := e.api.ExecCreate(ctx, c.ID, client.ExecCreateOptions{
		User: user, TTY: spec.TTY, ConsoleSize: size,
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Env: spec.Env, WorkingDir: dir, Cmd: spec.Cmd,
	})
	if err != nil {
		return nil, wrap("exec in container "+c.ID, err)
	}
	stream, err := e.api.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: spec.TTY, ConsoleSize: size})
	if err != nil {
		return nil, wrap("exec in container "+c.ID, err)
	}
	s, err := newSession(e, made.ID, c.ID, stream.HijackedResponse, spec.TTY)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	if spec.TTY && spec.Cols > 0 && spec.Rows > 0 {
		// Engines before 23 ignore the size above.
		if err := s.Resize(ctx, spec.Cols, spec.Rows); err != nil {
			e.log.DebugContext(ctx, "set terminal size", slog.String("container", c.ID), slog.Any("error", err))
		}
	}
	return s, nil
}

// tenantOf returns "uid:gid" of a container's own process, which must be a
// tenant's and the one its label says.
func tenantOf(c container.InspectResponse) (string, error) {
	uid, err := strconv.Atoi(c.Config.Labels[labelUID])
	if err != nil || engine.CheckUID(uid) != nil || c.Config.User != fmt.Sprintf("%d:%d", uid, uid) {
		return "", fmt.Errorf("it runs as %q, not as a tenant: %w", c.Config.User, engine.ErrConflict)
	}
	return c.Config.User, nil
}

// A session is one exec. A goroutine demultiplexes the daemon's stream into
// two pipes until the stream ends or the session is closed.
type session struct {
	engine    *Engine
	id        string // of the exec
	container string
	stream    client.HijackedResponse
	stdout    *io.PipeReader
	stderr    *io.PipeReader
	ended     chan struct{} // closed by the demultiplexer
	closeOnce sync.Once
}

func newSession(e *Engine, id, containerID string, stream client.HijackedResponse, tty bool) (*session, error) {
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	s := &session{engine: e, id: id, container: containerID, stream: stream, stdout: outR, stderr: errR, ended: make(chan struct{})}
	stop := context.AfterFunc(e.ctx, s.cut) // Engine.Close waits for nobody's reading
	started := e.background(func() {
		defer stop()
		defer close(s.ended)
		var err error
		if tty {
			_ = errW.Close() // a terminal has one stream; Close of a pipe never fails
			_, err = io.Copy(outW, stream.Reader)
		} else {
			_, err = stdcopy.StdCopy(outW, errW, stream.Reader)
		}
		_ = outW.CloseWithError(err) // nil means EOF
		_ = errW.CloseWithError(err)
	})
	if !started {
		stop()
		s.cut()
		return nil, engine.ErrUnavailable
	}
	return s, nil
}

// cut ends the streams.
func (s *session) cut() {
	s.stream.Close()
	_ = s.stdout.Close() // frees a demultiplexer that nobody reads from; never fails
	_ = s.stderr.Close()
}

// Stdin implements [engine.Session].
func (s *session) Stdin() io.WriteCloser { return stdin{s} }

// Stdout implements [engine.Session].
func (s *session) Stdout() io.Reader { return s.stdout }

// Stderr implements [engine.Session].
func (s *session) Stderr() io.Reader { return s.stderr }

type stdin struct{ s *session }

func (w stdin) Write(p []byte) (int, error) { return w.s.stream.Conn.Write(p) }

// Close is the half-close: the command reads EOF and goes on writing.
func (w stdin) Close() error {
	if err := w.s.stream.CloseWrite(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("close stdin of exec: %w", err)
	}
	return nil
}

// Resize implements [engine.Session].
func (s *session) Resize(ctx context.Context, cols, rows uint16) error {
	_, err := s.engine.api.ExecResize(ctx, s.id, client.ExecResizeOptions{Height: uint(rows), Width: uint(cols)})
	return wrap("resize terminal", err)
}

// Wait implements [engine.Session]. It asks the daemon until the command has
// ended: quickly once its output has ended, slowly before, because a command
// may end and leave a child behind that holds its output open.
func (s *session) Wait(ctx context.Context) (int, error) {
	const slow, first, most = 500 * time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond
	ended, pause := s.ended, slow
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for exec: %w", ctx.Err())
		case <-ended:
			ended, pause = nil, first
		case <-time.After(pause):
			if ended == nil {
				pause = min(2*pause, most)
			}
		}
		got, err := s.engine.execState(ctx, s.id)
		if err != nil {
			return 0, wrap("wait for exec", err)
		}
		if got.over() {
			return *got.ExitCode, nil
		}
	}
}

// execState is what the daemon knows of an exec. The client's own type has no
// room for "no exit code yet", so that an exec which has not begun looks like
// one that ended well.
type execState struct {
	Running  bool
	Pid      int
	ExitCode *int
}

// begun reports whether there is a process: the daemon says Running a moment
// before it knows the number.
func (x execState) begun() bool { return x.Running && x.Pid > 0 }

func (x execState) over() bool { return !x.Running && x.ExitCode != nil }

// execState asks for the state of an exec.
func (e *Engine) execState(ctx context.Context, id string) (execState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/exec/"+url.PathEscape(id)+"/json", nil)
	if err != nil {
		return execState{}, err
	}
	resp, err := e.raw.Do(req)
	if err != nil {
		return execState{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return execState{}, engine.ErrNotFound
	default:
		return execState{}, fmt.Errorf("docker answers %s", resp.Status)
	}
	var x execState
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&x)
	return x, err
}

// Close implements [engine.Session]. Docker lets an exec run on when its
// streams are cut; a shell whose person is gone must not, so it is hung up
// and, if it does not go, killed.
func (s *session) Close() error {
	s.closeOnce.Do(func() {
		s.cut()
		s.engine.background(s.reap)
	})
	return nil
}

// reap ends what is left of a closed session: first politely, then not.
func (s *session) reap() {
	ctx, cancel := context.WithTimeout(s.engine.ctx, 30*time.Second)
	defer cancel()
	// A session can be closed before its command has begun.
	if !s.await(ctx, 10*time.Second, func(x execState) bool { return x.begun() || x.over() }) {
		return
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGKILL} {
		gone, err := s.signal(ctx, sig)
		if err != nil && ctx.Err() == nil {
			s.engine.log.DebugContext(ctx, "end exec", slog.String("container", s.container), slog.Any("error", err))
		}
		if gone || err != nil || s.await(ctx, 3*time.Second, execState.over) {
			return
		}
	}
}

// await polls until the exec is in a state, or no longer known, or patience ends.
func (s *session) await(ctx context.Context, patience time.Duration, fits func(execState) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		x, err := s.engine.execState(ctx, s.id)
		if err == nil && fits(x) || errors.Is(err, engine.ErrNotFound) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// signal sends sig to the exec's process. The daemon tells its number on this
// host; numbers are used again, so the process is pinned first, and only then
// asked for once more: if the exec still runs with that number, it is the one.
// Being in the container's control group is the second proof.
func (s *session) signal(ctx context.Context, sig unix.Signal) (gone bool, err error) {
	before, err := s.engine.execState(ctx, s.id)
	if err != nil {
		return errors.Is(err, engine.ErrNotFound), err
	}
	if !before.begun() {
		return true, nil
	}
	fd, err := unix.PidfdOpen(before.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd) //nolint:errcheck // a process descriptor
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", before.Pid))
	if err != nil {
		return false, err
	}
	after, err := s.engine.execState(ctx, s.id)
	if err != nil {
		return errors.Is(err, engine.ErrNotFound), err
	}
	if !after.Running || after.Pid != before.Pid {
		return true, nil
	}
	if !strings.Contains(string(groups), s.container) {
		return false, fmt.Errorf("process %d is not in container %s", before.Pid, s.container)
	}
	return false, unix.PidfdSendSignal(fd, sig, nil, 0)
}

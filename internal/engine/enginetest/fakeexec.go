package enginetest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/baileyhq/bailey/internal/engine"
)

// Exec implements [engine.Engine].
func (f *Fake) Exec(ctx context.Context, id string, spec engine.ExecSpec) (engine.Session, error) {
	if err := cmp.Or(f.enter(ctx, "Exec"), spec.Check()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil {
		return nil, err
	}
	if !b.status.Running {
		return nil, fmt.Errorf("container %s does not run: %w", id, engine.ErrConflict)
	}
	s := &fakeSession{
		in: newHalf(), out: newHalf(), err: newHalf(),
		hangup: make(chan struct{}), exited: make(chan struct{}), cols: spec.Cols, rows: spec.Rows,
	}
	stderr := s.err
	if spec.TTY {
		s.err.set(func() { s.err.eof = true })
		stderr = s.out
	}
	call := ExecCall{
		Status: b.status, Spec: spec, Stdin: halfReader{s.in}, Stdout: halfWriter{s.out}, Stderr: halfWriter{stderr},
		Size: s.size, Hangup: s.hangup,
	}
	run, stop := f.cfg.Exec, b.stop
	f.wg.Go(func() {
		code := run(call)
		s.finish(code)
	})
	f.wg.Go(func() {
		select {
		case <-stop: // the container ended, and everything in it
			s.kill()
		case <-s.exited:
		case <-f.ctx.Done():
			s.kill()
		}
	})
	return s, nil
}

type halfReader struct{ h *half }

func (r halfReader) Read(p []byte) (int, error) { return r.h.read(p) }

type halfWriter struct{ h *half }

func (w halfWriter) Write(p []byte) (int, error) { return w.h.write(p) }

func (w halfWriter) Close() error {
	w.h.set(func() { w.h.eof = true })
	return nil
}

// fakeSession is one exec of a Fake.
type fakeSession struct {
	in, out, err *half
	hangup       chan struct{} // closed once, by kill
	exited       chan struct{} // closed once, by finish

	mu         sync.Mutex // guards the rest
	cols, rows uint16
	killed     bool
	done       bool
	code       int
}

func (s *fakeSession) Stdin() io.WriteCloser { return halfWriter{s.in} }
func (s *fakeSession) Stdout() io.Reader     { return halfReader{s.out} }
func (s *fakeSession) Stderr() io.Reader     { return halfReader{s.err} }

func (s *fakeSession) size() (cols, rows uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cols, s.rows
}

func (s *fakeSession) Resize(ctx context.Context, cols, rows uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cols, s.rows = cols, rows
	return ctx.Err()
}

func (s *fakeSession) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.exited:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for exec: %w", ctx.Err())
	}
}

// Close ends the streams and hangs the command up.
func (s *fakeSession) Close() error {
	s.out.set(func() { s.out.broken = true })
	s.err.set(func() { s.err.broken = true })
	s.kill()
	return nil
}

// kill tells the command to end.
func (s *fakeSession) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.killed {
		s.killed = true
		close(s.hangup)
		s.in.set(func() { s.in.broken = true })
	}
}

// finish notes the exit code and ends the output.
func (s *fakeSession) finish(code int) {
	s.out.set(func() { s.out.eof = true })
	s.err.set(func() { s.err.eof = true })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed && code == 0 {
		code = 137
	}
	if !s.done {
		s.done, s.code = true, code
		close(s.exited)
	}
}

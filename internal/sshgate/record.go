package sshgate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// A recording is a session's [sshlive.Recording] with what becomes of its
// failures: a strict session ends, any other goes on without. It may be nil and
// is then no recording at all.
type recording struct {
	c      *conn
	m      sshlive.Meta
	strict bool

	mu    sync.Mutex // guards the rest
	rec   sshlive.Recording
	fatal func() // ends the session
}

// onFailure says how the session is ended when its recording fails.
func (r *recording) onFailure(fatal func()) {
	r.mu.Lock()
	r.fatal = fatal
	r.mu.Unlock()
}

// begin starts a session's recording as its class wants it.
func (c *conn) begin(ctx context.Context, m sshlive.Meta, p Policy) (*recording, error) {
	m.Unrecorded = !p.recorded()
	if m.Unrecorded && c.g.cfg.Recorder == nil {
		return nil, nil //nolint:nilnil // a nil recording is one that does nothing
	}
	r := &recording{c: c, m: m, strict: p.Recording == RecordStrict, fatal: func() {}}
	err := errors.New("this server has no recorder")
	if c.g.cfg.Recorder != nil {
		r.rec, err = c.g.cfg.Recorder.Begin(ctx, m)
	}
	if err == nil {
		return r, nil
	}
	r.rec = nil
	r.lost(err)
	if r.strict {
		return nil, &bailey.Error{
			Kind: bailey.Unavailable, Msg: "sessions of this class are recorded, and that is not possible now",
			Hint: "an administrator checks the recordings' disk and settings", Cause: err,
		}
	}
	return r, nil
}

// lost says in log and journal that a session is not recorded, or no longer.
func (r *recording) lost(err error) {
	r.c.g.log.Error("ssh session not recorded", slog.String("session", r.m.ID), slog.Bool("ended", r.strict), slog.Any("error", err))
	_ = r.c.record(r.c.ctx, audit.Event{
		Action: audit.SSHUnrecorded, Target: audit.Target{Kind: "workspace", ID: r.m.WorkspaceID, Name: r.m.Workspace},
		Outcome: audit.Failure, Attrs: audit.Attrs{Session: r.m.ID, Kind: string(r.m.Kind), Class: r.m.Class, Run: r.m.Run},
	})
}

// do tells the recording something; its first failure is its last.
func (r *recording) do(f func(sshlive.Recording) error) {
	if r == nil {
		return
	}
	r.mu.Lock()
	rec := r.rec
	r.mu.Unlock()
	if rec == nil {
		return
	}
	err := f(rec)
	if err == nil {
		return
	}
	r.mu.Lock()
	first, fatal := r.rec != nil, r.fatal
	r.rec = nil
	r.mu.Unlock()
	if !first {
		return
	}
	r.lost(err)
	_ = rec.Close(sshlive.End{At: time.Now(), ExitCode: -1, Reason: "the recording failed"})
	if r.strict {
		fatal()
	}
}

func (r *recording) output(p []byte) {
	r.do(func(rec sshlive.Recording) error { return rec.Output(p) })
}

func (r *recording) input(p []byte) {
	r.do(func(rec sshlive.Recording) error { return rec.Input(p) })
}

func (r *recording) resize(cols, rows int) {
	r.do(func(rec sshlive.Recording) error { return rec.Resize(cols, rows) })
}

func (r *recording) event(e sshlive.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	r.do(func(rec sshlive.Recording) error { return rec.Event(e) })
}

func (r *recording) close(end sshlive.End) {
	if r == nil {
		return
	}
	r.mu.Lock()
	rec := r.rec
	r.rec = nil
	r.mu.Unlock()
	if rec == nil {
		return
	}
	if err := rec.Close(end); err != nil {
		r.lost(err)
	}
}

package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// endLimit is how long the end of a session may take to be stored.
const endLimit = 10 * time.Second

// A taking takes one session down. It implements [sshlive.Recording].
type taking struct {
	s      *Service
	row    bailey.SSHSession
	strict bool
	input  bool
	began  time.Time
	file   *recording.Session // nil: only the index

	mu  sync.Mutex // guards cut
	cut bool       // the failure is in the journal
}

// Begin stores that a session begins, and begins its recording. It implements
// [sshlive.Recorder]: when a strict session cannot be taken down it fails, and
// nothing of the session is to run.
func (s *Service) Begin(ctx context.Context, m sshlive.Meta) (sshlive.Recording, error) {
	t := &taking{s: s, strict: m.Strict, input: s.cfg.Limits().Input, began: time.Now(), row: bailey.SSHSession{
		ID: m.ID, Connection: m.ConnID, Server: s.cfg.Server, UserID: m.UserID, User: m.User, WorkspaceID: m.WorkspaceID, Workspace: m.Workspace,
		Class: m.Class, Run: m.Run, Kind: bailey.SSHKind(m.Kind), Target: m.Target, Client: m.IP, ClientVersion: m.Client, Key: m.Fingerprint,
		BeganAt: m.Started, Exit: -1, Recording: bailey.RecordingNone,
	}}
	if t.row.BeganAt.IsZero() {
		t.row.BeganAt = s.cfg.Now()
	}
	if recorded(m) {
		t.row.Recording = bailey.RecordingOpen
	}
	if err := s.cfg.Store.BeginSSHSession(ctx, t.row); err != nil {
		if m.Strict {
			return nil, refused(err)
		}
		// Not in the index, and not without a word: the log has it. A recording
		// that nobody could find would be none.
		s.log.ErrorContext(ctx, "ssh session not in the index", slog.String("session", m.ID), slog.String("error", err.Error()))
		return t, nil
	}
	if !recorded(m) {
		return t, nil
	}
	file, err := s.cfg.Recorder.Begin(recording.Meta{
		SSHSession: t.row, Command: m.Command, Terminal: m.TTY, Term: m.Term, Cols: m.Cols, Rows: m.Rows,
	})
	if err == nil {
		t.file = file
		return t, nil
	}
	t.failed(err)
	if m.Strict {
		row := t.row
		row.End, row.Recording = "not recorded", bailey.RecordingCut
		return nil, errors.Join(refused(err), s.end(ctx, row))
	}
	return t, nil
}

// recorded reports whether a session has a recording of its own. Of a forward
// or a connection the index has everything that is known.
func recorded(m sshlive.Meta) bool {
	switch m.Kind {
	case sshlive.Shell, sshlive.Exec, sshlive.SFTP:
		return true
	case sshlive.Forward, sshlive.Remote, sshlive.Agent, sshlive.Connection:
	}
	return false
}

func refused(err error) error {
	e := &bailey.Error{
		Kind: bailey.Unavailable, Msg: "every session of this class is recorded, and this one cannot be",
		Hint: "an administrator looks at the server's log", Cause: err,
	}
	if errors.Is(err, recording.ErrFull) {
		e.Hint = "the server's disk has no room for recordings; an administrator can free some"
	}
	return e
}

// Output implements [sshlive.Recording].
func (t *taking) Output(p []byte) error {
	return t.do(func(f *recording.Session) error { return f.Output(p) })
}

// Input implements [sshlive.Recording]. What is typed is kept only where the
// configuration says so: passwords are typed too.
func (t *taking) Input(p []byte) error {
	if !t.input {
		return nil
	}
	return t.do(func(f *recording.Session) error { return f.Input(p) })
}

// Resize implements [sshlive.Recording].
func (t *taking) Resize(cols, rows int) error {
	return t.do(func(f *recording.Session) error { return f.Resize(cols, rows) })
}

// Event implements [sshlive.Recording].
func (t *taking) Event(e sshlive.Event) error {
	out := recording.Event{Kind: string(e.Kind), Path: e.Path, To: e.To, Size: e.Size}
	switch e.Kind {
	case sshlive.FileRead, sshlive.FileWrite:
		out.Direction = "down"
		if e.Up {
			out.Direction = "up"
		}
	case sshlive.Signalled:
		out.Signal, out.Path = e.Path, ""
	case sshlive.Blocked:
		out.Rule, out.Path = e.Path, ""
	case sshlive.FileRemove, sshlive.FileRename, sshlive.FileLink, sshlive.FileMkdir, sshlive.FileAttr, sshlive.FileOther:
	}
	if !e.OK && e.Kind != sshlive.Signalled && e.Kind != sshlive.Blocked {
		out.Detail = "refused or failed"
	}
	return t.do(func(f *recording.Session) error { return f.Event(out) })
}

// do records something. A failure is in the journal once.
func (t *taking) do(f func(*recording.Session) error) error {
	if t.file == nil {
		return nil
	}
	err := f(t.file)
	if err != nil {
		t.failed(err)
	}
	return err
}

// failed notes in the journal that a recording could not go on. The journal
// may be on the same full disk: then the log says it.
func (t *taking) failed(err error) {
	t.mu.Lock()
	first := !t.cut
	t.cut = true
	t.mu.Unlock()
	if !first {
		return
	}
	reason := audit.EngineFailed
	switch {
	case errors.Is(err, recording.ErrFull):
		reason = audit.DiskFull
	case errors.Is(err, recording.ErrTooSlow):
		reason = audit.TooSlow
	case errors.Is(err, recording.ErrTooLong):
		reason = audit.TooMuch
	}
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	e := t.event(audit.RecordingCut, audit.Failure)
	e.Reason = reason
	if err := t.s.cfg.Audit.Append(ctx, e); err != nil {
		t.s.log.ErrorContext(ctx, "cut recording not in the audit journal", slog.String("session", t.row.ID), slog.String("error", err.Error()))
	}
}

func (t *taking) event(action audit.Action, outcome audit.Outcome) audit.Event {
	return audit.Event{
		Actor: audit.By(bailey.System()), Action: action, Outcome: outcome,
		Target: audit.Target{Kind: "ssh session", ID: t.row.ID, Name: t.row.User + "." + t.row.Workspace},
		Attrs:  audit.Attrs{Class: t.row.Class, Run: t.row.Run},
	}
}

// Close implements [sshlive.Recording]: it ends the recording and the session's
// row. The digest of a whole recording goes into the journal, so that a file
// that is exchanged later, by somebody who has the key too, does not fit it.
func (t *taking) Close(end sshlive.End) error {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	row := t.row
	row.EndedAt, row.In, row.Out, row.Exit, row.End = end.At, end.Up, end.Down, end.ExitCode, reasonOf(end)
	if row.EndedAt.IsZero() {
		row.EndedAt = row.BeganAt.Add(time.Since(t.began))
	}
	var err error
	if t.file != nil {
		exit := end.ExitCode
		last := recording.Event{Kind: "exit", Signal: end.Signal, Detail: end.Reason, Up: end.Up, Down: end.Down}
		if exit >= 0 {
			last.Exit = &exit
		}
		_ = t.do(func(f *recording.Session) error { return f.Event(last) }) // Close returns it
		var sum recording.Summary
		sum, err = t.file.Close()
		row.Size, row.Digest, row.Recording = sum.Size, sum.Digest, bailey.RecordingWhole
		if !sum.Whole {
			row.Recording = bailey.RecordingCut
			t.failed(err)
		} else {
			e := t.event(audit.RecordingKept, audit.Success)
			e.Attrs.Digest, e.Attrs.Bytes, e.Attrs.Up, e.Attrs.Down = "sha256:"+sum.Digest, sum.Size, end.Up, end.Down
			if kept := t.s.cfg.Audit.Append(ctx, e); kept != nil {
				err = fmt.Errorf("note the recording: %w", kept)
			}
		}
	} else if row.Recording == bailey.RecordingOpen {
		row.Recording = bailey.RecordingCut
	}
	return errors.Join(err, t.s.end(ctx, row))
}

func (s *Service) end(ctx context.Context, row bailey.SSHSession) error {
	err := s.cfg.Store.EndSSHSession(ctx, row)
	if bailey.KindOf(err) == bailey.NotFound { // it was not in the index, which was said
		return nil
	}
	if err != nil {
		s.log.ErrorContext(ctx, "end of ssh session not in the index", slog.String("session", row.ID), slog.String("error", err.Error()))
	}
	return err
}

func reasonOf(end sshlive.End) string {
	switch {
	case end.Reason != "":
		return end.Reason
	case end.Signal != "":
		return "signal " + end.Signal
	case end.ExitCode >= 0:
		return "exited"
	}
	return "closed"
}

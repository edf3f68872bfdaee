// Package witness sees what happens over SSH. It keeps the index of sessions,
// has those recorded that are to be, shows and ends the living ones, gives
// recordings back, and lets them go when they are old. It asks policy who may
// look, and records in the journal that they did before they see anything.
package witness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// A Store keeps the index of sessions.
type Store interface {
	BeginSSHSession(ctx context.Context, s bailey.SSHSession) error
	EndSSHSession(ctx context.Context, s bailey.SSHSession) error
	EndSSHSessions(ctx context.Context, server string, at time.Time) (int64, error)
	SSHSession(ctx context.Context, id string) (bailey.SSHSession, error)
	SSHSessions(ctx context.Context, f bailey.SSHFilter) ([]bailey.SSHSession, error)
	ForgetSSHRecording(ctx context.Context, id string) error
	DeleteSSHSessions(ctx context.Context, server string, before time.Time) (int64, error)
}

// A Journal records, and answers who looked.
type Journal interface {
	audit.Appender
	Search(ctx context.Context, f audit.Filter) ([]audit.Event, error)
}

// Limits say how long recordings stay, and how much of them.
type Limits struct {
	Keep  time.Duration // 0: for ever
	Size  int64         // of all together; 0: no limit
	Input bool          // what people type is kept too
}

// Config is what a Service stands on. All but Log and Now are required.
type Config struct {
	Store    Store
	Recorder *recording.Recorder
	Live     *sshlive.Registry
	Audit    Journal
	Server   string        // the installation's id
	Limits   func() Limits // asked each time: they may change while the server runs
	Now      func() time.Time
	Log      *slog.Logger
}

// A Service is ready to witness. It may be used concurrently.
type Service struct {
	cfg Config
	log *slog.Logger
}

// New ends what a server before this one left open, and returns a Service.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Recorder == nil || cfg.Live == nil || cfg.Audit == nil || cfg.Server == "" || cfg.Limits == nil {
		return nil, errors.New("witness: all of Config but Now and Log is required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, log: cfg.Log}
	n, err := cfg.Store.EndSSHSessions(ctx, cfg.Server, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("end lost sessions: %w", err)
	}
	if n > 0 {
		s.log.WarnContext(ctx, "ssh sessions lost with the last server", slog.Int64("count", n))
	}
	return s, nil
}

// A Session is one of the index, with what is known of it while it lives.
type Session struct {
	bailey.SSHSession
	Active  time.Time // of a living one: when the last byte was carried
	Watched int       // of a living one: how many look on
}

// Living reports whether the session has not ended.
func (s Session) Living() bool { return s.EndedAt.IsZero() }

// List lists sessions, the newest first: the actor's own, or with everybody
// all that the filter chooses, which is for administrators and auditors.
func (s *Service) List(ctx context.Context, actor bailey.Actor, everybody bool, f bailey.SSHFilter) ([]Session, error) {
	if !everybody {
		f.UserID = actor.UserID
	}
	thing := policy.Thing{OwnerID: f.UserID}
	if !policy.Decide(actor, policy.SSHView, thing) {
		return nil, &bailey.Error{
			Kind: bailey.Denied, Msg: "only administrators and auditors see everybody's SSH sessions", Hint: "leave out --all to see your own",
		}
	}
	rows, err := s.cfg.Store.SSHSessions(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]Session, 0, len(rows))
	for _, row := range rows {
		out = append(out, s.alive(row))
	}
	return out, nil
}

// alive adds what the registry knows now.
func (s *Service) alive(row bailey.SSHSession) Session {
	out := Session{SSHSession: row}
	if !out.Living() {
		return out
	}
	if live, ok := s.cfg.Live.Get(row.ID); ok {
		out.In, out.Out, out.Active, out.Watched = live.Up, live.Down, live.Active, live.Watched
	}
	return out
}

// Get returns a session that the actor may see; NotFound else.
func (s *Service) Get(ctx context.Context, actor bailey.Actor, id string) (Session, error) {
	row, err := s.find(ctx, actor, policy.SSHView, id)
	return s.alive(row), err
}

// find returns a session to which the actor may do the action. What they may
// not even see does not exist for them.
func (s *Service) find(ctx context.Context, actor bailey.Actor, action policy.Action, id string) (bailey.SSHSession, error) {
	row, err := s.cfg.Store.SSHSession(ctx, id)
	if bailey.KindOf(err) == bailey.NotFound || err == nil && !policy.Decide(actor, policy.SSHView, policy.Thing{OwnerID: row.UserID}) {
		return bailey.SSHSession{}, &bailey.Error{
			Kind: bailey.NotFound, Msg: "there is no SSH session with this id that you may see", Hint: "bailey sessions ls lists them", Cause: err,
		}
	}
	if err != nil {
		return bailey.SSHSession{}, err
	}
	if !policy.Decide(actor, action, policy.Thing{OwnerID: row.UserID}) {
		return bailey.SSHSession{}, &bailey.Error{Kind: bailey.Denied, Msg: "you may see this session, and no more", Hint: "an administrator may do this"}
	}
	return row, nil
}

// Watch begins to look on a living session. That it does is in the journal
// first. The caller closes the Watch.
func (s *Service) Watch(ctx context.Context, actor bailey.Actor, id string) (Session, *sshlive.Watch, error) {
	row, err := s.find(ctx, actor, policy.SSHView, id)
	if err != nil {
		return Session{}, nil, err
	}
	if _, ok := s.cfg.Live.Get(id); !ok {
		return Session{}, nil, ended(row)
	}
	if err := s.note(ctx, actor, audit.SSHWatch, row); err != nil {
		return Session{}, nil, err
	}
	w, ok := s.cfg.Live.Watch(id)
	if !ok {
		return Session{}, nil, ended(row)
	}
	return s.alive(row), w, nil
}

func ended(row bailey.SSHSession) error {
	e := &bailey.Error{Kind: bailey.Conflict, Msg: "this session has ended"}
	switch {
	case row.EndedAt.IsZero():
		e.Msg = "this session is not one of this server's, or just begins or ends"
	case row.Recording == bailey.RecordingWhole, row.Recording == bailey.RecordingCut:
		e.Hint = "bailey sessions replay " + row.ID
	}
	return e
}

// Kill ends a living session; of a connection, everything in it. It is in the
// journal first. The person in it reads that it was ended, and by whom.
func (s *Service) Kill(ctx context.Context, actor bailey.Actor, id string) error {
	row, err := s.find(ctx, actor, policy.SSHKill, id)
	if err != nil {
		return err
	}
	if _, ok := s.cfg.Live.Get(id); !ok {
		return ended(row)
	}
	if err := s.note(ctx, actor, audit.SSHKill, row); err != nil {
		return err
	}
	why := "ended by its owner"
	if actor.UserID != row.UserID {
		why = "ended by " + actor.Name
	}
	if !s.cfg.Live.Kill(id, why) {
		return ended(row)
	}
	return nil
}

// Open opens a session's recording. That it does is in the journal first. The
// caller closes the Reader.
func (s *Service) Open(ctx context.Context, actor bailey.Actor, id string) (*recording.Reader, error) {
	row, err := s.find(ctx, actor, policy.SSHView, id)
	if err != nil {
		return nil, err
	}
	switch row.Recording {
	case bailey.RecordingNone:
		return nil, &bailey.Error{
			Kind: bailey.NotFound, Msg: "this session has no recording",
			Hint: "what is known of it: bailey sessions show " + id + "; which classes are recorded stands in the configuration",
		}
	case bailey.RecordingDeleted:
		return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "the recording of this session was deleted", Hint: "the audit log says when, and by whom: bailey audit"}
	case bailey.RecordingOpen, bailey.RecordingWhole, bailey.RecordingCut:
	}
	if err := s.note(ctx, actor, audit.SSHReplay, row); err != nil {
		return nil, err
	}
	r, err := s.cfg.Recorder.Open(id)
	switch {
	case bailey.KindOf(err) == bailey.NotFound:
		return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "the recording of this session is not on this server", Hint: "was its file removed by hand?", Cause: err}
	case errors.Is(err, recording.ErrWrongKey):
		return nil, &bailey.Error{Kind: bailey.Unavailable, Msg: "this recording was sealed with another key", Hint: "give recordings.key the key of that time", Cause: err}
	case errors.Is(err, recording.ErrDamaged), errors.Is(err, recording.ErrForeign), errors.Is(err, recording.ErrCut):
		return nil, &bailey.Error{Kind: bailey.Conflict, Msg: "the recording of this session cannot be read: its file was changed, damaged or cut at its beginning", Cause: err}
	}
	return r, err
}

// A Viewer is somebody who looked on, read a recording or ended a session.
type Viewer struct {
	Name string
	What audit.Action
	At   time.Time
}

// Viewers lists who looked at a session, the oldest first. Whoever may see the
// session may know: its owner sees that an administrator watched.
func (s *Service) Viewers(ctx context.Context, actor bailey.Actor, id string) ([]Viewer, error) {
	if _, err := s.find(ctx, actor, policy.SSHView, id); err != nil {
		return nil, err
	}
	events, err := s.cfg.Audit.Search(ctx, audit.Filter{Target: id, Action: "ssh."})
	if err != nil {
		return nil, fmt.Errorf("look for viewers: %w", err)
	}
	out := []Viewer{}
	for _, e := range events {
		if e.Action == audit.SSHWatch || e.Action == audit.SSHReplay || e.Action == audit.SSHKill {
			out = append(out, Viewer{Name: cmp.Or(e.Actor.Name, e.Actor.ID), What: e.Action, At: e.TS})
		}
	}
	slices.SortFunc(out, func(a, b Viewer) int { return a.At.Compare(b.At) })
	return out, nil
}

// Delete deletes a session's recording; the session stays in the index. It is
// in the journal first.
func (s *Service) Delete(ctx context.Context, actor bailey.Actor, id string) error {
	row, err := s.find(ctx, actor, policy.RecordingDelete, id)
	if err != nil {
		return err
	}
	switch row.Recording {
	case bailey.RecordingNone, bailey.RecordingDeleted:
		return bailey.Errorf(bailey.NotFound, "this session has no recording")
	case bailey.RecordingOpen:
		return &bailey.Error{Kind: bailey.Conflict, Msg: "this session is still being recorded", Hint: "end it first: bailey sessions kill " + id}
	case bailey.RecordingWhole, bailey.RecordingCut:
	}
	if err := s.note(ctx, actor, audit.RecordingGone, row); err != nil {
		return err
	}
	if err := s.cfg.Recorder.Remove(id); err != nil && bailey.KindOf(err) != bailey.NotFound {
		return err
	}
	return s.cfg.Store.ForgetSSHRecording(ctx, id)
}

// note makes durable that somebody is about to do something to a session.
func (s *Service) note(ctx context.Context, actor bailey.Actor, action audit.Action, row bailey.SSHSession) error {
	reason := audit.ByAdmin
	if actor.UserID == row.UserID {
		reason = audit.ByUser
	}
	err := s.cfg.Audit.Append(ctx, audit.Event{
		Actor: audit.By(actor), Action: action, Outcome: audit.Success, Reason: reason,
		Target: audit.Target{Kind: "ssh session", ID: row.ID, Name: row.User + "." + row.Workspace},
		Attrs:  audit.Attrs{Class: row.Class, Run: row.Run},
	})
	if err != nil {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the audit log cannot be written, so this is not done", Hint: "try again later; an administrator looks at the server's log", Cause: err}
	}
	return nil
}

package witness

import (
	"context"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/recording"
)

const (
	sweepEach = 10 * time.Minute
	keepIndex = 90 * 24 * time.Hour // of sessions, where recordings go sooner
)

// Run lets recordings go that are too old, or too many, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEach)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "recordings not swept", slog.String("error", err.Error()))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Sweep lets go once: recordings that have not changed for longer than they are
// kept, then the oldest until the rest fits. Each is in the journal first; what
// the journal does not take stays. A living session's recording stays in any
// case.
func (s *Service) Sweep(ctx context.Context) error {
	limits := s.cfg.Limits()
	files, err := s.cfg.Recorder.Files()
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	total := int64(0)
	for _, f := range files {
		total += f.Size
	}
	for _, f := range files {
		var why audit.Reason
		switch {
		case limits.Keep > 0 && now.Sub(f.Changed) > limits.Keep:
			why = audit.TooOld
		case limits.Size > 0 && total > limits.Size:
			why = audit.TooMuch
		default:
			continue
		}
		if _, living := s.cfg.Live.Get(f.ID); living {
			continue
		}
		if err := s.expire(ctx, f, why); err != nil {
			return err
		}
		total -= f.Size
	}
	if limits.Keep > 0 {
		_, err = s.cfg.Store.DeleteSSHSessions(ctx, s.cfg.Server, now.Add(-max(limits.Keep, keepIndex)))
	}
	return err
}

func (s *Service) expire(ctx context.Context, f recording.File, why audit.Reason) error {
	name := ""
	row, err := s.cfg.Store.SSHSession(ctx, f.ID)
	if err == nil {
		name = row.User + "." + row.Workspace
	} else if bailey.KindOf(err) != bailey.NotFound {
		return err
	}
	err = s.cfg.Audit.Append(ctx, audit.Event{
		Actor: audit.By(bailey.System()), Action: audit.RecordingGone, Outcome: audit.Success, Reason: why,
		Target: audit.Target{Kind: "ssh session", ID: f.ID, Name: name}, Attrs: audit.Attrs{Bytes: f.Size},
	})
	if err != nil {
		return err
	}
	if err := s.cfg.Recorder.Remove(f.ID); err != nil && bailey.KindOf(err) != bailey.NotFound {
		return err
	}
	return s.cfg.Store.ForgetSSHRecording(ctx, f.ID)
}

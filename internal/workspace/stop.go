package workspace

import (
	"context"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// Stop ends the current run and returns when it has ended. It is idempotent;
// a workspace that is down is returned as it is. Unavailable when the journal
// cannot be written (then nothing was changed), or when the engine does not
// answer or the server is stopping (then it is stopped as soon as can be).
func (s *Service) Stop(ctx context.Context, actor bailey.Actor, id string) (bailey.Workspace, error) {
	ws, err := s.find(ctx, actor, policy.WorkspaceStop, id)
	if err != nil {
		return bailey.Workspace{}, err
	}
	reason, code := "stopped by its owner", audit.ByUser
	if actor.UserID != ws.OwnerID {
		reason, code = "stopped by administrator "+actor.Name, audit.ByAdmin
		if actor.Role != bailey.RoleAdmin {
			reason, code = "stopped by "+actor.Name+", who manages a group of its owner", audit.ByManager
		}
	}
	runID, err := s.markStopping(ctx, audit.By(actor), id, reason, code)
	if err != nil {
		return bailey.Workspace{}, err
	}
	if err := s.awaitEnd(ctx, ws, runID); err != nil {
		return bailey.Workspace{}, err
	}
	ws, err = s.cfg.Store.Workspace(ctx, id)
	return ws, hidden(err, noWorkspace())
}

// markStopping writes down that a workspace is to stop, journal first, and
// returns the run to wait for: "" when there is none.
func (s *Service) markStopping(ctx context.Context, by audit.Actor, id, reason string, code audit.Reason) (runID string, err error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	ws, err := s.cfg.Store.Workspace(ctx, id)
	if err != nil {
		return "", hidden(err, noWorkspace())
	}
	switch ws.State {
	case bailey.Stopped, bailey.Failed:
		return "", nil
	case bailey.Stopping:
		return ws.RunID, nil
	case bailey.Starting, bailey.Running:
	}
	ctx, cancel := settle(ctx)
	defer cancel()
	if err := s.cfg.Audit.Append(ctx, audit.Event{
		Actor: by, Action: audit.Stop, Outcome: audit.Success, Reason: code,
		Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
		Attrs:  audit.Attrs{Class: ws.Class, Run: ws.RunID},
	}); err != nil {
		return "", unwritable("the workspace was not stopped", err)
	}
	if err := s.cfg.Store.MarkStopping(ctx, id, reason); err != nil {
		return "", err
	}
	s.attend(id, ws.RunID)
	return ws.RunID, nil
}

// attend makes the keeper of a run look at what is wanted now.
func (s *Service) attend(workspaceID, runID string) {
	s.news.tell(workspaceID)
	if k := s.keeperOf(runID); k != nil {
		nudge(k.kick)
		return
	}
	nudge(s.wake)
	nudge(s.look)
}

// awaitEnd waits until the run has ended. It gives up, with Unavailable, when
// its keeper cannot go on.
func (s *Service) awaitEnd(ctx context.Context, ws bailey.Workspace, runID string) error {
	if runID == "" {
		return nil
	}
	since := s.elapsed()
	for {
		news := s.news.next(ws.ID)
		run, err := s.cfg.Store.Run(ctx, runID)
		switch {
		case bailey.KindOf(err) == bailey.NotFound: // deleted with its workspace
			return nil
		case err != nil:
			return err
		case !run.EndedAt.IsZero():
			return nil
		}
		if k := s.keeperOf(runID); k != nil {
			if err := k.stuck(since); err != nil {
				return err
			}
		}
		select {
		case <-news:
		case <-time.After(time.Second): // another server may have ended it
		case <-s.over:
			return &bailey.Error{
				Kind: bailey.Unavailable,
				Msg:  "the server is stopping",
				Hint: "workspace " + ws.Name + " stops when the server is back",
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Delete stops and removes the workspace. Its volume stays. It is idempotent
// while it is under way; afterwards there is no such workspace.
func (s *Service) Delete(ctx context.Context, actor bailey.Actor, id string) error {
	ws, err := s.find(ctx, actor, policy.WorkspaceDelete, id)
	if err != nil {
		return err
	}
	runID, err := s.markDeleting(ctx, actor, id)
	if err != nil {
		return err
	}
	defer s.doneDeleting(id)
	if err := s.awaitEnd(ctx, ws, runID); err != nil {
		return err
	}
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	err = s.cfg.Store.DeleteWorkspace(ctx, id)
	if bailey.KindOf(err) == bailey.NotFound {
		err = nil // somebody else's Delete was faster
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.restarts, id)
	s.mu.Unlock()
	s.news.tell(id)
	s.log.InfoContext(ctx, "workspace deleted", slog.String("workspace", id), slog.String("owner", ws.OwnerID),
		slog.String("by", actor.UserID))
	return nil
}

// markDeleting writes down that a workspace is to go, journal first, keeps it
// from being started, and returns the run to wait for. When it returns no
// error, doneDeleting must be called.
func (s *Service) markDeleting(ctx context.Context, actor bailey.Actor, id string) (runID string, err error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	ws, err := s.cfg.Store.Workspace(ctx, id)
	if err != nil {
		return "", hidden(err, noWorkspace())
	}
	ctx, cancel := settle(ctx)
	defer cancel()
	if !s.isDeleting(id) { // of two at the same time, one is the deletion
		code := audit.ByUser
		if actor.UserID != ws.OwnerID {
			code = audit.ByAdmin
		}
		if err := s.cfg.Audit.Append(ctx, audit.Event{
			Actor: audit.By(actor), Action: audit.Delete, Outcome: audit.Success, Reason: code,
			Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
			Attrs:  audit.Attrs{Class: ws.Class, Run: ws.RunID},
		}); err != nil {
			return "", unwritable("the workspace was not deleted", err)
		}
	}
	if ws.State != bailey.Stopped && ws.State != bailey.Failed {
		if err := s.cfg.Store.MarkStopping(ctx, id, "being deleted"); err != nil {
			return "", err
		}
		runID = ws.RunID
		s.attend(id, runID)
	}
	s.mu.Lock()
	s.deleting[id]++
	s.mu.Unlock()
	return runID, nil
}

func (s *Service) doneDeleting(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleting[id]--; s.deleting[id] <= 0 {
		delete(s.deleting, id)
	}
}

package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/policy"
)

// How often a workspace that ended by itself is started again.
const (
	maxRestarts   = 3
	restartWindow = 10 * time.Minute
)

// ended returns the failure of a run that was up and is not any more.
func (k *keeper) ended(st engine.Status, reason string) *runError {
	e := &runError{action: audit.Stop, code: audit.Exited, reason: reason, restart: true}
	recently := k.s.elapsed() - 10*time.Second
	if st.OOMKilled || st.ExitCode == 128+9 && k.oomSince(recently) {
		e.code = audit.OutOfMemory
		e.reason = fmt.Sprintf("it ran out of memory: class %s gives %s; choose a bigger class if it happens again",
			k.run.Class.Name, size(k.run.Class.MemoryBytes))
	}
	return e
}

// exited returns why a container that was up does not run any more.
func (k *keeper) exited(ctx context.Context, st engine.Status) *runError {
	k.s.log.WarnContext(ctx, "container ended by itself", slog.String("run", k.id), slog.String("workspace", k.wsID),
		slog.Int("exit_code", st.ExitCode), slog.Bool("oom_killed", st.OOMKilled))
	return k.ended(st, fmt.Sprintf("its container ended with exit code %d", st.ExitCode))
}

// end takes the run down: nothing is served, the container is gone, the
// journal knows, and only then are its leases free. Whatever does not work is
// tried again, so that a GPU is never given away while somebody may still
// compute on it.
func (k *keeper) end(ctx context.Context, ws bailey.Workspace) (over bool, err error) {
	k.withdraw()
	k.shutWay()
	k.check.end()
	if k.failure != nil {
		k.broke(k.failure.reason)
	}
	if err := k.clear(ctx); err != nil {
		k.confess(ctx, ws)
		return false, err
	}
	k.tell(ctx, ws)
	return k.finish(ctx)
}

// confess shows why a launch has failed although it cannot be cleared away yet.
func (k *keeper) confess(ctx context.Context, ws bailey.Workspace) {
	if k.failure == nil || k.failure.restart || ws.State == bailey.Stopping {
		return
	}
	if err := k.s.cfg.Store.MarkStopping(ctx, k.wsID, k.failure.reason); err != nil {
		k.s.log.WarnContext(ctx, "failure not shown yet", slog.String("run", k.id), slog.Any("error", err))
	}
}

// clear stops and removes the container.
func (k *keeper) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	st, err := k.inspect(ctx)
	if errors.Is(err, engine.ErrNotFound) {
		// Not even a directory of its own may stay; the id may be unknown
		// because the server was killed before it was written down.
		if k.run.ContainerID == "" {
			return nil
		}
		return k.removed(k.s.cfg.Engine.Remove(ctx, k.run.ContainerID))
	}
	if err != nil {
		return err
	}
	if k.failure != nil {
		k.keepLastWords(ctx)
	} else if st.Running {
		// Time to save work is given to those who are stopped in good order. What
		// has failed its checks is not asked to end.
		if err := k.s.cfg.Engine.Stop(ctx, st.ID); err != nil && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("stop container: %w", err)
		}
	}
	return k.removed(k.s.cfg.Engine.Remove(ctx, st.ID))
}

func (k *keeper) removed(err error) error {
	if err == nil || errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("remove container: %w", err)
}

// keepLastWords stores the end of the container's output, for the owner's eyes,
// before the container goes.
func (k *keeper) keepLastWords(ctx context.Context) {
	if k.kept || k.run.ContainerID == "" {
		return
	}
	const lines, most = 40, 3500 // the store keeps 4 KiB of a detail
	out, err := k.s.cfg.Engine.Logs(ctx, k.run.ContainerID, lines, 64<<10)
	if err != nil {
		return // without them the reason still stands
	}
	k.kept = true
	out = withoutToken(out, k.run.Token)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	if len(out) > 0 {
		k.out.put(k.stage(lastWords, finished, strings.ToValidUTF8(string(out), "\uFFFD"), 0))
	}
}

// tell puts into the journal that the run has failed. It has: a journal that
// cannot be written does not bring it back.
func (k *keeper) tell(ctx context.Context, ws bailey.Workspace) {
	if k.failure == nil || k.told {
		return
	}
	k.told = true
	k.s.log.WarnContext(ctx, "run failed", slog.String("run", k.id), slog.String("workspace", k.wsID),
		slog.String("reason", string(k.failure.code)), slog.Any("error", k.failure))
	k.s.record(ctx, audit.Event{
		Actor: audit.By(bailey.System()), Action: k.failure.action, Outcome: audit.Failure, Reason: k.failure.code,
		Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
		Attrs:  audit.Attrs{Class: k.run.Class.Name, Image: k.run.Digest, Run: k.id, GPUs: k.run.GPUs},
	})
}

// finish ends the run in the store and, if the workspace was up and nobody
// wants it stopped, begins another one.
func (k *keeper) finish(ctx context.Context) (over bool, err error) {
	unlock, err := k.s.locks.lock(ctx, k.wsID)
	if err != nil {
		return false, err
	}
	defer unlock()
	ws, err := k.s.cfg.Store.Workspace(ctx, k.wsID)
	if err != nil {
		return false, fmt.Errorf("read workspace: %w", err)
	}
	failed, reason, again := false, ws.Reason, false
	if k.failure != nil {
		failed, reason = true, k.failure.reason
		if k.failure.restart {
			// Asked for while it was ending by itself: then it has stopped.
			if ws.Wanted == bailey.Stopped {
				failed, reason = false, ws.Reason
			} else if again = k.s.mayRestart(k.wsID); !again {
				reason += fmt.Sprintf("; it was started again %d times within %s, so it stays down now", maxRestarts, span(restartWindow))
			}
		}
	}
	if reason == "" {
		reason = "stopped"
	}
	if err := k.s.cfg.Store.EndRun(ctx, k.id, failed, reason, k.s.now()); err != nil {
		return false, fmt.Errorf("end run: %w", err)
	}
	k.s.log.InfoContext(ctx, "run ended", slog.String("run", k.id), slog.String("workspace", k.wsID), slog.Bool("failed", failed))
	if again {
		reason += k.restart(ctx, ws)
	}
	name, status := "stopped", finished
	if failed {
		name, status = "failed", broken
	}
	k.out.put(k.stage(name, status, reason, 0))
	k.s.news.tell(k.wsID)
	return true, nil
}

// restart begins a new run of a workspace whose last one ended by itself, and
// returns what to add to the reason. The workspace's lock is held.
func (k *keeper) restart(ctx context.Context, ws bailey.Workspace) string {
	_, err := k.s.again(ctx, ws)
	if err == nil {
		return "; it is being started again"
	}
	k.s.log.WarnContext(ctx, "workspace not started again", slog.String("workspace", k.wsID), slog.Any("error", err))
	if e, ok := errors.AsType[*bailey.Error](err); ok && e.Kind != bailey.Internal {
		return "; it could not be started again: " + e.Msg
	}
	return "; it could not be started again"
}

// again begins a run on behalf of the owner, who asked for a running workspace
// and has one no more. Quota, class and account hold as if the owner did it;
// the journal says that it was not the owner.
func (s *Service) again(ctx context.Context, ws bailey.Workspace) (bailey.Workspace, error) {
	owner, err := s.cfg.Store.UserByID(ctx, ws.OwnerID)
	if err != nil {
		return bailey.Workspace{}, err
	}
	class, ok := s.cfg.Settings.Class(ws.Class)
	asker := bailey.Actor{UserID: owner.ID, Name: owner.Name, Role: owner.Role, Groups: owner.Groups, Method: "restart"}
	if !ok || !policy.Decide(asker, policy.ClassUse, policy.Thing{Class: &class}) {
		return bailey.Workspace{}, bailey.Errorf(bailey.Denied, "class %s is not there for its owner any more", ws.Class)
	}
	return s.begin(ctx, audit.By(bailey.System()), ws, class, time.Now())
}

// mayRestart reports whether a workspace may be started again by itself now,
// and counts it.
func (s *Service) mayRestart(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.elapsed()
	var recent []time.Duration
	for _, at := range s.restarts[id] {
		if now-at < restartWindow {
			recent = append(recent, at)
		}
	}
	may := len(recent) < maxRestarts
	if may {
		recent = append(recent, now)
	}
	s.restarts[id] = recent
	return may
}

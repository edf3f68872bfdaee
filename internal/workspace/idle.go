package workspace

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
)

// Numbers of the idle rule.
const (
	sampleGap  = 30 * time.Second // between the two looks at CPU time
	workingAt  = 0.2              // cores in use at which a workspace works; Jupyter alone uses 0.01
	probeAgain = time.Minute      // after a question that was not answered
	unanswered = time.Hour        // a Jupyter that is mute for so long is not in use
	neverIdle  = 24 * time.Hour   // how long to sleep where no rule applies
)

// An idleWatch is what a keeper remembers about its workspace's idleness.
// Times are Service.elapsed.
type idleWatch struct {
	since    time.Duration // when this keeper began to see activity; before it nothing is known
	busy     bool          // the last look found it working
	mute     time.Duration // since when questions go unanswered; 0: they are answered
	sampled  time.Duration // when cpuNanos was read; 0: never
	cpuNanos uint64
}

// idleIn stops the workspace if it is idle for longer than its class allows,
// and returns when to ask again; 0 when it was stopped.
//
// A workspace is idle when nobody has typed, run or saved anything through a
// door (Touch), no kernel is busy, and no process keeps computing: a training
// run started in a terminal is work. Open pages that poll are not. Both clocks
// have to agree: the wall clock may jump by days when it is put right, and what
// this process has seen begins with its own start. The questions are asked when
// a workspace is about to be stopped, not of everybody all the time.
func (k *keeper) idleIn(ctx context.Context, ws bailey.Workspace) time.Duration {
	limit := k.run.Class.IdleStop
	if limit <= 0 {
		return neverIdle
	}
	if k.idle.since == 0 {
		k.idle.since = max(k.s.elapsed(), 1)
	}
	gap := min(sampleGap, limit/4)
	each := max(limit/10, gap) // while it works: often enough to see when that ends
	idle := k.idleFor()
	switch {
	case k.idle.busy && idle < each:
		return each - idle
	case k.idle.busy:
	case idle < limit-gap:
		return limit - gap - idle
	case idle < limit:
		if k.idle.sampled == 0 || k.s.elapsed()-k.idle.sampled > gap {
			k.sample(ctx) // the first of two looks at the CPU time
		}
		return limit - idle
	default:
		if left := k.wallLeft(ctx, ws.ID, limit); left > 0 {
			return left
		}
	}
	if !k.looked(ctx, limit, gap) {
		return probeAgain
	}
	if k.idleFor() < limit {
		return k.idleIn(ctx, ws) // there was, or is, activity: count from there
	}
	_, err := k.s.markStopping(ctx, audit.By(bailey.System()), ws.ID, "idle for "+span(limit), audit.Idle)
	if err != nil {
		k.s.log.WarnContext(ctx, "idle workspace not stopped", slog.String("workspace", ws.ID), slog.Any("error", err))
		return probeAgain
	}
	k.s.log.InfoContext(ctx, "workspace idle", slog.String("workspace", ws.ID), slog.Duration("idle", idle))
	return 0
}

// idleFor is how long this process has seen no activity.
func (k *keeper) idleFor() time.Duration {
	return k.s.elapsed() - max(k.idle.since, time.Duration(k.touched.Load()))
}

// wallLeft asks the store, where other servers write activity too, how long
// the workspace has to stay by the wall clock. A time that lies ahead is from
// before the clock was put back and says nothing.
func (k *keeper) wallLeft(ctx context.Context, id string, limit time.Duration) time.Duration {
	ws, err := k.s.cfg.Store.Workspace(ctx, id)
	if err != nil {
		return probeAgain // never act on what may be stale
	}
	last := ws.ActiveAt
	if k.run.ReadyAt.After(last) {
		last = k.run.ReadyAt
	}
	idle := k.s.now().Sub(last)
	if idle < 0 {
		return 0
	}
	return limit - idle
}

// looked finds out whether something computes inside, and notes it as
// activity. It returns false when that cannot be known now; a workspace that
// has not answered for long counts as looked at.
func (k *keeper) looked(ctx context.Context, limit, gap time.Duration) bool {
	working, err := k.works(ctx, limit, gap)
	now := k.s.elapsed()
	if err != nil {
		if k.idle.mute == 0 {
			k.idle.mute = now
			k.s.log.InfoContext(ctx, "idle workspace does not say whether it works", slog.String("workspace", k.wsID), slog.Any("error", err))
		}
		if now-k.idle.mute < unanswered {
			return false
		}
	} else {
		k.idle.mute = 0
	}
	k.idle.busy = working
	if working {
		k.touch(now)
	}
	return true
}

// works reports whether a kernel is busy or a process keeps computing. A
// kernel that was busy until a moment ago is noted as activity of then.
func (k *keeper) works(ctx context.Context, limit, gap time.Duration) (bool, error) {
	st, err := k.kernels(ctx)
	if err != nil {
		return false, err
	}
	if ago := k.s.now().Sub(st.last); !st.last.IsZero() && ago >= 0 && ago < limit {
		k.touch(k.s.elapsed() - ago)
	}
	cores, err := k.cores(ctx, limit, gap)
	return st.busy || cores >= workingAt, err
}

// sample reads the CPU time.
func (k *keeper) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	use, err := k.s.cfg.Engine.Stats(ctx, k.run.ContainerID)
	if err != nil {
		k.idle.sampled = 0
		return
	}
	k.idle.sampled, k.idle.cpuNanos = k.s.elapsed(), use.CPUNanos
}

// cores is how many cores were in use, on average, since the last sample. It
// fails when that was too short or too long ago to tell.
func (k *keeper) cores(ctx context.Context, limit, gap time.Duration) (float64, error) {
	was, before := k.idle.sampled, k.idle.cpuNanos
	k.sample(ctx)
	took := k.idle.sampled - was
	if k.idle.sampled == 0 || was == 0 || took < gap/2 || took > limit || k.idle.cpuNanos < before {
		return 0, errors.New("its CPU time is not known for long enough")
	}
	return float64(k.idle.cpuNanos-before) / float64(took), nil
}

// flush writes the activity of every served workspace down.
func (s *Service) flush(ctx context.Context) {
	for _, l := range s.routes.Load().byID {
		k := l.k
		at := k.touched.Load()
		if at <= k.flushed.Load() {
			continue
		}
		// The wall clock now, less how long ago it was.
		wall := s.now().Add(time.Duration(at) - s.elapsed())
		if err := s.cfg.Store.TouchActive(ctx, k.wsID, wall); err != nil {
			if bailey.KindOf(err) != bailey.NotFound {
				s.log.WarnContext(ctx, "activity not stored", slog.String("workspace", k.wsID), slog.Any("error", err))
			}
			continue
		}
		k.flushed.Store(at)
	}
}

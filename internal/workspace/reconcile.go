package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

// Run reconciles until ctx ends: brings containers to what the store wants,
// serves runs that survived a restart, ends runs whose container is gone,
// stops idle workspaces. Workspaces go on running when it returns, and launches
// that it leaves in the middle are taken up by the next server. It may be
// called once.
func (s *Service) Run(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("workspace: Run was called before")
	}
	defer close(s.over)
	var keepers, own sync.WaitGroup
	own.Go(func() { s.reconciling(ctx, &keepers) })
	events := s.cfg.Engine.Watch(ctx)
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.draining = true // from here on no keeper is added
			s.mu.Unlock()
			own.Wait()
			keepers.Wait()
			last, cancel := settle(ctx)
			defer cancel()
			s.flush(last)
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			s.heard(ctx, e)
		case <-s.wake:
			s.takeFresh(ctx, &keepers)
		}
	}
}

// reconciling looks at everything in turn, and at once when told to.
func (s *Service) reconciling(ctx context.Context, keepers *sync.WaitGroup) {
	tick := time.NewTicker(s.cfg.ReconcileEach)
	defer tick.Stop()
	var seen engineView
	for {
		s.reconcile(ctx, keepers, &seen)
		s.flush(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.look:
		}
	}
}

// takeFresh gives keepers to the runs that were begun here.
func (s *Service) takeFresh(ctx context.Context, keepers *sync.WaitGroup) {
	s.mu.Lock()
	var runs []bailey.Run
	for _, h := range s.fresh {
		runs = append(runs, h.run)
	}
	s.mu.Unlock()
	for _, run := range runs {
		s.keep(ctx, keepers, run)
	}
}

// keep makes sure that a run that has not ended has a keeper, and returns it;
// nil when it is not to have one now.
func (s *Service) keep(ctx context.Context, keepers *sync.WaitGroup, run bailey.Run) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keepers[run.ID]; k != nil || s.draining {
		return k
	}
	h, mine := s.fresh[run.ID]
	if !mine && s.deciding[run.ID] {
		return nil // its launch is not in the journal yet
	}
	delete(s.fresh, run.ID)
	k := &keeper{
		s: s, id: run.ID, wsID: run.WorkspaceID, run: run, mine: mine, failure: h.failure,
		kick: make(chan struct{}, 1), out: newStageWriter(s), reached: map[string]bool{},
	}
	if !mine && run.Token == "" {
		k.failure = launchFailed(audit.EngineFailed, errors.New("the run's token does not open"),
			"its record is damaged; start it again")
	}
	k.out.put(h.stages...)
	s.keepers[run.ID] = k
	keepers.Go(func() {
		k.keep(ctx)
		s.mu.Lock()
		delete(s.keepers, run.ID)
		s.mu.Unlock()
		s.news.tell(run.WorkspaceID)
	})
	return k
}

// heard hands an engine's event to the keeper it is about.
func (s *Service) heard(ctx context.Context, e engine.Event) {
	if e.Action == "resync" {
		nudge(s.look)
		return
	}
	k := s.keeperOf(e.Run)
	if k == nil {
		return // the next round finds out
	}
	switch e.Action {
	case "oom":
		k.noteOOM()
		s.log.WarnContext(ctx, "out of memory in a workspace", slog.String("run", e.Run), slog.String("workspace", k.wsID))
	case "die", "start", "destroy":
		// What was served is another start now, or none. Tunnels end at once,
		// not when the keeper has found out what happened.
		if l := k.live.Load(); l != nil && l.run.ContainerID == e.ID && e.Action != "start" {
			k.withdraw()
		}
	}
	nudge(k.kick)
}

// An engineView is what the last round knew of the engine.
type engineView struct {
	down bool
}

// reconcile compares the store with the engine once.
func (s *Service) reconcile(ctx context.Context, keepers *sync.WaitGroup, seen *engineView) {
	// The engine first: what is begun in between is then not yet in its list,
	// rather than in its list and not in the store.
	look, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	statuses, listErr := s.cfg.Engine.List(look)
	if ctx.Err() != nil {
		return
	}
	back := seen.down && listErr == nil
	if listErr != nil && !seen.down {
		s.log.ErrorContext(ctx, "container engine does not answer; workspaces are left as they are", slog.Any("error", listErr))
	}
	if back {
		s.log.InfoContext(ctx, "container engine answers again")
	}
	seen.down = listErr != nil

	runs, err := s.cfg.Store.OpenRuns(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.ErrorContext(ctx, "runs cannot be listed", slog.Any("error", err))
		}
		return
	}
	wanted, err := s.wantedRuns(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "workspaces cannot be listed", slog.Any("error", err))
	}
	byRun := map[string]engine.Status{}
	for _, st := range statuses {
		byRun[st.Run] = st
	}
	for _, run := range runs {
		k := s.keep(ctx, keepers, run)
		if k == nil {
			continue
		}
		l := k.live.Load()
		st, there := byRun[run.ID]
		moved := listErr == nil && l != nil && (!there || !st.Running || !st.StartedAt.Equal(l.started))
		unwanted := err == nil && !wanted[run.ID]
		if back || moved || unwanted {
			nudge(k.kick)
		}
	}
	if listErr == nil {
		s.reportOrphans(ctx, strays(statuses, runs))
	}
}

// wantedRuns returns the runs that are to run.
func (s *Service) wantedRuns(ctx context.Context) (map[string]bool, error) {
	all, err := s.cfg.Store.Workspaces(ctx, "")
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, ws := range all {
		if ws.Wanted == bailey.Running {
			wanted[ws.RunID] = true
		}
	}
	return wanted, nil
}

// strays returns the containers that no open run accounts for.
func strays(statuses []engine.Status, open []bailey.Run) []engine.Status {
	known := map[string]bool{}
	for _, run := range open {
		known[run.ID] = true
	}
	strays := []engine.Status{}
	for _, st := range statuses {
		if !known[st.Run] {
			strays = append(strays, st)
		}
	}
	return strays
}

// confirmed leaves out those that are gone by now: their run ended between the
// two lists.
func (s *Service) confirmed(ctx context.Context, strays []engine.Status) ([]engine.Status, error) {
	still := []engine.Status{}
	for _, st := range strays {
		now, err := s.cfg.Engine.Inspect(ctx, st.ID)
		switch {
		case errors.Is(err, engine.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			still = append(still, now)
		}
	}
	return still, nil
}

// reportOrphans writes containers of ours that belong to no open run into the
// journal, once each. They are never touched: somebody's work may be in them,
// and why they are there is not known.
func (s *Service) reportOrphans(ctx context.Context, suspects []engine.Status) {
	fresh := suspects[:0:0]
	s.mu.Lock()
	for _, st := range suspects {
		if !s.orphans[st.ID] {
			fresh = append(fresh, st)
		}
	}
	s.mu.Unlock()
	fresh, err := s.confirmed(ctx, fresh)
	if err != nil {
		return // the next round looks again
	}
	for _, st := range fresh {
		err := s.cfg.Audit.Append(ctx, audit.Event{
			Actor: audit.By(bailey.System()), Action: audit.OrphanFound, Outcome: audit.Success,
			Target: audit.Target{Kind: "workspace", ID: st.Workspace},
			Attrs:  audit.Attrs{Class: st.Class, Image: st.Image, Run: st.Run},
		})
		if err != nil {
			s.log.ErrorContext(ctx, "orphan not in the audit journal", slog.String("container", st.ID), slog.Any("error", err))
			continue
		}
		s.mu.Lock()
		s.orphans[st.ID] = true
		s.mu.Unlock()
		s.log.WarnContext(ctx, "container belongs to no run; it is left alone", slog.String("container", st.ID),
			slog.String("run", st.Run), slog.String("workspace", st.Workspace), slog.Bool("running", st.Running))
	}
}

// An Orphan is a container of this installation that no open run accounts for.
type Orphan struct {
	Container string // the engine's id
	Run       string // as its labels say
	Workspace string // as its labels say
	Running   bool
	StartedAt time.Time // zero: never
}

// Orphans lists containers that carry this installation's label but belong to
// no open run. They are shown, never removed. Denied for whoever may not see
// the fleet, Unavailable while the engine does not answer.
func (s *Service) Orphans(ctx context.Context, actor bailey.Actor) ([]Orphan, error) {
	if err := s.fleet(ctx, actor, "containers"); err != nil {
		return nil, err
	}
	statuses, err := s.cfg.Engine.List(ctx)
	if err != nil {
		return nil, fromEngine("list containers", err)
	}
	runs, err := s.cfg.Store.OpenRuns(ctx)
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	found, err := s.confirmed(ctx, strays(statuses, runs))
	if err != nil {
		return nil, fromEngine("inspect containers", err)
	}
	orphans := make([]Orphan, 0, len(found))
	for _, st := range found {
		orphans = append(orphans, Orphan{Container: st.ID, Run: st.Run, Workspace: st.Workspace, Running: st.Running, StartedAt: st.StartedAt})
	}
	return orphans, nil
}

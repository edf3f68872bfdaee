package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

func TestStop(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		ws := w.launch(w.alice, "one", "gpu")
		got, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
		if err != nil || got.State != bailey.Stopped || got.Reason != "stopped by its owner" || got.Wanted != bailey.Stopped {
			t.Errorf("Stop = %+v, %v", got, err)
		}
		w.wantClean()
		if n := w.engine.Calls("Stop"); n != 1 {
			t.Errorf("the container was asked to end %d times, want once: work must be saved", n)
		}
		if got := w.journal.last(audit.Stop); got != "success by_user by alice" {
			t.Errorf("journal: %s", got)
		}
		stages := w.stages(ws.ID)
		if last := stages[len(stages)-1]; last != "stopped done" {
			t.Errorf("last stage %q", last)
		}
		// Again, and it stays as it is.
		if again, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil || again.State != bailey.Stopped {
			t.Errorf("second Stop = %+v, %v", again, err)
		}
		if n := len(w.journal.has(audit.Stop)); n != 1 {
			t.Errorf("%d stops in the journal, want 1", n)
		}
		_, err = w.workspaces.Logs(t.Context(), w.alice, ws.ID, 10)
		wantKind(t, "logs of a stopped workspace", err, bailey.Conflict)

		w.launch(w.alice, "one", "")
		if got, err := w.workspaces.Stop(t.Context(), w.root, ws.ID); err != nil || got.Reason != "stopped by administrator root" {
			t.Errorf("Stop by root = %+v, %v", got, err)
		}
		if got := w.journal.last(audit.Stop); got != "success by_admin by root" {
			t.Errorf("journal: %s", got)
		}
	})
}

// TestStopDuringLaunch: a launch that is not wanted any more ends at once,
// whatever it waits for.
func TestStopDuringLaunch(t *testing.T) {
	for _, slow := range []string{"Image", "EnsureVolume", "Create", "Start", "Verify", "jupyter"} {
		t.Run(slow, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				w.cards.n.Store(1)
				ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "gpu")
				if err != nil {
					t.Fatal(err)
				}
				if slow == "jupyter" {
					w.inside.set(func(in *inside) { in.mute = true })
				} else {
					w.engine.Delay(slow, 2*time.Second)
				}
				if _, err := w.workspaces.Start(t.Context(), w.alice, ws.ID); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				begin := time.Now()
				got, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
				if err != nil || got.State != bailey.Stopped {
					t.Errorf("Stop = %+v, %v", got, err)
				}
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("it took %s", took)
				}
				w.engine.Delay(slow, 0)
				w.wantClean()
				if e := w.journal.has(audit.LaunchFailed); len(e) != 0 {
					t.Errorf("journal calls it a failure: %+v", e)
				}
			})
		})
	}
}

// TestStopWhoseCallerLeaves is done all the same.
func TestStopWhoseCallerLeaves(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.engine.Stubborn(ws.RunID)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.workspaces.Stop(ctx, w.alice, ws.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop = %v, want that its caller left", err)
		}
		_, err := w.workspaces.Start(t.Context(), w.alice, ws.ID)
		wantKind(t, "Start meanwhile", err, bailey.Conflict, "stopping")
		_, err = w.workspaces.Launch(t.Context(), w.alice, "one", "")
		wantKind(t, "Launch meanwhile", err, bailey.Conflict, "stopping")
		_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		wantKind(t, "Route meanwhile", err, bailey.Conflict, "stopping")
		w.awaitState(ws.ID, bailey.Stopped)
		w.wantClean()
	})
}

func TestUnwritableJournalStopsNothing(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.journal.breakDown(true)
		_, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
		wantKind(t, "Stop", err, bailey.Unavailable, "audit journal", "not stopped")
		wantKind(t, "Delete", w.workspaces.Delete(t.Context(), w.alice, ws.ID), bailey.Unavailable, "audit journal", "not deleted")
		time.Sleep(time.Minute)
		if now := w.get(ws.ID); now.State != bailey.Running || now.RunID != ws.RunID {
			t.Errorf("workspace = %+v, want it as it was", now)
		}
		if _, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug); err != nil {
			t.Errorf("Route: %v", err)
		}
		w.journal.breakDown(false)
		if err := w.workspaces.Delete(t.Context(), w.alice, ws.ID); err != nil {
			t.Errorf("Delete when the journal is back: %v", err)
		}
	})
}

func TestDelete(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		if err := w.workspaces.Delete(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		_, err := w.workspaces.Get(t.Context(), w.alice, ws.ID)
		wantKind(t, "Get", err, bailey.NotFound)
		w.wantClean()
		if got := w.journal.last(audit.Delete); got != "success by_user by alice" {
			t.Errorf("journal: %s", got)
		}
		if n := len(w.journal.has(audit.Stop)); n != 0 {
			t.Errorf("the stop that belongs to the deletion is %d events of its own", n)
		}
		if _, ok := w.engine.Volumes()[ws.VolumeID]; !ok {
			t.Error("the volume is gone")
		}
		again := w.launch(w.alice, "one", "torch")
		if again.ID == ws.ID || again.VolumeID != ws.VolumeID {
			t.Errorf("the next one of that name is %+v, want another workspace with the volume %s", again, ws.VolumeID)
		}
		wantKind(t, "Delete of what is gone", w.workspaces.Delete(t.Context(), w.alice, ws.ID), bailey.NotFound)
	})
}

// TestEverybodyAtOnce: starts, stops and deletes from many callers leave a
// workspace in one state, with at most one container and the leases of one run.
func TestEverybodyAtOnce(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(2)
		rng := rand.New(rand.NewPCG(1, 2))
		rounds := 10
		if testing.Short() {
			rounds = 4
		}
		for round := range rounds {
			ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "gpu")
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
			var crowd sync.WaitGroup
			for range 24 {
				deed, pause := rng.IntN(20), time.Duration(rng.IntN(60))*time.Millisecond
				crowd.Go(func() {
					time.Sleep(pause)
					var err error
					switch {
					case deed < 9:
						_, err = w.workspaces.Start(w.t.Context(), w.alice, ws.ID)
					case deed < 18:
						_, err = w.workspaces.Stop(w.t.Context(), w.alice, ws.ID)
					case round%2 == 0:
						err = w.workspaces.Delete(w.t.Context(), w.alice, ws.ID)
					}
					if kind := bailey.KindOf(err); err != nil && kind != bailey.Conflict && kind != bailey.NotFound {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			crowd.Wait()
			time.Sleep(time.Minute) // whatever goes on comes to its end
			synctest.Wait()
			now, err := w.workspaces.Get(t.Context(), w.alice, ws.ID)
			containers, leases := w.containers(), w.leases()
			switch {
			case bailey.KindOf(err) == bailey.NotFound, now.State == bailey.Stopped:
				if len(containers) != 0 || len(leases) != 0 {
					t.Errorf("round %d: it is down, and there are containers %v and leases %v", round, containers, leases)
				}
			case now.State == bailey.Running:
				if len(containers) != 1 || containers[0].Run != now.RunID || len(leases) != 1 || leases[0].RunID != now.RunID {
					t.Errorf("round %d: it runs as %s, and there are containers %v and leases %v", round, now.RunID, containers, leases)
				}
			default:
				t.Errorf("round %d: it is %s (%q), %v", round, now.State, now.Reason, err)
			}
		}
		if got := w.journal.has(audit.LaunchFailed); len(got) != 0 {
			t.Errorf("launches failed: %+v", got)
		}
	})
}

// TestHundredLaunches over eight GPUs: never two holders of one card, and at
// the end everybody had a turn.
func TestHundredLaunches(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(8)
		launches := 100
		if testing.Short() { // under the race detector the database takes its time
			launches = 30
		}
		w.engine.Delay("Start", 20*time.Millisecond)
		var people []bailey.Actor
		for i := range 10 {
			people = append(people, w.person(fmt.Sprintf("p%d", i), bailey.RoleUser))
		}
		var mu sync.Mutex
		holds := map[string]string{} // by card: run
		served := 0
		again := make(chan struct{}, 12) // of those who were refused, how many try again at a time
		var crowd sync.WaitGroup
		for i := range launches {
			who, name := people[i%10], fmt.Sprintf("w%d", i)
			crowd.Go(func() {
				waited := false
				for {
					ws, err := w.workspaces.Launch(w.t.Context(), who, name, "gpu")
					if bailey.KindOf(err) == bailey.OverQuota {
						if !waited {
							again <- struct{}{}
							defer func() { <-again }()
							waited = true
						}
						time.Sleep(100 * time.Millisecond)
						continue
					}
					if err != nil || len(ws.GPUs) != 1 {
						t.Errorf("Launch %s: %+v, %v", name, ws, err)
						return
					}
					mu.Lock()
					if other := holds[ws.GPUs[0]]; other != "" {
						t.Errorf("card %s is held by run %s and given to %s", ws.GPUs[0], other, ws.RunID)
					}
					holds[ws.GPUs[0]] = ws.RunID
					mu.Unlock()
					time.Sleep(200 * time.Millisecond)
					for run, spec := range w.engine.Specs() {
						if run != ws.RunID && len(spec.GPUs) > 0 && spec.GPUs[0] == ws.GPUs[0] {
							t.Errorf("card %s is in the containers of runs %s and %s", ws.GPUs[0], run, ws.RunID)
						}
					}
					mu.Lock()
					delete(holds, ws.GPUs[0])
					served++
					mu.Unlock()
					if _, err := w.workspaces.Stop(w.t.Context(), who, ws.ID); err != nil {
						t.Errorf("Stop %s: %v", name, err)
					}
					return
				}
			})
		}
		crowd.Wait()
		if served != launches {
			t.Errorf("%d had a card, want %d", served, launches)
		}
		w.wantClean()
	})
}

// TestStopWhileTheEngineIsAway: the caller is told at once, the card stays
// with the run for as long as its container may live, and the stop happens
// when it can.
func TestStopWhileTheEngineIsAway(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		ws := w.launch(w.alice, "one", "gpu")
		w.engine.SetDown(true)
		begin := time.Now()
		_, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
		wantKind(t, "Stop", err, bailey.Unavailable, "container engine does not answer")
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %s to say so", took)
		}
		time.Sleep(time.Hour)
		if now := w.get(ws.ID); now.State != bailey.Stopping || len(w.leases()) != 1 {
			t.Errorf("meanwhile it is %s with leases %v, want it stopping and holding its card", now.State, w.leases())
		}
		w.engine.SetDown(false)
		w.awaitState(ws.ID, bailey.Stopped)
		w.wantClean()
	})
}

// TestRemoveThatFails is tried again, and the card is not free before it worked.
func TestRemoveThatFails(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		ws := w.launch(w.alice, "one", "gpu")
		busy := errors.New("device or resource busy")
		w.engine.FailNext("Remove", busy, busy, busy)
		_, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
		wantKind(t, "Stop", err, bailey.Unavailable, "tried again")
		if strings.Contains(shown(err), "busy") {
			t.Errorf("a stranger reads the engine's words: %q", shown(err))
		}
		_, err = w.workspaces.Launch(t.Context(), w.bob, "two", "gpu")
		wantKind(t, "Launch of bob, who would get the card", err, bailey.OverQuota)
		w.awaitState(ws.ID, bailey.Stopped)
		w.launch(w.bob, "two", "gpu")
	})
}

func TestVolumes(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		id, ctx, s := ws.VolumeID, t.Context(), w.workspaces
		wantKind(t, "while it is used", s.DeleteVolume(ctx, w.alice, id, "one"), bailey.Conflict, "belongs to a workspace")
		if err := s.Delete(ctx, w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		none := s.DeleteVolume(ctx, w.bob, bailey.NewID(), "one")
		got := s.DeleteVolume(ctx, w.bob, id, "one")
		wantKind(t, "by bob", got, bailey.NotFound)
		if got.Error() != none.Error() {
			t.Errorf("bob is told %q, and %q of one that is not there", got, none)
		}
		wantKind(t, "without its name", s.DeleteVolume(ctx, w.alice, id, ""), bailey.Invalid, "type its name: one")
		wantKind(t, "with another name", s.DeleteVolume(ctx, w.alice, id, "two"), bailey.Invalid)
		w.journal.breakDown(true)
		wantKind(t, "without a journal", s.DeleteVolume(ctx, w.alice, id, "one"), bailey.Unavailable, "not deleted")
		w.journal.breakDown(false)
		w.engine.FailNext("RemoveVolume", engine.ErrUnavailable)
		wantKind(t, "without an engine", s.DeleteVolume(ctx, w.alice, id, "one"), bailey.Unavailable, "engine")
		if _, ok := w.engine.Volumes()[id]; !ok {
			t.Fatal("the volume is gone although no deletion worked")
		}
		if err := s.DeleteVolume(ctx, w.alice, id, "one"); err != nil {
			t.Fatalf("DeleteVolume: %v", err)
		}
		if _, ok := w.engine.Volumes()[id]; ok {
			t.Error("its files are still there")
		}
		if got := w.journal.last(audit.VolumeDelete); got != "success by_user by alice" {
			t.Errorf("journal: %s", got)
		}
		wantKind(t, "once more", s.DeleteVolume(ctx, w.alice, id, "one"), bailey.NotFound)
		if again := w.launch(w.alice, "one", "small"); again.VolumeID == id {
			t.Error("a new workspace has the deleted volume")
		}
	})
}

// TestVolumeOnItsWayOut is not taken over by a new workspace of its name.
func TestVolumeOnItsWayOut(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		if err := w.workspaces.Delete(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		w.engine.Delay("RemoveVolume", time.Minute)
		var both sync.WaitGroup
		both.Go(func() {
			if err := w.workspaces.DeleteVolume(w.t.Context(), w.alice, ws.VolumeID, "one"); err != nil {
				t.Errorf("DeleteVolume: %v", err)
			}
		})
		both.Go(func() {
			time.Sleep(time.Second)
			again, err := w.workspaces.Launch(w.t.Context(), w.alice, "one", "small")
			if err != nil || again.VolumeID == ws.VolumeID {
				t.Errorf("Launch meanwhile: %+v, %v; want a volume of its own", again, err)
			}
		})
		both.Wait()
	})
}

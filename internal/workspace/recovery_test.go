package workspace_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/workspace"
)

// TestServerKilledInEachStage: whatever a launch was waiting for when its
// server died, the next server serves the workspace, from one container, and
// the journal has the launch.
func TestServerKilledInEachStage(t *testing.T) {
	for _, at := range []string{"Image", "EnsureVolume", "Create", "Inspect", "Start", "Verify", "Dial", "jupyter", "Exec"} {
		t.Run(at, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				w.cards.n.Store(1)
				created, err := w.workspaces.Create(t.Context(), w.alice, "one", "gpu")
				if err != nil {
					t.Fatal(err)
				}
				if at == "jupyter" {
					w.inside.set(func(in *inside) { in.mute = true })
				} else {
					w.engine.Delay(at, 5*time.Second)
				}
				ws, err := w.workspaces.Start(t.Context(), w.alice, created.ID)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				w.stop()
				if now := w.get(ws.ID); now.State != bailey.Starting && (at != "Exec" || now.State != bailey.Running) || now.Wanted != bailey.Running {
					t.Errorf("what the server left is %s, wanted %s (%q)", now.State, now.Wanted, now.Reason)
				}
				w.engine.Delay(at, 0)
				w.inside.set(func(in *inside) { in.mute = false })
				w.serve()
				w.awaitState(ws.ID, bailey.Running)
				w.await(func() bool { return w.get(ws.ID).SelfCheck != "" }, func() string { return "there is no self check" })
				if c := w.containers(); len(c) != 1 || c[0].Run != ws.RunID || !c[0].Running {
					t.Errorf("containers: %+v, want one that runs %s", c, ws.RunID)
				}
				route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
				if err != nil {
					t.Fatalf("Route: %v", err)
				}
				if got, err := w.ask(route, "/whoami"); got != "200 alice in run "+ws.RunID {
					t.Errorf("through the route: %q, %v", got, err)
				}
				if n := len(w.leases()); n != 1 {
					t.Errorf("%d leases, want 1", n)
				}
				if got := w.journal.has(audit.LaunchFailed); len(got) != 0 {
					t.Errorf("journal: %+v", got)
				}
			})
		})
	}
}

// TestKilledBeforeTheJournal: a run that is in the store, because its server
// died before it wrote to the journal, is in the journal before anything starts.
func TestKilledBeforeTheJournal(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		w.stop()
		class, _ := w.settings.Class("small")
		run, err := w.store.BeginRun(t.Context(), bailey.RunRequest{WorkspaceID: ws.ID, Run: bailey.Run{
			ID: bailey.NewID(), Class: class, Digest: class.Digest, Token: strings.Repeat("t", 43),
		}})
		if err != nil {
			t.Fatal(err)
		}
		w.journal.breakDown(true)
		w.serve()
		time.Sleep(5 * time.Minute)
		if n := w.engine.Calls("Create"); n != 0 {
			t.Fatalf("%d containers were made while the journal cannot be written", n)
		}
		w.journal.breakDown(false)
		w.awaitState(ws.ID, bailey.Running)
		launches := w.journal.has(audit.Launch)
		if len(launches) != 1 || launches[0].Attrs.Run != run.ID || launches[0].Actor.Name != "bailey" || w.journal.createsAt[run.ID] != 0 {
			t.Errorf("journal: %+v (containers before: %d), want one launch by bailey, first", launches, w.journal.createsAt[run.ID])
		}
	})
}

// TestRestart: a new server serves what the old one left running, without
// touching it, even if the configuration has changed since.
func TestRestart(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		before := w.containers()[0]
		creates, starts := w.engine.Calls("Create"), w.engine.Calls("Start")
		old, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		w.env = map[string]string{"JUPYTERHUB_USER_URL": "https://example.net"}
		w.settings.change("small", func(c *bailey.Class) { c.MemoryBytes, c.Digest = 1<<30, "" })
		w.restart()
		time.Sleep(10 * time.Minute) // long enough for a verification by the clock
		synctest.Wait()
		if now := w.get(ws.ID); now.State != bailey.Running || now.RunID != ws.RunID {
			t.Fatalf("workspace = %+v", now)
		}
		if after := w.containers()[0]; after.ID != before.ID || !after.StartedAt.Equal(before.StartedAt) ||
			w.engine.Calls("Create") != creates || w.engine.Calls("Start") != starts {
			t.Errorf("container was %+v and is %+v", before, after)
		}
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatalf("Route: %v", err)
		}
		if route.Token != old.Token {
			t.Error("the route has another token")
		}
		if got, err := w.ask(route, "/whoami"); got != "200 alice in run "+ws.RunID {
			t.Errorf("through the route: %q, %v", got, err)
		}
	})
}

// TestHostRebooted: containers that were running when the machine went down
// are wanted running, so they run again.
func TestHostRebooted(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		ws := w.launch(w.alice, "one", "gpu")
		w.stop()
		w.engine.Kill(ws.RunID, 0) // dockerd asks them to end, and they do so in good order
		w.serve()
		w.await(func() bool { now := w.get(ws.ID); return now.State == bailey.Running && now.RunID != ws.RunID }, func() string {
			return "it is " + string(w.get(ws.ID).State)
		})
		if c, l := w.containers(), w.leases(); len(c) != 1 || len(l) != 1 {
			t.Errorf("containers %v, leases %v; want one of each", c, l)
		}
	})
}

// TestEngineAwayDuringLaunch: a daemon that goes away in any stage and comes
// back soon costs time and nothing else.
func TestEngineAwayDuringLaunch(t *testing.T) {
	for _, at := range []string{"EnsureVolume", "Create", "Inspect", "Start", "Verify", "jupyter"} {
		t.Run(at, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				if at == "jupyter" {
					w.inside.set(func(in *inside) { in.mute = true })
				} else {
					w.engine.Delay(at, time.Second)
				}
				ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "small")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(500 * time.Millisecond)
				w.engine.SetDown(true)
				w.engine.Delay(at, 0)
				w.engine.Kill(ws.RunID, 137) // kill -9 of a daemon without live-restore
				time.Sleep(20 * time.Second)
				w.inside.set(func(in *inside) { in.mute = false })
				if now := w.get(ws.ID); now.State != bailey.Starting {
					t.Errorf("while the engine is away it is %s (%q), want it starting", now.State, now.Reason)
				}
				w.engine.SetDown(false)
				now := w.awaitState(ws.ID, bailey.Running)
				if now.RunID != ws.RunID {
					t.Errorf("it is run %s now, want %s", now.RunID, ws.RunID)
				}
				if c := w.containers(); len(c) != 1 {
					t.Errorf("containers: %+v", c)
				}
			})
		})
	}
}

// TestEngineStaysAway: a launch that cannot go on says so, and is cleared away
// when the engine is back. Until then its card belongs to it, because the
// container may be running.
func TestEngineStaysAway(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		w.engine.Delay("Start", time.Second)
		ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "gpu")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		w.engine.SetDown(true)
		time.Sleep(2 * time.Minute)
		const reason = "the container engine stopped answering and did not come back within 1 min"
		if now := w.get(ws.ID); now.State != bailey.Stopping || now.Reason != reason || len(w.leases()) != 1 {
			t.Errorf("after its time it is %s (%q) with leases %v", now.State, now.Reason, w.leases())
		}
		w.engine.SetDown(false)
		if now := w.awaitState(ws.ID, bailey.Failed); now.Reason != reason {
			t.Errorf("reason %q", now.Reason)
		}
		w.wantClean()
		if got := w.journal.last(audit.LaunchFailed); got != "failure engine_failed by bailey" {
			t.Errorf("journal: %s", got)
		}
	})
}

// TestEngineAwayWhileRunning: nothing is changed, nothing is lost.
func TestEngineAwayWhileRunning(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		w.engine.SetDown(true)
		time.Sleep(time.Hour)
		if now := w.get(ws.ID); now.State != bailey.Running || now.RunID != ws.RunID {
			t.Fatalf("workspace = %+v", now)
		}
		_, err = route.Dial(t.Context(), "tcp", "127.0.0.1:8888")
		wantKind(t, "Dial", err, bailey.Unavailable, "engine does not answer")
		_, err = w.workspaces.Launch(t.Context(), w.bob, "two", "small")
		wantKind(t, "Launch", err, bailey.Unavailable, "engine does not answer")

		// A server that starts meanwhile knows of it and serves it later.
		w.restart()
		time.Sleep(time.Minute)
		_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		wantKind(t, "Route on a new server", err, bailey.Unavailable, "engine does not answer")
		w.engine.SetDown(false)
		w.await(func() bool { _, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug); return err == nil }, func() string { return err.Error() })
		if now := w.get(ws.ID); now.RunID != ws.RunID {
			t.Errorf("it is run %s now, want %s", now.RunID, ws.RunID)
		}
	})
}

// TestEndsByItself: what was up and ends is up again, three times in ten
// minutes, and then it stays down and says why.
func TestEndsByItself(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(1)
		ws := w.launch(w.alice, "one", "gpu")
		runs := map[string]bool{ws.RunID: true}
		for range 3 {
			w.engine.Kill(ws.RunID, 139)
			w.await(func() bool { now := w.get(ws.ID); return now.State == bailey.Running && now.RunID != ws.RunID }, func() string {
				return "it is not running again"
			})
			ws = w.get(ws.ID)
			runs[ws.RunID] = true
			time.Sleep(time.Minute)
		}
		if len(runs) != 4 {
			t.Errorf("there were %d runs, want 4", len(runs))
		}
		if got := w.journal.last(audit.Launch); got != "success  by bailey" {
			t.Errorf("journal: %q, want a launch by bailey", got)
		}
		if got := w.journal.last(audit.Stop); got != "failure exited by bailey" {
			t.Errorf("journal: %q", got)
		}
		w.engine.Kill(ws.RunID, 139)
		failed := w.awaitState(ws.ID, bailey.Failed)
		for _, words := range []string{"exit code 139", "3 times within 10 min", "stays down"} {
			if !strings.Contains(failed.Reason, words) {
				t.Errorf("reason %q does not say %q", failed.Reason, words)
			}
		}
		w.wantClean()
		// The owner may start it, and after a while it is trusted again.
		time.Sleep(10 * time.Minute)
		ws = w.launch(w.alice, "one", "")
		w.engine.Kill(ws.RunID, 1)
		w.await(func() bool { now := w.get(ws.ID); return now.State == bailey.Running && now.RunID != ws.RunID }, func() string {
			return "it is not running again"
		})
	})
}

func TestOutOfMemoryWhileRunning(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.engine.SetLogs(ws.RunID, "Killed\n")
		w.engine.OOM(ws.RunID)
		w.await(func() bool { return w.get(ws.ID).RunID != ws.RunID }, func() string { return "it is not started again" })
		run, err := w.store.Run(t.Context(), ws.RunID)
		if err != nil || !strings.Contains(run.EndReason, "ran out of memory: class small gives 2 GiB") {
			t.Errorf("end reason %q, %v", run.EndReason, err)
		}
		if got := w.journal.last(audit.Stop); got != "failure out_of_memory by bailey" {
			t.Errorf("journal: %q", got)
		}
	})
}

// TestContainerRemovedByHand is an end by itself.
func TestContainerRemovedByHand(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.engine.DropEvents(10) // and nobody tells us
		w.engine.Vanish(ws.RunID)
		w.await(func() bool { now := w.get(ws.ID); return now.State == bailey.Running && now.RunID != ws.RunID }, func() string {
			return "it is not running again"
		})
		if run, err := w.store.Run(t.Context(), ws.RunID); err != nil || run.EndReason != "its container is gone" {
			t.Errorf("end reason %q, %v", run.EndReason, err)
		}
	})
}

// TestNoRestartForTheUnwelcome: what the owner may not start any more, bailey
// does not start in their name.
func TestNoRestartForTheUnwelcome(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.bob, "one", "small")
		w.settings.change("small", func(c *bailey.Class) { c.Groups = []string{"research"} })
		w.engine.Kill(ws.RunID, 1)
		w.awaitState(ws.ID, bailey.Failed)
		time.Sleep(time.Minute)
		w.wantClean()

		other := w.launch(w.alice, "one", "small")
		u, err := w.store.UserByID(t.Context(), w.alice.UserID)
		if err != nil {
			t.Fatal(err)
		}
		u.Disabled = true
		if err := w.store.UpdateUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		w.engine.Kill(other.RunID, 1)
		w.awaitState(other.ID, bailey.Failed)
		time.Sleep(time.Minute)
		w.wantClean()
	})
}

// TestStopBeatsRestart: a workspace that ends by itself while it is being
// stopped has stopped.
func TestStopBeatsRestart(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.engine.Delay("Inspect", time.Second)
		w.engine.Kill(ws.RunID, 1)
		time.Sleep(500 * time.Millisecond) // its keeper is looking what happened
		got, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID)
		if err != nil || got.State != bailey.Stopped || got.Reason != "stopped by its owner" {
			t.Errorf("Stop = %+v, %v", got, err)
		}
		w.engine.Delay("Inspect", 0)
		time.Sleep(time.Minute)
		w.wantClean()
	})
}

// TestVerifiedByTheClock: a container that stops being what it was is stopped
// within five minutes.
func TestVerifiedByTheClock(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		w.engine.Tamper(ws.RunID, engine.Finding{Control: "memory", Want: "2147483648", Got: "max"})
		w.journal.breakDown(true) // not even then is it served on
		select {
		case <-route.Done():
		case <-time.After(6 * time.Minute):
			t.Fatal("the route is still open after six minutes")
		}
		failed := w.awaitState(ws.ID, bailey.Failed)
		if failed.Reason != "its container does not match the strict profile: memory" {
			t.Errorf("reason %q", failed.Reason)
		}
		w.wantClean()
	})
}

// TestVerifiedAfterARestart: a container that was started again is not reached
// before it was looked at again, and Jupyter is back.
func TestVerifiedAfterARestart(t *testing.T) {
	for _, told := range []string{"by an event", "by nobody"} {
		t.Run(told, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				ws := w.launch(w.alice, "one", "small")
				route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				verified := w.engine.Calls("Verify")
				w.inside.set(func(in *inside) { in.mute = true })
				if told == "by nobody" {
					w.engine.DropEvents(10)
				}
				w.engine.Restart(ws.RunID)
				_, err = route.Dial(t.Context(), "tcp", "127.0.0.1:8888")
				wantKind(t, "Dial by the old route", err, bailey.Unavailable, "started again")
				time.Sleep(10 * time.Second)
				_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
				wantKind(t, "Route before Jupyter is back", err, bailey.Unavailable)
				w.inside.set(func(in *inside) { in.mute = false })
				w.await(func() bool { _, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug); return err == nil }, func() string { return err.Error() })
				if n := w.engine.Calls("Verify") - verified; n != 1 {
					t.Errorf("it was verified %d times since, want once", n)
				}
				if now := w.get(ws.ID); now.RunID != ws.RunID || now.State != bailey.Running {
					t.Errorf("workspace = %+v, want the same run", now)
				}
				select {
				case <-route.Done():
				default:
					t.Error("the old route is not done")
				}

				// And if what came back is not what it should be, it is not served.
				w.engine.Tamper(ws.RunID, engine.Finding{Control: "seccomp"})
				w.engine.Restart(ws.RunID)
				w.awaitState(ws.ID, bailey.Failed)
				if got := w.journal.last(audit.VerifyFailed); got != "failure mismatch by bailey" {
					t.Errorf("journal: %s", got)
				}
				w.wantClean()
			})
		})
	}
}

// TestRestartedWithoutJupyter: a container that came back empty is started anew.
func TestRestartedWithoutJupyter(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		time.Sleep(time.Second) // one start is told from the next by its time
		w.inside.set(func(in *inside) { in.mute = true })
		w.engine.Restart(ws.RunID)
		w.await(func() bool { return w.get(ws.ID).RunID != ws.RunID }, func() string { return "it is the same run" })
		w.inside.set(func(in *inside) { in.mute = false })
		w.awaitState(ws.ID, bailey.Running)
		if run, err := w.store.Run(t.Context(), ws.RunID); err != nil || !strings.Contains(run.EndReason, "Jupyter did not come back") {
			t.Errorf("end reason %q, %v", run.EndReason, err)
		}
	})
}

// TestOrphans are shown and reported once, and left alone. Containers of
// another installation are not even seen.
func TestOrphans(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		spec := w.engine.Specs()[ws.RunID]
		spec.Run, spec.Workspace = bailey.NewID(), bailey.NewID()
		orphan, err := w.engine.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.engine.Start(t.Context(), orphan); err != nil {
			t.Fatal(err)
		}
		other := w.engine.Other()
		spec.Run = bailey.NewID()
		foreign, err := other.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(10 * time.Minute)
			if got, err := w.workspaces.Orphans(t.Context(), w.root); err != nil || len(got) != 1 || got[0].Container != orphan || !got[0].Running {
				t.Fatalf("Orphans = %+v, %v; want %s, running", got, err, orphan)
			}
		}
		if got := w.journal.has(audit.OrphanFound); len(got) != 1 || got[0].Attrs.Run == "" {
			t.Errorf("journal: %+v, want it once", got)
		}
		if _, err := other.Inspect(t.Context(), foreign); err != nil {
			t.Errorf("the other installation's container: %v", err)
		}
		if _, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		if c := w.containers(); len(c) != 1 || c[0].ID != orphan {
			t.Errorf("containers: %+v, want the orphan", c)
		}
	})
}

// TestRunTwice: a Service has one life.
func TestRunTwice(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		synctest.Wait()
		if err := w.workspaces.Run(t.Context()); err == nil {
			t.Error("Run a second time: no error")
		}
	})
}

// TestDrain: those who wait when the server stops are told, and what they
// asked for is done by the next server.
func TestDrain(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.engine.Delay("Stop", time.Minute)
		asked := make(chan error, 1)
		go func(ctx context.Context) {
			_, err := w.workspaces.Stop(ctx, w.alice, ws.ID)
			asked <- err
		}(t.Context())
		time.Sleep(time.Second)
		begin := time.Now()
		w.stop()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the server took %s to stop", took)
		}
		wantKind(t, "Stop", <-asked, bailey.Unavailable, "server is stopping")
		w.engine.Delay("Stop", 0)
		w.serve()
		w.awaitState(ws.ID, bailey.Stopped)
		w.wantClean()
	})
}

// TestStoreDown: a database that does not answer takes nobody's workspace away.
func TestStoreDown(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		synctest.Wait()
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug); err != nil {
			t.Errorf("without a store a running workspace is served on, but: %v", err)
		}
		if c := w.containers(); len(c) != 1 || !c[0].Running {
			t.Errorf("containers: %+v, want the one that runs", c)
		}
	})
}

// A damagedStore is one in which the token of a run does not open.
type damagedStore struct {
	*store.Store
	run string
}

func (d damagedStore) Run(ctx context.Context, id string) (bailey.Run, error) {
	if id == d.run {
		return bailey.Run{}, errors.New("token of run: message authentication failed")
	}
	return d.Store.Run(ctx, id)
}

func (d damagedStore) OpenRuns(ctx context.Context) ([]bailey.Run, error) {
	runs, err := d.Store.OpenRuns(ctx)
	for i := range runs {
		if runs[i].ID == d.run {
			runs[i].Token = ""
		}
	}
	return runs, err
}

// TestDamagedRun: a run whose token cannot be read any more is ended, and
// stands in nobody's way, least of all its owner's.
func TestDamagedRun(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		hers, his := w.launch(w.alice, "one", "small"), w.launch(w.bob, "one", "small")
		w.wrap = func(s *store.Store) workspace.Store { return damagedStore{s, hers.RunID} }
		w.restart()
		if now := w.awaitState(hers.ID, bailey.Failed); !strings.Contains(now.Reason, "damaged") {
			t.Errorf("reason %q", now.Reason)
		}
		if now := w.launch(w.alice, "one", ""); now.RunID == hers.RunID {
			t.Error("the damaged run goes on")
		}
		if now := w.get(his.ID); now.State != bailey.Running || now.RunID != his.RunID {
			t.Errorf("bob's is %+v", now)
		}
	})
}

// TestAnotherServer: what another server writes into the store is seen, and
// two servers that look after the same runs do not undo each other's work.
func TestAnotherServer(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(2)
		one := w.workspaces
		stopOne := w.stop
		ws := w.launch(w.alice, "one", "gpu")
		if err := w.store.MarkStopping(t.Context(), ws.ID, "stopped elsewhere"); err != nil {
			t.Fatal(err)
		}
		if now := w.awaitState(ws.ID, bailey.Stopped); now.Reason != "stopped elsewhere" {
			t.Errorf("reason %q", now.Reason)
		}
		w.serve()
		two := w.workspaces
		defer stopOne()
		servers := []*workspace.Service{one, two}
		rng := rand.New(rand.NewPCG(3, 4))
		for range 20 {
			if _, err := servers[rng.IntN(2)].Launch(t.Context(), w.alice, "one", ""); err != nil {
				t.Fatalf("Launch: %v", err)
			}
			time.Sleep(time.Duration(rng.IntN(15000)) * time.Millisecond)
			if rng.IntN(3) == 0 {
				w.engine.Kill(w.get(ws.ID).RunID, 1)
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
			}
			got, err := servers[rng.IntN(2)].Stop(t.Context(), w.alice, ws.ID)
			if err != nil || got.State == bailey.Running {
				t.Fatalf("Stop: %+v, %v", got, err)
			}
		}
		time.Sleep(time.Minute)
		if now := w.get(ws.ID); now.State != bailey.Stopped && now.State != bailey.Failed {
			t.Errorf("at the end it is %s", now.State)
		}
		w.wantClean()
	})
}

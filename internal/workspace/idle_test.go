package workspace_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

// wantRunning and wantIdle look at a workspace after some time.
func (w *world) wantAfter(d time.Duration, id string, want bailey.State) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if now := w.get(id); now.State != want {
		w.t.Errorf("after %s more it is %s (%q), want %s", d, now.State, now.Reason, want)
	}
}

func TestIdleStop(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		w.wantAfter(time.Hour+59*time.Minute, ws.ID, bailey.Running)
		w.wantAfter(2*time.Minute, ws.ID, bailey.Stopped)
		if got := w.get(ws.ID).Reason; got != "idle for 2 h" {
			t.Errorf("reason %q", got)
		}
		if got := w.journal.last(audit.Stop); got != "success idle by bailey" {
			t.Errorf("journal: %s", got)
		}
		if n := w.inside.count("/api/kernels"); n != 1 {
			t.Errorf("Jupyter was asked for its kernels %d times in two hours, want once", n)
		}
		w.wantClean()
	})
}

func TestNoIdleRuleNoIdleStop(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		t := w.t
		w.settings.change("small", func(c *bailey.Class) { c.IdleStop = 0 })
		ws := w.launch(w.alice, "one", "small")
		w.wantAfter(3*24*time.Hour, ws.ID, bailey.Running)
		if n := w.inside.count("/api/kernels"); n != 0 {
			t.Errorf("Jupyter was asked %d times, for nothing", n)
		}
	})
}

// TestTouchKeepsItUp, and nobody's touch reaches another workspace.
func TestTouchKeepsItUp(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		t := w.t
		hers, his := w.launch(w.alice, "one", "small"), w.launch(w.bob, "one", "small")
		for range 20 {
			time.Sleep(time.Hour)
			w.workspaces.Touch(hers.ID)
		}
		w.workspaces.Touch("no such workspace")
		synctest.Wait()
		if now := w.get(his.ID); now.State != bailey.Stopped {
			t.Errorf("bob's is %s: alice's typing kept it up", now.State)
		}
		w.wantAfter(11*time.Minute, hers.ID, bailey.Running) // it is written down every ten
		if at := w.get(hers.ID).ActiveAt; w.now().Sub(at) != 11*time.Minute {
			t.Errorf("activity in the store is of %s ago", w.now().Sub(at))
		}
		w.wantAfter(2*time.Hour, hers.ID, bailey.Stopped)
	})
}

// TestBusyKernel: what computes is not idle, and the time counts from when it
// was last seen computing.
func TestBusyKernel(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		t := w.t
		kernel := func(state string, last time.Time) string {
			return fmt.Sprintf(`[{"id":"a","name":"python3","last_activity":"1999-01-01T00:00:00.000000Z","execution_state":"idle","connections":1},
				{"id":"b","name":"python3","last_activity":%q,"execution_state":%q,"connections":0}]`, last.UTC().Format(time.RFC3339Nano), state)
		}
		w.inside.set(func(in *inside) { in.kernel = kernel("busy", w.now()) })
		ws := w.launch(w.alice, "one", "small")
		w.wantAfter(10*time.Hour, ws.ID, bailey.Running)
		if n := w.inside.count("/api/kernels"); n > 60 {
			t.Errorf("Jupyter was asked %d times in ten hours", n)
		}
		w.inside.set(func(in *inside) { in.kernel = kernel("idle", w.now()) })
		w.wantAfter(time.Hour+45*time.Minute, ws.ID, bailey.Running)
		w.wantAfter(30*time.Minute, ws.ID, bailey.Stopped)
	})
}

// TestKernelThatJustFinished: a cell that ran for two hours and ended a minute
// before the look was activity of a minute ago.
func TestKernelThatJustFinished(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		ws := w.launch(w.alice, "one", "small")
		ended := w.now().Add(time.Hour + 59*time.Minute)
		w.inside.set(func(in *inside) {
			in.kernel = fmt.Sprintf(`[{"execution_state":"idle","last_activity":%q}]`, ended.UTC().Format(time.RFC3339Nano))
		})
		w.wantAfter(3*time.Hour+58*time.Minute, ws.ID, bailey.Running)
		w.wantAfter(3*time.Minute, ws.ID, bailey.Stopped)
	})
}

// TestTrainingInATerminal: no kernel is busy, nobody types, but a process
// computes. That is why people have the machine.
func TestTrainingInATerminal(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		ws := w.launch(w.alice, "one", "small")
		begin := time.Now()
		computing := true
		ticks := time.NewTicker(10 * time.Second)
		done := make(chan struct{})
		go func() { // one core while it trains, 1 % of one afterwards: open pages poll
			defer close(done)
			var used time.Duration
			for range ticks.C {
				if computing {
					used += 10 * time.Second
				} else {
					used += 100 * time.Millisecond
				}
				if !w.engine.SetUsage(ws.RunID, engine.Usage{CPUNanos: uint64(used)}) { // positive
					return
				}
				computing = time.Since(begin) < 9*time.Hour
			}
		}()
		w.wantAfter(10*time.Hour, ws.ID, bailey.Running)
		w.wantAfter(2*time.Hour, ws.ID, bailey.Stopped)
		<-done
	})
}

// TestFinalLook: somebody who comes back at the last moment keeps it, and one
// whose state cannot be known is not stopped.
func TestFinalLook(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		ws := w.launch(w.alice, "one", "small")
		w.engine.Delay("Stats", time.Second) // the look takes a while
		time.Sleep(2*time.Hour + 500*time.Millisecond)
		w.workspaces.Touch(ws.ID)
		w.engine.Delay("Stats", 0)
		w.wantAfter(time.Hour, ws.ID, bailey.Running)

		w.inside.set(func(in *inside) { in.mute = true })
		w.wantAfter(90*time.Minute, ws.ID, bailey.Running) // idle, but mute for half an hour
		w.inside.set(func(in *inside) { in.mute, in.kernel = false, `{"message":"what?"}` })
		w.wantAfter(20*time.Minute, ws.ID, bailey.Running)
		w.wantAfter(time.Hour, ws.ID, bailey.Stopped) // mute for more than an hour
	})
}

// TestFullDiskAtIdleStop: what cannot be recorded is not done.
func TestUnwritableJournalStopsNoIdleWorkspace(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		ws := w.launch(w.alice, "one", "small")
		w.journal.breakDown(true)
		w.wantAfter(5*time.Hour, ws.ID, bailey.Running)
		w.journal.breakDown(false)
		w.wantAfter(5*time.Minute, ws.ID, bailey.Stopped)
	})
}

// TestClockJumps: a wall clock that is put right, by days in either direction,
// stops nobody's work, and does not keep anything up for ever either.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{40 * 24 * time.Hour, -40 * 24 * time.Hour, 3 * time.Hour, -3 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			inASlowWorld(t, func(w *world) {
				ws := w.launch(w.alice, "one", "small")
				time.Sleep(time.Hour)
				w.workspaces.Touch(ws.ID)
				time.Sleep(time.Minute)
				w.jump.Store(int64(jump))
				w.wantAfter(time.Hour+55*time.Minute, ws.ID, bailey.Running)
				// A clock put back may cost as much again, and no more.
				w.wantAfter(2*time.Hour+10*time.Minute, ws.ID, bailey.Stopped)
			})
		})
	}
}

// TestIdleAfterARestart: a server that has just started has seen nothing yet,
// so it stops nobody, however old the last activity is in the store.
func TestIdleAfterARestart(t *testing.T) {
	inASlowWorld(t, func(w *world) {
		ws := w.launch(w.alice, "one", "small")
		w.wantAfter(time.Hour, ws.ID, bailey.Running)
		w.stop()
		time.Sleep(24 * time.Hour)
		w.serve()
		w.wantAfter(time.Hour+59*time.Minute, ws.ID, bailey.Running)
		w.wantAfter(2*time.Minute, ws.ID, bailey.Stopped)
	})
}

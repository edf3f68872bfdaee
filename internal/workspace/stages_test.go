package workspace_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// TestFollow: a slow reader gets every stage once, in order, also of what
// happened before it came.
func TestFollow(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stages, err := w.workspaces.Follow(ctx, w.alice, ws.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.launch(w.alice, "one", "")
			time.Sleep(time.Second)
			if _, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil {
				t.Fatal(err)
			}
		}
		want := w.stages(ws.ID)
		var got []string
		var seqs []int64
		for len(got) < len(want) {
			st := <-stages
			got, seqs = append(got, st.Name+" "+st.Status), append(seqs, st.Seq)
			time.Sleep(100 * time.Millisecond)
		}
		if diff := cmp.Diff(want, got); diff != "" || !slices.IsSorted(seqs) {
			t.Errorf("stages (-want +got), seqs %v:\n%s", seqs, diff)
		}
		// Later ones, from a place in the middle.
		late, err := w.workspaces.Follow(ctx, w.root, ws.ID, seqs[9])
		if err != nil {
			t.Fatal(err)
		}
		if st := <-late; st.Seq != seqs[10] {
			t.Errorf("after %d comes %d, want %d", seqs[9], st.Seq, seqs[10])
		}
		cancel()
		for range stages { // until it is closed
		}
		for range late { // until it is closed
		}
	})
}

// TestFollowEnds when the workspace is gone, and when the server stops.
func TestFollowEnds(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		one, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		two, err := w.workspaces.Create(t.Context(), w.alice, "two", "small")
		if err != nil {
			t.Fatal(err)
		}
		follow := func(ws bailey.Workspace) <-chan bailey.Stage {
			c, err := w.workspaces.Follow(t.Context(), w.alice, ws.ID, 0)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		gone, open := follow(one), follow(two)
		if err := w.workspaces.Delete(t.Context(), w.alice, one.ID); err != nil {
			t.Fatal(err)
		}
		if st, ok := <-gone; ok {
			t.Errorf("a deleted workspace has stage %+v", st)
		}
		w.stop()
		if st, ok := <-open; ok {
			t.Errorf("after the server stopped comes stage %+v", st)
		}
	})
}

// TestKilledProcess: a kernel that died for want of memory has a reason that
// the owner can read, once in a while.
func TestKilledProcess(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "secret")
		for range 50 {
			w.oom(ws.RunID)
			time.Sleep(time.Second)
		}
		n := 0
		for _, st := range w.stages(ws.ID) {
			if st == "memory failed" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("fifty kills in a minute are shown %d times, want once", n)
		}
		if now := w.get(ws.ID); now.State != bailey.Running {
			t.Errorf("it is %s", now.State)
		}
	})
}

// oom makes the engine tell of a killed process in a container that runs on.
func (w *world) oom(run string) {
	w.t.Helper()
	for _, st := range w.containers() {
		if st.Run == run {
			w.events <- engine.Event{Run: run, ID: st.ID, Action: "oom"}
			return
		}
	}
	w.t.Fatalf("there is no container of run %s", run)
}

// TestStagesAreKept in bounded number, whatever somebody does all day.
func TestManyLaunches(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		var last string
		for i := range 15 {
			ws := w.launch(w.alice, "one", "small")
			if _, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			last = ws.ID
		}
		if n := len(w.stages(last)); n > 200 {
			t.Errorf("%d stages are kept", n)
		}
		if n := len(w.engine.Volumes()); n != 1 {
			t.Error(fmt.Sprint(n, " volumes, want 1"))
		}
	})
}

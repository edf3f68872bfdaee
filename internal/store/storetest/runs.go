package storetest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

func runs() []story {
	return []story{
		{"ARunFromStartToStop", runLife},
		{"ARunThatFails", runFails},
		{"AStopDuringTheLaunchIsNotForgotten", stopDuringLaunch},
		{"TheEndIsTheEnd", endIsTheEnd},
		{"QuotaOfAUser", userQuota},
		{"QuotaOfAGroup", groupQuota},
		{"GPUsInOrder", gpusInOrder},
		{"ADisabledAccountStartsNothing", disabledOwner},
		{"OldRunsAreForgotten", oldRuns},
	}
}

func runLife(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	class := small(2)
	rq := request(a, class)
	began := w.clock.move(time.Minute)
	run, err := w.BeginRun(ctx, rq)
	w.must(err)
	want := bailey.Run{
		ID: rq.Run.ID, WorkspaceID: a.ID, OwnerID: alice.ID, UID: alice.UID, VolumeID: a.VolumeID, Class: class,
		Digest: "sha256:abc", Token: rq.Run.Token, GPUs: cards(2), CreatedAt: began,
	}
	read, err := w.Run(ctx, run.ID)
	w.must(err)
	for _, got := range []bailey.Run{run, read} {
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("run differs (-want +got):\n%s", diff)
		}
	}
	wantWS := a
	wantWS.State, wantWS.Wanted, wantWS.RunID, wantWS.StartedAt, wantWS.ActiveAt = bailey.Starting, bailey.Running, run.ID, began, began
	wantWS.GPUs = cards(2)
	check := func(when string) {
		w.Helper()
		if diff := cmp.Diff(wantWS, w.get(a)); diff != "" {
			w.Errorf("workspace %s differs (-want +got):\n%s", when, diff)
		}
	}
	check("after BeginRun")
	busy := func(when string) {
		w.Helper()
		w.refused(second(w.BeginRun(ctx, request(a, small(0)))), bailey.Conflict, when)
		w.refused(w.DeleteWorkspace(ctx, a.ID), bailey.Conflict, when)
	}
	busy("starting")

	w.must(w.SetContainer(ctx, run.ID, "c1"))
	ready := w.clock.move(time.Second)
	w.must(w.MarkReady(ctx, run.ID, ready))
	w.clock.move(time.Second)
	w.must(w.MarkReady(ctx, run.ID, w.clock.Now())) // again, by a reconciler
	w.must(w.SetSelfCheck(ctx, run.ID, "torch sees 2 GPUs"))
	wantWS.State, wantWS.ActiveAt, wantWS.SelfCheck = bailey.Running, ready, "torch sees 2 GPUs"
	check("after MarkReady")
	busy("running")
	leases, err := w.Leases(ctx)
	w.must(err)
	var wantLeases []bailey.Lease
	for _, gpu := range cards(2) {
		wantLeases = append(wantLeases, bailey.Lease{GPU: gpu, RunID: run.ID, WorkspaceID: a.ID, OwnerID: alice.ID, Since: began})
	}
	if diff := cmp.Diff(wantLeases, leases); diff != "" {
		w.Errorf("Leases differ (-want +got):\n%s", diff)
	}

	w.must(w.MarkStopping(ctx, a.ID, "idle for 1 h"))
	wantWS.State, wantWS.Wanted, wantWS.Reason = bailey.Stopping, bailey.Stopped, "idle for 1 h"
	check("after MarkStopping")
	busy("stopping")

	ended := w.clock.move(time.Second)
	w.must(w.EndRun(ctx, run.ID, false, "stopped: idle for 1 h", ended))
	wantWS.State, wantWS.Reason, wantWS.StartedAt, wantWS.GPUs = bailey.Stopped, "stopped: idle for 1 h", time.Time{}, []string{}
	check("after EndRun")
	want.ContainerID, want.ReadyAt, want.EndedAt, want.EndReason = "c1", ready, ended, "stopped: idle for 1 h"
	if read, err = w.Run(ctx, run.ID); err != nil || !cmp.Equal(read, want) {
		w.Errorf("Run after its end: %v, differs (-want +got):\n%s", err, cmp.Diff(want, read))
	}
	if leases, err := w.Leases(ctx); err != nil || len(leases) != 0 {
		w.Errorf("Leases after the end = %v, %v; want none", leases, err)
	}
	if diff := cmp.Diff(b, w.get(b)); diff != "" {
		w.Errorf("alice's run changed bob's workspace (-want +got):\n%s", diff)
	}
	w.begin(a, 0)
}

func runFails(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	first, other := w.begin(a, 1), w.begin(b, 1)
	w.must(w.EndRun(ctx, first.ID, true, "out of memory", time.Time{}))
	if got := w.get(a); got.State != bailey.Failed || got.Wanted != bailey.Stopped || got.Reason != "out of memory" {
		w.Errorf("workspace = %+v, want it failed with the reason", got)
	}
	if run, err := w.Run(ctx, first.ID); err != nil || !run.EndedAt.Equal(w.clock.Now()) {
		w.Errorf("EndedAt = %v, %v; want now, %v", run.EndedAt, err, w.clock.Now())
	}
	if open, err := w.OpenRuns(ctx); err != nil || len(open) != 1 || open[0].ID != other.ID {
		w.Errorf("OpenRuns = %v, %v; want only bob's", open, err)
	}
	again := w.begin(a, 1)
	if got := w.get(a); got.State != bailey.Starting || got.Reason != "" || got.RunID != again.ID {
		w.Errorf("workspace = %+v, want it starting, without the old reason", got)
	}
	if again.GPUs[0] != first.GPUs[0] {
		w.Errorf("GPUs = %v, want %v back: nobody holds it", again.GPUs, first.GPUs)
	}
	rq := request(w.workspace(bob, "lab"), small(0))
	rq.Run.ID = first.ID
	w.refused(second(w.BeginRun(ctx, rq)), bailey.Conflict)
	rq.Run.ID = ""
	w.refused(second(w.BeginRun(ctx, rq)), bailey.Invalid)
	rq = request(bailey.Workspace{ID: "nothing"}, small(0))
	w.refused(second(w.BeginRun(ctx, rq)), bailey.NotFound)
	for _, err := range []error{
		second(w.Run(ctx, "nothing")), w.SetContainer(ctx, "nothing", "c"), w.MarkReady(ctx, "nothing", w.clock.Now()),
		w.EndRun(ctx, "nothing", false, "", w.clock.Now()), w.SetSelfCheck(ctx, "nothing", ""),
	} {
		w.refused(err, bailey.NotFound)
	}
}

func stopDuringLaunch(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	run, other := w.begin(a, 1), w.begin(b, 1)
	w.must(w.MarkStopping(ctx, a.ID, "stopped by alice"))
	w.refused(w.MarkReady(ctx, run.ID, w.clock.Now()), bailey.Conflict, "being stopped")
	if got := w.get(a); got.State != bailey.Stopping {
		w.Errorf("state = %s, want stopping", got.State)
	}
	w.must(w.MarkReady(ctx, other.ID, w.clock.Now()))
	w.end(run)
	w.refused(w.MarkReady(ctx, run.ID, w.clock.Now()), bailey.Conflict, "over")
	w.refused(w.SetContainer(ctx, run.ID, "c1"), bailey.Conflict, "over")
	if got := w.get(b); got.State != bailey.Running {
		w.Errorf("bob's state = %s, want running", got.State)
	}
}

func endIsTheEnd(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	w.must(w.MarkStopping(ctx, a.ID, "early")) // nothing runs: nothing to stop
	if diff := cmp.Diff(a, w.get(a)); diff != "" {
		w.Errorf("MarkStopping of a stopped workspace changed it (-want +got):\n%s", diff)
	}
	old := w.begin(a, 1)
	w.end(old)
	before := w.get(a)
	w.clock.move(time.Minute)
	w.must(w.EndRun(ctx, old.ID, true, "something else", w.clock.Now()))
	if diff := cmp.Diff(before, w.get(a)); diff != "" {
		w.Errorf("a second EndRun changed the workspace (-want +got):\n%s", diff)
	}

	// What is said about the old run does not touch the new one, nor bob's.
	fresh, bobs := w.begin(a, 1), w.begin(b, 1)
	w.must(w.EndRun(ctx, old.ID, true, "something else", w.clock.Now()))
	w.refused(w.MarkReady(ctx, old.ID, w.clock.Now()), bailey.Conflict)
	w.refused(w.SetSelfCheck(ctx, old.ID, "fine"), bailey.Conflict)
	if got := w.get(a); got.State != bailey.Starting || got.RunID != fresh.ID || got.SelfCheck != "" || len(got.GPUs) != 1 {
		w.Errorf("workspace = %+v, want the new run untouched", got)
	}
	leases, err := w.Leases(ctx)
	w.must(err)
	if len(leases) != 2 || leases[0].RunID != fresh.ID || leases[1].RunID != bobs.ID {
		w.Errorf("Leases = %v, want those of %s and %s", leases, fresh.ID, bobs.ID)
	}
	errs := together(10, func(i int) error {
		return w.EndRun(ctx, fresh.ID, i%2 == 0, strings.Repeat("x", i), w.clock.Now())
	})
	if n := w.succeeded(errs); n != 10 {
		w.Errorf("%d of 10 EndRuns succeeded, want all", n)
	}
	if leases, err := w.Leases(ctx); err != nil || len(leases) != 1 || leases[0].RunID != bobs.ID {
		w.Errorf("Leases = %v, %v; want only bob's", leases, err)
	}
}

func userQuota(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a := []bailey.Workspace{w.workspace(alice, "nb"), w.workspace(alice, "lab"), w.workspace(alice, "big")}
	bobs := w.workspace(bob, "secret-project")
	w.begin(bobs, 2) // bob's use does not count for alice
	first := w.begin(a[0], 1)
	w.begin(a[1], 1)
	w.must(w.MarkStopping(ctx, a[0].ID, "")) // what is stopping still counts

	for _, tt := range []struct {
		name  string
		quota bailey.Quota
		class bailey.Class
		want  []string
	}{
		{"workspaces", bailey.Quota{Workspaces: 2}, small(0), []string{
			"user alice may have 2 running workspaces at once: 2 running workspaces in use by lab (starting) and nb (stopping), and this start needs 1 running workspace",
		}},
		{"cpu", bailey.Quota{CPUMillis: 1250}, small(0), []string{"1.25 CPU cores at once", "1 CPU core in use", "needs 0.5 CPU cores"}},
		{"memory", bailey.Quota{MemoryBytes: 2 << 30}, small(0), []string{"2GiB of memory at once", "needs 1GiB of memory"}},
		{"gpus", bailey.Quota{GPUs: 2}, small(1), []string{"2 GPUs at once", "needs 1 GPU"}},
		{"all but gpus", bailey.Quota{Workspaces: 3, CPUMillis: 1500, MemoryBytes: 3 << 30, GPUs: 4}, small(3), []string{"4 GPUs at once"}},
	} {
		rq := request(a[2], tt.class)
		rq.UserQuota = tt.quota
		err := second(w.BeginRun(ctx, rq))
		w.refused(err, bailey.OverQuota, tt.want...)
		if err != nil && strings.Contains(err.Error(), "secret-project") {
			w.Errorf("%s: %q tells alice how bob calls his work", tt.name, err)
		}
		if got := w.get(a[2]); got.State != bailey.Stopped || got.RunID != "" {
			w.Errorf("%s: a refused start left %+v", tt.name, got)
		}
	}
	if leases, err := w.Leases(ctx); err != nil || len(leases) != 4 {
		w.Errorf("%d leases after refused starts, %v; want 4", len(leases), err)
	}

	exactly := request(a[2], small(1))
	exactly.UserQuota = bailey.Quota{Workspaces: 3, CPUMillis: 1500, MemoryBytes: 3 << 30, GPUs: 3}
	last, err := w.BeginRun(ctx, exactly)
	w.must(err)
	w.end(last)
	// One that ends makes room.
	w.end(first)
	rq := request(a[2], small(1))
	rq.UserQuota = bailey.Quota{Workspaces: 2, GPUs: 2}
	w.must(second(w.BeginRun(ctx, rq)))
	// A class that can never start says so.
	rq = request(a[0], small(5))
	rq.UserQuota = bailey.Quota{GPUs: 4}
	err = second(w.BeginRun(ctx, rq))
	w.refused(err, bailey.OverQuota)
	if e, ok := errors.AsType[*bailey.Error](err); !ok || !strings.Contains(e.Hint, "can never start") {
		w.Errorf("error is %#v, want a hint that the class can never start", err)
	}
}

func groupQuota(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin, "vision", "speech")
	bob := w.user("bob", bailey.RoleUser, "vision")
	carol := w.user("carol", bailey.RoleUser, "visionaries") // not in vision
	bobs, carols := w.workspace(bob, "secret-project"), w.workspace(carol, "nb")
	w.begin(bobs, 2)
	w.begin(carols, 2)
	a := w.workspace(alice, "nb")
	limits := map[string]bailey.Quota{"speech": {GPUs: 2}, "vision": {GPUs: 3, Workspaces: 5}}

	rq := request(a, small(2))
	rq.GroupQuotas = limits
	err := second(w.BeginRun(ctx, rq))
	w.refused(err, bailey.OverQuota,
		"group vision may have 3 GPUs at once: 2 GPUs in use by 1 workspace of 1 member, and this start needs 2 GPUs")
	if err != nil && strings.Contains(err.Error(), "secret-project") {
		w.Errorf("%q tells alice how bob calls his work", err)
	}
	rq = request(a, small(1))
	rq.GroupQuotas = limits
	mine, err := w.BeginRun(ctx, rq)
	w.must(err)

	// Alice's run now counts for both of her groups, and for bob's.
	rq = request(w.workspace(bob, "lab"), small(1))
	rq.GroupQuotas = map[string]bailey.Quota{"vision": {GPUs: 3}}
	w.refused(second(w.BeginRun(ctx, rq)), bailey.OverQuota, "2 workspaces of 2 members")
	w.end(mine)
	w.must(second(w.BeginRun(ctx, rq)))

	// Who leaves a group takes their use along.
	bob.Groups = nil
	w.must(w.UpdateUser(ctx, bob))
	rq = request(a, small(3))
	rq.GroupQuotas = limits
	rq.GroupQuotas["speech"] = bailey.Quota{GPUs: 3}
	w.must(second(w.BeginRun(ctx, rq)))
}

func gpusInOrder(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	all := cards(4)

	rq := request(a, small(2))
	rq.GPUs = []string{all[3], all[3], "", all[1], all[0]}
	run, err := w.BeginRun(ctx, rq)
	w.must(err)
	if want := []string{all[3], all[1]}; !slices.Equal(run.GPUs, want) || !slices.Equal(w.get(a).GPUs, want) {
		w.Errorf("GPUs = %v, workspace has %v, want %v: the first two that there are, in order", run.GPUs, w.get(a).GPUs, want)
	}
	rq = request(b, small(3))
	rq.GPUs = all
	w.refused(second(w.BeginRun(ctx, rq)), bailey.OverQuota, "needs 3 GPUs, and 2 of 4 are free")
	rq.Run.Class.GPUs = 5
	w.refused(second(w.BeginRun(ctx, rq)), bailey.OverQuota, "needs 5 GPUs, and the machine has 4")
	rq.Run.Class.GPUs = -1
	w.refused(second(w.BeginRun(ctx, rq)), bailey.Invalid)
	rq.Run.Class.GPUs = 2
	other, err := w.BeginRun(ctx, rq)
	w.must(err)
	if want := []string{all[0], all[2]}; !slices.Equal(other.GPUs, want) {
		w.Errorf("bob's GPUs = %v, want %v", other.GPUs, want)
	}
	// No GPU is asked for: none is leased, and none need be there.
	w.must(w.EndRun(ctx, other.ID, false, "", w.clock.Now()))
	rq = request(b, small(0))
	rq.GPUs = nil
	other, err = w.BeginRun(ctx, rq)
	w.must(err)
	if len(other.GPUs) != 0 || len(w.get(b).GPUs) != 0 {
		w.Errorf("GPUs = %v, want none", other.GPUs)
	}
}

func disabledOwner(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	bob.Disabled = true
	w.must(w.UpdateUser(ctx, bob))
	w.refused(second(w.BeginRun(ctx, request(b, small(0)))), bailey.Denied, "disabled")
	w.begin(a, 0)
}

func oldRuns(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	bobs := w.begin(b, 0)
	w.end(bobs)
	var made []bailey.Run
	for range 103 {
		w.clock.move(time.Minute)
		run := w.begin(a, 0)
		w.end(run)
		made = append(made, run)
	}
	// The newest 100, and the one whose start forgot the others.
	for i, run := range []bailey.Run{made[0], made[1], made[2], made[102], bobs} {
		_, err := w.Run(ctx, run.ID)
		if forgotten := i < 2; forgotten != (bailey.KindOf(err) == bailey.NotFound) {
			w.Errorf("run %d: error = %v, want forgotten %v", i, err, forgotten)
		}
	}
}

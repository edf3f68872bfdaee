package storetest

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/store"
)

func workspaces() []story {
	return []story{
		{"Workspaces", ownWorkspaces},
		{"AVolumeOutlivesItsWorkspace", volumeLife},
		{"ActivityNeverGoesBack", touchActive},
		{"StagesHaveNoGaps", stages},
		{"ReopeningFindsEverything", reopen},
		{"ALockHasOneHolder", locks},
		{"AFencedServerWritesNothing", fenced},
	}
}

var slugRE = regexp.MustCompile(`^nb-[a-z2-7]{12}$`)

func ownWorkspaces(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	want := bailey.Workspace{
		ID: a.ID, OwnerID: alice.ID, Owner: "alice", Name: "nb", Class: "small", Slug: a.Slug, VolumeID: a.VolumeID,
		State: bailey.Stopped, Wanted: bailey.Stopped, CreatedAt: w.clock.Now(), GPUs: []string{},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		w.Errorf("CreateWorkspace differs (-want +got):\n%s", diff)
	}
	if !slugRE.MatchString(a.Slug) || !slugRE.MatchString(b.Slug) || a.Slug == b.Slug {
		w.Errorf("slugs are %q and %q, want two different ones like %v", a.Slug, b.Slug, slugRE)
	}
	if a.VolumeID == b.VolumeID {
		w.Errorf("alice and bob share the volume %s", a.VolumeID)
	}
	bySlug, err := w.WorkspaceBySlug(ctx, a.Slug)
	w.must(err)
	byName, err := w.WorkspaceByName(ctx, alice.ID, "nb")
	w.must(err)
	for _, got := range []bailey.Workspace{w.get(a), bySlug, byName} {
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("workspace read differs (-want +got):\n%s", diff)
		}
	}
	for _, err := range []error{
		second(w.Workspace(ctx, "nothing")), second(w.WorkspaceBySlug(ctx, "nb")), second(w.WorkspaceByName(ctx, bob.ID, "lab")),
		w.DeleteWorkspace(ctx, "nothing"), second(w.CreateWorkspace(ctx, bailey.Workspace{OwnerID: "nobody", Name: "nb"})),
		w.TouchActive(ctx, "nothing", w.clock.Now()), w.MarkStopping(ctx, "nothing", ""),
	} {
		w.refused(err, bailey.NotFound)
	}

	_, err = w.CreateWorkspace(ctx, bailey.Workspace{OwnerID: alice.ID, Name: "nb"})
	w.refused(err, bailey.Conflict, "nb")
	_, err = w.CreateWorkspace(ctx, bailey.Workspace{OwnerID: alice.ID, Name: "lab", Slug: b.Slug})
	w.refused(err, bailey.Conflict)
	_, err = w.CreateWorkspace(ctx, bailey.Workspace{OwnerID: alice.ID, Name: "lab", Slug: "a/../b"})
	w.refused(err, bailey.Invalid)

	lab := w.workspace(alice, "lab")
	for _, tt := range []struct {
		owner string
		want  []string
	}{{alice.ID, []string{lab.ID, a.ID}}, {bob.ID, []string{b.ID}}, {"", []string{lab.ID, a.ID, b.ID}}, {"nobody", nil}} {
		all, err := w.Workspaces(ctx, tt.owner)
		w.must(err)
		var ids []string
		for _, ws := range all {
			ids = append(ids, ws.ID)
		}
		if !slices.Equal(ids, tt.want) {
			w.Errorf("Workspaces(%q) = %v, want %v", tt.owner, ids, tt.want)
		}
	}
}

// second returns the error of a call that returns something else too.
func second[T any](_ T, err error) error { return err }

func volumeLife(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	want := bailey.Volume{
		ID: a.VolumeID, OwnerID: alice.ID, Owner: "alice", Name: "nb", UID: alice.UID, CreatedAt: w.clock.Now(), InUseBy: a.ID,
	}
	volume := func() bailey.Volume {
		w.Helper()
		v, err := w.Volume(ctx, a.VolumeID)
		w.must(err)
		return v
	}
	if diff := cmp.Diff(want, volume()); diff != "" {
		w.Errorf("Volume differs (-want +got):\n%s", diff)
	}
	w.refused(w.DeleteVolume(ctx, a.VolumeID), bailey.Conflict, "belongs to a workspace")
	w.must(w.DeleteWorkspace(ctx, a.ID))
	want.InUseBy = ""
	if diff := cmp.Diff(want, volume()); diff != "" {
		w.Errorf("Volume without workspace differs (-want +got):\n%s", diff)
	}

	// Its owner gets it back by name, as it was, also after a year.
	w.clock.move(365 * 24 * time.Hour)
	again := w.workspace(alice, "nb")
	if again.VolumeID != a.VolumeID || again.ID == a.ID || again.Slug == a.Slug {
		w.Errorf("the new workspace is %+v, want a new one with the volume %s", again, a.VolumeID)
	}
	if v := volume(); v.UID != alice.UID || v.InUseBy != again.ID {
		w.Errorf("volume = %+v, want uid %d, in use by %s", v, alice.UID, again.ID)
	}
	all, err := w.Volumes(ctx, bob.ID)
	w.must(err)
	if len(all) != 1 || all[0].ID != b.VolumeID || all[0].UID != bob.UID {
		w.Errorf("Volumes(bob) = %+v, want only %s", all, b.VolumeID)
	}
	if all, err := w.Volumes(ctx, ""); err != nil || len(all) != 2 || all[0].Owner != "alice" {
		w.Errorf("Volumes() = %+v, %v; want alice's and bob's", all, err)
	}

	// A volume that is gone is gone: the next one is new.
	w.must(w.DeleteWorkspace(ctx, again.ID))
	w.must(w.DeleteVolume(ctx, a.VolumeID))
	w.refused(w.DeleteVolume(ctx, a.VolumeID), bailey.NotFound)
	_, err = w.Volume(ctx, a.VolumeID)
	w.refused(err, bailey.NotFound)
	if third := w.workspace(alice, "nb"); third.VolumeID == a.VolumeID {
		w.Errorf("a deleted volume's id %s was given out again", a.VolumeID)
	}
}

func touchActive(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	w.begin(a, 0)
	began := w.clock.Now()
	if got := w.get(a).ActiveAt; !got.Equal(began) {
		w.Errorf("ActiveAt after BeginRun = %v, want %v", got, began)
	}
	now := w.clock.move(time.Hour)
	for _, tt := range []struct{ at, want time.Time }{
		{began.Add(-time.Minute), began},
		{began.Add(10 * time.Minute), began.Add(10 * time.Minute)},
		{began.Add(5 * time.Minute), began.Add(10 * time.Minute)},
		{now.Add(365 * 24 * time.Hour), now}, // the clock was wrong for a moment
	} {
		w.must(w.TouchActive(ctx, a.ID, tt.at))
		if got := w.get(a).ActiveAt; !got.Equal(tt.want) {
			w.Errorf("ActiveAt after TouchActive(%v) = %v, want %v", tt.at, got, tt.want)
		}
	}
	if got := w.get(b).ActiveAt; !got.IsZero() {
		w.Errorf("touching alice's workspace touched bob's: %v", got)
	}
}

func stages(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	first, err := w.AppendStage(ctx, bailey.Stage{
		Workspace: a.ID, Run: "r1", Name: "image", Status: "done", Detail: "pulled", Took: 1500 * time.Millisecond,
	})
	w.must(err)
	want := bailey.Stage{
		Workspace: a.ID, Run: "r1", Name: "image", Status: "done", Detail: "pulled", Took: 1500 * time.Millisecond,
		At: w.clock.Now(), Seq: 1,
	}
	if diff := cmp.Diff(want, first); diff != "" {
		w.Errorf("AppendStage differs (-want +got):\n%s", diff)
	}
	if got, err := w.Stages(ctx, a.ID, 0); err != nil || !cmp.Equal(got, []bailey.Stage{want}) {
		w.Errorf("Stages = %+v, %v; want %+v", got, err, want)
	}
	if got, err := w.Stages(ctx, b.ID, 0); err != nil || len(got) != 0 {
		w.Errorf("Stages(bob's) = %+v, %v; want none", got, err)
	}
	_, err = w.AppendStage(ctx, bailey.Stage{Workspace: "nothing"})
	w.refused(err, bailey.NotFound)

	// Many at once, for two workspaces, from two servers.
	again := w.open(w.T, w.clock.Now)
	errs := together(260, func(i int) error {
		on := []Store{w.Store, again}[i%2]
		ws := a
		if i%10 == 0 {
			ws = b
		}
		_, err := on.AppendStage(ctx, bailey.Stage{Workspace: ws.ID, Name: fmt.Sprint(i)})
		return err
	})
	if n := w.succeeded(errs); n != 260 {
		w.Fatalf("%d of 260 stages were stored", n)
	}
	for _, tt := range []struct {
		ws          bailey.Workspace
		after       int64
		first, last int64
	}{{a, 0, 36, 235}, {a, 233, 234, 235}, {b, 0, 1, 26}, {b, 26, 0, 0}} {
		got, err := w.Stages(ctx, tt.ws.ID, tt.after)
		w.must(err)
		var want []int64
		for seq := tt.first; seq <= tt.last && seq > 0; seq++ {
			want = append(want, seq)
		}
		var seqs []int64
		for _, st := range got {
			seqs = append(seqs, st.Seq)
		}
		if !slices.Equal(seqs, want) {
			w.Errorf("Stages(%s's, after %d) have seqs %v, want %d to %d: the newest 200 without a gap", tt.ws.Owner, tt.after, seqs, tt.first, tt.last)
		}
	}
	w.must(w.DeleteWorkspace(ctx, a.ID))
	if got, err := w.Stages(ctx, a.ID, 0); err != nil || len(got) != 0 {
		w.Errorf("Stages of a deleted workspace = %d, %v; want none", len(got), err)
	}
}

func reopen(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin, "vision"), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	run := w.begin(a, 2)
	w.must(w.SetContainer(ctx, run.ID, "c1"))
	w.must(w.MarkReady(ctx, run.ID, w.clock.Now()))
	w.must(w.SetSelfCheck(ctx, run.ID, "torch sees 2 GPUs"))
	session := w.session(bob, "b1")
	_, err := w.AppendStage(ctx, bailey.Stage{Workspace: a.ID, Name: "ready"})
	w.must(err)
	lock, err := w.AcquireLock(ctx, "reconcile", "one", time.Minute)
	w.must(err)

	read := func(s Store) map[string]any {
		w.Helper()
		all := map[string]any{}
		keep := func(name string, v any, err error) {
			w.must(err)
			all[name] = v
		}
		us, err := s.Users(ctx)
		keep("users", us, err)
		wss, err := s.Workspaces(ctx, "")
		keep("workspaces", wss, err)
		vs, err := s.Volumes(ctx, "")
		keep("volumes", vs, err)
		ls, err := s.Leases(ctx)
		keep("leases", ls, err)
		open, err := s.OpenRuns(ctx)
		keep("open runs", open, err)
		st, err := s.Stages(ctx, a.ID, 0)
		keep("stages", st, err)
		ses, _, err := s.SessionByHash(ctx, "b1")
		keep("session", ses, err)
		return all
	}
	want := read(w.Store)
	w.must(w.Close())
	w.Store = w.open(w.T, w.clock.Now)
	w.must(w.Ping(ctx))
	if diff := cmp.Diff(want, read(w.Store)); diff != "" {
		w.Errorf("after closing and opening again (-before +after):\n%s", diff)
	}
	open, err := w.OpenRuns(ctx)
	w.must(err)
	if len(open) != 1 || open[0].Token != run.Token || open[0].ContainerID != "c1" || len(open[0].GPUs) != 2 {
		w.Errorf("OpenRuns = %+v, want the run with its token, container and GPUs", open)
	}
	if got, _, err := w.SessionByHash(ctx, "b1"); err != nil || !cmp.Equal(got, session) {
		w.Errorf("SessionByHash = %+v, %v; want %+v", got, err, session)
	}
	_, err = w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.refused(err, bailey.Conflict)
	_, err = w.RenewLock(ctx, lock, time.Minute)
	w.must(err)
	_, err = w.BeginRun(ctx, request(a, small(0)))
	w.refused(err, bailey.Conflict)
	w.must(w.DeleteWorkspace(ctx, b.ID))
}

func locks(w *world) {
	ctx := w.Context()
	one, err := w.AcquireLock(ctx, "reconcile", "one", time.Minute)
	w.must(err)
	if one.Epoch != 1 || !one.ExpiresAt.Equal(w.clock.Now().Add(time.Minute)) {
		w.Errorf("AcquireLock = %+v, want epoch 1 and a minute", one)
	}
	_, err = w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.refused(err, bailey.Conflict)
	_, err = w.AcquireLock(ctx, "backup", "two", time.Minute)
	w.must(err)

	w.clock.move(50 * time.Second)
	one, err = w.RenewLock(ctx, one, time.Minute)
	w.must(err)
	w.clock.move(50 * time.Second)
	_, err = w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.refused(err, bailey.Conflict)

	// It expired, but nobody took it.
	w.clock.move(time.Minute)
	one, err = w.RenewLock(ctx, one, time.Minute)
	w.must(err)

	w.clock.move(time.Minute)
	two, err := w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.must(err)
	if two.Epoch != one.Epoch+1 {
		w.Errorf("epoch = %d after %d, want one more", two.Epoch, one.Epoch)
	}
	_, err = w.RenewLock(ctx, one, time.Minute)
	w.refused(err, bailey.Conflict)
	w.must(w.ReleaseLock(ctx, one)) // not its to release any more
	_, err = w.AcquireLock(ctx, "reconcile", "one", time.Minute)
	w.refused(err, bailey.Conflict)

	// A restarted holder has it at once, under another epoch.
	again, err := w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.must(err)
	if again.Epoch != two.Epoch+1 {
		w.Errorf("epoch = %d after %d, want one more", again.Epoch, two.Epoch)
	}
	w.must(w.ReleaseLock(ctx, again))
	_, err = w.RenewLock(ctx, again, time.Minute)
	w.refused(err, bailey.Conflict)
	three, err := w.AcquireLock(ctx, "reconcile", "three", time.Minute)
	w.must(err)
	if three.Epoch != again.Epoch+1 {
		w.Errorf("epoch = %d after a release at %d, want one more", three.Epoch, again.Epoch)
	}

	second := w.open(w.T, w.clock.Now)
	errs := together(20, func(i int) error {
		on := []Store{w.Store, second}[i%2]
		_, err := on.AcquireLock(ctx, "crowd", fmt.Sprint(i), time.Minute)
		return err
	})
	if n := w.succeeded(errs, bailey.Conflict); n != 1 {
		w.Errorf("%d of 20 servers hold the lock, want 1", n)
	}
	_, err = w.AcquireLock(ctx, "", "one", time.Minute)
	w.refused(err, bailey.Invalid)
	_, err = w.AcquireLock(ctx, "x", "one", 0)
	w.refused(err, bailey.Invalid)
}

func fenced(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	bob := w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	run := w.begin(a, 1)
	lock, err := w.AcquireLock(ctx, "reconcile", "one", time.Minute)
	w.must(err)
	var one Store = w.Fenced(lock)
	w.must(one.TouchActive(ctx, a.ID, w.clock.Now()))
	w.must(one.SetContainer(ctx, run.ID, "c1"))

	// Server one sleeps through the expiry; two takes over; one wakes up.
	w.clock.move(2 * time.Minute)
	lock2, err := w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.must(err)
	for _, err := range []error{
		one.EndRun(ctx, run.ID, true, "lost", w.clock.Now()),
		one.MarkStopping(ctx, a.ID, "idle"),
		one.TouchActive(ctx, a.ID, w.clock.Now()),
		second(one.BeginRun(ctx, request(b, small(0)))),
		second(one.AppendStage(ctx, bailey.Stage{Workspace: a.ID})),
	} {
		w.refused(err, bailey.Conflict, "gone to another server")
	}
	if got := w.get(a); got.State != bailey.Starting || len(got.GPUs) != 1 {
		w.Errorf("workspace = %+v, want it untouched by the server that lost its lock", got)
	}
	if _, err := one.Workspace(ctx, a.ID); err != nil {
		w.Errorf("a fenced server may read: %v", err)
	}
	two := w.Fenced(store.Lock{Name: lock2.Name, Holder: lock2.Holder, Epoch: lock2.Epoch})
	w.must(two.EndRun(ctx, run.ID, true, "lost", w.clock.Now()))

	// A restarted server fences off its former self, which has the same name.
	_, err = w.AcquireLock(ctx, "reconcile", "two", time.Minute)
	w.must(err)
	w.refused(two.TouchActive(ctx, a.ID, w.clock.Now()), bailey.Conflict, "gone to another server")
}

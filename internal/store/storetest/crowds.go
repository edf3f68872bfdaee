package storetest

import (
	"fmt"
	"testing"

	"github.com/baileyhq/bailey"
)

func crowds() []story {
	return []story{
		{"AHundredLaunchesOverEightGPUs", hundredLaunches},
		{"ACrowdKeepsItsQuotas", crowdQuota},
		{"OneWorkspaceStartsOnce", oneStart},
		{"ACrowdOfCreators", crowdCreates},
	}
}

// hundredLaunches is two servers on one database: whatever the order, no GPU
// has two holders, and none is left idle while somebody is refused.
func hundredLaunches(w *world) {
	ctx := w.Context()
	users := []bailey.User{w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)}
	servers := []Store{w.Store, w.open(w.T, w.clock.Now)}
	n := 100
	if testing.Short() {
		n = 30
	}
	all := make([]bailey.Workspace, n)
	for i := range all {
		all[i] = w.workspace(users[i%2], fmt.Sprintf("ws%d", i))
	}
	for round := range 2 {
		began := make([]bailey.Run, n)
		errs := together(n, func(i int) (err error) {
			began[i], err = servers[i/2%2].BeginRun(ctx, request(all[i], small(1)))
			return err
		})
		if got := w.succeeded(errs, bailey.OverQuota); got != 8 {
			w.Fatalf("round %d: %d of %d launches began, want 8", round, got, n)
		}
		holder := map[string]string{}
		for i, run := range began {
			if errs[i] != nil {
				continue
			}
			if len(run.GPUs) != 1 {
				w.Fatalf("run %s has %v, want one GPU", run.ID, run.GPUs)
			}
			if other, ok := holder[run.GPUs[0]]; ok {
				w.Errorf("%s is held by %s and %s", run.GPUs[0], other, run.ID)
			}
			holder[run.GPUs[0]] = run.ID
		}
		leases, err := w.Leases(ctx)
		w.must(err)
		if len(leases) != 8 {
			w.Errorf("%d leases, want 8", len(leases))
		}
		for _, l := range leases {
			if holder[l.GPU] != l.RunID {
				w.Errorf("%s is leased to %s, but %s was told so", l.GPU, l.RunID, holder[l.GPU])
			}
		}
		open, err := w.OpenRuns(ctx)
		w.must(err)
		if len(open) != 8 {
			w.Errorf("%d open runs, want 8", len(open))
		}
		// The holders stop while others try: a GPU may change hands, never double.
		errs = together(len(open)*2, func(i int) error {
			if i%2 == 0 {
				return servers[i/2%2].EndRun(ctx, open[i/2].ID, false, "", w.clock.Now())
			}
			_, err := servers[i/2%2].BeginRun(ctx, request(all[(i*7)%n], small(1)))
			return err
		})
		w.succeeded(errs, bailey.OverQuota, bailey.Conflict)
		open, err = w.OpenRuns(ctx)
		w.must(err)
		leases, err = w.Leases(ctx)
		w.must(err)
		if len(open) != len(leases) {
			w.Errorf("%d open runs of one GPU and %d leases, want as many", len(open), len(leases))
		}
		for _, run := range open {
			w.end(run)
		}
	}
}

func crowdQuota(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin, "vision")
	bob := w.user("bob", bailey.RoleUser, "vision")
	users := []bailey.User{alice, bob}
	servers := []Store{w.Store, w.open(w.T, w.clock.Now)}
	all := make([]bailey.Workspace, 30)
	for i := range all {
		all[i] = w.workspace(users[i%2], fmt.Sprintf("ws%d", i))
	}
	errs := together(len(all), func(i int) error {
		rq := request(all[i], small(0))
		rq.UserQuota = bailey.Quota{Workspaces: 4}
		rq.GroupQuotas = map[string]bailey.Quota{"vision": {CPUMillis: 3000}} // six of half a core
		_, err := servers[i/2%2].BeginRun(ctx, rq)
		return err
	})
	if n := w.succeeded(errs, bailey.OverQuota); n != 6 {
		w.Errorf("%d of %d launches began, want 6: the group may have 3 cores", n, len(all))
	}
	for _, u := range users {
		n := 0
		own, err := w.Workspaces(ctx, u.ID)
		w.must(err)
		for _, ws := range own {
			if ws.State == bailey.Starting {
				n++
			}
		}
		if n > 4 {
			w.Errorf("%s has %d workspaces running, want at most 4", u.Name, n)
		}
	}
}

func oneStart(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.workspace(alice, "nb"), w.workspace(bob, "nb")
	servers := []Store{w.Store, w.open(w.T, w.clock.Now)}
	errs := together(20, func(i int) error {
		_, err := servers[i%2].BeginRun(ctx, request(a, small(1)))
		return err
	})
	if n := w.succeeded(errs, bailey.Conflict); n != 1 {
		w.Errorf("%d of 20 starts of one workspace began, want 1", n)
	}
	if leases, err := w.Leases(ctx); err != nil || len(leases) != 1 {
		w.Errorf("Leases = %v, %v; want one", leases, err)
	}
	w.begin(b, 1)
}

func crowdCreates(w *world) {
	ctx := w.Context()
	users := []bailey.User{w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)}
	servers := []Store{w.Store, w.open(w.T, w.clock.Now)}
	errs := together(20, func(i int) error {
		_, err := servers[i%2].CreateWorkspace(ctx, bailey.Workspace{OwnerID: users[i/10].ID, Name: "nb", Class: "small"})
		return err
	})
	if n := w.succeeded(errs, bailey.Conflict); n != 2 {
		w.Errorf("%d workspaces were made, want one of alice and one of bob", n)
	}
	if all, err := w.Volumes(ctx, ""); err != nil || len(all) != 2 {
		w.Errorf("Volumes = %v, %v; want two", all, err)
	}
}

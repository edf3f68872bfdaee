package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

func credentials() []story {
	return []story{
		{"ServiceAccounts", serviceAccounts},
		{"GroupsChangeOneAtATime", groupChanges},
		{"ADeviceIsAnsweredOnceAndFetchedOnce", devices},
		{"ADeviceThatPollsTooSoonIsToldSo", devicePolls},
		{"DevicesAreForgotten", devicesForgotten},
	}
}

func serviceAccounts(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	robot, err := w.CreateUser(ctx, bailey.User{Name: "robot", Role: bailey.RoleAdmin, Service: true, OwnerID: alice.ID}, "")
	w.must(err)
	got, err := w.UserByName(ctx, "robot")
	w.must(err)
	if diff := cmp.Diff(robot, got); diff != "" || !got.Service || got.OwnerID != alice.ID {
		w.Errorf("UserByName(robot) = %+v, differs (-made +read):\n%s", got, diff)
	}
	// It cannot sign in and repair anything, so it is not the administrator who
	// must be left, and it never gets a password.
	alice.Role = bailey.RoleUser
	w.refused(w.UpdateUser(ctx, alice), bailey.Conflict, "last enabled administrator")
	w.refused(w.SetPasswordHash(ctx, robot.ID, "h"), bailey.NotFound)
	robot.Disabled = true
	w.must(w.UpdateUser(ctx, robot))
	w.must(w.DeleteUser(ctx, robot.ID))
}

func groupChanges(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser, "old")
	var teams [20]string
	for i := range teams {
		teams[i] = fmt.Sprintf("team%02d", i)
	}
	again := w.open(w.T, w.clock.Now)
	errs := together(len(teams), func(i int) error {
		_, err := []Store{w.Store, again}[i%2].ChangeGroup(ctx, bob.ID, teams[i], bailey.GroupJoin)
		return err
	})
	if n := w.succeeded(errs); n != len(teams) {
		w.Fatalf("%d of %d changes were made", n, len(teams))
	}
	got, err := w.UserByID(ctx, bob.ID)
	w.must(err)
	if want := append([]string{"old"}, teams[:]...); !slices.Equal(got.Groups, want) || got.Manages != nil {
		w.Errorf("bob is in %v and manages %v, want %v and none: changes at once undid each other", got.Groups, got.Manages, want)
	}
	u, err := w.ChangeGroup(ctx, bob.ID, "old", bailey.GroupAppoint)
	w.must(err)
	if !slices.Equal(u.Manages, []string{"old"}) {
		w.Errorf("after GroupAppoint bob manages %v", u.Manages)
	}
	u, err = w.ChangeGroup(ctx, bob.ID, "old", bailey.GroupLeave)
	w.must(err)
	if u.Manages != nil || slices.Contains(u.Groups, "old") {
		w.Errorf("after GroupLeave bob is in %v and manages %v", u.Groups, u.Manages)
	}
	if other, err := w.UserByID(ctx, alice.ID); err != nil || !cmp.Equal(other, alice) {
		w.Errorf("changing bob changed alice: %+v, %v", other, err)
	}
	for i := len(u.Groups); i < bailey.MaxGroups; i++ {
		_, err := w.ChangeGroup(ctx, bob.ID, fmt.Sprintf("more%02d", i), bailey.GroupJoin)
		w.must(err)
	}
	_, err = w.ChangeGroup(ctx, bob.ID, "straw", bailey.GroupJoin)
	w.refused(err, bailey.Conflict)
	_, err = w.ChangeGroup(ctx, "nobody", "old", bailey.GroupJoin)
	w.refused(err, bailey.NotFound)
}

// device is a pending device authorization with the codes "d-NAME" and
// "c-NAME", ten minutes long.
func (w *world) device(name string) bailey.Device {
	w.Helper()
	now := w.clock.Now()
	d := bailey.Device{
		ID: bailey.NewID(), State: bailey.DevicePending, Note: name, Scopes: []bailey.Scope{bailey.ScopeSSH}, IP: "192.0.2.1",
		CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute), Interval: 5 * time.Second,
	}
	w.must(w.CreateDevice(w.Context(), d, "d-"+name, "c-"+name))
	return d
}

func devices(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.device("a"), w.device("b")
	w.refused(w.CreateDevice(ctx, a, "d-x", "c-x"), bailey.Conflict)
	for _, codes := range [][2]string{{"d-a", "c-x"}, {"d-x", "c-a"}} {
		x := a
		x.ID = bailey.NewID()
		w.refused(w.CreateDevice(ctx, x, codes[0], codes[1]), bailey.Conflict)
	}
	for _, x := range []bailey.Device{{}, {ID: "x", ExpiresAt: a.ExpiresAt}, {ID: "x", Scopes: a.Scopes}} {
		w.refused(w.CreateDevice(ctx, x, "d-x", "c-x"), bailey.Invalid)
	}
	got, err := w.DeviceByCode(ctx, "c-a")
	w.must(err)
	if diff := cmp.Diff(a, got); diff != "" {
		w.Errorf("DeviceByCode differs (-want +got):\n%s", diff)
	}
	_, err = w.DeviceByCode(ctx, "d-a")
	w.refused(err, bailey.NotFound)

	// Two people answer at once: one answer counts.
	w.refused(w.TakeDevice(ctx, a.ID), bailey.NotFound)
	who := []bailey.User{alice, bob}
	errs := together(2, func(i int) error { return w.AnswerDevice(ctx, a.ID, who[i].ID, bailey.DeviceApproved) })
	if n := w.succeeded(errs, bailey.NotFound); n != 1 {
		w.Fatalf("%d answers were taken, want 1: %v", n, errs)
	}
	winner := who[slices.Index(errs, nil)]
	if got, err = w.DeviceByCode(ctx, "c-a"); err != nil || got.State != bailey.DeviceApproved || got.UserID != winner.ID {
		w.Errorf("after %s's yes it is %+v, %v", winner.Name, got, err)
	}
	w.must(w.AnswerDevice(ctx, b.ID, bob.ID, bailey.DeviceDenied))
	w.refused(w.TakeDevice(ctx, b.ID), bailey.NotFound)

	// And of twenty who fetch it at once, one gets it.
	again := w.open(w.T, w.clock.Now)
	errs = together(20, func(i int) error { return []Store{w.Store, again}[i%2].TakeDevice(ctx, a.ID) })
	if n := w.succeeded(errs, bailey.NotFound); n != 1 {
		w.Errorf("it was fetched %d times", n)
	}
}

func devicePolls(w *world) {
	ctx := w.Context()
	w.device("a")
	poll := func(early bool, interval time.Duration) {
		w.Helper()
		d, got, err := w.PollDevice(ctx, "d-a", 5*time.Second)
		w.must(err)
		if got != early || d.Interval != interval || !d.PolledAt.Equal(w.clock.Now()) {
			w.Errorf("PollDevice = early %v, interval %v, polled %v; want %v, %v", got, d.Interval, d.PolledAt, early, interval)
		}
	}
	poll(false, 5*time.Second)
	w.clock.move(5 * time.Second)
	poll(false, 5*time.Second)
	w.clock.move(5*time.Second - time.Microsecond)
	poll(true, 10*time.Second)
	w.clock.move(9 * time.Second)
	poll(true, 15*time.Second)
	w.clock.move(15 * time.Second)
	poll(false, 15*time.Second)
	_, _, err := w.PollDevice(ctx, "c-a", time.Second)
	w.refused(err, bailey.NotFound)
}

func devicesForgotten(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a, b := w.device("a"), w.device("b")
	w.device("nobody")
	w.must(w.AnswerDevice(ctx, a.ID, alice.ID, bailey.DeviceApproved))
	w.must(w.AnswerDevice(ctx, b.ID, bob.ID, bailey.DeviceApproved))
	w.must(w.DeleteDevices(ctx, "")) // nobody's are nobody's
	w.must(w.DeleteDevices(ctx, alice.ID))
	poll := func(name string) error {
		_, _, err := w.PollDevice(context.WithoutCancel(ctx), "d-"+name, time.Second)
		return err
	}
	w.refused(poll("a"), bailey.NotFound)
	w.must(poll("b"))
	w.must(poll("nobody"))
	w.must(w.DeleteUser(ctx, bob.ID))
	w.refused(poll("b"), bailey.NotFound)

	// Expired: a person cannot answer, the program is told until an hour later.
	w.clock.move(10 * time.Minute)
	_, err := w.DeviceByCode(ctx, "c-nobody")
	w.refused(err, bailey.NotFound)
	w.must(poll("nobody"))
	w.clock.move(time.Hour)
	w.device("later")
	w.refused(poll("nobody"), bailey.NotFound)
}

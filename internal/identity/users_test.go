package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

func TestAnAdministratorMakesAccounts(t *testing.T) {
	w := identitytest.NewWorld(t)
	admin := adminOf(t, w)
	made, err := w.CreateUser(t.Context(), admin, identity.NewUser{
		Name: "carol", Password: secret.New("granite otter 5"), Groups: []string{"vision", "audio", "vision"},
	})
	want := bailey.User{ID: made.ID, Name: "carol", Role: bailey.RoleUser, Groups: []string{"audio", "vision"}, UID: 20003, CreatedAt: made.CreatedAt}
	if diff := cmp.Diff(want, made); err != nil || diff != "" {
		t.Errorf("CreateUser: %v, (-want +got)\n%s", err, diff)
	}
	if _, err := try(t, w.Service, "carol", "granite otter 5", home); err != nil {
		t.Errorf("carol signs in: %v", err)
	}
	e := w.Journal.Events()[1]
	if e.Action != audit.UserCreate || e.Actor.Name != "root-admin" || e.Target.Name != "carol" || e.Attrs.Role != "user" || e.Outcome != audit.Success {
		t.Errorf("journal = %+v, want that root-admin made carol", e)
	}
	before := len(w.Journal.Events())
	for what, c := range map[string]struct {
		n    identity.NewUser
		kind bailey.Kind
	}{
		"taken":          {identity.NewUser{Name: "alice", Password: secret.New("granite otter 5")}, bailey.Conflict},
		"a path":         {identity.NewUser{Name: "../x", Password: secret.New("granite otter 5")}, bailey.Invalid},
		"html":           {identity.NewUser{Name: "<i>", Password: secret.New("granite otter 5")}, bailey.Invalid},
		"reserved":       {identity.NewUser{Name: "bailey", Password: secret.New("granite otter 5")}, bailey.Invalid},
		"no password":    {identity.NewUser{Name: "dave"}, bailey.Invalid},
		"own name":       {identity.NewUser{Name: "dave", Password: secret.New("davedavedave")}, bailey.Invalid},
		"unknown role":   {identity.NewUser{Name: "dave", Password: secret.New("granite otter 5"), Role: "root\x1b"}, bailey.Invalid},
		"bad group":      {identity.NewUser{Name: "dave", Password: secret.New("granite otter 5"), Groups: []string{"a b"}}, bailey.Invalid},
		"too many group": {identity.NewUser{Name: "dave", Password: secret.New("granite otter 5"), Groups: make([]string, 65)}, bailey.Invalid},
	} {
		_, err := w.CreateUser(t.Context(), admin, c.n)
		wantKind(t, what, err, c.kind)
	}
	if n := len(w.Journal.Events()); n != before {
		t.Errorf("refused accounts left %d events: %+v", n-before, w.Journal.Events()[before:])
	}
}

// Everything an administrator does is refused to everybody else, and the
// attempt is recorded.
func TestOnlyAdministratorsManageAccounts(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	admin := adminOf(t, w)
	_, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "eve", Password: secret.New("granite otter 5"), Role: bailey.RoleAuditor})
	if err != nil {
		t.Fatal(err)
	}
	grant, _, err := w.SignIn(t.Context(), identity.SignInRequest{Name: "eve", Password: secret.New("granite otter 5"), IP: home})
	if err != nil {
		t.Fatal(err)
	}
	auditor, err := w.BySession(t.Context(), grant.Secret, home)
	if err != nil {
		t.Fatal(err)
	}
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	up, off, fresh := bailey.RoleAdmin, true, secret.New("amber windmill 77")
	for name, do := range map[string]func(a bailey.Actor) error{
		"create": func(a bailey.Actor) error {
			_, err := w.CreateUser(t.Context(), a, identity.NewUser{Name: "mallory", Password: fresh, Role: up})
			return err
		},
		"raise oneself": func(a bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), a, a.Name, identity.UserUpdate{Role: &up})
			return err
		},
		"disable alice": func(a bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), a, "alice", identity.UserUpdate{Disabled: &off})
			return err
		},
		"reset alice": func(a bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), a, "alice", identity.UserUpdate{Password: &fresh})
			return err
		},
		"delete alice":     func(a bailey.Actor) error { return w.DeleteUser(t.Context(), a, "alice") },
		"delete who isn't": func(a bailey.Actor) error { return w.DeleteUser(t.Context(), a, "nobody") },
	} {
		for _, actor := range []bailey.Actor{bob, auditor, {}, {Role: bailey.RoleAdmin}} {
			n := len(w.Journal.Events())
			wantKind(t, name+" by "+actor.Name, do(actor), bailey.Denied)
			events := w.Journal.Events()[n:]
			if len(events) != 1 || events[0].Action != audit.AccessDenied || events[0].Outcome != audit.Refused || events[0].Actor.ID != actor.UserID {
				t.Errorf("%s by %q is recorded as %+v, want one refusal", name, actor.Name, events)
			}
		}
	}
	for _, actor := range []bailey.Actor{admin, auditor} {
		if all, err := w.Users(t.Context(), actor); err != nil || len(all) != 4 {
			t.Errorf("Users for %s = %v, %v; want four", actor.Name, all, err)
		}
	}
	_, err = w.Users(t.Context(), bob)
	wantKind(t, "Users for bob", err, bailey.Denied)
	if me, err := w.Me(t.Context(), bob); err != nil || me.Name != "bob" {
		t.Errorf("Me for bob = %+v, %v", me, err)
	}
	_, err = w.Me(t.Context(), bailey.Actor{})
	wantKind(t, "Me for nobody", err, bailey.Unauthenticated)
	users, _ := w.Store.Users(t.Context())
	for _, u := range users {
		if u.Disabled || u.Name == "mallory" || (u.Role == bailey.RoleAdmin) != (u.Name == "root-admin") {
			t.Errorf("after all that: %+v", u)
		}
	}
}

func TestWhatWouldChangeIsDurableFirst(t *testing.T) {
	role, off, fresh := bailey.RoleAuditor, true, secret.New("amber windmill 77")
	for name, do := range map[string]func(w *identitytest.World, admin, alice bailey.Actor) error{
		"create": func(w *identitytest.World, admin, _ bailey.Actor) error {
			_, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "carol", Password: fresh})
			return err
		},
		"role": func(w *identitytest.World, admin, _ bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Role: &role})
			return err
		},
		"disable": func(w *identitytest.World, admin, _ bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &off})
			return err
		},
		"reset": func(w *identitytest.World, admin, _ bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Password: &fresh})
			return err
		},
		"delete": func(w *identitytest.World, admin, _ bailey.Actor) error {
			return w.DeleteUser(t.Context(), admin, "alice")
		},
		"own password": func(w *identitytest.World, _, alice bailey.Actor) error {
			return w.ChangePassword(t.Context(), alice, identitytest.Password("alice"), fresh)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := identitytest.NewWorld(t)
			admin := adminOf(t, w)
			_, alice := identitytest.SignIn(t, w.Service, "alice")
			state := func() string {
				users, _ := w.Store.Users(t.Context())
				hash, _ := w.Store.PasswordHash(t.Context(), alice.UserID)
				sessions, _ := w.Store.Sessions(t.Context(), alice.UserID)
				return fmt.Sprint(users, hash, len(sessions))
			}
			before := state()
			w.Journal.Break(true)
			wantKind(t, "without a journal", do(w, admin, alice), bailey.Unavailable)
			if after := state(); after != before {
				t.Errorf("without a journal it was done:\nbefore %s\nafter  %s", before, after)
			}
			w.Journal.Break(false)
			atEvent := ""
			w.Journal.Before(func(audit.Event) { atEvent = state() })
			if err := do(w, admin, alice); err != nil {
				t.Fatal(err)
			}
			if atEvent != before || state() == before {
				t.Errorf("at the time of its event it was done already, or it was not done at all:\nbefore %s\nthen   %s\nafter  %s", before, atEvent, state())
			}
		})
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	w := identitytest.NewWorld(t)
	admin := adminOf(t, w)
	down, off := bailey.RoleUser, true
	n := len(w.Journal.Events())
	for what, u := range map[string]identity.UserUpdate{"demote": {Role: &down}, "disable": {Disabled: &off}} {
		_, err := w.UpdateUser(t.Context(), admin, "root-admin", u)
		wantKind(t, what, err, bailey.Conflict)
	}
	wantKind(t, "delete", w.DeleteUser(t.Context(), admin, "root-admin"), bailey.Conflict)
	if events := w.Journal.Events()[n:]; len(events) != 0 {
		t.Errorf("what was not done is in the journal: %+v", events)
	}

	up := bailey.RoleAdmin
	if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Role: &up}); err != nil {
		t.Fatal(err)
	}
	// Now the two demote each other at once: one of them stays.
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, c := range []struct {
		by   bailey.Actor
		name string
	}{{admin, "alice"}, {alice, "root-admin"}} {
		all.Go(func() { _, errs[i] = w.UpdateUser(t.Context(), c.by, c.name, identity.UserUpdate{Role: &down}) })
	}
	all.Wait()
	users, _ := w.Store.Users(t.Context())
	admins := slices.DeleteFunc(users, func(u bailey.User) bool { return u.Role != bailey.RoleAdmin })
	if len(admins) != 1 || (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("two administrators who demote each other: %v, %v; %v are left, want one", errs[0], errs[1], admins)
	}
}

func TestUpdateUserRefuses(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	admin := adminOf(t, w)
	role, groups, weak, own := bailey.Role("root"), []string{"A B"}, secret.New("alice-alice"), secret.New("amber windmill 77")
	for what, c := range map[string]struct {
		name string
		u    identity.UserUpdate
		kind bailey.Kind
	}{
		"nobody":           {"nobody", identity.UserUpdate{}, bailey.NotFound},
		"no name":          {"a/b", identity.UserUpdate{}, bailey.Invalid},
		"role":             {"alice", identity.UserUpdate{Role: &role}, bailey.Invalid},
		"groups":           {"alice", identity.UserUpdate{Groups: &groups}, bailey.Invalid},
		"weak password":    {"alice", identity.UserUpdate{Password: &weak}, bailey.Invalid},
		"one's own":        {"root-admin", identity.UserUpdate{Password: &own}, bailey.Denied},
		"delete of nobody": {"", identity.UserUpdate{}, bailey.Invalid},
	} {
		_, err := w.UpdateUser(t.Context(), admin, c.name, c.u)
		wantKind(t, what, err, c.kind)
	}
	n := len(w.Journal.Events())
	if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{}); err != nil || len(w.Journal.Events()) != n {
		t.Errorf("a change of nothing: %v, %d events; want neither", err, len(w.Journal.Events())-n)
	}
	wantKind(t, "delete nobody", w.DeleteUser(t.Context(), admin, "nobody"), bailey.NotFound)
}

func TestAResetGivesANewPassword(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	admin := adminOf(t, w)
	fresh := secret.New("amber windmill 77")
	if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Password: &fresh}); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, w.Service, "alice", good("alice"), home); err == nil {
		t.Error("the old password is still good")
	}
	if _, err := try(t, w.Service, "alice", fresh.Reveal(), home); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if _, err := try(t, w.Service, "bob", good("bob"), home); err != nil {
		t.Errorf("bob's password: %v", err)
	}
	events := w.Journal.Events()
	i := slices.IndexFunc(events, func(e audit.Event) bool { return e.Action == audit.PasswordChange })
	if i < 0 || events[i].Reason != audit.ByAdmin || events[i].Target.Name != "alice" || events[i].Actor.Name != "root-admin" {
		t.Errorf("journal = %+v, want root-admin's reset", events)
	}
	if strings.Contains(fmt.Sprint(events), fresh.Reveal()) {
		t.Error("the password is in the journal")
	}
}

func TestChangingOnesOwnPassword(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	here, alice := identitytest.SignIn(t, w.Service, "alice")
	there, _ := identitytest.SignIn(t, w.Service, "alice")
	bobs, _ := identitytest.SignIn(t, w.Service, "bob")
	old, fresh := identitytest.Password("alice"), secret.New("amber windmill 77")
	for what, c := range map[string]struct {
		old, fresh secret.Value
		kind       bailey.Kind
	}{
		"wrong old":  {secret.New("no"), fresh, bailey.Denied},
		"bob's old":  {identitytest.Password("bob"), fresh, bailey.Denied},
		"weak new":   {old, secret.New("alice12345"), bailey.Invalid},
		"the same":   {old, old, bailey.Invalid},
		"empty old":  {secret.Value{}, fresh, bailey.Denied},
		"both empty": {secret.Value{}, secret.Value{}, bailey.Invalid},
	} {
		wantKind(t, what, w.ChangePassword(t.Context(), alice, c.old, c.fresh), c.kind)
	}
	wantKind(t, "nobody's", w.ChangePassword(t.Context(), bailey.Actor{}, old, fresh), bailey.Unauthenticated)
	ended, release := w.Ended(alice)
	defer release()
	if err := w.ChangePassword(t.Context(), alice, old, fresh); err != nil {
		t.Fatal(err)
	}
	if !in(t, w.Service, here) || closed(ended) {
		t.Error("the session that changed the password ended")
	}
	if in(t, w.Service, there) {
		t.Error("alice's other session goes on")
	}
	if !in(t, w.Service, bobs) {
		t.Error("bob's session ended")
	}
	if _, err := try(t, w.Service, "alice", old.Reveal(), home); err == nil {
		t.Error("the old password is still good")
	}
	if _, err := try(t, w.Service, "alice", fresh.Reveal(), home); err != nil {
		t.Errorf("the new password: %v", err)
	}
}

// conflictStore is a store in which everybody has a volume.
type conflictStore struct{ identity.Store }

func (c *conflictStore) DeleteUser(ctx context.Context, id string) error {
	u, err := c.UserByID(ctx, id)
	if err != nil {
		return err
	}
	return &bailey.Error{Kind: bailey.Conflict, Msg: "user " + u.Name + " still has 1 volume"}
}

func TestWhatWasNotDoneIsTakenBackInTheJournal(t *testing.T) {
	f := &conflictStore{}
	w := identitytest.NewWorld(t, func(c *identity.Config) { f.Store, c.Store = c.Store, f })
	admin := adminOf(t, w)
	n := len(w.Journal.Events())
	err := w.DeleteUser(t.Context(), admin, "alice")
	wantKind(t, "delete while there are volumes", err, bailey.Conflict)
	if e, _ := errors.AsType[*bailey.Error](err); e == nil || e.Msg != "user alice still has 1 volume" {
		t.Errorf("the store's words are lost: %v", err)
	}
	events := w.Journal.Events()[n:]
	if len(events) != 2 || events[0].Outcome != audit.Success || events[1].Outcome != audit.Failure || events[1].Action != audit.UserDelete {
		t.Errorf("journal = %+v, want the deletion and that it failed", events)
	}
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	if alice.Name != "alice" {
		t.Errorf("alice afterwards: %+v", alice)
	}
}

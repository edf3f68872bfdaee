package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

func people() []story {
	return []story{
		{"Users", users},
		{"NamesAreLabels", namesAreLabels},
		{"AUIDIsNeverGivenOutTwice", uidsAreBurnt},
		{"OneAdministratorIsLeft", oneAdminIsLeft},
		{"TwoAdministratorsCannotDemoteEachOther", adminsDemoteEachOther},
		{"AUserWithFilesIsNotDeleted", usersWithFilesStay},
		{"Sessions", sessions},
		{"SessionsExpire", sessionsExpire},
		{"Tokens", tokens},
		{"SetupIsConsumedOnce", setupOnce},
		{"SetupIsRefused", setupRefused},
		{"ForeignTextIsStored", foreignText},
	}
}

func users(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin, "vision", "speech")
	bob := w.user("bob", bailey.RoleUser)

	want := bailey.User{
		ID: alice.ID, Name: "alice", Role: bailey.RoleAdmin, Groups: []string{"vision", "speech"},
		UID: alice.UID, CreatedAt: w.clock.Now(),
	}
	got, err := w.UserByID(ctx, alice.ID)
	w.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("UserByID(alice) differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, alice); diff != "" {
		w.Errorf("CreateUser(alice) returned something else than was stored (-want +got):\n%s", diff)
	}
	if got, err = w.UserByName(ctx, "bob"); err != nil || got.ID != bob.ID || got.Groups == nil {
		w.Errorf("UserByName(bob) = %+v, %v; want bob with an empty list of groups", got, err)
	}
	_, err = w.UserByName(ctx, "carol")
	w.refused(err, bailey.NotFound)
	_, err = w.UserByID(ctx, "nobody")
	w.refused(err, bailey.NotFound)

	_, err = w.CreateUser(ctx, bailey.User{Name: "bob", Role: bailey.RoleAdmin}, "h")
	w.refused(err, bailey.Conflict, "bob")
	all, err := w.Users(ctx)
	w.must(err)
	if n, err := w.CountUsers(ctx); err != nil || n != 2 || len(all) != 2 || all[0].Name != "alice" || all[1].Name != "bob" {
		w.Errorf("CountUsers = %d, %v, Users = %v; want alice and bob", n, err, all)
	}

	bob.Role, bob.Groups, bob.Disabled = bailey.RoleAuditor, []string{"speech"}, true
	w.must(w.UpdateUser(ctx, bob))
	if got, err = w.UserByID(ctx, bob.ID); err != nil || !cmp.Equal(got, bob) {
		w.Errorf("UserByID after UpdateUser = %+v, %v; want %+v", got, err, bob)
	}
	if got, err = w.UserByID(ctx, alice.ID); err != nil || !cmp.Equal(got, alice) {
		w.Errorf("changing bob changed alice: %+v, %v; want %+v", got, err, alice)
	}
	w.refused(w.UpdateUser(ctx, bailey.User{ID: "nobody", Role: bailey.RoleUser}), bailey.NotFound)
	w.refused(w.UpdateUser(ctx, bailey.User{ID: bob.ID, Role: "root"}), bailey.Invalid)

	w.must(w.SetPasswordHash(ctx, bob.ID, "new hash"))
	for id, want := range map[string]string{alice.ID: "hash of alice", bob.ID: "new hash"} {
		if got, err := w.PasswordHash(ctx, id); err != nil || got != want {
			w.Errorf("PasswordHash(%s) = %q, %v; want %q", id, got, err, want)
		}
	}
	_, err = w.PasswordHash(ctx, "nobody")
	w.refused(err, bailey.NotFound)
	w.refused(w.SetPasswordHash(ctx, "nobody", "h"), bailey.NotFound)
}

func namesAreLabels(w *world) {
	alice := w.user("alice", bailey.RoleAdmin)
	for _, name := range []string{"", "../etc", "<b>x</b>", "A", "a b", "-a", "a--b", "a\x00b", strings.Repeat("a", 31)} {
		_, err := w.CreateUser(w.Context(), bailey.User{Name: name, Role: bailey.RoleUser}, "h")
		w.refused(err, bailey.Invalid)
		_, err = w.CreateWorkspace(w.Context(), bailey.Workspace{OwnerID: alice.ID, Name: name})
		w.refused(err, bailey.Invalid)
	}
	_, err := w.CreateUser(w.Context(), bailey.User{Name: "bob", Role: "root"}, "h")
	w.refused(err, bailey.Invalid)
	long := strings.Repeat("a", 30)
	if ws := w.workspace(alice, long); len(ws.Slug) > 40 {
		w.Errorf("slug of %q has %d characters, want at most 40: %q", long, len(ws.Slug), ws.Slug)
	}
}

func uidsAreBurnt(w *world) {
	ctx := w.Context()
	given := map[int]string{}
	note := func(u bailey.User) {
		w.Helper()
		if u.UID < 20000 || u.UID > 59999 {
			w.Errorf("uid of %s = %d, want 20000 to 59999", u.Name, u.UID)
		}
		if other, ok := given[u.UID]; ok {
			w.Errorf("uid %d was given to %s and to %s", u.UID, other, u.Name)
		}
		given[u.UID] = u.Name
	}
	note(w.user("alice", bailey.RoleAdmin))
	bob := w.user("bob", bailey.RoleUser)
	note(bob)
	w.must(w.DeleteUser(ctx, bob.ID))
	_, err := w.UserByID(ctx, bob.ID)
	w.refused(err, bailey.NotFound)

	again := w.open(w.T, w.clock.Now)
	made := make([]bailey.User, 24)
	errs := together(len(made), func(i int) (err error) {
		on := []Store{w.Store, again}[i%2]
		made[i], err = on.CreateUser(ctx, bailey.User{Name: fmt.Sprintf("user%d", i), Role: bailey.RoleUser}, "h")
		return err
	})
	if n := w.succeeded(errs); n != len(made) {
		w.Fatalf("%d of %d users were made", n, len(made))
	}
	for _, u := range made {
		note(u)
	}
	note(w.user("bob", bailey.RoleUser)) // of the same name, not the same person
}

func oneAdminIsLeft(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	bob := w.user("bob", bailey.RoleUser)

	demoted, disabled := alice, alice
	demoted.Role, disabled.Disabled = bailey.RoleUser, true
	w.refused(w.UpdateUser(ctx, demoted), bailey.Conflict, "last enabled administrator")
	w.refused(w.UpdateUser(ctx, disabled), bailey.Conflict, "last enabled administrator")
	w.refused(w.DeleteUser(ctx, alice.ID), bailey.Conflict, "last enabled administrator")
	w.refused(w.DeleteUser(ctx, "nobody"), bailey.NotFound)

	// A disabled administrator does not count.
	bob.Role, bob.Disabled = bailey.RoleAdmin, true
	w.must(w.UpdateUser(ctx, bob))
	w.refused(w.UpdateUser(ctx, demoted), bailey.Conflict)
	bob.Disabled = false
	w.must(w.UpdateUser(ctx, bob))
	w.must(w.UpdateUser(ctx, demoted))
	w.must(w.DeleteUser(ctx, alice.ID))
	w.refused(w.DeleteUser(ctx, bob.ID), bailey.Conflict)
}

func adminsDemoteEachOther(w *world) {
	ctx := w.Context()
	admins := []bailey.User{w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleAdmin)}
	for round := range 5 {
		errs := together(2, func(i int) error {
			other := admins[1-i]
			other.Role = bailey.RoleUser
			return w.UpdateUser(ctx, other)
		})
		if n := w.succeeded(errs, bailey.Conflict); n != 1 {
			w.Fatalf("round %d: %d of 2 administrators were demoted, want 1: %v", round, n, errs)
		}
		for _, u := range admins {
			w.must(w.UpdateUser(ctx, u))
		}
	}
}

func usersWithFilesStay(w *world) {
	ctx := w.Context()
	w.user("alice", bailey.RoleAdmin)
	bob := w.user("bob", bailey.RoleUser)
	ws := w.workspace(bob, "nb")
	w.refused(w.DeleteUser(ctx, bob.ID), bailey.Conflict, "1 workspace and 1 volume")
	w.must(w.DeleteWorkspace(ctx, ws.ID))
	w.refused(w.DeleteUser(ctx, bob.ID), bailey.Conflict, "0 workspaces and 1 volume")
	w.must(w.DeleteVolume(ctx, ws.VolumeID))
	w.must(w.DeleteUser(ctx, bob.ID))
}

// session is a fresh session of the user, an hour long.
func (w *world) session(u bailey.User, hash string) bailey.Session {
	w.Helper()
	now := w.clock.Now()
	s := bailey.Session{
		ID: bailey.NewID(), UserID: u.ID, IP: "192.0.2.1", UserAgent: "Firefox", CreatedAt: now, SeenAt: now,
		ExpiresAt: now.Add(time.Hour),
	}
	w.must(w.CreateSession(w.Context(), s, hash))
	return s
}

func sessions(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin, "vision"), w.user("bob", bailey.RoleUser)
	a1, a2, b1 := w.session(alice, "a1"), w.session(alice, "a2"), w.session(bob, "b1")

	got, u, err := w.SessionByHash(ctx, "a1")
	w.must(err)
	if diff := cmp.Diff(a1, got) + cmp.Diff(alice, u); diff != "" {
		w.Errorf("SessionByHash(a1) differs (-want +got):\n%s", diff)
	}
	_, _, err = w.SessionByHash(ctx, "a3")
	w.refused(err, bailey.NotFound)
	w.refused(w.CreateSession(ctx, a1, "other"), bailey.Conflict)
	w.refused(w.CreateSession(ctx, bailey.Session{ID: "x", UserID: bob.ID, ExpiresAt: a1.ExpiresAt}, "a1"), bailey.Conflict)
	w.refused(w.CreateSession(ctx, bailey.Session{ID: "x", UserID: "nobody", ExpiresAt: a1.ExpiresAt}, "x"), bailey.NotFound)
	w.refused(w.CreateSession(ctx, bailey.Session{ID: "x", UserID: bob.ID}, "x"), bailey.Invalid)

	later := w.clock.Now().Add(10 * time.Minute)
	w.must(w.TouchSession(ctx, a1.ID, later))
	w.must(w.TouchSession(ctx, a1.ID, later.Add(-time.Minute)))
	if got, _, err = w.SessionByHash(ctx, "a1"); err != nil || !got.SeenAt.Equal(later) {
		w.Errorf("SeenAt = %v, %v; want %v: a later touch with an earlier time must not count", got.SeenAt, err, later)
	}
	w.refused(w.TouchSession(ctx, "nothing", later), bailey.NotFound)

	// Bob cannot end what is Alice's.
	w.refused(w.DeleteSession(ctx, bob.ID, a1.ID), bailey.NotFound)
	w.must(w.DeleteSession(ctx, alice.ID, a1.ID))
	_, _, err = w.SessionByHash(ctx, "a1")
	w.refused(err, bailey.NotFound)

	a4 := w.session(alice, "a4")
	w.must(w.DeleteSessions(ctx, alice.ID, a4.ID))
	for _, tt := range []struct {
		user bailey.User
		want []bailey.Session
	}{{alice, []bailey.Session{a4}}, {bob, []bailey.Session{b1}}} {
		all, err := w.Sessions(ctx, tt.user.ID)
		w.must(err)
		if diff := cmp.Diff(tt.want, all); diff != "" {
			w.Errorf("Sessions(%s) differ (-want +got), a2 is %s:\n%s", tt.user.Name, a2.ID, diff)
		}
	}
	w.must(w.DeleteSessions(ctx, alice.ID, ""))
	if all, err := w.Sessions(ctx, alice.ID); err != nil || len(all) != 0 {
		w.Errorf("Sessions(alice) = %v, %v; want none", all, err)
	}

	w.must(w.DeleteUser(ctx, bob.ID))
	_, _, err = w.SessionByHash(ctx, "b1")
	w.refused(err, bailey.NotFound)
}

func sessionsExpire(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	w.session(alice, "a1")
	w.clock.move(30 * time.Minute)
	w.session(bob, "b1")

	w.clock.move(30*time.Minute - time.Microsecond)
	_, _, err := w.SessionByHash(ctx, "a1")
	w.must(err)
	w.clock.move(time.Microsecond)
	_, _, err = w.SessionByHash(ctx, "a1")
	w.refused(err, bailey.NotFound)
	_, _, err = w.SessionByHash(ctx, "b1")
	w.must(err)
	if all, err := w.Sessions(ctx, alice.ID); err != nil || len(all) != 0 {
		w.Errorf("Sessions(alice) = %v, %v; want none: the only one has expired", all, err)
	}

	// A clock that jumps ahead and is put right again signs nobody out.
	w.clock.move(48 * time.Hour)
	_, _, err = w.SessionByHash(ctx, "b1")
	w.refused(err, bailey.NotFound)
	w.session(alice, "a2")
	w.clock.move(-48 * time.Hour)
	_, _, err = w.SessionByHash(ctx, "b1")
	w.must(err)
}

func tokens(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	now := w.clock.Now()
	token := func(u bailey.User, note string) bailey.Token {
		t := bailey.Token{
			ID: bailey.NewID(), UserID: u.ID, Note: note, Scopes: []bailey.Scope{bailey.ScopeSSH, bailey.ScopeAccount},
			Workspaces: []string{"w1", "w2"}, Networks: []string{"192.0.2.0/24"}, ParentID: "p", CreatedBy: "c",
			CreatedAt: now, ExpiresAt: now.Add(time.Hour),
		}
		w.must(w.CreateToken(ctx, t, "hash of "+note))
		return t
	}
	a1, b1 := token(alice, "laptop"), token(bob, "ci")

	got, hash, u, err := w.TokenByID(ctx, a1.ID)
	w.must(err)
	if diff := cmp.Diff(a1, got) + cmp.Diff(alice, u); diff != "" || hash != "hash of laptop" {
		w.Errorf("TokenByID(a1) = hash %q, differs (-want +got):\n%s", hash, diff)
	}
	_, _, _, err = w.TokenByID(ctx, "nothing")
	w.refused(err, bailey.NotFound)
	w.refused(w.CreateToken(ctx, a1, "other"), bailey.Conflict)
	all1 := []bailey.Scope{bailey.ScopeAll}
	w.refused(w.CreateToken(ctx, bailey.Token{ID: "x", UserID: "nobody", Scopes: all1, ExpiresAt: a1.ExpiresAt}, "x"), bailey.NotFound)
	w.refused(w.CreateToken(ctx, bailey.Token{ID: "x", UserID: bob.ID, ExpiresAt: a1.ExpiresAt}, "x"), bailey.Invalid, "scope")
	w.must(w.CreateToken(ctx, bailey.Token{ID: "plain", UserID: bob.ID, Scopes: all1, CreatedAt: now.Add(-time.Hour), ExpiresAt: now.Add(time.Minute)}, "plain"))
	if got, _, _, err := w.TokenByID(ctx, "plain"); err != nil || got.Workspaces != nil || got.Networks != nil {
		w.Errorf("a token without limits = %+v, %v; want none read back", got, err)
	}
	w.must(w.DeleteToken(ctx, bob.ID, "plain"))
	w.refused(w.CreateToken(ctx, bailey.Token{ID: "x", UserID: bob.ID}, "x"), bailey.Invalid)

	later := now.Add(time.Minute)
	w.must(w.TouchToken(ctx, a1.ID, later, "192.0.2.7"))
	w.must(w.TouchToken(ctx, a1.ID, now, "192.0.2.8"))
	a1.UsedAt, a1.UsedIP = later, "192.0.2.7"
	w.refused(w.TouchToken(ctx, "nothing", now, ""), bailey.NotFound)
	all, err := w.Tokens(ctx, alice.ID)
	w.must(err)
	if diff := cmp.Diff([]bailey.Token{a1}, all); diff != "" {
		w.Errorf("Tokens(alice) differ (-want +got):\n%s", diff)
	}

	w.refused(w.DeleteToken(ctx, bob.ID, a1.ID), bailey.NotFound)
	w.must(w.DeleteToken(ctx, alice.ID, a1.ID))
	_, _, _, err = w.TokenByID(ctx, a1.ID)
	w.refused(err, bailey.NotFound)

	w.clock.move(time.Hour - time.Microsecond)
	_, _, _, err = w.TokenByID(ctx, b1.ID)
	w.must(err)
	w.clock.move(time.Microsecond)
	_, _, _, err = w.TokenByID(ctx, b1.ID)
	w.refused(err, bailey.NotFound)
	if all, err := w.Tokens(ctx, bob.ID); err != nil || len(all) != 1 {
		w.Errorf("Tokens(bob) = %v, %v; want the expired one, so that bob sees why it fails", all, err)
	}
	w.must(w.DeleteUser(ctx, bob.ID))
	if all, err := w.Tokens(ctx, bob.ID); err != nil || len(all) != 0 {
		w.Errorf("Tokens of deleted bob = %v, %v; want none", all, err)
	}
}

func setupOnce(w *world) {
	ctx := w.Context()
	_, _, err := w.Setup(ctx)
	w.refused(err, bailey.NotFound)
	expires := w.clock.Now().Add(30 * time.Minute)
	w.must(w.SetSetup(ctx, "h1", expires))
	w.must(w.SetSetup(ctx, "h2", expires))
	if hash, at, err := w.Setup(ctx); err != nil || hash != "h2" || !at.Equal(expires) {
		w.Errorf("Setup() = %q, %v, %v; want h2, %v", hash, at, err, expires)
	}

	again := w.open(w.T, w.clock.Now)
	made := make([]bailey.User, 20)
	errs := together(len(made), func(i int) (err error) {
		on := []Store{w.Store, again}[i%2]
		made[i], err = on.FinishSetup(ctx, "h2", bailey.User{Name: fmt.Sprintf("admin%d", i)}, "h")
		return err
	})
	if n := w.succeeded(errs, bailey.Conflict); n != 1 {
		w.Fatalf("%d of %d set-ups succeeded, want 1", n, len(made))
	}
	winner := made[slices.Index(errs, nil)]
	all, err := w.Users(ctx)
	w.must(err)
	if diff := cmp.Diff([]bailey.User{winner}, all); diff != "" {
		w.Errorf("Users after set-up differ (-want +got):\n%s", diff)
	}
	if winner.Role != bailey.RoleAdmin || winner.Disabled {
		w.Errorf("set-up made %+v, want an enabled administrator", winner)
	}
	_, _, err = w.Setup(ctx)
	w.refused(err, bailey.NotFound)
}

func setupRefused(w *world) {
	ctx := w.Context()
	alice := bailey.User{Name: "alice"}
	finish := func(hash string) error {
		_, err := w.FinishSetup(ctx, hash, alice, "h")
		return err
	}
	w.refused(finish(""), bailey.Conflict)
	w.refused(finish("h1"), bailey.Conflict)
	w.refused(w.SetSetup(ctx, "", w.clock.Now()), bailey.Invalid)
	w.refused(w.SetSetup(ctx, "h1", time.Time{}), bailey.Invalid)

	w.must(w.SetSetup(ctx, "h1", w.clock.Now().Add(time.Minute)))
	w.refused(finish("h2"), bailey.Conflict, "not valid")
	w.clock.move(time.Minute)
	w.refused(finish("h1"), bailey.Conflict, "expired")
	w.must(w.SetSetup(ctx, "h2", w.clock.Now().Add(time.Minute)))
	w.refused(finish("h1"), bailey.Conflict, "not valid")
	_, err := w.FinishSetup(ctx, "h2", bailey.User{Name: "../alice"}, "h")
	w.refused(err, bailey.Invalid)
	w.must(finish("h2")) // a bad name did not use the link up

	w.must(w.SetSetup(ctx, "h3", w.clock.Now().Add(time.Minute)))
	_, err = w.FinishSetup(ctx, "h3", bailey.User{Name: "mallory"}, "h")
	w.refused(err, bailey.Conflict, "set up already")
}

// foreignText is what strangers send: PostgreSQL stores neither zero bytes nor
// broken UTF-8, and SQLite stores both; the store answers alike on both.
func foreignText(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	now := w.clock.Now()
	bad := "a\x00b\xff" + strings.Repeat("é", 3000)
	w.must(w.CreateSession(ctx, bailey.Session{
		ID: "s", UserID: alice.ID, IP: bad, UserAgent: bad, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour),
	}, "h"))
	s, _, err := w.SessionByHash(ctx, "h")
	w.must(err)
	if !strings.HasPrefix(s.UserAgent, "a\uFFFDb\uFFFDéé") || !strings.HasSuffix(s.UserAgent, "é…") || len(s.UserAgent) > 512 {
		w.Errorf("UserAgent %q is stored as %q", bad[:20], s.UserAgent)
	}
	for _, text := range []string{"a\x00", "\xff", "\x00"} {
		_, _, err := w.SessionByHash(ctx, text)
		w.refused(err, bailey.NotFound)
		_, err = w.UserByName(ctx, text)
		w.refused(err, bailey.NotFound)
		_, err = w.Workspace(ctx, text)
		w.refused(err, bailey.NotFound)
		w.refused(w.TouchSession(ctx, text, now), bailey.NotFound)
		w.refused(w.DeleteUser(ctx, text), bailey.NotFound)
		_, err = w.CreateUser(ctx, bailey.User{Name: "bob", Role: bailey.RoleUser}, text)
		w.refused(err, bailey.Invalid)
		_, err = w.AppendStage(ctx, bailey.Stage{Workspace: text})
		w.refused(err, bailey.NotFound)
	}
	quoted := `'; DROP TABLE users; --`
	_, err = w.UserByName(ctx, quoted)
	w.refused(err, bailey.NotFound)
	if n, err := w.CountUsers(ctx); err != nil || n != 1 {
		w.Errorf("CountUsers = %d, %v; want 1", n, err)
	}
}

package identitytest_test

import (
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
)

func wantKind(t *testing.T, what string, err error, want bailey.Kind) {
	t.Helper()
	if err == nil || bailey.KindOf(err) != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// What the tests of several rooms rest on: the store in memory keeps the
// contract of identity.Store.
func TestMemStoreKeepsTheContract(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 11, 20, 9, 0, 0, 1234, time.UTC)
	m := identitytest.NewMemStore()
	m.Now = func() time.Time { return now }
	create := func(name string, role bailey.Role) bailey.User {
		t.Helper()
		u, err := m.CreateUser(ctx, bailey.User{Name: name, Role: role, Groups: []string{"g"}}, "hash of "+name)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	alice, bob := create("alice", bailey.RoleAdmin), create("bob", bailey.RoleUser)
	if alice.UID != 20000 || bob.UID != 20001 || alice.ID == bob.ID || alice.CreatedAt.Nanosecond() != 1000 {
		t.Errorf("alice %+v, bob %+v; want uids from 20000, ids, times in microseconds", alice, bob)
	}
	_, err := m.CreateUser(ctx, bailey.User{Name: "bob", Role: bailey.RoleUser}, "")
	wantKind(t, "a name twice", err, bailey.Conflict)
	bob.Groups[0] = "changed by the caller"
	if u, _ := m.UserByName(ctx, "bob"); u.Groups[0] != "g" {
		t.Error("the store shares memory with its callers")
	}

	session := func(id, user, hash string) error {
		return m.CreateSession(ctx, bailey.Session{ID: id, UserID: user, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour)}, hash)
	}
	for _, id := range []string{"s1", "s2"} {
		if err := session(id, bob.ID, "h"+id); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, "a session id twice", session("s1", bob.ID, "other"), bailey.Conflict)
	wantKind(t, "a secret twice", session("s3", bob.ID, "hs1"), bailey.Conflict)
	wantKind(t, "a session of nobody", session("s3", "nobody", "hs3"), bailey.NotFound)
	wantKind(t, "alice deletes bob's session", m.DeleteSession(ctx, alice.ID, "s1"), bailey.NotFound)
	if s, u, err := m.SessionByHash(ctx, "hs1"); err != nil || s.ID != "s1" || u.Name != "bob" {
		t.Errorf("SessionByHash = %+v, %+v, %v", s, u, err)
	}
	if err := m.TouchSession(ctx, "s1", now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if s, _, _ := m.SessionByHash(ctx, "hs1"); s.SeenAt.Before(now.Truncate(time.Microsecond)) {
		t.Error("TouchSession moved the last use back")
	}
	if err := m.DeleteSessions(ctx, bob.ID, "s2"); err != nil {
		t.Fatal(err)
	}
	if all, _ := m.Sessions(ctx, bob.ID); len(all) != 1 || all[0].ID != "s2" {
		t.Errorf("sessions left = %v, want s2", all)
	}
	err = m.CreateToken(ctx, bailey.Token{ID: "t1", UserID: bob.ID, Scopes: []bailey.Scope{bailey.ScopeAll}, ExpiresAt: now.Add(time.Hour)}, "ht1")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	_, _, err = m.SessionByHash(ctx, "hs2")
	wantKind(t, "an expired session", err, bailey.NotFound)
	_, _, _, err = m.TokenByID(ctx, "t1")
	wantKind(t, "an expired token", err, bailey.NotFound)
	if all, _ := m.Tokens(ctx, bob.ID); len(all) != 1 {
		t.Errorf("tokens = %v, want the expired one shown", all)
	}

	alice.Role = bailey.RoleUser
	wantKind(t, "the last administrator steps down", m.UpdateUser(ctx, alice), bailey.Conflict)
	wantKind(t, "the last administrator goes", m.DeleteUser(ctx, alice.ID), bailey.Conflict)
	if err := m.DeleteUser(ctx, bob.ID); err != nil {
		t.Fatal(err)
	}
	if all, _ := m.Tokens(ctx, bob.ID); len(all) != 0 {
		t.Errorf("bob is gone, his tokens are not: %v", all)
	}
	if carol := create("bob", bailey.RoleUser); carol.UID != 20002 {
		t.Errorf("a new bob has uid %d; want one that nobody had", carol.UID)
	}
	_, err = m.FinishSetup(ctx, "x", bailey.User{Name: "dave"}, "")
	wantKind(t, "set-up with users", err, bailey.Conflict)
}

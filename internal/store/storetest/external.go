package storetest

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

func fromOutside() []story {
	return []story{
		{"AnAccountFromOutside", externalAccount},
		{"OneSubjectOfTwoIssuersIsTwoPeople", externalIssuers},
		{"LinkingTakesThePasswordAway", externalLink},
		{"SessionsFromOutside", externalSessions},
		{"WhatMayBeUsedOnceIsUsedOnce", seenOnce},
	}
}

// comes makes an account of somebody from outside.
func (w *world) comes(name, issuer, subject string) (bailey.User, bailey.External) {
	w.Helper()
	u, e, err := w.CreateExternalUser(w.Context(), bailey.User{Name: name, Role: bailey.RoleUser}, bailey.External{
		Source: "oidc:corp", Issuer: issuer, Subject: subject, Login: name, Role: bailey.RoleUser,
		SignedInAt: w.clock.Now(), CheckedAt: w.clock.Now(),
	})
	w.must(err)
	return u, e
}

func externalAccount(w *world) {
	ctx := w.Context()
	local := w.user("bob", bailey.RoleUser)
	alice, tie := w.comes("alice", "https://idp", "1")
	if alice.UID != local.UID+1 || tie.UserID != alice.ID || tie.ID == "" || tie.CreatedAt.IsZero() {
		w.Errorf("CreateExternalUser = %+v, %+v", alice, tie)
	}
	if hash, err := w.PasswordHash(ctx, alice.ID); err != nil || hash != "" {
		w.Errorf("PasswordHash = %q, %v; want none", hash, err)
	}
	got, err := w.ExternalBySubject(ctx, "https://idp", "1")
	w.must(err)
	if diff := cmp.Diff(tie, got); diff != "" {
		w.Errorf("ExternalBySubject differs (-want +got):\n%s", diff)
	}
	// A name that is taken burns nothing, and leaves no half of it.
	_, _, err = w.CreateExternalUser(ctx, bailey.User{Name: "bob", Role: bailey.RoleUser}, bailey.External{Source: "oidc:corp", Issuer: "https://idp", Subject: "2"})
	w.refused(err, bailey.Conflict, "bob")
	_, _, err = w.CreateExternalUser(ctx, bailey.User{Name: "carol", Role: bailey.RoleUser}, bailey.External{Source: "oidc:corp", Issuer: "https://idp", Subject: "1"})
	w.refused(err, bailey.Conflict, "belongs to an account")
	_, err = w.UserByName(ctx, "carol")
	w.refused(err, bailey.NotFound)
	_, _, err = w.CreateExternalUser(ctx, bailey.User{Name: "carol", Role: bailey.RoleUser}, bailey.External{Source: "oidc:corp", Issuer: "https://idp"})
	w.refused(err, bailey.Invalid, "subject")

	later := w.clock.move(time.Hour)
	tie.Login, tie.Role, tie.Groups, tie.Gone, tie.Source = "alice2", bailey.RoleAdmin, []string{"a", "b"}, "disabled", "oidc:other"
	tie.CheckedAt = later
	w.must(w.UpdateExternal(ctx, tie))
	all, err := w.Externals(ctx, alice.ID)
	w.must(err)
	if diff := cmp.Diff([]bailey.External{tie}, all); diff != "" {
		w.Errorf("Externals differ (-want +got):\n%s", diff)
	}
	w.refused(w.UpdateExternal(ctx, bailey.External{ID: "nothing"}), bailey.NotFound)
	w.refused(w.DeleteExternal(ctx, local.ID, tie.ID), bailey.NotFound) // it is not bob's
	w.must(w.DeleteExternal(ctx, alice.ID, tie.ID))
	_, err = w.ExternalBySubject(ctx, "https://idp", "1")
	w.refused(err, bailey.NotFound)

	_, tie = w.comes("dave", "https://idp", "4")
	w.must(w.DeleteUser(ctx, tie.UserID))
	_, err = w.ExternalBySubject(ctx, "https://idp", "4")
	w.refused(err, bailey.NotFound)
}

func externalIssuers(w *world) {
	a, _ := w.comes("alice", "https://one", "1")
	b, _ := w.comes("alice-x", "https://two", "1")
	for issuer, want := range map[string]string{"https://one": a.ID, "https://two": b.ID} {
		if e, err := w.ExternalBySubject(w.Context(), issuer, "1"); err != nil || e.UserID != want {
			w.Errorf("subject 1 of %s is %s, %v; want %s", issuer, e.UserID, err, want)
		}
	}
	for _, other := range [][2]string{{"https://one/", "1"}, {"https://ONE", "1"}, {"https://one", "1 "}, {"https://one", "1\x00"}, {"", ""}} {
		_, err := w.ExternalBySubject(w.Context(), other[0], other[1])
		w.refused(err, bailey.NotFound)
	}
	now := w.clock.Now()
	if due, err := w.ExternalsDue(w.Context(), "oidc:corp", now, 10); err != nil || len(due) != 0 {
		w.Errorf("due now: %v, %v; want none", due, err)
	}
	due, err := w.ExternalsDue(w.Context(), "oidc:corp", now.Add(time.Second), 1)
	if err != nil || len(due) != 1 {
		w.Errorf("due, at most one: %v, %v", due, err)
	}
	due[0].Gone = "missing"
	w.must(w.UpdateExternal(w.Context(), due[0]))
	if rest, err := w.ExternalsDue(w.Context(), "oidc:corp", now.Add(time.Second), 10); err != nil || len(rest) != 1 || rest[0].ID == due[0].ID {
		w.Errorf("due after one is gone: %v, %v", rest, err)
	}
}

func externalLink(w *world) {
	ctx := w.Context()
	root, bob := w.user("root1", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	link := func(u bailey.User, subject string) error {
		_, err := w.LinkExternal(ctx, bailey.External{UserID: u.ID, Source: "ldap:corp", Issuer: "ldap:corp", Subject: subject})
		return err
	}
	w.must(link(bob, "b"))
	if hash, err := w.PasswordHash(ctx, bob.ID); err != nil || hash != "" {
		w.Errorf("bob has the password %q, %v", hash, err)
	}
	w.refused(link(root, "b"), bailey.Conflict)
	w.refused(link(root, "r"), bailey.Conflict, "last enabled administrator with a password")
	if hash, _ := w.PasswordHash(ctx, root.ID); hash == "" {
		w.Error("a refused link took the password away")
	}
	w.refused(link(bailey.User{ID: "nobody"}, "n"), bailey.NotFound)
	w.user("root2", bailey.RoleAdmin)
	w.must(link(root, "r"))
}

func externalSessions(w *world) {
	ctx, now := w.Context(), w.clock.Now()
	_, a := w.comes("alice", "https://idp", "1")
	_, b := w.comes("bob", "https://idp", "2")
	begin := func(id string, tie bailey.External, sid string) bailey.ExternalSession {
		w.must(w.CreateSession(ctx, bailey.Session{ID: id, UserID: tie.UserID, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour)}, "h"+id))
		x := bailey.ExternalSession{SessionID: id, ExternalID: tie.ID, UserID: tie.UserID, Source: tie.Source, SID: sid, Refresh: "refresh " + id, CheckedAt: now}
		w.must(w.CreateExternalSession(ctx, x))
		return x
	}
	a1, _, b1 := begin("a1", a, "sid-1"), begin("a2", a, ""), begin("b1", b, "sid-2")
	of := func(got []bailey.ExternalSession, err error) []string {
		w.must(err)
		var ids []string
		for _, x := range got {
			ids = append(ids, x.SessionID)
		}
		return ids
	}
	is := func(what string, got, want []string) {
		w.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("%s differ (-want +got):\n%s", what, diff)
		}
	}
	is("alice's", of(w.ExternalSessionsOf(ctx, a.ID)), []string{"a1", "a2"})
	is("sid-1", of(w.ExternalSessionsBySID(ctx, "https://idp", "sid-1")), []string{"a1"})
	is("sid-1 of another issuer", of(w.ExternalSessionsBySID(ctx, "https://other", "sid-1")), nil)
	is("no sid", of(w.ExternalSessionsBySID(ctx, "https://idp", "")), nil)
	is("due", of(w.ExternalSessionsDue(ctx, "oidc:corp", now.Add(time.Second), 2)), []string{"a1", "a2"})
	got, err := w.ExternalSessionsBySID(ctx, "https://idp", "sid-2")
	w.must(err)
	if diff := cmp.Diff([]bailey.ExternalSession{b1}, got); diff != "" {
		w.Errorf("bob's session differs (-want +got):\n%s", diff)
	}
	a1.Refresh, a1.CheckedAt = "", now.Add(time.Minute)
	w.must(w.UpdateExternalSession(ctx, a1))
	if got, err := w.ExternalSessionsBySID(ctx, "https://idp", "sid-1"); err != nil || !cmp.Equal(got, []bailey.ExternalSession{a1}) {
		w.Errorf("after the update: %+v, %v", got, err)
	}
	w.must(w.DeleteSession(ctx, a.UserID, "a1"))
	w.refused(w.UpdateExternalSession(ctx, a1), bailey.NotFound)
	w.refused(w.CreateExternalSession(ctx, a1), bailey.NotFound)
	w.clock.move(time.Hour)
	is("expired", of(w.ExternalSessionsOf(ctx, b.ID)), nil)
}

func seenOnce(w *world) {
	until := w.clock.Now().Add(time.Minute)
	first := func(kind, id string) bool {
		f, err := w.SeenOnce(w.Context(), kind, id, until)
		w.must(err)
		return f
	}
	if !first("jti", "a") || first("jti", "a") || !first("state", "a") || !first("jti", "b") {
		w.Error("an id was new twice, or not new at first")
	}
	again := w.open(w.T, w.clock.Now)
	used := make([]bool, 10)
	w.succeeded(together(len(used), func(i int) (err error) {
		used[i], err = []Store{w.Store, again}[i%2].SeenOnce(w.Context(), "jti", "c", until)
		return err
	}))
	n := 0
	for _, u := range used {
		if u {
			n++
		}
	}
	if n != 1 {
		w.Errorf("%d of %d were the first", n, len(used))
	}
	w.clock.move(time.Minute)
	until = w.clock.Now().Add(time.Minute)
	if !first("jti", "a") {
		w.Error("an id is remembered for ever")
	}
}

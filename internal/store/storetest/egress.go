package storetest

import (
	"fmt"
	"time"

	"github.com/baileyhq/bailey"
)

func asking() []story {
	return []story{
		{"trying again is the same request, and people's requests are their own", func(w *world) {
			alice, bob := w.user("alice", bailey.RoleUser), w.user("bob", bailey.RoleUser)
			first := w.ask(alice, "ml", "files.example.org")
			w.clock.move(time.Minute)
			second := w.ask(alice, "ml", "files.example.org")
			if second.ID != first.ID || second.Count != 2 || !second.FirstAt.Equal(first.FirstAt) || !second.LastAt.Equal(w.clock.Now()) || second.State != bailey.AskOpen || second.User != "alice" {
				w.Errorf("the second attempt gave %+v after %+v", second, first)
			}
			w.ask(bob, "ml", "files.example.org")
			w.ask(alice, "other", "files.example.org")
			for userID, want := range map[string]int{"": 3, alice.ID: 2, bob.ID: 1, bailey.NewID(): 0} {
				got, err := w.EgressRequests(w.Context(), userID)
				w.must(err)
				if len(got) != want {
					w.Errorf("%d requests of %q, want %d", len(got), userID, want)
				}
			}
			_, err := w.AskEgress(w.Context(), bailey.EgressRequest{UserID: bailey.NewID(), Class: "ml", Host: "a.example.org", Port: 443})
			w.refused(err, bailey.NotFound)
			_, err = w.AskEgress(w.Context(), bailey.EgressRequest{UserID: alice.ID, Class: "ml", Host: "a.example.org", Port: 65536})
			w.refused(err, bailey.Invalid)
			_, err = w.DecideEgress(w.Context(), bailey.NewID(), bailey.AskDenied, "root", w.clock.Now())
			w.refused(err, bailey.NotFound)
		}},
		{"a denied request stays denied, an allowed one opens again when it is refused later", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			r := w.ask(alice, "ml", "files.example.org")
			denied, err := w.DecideEgress(w.Context(), r.ID, bailey.AskDenied, "root", w.clock.Now())
			w.must(err)
			if denied.State != bailey.AskDenied || denied.DecidedBy != "root" || !denied.DecidedAt.Equal(w.clock.Now()) {
				w.Errorf("denied: %+v", denied)
			}
			w.clock.move(time.Minute)
			if again := w.ask(alice, "ml", "files.example.org"); again.State != bailey.AskDenied || again.Count != 2 || again.DecidedBy != "root" {
				w.Errorf("refused after a denial: %+v", again)
			}
			before := w.clock.Now()
			w.clock.move(time.Minute)
			_, err = w.DecideEgress(w.Context(), r.ID, bailey.AskAllowed, "root", w.clock.Now())
			w.must(err)
			late := bailey.EgressRequest{UserID: alice.ID, Class: "ml", Host: "files.example.org", Port: 443, Count: 1, LastAt: before}
			if got, err := w.AskEgress(w.Context(), late); err != nil || got.State != bailey.AskAllowed {
				w.Errorf("what was refused before the decision and told after it: %+v, %v", got, err)
			}
			w.clock.move(25 * time.Hour)
			if again := w.ask(alice, "ml", "files.example.org"); again.State != bailey.AskOpen || again.Count != 1 || again.DecidedBy != "" || !again.FirstAt.Equal(w.clock.Now()) {
				w.Errorf("refused after the grant ended: %+v", again)
			}
		}},
		{"a grant ends by itself, by its use and by a word", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			end := w.clock.Now().Add(time.Hour)
			once := bailey.EgressGrant{
				ID: bailey.NewID(), RequestID: bailey.NewID(), Class: "ml", UserID: alice.ID, User: "alice", WorkspaceID: bailey.NewID(),
				Host: "x.example.org", Port: 443, Scope: bailey.GrantOnce, By: "root", CreatedAt: w.clock.Now(), ExpiresAt: end,
			}
			class := bailey.EgressGrant{
				ID: bailey.NewID(), Class: "ml", Host: "*.example.org", Port: 443, Scope: bailey.GrantClass, By: "root",
				CreatedAt: w.clock.Now().Add(time.Second), ExpiresAt: end.Add(time.Hour),
			}
			w.must(w.GrantEgress(w.Context(), once))
			w.must(w.GrantEgress(w.Context(), class))
			w.grants(once, class)
			once.UsedAt, once.ExpiresAt = w.clock.Now().Add(time.Minute), end.Add(-time.Minute)
			w.must(w.GrantEgress(w.Context(), once))
			w.grants(once, class)
			w.clock.move(time.Hour)
			w.grants(class)
			w.must(w.RevokeEgress(w.Context(), class.ID))
			w.grants()
			w.refused(w.RevokeEgress(w.Context(), class.ID), bailey.NotFound)
			for _, spoil := range []func(*bailey.EgressGrant){
				func(g *bailey.EgressGrant) { g.Scope = "for ever" },
				func(g *bailey.EgressGrant) { g.WorkspaceID = "" },
				func(g *bailey.EgressGrant) { g.UserID = "" },
				func(g *bailey.EgressGrant) { g.Scope, g.UserID = bailey.GrantDay, "" },
				func(g *bailey.EgressGrant) { g.Class = "" },
				func(g *bailey.EgressGrant) { g.Port = 0 },
				func(g *bailey.EgressGrant) { g.ID = "" },
				func(g *bailey.EgressGrant) { g.ExpiresAt = time.Time{} },
			} {
				bad := once
				spoil(&bad)
				w.refused(w.GrantEgress(w.Context(), bad), bailey.Invalid)
			}
		}},
		{"a program that asks for everything fills nothing, and does not drown others", func(w *world) {
			alice, bob := w.user("alice", bailey.RoleUser), w.user("bob", bailey.RoleUser)
			w.ask(bob, "ml", "one.example.org")
			for i := range 230 {
				w.clock.move(time.Second)
				w.ask(alice, "ml", fmt.Sprintf("h%d.example.org", i))
			}
			hers, err := w.EgressRequests(w.Context(), alice.ID)
			w.must(err)
			if len(hers) != 200 || hers[0].Host != "h229.example.org" {
				w.Errorf("alice has %d requests, the newest %q; want 200 and her last", len(hers), hers[0].Host)
			}
			his, err := w.EgressRequests(w.Context(), bob.ID)
			w.must(err)
			if len(his) != 1 {
				w.Errorf("bob has %d requests left, want 1", len(his))
			}
			w.clock.move(91 * 24 * time.Hour)
			w.ask(alice, "ml", "new.example.org")
			if hers, err := w.EgressRequests(w.Context(), alice.ID); err != nil || len(hers) != 1 {
				w.Errorf("after three months alice has %d requests (%v), want the new one", len(hers), err)
			}
		}},
	}
}

func (w *world) ask(u bailey.User, class, host string) bailey.EgressRequest {
	w.Helper()
	r, err := w.AskEgress(w.Context(), bailey.EgressRequest{
		ID: bailey.NewID(), UserID: u.ID, WorkspaceID: bailey.NewID(), Workspace: "one", Class: class, Host: host, Port: 443, Count: 1,
	})
	w.must(err)
	return r
}

// grants makes sure which hold now.
func (w *world) grants(want ...bailey.EgressGrant) {
	w.Helper()
	got, err := w.EgressGrants(w.Context())
	w.must(err)
	if len(got) != len(want) {
		w.Errorf("%d grants hold, want %d: %+v", len(got), len(want), got)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			w.Errorf("grant %d is\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

package console_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/egress"
)

// ask is what a refusal in a workspace leaves behind.
func (s *site) ask(owner string, ws bailey.Workspace, host string) bailey.EgressRequest {
	s.t.Helper()
	r, err := s.Store.AskEgress(s.t.Context(), bailey.EgressRequest{
		UserID: s.User(owner).ID, WorkspaceID: ws.ID, Workspace: ws.Name, Class: "small", Host: host, Port: 443, Count: 3,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// What alice's workspace was refused she sees, and bob does not; the
// administrator allows it by a button, and takes it back by another; nobody
// else has the buttons, nor gets anywhere without them.
func TestRefusedAskedAndAllowedByForms(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	asked := s.ask(Alice, ws, "data.example.org")
	alice, bob, auditor, admin := s.browse(Alice), s.browse(Bob), s.browse(Auditor), s.browse(Admin)

	alice.get("/network").wantStatus(t, http.StatusOK, "data.example.org", "lab", "waits for an administrator")
	alice.get("/workspaces/"+ws.ID).wantStatus(t, http.StatusOK, "Refused to reach", "data.example.org", "waits for an administrator")
	if got := bob.get("/network"); got.status != http.StatusOK || strings.Contains(got.body, "data.example.org") || strings.Contains(got.text(), "Everybody's requests") {
		t.Errorf("bob sees %d %s", got.status, got.text())
	}
	seen := auditor.get("/network")
	seen.wantStatus(t, http.StatusOK, "data.example.org", "alice.lab", "(1 to answer)")
	if n := len(seen.forms()); n != 1 { // the sign-out
		t.Errorf("the auditor has %d forms", n)
	}
	allow, deny := "/network/requests/"+asked.ID+"/allow", "/network/requests/"+asked.ID+"/deny"
	for who, b := range map[string]*browser{Alice: alice, Bob: bob, Auditor: auditor} {
		if got := b.post(allow, "scope", "class"); got.status != http.StatusForbidden {
			t.Errorf("%s allows: %d %s", who, got.status, got.text())
		}
		if got := b.post(deny); got.status != http.StatusForbidden {
			t.Errorf("%s denies: %d %s", who, got.status, got.text())
		}
	}
	if d, err := s.Egress.Decide(egress.Who{UserID: s.User(Alice).ID, User: Alice, Class: "small"}, "data.example.org", 443, ""); err != nil || d.Allowed {
		t.Fatalf("after what others tried: %+v, %v", d, err)
	}

	admin.submit(admin.get("/network"), allow, "scope", "day").wantRedirect(t, "/network")
	alice.get("/network").wantStatus(t, http.StatusOK, "allowed by "+Admin, "Allowed to you beyond the rules")
	for who, want := range map[string]bool{Alice: true, Bob: false} {
		d, err := s.Egress.Decide(egress.Who{UserID: s.User(who).ID, User: who, Class: "small"}, "data.example.org", 443, "")
		if err != nil || d.Allowed != want {
			t.Errorf("%s may reach it: %t (%v), want %t", who, d.Allowed, err, want)
		}
	}
	if got := bob.get("/network"); strings.Contains(got.body, "data.example.org") {
		t.Errorf("bob sees alice's grant: %s", got.text())
	}

	page := admin.get("/network")
	revoke := ""
	for _, f := range page.forms() {
		if strings.HasSuffix(f.action, "/revoke") {
			revoke = f.action
		}
	}
	if got := alice.post(revoke); got.status != http.StatusForbidden {
		t.Errorf("alice revokes: %d", got.status)
	}
	admin.submit(page, revoke).wantRedirect(t, "/network")
	if d, _ := s.Egress.Decide(egress.Who{UserID: s.User(Alice).ID, User: Alice, Class: "small"}, "data.example.org", 443, ""); d.Allowed {
		t.Error("what was revoked is allowed still")
	}
	admin.submit(admin.get("/network"), deny).wantRedirect(t, "/network")
	alice.get("/network").wantStatus(t, http.StatusOK, "denied by "+Admin)
	if got := admin.post("/network/requests/"+asked.ID+"/allow", "scope", "for ever"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a scope that there is not: %d %s", got.status, got.text())
	}
}

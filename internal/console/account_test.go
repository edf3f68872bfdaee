package console_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/secret"
)

// A password is changed with the old one; then the other browsers are out and
// this one is not.
func TestChangePassword(t *testing.T) {
	s := open(t)
	here, other, bob := s.browse(Alice), s.browse(Alice), s.browse(Bob)
	const fresh = "seven orange bridges"
	for _, tt := range []struct {
		old, new, again string
		status          int
		says            string
	}{
		{Password, fresh, fresh + "!", 422, "The two passwords differ."},
		{"wrong", fresh, fresh, 403, "The old password is wrong."},
		{Password, "short", "short", 422, "shorter than 10"},
		{Password, Password, Password, 422, "The new password is the old one."},
		{"", "", "", 422, "shorter"},
	} {
		got := here.submit(here.get("/account"), "/account/password", "old", tt.old, "new", tt.new, "again", tt.again)
		got.wantStatus(t, tt.status, tt.says)
		if strings.Contains(got.body, fresh) || strings.Contains(got.body, Password) {
			t.Errorf("a password comes back: %s", got.body)
		}
		other.get("/account").wantStatus(t, http.StatusOK)
	}
	here.submit(here.get("/account"), "/account/password", "old", Password, "new", fresh, "again", fresh).
		wantStatus(t, http.StatusOK, "Your password is changed. Your other browsers are signed out.")
	here.get("/account").wantStatus(t, http.StatusOK)
	other.get("/account").wantRedirect(t, "/signin")
	bob.get("/account").wantStatus(t, http.StatusOK)
	s.browse(nobody).post("/signin", "name", Alice, "password", Password).wantStatus(t, http.StatusUnauthorized)
	s.browse(nobody).post("/signin", "name", Alice, "password", fresh).wantRedirect(t, "/workspaces")
}

// A token is shown once, works, and is void when its owner says so; bob cannot
// say so, nor end alice's sessions.
func TestTokensAndSessions(t *testing.T) {
	s := open(t)
	alice, second, bob := s.browse(Alice), s.browse(Alice), s.browse(Bob)
	made := alice.submit(alice.get("/account"), "/account/tokens", "note", "nightly")
	made.wantStatus(t, http.StatusOK, "not shown again", "nightly", "never used")
	token := regexp.MustCompile(`bly_[0-9a-z]{26}_[\w-]+`).FindString(made.body)
	use := func() int {
		t.Helper()
		req := mustRequest(t, http.MethodGet, s.URL+"/api/v1/me")
		req.Header.Set("Authorization", "Bearer "+token)
		return s.browse(nobody).raw(req).status
	}
	if token == "" || use() != http.StatusOK {
		t.Fatalf("the token %q gives %d", token, use())
	}
	page := alice.get("/account")
	if strings.Contains(page.body, token) || strings.Contains(page.body, token[31:50]) {
		t.Error("the token is shown again")
	}
	var revoke, end string
	for _, f := range page.forms() {
		switch {
		case strings.HasSuffix(f.action, "/revoke"):
			revoke = f.action
		case strings.HasPrefix(f.action, "/account/sessions/"):
			end = f.action
		}
	}
	for action, never := range map[string]string{
		revoke: "/account/tokens/01abcdefghjkmnpqrstvwxyz00/revoke", end: "/account/sessions/01abcdefghjkmnpqrstvwxyz00/end",
	} {
		got, nothing := bob.post(action), bob.post(never)
		if got.status != http.StatusNotFound || got.text() != nothing.text() || nothing.status != got.status {
			t.Errorf("bob: %s gives %d %s, what never was %d %s", action, got.status, got.text(), nothing.status, nothing.text())
		}
	}
	if use() != http.StatusOK {
		t.Error("bob voided alice's token")
	}
	second.get("/account").wantStatus(t, http.StatusOK, "this one")
	alice.submit(page, end).wantRedirect(t, "/account")
	second.get("/account").wantRedirect(t, "/signin")
	alice.submit(page, revoke).wantRedirect(t, "/account")
	if got := use(); got != http.StatusUnauthorized {
		t.Errorf("the void token gives %d", got)
	}
	alice.post(revoke).wantStatus(t, http.StatusNotFound)
}

// The administration is there for staff, its buttons for administrators, and
// for users there is no such page.
func TestAdministration(t *testing.T) {
	s := open(t)
	s.LaunchClass(Alice, "trained", "gpu")
	alice, watcher, root := s.browse(Alice), s.browse(Auditor), s.browse(Admin)
	alice.get("/admin").wantStatus(t, http.StatusNotFound, "There is no such page.")
	if _, err := s.Store.SetSecret(t.Context(), bailey.KnownSecret{Name: "WANDB_KEY", Mode: "block"}, secret.New("correct-horse-9431")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(alice.get("/account").text(), "Administration") {
		t.Error("alice is led to the administration")
	}
	for _, b := range []*browser{watcher, root} {
		if p := b.get("/admin"); strings.Contains(p.body, "correct-horse-9431") {
			t.Error("the page shows the value of a secret")
		}
		b.get("/admin").wantStatus(t, http.StatusOK, "WANDB_KEY all block 18", "alice", "bob", "watcher", "root-admin", "trained", Card, "alice/trained")
	}
	if forms := watcher.get("/admin").forms(); len(forms) != 1 || forms[0].action != "/signout" {
		t.Errorf("an auditor may press %+v", forms)
	}
	const password = "seven orange bridges"
	for _, b := range []*browser{alice, watcher} {
		b.post("/admin/users", "name", "eve", "password", password, "role", "admin").wantStatus(t, http.StatusForbidden, "You may not manage accounts.")
		b.post("/admin/users/bob/disable").wantStatus(t, http.StatusForbidden, "You may not manage accounts.")
		b.post("/admin/users/nosuch/enable").wantStatus(t, http.StatusForbidden, "You may not manage accounts.")
	}

	got := root.submit(root.get("/admin"), "/admin/users", "name", "carol", "password", "short", "role", "auditor", "groups", "a b")
	got.wantStatus(t, http.StatusUnprocessableEntity, "shorter than 10")
	if !strings.Contains(got.body, `value="carol"`) || !strings.Contains(got.body, `value="a b"`) || !strings.Contains(got.body, `<option selected>auditor`) || strings.Contains(got.body, `value="short"`) {
		t.Errorf("the form does not come back as it was: %s", got.body)
	}
	root.submit(root.get("/admin"), "/admin/users", "name", "carol", "password", password, "role", "user", "groups", "b a").wantRedirect(t, "/admin")
	root.post("/admin/users", "name", "carol", "password", password, "role", "user").wantStatus(t, http.StatusConflict, "There is a user carol already.")
	root.post("/admin/users", "name", "dora", "password", password, "role", "root").wantStatus(t, http.StatusUnprocessableEntity, "There is no role")

	carol := s.browse(nobody)
	carol.post("/signin", "name", "carol", "password", password).wantRedirect(t, "/workspaces")
	root.submit(root.get("/admin"), "/admin/users/carol/disable").wantRedirect(t, "/admin")
	carol.get("/workspaces").wantRedirect(t, "/signin")
	root.submit(root.get("/admin"), "/admin/users/carol/enable").wantRedirect(t, "/admin")
	carol.post("/signin", "name", "carol", "password", password).wantRedirect(t, "/workspaces")
	root.post("/admin/users/nosuch/disable").wantStatus(t, http.StatusNotFound, "There is no user nosuch.")
	root.post("/admin/users/root-admin/disable").wantStatus(t, http.StatusConflict, "This is the last enabled administrator.")
}

// Without the engine the page is there all the same, and says what is missing.
func TestAdministrationWithoutEngine(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	spec := s.Engine.Specs()[ws.RunID]
	spec.Run, spec.Workspace = bailey.NewID(), bailey.NewID()
	orphan, err := s.Engine.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	root := s.browse(Admin)
	root.get("/admin").wantStatus(t, http.StatusOK, "Orphans", orphan)
	s.Engine.SetDown(true)
	root.get("/admin").wantStatus(t, http.StatusOK, "alice", "lab", "The container engine does not answer now, so orphans are not known.")
}

package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
)

// longAgo makes everything that somebody's sessions proved an hour old.
func (s *site) longAgo(user bailey.User) {
	s.t.Helper()
	rows, err := s.Store.Sessions(s.t.Context(), user.ID)
	if err != nil || len(rows) == 0 {
		s.t.Fatalf("sessions of %s: %v, %v", user.Name, rows, err)
	}
	for _, row := range rows {
		if err := s.Store.ProveSession(s.t.Context(), user.ID, row.ID, row.Methods, time.Now().Add(-time.Hour)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// asked is where a form leads that needs a proof, and the page that asks for it.
func (b *browser) asked(p page) page {
	b.t.Helper()
	if p.status != http.StatusSeeOther || !strings.HasPrefix(p.location(), "/stepup?") || !strings.Contains(p.location(), "held=") {
		b.t.Fatalf("the form leads to %d %q, want a proof", p.status, p.location())
	}
	return b.get(p.location())
}

// An administrator who signed in an hour ago is asked again before anything of
// the server's is changed, and what was typed is done afterwards: images here.
func TestAFormThatIsAskedForAProofIsNotLost(t *testing.T) {
	s := open(t)
	root, other := s.browse(Admin), s.browse(Admin)
	s.longAgo(s.User(Admin))
	page := root.asked(root.post("/images", "name", "torch", "reference", "registry.example/team/torch:v1"))
	page.wantStatus(t, http.StatusOK, "Confirm that it is you", "What you sent is kept")
	if all, err := s.Store.Images(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("before the proof there is %+v, %v", all, err)
	}
	// The wrong password changes nothing and loses nothing.
	page = root.submit(page, "/stepup", "password", "not this one")
	page.wantStatus(t, http.StatusUnauthorized, "The password is wrong", "What you sent is kept")
	root.submit(page, "/stepup", "password", Password).wantRedirect(t, "/images")
	if all, err := s.Store.Images(t.Context()); err != nil || len(all) != 1 || all[0].Name != "torch" {
		t.Fatalf("after the proof there is %+v, %v", all, err)
	}
	// It counted once: the same page again only leads back.
	root.submit(page, "/stepup", "password", Password).wantRedirect(t, "/images")
	if all, _ := s.Store.Images(t.Context()); len(all) != 1 {
		t.Errorf("sent twice: %+v", all)
	}
	// What one browser's session sent is nothing to another's, same person or not.
	kept := other.post("/images", "name", "two", "reference", "registry.example/team/two:v1")
	page = other.asked(kept)
	alice := s.browse(Alice)
	query, err := url.Parse(kept.location())
	if err != nil {
		t.Fatal(err)
	}
	alice.submit(alice.get("/stepup?"+query.RawQuery), "/stepup", "password", Password).wantRedirect(t, "/images")
	root.submit(root.get("/stepup?"+query.RawQuery), "/stepup", "password", Password).wantRedirect(t, "/images")
	if all, _ := s.Store.Images(t.Context()); len(all) != 1 {
		t.Errorf("somebody else's form was done: %+v", all)
	}
	other.submit(page, "/stepup", "password", Password).wantRedirect(t, "/images")
	if all, _ := s.Store.Images(t.Context()); len(all) != 2 {
		t.Errorf("its own was not: %+v", all)
	}
}

// A form with a wrong field is shown again after the proof, filled in, as it
// would have been before.
func TestAFormIsRefusedAfterTheProofAsBefore(t *testing.T) {
	s := open(t)
	root := s.browse(Admin)
	s.longAgo(s.User(Admin))
	page := root.asked(root.post("/admin/users", "name", "carol", "password", "short", "role", "user", "groups", "vision"))
	if strings.Contains(page.body, "short") {
		t.Error("the page repeats what was typed as a password")
	}
	page = root.submit(page, "/stepup", "password", Password)
	page.wantStatus(t, http.StatusUnprocessableEntity)
	if !strings.Contains(page.body, `value="carol"`) || !strings.Contains(page.body, `value="vision"`) {
		t.Errorf("the form is empty: %s", page.text())
	}
}

// Whoever has no password here proves it at the company, which asks anew and
// says when; what was sent is done then.
func TestTheCompanyAsksAgain(t *testing.T) {
	s, idp := openWithCompany(t)
	idp.SignedIn("1", map[string]any{"preferred_username": "erika"})
	b := s.browse(nobody)
	to, ticket := leave(t, b, "")
	b.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantRedirect(t, "/workspaces")
	erika, err := s.Store.UserByName(t.Context(), "erika")
	if err != nil {
		t.Fatal(err)
	}
	s.longAgo(erika)
	fresh := s.browse(nobody)
	fresh.session = b.session

	away := func() (string, string) {
		page := fresh.asked(fresh.post("/account/tokens", "note", "laptop", "days", "30", "scope", "all"))
		page.wantStatus(t, http.StatusOK, "Sign in again at Example <Corp>")
		found := linkRE.FindAllStringSubmatch(page.body, -1)
		for _, l := range found {
			if path := strings.ReplaceAll(l[1], "&amp;", "&"); strings.HasPrefix(path, "/stepup/corp?") {
				got := fresh.get(path)
				cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
				if got.status != http.StatusSeeOther || !strings.Contains(got.location(), "prompt=login") || !strings.Contains(got.location(), "max_age=0") {
					t.Fatalf("to the company: %d %s", got.status, got.location())
				}
				return got.location(), cookie
			}
		}
		t.Fatalf("no way to the company: %s", page.body)
		return "", ""
	}
	// Somebody else's account there proves nothing.
	to, ticket = away()
	idp.SignedIn("2", map[string]any{"preferred_username": "mallory"})
	fresh.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantStatus(t, http.StatusForbidden, "another account")
	// Nor does a company that does not ask.
	idp.SignedIn("1", map[string]any{"preferred_username": "erika"})
	to, ticket = away()
	idp.Change(func() {
		idp.Claims = func(c map[string]any) { c["auth_time"] = float64(time.Now().Add(-time.Hour).Unix()) }
	})
	fresh.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantStatus(t, http.StatusUnauthorized, "did not ask you again")
	if tokens, err := s.Store.Tokens(t.Context(), erika.ID); err != nil || len(tokens) != 0 {
		t.Fatalf("tokens without a proof: %+v, %v", tokens, err)
	}
	// Asked anew, and the token that was wanted is made.
	idp.Change(func() { idp.Claims = nil })
	to, ticket = away()
	fresh.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantStatus(t, http.StatusOK, "bly_")
	if tokens, err := s.Store.Tokens(t.Context(), erika.ID); err != nil || len(tokens) != 1 {
		t.Errorf("tokens after the proof: %+v, %v", tokens, err)
	}
	if e := s.Events(audit.StepUp); len(e) != 2 || e[0].Outcome != audit.Failure || e[1].Outcome != audit.Success {
		t.Errorf("the journal has %+v", e)
	}
}

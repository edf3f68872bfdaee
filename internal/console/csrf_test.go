package console_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
)

// Nothing that changes something, on any route there is, can be caused by a
// page of another origin, be it a workspace of the same site; and on a sign-in
// page nobody can be signed in as somebody else.
func TestNoRouteTakesFormsFromElsewhere(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	workspace := s.Origins.Workspace(ws.Slug)
	elsewhere := [][]string{
		{},
		{"Origin", "null"},
		{"Origin", workspace},
		{"Origin", "https://evil.example"},
		{"Origin", s.URL + ".evil.example"},
		{"Origin", strings.Replace(s.URL, "https:", "http:", 1)},
		{"Referer", s.URL + "/workspaces"},
		{"Sec-Fetch-Site", "same-site", "Origin", workspace},
		{"Sec-Fetch-Site", "same-site", "Origin", s.URL},
		{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"},
		{"Sec-Fetch-Site", "none"},
		{"Sec-Fetch-Site", "Same-Origin", "Origin", s.URL},
		{"Sec-Fetch-Site", "same-origin, cross-site", "Origin", s.URL},
	}
	before := len(s.Events(""))
	alice, root, stranger := s.browse(Alice), s.browse(Admin), s.browse(nobody)
	signIns := len(s.Events("")) - before
	routes := 0
	for _, pattern := range s.console.Routes() {
		if !strings.HasPrefix(pattern, "POST ") {
			continue
		}
		routes++
		_, path := fill(pattern, ws)
		for _, headers := range elsewhere {
			for _, b := range []*browser{alice, root, stranger} {
				session := b.session
				got := b.send(http.MethodPost, path, map[string][]string{
					"name": {Alice}, "password": {Password}, "again": {Password}, "old": {Password}, "new": {"seven orange bridges"}, "confirm": {"lab"},
				}, headers...)
				got.wantStatus(t, http.StatusForbidden, "This request did not come from a page of this server.")
				if b.session != session || len(got.header["Set-Cookie"]) != 0 {
					t.Errorf("POST %s with %q changed the cookie: %v", path, headers, got.header["Set-Cookie"])
				}
			}
		}
	}
	if routes < 12 {
		t.Errorf("tried %d routes; the list is not what it was", routes)
	}
	// What is left of all that is a trace in the journal, one for each person.
	events := s.Events("")[before+signIns:]
	if len(events) != 2 {
		t.Errorf("%d events, want 2: %+v", len(events), events)
	}
	for _, e := range events {
		if e.Action != audit.AccessDenied || e.Reason != audit.ForeignOrigin || e.Actor.Name == "" {
			t.Errorf("recorded %+v", e)
		}
	}
	if got, err := s.Store.Workspace(t.Context(), ws.ID); err != nil || got.State != bailey.Running || got.RunID != ws.RunID {
		t.Errorf("the workspace is %+v, %v; want it as it was", got, err)
	}
	for _, b := range []*browser{alice, root} {
		b.get("/workspaces").wantStatus(t, http.StatusOK)
	}
}

// Our own pages' forms are taken from every browser there is.
func TestRoutesTakeOurForms(t *testing.T) {
	s := open(t)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "same-origin", "Origin", s.URL},
		{"Sec-Fetch-Site", "same-origin", "Origin", "null"}, // where a privacy setting hides it
		{"Sec-Fetch-Site", "same-origin"},
		{"Origin", s.URL}, // before fetch metadata
	} {
		got := s.browse(nobody).send(http.MethodPost, "/signin", map[string][]string{"name": {Alice}, "password": {Password}}, headers...)
		got.wantRedirect(t, "/workspaces")
		s.browse(Alice).send(http.MethodPost, "/account/tokens", map[string][]string{"note": {"x"}}, headers...).wantStatus(t, http.StatusOK, "not shown again")
	}
}

// GET changes nothing, whatever the query or a header asks for.
func TestGetChangesNothing(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	alice := s.browse(Alice)
	before := len(s.Events(""))
	for _, pattern := range s.console.Routes() {
		_, path := fill(pattern, ws)
		if strings.HasSuffix(path, "/signout") {
			continue // below
		}
		alice.get(path+"?_method=POST&name=other&confirm=lab", "X-HTTP-Method-Override", "POST")
	}
	alice.get("/signout").wantStatus(t, http.StatusNotFound)
	alice.get("/workspaces").wantStatus(t, http.StatusOK)
	for _, e := range s.Events("")[before:] {
		if e.Action != audit.AccessDenied {
			t.Errorf("a GET did %+v", e)
		}
	}
	if got, err := s.Store.Workspace(t.Context(), ws.ID); err != nil || got.State != bailey.Running {
		t.Errorf("the workspace is %+v, %v; want running", got, err)
	}
}

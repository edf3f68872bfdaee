package console_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
)

// The main job with JavaScript off, by the forms that are on the pages: launch,
// watch, open, stop, start, delete, and at last delete the files.
func TestMainJobByForms(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	list := b.get("/workspaces")
	list.wantStatus(t, http.StatusOK, "You have no workspace yet.", "A small one", "1 core, 2 GiB memory, no GPU, stops after 2 h idle")
	if got := list.forms()[1]; got.action != "/workspaces" || got.fields.Get("class") != "small" {
		t.Fatalf("the launch form is %+v, want class small preselected", got)
	}
	launched := b.submit(list, "/workspaces", "name", "lab")
	at := launched.location()
	id := strings.TrimPrefix(at, "/workspaces/")
	if launched.status != http.StatusSeeOther || len(id) != 26 {
		t.Fatalf("launched: %d to %q: %s", launched.status, at, launched.text())
	}
	ws := s.Await(id, bailey.Running)
	s.Until("its last stage is written", func() bool { return strings.Contains(b.get(at).text(), "Ready") })
	one := b.get(at)
	one.wantStatus(t, http.StatusOK, "lab", "running", "Jupyter answers", "Ready")
	if !strings.Contains(one.body, `href="`+s.Origins.Workspace(ws.Slug)+`/"`) {
		t.Errorf("no way into the workspace: %s", one.body)
	}
	b.get("/workspaces").wantStatus(t, http.StatusOK, "Open JupyterLab")

	b.submit(one, at+"/stop").wantRedirect(t, at)
	stopped := b.get(at)
	stopped.wantStatus(t, http.StatusOK, "stopped", "Stopped by its owner.")
	if strings.Contains(stopped.text(), "Open JupyterLab") {
		t.Error("a stopped workspace has a way in")
	}
	b.submit(stopped, at+"/start").wantRedirect(t, at)
	s.Await(id, bailey.Running)

	files := b.get("/volumes")
	files.wantStatus(t, http.StatusOK, "lab", "used by a workspace")
	if n := len(files.forms()); n != 1 { // the sign-out
		t.Errorf("%d forms on a page of one volume in use", n)
	}
	b.submit(b.get(at), at+"/delete").wantRedirect(t, "/workspaces")
	b.get(at).wantStatus(t, http.StatusNotFound, "There is no such workspace.")
	files = b.get("/volumes")
	action := files.forms()[1].action
	b.submit(files, action, "confirm", "Lab").wantStatus(t, http.StatusUnprocessableEntity, "its name was not repeated", "lab")
	b.submit(files, action, "confirm", "lab").wantRedirect(t, "/volumes")
	b.get("/volumes").wantStatus(t, http.StatusOK, "You have no volume yet.")
}

// While it starts, a page without JavaScript asks again by itself; when it
// runs, it does not.
func TestProgressWithoutJavaScript(t *testing.T) {
	s := open(t)
	ws, err := s.Workspaces.Create(t.Context(), s.Actor(Alice), "lab", "small")
	if err != nil {
		t.Fatal(err)
	}
	const refresh = `<noscript><meta http-equiv="refresh" content="2"></noscript>`
	s.Engine.SetDown(true) // so that it stays on the way
	b := s.browse(Alice)
	refused := b.post("/workspaces/" + ws.ID + "/start")
	refused.wantStatus(t, http.StatusServiceUnavailable, "The container engine does not answer.")
	if wait := refused.header.Get("Retry-After"); wait != "5" {
		t.Errorf("Retry-After %q, want 5", wait)
	}
	s.Engine.SetDown(false)
	s.Launch(Alice, "lab")
	if got := b.get("/workspaces/lab"); strings.Contains(got.body, refresh) {
		t.Errorf("a running workspace's page asks again: %s", got.body)
	}
	s.Engine.SetDown(true)
	if err := s.Store.MarkStopping(t.Context(), ws.ID, "stopped by its owner"); err != nil {
		t.Fatal(err)
	}
	got := b.get("/workspaces/lab")
	got.wantStatus(t, http.StatusOK, "stopping")
	if !strings.Contains(got.body, refresh) {
		t.Errorf("a stopping workspace's page does not ask again: %s", got.body)
	}
	s.Engine.SetDown(false)
	s.Await(ws.ID, bailey.Stopped)
}

// A launch that is refused says why, and keeps what was typed.
func TestRefusedLaunch(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	for _, tt := range []struct {
		name, class string
		status      int
		says, kept  string // kept: the class that is selected then
	}{
		{"Not Valid", "secret", 422, "is not a valid name", "secret"},
		{"<b>x</b>", "gpu", 422, "is not a valid name", "gpu"},
		{"lab", "missing", 503, "Image missing is not on this machine.", "small"},
		{"lab", "nosuch", 404, "There is no class nosuch that you may use.", "small"},
		{"lab", "</option>", 422, "is not a valid name", "small"},
	} {
		got := b.submit(b.get("/workspaces"), "/workspaces", "name", tt.name, "class", tt.class)
		got.wantStatus(t, tt.status, tt.says)
		if f := got.forms()[1].fields; f.Get("name") != tt.name || f.Get("class") != tt.kept {
			t.Errorf("%q of %q: the form comes back with %v, want class %s", tt.name, tt.class, f, tt.kept)
		}
	}
	s.Launch(Alice, "lab")
	b.post("/workspaces", "name", "lab", "class", "gpu").wantStatus(t, http.StatusConflict, "is of class small, not gpu")
	bob := s.browse(Bob)
	if strings.Contains(bob.get("/workspaces").text(), "secret") {
		t.Error("bob sees a class that is not for him")
	}
	bob.post("/workspaces", "name", "lab", "class", "secret").wantStatus(t, http.StatusNotFound, "There is no class secret that you may use.")
}

// Alice's workspace is no page at all for bob, under every name, for reading
// and for changing; the same words as for what never was.
func TestForeignWorkspacesAreNoPages(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	s.Launch(Bob, "mine")
	bob := s.browse(Bob)
	never := bob.get("/workspaces/nosuch")
	never.wantStatus(t, http.StatusNotFound, "There is no such workspace.")
	for _, ref := range []string{ws.ID, ws.Slug, "lab", "alice.lab"} {
		if got := bob.get("/workspaces/" + ref); got.status != never.status || got.text() != never.text() {
			t.Errorf("GET %s: %d %s, want %d %s", ref, got.status, got.text(), never.status, never.text())
		}
		for _, what := range []string{"start", "stop", "delete"} {
			if got := bob.post("/workspaces/" + ref + "/" + what); got.status != never.status || got.text() != never.text() {
				t.Errorf("%s %s: %d %s, want %d %s", what, ref, got.status, got.text(), never.status, never.text())
			}
		}
	}
	bob.post("/volumes/"+ws.VolumeID+"/delete", "confirm", "lab").wantStatus(t, http.StatusNotFound, "There is no such volume.")
	for _, path := range []string{"/workspaces", "/volumes"} {
		if got := bob.get(path); !strings.Contains(got.text(), "mine") || strings.Contains(got.text(), "lab") || strings.Contains(got.body, ws.ID) {
			t.Errorf("%s of bob: %s", path, got.text())
		}
	}
	// The way in has its own refusal, in the same words for both.
	open := func(slug string) string {
		t.Helper()
		req := mustRequest(t, http.MethodGet, s.URL+"/open/"+slug)
		req.Header.Set("Accept", "text/html")
		got := bob.raw(req)
		if got.status != http.StatusNotFound || got.header.Get("Set-Cookie") != "" {
			t.Errorf("/open/%s: %d %v", slug, got.status, got.header)
		}
		text := got.text()
		return text[:strings.Index(text+"Request ", "Request ")]
	}
	if hers, nobodys := open(ws.Slug), open("nosuch-000000000000"); hers != nobodys {
		t.Errorf("alice's slug gives %s, nobody's %s", hers, nobodys)
	}
	if got := s.Await(ws.ID, bailey.Running); got.RunID != ws.RunID {
		t.Error("bob got at alice's workspace")
	}
}

// Staff see that a workspace is there and how it is; what is inside is its
// owner's: no way in, no output. An auditor has nothing to press.
func TestStaffStayOutside(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	s.Engine.SetLogs(ws.RunID, "what alice computes\n")
	path := "/workspaces/" + ws.ID
	for _, tt := range []struct {
		who           string
		inside, press string
	}{
		{Alice, "yes", "/signout " + path + "/stop " + path + "/delete"},
		{Admin, "no", "/signout " + path + "/stop " + path + "/delete"},
		{Auditor, "no", "/signout"},
	} {
		b := s.browse(tt.who)
		got := b.get(path)
		got.wantStatus(t, http.StatusOK, "lab", "running")
		inside := "no"
		if strings.Contains(got.text(), "Open JupyterLab") && strings.Contains(got.text(), "what alice computes") {
			inside = "yes"
		} else if strings.Contains(got.body, ws.Slug) || strings.Contains(got.text(), "computes") {
			inside = "half"
		}
		if inside != tt.inside {
			t.Errorf("%s sees what is inside: %s, want %s: %s", tt.who, inside, tt.inside, got.body)
		}
		var press []string
		for _, f := range got.forms() {
			press = append(press, f.action)
		}
		if p := strings.Join(press, " "); p != tt.press {
			t.Errorf("%s may press %s, want %s", tt.who, p, tt.press)
		}
		if tt.who != Alice {
			b.post(path+"/start").wantStatus(t, http.StatusForbidden, "Only its owner may do this to a workspace.")
		}
	}
	s.browse(Auditor).post(path+"/stop").wantStatus(t, http.StatusForbidden, "Only its owner may do this")
	root := s.browse(Admin)
	root.submit(root.get(path), path+"/stop").wantRedirect(t, path)
	s.browse(Alice).get(path).wantStatus(t, http.StatusOK, "Stopped by administrator root-admin.")
}

// JupyterHub's addresses lead to one's own running workspace, by its name or to
// the first; to nobody else's, and to no path that a link's maker chose.
func TestJupyterHubAddresses(t *testing.T) {
	s := open(t)
	bob := s.browse(Bob)
	bob.get("/user/bob/").wantRedirect(t, "/workspaces")
	first, second := s.Launch(Alice, "a-first"), s.Launch(Alice, "b-second")
	alice := s.browse(Alice)
	for path, ws := range map[string]bailey.Workspace{
		"/user/alice":                       first,
		"/user/alice/":                      first,
		"/user/alice/lab/tree/x.ipynb":      first,
		"/user/alice/b-second":              second,
		"/user/alice/b-second/lab?reset=1":  second,
		"/user/alice/nosuch/git-pull?repo=": first,
	} {
		alice.get(path).wantRedirect(t, s.Origins.Workspace(ws.Slug)+"/")
	}
	if _, err := s.Workspaces.Stop(t.Context(), s.Actor(Alice), second.ID); err != nil {
		t.Fatal(err)
	}
	alice.get("/user/alice/b-second").wantRedirect(t, s.Origins.Workspace(first.Slug)+"/")
	for _, path := range []string{"/user/alice", "/user/alice/a-first", "/user/carol"} {
		bob.get(path).wantStatus(t, http.StatusNotFound, "There is no such page.")
	}
	s.browse(Admin).get("/user/alice").wantStatus(t, http.StatusNotFound)
	s.browse(nobody).get("/user/alice").wantRedirect(t, "/signin")
	for _, path := range []string{"/hub/home", "/hub/", "/hub/token"} {
		alice.get(path).wantRedirect(t, "/workspaces")
	}
}

package console_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/console"
	"github.com/baileyhq/bailey/internal/egress"
)

// fill puts what there is into a route's pattern.
func fill(pattern string, ws bailey.Workspace) (method, path string) {
	method, path, found := strings.Cut(pattern, " ")
	if !found {
		method, path = http.MethodGet, pattern
	}
	path = strings.ReplaceAll(path, "{$}", "")
	if strings.HasPrefix(path, "/volumes/") {
		path = strings.ReplaceAll(path, "{id}", ws.VolumeID)
	}
	path = strings.ReplaceAll(path, "{id}", ws.ID)
	path = strings.ReplaceAll(path, "{name}", Alice)
	return method, strings.ReplaceAll(path, "{rest...}", ws.Name)
}

// Every page, for everybody, has what each must have and nothing else (the
// browser looks), and is there for HEAD too.
func TestEveryPage(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	browsers := map[string]*browser{}
	for _, who := range []string{nobody, Alice, Bob, Auditor, Admin} {
		browsers[who] = s.browse(who)
	}
	seen := 0
	for _, pattern := range s.console.Routes() {
		method, path := fill(pattern, ws)
		if method != http.MethodGet {
			continue
		}
		for who, b := range browsers {
			got := b.get(path)
			if got.status >= http.StatusInternalServerError {
				t.Errorf("%s for %q: %d %s", path, who, got.status, got.text())
			}
			head := b.send(http.MethodHead, path, nil, "Sec-Fetch-Site", "none")
			if head.status != got.status || head.body != "" || head.location() != got.location() {
				t.Errorf("HEAD %s for %q: %d %q, GET gives %d", path, who, head.status, head.body, got.status)
			}
			seen++
		}
	}
	if seen < 50 {
		t.Errorf("looked at %d pages; the list of routes is not what it was", seen)
	}
}

// Every form on every page is sent by POST to a route that there is, so it
// needs no script.
func TestEveryFormLeadsSomewhere(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	if _, err := s.Egress.Allow(t.Context(), s.Actor(Admin), egress.Answer{Request: s.ask(Alice, ws, "data.example.org").ID, Scope: bailey.GrantDay}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Workspaces.Create(t.Context(), s.Actor(Alice), "second", "small"); err != nil {
		t.Fatal(err)
	}
	s.AddImage("candidate", bailey.ImageCandidate)
	routes := http.NewServeMux()
	for _, pattern := range s.console.Routes() {
		if pattern != "/" {
			routes.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		}
	}
	taken := map[string]bool{}
	for _, who := range []string{nobody, Alice, Admin} {
		b := s.browse(who)
		for _, pattern := range s.console.Routes() {
			method, path := fill(pattern, ws)
			if method != http.MethodGet {
				continue
			}
			got := b.get(path)
			if n := strings.Count(got.body, "<form"); n != strings.Count(got.body, `<form method="post" action="/`) {
				t.Errorf("%s for %q: %d forms, not all by POST: %s", path, who, n, got.body)
			}
			for _, f := range got.forms() {
				_, to := routes.Handler(mustRequest(t, http.MethodPost, s.URL+f.action))
				if to == "" {
					t.Errorf("%s for %q: a form leads to %s, which is no route", path, who, f.action)
				}
				taken[to] = true
			}
		}
	}
	for _, pattern := range s.console.Routes() {
		switch pattern {
		case "POST /setup", "POST /volumes/{id}/delete", "POST /account/sessions/{id}/end", "POST /account/tokens/{id}/revoke", "POST /account/link", "POST /admin/users/{name}/enable", "POST /sessions/{id}/kill", "POST /sessions/{id}/delete-recording",
			"POST /account/ssh-keys/{id}/remove", "POST /account/ssh-certificates/{serial}/revoke", "POST /ssh/{code}/bind", "POST /ssh/{code}/refuse",
			"POST /device/answer",                                                                        // after a code was typed
			"POST /signin/passkey", "POST /signin/factor", "POST /signin/enrol", "POST /signin/password", // on the way in
			"POST /account/factors/{id}/rename", "POST /account/factors/{id}/remove", "POST /account/codes", "POST /account/browsers/{id}/forget", "POST /account/notices":
			continue // there is nothing of that sort here; other tests have it
		}
		if strings.HasPrefix(pattern, "POST ") && !taken[pattern] {
			t.Errorf("no form leads to %s", pattern)
		}
	}
}

// What is only for those who are signed in leads everybody else to the sign-in.
func TestWhoIsNotSignedInIsLedThere(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	public := regexp.MustCompile(`^((GET|POST) /(signin(/(passkey|step|factor|enrol|password))?|setup)|GET /signin/oidc/.*|POST /signout|GET /hub/.*|/)$`)
	for _, pattern := range s.console.Routes() {
		if public.MatchString(pattern) {
			continue
		}
		method, path := fill(pattern, ws)
		b := s.browse(nobody)
		got := b.send(method, path, map[string][]string{}, "Sec-Fetch-Site", "same-origin")
		got.wantRedirect(t, "/signin")
		if b.session != "" {
			t.Errorf("%s made a cookie", pattern)
		}
	}
	if got, err := s.Store.Workspace(t.Context(), ws.ID); err != nil || got.State != bailey.Running {
		t.Errorf("after that the workspace is %+v, %v; want running", got, err)
	}
}

// Unknown pages, wrong methods and paths that end too early have one page.
func TestUnknownPages(t *testing.T) {
	s := open(t)
	for _, who := range []string{nobody, Alice} {
		b := s.browse(who)
		for _, path := range []string{"/nosuch", "/workspaces/", "/static/", "/static", "/static/nosuch.js", "/open", "/open/", "/open/a/b", "/signin/x", "/favicon.ico", "/index.html"} {
			b.get(path).wantStatus(t, http.StatusNotFound, "There is no such page.")
		}
		b.post("/nosuch").wantStatus(t, http.StatusNotFound, "There is no such page.")
		b.send(http.MethodPut, "/workspaces", nil, "Sec-Fetch-Site", "same-origin").wantStatus(t, http.StatusNotFound)
		b.post("/open/lab").wantStatus(t, http.StatusNotFound)
	}
	// The API beside the pages has its own.
	resp, err := s.client.Do(mustRequest(t, http.MethodGet, s.URL+"/api"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only the status is read
	if resp.StatusCode != http.StatusNotFound || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("/api: %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
}

func mustRequest(t *testing.T, method, to string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// A form that is too large or cannot be read is refused in words, and is no
// fault of ours.
func TestFormsThatCannotBeRead(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	for _, path := range []string{"/signin", "/workspaces", "/account/password", "/account/tokens"} {
		b.post(path, "name", strings.Repeat("x", console.MaxForm)).
			wantStatus(t, http.StatusUnprocessableEntity, "larger than 12288 bytes")
		req := mustRequest(t, http.MethodPost, s.URL+path)
		req.Body, req.ContentLength = readCloser{strings.NewReader("name=%zz")}, 8
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		b.do(req).wantStatus(t, http.StatusUnprocessableEntity, "The form could not be read.")
	}
	if s.Log.Contains("level=ERROR") {
		t.Error("a stranger's broken form is an error of ours in the log")
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// The longest passwords that may be set fit into the form that sets them.
func TestLongestPasswordsFit(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	fresh := strings.Repeat("密", 300) + strings.Repeat("长x!é", 10)
	b.post("/account/password", "old", Password, "new", fresh, "again", fresh).wantStatus(t, http.StatusOK, "Your password is changed.")
	b.post("/account/password", "old", fresh, "new", Password, "again", Password).wantStatus(t, http.StatusOK, "Your password is changed.")
}

// What is our own fault is a page with an id, and the cause is in the log.
func TestInternalErrorPage(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	b.get("/volumes").wantStatus(t, http.StatusOK)
	if err := s.Store.Close(); err != nil {
		t.Fatal(err)
	}
	got := b.get("/volumes")
	got.wantStatus(t, http.StatusInternalServerError, "Internal error.")
	id := regexp.MustCompile(`Request ([0-9a-f]{16})`).FindStringSubmatch(got.text())
	if id == nil || !s.Log.Contains("level=ERROR", id[1], "database is closed") {
		t.Errorf("the page says %s, and the log has no cause under that id", got.text())
	}
	// A cookie that cannot be looked up is no cookie that has ended.
	fresh := &browser{site: s, session: strings.Repeat("a", 43)}
	fresh.get("/workspaces").wantStatus(t, http.StatusInternalServerError)
}

// Files that pages load are kept under their hash, are no pages, and there is
// no list of them.
func TestStaticFiles(t *testing.T) {
	s := open(t)
	b := s.browse(nobody)
	signIn := b.get("/signin").body
	asset := regexp.MustCompile(`/static/bailey\.css\?v=[0-9a-f]{12}`).FindString(signIn)
	for _, tt := range []struct{ path, kind, cache string }{
		{asset, "text/css; charset=utf-8", "public, max-age=31536000, immutable"},
		{"/static/bailey.css", "text/css; charset=utf-8", "no-cache"},
		{"/static/bailey.css?v=000000000000", "text/css; charset=utf-8", "no-cache"},
		{"/static/progress.js", "text/javascript; charset=utf-8", "no-cache"},
		{"/static/setup.js", "text/javascript; charset=utf-8", "no-cache"},
		{"/static/icon.svg", "image/svg+xml", "no-cache"},
	} {
		resp, err := s.client.Do(mustRequest(t, http.MethodGet, s.URL+tt.path))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // only the header is read
		for name, want := range map[string]string{
			"Content-Type": tt.kind, "Cache-Control": tt.cache, "X-Content-Type-Options": "nosniff",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := resp.Header.Get(name); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s: %s, %s %q, want %q", tt.path, resp.Status, name, got, want)
			}
		}
	}
}

// The page and the script that makes it livelier call the stages the same.
func TestStagesHaveTheSameWordsEverywhere(t *testing.T) {
	b, err := os.ReadFile("static/progress.js")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)const words = \{(.*?)\};`).FindStringSubmatch(string(b))
	if list == nil {
		t.Fatal("progress.js has no list of words")
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+): "([^"]*)"`).FindAllStringSubmatch(list[1], -1) {
		found[m[1]] = m[2]
	}
	// As bailey.Stage lists them.
	names := []string{"policy", "image", "lease", "create", "start", "verify", "agent", "jupyter", "ready", "selfcheck", "memory", "failed", "stopped"}
	for _, name := range names {
		if got, want := found[name], console.StageWords(name); got != want || want == name {
			t.Errorf("stage %s is %q in the script, %q on the page", name, got, want)
		}
	}
	if len(found) != len(names) {
		t.Errorf("progress.js knows %v, want %v", found, names)
	}
	if got := console.StageWords("new"); got != "new" {
		t.Errorf("a stage without words is %q", got)
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "A.", "there is no page": "There is no page.", "done!": "Done!", "choose:": "Choose:", "änder es": "Änder es.", "workspace x is off.": "Workspace x is off.",
	} {
		if got := console.Sentence(in); got != want {
			t.Errorf("Sentence(%q) = %q, want %q", in, got, want)
		}
	}
}

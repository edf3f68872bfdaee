package console_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/app/apptest"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
)

// A tab is a browser's that keeps every cookie: of mode path, where workspaces
// are on the console's origin.
type tab struct {
	*site

	cookies map[string]string
}

func openShared(t *testing.T) *site {
	t.Helper()
	return serve(t, apptest.New(t, func(c *edge.OriginConfig) { c.Mode, c.Host = edge.ModePath, "localhost" }))
}

func (s *site) tab(name string) *tab {
	b := &tab{site: s, cookies: map[string]string{}}
	if name != nobody {
		b.cookies["__Host-Http-bailey"] = s.Session(name)
	}
	return b
}

// Of these a browser says how a request came about; no script changes them.
var (
	goes    = []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "text/html"}
	fetches = []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Accept", "text/html"}
	frames  = []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Accept", "text/html"}
	silent  = []string{"Accept", "text/html"}
)

func (b *tab) send(method, path string, form url.Values, how []string) page {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.URL)
	}
	for i := 0; i < len(how); i += 2 {
		req.Header.Set(how[i], how[i+1])
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	p := (&browser{site: b.site}).raw(req)
	own := p
	own.body = strings.ReplaceAll(p.body, b.URL+"/w/", "/w/") // a workspace's address is one of ours here
	look(b.t, method+" "+path, own)
	for _, line := range p.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			b.t.Fatal(err)
		}
		if !strings.HasPrefix(c.Name, "__Host-Http-bailey") {
			b.t.Errorf("%s %s: cookie %s, which a script could set", method, path, c.Name)
		}
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return p
}

var tokenRE = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// token returns the token of a page's forms, and fails when a form has none.
func (b *tab) token(path string) string {
	b.t.Helper()
	p := b.send(http.MethodGet, path, nil, goes)
	found := tokenRE.FindStringSubmatch(p.body)
	if p.status != http.StatusOK || found == nil || strings.Count(p.body, `<form method="post"`) != strings.Count(p.body, `name="form_token"`) {
		b.t.Fatalf("%s: %d; every form carries a token: %.2000s", path, p.status, p.body)
	}
	return found[1]
}

// A script in a workspace's page is on the console's origin, with its reader's
// cookie. It reads no page, and so sends no form; the reader does both.
func TestInPathModeAScriptActsForNobody(t *testing.T) {
	s := openShared(t)
	admin, bob := s.tab(apptest.Admin), s.tab(apptest.Bob)
	for what, how := range map[string][]string{"a fetch": fetches, "a frame": frames, "a browser that does not say": silent} {
		for _, path := range []string{"/workspaces", "/account", "/admin", "/signin", "/device", "/no-such-page"} {
			p := admin.send(http.MethodGet, path, nil, how)
			if p.status != http.StatusForbidden || strings.Contains(p.body, "form_token") || strings.Contains(p.body, apptest.Admin) || len(p.header["Set-Cookie"]) > 0 {
				t.Errorf("%s of %s: %d, want 403 and nothing in it: %.300s", what, path, p.status, p.body)
			}
		}
		form := url.Values{"name": {"eve"}, "role": {"admin"}, "password": {"correct-horse-battery"}, "form_token": {admin.token("/admin")}}
		if p := admin.send(http.MethodPost, "/admin/users", form, how); p.status != http.StatusForbidden {
			t.Errorf("%s posts: %d, want 403", what, p.status)
		}
	}
	// The form that a script sends leads the tab to it, as a person's does. What
	// it lacks is the token: of this browser, of this session.
	form := url.Values{"name": {"eve"}, "role": {"admin"}, "password": {"correct-horse-battery"}}
	stale := s.tab(nobody).token("/signin")
	for what, token := range map[string]string{"none": "", "another person's": bob.token("/account"), "a stranger's": stale} {
		form.Set("form_token", token)
		p := admin.send(http.MethodPost, "/admin/users", form, goes)
		if p.status != http.StatusForbidden || !strings.Contains(p.text(), "not from a page of the console") {
			t.Errorf("a form with %s token: %d %.300s", what, p.status, p.text())
		}
	}
	if e := s.Events(audit.AccessDenied); len(e) == 0 {
		t.Error("forms from elsewhere left no trace")
	}
	form.Set("form_token", admin.token("/admin"))
	if p := admin.send(http.MethodPost, "/admin/users", form, goes); p.status != http.StatusSeeOther {
		t.Errorf("the administrator's own form: %d %.300s", p.status, p.text())
	}
	if p := admin.send(http.MethodGet, "/admin", nil, goes); !strings.Contains(p.text(), "eve") || !strings.Contains(p.text(), "Workspaces share this console’s address") {
		t.Errorf("the page lacks the new user, or the warning: %.500s", p.text())
	}
}

// The API takes the console's cookie from a tab that goes there, to download
// something, and from no script; a token works as ever.
func TestInPathModeTheAPITakesNoCookieFromScripts(t *testing.T) {
	s := openShared(t)
	alice := s.tab(apptest.Alice)
	get := func(how []string, more ...string) int {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/me", nil)
		for i := 0; i+1 < len(how); i += 2 {
			req.Header.Set(how[i], how[i+1])
		}
		for i := 0; i+1 < len(more); i += 2 {
			req.Header.Set(more[i], more[i+1])
		}
		return (&browser{site: s}).raw(req).status
	}
	cookie := []string{"Cookie", "__Host-Http-bailey=" + alice.cookies["__Host-Http-bailey"]}
	for what, how := range map[string][]string{"fetch": fetches, "frame": frames, "nothing said": silent} {
		if got := get(how, cookie...); got != http.StatusUnauthorized {
			t.Errorf("%s with a cookie: %d, want 401", what, got)
		}
	}
	if got := get(goes, cookie...); got != http.StatusOK {
		t.Errorf("a tab with a cookie: %d", got)
	}
	token, _ := s.Token(apptest.Alice)
	if got := get(fetches, "Authorization", "Bearer "+token); got != http.StatusOK {
		t.Errorf("a token: %d", got)
	}
}

// Signing in works, with the tokens of nobody's session; and no script signs
// anybody in as somebody else.
func TestInPathModePeopleSignIn(t *testing.T) {
	s := openShared(t)
	b := s.tab(nobody)
	form := url.Values{"name": {apptest.Alice}, "password": {apptest.Password}}
	if p := b.send(http.MethodPost, "/signin", form, goes); p.status != http.StatusForbidden || b.cookies["__Host-Http-bailey"] != "" {
		t.Errorf("without a token: %d %v", p.status, b.cookies)
	}
	form.Set("form_token", b.token("/signin"))
	if p := b.send(http.MethodPost, "/signin", form, goes); p.status != http.StatusSeeOther || b.cookies["__Host-Http-bailey"] == "" {
		t.Fatalf("sign in: %d %.300s", p.status, p.text())
	}
	ws := s.Launch(apptest.Alice, "lab")
	p := b.send(http.MethodGet, "/workspaces", nil, goes)
	if !strings.Contains(p.body, `href="`+s.URL+"/w/"+ws.Slug+`/"`) {
		t.Errorf("the workspace's address is not on the page: %.2000s", p.body)
	}
	if p = b.send(http.MethodGet, "/workspaces/"+ws.ID, nil, goes); p.status != http.StatusOK || strings.Contains(p.body, "progress.js") {
		t.Error("a script that would ask the API, which takes no cookie from scripts")
	}
}

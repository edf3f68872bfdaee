package console_test

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/console"
	"github.com/baileyhq/bailey/internal/oidc"
	"github.com/baileyhq/bailey/internal/oidc/oidctest"
	"github.com/baileyhq/bailey/internal/secret"
)

// openWithCompany is [open] with an identity provider called corp.
func openWithCompany(t *testing.T) (*site, *oidctest.Provider) {
	t.Helper()
	w, idp := New(t), oidctest.New(t)
	p, err := oidc.New(oidc.Config{
		Name: "corp", Issuer: idp.Issuer(), ClientID: oidctest.ClientID, Secret: secret.New(oidctest.Secret),
		Redirect: w.URL + "/signin/oidc/corp/callback", Roots: idp.Roots,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := company.New(company.Config{
		Identity: w.Identity, Providers: []company.Provider{{Provider: p, Name: "corp", Title: "Example <Corp>"}}, Key: bytes.Repeat([]byte{7}, 32), Log: w.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, w, func(cfg *console.Config) { cfg.Company = c }), idp
}

// leave begins at the sign-in page and returns where the browser is sent, and
// the cookie that it keeps.
func leave(t *testing.T, b *browser, query string) (to, ticket string) {
	t.Helper()
	got := b.get("/signin/oidc/corp" + query)
	cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
	if got.status != http.StatusSeeOther || !strings.HasPrefix(cookie, "__Host-bailey-oidc=") {
		t.Fatalf("leaving: %d, %q", got.status, got.header.Get("Set-Cookie"))
	}
	for _, flag := range []string{"Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=900"} {
		if !strings.Contains(got.header.Get("Set-Cookie"), flag) {
			t.Errorf("the cookie lacks %s: %s", flag, got.header.Get("Set-Cookie"))
		}
	}
	return got.location(), cookie
}

// By the button to the company, and back into a workspace: by redirects and
// links alone.
func TestSignInAtTheCompany(t *testing.T) {
	s, idp := openWithCompany(t)
	idp.SignedIn("1", map[string]any{"preferred_username": "erika"})
	nonce := strings.Repeat("A", 43)
	b := s.browse(nobody)
	page := b.get("/signin?open=lab-1f00&n=" + nonce)
	page.wantStatus(t, http.StatusOK, "Sign in with Example <Corp>")
	if !strings.Contains(page.body, `href="/signin/oidc/corp?n=`+nonce+`&amp;open=lab-1f00"`) {
		t.Errorf("the button does not carry the way along: %s", page.body)
	}
	to, ticket := leave(t, b, "?open=lab-1f00&n="+nonce)
	if !strings.HasPrefix(to, idp.Issuer()+"/authorize?") || !strings.Contains(to, "code_challenge_method=S256") {
		t.Errorf("it leads to %s", to)
	}
	back := b.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket)
	back.wantRedirect(t, "/open/lab-1f00?n="+nonce)
	if b.session == "" {
		t.Fatal("no session")
	}
	b.get("/workspaces").wantStatus(t, http.StatusOK, "erika")
	b.get("/account/company").wantStatus(t, http.StatusOK, "oidc:corp", "erika")
	b.get("/signin/oidc/corp").wantRedirect(t, "/workspaces") // signed in already
	if log := s.Log.String(); strings.Contains(log, ticket) || strings.Contains(log, b.session) || strings.Contains(log, oidctest.Secret) {
		t.Error("a secret stands in the log")
	}
	if len(s.Events(audit.SignIn)) == 0 || s.Events(audit.SignIn)[0].Actor.Method != "oidc:corp" {
		t.Errorf("the journal has %+v", s.Events(audit.SignIn))
	}
}

// Attack 10 by this way: after the company, too, a browser goes nowhere else.
func TestTheCompanyLeadsNowhereElse(t *testing.T) {
	s, idp := openWithCompany(t)
	idp.SignedIn("1", map[string]any{"preferred_username": "erika"})
	for _, open := range []string{"//evil.example", `/\evil.example`, "/\tevil.example", "https:evil.example", "%2f%2fevil", "lab@evil", "evil。example", strings.Repeat("a", 8<<10)} {
		b := s.browse(nobody)
		to, ticket := leave(t, b, "?"+url.Values{"open": {open}}.Encode())
		q := idp.Visit(t, to)
		q.Set("open", "//evil.example") // nor by what comes back
		q.Set("next", "//evil.example")
		b.get("/signin/oidc/corp/callback?"+q.Encode(), "Cookie", ticket).wantRedirect(t, "/workspaces")
	}
}

// What comes back without this browser's cookie, or with two, signs nobody in;
// and what it says is not shown.
func TestTheCompanysAnswerIsBound(t *testing.T) {
	s, idp := openWithCompany(t)
	idp.SignedIn("m", map[string]any{"preferred_username": "mallory"})
	mallory, victim := s.browse(nobody), s.browse(nobody)
	to, hers := leave(t, mallory, "")
	_, his := leave(t, victim, "")
	answer := idp.Visit(t, to)
	for _, cookie := range []string{"", his, hers + "; " + his, "__Host-bailey-oidc=nonsense"} {
		got := victim.get("/signin/oidc/corp/callback?"+answer.Encode(), "Cookie", cookie)
		got.wantStatus(t, http.StatusUnauthorized, "not begun in this browser", "Sign in with")
		if victim.session != "" {
			t.Fatalf("the victim is signed in as mallory with the cookie %q", cookie)
		}
	}
	to, ticket := leave(t, victim, "")
	state, _ := url.Parse(to)
	evil := url.Values{"state": {state.Query().Get("state")}, "iss": {idp.Issuer()}, "error": {"<script>alert(1)</script>"}, "error_description": {"call 555-EVIL"}}
	got := victim.get("/signin/oidc/corp/callback?"+evil.Encode(), "Cookie", ticket)
	got.wantStatus(t, http.StatusUnauthorized, "refused the sign-in")
	if strings.Contains(got.body, "alert(1)") || strings.Contains(got.body, "555") {
		t.Errorf("the page repeats it: %s", got.body)
	}
	// Begun by a picture on somebody's page, or at a provider that is none.
	victim.send(http.MethodGet, "/signin/oidc/corp", nil, "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Site", "cross-site").wantStatus(t, http.StatusForbidden, "begins on the sign-in page")
	victim.get("/signin/oidc/other").wantStatus(t, http.StatusNotFound)
	victim.get("/signin/oidc/other/callback?state=x&code=y").wantStatus(t, http.StatusNotFound)
}

// The provider's own word ends a session, without cookie and without a page of
// ours; nobody else's does.
func TestTheCompanySignsOut(t *testing.T) {
	s, idp := openWithCompany(t)
	come := func(sub, name string) *browser {
		idp.SignedIn(sub, map[string]any{"preferred_username": name, "sid": "s-" + sub})
		b := s.browse(nobody)
		to, ticket := leave(t, b, "")
		b.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantRedirect(t, "/workspaces")
		return b
	}
	erika, max := come("1", "erika"), come("2", "max")
	post := func(token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/signin/oidc/corp/logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Header.Get("Cache-Control") != "no-store" {
			t.Error("the answer may be kept")
		}
		return resp.StatusCode
	}
	for _, bad := range []string{"", "x", "a.b.c", oidctest.Sign(oidctest.Foreign(), "k1", map[string]any{"sub": "1"})} {
		if got := post(bad); got != http.StatusBadRequest {
			t.Errorf("%.10q: %d", bad, got)
		}
	}
	erika.get("/workspaces").wantStatus(t, http.StatusOK)
	token := idp.LogoutToken(func(c map[string]any) { c["sub"] = "1" })
	if got := post(token); got != http.StatusOK {
		t.Errorf("the provider's token: %d", got)
	}
	erika.get("/workspaces").wantRedirect(t, "/signin")
	max.get("/workspaces").wantStatus(t, http.StatusOK)
	if got := post(token); got != http.StatusBadRequest {
		t.Errorf("the same again: %d", got)
	}
}

// Somebody with a password here links their account, and has one way in then.
func TestLinkingOnTheAccountPage(t *testing.T) {
	s, idp := openWithCompany(t)
	idp.SignedIn("a", map[string]any{"preferred_username": "a.smith"})
	alice := s.browse(Alice)
	alice.get("/account/company").wantStatus(t, http.StatusOK, "a password of this server", "Link Example <Corp>")
	got := alice.get("/account/link/corp")
	cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
	alice.get("/signin/oidc/corp/callback?"+idp.Visit(t, got.location()).Encode(), "Cookie", cookie).wantRedirect(t, "/account/company")
	alice.get("/account/company").wantStatus(t, http.StatusOK, "oidc:corp", "a.smith")
	b := s.browse(nobody)
	b.post("/signin", "name", Alice, "password", Password).wantStatus(t, http.StatusUnauthorized)
	to, ticket := leave(t, b, "")
	b.get("/signin/oidc/corp/callback?"+idp.Visit(t, to).Encode(), "Cookie", ticket).wantRedirect(t, "/workspaces")
	b.get("/account").wantStatus(t, http.StatusOK, "alice")
	s.browse(nobody).get("/account/link/corp").wantRedirect(t, "/signin")
	s.browse(nobody).get("/account/company").wantRedirect(t, "/signin")
}

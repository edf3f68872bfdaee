package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// Who signs in right gets a cookie and their workspaces; who does not gets the
// same page again, with the name and without the password, and the same words
// whether there is such an account or not.
func TestSignIn(t *testing.T) {
	s := open(t)
	const wrong = "not-this-one-4711"
	var said []string
	for _, name := range []string{Alice, "carol", `"><script>alert(1)</script>`, "ALICE", "alice@evil", strings.Repeat("a", 300)} {
		b := s.browse(nobody)
		got := b.submit(b.get("/signin"), "/signin", "name", name, "password", wrong)
		got.wantStatus(t, http.StatusUnauthorized, "The name or the password is wrong.", "Ask an administrator")
		if f := got.forms()[0]; f.fields.Get("name") != name || f.fields.Get("password") != "" || strings.Contains(got.body, wrong) {
			t.Errorf("the form comes back with %v", f.fields)
		}
		if b.session != "" || len(got.header["Set-Cookie"]) != 0 {
			t.Errorf("a wrong password makes the cookie %q", b.session)
		}
		said = append(said, got.text())
	}
	for i, text := range said {
		if text != said[0] {
			t.Errorf("attempt %d reads\n%s\nthe first\n%s", i, text, said[0])
		}
	}
	b := s.browse(nobody)
	got := b.submit(b.get("/signin"), "/signin", "name", Alice, "password", Password)
	got.wantRedirect(t, "/workspaces")
	if len(b.session) != 43 || strings.Contains(got.header.Get("Set-Cookie"), "Max-Age") {
		t.Errorf("signed in with the cookie %q", got.header.Get("Set-Cookie"))
	}
	b.get(got.location()).wantStatus(t, http.StatusOK, "Workspaces", "alice")
	b.get("/signin").wantRedirect(t, "/workspaces")
	b.get("/").wantRedirect(t, "/workspaces")
	if log := s.Log.String(); strings.Contains(log, wrong) || strings.Contains(log, Password) || strings.Contains(log, b.session) {
		t.Error("a password or the cookie stands in the log")
	}
}

// A session is made anew by each sign-in: one that somebody planted before
// means nothing afterwards.
func TestSignInMakesItsOwnSession(t *testing.T) {
	s := open(t)
	bobs := s.Session(Bob)
	b := &browser{site: s, session: bobs}
	b.submit(s.browse(nobody).get("/signin"), "/signin", "name", Alice, "password", Password).wantRedirect(t, "/workspaces")
	if b.session == bobs {
		t.Fatal("alice goes on with bob's session")
	}
	b.get("/account").wantStatus(t, http.StatusOK, "alice")
	planted := &browser{site: s, session: strings.Repeat("A", 43)}
	planted.get("/workspaces").wantRedirect(t, "/signin")
}

// Of two cookies of our name somebody planted one, so neither counts; and the
// way to a workspace is of the same mind, or the two would send a browser back
// and forth.
func TestTwoCookies(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	both := edge.ConsoleCookie + "=" + s.Session(Bob) + "; " + edge.ConsoleCookie + "=" + s.Session(Alice)
	b := s.browse(nobody)
	b.get("/workspaces", "Cookie", both).wantRedirect(t, "/signin")
	b.get("/open/"+ws.Slug, "Cookie", both).wantRedirect(t, "/signin?open="+ws.Slug)
	b.get("/signin?open="+ws.Slug, "Cookie", both).wantStatus(t, http.StatusOK, "Sign in")
}

// Too many attempts say how long to wait, to a person and to a browser.
func TestTooManySignIns(t *testing.T) {
	s := open(t)
	b := s.browse(nobody)
	for range 100 {
		got := b.post("/signin", "name", Bob, "password", "not this one")
		if got.status == http.StatusUnauthorized {
			continue
		}
		got.wantStatus(t, http.StatusTooManyRequests, "Too many attempts to sign in.", "wait")
		if wait := got.header.Get("Retry-After"); wait == "" || wait == "0" {
			t.Errorf("Retry-After %q", wait)
		}
		if got.forms()[0].fields.Get("name") != Bob {
			t.Error("the name is lost")
		}
		return
	}
	t.Error("100 wrong passwords, and no limit")
}

// After a sign-in a browser goes to a workspace of ours by its slug, or to the
// list; never to an address that somebody put into the link.
func TestSignInLeadsNowhereElse(t *testing.T) {
	s := open(t)
	s.Launch(Alice, "lab")
	nonce := strings.Repeat("A", 43)
	alice := s.Session(Alice)
	for _, tt := range []struct{ open, n, want string }{
		{"", "", "/workspaces"},
		{"lab-1f00", "", "/open/lab-1f00"},
		{"lab-1f00", nonce, "/open/lab-1f00?n=" + nonce},
		{"lab-1f00", "x", "/workspaces"},
		{"lab-1f00", nonce + "&to=https://evil.example", "/workspaces"},
		{"lab-1f00", nonce + "#", "/workspaces"},
		{"https://evil.example", "", "/workspaces"},
		{"//evil.example", "", "/workspaces"},
		{"/evil.example", "", "/workspaces"},
		{`/\evil.example`, "", "/workspaces"},
		{`\evil.example`, "", "/workspaces"},
		{"/\tevil.example", "", "/workspaces"},
		{"https:evil.example", "", "/workspaces"},
		{"%2f%2fevil.example", "", "/workspaces"},
		{"..", "", "/workspaces"},
		{"../../evil", "", "/workspaces"},
		{"lab.evil.example", "", "/workspaces"},
		{"lab@evil.example", "", "/workspaces"},
		{"evil。example", "", "/workspaces"},
		{"lab?n=x", "", "/workspaces"},
		{"lab\r\nSet-Cookie: x=y", "", "/workspaces"},
		{"javascript:alert(1)", "", "/workspaces"},
		{"LAB", "", "/workspaces"},
		{"-lab", "", "/workspaces"},
		{strings.Repeat("a", 64), "", "/workspaces"},
		{strings.Repeat("a", 8<<10), "", "/workspaces"},
	} {
		query := url.Values{"open": {tt.open}, "n": {tt.n}}.Encode()
		// Signed in already, in another tab.
		b := &browser{site: s, session: alice}
		b.get("/signin?"+query).wantRedirect(t, tt.want)
		// The form carries both through, as they are.
		f := s.browse(nobody).get("/signin?" + query).forms()[0]
		if got := f.fields.Get("open"); got != tt.open {
			t.Errorf("the form carries open=%q, want %q", got, tt.open)
		}
	}
	// And so does a sign-in.
	for open, want := range map[string]string{"lab-1f00": "/open/lab-1f00?n=" + nonce, "//evil.example": "/workspaces"} {
		b := s.browse(nobody)
		b.submit(b.get("/signin?"+url.Values{"open": {open}, "n": {nonce}}.Encode()), "/signin", "name", Alice, "password", Password).wantRedirect(t, want)
	}
}

// From a workspace's address, through sign-in, into it: the whole way by
// redirects alone.
func TestSignInOnTheWayToAWorkspace(t *testing.T) {
	s := open(t)
	ws := s.Launch(Alice, "lab")
	cookies := map[string]string{}
	outside := func(to string) *http.Response {
		t.Helper()
		req := mustRequest(t, http.MethodGet, to)
		req.Header.Set("Accept", "text/html")
		for name, value := range cookies {
			req.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		for _, c := range resp.Cookies() {
			cookies[c.Name] = c.Value
		}
		return resp
	}
	open := strings.TrimPrefix(outside(s.Origins.Workspace(ws.Slug)+"/lab/tree/a.ipynb").Header.Get("Location"), s.URL)
	b := s.browse(nobody)
	toSignIn := b.get(open)
	if !strings.HasPrefix(open, "/open/"+ws.Slug+"?n=") || !strings.HasPrefix(toSignIn.location(), "/signin?") {
		t.Fatalf("the workspace leads to %q, that to %q", open, toSignIn.location())
	}
	back := b.submit(b.get(toSignIn.location()), "/signin", "name", Alice, "password", Password)
	back.wantRedirect(t, open)
	enter := b.get(back.location())
	if enter.status != http.StatusSeeOther || !strings.HasPrefix(enter.location(), s.Origins.Workspace(ws.Slug)+"/.bailey/enter?code=") {
		t.Fatalf("the hand-off: %d %q", enter.status, enter.location())
	}
	if to := outside(enter.location()).Header.Get("Location"); to != "/lab/tree/a.ipynb" {
		t.Errorf("at last it leads to %q", to)
	}
	if resp := outside(s.Origins.Workspace(ws.Slug) + "/lab/tree/a.ipynb"); resp.StatusCode != http.StatusOK {
		t.Errorf("inside: %s", resp.Status)
	}
}

// Who signs out is out: the cookie is taken away and means nothing any more,
// here, and for the other browsers nothing changes.
func TestSignOut(t *testing.T) {
	s := open(t)
	here, other := s.browse(Alice), s.browse(Alice)
	old := here.session
	got := here.submit(here.get("/workspaces"), "/signout")
	got.wantRedirect(t, "/signin")
	if here.session != "" || !strings.Contains(got.header.Get("Set-Cookie"), "Max-Age=0") || got.header.Get("Clear-Site-Data") != `"cache", "storage"` {
		t.Errorf("signed out with %v", got.header)
	}
	(&browser{site: s, session: old}).get("/workspaces").wantRedirect(t, "/signin")
	other.get("/workspaces").wantStatus(t, http.StatusOK)
	s.browse(nobody).post("/signout").wantRedirect(t, "/signin") // harmless
	if n := len(s.Events(audit.SignOut)); n != 1 {
		t.Errorf("%d sign-outs recorded, want 1", n)
	}
}

// A disabled account's cookie is dead at once, and comes back with nothing.
func TestDisabledAccount(t *testing.T) {
	s := open(t)
	alice, bob := s.browse(Alice), s.browse(Bob)
	alice.get("/workspaces").wantStatus(t, http.StatusOK)
	for _, disabled := range []bool{true, false} {
		if _, err := s.Identity.UpdateUser(t.Context(), s.Actor(Admin), Alice, identity.UserUpdate{Disabled: &disabled}); err != nil {
			t.Fatal(err)
		}
		alice.get("/workspaces").wantRedirect(t, "/signin")
		alice.post("/workspaces", "class", "small").wantRedirect(t, "/signin")
		if disabled {
			b := s.browse(nobody)
			b.post("/signin", "name", Alice, "password", Password).wantStatus(t, http.StatusUnauthorized, "The name or the password is wrong.")
		}
	}
	bob.get("/workspaces").wantStatus(t, http.StatusOK)
}

// The set-up link makes the first administrator: once, in time, with the code
// that was printed.
func TestSetUp(t *testing.T) {
	s := openEmpty(t)
	b := s.browse(nobody)
	b.get("/").wantStatus(t, http.StatusOK, "Not set up yet", "one-time set-up link")
	const password = "seven orange bridges"
	for _, tt := range []struct {
		name   string
		fields []string
		status int
		says   string
	}{
		{"no code", []string{"code", ""}, 401, "This set-up link is not valid"},
		{"wrong code", []string{"code", strings.Repeat("x", 43)}, 401, "This set-up link is not valid"},
		{"passwords differ", []string{"again", "seven orange bridge"}, 422, "The two passwords differ."},
		{"too short", []string{"password", "short", "again", "short"}, 422, "shorter than 10"},
		{"a name that attacks", []string{"name", `<b>"x`}, 422, "is not a valid name"},
		{"a name that is taken", []string{"name", "bailey"}, 422, "reserved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields := append([]string{"code", s.SetupCode(), "name", "ruth", "password", password, "again", password}, tt.fields...)
			got := b.submit(b.get("/setup"), "/setup", fields...)
			got.wantStatus(t, tt.status, tt.says)
			f := got.forms()[0].fields
			want := url.Values{"name": {"ruth"}, "code": {s.SetupCode()}}
			for i := 0; i < len(tt.fields); i += 2 {
				want.Set(tt.fields[i], tt.fields[i+1])
			}
			if f.Get("name") != want.Get("name") || f.Get("code") != want.Get("code") || f.Get("password") != "" || f.Get("again") != "" {
				t.Errorf("the form comes back with %v, want name and code as typed", f)
			}
			if b.session != "" {
				t.Error("and it signed in")
			}
		})
	}
	t.Run("right", func(t *testing.T) {
		b.submit(b.get("/setup"), "/setup", "code", s.SetupCode(), "name", "ruth", "password", password, "again", password).wantRedirect(t, "/workspaces")
		b.get("/admin").wantStatus(t, http.StatusOK, "ruth", "admin")
	})
	t.Run("again", func(t *testing.T) {
		other := s.browse(nobody)
		other.get("/setup").wantStatus(t, http.StatusConflict, "This server is set up already.")
		got := other.post("/setup", "code", s.SetupCode(), "name", "eve", "password", password, "again", password)
		got.wantStatus(t, http.StatusConflict, "This server is set up already.")
		if other.session != "" || strings.Contains(got.body, s.SetupCode()) {
			t.Errorf("cookie %q, %s", other.session, got.body)
		}
		other.get("/").wantRedirect(t, "/signin")
	})
	if log := s.Log.String(); strings.Contains(log, s.SetupCode()) || strings.Contains(log, password) {
		t.Error("the code or the password stands in the log")
	}
}

// A link that is too old makes nobody.
func TestSetUpTooLate(t *testing.T) {
	s := openEmpty(t)
	code := secret.New(s.SetupCode())
	if err := s.Store.SetSetup(t.Context(), code.Hash(), time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	b := s.browse(nobody)
	got := b.submit(b.get("/setup"), "/setup", "code", code.Reveal(), "name", "ruth", "password", "seven orange bridges", "again", "seven orange bridges")
	got.wantStatus(t, http.StatusUnauthorized, "has expired", "restart bailey")
	if n, err := s.Store.CountUsers(t.Context()); n != 0 || err != nil || b.session != "" {
		t.Errorf("%d accounts, %v, cookie %q; want none", n, err, b.session)
	}
}

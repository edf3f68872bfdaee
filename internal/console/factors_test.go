package console_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

var (
	secretRE   = regexp.MustCompile(`id="totp-secret">([A-Z2-7]+)<`)
	recoveryRE = regexp.MustCompile(`<li><code>([^<]+)</code></li>`)
)

// An app is somebody's authenticator app. It never shows a code twice, like a
// person who waits for the next.
type app struct {
	t    *testing.T
	key  secret.Value
	next int64
}

func appOn(t *testing.T, p page) *app {
	t.Helper()
	m := secretRE.FindStringSubmatch(p.body)
	if m == nil {
		t.Fatalf("no secret on the page: %s", p.text())
	}
	return &app{t: t, key: secret.New(m[1])}
}

// code returns a code that counts now: of this step or the next. Those of the
// step before count, too, but not any more when the clock moves on meanwhile.
func (a *app) code() string {
	a.t.Helper()
	now := totp.Step(time.Now())
	if a.next = max(a.next, now); a.next > now+1 {
		a.t.Fatal("the test wants more codes than count at one moment")
	}
	a.next++
	return totp.Code(a.key, a.next-1)
}

// Alice sets an app up, signs out, and in again by it. The code she used, a
// wrong one and no code at all leave her outside, and so does her password for
// somebody who has nothing else. A recovery code stands in once.
func TestSignInWithASecondFactor(t *testing.T) {
	s := open(t)
	b := s.browse(Alice)
	offer := b.get("/account/factors")
	offer.wantStatus(t, http.StatusOK, "Scan the picture")
	phone := appOn(t, offer)
	wrong := b.submit(offer, "/account/factors", "name", "phone", "code", "000000")
	wrong.wantStatus(t, http.StatusUnprocessableEntity, "not the app's code")
	if appOn(t, wrong).key.Reveal() != phone.key.Reveal() {
		t.Error("after a wrong code the page offers another secret than the one that is in the app")
	}
	set := b.submit(wrong, "/account/factors", "name", "phone", "code", phone.code())
	set.wantStatus(t, http.StatusOK, "Recovery codes", "not shown again")
	codes := recoveryRE.FindAllStringSubmatch(set.body, -1)
	if len(codes) != 10 {
		t.Fatalf("%d recovery codes: %s", len(codes), set.text())
	}
	account := b.get("/account")
	account.wantStatus(t, http.StatusOK, "phone", "10 recovery codes left", "was added")
	if strings.Contains(account.body, phone.key.Reveal()) || strings.Contains(account.body, codes[0][1]) {
		t.Error("the account page shows the secret or a recovery code again")
	}

	fresh := s.browse(nobody)
	signIn := func() page {
		t.Helper()
		fresh.session = ""
		got := fresh.submit(fresh.get("/signin"), "/signin", "name", Alice, "password", Password)
		got.wantRedirect(t, "/signin/step")
		if fresh.session != "" {
			t.Fatal("the password alone made a session")
		}
		return fresh.get("/signin/step")
	}
	step := signIn()
	step.wantStatus(t, http.StatusOK, "Second step", "authenticator app")
	for _, path := range []string{"/workspaces", "/account", "/account/factors", "/stepup"} {
		fresh.get(path).wantRedirect(t, "/signin") // the ticket opens nothing else
	}
	step = fresh.submit(step, "/signin/factor", "code", "000000")
	step.wantStatus(t, http.StatusUnauthorized, "That was not right")
	code := phone.code()
	fresh.submit(step, "/signin/factor", "code", code).wantRedirect(t, "/workspaces")
	fresh.get("/workspaces").wantStatus(t, http.StatusOK)

	step = signIn()
	step = fresh.submit(step, "/signin/factor", "code", code)
	step.wantStatus(t, http.StatusUnauthorized, "That was not right") // it counted already
	fresh.submit(step, "/signin/factor", "code", codes[0][1]).wantRedirect(t, "/workspaces")
	fresh.get("/account").wantStatus(t, http.StatusOK, "9 recovery codes left", "A recovery code was used")
	step = signIn()
	fresh.submit(step, "/signin/factor", "code", codes[0][1]).wantStatus(t, http.StatusUnauthorized, "That was not right")

	// Bob has none, and is not asked.
	other := s.browse(nobody)
	other.submit(other.get("/signin"), "/signin", "name", Bob, "password", Password).wantRedirect(t, "/workspaces")
}

// A ticket is good for five tries, and for whoever has it: without it the second
// step is the beginning again.
func TestTheSecondStepEnds(t *testing.T) {
	s := open(t)
	alice := s.browse(Alice)
	offer := alice.get("/account/factors")
	phone := appOn(t, offer)
	alice.submit(offer, "/account/factors", "code", phone.code()).wantStatus(t, http.StatusOK)
	b := s.browse(nobody)
	b.post("/signin", "name", Alice, "password", Password).wantRedirect(t, "/signin/step")
	if b.others["__Host-bailey-step"] == "" {
		t.Fatalf("no ticket among %v", b.others)
	}
	stranger := s.browse(nobody)
	stranger.get("/signin/step").wantStatus(t, http.StatusUnauthorized, "This sign-in is over")
	stranger.post("/signin/factor", "code", "123456").wantStatus(t, http.StatusUnauthorized, "This sign-in is over")
	var last page
	for range 5 {
		last = b.post("/signin/factor", "code", "000000")
	}
	if last.status != http.StatusUnauthorized && last.status != http.StatusTooManyRequests {
		t.Errorf("the fifth wrong code: %d %s", last.status, last.text())
	}
	got := b.post("/signin/factor", "code", phone.code())
	if got.status != http.StatusUnauthorized && got.status != http.StatusTooManyRequests || b.session != "" {
		t.Errorf("the right code after five wrong ones: %d %s", got.status, got.text())
	}
}

// What the configuration asks for comes before anything else, on the set-up page
// too.
func TestAFactorIsRequiredAtSetUp(t *testing.T) {
	w := NewEmpty(t)
	w.SignInRules = identity.Rules{FactorRoles: []bailey.Role{bailey.RoleAdmin}}
	s := serve(t, w)
	b := s.browse(nobody)
	b.submit(b.get("/setup"), "/setup", "code", s.SetupCode(), "name", "carol", "password", "seven orange bridges", "again", "seven orange bridges").wantRedirect(t, "/signin/step")
	if b.session != "" {
		t.Fatal("there is a session before there is a second factor")
	}
	page := b.get("/signin/step")
	page.wantStatus(t, http.StatusOK, "must have a second factor")
	b.get("/admin").wantRedirect(t, "/signin")
	phone := appOn(t, page)
	done := b.submit(page, "/signin/enrol", "code", phone.code())
	done.wantStatus(t, http.StatusOK, "Recovery codes")
	b.get("/admin").wantStatus(t, http.StatusOK, "Users")
}

// An hour after signing in, the pages that matter ask again, and lead back to
// where they were asked for and nowhere else.
func TestPagesAskAgain(t *testing.T) {
	w := New(t)
	w.SignInRules = identity.Rules{StepUp: time.Nanosecond} // it is always too long ago
	s := serve(t, w)
	b, root := s.browse(Alice), s.browse(Admin)
	for _, tt := range []struct {
		b      *browser
		method string
		path   string
		back   string
	}{
		{b, http.MethodGet, "/account/factors", "to=factors"},
		{b, http.MethodPost, "/account/factors", "to=factors"},
		{b, http.MethodPost, "/account/codes", "to=account"},
		{b, http.MethodPost, "/account/tokens", "to=account"},
		{b, http.MethodGet, "/device?user_code=ABCD-EFGH", "code_for=ABCD-EFGH&to=device"},
		{root, http.MethodPost, "/admin/users", "to=admin"},
		{root, http.MethodPost, "/admin/users/bob/disable", "to=admin"},
		{root, http.MethodPost, "/admin/users/bob/factors", "to=admin"},
	} {
		got := tt.b.send(tt.method, tt.path, map[string][]string{"name": {"carol"}, "password": {"seven orange bridges"}, "note": {"x"}},
			"Sec-Fetch-Site", "same-origin", "Origin", s.URL)
		if got.status != http.StatusSeeOther || !strings.HasPrefix(got.location(), "/stepup?") || !strings.Contains(got.location(), tt.back) {
			t.Errorf("%s %s leads to %d %q, want a proof and then %s", tt.method, tt.path, got.status, got.location(), tt.back)
		}
	}
	for to, want := range map[string]string{
		"to=device&code_for=ABCD-EFGH": "/device?user_code=ABCD-EFGH", "to=ssh&code_for=AB12-CD34": "/ssh/AB12-CD34",
		"to=https://evil.example": "/account", "to=//evil.example": "/account", "to=ssh&code_for=..%2Fx": "/account", "to=ssh": "/account",
		"to=device&code_for=%2F%2Fevil": "/device", "to=admin": "/admin", "to=factors": "/account/factors", "": "/account",
	} {
		p := b.get("/stepup?" + to)
		p.wantStatus(t, http.StatusOK, "Confirm that it is you")
		b.submit(p, "/stepup", "password", Password).wantRedirect(t, want)
	}
	b.submit(b.get("/stepup"), "/stepup", "password", "not this one").wantStatus(t, http.StatusUnauthorized, "The password is wrong")
}

// Alice is known by the browser that she signed in with: strangers who try her
// name do not lock it out. She can make it a stranger's again.
func TestABrowserIsKnown(t *testing.T) {
	s := open(t)
	b := s.browse(nobody)
	b.post("/signin", "name", Alice, "password", Password).wantRedirect(t, "/workspaces")
	known := b.others["__Host-bailey-known"]
	if known == "" {
		t.Fatalf("no cookie to be known by among %v", b.others)
	}
	stranger := s.browse(nobody)
	for range 30 {
		stranger.post("/signin", "name", Alice, "password", "not this one")
	}
	if got := stranger.post("/signin", "name", Alice, "password", Password); got.status != http.StatusTooManyRequests {
		t.Errorf("the right password from a stranger's browser after 30 wrong ones: %d %s", got.status, got.text())
	}
	again := s.browse(nobody)
	again.others = map[string]string{"__Host-bailey-known": known}
	again.post("/signin", "name", Alice, "password", Password).wantRedirect(t, "/workspaces")
	account := again.get("/account")
	forget := ""
	for _, f := range account.forms() {
		if strings.HasSuffix(f.action, "/forget") {
			forget = f.action
		}
	}
	if forget == "" {
		t.Fatalf("the account page lists no browser: %s", account.text())
	}
	again.submit(account, forget).wantRedirect(t, "/account")
	last := s.browse(nobody)
	last.others = map[string]string{"__Host-bailey-known": known}
	if got := last.post("/signin", "name", Alice, "password", Password); got.status != http.StatusTooManyRequests {
		t.Errorf("a forgotten browser is still known: %d %s", got.status, got.text())
	}
}

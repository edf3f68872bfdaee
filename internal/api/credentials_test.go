package api_test

import (
	"net/http"
	"strings"
	"testing"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
)

const mePath = "/api/v1/me"

// A token lives until it is revoked or its account disabled, and not a request
// longer.
func TestTokensEndAtOnce(t *testing.T) {
	d := open(t)
	for _, tt := range []struct {
		name string
		who  string
		end  func(id string) error
	}{
		{"revoked", Alice, func(id string) error { return d.Identity.RevokeToken(t.Context(), d.Actor(Alice), id) }},
		{"account disabled", Bob, func(string) error {
			disabled := true
			_, err := d.Identity.UpdateUser(t.Context(), d.Actor(Admin), Bob, identity.UserUpdate{Disabled: &disabled})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token, row := d.Token(tt.who)
			use := func() answer { return d.send(d.request(http.MethodGet, mePath, "", "Authorization", "Bearer "+token)) }
			if got := use(); got.status != http.StatusOK {
				t.Fatalf("before: %d %s", got.status, got.body)
			}
			if err := tt.end(row.ID); err != nil {
				t.Fatal(err)
			}
			after := use()
			after.problem(t, http.StatusUnauthorized, "unauthenticated")
			// Whoever holds it learns nothing more than whoever invents one.
			invented := d.send(d.request(http.MethodGet, mePath, "", "Authorization", "Bearer bly_invented"))
			if after.words(t) != invented.words(t) {
				t.Errorf("an ended token gives %s, an invented one %s", after.body, invented.body)
			}
		})
	}
}

// The Authorization header counts alone: in the kinds we know, and never with
// the cookie as a second chance.
func TestAuthorizationHeader(t *testing.T) {
	d := open(t)
	session, token := d.Session(Bob), d.token(Alice)
	for _, tt := range []struct {
		name   string
		values []string
		status int
		says   string
	}{
		{"Bearer", []string{"Bearer " + token}, 200, `"name":"alice"`},
		{"lower case", []string{"bearer " + token}, 200, `"name":"alice"`},
		{"as JupyterHub's clients send it", []string{"token " + token}, 200, `"name":"alice"`},
		{"Basic", []string{"Basic YWxpY2U6cGFzcw=="}, 401, "not accepted"},
		{"Negotiate", []string{"Negotiate x"}, 401, "not accepted"},
		{"no kind", []string{token}, 401, "not accepted"},
		{"empty", []string{""}, 401, "not accepted"},
		{"Bearer and nothing", []string{"Bearer "}, 401, "not valid"},
		{"two", []string{"Bearer " + token, "Bearer " + token}, 401, "more than one"},
		{"cut short", []string{"Bearer " + token[:len(token)-1]}, 401, "not valid"},
		{"a session is no token", []string{"Bearer " + session}, 401, "not valid"},
		{"1 KiB", []string{"Bearer " + strings.Repeat("a", 1024)}, 401, "not valid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			for _, v := range tt.values {
				headers = append(headers, "Authorization", v)
			}
			// Bob's good cookie comes along each time and must not help.
			got := d.withCookie(session, http.MethodGet, mePath, "", headers...)
			if got.status != tt.status || !strings.Contains(got.body, tt.says) {
				t.Errorf("Authorization %q: %d %s, want %d and %q", tt.values, got.status, got.body, tt.status, tt.says)
			}
			if tt.status != http.StatusOK {
				got.problem(t, tt.status, "unauthenticated")
			}
			if strings.Contains(got.body, token) || strings.Contains(d.Log.String(), token) {
				t.Error("the token stands in the answer or the log")
			}
		})
	}
}

// What is public stays public for a browser with an old cookie, and does not
// for a program with an old token, which should know.
func TestStaleCredentialsOnPublicOperations(t *testing.T) {
	d := open(t)
	for _, path := range []string{"/api/v1/info", "/api/openapi.json"} {
		if got := d.withCookie("stale", http.MethodGet, path, ""); got.status != http.StatusOK {
			t.Errorf("%s with a stale cookie: %d %s", path, got.status, got.body)
		}
		d.send(d.request(http.MethodGet, path, "", "Authorization", "Bearer stale")).problem(t, 401, "unauthenticated")
	}
	d.withCookie("stale", http.MethodGet, mePath, "").problem(t, 401, "unauthenticated")
}

// A request with the console's cookie changes something only when it comes
// from a page of the console: workspaces are the same site, so SameSite does
// not protect from them. Method overrides are nothing to us.
func TestCookieNeedsOurOrigin(t *testing.T) {
	d := open(t)
	session := d.Session(Alice)
	workspace := strings.Replace(d.URL, "localhost", "bob-lab.localhost", 1)
	type headers []string
	for _, tt := range []struct {
		name    string
		headers headers
		read    bool // GET is answered
		change  bool // POST is
	}{
		{"the console's page", headers{"Sec-Fetch-Site", "same-origin", "Origin", d.URL}, true, true},
		{"the console's page, without Origin", headers{"Sec-Fetch-Site", "same-origin"}, true, true},
		{"an old browser on the console's page", headers{"Origin", d.URL}, true, true},
		{"the address bar", headers{"Sec-Fetch-Site", "none"}, true, false},
		{"no word from where", headers{}, true, false},
		{"a workspace", headers{"Sec-Fetch-Site", "same-site", "Origin", workspace}, false, false},
		{"a workspace, as if from the console", headers{"Sec-Fetch-Site", "same-site", "Origin", d.URL}, false, false},
		{"another site", headers{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, false, false},
		{"another site, no-cors", headers{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, false, false},
		{"an old browser on a workspace", headers{"Origin", workspace}, true, false},
		{"a sandboxed page", headers{"Origin", "null"}, true, false},
		{"our name as a prefix", headers{"Origin", d.URL + ".evil.example"}, true, false},
		{"our host by http", headers{"Origin", strings.Replace(d.URL, "https", "http", 1)}, true, false},
		{"a word that means nothing", headers{"Sec-Fetch-Site", "SAME-ORIGIN", "Origin", d.URL}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := func(method, path, body string, allowed bool, more ...string) {
				t.Helper()
				got := d.withCookie(session, method, path, body, append(more, tt.headers...)...)
				if allowed != (got.status < 300) {
					t.Errorf("%s %s with %q: %d %s, want allowed: %v", method, path, append(more, tt.headers...), got.status, got.body, allowed)
				}
				if !allowed {
					got.problem(t, http.StatusForbidden, "denied")
				}
			}
			check(http.MethodGet, mePath, "", tt.read)
			check(http.MethodPost, "/api/v1/me/tokens", `{"note":"x"}`, tt.change)
			_, row := d.Token(Alice)
			check(http.MethodDelete, "/api/v1/me/tokens/"+row.ID, "", tt.change)
		})
	}
	events := d.Events(audit.AccessDenied)
	if len(events) != 1 || events[0].Actor.Name != Alice || events[0].Reason != audit.ForeignOrigin {
		t.Errorf("recorded %+v, want that somebody used alice's browser, once", events)
	}
	t.Run("an override changes no method", func(t *testing.T) {
		_, row := d.Token(Alice)
		for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
			d.withCookie(session, http.MethodGet, "/api/v1/me/tokens/"+row.ID+"?_method=DELETE", "", name, "DELETE").
				problem(t, http.StatusMethodNotAllowed, "invalid")
			got := d.withCookie(session, http.MethodGet, "/api/v1/me/tokens", "", name, "DELETE")
			if got.status != http.StatusOK || !strings.Contains(got.body, row.ID) {
				t.Errorf("GET with %s: %d %s, want a list with the token", name, got.status, got.body)
			}
		}
	})
	t.Run("a token needs no origin", func(t *testing.T) {
		got := d.as(Alice, http.MethodPost, "/api/v1/me/tokens", `{"note":"x"}`, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
		if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %s, %v; want 200, and no CORS header", got.status, got.body, got.header)
		}
	})
}

// Of two cookies of our name somebody planted one, so neither counts; and a
// session ends at once, with its cookie.
func TestCookies(t *testing.T) {
	d := open(t)
	alices, bobs := d.Session(Alice), d.Session(Bob)
	if got := d.withCookie(alices, http.MethodGet, mePath, ""); got.status != 200 || !strings.Contains(got.body, `"name":"alice"`) {
		t.Errorf("alice's cookie: %d %s", got.status, got.body)
	}
	for _, cookie := range []string{
		edge.ConsoleCookie + "=" + bobs + "; " + edge.ConsoleCookie + "=" + alices,
		strings.ToLower(edge.ConsoleCookie) + "=" + alices,
		edge.ConsoleCookie + "=" + alices + "x",
		edge.ConsoleCookie + "=",
		edge.ConsoleCookie + "-ws-0=" + alices,
	} {
		d.send(d.request(http.MethodGet, mePath, "", "Cookie", cookie)).problem(t, 401, "unauthenticated")
	}
	actor := d.Actor(Alice)
	sessions, err := d.Identity.Sessions(t.Context(), actor)
	if err != nil || len(sessions) != 1 {
		t.Fatalf("alice's sessions: %v, %v", sessions, err)
	}
	// She ends it herself through the API, from the console.
	got := d.withCookie(alices, http.MethodDelete, "/api/v1/me/sessions/"+sessions[0].ID, "", "Sec-Fetch-Site", "same-origin")
	if got.status != http.StatusNoContent {
		t.Fatalf("end the session: %d %s", got.status, got.body)
	}
	d.withCookie(alices, http.MethodGet, mePath, "").problem(t, 401, "unauthenticated")
	if got := d.withCookie(bobs, http.MethodGet, mePath, ""); got.status != 200 {
		t.Errorf("bob's cookie after alice's sign-out: %d %s", got.status, got.body)
	}
}

// Signing in for a token says the same of a wrong password and of a name that
// is nobody's, keeps no password, and believes no header about the address.
func TestSignInForToken(t *testing.T) {
	d := open(t)
	const path = "/api/v1/tokens/signin"
	var got struct{ Token, User string }
	d.send(d.request(http.MethodPost, path, `{"user":"alice","password":"`+Password+`","note":"cli"}`,
		"X-Forwarded-For", "203.0.113.9", "Forwarded", "for=203.0.113.9", "X-Real-IP", "203.0.113.9")).into(t, 200, &got)
	if got.User != Alice || !strings.HasPrefix(got.Token, "bly_") {
		t.Fatalf("signed in: %+v", got)
	}
	if me := d.send(d.request(http.MethodGet, mePath, "", "Authorization", "Bearer "+got.Token)); me.status != 200 {
		t.Errorf("the new token: %d %s", me.status, me.body)
	}
	wrong := d.send(d.request(http.MethodPost, path, `{"user":"alice","password":"not-this-one-4711"}`))   // bailey:allow
	unknown := d.send(d.request(http.MethodPost, path, `{"user":"carol","password":"not-this-one-4711"}`)) // bailey:allow
	wrong.problem(t, http.StatusUnauthorized, "unauthenticated")
	if wrong.words(t) != unknown.words(t) || wrong.status != unknown.status {
		t.Errorf("a known name gives %s, an unknown one %s", wrong.body, unknown.body)
	}
	events := d.Events(audit.SignIn)
	for _, e := range events {
		if e.Actor.IP != "127.0.0.1" {
			t.Errorf("sign-in recorded from %q, want the socket's address", e.Actor.IP)
		}
	}
	if n := len(events); n != 3 {
		t.Errorf("%d sign-ins recorded, want 3: %+v", n, events)
	}
	if log := d.Log.String(); strings.Contains(log, "not-this-one-4711") || strings.Contains(log, Password) || strings.Contains(log, got.Token) {
		t.Error("a password or token stands in the log")
	}
}

// Whoever tries too often is told when to come back.
func TestTooManySignInsSayWhenToComeBack(t *testing.T) {
	d := open(t)
	for range 100 {
		got := d.send(d.request(http.MethodPost, "/api/v1/tokens/signin", `{"user":"bob","password":"not this one"}`))
		if got.status == http.StatusUnauthorized {
			continue
		}
		p := got.problem(t, http.StatusTooManyRequests, "too_many")
		if wait := got.header.Get("Retry-After"); wait == "" || wait == "0" || p.Hint == "" {
			t.Errorf("Retry-After %q, %+v; want when to come back", wait, p)
		}
		// Bob's program goes on working meanwhile.
		if me := d.as(Bob, http.MethodGet, mePath, ""); me.status != http.StatusOK {
			t.Errorf("bob's token during the limit: %d %s", me.status, me.body)
		}
		return
	}
	t.Error("100 wrong passwords, and no limit")
}

// Who may not read the journal stands in it, once however often they knock.
func TestRefusalsAreRecorded(t *testing.T) {
	d := open(t)
	for range 5 {
		d.as(Bob, http.MethodGet, "/api/v1/audit", "").problem(t, http.StatusForbidden, "denied")
	}
	events := d.Events(audit.AccessDenied)
	if len(events) != 1 || events[0].Actor.Name != Bob || events[0].Target.Name != "audit" {
		t.Errorf("recorded: %+v, want bob's knocking, once", events)
	}
	if d.as(Auditor, http.MethodGet, "/api/v1/audit?action=access.", "").status != http.StatusOK {
		t.Error("the auditor may not read the journal")
	}
}

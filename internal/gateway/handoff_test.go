package gateway_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
)

func TestHandOff(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	b := w.browser("ada")
	res, body := b.open(w.origin(adaSlug) + "/lab/tree/a%20b.ipynb?reset&x=1")
	if res.StatusCode != 200 || res.Request.URL.String() != w.origin(adaSlug)+"/lab/tree/a%20b.ipynb?reset&x=1" {
		t.Fatalf("ada ends at %s with %d %s", res.Request.URL, res.StatusCode, body)
	}
	if !strings.HasPrefix(body, "GET /lab/tree/a%20b.ipynb?reset&x=1\nHost: 127.0.0.1:8888\n") || !strings.Contains(body, "Authorization: token run-token-ada-1\n") {
		t.Errorf("the workspace saw\n%s", body)
	}
	if strings.Contains(body, "bailey") {
		t.Errorf("something of ours reached the workspace:\n%s", body)
	}
	opened := w.journal.of(audit.Opened)
	if len(opened) != 1 || opened[0].Actor.ID != "u-ada" || opened[0].Target.ID != "w-"+adaSlug || opened[0].Actor.IP != "127.0.0.1" {
		t.Errorf("journal has %+v, want ada's opening", opened)
	}
	// The next page needs no hand-off.
	if res, _ = b.open(w.origin(adaSlug) + "/tree"); res.StatusCode != 200 || len(w.journal.of(audit.Opened)) != 1 {
		t.Errorf("second page: %d, openings recorded: %d, want 200 and 1", res.StatusCode, len(w.journal.of(audit.Opened)))
	}
	// The console's own link.
	if res, body = w.browser("ada").open(w.origins.Console() + "/open/" + adaSlug); res.StatusCode != 200 || res.Request.URL.String() != w.origin(adaSlug)+"/" {
		t.Errorf("the console's link ends at %s with %d %s", res.Request.URL, res.StatusCode, body)
	}
}

// Two tabs that open at once must both arrive.
func TestHandOffOfTwoTabs(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	b := w.browser("ada")
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	step := func(address string) string {
		t.Helper()
		res, body := b.open(address)
		if res.StatusCode != http.StatusSeeOther {
			t.Fatalf("%s = %d %s, want 303", address, res.StatusCode, body)
		}
		return res.Header.Get("Location")
	}
	first, second := step(w.origin(adaSlug)+"/a"), step(w.origin(adaSlug)+"/b")
	enterFirst, enterSecond := step(first), step(second)
	for _, enter := range []string{enterFirst, enterSecond} {
		step(enter)
		if res, _ := b.open(w.origin(adaSlug) + "/a"); res.StatusCode != 200 {
			t.Errorf("after %s: %d", enter, res.StatusCode)
		}
	}
	// Reloading the address with the used code leads on, since the pass is there.
	step(enterFirst)
}

func TestHandOffNeedsASignIn(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	res, body := w.browser("").open(w.origin(adaSlug) + "/lab")
	if res.Request.URL.Path != "/signin" || !strings.HasPrefix(body, "console /signin?") {
		t.Fatalf("a stranger ends at %s with %s, want the sign-in page", res.Request.URL, body)
	}
	q := res.Request.URL.Query()
	path, ok := gateway.OpenPath(q.Get("open"), q.Get("n"))
	if !ok || q.Get("open") != adaSlug || !strings.HasPrefix(path, "/open/"+adaSlug+"?n=") {
		t.Errorf("sign-in was given %q, which leads to %q, %v", q, path, ok)
	}
}

// B cannot open A's workspace, and learns nothing about it; that leaves a trace.
func TestHandOffToAnothersWorkspaceIsRefused(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	b := w.browser("bob")
	theirs, bodyTheirs := b.open(w.origin(adaSlug) + "/")
	none, bodyNone := b.open(w.origin("eve-0000") + "/")
	if theirs.StatusCode != 404 || none.StatusCode != 404 {
		t.Errorf("ada's workspace = %d, none = %d, want 404 for both", theirs.StatusCode, none.StatusCode)
	}
	strip := func(s string) string { // the page's nonce and the request's id differ
		i, j := strings.Index(s, `nonce="`), strings.Index(s, "Request ")
		return s[:i] + s[i+30:j]
	}
	if strip(bodyTheirs) != strip(bodyNone) {
		t.Errorf("the page for ada's workspace tells that it exists:\n%s\n%s", bodyTheirs, bodyNone)
	}
	denied := w.journal.of(audit.AccessDenied)
	if len(denied) != 1 || denied[0].Actor.ID != "u-bob" || denied[0].Target.Name != adaSlug || denied[0].Reason != audit.NotAllowed {
		t.Errorf("journal has %+v, want bob's attempt, once", denied)
	}
	if w.rooms.get(adaSlug).dials.Load() != 0 {
		t.Errorf("ada's workspace was dialled for bob")
	}
}

func TestHandOffCode(t *testing.T) {
	now := time.Now()
	var w *world
	begin := func(t *testing.T, who string) (b *browser, enter string) {
		t.Helper()
		b = w.browser(who)
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, _ := b.open(w.origin(adaSlug) + "/")
		res, body := b.open(res.Header.Get("Location"))
		enter = res.Header.Get("Location")
		if !strings.HasPrefix(enter, w.origin(adaSlug)+"/.bailey/enter?code=") {
			t.Fatalf("the console answered %d to %q: %s", res.StatusCode, enter, body)
		}
		return b, enter
	}
	for _, tt := range []struct {
		name string
		try  func(t *testing.T) (*http.Response, string)
		want int
	}{
		{"by its browser", func(t *testing.T) (*http.Response, string) {
			b, enter := begin(t, "ada")
			return b.open(enter)
		}, 303},
		{"by another browser", func(t *testing.T) (*http.Response, string) {
			_, enter := begin(t, "ada")
			return w.browser("bob").open(enter)
		}, 403},
		{"by another browser with a nonce of its own", func(t *testing.T) (*http.Response, string) {
			_, enter := begin(t, "ada")
			b, _ := begin(t, "ada")
			return b.open(enter)
		}, 403},
		{"twice", func(t *testing.T) (*http.Response, string) {
			b, enter := begin(t, "ada")
			b.open(enter)
			return w.ask("GET", enter, nil, "Cookie: "+nonceOnly(b.cookies(w.origin(adaSlug))), "Accept: text/html")
		}, 403},
		{"after half a minute", func(t *testing.T) (*http.Response, string) {
			b, enter := begin(t, "ada")
			now = now.Add(31 * time.Second)
			return b.open(enter)
		}, 403},
		{"at another workspace of hers", func(t *testing.T) (*http.Response, string) {
			w.rooms.start("ada-2222", w.ada, http.HandlerFunc(mirror))
			b, enter := begin(t, "ada")
			other := w.browser("ada")
			other.CheckRedirect = b.CheckRedirect
			other.open(w.origin("ada-2222") + "/")
			// Even with the same nonce, as a workspace could arrange in port mode.
			name, _, _ := strings.Cut(nonceOnly(other.cookies(w.origin("ada-2222"))), "=")
			_, nonce, _ := strings.Cut(nonceOnly(b.cookies(w.origin(adaSlug))), "=")
			return w.ask("GET", strings.Replace(enter, adaSlug, "ada-2222", 1), nil, "Cookie: "+name+"="+nonce, "Accept: text/html")
		}, 403},
		{"after the session ended", func(t *testing.T) (*http.Response, string) {
			carol := w.ada
			carol.Session = "s-ada-2"
			w.identity.signIn("console-ada2", carol)
			b, enter := begin(t, "ada2")
			w.identity.revoke("s-ada-2")
			return b.open(enter)
		}, 401},
		{"while the journal is broken", func(t *testing.T) (*http.Response, string) {
			b, enter := begin(t, "ada")
			w.journal.mu.Lock()
			w.journal.broken = true
			w.journal.mu.Unlock()
			return b.open(enter)
		}, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w = newWorld(t, http.HandlerFunc(mirror), func(c *gateway.Config) { c.Now = func() time.Time { return now } })
			res, body := tt.try(t)
			if res.StatusCode != tt.want {
				t.Errorf("code %s = %d %s, want %d", tt.name, res.StatusCode, body, tt.want)
			}
			if got := len(res.Header["Set-Cookie"]) > 0; got != (tt.want == 303) {
				t.Errorf("code %s: cookies set: %q", tt.name, res.Header["Set-Cookie"])
			}
		})
	}
}

// nonceOnly returns the nonce's cookie of a Cookie header.
func nonceOnly(cookies string) string {
	for part := range strings.SplitSeq(cookies, "; ") {
		if strings.HasPrefix(part, "__Host-bailey-nonce-") {
			return part
		}
	}
	return ""
}

// Every cookie of ours has what keeps it on its host and away from scripts.
func TestCookiesOfTheHandOff(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	b := w.browser("ada")
	seen := map[string]bool{}
	b.CheckRedirect = func(_ *http.Request, _ []*http.Request) error { return http.ErrUseLastResponse }
	address := w.origin(adaSlug) + "/"
	for range 4 {
		res, _ := b.open(address)
		for _, line := range res.Header["Set-Cookie"] {
			name, _, _ := strings.Cut(line, "=")
			seen[name] = true
			for _, want := range []string{"; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"} {
				if !strings.HasPrefix(name, "__Host-bailey-") || !strings.Contains(line, want) || strings.Contains(line, "Domain") {
					t.Errorf("cookie %q lacks %q or has a domain", line, want)
				}
			}
		}
		for _, h := range []string{"Cache-Control: no-store", "Referrer-Policy: no-referrer"} {
			name, want, _ := strings.Cut(h, ": ")
			if res.StatusCode == 303 && res.Header.Get(name) != want {
				t.Errorf("redirect from %s has %s %q, want %q", address, name, res.Header.Get(name), want)
			}
		}
		address = res.Header.Get("Location")
		if strings.HasPrefix(address, "/") {
			address = w.origin(adaSlug) + address
		}
	}
	if len(seen) != 3 {
		t.Errorf("cookies = %v, want a nonce, a path and a pass", seen)
	}
}

// Programs and pages in frames are not sent anywhere: they get 401.
func TestNoHandOffForPrograms(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	for _, headers := range [][]string{
		{"Accept: application/json"},
		{"Accept: text/html", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: empty"},
		{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Sec-Fetch-Site: cross-site"},
	} {
		res, body := w.ask("GET", w.origin(adaSlug)+"/api/contents", nil, headers...)
		if res.StatusCode != 401 || res.Header.Get("Location") != "" || len(res.Header["Set-Cookie"]) != 0 {
			t.Errorf("with %q: %d %s to %q", headers, res.StatusCode, body, res.Header.Get("Location"))
		}
	}
	if res, _ := w.ask("POST", w.origin(adaSlug)+"/api/contents", strings.NewReader("x"), "Accept: text/html"); res.StatusCode != 401 {
		t.Errorf("POST without a credential = %d, want 401", res.StatusCode)
	}
}

func TestPassDiesWithItsSession(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	ada, bob := w.pass("ada", adaSlug), w.pass("bob", bobSlug)
	get := func(slug, cookies string) int {
		t.Helper()
		res, _ := w.ask("GET", w.origin(slug)+"/api/me", nil, "Cookie: "+cookies)
		return res.StatusCode
	}
	if a, b := get(adaSlug, ada), get(bobSlug, bob); a != 200 || b != 200 {
		t.Fatalf("each with their own pass: %d, %d, want 200", a, b)
	}
	w.identity.revoke("s-ada")
	if a, b := get(adaSlug, ada), get(bobSlug, bob); a != 401 || b != 200 {
		t.Errorf("after ada's session ended: ada %d, bob %d, want 401 and 200", a, b)
	}
}

// Another's pass, or one for another workspace, opens nothing, under whatever
// name it is sent.
func TestPassIsForOneWorkspace(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	bob := w.pass("bob", bobSlug)
	value := ""
	for part := range strings.SplitSeq(bob, "; ") {
		if v, ok := strings.CutPrefix(part, "__Host-bailey-ws-"); ok {
			_, value, _ = strings.Cut(v, "=")
		}
	}
	if value == "" {
		t.Fatalf("bob has no pass among %q", bob)
	}
	adaName := ""
	for part := range strings.SplitSeq(w.pass("ada", adaSlug), "; ") {
		if strings.HasPrefix(part, "__Host-bailey-ws-") {
			adaName, _, _ = strings.Cut(part, "=")
		}
	}
	for _, cookies := range []string{bob, adaName + "=" + value, adaName + "=", adaName + "=x; " + adaName + "=y", "__Host-bailey=console-ada"} {
		if res, _ := w.ask("GET", w.origin(adaSlug)+"/api/me", nil, "Cookie: "+cookies); res.StatusCode != 401 {
			t.Errorf("ada's workspace with %q = %d, want 401", cookies, res.StatusCode)
		}
	}
}

func TestStoppedWorkspaceIsShownAndNotStarted(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	ada := w.pass("ada", adaSlug)
	w.rooms.stop(adaSlug)
	res, body := w.ask("GET", w.origin(adaSlug)+"/lab", nil, "Cookie: "+ada, "Accept: text/html")
	if res.StatusCode != 503 || !strings.Contains(body, w.origins.Console()+"/workspaces/w-"+adaSlug) || !strings.Contains(body, "is stopped") {
		t.Errorf("page of a stopped workspace = %d %s, want its state and the way to its page", res.StatusCode, body)
	}
	res, body = w.ask("GET", w.origin(adaSlug)+"/api/kernels", nil, "Cookie: "+ada)
	if res.StatusCode != 503 || res.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "is stopped") {
		t.Errorf("API of a stopped workspace = %d %s", res.StatusCode, body)
	}
	// By the console, too, and bob still learns nothing.
	if res, body = w.browser("ada").open(w.origins.Console() + "/open/" + adaSlug); res.StatusCode != 503 || !strings.Contains(body, "is stopped") {
		t.Errorf("opening a stopped workspace = %d %s", res.StatusCode, body)
	}
	if res, _ = w.browser("bob").open(w.origins.Console() + "/open/" + adaSlug); res.StatusCode != 404 {
		t.Errorf("bob opening ada's stopped workspace = %d, want 404", res.StatusCode)
	}
	w.rooms.mu.Lock()
	w.rooms.bySlug[adaSlug].route.Workspace.State = bailey.Starting
	w.rooms.mu.Unlock()
	if res, body = w.ask("GET", w.origin(adaSlug)+"/lab", nil, "Cookie: "+ada, "Accept: text/html"); res.Header.Get("Refresh") == "" || !strings.Contains(body, "is starting") {
		t.Errorf("page of a starting workspace has Refresh %q:\n%s", res.Header.Get("Refresh"), body)
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	ask := func(path string, headers ...string) (int, string) {
		t.Helper()
		res, body := w.ask("GET", w.origin(adaSlug)+path, nil, headers...)
		return res.StatusCode, body
	}
	for _, tt := range []struct {
		name, path string
		headers    []string
		want       int
	}{
		{"as Jupyter's clients send it", "/api/kernels", []string{"Authorization: token bly_ada_secret"}, 200},
		{"as others do", "/lab", []string{"Authorization: Bearer bly_ada_secret"}, 200},
		{"in other case", "/lab", []string{"Authorization: BEARER  bly_ada_secret"}, 200},
		{"in the query of an API call", "/api/kernels?token=bly_ada_secret&x=1", nil, 200},
		{"in the query, encoded", "/api/kernels?%74oken=bly%5fada%5fsecret&x=1", nil, 200},
		{"in the query of a page", "/lab?token=bly_ada_secret", nil, 401},
		{"bob's", "/api/kernels", []string{"Authorization: token bly_bob_secret"}, 404},
		{"wrong", "/api/kernels", []string{"Authorization: token bly_ada_wrong"}, 401},
		{"twice", "/api/kernels", []string{"Authorization: token bly_ada_secret", "Authorization: token bly_bob_secret"}, 422},
		{"twice in the query", "/api/kernels?token=bly_ada_secret&token=bly_bob_secret", nil, 422},
		{"the run's own", "/api/kernels", []string{"Authorization: token run-token-ada-1"}, 401},
		{"the run's own in the query", "/api/kernels?token=run-token-ada-1", nil, 401},
		{"basic", "/api/kernels", []string{"Authorization: Basic Ymx5X2FkYV9zZWNyZXQ6"}, 401},
		{"a session's cookie value", "/api/kernels", []string{"Authorization: Bearer console-ada"}, 401},
	} {
		got, body := ask(tt.path, tt.headers...)
		if got != tt.want {
			t.Errorf("token %s = %d %s, want %d", tt.name, got, body, tt.want)
		}
		if strings.Contains(body, "bly_ada") || strings.Contains(body, "bly%5f") {
			t.Errorf("token %s came back:\n%s", tt.name, body)
		}
	}
	// Among the sub-protocols, where it is taken out.
	protocols := "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org, v1.token.websocket.jupyter.org."
	if got, body := ask("/x", protocols+"bly_ada_secret"); got != 200 || strings.Contains(body, "bly_") {
		t.Errorf("token among the sub-protocols = %d %s", got, body)
	}
	if got, _ := ask("/x", protocols+"bly_bob_secret"); got != 404 {
		t.Errorf("bob's token among the sub-protocols = %d, want 404", got)
	}
	if _, body := ask("/api/kernels?token=bly_ada_secret&x=1&token=mine"); !strings.HasPrefix(body, "GET /api/kernels?x=1&token=mine\n") {
		t.Errorf("the workspace saw %.60q, want the query without our token", body)
	}
	// A bad token is not made good by a cookie.
	if got, _ := ask("/api/kernels", "Authorization: token bly_ada_wrong", "Cookie: "+w.pass("ada", adaSlug)); got != 401 {
		t.Errorf("a bad token with a good cookie = %d, want 401", got)
	}
	if strings.Contains(w.log.String(), "bly_") {
		t.Errorf("a token is in the log:\n%s", w.log.String())
	}
}

func TestOpenPath(t *testing.T) {
	hash := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	for _, tt := range []struct {
		slug, n, want string
	}{
		{"ada-1f00", "", "/open/ada-1f00"},
		{"ada-1f00", hash, "/open/ada-1f00?n=" + hash},
		{"", hash, ""},
		{"Ada", "", ""},
		{"a/b", "", ""},
		{"..", "", ""},
		{"a?b", "", ""},
		{"//evil", "", ""},
		{"a\\b", "", ""},
		{"ada-1f00", hash[:42], ""},
		{"ada-1f00", hash + "=", ""},
		{"ada-1f00", hash[:42] + "&", ""},
		{"ada-1f00", hash[:42] + "F", ""},
	} {
		got, ok := gateway.OpenPath(tt.slug, tt.n)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("OpenPath(%q, %q) = %q, %v, want %q", tt.slug, tt.n, got, ok, tt.want)
		}
	}
}

// FuzzOpenPath: what it lets through is one path on the console, and nothing else.
func FuzzOpenPath(f *testing.F) {
	f.Add("ada-1f00", "")
	f.Add("a//b", "x")
	f.Add("a", strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, slug, n string) {
		path, ok := gateway.OpenPath(slug, n)
		if !ok {
			return
		}
		u, err := url.Parse(edge.ConsoleCookie + path)
		base, _ := url.Parse("https://localhost:8443/signin")
		if err != nil || base.ResolveReference(&url.URL{Path: u.Path}).Host != "localhost:8443" {
			t.Fatalf("OpenPath(%q, %q) = %q", slug, n, path)
		}
		r, err := base.Parse(path)
		if err != nil || r.Host != "localhost:8443" || r.Path != "/open/"+slug || r.Query().Get("n") != n || len(r.Query()) > 1 {
			t.Errorf("OpenPath(%q, %q) = %q, read as %v, %v", slug, n, path, r, err)
		}
	})
}

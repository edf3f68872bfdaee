package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
)

// newShared is a world of mode path: ada and bob have workspaces on one origin,
// and ada has two.
func newShared(t *testing.T, h http.Handler) *world {
	t.Helper()
	w := newWorldAt(t, h, nil, func(port int) edge.OriginConfig {
		return edge.OriginConfig{Mode: "path", Host: "localhost", Port: port}
	})
	w.rooms.start("ada-2222", w.ada, h)
	for _, slug := range []string{adaSlug, bobSlug, "ada-2222"} {
		w.rooms.change(slug, func(r *gateway.Route) { r.BasePath = "/w/" + slug + "/" })
	}
	return w
}

func TestPathModeHandsOverAsTheOthersDo(t *testing.T) {
	w := newShared(t, http.HandlerFunc(mirror))
	b := w.browser("ada")
	res, body := b.open(w.origin(adaSlug) + "/lab/tree/a%2Fb.ipynb?reset=1")
	if res.StatusCode != 200 || res.Request.URL.String() != w.origin(adaSlug)+"/lab/tree/a%2Fb.ipynb?reset=1" {
		t.Fatalf("ada ends at %s with %d %s", res.Request.URL, res.StatusCode, body)
	}
	// Jupyter serves below the same path, and is told nothing of ours.
	if !strings.HasPrefix(body, "GET /w/ada-1f00/lab/tree/a%2Fb.ipynb?reset=1\n") || strings.Contains(body, "bailey") {
		t.Errorf("the workspace saw\n%s", body)
	}
	// Without the slash at its end it is the same place.
	if res, _ = b.open(w.origin(adaSlug)); res.StatusCode != 200 || res.Request.URL.Path != "/w/ada-1f00/" {
		t.Errorf("without a slash ada ends at %s with %d", res.Request.URL, res.StatusCode)
	}
	// To bob it does not exist; nor is there anything for nobody.
	if res, body = w.browser("bob").open(w.origin(adaSlug) + "/lab"); res.StatusCode != 404 {
		t.Errorf("bob at ada's: %d %s", res.StatusCode, body)
	}
	if res, _ = w.browser("").open(w.origin(adaSlug) + "/lab"); !strings.HasPrefix(res.Request.URL.String(), w.origins.Console()+"/signin") {
		t.Errorf("nobody ends at %s", res.Request.URL)
	}
	// A token works as everywhere, and bob's does not.
	if res, body = w.ask("GET", w.origin(adaSlug)+"/api/status", nil, "Authorization: token bly_ada_secret"); res.StatusCode != 200 || !strings.HasPrefix(body, "GET /w/ada-1f00/api/status\n") {
		t.Errorf("ada's token: %d %s", res.StatusCode, body)
	}
	if res, _ = w.ask("GET", w.origin(adaSlug)+"/api/status", nil, "Authorization: token bly_bob_secret"); res.StatusCode != 404 {
		t.Errorf("bob's token at ada's: %d", res.StatusCode)
	}
}

// Each workspace's pass has its own path and name, and is worth nothing beside
// another session: what somebody planted makes nobody work as them.
func TestPathModePassesAreApart(t *testing.T) {
	w := newShared(t, http.HandlerFunc(mirror))
	ada, bob := w.browser("ada"), w.browser("bob")
	ada.open(w.origin(adaSlug) + "/")
	ada.open(w.origin("ada-2222") + "/")
	bob.open(w.origin(bobSlug) + "/")
	first, second := ada.cookies(w.origin(adaSlug)+"/"), ada.cookies(w.origin("ada-2222")+"/")
	for what, cookies := range map[string]string{"first": first, "second": second} {
		if strings.Count(cookies, "__Http-bailey-ws-") != 1 {
			t.Errorf("cookies sent to the %s = %q, want one pass", what, cookies)
		}
	}
	console := strings.Join([]string{"__Host-Http-bailey=console-ada"}, "; ")
	if c := ada.cookies(w.origins.Console() + "/workspaces"); strings.Contains(c, "-ws-") || !strings.Contains(c, console) {
		t.Errorf("cookies sent to the console = %q, want no pass", c)
	}
	get := func(slug, cookies string) int {
		res, _ := w.ask("GET", w.origin(slug)+"/api/contents", nil, "Cookie: "+cookies, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty")
		return res.StatusCode
	}
	pass := func(cookies string) string {
		for part := range strings.SplitSeq(cookies, "; ") {
			if strings.HasPrefix(part, "__Http-bailey-ws-") {
				return part
			}
		}
		t.Fatalf("no pass in %q", cookies)
		return ""
	}
	bobs := bob.cookies(w.origin(bobSlug) + "/")
	for _, tt := range []struct {
		what, slug, cookies string
		want                int
	}{
		{"ada with all of hers", adaSlug, first, 200},
		{"her pass for the second at the first", adaSlug, second, 401},
		{"her pass without a session", adaSlug, pass(first), 401},
		{"a session without a pass", adaSlug, console, 401},
		{"her pass beside bob's session", adaSlug, pass(first) + "; __Host-Http-bailey=console-bob", 401},
		{"bob's pass, planted beside hers", bobSlug, pass(bobs) + "; " + console, 401},
		{"bob with all of his", bobSlug, bobs, 200},
		{"two passes of one name", adaSlug, first + "; " + pass(first), 401},
	} {
		if got := get(tt.slug, tt.cookies); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.what, got, tt.want)
		}
	}
}

// What a workspace answers is confined, whatever it says of itself.
func TestPathModeConfinesAnswers(t *testing.T) {
	w := newShared(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		for _, c := range []string{
			"theme=dark", "wide=1; Path=/", "other=1; Path=/w/bob-2e11/", "own=1; Path=/w/ada-1f00/lab", "twice=1; Path=/w/ada-1f00/lab; path=/", "near=1; Path=/w/ada-1f00x/",
			"__Host-bailey=evil; Path=/; Secure", "__Host-Http-bailey=evil; Path=/; Secure", "__HTTP-bailey-ws-1=evil", "__Host-http-bailey-form=evil", "=__Http-bailey=evil",
			"d=1; Domain=localhost",
		} {
			h.Add("Set-Cookie", c)
		}
		h.Set("Service-Worker-Allowed", "/")
		h.Set("Content-Security-Policy", "default-src 'self'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "publickey-credentials-get=*")
		h.Set("Clear-Site-Data", `"cookies"`)
		switch r.URL.Path {
		case "/w/ada-1f00/away":
			h.Set("Location", "http://127.0.0.1:8888/w/ada-1f00/lab")
			rw.WriteHeader(302)
		}
		_, _ = fmt.Fprint(rw, "hello")
	}))
	cookies := w.pass("ada", adaSlug)
	res, _ := w.ask("GET", w.origin(adaSlug)+"/", nil, "Cookie: "+cookies, "Sec-Fetch-Site: same-origin")
	var got []string
	for _, line := range res.Header["Set-Cookie"] {
		_, rest, _ := strings.Cut(line, "-")
		got = append(got, rest)
		if !strings.HasPrefix(line, "ws") {
			t.Errorf("cookie %q lacks the workspace's prefix", line)
		}
	}
	want := "theme=dark; Secure; Path=/w/ada-1f00/|wide=1; Secure; Path=/w/ada-1f00/|other=1; Secure; Path=/w/ada-1f00/|own=1; Secure; Path=/w/ada-1f00/lab|" +
		"twice=1; Secure; Path=/w/ada-1f00/|near=1; Secure; Path=/w/ada-1f00/|d=1; Secure; Path=/w/ada-1f00/"
	if strings.Join(got, "|") != want {
		t.Errorf("cookies\n%q\nwant\n%q", strings.Join(got, "|"), want)
	}
	csp := strings.Join(res.Header["Content-Security-Policy"], ", ")
	if !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "sandbox allow-same-origin allow-scripts") || strings.Contains(csp, "allow-popups") || strings.Contains(csp, "allow-top") || !strings.Contains(csp, "frame-ancestors 'self'") {
		t.Errorf("Content-Security-Policy %q", csp)
	}
	pp := res.Header["Permissions-Policy"]
	if len(pp) == 0 || pp[len(pp)-1] != "publickey-credentials-get=(), publickey-credentials-create=()" {
		t.Errorf("Permissions-Policy %q", pp)
	}
	for name, want := range map[string]string{"Service-Worker-Allowed": "", "Cross-Origin-Opener-Policy": "unsafe-none", "Clear-Site-Data": ""} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	if res, _ = w.ask("GET", w.origin(adaSlug)+"/away", nil, "Cookie: "+cookies, "Sec-Fetch-Site: same-origin"); res.Header.Get("Location") != w.origin(adaSlug)+"/lab" {
		t.Errorf("Location %q", res.Header.Get("Location"))
	}
	if res, _ = w.ask("GET", w.origin(adaSlug)+"/sw.js", nil, "Cookie: "+cookies, "Sec-Fetch-Site: same-origin", "Service-Worker: script"); res.StatusCode != 403 {
		t.Errorf("a service worker's script: %d, want 403", res.StatusCode)
	}
	if n := w.rooms.bySlug[adaSlug].dials.Load(); n == 0 {
		t.Error("nothing reached the workspace")
	}
}

// A workspace that was started before the mode was changed serves another path.
func TestAWorkspaceOfAnotherModeSaysSo(t *testing.T) {
	w := newShared(t, http.HandlerFunc(mirror))
	w.rooms.change(adaSlug, func(r *gateway.Route) { r.BasePath = "/" })
	res, body := w.ask("GET", w.origin(adaSlug)+"/api/status", nil, "Authorization: token bly_ada_secret")
	if res.StatusCode != 503 || !strings.Contains(body, "stop it and start it again") {
		t.Errorf("a workspace of another mode: %d %s", res.StatusCode, body)
	}
	if res, _ = w.ask("GET", w.origin("ada-2222")+"/api/status", nil, "Authorization: token bly_ada_secret"); res.StatusCode != 200 {
		t.Errorf("one of this mode: %d", res.StatusCode)
	}
}

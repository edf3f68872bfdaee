package console_test

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/api"
	"github.com/baileyhq/bailey/internal/app/apptest"
	"github.com/baileyhq/bailey/internal/console"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/jupyterhub"
)

// A site is a whole server: console, API and gateway, each on its origin.
type site struct {
	*apptest.World

	t       *testing.T
	console *console.Console
	client  *http.Client
}

func open(t *testing.T) *site { t.Helper(); return serve(t, apptest.New(t)) }

// openEmpty is [open] before set-up.
func openEmpty(t *testing.T) *site { t.Helper(); return serve(t, apptest.NewEmpty(t)) }

func serve(t *testing.T, w *apptest.World, changes ...func(*console.Config)) *site {
	t.Helper()
	gw, err := gateway.New(gateway.Config{
		Workspaces: gateway.From(w.Workspaces), Identity: w.Identity, Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := jupyterhub.New(jupyterhub.Config{Identity: w.Identity, Workspaces: w.Workspaces, Log: w.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := console.Config{
		Hub: hub, Alias: gw.Alias(hub.Resolve), // as the server has them: their patterns share the pages' mux
		Identity: w.Identity, Workspaces: w.Workspaces, Egress: w.Egress, Images: w.Images, Rules: w.Rules, Vault: w.Vault, SSH: w.SSH, Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
		Open: gw.OpenHandler(),
		API: api.New(api.Config{
			Identity: w.Identity, Workspaces: w.Workspaces, Egress: w.Egress, Images: w.Images, Vault: w.Vault, SSH: w.SSH, Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
		}),
	}
	for _, change := range changes {
		change(&cfg)
	}
	c, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, isConsole, ok := w.Origins.Match(r); ok && isConsole {
			c.ServeHTTP(rw, r)
			return
		}
		gw.ServeHTTP(rw, r)
	}))
	return &site{World: w, t: t, console: c, client: w.Client()}
}

// A browser is somebody's, with JavaScript off. It keeps the console's cookie
// and looks at every page it gets for what no page of ours may have.
type browser struct {
	*site

	session string            // the console's cookie; empty: none
	others  map[string]string // of an unfinished sign-in, and by which it is known
}

// nobody's browser is not signed in.
const nobody = ""

// browse returns somebody's browser, signed in.
func (s *site) browse(name string) *browser {
	s.t.Helper()
	b := &browser{site: s}
	if name != nobody {
		b.session = s.Session(name)
	}
	return b
}

// A page is what a browser got.
type page struct {
	status int
	header http.Header
	body   string
}

func (p page) location() string { return p.header.Get("Location") }

// text is the page without tags, as a person reads it.
func (p page) text() string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(p.body, " "))), " ")
}

var tags = regexp.MustCompile(`<[^>]*>`)

// get opens a page by its address.
func (b *browser) get(path string, headers ...string) page {
	b.t.Helper()
	return b.send(http.MethodGet, path, nil, append([]string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Accept", "text/html"}, headers...)...)
}

// post sends a form from a page of the console.
func (b *browser) post(path string, pairs ...string) page {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return b.send(http.MethodPost, path, form, "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Accept", "text/html", "Origin", b.URL)
}

// send sends a request and looks at the answer.
func (b *browser) send(method, path string, form url.Values, headers ...string) page {
	b.t.Helper()
	var body io.Reader = http.NoBody
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return b.do(req)
}

func (b *browser) do(req *http.Request) page {
	b.t.Helper()
	p := b.raw(req)
	look(b.t, req.Method+" "+req.URL.Path, p)
	return p
}

// raw sends a request and does not look at the answer, which may be no page of
// the console's.
func (b *browser) raw(req *http.Request) page {
	b.t.Helper()
	if b.session != "" {
		req.AddCookie(&http.Cookie{Name: edge.ConsoleCookie, Value: b.session})
	}
	for name, value := range b.others {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: read: %v", req.Method, req.URL, err)
	}
	p := page{resp.StatusCode, resp.Header, string(raw)}
	for _, c := range resp.Cookies() {
		if c.Name == edge.ConsoleCookie {
			b.session = c.Value
			continue
		}
		if c.Name != "__Host-bailey-step" && c.Name != "__Host-bailey-known" {
			continue
		}
		if b.others == nil {
			b.others = map[string]string{}
		}
		b.others[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b.others, c.Name)
		}
	}
	return p
}

// The nonce of a page, and what stands in tags.
var (
	nonceRE  = regexp.MustCompile(`script-src 'self' 'nonce-([0-9a-f]{32})'`)
	scriptRE = regexp.MustCompile(`(?s)<script([^>]*)>(.*?)</script>`)
	eventRE  = regexp.MustCompile(`(?i)<[^>]*\s(on[a-z]+|style)\s*=`)
	valueRE  = regexp.MustCompile(`"[^"]*"`)
	linkRE   = regexp.MustCompile(`(?i)\s(?:href|src|action|formaction)\s*=\s*"([^"]*)"`)
)

// look fails the test when an answer of the console's origin has what none may
// have, or lacks what each must have.
func look(t *testing.T, what string, p page) {
	t.Helper()
	csp := p.header.Get("Content-Security-Policy")
	nonce := nonceRE.FindStringSubmatch(csp)
	for _, part := range []string{"default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"} {
		if nonce == nil || !strings.Contains(csp, part) {
			t.Errorf("%s: Content-Security-Policy %q, want %s and a nonce", what, csp, part)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http:") {
		t.Errorf("%s: Content-Security-Policy %q is too wide", what, csp)
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := p.header.Get(name); got != want && name+" "+got != "Referrer-Policy no-referrer" {
			t.Errorf("%s: %s %q, want %q", what, name, got, want)
		}
	}
	for _, line := range p.header["Set-Cookie"] {
		for _, part := range []string{"__Host-", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"} {
			if !strings.Contains(line, part) || strings.Contains(line, "Domain") {
				t.Errorf("%s: cookie %q lacks %s, or has a domain", what, line, part)
			}
		}
	}
	if kind := p.header.Get("Content-Type"); p.body != "" && kind != "text/html; charset=utf-8" {
		t.Errorf("%s: Content-Type %q", what, kind)
	}
	if p.status/100 != 3 && p.body != "" && (!strings.HasPrefix(p.body, "<!doctype html>") || !strings.HasSuffix(strings.TrimSpace(p.body), "</html>")) {
		t.Errorf("%s: half a page: %.80q … %q", what, p.body, p.body[max(0, len(p.body)-40):])
	}
	for _, script := range scriptRE.FindAllStringSubmatch(p.body, -1) {
		if nonce == nil || !strings.Contains(script[1], `nonce="`+nonce[1]+`"`) || !strings.Contains(script[1], `src="/static/`) || strings.TrimSpace(script[2]) != "" {
			t.Errorf("%s: a script that is not from a file of ours with the nonce: %s", what, script[0])
		}
	}
	if strings.Count(p.body, "<script") != len(scriptRE.FindAllString(p.body, -1)) || strings.Contains(p.body, "<style") || strings.Contains(p.body, "<iframe") {
		t.Errorf("%s: a script, style or frame of another kind: %s", what, p.body)
	}
	if found := eventRE.FindString(valueRE.ReplaceAllString(p.body, `""`)); found != "" {
		t.Errorf("%s: an inline handler or style: %s", what, found)
	}
	for _, link := range linkRE.FindAllStringSubmatch(p.body, -1) {
		to := html.UnescapeString(link[1])
		if u, err := url.Parse(to); err != nil || u.Host != "" && (u.Scheme != "https" || !strings.HasSuffix(u.Hostname(), ".localhost")) || u.Host == "" && !strings.HasPrefix(to, "/") && to != "#main" {
			t.Errorf("%s: a link that leads elsewhere: %q", what, to)
		}
	}
	for _, inside := range []string{"goroutine ", ".go:", "sql:", "<no value>", "%!", "ZgotmplZ"} {
		if strings.Contains(p.body, inside) {
			t.Errorf("%s: the page shows our insides (%q): %s", what, inside, p.body)
		}
	}
}

// A form is one on a page, as a browser without JavaScript sees it.
type form struct {
	action string
	fields url.Values // with the values that it comes with
}

var (
	formRE  = regexp.MustCompile(`(?s)<form([^>]*)>(.*?)</form>`)
	inputRE = regexp.MustCompile(`(?s)<(input|select)\b([^>]*)>`)
	attrRE  = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
)

// forms returns the forms of a page.
func (p page) forms() []form {
	var out []form
	for _, m := range formRE.FindAllStringSubmatch(p.body, -1) {
		f := form{action: attrs(m[1])["action"], fields: url.Values{}}
		for _, in := range inputRE.FindAllStringSubmatch(m[2], -1) {
			a := attrs(in[2])
			if a["type"] == "radio" && !regexp.MustCompile(`\bchecked\b`).MatchString(in[2]) {
				continue
			}
			f.fields.Set(a["name"], a["value"])
		}
		out = append(out, f)
	}
	return out
}

func attrs(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range attrRE.FindAllStringSubmatch(tag, -1) {
		out[m[1]] = html.UnescapeString(m[2])
	}
	return out
}

// submit fills the form that leads to action in on a page and sends it.
func (b *browser) submit(p page, action string, pairs ...string) page {
	b.t.Helper()
	forms := p.forms()
	i := slices.IndexFunc(forms, func(f form) bool { // of several, the one with these fields
		for i := 0; i < len(pairs); i += 2 {
			if !f.fields.Has(pairs[i]) {
				return false
			}
		}
		return f.action == action
	})
	if i < 0 {
		b.t.Fatalf("no form with %q leads to %s; there are %+v on %s", pairs, action, forms, p.text())
	}
	f := forms[i]
	for i := 0; i < len(pairs); i += 2 {
		f.fields.Set(pairs[i], pairs[i+1])
	}
	var sent []string
	for name, values := range f.fields {
		sent = append(sent, name, values[0])
	}
	return b.post(action, sent...)
}

// wantStatus fails the test unless the page has the status and says the words.
func (p page) wantStatus(t *testing.T, status int, words ...string) {
	t.Helper()
	if p.status != status {
		t.Errorf("status %d (to %q), want %d: %s", p.status, p.location(), status, p.text())
	}
	for _, word := range words {
		if !strings.Contains(p.text(), word) {
			t.Errorf("the page does not say %q: %s", word, p.text())
		}
	}
}

// wantRedirect fails the test unless the answer leads there.
func (p page) wantRedirect(t *testing.T, to string) {
	t.Helper()
	if p.status != http.StatusSeeOther || p.location() != to {
		t.Errorf("status %d to %q, want 303 to %q: %s", p.status, p.location(), to, p.text())
	}
}

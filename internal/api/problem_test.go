package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/api"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
)

// Whatever does not fit is refused in the one form, says where and why, and
// repeats no value: it may be a password.
func TestRequestsThatDoNotFit(t *testing.T) {
	d := open(t)
	const hush = "correct-horse-4711"
	for _, tt := range []struct {
		name         string
		method, path string
		body         string
		headers      []string
		status       int
		where        string // location of the field that does not fit
		says         string
	}{
		{name: "no body", method: "POST", path: "/workspaces", status: 400, says: "missing"},
		{name: "no JSON", method: "POST", path: "/users", body: `{"name":"x","password":"` + hush + `"`, status: 400, where: "body"},
		{name: "JSON and more", method: "POST", path: "/workspaces", body: `{"name":"x"} {"name":"y"}`, status: 400, where: "body"},
		{name: "a list", method: "POST", path: "/workspaces", body: `["x"]`, status: 422, where: "body", says: "object"},
		{name: "unknown field", method: "POST", path: "/workspaces", body: `{"name":"x","privileged":true}`, status: 422, where: "body.privileged", says: "unexpected"},
		{name: "wrong type", method: "POST", path: "/users", body: `{"name":"x","password":{"is":"` + hush + `"}}`, status: 422, where: "body.password", says: "string"},
		{name: "missing field", method: "POST", path: "/users", body: `{"password":"` + hush + `"}`, status: 422, where: "body", says: "name"},
		{name: "too long a password", method: "POST", path: "/users", body: `{"name":"x","password":"` + hush + strings.Repeat("x", 5000) + `"}`, status: 422, where: "body.password", says: "4096"},
		{name: "no such role", method: "POST", path: "/users", body: `{"name":"x","password":"` + hush + `","role":"root"}`, status: 422, where: "body.role", says: "auditor"},
		{name: "a number that Go reads otherwise", method: "POST", path: "/me/tokens", body: `{"note":"x","days":1e1}`, status: 422, where: "body", says: "kind"},
		{name: "a number too large", method: "POST", path: "/me/tokens", body: `{"note":"x","days":1e300}`, status: 422, where: "body.days"},
		{name: "negative days", method: "POST", path: "/me/tokens", body: `{"note":"x","days":-1}`, status: 422, where: "body.days"},
		{name: "a form", method: "POST", path: "/workspaces", body: "name=x", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415, where: "body"},
		{name: "text, as a no-cors fetch sends it", method: "POST", path: "/workspaces", body: `{"name":"x"}`, headers: []string{"Content-Type", "text/plain"}, status: 415, where: "body"},
		{name: "too large", method: "POST", path: "/workspaces", body: `{"name":"` + strings.Repeat("x", 70<<10) + `"}`, status: 413, says: "65536 bytes"},
		{name: "unknown query parameter", method: "GET", path: "/workspaces?everybody=true", status: 422, where: "query.everybody", says: "unknown"},
		{name: "wrong type in the query", method: "GET", path: "/workspaces?all=maybe", status: 422, where: "query.all", says: "boolean"},
		{name: "out of range", method: "GET", path: "/audit?limit=10001", status: 422, where: "query.limit", says: "10000"},
		{name: "no time", method: "GET", path: "/audit?since=yesterday", status: 422, where: "query.since"},
		{name: "negative seq", method: "GET", path: "/workspaces/lab/stages?after=-1", status: 422, where: "query.after"},
		{name: "Last-Event-ID of another server", method: "GET", path: "/workspaces/lab/events", headers: []string{"Last-Event-ID", "abc"}, status: 422, where: "header.Last-Event-ID"},
		{name: "confirm is missing", method: "DELETE", path: "/volumes/x", status: 422, where: "query.confirm", says: "required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := d.request(tt.method, "/api/v1"+tt.path, tt.body, "Authorization", "Bearer "+d.token(Admin))
			for i := 0; i < len(tt.headers); i += 2 {
				req.Header.Set(tt.headers[i], tt.headers[i+1])
			}
			got := d.send(req)
			p := got.problem(t, tt.status, "invalid")
			if p.Hint == "" && tt.status != http.StatusRequestEntityTooLarge {
				t.Errorf("no hint: %s", got.body)
			}
			if tt.where != "" && !slices.ContainsFunc(p.Errors, func(f api.FieldProblem) bool { return f.Location == tt.where }) {
				t.Errorf("no word about %s: %s", tt.where, got.body)
			}
			if !strings.Contains(got.body, tt.says) {
				t.Errorf("%s does not say %q", got.body, tt.says)
			}
			if strings.Contains(got.body, hush) || strings.Contains(d.Log.String(), hush) {
				t.Errorf("the password is repeated: %s", got.body)
			}
		})
	}
}

// A body may have every byte that is allowed, and a flood of wrong fields is
// answered with a few.
func TestBodyLimits(t *testing.T) {
	d := open(t)
	body := `{"note":"fits"}`
	body += strings.Repeat(" ", 64<<10-len(body))
	if got := d.as(Alice, http.MethodPost, "/api/v1/me/tokens", body); got.status != http.StatusOK {
		t.Errorf("64 KiB: %d %s", got.status, got.body)
	}
	d.as(Alice, http.MethodPost, "/api/v1/me/tokens", body+" ").problem(t, http.StatusRequestEntityTooLarge, "invalid")

	var fields []string
	for i := range 500 {
		fields = append(fields, `"`+strings.Repeat("f", 1+i/8)+strings.Repeat("g", 1+i%8)+`":1`)
	}
	got := d.as(Alice, http.MethodPost, "/api/v1/me/tokens", `{"note":"x",`+strings.Join(fields, ",")+`}`)
	if p := got.problem(t, http.StatusUnprocessableEntity, "invalid"); len(p.Errors) != 16 || len(got.body) > 8<<10 {
		t.Errorf("%d fields in %d bytes, want 16 and little", len(p.Errors), len(got.body))
	}
}

// Unknown paths and methods get the one form too, before and after sign-in.
func TestUnknownPathsAndMethods(t *testing.T) {
	d := open(t)
	for _, who := range []string{nobody, Alice} {
		for _, path := range []string{"/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/nosuch", "/api/v2/me", "/api/v1/me/", "/api/openapi.yaml", "/api/v1/%3Cscript%3E"} {
			got := d.as(who, http.MethodGet, path, "")
			p := got.problem(t, http.StatusNotFound, "not_found")
			if !strings.Contains(p.Hint, "/api/openapi.json") || strings.Contains(got.body, "script") {
				t.Errorf("%s: %s", path, got.body)
			}
		}
		for _, tt := range []struct{ method, path, allow string }{
			{"PUT", "/api/v1/me", "GET"},
			{"POST", "/api/v1/info", "GET"},
			{"PATCH", "/api/v1/workspaces", "GET, POST"},
			{"GET", "/api/v1/users/alice", "DELETE, PATCH"},
			{"OPTIONS", "/api/v1/workspaces", "GET, POST"},
			{"BREW", "/api/v1/me", "GET"},
		} {
			got := d.as(who, tt.method, tt.path, "")
			got.problem(t, http.StatusMethodNotAllowed, "invalid")
			if allow := got.header.Get("Allow"); allow != tt.allow {
				t.Errorf("%s %s: Allow %q, want %q", tt.method, tt.path, allow, tt.allow)
			}
			for name := range got.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s: %s in the answer; no other origin is welcome", tt.method, tt.path, name)
				}
			}
		}
	}
	// HEAD is GET without a body.
	if got := d.as(Alice, http.MethodHead, "/api/v1/me", ""); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD: %d %q", got.status, got.body)
	}
}

// What is our own fault reads "internal error" outside; the cause is in the
// log, under the id that the reader was given.
func TestInternalErrors(t *testing.T) {
	d := open(t)
	token := d.token(Alice)
	ask := func(path string) answer {
		return d.send(d.request(http.MethodGet, path, "", "Authorization", "Bearer "+token))
	}
	if got := ask("/api/v1/workspaces"); got.status != http.StatusOK {
		t.Fatalf("before: %d %s", got.status, got.body)
	}
	if err := d.Store.Close(); err != nil {
		t.Fatal(err)
	}
	got := ask("/api/v1/workspaces")
	p := got.problem(t, http.StatusInternalServerError, "internal")
	if p.Detail != "internal error" || !strings.Contains(p.Hint, "request id") {
		t.Errorf("the stranger reads %s", got.body)
	}
	if !d.Log.Contains("level=ERROR", `msg="request failed"`, p.RequestID, "database is closed") {
		t.Errorf("the log has no cause under %s", p.RequestID)
	}
	// A cookie that cannot be looked up is not a cookie that means nothing:
	// the browser must not be told that it is signed out.
	d.withCookie(strings.Repeat("a", 43), http.MethodGet, "/api/v1/me", "").problem(t, http.StatusInternalServerError, "internal")
}

// An engine that does not answer is said to be so, and when to come back.
func TestUnavailable(t *testing.T) {
	d := open(t)
	d.Engine.SetDown(true)
	got := d.as(Admin, http.MethodGet, "/api/v1/orphans", "")
	got.problem(t, http.StatusServiceUnavailable, "unavailable")
	if wait := got.header.Get("Retry-After"); wait != "5" {
		t.Errorf("Retry-After %q, want 5", wait)
	}
	d.Engine.SetDown(false)
	if got := d.as(Admin, http.MethodGet, "/api/v1/orphans", ""); got.status != http.StatusOK {
		t.Errorf("when it is back: %d %s", got.status, got.body)
	}
}

// Names that try to be something else are refused, and come back in no form
// that a page or a terminal would act on.
func TestNamesThatAttack(t *testing.T) {
	d := open(t)
	for _, name := range []string{
		"../../etc/passwd", "a/b", `a\b`, "<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`,
		"a\x00b", "\x1b]0;owned\x07", "\x1b[2J", "a\r\nSet-Cookie: x=y", "\u202egnirts", "\uff41lice", "alice ", " alice", "Alice",
		"-rf", "a--b", "alice.bob", "{{.}}", "$(id)", "a'b;drop table users", strings.Repeat("a", 31),
	} {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range []struct{ path, body string }{
			{"/api/v1/workspaces", `{"class":"small","name":` + string(quoted) + `}`},
			{"/api/v1/workspaces", `{"class":` + string(quoted) + `}`},
			{"/api/v1/users", `{"password":"seven orange bridges","name":` + string(quoted) + `}`},
			{"/api/v1/users", `{"password":"seven orange bridges","name":"dora","groups":[` + string(quoted) + `]}`},
		} {
			got := d.as(Admin, http.MethodPost, op.path, op.body)
			if got.status != http.StatusUnprocessableEntity {
				t.Errorf("%s %s: %d %s, want 422", op.path, op.body, got.status, got.body)
			}
			if i := bytes.IndexAny([]byte(got.body), "<>\x00\x07\x1b\r"); i >= 0 || strings.Contains(got.body, "\u202e") {
				t.Errorf("%s %s: the answer has it raw: %q", op.path, op.body, got.body)
			}
		}
	}
	if log := d.Log.String(); strings.ContainsAny(log, "\x00\x07\x1b\r") {
		t.Errorf("the log has it raw: %q", log)
	}
	// Grammar is all that stands between; a name within it works.
	if got := d.as(Admin, http.MethodPost, "/api/v1/users", `{"password":"seven orange bridges","name":"dora-2"}`); got.status != http.StatusCreated {
		t.Errorf("dora-2: %d %s", got.status, got.body)
	}
}

// Every answer, good or not, is of no use as a page, a script or a picture, and
// is kept nowhere.
func TestHeadersOfEveryAnswer(t *testing.T) {
	d := open(t)
	for _, path := range []string{"/api/v1/info", "/api/v1/me", "/api/v1/nosuch", "/api/openapi.json", "/api/v1/workspaces?x=y"} {
		for _, who := range []string{nobody, Alice} {
			got := d.as(who, http.MethodGet, path, "")
			for name, want := range map[string]string{
				"X-Content-Type-Options":       "nosniff",
				"Cache-Control":                "no-store",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'; sandbox",
			} {
				if got := got.header.Get(name); got != want {
					t.Errorf("%s for %q: %s %q, want %q", path, who, name, got, want)
				}
			}
			if len(got.header["Set-Cookie"]) != 0 || strings.Contains(got.header.Get("Content-Type"), "html") {
				t.Errorf("%s for %q: %v", path, who, got.header)
			}
		}
	}
	// Not even for a browser that would like one.
	got := d.send(d.request(http.MethodGet, "/api/v1/me", "", "Accept", "text/html", "Sec-Fetch-Mode", "navigate"))
	got.problem(t, http.StatusUnauthorized, "unauthenticated")
}

// The served document is the committed one, for everybody, and describes every
// failure.
func TestServedDocument(t *testing.T) {
	d := open(t)
	got := d.as(nobody, http.MethodGet, "/api/openapi.json", "")
	want, err := api.New(api.Config{}).Document()
	if err != nil || got.status != http.StatusOK || got.body != string(want) || got.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("document: %v, %d %s, %d bytes, want %d", err, got.status, got.header.Get("Content-Type"), len(got.body), len(want))
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					} `json:"schema"`
				} `json:"content"`
			} `json:"responses"`
			Security []map[string][]string `json:"security"`
		} `json:"paths"`
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(want, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if ref := op.Responses["default"].Content["application/problem+json"].Schema.Ref; ref != "#/components/schemas/Problem" {
				t.Errorf("%s %s: failures are %q, want Problem", method, path, ref)
			}
			public := path == "/api/v1/info" || path == "/api/v1/tokens/signin"
			if op.Security == nil || public != (len(op.Security) == 0) {
				t.Errorf("%s %s: security %v, want some: %v", method, path, op.Security, !public)
			}
		}
	}
	if doc.Components.Schemas["ErrorModel"] != nil || doc.Components.Schemas["Problem"] == nil {
		t.Errorf("the document describes %d forms, among them huma's own failure", len(doc.Components.Schemas))
	}
}

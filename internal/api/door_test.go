package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/api"
	"github.com/baileyhq/bailey/internal/app/apptest"
	"github.com/baileyhq/bailey/internal/edge"
)

// A door is the API of a whole server, and a way to knock on it.
type door struct {
	*apptest.World

	t      *testing.T
	client *http.Client
	tokens map[string]string
}

func open(t *testing.T) *door {
	t.Helper()
	w := apptest.New(t)
	w.Serve(api.New(api.Config{
		Identity: w.Identity, Workspaces: w.Workspaces, Vault: w.Vault, Rules: w.Rules, Egress: w.Egress, Images: w.Images, Bans: w.Bans, SSH: w.SSH, Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
	}))
	return &door{World: w, t: t, client: w.Client(), tokens: map[string]string{}}
}

// nobody knocks without a credential.
const nobody = ""

// token returns somebody's API token, always the same.
func (d *door) token(name string) string {
	d.t.Helper()
	if d.tokens[name] == "" {
		d.tokens[name], _ = d.Token(name)
	}
	return d.tokens[name]
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// request makes a request; headers come in pairs.
func (d *door) request(method, path, body string, headers ...string) *http.Request {
	d.t.Helper()
	var r io.Reader = http.NoBody
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.URL+path, r)
	if err != nil {
		d.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return req
}

// send sends a request and reads the answer.
func (d *door) send(req *http.Request) answer {
	d.t.Helper()
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: read: %v", req.Method, req.URL, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// as knocks with somebody's token.
func (d *door) as(name, method, path, body string, headers ...string) answer {
	d.t.Helper()
	if name != nobody {
		headers = append(headers, "Authorization", "Bearer "+d.token(name))
	}
	return d.send(d.request(method, path, body, headers...))
}

// withCookie knocks with a session cookie.
func (d *door) withCookie(session, method, path, body string, headers ...string) answer {
	d.t.Helper()
	return d.send(d.request(method, path, body, append(headers, "Cookie", edge.ConsoleCookie+"="+session)...))
}

// problem reads a refusal, and fails the test unless it has the one form that
// all refusals have.
func (a answer) problem(t *testing.T, status int, code string) api.Problem {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json: %s", kind, a.body)
	}
	var p api.Problem
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		t.Fatalf("no problem: %v: %s", err, a.body)
	}
	if p.Status != a.status || p.Code != code || p.Detail == "" || p.Title != http.StatusText(a.status) || p.Type != "about:blank" || p.RequestID == "" {
		t.Errorf("problem %+v, want status %d, code %s, and words", p, a.status, code)
	}
	for _, inside := range []string{"goroutine", ".go:", "huma", "sql", "struct field", "0x"} {
		if strings.Contains(a.body, inside) {
			t.Errorf("the problem shows our insides (%q): %s", inside, a.body)
		}
	}
	return p
}

// words returns the body without what is different in every answer.
func (a answer) words(t *testing.T) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("not JSON: %v: %s", err, a.body)
	}
	delete(m, "request_id")
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// into decodes a body that must have come with the status.
func (a answer) into(t *testing.T, status int, v any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("decode: %v: %s", err, a.body)
	}
}

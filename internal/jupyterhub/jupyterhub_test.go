package jupyterhub_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/jupyterhub"
)

// A hub is a server with JupyterHub's door and the gateway behind it.
type hub struct {
	*World
	t      *testing.T
	client *http.Client
}

func open(t *testing.T) *hub {
	t.Helper()
	w := New(t)
	h, err := jupyterhub.New(jupyterhub.Config{Identity: w.Identity, Workspaces: w.Workspaces, Log: w.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Workspaces: gateway.From(w.Workspaces), Identity: w.Identity, Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/hub/api", h)
	mux.Handle("/hub/api/", h)
	mux.Handle("/user/{name}/{rest...}", g.Alias(h.Resolve))
	w.Serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, console, ok := w.Origins.Match(r); ok && !console {
			g.ServeHTTP(rw, r)
			return
		}
		mux.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() { _ = g.Drain(t.Context()) })
	return &hub{World: w, t: t, client: w.Client()}
}

// ask sends one request; headers are "Name: value". A path is the console's.
func (h *hub) ask(method, to, body string, headers ...string) (*http.Response, string) {
	h.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = h.URL + to
	}
	r, err := http.NewRequestWithContext(h.t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	res, err := h.client.Do(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, to, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, to, err)
	}
	return res, string(text)
}

type user struct {
	Name    string
	Server  *string
	Pending *string
	Servers map[string]struct {
		Ready, Stopped bool
		URL            string `json:"url"`
		ProgressURL    string `json:"progress_url"`
	}
}

func (h *hub) user(token, query string) (u user) {
	h.t.Helper()
	res, body := h.ask(http.MethodGet, "/hub/api/users/alice"+query, "", "Authorization: token "+token)
	if err := json.Unmarshal([]byte(body), &u); err != nil || res.StatusCode != http.StatusOK {
		h.t.Fatalf("the user: %d %s", res.StatusCode, body)
	}
	return u
}

// The requests of VS Code's JupyterHub extension, in its order.
func TestWhatTheEditorAsks(t *testing.T) {
	h := open(t)
	if res, body := h.ask(http.MethodGet, "/hub/api", ""); res.StatusCode != http.StatusOK || !strings.Contains(body, `"version"`) {
		t.Fatalf("the version: %d %s", res.StatusCode, body)
	}
	auth := func(password string) string {
		return `{"auth":{"username":"alice","password":"` + password + `"},"note":"editor"}`
	}
	if res, body := h.ask(http.MethodPost, "/hub/api/users/alice/tokens", auth("wrong one")); res.StatusCode != http.StatusForbidden {
		t.Errorf("a wrong password: %d %s", res.StatusCode, body)
	}
	res, body := h.ask(http.MethodPost, "/hub/api/users/alice/tokens", auth(Password))
	var made struct{ Token, ID, User string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || res.StatusCode != http.StatusOK || made.Token == "" || made.User != Alice {
		t.Fatalf("a token: %d %s", res.StatusCode, body)
	}
	token := "Authorization: token " + made.Token
	// The token is for workspaces, not for the account.
	if res, body := h.ask(http.MethodGet, "/hub/api/users/alice/tokens", "", token); res.StatusCode != http.StatusForbidden {
		t.Errorf("it lists tokens: %d %s", res.StatusCode, body)
	}
	// Looking starts nothing.
	if u := h.user(made.Token, "?include_stopped_servers"); len(u.Servers) != 0 {
		t.Errorf("servers before any was made: %+v", u.Servers)
	}
	if res, body := h.ask(http.MethodGet, "/user/alice/api/status", "", token); res.StatusCode != http.StatusNotFound {
		t.Errorf("a visit to no server: %d %s", res.StatusCode, body)
	}
	if list, err := h.Workspaces.List(t.Context(), h.Actor(Alice), false); err != nil || len(list) != 0 {
		t.Fatalf("a visit made %v, %v", list, err)
	}
	if res, body := h.ask(http.MethodPost, "/hub/api/users/alice/servers/lab", `{"class":"small"}`, token); res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusAccepted {
		t.Fatalf("start: %d %s", res.StatusCode, body)
	}
	res, body = h.ask(http.MethodGet, "/hub/api/users/alice/servers/lab/progress", "", token)
	if res.Header.Get("Content-Type") != "text/event-stream" || !strings.Contains(body, `"ready":true`) {
		t.Errorf("progress: %d %s", res.StatusCode, body)
	}
	var lab user
	h.Until("the server is ready", func() bool { lab = h.user(made.Token, ""); return lab.Servers["lab"].Ready })
	if lab.Server == nil || *lab.Server != "/user/alice/" || lab.Servers["lab"].URL != "/user/alice/lab/" {
		t.Errorf("the user is %+v", lab)
	}
	for _, path := range []string{"/user/alice/lab/api/status", "/user/alice/api/status"} {
		res, body := h.ask(http.MethodGet, path, "", token)
		if res.StatusCode != http.StatusOK || !strings.Contains(body, `"kernels"`) {
			t.Errorf("GET %s: %d %s", path, res.StatusCode, body)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || res.Header.Get("Set-Cookie") != "" {
			t.Errorf("GET %s could act on the console's origin: %v", path, res.Header)
		}
	}
	if res, body := h.ask(http.MethodDelete, "/hub/api/users/alice/servers/lab", "", token); res.StatusCode != http.StatusNoContent {
		t.Errorf("stop: %d %s", res.StatusCode, body)
	}
	res, body = h.ask(http.MethodGet, "/user/alice/lab/api/status", "", token)
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(res.Header.Get("Content-Type"), "json") || !strings.Contains(body, "stopped") {
		t.Errorf("a stopped server: %d %s %s", res.StatusCode, res.Header.Get("Content-Type"), body)
	}
	if ws := h.Await(mustGet(t, h).ID, bailey.Stopped); ws.State != bailey.Stopped {
		t.Errorf("the visit started it: %s", ws.State)
	}
	if res, _ := h.ask(http.MethodDelete, "/hub/api/users/alice/tokens/"+made.ID, "", token); res.StatusCode != http.StatusNoContent {
		t.Errorf("the token ends itself: %d", res.StatusCode)
	}
	if res, _ := h.ask(http.MethodGet, "/hub/api/user", "", token); res.StatusCode != http.StatusForbidden {
		t.Errorf("it lives on: %d", res.StatusCode)
	}
	if strings.Contains(h.Log.String(), made.Token) {
		t.Error("the token is in the log")
	}
}

func mustGet(t *testing.T, h *hub) bailey.Workspace {
	t.Helper()
	ws, err := h.Workspaces.Get(t.Context(), h.Actor(Alice), "lab")
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

// handshake opens a WebSocket as programs do and returns the status.
func (h *hub) handshake(origin, path string, headers ...string) int {
	h.t.Helper()
	conn := h.Dial(origin)
	request := "GET " + path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(origin, "https://") +
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for _, line := range headers {
		request += line + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		h.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// Attacks 3, 5, 16 and 19 on the paths that are served to programs: no cookie,
// nobody else's token, none from outside its networks or without the scope, and
// none in the address of a page.
func TestTheAliasIsForTokensAlone(t *testing.T) {
	h := open(t)
	lab := h.Launch(Alice, "lab")
	alice, _ := h.Token(Alice)
	bob, _ := h.Token(Bob)
	far, _ := h.LimitedToken(Alice, identity.TokenRequest{Networks: []string{"198.51.100.0/24"}})
	reader, _ := h.LimitedToken(Alice, identity.TokenRequest{Scopes: []bailey.Scope{bailey.ScopeWorkspacesRead}})
	other, _ := h.LimitedToken(Alice, identity.TokenRequest{Workspaces: []string{bailey.NewID()}})
	own, _ := h.LimitedToken(Alice, identity.TokenRequest{Workspaces: []string{lab.ID}})
	cookie := "Cookie: " + edge.ConsoleCookie + "=" + h.Session(Alice)
	origin := h.Origins.Workspace(lab.Slug)
	for _, tt := range []struct {
		what, header   string
		alias, ws, hub int // status on /user/…, on the workspace's origin, and of the hub's user
	}{
		{"alice's token", "Authorization: token " + alice, 200, 200, 200},
		{"a token for the workspace", "Authorization: Bearer " + own, 200, 200, 200},
		{"nothing", "X-Nothing: 1", 401, 401, 403},
		{"alice's cookie", cookie, 401, 401, 403},
		{"bob's token", "Authorization: token " + bob, 404, 404, 404},
		{"from outside its networks", "Authorization: token " + far, 401, 401, 403},
		{"a token that only reads", "Authorization: token " + reader, 404, 404, 200},
		{"a token for another workspace", "Authorization: token " + other, 404, 404, 200},
		{"a guess", "Authorization: token bly_guess", 401, 401, 403},
	} {
		for at, want := range map[string]int{
			"/user/alice/lab/api/status": tt.alias, origin + "/api/status": tt.ws, "/hub/api/users/alice": tt.hub,
		} {
			if res, body := h.ask(http.MethodGet, at, "", tt.header); res.StatusCode != want {
				t.Errorf("%s at %s: %d, want %d: %s", tt.what, at, res.StatusCode, want, body)
			}
		}
		// An upgrade is refused just so. One that is let through reaches Jupyter,
		// which here answers with a page.
		if got := h.handshake(h.URL, "/user/alice/lab/api/kernels/x/channels", tt.header); got != tt.alias {
			t.Errorf("%s, WebSocket by the alias: %d, want %d", tt.what, got, tt.alias)
		}
		if got := h.handshake(origin, "/api/kernels/x/channels", tt.header); got != tt.ws {
			t.Errorf("%s, WebSocket: %d, want %d", tt.what, got, tt.ws)
		}
	}
	// In the address a token counts for a WebSocket, and not for a page: a link
	// could lead a browser there.
	if res, _ := h.ask(http.MethodGet, "/user/alice/lab/api/status?token="+alice, ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token in a link: %d", res.StatusCode)
	}
	if got := h.handshake(h.URL, "/user/alice/lab/api/kernels/x/channels?token="+alice); got != http.StatusOK {
		t.Errorf("a token in a WebSocket's address: %d", got)
	}
	if got := h.handshake(h.URL, "/user/alice/lab/api/kernels/x/channels?token="+far); got != http.StatusUnauthorized {
		t.Errorf("one from outside its networks there: %d", got)
	}
	if !strings.Contains(h.Log.String(), "/user/alice/lab/api/kernels") || strings.Contains(h.Log.String(), alice) {
		t.Error("the log has no line of the requests, or a token")
	}
	if events := h.Events(audit.AccessDenied); len(events) == 0 {
		t.Error("no refusal is in the journal")
	}
	if _, err := h.Identity.UpdateUser(t.Context(), h.Actor(Admin), Alice, identity.UserUpdate{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	if res, _ := h.ask(http.MethodGet, "/user/alice/lab/api/status", "", "Authorization: token "+alice); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the token of a disabled account: %d", res.StatusCode)
	}
}

package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
)

// The attacks are numbered as in the threat list of the design.

// Attack 1: a page of one origin reads another's, by whatever a browser offers.
// Ada has opened both her workspace and a hostile page; her browser sends her
// cookie along.
func TestAttack01CrossWorkspaceRead(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	cookie := "Cookie: " + w.pass("ada", adaSlug)
	bob := w.origin(bobSlug)
	for _, tt := range []struct {
		name    string
		method  string
		headers []string
		want    int
	}{
		{"her own page", "GET", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 200},
		{"the address bar", "GET", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{"a link, or window.open", "GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{"fetch", "GET", []string{"Origin: " + bob, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 403},
		{"fetch, no-cors", "GET", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty"}, 403},
		{"fetch from afar, no-cors", "GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty"}, 403},
		{"script element", "GET", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"}, 403},
		{"iframe", "GET", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"object", "GET", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: object"}, 403},
		{"fetch of an old browser", "GET", []string{"Origin: " + bob}, 403},
		{"a sandboxed file of her own", "GET", []string{"Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, 403},
		{"preflight", "OPTIONS", []string{"Origin: " + bob, "Access-Control-Request-Method: GET", "Sec-Fetch-Site: same-site"}, 403},
		{"form", "POST", []string{"Origin: " + bob, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 403},
	} {
		res, body := w.ask(tt.method, w.origin(adaSlug)+"/api/contents", nil, append([]string{cookie}, tt.headers...)...)
		if res.StatusCode != tt.want {
			t.Errorf("%s = %d %s, want %d", tt.name, res.StatusCode, body, tt.want)
		}
		if reached := strings.Contains(body, "Host: 127.0.0.1:8888"); reached != (tt.want == 200) {
			t.Errorf("%s reached the workspace: %v", tt.name, reached)
		}
		for name := range res.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s was answered with %s", tt.name, name)
			}
		}
		if tt.want == 200 {
			for name, want := range map[string]string{
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Origin-Agent-Cluster": "?1",
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Content-Security-Policy": "frame-ancestors 'self'",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %s = %q, want %q", tt.name, name, got, want)
				}
			}
		}
	}
	// Whatever cookies bob has, ada's workspace is not his.
	bobs := "Cookie: " + w.pass("bob", bobSlug) + "; __Host-bailey=console-bob"
	if res, _ := w.ask("GET", w.origin(adaSlug)+"/api/contents", nil, bobs); res.StatusCode != 401 {
		t.Errorf("bob's cookies at ada's workspace = %d, want 401", res.StatusCode)
	}
}

// A hostile workspace opens its own origin to the world: that stays inside.
func TestAttack01WorkspaceOpensItself(t *testing.T) {
	h := func(rw http.ResponseWriter, _ *http.Request) {
		for _, line := range []string{
			"Access-Control-Allow-Origin: https://evil.example", "Access-Control-Allow-Credentials: true", "X-Frame-Options: ALLOWALL",
			"Cross-Origin-Resource-Policy: cross-origin", "Cross-Origin-Opener-Policy: unsafe-none", "Content-Security-Policy: frame-ancestors *",
			"Strict-Transport-Security: max-age=99999999; includeSubDomains; preload", `Clear-Site-Data: "*"`, `Alt-Svc: h2="evil.example:443"`,
			`Report-To: {}`, `Nel: {}`, "Server: TornadoServer/6", "X-Bailey-User: ada", "X-Mine: stays", "Connection: X-Hop", "X-Hop: gone",
			"Referrer-Policy: unsafe-url", "X-Content-Type-Options: sniff", "WWW-Authenticate: Basic",
		} {
			name, value, _ := strings.Cut(line, ": ")
			rw.Header().Set(name, value)
		}
		fmt.Fprint(rw, "hello")
	}
	w := newWorld(t, http.HandlerFunc(h), nil)
	res, _ := w.ask("GET", w.origin(adaSlug)+"/", nil, "Authorization: token bly_ada_secret")
	for _, name := range []string{
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc",
		"Report-To", "Nel", "Server", "X-Bailey-User", "X-Hop", "Www-Authenticate",
	} {
		if got := res.Header.Get(name); got != "" {
			t.Errorf("%s: %s came through", name, got)
		}
	}
	if got := res.Header["Content-Security-Policy"]; len(got) != 2 || got[0] != "frame-ancestors *" || got[1] != "frame-ancestors 'self'" {
		t.Errorf("policies = %q, want the workspace's and ours", got)
	}
	for name, want := range map[string]string{
		"X-Mine": "stays", "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
		"Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := res.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q alone", name, got, want)
		}
	}
}

// Attack 2: a workspace plants cookies that are ours, or somebody else's.
func TestAttack02CookieTossing(t *testing.T) {
	h := func(rw http.ResponseWriter, r *http.Request) {
		for _, c := range []string{
			"__Host-bailey=evil; Path=/; Secure", "__HOST-BAILEY=evil; Path=/; Secure", " __Host-bailey =evil; Path=/; Secure",
			"__Host-bailey-ws-0123456789abcdef=evil; Path=/lab; Secure", "=__Host-bailey=evil; Secure", "__Host-bailey",
			"good=1; Domain=localhost; Path=/", "plain=2; domain = .example.org ; HttpOnly", "third=3; Secure; SameSite=None",
			"tab=a\tb", "long=" + strings.Repeat("x", 5000),
		} {
			rw.Header().Add("Set-Cookie", c)
		}
		if r.URL.Path == "/many" {
			for i := range 400 {
				rw.Header().Add("Set-Cookie", fmt.Sprintf("c%d=1", i))
			}
		}
	}
	w := newWorld(t, http.HandlerFunc(h), nil)
	auth := "Authorization: token bly_ada_secret"
	res, _ := w.ask("GET", w.origin(adaSlug)+"/", nil, auth)
	want := []string{"good=1; Path=/; Secure", "plain=2; HttpOnly; Secure", "third=3; SameSite=None; Secure"}
	if got := res.Header["Set-Cookie"]; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("cookies that came through = %q, want %q", got, want)
	}
	res, _ = w.ask("GET", w.origin(adaSlug)+"/many", nil, auth)
	if got := len(res.Header["Set-Cookie"]); got != 32 {
		t.Errorf("cookies of a jar overflow = %d, want 32", got)
	}
	// A planted double of the pass makes both void: whose is whose?
	pass := w.pass("ada", adaSlug)
	name, _, _ := strings.Cut(pass[strings.Index(pass, "__Host-bailey-ws-"):], "=")
	for _, cookies := range []string{pass + "; " + name + "=evil", name + "=evil; " + pass} {
		if res, _ := w.ask("GET", w.origin(adaSlug)+"/", nil, "Cookie: "+cookies); res.StatusCode != 401 {
			t.Errorf("with a double of the pass = %d, want 401", res.StatusCode)
		}
	}
}

// Our cookies never reach a workspace; its own do.
func TestAttack02OurCookiesStayHere(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	pass := w.pass("ada", adaSlug)
	_, body := w.ask("GET", w.origin(adaSlug)+"/", nil,
		"Cookie: _xsrf=2|a; "+pass+"; __Host-bailey=x;__HOST-BAILEY-WS-1=y", "Cookie: username-127=z; __Host-baileyx=1")
	if !strings.Contains(body, "\nCookie: _xsrf=2|a; username-127=z\n") || strings.Contains(strings.ToLower(body), "bailey") {
		t.Errorf("the workspace saw\n%s", body)
	}
}

// Attack 3: somebody else's page changes state with the person's cookie.
func TestAttack03CSRF(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	cookie := "Cookie: " + w.pass("ada", adaSlug)
	own := w.origin(adaSlug)
	for _, tt := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"own page", []string{"Sec-Fetch-Site: same-origin", "Origin: " + own}, 200},
		{"own page, without Origin", []string{"Sec-Fetch-Site: same-origin"}, 200},
		{"own page of an old browser", []string{"Origin: " + own}, 200},
		{"nothing said", nil, 403},
		{"same site", []string{"Sec-Fetch-Site: same-site"}, 403},
		{"cross site", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"cross site, no-cors", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403},
		{"unknown site", []string{"Sec-Fetch-Site: same-party"}, 403},
		{"empty site", []string{"Sec-Fetch-Site: "}, 403},
		{"two sites", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, 403},
		{"same-origin, foreign Origin", []string{"Sec-Fetch-Site: same-origin", "Origin: https://evil.example"}, 403},
		{"another workspace", []string{"Origin: " + w.origin(bobSlug)}, 403},
		{"the console", []string{"Origin: " + w.origins.Console()}, 403},
		{"null", []string{"Origin: null"}, 403},
		{"upper case", []string{"Origin: " + strings.ToUpper(own)}, 403},
		{"http", []string{"Origin: " + strings.Replace(own, "https", "http", 1)}, 403},
		{"other port", []string{"Origin: https://" + adaSlug + ".localhost:1"}, 403},
		{"suffix", []string{"Origin: " + own + ".evil.example"}, 403},
		{"two origins", []string{"Origin: " + own, "Origin: https://evil.example"}, 403},
		{"override of the method", []string{"X-HTTP-Method-Override: GET", "Sec-Fetch-Site: cross-site"}, 403},
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
			res, body := w.ask(method, own+"/api/contents/x", strings.NewReader("{}"), append([]string{cookie}, tt.headers...)...)
			if res.StatusCode != tt.want {
				t.Errorf("%s by %s = %d %s, want %d", method, tt.name, res.StatusCode, body, tt.want)
			}
		}
	}
	// A token is not sent by browsers on their own, so it needs no proof.
	if res, _ := w.ask("POST", own+"/api/contents/x", strings.NewReader("{}"), "Authorization: token bly_ada_secret"); res.StatusCode != 200 {
		t.Errorf("POST with a token = %d, want 200", res.StatusCode)
	}
	// Attempts with a good cookie leave a trace, once.
	if denied := w.journal.of(audit.AccessDenied); len(denied) != 1 || denied[0].Reason != audit.ForeignOrigin || denied[0].Actor.ID != "u-ada" {
		t.Errorf("journal has %+v, want one foreign origin", denied)
	}
}

// handshake is a WebSocket's beginning, as text.
func handshake(host, path string, headers ...string) string {
	text := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, h := range append([]string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, headers...) {
		text += h + "\r\n"
	}
	return text + "\r\n"
}

// Attack 4: somebody else's page opens a WebSocket with the person's cookie.
func TestAttack04CSWSH(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	cookie := "Cookie: " + w.pass("ada", adaSlug)
	own := w.origin(adaSlug)
	try := func(headers ...string) int {
		t.Helper()
		res, _ := w.raw(adaSlug, handshake(w.host(adaSlug), "/api/kernels/1/channels", headers...))
		return res.StatusCode
	}
	for name, headers := range map[string][]string{
		"missing": nil, "foreign": {"Origin: https://evil.example"}, "null": {"Origin: null"}, "empty": {"Origin: "},
		"upper case": {"Origin: " + strings.ToUpper(own)}, "suffix": {"Origin: " + own + ".evil.example"},
		"prefix": {"Origin: https://evil." + strings.TrimPrefix(own, "https://")}, "http": {"Origin: " + strings.Replace(own, "https", "http", 1)},
		"no port": {"Origin: https://" + adaSlug + ".localhost"}, "other port": {"Origin: https://" + adaSlug + ".localhost:1"},
		"another workspace": {"Origin: " + w.origin(bobSlug)}, "the console": {"Origin: " + w.origins.Console()},
		"two": {"Origin: " + own, "Origin: https://evil.example"}, "list": {"Origin: " + own + " https://evil.example"},
		"trailing slash": {"Origin: " + own + "/"}, "trailing dot": {"Origin: " + strings.Replace(own, "localhost", "localhost.", 1)},
		"same-origin claimed": {"Sec-Fetch-Site: same-origin", "Origin: https://evil.example"},
	} {
		if got := try(append(headers, cookie)...); got != 403 {
			t.Errorf("upgrade with Origin %s = %d, want 403", name, got)
		}
	}
	if got := try(cookie, "Origin: "+own); got != 101 {
		t.Errorf("upgrade from the workspace's own page = %d, want 101", got)
	}
	if got := try("Authorization: token bly_ada_secret"); got != 101 {
		t.Errorf("upgrade with a token and no Origin = %d, want 101", got)
	}
}

// Attack 5: WebSocket paths ask for a credential like all others.
func TestAttack05UpgradeWithoutSignIn(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(echoSocket), nil)
	ada, bob := w.pass("ada", adaSlug), w.pass("bob", bobSlug)
	expired := w.ada
	expired.Session = "s-ada-old"
	w.identity.signIn("console-old", expired)
	old := w.pass("old", adaSlug)
	w.identity.revoke("s-ada-old")
	origin := "Origin: " + w.origin(adaSlug)
	before := w.rooms.get(adaSlug).dials.Load()
	for _, path := range []string{
		"/", "/api/kernels/1/channels", "/terminals/websocket/1", "/api/events/subscribe", "/lab/api/x", "/proxy/8000/ws",
		"/files/a", "/static/x", "/.bailey/enter", "/%2e%2e/api/kernels/1/channels", "//api/kernels/1/channels",
	} {
		for name, tt := range map[string]struct {
			headers []string
			want    int
		}{
			"nothing":                     {nil, 401},
			"bob's cookie":                {[]string{"Cookie: " + bob}, 401},
			"an ended session's cookie":   {[]string{"Cookie: " + old}, 401},
			"bob's token":                 {[]string{"Authorization: token bly_bob_secret"}, 404},
			"the console's cookie":        {[]string{"Cookie: __Host-bailey=console-ada"}, 401},
			"the run's token":             {[]string{"Authorization: token run-token-ada-1"}, 401},
			"a token in the page's query": {nil, 401},
		} {
			target := path
			if strings.Contains(name, "query") {
				target += "?token=bly_bob_secret"
				if strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/terminals/") {
					tt.want = 404
				}
			}
			want := tt.want
			if strings.HasPrefix(path, "/.bailey/") {
				want = 403 // answered here, whoever asks: there is no code
			}
			res, body := w.raw(adaSlug, handshake(w.host(adaSlug), target, append(tt.headers, origin)...))
			if res.StatusCode != want {
				t.Errorf("upgrade of %s with %s = %d %s, want %d", target, name, res.StatusCode, body, want)
			}
		}
	}
	if after := w.rooms.get(adaSlug).dials.Load(); after != before {
		t.Errorf("ada's workspace was dialled %d times for strangers", after-before)
	}
	if res, _ := w.raw(adaSlug, handshake(w.host(adaSlug), "/api/kernels/1/channels", origin, "Cookie: "+ada)); res.StatusCode != 101 {
		t.Errorf("ada's own upgrade = %d, want 101", res.StatusCode)
	}
}

// spoofs are the ways to say who one is, or where one comes from.
var spoofs = []string{
	"X-Bailey-User: bob", "x-bailey-user: bob", "x_bailey_user: bob", "X.Bailey.User: bob", "X-BAILEY_USER: bob", "X-Bailey: bob",
	"X-Forwarded-For: 203.0.113.9", "x_forwarded_for: 203.0.113.9", "X.Forwarded.For: 203.0.113.9", "X-Forwarded-Host: evil.example",
	"X-Forwarded-Proto: http", "X-Forwarded-Prefix: /evil", "X-Forwarded: for=x", "Forwarded: for=203.0.113.9;host=evil.example",
	"X-Real-IP: 203.0.113.9", "X_Real_IP: 203.0.113.9", "True-Client-IP: 203.0.113.9", "X-Client-IP: 203.0.113.9", "Via: 1.1 evil",
	"Remote-User: bob", "REMOTE_USER: bob", "X-Remote-User: bob", "X-Auth-Request-User: bob", "X-JupyterHub-User: bob", "X_JupyterHub_User: bob",
	"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: DELETE", "Proxy: http://evil.example", "Proxy-Authorization: Basic x",
	"Te: trailers", "Keep-Alive: 5", "Sec-WebSocket-Extensions: permessage-deflate", "Cookie2: $Version=1", "X-User: bob",
}

// Attack 6: headers that say who one is reach no workspace, on any path.
func TestAttack06IdentityHeaderSpoof(t *testing.T) {
	var mu sync.Mutex
	var heads []string
	record := func(rw http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_ = r.Header.Write(&b)
		_, _ = io.Copy(io.Discard, r.Body)
		for name := range r.Trailer {
			fmt.Fprintf(&b, "Trailer: %s\n", name)
		}
		mu.Lock()
		heads = append(heads, b.String())
		mu.Unlock()
		if r.Header.Get("Upgrade") != "" {
			echoSocket(rw, r)
		}
	}
	w := newWorld(t, http.HandlerFunc(record), nil)
	auth := "Authorization: token bly_ada_secret"
	host := w.host(adaSlug)
	spoofed := strings.Join(append(spoofs, "X-Mine: stays", auth), "\r\n")
	// Naming a header in Connection removes it; it must not remove ours.
	tricks := "Connection: close, Authorization, X-Mine2, X-Bailey-User, Cookie\r\nX-Mine2: gone\r\n"
	w.raw(adaSlug, "GET /a HTTP/1.1\r\nHost: "+host+"\r\n"+spoofed+"\r\n\r\n")
	w.raw(adaSlug, "GET /b HTTP/1.1\r\nHost: "+host+"\r\n"+tricks+spoofed+"\r\n\r\n")
	w.raw(adaSlug, "POST /c HTTP/1.1\r\nHost: "+host+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Bailey-User\r\n"+spoofed+"\r\n\r\n0\r\nX-Bailey-User: bob\r\n\r\n")
	w.raw(adaSlug, handshake(host, "/api/kernels/1/channels", append(spoofs, "X-Mine: stays", auth)...))
	w.raw(adaSlug, handshake(host, "/api/kernels/1/channels", append(spoofs, "X-Mine: stays", auth, "Connection: Authorization, X-Mine2", "X-Mine2: gone")...))
	http2 := w.transport(true)
	defer http2.CloseIdleConnections()
	r, _ := http.NewRequest("GET", w.origin(adaSlug)+"/d", nil)
	for _, h := range append(spoofs, "X-Mine: stays", auth) {
		if name, value, _ := strings.Cut(h, ": "); !strings.EqualFold(name, "Keep-Alive") {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	res, err := http2.RoundTrip(r)
	if err != nil || res.ProtoMajor != 2 {
		t.Fatalf("by HTTP/2: %v, %v", res, err)
	}
	_ = res.Body.Close()

	mu.Lock()
	defer mu.Unlock()
	if len(heads) != 6 {
		t.Fatalf("the workspace saw %d requests, want 6", len(heads))
	}
	for i, head := range heads {
		lower := strings.ToLower(head)
		for _, bad := range []string{"bob", "203.0.113", "evil", "bailey", "bly_", "trailer", "gone", "permessage", "x-forwarded", "jupyterhub", "keep-alive", "/admin"} {
			if strings.Contains(lower, bad) {
				t.Errorf("request %d reached the workspace with %q:\n%s", i, bad, head)
			}
		}
		if strings.Count(head, "Authorization: token run-token-ada-1") != 1 || !strings.Contains(head, "X-Mine: stays") {
			t.Errorf("request %d lacks the run's token or the client's own header:\n%s", i, head)
		}
	}
}

// Attack 6, the other way: what stands around an answer, in informational
// answers before it and trailers behind it, is not passed on unseen.
func TestAttack06AnswersBeforeAndBehindTheAnswer(t *testing.T) {
	h := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Set-Cookie", "__Host-bailey=early; Path=/; Secure")
		rw.Header().Set("Link", "</x>; rel=preload")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.Header().Del("Set-Cookie")
		rw.Header().Set("Trailer", "Set-Cookie")
		fmt.Fprint(rw, "body")
		rw.Header().Set("Set-Cookie", "__Host-bailey=announced; Path=/; Secure")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	}
	w := newWorld(t, http.HandlerFunc(h), nil)
	c := w.dial(adaSlug)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+w.host(adaSlug)+"\r\nTE: trailers\r\nConnection: close, TE\r\nAuthorization: token bly_ada_secret\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(all), "body") {
		t.Errorf("the client saw %q, %v, want the answer alone", all, err)
	}
	for _, bad := range []string{"__Host-bailey", "unannounced", "Trailer", "103"} {
		if strings.Contains(string(all), bad) {
			t.Errorf("%q came through:\n%s", bad, all)
		}
	}
}

// Attack 7: nobody chooses the address that limits and the journal go by.
func TestAttack07ForwardedForSpoof(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	headers := []string{"Authorization: token bly_bob_secret", "X-Forwarded-For: 203.0.113.9, 10.0.0.1", "X-Real-IP: 203.0.113.9", "Forwarded: for=203.0.113.9"}
	if res, _ := w.ask("GET", w.origin(adaSlug)+"/", nil, headers...); res.StatusCode != 404 {
		t.Errorf("bob at ada's workspace = %d, want 404", res.StatusCode)
	}
	if denied := w.journal.of(audit.AccessDenied); len(denied) != 1 || denied[0].Actor.IP != "127.0.0.1" {
		t.Errorf("journal has %+v, want the socket's address", denied)
	}
	// A PROXY header is no TLS, and gets nobody anywhere.
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PROXY TCP4 203.0.113.9 127.0.0.1 1 8443\r\n")
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 100)); n > 0 && err == nil {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err == nil {
			t.Errorf("a connection that begins with PROXY is still served")
		}
	}
}

// Attack 8: one client's bytes never become two requests upstream. What
// reaches the workspace is counted by a server that believes nothing.
func TestAttack08RequestSmuggling(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler(), nil)
	raw := newRawUpstream(t, w.rooms.listen(adaSlug))
	w.rooms.startAt(adaSlug, w.ada, raw.Listener, func() {})
	head := "Host: " + w.host(adaSlug) + "\r\nAuthorization: token bly_ada_secret\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(smuggled))
	var wg sync.WaitGroup
	for name, text := range map[string]string{
		"CL.TE":                    "POST /first HTTP/1.1\r\n" + head + length + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"TE.CL":                    "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n",
		"TE.TE with a space":       "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding : chunked\r\n" + length + "\r\n" + smuggled,
		"TE.TE obfuscated":         "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding: xchunked\r\n" + length + "\r\n" + smuggled,
		"TE.TE twice":              "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		"TE with a tab":            "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding:\tchunked\r\n" + length + "\r\n0\r\n\r\n" + smuggled,
		"CL.0":                     "GET /first HTTP/1.1\r\n" + head + length + "\r\n" + smuggled,
		"bare LF":                  "POST /first HTTP/1.1\n" + strings.ReplaceAll(head, "\r", "") + "Content-Length: 5\n\nhello",
		"chunk extension":          "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n2;\n\r\nxx\r\n0\r\n\r\n" + smuggled,
		"chunk size with 0x":       "POST /first HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n0x2\r\nxx\r\n0\r\n\r\n",
		"negative length":          "POST /first HTTP/1.1\r\n" + head + "Content-Length: -1\r\n\r\n" + smuggled,
		"two lengths":              "POST /first HTTP/1.1\r\n" + head + "Content-Length: 0\r\n" + length + "\r\n" + smuggled,
		"length list":              "POST /first HTTP/1.1\r\n" + head + "Content-Length: 0, 36\r\n\r\n" + smuggled,
		"alias of a coding":        "POST /first HTTP/1.1\r\n" + head + "Transfer_Encoding: chunked\r\n" + length + "\r\n" + smuggled,
		"alias of a length":        "POST /first HTTP/1.1\r\n" + head + "Content_Length: 0\r\n" + length + "\r\n" + smuggled,
		"folded":                   "POST /first HTTP/1.1\r\n" + head + "X-A: b\r\n Content-Length: 0\r\n" + length + "\r\n" + smuggled,
		"CR in a value":            "GET /first HTTP/1.1\r\n" + head + "X-A: b\rContent-Length: 9\r\n\r\n",
		"in the target":            "GET /first%20HTTP/1.1%0d%0aHost:%20x%0d%0a%0d%0aGET%20/smuggled HTTP/1.1\r\n" + head + "\r\n",
		"upgrade with a body":      "GET /first HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + length + "\r\n" + smuggled,
		"upgrade to h2c":           "GET /first HTTP/1.1\r\n" + head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"failed upgrade, then one": "GET /first HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	} {
		// All at once: each waits a moment for an answer that should not come.
		wg.Go(func() {
			text = strings.ReplaceAll(text, "/first", "/first-"+url.PathEscape(name))
			c := w.dial(adaSlug)
			_, _ = io.WriteString(c, text)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = io.ReadAll(c)
			_ = c.Close()
		})
	}
	wg.Wait()
	for _, req := range raw.seen() {
		if !strings.Contains(req.line, " /first") || strings.Contains(req.line, " /smuggled") || strings.ContainsAny(req.line, "\r\n") {
			t.Errorf("the workspace saw %q", req.line)
		}
		if req.both {
			t.Errorf("the workspace saw a length and a coding in %q", req.line)
		}
	}
	if len(raw.seen()) < 4 {
		t.Errorf("the workspace saw %d requests; not even the harmless ones arrived", len(raw.seen()))
	}
}

// A rawUpstream reads requests byte by byte, without net/http's mercy, and
// notes each.
type rawUpstream struct {
	net.Listener
	mu   sync.Mutex
	reqs []rawRequest
}

type rawRequest struct {
	line string
	both bool
}

func newRawUpstream(t *testing.T, ln net.Listener) *rawUpstream {
	t.Helper()
	u := &rawUpstream{Listener: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go u.serve(c)
		}
	}()
	return u
}

func (u *rawUpstream) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		req := rawRequest{line: strings.TrimRight(line, "\r\n")}
		length, chunked, lengths := 0, false, 0
		for {
			h, err := br.ReadString('\n')
			if err != nil {
				return
			}
			if h = strings.TrimRight(h, "\r\n"); h == "" {
				break
			}
			name, value, _ := strings.Cut(strings.ToLower(h), ":")
			switch strings.NewReplacer("_", "-", ".", "-").Replace(strings.TrimSpace(name)) {
			case "content-length":
				lengths++
				fmt.Sscan(value, &length)
			case "transfer-encoding":
				chunked = true
			}
		}
		req.both = chunked && lengths > 0 || lengths > 1
		u.mu.Lock()
		u.reqs = append(u.reqs, req)
		u.mu.Unlock()
		for chunked {
			size, n := "", 0
			if size, err = br.ReadString('\n'); err != nil {
				return
			}
			fmt.Sscanf(size, "%x", &n)
			if _, err := br.Discard(n + 2); err != nil {
				return
			}
			chunked = n > 0
		}
		if _, err := br.Discard(length); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func (u *rawUpstream) seen() []rawRequest { u.mu.Lock(); defer u.mu.Unlock(); return u.reqs }

// Attack 9: no spelling of a path or host leads into another's workspace. The
// host alone chooses, and the path goes there as it is.
func TestAttack09PathConfusion(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	auth := "Authorization: token bly_ada_secret\r\n"
	for _, target := range []string{
		"/user/bob/%2e%2e/", "/../" + bobSlug + "/", "/%2e%2e%2f" + bobSlug, "//" + w.host(bobSlug) + "/", "/;@" + w.host(bobSlug) + "/",
		"/@" + w.host(bobSlug), "/a%2fb%5cc", "/x?next=//" + w.host(bobSlug), "/.%2e/.%2e/etc/passwd", "/" + strings.Repeat("a/", 3000),
	} {
		res, body := w.raw(adaSlug, "GET "+target+" HTTP/1.1\r\nHost: "+w.host(adaSlug)+"\r\n"+auth+"\r\n")
		if res.StatusCode != 200 || !strings.HasPrefix(body, "GET "+target+"\nHost: 127.0.0.1:8888\n") || !strings.Contains(body, "token run-token-ada-1") {
			t.Errorf("%.60s = %d %.200s, want ada's workspace to see it as it is", target, res.StatusCode, body)
		}
	}
	for name, text := range map[string]string{
		"backslash":           "GET /\\" + w.host(bobSlug) + " HTTP/1.1\r\nHost: " + w.host(adaSlug) + "\r\n",
		"NUL":                 "GET /a%00b HTTP/1.1\r\nHost: " + w.host(adaSlug) + "\r\n",
		"absolute form":       "GET https://" + w.host(bobSlug) + "/ HTTP/1.1\r\nHost: " + w.host(adaSlug) + "\r\n",
		"absolute form, own":  "GET https://" + w.host(adaSlug) + "/ HTTP/1.1\r\nHost: " + w.host(adaSlug) + "\r\n",
		"two hosts":           "GET / HTTP/1.1\r\nHost: " + w.host(adaSlug) + "\r\nHost: " + w.host(bobSlug) + "\r\n",
		"user in the host":    "GET / HTTP/1.1\r\nHost: " + adaSlug + "@" + w.host(bobSlug) + "\r\n",
		"trailing dot":        "GET / HTTP/1.1\r\nHost: " + strings.Replace(w.host(adaSlug), "localhost", "localhost.", 1) + "\r\n",
		"Jupyter's own name":  "GET / HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n",
		"the console's alias": "GET / HTTP/1.1\r\nHost: localhost\r\n",
	} {
		if res, body := w.raw(adaSlug, text+auth+"\r\n"); res.StatusCode != 400 && res.StatusCode != 421 {
			t.Errorf("%s = %d %s, want 400 or 421", name, res.StatusCode, body)
		}
	}
	// With ada's token, bob's host is still bob's.
	if res, _ := w.raw(bobSlug, "GET / HTTP/1.1\r\nHost: "+w.host(bobSlug)+"\r\n"+auth+"\r\n"); res.StatusCode != 404 {
		t.Errorf("ada's token at bob's host = %d, want 404", res.StatusCode)
	}
	// The name in the TLS handshake chooses nothing: Host does.
	if _, body := w.raw(bobSlug, "GET / HTTP/1.1\r\nHost: "+w.host(adaSlug)+"\r\n"+auth+"\r\n"); !strings.Contains(body, "run-token-ada-1") {
		t.Errorf("on a connection made for bob's name, ada's host led to %s", body)
	}
	// Our own paths never go upstream, however they are written.
	for _, target := range []string{"/.bailey", "/.bailey/", "/.bailey/x", "/%2ebailey/enter", "/.bailey%2fenter", "/.bailey/../lab"} {
		if res, body := w.raw(adaSlug, "GET "+target+" HTTP/1.1\r\nHost: "+w.host(adaSlug)+"\r\n"+auth+"\r\n"); strings.Contains(body, "run-token") || res.StatusCode == 200 {
			t.Errorf("%s reached the workspace: %d %s", target, res.StatusCode, body)
		}
	}
}

// Attack 10: no hand-off ends elsewhere than on its workspace's origin.
func TestAttack10OpenRedirect(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	for _, path := range []string{
		"//evil.example/", "///evil.example", "/%2f%2fevil.example", "/%5cevil.example", "/%09/evil.example", "/https:evil.example",
		"/@evil.example", "/.evil.example", "/?next=https://evil.example", "/%E3%80%82evil.example", "/.bailey/enter?code=x", "/" + strings.Repeat("a", 8000),
	} {
		b := w.browser("ada")
		res, err := b.Get(w.origin(adaSlug) + path)
		if err != nil {
			t.Fatalf("%.60s: %v", path, err)
		}
		_ = res.Body.Close()
		if res.Request.URL.Host != w.host(adaSlug) {
			t.Errorf("%.60s ends at %s", path, res.Request.URL)
		}
	}
	// The wanted path is a cookie, which in port mode a neighbour may write.
	for _, planted := range []string{
		"//evil.example", "/\\evil.example", "/\tevil", "\\/evil.example", "https://evil.example", "https:evil.example", "javascript:alert(1)",
		"/\r\nLocation: https://evil.example", "", "evil.example", "/a\x00", "/.bailey/enter", "/%2ebailey/enter", "/#x", "/" + strings.Repeat("a", 4000),
	} {
		if got := gateway.WantedPath(planted); got != "/" {
			t.Errorf("wanted path %.60q is followed to %.60q", planted, got)
		}
	}
	for _, good := range []string{"/", "/lab", "/lab/tree/a%20b?x=1&y=//z", "/a//b"} {
		if got := gateway.WantedPath(good); got != good {
			t.Errorf("wanted path %q became %q", good, got)
		}
	}
}

// Attack 25, first part: what is open dies with what allowed it.
func TestAttack25LongRequestsEndWithSessionAndRun(t *testing.T) {
	h := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(rw, "data: x\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}
	for name, end := range map[string]func(w *world){
		"session": func(w *world) { w.identity.revoke("t-ada") },
		"run":     func(w *world) { w.rooms.stop(adaSlug) },
		"address": func(w *world) { w.identity.ban("u-ada") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, http.HandlerFunc(h), nil)
			tr := w.transport(false)
			defer tr.CloseIdleConnections()
			r, _ := http.NewRequestWithContext(t.Context(), "GET", w.origin(adaSlug)+"/events", nil)
			r.Header.Set("Authorization", "token bly_ada_secret")
			res, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 9)); err != nil {
				t.Fatal(err)
			}
			end(w)
			begin := time.Now()
			if _, err = io.Copy(io.Discard, res.Body); err == nil {
				t.Errorf("the stream ended as if it were whole")
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("the stream ended %v after its %s", took, name)
			}
		})
	}
}

// Attack 25, first part, for WebSockets: an administrator bans the address that
// ada's stolen session is used from. Her open kernel connection ends, bob's goes on.
func TestAttack25WebSocketsEndWithABan(t *testing.T) {
	w := newWorld(t, &kernel{say: func(c *websocket.Conn, v1 bool) { sendMessage(c, v1, idle) }}, nil)
	ada, _, err := w.socket(adaSlug, kernelPath)
	if err != nil {
		t.Fatal(err)
	}
	bob, _, err := w.socket(bobSlug, kernelPath)
	if err != nil {
		t.Fatal(err)
	}
	readUntilIdle(t, ada, false)
	w.identity.ban("u-ada")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, err = ada.Read(ctx)
	if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("ada's connection ends with %v, want a policy violation", err)
	}
	readUntilIdle(t, bob, false)
	if err := bob.Ping(bob.CloseRead(t.Context())); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
}

// Attack 25, second part: a workspace's address is given to somebody else.
// Kept connections and old routes lead nowhere, and never to the new owner.
func TestAttack25StaleRoute(t *testing.T) {
	say := func(text string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, text) })
	}
	w := newWorld(t, say("first run of ada"), nil)
	ada, bob := "Authorization: token bly_ada_secret", "Authorization: token bly_bob_secret"
	get := func(who string) (int, string) {
		t.Helper()
		res, body := w.ask("GET", w.origin(adaSlug)+"/", nil, who)
		return res.StatusCode, body
	}
	if status, body := get(ada); status != 200 || body != "first run of ada" {
		t.Fatalf("ada = %d %s", status, body)
	}
	old := w.rooms.get(adaSlug)
	eventually(t, "the first run keeps a connection", func() bool { return old.conns.Load() == 1 })
	w.rooms.end(adaSlug)
	if status, _ := get(ada); status != 503 {
		t.Errorf("ada while it is stopped = %d, want 503", status)
	}
	eventually(t, "the first run's connections are closed", func() bool { return old.conns.Load() == 0 })
	w.rooms.start(adaSlug, w.ada, say("second run of ada"))
	if status, body := get(ada); status != 200 || body != "second run of ada" {
		t.Errorf("ada after a restart = %d %s, want the second run", status, body)
	}
	// A new run, before anybody said that the former is over.
	w.rooms.start(adaSlug, w.ada, say("third run of ada"))
	if status, body := get(ada); status != 200 || body != "third run of ada" {
		t.Errorf("ada after a sudden restart = %d %s, want the third run", status, body)
	}
	w.rooms.start(adaSlug, w.bob, say("bob's now"))
	if status, body := get(ada); status != 404 {
		t.Errorf("ada at what is bob's now = %d %s, want 404", status, body)
	}
	if status, body := get(bob); status != 200 || body != "bob's now" {
		t.Errorf("bob = %d %s, want his", status, body)
	}
}

// A route that was given out just before the run ended is of no use after it.
func TestAttack25RouteThatEndedMeanwhile(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(mirror), nil)
	old := w.rooms.get(adaSlug).route
	w.rooms.stop(adaSlug)
	w.rooms.start(adaSlug, w.bob, http.HandlerFunc(mirror))
	late := &lateRoutes{rooms: w.rooms, route: old}
	g, err := gateway.New(gateway.Config{Workspaces: late, Identity: w.identity, Origins: w.origins, Audit: w.journal})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Drain(t.Context()) }()
	w.gateway = g
	res, body := w.ask("GET", w.origin(adaSlug)+"/", nil, "Authorization: token bly_ada_secret")
	if res.StatusCode == 200 || strings.Contains(body, "run-token") {
		t.Errorf("a stale route leads to %d %s", res.StatusCode, body)
	}
}

type lateRoutes struct {
	*rooms
	route gateway.Route
}

func (l *lateRoutes) Route(context.Context, bailey.Actor, string) (gateway.Route, error) {
	return l.route, nil
}

// Attack 25, third part: a flood of refused requests is no flood of events.
func TestAttack25DenialsAreCounted(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	w := newWorld(t, http.HandlerFunc(mirror), func(c *gateway.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	for i := range 50 {
		slug := adaSlug
		if i%2 == 1 {
			slug = fmt.Sprintf("guess-%d", i)
		}
		w.ask("GET", w.origin(slug)+"/", nil, "Authorization: token bly_bob_secret")
	}
	if n := len(w.journal.of(audit.AccessDenied)); n != 1 {
		t.Errorf("events of 50 refusals = %d, want 1 for now", n)
	}
	if err := w.gateway.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	denied := w.journal.of(audit.AccessDenied)
	sum := int64(0)
	for _, e := range denied {
		sum += e.Attrs.Count
	}
	if len(denied) != 2 || sum != 50 {
		t.Errorf("after all: %d events that count %d, want 2 and 50", len(denied), sum)
	}
}

// Attack 25, fourth part: one person's requests do not pile up without end.
func TestAttack25RequestLimit(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-answer
		}
	}), func(c *gateway.Config) { c.Limits.RequestsPerWorkspace = 2 })
	get := func(slug, path, who string) int {
		res, _ := w.ask("GET", w.origin(slug)+path, nil, "Authorization: token bly_"+who+"_secret")
		return res.StatusCode
	}
	var slow sync.WaitGroup
	for range 2 {
		slow.Go(func() { get(adaSlug, "/slow", "ada") })
		<-arrived
	}
	if got := get(adaSlug, "/", "ada"); got != 429 {
		t.Errorf("ada's third request = %d, want 429", got)
	}
	if got := get(bobSlug, "/", "bob"); got != 200 {
		t.Errorf("bob meanwhile = %d, want 200", got)
	}
	close(answer)
	slow.Wait()
	eventually(t, "ada is served again", func() bool { return get(adaSlug, "/", "ada") == 200 })
}

// Port mode: one host, many ports, and cookies that browsers send to all.
func TestPortModeKeepsCookiesApart(t *testing.T) {
	h := func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/set" {
			rw.Header().Add("Set-Cookie", "theme=dark; Path=/; Domain=127.0.0.1")
			rw.Header().Add("Set-Cookie", "__Host-bailey=evil; Path=/; Secure")
		}
		mirror(rw, r)
	}
	lo := freePort(t)
	w := newWorldAt(t, http.HandlerFunc(h), nil, func(port int) edge.OriginConfig {
		return edge.OriginConfig{Mode: "port", Host: "127.0.0.1", Port: port, Ports: [2]int{lo, lo + 1}}
	})
	second := w.ada
	w.rooms.start("ada-2222", second, http.HandlerFunc(h))
	b := w.browser("ada")
	res, body := b.open(w.origins.Console() + "/open/" + adaSlug)
	if res.StatusCode != 200 || res.Request.URL.Host != w.host(adaSlug) {
		t.Fatalf("ada ends at %s with %d %s", res.Request.URL, res.StatusCode, body)
	}
	if res, body = b.open(w.origins.Console() + "/open/ada-2222"); res.StatusCode != 200 || res.Request.URL.Host != w.host("ada-2222") {
		t.Fatalf("ada's second ends at %s with %d %s", res.Request.URL, res.StatusCode, body)
	}
	res, _ = b.open(w.origin(adaSlug) + "/set")
	set := res.Header["Set-Cookie"]
	if len(set) != 1 || !strings.HasSuffix(set[0], "-theme=dark; Path=/; Secure") || !strings.HasPrefix(set[0], "ws") {
		t.Errorf("cookies set = %q, want the workspace's own under a name of its own", set)
	}
	if _, body = b.open(w.origin(adaSlug) + "/"); !strings.Contains(body, "\nCookie: theme=dark\n") {
		t.Errorf("the first workspace saw\n%s\nwant its cookie back", body)
	}
	if _, body = b.open(w.origin("ada-2222") + "/"); strings.Contains(body, "Cookie") {
		t.Errorf("the second workspace saw the first one's cookies:\n%s", body)
	}
	// The first one's pass is good for the first alone, though both receive it.
	cookies := b.cookies(w.origins.Console())
	if strings.Count(cookies, "__Host-bailey-ws-") != 2 {
		t.Fatalf("cookies = %q, want two passes", cookies)
	}
	res, _ = w.ask("GET", w.origin(adaSlug)+"/", nil, "Cookie: "+cookies, "Origin: "+w.origin("ada-2222"))
	if res.StatusCode != 403 {
		t.Errorf("the second workspace's page asks the first = %d, want 403", res.StatusCode)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	for range 50 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = a.Close()
		if err == nil {
			_ = b.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}

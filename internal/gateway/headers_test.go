package gateway

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/secret"
)

// requestFor returns a request as ServeHTTP makes it, with these headers.
func requestFor(tb testing.TB, h http.Header) *request {
	tb.Helper()
	o, err := edge.NewOrigins(edge.OriginConfig{Mode: "localhost", Port: 8443})
	if err != nil {
		tb.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, "https://ada-1f00.localhost:8443/", nil)
	if err != nil {
		tb.Fatal(err)
	}
	r.Header = h
	return &request{Request: r, gateway: &Gateway{cfg: Config{Origins: o}}, slug: "ada-1f00", origin: "https://ada-1f00.localhost:8443"}
}

func TestUpstreamHeaderOriginAndReferer(t *testing.T) {
	const own = "https://ada-1f00.localhost:8443"
	for _, tt := range []struct{ name, in, want string }{
		{"Origin", own, "http://127.0.0.1:8888"},
		{"Origin", "https://bob-2e11.localhost:8443", ""},
		{"Origin", "null", ""},
		{"Origin", own + ".evil.example", ""},
		{"Referer", own + "/lab?x=1", "http://127.0.0.1:8888/lab?x=1"},
		{"Referer", own, ""},
		{"Referer", own + ".evil.example/", ""},
		{"Referer", own + "@evil.example/", ""},
		{"Referer", own + "/.bailey/enter?code=x", ""},
		{"Referer", own + "/lab?token=bly_1_secret", ""},
		{"Referer", "https://localhost:8443/workspaces/1", ""},
	} {
		got := requestFor(t, http.Header{tt.name: {tt.in}}).upstreamHeader(secret.New("x")).Get(tt.name)
		if got != tt.want {
			t.Errorf("%s %q becomes %q, want %q", tt.name, tt.in, got, tt.want)
		}
	}
}

func TestFilesAreSandboxed(t *testing.T) {
	for path, want := range map[string]bool{
		"/files/a.html": true, "/files": true, "/nbconvert/html/a.ipynb": true, "//files/a": true, "/x/../files/a": true, "/./files/a": true,
		"/%66iles/a": true, "/a/files/b": true, "/lab": false, "/api/contents/files.txt": false, "/filesystem": false, "/static/x.js": false,
	} {
		q := requestFor(t, http.Header{})
		q.URL.Path = path
		h := http.Header{"Content-Security-Policy": {"default-src 'self'"}}
		q.downstreamHeader(h)
		got := false
		for _, policy := range h["Content-Security-Policy"] {
			got = got || policy == "sandbox allow-scripts"
		}
		if got != want || h["Content-Security-Policy"][0] != "default-src 'self'" {
			t.Errorf("policies of %s = %q, sandboxed %v, want %v", path, h["Content-Security-Policy"], got, want)
		}
	}
}

func TestLocationIsBroughtHome(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:8888/lab?": "https://ada-1f00.localhost:8443/lab?",
		"/lab":                       "/lab",
		"http://127.0.0.1:8888":      "http://127.0.0.1:8888",
		"http://127.0.0.1:88889/":    "http://127.0.0.1:88889/",
		"https://example.org/":       "https://example.org/",
	} {
		h := http.Header{"Location": {in}}
		requestFor(t, http.Header{}).downstreamHeader(h)
		if got := h.Get("Location"); got != want {
			t.Errorf("Location %q becomes %q, want %q", in, got, want)
		}
	}
}

// FuzzUpstreamHeader: whatever headers a client manages to send, upstream sees
// one Authorization, which is the run's, none of our credentials, and nothing
// by which a client says who it is.
func FuzzUpstreamHeader(f *testing.F) {
	for _, s := range []string{
		"Authorization: token bly_1_x\r\n", "X_Bailey_User: a\r\nConnection: authorization\r\n", "Cookie: __Host-bailey=a; b=c\r\n",
		"cOOKIE:__hOST-bAILEY-ws-1=a;__Host-bailey\r\n", "Connection: x-a,\r\nX-A: b\r\n", "X.Forwarded.For: 1\r\n", "Referer: https://ada-1f00.localhost:8443/?token=bly_\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n" + text + "\r\n")))
		if err != nil {
			return
		}
		out := requestFor(t, r.Header).upstreamHeader(secret.New("run-secret"))
		if got := out["Authorization"]; len(got) != 1 || got[0] != "token run-secret" {
			t.Errorf("%q: Authorization = %q", text, got)
		}
		for name, values := range out {
			alias := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
			for _, bad := range []string{
				"forwarded", "x-real-ip", "remote-user", "connection", "transfer-encoding", "content-length", "upgrade", "host", "te", "trailer", "via",
			} {
				if alias == bad {
					t.Errorf("%q: %s: %q went upstream", text, name, values)
				}
			}
			for _, bad := range []string{"x-forwarded", "x-bailey", "x-remote-", "x-jupyterhub", "proxy", "sec-websocket"} {
				if strings.HasPrefix(alias, bad) {
					t.Errorf("%q: %s: %q went upstream", text, name, values)
				}
			}
		}
		for _, line := range out["Cookie"] {
			for part := range strings.SplitSeq(line, ";") {
				if name, _, _ := strings.Cut(part, "="); strings.HasPrefix(strings.ToLower(strings.TrimSpace(name)), "__host-bailey") {
					t.Errorf("%q: cookies %q went upstream", text, line)
				}
			}
		}
		for _, line := range append(out["Referer"], out["Origin"]...) {
			if !strings.HasPrefix(line, upstreamOrigin) || strings.Contains(line, "bly_") {
				t.Errorf("%q: %q went upstream", text, line)
			}
		}
	})
}

// FuzzSetCookie: what comes through is one cookie with a name of its own, for
// its host alone, by HTTPS alone; and it says no more than what was sent.
func FuzzSetCookie(f *testing.F) {
	for _, s := range []string{
		"a=b", "__Host-bailey=x", "=__Host-bailey=x", " __HOST-bailey-ws-1 =x; Path=/", "a=b; domain=.x; DOMAIN = y;Domain", "a=b;;; Secure;secure", "a", "a=\"b;c\"",
		"__Host-bailey\u00a0=x", "a=b; Expires=Wed, 21 Oct 2099 07:28:00 GMT",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		out, ok := filterSetCookie(line)
		if !ok {
			return
		}
		if strings.ContainsAny(out, "\r\n\x00") || len(out) > maxSetCookie+20 {
			t.Errorf("%q becomes %q", line, out)
		}
		pair, attributes, _ := strings.Cut(out, ";")
		name, _, _ := strings.Cut(pair, "=")
		if name == "" || strings.HasPrefix(strings.ToLower(strings.TrimSpace(name)), "__host-bailey") {
			t.Errorf("%q becomes %q: the name is ours", line, out)
		}
		secure := false
		for attr := range strings.SplitSeq(attributes, ";") {
			key, _, _ := strings.Cut(attr, "=")
			secure = secure || strings.EqualFold(strings.TrimSpace(key), "secure")
			if strings.EqualFold(strings.TrimSpace(key), "domain") {
				t.Errorf("%q becomes %q: it has a domain", line, out)
			}
		}
		if !secure {
			t.Errorf("%q becomes %q: it goes by HTTP", line, out)
		}
		if again, ok := filterSetCookie(out); ok && again != out {
			t.Errorf("%q becomes %q, and that %q", line, out, again)
		}
	})
}

// FuzzWantedPath: where a hand-off leads is a path on the same host, as
// browsers read it.
func FuzzWantedPath(f *testing.F) {
	for _, s := range []string{"/", "/lab", "//evil", "/\\evil", "/\t/evil", "https:evil", "/%2f%2fevil", "/.bailey/enter", "/%2e%62ailey/x", "/?a=//b#c", "/ /", "\u3002", "/\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := cleanPath(path)
		if got != "/" && got != path {
			t.Errorf("cleanPath(%q) = %q", path, got)
		}
		r, err := http.NewRequest(http.MethodGet, "https://ada.localhost:8443/.bailey/enter", nil)
		if err != nil {
			t.Fatal(err)
		}
		to, err := r.URL.Parse(got)
		if err != nil || to.Host != "ada.localhost:8443" || to.Scheme != "https" || to.User != nil || ownPath(to.Path) {
			t.Errorf("cleanPath(%q) = %q, which leads to %v, %v", path, got, to, err)
		}
		if strings.ContainsAny(got, "\\\t\r\n #") || len(got) > 1 && (got[1] == '/' || got[1] == '\\') {
			t.Errorf("cleanPath(%q) = %q", path, got)
		}
	})
}

// FuzzSplitQuery: no token of ours stays, and nothing else goes.
func FuzzSplitQuery(f *testing.F) {
	for _, s := range []string{"", "token=bly_1", "a=b&token=bly_1&c", "%74oken=bly%5f1", "token=x", "&&=", "token=bly_1;x=y", "%zz=bly_"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		rest, tokens := splitQuery(raw)
		if again, more := splitQuery(rest); again != rest || len(more) != 0 {
			t.Errorf("splitQuery(%q) left %q, of which %q is left", raw, rest, again)
		}
		for _, token := range tokens {
			if !strings.HasPrefix(token, tokenPrefix) {
				t.Errorf("splitQuery(%q) took %q for a token", raw, token)
			}
		}
		if len(tokens) == 0 && rest != raw {
			t.Errorf("splitQuery(%q) = %q without a token", raw, rest)
		}
	})
}

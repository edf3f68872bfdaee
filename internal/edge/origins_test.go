package edge

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func origins(tb testing.TB, c OriginConfig) *Origins {
	tb.Helper()
	o, err := NewOrigins(c)
	if err != nil {
		tb.Fatalf("NewOrigins(%+v): %v", c, err)
	}
	return o
}

// request returns a request with the Host that arrived at a local port.
func request(host string, port int) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "https://placeholder/", nil)
	r.Host = host
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
}

func TestNewOrigins(t *testing.T) {
	tests := []struct {
		name string
		in   OriginConfig
		want string // part of the error; empty: none
	}{
		{"localhost", OriginConfig{Mode: "localhost", Port: 8443}, ""},
		{"localhost with a host", OriginConfig{Mode: "localhost", Host: "example.org", Port: 8443}, "the host is localhost"},
		{"subdomain", OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "apps.example.net", Port: 443}, ""},
		{"workspaces under the console", OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "hub.example.org", Port: 443}, ""},
		{"no domain", OriginConfig{Mode: "subdomain", Host: "hub.example.org", Port: 443}, "two DNS names"},
		{"domain with a path", OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "example.org/x", Port: 443}, "two DNS names"},
		{"address as a domain", OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "10.0.0.1", Port: 443}, "use mode port"},
		{"port", OriginConfig{Mode: "port", Host: "192.0.2.7", Port: 8443, Ports: [2]int{9000, 9099}}, ""},
		{"port by IPv6", OriginConfig{Mode: "port", Host: "2001:db8::7", Port: 8443, Ports: [2]int{9000, 9099}}, ""},
		{"console in the range", OriginConfig{Mode: "port", Host: "192.0.2.7", Port: 9001, Ports: [2]int{9000, 9099}}, "lies in the workspaces' range"},
		{"range backwards", OriginConfig{Mode: "port", Host: "192.0.2.7", Port: 8443, Ports: [2]int{9099, 9000}}, "empty"},
		{"host with markup", OriginConfig{Mode: "port", Host: "<b>", Port: 8443, Ports: [2]int{9000, 9099}}, "neither an address"},
		{"no port", OriginConfig{Mode: "localhost"}, "between 1 and 65535"},
		{"path", OriginConfig{Mode: "path", Host: "hub.example.org", Port: 443}, ""},
		{"path without a host", OriginConfig{Mode: "path", Port: 443}, "neither an address"},
		{"unknown mode", OriginConfig{Mode: "paths", Port: 8443}, "unknown mode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewOrigins(tt.in)
			if got := errText(err); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("NewOrigins(%+v) = %q, want an error with %q", tt.in, got, tt.want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOriginsByHost(t *testing.T) {
	local := origins(t, OriginConfig{Mode: "localhost", Port: 8443})
	sub := origins(t, OriginConfig{Mode: "subdomain", Host: "Hub.example.org", Domain: "apps.example.net", Port: 443})
	tests := []struct {
		o       *Origins
		host    string
		slug    string
		console bool
		ok      bool
	}{
		{local, "localhost:8443", "", true, true},
		{local, "LOCALHOST:8443", "", true, true},
		{local, "ada-1f00.localhost:8443", "ada-1f00", false, true},
		{local, "ADA-1f00.LocalHost:8443", "ada-1f00", false, true},
		{local, "bob-2e11.localhost:8443", "bob-2e11", false, true},
		{local, "localhost", "", false, false},
		{local, "localhost:443", "", false, false},
		{local, "localhost:8444", "", false, false},
		{local, "localhost.:8443", "", false, false},
		{local, "ada-1f00.localhost.:8443", "", false, false},
		{local, "ada-1f00.localhost:9000", "", false, false},
		{local, "a.ada-1f00.localhost:8443", "", false, false},
		{local, ".localhost:8443", "", false, false},
		{local, "-a.localhost:8443", "", false, false},
		{local, "a_b.localhost:8443", "", false, false},
		{local, "127.0.0.1:8443", "", false, false},
		{local, "[::1]:8443", "", false, false},
		{local, "evil.example:8443", "", false, false},
		{local, "ada-1f00.localhost:8443.evil.example", "", false, false},
		{local, "ada@ada-1f00.localhost:8443", "", false, false},
		{local, "", "", false, false},
		{local, "\u212a1.localhost:8443", "", false, false}, // KELVIN SIGN, whose lower case is k
		{sub, "hub.example.org", "", true, true},
		{sub, "hub.example.org:443", "", true, true},
		{sub, "hub.example.org:80", "", false, false},
		{sub, "ada-1f00.apps.example.net", "ada-1f00", false, true},
		{sub, "ada-1f00.apps.example.net:443", "ada-1f00", false, true},
		{sub, "ada-1f00.hub.example.org", "", false, false},
		{sub, "apps.example.net", "", false, false},
		{sub, "ada-1f00xapps.example.net", "", false, false},
		{sub, strings.Repeat("a", 64) + ".apps.example.net", "", false, false},
	}
	for _, tt := range tests {
		slug, console, ok := tt.o.Match(request(tt.host, 8443))
		if slug != tt.slug || console != tt.console || ok != tt.ok {
			t.Errorf("%s: Match(%q) = %q, %v, %v, want %q, %v, %v",
				tt.o.cfg.Mode, tt.host, slug, console, ok, tt.slug, tt.console, tt.ok)
		}
	}
	for got, want := range map[string]string{
		local.Console():             "https://localhost:8443",
		local.Workspace("ada-1f00"): "https://ada-1f00.localhost:8443",
		local.Workspace("a.b"):      "",
		local.Workspace("A"):        "",
		sub.Console():               "https://hub.example.org",
		sub.Workspace("ada-1f00"):   "https://ada-1f00.apps.example.net",
	} {
		if got != want {
			t.Errorf("origin = %q, want %q", got, want)
		}
	}
}

func TestOriginsByPort(t *testing.T) {
	o := origins(t, OriginConfig{Mode: "port", Host: "192.0.2.7", Port: 8443, Ports: [2]int{9000, 9001}})
	ada, bob := o.Workspace("ada-1f00"), o.Workspace("bob-2e11")
	if again := o.Workspace("ada-1f00"); again != ada || ada == bob || ada == "" || bob == "" {
		t.Fatalf("origins = %q, %q, again %q: want two different ones, stable", ada, bob, again)
	}
	if got := o.Workspace("eve-0000"); got != "" {
		t.Errorf("origin when the range is used up = %q, want none", got)
	}
	portOf := func(origin string) int { return o.bySlug[map[string]string{ada: "ada-1f00", bob: "bob-2e11"}[origin]] }
	adaHost := strings.TrimPrefix(ada, "https://")
	if slug, console, ok := o.Match(request(adaHost, portOf(ada))); slug != "ada-1f00" || console || !ok {
		t.Errorf("Match(%q at its port) = %q, %v, %v, want ada's", adaHost, slug, console, ok)
	}
	// The port decides, and a Host that says otherwise is nobody's.
	for _, r := range []*http.Request{
		request(adaHost, portOf(bob)), request(adaHost, 8443), request("192.0.2.7:8443", portOf(ada)),
		request("192.0.2.7", portOf(ada)), request("evil.example", 8443),
	} {
		if slug, console, ok := o.Match(r); ok || console || slug != "" {
			t.Errorf("Match(Host %q at port %d) = %q, %v, %v, want nobody", r.Host, localPort(r), slug, console, ok)
		}
	}
	if _, console, ok := o.Match(request("192.0.2.7:8443", 8443)); !console || !ok {
		t.Errorf("the console's own address does not match")
	}
	o.Release("bob-2e11")
	if got := o.Workspace("eve-0000"); got != bob {
		t.Errorf("origin after a release = %q, want the freed %q", got, bob)
	}
	// Another start of the server gives the same first choice.
	next := origins(t, o.cfg)
	if got := next.Workspace("ada-1f00"); got != ada {
		t.Errorf("origin after a restart = %q, want %q as before", got, ada)
	}
}

func TestCertHosts(t *testing.T) {
	for _, tt := range []struct {
		c    OriginConfig
		want []string
	}{
		{OriginConfig{Mode: "localhost", Port: 8443}, []string{"*.localhost", "127.0.0.1", "::1", "localhost"}},
		{OriginConfig{Mode: "subdomain", Host: "hub.example.org", Domain: "apps.example.net", Port: 443}, []string{"*.apps.example.net", "hub.example.org"}},
		{OriginConfig{Mode: "port", Host: "192.0.2.7", Port: 8443, Ports: [2]int{9000, 9001}}, []string{"192.0.2.7", "127.0.0.1"}},
	} {
		got := origins(t, tt.c).CertHosts()
		for _, want := range tt.want {
			if !slices.Contains(got, want) {
				t.Errorf("CertHosts in mode %s = %q, want %q among them", tt.c.Mode, got, want)
			}
		}
	}
}

// FuzzMatch: whatever a Host header says, what matches is exactly an origin
// that we gave out, so two spellings never mean one workspace.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"localhost:8443", "a.localhost:8443", "A.LOCALHOST:8443", "a.localhost.:8443", "a..localhost:8443", "\x00.localhost:8443", "a.localhost:8443@evil", "[::1]:8443"} {
		f.Add(s)
	}
	o := origins(f, OriginConfig{Mode: "localhost", Port: 8443})
	f.Fuzz(func(t *testing.T, host string) {
		slug, console, ok := o.Match(request(host, 8443))
		if !ok {
			if slug != "" || console {
				t.Errorf("Match(%q) = %q, %v though it did not match", host, slug, console)
			}
			return
		}
		want := o.Console()
		if !console {
			want = o.Workspace(slug)
		}
		if got := "https://" + strings.ToLower(host); got != want {
			t.Errorf("Match(%q) = %q, %v: its origin is %q", host, slug, console, want)
		}
	})
}

// In path mode a workspace is known by its path, in the one spelling it has.
func TestMatchByPath(t *testing.T) {
	o, err := NewOrigins(OriginConfig{Mode: "path", Host: "Hub.example.org", Port: 443})
	if err != nil {
		t.Fatal(err)
	}
	if got := o.Workspace("ada-1f00") + " " + o.Base("ada-1f00") + " " + o.Workspace("../x"); got != "https://hub.example.org/w/ada-1f00 /w/ada-1f00 " {
		t.Errorf("addresses: %q", got)
	}
	for target, want := range map[string]string{
		"/": "console", "/w": "console", "/w/": "console", "/workspaces": "console", "/w/Ada/": "console", "/w/%61da/": "console", "/w%2fada/": "console",
		"/w/ada": "ada", "/w/ada/": "ada", "/w/ada/api/contents/a%2Fb": "ada", "/w/ada/../bob/": "ada", "/w/ada%2f..%2fbob/": "console", "/w/-/": "console", "/W/ada/": "console", "//w/ada/": "console",
	} {
		r := httptest.NewRequest("GET", "https://hub.example.org"+target, nil)
		slug, console, ok := o.Match(r)
		if got := map[bool]string{true: "console", false: slug}[console]; got != want || !ok {
			t.Errorf("Match(%s) = %q, %v, %v; want %q", target, slug, console, ok, want)
		}
	}
	for _, host := range []string{"ada.hub.example.org", "evil.example.org", "hub.example.org.", "hub.example.org:8443"} {
		r := httptest.NewRequest("GET", "https://"+host+"/w/ada/", nil)
		if slug, console, ok := o.Match(r); ok {
			t.Errorf("Match(host %s) = %q, %v, %v; want neither", host, slug, console, ok)
		}
	}
	for mode, want := range map[OriginConfig]string{
		{Mode: "localhost", Port: 1}: "__Host-bailey-step",
		{Mode: "subdomain", Host: "a.example.org", Domain: "b.example.org", Port: 1}: "__Host-bailey-step",
		{Mode: "port", Host: "192.0.2.7", Port: 1, Ports: [2]int{2, 3}}:              "__Host-Http-bailey-step",
		{Mode: "path", Host: "192.0.2.7", Port: 1}:                                   "__Host-Http-bailey-step",
	} {
		o, err := NewOrigins(mode)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Cookie("step"); got != want {
			t.Errorf("cookie in mode %s = %s, want %s", mode.Mode, got, want)
		}
	}
}

package edge

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Somebody types the address without https:// and is sent on, to the same page
// of the same origin and to nowhere else. A program that sends a token or a
// password in the clear is told, because a redirect would hide it for years.
func TestPlainHTTP(t *testing.T) {
	sub, err := NewOrigins(OriginConfig{Mode: ModeSubdomain, Host: "hub.example.org", Port: 443, Domain: "apps.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	ports, err := NewOrigins(OriginConfig{Mode: ModePort, Host: "192.0.2.1", Port: 8443, Ports: [2]int{9000, 9009}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		o                  *Origins
		method, host, path string
		header             string
		status             int
		location           string
	}{
		{sub, "GET", "hub.example.org", "/workspaces?x=1%2F2", "", 308, "https://hub.example.org/workspaces?x=1%2F2"},
		{sub, "GET", "HUB.example.org:80", "/", "", 308, "https://hub.example.org/"},
		{sub, "HEAD", "ada-nb.apps.example.net", "/lab", "", 308, "https://ada-nb.apps.example.net/lab"},
		{ports, "GET", "192.0.2.1:8080", "/", "", 308, "https://192.0.2.1:8443/"},
		{sub, "GET", "evil.example.com", "/", "", 421, ""},
		{sub, "GET", "a.b.apps.example.net", "/", "", 421, ""},
		{sub, "GET", "hub.example.org@evil.example.com", "/", "", 421, ""},
		{sub, "GET", "", "/", "", 421, ""},
		{ports, "GET", "x.192.0.2.1", "/", "", 421, ""},
		{sub, "POST", "hub.example.org", "/login", "", 403, ""},
		{sub, "GET", "hub.example.org", "/api/v1/workspaces", "", 403, ""},
		{sub, "GET", "hub.example.org", "/", "Authorization", 403, ""},
		{sub, "GET", "hub.example.org", "//evil.example.com/x", "", 308, "https://hub.example.org//evil.example.com/x"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, "http://hub.example.org"+tt.path, nil)
		r.Host = tt.host
		if tt.header != "" {
			r.Header.Set(tt.header, "Bearer bly_secret")
		}
		w := httptest.NewRecorder()
		sendToHTTPS(w, r, tt.o)
		if w.Code != tt.status || w.Header().Get("Location") != tt.location {
			t.Errorf("%s http://%s%s: %d to %q, want %d to %q", tt.method, tt.host, tt.path, w.Code, w.Header().Get("Location"), tt.status, tt.location)
		}
		if w.Header().Get("Set-Cookie") != "" || w.Header().Get("Strict-Transport-Security") != "" {
			t.Errorf("%s: plain HTTP sets a cookie or HSTS, which browsers must not believe", tt.path)
		}
	}
}

// The listener opens beside the HTTPS one and closes with it.
func TestPlainHTTPOpensAndCloses(t *testing.T) {
	o, err := NewOrigins(OriginConfig{Mode: ModePort, Host: "127.0.0.1", Port: 8443, Ports: [2]int{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	o.cfg.Mode = ModeLocalhost // no ports of workspaces to open
	certs, err := NewCerts(CertConfig{Dir: t.TempDir(), Hosts: o.CertHosts})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(t.Context(), ServerConfig{Addr: "127.0.0.1:0", Plain: "127.0.0.1:0", Handler: http.NotFoundHandler(), Certs: certs, Origins: o})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.plainLn.Addr().String()+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 308 || !strings.HasPrefix(resp.Header.Get("Location"), "https://127.0.0.1:8443/x") {
		t.Errorf("%d %s %s", resp.StatusCode, resp.Header.Get("Location"), text)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

package edge

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/edge/peer"
)

func trust(tb testing.TB, nets ...string) peer.Trust {
	tb.Helper()
	t, err := peer.ParseTrust(nets)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// caller tells who the server thinks is calling, and by which headers a handler
// could think otherwise.
func caller(w http.ResponseWriter, r *http.Request) {
	var left []string
	for name := range r.Header {
		if strings.Contains(strings.ToLower(name), "forward") || strings.Contains(strings.ToLower(name), "real") {
			left = append(left, name)
		}
	}
	fmt.Fprintf(w, "%s %q", ClientIP(r), left)
}

// Attack 7: nobody whom the administrator did not list chooses the address that
// limits, allow-lists and the journal go by; and who is listed cannot be used
// to choose one either.
func TestAttack07NobodyChoosesTheirAddress(t *testing.T) {
	spoof := "X-Forwarded-For: 203.0.113.9\r\nX_Forwarded_For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Forwarded-Host: evil\r\n"
	for _, tt := range []struct {
		name    string
		trusted []string
		lines   string
		want    string
	}{
		{"by default", nil, spoof, "127.0.0.1"},
		{"somebody else is trusted", []string{"192.0.2.0/24"}, spoof, "127.0.0.1"},
		{"through a trusted proxy", []string{"127.0.0.0/8"}, "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n", "198.51.100.7"},
		{"through twenty", []string{"127.0.0.0/8", "10.0.0.0/8"}, "X-Forwarded-For: 203.0.113.9, 198.51.100.7" + strings.Repeat(", 10.0.0.1", 20) + "\r\n", "198.51.100.7"},
		{"through a trusted proxy that says nothing", []string{"127.0.0.0/8"}, "Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n", "127.0.0.1"},
	} {
		h := serve(t, http.HandlerFunc(caller), func(c *ServerConfig) { c.Proxies = trust(t, tt.trusted...) })
		_, body := h.raw(t, "GET / HTTP/1.1\r\nHost: "+h.host("localhost")+"\r\n"+tt.lines+"Connection: close\r\n\r\n")
		if want := tt.want + " []"; body != want {
			t.Errorf("%s: the caller is %s, want %s", tt.name, body, want)
		}
	}
}

// A load balancer speaks for its callers by the PROXY protocol, everybody else
// only for themselves.
func TestAttack07ProxyHeaders(t *testing.T) {
	const header = "PROXY TCP4 198.51.100.7 127.0.0.1 4660 8443\r\n"
	ask := func(h *house, first string) (string, error) {
		c, err := net.Dial("tcp", h.Addr().String())
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, first); err != nil {
			return "", err
		}
		s := tls.Client(c, h.tls)
		fmt.Fprintf(s, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", h.host("localhost"))
		res, err := http.ReadResponse(bufio.NewReader(s), nil)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	balanced := serve(t, http.HandlerFunc(caller), func(c *ServerConfig) { c.Protocol = trust(t, "127.0.0.1") })
	if body, err := ask(balanced, header); err != nil || body != "198.51.100.7 []" {
		t.Errorf("through the load balancer: %q, %v", body, err)
	}
	if body, err := ask(balanced, ""); err == nil {
		t.Errorf("without a header the load balancer is served as %q", body)
	}
	for name, nets := range map[string][]string{"by default": nil, "another is listed": {"192.0.2.1"}} {
		h := serve(t, http.HandlerFunc(caller), func(c *ServerConfig) { c.Protocol = trust(t, nets...) })
		if body, err := ask(h, header); err == nil {
			t.Errorf("%s: a stranger's PROXY header is served as %q", name, body)
		}
		if body, err := ask(h, ""); err != nil || body != "127.0.0.1 []" {
			t.Errorf("%s: without one: %q, %v", name, body, err)
		}
	}
}

// A connection that never sends its PROXY header holds up nobody else.
func TestSilentLoadBalancerHoldsNobodyUp(t *testing.T) {
	h := serve(t, http.HandlerFunc(caller), func(c *ServerConfig) { c.Protocol = trust(t, "127.0.0.1"); c.MaxConnsPerAddr = 2 })
	for range 4 { // more than one stranger may have
		c, err := net.Dial("tcp", h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "PROXY TCP4 198.51.100.7 127.0.0.1 4660 8443\r\n")
	if err := tls.Client(c, h.tls).Handshake(); err != nil {
		t.Errorf("behind silent connections: %v", err)
	}
}

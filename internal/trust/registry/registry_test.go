package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// A net of names: what a registry is called, where the name service puts it,
// and what answers there. Every address that is dialled is noted.
type network struct {
	names map[string][]string         // name → addresses, one answer each, the last one again
	serve map[string]http.HandlerFunc // address:port → what answers

	mu     sync.Mutex // guards the rest
	dialed []string
	asked  map[string]int
}

func (n *network) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.asked == nil {
		n.asked = map[string]int{}
	}
	all := n.names[host]
	if len(all) == 0 {
		return nil, fmt.Errorf("no such name %s", host)
	}
	i := min(n.asked[host], len(all)-1)
	n.asked[host]++
	return []netip.Addr{netip.MustParseAddr(all[i])}, nil
}

func (n *network) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialed = append(n.dialed, address)
	h, ok := n.serve[address]
	if !ok {
		return nil, fmt.Errorf("nothing answers at %s", address)
	}
	here, there := net.Pipe()
	l := &oneConn{conn: there, done: make(chan struct{})}
	go func() { _ = http.Serve(l, h) }() //nolint:gosec // a test; it ends with its connection
	return here, nil
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	once bool
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.once {
		<-l.done
		return nil, net.ErrClosed
	}
	l.once = true
	return l.conn, nil
}
func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) registry(t *testing.T, more ...func(*registry.Config)) *registry.Registry {
	t.Helper()
	cfg := registry.Config{Dial: n.dial, Lookup: n.lookup, Plain: []string{"registry.example.org", "inside.example.org"}, Timeout: 5 * time.Second}
	for _, m := range more {
		m(&cfg)
	}
	r, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var manifest, _, _ = trusttest.ImageManifest("app")

func ref(host string) trust.Reference {
	return trust.Reference{Repository: host + "/team/app", Digest: trusttest.Digest(manifest)}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

// TestAttack17LedIntoTheHouse: a registry, or whoever sits between, sends us to
// addresses that it could not reach itself.
func TestAttack17LedIntoTheHouse(t *testing.T) {
	const outside, inside = "203.0.113.9", "10.1.2.3"
	realm := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, to))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for name, tt := range map[string]struct {
		names  map[string][]string
		answer http.HandlerFunc
	}{
		"redirect to the metadata service": {nil, redirect("http://169.254.169.254/latest/meta-data/")},
		"redirect to this machine":         {nil, redirect("http://127.0.0.1:8443/")},
		"redirect to localhost":            {nil, redirect("http://localhost:8443/")},
		"redirect into the house":          {nil, redirect("http://" + inside + "/")},
		"redirect to a name in the house":  {map[string][]string{"wiki.example.org": {inside}}, redirect("http://wiki.example.org/")},
		"redirect to a name of loopback":   {map[string][]string{"me.example.org": {"127.0.0.1"}}, redirect("http://me.example.org/")},
		"IPv4 in IPv6":                     {nil, redirect("http://[::ffff:169.254.169.254]/")},
		"IPv4 behind NAT64":                {nil, redirect("http://[64:ff9b::a9fe:a9fe]/")},
		"nowhere":                          {nil, redirect("http://0.0.0.0/")},
		"token service in the house":       {nil, realm("http://" + inside + "/token")},
		"token service without TLS":        {map[string][]string{"auth.example.org": {outside}}, realm("http://auth.example.org/token")},
		"token service on loopback":        {nil, realm("https://127.0.0.1/token")},
		"another protocol":                 {nil, redirect("file:///etc/passwd")},
		"with somebody's name":             {nil, redirect("http://user:pw@registry.example.org/")},
	} {
		t.Run(name, func(t *testing.T) {
			n := &network{names: map[string][]string{"registry.example.org": {outside}}, serve: map[string]http.HandlerFunc{outside + ":80": tt.answer}}
			maps.Copy(n.names, tt.names)
			_, err := n.registry(t).Collect(t.Context(), ref("registry.example.org"), trust.Want{})
			if err == nil {
				t.Fatal("collected")
			}
			for _, d := range n.dialed {
				if d != outside+":80" {
					t.Errorf("dialled %s", d)
				}
			}
		})
	}
	t.Run("the name moves into the house", func(t *testing.T) {
		n := &network{
			names: map[string][]string{"registry.example.org": {outside, "127.0.0.1"}},
			serve: map[string]http.HandlerFunc{outside + ":80": redirect("/elsewhere"), "127.0.0.1:80": func(http.ResponseWriter, *http.Request) { t.Error("loopback was asked") }},
		}
		r := n.registry(t)
		for range 3 {
			_, _ = r.Collect(t.Context(), ref("registry.example.org"), trust.Want{})
		}
	})
	t.Run("a registry of the house may send us about the house", func(t *testing.T) {
		n := &network{
			names: map[string][]string{"inside.example.org": {inside}},
			serve: map[string]http.HandlerFunc{inside + ":80": redirect("http://10.9.9.9/x"), "10.9.9.9:80": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(manifest) }},
		}
		if _, err := n.registry(t).Collect(t.Context(), ref("inside.example.org"), trust.Want{}); err == nil && len(n.dialed) < 2 {
			t.Errorf("dialled %v", n.dialed)
		}
		if !strings.Contains(fmt.Sprint(n.dialed), "10.9.9.9:80") {
			t.Errorf("dialled %v, want the storage inside the house too", n.dialed)
		}
	})
}

// TestAttack17CredentialsStayAtHome follows a redirect and a token service with
// a password that is only for the registry.
func TestAttack17CredentialsStayAtHome(t *testing.T) {
	const a, b = "203.0.113.9", "203.0.113.66"
	password := secret.New("hunter2")
	creds := func(c *registry.Config) {
		c.Credentials = func(host string) (string, secret.Value, bool) {
			return "user", password, host == "registry.example.org"
		}
	}
	var mu sync.Mutex
	seen := map[string][]string{}
	note := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[r.Host] = append(seen[r.Host], r.Header.Get("Authorization"))
			mu.Unlock()
			h(w, r)
		}
	}
	n := &network{
		names: map[string][]string{"registry.example.org": {a}, "evil.example.com": {b}},
		serve: map[string]http.HandlerFunc{
			a + ":80": note(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, "http://evil.example.com/blob", http.StatusTemporaryRedirect)
			}),
			b + ":80": note(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(manifest) }),
		},
	}
	_, _ = n.registry(t, creds).Collect(t.Context(), ref("registry.example.org"), trust.Want{})
	if got := seen["evil.example.com"]; len(got) == 0 || strings.Join(got, "") != "" {
		t.Errorf("the storage got %q, want requests without credentials", got)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:hunter2"))
	if got := seen["registry.example.org"]; len(got) < 2 || got[1] != want {
		t.Errorf("the registry got %q, want the password on the second try", got)
	}
}

// TestOfflineIsOffline: a decision on what is stored, and a refusal of what no
// rule names, send no packet; the dialer fails the test on any.
func TestOfflineIsOffline(t *testing.T) {
	n := &network{}
	r := n.registry(t, func(c *registry.Config) {
		c.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
			t.Errorf("a packet to %s", address)
			return nil, net.ErrClosed
		}
		c.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			t.Errorf("a question about %s", host)
			return nil, net.ErrClosed
		}
	})
	trusttest.Offline(t, r)
}

// TestSlowRegistry is given up on in its time, and says so.
func TestSlowRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := registry.New(registry.Config{
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil
			},
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = r.Collect(t.Context(), ref("slow.example.org"), trust.Want{})
		if took := time.Since(begin); err == nil || took > 8*time.Second {
			t.Errorf("%v after %s, want a failure within 8s", err, took)
		}
	})
}

// TestTokenService is the way through a registry that asks for a token, as the
// public ones do.
func TestTokenService(t *testing.T) {
	reg := trusttest.NewRegistry(t, true)
	d := reg.Image("team/app", "v1", "app")
	var tokens int
	auth := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens++
		if got := r.URL.Query().Get("scope"); got != "repository:team/app:pull" {
			t.Errorf("scope %q, want pull of this repository and no more", got)
		}
		fmt.Fprint(w, `{"token":"t0k","expires_in":300}`)
	}))
	defer auth.Close()
	reg.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer t0k" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+auth.URL+`/token",service="registry",scope="repository:other/repo:pull,push"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	tlsCfg := auth.Client().Transport.(*http.Transport).TLSClientConfig
	r, err := registry.New(registry.Config{TLS: tlsCfg})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ev, err := r.Collect(t.Context(), reg.Ref("team/app", d), trust.Want{})
		if err != nil || len(ev.Items) != 1 {
			t.Fatalf("Collect: %+v, %v", ev, err)
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were asked for, want one", tokens)
	}
}

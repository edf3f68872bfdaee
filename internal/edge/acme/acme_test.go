package acme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // pebble logs with it
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/edge/acme"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/store"
)

// A world has Let's Encrypt's own test authority (pebble), a DNS server that
// says every name is 127.0.0.1, and a server of ours. All on loopback.
type world struct {
	*testing.T

	authority *httptest.Server
	roots     *x509.CertPool // of the directory itself
	issued    *x509.CertPool // of what it issues
	http      net.Listener
	https     net.Listener
	txt       string // folder with TXT records, a file for each
	store     *store.Store
}

func newWorld(t *testing.T, eab map[string]string) *world {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	w := &world{T: t, http: listen(t), https: listen(t), txt: t.TempDir(), roots: x509.NewCertPool(), issued: x509.NewCertPool()}
	quiet := log.New(io.Discard, "", 0)
	records := db.NewMemoryStore()
	for id, key := range eab {
		if err := records.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	issuer := ca.New(quiet, records, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default"}})
	validator := va.New(quiet, port(w.http), port(w.https), false, w.dns(), records)
	front := wfe.New(quiet, records, validator, issuer, []string{"pebble.example"}, true, len(eab) > 0, 1, 1)
	w.authority = httptest.NewTLSServer(front.Handler())
	t.Cleanup(w.authority.Close)
	w.roots.AddCert(w.authority.Certificate())
	w.issued.AddCert(issuer.GetRootCert(0).Cert)
	var err error
	if w.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "db"), Key: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // listen makes TCP

// dns answers what the authority asks: addresses, and the records of the hook.
func (w *world) dns() string {
	ln := listen(w.T)
	srv := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		switch q.Question[0].Qtype {
		case dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
		case dns.TypeTXT:
			lines, _ := os.ReadFile(filepath.Join(w.txt, strings.ToLower(name)))
			for v := range strings.FieldsSeq(string(lines)) {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{v}})
			}
		}
		_ = rw.WriteMsg(m)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	w.Cleanup(func() { _ = srv.Shutdown() })
	return ln.Addr().String()
}

// hook writes an administrator's program, as one would for a zone file.
func (w *world) hook() string {
	file := filepath.Join(w.TempDir(), "hook")
	program := fmt.Sprintf("#!/bin/sh\nset -eu\ncase $1 in\n"+
		"present) echo \"$3\" >> '%[1]s'/\"$2\" ;;\ncleanup) rm -f '%[1]s'/\"$2\" ;;\n*) exit 2 ;; esac\necho \"$1 $2\" >> '%[1]s/said'\n", w.txt)
	if err := os.WriteFile(file, []byte(program), 0o700); err != nil { //nolint:gosec // it is run
		w.Fatal(err)
	}
	return file
}

func (w *world) config(names []string, challenges ...string) acme.Config {
	return acme.Config{
		Directory: w.authority.URL + "/dir", Roots: w.roots, Email: "ops@example.org", Names: names,
		Challenges: challenges, HTTPPort: port(w.http), HTTPSPort: port(w.https), Store: sealed{w.store},
	}
}

// sealed gives locks as package app does.
type sealed struct{ *store.Store }

func (s sealed) TakeLock(ctx context.Context, name, holder string, ttl time.Duration) (func(context.Context, time.Duration) error, func(context.Context) error, error) {
	l, err := s.AcquireLock(ctx, name, holder, ttl)
	return func(ctx context.Context, d time.Duration) error { _, err := s.RenewLock(ctx, l, d); return err },
		func(ctx context.Context) error { return s.ReleaseLock(ctx, l) }, err
}

// serve runs our two listeners and the issuer, and returns the certificates.
func (w *world) serve(cfg acme.Config, origins edge.OriginConfig) *edge.Certs {
	w.Helper()
	issuer, err := acme.New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	o, err := edge.NewOrigins(origins)
	if err != nil {
		w.Fatal(err)
	}
	certs, err := edge.NewCerts(edge.CertConfig{Dir: w.TempDir(), Hosts: o.CertHosts, Issuer: issuer})
	if err != nil {
		w.Fatal(err)
	}
	hello := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello\n") })
	web := &http.Server{Handler: hello, TLSConfig: certs.TLSConfig(), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	plain := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !issuer.HandleHTTP(rw, r) {
			http.NotFound(rw, r)
		}
	})}
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = issuer.Run(ctx) })
	wg.Go(func() { _ = web.ServeTLS(w.https, "", "") })
	wg.Go(func() { _ = plain.Serve(w.http) })
	w.Cleanup(func() { cancel(); _ = web.Close(); _ = plain.Close(); wg.Wait() })
	return certs
}

// visit returns who vouches for name: "authority" or "own".
func (w *world) visit(name string) string {
	w.Helper()
	conn, err := tls.Dial("tcp", w.https.Addr().String(), &tls.Config{ServerName: name, RootCAs: w.issued, MinVersion: tls.VersionTLS12})
	if err != nil {
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
			w.Fatalf("visit %s: %v", name, err)
		}
		return "own"
	}
	defer conn.Close()
	return "authority"
}

// until waits for cond, a minute at most.
func (w *world) until(what string, cond func() bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			w.Fatalf("it never happens: %s", what)
		}
		select {
		case <-w.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var portOrigin = edge.OriginConfig{Mode: edge.ModePort, Host: "hub.example.org", Port: 443, Ports: [2]int{9000, 9001}}

// An administrator names an authority: it comes to our port, finds its proof
// there, and visitors' browsers accept us. Until then our own CA stands in. A
// second server on the same database has the certificate at once.
func TestACertificateFromAnAuthority(t *testing.T) {
	for _, challenge := range []string{acme.TLSALPN01, acme.HTTP01} {
		t.Run(challenge, func(t *testing.T) {
			w := newWorld(t, nil)
			certs := w.serve(w.config([]string{"hub.example.org"}, challenge), portOrigin)
			w.until("the authority vouches for us", func() bool { return w.visit("hub.example.org") == "authority" })
			if certs.CAFile() == "" {
				t.Error("the own CA, which stands in for other names, is not there")
			}
			if got := w.visit("localhost"); got != "own" {
				t.Errorf("localhost has a certificate of %s", got)
			}

			// A second server, and the first after a restart, asks nobody.
			cfg := w.config([]string{"hub.example.org"}, challenge)
			w.authority.Close()
			second, err := acme.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = second.Run(ctx) })
			defer func() { cancel(); wg.Wait() }()
			near, far := net.Pipe() // every handshake has a connection, and the library looks at it
			defer near.Close()      //nolint:errcheck // of a pipe
			defer far.Close()       //nolint:errcheck // of a pipe
			w.until("the second server has it too", func() bool {
				return second.Certificate(&tls.ClientHelloInfo{Conn: near, ServerName: "hub.example.org", SupportedVersions: []uint16{tls.VersionTLS13}}) != nil
			})
		})
	}
}

// Workspaces have a name each, so they need a wildcard, for which authorities
// want a DNS record. The administrator's program sets it and takes it away.
func TestAWildcardByDNS(t *testing.T) {
	w := newWorld(t, nil)
	cfg := w.config([]string{"hub.example.org", "*.apps.example.org"}, acme.DNS01)
	cfg.Hook = w.hook()
	w.serve(cfg, edge.OriginConfig{Mode: edge.ModeSubdomain, Host: "hub.example.org", Port: 443, Domain: "apps.example.org"})
	w.until("the authority vouches for both", func() bool {
		return w.visit("hub.example.org") == "authority" && w.visit("ada-notebook.apps.example.org") == "authority"
	})
	w.until("the records are gone again", func() bool {
		said, _ := os.ReadFile(filepath.Join(w.txt, "said"))
		return strings.Count(string(said), "present ") == 2 && strings.Count(string(said), "cleanup ") == 2
	})
	if _, err := os.Stat(filepath.Join(w.txt, "_acme-challenge.apps.example.org.")); err == nil {
		t.Error("a record stays")
	}
}

// Authorities that want to know their customers give a key to bind accounts to.
func TestAnExternalAccount(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	w := newWorld(t, map[string]string{"kid-1": key})
	cfg := w.config([]string{"hub.example.org"}, acme.TLSALPN01)
	cfg.KeyID, cfg.MACKey = "kid-1", secret.New(key)
	w.serve(cfg, portOrigin)
	w.until("the authority vouches for us", func() bool { return w.visit("hub.example.org") == "authority" })
}

// The account and the keys are in the database, sealed: who reads the file has
// nothing.
func TestKeysAreSealed(t *testing.T) {
	w := newWorld(t, nil)
	w.serve(w.config([]string{"hub.example.org"}, acme.TLSALPN01), portOrigin)
	w.until("the authority vouches for us", func() bool { return w.visit("hub.example.org") == "authority" })
	all, err := w.store.Files(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for _, f := range all {
		if !strings.HasPrefix(f.Name, "acme/") {
			t.Errorf("a file is called %s", f.Name)
		}
		if strings.HasSuffix(f.Name, ".key") {
			keys++
			content, err := w.store.ReadFile(t.Context(), f.Name)
			if err != nil || !strings.Contains(string(content), "PRIVATE KEY") {
				t.Errorf("%s: %v", f.Name, err)
			}
		}
	}
	if keys != 2 {
		t.Errorf("there are %d keys, want that of the account and that of the certificate", keys)
	}
}

// A stranger cannot make us look names up, get a proof for a name of theirs, or
// have a certificate issued by asking for it.
func TestStrangersGetNothing(t *testing.T) {
	w := newWorld(t, nil)
	counted := &counting{sealed: sealed{w.store}}
	cfg := w.config([]string{"hub.example.org"}, acme.TLSALPN01, acme.HTTP01)
	cfg.Store = counted
	issuer, err := acme.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = issuer.Run(ctx) }()
	defer func() { cancel(); <-done }()
	w.until("it has begun", func() bool { return counted.count() > 0 })
	for _, name := range []string{"evil.example.com", "x.hub.example.org", "", "hub.example.org.evil.example.com", "../../etc"} {
		if cert := issuer.Certificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"acme-tls/1"}}); cert != nil {
			t.Errorf("%q gets a certificate", name)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://ours/.well-known/acme-challenge/token", nil)
		r.Host = name
		if issuer.HandleHTTP(httptest.NewRecorder(), r) {
			t.Errorf("%q gets a proof", name)
		}
	}
	if slices.ContainsFunc(counted.names(), func(n string) bool { return strings.Contains(n, "evil") || strings.Contains(n, "etc") }) {
		t.Errorf("strangers' names reach the database: %q", counted.names())
	}
}

type counting struct {
	sealed

	mu   sync.Mutex
	read []string
}

func (c *counting) ReadFile(ctx context.Context, name string) ([]byte, error) {
	c.mu.Lock()
	c.read = append(c.read, name)
	c.mu.Unlock()
	return c.sealed.ReadFile(ctx, name)
}

func (c *counting) count() int { return len(c.names()) }

func (c *counting) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.read)
}

// What cannot work is refused at the start, not at the first renewal.
func TestConfigurationsThatCannotWork(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*acme.Config){
		"a wildcard without dns-01": func(c *acme.Config) { c.Names = []string{"*.apps.example.org"} },
		"dns-01 without a hook":     func(c *acme.Config) { c.Challenges = []string{acme.DNS01} },
		"no name":                   func(c *acme.Config) { c.Names = nil },
		"no challenge":              func(c *acme.Config) { c.Challenges = nil },
		"no directory":              func(c *acme.Config) { c.Directory = "" },
	} {
		cfg := w.config([]string{"hub.example.org"}, acme.TLSALPN01)
		change(&cfg)
		if _, err := acme.New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

package ldap_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/ldap"
	"github.com/baileyhq/bailey/internal/secret"
)

type ldapStep = external.Step

func tlsOf(c ldap.Config) *tls.Config {
	return &tls.Config{RootCAs: c.Roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// A hostile is a server that speaks LDAP without TLS and answers as a test says.
type hostile struct {
	addr string

	mu     sync.Mutex // guards heard
	heard  []string   // every octet string of every request
	answer func(app ber.Tag) []*ber.Packet
}

func newHostile(t *testing.T, answer func(app ber.Tag) []*ber.Packet) *hostile {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{addr: l.Addr().String(), answer: answer}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { h.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return h
}

func (h *hostile) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // a test's
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		p, err := ber.ReadPacket(c)
		if err != nil || len(p.Children) < 2 {
			return
		}
		h.mu.Lock()
		h.listen(p)
		h.mu.Unlock()
		for _, a := range h.answer(p.Children[1].Tag) {
			out := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
			out.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, p.Children[0].Value, ""))
			out.AppendChild(a)
			if _, err := c.Write(out.Bytes()); err != nil {
				return
			}
		}
	}
}

func (h *hostile) listen(p *ber.Packet) {
	if len(p.Children) == 0 {
		h.heard = append(h.heard, p.Data.String())
	}
	for _, c := range p.Children {
		h.listen(c)
	}
}

func (h *hostile) said(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.heard, func(s string) bool { return strings.Contains(s, what) })
}

func result(app ber.Tag, code int64) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, app, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	return p
}

func hostileConfig(addr string) ldap.Config {
	return ldap.Config{
		Name: "corp", Servers: []string{"ldap://" + addr}, Kind: ldap.OpenLDAP, Timeout: 2 * time.Second,
		BindDN: "cn=bailey,dc=example,dc=org", Password: secret.New("the-service-password"), UserBase: "dc=example,dc=org", GroupBase: "dc=example,dc=org",
	}
}

// Somebody in between takes StartTLS away, or says yes and goes on in the
// clear: not one password or name reaches them.
func TestStartTLSStripping(t *testing.T) {
	for name, code := range map[string]int64{"refused": goldap.LDAPResultProtocolError, "unavailable": goldap.LDAPResultUnavailable, "granted, then no TLS": goldap.LDAPResultSuccess} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t, func(app ber.Tag) []*ber.Packet {
				switch app {
				case goldap.ApplicationExtendedRequest:
					return []*ber.Packet{result(goldap.ApplicationExtendedResponse, code)}
				case goldap.ApplicationBindRequest:
					return []*ber.Packet{result(goldap.ApplicationBindResponse, 0)}
				}
				return nil
			})
			d := open(t, hostileConfig(h.addr))
			if _, ok, err := d.Find(t.Context(), "alice-the-user"); ok || bailey.KindOf(err) != bailey.Unavailable {
				t.Errorf("Find = %v, %v; want unavailable", ok, err)
			}
			right, err := d.Check(t.Context(), ldap.Entry{DN: "uid=alice,dc=example,dc=org"}, secret.New("her-password"))
			if right || bailey.KindOf(err) != bailey.Unavailable {
				t.Errorf("Check = %v, %v; want unavailable", right, err)
			}
			for _, word := range []string{"her-password", "the-service-password", "alice"} {
				if h.said(word) {
					t.Errorf("%q went over the network in the clear", word)
				}
			}
			if steps, _ := d.Test(t.Context(), ""); steps[0].OK || steps[0].Fix == "" {
				t.Errorf("the test says %+v", steps[0])
			}
		})
	}
}

// Without a certificate that is trusted there is no TLS, and without TLS
// nothing.
func TestNoTLSNothing(t *testing.T) {
	for _, server := range []string{"http://x", "ldap://", "ldapi:///x", "ldap://u:p@x", "ldap://x/dc=a", "x:389", ""} {
		cfg := hostileConfig("127.0.0.1:1")
		cfg.Servers = []string{server}
		if _, err := ldap.New(cfg); err == nil {
			t.Errorf("New accepts the server %q", server)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	for filter, want := range map[string]string{
		"(uid={login})": "", "(&(a=b)(|(uid={login})(mail={login})))": "",
		"(uid=alice)": "is not in it", "(uid={name})": "stands for nothing", "uid={login}": "not an LDAP filter", "(uid={login}": "not an LDAP filter", "": "is not in it",
	} {
		err := ldap.CheckFilter(filter, "{login}")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckFilter(%q) = %v, want %q", filter, err, want)
		}
	}
}

// Case and spaces of a DN are no difference; anything else is. What merely looks
// like an ASCII letter is none.
func TestSameGroup(t *testing.T) {
	const dn = "cn=Bailey Admins,ou=Groups,dc=example,dc=org"
	for meant, want := range map[string]bool{
		dn: true, "CN=bailey admins, OU=groups, DC=EXAMPLE, DC=ORG": true, "bailey admins": true, "Bailey Admins": true,
		"cn=bailey admins,ou=groups,dc=example": false, "cn=bailey admins,ou=sandbox,dc=example,dc=org": false, "bailey": false, "": false,
		"cn=bailey admins+x=y,ou=groups,dc=example,dc=org": false, "admins": false, "bailey admins ": false, "=": false, "cn=": false,
	} {
		if got := ldap.SameGroup(meant, dn); got != want {
			t.Errorf("SameGroup(%q) = %v, want %v", meant, got, want)
		}
	}
	for _, group := range []string{"cn=\u212aeys,dc=x", "cn=ſecret,dc=x", "", "nonsense", "cn=a,b"} {
		for _, meant := range []string{"keys", "secret", "", "cn=keys,dc=x", "cn=secret,dc=x"} {
			if ldap.SameGroup(meant, group) {
				t.Errorf("SameGroup(%q, %q)", meant, group)
			}
		}
	}
	if got := ldap.GroupName(`cn=Vision,ou=a,dc=b`); got != "vision" {
		t.Errorf("GroupName = %q", got)
	}
	// A comma in a name does not end it.
	if ldap.SameGroup("admins", `cn=x\,cn=admins,dc=b`) || ldap.GroupName(`cn=admins\,ou=x,dc=b`) == "admins" {
		t.Error("a comma in a name ends it")
	}
}

// Whatever somebody is called, the filter stays the question that it was.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"alice", "*)(uid=*", "a\x00", `\2a`, "(", ")", "ü", "\xff", "{dn}", "{login}"} {
		f.Add(s)
	}
	const filter = "(&(objectClass=person)(|(uid={login})(mail={login})))"
	want, err := goldap.CompileFilter(strings.ReplaceAll(filter, "{login}", "x"))
	if err != nil {
		f.Fatal(err)
	}
	shape := func(p *ber.Packet) (out []ber.Tag) {
		var walk func(p *ber.Packet)
		walk = func(p *ber.Packet) {
			out = append(out, p.Tag)
			for _, c := range p.Children {
				walk(c)
			}
		}
		walk(p)
		return out
	}
	f.Fuzz(func(t *testing.T, login string) {
		if login == "" {
			return
		}
		got, err := goldap.CompileFilter(ldap.Fill(filter, login))
		if err != nil {
			t.Fatalf("%q makes a filter that is none: %v", login, err)
		}
		if !slices.Equal(shape(got), shape(want)) {
			t.Errorf("%q changes the filter: %s", login, ldap.Fill(filter, login))
		}
		if v := got.Children[1].Children[0].Children[1].Data.String(); v != login {
			t.Errorf("%q is asked for as %q", login, v)
		}
	})
}

// Names of groups come from whoever may make groups.
func FuzzGroups(f *testing.F) {
	for _, s := range []string{"cn=a,dc=b", `cn=a\,b,dc=c`, "cn=#04024869", "=", `cn=\ff`, "cn=a+b=c,d=e"} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, dn, meant string) {
		name := ldap.GroupName(dn)
		if strings.Contains(meant, "=") || meant == "" {
			return
		}
		if ldap.SameGroup(meant, dn) && name == "" {
			t.Errorf("%q is %q and has no name", dn, meant)
		}
	})
}

// A server that says nothing is a down server, in bounded time.
func TestSilentServer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) || err != nil {
				return
			}
			go io.Copy(io.Discard, c) //nolint:errcheck // it only listens
		}
	}()
	for _, scheme := range []string{"ldap://", "ldaps://"} {
		cfg := hostileConfig(l.Addr().String())
		cfg.Servers, cfg.Timeout = []string{scheme + l.Addr().String()}, 100*time.Millisecond
		if _, ok, err := open(t, cfg).Find(t.Context(), "alice"); ok || bailey.KindOf(err) != bailey.Unavailable {
			t.Errorf("%s: %v, %v; want unavailable", scheme, ok, err)
		}
	}
}

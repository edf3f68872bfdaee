package ldap_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/ldap"
	"github.com/baileyhq/bailey/internal/secret"
)

// slapd is the directory that scripts/slapd.sh started.
type slapd map[string]string

func realSlapd(t *testing.T) slapd {
	t.Helper()
	dir := os.Getenv("BAILEY_TEST_SLAPD")
	if dir == "" {
		t.Skip("BAILEY_TEST_SLAPD is not set: see scripts/slapd.sh")
	}
	b, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	s := slapd{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		s[name] = value
	}
	return s
}

func (s slapd) config(t *testing.T, servers ...string) ldap.Config {
	t.Helper()
	pem, err := os.ReadFile(s["CA"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return ldap.Config{
		Name: "corp", Servers: servers, Roots: roots, CA: s["CA"], Kind: ldap.OpenLDAP,
		BindDN: "cn=bailey,ou=services," + s["BASE"], Password: secret.New("service-of-the-tests"),
		UserBase: "ou=people," + s["BASE"], GroupBase: "ou=groups," + s["BASE"],
	}
}

func open(t *testing.T, cfg ldap.Config) *ldap.Directory {
	t.Helper()
	d, err := ldap.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func password(name string) secret.Value { return secret.New("violet harbour " + name + " 62 lanterns") }

// On a real OpenLDAP, over LDAPS and over StartTLS: two people, each with their
// own password and not the other's, and their groups, nested ones included.
func TestSlapdPeople(t *testing.T) {
	s := realSlapd(t)
	for _, server := range []string{s["LDAPS"], s["LDAP"]} {
		d := open(t, s.config(t, server))
		alice, ok, err := d.Find(t.Context(), "alice")
		if err != nil || !ok || alice.Login != "alice" || len(alice.Subject) != 36 || alice.Locked {
			t.Fatalf("%s: Find(alice) = %+v, %v, %v", server, alice, ok, err)
		}
		bob, _, err := d.Find(t.Context(), "BOB") // directories fold case
		if err != nil || bob.Login != "bob" || bob.Subject == alice.Subject {
			t.Fatalf("Find(BOB) = %+v, %v", bob, err)
		}
		for _, tt := range []struct {
			who   ldap.Entry
			pass  secret.Value
			right bool
		}{
			{alice, password("alice"), true}, {alice, password("bob"), false}, {bob, password("bob"), true}, {bob, password("alice"), false},
			{alice, secret.New(""), false}, {alice, secret.New("\x00"), false}, {alice, secret.New(password("alice").Reveal() + "\x00"), false},
			{alice, secret.New(strings.Repeat("x", 5000)), false}, {ldap.Entry{}, password("alice"), false},
		} {
			if right, err := d.Check(t.Context(), tt.who, tt.pass); err != nil || right != tt.right {
				t.Errorf("Check(%s, …) = %v, %v; want %v", tt.who.DN, right, err, tt.right)
			}
		}
		// alice: research ⊂ vision ⊂ staff ⇄ circle.
		if got := names(alice.Groups); !slices.Equal(got, []string{"circle", "research", "staff", "vision"}) {
			t.Errorf("alice is in %q", got)
		}
		if got := names(bob.Groups); !slices.Equal(got, []string{"circle", "staff", "vision"}) {
			t.Errorf("bob is in %q", got)
		}
		again, ok, err := d.FindSubject(t.Context(), alice.Subject)
		if err != nil || !ok || again.DN != alice.DN {
			t.Errorf("FindSubject = %+v, %v, %v", again, ok, err)
		}
		if _, ok, err := d.FindSubject(t.Context(), "00000000-0000-0000-0000-000000000000"); ok || err != nil {
			t.Errorf("FindSubject(nobody) = %v, %v", ok, err)
		}
		if err := d.Decoy(t.Context()); err != nil {
			t.Errorf("Decoy: %v", err)
		}
	}
}

func names(groups []string) []string {
	var out []string
	for _, g := range groups {
		out = append(out, ldap.GroupName(g))
	}
	slices.Sort(out)
	return out
}

// Attack 18 on a real directory: what a stranger types is a value, never a part
// of the question.
func TestSlapdInjection(t *testing.T) {
	s := realSlapd(t)
	d := open(t, s.config(t, s["LDAPS"]))
	for _, login := range []string{
		"", "*", "*)(uid=*", "alice)(|(uid=*", "ali*", "alice\x00", "alice\n", "\xff", "nobody", `\2a`, "alice)(objectClass=*))(&(uid=x",
		"uid=alice,ou=people,dc=example,dc=org", " alice", "alice ", strings.Repeat("a", 300), ")", "(", `\`, "{dn}",
	} {
		if e, ok, err := d.Find(t.Context(), login); ok || err != nil {
			t.Errorf("Find(%q) = %s, %v, %v; want nobody", login, e.DN, ok, err)
		}
	}
	// And who really is called that is found.
	star, ok, err := d.Find(t.Context(), "a(b)c*")
	if err != nil || !ok {
		t.Fatalf("Find(a(b)c*) = %v, %v", ok, err)
	}
	if right, err := d.Check(t.Context(), star, password("star")); !right || err != nil {
		t.Errorf("Check = %v, %v", right, err)
	}
}

// A locked account is locked, and a group with the right name in the wrong
// place is another group.
func TestSlapdLockedAndLookAlike(t *testing.T) {
	s := realSlapd(t)
	d := open(t, s.config(t, s["LDAP"]))
	dave, ok, err := d.Find(t.Context(), "dave")
	if err != nil || !ok || !dave.Locked {
		t.Errorf("Find(dave) = %+v, %v, %v; want locked", dave, ok, err)
	}
	if right, err := d.Check(t.Context(), dave, password("dave")); right || err != nil {
		t.Errorf("dave's password: %v, %v; want refused", right, err)
	}
	mallory, _, err := d.Find(t.Context(), "mallory")
	if err != nil || len(mallory.Groups) != 0 {
		t.Errorf("mallory is in %q, %v; want none", mallory.Groups, err)
	}
	wide := s.config(t, s["LDAP"])
	wide.GroupBase = s["BASE"]
	mallory, _, _ = open(t, wide).Find(t.Context(), "mallory")
	if len(mallory.Groups) != 1 || ldap.SameGroup("cn=bailey-admins,ou=groups,"+s["BASE"], mallory.Groups[0]) {
		t.Errorf("mallory's %q passes for the administrators' group", mallory.Groups)
	}
}

// Of several servers the first that answers is asked; that one is down is no
// wrong password, and that all are is no answer.
func TestSlapdFailOver(t *testing.T) {
	s := realSlapd(t)
	d := open(t, s.config(t, "ldaps://127.0.0.1:1", s["LDAPS"]))
	alice, ok, err := d.Find(t.Context(), "alice")
	if err != nil || !ok {
		t.Fatalf("with one server down: %v, %v", ok, err)
	}
	if right, err := d.Check(t.Context(), alice, password("alice")); !right || err != nil {
		t.Errorf("Check = %v, %v", right, err)
	}
	d = open(t, s.config(t, "ldaps://127.0.0.1:1", "ldap://127.0.0.1:1"))
	if _, ok, err := d.Find(t.Context(), "alice"); ok || err == nil || bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("with every server down: %v, %v; want unavailable", ok, err)
	}
	if right, err := d.Check(t.Context(), alice, password("alice")); right || bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("Check = %v, %v; want unavailable", right, err)
	}
}

// Each mistake of an administrator says what it is and what to do.
func TestSlapdMistakes(t *testing.T) {
	s := realSlapd(t)
	for _, tt := range []struct {
		name        string
		change      func(*ldap.Config)
		login       string
		detail, fix string
	}{
		{"wrong CA", func(c *ldap.Config) { c.Roots, c.CA = x509.NewCertPool(), "/etc/other.pem" }, "", "signed by nobody whom this server trusts", "/etc/other.pem"},
		{"wrong CA, StartTLS", func(c *ldap.Config) { c.Roots, c.Servers = x509.NewCertPool(), []string{s["LDAP"]} }, "", "signed by nobody whom this server trusts", "set ca"},
		{"wrong name", func(c *ldap.Config) { c.Servers = []string{strings.Replace(s["LDAPS"], "127.0.0.1", "127.0.0.2", 1)} }, "", "127.0.0.2", "port"},
		{"plain port with ldaps", func(c *ldap.Config) { c.Servers = []string{strings.Replace(s["LDAP"], "ldap:", "ldaps:", 1)} }, "", "", ""},
		{"wrong bind DN", func(c *ldap.Config) { c.BindDN = "cn=nobody," + s["BASE"] }, "", "refuses bind_dn cn=nobody", "bind_password"},
		{"no bind DN at all", func(c *ldap.Config) { c.BindDN = "bailey" }, "", "is not a DN", "cn=bailey"},
		{"wrong bind password", func(c *ldap.Config) { c.Password = secret.New("wrong") }, "", "refuses bind_dn", "ldapwhoami"},
		{"wrong base", func(c *ldap.Config) { c.UserBase = "ou=nowhere," + s["BASE"] }, "", "ou=nowhere", "user_base"},
		{"wrong group base", func(c *ldap.Config) { c.GroupBase = "ou=nowhere," + s["BASE"] }, "alice", "ou=nowhere", "group_base"},
		{"unknown user", func(*ldap.Config) {}, "zoe", "(uid=zoe)", "user_filter"},
		{"disabled user", func(*ldap.Config) {}, "dave", "disabled", "enable"},
		{"an attribute that nobody has", func(c *ldap.Config) { c.IDAttr = "objectGUID" }, "alice", "no usable objectGUID", "id_attribute"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := s.config(t, s["LDAPS"])
			tt.change(&cfg)
			steps, _ := open(t, cfg).Test(t.Context(), tt.login)
			i := slices.IndexFunc(steps, func(s ldapStep) bool { return !s.OK })
			if i < 0 {
				t.Fatalf("everything works: %+v", steps)
			}
			if !strings.Contains(steps[i].Detail, tt.detail) || !strings.Contains(steps[i].Fix, tt.fix) || steps[i].Fix == "" {
				t.Errorf("it says %+v, want %q and %q", steps[i], tt.detail, tt.fix)
			}
		})
	}
	steps, e := open(t, s.config(t, s["LDAPS"], s["LDAP"])).Test(t.Context(), "alice")
	for _, step := range steps {
		if !step.OK {
			t.Errorf("%+v", step)
		}
	}
	if e.Login != "alice" || len(steps) < 6 {
		t.Errorf("%+v %+v", steps, e)
	}
}

// Who leaves the company is not found any more; a moved entry is still the same
// person.
func TestSlapdLeavingAndMoving(t *testing.T) {
	s := realSlapd(t)
	d := open(t, s.config(t, s["LDAPS"]))
	root := admin(t, s)
	dn := "uid=temp,ou=people," + s["BASE"]
	add := goldap.NewAddRequest(dn, nil)
	for name, value := range map[string]string{"objectClass": "inetOrgPerson", "cn": "temp", "sn": "temp", "userPassword": "violet harbour temp 62 lanterns"} {
		add.Attribute(name, []string{value})
	}
	if err := root.Add(add); err != nil {
		t.Fatal(err)
	}
	gone := false
	t.Cleanup(func() {
		if !gone {
			_ = root.Del(goldap.NewDelRequest("uid=moved,ou=people,"+s["BASE"], nil))
		}
	})
	before, ok, err := d.Find(t.Context(), "temp")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := root.ModifyDN(goldap.NewModifyDNRequest(dn, "uid=moved", true, "")); err != nil {
		t.Fatal(err)
	}
	after, ok, err := d.FindSubject(t.Context(), before.Subject)
	if err != nil || !ok || after.Login != "moved" {
		t.Errorf("after the move: %+v, %v, %v", after, ok, err)
	}
	if err := root.Del(goldap.NewDelRequest("uid=moved,ou=people,"+s["BASE"], nil)); err != nil {
		t.Fatal(err)
	}
	gone = true
	if _, ok, err := d.FindSubject(t.Context(), before.Subject); ok || err != nil {
		t.Errorf("after leaving: %v, %v", ok, err)
	}
}

// admin is a connection of the directory's own administrator.
func admin(t *testing.T, s slapd) *goldap.Conn {
	t.Helper()
	cfg := s.config(t, s["LDAPS"])
	c, err := goldap.DialURL(s["LDAPS"], goldap.DialWithTLSConfig(tlsOf(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Bind(s["ROOT_DN"], s["ROOT_PASSWORD"]); err != nil {
		t.Fatal(err)
	}
	return c
}

package company_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/ldap"
	"github.com/baileyhq/bailey/internal/secret"
)

// A directoryWorld is a Service on the directory that scripts/slapd.sh started.
type directoryWorld struct {
	*identitytest.World
	*company.Service

	t     *testing.T
	env   map[string]string
	roots *x509.CertPool
	later time.Duration
}

func newDirectoryWorld(t *testing.T, servers ...string) *directoryWorld {
	t.Helper()
	dir := os.Getenv("BAILEY_TEST_SLAPD")
	if dir == "" {
		t.Skip("BAILEY_TEST_SLAPD is not set: see scripts/slapd.sh")
	}
	b, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	w := &directoryWorld{t: t, env: map[string]string{}, roots: x509.NewCertPool()}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		w.env[name] = value
	}
	pem, err := os.ReadFile(w.env["CA"])
	if err != nil {
		t.Fatal(err)
	}
	w.roots.AppendCertsFromPEM(pem)
	if len(servers) == 0 {
		servers = []string{w.env["LDAPS"]}
	}
	base := w.env["BASE"]
	d, err := ldap.New(ldap.Config{
		Name: "corp", Servers: servers, Roots: w.roots, Kind: ldap.OpenLDAP, BindDN: "cn=bailey,ou=services," + base,
		Password: secret.New("service-of-the-tests"), UserBase: "ou=people," + base, GroupBase: "ou=groups," + base, Timeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	now := func() time.Time { return time.Now().Add(w.later) }
	w.World = identitytest.NewWorld(t, func(c *identity.Config) {
		c.Now, c.Directories = now, []identity.Directory{d}
		c.External = map[string]external.Rules{"ldap:corp": {
			Allowed: []string{"staff", "cn=bailey-admins,ou=groups," + base, "newcomers"}, Create: true, Same: ldap.SameGroup, Name: ldap.GroupName,
			Roles: []external.RoleRule{{From: "cn=bailey-admins,ou=groups," + base, Role: bailey.RoleAdmin}},
		}}
	})
	w.Service, err = company.New(company.Config{
		Identity: w.World.Service, Directories: []company.Directory{{Directory: d, Name: "corp", Title: "Corp"}}, Key: make([]byte, 32), Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *directoryWorld) signIn(name, password, ip string) (bailey.Actor, error) {
	grant, _, err := w.SignIn(w.t.Context(), identity.SignInRequest{Name: name, Password: secret.New(password), IP: ip})
	if err != nil {
		return bailey.Actor{}, err
	}
	return w.BySession(w.t.Context(), grant.Secret, ip)
}

func harbour(name string) string { return "violet harbour " + name + " 62 lanterns" }

// The sign-in form takes the directory's passwords: two people, each their own,
// in accounts of their own, with nested groups. Somebody who has a password here
// is never asked about there.
func TestSlapdSignIn(t *testing.T) {
	w := newDirectoryWorld(t)
	mallory, err := w.signIn("mallory", harbour("mallory"), "192.0.2.1")
	if bailey.KindOf(err) != bailey.Denied {
		t.Errorf("mallory, in the look-alike group: %+v, %v", mallory, err)
	}
	carol, err := w.signIn("carol", harbour("carol"), "192.0.2.2")
	if err != nil || carol.Role != bailey.RoleAdmin || carol.Name != "carol" || !slices.Equal(carol.Groups, []string{"bailey-admins"}) {
		t.Errorf("carol: %+v, %v", carol, err)
	}
	again, err := w.signIn(`corp\CAROL`, harbour("carol"), "192.0.2.2")
	if err != nil || again.UserID != carol.UserID {
		t.Errorf("carol by another name: %+v, %v", again, err)
	}
	// alice has a password here (the test's); the directory's alice is another
	// person, who comes in by the directory's name and not as her.
	here, err := w.signIn("alice", harbour("alice"), "192.0.2.3") // both have the same one
	if err != nil || here.UserID != w.must("alice").ID {
		t.Errorf("alice: %+v, %v", here, err)
	}
	there, err := w.signIn(`corp\alice`, harbour("alice"), "192.0.2.4")
	if err != nil || there.UserID == here.UserID || !strings.HasPrefix(there.Name, "alice-") {
		t.Errorf("the directory's alice: %+v, %v", there, err)
	}
	if !slices.Equal(there.Groups, []string{"circle", "research", "staff", "vision"}) {
		t.Errorf("her groups are %q", there.Groups)
	}
	// "admin" of the directory is nobody special.
	if _, err := w.signIn("admin", harbour("admin"), "192.0.2.5"); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("the directory's admin, in no group: %v", err)
	}
	methods := map[string]bool{}
	for _, e := range w.Journal.Events() {
		if e.Action == audit.SignIn {
			methods[e.Actor.Method+" "+string(e.Outcome)+" "+string(e.Reason)] = true
		}
	}
	for _, want := range []string{"ldap:corp success ", "ldap:corp failure not_admitted", "password success "} {
		if !methods[want] {
			t.Errorf("the journal has no %q: %v", want, methods)
		}
	}
}

func (w *directoryWorld) must(name string) bailey.User {
	w.t.Helper()
	u, err := w.Store.UserByName(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// Whatever is wrong reads the same: an unknown name, a wrong password, a locked
// account, an empty password, an injection; and each counts.
func TestSlapdWrongIsWrong(t *testing.T) {
	w := newDirectoryWorld(t)
	var said []string
	for i, tt := range [][2]string{
		{"nobody", "x"},
		{"carol", "wrong"},
		{"carol", ""},
		{"dave", harbour("dave")},
		{"*)(uid=*", harbour("carol")},
		{"carol\x00", harbour("carol")},
		{"alice", "wrong"},
		{`corp\alice`, "wrong"},
		{"uid=carol,ou=people," + w.env["BASE"], harbour("carol")},
		{"", ""},
		{strings.Repeat("a", 5000), "x"},
	} {
		_, err := w.signIn(tt[0], tt[1], "198.51.100."+string(rune('1'+i%9)))
		if bailey.KindOf(err) != bailey.Unauthenticated {
			t.Errorf("%.20q: %v", tt[0], err)
			continue
		}
		said = append(said, err.Error())
	}
	for _, s := range said {
		if s != said[0] {
			t.Errorf("%q, and %q", s, said[0])
		}
	}
	// Several names of one person share one budget.
	locked := false
	for i := range 12 {
		_, err := w.signIn([]string{"carol", "CAROL", `corp\carol`, "Carol"}[i%4], "wrong", "203.0.113.9")
		locked = locked || bailey.KindOf(err) == bailey.TooMany
	}
	if !locked {
		t.Error("12 guesses under four names of one person, and no limit")
	}
}

// The directory is down: people of it read that, local ones sign in as ever, and
// nobody's attempt counts.
func TestSlapdDown(t *testing.T) {
	w := newDirectoryWorld(t, "ldaps://127.0.0.1:1")
	for range 12 {
		if _, err := w.signIn("carol", harbour("carol"), "192.0.2.1"); bailey.KindOf(err) != bailey.Unavailable && bailey.KindOf(err) != bailey.TooMany {
			t.Errorf("carol: %v; want unavailable", err)
		}
	}
	if _, err := w.signIn("root-admin", harbour("root-admin"), "192.0.2.7"); err != nil {
		t.Errorf("the local administrator: %v", err)
	}
	if _, err := w.signIn("root-admin", "wrong", "192.0.2.8"); bailey.KindOf(err) != bailey.Unauthenticated {
		t.Errorf("a wrong local password: %v", err)
	}
}

// Who leaves the company, or is disabled there, is out here by the next check;
// the others stay.
func TestSlapdRecheck(t *testing.T) {
	w := newDirectoryWorld(t)
	root, err := goldap.DialURL(w.env["LDAPS"], goldap.DialWithTLSConfig(&tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // a test's
	if err := root.Bind(w.env["ROOT_DN"], w.env["ROOT_PASSWORD"]); err != nil {
		t.Fatal(err)
	}
	dn := func(name string) string { return "uid=" + name + ",ou=people," + w.env["BASE"] }
	newcomers := "cn=newcomers,ou=groups," + w.env["BASE"]
	for _, name := range []string{"erin", "frank", "grace"} {
		_ = root.Del(goldap.NewDelRequest(dn(name), nil)) // of a run before
		add := goldap.NewAddRequest(dn(name), nil)
		for attr, value := range map[string]string{"objectClass": "inetOrgPerson", "cn": name, "sn": name, "userPassword": harbour(name)} {
			add.Attribute(attr, []string{value})
		}
		if err := root.Add(add); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = root.Del(goldap.NewDelRequest(dn(name), nil)) })
	}
	_ = root.Del(goldap.NewDelRequest(newcomers, nil))
	add := goldap.NewAddRequest(newcomers, nil)
	add.Attribute("objectClass", []string{"groupOfNames"})
	add.Attribute("cn", []string{"newcomers"})
	add.Attribute("member", []string{dn("erin"), dn("frank"), dn("grace"), dn("bob")})
	if err := root.Add(add); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Del(goldap.NewDelRequest(newcomers, nil)) }()

	in := func(a bailey.Actor) bool {
		_, err := w.BySessionID(t.Context(), a.UserID, a.Session, "192.0.2.1")
		return err == nil
	}
	actors := map[string]bailey.Actor{}
	for _, name := range []string{"erin", "frank", "grace", "carol"} {
		if actors[name], err = w.signIn(name, harbour(name), "192.0.2.1"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	token, err := w.CreateToken(t.Context(), actors["erin"], identity.TokenRequest{Note: "laptop", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Del(goldap.NewDelRequest(dn("erin"), nil)); err != nil {
		t.Fatal(err)
	}
	lock := goldap.NewModifyRequest(dn("frank"), nil)
	lock.Add("pwdAccountLockedTime", []string{"000001010000Z"})
	leave := goldap.NewModifyRequest(newcomers, nil)
	leave.Delete("member", []string{dn("grace")})
	for _, m := range []*goldap.ModifyRequest{lock, leave} {
		if err := root.Modify(m); err != nil {
			t.Fatal(err)
		}
	}
	w.later += 6 * time.Minute
	w.Recheck(t.Context())
	for name, a := range actors {
		if in(a) != (name == "carol") {
			t.Errorf("%s is in: %v", name, in(a))
		}
	}
	if _, err := w.ByToken(t.Context(), token.Secret, "192.0.2.1"); err == nil {
		t.Error("erin's token works")
	}
	for name, want := range map[string]string{"erin": "missing_at_source", "frank": "disabled_at_source", "grace": "not_admitted"} {
		ties, err := w.Store.Externals(t.Context(), actors[name].UserID)
		if err != nil || len(ties) != 1 || ties[0].Gone != want {
			t.Errorf("%s is gone by %+v, %v; want %s", name, ties, err, want)
		}
	}
}

// Somebody signed in here links who they are in the directory, by their
// password there; a wrong one counts, and nobody links whom they are not.
func TestSlapdLinkByPassword(t *testing.T) {
	w := newDirectoryWorld(t)
	_, alice := identitytest.SignIn(t, w.World.Service, "alice")
	_, bob := identitytest.SignIn(t, w.World.Service, "bob")
	for _, wrong := range []string{"wrong", "", harbour("alice")} {
		if _, err := w.LinkByPassword(t.Context(), alice, "carol", secret.New(wrong)); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("with the password %q: %v", wrong, err)
		}
	}
	if _, err := w.LinkByPassword(t.Context(), alice, "carol", secret.New(harbour("carol"))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.LinkByPassword(t.Context(), bob, "carol", secret.New(harbour("carol"))); bailey.KindOf(err) != bailey.Conflict {
		t.Errorf("bob links her too: %v", err)
	}
	if a, err := w.signIn("carol", harbour("carol"), "192.0.2.40"); err != nil || a.UserID != alice.UserID {
		t.Errorf("by the company's name she is %+v, %v", a, err)
	}
	if hash, err := w.Store.PasswordHash(t.Context(), alice.UserID); err != nil || hash != "" {
		t.Errorf("her password here is still there: %v", err)
	}
}

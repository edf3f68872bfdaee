package company_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/oidc"
	"github.com/baileyhq/bailey/internal/oidc/oidctest"
	"github.com/baileyhq/bailey/internal/secret"
)

// A world has a provider, accounts, and a clock that tests move.
type world struct {
	*identitytest.World
	*company.Service

	t     *testing.T
	idp   *oidctest.Provider
	later time.Duration
	rules func() identity.Rules // nil: the defaults
}

func (w *world) now() time.Time { return time.Now().Add(w.later) }

func newWorld(t *testing.T, changes ...func(*external.Rules)) *world {
	t.Helper()
	w := &world{t: t, idp: oidctest.New(t)}
	rules := external.Rules{
		Allowed: []string{"research"}, Create: true,
		Groups: []external.GroupRule{{From: "research", To: "vision"}}, Roles: []external.RoleRule{{From: "ops", Role: bailey.RoleAdmin}},
	}
	for _, change := range changes {
		change(&rules)
	}
	w.World = identitytest.NewWorld(t, func(c *identity.Config) {
		c.Rules = func() identity.Rules {
			if w.rules == nil {
				return identity.Rules{}
			}
			return w.rules()
		}
		c.Now, c.External = w.now, map[string]external.Rules{"oidc:corp": rules, "oidc:other": rules}
	})
	p, err := oidc.New(oidc.Config{
		Name: "corp", Issuer: w.idp.Issuer(), ClientID: oidctest.ClientID, Secret: secret.New(oidctest.Secret),
		Redirect: "https://hub/signin/oidc/corp/callback", Roots: w.idp.Roots, GroupsClaim: "groups", Factors: []string{"otp"}, Now: w.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.idp.Now = w.now
	w.Service, err = company.New(company.Config{
		Identity: w.World.Service, Providers: []company.Provider{{Provider: p, Name: "corp", Title: "Corp"}},
		Key: bytes.Repeat([]byte{7}, 32), Now: w.now, StaleAfter: 7 * 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// comes lets whoever sits at the provider sign in here, in a browser of theirs.
func (w *world) comes() (bailey.Actor, error) {
	w.t.Helper()
	to, ticket, err := w.Begin(w.t.Context(), "corp", "192.0.2.1", company.Trip{})
	if err != nil {
		return bailey.Actor{}, err
	}
	a, err := w.Finish(w.t.Context(), "corp", ticket, w.idp.Visit(w.t, to), bailey.Actor{}, identity.Where{IP: "192.0.2.1", UserAgent: "test"})
	if err != nil {
		return bailey.Actor{}, err
	}
	return w.BySession(w.t.Context(), a.Session.Secret, "192.0.2.1")
}

func (w *world) mustCome() bailey.Actor {
	w.t.Helper()
	a, err := w.comes()
	if err != nil {
		w.t.Fatalf("sign in: %v", err)
	}
	return a
}

func (w *world) in(a bailey.Actor) bool {
	_, err := w.BySessionID(context.WithoutCancel(w.t.Context()), a.UserID, a.Session, "192.0.2.1")
	return err == nil
}

func (w *world) wants(err error, kind bailey.Kind, words string) {
	w.t.Helper()
	if err == nil || bailey.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		w.t.Errorf("error = %v (%v), want %v with %q", err, bailey.KindOf(err), kind, words)
	}
}

func (w *world) user(name string) bailey.User {
	w.t.Helper()
	u, err := w.Store.UserByName(w.t.Context(), name)
	if err != nil {
		w.t.Fatalf("user %s: %v", name, err)
	}
	return u
}

func person(name string, groups ...string) map[string]any {
	return map[string]any{"preferred_username": name, "groups": groups}
}

// Two people come from the company: each gets an account of their own, and the
// same one the next time, whatever they are called by then. Who is in no group
// that may come in gets none.
func TestArriving(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	carol := w.mustCome()
	if u := w.user("carol"); carol.UserID != u.ID || u.UID < 20000 || u.Role != bailey.RoleUser || !slices.Equal(u.Groups, []string{"vision"}) {
		t.Errorf("carol is %+v", u)
	}
	w.idp.SignedIn("2", person("carol", "research"))
	other := w.mustCome()
	if other.UserID == carol.UserID || !strings.HasPrefix(other.Name, "carol-") {
		t.Errorf("the second carol is %+v", other)
	}
	w.idp.SignedIn("1", person("caroline", "research", "ops"))
	if again := w.mustCome(); again.UserID != carol.UserID || again.Name != "carol" || again.Role != bailey.RoleAdmin {
		t.Errorf("carol, married and promoted, is %+v", again)
	}
	w.idp.SignedIn("3", person("dave", "sales"))
	_, err := w.comes()
	w.wants(err, bailey.Denied, "not in a group")
	if _, err := w.Store.UserByName(t.Context(), "dave"); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("dave has an account: %v", err)
	}
	methods := map[string]int{}
	for _, e := range w.Journal.Events() {
		if e.Action == audit.SignIn {
			methods[e.Actor.Method+" "+string(e.Outcome)+" "+string(e.Reason)]++
		}
	}
	if methods["oidc:corp success "] != 3 || methods["oidc:corp failure not_admitted"] != 1 {
		t.Errorf("the journal has %v", methods)
	}
}

// Nobody becomes somebody who is here already, by any name or address; a name
// that stands for power is nobody's.
func TestNoLinkingByName(t *testing.T) {
	w := newWorld(t)
	alice := w.user("alice")
	for _, name := range []string{"alice", "ALICE", "alice@corp", "alice@evil@corp", `CORP\alice`} {
		claims := person(name, "research")
		claims["email"], claims["email_verified"] = "alice@corp", false
		w.idp.SignedIn("sub of "+name, claims)
		if a := w.mustCome(); a.UserID == alice.ID || a.Name == "alice" {
			t.Errorf("%s becomes alice", name)
		}
	}
	for _, name := range []string{"admin", "root", "bailey"} {
		w.idp.SignedIn("power "+name, person(name, "research"))
		if a := w.mustCome(); a.Name == name || a.Role != bailey.RoleUser {
			t.Errorf("%s is %+v", name, a)
		}
	}
}

// Without create, whom an administrator has not linked stays outside.
func TestWithoutCreate(t *testing.T) {
	w := newWorld(t, func(r *external.Rules) { r.Create = false })
	w.idp.SignedIn("1", person("alice", "research"))
	_, err := w.comes()
	w.wants(err, bailey.Denied, "no account on this server")
	_, admin := identitytest.SignIn(t, w.World.Service, "root-admin")
	_, bob := identitytest.SignIn(t, w.World.Service, "bob")
	p, err := w.Subject("oidc:corp", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.LinkUser(t.Context(), bob, "alice", p); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("bob links alice: %v", err)
	}
	if _, err := w.LinkUser(t.Context(), admin, "alice", p); err != nil {
		t.Fatal(err)
	}
	if a := w.mustCome(); a.Name != "alice" {
		t.Errorf("alice is %+v", a)
	}
	_, err = w.LinkUser(t.Context(), admin, "bob", p)
	w.wants(err, bailey.Conflict, "belongs to an account")
	_, err = w.LinkUser(t.Context(), admin, "root-admin", external.Person{Source: "oidc:corp", Issuer: w.idp.Issuer(), Subject: "9"})
	w.wants(err, bailey.Conflict, "last enabled administrator with a password")
	// Her old password is gone, and none can be set past the company.
	_, _, err = w.SignIn(t.Context(), identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: "192.0.2.9"})
	w.wants(err, bailey.Unauthenticated, "name or the password")
	fresh := secret.New("four words nobody guesses")
	_, err = w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Password: &fresh})
	w.wants(err, bailey.Conflict, "company account")
	ties, err := w.Externals(t.Context(), admin, "alice")
	if err != nil || len(ties) != 1 {
		t.Fatal(ties, err)
	}
	alice := w.mustCome()
	if _, err := w.Externals(t.Context(), bob, "alice"); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("bob sees alice's links: %v", err)
	}
	if err := w.Unlink(t.Context(), bob, "alice", ties[0].ID); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("bob unlinks alice: %v", err)
	}
	if err := w.Unlink(t.Context(), admin, "alice", ties[0].ID); err != nil || w.in(alice) {
		t.Errorf("unlinked: %v, and she is in: %v", err, w.in(alice))
	}
}

// An answer is good in the browser that asked, for the provider that was asked,
// once and in time.
func TestTickets(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("mallory", "research"))
	finish := func(ticket string, q url.Values) error {
		_, err := w.Finish(t.Context(), "corp", ticket, q, bailey.Actor{}, identity.Where{IP: "192.0.2.1", UserAgent: ""})
		return err
	}
	begin := func() (string, string) {
		to, ticket, err := w.Begin(t.Context(), "corp", "192.0.2.1", company.Trip{})
		if err != nil {
			t.Fatal(err)
		}
		return to, ticket
	}
	to, hers := begin()
	_, his := begin()
	answer := w.idp.Visit(t, to)
	for name, ticket := range map[string]string{"his": his, "none": "", "changed": hers[:len(hers)-2] + "AA", "nonsense": "x", "long": strings.Repeat("A", 9000)} {
		w.wants(finish(ticket, answer), bailey.Unauthenticated, "not begun in this browser")
		_ = name
	}
	if err := finish(hers, answer); err != nil {
		t.Fatal(err)
	}
	w.wants(finish(hers, w.idp.Visit(t, to)), bailey.Unauthenticated, "not begun in this browser") // a fresh code for a used ticket
	to, late := begin()
	answer = w.idp.Visit(t, to)
	w.later += 16 * time.Minute
	w.wants(finish(late, answer), bailey.Unauthenticated, "took too long")
	if _, err := w.Finish(t.Context(), "other", hers, answer, bailey.Actor{}, identity.Where{IP: "", UserAgent: ""}); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("a provider that is none: %v", err)
	}
}

// Too many answers that nobody believes are not looked at, and the journal has
// not a line for each.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	limited := false
	for range 200 {
		_, err := w.Finish(t.Context(), "corp", "x", url.Values{"code": {"x"}, "state": {"y"}}, bailey.Actor{}, identity.Where{IP: "203.0.113.7", UserAgent: ""})
		limited = limited || bailey.KindOf(err) == bailey.TooMany
	}
	if !limited {
		t.Error("200 forged answers, and no limit")
	}
	if err := w.Logout(t.Context(), "corp", "x", "203.0.113.7"); bailey.KindOf(err) != bailey.TooMany {
		t.Errorf("and by another way: %v", err)
	}
	if n := len(w.Journal.Events()); n == 0 || n > 5 {
		t.Errorf("%d events", n)
	}
	if _, err := w.comes(); err != nil { // from elsewhere
		t.Errorf("others: %v", err)
	}
}

// A disabled account dies here too: the session by the next check, and what is
// asked at a directory or provider that does not answer changes nothing.
func TestRecheck(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	carol := w.mustCome()
	w.idp.SignedIn("2", person("dave", "research"))
	dave := w.mustCome()
	ended, release := w.Ended(carol)
	defer release()
	w.idp.Disable("1", true)
	w.Recheck(t.Context())
	if !w.in(carol) || !w.in(dave) {
		t.Fatal("checked before it was time")
	}
	w.later += 6 * time.Minute
	w.Recheck(t.Context())
	if w.in(carol) || !w.in(dave) {
		t.Errorf("carol in: %v, dave in: %v; want dave alone", w.in(carol), w.in(dave))
	}
	select {
	case <-ended:
	default:
		t.Error("carol's tunnels are open")
	}
	w.idp.Disable("1", false)
	w.later += 6 * time.Minute
	w.Recheck(t.Context())
	if !w.in(dave) {
		t.Error("the second check, with a rotated token, ends dave's session")
	}
	w.idp.Server.Close()
	w.later += 6 * time.Minute
	w.Recheck(t.Context())
	if !w.in(dave) {
		t.Error("that the provider is down ends dave's session")
	}
}

// A person who loses the group loses everything here, and gets it back when the
// company gives it back; what an administrator took by hand stays taken.
func TestLosingTheGroup(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	carol := w.mustCome()
	token, err := w.CreateToken(t.Context(), carol, identity.TokenRequest{Note: "laptop", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w.idp.SignedIn("1", person("carol", "sales"))
	w.later += 6 * time.Minute
	w.Recheck(t.Context())
	if _, err := w.ByToken(t.Context(), token.Secret, "192.0.2.1"); w.in(carol) || err == nil || !w.user("carol").Disabled {
		t.Errorf("carol in: %v, token: %v, %+v", w.in(carol), err, w.user("carol"))
	}
	_, err = w.comes()
	w.wants(err, bailey.Denied, "not in a group")
	w.idp.SignedIn("1", person("carol", "research"))
	if a := w.mustCome(); a.UserID != carol.UserID || w.user("carol").Disabled {
		t.Error("she does not come back")
	}
	_, admin := identitytest.SignIn(t, w.World.Service, "root-admin")
	disabled := true
	if _, err := w.UpdateUser(t.Context(), admin, "carol", identity.UserUpdate{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	_, err = w.comes()
	w.wants(err, bailey.Denied, "disabled")
}

// What was disabled by the company, and then by an administrator too, the
// company does not open again.
func TestDisabledByHandStays(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	w.mustCome()
	w.idp.SignedIn("1", person("carol"))
	_, err := w.comes()
	w.wants(err, bailey.Denied, "not in a group")
	_, admin := identitytest.SignIn(t, w.World.Service, "root-admin")
	disabled := true
	if _, err := w.UpdateUser(t.Context(), admin, "carol", identity.UserUpdate{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	w.idp.SignedIn("1", person("carol", "research"))
	_, err = w.comes()
	w.wants(err, bailey.Denied, "disabled")
}

// Groups and roles of the company replace what it gave before, and nothing that
// was given by hand.
func TestGroupsByHand(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research", "ops"))
	w.mustCome()
	_, admin := identitytest.SignIn(t, w.World.Service, "root-admin")
	groups := []string{"vision", "by-hand"}
	if _, err := w.UpdateUser(t.Context(), admin, "carol", identity.UserUpdate{Groups: &groups}); err != nil {
		t.Fatal(err)
	}
	w.idp.SignedIn("1", person("carol", "research"))
	if a := w.mustCome(); a.Role != bailey.RoleUser || !slices.Equal(w.user("carol").Groups, []string{"by-hand", "vision"}) {
		t.Errorf("carol is %+v", w.user("carol"))
	}
}

// An account that nobody vouched for in a long time is closed with its tokens.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.idp.Change(func() { w.idp.NoRefresh = true })
	w.idp.SignedIn("1", person("carol", "research"))
	carol := w.mustCome()
	token, err := w.CreateToken(t.Context(), carol, identity.TokenRequest{Note: "laptop", Lifetime: 300 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w.later += 6 * 24 * time.Hour
	w.Recheck(t.Context())
	if _, err := w.ByToken(t.Context(), token.Secret, "192.0.2.1"); err != nil {
		t.Errorf("after six days: %v", err)
	}
	w.later += 2 * 24 * time.Hour
	w.Recheck(t.Context())
	if _, err := w.ByToken(t.Context(), token.Secret, "192.0.2.1"); err == nil {
		t.Error("after eight days the token works")
	} else if e, ok := errors.AsType[*bailey.Error](err); !ok || !strings.Contains(e.Msg, "ended with its account") || !strings.Contains(e.Hint, "next sign-in") {
		t.Errorf("after eight days: %v; it does not say what to do", err)
	}
	// She comes in again; what she had before stays gone.
	w.mustCome()
	if _, err := w.ByToken(t.Context(), token.Secret, "192.0.2.1"); err == nil {
		t.Error("after she came again the old token works")
	}
}

// The provider ends a session, or all of a person's: those and no others, once,
// and only by its own word.
func TestBackChannelLogout(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", map[string]any{"preferred_username": "carol", "groups": []string{"research"}, "sid": "s1"})
	first := w.mustCome()
	w.idp.SignedIn("1", map[string]any{"preferred_username": "carol", "groups": []string{"research"}, "sid": "s2"})
	second := w.mustCome()
	w.idp.SignedIn("2", map[string]any{"preferred_username": "dave", "groups": []string{"research"}, "sid": "s3"})
	dave := w.mustCome()
	logout := func(claims map[string]any) error {
		return w.Logout(t.Context(), "corp", w.idp.LogoutToken(func(c map[string]any) {
			maps.Copy(c, claims)
		}), "192.0.2.50")
	}
	// dave's session under carol's name is nobody's.
	if err := logout(map[string]any{"sub": "1", "sid": "s3"}); err != nil || !w.in(dave) || !w.in(first) {
		t.Errorf("a session of somebody else: %v", err)
	}
	if err := logout(map[string]any{"sub": "nobody"}); err != nil {
		t.Errorf("somebody who is not here: %v", err)
	}
	if err := logout(map[string]any{"sid": "s1"}); err != nil || w.in(first) || !w.in(second) || !w.in(dave) {
		t.Errorf("one session: %v; %v %v %v", err, w.in(first), w.in(second), w.in(dave))
	}
	raw := w.idp.LogoutToken(func(c map[string]any) { c["sub"] = "1" })
	if err := w.Logout(t.Context(), "corp", raw, "192.0.2.50"); err != nil || w.in(second) || !w.in(dave) {
		t.Errorf("all of carol's: %v; %v %v", err, w.in(second), w.in(dave))
	}
	third := w.mustComeAs("1", "carol")
	w.wants(w.Logout(t.Context(), "corp", raw, "192.0.2.50"), bailey.Invalid, "used before")
	if !w.in(third) {
		t.Error("a replayed token ends a new session")
	}
}

func (w *world) mustComeAs(sub, name string) bailey.Actor {
	w.t.Helper()
	w.idp.SignedIn(sub, person(name, "research"))
	return w.mustCome()
}

// A signed-in person links their own account, in the same browser session and
// no other.
func TestLinkOwn(t *testing.T) {
	w := newWorld(t)
	_, alice := identitytest.SignIn(t, w.World.Service, "alice")
	_, bob := identitytest.SignIn(t, w.World.Service, "bob")
	w.idp.SignedIn("a", person("a.smith", "research"))
	link := func(actor bailey.Actor) error {
		to, ticket, err := w.Begin(t.Context(), "corp", "192.0.2.1", company.Trip{Link: alice.Session})
		if err != nil {
			return err
		}
		_, err = w.Finish(t.Context(), "corp", ticket, w.idp.Visit(t, to), actor, identity.Where{IP: "192.0.2.1", UserAgent: ""})
		return err
	}
	w.wants(link(bob), bailey.Denied, "not signed in as when you began")
	w.wants(link(bailey.Actor{}), bailey.Denied, "not signed in as when you began")
	if err := link(alice); err != nil {
		t.Fatal(err)
	}
	if a := w.mustCome(); a.UserID != alice.UserID {
		t.Errorf("she is %+v", a)
	}
	if !w.in(alice) || !w.in(bob) {
		t.Error("linking ends the browser that did it, or somebody else's")
	}
	w.wants(link(alice), bailey.Conflict, "belongs to an account")
}

// The journal cannot be written: nobody comes in.
func TestNoJournalNoSignIn(t *testing.T) {
	w := newWorld(t)
	w.idp.SignedIn("1", person("carol", "research"))
	w.Journal.Break(true)
	_, err := w.comes()
	w.wants(err, bailey.Unavailable, "audit journal")
	w.Journal.Break(false)
	if _, err := w.Store.UserByName(t.Context(), "carol"); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("carol has an account that nobody recorded: %v", err)
	}
}

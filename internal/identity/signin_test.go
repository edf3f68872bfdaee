package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

// Where people are in these tests.
const (
	office   = "198.51.100.7"
	home     = "192.0.2.44"
	stranger = "203.0.113.9"
)

// hasty makes a world whose rates never matter; failures count as always.
func hasty(cfg *identity.Config) {
	g, err := guard.New(guard.Config{Now: cfg.Now, PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6})
	if err != nil {
		panic(err)
	}
	cfg.Guard = g
}

// patient makes a world whose limits never matter.
func patient(cfg *identity.Config) {
	g, err := guard.New(guard.Config{
		Now: cfg.Now, PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6,
		PairFailures: 1000, PrefixFailures: 1000, PrefixSubjects: 1e6, MissesPerMinute: 1e6,
	})
	if err != nil {
		panic(err)
	}
	cfg.Guard = g
}

func try(t *testing.T, s *identity.Service, name, password, ip string) (secret.Value, error) {
	t.Helper()
	grant, _, err := s.SignIn(t.Context(), identity.SignInRequest{Name: name, Password: secret.New(password), IP: ip, UserAgent: "test"})
	return grant.Secret, err
}

func good(name string) string { return identitytest.Password(name).Reveal() }

func wantKind(t *testing.T, what string, err error, want bailey.Kind) {
	t.Helper()
	if err == nil || bailey.KindOf(err) != want {
		t.Errorf("%s: got %v (%v), want %v", what, err, bailey.KindOf(err), want)
	}
}

// shown is what a stranger gets to see of an error.
func shown(t *testing.T, err error) string {
	t.Helper()
	e, ok := errors.AsType[*bailey.Error](err)
	if !ok {
		t.Fatalf("%v is no bailey.Error", err)
	}
	return fmt.Sprintf("%v|%s|%s|%v", e.Kind, e.Msg, e.Hint, identity.RetryAfter(err))
}

func TestAliceAndBobSignInAndAreThemselves(t *testing.T) {
	w := identitytest.NewWorld(t)
	for _, name := range []string{"alice", "bob"} {
		grant, user, err := w.SignIn(t.Context(), identity.SignInRequest{
			Name: name, Password: identitytest.Password(name), IP: "::ffff:" + office, UserAgent: "Mozilla\x1b[2J/5.0\r\n",
		})
		if err != nil || user.Name != name {
			t.Fatalf("SignIn(%s) = %v, %v", name, user, err)
		}
		actor, err := w.BySession(t.Context(), grant.Secret, home)
		want := bailey.Actor{
			UserID: user.ID, Name: name, Role: bailey.RoleUser, Groups: []string{}, Method: "password", Session: grant.Row.ID, IP: home,
			AuthTime: grant.Row.AuthAt.UTC().Truncate(time.Microsecond), Methods: []string{"pwd"},
		}
		if diff := cmp.Diff(want, actor); err != nil || diff != "" {
			t.Errorf("BySession of %s: %v, (-want +got)\n%s", name, err, diff)
		}
		if grant.Row.IP != office || grant.Row.UserAgent != "Mozilla[2J/5.0" {
			t.Errorf("the session's row says %q, %q; want the address %q and no control characters", grant.Row.IP, grant.Row.UserAgent, office)
		}
	}
	if _, err := try(t, w.Service, "alice", good("bob"), office); err == nil {
		t.Error("alice signs in with bob's password")
	}
}

// Attack 14: nothing that a stranger reads, and no work that a stranger could
// time, tells a name that exists from one that does not.
func TestTheStrangerReadsTheSameWords(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	admin := adminOf(t, w)
	off := true
	if _, err := w.UpdateUser(t.Context(), admin, "bob", identity.UserUpdate{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, tt := range []struct{ what, name, password string }{
		{"wrong password", "alice", "violet harbour bob 62 lanterns"},
		{"empty password", "alice", ""},
		{"password with a space behind", "alice", good("alice") + " "},
		{"password of 1 MiB", "alice", strings.Repeat("x", 1<<20)},
		{"right password and more", "alice", good("alice") + strings.Repeat("x", 2000)},
		{"unknown name", "mallory", good("alice")},
		{"unknown name, empty password", "mallory", ""},
		{"disabled, right password", "bob", good("bob")},
		{"disabled, wrong password", "bob", good("alice")},
		{"capitals", "Alice", good("alice")},
		{"space behind", "alice ", good("alice")},
		{"confusable", "аlice", good("alice")},
		{"a path", "../../alice", good("alice")},
		{"html", "<script>alert(1)</script>", good("alice")},
		{"nul", "alice\x00", good("alice")},
		{"long name", strings.Repeat("a", 1<<16), good("alice")},
		{"no name", "", ""},
		{"the server's own name", "bailey", ""},
	} {
		before := identity.Hashes(w.Service)
		cookie, err := try(t, w.Service, tt.name, tt.password, stranger)
		if err == nil || !cookie.Empty() {
			t.Errorf("%s: signed in", tt.what)
			continue
		}
		if want == "" {
			want = shown(t, err)
		}
		if got := shown(t, err); got != want {
			t.Errorf("%s: the stranger reads %q, others %q", tt.what, got, want)
		}
		if n := identity.Hashes(w.Service) - before; n != 1 {
			t.Errorf("%s: %d hashes, want 1 as for everybody", tt.what, n)
		}
	}
	if !strings.HasPrefix(want, "unauthenticated|") {
		t.Errorf("the stranger reads %q, want unauthenticated", want)
	}
}

// The limits come at the same point and in the same words too, for names that
// exist, that do not, and that are disabled.
func TestLimitsSayNothingAboutAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string][]string{}
		for _, name := range []string{"alice", "mallory", "bob", "no/name"} {
			w := identitytest.NewWorld(t)
			off := true
			if _, err := w.UpdateUser(t.Context(), adminOf(t, w), "bob", identity.UserUpdate{Disabled: &off}); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				_, err := try(t, w.Service, name, good("bob"), stranger)
				answers[name] = append(answers[name], shown(t, err))
			}
		}
		for name, got := range answers {
			if diff := cmp.Diff(answers["alice"], got); diff != "" {
				t.Errorf("alice and %s are answered differently (-alice +%s)\n%s", name, name, diff)
			}
		}
		if last := answers["alice"][7]; !strings.HasPrefix(last, "too_many|") || !strings.HasSuffix(last, "|30m0s") {
			t.Errorf("the eighth answer is %q, want too many, for 30 minutes", last)
		}
	})
}

// A neighbour behind the same address fills its limits, then probes names:
// one that has signed in from there is let through to the password check, but
// the answer is that of the others.
func TestANeighbourCannotSeeWhoSignedInFromHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		if _, err := try(t, w.Service, "alice", good("alice"), office); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			_, _ = try(t, w.Service, fmt.Sprintf("x%d", i), "no", office)
		}
		_, ofBob := try(t, w.Service, "bob", "no", office)
		_, ofAlice := try(t, w.Service, "alice", "no", office)
		if a, b := shown(t, ofAlice), shown(t, ofBob); a != b {
			t.Errorf("alice, who signed in from here: %q; bob, who did not: %q", a, b)
		}
		if _, err := try(t, w.Service, "alice", good("alice"), office); err != nil {
			t.Errorf("alice herself: %v, want in", err)
		}
	})
}

// The same neighbour, with patience: it fails for alice and for a name that
// nobody has, over hours, and compares the answers.
func TestANeighbourWithPatienceSeesNothingEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, hasty)
		for _, name := range []string{"alice", "bob", "root-admin"} {
			if _, err := try(t, w.Service, name, good(name), office); err != nil {
				t.Fatal(err)
			}
		}
		answers := map[string][]string{}
		for _, pause := range []time.Duration{
			0, 0, 0, 0, 0, 0, 0, 30 * time.Second, time.Minute, 0, 5 * time.Minute, 0, 20 * time.Minute, 10 * time.Minute, 0, 0, 0, 0, 0, 0,
			time.Minute, 0, 58 * time.Minute, 0, time.Minute, 0, 0, 0, 0, 0, 0, time.Minute,
		} {
			time.Sleep(pause)
			for _, name := range []string{"alice", "mallory"} {
				_, err := try(t, w.Service, name, "no", office)
				answers[name] = append(answers[name], shown(t, err))
			}
		}
		if diff := cmp.Diff(answers["mallory"], answers["alice"]); diff != "" {
			t.Errorf("alice, who signs in from here, and mallory, who is nobody, are answered differently (-mallory +alice)\n%s", diff)
		}
		time.Sleep(time.Minute)
		if _, err := try(t, w.Service, "alice", good("alice"), office); err != nil {
			t.Errorf("alice herself, in the middle of it: %v, want in", err)
		}
	})
}

func TestNobodySignsInWhenTheAuditJournalCannotBeWritten(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	w.Journal.Break(true)
	cookie, right := try(t, w.Service, "alice", good("alice"), home)
	wantKind(t, "right password", right, bailey.Unavailable)
	if !cookie.Empty() {
		t.Error("a cookie was given out without a trace")
	}
	_, wrong := try(t, w.Service, "alice", "no", home)
	_, unknown := try(t, w.Service, "mallory", "no", home)
	if a, b, c := shown(t, right), shown(t, wrong), shown(t, unknown); a != b || b != c {
		t.Errorf("without a journal, passwords can be told apart:\nright   %s\nwrong   %s\nunknown %s", a, b, c)
	}
	_, _, err := w.SignInForToken(t.Context(), identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: home}, "cli", 0)
	wantKind(t, "for a token", err, bailey.Unavailable)
	_, err = w.CreateToken(t.Context(), alice, identity.TokenRequest{Note: "cli", Lifetime: 0})
	wantKind(t, "CreateToken", err, bailey.Unavailable)

	rows, err := w.Store.Sessions(t.Context(), alice.UserID)
	if err != nil || len(rows) != 1 {
		t.Errorf("alice has %d sessions (%v), want the one from before", len(rows), err)
	}
	if tokens, _ := w.Store.Tokens(t.Context(), alice.UserID); len(tokens) != 0 {
		t.Errorf("alice has tokens %v, want none", tokens)
	}
	// Signing out must not depend on the journal.
	if err := w.SignOut(t.Context(), alice); err != nil {
		t.Errorf("SignOut without a journal = %v, want nil", err)
	}
	w.Journal.Break(false)
	if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
		t.Errorf("with the journal back: %v", err)
	}
}

func TestSuccessIsInTheJournalBeforeTheSessionExists(t *testing.T) {
	w := identitytest.NewWorld(t)
	checked := false
	w.Journal.Before(func(e audit.Event) {
		checked = true
		rows, err := w.Store.Sessions(t.Context(), e.Actor.ID)
		if err != nil || len(rows) != 0 {
			t.Errorf("at the time of %s, sessions are %v, %v; want none yet", e.Action, rows, err)
		}
	})
	cookie, actor := identitytest.SignIn(t, w.Service, "alice")
	if !checked {
		t.Fatal("nothing was recorded")
	}
	want := []audit.Event{{
		Actor:  audit.Actor{ID: actor.UserID, Name: "alice", Method: "password", Session: actor.Session, IP: identitytest.IP},
		Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: actor.UserID, Name: "alice"}, Outcome: audit.Success,
		Attrs: audit.Attrs{Methods: "pwd"},
	}}
	if diff := cmp.Diff(want, w.Journal.Events()); diff != "" {
		t.Errorf("journal (-want +got)\n%s", diff)
	}
	if strings.Contains(fmt.Sprint(w.Journal.Events()), cookie.Reveal()) {
		t.Error("the journal holds the cookie")
	}
}

func TestFailuresAreInTheJournal(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	off := true
	if _, err := w.UpdateUser(t.Context(), adminOf(t, w), "bob", identity.UserUpdate{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	n := len(w.Journal.Events())
	for _, a := range [][2]string{{"alice", "no"}, {"bob", good("bob")}, {"hunter2 oops", "alice"}, {"hunter2 oops", "alice"}} {
		if _, err := try(t, w.Service, a[0], a[1], stranger); err == nil {
			t.Errorf("%v signed in", a)
		}
	}
	events := w.Journal.Events()[n:]
	if len(events) != 4 {
		t.Fatalf("4 failures made %d events: %v", len(events), events)
	}
	for i, want := range []audit.Reason{audit.BadCredentials, audit.AccountDisabled, audit.BadCredentials, audit.BadCredentials} {
		if e := events[i]; e.Action != audit.SignIn || e.Outcome != audit.Failure || e.Reason != want || e.Actor.IP != stranger {
			t.Errorf("event %d = %+v, want a failed sign-in from %s because %s", i, e, stranger, want)
		}
	}
	if events[0].Actor.Name != "alice" || events[1].Actor.Name != "bob" {
		t.Errorf("known accounts are not named: %+v, %+v", events[0].Actor, events[1].Actor)
	}
	u := events[2].Actor
	if u.Name != "" || u.ID != "" || len(u.Unknown) != 32 || u.Unknown != events[3].Actor.Unknown {
		t.Errorf("an unknown name is recorded as %+v and %+v; want the same keyed hash and nothing else", u, events[3].Actor)
	}
	if strings.Contains(fmt.Sprint(w.Journal.Events()), "hunter2") {
		t.Error("the journal holds what was typed as a name")
	}
	other := identitytest.NewWorld(t, func(c *identity.Config) { c.UnknownKey = []byte("another key") })
	_, _ = try(t, other.Service, "hunter2 oops", "x", stranger)
	if got := other.Journal.Events()[0].Actor.Unknown; got == u.Unknown {
		t.Error("another installation gives the unknown name the same hash: the key does not matter")
	}
}

func TestRefusalsAreRecordedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		for range 5 {
			_, _ = try(t, w.Service, "alice", "no", stranger)
		}
		n := len(w.Journal.Events())
		hashes := identity.Hashes(w.Service)
		for range 1000 {
			_, err := try(t, w.Service, "alice", good("alice"), stranger)
			wantKind(t, "blocked", err, bailey.TooMany)
		}
		time.Sleep(time.Minute)
		_, _ = try(t, w.Service, "alice", "no", stranger)
		events := w.Journal.Events()[n:]
		if len(events) != 2 || events[0].Attrs.Count != 1 || events[1].Attrs.Count != 1000 {
			t.Fatalf("1001 refusals made the events %+v, want two that count 1 and 1000", events)
		}
		for _, e := range events {
			if e.Outcome != audit.Refused || e.Reason != audit.LockedOut || e.Actor.Name != "alice" {
				t.Errorf("event %+v, want a refusal of alice, locked out", e)
			}
		}
		if got := identity.Hashes(w.Service); got != hashes {
			t.Errorf("refused attempts were hashed %d times", got-hashes)
		}
	})
}

// Attack 11: one password on a thousand names, and a thousand passwords on one.
func TestSprayingAndStuffingEndEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		for i := range 1000 {
			name := fmt.Sprintf("user%d", i)
			if i%100 == 50 {
				name = "alice"
			}
			if _, err := try(t, w.Service, name, "Spring2026!", stranger); bailey.KindOf(err) == bailey.TooMany && i < 200 {
				time.Sleep(min(identity.RetryAfter(err), 6*time.Second))
			}
		}
		if n := identity.Hashes(w.Service); n > 20 {
			t.Errorf("a sprayer had %d passwords hashed, want at most 20", n)
		}
		w = identitytest.NewWorld(t)
		for i := range 1000 {
			_, _ = try(t, w.Service, "alice", fmt.Sprintf("password%d", i), stranger)
			time.Sleep(6 * time.Second) // the pace at which the rates alone allow all
		}
		// 1000 tries over 100 minutes: 5, then blocks of 30 and 60 minutes.
		if n := identity.Hashes(w.Service); n > 15 {
			t.Errorf("a stuffer had %d passwords hashed in 100 minutes, want at most 15", n)
		}
		if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
			t.Errorf("alice at home meanwhile: %v", err)
		}
	})
}

// All ways to try a password count together: page, API and the change form.
func TestAllWaysToGuessShareOneLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		alice.IP = stranger // her cookie was stolen
		hashes := identity.Hashes(w.Service)
		for range 4 {
			_, _ = try(t, w.Service, "alice", "no", stranger)
			_, _, _ = w.SignInForToken(t.Context(), identity.SignInRequest{Name: "alice", Password: secret.New("no"), IP: stranger}, "", 0)
			_ = w.ChangePassword(t.Context(), alice, secret.New("no"), secret.New("amber windmill 77"))
		}
		if n := identity.Hashes(w.Service) - hashes; n != 5 {
			t.Errorf("%d guesses got through in three ways, want 5 in all", n)
		}
		err := w.ChangePassword(t.Context(), alice, identitytest.Password("alice"), secret.New("amber windmill 77"))
		wantKind(t, "the right one now", err, bailey.TooMany)
	})
}

// Attack 12: a stranger fails ten thousand times for the administrator, from
// hundreds of addresses. She signs in from where she was before; bob does not
// notice.
func TestNobodyLocksTheAdministratorOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		if _, err := try(t, w.Service, "root-admin", good("root-admin"), office); err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			_, err := try(t, w.Service, "root-admin", "no", fmt.Sprintf("203.0.%d.%d", i%7, i%211))
			if err == nil {
				t.Fatal("a stranger is in")
			}
		}
		if _, err := try(t, w.Service, "root-admin", good("root-admin"), office); err != nil {
			t.Errorf("the administrator where she was before: %v, want in", err)
		}
		if _, err := try(t, w.Service, "bob", good("bob"), home); err != nil {
			t.Errorf("bob meanwhile: %v, want in", err)
		}
		time.Sleep(time.Minute) // and when the attack pauses, from anywhere
		if _, err := try(t, w.Service, "root-admin", good("root-admin"), home); err != nil {
			t.Errorf("the administrator from elsewhere, a minute later: %v, want in", err)
		}
	})
}

// Attack 13: five hundred sign-ins at once with passwords of 1 KiB.
func TestFiveHundredSignInsAtOnce(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	long := strings.Repeat("x7Q!", 256)
	var mu sync.Mutex
	kinds := map[bailey.Kind]int{}
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			_, err := try(t, w.Service, fmt.Sprintf("user%d", i), long, fmt.Sprintf("203.0.113.%d", i%250))
			mu.Lock()
			defer mu.Unlock()
			kinds[bailey.KindOf(err)]++
			if bailey.KindOf(err) == bailey.Unavailable && identity.RetryAfter(err) == 0 {
				t.Error("whoever is one too many is not told when to come back")
			}
		})
	}
	all.Wait()
	if kinds[bailey.Unauthenticated]+kinds[bailey.Unavailable] != 500 || kinds[bailey.Unavailable] == 0 {
		t.Errorf("500 at once got %v; want some refused as unavailable, all others as wrong", kinds)
	}
	if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
		t.Errorf("alice afterwards: %v, want in", err)
	}
}

// Attack 16: a cookie that was set before sign-in, by whomever, means nothing
// afterwards.
func TestSignInAlwaysMakesANewSession(t *testing.T) {
	w := identitytest.NewWorld(t)
	planted := secret.Random(32)
	if _, err := w.BySession(t.Context(), planted, stranger); bailey.KindOf(err) != bailey.Unauthenticated {
		t.Fatalf("a made-up cookie: %v", err)
	}
	first, one := identitytest.SignIn(t, w.Service, "alice")
	second, two := identitytest.SignIn(t, w.Service, "alice")
	if first.Equal(second) || one.Session == two.Session || planted.Equal(first) {
		t.Error("two sign-ins share a session")
	}
	if _, err := w.BySession(t.Context(), planted, stranger); bailey.KindOf(err) != bailey.Unauthenticated {
		t.Errorf("the planted cookie after alice signed in: %v, want unauthenticated", err)
	}
}

// Somebody who knows the old password signs in at the very moment alice
// changes it. Her change must win.
func TestAPasswordChangeBeatsASignInThatIsUnderWay(t *testing.T) {
	for _, how := range []string{"change", "reset", "disable", "delete"} {
		t.Run(how, func(t *testing.T) {
			w := identitytest.NewWorld(t, patient)
			_, alice := identitytest.SignIn(t, w.Service, "alice")
			admin := adminOf(t, w)
			fresh, off := secret.New("amber windmill 77"), true
			var once sync.Once
			w.Journal.Before(func(e audit.Event) {
				if e.Action != audit.SignIn || e.Outcome != audit.Success {
					return
				}
				once.Do(func() {
					var err error
					switch how {
					case "change":
						err = w.ChangePassword(t.Context(), alice, identitytest.Password("alice"), fresh)
					case "reset":
						_, err = w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Password: &fresh})
					case "disable":
						_, err = w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &off})
					case "delete":
						err = w.DeleteUser(t.Context(), admin, "alice")
					}
					if err != nil {
						t.Errorf("%s: %v", how, err)
					}
				})
			})
			cookie, err := try(t, w.Service, "alice", good("alice"), stranger)
			if err == nil || !cookie.Empty() {
				t.Errorf("%s during sign-in: the old password got a session", how)
			}
			rows, _ := w.Store.Sessions(t.Context(), alice.UserID)
			rows = slices.DeleteFunc(rows, func(r bailey.Session) bool { return r.ID == alice.Session })
			if len(rows) != 0 {
				t.Errorf("%s during sign-in: sessions are left: %v", how, rows)
			}
			last := w.Journal.Events()[len(w.Journal.Events())-1]
			if last.Action != audit.SignIn || last.Outcome != audit.Failure {
				t.Errorf("%s during sign-in: the journal ends with %+v, want the sign-in taken back", how, last)
			}
		})
	}
}

func TestAHashOfThePastIsMadeAnew(t *testing.T) {
	w := identitytest.NewWorld(t)
	carol, err := w.Store.CreateUser(t.Context(), bailey.User{Name: "carol", Role: bailey.RoleUser}, identity.HashCheap(secret.New("granite otter 5")))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := try(t, w.Service, "carol", "granite otter 5", home); err != nil {
			t.Fatalf("carol: %v", err)
		}
		stored, err := w.Store.PasswordHash(t.Context(), carol.ID)
		if err != nil || !identity.IsCurrent(stored) {
			t.Errorf("after signing in her hash is %q, %v; want today's cost", stored, err)
		}
	}
	if _, err := try(t, w.Service, "carol", "granite otter 6", home); err == nil {
		t.Error("carol is in with a wrong password")
	}
	// It never undoes a change that was made meanwhile.
	if ok, err := identity.SwapHash(t.Context(), w.Service, carol.ID, "another", "stale"); ok || err != nil {
		t.Errorf("SwapHash over a changed hash = %v, %v; want false", ok, err)
	}
}

func TestAnUnreadableHashLetsNobodyIn(t *testing.T) {
	w := identitytest.NewWorld(t)
	for i, stored := range []string{"", "x", "$argon2id$v=19$m=4294967295,t=2,p=1$NBtUCaDVE+KwstR1v7RtTQ$LBhbgrmSvd/0avFTRl2Ig0lmQjTCbJqekDTgkJGIpvI"} {
		name := fmt.Sprintf("carol%d", i)
		if _, err := w.Store.CreateUser(t.Context(), bailey.User{Name: name, Role: bailey.RoleUser}, stored); err != nil {
			t.Fatal(err)
		}
		for _, password := range []string{"", stored, "granite otter 5"} {
			_, err := try(t, w.Service, name, password, fmt.Sprintf("192.0.2.%d", i))
			wantKind(t, fmt.Sprintf("hash %q, password %q", stored, password), err, bailey.Unauthenticated)
		}
	}
}

// What cannot be a password is not even hashed as one, whatever is stored.
func TestAPasswordBeyondTheLimitMatchesNothing(t *testing.T) {
	w := identitytest.NewWorld(t)
	for name, n := range map[string]int{"carol": 1024, "dave": 1025} {
		long := strings.Repeat("x", n)
		if _, err := w.Store.CreateUser(t.Context(), bailey.User{Name: name, Role: bailey.RoleUser}, identity.HashNow(secret.New(long))); err != nil {
			t.Fatal(err)
		}
		if _, err := try(t, w.Service, name, long, home); (err == nil) != (n <= 1024) {
			t.Errorf("a right password of %d bytes: %v", n, err)
		}
	}
}

// failingStore fails where it is told to.
type failingStore struct {
	identity.Store
	fail string
}

var errDisk = errors.New("disk on fire")

func (f *failingStore) UserByName(ctx context.Context, name string) (bailey.User, error) {
	if f.fail == "UserByName" {
		return bailey.User{}, errDisk
	}
	return f.Store.UserByName(ctx, name)
}

func (f *failingStore) PasswordHash(ctx context.Context, id string) (string, error) {
	if f.fail == "PasswordHash" {
		return "", errDisk
	}
	return f.Store.PasswordHash(ctx, id)
}

func (f *failingStore) CreateSession(ctx context.Context, s bailey.Session, hash string) error {
	if f.fail == "CreateSession" {
		return errDisk
	}
	return f.Store.CreateSession(ctx, s, hash)
}

func (f *failingStore) UserByID(ctx context.Context, id string) (bailey.User, error) {
	if f.fail == "UserByID" {
		return bailey.User{}, errDisk
	}
	return f.Store.UserByID(ctx, id)
}

func TestWhatTheStoreCannotSayIsNoGuess(t *testing.T) {
	f := &failingStore{}
	w := identitytest.NewWorld(t, hasty, func(c *identity.Config) { f.Store, c.Store = c.Store, f })
	for _, f.fail = range []string{"UserByName", "PasswordHash", "CreateSession", "UserByID"} {
		for range 8 { // more than the limit of failures
			if _, err := try(t, w.Service, "alice", good("alice"), f.fail+".invalid"); !errors.Is(err, errDisk) {
				t.Errorf("%s fails: sign-in says %v, want %v", f.fail, err, errDisk)
			}
		}
	}
	f.fail = ""
	if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
		t.Errorf("with the store back: %v, want in", err)
	}
	user, _ := w.Store.UserByName(t.Context(), "alice")
	if rows, _ := w.Store.Sessions(t.Context(), user.ID); len(rows) != 1 {
		t.Errorf("alice has %d sessions, want the last one alone: the others could not be vouched for", len(rows))
	}
	events := w.Journal.Events()
	failures := 0
	for _, e := range events {
		if e.Outcome == audit.Failure {
			failures++
		}
	}
	if failures != 16 { // CreateSession and UserByID, after the success was recorded
		t.Errorf("the journal takes %d successes back, want 16", failures)
	}
}

func TestWhoeverHangsUpBeforeTheHashMadeNoGuess(t *testing.T) {
	w := identitytest.NewWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		_, _, err := w.SignIn(ctx, identity.SignInRequest{Name: "alice", Password: secret.New("no"), IP: home})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("SignIn with a cancelled context = %v", err)
		}
	}
	if identity.Hashes(w.Service) != 0 {
		t.Error("passwords were hashed for nobody")
	}
	if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
		t.Errorf("alice afterwards: %v, want in", err)
	}
}

func TestAUserHasFiftySessionsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		first, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		for i := range 49 {
			time.Sleep(time.Second)
			row := bailey.Session{ID: fmt.Sprint(i), UserID: alice.UserID, CreatedAt: time.Now(), SeenAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
			if err := w.Store.CreateSession(t.Context(), row, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		ended, release := w.Ended(alice)
		defer release()
		last, _ := identitytest.SignIn(t, w.Service, "alice")
		rows, _ := w.Store.Sessions(t.Context(), alice.UserID)
		if len(rows) != 50 {
			t.Errorf("alice has %d sessions, want 50", len(rows))
		}
		if _, err := w.BySession(t.Context(), first, home); err == nil {
			t.Error("the session used longest ago is still good")
		}
		if _, err := w.BySession(t.Context(), last, home); err != nil {
			t.Errorf("the newest session: %v", err)
		}
		select {
		case <-ended:
		default:
			t.Error("the tunnels of the ended session are open")
		}
		if rows, _ := w.Store.Sessions(t.Context(), bob.UserID); len(rows) != 1 {
			t.Errorf("bob has %d sessions, want his one", len(rows))
		}
	})
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	g, err := guard.New(guard.Config{})
	if err != nil {
		t.Fatal(err)
	}
	store, journal := identitytest.NewMemStore(), &identitytest.Journal{}
	for name, cfg := range map[string]identity.Config{
		"store":    {Guard: g, Audit: journal},
		"guard":    {Store: store, Audit: journal},
		"audit":    {Store: store, Guard: g},
		"lifetime": {Store: store, Guard: g, Audit: journal, SessionIdle: -1},
	} {
		if s, err := identity.New(cfg); err == nil {
			t.Errorf("New without %s = %v, want an error", name, s)
		}
	}
}

// adminOf signs root-admin in.
func adminOf(t *testing.T, w *identitytest.World) bailey.Actor {
	t.Helper()
	_, admin := identitytest.SignIn(t, w.Service, "root-admin")
	return admin
}

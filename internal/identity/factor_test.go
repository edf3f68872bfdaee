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

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

// halfway signs in with name and password as far as that goes.
func halfway(t *testing.T, w *identitytest.World, name, ip string, devices ...secret.Value) (*identity.StepError, identity.Grant[bailey.Session], error) {
	t.Helper()
	grant, _, err := w.SignIn(t.Context(), identity.SignInRequest{
		Name: name, Password: identitytest.Password(name), IP: ip, UserAgent: "test", Cookies: true, Known: devices,
	})
	step, _ := errors.AsType[*identity.StepError](err)
	return step, grant, err
}

// withApp gives the actor an authenticator app. The code of this step is used.
func withApp(t *testing.T, w *identitytest.World, actor bailey.Actor) (key secret.Value, codes []secret.Value) {
	t.Helper()
	offer, err := w.OfferFactor(t.Context(), actor, "")
	if err != nil {
		t.Fatal(err)
	}
	codes, err = w.AddFactor(t.Context(), actor, identity.NewFactor{Name: "phone", Note: offer.Note, Code: codeNow(offer.Secret)})
	if err != nil {
		t.Fatal(err)
	}
	return offer.Secret, codes
}

func codeNow(key secret.Value) secret.Value { return secret.New(totp.Code(key, totp.Step(time.Now()))) }

func answer(t *testing.T, w *identitytest.World, ticket secret.Value, f identity.FactorAnswer, ip string) (identity.Grant[bailey.Session], error) {
	t.Helper()
	grant, _, err := w.AnswerFactor(t.Context(), ticket, f, identity.Where{IP: ip, UserAgent: "test", Cookies: true})
	return grant, err
}

func byApp(c secret.Value) identity.FactorAnswer { return identity.FactorAnswer{Code: c} }

// With an app, a password is half of a sign-in: in the browser, and for
// programs. Bob, who has none, signs in as before.
func TestASecondFactorIsAskedForOnEveryWayIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		other, _ := identitytest.SignIn(t, w.Service, "alice")
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		key, codes := withApp(t, w, alice)
		if len(codes) != totp.RecoveryCodes {
			t.Errorf("%d recovery codes, want %d", len(codes), totp.RecoveryCodes)
		}
		if _, err := w.BySession(t.Context(), other, office); err == nil {
			t.Error("a session from before the second factor goes on elsewhere")
		}
		step, grant, err := halfway(t, w, "alice", office)
		if step == nil || step.Step != identity.StepFactor || step.Ticket.Empty() || !grant.Secret.Empty() || bailey.KindOf(err) != bailey.SecondFactor {
			t.Fatalf("after the password: %+v, %v; want a ticket and no session", step, err)
		}
		if _, err := w.BySession(t.Context(), step.Ticket, office); err == nil {
			t.Error("the ticket is a session")
		}
		r := identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: office}
		token, _, err := w.SignInForToken(t.Context(), r, "cli", 0)
		wantKind(t, "a token by the password alone", err, bailey.SecondFactor)
		r.Factor = byApp(secret.New("000000"))
		if _, _, err = w.SignInForToken(t.Context(), r, "cli", 0); err == nil || !token.Secret.Empty() {
			t.Error("a token by a wrong code")
		}
		time.Sleep(30 * time.Second)
		grant, err = answer(t, w, step.Ticket, byApp(codeNow(key)), office)
		if err != nil {
			t.Fatalf("with the code: %v", err)
		}
		actor, err := w.BySession(t.Context(), grant.Secret, office)
		if err != nil || !slices.Equal(actor.Methods, []string{"pwd", "otp", "mfa"}) {
			t.Errorf("actor = %+v, %v", actor, err)
		}
		_, err = answer(t, w, step.Ticket, byApp(codeNow(key)), office)
		wantKind(t, "the ticket again", err, bailey.Unauthenticated)
		time.Sleep(30 * time.Second)
		r.Factor = byApp(codeNow(key))
		if _, _, err = w.SignInForToken(t.Context(), r, "cli", 0); err != nil {
			t.Errorf("a token by password and code: %v", err)
		}
		if step, _, err := halfway(t, w, "bob", office); step != nil || err != nil {
			t.Errorf("bob: %v, %v; want in", step, err)
		}
	})
}

// Attack 15: a code that was used, by whoever saw it; the same code by twenty at
// once; a code of another user; a clock that is off; guessing.
func TestACodeCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		key, _ := withApp(t, w, alice)
		his, _ := withApp(t, w, bob)
		ticket := func() secret.Value {
			step, _, err := halfway(t, w, "alice", office)
			if step == nil {
				t.Fatal(err)
			}
			return step.Ticket
		}
		if _, err := answer(t, w, ticket(), byApp(codeNow(key)), office); err == nil {
			t.Error("the code by which the app was set up signs in")
		}
		time.Sleep(30 * time.Second)
		if _, err := answer(t, w, ticket(), byApp(codeNow(his)), office); err == nil {
			t.Error("bob's code signs alice in")
		}
		now := totp.Step(time.Now())
		for _, away := range []int64{-3, -2, 2, 3} {
			if _, err := answer(t, w, ticket(), byApp(secret.New(totp.Code(key, now+away))), office); err == nil {
				t.Errorf("a code %d steps away signs in", away)
			}
		}
		var mu sync.Mutex
		in := 0
		var all sync.WaitGroup
		for range 20 {
			held := ticket()
			all.Go(func() {
				_, _, err := w.AnswerFactor(context.WithoutCancel(t.Context()), held, byApp(codeNow(key)), identity.Where{IP: office})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					in++
				}
			})
		}
		all.Wait()
		if in != 1 {
			t.Errorf("%d got in with one code at the same moment, want 1", in)
		}
		found := false
		for _, e := range w.Journal.Events() {
			found = found || e.Action == audit.FactorUse && e.Reason == audit.Replayed && e.Actor.Name == "alice"
		}
		if !found {
			t.Error("the journal does not say that a code was replayed")
		}
	})
}

// Attack 15, by force: five tries a ticket, ten in a row in all, then one in
// half an hour; the owner's known browser, her recovery codes and bob go on.
func TestCodesCannotBeGuessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		_, known, err := halfway(t, w, "alice", home)
		if err != nil || known.Browser.Empty() {
			t.Fatalf("no device secret: %v", err)
		}
		alice, err := w.BySession(t.Context(), known.Secret, home)
		if err != nil {
			t.Fatal(err)
		}
		key, codes := withApp(t, w, alice)
		judged := 0
		for i := range 12 {
			step, _, err := halfway(t, w, "alice", fmt.Sprintf("203.0.113.%d", i))
			if step == nil {
				t.Fatal(err)
			}
			for range 6 {
				_, err := answer(t, w, step.Ticket, byApp(secret.New("000000")), fmt.Sprintf("203.0.113.%d", i))
				if err == nil {
					t.Fatal("a guess was right; run it again")
				}
				if strings.Contains(err.Error(), "not right") {
					judged++
				}
			}
		}
		if judged != 10 {
			t.Errorf("%d guesses were looked at, from twelve addresses; want 10", judged)
		}
		time.Sleep(30 * time.Second)
		step, _, _ := halfway(t, w, "alice", stranger)
		_, err = answer(t, w, step.Ticket, byApp(codeNow(key)), stranger)
		wantKind(t, "even the right code, from a stranger's browser", err, bailey.TooMany)

		step, _, _ = halfway(t, w, "alice", stranger, known.Browser)
		grant, _, err := w.AnswerFactor(t.Context(), step.Ticket, byApp(codeNow(key)), identity.Where{IP: stranger, Cookies: true, Known: []secret.Value{known.Browser}})
		if err != nil || !grant.Browser.Empty() {
			t.Errorf("alice on a browser she is known by: %v; want in, and known already", err)
		}
		step, _, _ = halfway(t, w, "alice", stranger)
		if _, err := answer(t, w, step.Ticket, identity.FactorAnswer{Recovery: codes[0]}, stranger); err != nil {
			t.Errorf("with a recovery code: %v", err)
		}
		step, _, _ = halfway(t, w, "alice", stranger)
		_, err = answer(t, w, step.Ticket, identity.FactorAnswer{Recovery: codes[0]}, stranger)
		wantKind(t, "the same recovery code again", err, bailey.Unauthenticated)
	})
}

// Attack 12: ten thousand failures for the administrator's name, from
// everywhere. On a browser that she is known by she signs in at once, and a
// stranger with a cookie of his own does not.
func TestStrangersDoNotLockOutAKnownBrowser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, known, err := halfway(t, w, "root-admin", home)
		if err != nil {
			t.Fatal(err)
		}
		_, his, err := halfway(t, w, "bob", stranger)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10000 {
			_, _, _ = w.SignIn(t.Context(), identity.SignInRequest{
				Name: "root-admin", Password: secret.New("no"), IP: fmt.Sprintf("203.0.%d.%d", i/200%200, i%200), Known: []secret.Value{his.Browser, secret.Random(32)},
			})
		}
		if _, _, err := halfway(t, w, "root-admin", "203.0.0.1"); err == nil {
			t.Error("she gets in from an attacker's address on an unknown browser: nothing was limited")
		}
		if _, _, err := halfway(t, w, "root-admin", "203.0.0.1", known.Browser); err != nil {
			t.Errorf("on her known browser: %v, want in", err)
		}
	})
}

// What the configuration asks for is set up before there is a session, and no
// way leads around it.
func TestAFactorIsSetUpBeforeAnythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := identity.Rules{}
		w := identitytest.NewWorld(t, patient, func(c *identity.Config) { c.Rules = func() identity.Rules { return rules } })
		_, open := identitytest.SignIn(t, w.Service, "alice")
		rules.FactorRoles = []bailey.Role{bailey.RoleUser}
		if _, err := w.Me(t.Context(), open); err != nil {
			t.Errorf("a session from before: %v", err)
		}
		step, _, err := halfway(t, w, "alice", office)
		if step == nil || step.Step != identity.StepEnrol {
			t.Fatalf("alice, who must have one: %+v, %v", step, err)
		}
		_, _, err = w.SignInForToken(t.Context(), identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: office}, "", 0)
		wantKind(t, "a token meanwhile", err, bailey.Denied)
		_, err = answer(t, w, step.Ticket, byApp(secret.New("123456")), office)
		wantKind(t, "a code of no app", err, bailey.Unauthenticated)
		offer, err := w.OfferFactorAt(t.Context(), step.Ticket, "", identity.Where{IP: office})
		if err != nil || !strings.Contains(offer.Picture, "<svg") {
			t.Fatalf("offer: %v", err)
		}
		other, _, _ := halfway(t, w, "bob", office)
		if _, _, err := w.AddFactorAt(t.Context(), other.Ticket, identity.NewFactor{Note: offer.Note, Code: codeNow(offer.Secret)}, identity.Where{IP: office}); err == nil {
			t.Error("bob sets up the app that alice was offered")
		}
		grant, codes, err := w.AddFactorAt(t.Context(), step.Ticket, identity.NewFactor{Note: offer.Note, Code: codeNow(offer.Secret)}, identity.Where{IP: office})
		if err != nil || len(codes) != 10 {
			t.Fatalf("set up: %d codes, %v", len(codes), err)
		}
		actor, err := w.BySession(t.Context(), grant.Secret, office)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.BySessionID(t.Context(), open.UserID, open.Session, office); err == nil {
			t.Error("her older session goes on after the change of factors")
		}
		v, err := w.Factors(t.Context(), actor)
		if err != nil || len(v.Factors) != 1 {
			t.Fatalf("factors = %+v, %v", v, err)
		}
		wantKind(t, "removing the only one", w.RemoveFactor(t.Context(), actor, v.Factors[0].ID), bailey.Conflict)
	})
}

// A session that was stolen an hour ago makes no token, no account and no
// factor; its owner confirms and goes on.
func TestWhatMattersTakesAFreshProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		cookie, admin := identitytest.SignIn(t, w.Service, "root-admin")
		key, _ := withApp(t, w, admin)
		time.Sleep(11 * time.Minute)
		admin, err := w.BySession(t.Context(), cookie, office)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.CreateToken(t.Context(), admin, identity.TokenRequest{})
		wantKind(t, "a token", err, bailey.StepUp)
		_, err = w.CreateUser(t.Context(), admin, identity.NewUser{Name: "carol", Password: secret.New("granite otter 5")})
		wantKind(t, "an account", err, bailey.StepUp)
		fresh := secret.New("granite otter 5")
		_, err = w.UpdateUser(t.Context(), admin, "bob", identity.UserUpdate{Password: &fresh})
		wantKind(t, "a password reset", err, bailey.StepUp)
		wantKind(t, "a reset of factors", w.ResetFactors(t.Context(), admin, "bob"), bailey.StepUp)
		_, err = w.OfferFactor(t.Context(), admin, "")
		wantKind(t, "a factor", err, bailey.StepUp)
		where := identity.Where{IP: office}
		err = w.StepUp(t.Context(), admin, identity.StepUpAnswer{Password: identitytest.Password("root-admin")}, where)
		wantKind(t, "the password, of somebody with a second factor", err, bailey.SecondFactor)
		if err := w.StepUp(t.Context(), admin, identity.StepUpAnswer{FactorAnswer: byApp(codeNow(key))}, where); err != nil {
			t.Fatal(err)
		}
		admin, err = w.BySession(t.Context(), cookie, office)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "carol", Password: secret.New("granite otter 5")}); err != nil {
			t.Errorf("after the proof: %v", err)
		}
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		wantKind(t, "bob resets hers", w.ResetFactors(t.Context(), bob, "root-admin"), bailey.Denied)
		withApp(t, w, bob)
		if err := w.ResetFactors(t.Context(), admin, "bob"); err != nil {
			t.Fatal(err)
		}
		if step, _, err := halfway(t, w, "bob", office); step != nil || err != nil {
			t.Errorf("bob after the reset: %v, %v; want in by the password", step, err)
		}
		told, err := w.Notices(t.Context(), bob)
		if err != nil || len(told) == 0 || told[0].What != "factors_reset" || told[0].Detail != "root-admin" {
			t.Errorf("bob was told %+v, %v", told, err)
		}
	})
}

// A password that is too old is changed before there is a session; it locks
// nobody out.
func TestAnOldPasswordIsChangedAtTheNextSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient, func(c *identity.Config) {
			c.Rules = func() identity.Rules { return identity.Rules{MaxAge: 30 * 24 * time.Hour} }
		})
		if step, _, err := halfway(t, w, "alice", office); step != nil || err != nil {
			t.Fatalf("fresh: %v, %v", step, err)
		}
		time.Sleep(31 * 24 * time.Hour)
		step, _, err := halfway(t, w, "alice", office)
		if step == nil || step.Step != identity.StepPassword {
			t.Fatalf("a month later: %+v, %v", step, err)
		}
		change := func(text string) (identity.Grant[bailey.Session], error) {
			grant, _, err := w.AnswerPassword(t.Context(), step.Ticket, secret.New(text), identity.Where{IP: office})
			return grant, err
		}
		_, err = change(good("alice"))
		wantKind(t, "the same again", err, bailey.Invalid)
		_, err = change("password123")
		wantKind(t, "a common one", err, bailey.Invalid)
		if grant, err := change("granite otter 5"); err != nil || grant.Secret.Empty() {
			t.Fatalf("a good one: %v", err)
		}
		if _, err := try(t, w.Service, "alice", "granite otter 5", office); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

package identity_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/allow"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/passkey/passkeytest"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	hubOrigin = "https://hub.example.org:8443"
	hubHost   = "hub.example.org"
)

func named(cfg *identity.Config) { cfg.Host, cfg.Origin = hubHost, hubOrigin }

// withPasskey gives the actor a passkey on a device of theirs.
func withPasskey(t *testing.T, w *identitytest.World, actor bailey.Actor) *passkeytest.Authenticator {
	t.Helper()
	device := passkeytest.New(t, hubOrigin, hubHost)
	offer, err := w.OfferFactor(t.Context(), actor, "")
	if err != nil {
		t.Fatal(err)
	}
	answer, ok := device.Create(offer.Passkey)
	if !ok {
		t.Fatal("the device has a passkey of this account")
	}
	if _, err := w.AddFactor(t.Context(), actor, identity.NewFactor{Name: "laptop", Passkey: answer}); err != nil {
		t.Fatal(err)
	}
	return device
}

func question(t *testing.T, w *identitytest.World) []byte {
	t.Helper()
	q, err := w.PasskeyQuestion()
	if err != nil || len(q) == 0 {
		t.Fatalf("PasskeyQuestion = %q, %v", q, err)
	}
	return q
}

func reasons(w *identitytest.World, action audit.Action) (all []audit.Reason) {
	for _, e := range w.Journal.Events() {
		if e.Action == action && e.Outcome != audit.Success {
			all = append(all, e.Reason)
		}
	}
	return all
}

// Alice signs in with a passkey and nothing else. The same answer a second time,
// bob's key under her name, a key nobody knows, one whose holder was not seen,
// and hers once her account is disabled or she is where she may not be, do not.
func TestAPasskeySignsInAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := &allow.Lists{}
		w := identitytest.NewWorld(t, patient, named, func(c *identity.Config) { c.Places = func() *allow.Lists { return lists } })
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		device, his := withPasskey(t, w, alice), withPasskey(t, w, bob)
		where := identity.Where{IP: office, UserAgent: "test", Cookies: true}

		answer := device.Get(question(t, w))
		grant, user, err := w.SignInWithPasskey(t.Context(), answer, where)
		if err != nil || user.Name != "alice" || grant.Browser.Empty() {
			t.Fatalf("SignInWithPasskey = %+v, %v", user, err)
		}
		actor, err := w.BySession(t.Context(), grant.Secret, office)
		if err != nil || !slices.Equal(actor.Methods, []string{"hwk", "user", "mfa"}) {
			t.Errorf("actor = %+v, %v", actor, err)
		}
		refused := func(what string, answer []byte) {
			t.Helper()
			if _, _, err := w.SignInWithPasskey(t.Context(), answer, where); bailey.KindOf(err) != bailey.Unauthenticated || err == nil {
				t.Errorf("%s: %v; want it refused", what, err)
			}
		}
		refused("the same answer again", answer)
		if !slices.Contains(reasons(w, audit.SignIn), audit.Replayed) {
			t.Errorf("the journal does not say that an answer was replayed: %v", reasons(w, audit.SignIn))
		}
		his.Handle = []byte(alice.UserID)
		refused("bob's key, as alice", his.Get(question(t, w)))
		his.Handle = nil
		stranger := passkeytest.New(t, hubOrigin, hubHost)
		if _, ok := stranger.Create(question(t, w)); !ok {
			t.Fatal("no key")
		}
		refused("a key that nobody here has", stranger.GetAny(question(t, w)))
		device.Verify = false
		refused("her key, while she was not seen", device.Get(question(t, w)))
		device.Verify = true
		refused("no answer", []byte("{}"))

		from := netip.MustParseAddr("198.51.100.99")
		lists = &allow.Lists{Users: map[string][]netip.Prefix{"alice": {netip.PrefixFrom(from, 32)}}}
		refused("from where she may not come", device.Get(question(t, w)))
		lists = &allow.Lists{}
		_, admin := identitytest.SignIn(t, w.Service, "root-admin")
		yes := true
		if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
		refused("of a disabled account", device.Get(question(t, w)))
		if _, user, err := w.SignInWithPasskey(t.Context(), his.Get(question(t, w)), where); err != nil || user.Name != "bob" {
			t.Errorf("bob with his own: %+v, %v", user, err)
		}
	})
}

// A passkey is a second factor and a fresh proof as well. A counter that goes
// back is refused, and its owner is told.
func TestAPasskeyBesideAPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient, named)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		device := withPasskey(t, w, alice)
		where := identity.Where{IP: office}
		ask := func() (secret.Value, []byte) {
			t.Helper()
			step, _, err := halfway(t, w, "alice", office)
			if step == nil || step.Step != identity.StepFactor {
				t.Fatalf("the password: %+v, %v", step, err)
			}
			info, err := w.NextStep(t.Context(), step.Ticket, where)
			if err != nil || !info.Passkey || info.App {
				t.Fatalf("NextStep = %+v, %v", info, err)
			}
			return step.Ticket, info.Ask
		}
		ticket, asked := ask()
		other, elsewhere := ask()
		if _, err := answer(t, w, ticket, identity.FactorAnswer{Passkey: device.Get(elsewhere)}, office); err == nil {
			t.Error("an answer for another sign-in is taken")
		}
		grant, err := answer(t, w, ticket, identity.FactorAnswer{Passkey: device.Get(asked)}, office)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		alice, err = w.BySession(t.Context(), grant.Secret, office)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, "a token an hour later", w.Fresh(alice), bailey.StepUp)
		info, err := w.StepUpQuestion(t.Context(), alice)
		if err != nil || !info.Passkey {
			t.Fatalf("StepUpQuestion = %+v, %v", info, err)
		}
		if err := w.StepUp(t.Context(), alice, identity.StepUpAnswer{FactorAnswer: identity.FactorAnswer{Passkey: device.Get(info.Ask)}}, where); err != nil {
			t.Errorf("StepUp: %v", err)
		}
		alice, err = w.BySession(t.Context(), grant.Secret, office)
		if err != nil || w.Fresh(alice) != nil {
			t.Errorf("after the proof: %v, %v", err, w.Fresh(alice))
		}
		_, err = answer(t, w, other, identity.FactorAnswer{Passkey: device.Get(elsewhere)}, office)
		wantKind(t, "an hour after the password", err, bailey.Unauthenticated)

		device.Counter = 0 // a copy that was made on the first day
		ticket, asked = ask()
		_, err = answer(t, w, ticket, identity.FactorAnswer{Passkey: device.Get(asked)}, office)
		wantKind(t, "a counter that went back", err, bailey.Unauthenticated)
		if !slices.Contains(reasons(w, audit.FactorUse), audit.Cloned) {
			t.Errorf("the journal does not say so: %v", reasons(w, audit.FactorUse))
		}
		told, err := w.Notices(t.Context(), alice)
		if err != nil || !slices.ContainsFunc(told, func(n bailey.Notice) bool { return n.What == "passkey_cloned" }) {
			t.Errorf("alice was told %+v, %v", told, err)
		}
	})
}

// Guessing at passkeys is counted like guessing at passwords.
func TestPasskeysShareTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, named)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		device := withPasskey(t, w, alice)
		device.Verify = false
		where := identity.Where{IP: "203.0.113.5"}
		var last error
		for range 6 {
			_, _, last = w.SignInWithPasskey(t.Context(), device.Get(question(t, w)), where)
		}
		wantKind(t, "the sixth answer that is wrong", last, bailey.TooMany)
		_, err := try(t, w.Service, "alice", good("alice"), where.IP)
		wantKind(t, "the password after that, from there", err, bailey.TooMany)
		if _, err := try(t, w.Service, "bob", good("bob"), where.IP); err != nil {
			t.Errorf("bob from there: %v", err)
		}
	})
}

// Programs hold scopes: a token that a person made asks nobody for a proof, and
// cannot change second factors but by one. A service account has nobody to ask.
func TestProgramsDoNotStepUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		_, admin := identitytest.SignIn(t, w.Service, "root-admin")
		if _, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "robot", Service: true, Role: bailey.RoleAdmin}); err != nil {
			t.Fatal(err)
		}
		robots, err := w.CreateServiceToken(t.Context(), admin, "robot", identity.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		hers, err := w.CreateToken(t.Context(), admin, identity.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		narrow, err := w.CreateToken(t.Context(), admin, identity.TokenRequest{Scopes: []bailey.Scope{bailey.ScopeWorkspacesRead}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		_, err = w.CreateServiceToken(t.Context(), admin, "robot", identity.TokenRequest{})
		wantKind(t, "a day later, in the browser", err, bailey.StepUp)
		byToken := func(g identity.Grant[bailey.Token]) bailey.Actor {
			t.Helper()
			a, err := w.ByToken(t.Context(), g.Secret, office)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		for i, actor := range []bailey.Actor{byToken(robots), byToken(hers)} {
			if _, err := w.CreateUser(t.Context(), actor, identity.NewUser{Name: fmt.Sprintf("made%d", i), Password: secret.New("granite otter 5")}); err != nil {
				t.Errorf("%s makes an account with the scope for it: %v", actor.Name, err)
			}
			if _, err := w.CreateToken(t.Context(), actor, identity.TokenRequest{}); err != nil {
				t.Errorf("%s makes a token that is no wider than its own: %v", actor.Name, err)
			}
			wantKind(t, actor.Name+" resets bob's factors", w.ResetFactors(t.Context(), actor, "bob"), bailey.StepUp)
			_, err := w.OfferFactor(t.Context(), actor, "")
			wantKind(t, actor.Name+" sets a factor up", err, bailey.StepUp)
		}
		_, err = w.CreateUser(t.Context(), byToken(narrow), identity.NewUser{Name: "made9", Password: secret.New("granite otter 5")})
		wantKind(t, "a token without the scope", err, bailey.Denied)

		where := identity.Where{IP: office}
		err = w.StepUp(t.Context(), byToken(robots), identity.StepUpAnswer{Password: secret.New("")}, where)
		wantKind(t, "the robot proves who it is", err, bailey.Denied)
		err = w.StepUp(t.Context(), byToken(hers), identity.StepUpAnswer{Password: secret.New("not this one")}, where)
		wantKind(t, "a wrong password", err, bailey.Unauthenticated)
		if err := w.StepUp(t.Context(), byToken(hers), identity.StepUpAnswer{Password: identitytest.Password("root-admin")}, where); err != nil {
			t.Fatal(err)
		}
		if err := w.ResetFactors(t.Context(), byToken(hers), "bob"); err != nil {
			t.Errorf("with her token, after the proof: %v", err)
		}
		time.Sleep(11 * time.Minute)
		wantKind(t, "eleven minutes later", w.ResetFactors(t.Context(), byToken(hers), "bob"), bailey.StepUp)
	})
}

// A device gets its token by the browser of somebody who proved who they are,
// so that no path leads around the factor: neither the approval from an old
// session, nor an SSH key or certificate.
func TestOldSessionsApproveAndAddNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, patient)
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		key, _ := withApp(t, w, alice)
		time.Sleep(time.Hour)
		alice, err := w.BySession(t.Context(), cookie, office)
		if err != nil {
			t.Fatal(err)
		}
		d, err := w.BeginDevice(t.Context(), "cli", office, []bailey.Scope{bailey.ScopeAll})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.AnswerDevice(t.Context(), alice, d.User, true)
		wantKind(t, "an approval", err, bailey.StepUp)
		line := lineOf(pair(t).PublicKey())
		_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: line})
		wantKind(t, "an SSH key", err, bailey.StepUp)
		_, _, err = w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: line})
		wantKind(t, "an SSH certificate", err, bailey.StepUp)
		if err := w.StepUp(t.Context(), alice, identity.StepUpAnswer{FactorAnswer: byApp(codeNow(key))}, identity.Where{IP: office}); err != nil {
			t.Fatal(err)
		}
		if alice, err = w.BySession(t.Context(), cookie, office); err != nil {
			t.Fatal(err)
		}
		if _, err := w.AnswerDevice(t.Context(), alice, d.User, true); err != nil {
			t.Errorf("the approval after the proof: %v", err)
		}
		if _, err := w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: line}); err != nil {
			t.Errorf("the key after the proof: %v", err)
		}
		// Saying no takes no proof.
		other, err := w.BeginDevice(t.Context(), "cli", office, []bailey.Scope{bailey.ScopeAll})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if alice, err = w.BySession(t.Context(), cookie, office); err != nil {
			t.Fatal(err)
		}
		if _, err := w.AnswerDevice(t.Context(), alice, other.User, false); err != nil && bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("a denial from an old session: %v", err)
		}
	})
}

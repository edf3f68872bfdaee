package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

func mustToken(t *testing.T, s *identity.Service, actor bailey.Actor, note string, lifetime time.Duration) identity.Grant[bailey.Token] {
	t.Helper()
	grant, err := s.CreateToken(t.Context(), actor, identity.TokenRequest{Note: note, Lifetime: lifetime})
	if err != nil {
		t.Fatalf("CreateToken = %v", err)
	}
	return grant
}

func TestATokenStandsForItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		grant := mustToken(t, w.Service, alice, " laptop\x1b[0m\n", 0)
		row := grant.Row
		if row.Note != "laptop[0m" || !row.ExpiresAt.Equal(time.Now().Add(90*24*time.Hour)) || !row.UsedAt.IsZero() {
			t.Errorf("row = %+v, want a clean note, 90 days, not used", row)
		}
		actor, err := w.ByToken(t.Context(), grant.Secret, home)
		want := bailey.Actor{UserID: alice.UserID, Name: "alice", Role: bailey.RoleUser, Groups: []string{}, Method: "token", Session: row.ID, IP: home, Scopes: []bailey.Scope{bailey.ScopeAll}, Methods: []string{}}
		if diff := cmp.Diff(want, actor); err != nil || diff != "" {
			t.Errorf("ByToken: %v, (-want +got)\n%s", err, diff)
		}
		list, err := w.Tokens(t.Context(), alice)
		if err != nil || len(list) != 1 || !list[0].UsedAt.Equal(time.Now().UTC().Truncate(time.Microsecond)) {
			t.Errorf("Tokens = %+v, %v; want the one, used now", list, err)
		}
		reads := w.Store.Reads()
		for range 1000 {
			if _, err := w.ByToken(t.Context(), grant.Secret, home); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.Store.Reads() - reads; n != 0 {
			t.Errorf("1000 uses in the same second made %d reads", n)
		}
		time.Sleep(90*24*time.Hour - time.Microsecond)
		if _, err := w.ByToken(t.Context(), grant.Secret, home); err != nil {
			t.Errorf("just before it expires: %v", err)
		}
		time.Sleep(time.Microsecond)
		_, err = w.ByToken(t.Context(), grant.Secret, home)
		wantKind(t, "expired, in the second it is remembered", err, bailey.Unauthenticated)
		time.Sleep(time.Minute)
		_, err = w.ByToken(t.Context(), grant.Secret, home)
		wantKind(t, "expired", err, bailey.Unauthenticated)
		if strings.Contains(fmt.Sprint(w.Journal.Events(), grant), grant.Secret.Reveal()) {
			t.Error("the token is printed or in the journal")
		}
	})
}

func TestATokenIsDeadAtOnce(t *testing.T) {
	off, fresh := true, secret.New("amber windmill 77")
	for name, end := range map[string]func(w *identitytest.World, alice, admin, byToken bailey.Actor) error{
		"revoke": func(w *identitytest.World, alice, _, byToken bailey.Actor) error {
			return w.RevokeToken(t.Context(), alice, byToken.Session)
		},
		"sign-out with it": func(w *identitytest.World, _, _, byToken bailey.Actor) error {
			return w.SignOut(t.Context(), byToken)
		},
		"disable": func(w *identitytest.World, _, admin, _ bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &off})
			return err
		},
		"reset": func(w *identitytest.World, _, admin, _ bailey.Actor) error {
			_, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Password: &fresh})
			return err
		},
		"delete": func(w *identitytest.World, _, admin, _ bailey.Actor) error {
			return w.DeleteUser(t.Context(), admin, "alice")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := identitytest.NewWorld(t)
			_, alice := identitytest.SignIn(t, w.Service, "alice")
			_, bob := identitytest.SignIn(t, w.Service, "bob")
			grant, other := mustToken(t, w.Service, alice, "", 0), mustToken(t, w.Service, bob, "", 0)
			byToken, err := w.ByToken(t.Context(), grant.Secret, home)
			if err != nil {
				t.Fatal(err)
			}
			ended, release := w.Ended(byToken)
			defer release()
			if err := end(w, alice, adminOf(t, w), byToken); err != nil {
				t.Fatal(err)
			}
			_, err = w.ByToken(t.Context(), grant.Secret, home)
			wantKind(t, "the token afterwards", err, bailey.Unauthenticated)
			if !closed(ended) {
				t.Error("its tunnels are open")
			}
			if _, err := w.ByToken(t.Context(), other.Secret, home); err != nil {
				t.Errorf("bob's token: %v", err)
			}
		})
	}
}

// Enabling an account again does not bring its tokens back.
func TestDisablingVoidsTokensForGood(t *testing.T) {
	w := identitytest.NewWorld(t)
	admin := adminOf(t, w)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	grant := mustToken(t, w.Service, alice, "", 0)
	for _, off := range []bool{true, false} {
		if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &off}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.ByToken(t.Context(), grant.Secret, home)
	wantKind(t, "the token of before", err, bailey.Unauthenticated)
	if _, err := try(t, w.Service, "alice", good("alice"), home); err != nil {
		t.Errorf("alice, enabled again: %v", err)
	}
}

func TestBobCannotRevokeAlicesToken(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	grant := mustToken(t, w.Service, alice, "", 0)
	wantKind(t, "bob revokes alice's token", w.RevokeToken(t.Context(), bob, grant.Row.ID), bailey.NotFound)
	if _, err := w.ByToken(t.Context(), grant.Secret, home); err != nil {
		t.Errorf("alice's token afterwards: %v", err)
	}
	if list, err := w.Tokens(t.Context(), bob); err != nil || len(list) != 0 {
		t.Errorf("bob's tokens = %v, %v; want none", list, err)
	}
	if err := w.RevokeToken(t.Context(), alice, grant.Row.ID); err != nil {
		t.Errorf("alice revokes it herself: %v", err)
	}
}

func TestWhatIsNoTokenIsNotLookedUp(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	text := mustToken(t, w.Service, alice, "", 0).Secret.Reveal()
	before := w.Store.Reads()
	bad := []string{
		"", "bly_", text + "0", text[:len(text)-1], strings.ToUpper(text), "ghp" + text[3:], strings.Repeat("bly_", 1<<16),
		strings.Replace(text, "_", "-", 1), " " + text, text[:30] + "-" + text[31:],
	}
	for i := range len(text) { // any one character changed
		c := byte('0')
		if text[i] == c {
			c = '1'
		}
		bad = append(bad, text[:i]+string(c)+text[i+1:])
	}
	for _, b := range bad {
		_, err := w.ByToken(t.Context(), secret.New(b), stranger)
		wantKind(t, fmt.Sprintf("token %.90q", b), err, bailey.Unauthenticated)
	}
	if n := w.Store.Reads() - before; n != 0 {
		t.Errorf("nonsense caused %d reads of the store", n)
	}
	// Of the right form and still wrong: looked up, and refused.
	_, err := w.ByToken(t.Context(), secret.New(identity.ReseedToken(text)), stranger)
	wantKind(t, "right id, wrong secret", err, bailey.Unauthenticated)
	_, err = w.ByToken(t.Context(), secret.New(identity.NewToken(bailey.NewID())), stranger)
	wantKind(t, "unknown id", err, bailey.Unauthenticated)
	if n := w.Store.Reads() - before; n != 2 {
		t.Errorf("two tokens of the right form caused %d reads, want 2", n)
	}
}

func FuzzParseToken(f *testing.F) {
	good := identity.NewToken("01jd0000000000000000000000")
	f.Add(good)
	f.Add(identity.ReseedToken(good))
	f.Add("bly_01jd0000000000000000000000_" + strings.Repeat("_", 51))
	f.Add("bly__" + strings.Repeat("A", 77))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := identity.ParseToken(text)
		if !ok {
			if id != "" {
				t.Errorf("ParseToken(%q) gives %q and false", text, id)
			}
			return
		}
		if len(text) != len(good) || len(id) != 26 || !strings.HasPrefix(text, "bly_"+id+"_") || strings.ContainsAny(text, " '\"/\\;\x00\n") {
			t.Errorf("ParseToken(%q) = %q, which cannot be", text, id)
		}
	})
}

// Somebody tries tokens from one address. Trying is slowed and recorded once a
// minute; a colleague's token that is in use there keeps working, and nobody is
// kept from signing in.
func TestTryingTokensIsSlowedAndDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		grant, second := mustToken(t, w.Service, alice, "", 0), mustToken(t, w.Service, alice, "", 0)
		if _, err := w.ByToken(t.Context(), grant.Secret, office); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		n, reads := len(w.Journal.Events()), w.Store.Reads()
		limited := 0
		for range 1000 {
			_, err := w.ByToken(t.Context(), secret.New(identity.NewToken(bailey.NewID())), office)
			if bailey.KindOf(err) == bailey.TooMany {
				limited++
			}
		}
		if limited != 940 || w.Store.Reads()-reads != 60 {
			t.Errorf("of 1000 tries %d were refused and %d looked up; want 940 and 60", limited, w.Store.Reads()-reads)
		}
		events := w.Journal.Events()[n:]
		if len(events) != 1 || events[0].Actor.Method != "token" || events[0].Outcome != audit.Failure || events[0].Actor.IP != office {
			t.Errorf("a burst of tries made the events %+v, want one", events)
		}
		if _, err := w.ByToken(t.Context(), grant.Secret, office); err != nil {
			t.Errorf("the token in use here: %v, want good", err)
		}
		_, err := w.ByToken(t.Context(), second.Secret, office)
		wantKind(t, "a token new here, meanwhile", err, bailey.TooMany)
		if _, err := w.ByToken(t.Context(), second.Secret, home); err != nil {
			t.Errorf("the same from elsewhere: %v, want good", err)
		}
		if _, err := try(t, w.Service, "bob", good("bob"), office); err != nil {
			t.Errorf("bob signs in here: %v, want in", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := w.ByToken(t.Context(), second.Secret, office); err != nil {
			t.Errorf("a token new here, a moment later: %v, want good", err)
		}
	})
}

func TestLifetimesOfTokens(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	const day = 24 * time.Hour
	for _, d := range []time.Duration{-1, -day, 367 * day, 100 * 365 * day} {
		_, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Note: "", Lifetime: d})
		wantKind(t, fmt.Sprintf("a token for %v", d), err, bailey.Invalid)
		_, _, err = w.SignInForToken(t.Context(), identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: home}, "", d)
		wantKind(t, fmt.Sprintf("signing in for a token for %v", d), err, bailey.Invalid)
	}
	mustToken(t, w.Service, alice, "", time.Second)
	mustToken(t, w.Service, alice, "", 365*day)
}

// Attack 19: whoever steals a token cannot make a longer-lived one with it.
func TestATokenMadeWithATokenDoesNotOutliveIt(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	grant := mustToken(t, w.Service, alice, "ci", time.Hour)
	byToken, err := w.ByToken(t.Context(), grant.Secret, stranger)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.CreateToken(t.Context(), byToken, identity.TokenRequest{Note: "", Lifetime: 365 * 24 * time.Hour})
	wantKind(t, "a year from an hour", err, bailey.Denied)
	child := mustToken(t, w.Service, byToken, "", 0)
	if got, want := child.Row.ExpiresAt, grant.Row.ExpiresAt; got.After(want) {
		t.Errorf("the child lives until %v, the parent until %v", got, want)
	}
	mustToken(t, w.Service, byToken, "", time.Minute)
	if err := w.RevokeToken(t.Context(), alice, grant.Row.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.CreateToken(t.Context(), byToken, identity.TokenRequest{Note: "", Lifetime: time.Minute})
	wantKind(t, "with a revoked token", err, bailey.Unauthenticated)
}

func TestSigningInForATokenIsSigningIn(t *testing.T) {
	w := identitytest.NewWorld(t)
	r := identity.SignInRequest{Name: "alice", Password: identitytest.Password("alice"), IP: home, UserAgent: "bailey"}
	grant, user, err := w.SignInForToken(t.Context(), r, "laptop", time.Hour)
	if err != nil || user.Name != "alice" {
		t.Fatalf("SignInForToken = %v, %v", user, err)
	}
	if actor, err := w.ByToken(t.Context(), grant.Secret, home); err != nil || actor.UserID != user.ID {
		t.Errorf("ByToken = %+v, %v", actor, err)
	}
	var actions []audit.Action
	for _, e := range w.Journal.Events() {
		actions = append(actions, e.Action)
	}
	if !slices.Equal(actions, []audit.Action{audit.SignIn, audit.TokenCreate}) {
		t.Errorf("journal = %v, want sign-in, then the token", actions)
	}
	r.Password = secret.New("no")
	grant, _, err = w.SignInForToken(t.Context(), r, "laptop", time.Hour)
	wantKind(t, "with a wrong password", err, bailey.Unauthenticated)
	if !grant.Secret.Empty() {
		t.Error("a token was given out")
	}
}

func TestAUserHasAHundredTokensAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		for i := range 100 {
			mustToken(t, w.Service, alice, "", time.Duration(1+i%2)*time.Hour)
		}
		_, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Note: "", Lifetime: 0})
		wantKind(t, "one more", err, bailey.OverQuota)
		mustToken(t, w.Service, bob, "", 0)
		time.Sleep(time.Hour)
		_, err = w.CreateToken(t.Context(), alice, identity.TokenRequest{})
		wantKind(t, "an hour after she proved who she is", err, bailey.StepUp)
		_, alice = identitytest.SignIn(t, w.Service, "alice")
		mustToken(t, w.Service, alice, "", 0) // half of them have expired
		if list, _ := w.Tokens(t.Context(), alice); len(list) != 51 {
			t.Errorf("alice has %d tokens, want 51: the expired ones made room", len(list))
		}
	})
}

package identity_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/allow"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

// Attack 19, and the hole of other products: a list of addresses that held for
// one way in and not for another. Here it holds for the person.
func TestAListOfAddressesHoldsAtEveryDoor(t *testing.T) {
	lists := &allow.Lists{}
	w := identitytest.NewWorld(t, func(cfg *identity.Config) { cfg.Places = func() *allow.Lists { return lists } })
	cookie, actor := identitytest.SignIn(t, w.Service, "alice")
	token, err := w.Service.CreateToken(t.Context(), actor, identity.TokenRequest{Note: "script", Lifetime: 0})
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := identitytest.IP, "203.0.113.77"
	in := netip.MustParseAddr(inside)
	only := []netip.Prefix{netip.PrefixFrom(in, in.BitLen())}
	for _, tt := range []struct {
		name  string
		lists *allow.Lists
	}{
		{"everyone", &allow.Lists{Everyone: only}},
		{"her own", &allow.Lists{Users: map[string][]netip.Prefix{"alice": only}}}, // the last: bob comes below
	} {
		name := tt.name
		lists = tt.lists
		if _, err := w.Service.BySession(t.Context(), cookie, inside); err != nil {
			t.Errorf("%s: the session from inside: %v", name, err)
		}
		if _, err := w.Service.ByToken(t.Context(), token.Secret, inside); err != nil {
			t.Errorf("%s: the token from inside: %v", name, err)
		}
		_, err := w.Service.BySession(t.Context(), cookie, outside)
		wantKind(t, name+": the session from outside", err, bailey.Denied)
		_, err = w.Service.ByToken(t.Context(), token.Secret, outside)
		wantKind(t, name+": the token from outside", err, bailey.Denied)
		_, err = w.Service.ByToken(t.Context(), token.Secret, "")
		wantKind(t, name+": the token from nowhere", err, bailey.Denied)
		if _, err := try(t, w.Service, "alice", good("alice"), outside); err == nil {
			t.Errorf("%s: she signs in from outside", name)
		}
		if _, err := try(t, w.Service, "alice", good("alice"), inside); err != nil {
			t.Errorf("%s: she does not sign in from inside: %v", name, err)
		}
	}
	// Bob is not on alice's list; and what a stranger reads does not say that
	// there is one.
	if _, err := try(t, w.Service, "bob", good("bob"), outside); err != nil {
		t.Errorf("bob from outside, with a list for alice: %v", err)
	}
	_, wrong := try(t, w.Service, "bob", "no", outside)
	_, right := try(t, w.Service, "alice", good("alice"), outside)
	if a, b := shown(t, wrong), shown(t, right); a != b {
		t.Errorf("a wrong password reads %q, a right one from a wrong place %q", a, b)
	}
	lists = &allow.Lists{}
	if _, err := w.Service.BySession(t.Context(), cookie, outside); err != nil {
		t.Errorf("without lists again: %v", err)
	}
}

func TestAnAdministratorsBanEndsSessionsFromThere(t *testing.T) {
	w := identitytest.NewWorld(t)
	cookie, actor := identitytest.SignIn(t, w.Service, "alice")
	token, err := w.Service.CreateToken(t.Context(), actor, identity.TokenRequest{Note: "script", Lifetime: 0})
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Guard.Impose(netip.MustParsePrefix("203.0.113.0/24"), time.Now().Add(time.Hour), "root-admin")
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func(ip string) error{
		"session": func(ip string) error { _, err := w.Service.BySession(t.Context(), cookie, ip); return err },
		"token":   func(ip string) error { _, err := w.Service.ByToken(t.Context(), token.Secret, ip); return err },
		"sign-in": func(ip string) error { _, err := try(t, w.Service, "alice", good("alice"), ip); return err },
	} {
		wantKind(t, what+" from the banned network", do("203.0.113.9"), bailey.Denied)
		if err := do("198.51.100.1"); err != nil {
			t.Errorf("%s from elsewhere: %v", what, err)
		}
	}
	if !w.Guard.Lift(b.ID) {
		t.Fatal("no ban to lift")
	}
	if _, err := w.Service.BySession(t.Context(), cookie, "203.0.113.9"); err != nil {
		t.Errorf("after the lift: %v", err)
	}
}

// Attack 12: fifty failures from all over the world do not lock alice out where
// she has been before; where she has not, a password alone does not do, and
// right and wrong read alike.
func TestUnderAttackAPasswordAloneIsNotEnoughFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, hasty)
		if _, err := try(t, w.Service, "alice", good("alice"), office); err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			_, _ = try(t, w.Service, "alice", "no", fmt.Sprintf("203.0.113.%d", i))
		}
		if _, err := try(t, w.Service, "alice", good("alice"), office); err != nil {
			t.Errorf("where she was before: %v", err)
		}
		_, right := try(t, w.Service, "alice", good("alice"), "198.51.100.1")
		wantKind(t, "from elsewhere", right, bailey.TooMany)
		_, wrong := try(t, w.Service, "alice", "no", "198.51.100.2")
		if a, b := shown(t, right), shown(t, wrong); a != b {
			t.Errorf("right reads %q, wrong %q", a, b)
		}
		if _, err := try(t, w.Service, "bob", good("bob"), "198.51.100.3"); err != nil {
			t.Errorf("bob meanwhile: %v", err)
		}
		refused := 0
		for _, e := range signIns(w) {
			if e.Reason == audit.Pressed {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%d refusals for that reason are recorded, want 1", refused)
		}
		time.Sleep(71 * time.Minute)
		if _, err := try(t, w.Service, "alice", good("alice"), "198.51.100.1"); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func signIns(w *identitytest.World) (found []audit.Event) {
	for _, e := range w.Journal.Events() {
		if e.Action == audit.SignIn {
			found = append(found, e)
		}
	}
	return found
}

func TestSigningInFromABannedNetworkIsOneEventAMinute(t *testing.T) {
	w := identitytest.NewWorld(t)
	if _, err := w.Guard.Impose(netip.MustParsePrefix("203.0.113.0/24"), time.Now().Add(time.Hour), "root-admin"); err != nil {
		t.Fatal(err)
	}
	before := len(signIns(w))
	for range 500 {
		_, _, err := w.Service.SignIn(t.Context(), identity.SignInRequest{Name: "alice", Password: secret.New("no"), IP: "203.0.113.9"})
		wantKind(t, "sign-in", err, bailey.Denied)
	}
	if n := len(signIns(w)) - before; n != 1 {
		t.Errorf("500 refusals are %d events", n)
	}
}

package identity_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

// Attack 19: a stolen token tries to become more than it is. What it makes is
// nowhere wider, and dies with it.
func TestATokenMakesNothingWider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		ws := []string{bailey.NewID(), bailey.NewID()}
		parent, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{
			Lifetime: time.Hour, Scopes: []bailey.Scope{bailey.ScopeAccount, bailey.ScopeWorkspacesOpen},
			Workspaces: nil, Networks: []string{"192.0.2.0/24"},
		})
		if err != nil {
			t.Fatal(err)
		}
		thief, err := w.ByToken(t.Context(), parent.Secret, home)
		if err != nil {
			t.Fatal(err)
		}
		for what, r := range map[string]identity.TokenRequest{
			"all":                  {Scopes: []bailey.Scope{bailey.ScopeAll}},
			"another scope":        {Scopes: []bailey.Scope{bailey.ScopeAccount, bailey.ScopeWorkspacesWrite}},
			"a scope of the staff": {Scopes: []bailey.Scope{bailey.ScopeAdmin}},
			"another network":      {Networks: []string{"198.51.100.0/24"}},
			"a wider network":      {Networks: []string{"192.0.0.0/16"}},
			"everywhere":           {Networks: []string{"0.0.0.0/0"}},
			"a longer life":        {Lifetime: 2 * time.Hour},
		} {
			if _, err := w.CreateToken(t.Context(), thief, r); bailey.KindOf(err) != bailey.Denied {
				t.Errorf("a token with %s: %v, want it denied", what, err)
			}
		}
		child, err := w.CreateToken(t.Context(), thief, identity.TokenRequest{Workspaces: ws[:1], Networks: []string{home}})
		if err != nil {
			t.Fatalf("a narrower token: %v", err)
		}
		if !slices.Equal(child.Row.Scopes, parent.Row.Scopes) || child.Row.ExpiresAt.After(parent.Row.ExpiresAt) || child.Row.ParentID != parent.Row.ID {
			t.Errorf("child = %+v, want the parent's scopes and end", child.Row)
		}
		// The child is for one workspace, so it is not for the account.
		actor, err := w.ByToken(t.Context(), child.Secret, home)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.CreateToken(t.Context(), actor, identity.TokenRequest{}); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("a token for one workspace makes tokens: %v", err)
		}
		ended, release := w.Ended(actor)
		defer release()
		if err := w.RevokeToken(t.Context(), alice, parent.Row.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("the child's tunnels are open after its parent was revoked")
		}
		if _, err := w.ByToken(t.Context(), child.Secret, home); bailey.KindOf(err) != bailey.Unauthenticated {
			t.Errorf("the child lives on: %v", err)
		}
	})
}

// CVE-2026-91164: the networks of a token hold at every use, also of a token
// that was used well a moment ago and is in memory.
func TestATokenOutsideItsNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		g, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Networks: []string{"192.0.2.0/24", "2001:db8::/32"}})
		if err != nil {
			t.Fatal(err)
		}
		for ip, ok := range map[string]bool{
			"192.0.2.10": true, "::ffff:192.0.2.10": true, "2001:db8::7": true,
			"198.51.100.1": false, "::ffff:198.51.100.1": false, "2001:db9::7": false, "": false, "unix": false,
		} {
			for range 2 { // from the store, then from memory
				if _, err := w.ByToken(t.Context(), g.Secret, ip); (err == nil) != ok {
					t.Errorf("from %q: %v, want success %v", ip, err, ok)
				}
			}
		}
		time.Sleep(2 * time.Minute)
		before := len(w.Journal.Events())
		if _, err := w.ByToken(t.Context(), g.Secret, "198.51.100.1"); err == nil {
			t.Error("it was good from outside")
		}
		events := w.Journal.Events()[before:]
		if len(events) != 1 || events[0].Action != audit.AccessDenied || events[0].Reason != audit.ForeignNetwork || events[0].Actor.IP != "198.51.100.1" {
			t.Errorf("events = %+v, want the refusal with its address", events)
		}
		list, err := w.Tokens(t.Context(), alice)
		if err != nil || list[0].UsedIP == "198.51.100.1" || list[0].UsedAt.Equal(time.Now().UTC()) {
			t.Errorf("tokens = %+v, %v; want a refused use not to count as one", list, err)
		}
		for _, bad := range []string{"x", "192.0.2.0/33", "192.0.2.1%eth0", "10.0.0.0/8,", ""} {
			if _, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Networks: []string{bad}}); bailey.KindOf(err) != bailey.Invalid {
				t.Errorf("network %q: %v, want it invalid", bad, err)
			}
		}
	})
}

func code(t *testing.T, err error) identity.DeviceError {
	t.Helper()
	c, _ := errors.AsType[identity.DeviceError](err)
	return c
}

func TestADeviceIsApprovedByAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		begin := func() identity.DeviceCode {
			t.Helper()
			d, err := w.BeginDevice(t.Context(), "cli\x1b[0m", office, []bailey.Scope{bailey.ScopeWorkspacesOpen})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		poll := func(d identity.DeviceCode) (secret.Value, error) {
			time.Sleep(time.Minute / 2)
			g, _, err := w.PollDevice(t.Context(), d.Device, office)
			return g.Secret, err
		}
		d := begin()
		if _, err := poll(d); code(t, err) != identity.DevicePending {
			t.Errorf("before the answer: %v", err)
		}
		if _, _, err := w.PollDevice(t.Context(), d.Device, office); code(t, err) != identity.DeviceSlower {
			t.Errorf("a poll right behind another: %v, want slow_down", err)
		}
		// A token approves nothing, or it would make tokens wider than itself.
		g, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		byToken, err := w.ByToken(t.Context(), g.Secret, home)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.AnswerDevice(t.Context(), byToken, d.User, true); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("a token approves a device: %v", err)
		}
		seen, err := w.Device(t.Context(), alice, strings.ToLower(strings.ReplaceAll(d.User, "-", " ")))
		if err != nil || seen.Note != "cli[0m" || seen.IP != office || !slices.Equal(seen.Scopes, []bailey.Scope{bailey.ScopeWorkspacesOpen}) {
			t.Errorf("Device = %+v, %v", seen, err)
		}
		if _, err := w.AnswerDevice(t.Context(), alice, d.User, true); err != nil {
			t.Fatal(err)
		}
		token, err := poll(d)
		if err != nil {
			t.Fatal(err)
		}
		actor, err := w.ByToken(t.Context(), token, office)
		if err != nil || actor.UserID != alice.UserID || !slices.Equal(actor.Scopes, []bailey.Scope{bailey.ScopeWorkspacesOpen}) {
			t.Errorf("the token is %+v, %v; want alice's, for what was asked", actor, err)
		}
		if _, err := poll(d); code(t, err) != identity.DeviceUnknown {
			t.Errorf("a second fetch: %v, want invalid_grant", err)
		}
		if _, err := w.AnswerDevice(t.Context(), alice, d.User, true); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("a second answer: %v", err)
		}
		no := begin()
		if _, err := w.AnswerDevice(t.Context(), alice, no.User, false); err != nil {
			t.Fatal(err)
		}
		if _, err := poll(no); code(t, err) != identity.DeviceDenied {
			t.Errorf("after a no: %v", err)
		}
		late := begin()
		time.Sleep(10 * time.Minute)
		if _, err := poll(late); code(t, err) != identity.DeviceExpired {
			t.Errorf("after ten minutes: %v", err)
		}
	})
}

// Attack 19: guessing codes ends after five, and a right one in between clears
// nothing.
func TestGuessingDeviceCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		own, err := w.BeginDevice(t.Context(), "", home, nil)
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		for _, guess := range []string{"BBBB-BBBB", "x", "CCCC-CCCC", "AEIO-UAEI", "DDDD-DDDD"} {
			if _, err := w.Device(t.Context(), bob, own.User); err != nil {
				t.Fatalf("bob's own code after %d wrong ones: %v", tries, err)
			}
			if _, err := w.Device(t.Context(), bob, guess); bailey.KindOf(err) != bailey.NotFound {
				t.Errorf("guess %q: %v", guess, err)
			}
			tries++
			time.Sleep(30 * time.Second) // below the rate of attempts
		}
		if _, err := w.Device(t.Context(), bob, "FFFF-FFFF"); bailey.KindOf(err) != bailey.TooMany || identity.RetryAfter(err) <= 0 {
			t.Errorf("the sixth guess: %v, want to wait", err)
		}
		if _, err := w.Device(t.Context(), bob, own.User); bailey.KindOf(err) != bailey.TooMany {
			t.Errorf("his own code while he waits: %v", err)
		}
	})
}

// A flood of requests and polls from one address is slowed.
func TestADeviceFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		d, err := w.BeginDevice(t.Context(), "", stranger, nil)
		if err != nil {
			t.Fatal(err)
		}
		limited := 0
		for range 300 {
			if _, _, err := w.PollDevice(t.Context(), d.Device, stranger); bailey.KindOf(err) == bailey.TooMany {
				limited++
			}
		}
		if limited < 200 {
			t.Errorf("of 300 polls at once %d were refused", limited)
		}
		if _, err := w.BeginDevice(t.Context(), "", stranger, nil); bailey.KindOf(err) != bailey.TooMany {
			t.Errorf("another code for the flooder: %v", err)
		}
		if _, err := w.BeginDevice(t.Context(), "", home, nil); err != nil {
			t.Errorf("a code for somebody else: %v", err)
		}
	})
}

// One action ends everything of a user, and nothing of anybody else.
func TestEverythingEnds(t *testing.T) {
	for _, by := range []string{"alice", "root-admin"} {
		synctest.Test(t, func(t *testing.T) {
			w := identitytest.NewWorld(t)
			cookie, alice := identitytest.SignIn(t, w.Service, "alice")
			bobs, _ := identitytest.SignIn(t, w.Service, "bob")
			_, admin := identitytest.SignIn(t, w.Service, "root-admin")
			g, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{})
			if err != nil {
				t.Fatal(err)
			}
			byToken, err := w.ByToken(t.Context(), g.Secret, home)
			if err != nil {
				t.Fatal(err)
			}
			d, err := w.BeginDevice(t.Context(), "", home, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.AnswerDevice(t.Context(), alice, d.User, true); err != nil {
				t.Fatal(err)
			}
			page, release := w.Ended(alice)
			defer release()
			tunnel, release := w.Ended(byToken)
			defer release()
			if _, bob := identitytest.SignIn(t, w.Service, "bob"); bailey.KindOf(w.EndEverythingOf(t.Context(), bob, "alice")) != bailey.Denied {
				t.Error("bob ended alice's access")
			}
			if by == "alice" {
				err = w.EndEverything(t.Context(), alice)
			} else {
				err = w.EndEverythingOf(t.Context(), admin, "alice")
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for what, ended := range map[string]<-chan struct{}{"session": page, "token": tunnel} {
				select {
				case <-ended:
				default:
					t.Errorf("by %s: what hangs on the %s is open", by, what)
				}
			}
			if _, err := w.BySession(t.Context(), cookie, home); err == nil {
				t.Error("the session lives")
			}
			if _, err := w.ByToken(t.Context(), g.Secret, home); err == nil {
				t.Error("the token lives")
			}
			if _, _, err := w.PollDevice(t.Context(), d.Device, home); code(t, err) != identity.DeviceUnknown {
				t.Errorf("the approved device: %v", err)
			}
			if _, err := w.BySession(t.Context(), bobs, home); err != nil {
				t.Errorf("bob's session: %v", err)
			}
			// A token made by the session that has ended is taken back.
			if _, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{}); bailey.KindOf(err) != bailey.Unauthenticated {
				t.Errorf("the ended session makes a token: %v", err)
			}
			if list, err := w.Store.Tokens(t.Context(), alice.UserID); err != nil || len(list) != 0 {
				t.Errorf("tokens left: %v, %v", list, err)
			}
			found := slices.ContainsFunc(w.Journal.Events(), func(e audit.Event) bool {
				return e.Action == audit.AccessEnd && e.Target.ID == alice.UserID && e.Outcome == audit.Success
			})
			if !found {
				t.Error("the journal does not say it")
			}
		})
	}
}

func TestServiceAccountsHaveTokensAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, admin := identitytest.SignIn(t, w.Service, "root-admin")
		robot, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "robot", Service: true, Owner: "alice"})
		if err != nil || !robot.Service || robot.OwnerID != alice.UserID {
			t.Fatalf("CreateUser = %+v, %v", robot, err)
		}
		for _, password := range []string{"", "anything at all 99"} {
			_, _, err := w.SignIn(t.Context(), identity.SignInRequest{Name: "robot", Password: secret.New(password), IP: home})
			if bailey.KindOf(err) != bailey.Unauthenticated {
				t.Errorf("it signs in with %q: %v", password, err)
			}
		}
		if _, err := w.UpdateUser(t.Context(), admin, "robot", identity.UserUpdate{Password: new(secret.New("seven orange bridges"))}); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("it gets a password: %v", err)
		}
		if _, err := w.CreateServiceToken(t.Context(), alice, "robot", identity.TokenRequest{}); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("its owner, who is no administrator, makes a token: %v", err)
		}
		if _, err := w.CreateServiceToken(t.Context(), admin, "alice", identity.TokenRequest{}); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("an administrator makes a token in alice's name: %v", err)
		}
		if _, err := w.CreateServiceToken(t.Context(), admin, "robot", identity.TokenRequest{Scopes: []bailey.Scope{bailey.ScopeAdmin}}); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("a token beyond its role: %v", err)
		}
		g, err := w.CreateServiceToken(t.Context(), admin, "robot", identity.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		actor, err := w.ByToken(t.Context(), g.Secret, home)
		if err != nil || actor.Name != "robot" || g.Row.CreatedBy != admin.UserID {
			t.Errorf("its token is %+v, %v, made by %q", actor, err, g.Row.CreatedBy)
		}
		if _, err := w.UpdateUser(t.Context(), admin, "robot", identity.UserUpdate{Disabled: new(true)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.ByToken(t.Context(), g.Secret, home); err == nil {
			t.Error("the token of a disabled account is good")
		}
	})
}

func TestGroupManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, admin := identitytest.SignIn(t, w.Service, "root-admin")
		change := func(who bailey.Actor, user string, c bailey.GroupChange) error {
			_, err := w.ChangeGroup(t.Context(), who, "vision", user, c)
			return err
		}
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		if err := change(alice, "alice", bailey.GroupJoin); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("alice joins by herself: %v", err)
		}
		if err := change(admin, "alice", bailey.GroupAppoint); err != nil {
			t.Fatal(err)
		}
		alice, err := w.BySession(t.Context(), cookie, home)
		if err != nil || !slices.Equal(alice.Manages, []string{"vision"}) {
			t.Fatalf("alice is %+v, %v; want her new rights at once", alice, err)
		}
		if err := change(alice, "bob", bailey.GroupJoin); err != nil {
			t.Errorf("a manager adds bob: %v", err)
		}
		for _, c := range []bailey.GroupChange{bailey.GroupAppoint, bailey.GroupDismiss} {
			if err := change(alice, "bob", c); bailey.KindOf(err) != bailey.Denied {
				t.Errorf("a manager does %q: %v", c, err)
			}
		}
		if _, err := w.ChangeGroup(t.Context(), alice, "speech", "bob", bailey.GroupJoin); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("a manager of vision adds to speech: %v", err)
		}
		if _, err := w.Users(t.Context(), alice); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("a manager lists all accounts: %v", err)
		}
		groups, err := w.Groups(t.Context(), alice)
		if err != nil || len(groups) != 1 || !slices.Equal(groups[0].Members, []string{"bob"}) {
			t.Errorf("Groups = %+v, %v", groups, err)
		}
		if err := change(alice, "bob", bailey.GroupLeave); err != nil {
			t.Errorf("a manager removes bob: %v", err)
		}
	})
}

// A token that is good from one network gets no way in that is good from
// another: its certificates are bound to the same networks, and keys, which are
// good from everywhere, it cannot add.
func TestATokensNetworksBindItsCertificates(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	g, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Scopes: []bailey.Scope{bailey.ScopeSSH}, Networks: []string{"192.0.2.0/24", "2001:db8::/32"}})
	if err != nil {
		t.Fatal(err)
	}
	ci, err := w.ByToken(t.Context(), g.Secret, "192.0.2.10")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.AddSSHKey(t.Context(), ci, identity.NewSSHKey{Line: lineOf(pair(t).PublicKey())})
	wantKind(t, "a key", err, bailey.Denied)
	issue := func(sources ...string) (*ssh.Certificate, error) {
		line, _, err := w.IssueSSHCertificate(t.Context(), ci, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey()), Sources: sources})
		if err != nil {
			return nil, err
		}
		return parseCertificate(t, line), nil
	}
	whole, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	part, err := issue("192.0.2.10")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cert *ssh.Certificate
		ip   string
		ok   bool
	}{
		{whole, "192.0.2.99", true},
		{whole, "2001:db8::7", true},
		{whole, "198.51.100.1", false},
		{whole, "2001:db9::7", false},
		{part, "192.0.2.10", true},
		{part, "192.0.2.99", false},
	} {
		in := byCertificate("alice", tt.cert)
		in.IP = tt.ip
		if _, _, err := w.SignInSSH(t.Context(), in); (err == nil) != tt.ok {
			t.Errorf("from %s with a certificate for %q: %v, want success %v", tt.ip, tt.cert.CriticalOptions["source-address"], err, tt.ok)
		}
	}
	for _, wider := range []string{"192.0.0.0/16", "198.51.100.1", "::/0", "0.0.0.0/0"} {
		_, err := issue("192.0.2.10", wider)
		wantKind(t, "a certificate also for "+wider, err, bailey.Denied)
	}
	_, err = issue("nonsense")
	wantKind(t, "a certificate for nonsense", err, bailey.Invalid)
	// A token for something else gets none at all.
	if g, err = w.CreateToken(t.Context(), alice, identity.TokenRequest{Scopes: []bailey.Scope{bailey.ScopeWorkspacesOpen}}); err != nil {
		t.Fatal(err)
	}
	if ci, err = w.ByToken(t.Context(), g.Secret, home); err != nil {
		t.Fatal(err)
	}
	_, err = issue()
	wantKind(t, "a certificate with a token for workspaces", err, bailey.Denied)
}

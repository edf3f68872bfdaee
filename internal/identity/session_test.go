package identity_test

import (
	"context"
	"errors"
	"fmt"
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
)

// in reports whether the cookie is good now.
func in(t *testing.T, s *identity.Service, cookie secret.Value) bool {
	t.Helper()
	_, err := s.BySession(t.Context(), cookie, home)
	if err != nil && bailey.KindOf(err) != bailey.Unauthenticated {
		t.Fatalf("BySession = %v", err)
	}
	return err == nil
}

func TestWhatIsNoCookieIsNotLookedUp(t *testing.T) {
	w := identitytest.NewWorld(t)
	cookie, _ := identitytest.SignIn(t, w.Service, "alice")
	before := w.Store.Reads()
	text := cookie.Reveal()
	for _, bad := range []string{
		"", "x", text + "A", text[:42], text[:42] + "=", text[:42] + "'", text[:42] + "\x00", strings.Repeat("é", 43)[:43],
		strings.Repeat("A", 1<<20), identity.NewToken(bailey.NewID()),
	} {
		_, err := w.BySession(t.Context(), secret.New(bad), stranger)
		wantKind(t, fmt.Sprintf("cookie %.60q", bad), err, bailey.Unauthenticated)
	}
	if n := w.Store.Reads() - before; n != 0 {
		t.Errorf("nonsense caused %d reads of the store", n)
	}
}

// Attack 16: a cookie is dead from the moment its session ends, also within the
// second in which answers are remembered.
func TestACookieIsDeadAtOnce(t *testing.T) {
	type scene struct {
		w                   *identitytest.World
		alice, other, admin bailey.Actor // other: alice in another browser
	}
	ctx, off, fresh := t.Context(), true, secret.New("amber windmill 77")
	for name, end := range map[string]func(s scene) error{
		"sign-out":        func(s scene) error { return s.w.SignOut(ctx, s.alice) },
		"ended elsewhere": func(s scene) error { return s.w.EndSession(ctx, s.other, s.alice.Session) },
		"password change elsewhere": func(s scene) error {
			return s.w.ChangePassword(ctx, s.other, identitytest.Password("alice"), fresh)
		},
		"disable": func(s scene) error {
			_, err := s.w.UpdateUser(ctx, s.admin, "alice", identity.UserUpdate{Disabled: &off})
			return err
		},
		"password reset": func(s scene) error {
			_, err := s.w.UpdateUser(ctx, s.admin, "alice", identity.UserUpdate{Password: &fresh})
			return err
		},
		"delete": func(s scene) error { return s.w.DeleteUser(ctx, s.admin, "alice") },
	} {
		t.Run(name, func(t *testing.T) {
			w := identitytest.NewWorld(t)
			admin := adminOf(t, w)
			cookie, alice := identitytest.SignIn(t, w.Service, "alice")
			_, other := identitytest.SignIn(t, w.Service, "alice")
			bobs, bob := identitytest.SignIn(t, w.Service, "bob")
			ended, release := w.Ended(alice)
			defer release()
			bobEnded, releaseBob := w.Ended(bob)
			defer releaseBob()
			if !in(t, w.Service, cookie) || closed(ended) {
				t.Fatal("alice is not in")
			}
			if err := end(scene{w, alice, other, admin}); err != nil {
				t.Fatal(err)
			}
			if in(t, w.Service, cookie) {
				t.Error("alice's cookie is still good")
			}
			if _, err := w.BySessionID(t.Context(), alice.UserID, alice.Session, home); err == nil {
				t.Error("what was derived from alice's session is still good")
			}
			if !closed(ended) {
				t.Error("alice's tunnels are still open")
			}
			if !in(t, w.Service, bobs) || closed(bobEnded) {
				t.Error("bob was signed out too")
			}
		})
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestBobCannotEndAlicesSession(t *testing.T) {
	w := identitytest.NewWorld(t)
	cookie, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	wantKind(t, "EndSession", w.EndSession(t.Context(), bob, alice.Session), bailey.NotFound)
	forged := bob
	forged.Session = alice.Session
	if err := w.SignOut(t.Context(), forged); err != nil {
		t.Errorf("SignOut of a session that is not his = %v, want nil: there is none", err)
	}
	if !in(t, w.Service, cookie) {
		t.Error("bob ended alice's session")
	}
	list, err := w.Sessions(t.Context(), bob)
	if err != nil || len(list) != 1 || list[0].ID != bob.Session {
		t.Errorf("bob's sessions = %v, %v; want his own", list, err)
	}
	if err := w.EndSession(t.Context(), alice, alice.Session); err != nil {
		t.Errorf("alice ends it herself: %v", err)
	}
}

func TestADerivedCredentialBelongsToItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		token, err := w.CreateToken(t.Context(), alice, identity.TokenRequest{Note: "x", Lifetime: 0})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.ByToken(t.Context(), token.Secret, home); err != nil {
			t.Fatal(err)
		}
		for range 2 { // from memory, and read anew
			actor, err := w.BySessionID(t.Context(), alice.UserID, alice.Session, office)
			if err != nil || actor.Name != "alice" || actor.IP != office || actor.Session != alice.Session {
				t.Errorf("alice's: %+v, %v", actor, err)
			}
			for _, c := range [][2]string{
				{bob.UserID, alice.Session},
				{alice.UserID, bob.Session},
				{"", alice.Session},
				{alice.UserID, ""},
				{alice.UserID, "nonsense"},
				{alice.UserID, token.Row.ID},
			} {
				_, err := w.BySessionID(t.Context(), c[0], c[1], home)
				wantKind(t, fmt.Sprintf("BySessionID(%q, %q)", c[0], c[1]), err, bailey.Unauthenticated)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

func TestSessionsEndAfterEightHoursWithoutUseAndAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		ended, release := w.Ended(alice)
		defer release()
		time.Sleep(8*time.Hour - time.Second)
		if closed(ended) || !in(t, w.Service, cookie) {
			t.Error("the session ended before eight idle hours")
		}
		time.Sleep(8*time.Hour - time.Second)
		synctest.Wait()
		if closed(ended) {
			t.Error("the tunnels were closed although the session was used meanwhile")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !closed(ended) || in(t, w.Service, cookie) {
			t.Error("the session did not end after eight idle hours")
		}
		if list, err := w.Sessions(t.Context(), alice); err != nil || len(list) != 0 {
			t.Errorf("sessions shown to alice = %v, %v; want none", list, err)
		}

		cookie, alice = identitytest.SignIn(t, w.Service, "alice")
		ended, release = w.Ended(alice)
		defer release()
		for range 23 {
			time.Sleep(time.Hour)
			if !in(t, w.Service, cookie) {
				t.Fatal("a session in use ended within a day")
			}
		}
		time.Sleep(time.Hour - time.Second)
		if closed(ended) || !in(t, w.Service, cookie) {
			t.Error("the session ended before its day was over")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !closed(ended) || in(t, w.Service, cookie) {
			t.Error("the session outlived its day")
		}
	})
}

// An expired session is refused but not destroyed: a clock that jumps ahead and
// back again signs nobody out.
func TestAClockThatJumpsSignsNobodyOut(t *testing.T) {
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	w := identitytest.NewWorld(t, func(c *identity.Config) { c.Now = func() time.Time { return now } })
	cookie, _ := identitytest.SignIn(t, w.Service, "alice")
	now = now.Add(10 * time.Hour)
	if in(t, w.Service, cookie) {
		t.Error("ten hours ahead: want refused")
	}
	now = now.Add(1000 * time.Hour)
	if in(t, w.Service, cookie) {
		t.Error("weeks ahead: want refused")
	}
	now = now.Add(-1010 * time.Hour)
	if !in(t, w.Service, cookie) {
		t.Error("back again: want in")
	}
	now = now.Add(-2 * time.Hour)
	if !in(t, w.Service, cookie) {
		t.Error("two hours before it began: want in")
	}
}

// brokenStore cannot delete sessions or tokens.
type brokenStore struct{ identity.Store }

func (brokenStore) DeleteSessions(context.Context, string, string) error { return errDisk }

func (brokenStore) DeleteToken(context.Context, string, string) error { return errDisk }

// Disabling holds even when the store fails half-way and the rows stay.
func TestADisabledAccountIsOutEvenIfItsRowsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, func(c *identity.Config) { c.Store = brokenStore{c.Store} })
		admin := adminOf(t, w)
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		grant := mustToken(t, w.Service, alice, "", 0)
		ended, release := w.Ended(alice)
		defer release()
		off := true
		if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &off}); !errors.Is(err, errDisk) {
			t.Fatalf("UpdateUser = %v, want %v", err, errDisk)
		}
		for range 2 { // from memory, and read anew
			if in(t, w.Service, cookie) {
				t.Error("the cookie is good")
			}
			if _, err := w.BySessionID(t.Context(), alice.UserID, alice.Session, home); err == nil {
				t.Error("what was derived from the session is good")
			}
			if _, err := w.ByToken(t.Context(), grant.Secret, home); err == nil {
				t.Error("the token is good")
			}
			time.Sleep(2 * time.Second)
		}
		if !closed(ended) {
			t.Error("the tunnels are open")
		}
	})
}

// Twenty thousand requests a second are a handful of queries.
func TestRequestsAreAnsweredFromMemoryForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		reads, touches := w.Store.Reads(), w.Store.Touches()
		for range 10 {
			for range 1000 {
				if !in(t, w.Service, cookie) {
					t.Fatal("refused")
				}
				if _, err := w.BySessionID(t.Context(), alice.UserID, alice.Session, home); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second + time.Millisecond)
		}
		if n := w.Store.Reads() - reads; n > 10 {
			t.Errorf("20,000 requests in ten seconds made %d reads, want 10 at most", n)
		}
		for range 600 {
			in(t, w.Service, cookie)
			time.Sleep(time.Second)
		}
		if n := w.Store.Touches() - touches; n < 9 || n > 11 {
			t.Errorf("the last use was stored %d times in ten minutes, want once a minute", n)
		}
	})
}

// hookStore runs a hook after it has read a session, before the reader gets it.
type hookStore struct {
	identity.Store
	after func()
}

func (h *hookStore) SessionByHash(ctx context.Context, hash string) (bailey.Session, bailey.User, error) {
	s, u, err := h.Store.SessionByHash(ctx, hash)
	if h.after != nil {
		h.after()
	}
	return s, u, err
}

// A request reads the session, and before it has the answer the user signs out:
// what was read must not be believed, nor remembered.
func TestAReadThatASignOutOvertakesIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hookStore{}
		w := identitytest.NewWorld(t, func(c *identity.Config) { h.Store, c.Store = c.Store, h })
		cookie, alice := identitytest.SignIn(t, w.Service, "alice")
		time.Sleep(2 * time.Second)
		var once sync.Once
		h.after = func() {
			once.Do(func() {
				if err := w.SignOut(t.Context(), alice); err != nil {
					t.Error(err)
				}
			})
		}
		if in(t, w.Service, cookie) {
			t.Error("the request that was under way got in")
		}
		if in(t, w.Service, cookie) {
			t.Error("the ended session came back into memory")
		}
		// A tunnel that was authorised before and opens only now must not live.
		ended, release := w.Ended(alice)
		defer release()
		if !closed(ended) {
			t.Error("a tunnel opened after sign-out stays open")
		}
	})
}

func TestARoleHoldsAtOnce(t *testing.T) {
	w := identitytest.NewWorld(t)
	admin := adminOf(t, w)
	cookie, alice := identitytest.SignIn(t, w.Service, "alice")
	ended, release := w.Ended(alice)
	defer release()
	role, groups := bailey.RoleAuditor, []string{"vision", "audio", "vision"}
	if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Role: &role, Groups: &groups}); err != nil {
		t.Fatal(err)
	}
	actor, err := w.BySession(t.Context(), cookie, home)
	if err != nil || actor.Role != role || strings.Join(actor.Groups, " ") != "audio vision" {
		t.Errorf("alice's next request is %+v, %v; want the new role and groups", actor, err)
	}
	if closed(ended) {
		t.Error("a change of role closed the tunnels")
	}
}

func TestEndedOfNobody(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	if ch, release := w.Ended(bailey.System()); ch != nil {
		t.Error("bailey itself can end")
	} else {
		release()
	}
	stolen := bob
	stolen.Session = alice.Session
	for what, actor := range map[string]bailey.Actor{
		"unknown session":   {UserID: alice.UserID, Session: "nonsense", Method: "password"},
		"somebody else's":   stolen,
		"no user, no match": {Session: alice.Session},
	} {
		ch, release := w.Ended(actor)
		if !closed(ch) {
			t.Errorf("%s: the channel is open, want closed: in doubt we stay shut", what)
		}
		release()
		release()
	}
	// None of that touched alice's own.
	ch, release := w.Ended(alice)
	if closed(ch) {
		t.Error("alice's channel is closed")
	}
	release()
	if n := identity.Waits(w.Service); n != 0 {
		t.Errorf("%d waits are left after all were released", n)
	}
}

func TestManyTunnelsHangOnOneTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		var all sync.WaitGroup
		for i := range 100 {
			ended, release := w.Ended(alice)
			all.Go(func() {
				defer release()
				select {
				case <-ended:
				case <-time.After(time.Duration(i) * time.Minute):
				}
			})
		}
		if n := identity.Waits(w.Service); n != 1 {
			t.Errorf("100 tunnels of one session keep %d waits, want 1", n)
		}
		time.Sleep(30 * time.Minute)
		if err := w.SignOut(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		all.Wait() // hangs if one did not end
		if n := identity.Waits(w.Service); n != 0 {
			t.Errorf("%d waits are left", n)
		}
	})
}

// Memory is bounded, whatever people do.
func TestTheMemoryOfSessionsIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 9000 sessions")
	}
	w := identitytest.NewWorld(t, patient)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	fake := &manySessions{Store: w.Store, user: alice.UserID}
	s, err := identity.New(identity.Config{Store: fake, Guard: w.Guard, Audit: w.Journal})
	if err != nil {
		t.Fatal(err)
	}
	for range 9000 {
		if _, err := s.BySession(t.Context(), secret.Random(32), home); err != nil {
			t.Fatal(err)
		}
	}
	if ids, hashes, _ := identity.LiveLen(s); ids > 8192 || hashes > 8192 || ids != hashes {
		t.Errorf("%d sessions by id and %d by hash are in memory, want 8192 at most", ids, hashes)
	}
	for i := range 3000 {
		_ = s.EndSession(t.Context(), alice, fmt.Sprint(i))
	}
	if _, _, dead := identity.LiveLen(s); dead > 1024 {
		t.Errorf("%d endings are remembered, want 1024 at most", dead)
	}
}

// manySessions has every session there could be.
type manySessions struct {
	identity.Store
	user string
}

func (m *manySessions) SessionByHash(ctx context.Context, hash string) (bailey.Session, bailey.User, error) {
	u, err := m.UserByID(ctx, m.user)
	return bailey.Session{ID: hash[:26], UserID: m.user, SeenAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}, u, err
}

func (m *manySessions) DeleteSession(context.Context, string, string) error { return nil }

func TestSignOutIsRecordedAndOnlyOnce(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	n := len(w.Journal.Events())
	for range 2 {
		if err := w.SignOut(t.Context(), alice); err != nil {
			t.Errorf("SignOut = %v", err)
		}
	}
	events := w.Journal.Events()[n:]
	if len(events) != 1 || events[0].Action != audit.SignOut || events[0].Target.ID != alice.Session || events[0].Actor.Name != "alice" {
		t.Errorf("two sign-outs of one session made the events %+v, want one", events)
	}
	wantKind(t, "SignOut of nobody", w.SignOut(t.Context(), bailey.Actor{}), bailey.Unauthenticated)
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	admin := adminOf(t, w)
	cookies := map[string]secret.Value{}
	for _, name := range []string{"alice", "bob"} {
		cookies[name], _ = identitytest.SignIn(t, w.Service, name)
	}
	var all sync.WaitGroup
	for name, cookie := range cookies {
		for range 4 {
			all.Go(func() {
				for range 500 {
					actor, err := w.BySession(t.Context(), cookie, home)
					if err != nil {
						continue
					}
					if actor.Name != name {
						t.Errorf("%s's cookie gives %s", name, actor.Name)
					}
					_, release := w.Ended(actor)
					_, _ = w.BySessionID(t.Context(), actor.UserID, actor.Session, home)
					release()
				}
			})
		}
	}
	all.Go(func() {
		for i := range 100 {
			groups := []string{fmt.Sprintf("g%d", i)}
			if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Groups: &groups}); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if n := identity.Waits(w.Service); n != 0 {
		t.Errorf("%d waits are left", n)
	}
	if !in(t, w.Service, cookies["bob"]) {
		t.Error("bob is out")
	}
}

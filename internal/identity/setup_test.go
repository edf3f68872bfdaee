package identity_test

import (
	"fmt"
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

func begin(t *testing.T, s *identity.Service) secret.Value {
	t.Helper()
	setup, err := s.BeginSetup(t.Context())
	if err != nil || setup.Empty() {
		t.Fatalf("BeginSetup = empty %v, %v; want a secret", setup.Empty(), err)
	}
	return setup
}

func finish(t *testing.T, s *identity.Service, setup secret.Value, name, password, ip string) (bailey.User, error) {
	t.Helper()
	grant, user, err := s.FinishSetup(t.Context(), setup, name, secret.New(password), ip, "test")
	if (err == nil) == grant.Secret.Empty() {
		t.Errorf("FinishSetup = %v, but cookie empty: %v", err, grant.Secret.Empty())
	}
	return user, err
}

func TestTheSetupLinkMakesTheFirstAdministratorOnce(t *testing.T) {
	w := identitytest.NewEmptyWorld(t)
	if pending, err := w.SetupPending(t.Context()); !pending || err != nil {
		t.Errorf("SetupPending = %v, %v; want true", pending, err)
	}
	setup := begin(t, w.Service)
	if hash, _, err := w.Store.Setup(t.Context()); err != nil || hash == setup.Reveal() || hash != setup.Hash() {
		t.Errorf("stored is %q, %v; want the hash of the secret", hash, err)
	}
	grant, user, err := w.FinishSetup(t.Context(), setup, "carol", secret.New("granite otter 5"), home, "test")
	if err != nil || user.Role != bailey.RoleAdmin || user.Name != "carol" {
		t.Fatalf("FinishSetup = %+v, %v", user, err)
	}
	actor, err := w.BySession(t.Context(), grant.Secret, home)
	if err != nil || actor.Role != bailey.RoleAdmin {
		t.Errorf("the session it gave is %+v, %v; want an administrator's", actor, err)
	}
	var got []string
	for _, e := range w.Journal.Events() {
		got = append(got, fmt.Sprint(e.Action, " ", e.Actor.Method, " ", e.Actor.Name, " ", e.Target.Name, " ", e.Outcome))
	}
	want := fmt.Sprint([]string{"setup.done setup carol carol success", "session.signin setup carol carol success", "browser.add password carol  success"})
	if fmt.Sprint(got) != want {
		t.Errorf("journal = %v, want %s", got, want)
	}

	_, err = finish(t, w.Service, setup, "mallory", "granite otter 5", stranger)
	wantKind(t, "the link a second time", err, bailey.Conflict)
	if again, err := w.BeginSetup(t.Context()); err != nil || !again.Empty() {
		t.Errorf("BeginSetup afterwards: empty %v, %v; want empty", again.Empty(), err)
	}
	if pending, err := w.SetupPending(t.Context()); pending || err != nil {
		t.Errorf("SetupPending = %v, %v; want false", pending, err)
	}
	if _, err := try(t, w.Service, "carol", "granite otter 5", office); err != nil {
		t.Errorf("carol signs in: %v", err)
	}
}

func TestAWrongSetupLinkIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewEmptyWorld(t)
		_, err := finish(t, w.Service, secret.Random(32), "carol", "granite otter 5", home)
		wantKind(t, "before there is a link", err, bailey.Unauthenticated)
		old := begin(t, w.Service)
		fresh := begin(t, w.Service)
		for what, setup := range map[string]secret.Value{
			"replaced": old, "empty": {}, "its hash": secret.New(fresh.Hash()),
		} {
			_, err := finish(t, w.Service, setup, "carol", "granite otter 5", office)
			wantKind(t, what, err, bailey.Unauthenticated)
		}
		time.Sleep(30*time.Minute - time.Second)
		_, err = finish(t, w.Service, fresh, "carol", "short", home)
		wantKind(t, "a short password", err, bailey.Invalid)
		time.Sleep(time.Second)
		_, err = finish(t, w.Service, fresh, "carol", "granite otter 5", home)
		wantKind(t, "expired", err, bailey.Unauthenticated)
		if n, _ := w.Store.CountUsers(t.Context()); n != 0 {
			t.Errorf("%d users exist", n)
		}
	})
}

func TestABadNameOrPasswordDoesNotUseTheLinkUp(t *testing.T) {
	w := identitytest.NewEmptyWorld(t)
	setup := begin(t, w.Service)
	for _, c := range [][2]string{
		{"", "granite otter 5"},
		{"Carol", "granite otter 5"},
		{"../carol", "granite otter 5"},
		{"<b>", "granite otter 5"},
		{"bailey", "granite otter 5"},
		{"system", "granite otter 5"},
		{"carol", "carol-2026"},
	} {
		_, err := finish(t, w.Service, setup, c[0], c[1], home)
		wantKind(t, fmt.Sprintf("name %q, password %q", c[0], c[1]), err, bailey.Invalid)
	}
	if _, err := finish(t, w.Service, setup, "carol", "granite otter 5", home); err != nil {
		t.Errorf("then rightly: %v", err)
	}
}

func TestGuessingTheSetupLinkIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewEmptyWorld(t)
		setup := begin(t, w.Service)
		limited := 0
		for range 100 {
			_, err := finish(t, w.Service, secret.Random(32), "mallory", "granite otter 5", stranger)
			if bailey.KindOf(err) == bailey.TooMany {
				limited++
			}
		}
		if limited != 40 {
			t.Errorf("%d of 100 guesses in one instant were refused, want 40", limited)
		}
		if e := w.Journal.Events(); len(e) != 1 || e[0].Action != audit.SetupDone || e[0].Outcome != audit.Failure || e[0].Actor.IP != stranger {
			t.Errorf("a burst of guesses made the events %+v, want one failure", e)
		}
		if n := identity.Hashes(w.Service); n != 0 {
			t.Errorf("%d passwords were hashed for guessers", n)
		}
		// Others with many addresses do not use up what the operator may try.
		for i := range 200 {
			_, _ = finish(t, w.Service, secret.Random(32), "mallory", "granite otter 5", fmt.Sprintf("203.0.113.%d", 10+i))
		}
		if _, err := finish(t, w.Service, setup, "carol", "granite otter 5", home); err != nil {
			t.Errorf("the operator meanwhile: %v", err)
		}
	})
}

func TestTenPeopleWithTheLinkMakeOneAdministrator(t *testing.T) {
	w := identitytest.NewEmptyWorld(t, patient)
	setup := begin(t, w.Service)
	var all sync.WaitGroup
	var mu sync.Mutex
	winners := 0
	for i := range 10 {
		all.Go(func() {
			_, err := finish(t, w.Service, setup, fmt.Sprintf("carol%d", i), "granite otter 5", home)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				winners++
			} else if k := bailey.KindOf(err); k != bailey.Conflict && k != bailey.Unauthenticated && k != bailey.Unavailable {
				t.Errorf("a loser got %v", err) // Unavailable: on a busy machine the hashing queue is long
			}
		})
	}
	all.Wait()
	if n, _ := w.Store.CountUsers(t.Context()); winners != 1 || n != 1 {
		t.Errorf("%d winners, %d users; want one", winners, n)
	}
}

func TestSetupStopsWithoutAJournal(t *testing.T) {
	w := identitytest.NewEmptyWorld(t)
	setup := begin(t, w.Service)
	w.Journal.Break(true)
	_, err := finish(t, w.Service, setup, "carol", "granite otter 5", home)
	wantKind(t, "set-up without a journal", err, bailey.Unavailable)
	wantKind(t, "EnsureAdmin without a journal", w.EnsureAdmin(t.Context(), "carol", secret.New("granite otter 5")), bailey.Unavailable)
	if n, _ := w.Store.CountUsers(t.Context()); n != 0 {
		t.Error("an administrator was made without a trace")
	}
}

func TestEnsureAdminIsForTheFirstStartOnly(t *testing.T) {
	w := identitytest.NewEmptyWorld(t)
	link := begin(t, w.Service)
	for _, c := range [][2]string{{"Carol", "granite otter 5"}, {"bailey", "granite otter 5"}, {"carol", "short"}, {"carol", "password123"}} {
		wantKind(t, fmt.Sprint(c), w.EnsureAdmin(t.Context(), c[0], secret.New(c[1])), bailey.Invalid)
	}
	if err := w.EnsureAdmin(t.Context(), "carol", secret.New("granite otter 5")); err != nil {
		t.Fatal(err)
	}
	user, err := w.Store.UserByName(t.Context(), "carol")
	if err != nil || user.Role != bailey.RoleAdmin {
		t.Errorf("carol is %+v, %v; want an administrator", user, err)
	}
	events := w.Journal.Events()
	if len(events) != 1 || events[0].Action != audit.UserCreate || events[0].Actor.Method != "system" || events[0].Target.Name != "carol" {
		t.Errorf("journal = %+v, want that bailey made carol", events)
	}
	_, err = finish(t, w.Service, link, "mallory", "granite otter 5", stranger)
	wantKind(t, "a link from before", err, bailey.Conflict)

	// The next start, with another password and even another name in the file:
	// nothing is changed, nobody is made.
	for _, name := range []string{"carol", "dave"} {
		if err := w.EnsureAdmin(t.Context(), name, secret.New("amber windmill 77")); err != nil {
			t.Errorf("EnsureAdmin(%s) again = %v", name, err)
		}
	}
	if n, _ := w.Store.CountUsers(t.Context()); n != 1 {
		t.Errorf("%d users, want 1", n)
	}
	if _, err := try(t, w.Service, "carol", "granite otter 5", home); err != nil {
		t.Errorf("carol with her first password: %v", err)
	}
}

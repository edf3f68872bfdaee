package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/gatehouse"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/store"
)

var (
	root  = bailey.Actor{UserID: "u-root", Name: "root", Role: bailey.RoleAdmin, Method: "password", IP: "192.0.2.1"}
	alice = bailey.Actor{UserID: "u-alice", Name: "alice", Role: bailey.RoleUser, Method: "password", IP: "192.0.2.2"}
	eve   = bailey.Actor{UserID: "u-eve", Name: "eve", Role: bailey.RoleAuditor, Method: "password", IP: "192.0.2.3"}
)

const attacker = "203.0.113.9/32"

type journal struct {
	mu     sync.Mutex // guards the rest
	events []audit.Event
	broken bool
}

func (j *journal) Append(_ context.Context, e audit.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return audit.ErrUnwritable
	}
	j.events = append(j.events, e)
	return nil
}

func (j *journal) of(action audit.Action) (found []audit.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Action == action {
			found = append(found, e)
		}
	}
	return found
}

// A server is a guard, its keeper and its journal, on a database that others
// may have open too.
type server struct {
	*gatehouse.Keeper
	guard   *guard.Guard
	journal *journal
}

func start(t *testing.T, path string) *server {
	t.Helper()
	key := []byte("0123456789abcdef0123456789abcdef")
	db, err := store.Open(t.Context(), store.Config{Path: path, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := &server{journal: &journal{}}
	if s.guard, err = guard.New(guard.Config{Key: key, PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6}); err != nil {
		t.Fatal(err)
	}
	if s.Keeper, err = gatehouse.New(t.Context(), gatehouse.Config{Guard: s.guard, Store: db, Audit: s.journal}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) sync(t *testing.T) {
	t.Helper()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *server) fail(prefix, subject string, times int) {
	for range times {
		if s.guard.Check(prefix, subject).Allowed {
			s.guard.Fail(prefix, subject, true)
		}
	}
}

func (s *server) lets(prefix, subject string) bool {
	v := s.guard.Check(prefix, subject)
	if v.Allowed {
		s.guard.Release(prefix, subject)
	}
	return v.Allowed
}

func TestABanOutlivesARestartAndHoldsAtEveryServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	one, two := start(t, path), start(t, path)
	one.fail(attacker, "alice", 5)
	one.sync(t)
	two.sync(t)
	three := start(t, path) // the restart
	for name, s := range map[string]*server{"the server itself": one, "the other": two, "after a restart": three} {
		if s.lets(attacker, "alice") || !s.lets("192.0.2.9/32", "alice") || !s.lets(attacker, "bob") {
			t.Errorf("%s does not hold what was decided, and that alone", name)
		}
	}
	locks := one.journal.of(audit.GuardLock)
	if len(locks) != 1 || locks[0].Target.Name != "alice" || locks[0].Actor.IP != "203.0.113.9" {
		t.Errorf("the journal has %+v, want the lock once", locks)
	}
	if n := len(two.journal.of(audit.GuardLock)) + len(three.journal.of(audit.GuardLock)); n != 0 {
		t.Errorf("%d locks are recorded by servers that only learned them", n)
	}
}

func TestSprayingIsRecordedAsABan(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	for i := range 20 {
		s.fail(attacker, string(rune('a'+i)), 1)
	}
	for i := range 20 {
		s.fail("127.0.0.1/32", string(rune('a'+i)), 1)
	}
	s.sync(t)
	if bans := s.journal.of(audit.GuardBan); len(bans) != 1 || bans[0].Target.Name != attacker {
		t.Errorf("bans in the journal: %+v", bans)
	}
	if alerts := s.journal.of(audit.GuardAlert); len(alerts) != 1 || alerts[0].Target.Name != "127.0.0.1/32" {
		t.Errorf("alerts in the journal: %+v, want one: that address may be everybody's way in", alerts)
	}
	for _, b := range s.guard.Bans() {
		if b.Prefix == "127.0.0.1/32" && !b.Slowed {
			t.Errorf("the machine itself is banned: %+v", b)
		}
	}
}

// The server stops in the middle of a flood. What was refused and only counted is
// in the journal, of each address once; a flood from very many addresses does not
// become very many events.
func TestRefusedAttemptsAreAllInTheJournal(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	s.fail(attacker, "alice", 5) // locked
	told := int64(0)
	refuse := func(prefix string, times int) (refused int64) {
		for range times {
			if v := s.guard.Check(prefix, "alice"); !v.Allowed {
				refused++
				told += int64(v.Report)
			}
		}
		return refused
	}
	refused := refuse(attacker, 100)
	for i := range 1000 {
		prefix := fmt.Sprintf("198.51.%d.%d/32", i/250, i%250)
		s.fail(prefix, "alice", 5)
		refused += refuse(prefix, 3)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var counted, ofAttacker int64
	events := s.journal.of(audit.SignIn)
	for _, e := range events {
		counted += e.Attrs.Count
		if e.Outcome != audit.Refused || e.Reason != audit.LockedOut {
			t.Errorf("event %+v", e)
		}
		if e.Actor.IP == "203.0.113.9" {
			ofAttacker += e.Attrs.Count
		}
	}
	if counted != refused-told || ofAttacker != 99 {
		t.Errorf("the journal counts %d, of the attacker %d; want %d and 99", counted, ofAttacker, refused-told)
	}
	if len(events) > 300 {
		t.Errorf("%d events, want a few hundred", len(events))
	}
}

func TestAnAdministratorBansAndLiftsEverywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	one, two := start(t, path), start(t, path)
	b, err := one.Add(t.Context(), root, "203.0.113.0/24", time.Hour)
	if err != nil || b.By != "root" {
		t.Fatalf("Add = %+v, %v", b, err)
	}
	two.sync(t)
	if one.lets(attacker, "alice") || two.lets(attacker, "alice") {
		t.Error("the ban does not hold at both")
	}
	list, err := two.List(t.Context(), eve)
	if err != nil || len(list) != 1 || list[0].Prefix != "203.0.113.0/24" || list[0].By != "root" {
		t.Errorf("an auditor at the other server sees %+v, %v", list, err)
	}
	if lifted, err := two.Lift(t.Context(), root, "203.0.113.0/24"); err != nil || len(lifted) != 1 {
		t.Errorf("Lift = %+v, %v", lifted, err)
	}
	one.sync(t)
	if !one.lets(attacker, "alice") || !two.lets(attacker, "alice") || !start(t, path).lets(attacker, "alice") {
		t.Error("the lifted ban holds on somewhere")
	}
	if got := len(one.journal.of(audit.GuardBan)) + len(two.journal.of(audit.GuardLift)); got != 2 {
		t.Errorf("the journals have %d events, want ban and lift", got)
	}
	if _, err := two.Lift(t.Context(), root, "203.0.113.0/24"); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("a second Lift: %v", err)
	}
}

func TestALockIsLiftedByTheAddress(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	s.fail(attacker, "alice", 5)
	s.fail(attacker, "bob", 5)
	if lifted, err := s.Lift(t.Context(), root, "203.0.113.9"); err != nil || len(lifted) != 2 {
		t.Fatalf("Lift = %+v, %v", lifted, err)
	}
	if !s.lets(attacker, "alice") || !s.lets(attacker, "bob") {
		t.Error("a lock holds on")
	}
	lifts := s.journal.of(audit.GuardLift)
	if len(lifts) != 2 || lifts[0].Actor.Name != "root" || lifts[0].Target.Kind != "user" {
		t.Errorf("the journal has %+v", lifts)
	}
}

func TestWhoMayBan(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	for _, a := range []bailey.Actor{alice, eve, {}} {
		if _, err := s.Add(t.Context(), a, "203.0.113.9", time.Hour); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("%q bans: %v", a.Name, err)
		}
		if _, err := s.Lift(t.Context(), a, "203.0.113.9"); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("%q lifts: %v", a.Name, err)
		}
	}
	if _, err := s.List(t.Context(), alice); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("alice lists: %v", err)
	}
	if n := len(s.journal.of(audit.AccessDenied)); n != 7 {
		t.Errorf("%d refusals are recorded, want 7", n)
	}
}

func TestWhatCannotBeBanned(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	for network, kind := range map[string]bailey.Kind{
		"192.0.2.1": bailey.Conflict, "192.0.2.0/24": bailey.Conflict, "127.0.0.1": bailey.Conflict, "127.0.0.0/8": bailey.Conflict, "::1": bailey.Conflict,
		"0.0.0.0/0": bailey.Invalid, "::/0": bailey.Invalid, "128.0.0.0/1": bailey.Invalid, "10.0.0.1/8": bailey.Invalid,
		"evil.example": bailey.Invalid, "": bailey.Invalid, "fe80::1%eth0": bailey.Invalid, "::ffff:0:0/96": bailey.Invalid,
	} {
		if _, err := s.Add(t.Context(), root, network, time.Hour); bailey.KindOf(err) != kind || err == nil {
			t.Errorf("Add(%q) = %v, want %v", network, err, kind)
		}
	}
	for _, d := range []time.Duration{0, -time.Hour, time.Second, 367 * 24 * time.Hour} {
		if _, err := s.Add(t.Context(), root, "203.0.113.9", d); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("Add for %v = %v", d, err)
		}
	}
	if b, err := s.Add(t.Context(), root, "2001:db8::7", time.Hour); err != nil || b.Prefix != "2001:db8::/64" {
		t.Errorf("one address of a /64: %+v, %v", b, err)
	}
}

func TestNobodyIsBannedOrFreedWithoutAJournal(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "bailey.db"))
	s.fail(attacker, "alice", 5)
	s.sync(t)
	s.journal.broken = true
	if _, err := s.Add(t.Context(), root, "203.0.113.0/24", time.Hour); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("Add = %v", err)
	}
	if _, err := s.Lift(t.Context(), root, attacker); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("Lift = %v", err)
	}
	if s.lets(attacker, "alice") || !s.lets("203.0.113.77/32", "alice") {
		t.Error("it was done all the same")
	}
}

// A brittle store stands for a database that is down for a while.
type brittle struct {
	gatehouse.Store
	down bool
}

func (b *brittle) PushGuard(ctx context.Context, server string, c bailey.GuardChanges) error {
	if b.down {
		return errors.New("the database does not answer")
	}
	return b.Store.PushGuard(ctx, server, c)
}

func TestWhatTheStoreMissedIsToldLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	other := start(t, path)
	db, err := store.Open(t.Context(), store.Config{Path: path, Key: []byte("0123456789abcdef0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b := &brittle{Store: db, down: true}
	s := &server{journal: &journal{}}
	if s.guard, err = guard.New(guard.Config{Key: []byte("0123456789abcdef0123456789abcdef")}); err != nil {
		t.Fatal(err)
	}
	if s.Keeper, err = gatehouse.New(t.Context(), gatehouse.Config{Guard: s.guard, Store: b, Audit: s.journal}); err != nil {
		t.Fatal(err)
	}
	s.fail(attacker, "alice", 5)
	if err := s.Sync(t.Context()); err == nil {
		t.Error("nobody says that bans are not shared")
	}
	if s.lets(attacker, "alice") {
		t.Error("without a store the server forgets what it decided")
	}
	b.down = false
	s.sync(t)
	other.sync(t)
	if other.lets(attacker, "alice") {
		t.Error("the other server never learned")
	}
	if n := len(s.journal.of(audit.GuardLock)); n != 1 {
		t.Errorf("%d locks in the journal, want 1", n)
	}
	if !slices.ContainsFunc(other.guard.Bans(), func(b guard.Ban) bool { return b.Subject == "alice" }) {
		t.Error("the other does not list it")
	}
}

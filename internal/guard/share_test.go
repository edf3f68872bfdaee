package guard_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/guard"
)

var key = []byte("the key of an installation......")

// twin returns two guards of one installation, and how the second learns what
// the first has seen.
func twin(t *testing.T) (one, two *guard.Guard, tell func()) {
	t.Helper()
	free := guard.Config{Key: key, PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6}
	one, two = newGuard(t, free), newGuard(t, free)
	return one, two, func() { two.Learn(one.Changes()) }
}

func TestABlockHoldsAtTheOtherServerToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, tell := twin(t)
		for range 5 {
			fail(t, one, stranger, "alice")
		}
		select {
		case <-one.Wake():
		default:
			t.Error("a block is no news")
		}
		tell()
		wantRefused(t, two, stranger, "alice", guard.PairBlocked, 30*time.Minute)
		wantAllowed(t, two, home, "alice")
		wantAllowed(t, two, stranger, "bob")
		if b := two.Bans(); len(b) != 1 || b[0].Subject != "alice" || b[0].Prefix != stranger || b[0].Repeated != 1 {
			t.Errorf("the other server lists %+v", b)
		}
		// The next block is twice as long, wherever it is earned.
		time.Sleep(31 * time.Minute)
		for range 5 {
			fail(t, two, stranger, "alice")
		}
		wantRefused(t, two, stranger, "alice", guard.PairBlocked, time.Hour)
	})
}

// Attack 11, with two servers: their failures add up.
func TestFailuresAtTwoServersAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, tell := twin(t)
		for range 3 {
			fail(t, one, stranger, "alice")
		}
		for i := range 10 {
			fail(t, one, stranger, fmt.Sprintf("victim%d", i))
		}
		tell()
		fail(t, two, stranger, "alice")
		fail(t, two, stranger, "alice")
		wantRefused(t, two, stranger, "alice", guard.PairBlocked, 30*time.Minute)
		for i := range 5 {
			fail(t, two, stranger, fmt.Sprintf("other%d", i))
		}
		wantRefused(t, two, stranger, "carol", guard.PrefixBanned, 30*time.Minute)
	})
}

func TestARestartForgetsNoFailureAndNobodyWhoIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newGuard(t, guard.Config{Key: key})
		succeed(t, before, home, "alice")
		for range 4 {
			fail(t, before, stranger, "alice")
		}
		told := before.Changes()
		time.Sleep(time.Minute)
		after := newGuard(t, guard.Config{Key: key})
		after.Learn(told)
		fail(t, after, stranger, "alice")
		if v := allowed(after, stranger, "alice"); v.Allowed || v.Why != guard.PairBlocked {
			t.Errorf("the fifth failure, after a restart: %+v", v)
		}
		// Everything strangers can use up is used up, and alice gets through.
		for i := range 10 {
			if v := after.Check(home, fmt.Sprint(i)); v.Allowed {
				after.Fail(home, fmt.Sprint(i), false)
			}
		}
		wantAllowed(t, after, home, "alice")
		if v := allowed(after, home, "bob"); v.Allowed {
			t.Errorf("a stranger from there: %+v", v)
		}
	})
}

func TestALiftIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, tell := twin(t)
		for range 5 {
			fail(t, one, stranger, "alice")
		}
		tell()
		b := two.Bans()[0]
		b.Until, b.Repeated = time.Now(), 0
		two.Learn(guard.Changes{Bans: []guard.Ban{b}})
		wantAllowed(t, two, stranger, "alice")
		fail(t, two, stranger, "alice") // and the count begins anew
		wantAllowed(t, two, stranger, "alice")
	})
}

func TestGuardsOfDifferentInstallationsShareNothingByAccident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newGuard(t, guard.Config{Key: key})
		fail(t, one, stranger, "alice")
		two := newGuard(t, guard.Config{})
		three := newGuard(t, guard.Config{Key: key})
		fail(t, two, stranger, "alice")
		fail(t, three, stranger, "alice")
		a, b, c := one.Changes().Failures[0], two.Changes().Failures[0], three.Changes().Failures[0]
		if a.Subject == b.Subject || a.Subject != c.Subject {
			t.Errorf("hashes of one name: %x, %x under another key, %x under the same", a.Subject, b.Subject, c.Subject)
		}
	})
}

// People type passwords where names belong: what is told holds no name that is
// no account.
func TestWhatIsToldNamesAccountsAlone(t *testing.T) {
	g := newGuard(t, guard.Config{Key: key})
	g.Check(stranger, "hunter2-in-the-wrong-field")
	g.Fail(stranger, "hunter2-in-the-wrong-field", false)
	if c := g.Changes(); len(c.Failures) != 1 || c.Failures[0].Name != "" {
		t.Errorf("told: %+v", c)
	}
	if c := g.Changes(); !c.Empty() {
		t.Errorf("told twice: %+v", c)
	}
}

// Attack 12: fifty failures from everywhere lock nobody out, but from then on a
// password alone is not enough for a stranger.
func TestPressureAsksForMoreThanAPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		succeed(t, g, home, "root")
		for i := range 49 {
			fail(t, g, guard.Prefix(fmt.Sprintf("203.0.113.%d", i)), "root")
		}
		if v := allowed(g, stranger, "root"); v.Pressed {
			t.Errorf("after 49 failures: %+v", v)
		}
		fail(t, g, stranger, "root")
		if v := allowed(g, "198.51.100.1/32", "root"); !v.Allowed || !v.Pressed {
			t.Errorf("a stranger after 50 failures: %+v, want allowed and pressed", v)
		}
		for place, who := range map[string]string{home: "root", guard.Device("laptop"): "root", "198.51.100.1/32": "bob"} {
			if v := allowed(g, place, who); !v.Allowed || v.Pressed {
				t.Errorf("%s from %s: %+v, want allowed and not pressed", who, place, v)
			}
		}
		time.Sleep(71 * time.Minute)
		if v := allowed(g, stranger, "root"); v.Pressed {
			t.Errorf("an hour later: %+v", v)
		}
	})
}

// Attack 12: whatever strangers do from wherever, a device that its owner has
// signed in on gets through; its own failures block it.
func TestADeviceIsHeldToItsOwnFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		for i := range 10000 {
			place := guard.Prefix(fmt.Sprintf("203.0.%d.%d", i/250%200, i%250))
			if v := g.Check(place, "root"); v.Allowed {
				g.Fail(place, "root", true)
			}
			if i%500 == 0 {
				time.Sleep(time.Second)
			}
		}
		if v := g.Check(stranger, "root"); v.Allowed {
			t.Errorf("a stranger right after the flood: %+v", v)
		}
		laptop := guard.Device("laptop")
		wantAllowed(t, g, laptop, "root")
		for range 5 {
			fail(t, g, laptop, "root")
		}
		wantRefused(t, g, laptop, "root", guard.PairBlocked, 30*time.Minute)
		wantAllowed(t, g, guard.Device("desktop"), "root")
	})
}

// Whoever looks like a device but is an address stays an address, and the other
// way round: the two never share a counter.
func TestAnAddressIsNoDevice(t *testing.T) {
	if p := guard.Prefix("device:laptop"); p == guard.Device("laptop") {
		t.Errorf("Prefix makes a device: %q", p)
	}
}

func TestEveryKindFeedsTheSameCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		kinds := []guard.Kind{guard.Web, guard.API, guard.LDAP, guard.SSH, guard.TOTP}
		for _, kind := range kinds {
			try, v := g.Begin(guard.Attempt{Kind: kind, IP: "203.0.113.9", Subject: "alice"})
			if try == nil {
				t.Fatalf("%s is refused: %+v", kind, v)
			}
			try.Fail(true)
			try.Release() // deferred by callers; it does nothing any more
		}
		for _, kind := range append(kinds, guard.DeviceCode, guard.Recovery, guard.Passkey, guard.OIDC) {
			if try, v := g.Begin(guard.Attempt{Kind: kind, IP: "203.0.113.9", Subject: "alice"}); try != nil || v.Why != guard.PairBlocked {
				t.Errorf("%s after five failures by other ways: %+v", kind, v)
			}
		}
		try, v := g.Begin(guard.Attempt{Kind: guard.Web, IP: "203.0.113.9", Device: "laptop", Subject: "alice"})
		if try == nil {
			t.Fatalf("from a known device: %+v", v)
		}
		try.Succeed()
	})
}

// A private address is banned like any other when most people come from
// elsewhere: a colleague's machine is no bridge.
func TestAPrivateAddressIsBannedWhenItIsNotEverybodysWayIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const attacker = "10.1.2.3/32"
		g := patient(t)
		for i := range 4 {
			succeed(t, g, guard.Prefix(fmt.Sprintf("10.0.0.%d", i)), fmt.Sprintf("user%d", i))
		}
		for i := range 20 {
			fail(t, g, attacker, fmt.Sprintf("victim%d", i))
		}
		wantRefused(t, g, attacker, "anybody", guard.PrefixBanned, 30*time.Minute)
	})
}

// The machine's own address is never banned, public or not: Docker's proxy for
// published ports calls from there, for everybody.
func TestOurOwnAddressIsSlowedNotBanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{
			PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6,
			Own: func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.9") },
		})
		succeed(t, g, home, "alice") // from elsewhere
		for i := range 20 {
			fail(t, g, stranger, fmt.Sprintf("victim%d", i))
		}
		b := g.Bans()
		if len(b) != 1 || !b[0].Slowed {
			t.Errorf("Bans() = %+v, want a slow-down", b)
		}
	})
}

func TestAnAdministratorsBanIsForEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		succeed(t, g, stranger, "alice")
		b, err := g.Impose(netip.MustParsePrefix("203.0.113.0/24"), time.Now().Add(time.Hour), "root")
		if err != nil {
			t.Fatal(err)
		}
		wantRefused(t, g, stranger, "alice", guard.ByAdmin, time.Hour)
		wantAllowed(t, g, home, "alice")
		for ip, want := range map[string]bool{"203.0.113.200": true, "::ffff:203.0.113.1": true, "203.0.114.1": false, "::1": false} {
			if _, got := g.Banned(netip.MustParseAddr(ip)); got != want {
				t.Errorf("Banned(%s) = %v", ip, got)
			}
		}
		if list := g.Bans(); len(list) != 1 || list[0].By != "root" {
			t.Errorf("Bans() = %+v", list)
		}
		if !g.Lift(b.ID) || g.Lift(b.ID) {
			t.Error("Lift does not lift once")
		}
		wantAllowed(t, g, stranger, "alice")
		// Half of somebody's /64 cannot be told from the rest of it.
		if _, err := g.Impose(netip.MustParsePrefix("2001:db8::/80"), time.Now().Add(time.Hour), "root"); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, g, "2001:db8::/64", "alice", guard.ByAdmin, time.Hour)
		time.Sleep(time.Hour)
		wantAllowed(t, g, "2001:db8::/64", "alice")
	})
}

// What nobody asks for is forgotten, so that a store that is down costs no
// memory.
func TestNewsAreBounded(t *testing.T) {
	g := patient(t)
	for i := range 20000 {
		s := fmt.Sprint(i)
		p := guard.Prefix(fmt.Sprintf("203.%d.%d.%d", i/65025, i/255%255, i%255))
		if g.Check(p, s).Allowed {
			g.Fail(p, s, false)
		}
	}
	if n := len(g.Changes().Failures); n > 4096 || n < 1000 {
		t.Errorf("%d failures are kept as news", n)
	}
}

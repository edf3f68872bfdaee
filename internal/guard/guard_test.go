package guard_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/guard"
)

// Where people are in these tests.
const (
	office   = "198.51.100.7/32"
	home     = "192.0.2.44/32"
	stranger = "203.0.113.9/32"
	bridge   = "172.17.0.1/32"
)

func newGuard(tb testing.TB, cfg guard.Config) *guard.Guard {
	tb.Helper()
	g, err := guard.New(cfg)
	if err != nil {
		tb.Fatalf("New(%+v) = %v", cfg, err)
	}
	return g
}

// patient is a Guard whose rates never matter, so that a test sees failures
// alone.
func patient(tb testing.TB) *guard.Guard {
	tb.Helper()
	return newGuard(tb, guard.Config{PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6})
}

// fail makes one attempt that must be allowed, and fails it.
func fail(t *testing.T, g *guard.Guard, prefix, subject string) {
	t.Helper()
	if v := g.Check(prefix, subject); !v.Allowed {
		t.Fatalf("Check(%q, %q) = %+v, want allowed", prefix, subject, v)
	}
	g.Fail(prefix, subject, true)
}

func succeed(t *testing.T, g *guard.Guard, prefix, subject string) {
	t.Helper()
	if v := g.Check(prefix, subject); !v.Allowed {
		t.Fatalf("Check(%q, %q) = %+v, want allowed", prefix, subject, v)
	}
	g.Succeed(prefix, subject)
}

// allowed asks without leaving a trace.
func allowed(g *guard.Guard, prefix, subject string) guard.Verdict {
	v := g.Check(prefix, subject)
	if v.Allowed {
		g.Release(prefix, subject)
	}
	return v
}

func wantRefused(t *testing.T, g *guard.Guard, prefix, subject string, why guard.Reason, after time.Duration) {
	t.Helper()
	v := allowed(g, prefix, subject)
	if v.Allowed || v.Why != why || v.RetryAfter != after {
		t.Errorf("Check(%q, %q) = %+v, want refused as %q for %v", prefix, subject, v, why, after)
	}
}

func wantAllowed(t *testing.T, g *guard.Guard, prefix, subject string) {
	t.Helper()
	if v := allowed(g, prefix, subject); !v.Allowed {
		t.Errorf("Check(%q, %q) = %+v, want allowed", prefix, subject, v)
	}
}

func TestFiveFailuresBlockThePairAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for range 5 {
			fail(t, g, stranger, "alice")
		}
		wantRefused(t, g, stranger, "alice", guard.PairBlocked, 30*time.Minute)
		wantAllowed(t, g, stranger, "bob") // the same address on somebody else
		wantAllowed(t, g, home, "alice")   // alice from her own address

		time.Sleep(30*time.Minute - time.Second)
		wantRefused(t, g, stranger, "alice", guard.PairBlocked, time.Second)
		time.Sleep(time.Second)
		wantAllowed(t, g, stranger, "alice")
	})
}

func TestEachNextBlockIsTwiceAsLongUpToADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for i, want := range []time.Duration{30, 60, 120, 240, 480, 960, 1440, 1440} {
			for range 5 {
				fail(t, g, stranger, "alice")
			}
			want *= time.Minute
			v := allowed(g, stranger, "alice")
			if v.Allowed || v.RetryAfter != want {
				t.Errorf("block %d: Check = %+v, want refused for %v", i+1, v, want)
			}
			time.Sleep(want)
		}
		time.Sleep(25 * time.Hour) // good for longer than the longest block
		for range 5 {
			fail(t, g, stranger, "alice")
		}
		wantRefused(t, g, stranger, "alice", guard.PairBlocked, 30*time.Minute)
	})
}

func TestFailuresCountForFifteenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for range 4 {
			fail(t, g, home, "alice")
		}
		time.Sleep(15 * time.Minute)
		for range 4 {
			fail(t, g, home, "alice")
		}
		wantAllowed(t, g, home, "alice")
		time.Sleep(14 * time.Minute)
		fail(t, g, home, "alice")
		wantRefused(t, g, home, "alice", guard.PairBlocked, 30*time.Minute)
	})
}

func TestSuccessForgetsTheFailuresOfThePairOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		// Bob clears his own failures again and again, and sprays in between.
		for i := range 20 {
			fail(t, g, stranger, fmt.Sprintf("victim%d", i%7))
			if i%3 == 0 {
				succeed(t, g, stranger, "bob")
			}
		}
		wantRefused(t, g, stranger, "carol", guard.PrefixBanned, 30*time.Minute)

		for range 4 {
			fail(t, g, home, "alice")
		}
		succeed(t, g, home, "alice")
		for range 4 {
			fail(t, g, home, "alice")
		}
		wantAllowed(t, g, home, "alice")
	})
}

// Attack 11: one password on many names, at the pace that the rates allow.
func TestSprayingBansThePrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		tried := 0
		for i := range 10_000 {
			subject := fmt.Sprintf("user%d", i)
			v := g.Check(stranger, subject)
			if v.Why == guard.PrefixBanned {
				break
			}
			if v.Allowed {
				tried++
				g.Fail(stranger, subject, i%2 == 0) // half of the names exist
				continue
			}
			time.Sleep(v.RetryAfter)
		}
		if tried != 20 {
			t.Errorf("a sprayer got %d tries before the ban, want 20", tried)
		}
		v := allowed(g, stranger, "alice")
		if v.Allowed || v.Why != guard.PrefixBanned {
			t.Errorf("after spraying, Check = %+v, want the prefix banned", v)
		}
		wantAllowed(t, g, home, "alice")
	})
}

func TestFailuresOnTwoNamesAreNotSpraying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e6, PairFailures: 1000})
		for i := range 100 {
			fail(t, g, stranger, []string{"alice", "bob"}[i%2])
		}
		wantAllowed(t, g, stranger, "alice")
		fail(t, g, stranger, "carol")
		wantRefused(t, g, stranger, "alice", guard.PrefixBanned, 30*time.Minute)
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		for i := range 10 {
			fail(t, g, stranger, fmt.Sprintf("%d", i))
		}
		wantRefused(t, g, stranger, "x", guard.PrefixRate, 6*time.Second)
		time.Sleep(6 * time.Second)
		fail(t, g, stranger, "x")
		wantRefused(t, g, stranger, "x", guard.PrefixRate, 6*time.Second)

		time.Sleep(time.Minute)
		for i := range 10 {
			fail(t, g, fmt.Sprintf("192.0.2.%d/32", i), "alice")
		}
		wantRefused(t, g, "192.0.2.99/32", "alice", guard.SubjectRate, 6*time.Second)
		wantAllowed(t, g, "192.0.2.99/32", "bob")

		time.Sleep(time.Minute)
		for i := range 20 {
			fail(t, g, fmt.Sprintf("192.0.2.%d/32", 100+i), fmt.Sprintf("u%d", i))
		}
		wantRefused(t, g, "192.0.2.222/32", "carol", guard.GlobalRate, time.Second)
		time.Sleep(50 * time.Millisecond)
		wantAllowed(t, g, "192.0.2.222/32", "carol")
	})
}

// A refused attempt must not use up what somebody else could have had: a
// banned address could otherwise empty the limit of a name it attacks.
func TestRefusedAttemptsCostNobodyAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		for i := range 10 {
			fail(t, g, stranger, fmt.Sprintf("%d", i))
		}
		before := g.Len()
		for i := range 10_000 {
			if v := g.Check(stranger, "alice"); v.Allowed {
				t.Fatalf("attempt %d of an exhausted prefix was allowed", i)
			}
			g.Check(stranger, fmt.Sprintf("name-%d", i))
		}
		if g.Len() != before {
			t.Errorf("refused attempts made %d counters, want none", g.Len()-before)
		}
		for range 10 { // all ten attempts on alice, and the global ones, are still there
			if v := g.Check(home, "alice"); !v.Allowed && v.Why != guard.InFlight {
				t.Fatalf("Check = %+v; refused attempts of a stranger used up alice's", v)
			}
			g.Succeed(home, "alice")
		}
	})
}

// A flood is refused and counted, and stops. What nobody has heard of is told
// afterwards, once, with the address; before the end also what is fresh.
func TestTheEndOfAFloodIsToldToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		told, refused := 0, 0
		for i := range 5000 {
			if v := g.Check(stranger, fmt.Sprintf("name%d", i)); v.Allowed {
				g.Fail(stranger, fmt.Sprintf("name%d", i), false)
			} else {
				refused++
				told += v.Report
			}
		}
		if told == 0 || told == refused {
			t.Fatalf("%d of %d refusals were told at once", told, refused)
		}
		tell := func(all bool) (n int, from []string) {
			g.Unreported(all, func(prefix string, refused int) { n += refused; from = append(from, prefix) })
			return n, from
		}
		if n, _ := tell(false); n != 0 {
			t.Errorf("%d are told before the minute is over", n)
		}
		time.Sleep(time.Minute)
		if n, from := tell(false); n != refused-told || !slices.Contains(from, stranger) {
			t.Errorf("after a minute %d are told, from %q; want %d from %s", n, from, refused-told, stranger)
		}
		if n, _ := tell(true); n != 0 {
			t.Errorf("%d are told twice", n)
		}
		for range 30 {
			g.Check(stranger, "again")
		}
		if n, _ := tell(true); n == 0 {
			t.Error("what is fresh is lost at the end")
		}
	})
}

func TestThirtyPeopleBehindOneAddressSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		for i := range 30 {
			time.Sleep(100 * time.Millisecond)
			succeed(t, g, office, fmt.Sprintf("student%d", i))
		}
		wantAllowed(t, g, office, "late")
	})
}

// Attack 12: an attacker with many addresses fails ten thousand times for the
// administrator, who signs in from where she did before, at once, every time.
func TestNobodyLocksTheAdministratorOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		succeed(t, g, office, "root-admin")
		for i := range 10_000 {
			p := fmt.Sprintf("203.%d.%d.1/32", i/250%250, i%250)
			if g.Check(p, "root-admin").Allowed {
				g.Fail(p, "root-admin", true)
			}
			if i%100 == 0 {
				v := g.Check(office, "root-admin")
				if !v.Allowed {
					t.Fatalf("after %d failures of strangers: Check = %+v, want allowed", i, v)
				}
				g.Succeed(office, "root-admin")
				time.Sleep(6 * time.Second)
			}
		}
		wantAllowed(t, g, home, "bob") // others do not notice
	})
}

func TestANeighboursSprayingDoesNotStopThoseWhoAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		succeed(t, g, office, "alice")
		for i := range 20 {
			fail(t, g, office, fmt.Sprintf("victim%d", i))
		}
		wantRefused(t, g, office, "carol", guard.PrefixBanned, 30*time.Minute)
		v := g.Check(office, "alice")
		if !v.Allowed || !v.Masked || v.Why != guard.PrefixBanned || v.RetryAfter != 30*time.Minute {
			t.Errorf("alice, known behind a banned address: Check = %+v, want allowed and masked as banned", v)
		}
		g.Succeed(office, "alice")
		wantAllowed(t, g, home, "alice")
		if v := allowed(g, home, "alice"); v.Masked {
			t.Errorf("from a good address: Check = %+v, want not masked", v)
		}
		// What she is spared is the others' failures, not her own.
		for range 5 {
			fail(t, g, office, "alice")
		}
		wantRefused(t, g, office, "alice", guard.PairBlocked, 30*time.Minute)
	})
}

func TestColleaguesWhoMistypeAreNotSpraying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		names := []string{"alice", "bob", "carol", "dave", "erin"}
		for _, name := range names {
			succeed(t, g, office, name)
		}
		for range 4 {
			for _, name := range names {
				fail(t, g, office, name)
			}
		}
		if v := allowed(g, office, "newcomer"); !v.Allowed {
			t.Errorf("after 20 failures of people who signed in here before: Check = %+v for a newcomer, want allowed", v)
		}
	})
}

func TestAfterAShortBlockTheCountBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{Block: time.Minute})
		for range 5 {
			fail(t, g, stranger, "alice")
		}
		wantRefused(t, g, stranger, "alice", guard.PairBlocked, time.Minute)
		time.Sleep(time.Minute)
		for range 5 {
			fail(t, g, stranger, "alice")
		}
		wantRefused(t, g, stranger, "alice", guard.PairBlocked, 2*time.Minute)
	})
}

// The one who fails may be the neighbour. Where several people sign in from
// one address, a known pair is held up for a minute, not for a day.
func TestABlockBehindASharedAddressIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for _, name := range []string{"alice", "bob", "carol"} {
			succeed(t, g, office, name)
		}
		for range 5 {
			fail(t, g, office, "alice")
		}
		// What is shown is the block of a stranger; what is imposed is a minute.
		wantRefused(t, g, office, "alice", guard.PairBlocked, 30*time.Minute)
		time.Sleep(time.Minute - time.Second)
		wantRefused(t, g, office, "alice", guard.PairBlocked, 29*time.Minute+time.Second)
		time.Sleep(time.Second)
		// One try a minute is what a neighbour gets, as long as it goes on.
		for i := range 10 {
			left := time.Duration(29-i) * time.Minute
			v := g.Check(office, "alice")
			if !v.Allowed || !v.Masked || v.RetryAfter != left {
				t.Fatalf("minute %d: Check = %+v, want allowed and masked for %v", i, v, left)
			}
			g.Fail(office, "alice", true)
			wantRefused(t, g, office, "alice", guard.PairBlocked, left)
			time.Sleep(time.Minute)
		}
		succeed(t, g, office, "alice")
		if v := allowed(g, office, "alice"); !v.Allowed || v.Masked {
			t.Errorf("after her success: Check = %+v, want allowed, nothing masked", v)
		}
		// Somebody who never signed in from here is not spared.
		for range 5 {
			fail(t, g, office, "root-admin")
		}
		wantRefused(t, g, office, "root-admin", guard.PairBlocked, 30*time.Minute)
	})
}

// Attack 12, last part: a container bridge hides everybody behind one private
// address. It is slowed and never banned.
func TestABridgeIsSlowedNotBanned(t *testing.T) {
	for _, prefix := range []string{bridge, "127.0.0.1/32", "::/64", "fd00:1:2:3::/64", "fe80::/64", "100.64.3.2/32", guard.Prefix("@")} {
		t.Run(strings.ReplaceAll(prefix, "/", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuard(t, guard.Config{})
				succeed(t, g, prefix, "alice")
				for i := range 100 {
					s := fmt.Sprintf("victim%d", i)
					if v := g.Check(prefix, s); v.Allowed {
						g.Fail(prefix, s, false)
					} else {
						time.Sleep(v.RetryAfter)
					}
				}
				v := allowed(g, prefix, "bob")
				for range 3 {
					v = g.Check(prefix, "bob")
				}
				if v.Allowed || v.Why != guard.SharedAddress || v.RetryAfter > 10*time.Minute {
					t.Errorf("Check = %+v, want slowed as %q", v, guard.SharedAddress)
				}
				wantAllowed(t, g, prefix, "alice")
				time.Sleep(v.RetryAfter)
				wantAllowed(t, g, prefix, "carol") // slowly, strangers too
				for _, b := range g.Bans() {
					if !b.Slowed && !b.Pair {
						t.Errorf("Bans() has %+v: a private address must not be banned", b)
					}
				}
			})
		})
	}
}

// Attack 11, IPv6: whoever has a /48 has 65,536 prefixes.
func TestRotatingThroughA48HelpsFourTimesAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		tried := 0
		for i := range 1000 {
			p := guard.Prefix(fmt.Sprintf("2001:db8:7:%x::1", i))
			if v := g.Check(p, "alice"); v.Allowed {
				tried++
				g.Fail(p, "alice", true)
			}
		}
		if tried != 20 {
			t.Errorf("from 1000 prefixes of a /48, %d tries on alice were allowed, want 20", tried)
		}
		tried = 0
		for i := range 1000 {
			p, s := guard.Prefix(fmt.Sprintf("2001:db8:8:%x::1", i)), fmt.Sprintf("user%d", i)
			if v := g.Check(p, s); v.Allowed {
				tried++
				g.Fail(p, s, true)
			}
		}
		if tried != 80 {
			t.Errorf("from 1000 prefixes of a /48, %d names could be tried, want 80", tried)
		}
		wantAllowed(t, g, "2001:db8:9:1::/64", "alice")
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{GlobalPerSecond: 1000})
		n := 0
		for i := range 1000 {
			p, s := guard.Prefix(fmt.Sprintf("2001:db8:7:%x::1", i)), fmt.Sprintf("user%d", i)
			if g.Check(p, s).Allowed {
				n++
			}
		}
		if n != 40 {
			t.Errorf("a /48 made %d attempts at once, want 40", n)
		}
	})
}

// A hundred guesses in the same instant are all under way before the first has
// failed.
func TestGuessesMadeTogetherDoNotSlipThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		var through atomic.Int32
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if g.Check(stranger, "alice").Allowed {
					through.Add(1)
					time.Sleep(30 * time.Millisecond) // the hash
					g.Fail(stranger, "alice", true)
				}
			})
		}
		all.Wait()
		if n := through.Load(); n != 5 {
			t.Errorf("%d of 100 guesses made together were hashed, want 5", n)
		}
	})
}

func TestReleaseTakesAnAttemptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		for i := range 100 {
			if v := g.Check(home, "alice"); !v.Allowed {
				t.Fatalf("attempt %d: Check = %+v, want allowed: all before were released", i, v)
			}
			g.Release(home, "alice")
		}
		succeed(t, g, home, "alice") // now known: a limit of its own
		for i := range 100 {
			if v := g.Check(home, "alice"); !v.Allowed {
				t.Fatalf("known, attempt %d: Check = %+v, want allowed: all before were released", i, v)
			}
			g.Release(home, "alice")
		}
		// Without a Check there is nothing to take back, or to refund.
		for i := range 10 {
			fail(t, g, stranger, fmt.Sprintf("%d", i))
		}
		for range 100 {
			g.Release(stranger, "x")
			g.Succeed(stranger, "y")
		}
		wantRefused(t, g, stranger, "x", guard.PrefixRate, 6*time.Second)
	})
}

func TestAnAttemptThatIsNeverJudgedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for range 5 {
			g.Check(home, "alice")
		}
		wantRefused(t, g, home, "alice", guard.InFlight, time.Second)
		time.Sleep(31 * time.Second)
		wantAllowed(t, g, home, "alice")
	})
}

func TestAKnownPairHasALimitOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		n := 0
		for range 100 {
			if g.Check(home, "alice").Allowed {
				n++
				g.Succeed(home, "alice")
			}
		}
		if n != 11 { // the first made it known
			t.Errorf("alice signed in %d times in one instant, want 11", n)
		}
	})
}

func TestAKnownPairIsForgottenAfterThirtyDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		succeed(t, g, office, "alice")
		ban := func() {
			for i := range 20 {
				g.Fail(office, fmt.Sprintf("victim%d", i), true)
			}
		}
		time.Sleep(29 * 24 * time.Hour)
		ban()
		wantAllowed(t, g, office, "alice")
		time.Sleep(2 * 24 * time.Hour)
		ban()
		wantRefused(t, g, office, "alice", guard.PrefixBanned, 30*time.Minute)
	})
}

func TestRefusalsAreReportedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for range 5 {
			fail(t, g, stranger, "alice")
		}
		reports := []int{}
		for range 600 { // ten a second for a minute
			if v := g.Check(stranger, "alice"); v.Report > 0 {
				reports = append(reports, v.Report)
			}
			time.Sleep(100 * time.Millisecond)
		}
		reports = append(reports, g.Check(stranger, "alice").Report)
		if got, want := fmt.Sprint(reports), "[1 600]"; got != want {
			t.Errorf("601 refusals in a minute were reported as %s, want %s", got, want)
		}
	})
}

func TestBansAreListedAndLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		if got := g.Bans(); got == nil || len(got) != 0 {
			t.Errorf("Bans() of a fresh Guard = %v, want an empty list", got)
		}
		for range 5 {
			g.Fail(stranger, "alice", true)
		}
		for range 5 {
			g.Fail(stranger, "hunter2-typed-as-name", false)
		}
		for i := range 20 {
			g.Fail(home, fmt.Sprintf("victim%d", i), true)
		}
		bans := g.Bans()
		if len(bans) != 3 {
			t.Fatalf("Bans() = %+v, want three", bans)
		}
		shown := fmt.Sprint(bans)
		if !strings.Contains(shown, "alice") || strings.Contains(shown, "hunter2") {
			t.Errorf("Bans() = %s; want the account's name shown and what is no account hidden", shown)
		}
		for _, b := range bans {
			if want := time.Now().Add(30 * time.Minute); !b.Until.Equal(want) || b.Repeated != 1 {
				t.Errorf("ban %+v: want it until %v, for the first time", b, want)
			}
			if b.Pair == (b.Prefix == home) {
				t.Errorf("ban %+v: Pair is wrong", b)
			}
			if !g.Lift(b.ID) {
				t.Errorf("Lift(%q) = false, want true", b.ID)
			}
			if g.Lift(b.ID) {
				t.Errorf("Lift(%q) a second time = true, want false", b.ID)
			}
		}
		wantAllowed(t, g, stranger, "alice")
		wantAllowed(t, g, home, "carol")
		for _, id := range []string{"", "zz", "0", "ffffffffffffffff", "1ffffffffffffffff", "-1"} {
			if g.Lift(id) {
				t.Errorf("Lift(%q) = true, want false", id)
			}
		}
		if got := g.Bans(); len(got) != 0 {
			t.Errorf("Bans() after lifting all = %+v, want none", got)
		}
	})
}

func TestBansEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := patient(t)
		for range 5 {
			g.Fail(stranger, "alice", true)
		}
		time.Sleep(30 * time.Minute)
		if got := g.Bans(); len(got) != 0 {
			t.Errorf("Bans() after their time = %+v, want none", got)
		}
	})
}

// Tokens cannot be guessed; what is limited is how often a prefix makes us look
// for ones that are not there. Nobody is banned for a forgotten script.
func TestMissesSlowAPrefixExceptForGoodTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, guard.Config{})
		g.Hit(office, "good")
		for i := range 60 {
			id := fmt.Sprintf("stale%d", i)
			if v := g.Lookup(office, id); !v.Allowed {
				t.Fatalf("lookup %d = %+v, want allowed", i, v)
			}
			if got, want := g.Miss(office), map[bool]int{true: 1}[i == 0]; got != want {
				t.Errorf("miss %d: report %d, want %d", i, got, want)
			}
		}
		if v := g.Lookup(office, "new"); v.Allowed || v.RetryAfter != time.Second || v.Report != 0 {
			t.Errorf("Lookup after 60 misses = %+v, want refused for 1s and not reported yet", v)
		}
		if v := g.Lookup(office, "good"); !v.Allowed {
			t.Errorf("Lookup of a token that was good before = %+v, want allowed", v)
		}
		if v := g.Lookup(home, "new"); !v.Allowed {
			t.Errorf("Lookup from elsewhere = %+v, want allowed", v)
		}
		wantAllowed(t, g, office, "alice") // signing in is another matter
		time.Sleep(time.Second)
		if v := g.Lookup(office, "new"); !v.Allowed {
			t.Errorf("Lookup a second later = %+v, want allowed", v)
		}
		time.Sleep(time.Minute)
		if n := g.Miss(office); n != 61 { // 59 misses and the refusal before it, and itself
			t.Errorf("the miss a minute later reports %d, want 61", n)
		}
		if len(g.Bans()) != 0 {
			t.Errorf("Bans() = %+v, want none for misses", g.Bans())
		}
	})
}

func TestAClockThatJumpsFreesNobody(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	g := newGuard(t, guard.Config{Now: func() time.Time { return now }})
	for range 5 {
		g.Fail(stranger, "alice", true)
	}
	now = now.Add(-48 * time.Hour)
	if v := allowed(g, stranger, "alice"); v.Allowed {
		t.Errorf("with the clock set back two days: Check = %+v, want refused", v)
	}
	if v := allowed(g, home, "bob"); !v.Allowed {
		t.Errorf("with the clock set back two days: Check = %+v for somebody good, want allowed", v)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, cfg := range []guard.Config{
		{PairFailures: -1},
		{Entries: -1},
		{Window: -1},
		{BlockMax: time.Second},
		{PrefixFailures: 5000},
		{GlobalPerSecond: -3},
		{KnownFor: -time.Hour},
	} {
		if g, err := guard.New(cfg); err == nil {
			t.Errorf("New(%+v) = %v, want an error", cfg, g)
		}
	}
}

// Trap 25: a limiter keyed on what attackers choose is a memory leak they can
// pull on. A million names from a hundred thousand prefixes fit in what was set aside.
func TestAMillionNamesFitInFixedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 1 << 14
		g := newGuard(t, guard.Config{
			PrefixPerMinute: 1e6, SubjectPerMinute: 1e6, GlobalPerSecond: 1e9, Entries: entries, Knowns: 1 << 10,
		})
		succeed(t, g, office, "root-admin")
		for range 5 {
			fail(t, g, stranger, "root-admin")
		}
		prefixes := make([]string, 100_000)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("203.%d.%d.%d/32", i>>16, i>>8&255, i&255)
		}
		long := strings.Repeat("x", 100)
		before := heap()
		for i := range 1_000_000 {
			p, s := prefixes[i%len(prefixes)], strconv.Itoa(i)+long
			if i%10 == 0 {
				g.Check(p, s)
				g.Miss(p)
			}
			g.Fail(p, s, false)
		}
		grown := int64(heap()) - int64(before)
		if g.Len() > entries+2<<10 {
			t.Errorf("%d counters after a million names, want at most %d", g.Len(), entries+2<<10)
		}
		if perEntry := grown / entries; perEntry > 512 {
			t.Errorf("a million names took %d KiB, %d bytes per counter; want at most 512", grown>>10, perEntry)
		}
		// The flood pushed out neither the ban nor what we know of the good.
		wantRefused(t, g, stranger, "root-admin", guard.PairBlocked, 30*time.Minute)
		if v := allowed(g, office, "root-admin"); !v.Allowed {
			t.Errorf("after the flood: Check = %+v for a known pair, want allowed", v)
		}
		runtime.KeepAlive(g)
	})
}

// Even bans are bounded: they may fill half of the memory, not all of it, or
// nothing else would be counted any more.
func TestBansAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 1 << 10
		g := newGuard(t, guard.Config{PairFailures: 1, Entries: entries})
		for i := range 10 * entries {
			g.Fail(fmt.Sprintf("203.0.%d.%d/32", i>>8&255, i&255), fmt.Sprintf("n%d", i), false)
		}
		if n := len(g.Bans()); n > entries/2 || n < entries/4 {
			t.Errorf("%d bans are kept, want up to %d", n, entries/2)
		}
		if g.Len() > entries {
			t.Errorf("%d counters are kept, want at most %d", g.Len(), entries)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Everything at once, for the race detector; afterwards the books must balance.
func TestConcurrentUse(t *testing.T) {
	g := newGuard(t, guard.Config{Entries: 256, Knowns: 64, PairFailures: 2, PrefixFailures: 4})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 2000 {
				p, s := guard.Prefix(fmt.Sprintf("2001:db8:%x:%x::1", w%3, i%50)), fmt.Sprintf("u%d", i%20)
				if v := g.Check(p, s); v.Allowed {
					switch i % 3 {
					case 0:
						g.Fail(p, s, true)
					case 1:
						g.Succeed(p, s)
					default:
						g.Release(p, s)
					}
				}
				if g.Lookup(p, s).Allowed {
					g.Miss(p)
				}
				g.Hit(p, s)
				if i%100 == 0 {
					for _, b := range g.Bans() {
						g.Lift(b.ID)
					}
				}
			}
		})
	}
	all.Wait()
	if n := g.Len(); n == 0 || n > 256+2*64 {
		t.Errorf("Len() = %d, want between 1 and %d", n, 256+2*64)
	}
}

func BenchmarkCheckAndFail(b *testing.B) {
	g := newGuard(b, guard.Config{PrefixPerMinute: 1e9, SubjectPerMinute: 1e9, GlobalPerSecond: 1e9, PairFailures: 1000, PrefixFailures: 1000, PrefixSubjects: 1 << 20})
	b.ReportAllocs()
	for b.Loop() {
		g.Check(stranger, "alice")
		g.Release(stranger, "alice")
	}
}

func BenchmarkCheckOfABannedPrefix(b *testing.B) {
	g := patient(b)
	for i := range 20 {
		g.Fail(stranger, fmt.Sprintf("victim%d", i), true)
	}
	b.ReportAllocs()
	for b.Loop() {
		if g.Check(stranger, "alice").Allowed {
			b.Fatal("allowed")
		}
	}
}

// Who proved a key is held up by a ban of their prefix and by nothing else, and
// not by that where they proved it before.
func TestProven(t *testing.T) {
	g := patient(t)
	office, bridge := guard.Prefix("203.0.113.5"), guard.Prefix("172.17.0.1")
	g.Hit(office, "ssh:alice")
	for n := range 20 {
		fail(t, g, office, "name-"+strconv.Itoa(n%6))
		fail(t, g, bridge, "name-"+strconv.Itoa(n%6))
	}
	for _, tt := range []struct {
		prefix, subject string
		want            bool
	}{
		{office, "ssh:alice", true},
		{office, "ssh:bob", false},
		{office, "", false},
		{office, "ssh:name-1", false},
		{bridge, "ssh:bob", true}, // never banned
		{guard.Prefix("203.0.113.6"), "ssh:bob", true},
	} {
		v := g.Proven(tt.prefix, tt.subject)
		if v.Allowed != tt.want || !v.Allowed && (v.Why != guard.PrefixBanned || v.RetryAfter <= 0) {
			t.Errorf("Proven(%s, %q) = %+v, want allowed %v", tt.prefix, tt.subject, v, tt.want)
		}
	}
}

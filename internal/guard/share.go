package guard

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/mutant"
)

// What guards tell each other.
type (
	Failure = bailey.FailedAttempt
	Known   = bailey.KnownPair
	Changes = bailey.GuardChanges
)

// The news that are kept until somebody asks for them. Failures are bounded by
// the global limit of attempts, so only a reader that is gone fills this; the
// oldest go then.
const maxNews = 4096

type news struct {
	mu      sync.Mutex // guards changes
	changes Changes
	wake    chan struct{} // holds a token when a ban is news
}

func push[T any](list []T, v T) []T {
	if len(list) >= maxNews {
		list = slices.Delete(list, 0, maxNews/4)
	}
	return append(list, v)
}

func (n *news) failure(f Failure) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes.Failures = push(n.changes.Failures, f)
}

func (n *news) known(k Known) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes.Knowns = push(n.changes.Knowns, k)
}

func (n *news) ban(b Ban) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes.Bans = push(n.changes.Bans, b)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Changes returns what happened here since it was last called.
func (g *Guard) Changes() Changes {
	g.news.mu.Lock()
	defer g.news.mu.Unlock()
	c := g.news.changes
	g.news.changes = Changes{}
	return c
}

// Wake receives when a ban was imposed that [Guard.Changes] has to tell.
func (g *Guard) Wake() <-chan struct{} { return g.news.wake }

// Learn takes over what another server, or this one before its restart, has
// seen. What is learned is not told again.
func (g *Guard) Learn(c Changes) {
	now := g.now()
	for _, k := range c.Knowns {
		if until := k.Until.Sub(g.begin); until > now {
			p := g.placeOf(k.Prefix, k.Subject)
			g.knowns.make(p.pairKey, now, func(e *entry) { e.until = max(e.until, until) })
			g.people.met(p)
		}
	}
	for _, f := range c.Failures {
		// Times before our own beginning count as that: a failure weighs for up
		// to a window longer after a restart, never shorter.
		at := f.At.Sub(g.begin)
		if at > now || now-at >= time.Hour {
			continue
		}
		at = max(0, at)
		g.fail(g.placeOf(f.Prefix, f.Subject), f.Name, at, false)
	}
	for _, b := range c.Bans {
		g.learnBan(b, now)
	}
}

func (g *Guard) learnBan(b Ban, now time.Duration) {
	if b.Kind == kindNet {
		g.learnNet(b, now)
		return
	}
	key, err := strconv.ParseUint(b.ID, 16, 64)
	if err != nil || len(b.Kind) != 1 {
		return
	}
	until := b.Until.Sub(g.begin)
	g.counters.make(key, now, func(e *entry) {
		if d := e.until - until; e.banned && d.Abs() < time.Millisecond {
			return // our own, or told twice
		}
		e.strikes = uint8(min(max(b.Repeated, 0), 255)) //nolint:gosec // bounded
		if until > now {
			e.marks = e.marks[:0]
			g.counters.hold(e, until, heldAs{kind: b.Kind[0], prefix: b.Prefix, subject: b.Subject, pair: b.Pair, slowed: b.Slowed})
			return
		}
		if b.Repeated == 0 {
			e.marks, e.mask, e.bucket = nil, 0, bucket{}
		}
		g.counters.lift(e, now)
		e.until = max(e.until, 0, min(until, now))
	})
}

// learnKnown notes a success, and makes it news once a day: nobody's sign-ins
// may become a flood of writes.
func (g *Guard) learnKnown(p place, until, now time.Duration) {
	told := false
	g.knowns.make(p.pairKey, now, func(e *entry) {
		told = e.until > until-24*time.Hour
		if !told {
			e.until = until
		}
	})
	g.people.met(p)
	if !told {
		g.news.known(Known{Prefix: cut(p.prefix), Subject: p.who, Until: g.begin.Add(until)})
	}
}

// people remembers from which prefix everybody came last, to see whether one
// address is the way in of most.
type people struct {
	mu sync.Mutex        // guards at
	at map[uint32]uint64 // subject to prefix, both hashed
}

const maxPeople = 4096

func (n *people) met(p place) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.at) >= maxPeople {
		clear(n.at) // it fills again with those who come
	}
	n.at[uint32(p.who)] = p.prefixKey //nolint:gosec // cut on purpose: a fingerprint
}

// most reports whether more than half of the people come from the prefix, or
// nobody has come yet, so that this cannot be told.
func (n *people) most(prefixKey uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	here := 0
	for _, at := range n.at {
		if at == prefixKey {
			here++
		}
	}
	return 2*here > len(n.at) || len(n.at) == 0
}

// shared reports whether a prefix may be the way in of everybody, so that a ban
// would lock out the administrator first: this machine's own addresses, where
// Docker's proxy or a tunnel ends, what is no address at all, and a private
// address that most people come from.
func (g *Guard) shared(p place) bool {
	if mutant.SelfBan {
		return false
	}
	if !p.private {
		return g.own(p.prefix)
	}
	return p.prefix == nowhere || g.own(p.prefix) || g.people.most(p.prefixKey)
}

func (g *Guard) own(prefix string) bool {
	n, err := netip.ParsePrefix(prefix)
	if err != nil {
		return false
	}
	return n.Addr().IsLoopback() || n.Contains(netip.IPv6Loopback()) || g.cfg.Own != nil && n.IsSingleIP() && g.cfg.Own(n.Addr())
}

// kindNet is the kind of an administrator's ban.
const kindNet = "n"

// maxNets bounds the bans of administrators.
const maxNets = 4096

type netBan struct {
	Ban
	net   netip.Prefix
	until time.Duration
}

// ErrTooManyBans is returned by [Guard.Impose].
var ErrTooManyBans = errors.New("guard: too many bans of networks")

// Impose bans a network until then, at an administrator's word: whatever comes
// from there is refused, also by those who are known. It returns the ban, which
// is in force and is not news: the caller tells it.
func (g *Guard) Impose(net netip.Prefix, until time.Time, by string) (Ban, error) {
	now := g.now()
	b := Ban{ID: "n" + strconv.FormatUint(g.key('n', net.String(), ""), 16), Kind: kindNet, Prefix: net.String(), By: by, Until: until, Repeated: 1}
	if len(*g.nets.Load()) >= maxNets {
		return Ban{}, ErrTooManyBans
	}
	g.learnNet(b, now)
	return b, nil
}

func (g *Guard) learnNet(b Ban, now time.Duration) {
	n, err := netip.ParsePrefix(b.Prefix)
	if err != nil {
		return
	}
	g.changeNets(func(list []netBan) []netBan {
		list = slices.DeleteFunc(list, func(o netBan) bool { return o.ID == b.ID || o.until <= now })
		if until := b.Until.Sub(g.begin); until > now && b.Repeated > 0 {
			list = append(list, netBan{Ban: b, net: n.Masked(), until: until})
		}
		return list
	})
}

func (g *Guard) liftNet(id string) (lifted bool) {
	g.changeNets(func(list []netBan) []netBan {
		n := len(list)
		list = slices.DeleteFunc(list, func(o netBan) bool { return o.ID == id })
		lifted = len(list) < n
		return list
	})
	return lifted
}

// changeNets replaces the list, which its readers share.
func (g *Guard) changeNets(change func([]netBan) []netBan) {
	for {
		old := g.nets.Load()
		list := change(slices.Clone(*old))
		if g.nets.CompareAndSwap(old, &list) {
			return
		}
	}
}

// Banned reports whether an administrator has banned the address. Doors ask it
// for every request: a session does not outlive such a ban.
func (g *Guard) Banned(a netip.Addr) (until time.Time, banned bool) {
	list := *g.nets.Load()
	if len(list) == 0 {
		return time.Time{}, false
	}
	now := g.now()
	a = a.Unmap().WithZone("")
	for i := range list {
		if list[i].until > now && list[i].net.Contains(a) {
			return list[i].Until, true
		}
	}
	return time.Time{}, false
}

// netBanned is Banned for the prefix of an attempt. Half of a /64 cannot be
// banned for one who has all of it: whoever overlaps is in.
func (g *Guard) netBanned(prefix string, now time.Duration) (Verdict, bool) {
	list := *g.nets.Load()
	if len(list) == 0 {
		return Verdict{}, false
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return Verdict{}, false
	}
	for i := range list {
		if list[i].until > now && list[i].net.Overlaps(p) {
			return Verdict{Why: ByAdmin, RetryAfter: max(time.Second, list[i].until-now)}, true
		}
	}
	return Verdict{}, false
}

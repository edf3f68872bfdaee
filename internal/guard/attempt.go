package guard

import (
	"math"
	"slices"
	"time"

	"github.com/baileyhq/bailey/internal/mutant"
)

// Check says whether an attempt on subject (a name as it was typed) from prefix
// (see [Prefix]) may go on to the expensive part. After each allowed Check the
// caller must call exactly one of [Guard.Fail], [Guard.Succeed] and
// [Guard.Release]: until then the attempt counts as a possible failure, so that
// guesses made at the same moment do not slip past the limit together.
func (g *Guard) Check(prefix, subject string) Verdict {
	if mutant.Counters {
		return Verdict{Allowed: true}
	}
	now := g.now()
	p := g.place(prefix, subject)
	known := g.known(p, now)
	if v, banned := g.netBanned(prefix, now); banned {
		return v
	}
	if v := g.blocked(p, known, now); !v.Allowed {
		return v
	}
	// A known pair answers for its own failures only: neither a ban of its
	// prefix nor strangers' attempts on its subject hold it up.
	stranger := g.asStranger(p, now, !known)
	if !known && !stranger.Allowed {
		return stranger
	}
	v := g.reserve(p, known, now)
	switch {
	case !v.Allowed && !known:
		g.giveBack(g.steps(p), now)
	case v.Allowed && !v.Masked && !stranger.Allowed:
		v.Masked, v.RetryAfter, v.Why = true, stranger.RetryAfter, stranger.Why
	}
	v.Pressed = v.Allowed && !known && g.pressed(p, now)
	v.Known = v.Allowed && known
	return v
}

// blocked refuses pairs that are blocked. It makes no counters: only attempts
// that pass the limits of strangers may, or a flood of names would push the
// counters of others out.
func (g *Guard) blocked(p place, known bool, now time.Duration) Verdict {
	v := Verdict{Allowed: true}
	look := func(e *entry) {
		if e.until > now {
			v = e.refuse(p.prefix, PairBlocked, max(e.until, e.mask)-now, now)
		}
	}
	g.counters.with(p.pairKey, now, look)
	if v.Allowed && p.wide != "" && !known {
		g.counters.with(p.widePairKey, now, look)
	}
	return v
}

// reserve notes that an attempt of the pair is under way, unless those that
// are could already be one too many.
func (g *Guard) reserve(p place, known bool, now time.Duration) Verdict {
	v := Verdict{Allowed: true}
	g.counters.make(p.pairKey, now, func(e *entry) {
		e.settle(now)
		if e.mask != 0 && e.mask <= now {
			e.mask, e.marks = 0, e.marks[:0] // as after a block
		}
		live, rate, burst := e.live(now, g.cfg.Window), perMinute(g.cfg.SubjectPerMinute), g.cfg.SubjectPerMinute
		switch {
		case e.until > now:
			v = e.refuse(p.prefix, PairBlocked, max(e.until, e.mask)-now, now)
			return
		case live >= g.cfg.PairFailures && e.pending == 0:
			// A shared address, see Fail: one attempt at a time.
		case live+e.pending >= g.cfg.PairFailures:
			v = e.refuse(p.prefix, InFlight, time.Second, now)
			return
		}
		if known && !e.bucket.take(now, rate, burst) {
			v = e.refuse(p.prefix, SubjectRate, e.bucket.wait(now, rate, burst), now)
			return
		}
		e.pending, e.pendingAt = e.pending+1, now
		if e.mask > now {
			v.Masked, v.RetryAfter, v.Why = true, e.mask-now, PairBlocked
		}
	})
	return v
}

// Fail counts a failure. known says that subject is an account: only then may
// [Guard.Bans] show it, because people type passwords where names belong.
func (g *Guard) Fail(prefix, subject string, known bool) {
	now := g.now()
	p := g.place(prefix, subject)
	shown := ""
	if known {
		shown = subject
	}
	g.fail(p, shown, now, true)
	g.news.failure(Failure{Prefix: cut(prefix), Subject: p.who, Name: cut(shown), At: g.cfg.Now()})
}

// fail counts a failure at a time that may lie a little back; ours says that it
// is the end of an attempt of ours, and not one that another server saw.
func (g *Guard) fail(p place, shown string, now time.Duration, ours bool) {
	paired := g.known(p, now)
	if paired && !ours {
		return // their own failures are between them and that server
	}
	short := false
	if paired && !p.device {
		g.counters.with(p.prefixKey, now, func(e *entry) { short = len(e.good) >= g.cfg.PrefixSubjects })
	}
	g.counters.make(p.pairKey, now, func(e *entry) {
		if ours {
			e.unreserve(now)
		}
		e.mark(now, 0, g.cfg.PairFailures)
		if e.live(now, g.cfg.Window) < g.cfg.PairFailures || e.until > now {
			return
		}
		as := heldAs{kind: kindPair, prefix: p.prefix, subject: shown, pair: true}
		if short {
			// Several people sign in from here, and this one has before: a
			// neighbour may be the one who fails. Hold the pair up, briefly,
			// and keep the marks, so that it is one attempt per block. The
			// neighbour sees the block that a stranger would have.
			if e.mask <= now {
				e.mask = now + g.nextBlock(e, now)
			}
			g.hold(e, now+g.cfg.SharedBlock, as, ours)
			return
		}
		g.block(e, now, as, ours)
	})
	if paired {
		// Not the prefix's: a colleague who mistypes is not spraying, and a
		// ban would not hold this pair up anyway.
		return
	}
	if p.wide != "" {
		g.counters.make(p.widePairKey, now, func(e *entry) {
			e.mark(now, 0, wideFactor*g.cfg.PairFailures)
			if e.until <= now && e.live(now, g.cfg.Window) >= wideFactor*g.cfg.PairFailures {
				g.block(e, now, heldAs{kind: kindWidePair, prefix: p.wide, subject: shown, pair: true}, ours)
			}
		})
	}
	g.counters.make(p.subjectKey, now, func(e *entry) { e.hour.add(now) })
	g.spray(p.prefixKey, p, g.cfg.PrefixFailures, heldAs{kind: kindPrefix, prefix: p.prefix}, now, ours)
	if p.wide != "" {
		g.spray(p.wideKey, p, wideFactor*g.cfg.PrefixFailures, heldAs{kind: kindWide, prefix: p.wide}, now, ours)
	}
}

// pressed reports whether strangers have failed on the subject so often within
// the hour that a password alone says little.
func (g *Guard) pressed(p place, now time.Duration) bool {
	n := 0
	g.counters.with(p.subjectKey, now, func(e *entry) { n = e.hour.sum(now) })
	return n >= g.cfg.Pressure
}

// spray counts a failure of a prefix and bans it when there are too many, over
// enough subjects. What may be everybody's way in is only slowed, see [step].
func (g *Guard) spray(key uint64, p place, limit int, as heldAs, now time.Duration, ours bool) {
	g.counters.make(key, now, func(e *entry) {
		e.mark(now, uint32(p.subjectKey), limit) //nolint:gosec // cut on purpose: a fingerprint
		if e.until <= now && e.live(now, g.cfg.Window) >= limit && e.distinct(now, g.cfg.Window, g.cfg.PrefixSubjects) {
			as.slowed = g.shared(p)
			g.block(e, now, as, ours)
		}
	})
}

// block holds the entry for as long as is due. The caller holds the entry's
// lock.
func (g *Guard) block(e *entry, now time.Duration, as heldAs, ours bool) {
	e.marks = e.marks[:0]
	g.hold(e, now+g.nextBlock(e, now), as, ours)
}

// hold holds the entry, and makes it news when we decided it. The caller holds
// the entry's lock.
func (g *Guard) hold(e *entry, until time.Duration, as heldAs, ours bool) {
	g.counters.hold(e, until, as)
	if ours {
		g.news.ban(g.banOf(e))
	}
}

// nextBlock returns how long a block is due: the first time, or twice the last.
func (g *Guard) nextBlock(e *entry, now time.Duration) time.Duration {
	if e.strikes > 0 && now-max(e.until, e.mask) > g.cfg.BlockMax {
		e.strikes = 0 // it was good for long enough
	}
	d := g.cfg.Block
	for range e.strikes {
		if d >= g.cfg.BlockMax/2 {
			d = g.cfg.BlockMax
			break
		}
		d *= 2
	}
	if e.strikes < math.MaxUint8 {
		e.strikes++
	}
	return d
}

// Succeed forgets the failures of the pair and makes it known. The prefix gets
// its attempt back: thirty people behind one address are not an attack. It does
// not forget the prefix's failures, or whoever has one account could clear the
// way to all the others.
func (g *Guard) Succeed(prefix, subject string) {
	now := g.now()
	p := g.place(prefix, subject)
	paired := g.known(p, now)
	checked := false
	g.counters.with(p.pairKey, now, func(e *entry) {
		checked = e.unreserve(now)
		e.marks, e.strikes, e.mask = nil, 0, 0
		g.counters.lift(e, now)
	})
	if !p.device {
		g.learnKnown(p, now+g.cfg.KnownFor, now)
	}
	who := uint32(p.subjectKey) //nolint:gosec // cut on purpose: a fingerprint
	g.counters.make(p.prefixKey, now, func(e *entry) {
		if len(e.good) < g.cfg.PrefixSubjects && !slices.Contains(e.good, who) {
			e.good = append(e.good, who)
		}
	})
	if checked && !paired {
		steps := g.steps(p)
		g.giveBack(steps[:len(steps)-2], now) // those of the prefixes
	}
}

// Release takes an allowed attempt back that was never judged, because
// something we need did not answer: it is neither a failure nor a success.
func (g *Guard) Release(prefix, subject string) {
	now := g.now()
	p := g.place(prefix, subject)
	paired := g.known(p, now)
	checked := false
	g.counters.with(p.pairKey, now, func(e *entry) {
		checked = e.unreserve(now)
		if checked && paired {
			e.bucket.give()
		}
	})
	if checked && !paired {
		g.giveBack(g.steps(p), now)
	}
}

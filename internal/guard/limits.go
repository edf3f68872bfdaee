package guard

import "time"

// A step is one limit on the way of a stranger.
type step struct {
	key   uint64 // zero: the global limit
	why   Reason
	rate  float64 // per second
	burst int
	held  Reason // why, while the counter is held; empty: it never is
}

// steps lists the limits that strangers share, those of prefixes first.
func (g *Guard) steps(p place) []step {
	const held = PrefixBanned
	n := g.cfg.PrefixPerMinute
	all := make([]step, 0, 4)
	all = append(all, step{key: p.prefixKey, why: PrefixRate, rate: perMinute(n), burst: n, held: held})
	if p.wide != "" {
		n *= wideFactor
		all = append(all, step{key: p.wideKey, why: PrefixRate, rate: perMinute(n), burst: n, held: held})
	}
	n = g.cfg.SubjectPerMinute
	return append(all,
		step{key: p.subjectKey, why: SubjectRate, rate: perMinute(n), burst: n},
		step{why: GlobalRate, rate: float64(g.cfg.GlobalPerSecond), burst: g.cfg.GlobalPerSecond})
}

// asStranger passes the limits that strangers share. With take it spends from
// each, and gives back what it spent when a later one refuses: a refused
// attempt costs nobody anything. Without, it only says what it would answer.
func (g *Guard) asStranger(p place, now time.Duration, take bool) Verdict {
	steps := g.steps(p)
	v := Verdict{Allowed: true}
	for i, s := range steps {
		look := func(e *entry) { v = s.pass(e, p.prefix, now, take, g.cfg.SlowPerMinute) }
		switch {
		case s.key == 0:
			g.globalMu.Lock()
			look(&g.global)
			g.globalMu.Unlock()
		case take:
			g.counters.make(s.key, now, look)
		default:
			g.counters.with(s.key, now, look)
		}
		if !v.Allowed {
			if take {
				g.giveBack(steps[:i], now)
			}
			return v
		}
	}
	return v
}

// pass applies one limit. The caller holds the entry's lock.
func (s step) pass(e *entry, prefix string, now time.Duration, take bool, slowPerMinute int) Verdict {
	rate, burst, why := s.rate, s.burst, s.why
	no := func(why Reason, after time.Duration) Verdict {
		if take {
			return e.refuse(prefix, why, after, now)
		}
		return Verdict{Why: why, RetryAfter: max(after, time.Second)}
	}
	if s.held != "" && e.until > now {
		if !e.as.slowed {
			return no(s.held, e.until-now)
		}
		rate, burst, why = perMinute(slowPerMinute), slowPerMinute, SharedAddress
	}
	ok := e.bucket.has(now, rate, burst)
	if ok && take {
		e.bucket.spent++
	}
	if !ok {
		return no(why, e.bucket.wait(now, rate, burst))
	}
	return Verdict{Allowed: true}
}

func (g *Guard) giveBack(steps []step, now time.Duration) {
	for _, s := range steps {
		if s.key == 0 {
			g.globalMu.Lock()
			g.global.bucket.give()
			g.globalMu.Unlock()
			continue
		}
		g.counters.with(s.key, now, func(e *entry) { e.bucket.give() })
	}
}

package guard

// Lookup says whether a credential that nobody can guess (a token of 256 bits,
// by its id) may be looked up for prefix. Such lookups are not worth a ban:
// stale tokens in forgotten scripts are many, guessed ones none. A prefix with
// too many of them is slowed, except for tokens that it used with success.
func (g *Guard) Lookup(prefix, id string) Verdict {
	now := g.now()
	if g.isKnown(g.tokens, g.key(kindPair, prefix, id), now) {
		return Verdict{Allowed: true}
	}
	v := Verdict{Allowed: true}
	s := step{why: PrefixRate, rate: perMinute(g.cfg.MissesPerMinute), burst: g.cfg.MissesPerMinute}
	g.counters.with(g.key(kindMiss, prefix, ""), now, func(e *entry) {
		if v = s.pass(e, prefix, now, false, 0); !v.Allowed {
			v.Report = e.refuse(prefix, v.Why, 0, now).Report
		}
	})
	return v
}

// Miss counts a credential that does not exist or whose secret is wrong. It
// returns how many misses of the prefix are to be told to the audit log now,
// like [Verdict.Report]: a forgotten script asks every second for years.
func (g *Guard) Miss(prefix string) (report int) {
	now := g.now()
	g.counters.make(g.key(kindMiss, prefix, ""), now, func(e *entry) {
		e.bucket.take(now, perMinute(g.cfg.MissesPerMinute), g.cfg.MissesPerMinute)
		report = e.refuse(prefix, PrefixRate, 0, now).Report
	})
	return report
}

// Hit notes that the credential is good.
func (g *Guard) Hit(prefix, id string) {
	now := g.now()
	g.tokens.make(g.key(kindPair, prefix, id), now, func(e *entry) { e.until = now + g.cfg.KnownFor })
}

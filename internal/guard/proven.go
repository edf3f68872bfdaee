package guard

// Proven says whether somebody is listened to who proved something that nobody
// can guess, such as the private half of an SSH key: they are not guessing, so
// neither rates nor blocked pairs hold them up. A banned prefix does, unless
// subject has proved itself from there before ([Guard.Hit] with the same
// subject): bans hold at every door, and strangers do not lock people out. An
// empty subject is somebody who has proved nothing yet.
func (g *Guard) Proven(prefix, subject string) Verdict {
	now := g.now()
	if subject != "" && g.isKnown(g.tokens, g.key(kindPair, prefix, subject), now) {
		return Verdict{Allowed: true}
	}
	p := g.place(prefix, "")
	v := Verdict{Allowed: true}
	look := func(e *entry) {
		if e.until > now && v.Allowed {
			v = e.refuse(prefix, PrefixBanned, e.until-now, now)
		}
	}
	if p.private {
		return v // slowed, not banned: it may hide many people
	}
	g.counters.with(p.prefixKey, now, look)
	if p.wide != "" {
		g.counters.with(p.wideKey, now, look)
	}
	return v
}

package guard

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Ban is a block, a ban or a slow-down that is in force.
type Ban struct {
	ID       string // opaque; for [Guard.Lift]
	Prefix   string
	Subject  string    // of a block: the account's name; empty for a ban, and for names that are no account
	Pair     bool      // a block of one subject from Prefix, not a ban of all
	Slowed   bool      // a private prefix: slowed instead of banned
	Until    time.Time // when it ends by itself
	Repeated int       // how often in a row it was imposed, 1 for the first time
}

// Bans lists what is in force, the one that ends last first.
func (g *Guard) Bans() []Ban {
	now := g.now()
	bans := []Ban{}
	g.counters.held(now, func(e *entry) {
		bans = append(bans, Ban{
			ID: strconv.FormatUint(e.key, 16), Prefix: e.as.prefix, Subject: e.as.subject,
			Pair: e.as.pair, Slowed: e.as.slowed,
			Until: g.begin.Add(e.until), Repeated: max(1, int(e.strikes)),
		})
	})
	slices.SortFunc(bans, func(a, b Ban) int {
		return cmp.Or(b.Until.Compare(a.Until), strings.Compare(a.Prefix, b.Prefix), strings.Compare(a.ID, b.ID))
	})
	return bans
}

// Lift ends a ban and forgets the failures behind it. It reports whether there
// was one.
func (g *Guard) Lift(id string) bool {
	key, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return false
	}
	now := g.now()
	lifted := false
	g.counters.with(key, now, func(e *entry) {
		lifted = e.until > now
		e.marks, e.strikes, e.mask = nil, 0, 0
		e.bucket = bucket{}
		g.counters.lift(e, now)
	})
	return lifted
}

// Len returns how many counters are kept.
func (g *Guard) Len() int { return g.counters.len() + g.knowns.len() + g.tokens.len() }

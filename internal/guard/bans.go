package guard

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/baileyhq/bailey"
)

// A Ban is a block, a ban or a slow-down.
type Ban = bailey.Ban

func (g *Guard) banOf(e *entry) Ban {
	return Ban{
		ID: strconv.FormatUint(e.key, 16), Kind: string(e.as.kind), Prefix: e.as.prefix, Subject: e.as.subject,
		Pair: e.as.pair, Slowed: e.as.slowed,
		Until: g.begin.Add(e.until), Repeated: max(1, int(e.strikes)),
	}
}

// Bans lists what is in force, the one that ends last first.
func (g *Guard) Bans() []Ban {
	now := g.now()
	bans := []Ban{}
	g.counters.held(now, func(e *entry) { bans = append(bans, g.banOf(e)) })
	for _, b := range *g.nets.Load() {
		if b.until > now {
			bans = append(bans, b.Ban)
		}
	}
	slices.SortFunc(bans, func(a, b Ban) int {
		return cmp.Or(b.Until.Compare(a.Until), strings.Compare(a.Prefix, b.Prefix), strings.Compare(a.ID, b.ID))
	})
	return bans
}

// Lift ends a ban and forgets the failures behind it. It reports whether there
// was one.
func (g *Guard) Lift(id string) bool {
	now := g.now()
	if g.liftNet(id) {
		return true
	}
	key, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return false
	}
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

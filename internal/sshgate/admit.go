package sshgate

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/baileyhq/bailey/internal/guard"
)

func netipOf(ip net.IP) (string, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return "", false
	}
	return a.Unmap().String(), true
}

// A stranger is a connection that has not signed in.
type stranger struct {
	nc     net.Conn
	prefix string
	gone   bool // counted out
}

// mostDrops is how many of a hundred newcomers chance sends away when the room
// is full. The others each take the place of the stranger who has been there for
// longest: signing in takes a moment, and whoever fills the room to keep others
// out has been there for seconds. So nobody can keep everybody out, neither by
// filling the room nor by coming all the time.
const mostDrops = 75

// enter counts a stranger in. The returned function counts them out, once; it
// is nil when there is no room. From a quarter of the room on, chance decides,
// the harder the fuller.
func (g *Gate) enter(nc net.Conn, ip string) (leave func(), why string) {
	prefix := guard.Prefix(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.cfg.Limits
	quarter := l.Strangers / 4
	switch {
	case g.closing:
		why = "closing"
	case g.strangers[prefix] >= l.PerPrefix:
		why = "address"
	case len(g.waiting) >= quarter && rand.IntN(100) < 30+(mostDrops-30)*(len(g.waiting)-quarter)/max(1, l.Strangers-quarter): //nolint:gosec // a fair coin is enough
		why = "chance"
	}
	if why != "" {
		g.stats.Dropped++
		return nil, why
	}
	if len(g.waiting) >= l.Strangers {
		oldest := g.waiting[0]
		g.countOut(oldest)
		g.stats.Dropped++
		_ = oldest.nc.Close() // its goroutine ends by that
	}
	s := &stranger{nc: nc, prefix: prefix}
	g.waiting = append(g.waiting, s)
	g.strangers[prefix]++
	g.raw[nc] = struct{}{}
	g.wg.Add(1)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.countOut(s)
	}, ""
}

// countOut takes a stranger out of the count, once. The caller holds mu.
func (g *Gate) countOut(s *stranger) {
	if s.gone {
		return
	}
	s.gone = true
	if i := slices.Index(g.waiting, s); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	if g.strangers[s.prefix]--; g.strangers[s.prefix] == 0 {
		delete(g.strangers, s.prefix)
	}
}

// A load is what one person has open.
type load struct{ connections, channels int }

// take counts a connection of a person in, unless there are too many.
func (g *Gate) take(userID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.people[userID]
	if u == nil {
		u = &load{}
		g.people[userID] = u
	}
	if u.connections >= g.cfg.Limits.Connections {
		g.stats.Dropped++
		return false
	}
	u.connections++
	g.stats.Open++
	g.stats.Opened++
	return true
}

func (g *Gate) release(userID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Open--
	if u := g.people[userID]; u != nil {
		if u.connections--; u.connections == 0 {
			delete(g.people, userID)
		}
	}
}

// takeChannel counts a channel of a person in, unless there are too many: each
// may have 2 MiB on their way.
func (g *Gate) takeChannel(userID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.people[userID]
	if u == nil || u.channels >= g.cfg.Limits.PerUser {
		return false
	}
	u.channels++
	return true
}

func (g *Gate) releaseChannel(userID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u := g.people[userID]; u != nil {
		u.channels--
	}
}

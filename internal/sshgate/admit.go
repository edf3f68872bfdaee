package sshgate

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"

	"github.com/baileyhq/bailey/internal/guard"
)

func netipOf(ip net.IP) (string, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return "", false
	}
	return a.Unmap().String(), true
}

// enter counts a stranger in. The returned function counts them out, once; it
// is nil when there is no room. From a quarter of the room on, chance decides,
// the harder the fuller: whoever fills the room cannot keep everybody out.
func (g *Gate) enter(nc net.Conn, ip string) (leave func(), why string) {
	prefix := guard.Prefix(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.cfg.Limits
	quarter := l.Strangers / 4
	switch {
	case g.closing:
		return nil, "closing"
	case g.strangers[prefix] >= l.PerPrefix:
		why = "address"
	case g.waiting >= l.Strangers:
		why = "full"
	case g.waiting >= quarter && rand.IntN(100) < 30+70*(g.waiting-quarter)/(l.Strangers-quarter): //nolint:gosec // a fair coin is enough
		why = "chance"
	}
	if why != "" {
		g.stats.Dropped++
		return nil, why
	}
	g.waiting++
	g.strangers[prefix]++
	g.raw[nc] = struct{}{}
	g.wg.Add(1)
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting--
		if g.strangers[prefix]--; g.strangers[prefix] == 0 {
			delete(g.strangers, prefix)
		}
	}), ""
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

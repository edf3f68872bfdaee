// Package crowd decides who comes in when many want to. Of strangers it listens
// to so many, by chance the fuller it is and the newest before the oldest, so that
// nobody can keep everybody out; of people it counts what each has open. It judges
// and counts; callers open and close.
package crowd

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync"

	"github.com/baileyhq/bailey/internal/guard"
)

// Limits are how many of each there may be.
type Limits struct {
	Strangers   int // connections that have not signed in
	PerPrefix   int // of them, from one address (IPv6: /64)
	Connections int // of one person
	Channels    int // of one person, in all their connections
}

// Stats counts connections.
type Stats struct {
	Strangers int    // now, not signed in
	Open      int    // now, signed in
	Opened    uint64 // signed in since the start
	Dropped   uint64 // because of a limit
}

// A Crowd counts who is there. Its methods may be called concurrently.
type Crowd struct {
	limits Limits

	mu       sync.Mutex // guards the rest
	prefixes map[string]int
	waiting  []*stranger // all of them, oldest first
	people   map[string]*load
	stats    Stats
}

// A stranger is a connection that has not signed in.
type stranger struct {
	nc     net.Conn
	prefix string
	gone   bool // counted out
}

// A load is what one person has open.
type load struct{ connections, channels int }

// New returns an empty Crowd.
func New(l Limits) *Crowd {
	return &Crowd{limits: l, prefixes: map[string]int{}, people: map[string]*load{}}
}

// Stats returns the counts.
func (c *Crowd) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Strangers = len(c.waiting)
	return s
}

// Dropped counts a connection that was sent away elsewhere.
func (c *Crowd) Dropped() {
	c.mu.Lock()
	c.stats.Dropped++
	c.mu.Unlock()
}

// mostDrops is how many of a hundred newcomers chance sends away when the room
// is full. The others each take the place of the stranger who has been there for
// longest: signing in takes a moment, and whoever fills the room to keep others
// out has been there for seconds. So nobody can keep everybody out, neither by
// filling the room nor by coming all the time.
const mostDrops = 75

// Enter counts a stranger in. The returned function counts them out, once; it
// is nil when there is no room. From a quarter of the room on, chance decides,
// the harder the fuller. It closes the connection of the stranger whose place is
// taken.
func (c *Crowd) Enter(nc net.Conn, ip string) (leave func(), why string) {
	prefix := guard.Prefix(ip)
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.limits
	quarter := l.Strangers / 4
	switch {
	case c.prefixes[prefix] >= l.PerPrefix:
		why = "address"
	case len(c.waiting) >= quarter && rand.IntN(100) < 30+(mostDrops-30)*(len(c.waiting)-quarter)/max(1, l.Strangers-quarter): //nolint:gosec // a fair coin is enough
		why = "chance"
	}
	if why != "" {
		c.stats.Dropped++
		return nil, why
	}
	if len(c.waiting) >= l.Strangers {
		oldest := c.waiting[0]
		c.countOut(oldest)
		c.stats.Dropped++
		_ = oldest.nc.Close() // its goroutine ends by that
	}
	s := &stranger{nc: nc, prefix: prefix}
	c.waiting = append(c.waiting, s)
	c.prefixes[prefix]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.countOut(s)
	}, ""
}

// countOut takes a stranger out of the count, once. The caller holds mu.
func (c *Crowd) countOut(s *stranger) {
	if s.gone {
		return
	}
	s.gone = true
	if i := slices.Index(c.waiting, s); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	if c.prefixes[s.prefix]--; c.prefixes[s.prefix] == 0 {
		delete(c.prefixes, s.prefix)
	}
}

// Take counts a connection of a person in, unless there are too many.
func (c *Crowd) Take(userID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.people[userID]
	if u == nil {
		u = &load{}
		c.people[userID] = u
	}
	if u.connections >= c.limits.Connections {
		c.stats.Dropped++
		return false
	}
	u.connections++
	c.stats.Open++
	c.stats.Opened++
	return true
}

// Release counts it out.
func (c *Crowd) Release(userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Open--
	if u := c.people[userID]; u != nil {
		if u.connections--; u.connections == 0 {
			delete(c.people, userID)
		}
	}
}

// TakeChannel counts a channel of a person in, unless there are too many.
func (c *Crowd) TakeChannel(userID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.people[userID]
	if u == nil || u.channels >= c.limits.Channels {
		return false
	}
	u.channels++
	return true
}

// ReleaseChannel counts it out.
func (c *Crowd) ReleaseChannel(userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := c.people[userID]; u != nil {
		u.channels--
	}
}

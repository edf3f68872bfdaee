package egress

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultConnections = 256
	userWorkspaces     = 4    // a user has as many times the connections of a workspace
	maxConnections     = 8192 // of the server
	maxTold            = 16   // connections of one workspace, and
	maxToldAll         = 512  // of all, that are being told that they are too many

	smallBuffer = 8 << 10
	largeBuffer = 128 << 10
	maxLarge    = 512 // large buffers in use: 64 MiB
	maxLargeOne = 48  // of one workspace

	minBurst = 64 << 10
	pause    = 20 * time.Millisecond // at most, before looking again whether others left something
)

// shares divides what there is: connections, large buffers and bytes per
// second, between workspaces and between users.
type shares struct {
	small, large sync.Pool
	inUse        atomic.Int64 // large buffers

	mu    sync.Mutex // guards the rest, and the fields of lanes and users
	most  Limits
	open  int
	told  int
	lanes map[string]*lane // by workspace
	users map[string]*purse
	total fair
}

// A lane is one workspace's share.
type lane struct {
	all   *shares
	id    string
	user  *purse
	open  int
	told  int
	meter bucket
	large atomic.Int64 // buffers in use
}

// A purse is one user's share.
type purse struct {
	id    string
	open  int
	level float64   // bytes that may be spent; below zero: owed
	spent time.Time // last
}

func newShares() *shares {
	return &shares{
		small: sync.Pool{New: func() any { return new([smallBuffer]byte) }},
		large: sync.Pool{New: func() any { return new([largeBuffer]byte) }},
		most:  Limits{Connections: defaultConnections},
		lanes: map[string]*lane{}, users: map[string]*purse{},
	}
}

// limit makes other limits hold. Connections over a lower number stay.
func (s *shares) limit(most Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
	s.total.rate = float64(most.Total)
	for _, l := range s.lanes {
		l.meter.rate = float64(most.Rate)
	}
}

// join gives a connection its place; leave gives it back. ok is false when the
// workspace, its user or the server has too many already: the connection may
// then only be told so, and tell is false when too many are being told.
func (s *shares) join(who Who) (l *lane, ok, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l = s.lanes[who.WorkspaceID]
	if l == nil {
		s.sweep()
		u := s.users[who.UserID]
		if u == nil {
			u = &purse{id: who.UserID}
			s.users[who.UserID] = u
		}
		l = &lane{all: s, id: who.WorkspaceID, user: u, meter: bucket{rate: float64(s.most.Rate)}}
		s.lanes[who.WorkspaceID] = l
	}
	if l.open < s.most.Connections && l.user.open < userWorkspaces*s.most.Connections && s.open < maxConnections {
		l.open++
		l.user.open++
		s.open++
		return l, true, false
	}
	if l.told < maxTold && s.told < maxToldAll {
		l.told++
		s.told++
		return l, false, true
	}
	s.forget(l)
	return l, false, false
}

func (l *lane) leave(told bool) {
	s := l.all
	s.mu.Lock()
	defer s.mu.Unlock()
	if told {
		l.told--
		s.told--
	} else {
		l.open--
		l.user.open--
		s.open--
	}
	s.forget(l)
}

// forget drops shares that nobody has. What was overspent a moment ago is
// remembered until it is paid, or reconnecting would be a way around a limit.
func (s *shares) forget(l *lane) {
	if l.open > 0 || l.told > 0 || l.meter.owes(time.Now()) {
		return
	}
	delete(s.lanes, l.id)
	for _, other := range s.lanes {
		if other.user == l.user {
			return
		}
	}
	delete(s.users, l.user.id)
}

// sweep drops shares that were kept because something was owed.
func (s *shares) sweep() {
	for _, l := range s.lanes {
		s.forget(l)
	}
}

// buffer lends a buffer: a large one when fast is true and the workspace and
// the server have any left, so that many connections that stand still with a
// full buffer cannot take the memory of all. The caller calls giveBack.
func (l *lane) buffer(fast bool) (b []byte, giveBack func()) {
	s := l.all
	if fast {
		if l.large.Add(1) <= maxLargeOne {
			if s.inUse.Add(1) <= maxLarge {
				buf := s.large.Get().(*[largeBuffer]byte) //nolint:forcetypeassert // the pool's own
				return buf[:], func() { s.large.Put(buf); s.inUse.Add(-1); l.large.Add(-1) }
			}
			s.inUse.Add(-1)
		}
		l.large.Add(-1)
	}
	buf := s.small.Get().(*[smallBuffer]byte) //nolint:forcetypeassert // the pool's own
	return buf[:], func() { s.small.Put(buf) }
}

// spend accounts for n bytes that were moved and waits until the next ones may
// be: by the connection's own meter, the workspace's and the user's share. It
// returns at once when done is closed.
func (l *lane) spend(done <-chan struct{}, own *bucket, n int) {
	s := l.all
	for {
		now := time.Now()
		s.mu.Lock()
		wait := max(own.spend(now, n), l.meter.spend(now, n), s.spend(now, l.user, n))
		s.mu.Unlock()
		n = 0
		if wait <= 0 {
			return
		}
		t := time.NewTimer(min(wait, pause))
		select {
		case <-done:
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// A bucket lets rate bytes a second pass; 0: any number. What was moved is
// spent afterwards, so it may be owed for a while.
type bucket struct {
	rate  float64
	level float64
	last  time.Time
}

// spend takes n out and returns how long what is owed takes to come in.
func (b *bucket) spend(now time.Time, n int) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	burst := max(b.rate/8, minBurst)
	if b.last.IsZero() {
		b.level = burst
	} else {
		b.level = min(b.level+b.rate*now.Sub(b.last).Seconds(), burst)
	}
	b.last = now
	b.level -= float64(n)
	return owed(b.level, b.rate)
}

func (b *bucket) owes(now time.Time) bool { return b.spend(now, 0) > 0 }

func owed(level, rate float64) time.Duration {
	if level >= 0 {
		return 0
	}
	return time.Duration(-level / rate * float64(time.Second))
}

// fair is a rate that users share: each who moves something gets the same part
// of it, and what one does not take is there for the others.
type fair struct {
	rate  float64
	spare float64
	last  time.Time
}

const lately = 500 * time.Millisecond

// spend takes n from a user's share and then from what is left over.
func (s *shares) spend(now time.Time, u *purse, n int) time.Duration {
	f := &s.total
	if f.rate <= 0 {
		return 0
	}
	burst := max(f.rate/8, minBurst)
	u.spent = now
	active := 0
	for _, other := range s.users {
		if now.Sub(other.spent) < lately {
			active++
		}
	}
	part := f.rate / float64(cmp.Or(active, 1))
	if gone := now.Sub(f.last).Seconds(); !f.last.IsZero() && gone > 0 {
		for _, other := range s.users {
			if now.Sub(other.spent) >= lately {
				continue
			}
			other.level += part * gone
			if over := other.level - burst/float64(active); over > 0 {
				other.level -= over
				f.spare += over
			}
		}
		f.spare = min(f.spare, burst)
	}
	f.last = now
	u.level -= float64(n)
	if u.level < 0 && f.spare > 0 {
		take := min(f.spare, -u.level)
		u.level += take
		f.spare -= take
	}
	return owed(u.level, part)
}

package guard

import (
	"math"
	"strings"
	"sync"
	"time"
)

// shards is how many parts a table has, each with its own lock.
const shards = 16

// A table keeps a fixed number of entries by hashed key. When it is full, the
// entry that was not used for longest makes room; one that is held (a ban) only
// when nothing else is left, or when bans fill half of the table.
type table struct {
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex // guards all below
	byKey map[uint64]*entry
	cap   int
	plain ring
	bans  ring
	nbans int
	lost  int // refusals that were to be reported, of entries that made room for others
}

// A ring is a list with its newest entry at head.next.
type ring struct{ head entry }

func newTable(entries int) *table {
	t := &table{}
	for i := range t.shards {
		s := &t.shards[i]
		s.byKey = map[uint64]*entry{}
		s.cap = max(2, entries/shards)
		s.plain.init()
		s.bans.init()
	}
	return t
}

func (t *table) shard(key uint64) *shard { return &t.shards[key%shards] }

// with calls f with the entry, under its lock, if there is one.
func (t *table) with(key uint64, now time.Duration, f func(*entry)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byKey[key]; e != nil {
		s.use(e, now)
		f(e)
	}
}

// make calls f with the entry, under its lock, and makes it if need be.
func (t *table) make(key uint64, now time.Duration, f func(*entry)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		if len(s.byKey) >= s.cap {
			s.evict(now)
		}
		e = &entry{key: key}
		s.byKey[key] = e
		s.plain.push(e)
	}
	s.use(e, now)
	f(e)
}

// use moves the entry to the front of the list it belongs to by now.
func (s *shard) use(e *entry, now time.Duration) {
	e.unlink()
	if e.banned && e.until <= now {
		e.banned, e.as = false, heldAs{}
		s.nbans--
	}
	if e.banned {
		s.bans.push(e)
	} else {
		s.plain.push(e)
	}
}

func (s *shard) evict(now time.Duration) {
	if last := s.bans.last(); last != nil && last.until <= now {
		s.drop(last)
		return
	}
	if last := s.plain.last(); last != nil {
		s.drop(last)
		return
	}
	if last := s.bans.last(); last != nil {
		s.drop(last)
	}
}

func (s *shard) drop(e *entry) {
	e.unlink()
	if e.banned {
		s.nbans--
	}
	s.lost += e.refused
	delete(s.byKey, e.key)
}

// hold bans the entry until then. The caller holds the shard's lock, inside
// with or make.
func (t *table) hold(e *entry, until time.Duration, as heldAs) {
	s := t.shard(e.key)
	e.until = until
	as.prefix, as.subject = cut(as.prefix), cut(as.subject)
	e.as = as
	if e.banned {
		return
	}
	if s.nbans >= s.cap/2 {
		s.drop(s.bans.last())
	}
	e.unlink()
	e.banned = true
	s.nbans++
	s.bans.push(e)
}

// lift ends what hold began. The caller holds the shard's lock.
func (t *table) lift(e *entry, now time.Duration) {
	if e.until > now {
		e.until = now
	}
	t.shard(e.key).use(e, now)
}

// held calls f with every entry that is held at this time.
func (t *table) held(now time.Duration, f func(*entry)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for e := s.bans.head.next; e != &s.bans.head; e = e.next {
			if e.until > now {
				f(e)
			}
		}
		s.mu.Unlock()
	}
}

func (t *table) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.byKey)
		s.mu.Unlock()
	}
	return n
}

func (r *ring) init() { r.head.next, r.head.prev = &r.head, &r.head }

func (r *ring) push(e *entry) {
	e.prev, e.next = &r.head, r.head.next
	e.prev.next, e.next.prev = e, e
}

func (r *ring) last() *entry {
	if r.head.prev == &r.head {
		return nil
	}
	return r.head.prev
}

// cut keeps a private, short copy of a stranger's text.
func cut(s string) string { return strings.Clone(s[:min(len(s), 64)]) }

// An entry is one counter. Which of its parts are used depends on its kind.
type entry struct {
	key        uint64
	prev, next *entry

	bucket  bucket
	marks   []mark // failures, oldest first, as many as the limit
	good    []uint32
	hour    hour          // failures by strangers, of a subject
	until   time.Duration // blocked, banned or slowed until then; of a known pair: known until then
	mask    time.Duration // of a known pair behind a shared address: what a stranger would be blocked until
	strikes uint8         // how often it was blocked in a row
	banned  bool          // is in the shard's list of bans
	as      heldAs        // what to show of it while it is held

	pending   int           // attempts that are allowed and not judged yet
	pendingAt time.Duration // when the last of them began

	refused    int           // refusals since the last report
	nextReport time.Duration // when they may be reported again
	from       string        // the prefix of the last of them
}

// An hour counts the failures of one, in sixths.
type hour struct {
	n    [6]uint16
	slot uint32 // the sixth that was counted in last
}

const sixth = 10 * time.Minute

// turn empties the sixths that are over.
func (h *hour) turn(now time.Duration) {
	slot := uint32(now / sixth) //nolint:gosec // never negative
	for ; h.slot < slot; h.slot++ {
		if slot-h.slot > 6 {
			h.slot = slot - 6
		}
		h.n[(h.slot+1)%6] = 0
	}
}

func (h *hour) add(now time.Duration) {
	h.turn(now)
	if i := h.slot % 6; h.n[i] < math.MaxUint16 {
		h.n[i]++
	}
}

func (h *hour) sum(now time.Duration) (sum int) {
	h.turn(now)
	for _, n := range h.n {
		sum += int(n)
	}
	return sum
}

// heldAs is what [Guard.Bans] shows.
type heldAs struct {
	kind            byte
	prefix, subject string
	pair, slowed    bool
}

// A mark is one failure: the second it happened and a fingerprint of its
// subject.
type mark struct{ at, who uint32 }

func (e *entry) unlink() {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
	}
}

// pendingFor is how long an attempt may stay unjudged: far longer than a hash
// and its queue take, so only a caller's defect lets it run out.
const pendingFor = 30 * time.Second

func (e *entry) settle(now time.Duration) {
	if now-e.pendingAt > pendingFor {
		e.pending = 0
	}
}

// unreserve ends one attempt and reports whether one was under way.
func (e *entry) unreserve(now time.Duration) bool {
	e.settle(now)
	if e.pending == 0 {
		return false
	}
	e.pending--
	return true
}

// mark notes a failure and keeps the newest keep of them.
func (e *entry) mark(now time.Duration, who uint32, keep int) {
	m := mark{at: seconds(now), who: who}
	if len(e.marks) < keep {
		e.marks = append(e.marks, m)
		return
	}
	copy(e.marks, e.marks[1:])
	e.marks[len(e.marks)-1] = m
}

// live counts the failures that are still in the window.
func (e *entry) live(now, window time.Duration) int {
	n := 0
	for _, m := range e.marks {
		if inWindow(m.at, now, window) {
			n++
		}
	}
	return n
}

// distinct reports whether the failures in the window are over at least n
// subjects.
func (e *entry) distinct(now, window time.Duration, n int) bool {
	seen := make([]uint32, 0, 8)
next:
	for _, m := range e.marks {
		if !inWindow(m.at, now, window) {
			continue
		}
		for _, s := range seen {
			if s == m.who {
				continue next
			}
		}
		if seen = append(seen, m.who); len(seen) >= n {
			return true
		}
	}
	return len(seen) >= n
}

func inWindow(at uint32, now, window time.Duration) bool {
	return now-time.Duration(at)*time.Second < window
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) } //nolint:gosec // never negative, and 136 years fit

// refuse says no, and how many refusals to report.
func (e *entry) refuse(prefix string, why Reason, after, now time.Duration) Verdict {
	e.refused++
	e.from = prefix
	v := Verdict{Why: why, RetryAfter: max(after, time.Second)}
	if now >= e.nextReport {
		v.Report, e.refused = e.refused, 0
		e.nextReport = now + reportEvery
	}
	return v
}

// A bucket counts what was spent of a burst and not yet refilled. The zero
// bucket is full.
type bucket struct {
	spent float64
	at    time.Duration
}

// slack absorbs rounding: three refills of a third are one.
const slack = 1e-6

func (b *bucket) refill(now time.Duration, rate float64) {
	if now > b.at {
		b.spent = max(0, b.spent-rate*(now-b.at).Seconds())
		b.at = now
	}
}

// has reports whether there is one to take.
func (b *bucket) has(now time.Duration, rate float64, burst int) bool {
	b.refill(now, rate)
	return b.spent+1 <= float64(burst)+slack
}

// take takes one if there is one.
func (b *bucket) take(now time.Duration, rate float64, burst int) bool {
	if !b.has(now, rate, burst) {
		return false
	}
	b.spent++
	return true
}

// give puts one back.
func (b *bucket) give() { b.spent = max(0, b.spent-1) }

// wait returns how long it takes until there is one to take.
func (b *bucket) wait(now time.Duration, rate float64, burst int) time.Duration {
	b.refill(now, rate)
	if b.spent+1 <= float64(burst) {
		return 0
	}
	return time.Duration((b.spent + 1 - float64(burst)) / rate * float64(time.Second))
}

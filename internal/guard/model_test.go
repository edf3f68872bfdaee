package guard_test

import (
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/guard"
)

// FuzzNeverMoreThanTheLimits plays any sequence of attempts by three people
// from four places and holds the guard to its promises, counted independently:
// at most 5 failures of a pair in 15 minutes, at most 10 failures of strangers
// per prefix and 20 in all in one instant, and never a refusal for a known pair
// that did not fail itself.
func FuzzNeverMoreThanTheLimits(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\x00\x10\x20\x30\x01\x11\x21\x31\x41\x51\x61\x71\x81\x91\xa1\xb1"))
	f.Add([]byte{64, 1, 64, 2, 64, 3, 200, 4, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4096 {
			return
		}
		m := newModel(t)
		for i, b := range script {
			m.step(i, b)
		}
	})
}

type model struct {
	t        *testing.T
	now      time.Time
	g        *guard.Guard
	failures map[[2]string][]time.Time
	strange  map[string][]time.Time // failures of strangers per place
	known    map[[2]string]bool
	recent   map[[2]string][]time.Time // allowed attempts of known pairs
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{
		t: t, now: time.Unix(1_800_000_000, 0),
		strange:  map[string][]time.Time{},
		failures: map[[2]string][]time.Time{}, known: map[[2]string]bool{}, recent: map[[2]string][]time.Time{},
	}
	m.g = newGuard(t, guard.Config{Now: func() time.Time { return m.now }})
	return m
}

// step reads a byte as: two bits of place, two of name, four of what happens.
func (m *model) step(i int, b byte) {
	place := []string{home, bridge, "2001:db8:1:1::/64", "2001:db8:1:2::/64"}[b&3]
	name := []string{"alice", "bob", "carol", "nobody"}[b>>2&3]
	pair := [2]string{place, name}
	switch what := b >> 4; {
	case what >= 14:
		m.now = m.now.Add(5 * time.Minute)
	case what >= 12:
		m.now = m.now.Add(7 * time.Second)
	default:
		v := m.g.Check(place, name)
		m.judge(i, pair, v)
		switch {
		case !v.Allowed:
		case what < 8:
			m.failures[pair] = append(m.failures[pair], m.now)
			if !m.known[pair] {
				m.strange[place] = append(m.strange[place], m.now)
			}
			m.g.Fail(place, name, name != "nobody")
		case what < 10:
			m.failures[pair], m.known[pair] = nil, true
			m.g.Succeed(place, name)
		default:
			m.g.Release(place, name)
		}
	}
}

func (m *model) judge(i int, pair [2]string, v guard.Verdict) {
	if v.Allowed == (v.RetryAfter > 0 && !v.Masked) || v.Allowed && v.Report > 0 {
		m.t.Fatalf("step %d: %v: %+v contradicts itself", i, pair, v)
	}
	failed := since(m.failures[pair], m.now.Add(-15*time.Minute))
	if !v.Allowed {
		if m.known[pair] && failed < 5 && len(m.failures[pair]) < 5 && since(m.recent[pair], m.now.Add(-time.Minute)) < 10 {
			m.t.Fatalf("step %d: known %v is refused (%+v) with %d failures of its own", i, pair, v, failed)
		}
		return
	}
	// Behind an address that several people use, a known pair may go on at
	// one failure a minute; everybody else stops at five.
	limit := 5
	if m.known[pair] {
		limit = 5 + 15
	}
	if failed >= limit {
		m.t.Fatalf("step %d: %v is allowed with %d failures in 15 minutes", i, pair, failed)
	}
	if m.known[pair] {
		m.recent[pair] = append(m.recent[pair], m.now)
		return
	}
	all := 0
	for place, times := range m.strange {
		n := since(times, m.now.Add(-1))
		if all += n; n > 10 || all > 20 {
			m.t.Fatalf("step %d: strangers failed %d times from %s, %d times in all, in one instant", i, n, place, all)
		}
	}
	if b := m.g.Bans(); len(b) > 32 {
		m.t.Fatalf("step %d: %d bans, more than there are pairs and prefixes: %+v", i, len(b), b)
	}
}

func since(times []time.Time, from time.Time) int {
	n := 0
	for _, at := range times {
		if at.After(from) {
			n++
		}
	}
	return n
}

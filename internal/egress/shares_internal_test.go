package egress

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// take moves bytes as who for a time, n at once, and returns how many.
func take(s *shares, who Who, n int, length time.Duration) (moved int) {
	l, _, _ := s.join(who)
	defer l.leave(false)
	own := &bucket{}
	for end := time.Now().Add(length); time.Now().Before(end); moved += n {
		l.spend(nil, own, n)
		time.Sleep(time.Microsecond) // in the bubble: what moving takes
	}
	return moved
}

func someone(user, workspace int) Who {
	return Who{UserID: fmt.Sprint("u", user), WorkspaceID: fmt.Sprint("w", user, "-", workspace)}
}

const mib = 1 << 20

// near reports whether got is within a fifth of want.
func near(got, want int) bool { return got > want*4/5 && got < want*6/5 }

func TestRateOfAWorkspace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares()
		s.limit(Limits{Connections: 10, Rate: 8 * mib})
		moved := make([]int, 3)
		var wg sync.WaitGroup
		for i := range 2 { // two connections of one workspace share its rate
			wg.Go(func() { moved[i] = take(s, someone(1, 1), 32<<10, 10*time.Second) })
		}
		wg.Go(func() { moved[2] = take(s, someone(2, 1), 32<<10, 10*time.Second) })
		wg.Wait()
		if !near(moved[0]+moved[1], 80*mib) || !near(moved[2], 80*mib) {
			t.Errorf("moved %v, want 80 MiB for each workspace", moved)
		}
	})
}

// A user with thirty connections gets no more than one with one, and what one
// does not want is there for the other.
func TestUsersShareFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares()
		s.limit(Limits{Connections: 100, Total: 10 * mib})
		var greedy, modest, both int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				n := take(s, someone(1, i%3), 16<<10, 20*time.Second)
				mu.Lock()
				greedy += n
				mu.Unlock()
			})
		}
		wg.Go(func() { modest = take(s, someone(2, 1), 16<<10, 20*time.Second) })
		wg.Wait()
		if both = greedy + modest; !near(both, 200*mib) || !near(modest, 100*mib) {
			t.Errorf("30 connections of one user moved %d MiB and one of another %d; want 100 each", greedy/mib, modest/mib)
		}
		if alone := take(s, someone(1, 1), 16<<10, 20*time.Second); !near(alone, 200*mib) {
			t.Errorf("alone a user moved %d MiB, want 200", alone/mib)
		}
	})
}

func TestPlacesAreGivenBack(t *testing.T) {
	s := newShares()
	s.limit(Limits{Connections: 3})
	var held []*lane
	for w := range 5 { // a user has as much as four workspaces
		for range 4 {
			l, ok, _ := s.join(someone(1, w))
			if want := len(held) < 12 && len(held) < 3*(w+1); ok != want {
				t.Fatalf("workspace %d with %d held: ok = %v", w, len(held), ok)
			}
			if ok {
				held = append(held, l)
			}
		}
	}
	if _, ok, _ := s.join(someone(2, 1)); !ok {
		t.Error("another user has no place")
	}
	for _, l := range held {
		l.leave(false)
	}
	if _, ok, _ := s.join(someone(1, 1)); !ok {
		t.Error("places that were given back are gone")
	}
	if len(s.users) > 2 {
		t.Errorf("%d users are remembered", len(s.users))
	}
}

// Connections that stand still with a full buffer hold what is theirs at most.
func TestLargeBuffersAreBounded(t *testing.T) {
	s := newShares()
	var back []func()
	count := func(l *lane, n int) (large int) {
		for range n {
			b, giveBack := l.buffer(true)
			if len(b) == largeBuffer {
				large++
			}
			back = append(back, giveBack)
		}
		return large
	}
	first, _, _ := s.join(someone(1, 1))
	if n := count(first, 1000); n != maxLargeOne {
		t.Errorf("one workspace holds %d large buffers, want %d", n, maxLargeOne)
	}
	all := maxLargeOne
	for w := range 50 {
		l, _, _ := s.join(someone(w, 2))
		all += count(l, 100)
	}
	if all != maxLarge {
		t.Errorf("%d large buffers in use, want %d", all, maxLarge)
	}
	for _, f := range back {
		f()
	}
	if n := s.inUse.Load() + first.large.Load(); n != 0 {
		t.Errorf("%d are in use after all were given back", n)
	}
}

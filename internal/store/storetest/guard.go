package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

// Guards share what they know.
type Guards interface {
	PushGuard(ctx context.Context, server string, c bailey.GuardChanges) error
	PullGuard(ctx context.Context, server string, since int64) (bailey.GuardChanges, int64, error)
	PruneGuard(ctx context.Context) error
}

func guards() []story {
	ban := func(w *world, id string, d time.Duration) bailey.Ban {
		return bailey.Ban{ID: id, Kind: "a", Prefix: "203.0.113.9/32", Until: w.clock.Now().Add(d), Repeated: 1}
	}
	pull := func(w *world, s Store, server string, since int64) (bailey.GuardChanges, int64) {
		c, rev, err := s.PullGuard(w.Context(), server, since)
		w.must(err)
		return c, rev
	}
	return []story{
		{"what one server's guard decides, the other learns, and a restart learns everything", func(w *world) {
			other := w.open(w.T, w.clock.Now)
			if c, rev := pull(w, w.Store, "one", 0); !c.Empty() || rev != 0 {
				w.Fatalf("at first there is %+v, change %d", c, rev)
			}
			hash := uint64(1<<63 + 7) // no database has such a number
			told := bailey.GuardChanges{
				Bans: []bailey.Ban{{
					ID: "ff", Kind: "p", Prefix: "203.0.113.9/32", Subject: "alice", Pair: true, Slowed: true, By: "root",
					Until: w.clock.Now().Add(time.Hour), Repeated: 3,
				}},
				Failures: []bailey.FailedAttempt{{Prefix: "203.0.113.9/32", Subject: hash, Name: "alice", At: w.clock.Now().Add(-time.Second)}},
				Knowns:   []bailey.KnownPair{{Prefix: "192.0.2.1/32", Subject: hash, Until: w.clock.Now().Add(30 * 24 * time.Hour)}},
			}
			w.must(w.PushGuard(w.Context(), "one", told))
			got, rev := pull(w, other, "two", 0)
			if d := cmp.Diff(told, got); d != "" {
				w.Errorf("the other server learns (-told +learned):\n%s", d)
			}
			if again, same := pull(w, other, "two", rev); !again.Empty() || same != rev {
				w.Errorf("it learns it twice: %+v, change %d after %d", again, same, rev)
			}
			// The server itself counted its failures when they happened, but
			// after a restart it has forgotten them.
			w.must(w.PushGuard(w.Context(), "one", bailey.GuardChanges{Failures: told.Failures}))
			if own, _ := pull(w, w.Store, "one", rev); len(own.Failures) != 0 {
				w.Errorf("a server is told its own failures: %+v", own.Failures)
			}
			if all, _ := pull(w, w.Store, "one", 0); len(all.Failures) != 2 || len(all.Bans) != 1 || len(all.Knowns) != 1 {
				w.Errorf("after a restart it learns %+v", all)
			}
		}},
		{"a lifted ban is told like one that was imposed", func(w *world) {
			b := ban(w, "a1", time.Hour)
			w.must(w.PushGuard(w.Context(), "one", bailey.GuardChanges{Bans: []bailey.Ban{b, ban(w, "a2", time.Hour)}}))
			_, rev := pull(w, w.Store, "two", 0)
			b.Until, b.Repeated = w.clock.Now(), 0
			w.must(w.PushGuard(w.Context(), "one", bailey.GuardChanges{Bans: []bailey.Ban{b}}))
			got, _ := pull(w, w.Store, "two", rev)
			if len(got.Bans) != 1 || got.Bans[0].ID != "a1" || got.Bans[0].Repeated != 0 {
				w.Errorf("the other learns %+v, want a1 lifted", got.Bans)
			}
		}},
		{"what has ended is forgotten in its time", func(w *world) {
			w.must(w.PushGuard(w.Context(), "one", bailey.GuardChanges{
				Bans:     []bailey.Ban{ban(w, "short", time.Minute), ban(w, "long", 48*time.Hour)},
				Failures: []bailey.FailedAttempt{{Prefix: "p", Subject: 1, At: w.clock.Now()}},
				Knowns:   []bailey.KnownPair{{Prefix: "p", Subject: 1, Until: w.clock.Now().Add(time.Hour)}},
			}))
			w.clock.move(2 * time.Hour)
			if c, _ := pull(w, w.Store, "two", 0); len(c.Failures)+len(c.Knowns) != 0 || len(c.Bans) != 2 {
				w.Errorf("two hours later: %+v, want the bans: how often one was imposed still matters", c)
			}
			w.must(w.PruneGuard(w.Context()))
			w.clock.move(25 * time.Hour)
			w.must(w.PruneGuard(w.Context()))
			if c, _ := pull(w, w.Store, "two", 0); len(c.Bans) != 1 || c.Bans[0].ID != "long" {
				w.Errorf("a day later: %+v, want the long ban alone", c.Bans)
			}
		}},
		{"two servers write at once and a reader misses nothing", func(w *world) {
			other := w.open(w.T, w.clock.Now)
			const each = 20
			var writers sync.WaitGroup
			for name, s := range map[string]Store{"one": w.Store, "two": other} {
				writers.Go(func() {
					for i := range each {
						if err := s.PushGuard(w.Context(), name, bailey.GuardChanges{Bans: []bailey.Ban{ban(w, fmt.Sprintf("%s%d", name, i), time.Hour)}}); err != nil {
							w.Errorf("push: %v", err)
						}
					}
				})
			}
			done := make(chan struct{})
			go func() { writers.Wait(); close(done) }()
			seen, rev := map[string]bool{}, int64(0)
			for ended := false; ; {
				c, r := pull(w, w.Store, "three", rev)
				for _, b := range c.Bans {
					seen[b.ID] = true
				}
				if rev = r; ended {
					break
				}
				select {
				case <-done:
					ended = true
				default:
				}
			}
			if len(seen) != 2*each {
				w.Errorf("the reader saw %d bans of %d", len(seen), 2*each)
			}
		}},
	}
}

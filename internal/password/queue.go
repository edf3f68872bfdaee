package password

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/baileyhq/bailey/internal/mutant"
)

const (
	maxQueue = 32 // hashes that wait in each lane
	maxSlots = 4  // hashes at a time on large machines: 100 sign-ins a second
)

// MaxWait is how long anybody waits for a hash.
const MaxWait = 2 * time.Second

// ErrBusy is returned to whoever is one too many.
var ErrBusy = errors.New("too many passwords are being checked")

// A Queue bounds the memory and the processor time that hashing takes: whoever
// is one too many is told to come again instead of being queued. Half of the
// processors may hash, so that those who are in already notice nothing of a
// crowd that guesses. There are two lanes: a crowd of strangers waits behind
// whoever has signed in from the same place before, and cannot fill their lane.
// All hashes that run at a time take [maxMemory] together, whoever made them. Its
// methods may be called concurrently.
type Queue struct {
	slots int
	// memory is in KiB. It is taken last, by those that have a slot, so a dear
	// hash waits for the few before it and no cheap one overtakes it.
	memory *semaphore.Weighted
	done   atomic.Int64

	mu      sync.Mutex // guards the rest
	running int
	lanes   [2][]chan struct{} // who waits, oldest first: known people, strangers; closed: it is their turn
}

// NewQueue returns a Queue that runs so many hashes at a time; 0 means as many as
// suit this machine.
func NewQueue(slots int) *Queue {
	if slots <= 0 {
		slots = min(max(runtime.GOMAXPROCS(0)/2, 1), maxSlots)
	}
	return &Queue{slots: slots, memory: semaphore.NewWeighted(maxMemory)}
}

// Do runs f, which takes so many KiB; known says that it is for somebody who has
// signed in from the same place before. It returns [ErrBusy] when too many wait
// already, or when it would take too long, or ctx's error; f has not run then.
func (q *Queue) Do(ctx context.Context, memory int64, known bool, f func()) error {
	if mutant.HashQueue {
		q.done.Add(1)
		f()
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err // select below would toss a coin
	}
	wait, cancel := context.WithTimeout(ctx, MaxWait)
	defer cancel()
	busy := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return ErrBusy
	}
	if !q.enter(wait, known) {
		return busy()
	}
	defer q.leave()
	memory = min(max(memory, 1), maxMemory)
	if q.memory.Acquire(wait, memory) != nil {
		return busy()
	}
	defer q.memory.Release(memory)
	q.done.Add(1)
	f()
	return nil
}

// enter waits for a slot and reports whether there was one.
func (q *Queue) enter(ctx context.Context, known bool) bool {
	lane := 1
	if known {
		lane = 0
	}
	q.mu.Lock()
	if q.running < q.slots {
		q.running++
		q.mu.Unlock()
		return true
	}
	if len(q.lanes[lane]) >= maxQueue {
		q.mu.Unlock()
		return false
	}
	turn := make(chan struct{})
	q.lanes[lane] = append(q.lanes[lane], turn)
	q.mu.Unlock()
	select {
	case <-turn:
		return true
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(q.lanes[lane], turn)
	if i >= 0 {
		q.lanes[lane] = slices.Delete(q.lanes[lane], i, i+1)
	}
	q.mu.Unlock()
	if i < 0 {
		q.leave() // it became our turn at this moment
	}
	return false
}

// leave gives the slot to whoever waits, known people first.
func (q *Queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for lane := range q.lanes {
		if len(q.lanes[lane]) > 0 {
			close(q.lanes[lane][0])
			q.lanes[lane] = slices.Delete(q.lanes[lane], 0, 1)
			return
		}
	}
	q.running--
}

// Done returns how many times Do ran something.
func (q *Queue) Done() int64 { return q.done.Load() }

// Slots returns how many run at a time.
func (q *Queue) Slots() int { return q.slots }

// Waiting returns how many may wait in each lane.
func (q *Queue) Waiting() int { return maxQueue }

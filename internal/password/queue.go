package password

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/baileyhq/bailey/internal/mutant"
)

const (
	maxQueue = 32 // hashes that wait
	maxSlots = 4  // hashes at a time on large machines: 100 sign-ins a second
)

// MaxWait is how long anybody waits for a hash.
const MaxWait = 2 * time.Second

// ErrBusy is returned to whoever is one too many.
var ErrBusy = errors.New("too many passwords are being checked")

// A Queue bounds the memory and the processor time that hashing takes: whoever
// is one too many is told to come again instead of being queued. All hashes
// that run at a time take [maxMemory] together, whoever made them. Its methods
// may be called concurrently.
type Queue struct {
	slots chan struct{} // one token for each hash that runs
	queue chan struct{} // one for each that runs or waits
	// memory is in KiB. It is taken last, by those that have a slot, so a dear
	// hash waits for the few before it and no cheap one overtakes it.
	memory *semaphore.Weighted
	done   atomic.Int64
}

// NewQueue returns a Queue for this machine.
func NewQueue() *Queue {
	n := min(max(runtime.GOMAXPROCS(0), 1), maxSlots)
	return &Queue{
		slots: make(chan struct{}, n), queue: make(chan struct{}, n+maxQueue),
		memory: semaphore.NewWeighted(maxMemory),
	}
}

// Do runs f, which takes so many KiB. It returns [ErrBusy] when too many wait
// already, or when it would take too long, or ctx's error; f has not run then.
func (q *Queue) Do(ctx context.Context, memory int64, f func()) error {
	if mutant.HashQueue {
		q.done.Add(1)
		f()
		return nil
	}
	select {
	case q.queue <- struct{}{}:
		defer func() { <-q.queue }()
	default:
		return ErrBusy
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
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-wait.Done():
		return busy()
	}
	memory = min(max(memory, 1), maxMemory)
	if q.memory.Acquire(wait, memory) != nil {
		return busy()
	}
	defer q.memory.Release(memory)
	q.done.Add(1)
	f()
	return nil
}

// Done returns how many times Do ran something.
func (q *Queue) Done() int64 { return q.done.Load() }

// Slots returns how many run at a time, and Waiting how many more may wait.
func (q *Queue) Slots() int { return cap(q.slots) }

// Waiting returns how many may wait.
func (q *Queue) Waiting() int { return maxQueue }

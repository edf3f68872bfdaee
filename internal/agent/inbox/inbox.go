// Package inbox holds the input of a process between the server and the process:
// no more of it than the protocol allows, and a count of what was taken.
package inbox

import (
	"sync"

	"github.com/baileyhq/bailey/internal/agent/wire"
)

// A Queue holds input between the server and the process: wire.Window bytes at
// most, those that are being written included.
type Queue struct {
	mu     sync.Mutex // guards the rest
	more   *sync.Cond
	data   []byte
	spare  []byte // what Take lends out, and will use again
	lent   int    // bytes of it that are not written yet
	own    int    // bytes of data that the server did not send
	closed bool
}

// New returns an empty Queue.
func New() *Queue {
	q := &Queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

// Put adds a piece. It reports false when there is more than the server may
// send.
func (q *Queue) Put(p []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.data)+q.lent+len(p) > wire.Window {
		return false
	}
	if !q.closed {
		q.data = append(q.data, p...)
		q.more.Signal()
	}
	return true
}

// Add adds a byte that the server did not send, and is not told of.
func (q *Queue) Add(b byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.data = append(q.data, b)
		q.own++
		q.more.Signal()
	}
}

// Take returns what has come, and how much of it the server sent, and waits for
// it; false is the end. What it returns is valid until Done is called.
func (q *Queue) Take() (data []byte, owed int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.closed {
		q.more.Wait()
	}
	if len(q.data) == 0 {
		return nil, 0, false
	}
	q.data, q.spare = q.spare[:0], q.data
	q.lent = len(q.spare)
	owed, q.own = q.lent-q.own, 0
	return q.spare, owed, true
}

// Done says that what Take returned was written.
func (q *Queue) Done() {
	q.mu.Lock()
	q.lent = 0
	q.mu.Unlock()
}

// Close says that nothing more comes.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.more.Signal()
	q.mu.Unlock()
}

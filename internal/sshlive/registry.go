package sshlive

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tail is how much of a terminal's output is kept for those who begin to
	// watch: about a screen and a half.
	tail = 16 << 10
	// behind is how many pieces a watcher may fall behind.
	behind = 256
)

// A Session is a session as a list shows it.
type Session struct {
	Meta
	Up, Down int64     // bytes into and out of the workspace so far
	Active   time.Time // when the last byte was carried; Started when none was
	Watched  int       // how many look on
}

// A Registry knows the sessions that are open now. The zero value is ready to
// use. Its methods may be called concurrently.
type Registry struct {
	mu   sync.Mutex // guards open
	open map[string]*Entry
}

// An Entry is one open session. Its methods may be called concurrently.
type Entry struct {
	meta     Meta
	registry *Registry
	kill     func(reason string)
	up, down atomic.Int64
	active   atomic.Int64 // nanoseconds since Started

	mu       sync.Mutex // guards the rest
	watchers map[*Watch]struct{}
	recent   []byte
	cols     int
	rows     int
	gone     bool
}

// Add enters a session. kill ends it and must not wait; it may be called more
// than once and after the end.
func (r *Registry) Add(m Meta, kill func(reason string)) *Entry {
	e := &Entry{meta: m, registry: r, kill: kill, cols: m.Cols, rows: m.Rows}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[string]*Entry{}
	}
	r.open[m.ID] = e
	return e
}

// List returns the open sessions, the newest first.
func (r *Registry) List() []Session {
	r.mu.Lock()
	list := make([]Session, 0, len(r.open))
	for _, e := range r.open {
		list = append(list, e.now())
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(b.Started.Compare(a.Started), strings.Compare(b.ID, a.ID))
	})
	return list
}

// Get returns an open session.
func (r *Registry) Get(id string) (Session, bool) {
	e := r.find(id)
	if e == nil {
		return Session{}, false
	}
	return e.now(), true
}

func (r *Registry) find(id string) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id]
}

// Kill ends a session, for a reason that the person in it reads. Ending a
// connection ends all that is in it. It reports whether there was one.
func (r *Registry) Kill(id, reason string) bool {
	e := r.find(id)
	if e == nil {
		return false
	}
	e.kill(reason)
	return true
}

// Watch begins to look on. It reports false when there is no such session.
func (r *Registry) Watch(id string) (*Watch, bool) {
	e := r.find(id)
	if e == nil {
		return nil, false
	}
	return e.watch()
}

func (e *Entry) now() Session {
	s := Session{Meta: e.meta, Up: e.up.Load(), Down: e.down.Load(), Active: e.meta.Started.Add(time.Duration(e.active.Load()))}
	e.mu.Lock()
	s.Watched, s.Cols, s.Rows = len(e.watchers), e.cols, e.rows
	e.mu.Unlock()
	return s
}

// Carried counts bytes into and out of the workspace.
func (e *Entry) Carried(up, down int) {
	if up > 0 {
		e.up.Add(int64(up))
	}
	if down > 0 {
		e.down.Add(int64(down))
	}
	e.active.Store(int64(time.Since(e.meta.Started)))
}

// Totals returns the bytes carried so far.
func (e *Entry) Totals() (up, down int64) { return e.up.Load(), e.down.Load() }

// Show passes on what the person in a terminal is shown, after the filter.
func (e *Entry) Show(p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(p) >= tail {
		e.recent = append(e.recent[:0], p[len(p)-tail:]...)
	} else {
		if over := len(e.recent) + len(p) - tail; over > 0 {
			e.recent = append(e.recent[:0], e.recent[over:]...)
		}
		e.recent = append(e.recent, p...)
	}
	if len(e.watchers) > 0 {
		e.tell(Piece{After: time.Since(e.meta.Started), Data: slices.Clone(p)})
	}
}

// Resized passes on the terminal's new size.
func (e *Entry) Resized(cols, rows int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cols, e.rows = cols, rows
	e.tell(Piece{After: time.Since(e.meta.Started), Cols: cols, Rows: rows})
}

// tell gives a piece to every watcher; one that is too slow loses it, and is
// told with the next it can take. The caller holds mu.
func (e *Entry) tell(p Piece) {
	for w := range e.watchers {
		p.Lost = w.lost
		select {
		case w.c <- p:
			w.lost = 0
		default:
			w.lost++
		}
	}
}

// Remove takes the session out of the registry: it has ended. Watchers'
// channels are closed. A second call does nothing.
func (e *Entry) Remove() {
	e.registry.mu.Lock()
	if e.registry.open[e.meta.ID] == e {
		delete(e.registry.open, e.meta.ID)
	}
	e.registry.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = true
	for w := range e.watchers {
		close(w.c)
	}
	e.watchers = nil
}

// A Piece is something that a watcher sees.
type Piece struct {
	After      time.Duration // since the session began
	Data       []byte        // output; empty when the size changed
	Cols, Rows int           // the new size, unless Data is there
	Lost       int           // how many pieces before it were lost: the watcher was too slow
}

// A Watch is somebody looking on.
type Watch struct {
	// C gives what happens from the beginning of the Watch on; the first piece
	// is the size, the second what the screen showed lately. It is closed when
	// the session ends, or by Close.
	C <-chan Piece

	c     chan Piece
	lost  int // guarded by the entry's mu
	entry *Entry
}

func (e *Entry) watch() (*Watch, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return nil, false
	}
	c := make(chan Piece, behind)
	w := &Watch{C: c, c: c, entry: e}
	after := time.Since(e.meta.Started)
	c <- Piece{After: after, Cols: e.cols, Rows: e.rows}
	if len(e.recent) > 0 {
		c <- Piece{After: after, Data: slices.Clone(e.recent)}
	}
	if e.watchers == nil {
		e.watchers = map[*Watch]struct{}{}
	}
	e.watchers[w] = struct{}{}
	return w, true
}

// Close ends the watching. It may be called more than once.
func (w *Watch) Close() {
	w.entry.mu.Lock()
	defer w.entry.mu.Unlock()
	if _, ok := w.entry.watchers[w]; ok {
		delete(w.entry.watchers, w)
		close(w.c)
	}
}

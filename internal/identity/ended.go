package identity

import (
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/mutant"
)

// Ended is closed when the session, token, SSH key or certificate (by its row
// id, Actor.Session) has ended: signed out, revoked, removed, account disabled,
// expired. Tunnels close on it.
// The release function must be called when the caller no longer waits.
//
// It is closed at once for a credential that this process does not know (any
// more); ask BySession, ByToken or SignInSSH first, then Ended. For actors without a
// credential, such as bailey itself, it is nil and never closed.
func (s *Service) Ended(actor bailey.Actor) (ended <-chan struct{}, release func()) {
	if actor.Session == "" {
		return nil, func() {}
	}
	w := s.waits.join(actor.Session, actor.UserID)
	// Look after joining: whatever ends from here on closes the channel.
	c, ok := s.live.last(actor.Session)
	if !ok || c.user.ID != actor.UserID || !c.good(s.cfg.Now(), s.cfg.SessionIdle) {
		s.waits.leave(w)
		over := make(chan struct{})
		close(over)
		return over, func() {}
	}
	s.waits.arm(w, c)
	return w.ended, sync.OnceFunc(func() { s.waits.leave(w) })
}

// placeEvery is how often it is asked whether somebody may still be where they
// are. It bounds how long a ban or a change of the allow-lists takes to end a
// stream.
const placeEvery = time.Second / 2

// Over is Ended for streams: it is closed, too, when nobody, or not this person,
// may come any more from where the actor came from.
func (s *Service) Over(actor bailey.Actor) (over <-chan struct{}, release func()) {
	ended, leave := s.Ended(actor)
	out, stop, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(placeEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if mutant.Places || s.Permitted(bailey.User{ID: actor.UserID, Name: actor.Name, Groups: actor.Groups}, actor.IP) == nil {
					continue
				}
			case <-ended:
			}
			close(out)
			return
		}
	}()
	return out, sync.OnceFunc(func() {
		close(stop)
		<-gone
		leave()
	})
}

// end closes the tunnels of one session or token and forgets it.
func (s *Service) end(id string) {
	s.live.forget(id)
	s.waits.end(id)
}

// endUser does so for all credentials of a user but except, which may be empty.
func (s *Service) endUser(userID, except string) {
	s.live.forgetUser(userID)
	s.waits.endUser(userID, except)
}

// waits holds those who wait for an end. There is one timer for each credential
// that somebody waits for, and none for the others.
type waits struct {
	now  func() time.Time
	idle time.Duration

	mu   sync.Mutex // guards all below, and the wait values
	byID map[string]*wait
}

// A wait is one credential that tunnels hang on.
type wait struct {
	id, userID string
	ended      chan struct{} // closed by whoever takes the wait out of byID
	waiting    int
	timer      *time.Timer
	idles      bool      // ends after a time without use
	seen       time.Time // last use
	expires    time.Time
}

func newWaits(now func() time.Time, idle time.Duration) *waits {
	return &waits{now: now, idle: idle, byID: map[string]*wait{}}
}

func (ws *waits) join(id, userID string) *wait {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.byID[id]
	if w == nil {
		w = &wait{id: id, userID: userID, ended: make(chan struct{})}
		ws.byID[id] = w
	}
	w.waiting++
	return w
}

func (ws *waits) leave(w *wait) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.waiting--; w.waiting == 0 && ws.byID[w.id] == w {
		w.stop()
		delete(ws.byID, w.id)
	}
}

func (w *wait) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// arm sets the timer to when the credential will end by itself.
func (ws *waits) arm(w *wait, c credential) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byID[w.id] != w {
		return
	}
	w.idles, w.expires = c.idles(), c.expires
	if c.seen.After(w.seen) {
		w.seen = c.seen
	}
	ws.set(w)
}

// set starts the timer anew. The caller holds mu.
func (ws *waits) set(w *wait) {
	left := w.expires.Sub(ws.now())
	if w.idles {
		left = min(left, ws.idle-ws.now().Sub(w.seen))
	}
	w.stop()
	if left <= 0 {
		ws.close(w)
		return
	}
	w.timer = time.AfterFunc(left, func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if ws.byID[w.id] == w {
			ws.set(w) // used since: later; otherwise now
		}
	})
}

// saw notes that the credential was used.
func (ws *waits) saw(id string, at time.Time) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byID[id]; w != nil && at.After(w.seen) {
		w.seen = at
	}
}

// close ends a wait. The caller holds mu.
func (ws *waits) close(w *wait) {
	w.stop()
	close(w.ended)
	delete(ws.byID, w.id)
}

func (ws *waits) end(id string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byID[id]; w != nil {
		ws.close(w)
	}
}

func (ws *waits) endUser(userID, except string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.byID {
		if w.userID == userID && w.id != except {
			ws.close(w)
		}
	}
}

package enginetest

import (
	"context"

	"github.com/baileyhq/bailey/internal/engine"
)

// watcher is one Watch: an endless queue, so that nothing is lost on the way to
// a slow reader.
type watcher struct {
	instance string
	queue    []engine.Event
	more     chan struct{} // has one when the queue is not empty
}

// Watch implements [engine.Engine]. Like Docker's, it begins with a "resync".
func (f *Fake) Watch(ctx context.Context) <-chan engine.Event {
	w := &watcher{instance: f.instance, more: make(chan struct{}, 1)}
	f.mu.Lock()
	f.calls["Watch"]++
	f.watchers[w] = true
	if !f.down {
		w.push(engine.Event{Action: "resync"})
	}
	f.mu.Unlock()
	out := make(chan engine.Event)
	go func() {
		defer close(out)
		defer f.forget(w)
		for {
			ev, ok := f.next(ctx, w)
			if !ok {
				return
			}
			select {
			case out <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (f *Fake) forget(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// next waits for the watcher's next event.
func (f *Fake) next(ctx context.Context, w *watcher) (engine.Event, bool) {
	for {
		f.mu.Lock()
		if len(w.queue) > 0 {
			ev := w.queue[0]
			w.queue = w.queue[1:]
			f.mu.Unlock()
			return ev, true
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return engine.Event{}, false
		case <-w.more:
		}
	}
}

// push queues an event; the daemon's mu is held.
func (w *watcher) push(ev engine.Event) {
	w.queue = append(w.queue, ev)
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// emit tells the watchers of the container's installation; mu is held.
func (f *Fake) emit(b *box, action string) {
	if f.down {
		return
	}
	if f.dropEvents > 0 {
		f.dropEvents--
		return
	}
	for w := range f.watchers {
		if w.instance == b.instance {
			w.push(engine.Event{Run: b.spec.Run, ID: b.status.ID, Action: action})
		}
	}
}

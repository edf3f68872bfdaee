package workspace

import (
	"context"
	"sync"
)

// locks is one lock per key. Waiting for one ends with the context. The zero
// value has none locked.
type locks struct {
	mu    sync.Mutex // guards byKey and users
	byKey map[string]*keyLock
}

type keyLock struct {
	slot  chan struct{} // holds one value while locked
	users int           // holders and waiters
}

// lock waits until key is free and takes it; unlock gives it back.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.byKey == nil {
		l.byKey = map[string]*keyLock{}
	}
	k := l.byKey[key]
	if k == nil {
		k = &keyLock{slot: make(chan struct{}, 1)}
		l.byKey[key] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.byKey, key)
		}
	}
	select {
	case k.slot <- struct{}{}:
		return func() { <-k.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// A notifier wakes those who wait for news under a key. The zero value is
// ready.
type notifier struct {
	mu    sync.Mutex // guards byKey
	byKey map[string]chan struct{}
}

// next returns a channel that is closed by the next tell. Ask for it before
// looking, so that nothing that happens in between is missed.
func (n *notifier) next(key string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byKey == nil {
		n.byKey = map[string]chan struct{}{}
	}
	c := n.byKey[key]
	if c == nil {
		c = make(chan struct{})
		n.byKey[key] = c
	}
	return c
}

// tell wakes everyone who waits under key.
func (n *notifier) tell(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.byKey[key]; c != nil {
		close(c)
		delete(n.byKey, key)
	}
}

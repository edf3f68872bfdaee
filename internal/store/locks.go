package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/baileyhq/bailey"
)

// A Lock says that one server may do what only one server may do: reconcile,
// for instance. It is held until ExpiresAt, and longer if it is renewed.
type Lock struct {
	Name      string
	Holder    string
	Epoch     int64 // grows with every acquisition, so that a former holder is told apart
	ExpiresAt time.Time
}

// AcquireLock takes the named lock for holder and ttl. Conflict when another
// holder has it and it has not expired. The same holder gets it again at once,
// under a new epoch: a restarted server fences off what is left of its former
// self.
func (s *Store) AcquireLock(ctx context.Context, name, holder string, ttl time.Duration) (Lock, error) {
	if name == "" || holder == "" || ttl <= 0 {
		return Lock{}, bailey.Errorf(bailey.Invalid, "a lock needs a name, a holder and a time")
	}
	var l Lock
	err := s.decide(ctx, "acquire lock "+name, func(ctx context.Context, r runner) error {
		now := s.clock()
		old, err := one(ctx, r, scanLock, lockColumns+`WHERE name = ?`, name)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			l = Lock{Name: name, Holder: holder, Epoch: 1, ExpiresAt: now.Add(ttl)}
			_, err = r.exec(ctx, `INSERT INTO locks (name, holder, epoch, expires_at) VALUES (?, ?, ?, ?)`,
				l.Name, l.Holder, l.Epoch, l.ExpiresAt)
			return err
		case err != nil:
			return err
		case old.Holder != "" && old.Holder != holder && now.Before(old.ExpiresAt):
			return bailey.Errorf(bailey.Conflict, "another server holds the lock %q", name)
		}
		l = Lock{Name: name, Holder: holder, Epoch: old.Epoch + 1, ExpiresAt: now.Add(ttl)}
		_, err = r.exec(ctx, `UPDATE locks SET holder = ?, epoch = ?, expires_at = ? WHERE name = ?`,
			l.Holder, l.Epoch, l.ExpiresAt, l.Name)
		return err
	})
	if err != nil {
		return Lock{}, err
	}
	return l, nil
}

// RenewLock prolongs a lock by ttl from now. Conflict when it has changed
// hands; a lock that expired and that nobody took is still its holder's.
func (s *Store) RenewLock(ctx context.Context, l Lock, ttl time.Duration) (Lock, error) {
	if ttl <= 0 {
		return Lock{}, bailey.Errorf(bailey.Invalid, "a lock needs a time")
	}
	err := s.decide(ctx, "renew lock "+l.Name, func(ctx context.Context, r runner) error {
		l.ExpiresAt = s.clock().Add(ttl)
		n, err := r.exec(ctx, `UPDATE locks SET expires_at = ? WHERE name = ? AND holder = ? AND epoch = ?`,
			l.ExpiresAt, l.Name, l.Holder, l.Epoch)
		if err == nil && n == 0 {
			err = lostLock(l)
		}
		return err
	})
	if err != nil {
		return Lock{}, err
	}
	return l, nil
}

// ReleaseLock gives a lock back, so that another server need not wait for it to
// expire. It changes nothing when the lock has changed hands.
func (s *Store) ReleaseLock(ctx context.Context, l Lock) error {
	return s.decide(ctx, "release lock "+l.Name, func(ctx context.Context, r runner) error {
		// The row stays: its epoch must go on growing.
		_, err := r.exec(ctx, `UPDATE locks SET holder = '', expires_at = 0 WHERE name = ? AND holder = ? AND epoch = ?`,
			l.Name, l.Holder, l.Epoch)
		return err
	})
}

// Fenced returns a view of the store whose every write fails with Conflict once
// l has changed hands: a server that slept through the expiry of its lock
// cannot undo what the next holder does. The check is part of the same
// transaction as the write.
func (s *Store) Fenced(l Lock) *Store {
	f := *s
	f.fence = &l
	return &f
}

// checkFence is the first thing in every transaction of a fenced Store.
func (s *Store) checkFence(ctx context.Context, r runner) error {
	if s.fence == nil {
		return nil
	}
	held, err := one(ctx, r, scanLock, lockColumns+`WHERE name = ?`, s.fence.Name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if held.Epoch != s.fence.Epoch || held.Holder != s.fence.Holder {
		return lostLock(*s.fence)
	}
	return nil
}

func lostLock(l Lock) error {
	return bailey.Errorf(bailey.Conflict, "the lock %q has gone to another server", l.Name)
}

const lockColumns = `SELECT name, holder, epoch, expires_at FROM locks `

func scanLock(row scanner) (l Lock, err error) {
	var expires int64
	err = row.Scan(&l.Name, &l.Holder, &l.Epoch, &expires)
	l.ExpiresAt = fromMicros(expires)
	return l, err
}

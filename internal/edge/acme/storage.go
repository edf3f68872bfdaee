package acme

import (
	"context"
	"crypto/rand"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/baileyhq/bailey"
)

// A Store keeps files sealed, and locks, for all servers on one database. The
// room store is one; see there for the contracts.
type Store interface {
	WriteFile(ctx context.Context, name string, content []byte) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	Files(ctx context.Context, name string) ([]bailey.StoredFile, error)
	RemoveFiles(ctx context.Context, name string) error

	// TakeLock takes a lock or fails with Conflict; keep prolongs it and free
	// gives it back.
	TakeLock(ctx context.Context, name, holder string, ttl time.Duration) (keep func(context.Context, time.Duration) error, free func(context.Context) error, err error)
}

const (
	lockLife = 2 * time.Minute // certmagic prolongs it while it works
	lockPoll = time.Second
)

// storage is certmagic's view of a Store. Every name gets a prefix, so that the
// table has room for others.
type storage struct {
	store Store

	mu    sync.Mutex // guards locks
	locks map[string]lock
}

type lock struct {
	keep func(context.Context, time.Duration) error
	free func(context.Context) error
}

const prefix = "acme/"

var (
	_ certmagic.Storage          = (*storage)(nil)
	_ certmagic.LockLeaseRenewer = (*storage)(nil)
)

func newStorage(s Store) *storage { return &storage{store: s, locks: map[string]lock{}} }

func absent(err error) error {
	if bailey.KindOf(err) == bailey.NotFound {
		return fs.ErrNotExist
	}
	return err
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	return s.store.WriteFile(ctx, prefix+key, value)
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	b, err := s.store.ReadFile(ctx, prefix+key)
	return b, absent(err)
}

func (s *storage) Delete(ctx context.Context, key string) error {
	return s.store.RemoveFiles(ctx, prefix+key)
}

func (s *storage) Exists(ctx context.Context, key string) bool {
	all, err := s.store.Files(ctx, prefix+key)
	return err == nil && len(all) > 0
}

func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	path = strings.Trim(path, "/")
	all, err := s.store.Files(ctx, strings.TrimSuffix(prefix+path, "/"))
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, f := range all {
		key := strings.TrimPrefix(f.Name, prefix)
		rest := strings.TrimPrefix(strings.TrimPrefix(key, path), "/")
		if rest == "" {
			continue // path is a file itself
		}
		parts := strings.Split(rest, "/")
		if !recursive {
			parts = parts[:1]
		}
		for n := range parts { // the folders on the way, and the file
			keys = append(keys, strings.Trim(path+"/"+strings.Join(parts[:n+1], "/"), "/"))
		}
	}
	if len(keys) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	all, err := s.store.Files(ctx, prefix+key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	if len(all) == 0 {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	if f := all[0]; f.Name == prefix+key {
		return certmagic.KeyInfo{Key: key, Modified: f.ModifiedAt, Size: f.Bytes, IsTerminal: true}, nil
	}
	return certmagic.KeyInfo{Key: key}, nil
}

// Lock waits until nobody has the lock. Each call is a holder of its own, so it
// excludes goroutines of one server as well as other servers.
func (s *storage) Lock(ctx context.Context, name string) error {
	holder := rand.Text()
	for {
		keep, free, err := s.store.TakeLock(ctx, prefix+name, holder, lockLife)
		if err == nil {
			s.mu.Lock()
			s.locks[name] = lock{keep: keep, free: free}
			s.mu.Unlock()
			return nil
		}
		if bailey.KindOf(err) != bailey.Conflict {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func (s *storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	l, ok := s.locks[name]
	delete(s.locks, name)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return l.free(context.WithoutCancel(ctx))
}

func (s *storage) RenewLockLease(ctx context.Context, name string, life time.Duration) error {
	s.mu.Lock()
	l, ok := s.locks[name]
	s.mu.Unlock()
	if !ok {
		return fs.ErrNotExist
	}
	return l.keep(ctx, life)
}

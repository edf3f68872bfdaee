// Package store keeps what must survive a restart: accounts, sessions, tokens,
// workspaces, volumes, runs, GPU leases, launch stages and named locks, in
// SQLite or in PostgreSQL. It is the only room that speaks SQL. It decides what
// has to be decided in one transaction (quotas, leases, uids, the last
// administrator) and leaves every other judgement to its callers.
package store

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// Config says where the state is and how it is sealed. Key is required, and
// either URL or Path.
type Config struct {
	// URL is "" (then Path holds), the path of an SQLite file, or a
	// "postgres://…" URL. It may hold a password: it is never logged.
	URL  string
	Path string           // the SQLite file when URL is empty
	Key  []byte           // 32 bytes; seals the secrets that must be read back: Jupyter's tokens
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger     // nil means silence
}

// A Store is an open database. Its methods may be called concurrently, also by
// several servers on one PostgreSQL. Failures that a stranger may read are
// *bailey.Error: NotFound, Conflict, OverQuota and Invalid as each method says,
// and Unavailable when the database itself cannot do its work now (disk full,
// read-only, too busy, not answering); then nothing was changed.
type Store struct {
	read  *sql.DB // SQLite: read-only connections; PostgreSQL: the same pool as write
	write *sql.DB // SQLite: one connection
	pg    bool
	seal  cipher.AEAD
	now   func() time.Time
	log   *slog.Logger
	fence *Lock // nil, or the lock that every write of this Store depends on
}

// Open opens the database, brings its schema up to date and proves that it can
// be written and that cfg.Key is the key it was sealed with. It fails with
// *bailey.Error, saying what to do, when the database is not usable: a newer
// program's schema, a wrong key, a read-only or full disk, a file that is no
// database, settings that did not take.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	aead, err := newSeal(cfg.Key)
	if err != nil {
		return nil, err
	}
	s := &Store{seal: aead, now: cfg.Now, log: cfg.Log}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}

	where := cfg.URL
	if where == "" {
		where = cfg.Path
	}
	switch {
	case where == "":
		return nil, errors.New("store: Config needs a URL or a Path")
	case strings.HasPrefix(where, "postgres://"), strings.HasPrefix(where, "postgresql://"):
		s.pg = true
		err = s.openPostgres(ctx, where)
	case strings.Contains(where, "://"):
		scheme, _, _ := strings.Cut(where, "://") // the rest may hold a password
		return nil, &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  fmt.Sprintf("the database URL begins with %q, which bailey does not know", scheme+"://"),
			Hint: "use postgres://USER:PASSWORD@HOST:PORT/DATABASE, or a file's path for SQLite",
		}
	default:
		err = s.openSQLite(ctx, where)
	}
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		return nil, errors.Join(fail("open the database", err), s.Close())
	}
	return s, nil
}

// prepare migrates the schema, and proves that it can be written to and that
// the key fits.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.decide(ctx, "prove that the database can be written", func(ctx context.Context, r runner) error {
		// A real write: a full or read-only disk shows now, not at a sign-in.
		if _, err := r.exec(ctx, `UPDATE counters SET value = value WHERE name = 'uid'`); err != nil {
			return err
		}
		return s.checkKey(ctx, r)
	})
}

// Close closes the database. No method may be called afterwards. It may be
// called more than once; a Store made by [Store.Fenced] shares its database and
// need not be closed.
func (s *Store) Close() error {
	// SQLite: the writer goes last, so that it can fold the journal back into
	// the file; a read-only connection could not.
	var err error
	if s.read != nil && s.read != s.write {
		err = s.read.Close()
	}
	if s.write != nil {
		err = errors.Join(err, s.write.Close())
	}
	if err != nil {
		return fmt.Errorf("store: close the database: %w", err)
	}
	return nil
}

// Ping asks the database for a row. It fails with kind Unavailable when there
// is no answer.
func (s *Store) Ping(ctx context.Context) error {
	_, err := one(ctx, s.reads(), scanInt, `SELECT value FROM counters WHERE name = 'uid'`)
	if err != nil {
		return &bailey.Error{
			Kind:  bailey.Unavailable,
			Msg:   "the database does not answer",
			Hint:  "an administrator looks at the server's log and at the database",
			Cause: fmt.Errorf("store: ping: %w", err),
		}
	}
	return nil
}

// Kind returns "sqlite" or "postgres".
func (s *Store) Kind() string {
	if s.pg {
		return "postgres"
	}
	return "sqlite"
}

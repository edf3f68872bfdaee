package store

import (
	"context"
	"database/sql"
)

// What tests need of the inside.

// Write returns the pool that writes.
func (s *Store) Write() *sql.DB { return s.write }

// Read returns the pool that reads.
func (s *Store) Read() *sql.DB { return s.read }

// Decide runs fn as the methods do.
func (s *Store) Decide(ctx context.Context, fn func(context.Context) error) error {
	return s.decide(ctx, "test", func(ctx context.Context, _ runner) error { return fn(ctx) })
}

// SealText and OpenText are sealText and openText.
func (s *Store) SealText(text, place string) string            { return s.sealText(text, place) }
func (s *Store) OpenText(sealed, place string) (string, error) { return s.openText(sealed, place) }

// AssertPragmas is what Open does with a pool.
func AssertPragmas(ctx context.Context, db *sql.DB, pragmas [][2]string) error {
	return assertPragmas(ctx, db, "test.db", pragmas)
}

// Pragmas are the settings that Open asserts.
func Pragmas(readOnly bool) [][2]string { return sqlitePragmas(readOnly) }

// Clean is clean.
func Clean(text string, limit int) string { return clean(text, limit) }

// Rebind is what a query becomes on PostgreSQL.
func Rebind(query string) string { return runner{pg: true}.text(query) }

// ErrSeal is errSeal.
var ErrSeal = errSeal

// MaxTries is how often a transaction is tried.
const MaxTries = maxTries

// VersionTable is where the schema's version stands.
const VersionTable = versionTable

package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

// Bounds of what strangers can write by failing. A ban takes several failures,
// and those are limited to some twenty a second; what is beyond these bounds
// makes room for what is newer.
const (
	keepFailures  = time.Hour
	keepBans      = 25 * time.Hour // after their end: the next one is longer
	maxGuardBans  = 1 << 16
	maxGuardKnows = 1 << 15
	maxGuardFails = 1 << 17
)

// PushGuard stores what a server's guard decided and saw, and makes it one
// change that [Store.PullGuard] tells the others. server is the name by which
// the server leaves out its own failures then.
func (s *Store) PushGuard(ctx context.Context, server string, c bailey.GuardChanges) error {
	if c.Empty() {
		return nil
	}
	return s.change(ctx, "store what guard decided", func(ctx context.Context, r runner) error {
		// First of all: this lock makes writers wait for each other, so that a
		// reader who has seen a number has seen all that are smaller.
		if _, err := r.exec(ctx, `UPDATE guard_state SET rev = rev + 1 WHERE id = 1`); err != nil {
			return err
		}
		rev, err := one(ctx, r, scanInt, `SELECT rev FROM guard_state WHERE id = 1`)
		if err != nil {
			return err
		}
		for _, b := range c.Bans {
			if _, err := r.exec(ctx, `INSERT INTO guard_bans (id, kind, prefix, subject, pair, slowed, imposed_by, until_at, repeated, rev)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, prefix = excluded.prefix, subject = excluded.subject,
					pair = excluded.pair, slowed = excluded.slowed, imposed_by = excluded.imposed_by,
					until_at = excluded.until_at, repeated = excluded.repeated, rev = excluded.rev`,
				b.ID, b.Kind, b.Prefix, clean(b.Subject, shortText), b.Pair, b.Slowed, clean(b.By, shortText), b.Until, b.Repeated, rev); err != nil {
				return err
			}
		}
		for _, f := range c.Failures {
			if _, err := r.exec(ctx, `INSERT INTO guard_failures (rev, server, prefix, subject, name, failed_at) VALUES (?, ?, ?, ?, ?, ?)`,
				rev, server, clean(f.Prefix, shortText), signed(f.Subject), clean(f.Name, shortText), f.At); err != nil {
				return err
			}
		}
		for _, k := range c.Knowns {
			if _, err := r.exec(ctx, `INSERT INTO guard_knowns (prefix, subject, until_at, rev) VALUES (?, ?, ?, ?)
				ON CONFLICT (prefix, subject) DO UPDATE SET until_at = excluded.until_at, rev = excluded.rev`,
				clean(k.Prefix, shortText), signed(k.Subject), k.Until, rev); err != nil {
				return err
			}
		}
		return nil
	})
}

// PullGuard returns what was pushed after the change numbered since, but the
// failures that server itself has pushed, and the number of the last change.
// With since 0 it returns all that still matters, the server's own failures
// too: what a start needs.
func (s *Store) PullGuard(ctx context.Context, server string, since int64) (c bailey.GuardChanges, rev int64, err error) {
	const doing = "read what guard decided"
	r := s.reads()
	if rev, err = one(ctx, r, scanInt, `SELECT rev FROM guard_state WHERE id = 1`); err != nil || rev <= since {
		return bailey.GuardChanges{}, max(rev, since), fail(doing, err)
	}
	if c.Bans, err = list(ctx, r, scanBan, `SELECT id, kind, prefix, subject, pair, slowed, imposed_by, until_at, repeated
		FROM guard_bans WHERE rev > ? AND rev <= ? ORDER BY rev, id`, since, rev); err != nil {
		return bailey.GuardChanges{}, since, fail(doing, err)
	}
	if c.Failures, err = list(ctx, r, scanFailure, `SELECT prefix, subject, name, failed_at
		FROM guard_failures WHERE rev > ? AND rev <= ? AND failed_at > ? AND (? = 0 OR server <> ?) ORDER BY failed_at`,
		since, rev, s.clock().Add(-keepFailures), since, server); err != nil {
		return bailey.GuardChanges{}, since, fail(doing, err)
	}
	if c.Knowns, err = list(ctx, r, scanKnown, `SELECT prefix, subject, until_at
		FROM guard_knowns WHERE rev > ? AND rev <= ? AND until_at > ? ORDER BY until_at`, since, rev, s.clock()); err != nil {
		return bailey.GuardChanges{}, since, fail(doing, err)
	}
	return c, rev, nil
}

// PruneGuard removes what no longer matters to anybody, and what is too much.
func (s *Store) PruneGuard(ctx context.Context) error {
	return s.change(ctx, "forget what guard decided", func(ctx context.Context, r runner) error {
		now := s.clock()
		for _, q := range []struct {
			sql string
			arg any
		}{
			{`DELETE FROM guard_failures WHERE failed_at <= ?`, now.Add(-keepFailures)},
			{`DELETE FROM guard_bans WHERE until_at <= ?`, now.Add(-keepBans)},
			{`DELETE FROM guard_knowns WHERE until_at <= ?`, now},
			{`DELETE FROM guard_failures WHERE failed_at < (SELECT failed_at FROM guard_failures ORDER BY failed_at DESC LIMIT 1 OFFSET ?)`, maxGuardFails},
			{`DELETE FROM guard_bans WHERE imposed_by = '' AND until_at < (SELECT until_at FROM guard_bans ORDER BY until_at DESC LIMIT 1 OFFSET ?)`, maxGuardBans},
			{`DELETE FROM guard_knowns WHERE until_at < (SELECT until_at FROM guard_knowns ORDER BY until_at DESC LIMIT 1 OFFSET ?)`, maxGuardKnows},
		} {
			if _, err := r.exec(ctx, q.sql, q.arg); err != nil {
				return err
			}
		}
		return nil
	})
}

func scanBan(row scanner) (bailey.Ban, error) {
	var b bailey.Ban
	var pair, slowed, until int64
	err := row.Scan(&b.ID, &b.Kind, &b.Prefix, &b.Subject, &pair, &slowed, &b.By, &until, &b.Repeated)
	b.Pair, b.Slowed, b.Until = pair != 0, slowed != 0, fromMicros(until)
	return b, err
}

func scanFailure(row scanner) (bailey.FailedAttempt, error) {
	var f bailey.FailedAttempt
	var subject, at int64
	err := row.Scan(&f.Prefix, &subject, &f.Name, &at)
	f.Subject, f.At = unsigned(subject), fromMicros(at)
	return f, err
}

func scanKnown(row scanner) (bailey.KnownPair, error) {
	var k bailey.KnownPair
	var subject, until int64
	err := row.Scan(&k.Prefix, &subject, &until)
	k.Subject, k.Until = unsigned(subject), fromMicros(until)
	return k, err
}

// signed and unsigned carry a hash through a database, which has no unsigned
// numbers.
func signed(n uint64) int64   { return int64(n) }  //nolint:gosec // the bits matter, not the number
func unsigned(n int64) uint64 { return uint64(n) } //nolint:gosec // the bits matter, not the number

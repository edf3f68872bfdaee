package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/baileyhq/bailey"
)

type setup struct {
	hash    string
	expires time.Time
}

func scanSetup(row scanner) (v setup, err error) {
	var expires int64
	err = row.Scan(&v.hash, &expires)
	v.expires = fromMicros(expires)
	return v, err
}

const setupColumns = `SELECT secret_hash, expires_at FROM setup WHERE id = 1`

// SetSetup stores the hash of a fresh one-time set-up secret; a former one is
// void. Invalid without hash or expiry.
func (s *Store) SetSetup(ctx context.Context, hash string, expires time.Time) error {
	if hash == "" || expires.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a set-up link needs a secret and an expiry")
	}
	return s.decide(ctx, "store set-up link", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO setup (id, secret_hash, expires_at) VALUES (1, ?, ?)
			ON CONFLICT (id) DO UPDATE SET secret_hash = excluded.secret_hash, expires_at = excluded.expires_at`, hash, expires)
		return err
	})
}

// Setup returns the hash and expiry of the pending set-up secret, also when it
// has expired; NotFound when none is pending.
func (s *Store) Setup(ctx context.Context) (hash string, expires time.Time, err error) {
	v, err := one(ctx, s.reads(), scanSetup, setupColumns)
	return v.hash, v.expires, fail("set-up link", found("set-up link", err))
}

// FinishSetup consumes the pending set-up secret and creates the first
// administrator, both or neither: of any number of people with the link, one
// becomes administrator. u's Role is taken to be admin. Conflict when the
// secret was consumed, replaced or has expired, or when any user exists.
func (s *Store) FinishSetup(ctx context.Context, hash string, u bailey.User, passwordHash string) (bailey.User, error) {
	u.Role, u.Disabled = bailey.RoleAdmin, false
	if err := checkUser(u); err != nil {
		return bailey.User{}, err
	}
	var made bailey.User
	err := s.decide(ctx, "finish set-up", func(ctx context.Context, r runner) error {
		users, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM users`)
		if err != nil {
			return err
		}
		if users > 0 {
			return setupOver("this installation is set up already", "sign in instead")
		}
		pending, err := one(ctx, r, scanSetup, setupColumns)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		const again = "an administrator of the machine restarts bailey: it prints a fresh link"
		if err != nil || hash == "" || pending.hash != hash {
			return setupOver("this set-up link is not valid, or was used already", again)
		}
		if !s.clock().Before(pending.expires) {
			return setupOver("this set-up link has expired", again)
		}
		if _, err := r.exec(ctx, `DELETE FROM setup WHERE id = 1`); err != nil {
			return err
		}
		made, err = s.insertUser(ctx, r, u, passwordHash)
		return err
	})
	if err != nil {
		return bailey.User{}, err
	}
	return made, nil
}

func setupOver(msg, hint string) error {
	return &bailey.Error{Kind: bailey.Conflict, Msg: msg, Hint: hint}
}

package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/baileyhq/bailey"
)

// keepExpired is how long the row of an expired session stays. It is long so
// that a clock that jumps ahead and back again signs nobody out.
const keepExpired = 30 * 24 * time.Hour

const sessionColumns = `SELECT s.id, s.user_id, s.ip, s.user_agent, s.created_at, s.seen_at, s.expires_at, s.auth_at, s.methods`

type sessionRow struct {
	bailey.Session
	created, seen, expires, auth int64
}

func (s *sessionRow) dest() []any {
	return []any{&s.ID, &s.UserID, &s.IP, &s.UserAgent, &s.created, &s.seen, &s.expires, &s.auth, &s.Methods}
}

func (s *sessionRow) session() bailey.Session {
	s.CreatedAt, s.SeenAt, s.ExpiresAt, s.AuthAt = fromMicros(s.created), fromMicros(s.seen), fromMicros(s.expires), fromMicros(s.auth)
	return s.Session
}

func scanSession(row scanner) (bailey.Session, error) {
	var s sessionRow
	err := row.Scan(s.dest()...)
	return s.session(), err
}

// withUser is what a credential's row and its user's row give together.
type withUser[T any] struct {
	row        T
	secretHash string
	user       bailey.User
}

const joinedUser = `, u.id, u.name, u.role, u.member_of, u.uid, u.disabled, u.created_at` + moreOfUser

// CreateSession stores a session under the hash of its secret. NotFound when
// there is no such user, Conflict when id or hash are taken, Invalid without an
// expiry. Rows of sessions that expired long ago are removed on the way.
func (s *Store) CreateSession(ctx context.Context, n bailey.Session, secretHash string) error {
	if n.ID == "" || secretHash == "" || n.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a session needs an id, a secret and an expiry")
	}
	return s.change(ctx, "create session", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM sessions WHERE expires_at <= ?`, s.clock().Add(-keepExpired))
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO sessions (id, user_id, secret_hash, ip, user_agent, created_at, seen_at, expires_at, auth_at, methods)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			n.ID, n.UserID, secretHash, clean(n.IP, shortText), clean(n.UserAgent, shortText), n.CreatedAt, n.SeenAt, n.ExpiresAt, n.AuthAt, n.Methods)
		return credentialError("session", err)
	})
}

// credentialError says what a refused session or token row means.
func credentialError(thing string, err error) error {
	switch {
	case isDangling(err):
		return found("user", sql.ErrNoRows)
	case isDuplicate(err):
		return bailey.Errorf(bailey.Conflict, "there is such a %s already", thing)
	}
	return err
}

// SessionByHash returns the session and its user, who may be disabled. NotFound
// when there is none or it has expired.
func (s *Store) SessionByHash(ctx context.Context, secretHash string) (bailey.Session, bailey.User, error) {
	scan := func(row scanner) (withUser[bailey.Session], error) {
		var ses sessionRow
		var u userRow
		if err := row.Scan(append(ses.dest(), u.dest()...)...); err != nil {
			return withUser[bailey.Session]{}, err
		}
		user, err := u.user()
		return withUser[bailey.Session]{row: ses.session(), user: user}, err
	}
	v, err := one(ctx, s.reads(), scan, sessionColumns+joinedUser+`
		FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.secret_hash = ? AND s.expires_at > ?`, secretHash, s.clock())
	return v.row, v.user, fail("session by hash", found("session", err))
}

// TouchSession moves SeenAt forward; it never moves it back. NotFound when
// there is no such session.
func (s *Store) TouchSession(ctx context.Context, id string, seen time.Time) error {
	return s.update(ctx, "touch session", "session",
		`UPDATE sessions SET seen_at = CASE WHEN seen_at < ? THEN ? ELSE seen_at END WHERE id = ?`, seen, seen, id)
}

// Sessions lists the user's sessions that have not expired, newest first.
func (s *Store) Sessions(ctx context.Context, userID string) ([]bailey.Session, error) {
	all, err := list(ctx, s.reads(), scanSession, sessionColumns+` FROM sessions s
		WHERE s.user_id = ? AND s.expires_at > ? ORDER BY s.created_at DESC, s.id DESC`, userID, s.clock())
	return all, fail("list sessions", err)
}

// DeleteSession ends one session of the user; NotFound when it is not theirs.
func (s *Store) DeleteSession(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete session", "session", `DELETE FROM sessions WHERE user_id = ? AND id = ?`, userID, id)
}

// DeleteSessions ends all sessions of the user but except, which may be empty.
func (s *Store) DeleteSessions(ctx context.Context, userID, except string) error {
	return s.change(ctx, "delete sessions", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM sessions WHERE user_id = ? AND id <> ?`, userID, except)
		return err
	})
}

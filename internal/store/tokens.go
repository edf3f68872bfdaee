package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

const tokenColumns = `SELECT t.id, t.user_id, t.note, t.scopes, t.workspaces, t.networks, t.parent_id, t.created_by,
	t.created_at, t.used_at, t.used_ip, t.expires_at, t.auth_at, t.methods`

type tokenRow struct {
	bailey.Token
	scopes, workspaces, networks string
	created, used, expires, auth int64
}

func (t *tokenRow) dest() []any {
	return []any{
		&t.ID, &t.UserID, &t.Note, &t.scopes, &t.workspaces, &t.networks, &t.ParentID, &t.CreatedBy,
		&t.created, &t.used, &t.UsedIP, &t.expires, &t.auth, &t.Methods,
	}
}

// token fails rather than give a token whose limits cannot be read.
func (t *tokenRow) token() (_ bailey.Token, err error) {
	t.CreatedAt, t.UsedAt, t.ExpiresAt, t.AuthAt = fromMicros(t.created), fromMicros(t.used), fromMicros(t.expires), fromMicros(t.auth)
	if t.Scopes, err = fromJSON[[]bailey.Scope](t.scopes); err != nil {
		return bailey.Token{}, err
	}
	if t.Workspaces, err = noneIsNil[string](t.workspaces); err != nil {
		return bailey.Token{}, err
	}
	t.Networks, err = noneIsNil[string](t.networks)
	return t.Token, err
}

func scanToken(row scanner) (bailey.Token, error) {
	var t tokenRow
	if err := row.Scan(t.dest()...); err != nil {
		return bailey.Token{}, err
	}
	return t.token()
}

// CreateToken stores an API token under the hash of its secret. Errors are
// those of [Store.CreateSession].
func (s *Store) CreateToken(ctx context.Context, t bailey.Token, secretHash string) error {
	if t.ID == "" || secretHash == "" || t.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a token needs an id, a secret and an expiry")
	}
	if len(t.Scopes) == 0 {
		return bailey.Errorf(bailey.Invalid, "a token needs a scope")
	}
	limits := make([]string, 3)
	for i, v := range []any{t.Scopes, append([]string{}, t.Workspaces...), append([]string{}, t.Networks...)} {
		text, err := toJSON(v)
		if err != nil {
			return fail("create token", err)
		}
		limits[i] = text
	}
	return s.change(ctx, "create token", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO tokens 
			(id, user_id, secret_hash, note, scopes, workspaces, networks, parent_id, created_by, created_at, used_at, used_ip, expires_at, auth_at, methods)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.UserID, secretHash, clean(t.Note, shortText), limits[0], limits[1], limits[2], t.ParentID, t.CreatedBy,
			t.CreatedAt, t.UsedAt, clean(t.UsedIP, shortText), t.ExpiresAt, t.AuthAt, t.Methods)
		return credentialError("token", err)
	})
}

// TokenByID returns the token, the hash of its secret for the caller to
// compare, and its user, who may be disabled. NotFound when there is none or it
// has expired.
func (s *Store) TokenByID(ctx context.Context, id string) (bailey.Token, string, bailey.User, error) {
	scan := func(row scanner) (v withUser[bailey.Token], err error) {
		var t tokenRow
		var u userRow
		dest := append(t.dest(), &v.secretHash)
		if err := row.Scan(append(dest, u.dest()...)...); err != nil {
			return v, err
		}
		if v.row, err = t.token(); err != nil {
			return v, err
		}
		v.user, err = u.user()
		return v, err
	}
	v, err := one(ctx, s.reads(), scan, tokenColumns+`, t.secret_hash`+joinedUser+`
		FROM tokens t JOIN users u ON u.id = t.user_id
		WHERE t.id = ? AND t.expires_at > ?`, id, s.clock())
	return v.row, v.secretHash, v.user, fail("token by id", found("token", err))
}

// TouchToken moves UsedAt forward and notes from where; it never moves it back.
// NotFound when there is no such token.
func (s *Store) TouchToken(ctx context.Context, id string, used time.Time, ip string) error {
	return s.update(ctx, "touch token", "token",
		`UPDATE tokens SET used_ip = CASE WHEN used_at < ? THEN ? ELSE used_ip END,
			used_at = CASE WHEN used_at < ? THEN ? ELSE used_at END WHERE id = ?`,
		used, clean(ip, shortText), used, used, id)
}

// Tokens lists the user's tokens, newest first, expired ones among them: their
// owner sees why a script stopped working.
func (s *Store) Tokens(ctx context.Context, userID string) ([]bailey.Token, error) {
	all, err := list(ctx, s.reads(), scanToken, tokenColumns+` FROM tokens t
		WHERE t.user_id = ? ORDER BY t.created_at DESC, t.id DESC`, userID)
	return all, fail("list tokens", err)
}

// DeleteToken voids one token of the user; NotFound when it is not theirs.
func (s *Store) DeleteToken(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete token", "token", `DELETE FROM tokens WHERE user_id = ? AND id = ?`, userID, id)
}

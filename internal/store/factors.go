package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/baileyhq/bailey"
)

const factorColumns = `SELECT id, user_id, kind, name, cloned, created_at, used_at FROM factors `

func scanFactor(row scanner) (f bailey.Factor, err error) {
	var cloned, created, used int64
	err = row.Scan(&f.ID, &f.UserID, &f.Kind, &f.Name, &cloned, &created, &used)
	f.Cloned, f.CreatedAt, f.UsedAt = cloned != 0, fromMicros(created), fromMicros(used)
	return f, err
}

// Factors lists the user's second factors, oldest first.
func (s *Store) Factors(ctx context.Context, userID string) ([]bailey.Factor, error) {
	all, err := list(ctx, s.reads(), scanFactor, factorColumns+`WHERE user_id = ? ORDER BY created_at, id`, userID)
	return all, fail("list factors", err)
}

// FactorByHandle returns the passkey with the handle; NotFound when there is none.
func (s *Store) FactorByHandle(ctx context.Context, handle string) (bailey.Factor, error) {
	f, err := one(ctx, s.reads(), scanFactor, factorColumns+`WHERE handle = ? AND handle <> ''`, handle)
	return f, fail("factor by handle", found("passkey", err))
}

// FactorSecret returns what was stored of a factor of the user: an app's secret
// or a passkey's public half. NotFound when it is not theirs.
func (s *Store) FactorSecret(ctx context.Context, userID, id string) (string, error) {
	sealed, err := one(ctx, s.reads(), scanText, `SELECT sealed FROM factors WHERE user_id = ? AND id = ?`, userID, id)
	if err != nil {
		return "", fail("factor's secret", found("factor", err))
	}
	text, err := s.openText(sealed, factorPlace(userID, id))
	return text, fail("factor's secret", err)
}

// factorPlace ties a sealed secret to its account: moved to another row, it
// does not open.
func factorPlace(userID, id string) string { return "factor " + userID + " " + id }

// AddFactor stores a factor with its secret. handle is a passkey's own id, step
// the last step of time whose code counted already. Conflict when another
// factor has the handle, OverQuota when the user would have more than most.
func (s *Store) AddFactor(ctx context.Context, f bailey.Factor, secret, handle string, step int64, most int) error {
	sealed := s.sealText(secret, factorPlace(f.UserID, f.ID))
	return s.decide(ctx, "store factor", func(ctx context.Context, r runner) error {
		n, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM factors WHERE user_id = ?`, f.UserID)
		if err != nil {
			return err
		}
		if n >= int64(most) {
			return &bailey.Error{Kind: bailey.OverQuota, Msg: "you have " + count(n, "second factor") + " already", Hint: "remove one first"}
		}
		_, err = r.exec(ctx, `INSERT INTO factors (id, user_id, kind, name, sealed, handle, last_step, cloned, created_at, used_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)`,
			f.ID, f.UserID, f.Kind, clean(f.Name, shortText), sealed, handle, step, f.CreatedAt, f.UsedAt)
		return credentialError("second factor", err)
	})
}

// UseStep takes a step of time for an app's codes. It reports false when a code
// of that step, or of a later one, counted before: of any number of people who
// have the same code, one gets in.
func (s *Store) UseStep(ctx context.Context, userID, id string, step int64, at time.Time) (first bool, err error) {
	var n int64
	err = s.change(ctx, "use code", func(ctx context.Context, r runner) (err error) {
		n, err = r.exec(ctx, `UPDATE factors SET last_step = ?, used_at = ? WHERE user_id = ? AND id = ? AND kind = 'totp' AND last_step < ?`,
			step, at, userID, id, step)
		return err
	})
	return n == 1 && err == nil, err
}

// UsePasskey stores what a passkey is after it was used. Once it looked cloned
// it stays so. NotFound when it is not the user's.
func (s *Store) UsePasskey(ctx context.Context, userID, id, credential string, cloned bool, at time.Time) error {
	return s.update(ctx, "use passkey", "passkey", `UPDATE factors SET sealed = ?, used_at = ?, cloned = CASE WHEN cloned = 1 THEN 1 ELSE ? END
		WHERE user_id = ? AND id = ? AND kind = 'passkey'`, s.sealText(credential, factorPlace(userID, id)), at, cloned, userID, id)
}

// RenameFactor gives a factor of the user another name; NotFound when it is not
// theirs.
func (s *Store) RenameFactor(ctx context.Context, userID, id, name string) error {
	return s.update(ctx, "rename factor", "factor", `UPDATE factors SET name = ? WHERE user_id = ? AND id = ?`, clean(name, shortText), userID, id)
}

// DeleteFactor removes a factor of the user; NotFound when it is not theirs.
func (s *Store) DeleteFactor(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete factor", "factor", `DELETE FROM factors WHERE user_id = ? AND id = ?`, userID, id)
}

// DeleteFactors removes all factors and recovery codes of the user.
func (s *Store) DeleteFactors(ctx context.Context, userID string) error {
	return s.change(ctx, "delete factors", func(ctx context.Context, r runner) error {
		for _, q := range []string{
			`DELETE FROM factors WHERE user_id = ?`, `DELETE FROM recovery_codes WHERE user_id = ?`,
			`UPDATE users SET factor_fails = 0 WHERE id = ?`,
		} {
			if _, err := r.exec(ctx, q, userID); err != nil {
				return err
			}
		}
		return nil
	})
}

// TryFactor counts a try at the user's second factor before it is made, so that
// tries made at once do not slip past together. It reports false, and counts
// nothing, when free tries in a row failed and the last was after since.
func (s *Store) TryFactor(ctx context.Context, userID string, free int, since, at time.Time) (allowed bool, err error) {
	var n int64
	err = s.change(ctx, "count try", func(ctx context.Context, r runner) (err error) {
		n, err = r.exec(ctx, `UPDATE users SET factor_fails = factor_fails + 1, factor_failed_at = ?
			WHERE id = ? AND (factor_fails < ? OR factor_failed_at <= ?)`, at, userID, free, since)
		return err
	})
	return n == 1 && err == nil, err
}

// ClearFactorTries forgets the failed tries: one was right.
func (s *Store) ClearFactorTries(ctx context.Context, userID string) error {
	return s.update(ctx, "forget tries", "user", `UPDATE users SET factor_fails = 0 WHERE id = ?`, userID)
}

// SetRecoveryCodes replaces the user's recovery codes, used ones among them.
func (s *Store) SetRecoveryCodes(ctx context.Context, userID string, hashes []string) error {
	return s.change(ctx, "store recovery codes", func(ctx context.Context, r runner) error {
		if _, err := r.exec(ctx, `DELETE FROM recovery_codes WHERE user_id = ?`, userID); err != nil {
			return err
		}
		for _, h := range hashes {
			if _, err := r.exec(ctx, `INSERT INTO recovery_codes (user_id, hash, used_at) VALUES (?, ?, 0)`, userID, h); err != nil {
				return credentialError("recovery code", err)
			}
		}
		return nil
	})
}

// UseRecoveryCode uses one up. It reports false when the user has no such code,
// or it was used before.
func (s *Store) UseRecoveryCode(ctx context.Context, userID, hash string, at time.Time) (first bool, err error) {
	var n int64
	err = s.change(ctx, "use recovery code", func(ctx context.Context, r runner) (err error) {
		n, err = r.exec(ctx, `UPDATE recovery_codes SET used_at = ? WHERE user_id = ? AND hash = ? AND used_at = 0`, at, userID, hash)
		return err
	})
	return n == 1 && err == nil, err
}

// RecoveryCodesLeft returns how many the user has that were not used.
func (s *Store) RecoveryCodesLeft(ctx context.Context, userID string) (int, error) {
	n, err := one(ctx, s.reads(), scanInt, `SELECT COUNT(*) FROM recovery_codes WHERE user_id = ? AND used_at = 0`, userID)
	return int(n), fail("count recovery codes", err)
}

const pendingColumns = `id, user_id, stored, methods, begun_by, external_id, sid, refresh_sealed, tries, created_at, expires_at`

func (s *Store) scanPending(row scanner) (p bailey.PendingSignIn, err error) {
	var sealed string
	var tries, created, expires int64
	err = row.Scan(&p.ID, &p.UserID, &p.Stored, &p.Methods, &p.Begin, &p.ExternalID, &p.SID, &sealed, &tries, &created, &expires)
	if err != nil {
		return p, err
	}
	p.Tries, p.CreatedAt, p.ExpiresAt = int(tries), fromMicros(created), fromMicros(expires)
	if sealed != "" {
		p.Refresh, err = s.openText(sealed, pendingPlace(p.ID))
	}
	return p, err
}

// pendingPlace ties a provider's token to the sign-in that it belongs to.
func pendingPlace(id string) string { return "refresh token of pending " + id }

// keepPending is how many unfinished sign-ins one user may have at a time.
const keepPending = 10

// CreatePending stores an unfinished sign-in under the hash of its secret. Of
// too many of one user the oldest go, and so do those that are over.
func (s *Store) CreatePending(ctx context.Context, p bailey.PendingSignIn, secretHash string) error {
	sealed := ""
	if p.Refresh != "" {
		sealed = s.sealText(p.Refresh, pendingPlace(p.ID))
	}
	return s.change(ctx, "store pending sign-in", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM pending_sign_ins WHERE expires_at <= ? OR user_id = ? AND id NOT IN
			(SELECT id FROM pending_sign_ins WHERE user_id = ? ORDER BY created_at DESC, id DESC LIMIT ?)`, s.clock(), p.UserID, p.UserID, keepPending-1)
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO pending_sign_ins
			(id, secret_hash, user_id, stored, methods, begun_by, external_id, sid, refresh_sealed, tries, created_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)`,
			p.ID, secretHash, p.UserID, p.Stored, p.Methods, p.Begin, p.ExternalID, clean(p.SID, shortText), sealed, p.CreatedAt, p.ExpiresAt)
		return credentialError("pending sign-in", err)
	})
}

// Pending returns an unfinished sign-in; NotFound when there is none or it is
// over.
func (s *Store) Pending(ctx context.Context, secretHash string) (bailey.PendingSignIn, error) {
	p, err := one(ctx, s.reads(), s.scanPending, `SELECT `+pendingColumns+` FROM pending_sign_ins WHERE secret_hash = ? AND expires_at > ?`, secretHash, s.clock())
	return p, fail("pending sign-in", found("pending sign-in", err))
}

// TryPending counts a try at its next step, before it is made. NotFound after
// most tries, as when it is over.
func (s *Store) TryPending(ctx context.Context, secretHash string, most int) (bailey.PendingSignIn, error) {
	var p bailey.PendingSignIn
	err := s.change(ctx, "try pending sign-in", func(ctx context.Context, r runner) (err error) {
		p, err = one(ctx, r, s.scanPending, `UPDATE pending_sign_ins SET tries = tries + 1 WHERE secret_hash = ? AND tries < ? AND expires_at > ? RETURNING `+pendingColumns,
			secretHash, most, s.clock())
		return found("pending sign-in", err)
	})
	return p, err
}

// AdvancePending stores what was proved and begins to count tries anew. Of two
// who do so at once from the same step, one gets NotFound.
func (s *Store) AdvancePending(ctx context.Context, secretHash, from, methods, stored string) error {
	return s.update(ctx, "advance pending sign-in", "pending sign-in",
		`UPDATE pending_sign_ins SET methods = ?, stored = ?, tries = 0 WHERE secret_hash = ? AND methods = ?`, methods, stored, secretHash, from)
}

// FinishPending takes an unfinished sign-in away: of two who finish it at once,
// one gets NotFound.
func (s *Store) FinishPending(ctx context.Context, secretHash string) error {
	return s.update(ctx, "finish pending sign-in", "pending sign-in", `DELETE FROM pending_sign_ins WHERE secret_hash = ?`, secretHash)
}

// DeletePending takes away all unfinished sign-ins of the user.
func (s *Store) DeletePending(ctx context.Context, userID string) error {
	return s.change(ctx, "delete pending sign-ins", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM pending_sign_ins WHERE user_id = ?`, userID)
		return err
	})
}

// DeletePendingBySID takes away the unfinished sign-ins that the issuer calls by
// this name.
func (s *Store) DeletePendingBySID(ctx context.Context, issuer, sid string) error {
	if sid == "" {
		return nil
	}
	return s.change(ctx, "delete pending sign-ins", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM pending_sign_ins WHERE sid = ? AND external_id IN (SELECT id FROM external_identities WHERE issuer = ?)`, sid, issuer)
		return err
	})
}

// PasswordSetAt returns when the user's password was set; zero when that was
// before it was kept. NotFound when there is no such user.
func (s *Store) PasswordSetAt(ctx context.Context, userID string) (time.Time, error) {
	at, err := one(ctx, s.reads(), scanInt, `SELECT password_at FROM users WHERE id = ?`, userID)
	return fromMicros(at), fail("age of password", found("user", err))
}

// RenewPasswordHash replaces the stored hash of the same password if it is
// still old; it reports whether it was.
func (s *Store) RenewPasswordHash(ctx context.Context, userID, old, fresh string) (bool, error) {
	var n int64
	err := s.change(ctx, "renew password hash", func(ctx context.Context, r runner) (err error) {
		n, err = r.exec(ctx, `UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?`, fresh, userID, old)
		return err
	})
	return n == 1 && err == nil, err
}

// ProveSession notes that the session's owner proved who they are; NotFound
// when there is no such session. ProveToken does so for a token.
func (s *Store) ProveSession(ctx context.Context, userID, id, methods string, at time.Time) error {
	return s.update(ctx, "prove session", "session", `UPDATE sessions SET auth_at = ?, methods = ? WHERE user_id = ? AND id = ?`, at, methods, userID, id)
}

// ProveToken notes that the token's owner proved who they are.
func (s *Store) ProveToken(ctx context.Context, userID, id, methods string, at time.Time) error {
	return s.update(ctx, "prove token", "token", `UPDATE tokens SET auth_at = ?, methods = ? WHERE user_id = ? AND id = ?`, at, methods, userID, id)
}

func scanNotice(row scanner) (n bailey.Notice, err error) {
	var at int64
	err = row.Scan(&n.ID, &n.UserID, &n.What, &n.Detail, &at)
	n.At = fromMicros(at)
	return n, err
}

// keepNotices is how many notices one user has at most; the oldest go.
const keepNotices = 50

// AddNotice tells the owner of an account something.
func (s *Store) AddNotice(ctx context.Context, n bailey.Notice) error {
	return s.change(ctx, "store notice", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM notices WHERE user_id = ? AND id NOT IN
			(SELECT id FROM notices WHERE user_id = ? ORDER BY at DESC, id DESC LIMIT ?)`, n.UserID, n.UserID, keepNotices-1)
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO notices (id, user_id, what, detail, at) VALUES (?, ?, ?, ?, ?)`, n.ID, n.UserID, n.What, clean(n.Detail, shortText), n.At)
		if isDangling(err) {
			return found("user", sql.ErrNoRows)
		}
		return err
	})
}

// Notices lists what the user was told and has not put away, newest first.
func (s *Store) Notices(ctx context.Context, userID string) ([]bailey.Notice, error) {
	all, err := list(ctx, s.reads(), scanNotice, `SELECT id, user_id, what, detail, at FROM notices WHERE user_id = ? ORDER BY at DESC, id DESC`, userID)
	return all, fail("list notices", err)
}

// DeleteNotices puts away what the user was told.
func (s *Store) DeleteNotices(ctx context.Context, userID string) error {
	return s.change(ctx, "delete notices", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM notices WHERE user_id = ?`, userID)
		return err
	})
}

package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

const externalColumns = `SELECT e.id, e.user_id, e.source, e.issuer, e.subject, e.login, e.given_role, e.given_groups, e.gone,
	e.created_at, e.signed_in_at, e.checked_at FROM external_identities e `

func scanExternal(row scanner) (e bailey.External, err error) {
	var groups string
	var created, signedIn, checked int64
	err = row.Scan(&e.ID, &e.UserID, &e.Source, &e.Issuer, &e.Subject, &e.Login, (*string)(&e.Role), &groups, &e.Gone, &created, &signedIn, &checked)
	if err != nil {
		return e, err
	}
	e.CreatedAt, e.SignedInAt, e.CheckedAt = fromMicros(created), fromMicros(signedIn), fromMicros(checked)
	e.Groups, err = fromJSON[[]string](groups)
	return e, err
}

// CreateExternalUser makes an account without a password and ties it to who
// they are elsewhere, both or neither. It returns both with what the store sets:
// ids, the numeric uid, CreatedAt. Conflict when the name is taken or the
// identity is somebody's already; other errors are those of [Store.CreateUser].
func (s *Store) CreateExternalUser(ctx context.Context, u bailey.User, e bailey.External) (bailey.User, bailey.External, error) {
	if err := checkUser(u); err != nil {
		return bailey.User{}, bailey.External{}, err
	}
	var user bailey.User
	var tie bailey.External
	err := s.decide(ctx, "create user from outside", func(ctx context.Context, r runner) (err error) {
		if user, err = s.insertUser(ctx, r, u, ""); err != nil {
			return err
		}
		e.UserID = user.ID
		tie, err = s.insertExternal(ctx, r, e)
		return err
	})
	if err != nil {
		return bailey.User{}, bailey.External{}, err
	}
	return user, tie, nil
}

func (s *Store) insertExternal(ctx context.Context, r runner, e bailey.External) (bailey.External, error) {
	if e.Issuer == "" || e.Subject == "" || e.Source == "" {
		return e, bailey.Errorf(bailey.Invalid, "an identity from outside has a source, an issuer and a subject")
	}
	groups, err := toJSON(e.Groups)
	if err != nil {
		return e, err
	}
	if e.Groups == nil {
		e.Groups = []string{}
	}
	e.ID, e.CreatedAt, e.Login = bailey.NewID(), s.clock(), clean(e.Login, shortText)
	e.SignedInAt, e.CheckedAt = fromMicros(micros(e.SignedInAt)), fromMicros(micros(e.CheckedAt))
	_, err = r.exec(ctx, `INSERT INTO external_identities
		(id, user_id, source, issuer, subject, login, given_role, given_groups, gone, created_at, signed_in_at, checked_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.ID, e.UserID, e.Source, e.Issuer, e.Subject, e.Login, e.Role, groups, e.Gone, e.CreatedAt, e.SignedInAt, e.CheckedAt)
	if isDuplicate(err) {
		return e, &bailey.Error{
			Kind: bailey.Conflict, Msg: "this company account belongs to an account here already",
			Hint: "an administrator takes it away from that account first (bailey admin user unlink)",
		}
	}
	return e, credentialError("identity", err)
}

// LinkExternal ties an account that exists to who they are elsewhere, and takes
// its password away: from then on the company decides. NotFound without such a
// user; Conflict when the identity is somebody's already, or when no enabled
// administrator with a password would be left for the day on which the company's
// directory does not answer.
func (s *Store) LinkExternal(ctx context.Context, e bailey.External) (bailey.External, error) {
	var tie bailey.External
	err := s.decide(ctx, "link account", func(ctx context.Context, r runner) error {
		u, err := one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, e.UserID)
		if err != nil {
			return found("user", err)
		}
		if isAdmin(u) {
			others, err := one(ctx, r, scanInt,
				`SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0 AND password_hash <> '' AND id <> ?`, u.ID)
			if err != nil {
				return err
			}
			if others == 0 {
				return &bailey.Error{
					Kind: bailey.Conflict, Msg: "this is the last enabled administrator with a password",
					Hint: "make another one first: somebody must get in when the company's directory does not answer",
				}
			}
		}
		if tie, err = s.insertExternal(ctx, r, e); err != nil {
			return err
		}
		_, err = r.exec(ctx, `UPDATE users SET password_hash = '' WHERE id = ?`, u.ID)
		return err
	})
	if err != nil {
		return bailey.External{}, err
	}
	return tie, nil
}

// ExternalBySubject returns the tie of whoever the subject means at the issuer;
// NotFound when nobody here is that.
func (s *Store) ExternalBySubject(ctx context.Context, issuer, subject string) (bailey.External, error) {
	e, err := one(ctx, s.reads(), scanExternal, externalColumns+`WHERE e.issuer = ? AND e.subject = ?`, issuer, subject)
	return e, fail("identity by subject", found("identity", err))
}

// Externals lists the ties of a user, oldest first.
func (s *Store) Externals(ctx context.Context, userID string) ([]bailey.External, error) {
	all, err := list(ctx, s.reads(), scanExternal, externalColumns+`WHERE e.user_id = ? ORDER BY e.created_at, e.id`, userID)
	return all, fail("list identities", err)
}

// ExternalsDue lists the ties of a source that it last vouched for before a
// time, longest ago first, at most limit; those that are gone already are not
// among them.
func (s *Store) ExternalsDue(ctx context.Context, source string, before time.Time, limit int) ([]bailey.External, error) {
	all, err := list(ctx, s.reads(), scanExternal, externalColumns+`WHERE e.source = ? AND e.checked_at < ? AND e.gone = ''
		ORDER BY e.checked_at, e.id LIMIT ?`, source, before, limit)
	return all, fail("list identities", err)
}

// UpdateExternal stores Source, Login, Role, Groups, Gone, SignedInAt and
// CheckedAt of the tie with e.ID; NotFound when there is none.
func (s *Store) UpdateExternal(ctx context.Context, e bailey.External) error {
	groups, err := toJSON(e.Groups)
	if err != nil {
		return fail("update identity", err)
	}
	return s.update(ctx, "update identity", "identity",
		`UPDATE external_identities SET source = ?, login = ?, given_role = ?, given_groups = ?, gone = ?, signed_in_at = ?, checked_at = ? WHERE id = ?`,
		e.Source, clean(e.Login, shortText), e.Role, groups, e.Gone, e.SignedInAt, e.CheckedAt, e.ID)
}

// DeleteExternal unties an identity of the user, with its sessions' origins;
// NotFound when it is not theirs.
func (s *Store) DeleteExternal(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete identity", "identity", `DELETE FROM external_identities WHERE user_id = ? AND id = ?`, userID, id)
}

const externalSessionColumns = `SELECT x.session_id, x.external_id, s.user_id, e.source, x.sid, x.refresh_sealed, x.checked_at
	FROM external_sessions x JOIN sessions s ON s.id = x.session_id JOIN external_identities e ON e.id = x.external_id `

func (s *Store) scanExternalSession(row scanner) (x bailey.ExternalSession, err error) {
	var sealed string
	var checked int64
	if err := row.Scan(&x.SessionID, &x.ExternalID, &x.UserID, &x.Source, &x.SID, &sealed, &checked); err != nil {
		return x, err
	}
	x.CheckedAt = fromMicros(checked)
	if sealed != "" {
		x.Refresh, err = s.openText(sealed, "refresh token of "+x.SessionID)
	}
	return x, err
}

func (s *Store) sealRefresh(x bailey.ExternalSession) string {
	if x.Refresh == "" {
		return ""
	}
	return s.sealText(x.Refresh, "refresh token of "+x.SessionID)
}

// CreateExternalSession notes where a session began. NotFound without the
// session or the identity.
func (s *Store) CreateExternalSession(ctx context.Context, x bailey.ExternalSession) error {
	return s.change(ctx, "create session from outside", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO external_sessions (session_id, external_id, sid, refresh_sealed, checked_at) VALUES (?, ?, ?, ?, ?)`,
			x.SessionID, x.ExternalID, x.SID, s.sealRefresh(x), x.CheckedAt)
		if isDangling(err) {
			return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such session"}
		}
		return credentialError("session", err)
	})
}

// ExternalSessionsDue lists the sessions of a source that have not expired and
// that it last vouched for before a time, at most limit.
func (s *Store) ExternalSessionsDue(ctx context.Context, source string, before time.Time, limit int) ([]bailey.ExternalSession, error) {
	all, err := list(ctx, s.reads(), s.scanExternalSession, externalSessionColumns+`WHERE e.source = ? AND x.checked_at < ? AND s.expires_at > ?
		ORDER BY x.checked_at, x.session_id LIMIT ?`, source, before, s.clock(), limit)
	return all, fail("list sessions from outside", err)
}

// ExternalSessionsOf lists the sessions of an identity that have not expired.
func (s *Store) ExternalSessionsOf(ctx context.Context, externalID string) ([]bailey.ExternalSession, error) {
	all, err := list(ctx, s.reads(), s.scanExternalSession, externalSessionColumns+`WHERE x.external_id = ? AND s.expires_at > ?
		ORDER BY x.session_id`, externalID, s.clock())
	return all, fail("list sessions from outside", err)
}

// ExternalSessionsBySID lists the sessions that the issuer calls by this name.
func (s *Store) ExternalSessionsBySID(ctx context.Context, issuer, sid string) ([]bailey.ExternalSession, error) {
	if sid == "" {
		return nil, nil
	}
	all, err := list(ctx, s.reads(), s.scanExternalSession, externalSessionColumns+`WHERE e.issuer = ? AND x.sid = ? AND s.expires_at > ?
		ORDER BY x.session_id`, issuer, sid, s.clock())
	return all, fail("list sessions from outside", err)
}

// UpdateExternalSession stores Refresh and CheckedAt; NotFound when the session
// has ended.
func (s *Store) UpdateExternalSession(ctx context.Context, x bailey.ExternalSession) error {
	return s.update(ctx, "update session from outside", "session",
		`UPDATE external_sessions SET refresh_sealed = ?, checked_at = ? WHERE session_id = ?`, s.sealRefresh(x), x.CheckedAt, x.SessionID)
}

// SeenOnce notes that something that may be used once was used, and reports
// whether that was the first time. It is remembered until the time.
func (s *Store) SeenOnce(ctx context.Context, kind, id string, until time.Time) (first bool, err error) {
	err = s.change(ctx, "note a use", func(ctx context.Context, r runner) error {
		if _, err := r.exec(ctx, `DELETE FROM external_seen WHERE expires_at <= ?`, s.clock()); err != nil {
			return err
		}
		n, err := r.exec(ctx, `INSERT INTO external_seen (kind, id, expires_at) VALUES (?, ?, ?) ON CONFLICT (kind, id) DO NOTHING`, kind, id, until)
		first = n == 1
		return err
	})
	return first && err == nil, err
}

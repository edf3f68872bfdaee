package store

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/baileyhq/bailey"
)

// Bounds of what a workspace can write by trying: of one user, this many
// requests are kept, and what was not tried for so long makes room. A program
// that asks for a million names fills nothing.
const (
	maxEgressRequests = 200
	keepEgress        = 90 * 24 * time.Hour
)

const requestColumns = `SELECT e.id, e.user_id, u.name, e.workspace_id, e.workspace_name, e.class, e.host, e.port, e.method,
	e.state, e.tries, e.first_at, e.last_at, e.decided_by, e.decided_at
	FROM egress_requests e JOIN users u ON u.id = e.user_id `

func scanRequest(row scanner) (bailey.EgressRequest, error) {
	var e bailey.EgressRequest
	var first, last, decided int64
	err := row.Scan(&e.ID, &e.UserID, &e.User, &e.WorkspaceID, &e.Workspace, &e.Class, &e.Host, &e.Port, &e.Method,
		(*string)(&e.State), &e.Count, &first, &last, &e.DecidedBy, &decided)
	e.FirstAt, e.LastAt, e.DecidedAt = fromMicros(first), fromMicros(last), fromMicros(decided)
	return e, err
}

// AskEgress records that a destination was refused r.Count times, the last time
// at r.LastAt (now, if it is zero), and returns the request as it is then. The
// same user, class, host and port are one request. One that was allowed and is
// refused later is open again, because its grant has ended; one that was denied
// stays denied. NotFound when there is no such user, Invalid without a host or
// a port.
func (s *Store) AskEgress(ctx context.Context, r bailey.EgressRequest) (bailey.EgressRequest, error) {
	if r.Host == "" || r.Port < 1 || r.Port > 65535 {
		return bailey.EgressRequest{}, bailey.Errorf(bailey.Invalid, "a request needs a host and a port")
	}
	var made bailey.EgressRequest
	err := s.change(ctx, "ask for egress", func(ctx context.Context, run runner) error {
		last := r.LastAt
		if last.IsZero() {
			last = s.clock()
		}
		if err := trimRequests(ctx, run, r, last); err != nil {
			return err
		}
		// Refused after the decision, not before it: what was counted before
		// may arrive later.
		const reopened = `(egress_requests.state = 'allowed' AND egress_requests.decided_at < excluded.last_at)`
		_, err := run.exec(ctx, `INSERT INTO egress_requests
			(id, user_id, workspace_id, workspace_name, class, host, port, method, state, tries, first_at, last_at, decided_by, decided_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', ?, ?, ?, '', 0)
			ON CONFLICT (user_id, class, host, port) DO UPDATE SET
				workspace_id = excluded.workspace_id, workspace_name = excluded.workspace_name, method = excluded.method,
				last_at = CASE WHEN egress_requests.last_at < excluded.last_at THEN excluded.last_at ELSE egress_requests.last_at END,
				tries = CASE WHEN `+reopened+` THEN 0 ELSE egress_requests.tries END + excluded.tries,
				first_at = CASE WHEN `+reopened+` THEN excluded.first_at ELSE egress_requests.first_at END,
				decided_by = CASE WHEN `+reopened+` THEN '' ELSE egress_requests.decided_by END,
				decided_at = CASE WHEN `+reopened+` THEN 0 ELSE egress_requests.decided_at END,
				state = CASE WHEN `+reopened+` THEN 'open' ELSE egress_requests.state END`,
			cmp.Or(r.ID, bailey.NewID()), r.UserID, r.WorkspaceID, clean(r.Workspace, shortText), r.Class, r.Host, r.Port, clean(r.Method, 40),
			max(r.Count, 1), last, last)
		if isDangling(err) {
			return found("user", sql.ErrNoRows)
		}
		if err != nil {
			return err
		}
		made, err = one(ctx, run, scanRequest, requestColumns+`WHERE e.user_id = ? AND e.class = ? AND e.host = ? AND e.port = ?`,
			r.UserID, r.Class, r.Host, r.Port)
		return err
	})
	return made, err
}

// trimRequests makes room for one more request of the user: what has not been
// tried for long goes, and the oldest of too many others.
func trimRequests(ctx context.Context, run runner, r bailey.EgressRequest, now time.Time) error {
	_, err := run.exec(ctx, `DELETE FROM egress_requests WHERE user_id = ? AND last_at < ?`, r.UserID, now.Add(-keepEgress))
	if err != nil {
		return err
	}
	_, err = run.exec(ctx, `DELETE FROM egress_requests WHERE id IN (
		SELECT id FROM egress_requests WHERE user_id = ? AND NOT (class = ? AND host = ? AND port = ?)
		ORDER BY last_at DESC, id DESC LIMIT 1000 OFFSET ?)`, r.UserID, r.Class, r.Host, r.Port, maxEgressRequests-1)
	return err
}

// EgressRequests lists requests, the last tried first: those of one user, or
// everybody's when userID is empty. At most 1,000.
func (s *Store) EgressRequests(ctx context.Context, userID string) ([]bailey.EgressRequest, error) {
	all, err := list(ctx, s.reads(), scanRequest, requestColumns+`WHERE (? = '' OR e.user_id = ?)
		ORDER BY e.last_at DESC, e.id DESC LIMIT 1000`, userID, userID)
	return all, fail("list egress requests", err)
}

// DecideEgress sets the state of a request, who decided it and when, and
// returns it; NotFound when there is none.
func (s *Store) DecideEgress(ctx context.Context, id string, state bailey.AskState, by string, at time.Time) (bailey.EgressRequest, error) {
	var made bailey.EgressRequest
	err := s.change(ctx, "decide an egress request", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `UPDATE egress_requests SET state = ?, decided_by = ?, decided_at = ? WHERE id = ?`, string(state), by, at, id)
		if err != nil {
			return err
		}
		made, err = one(ctx, r, scanRequest, requestColumns+`WHERE e.id = ?`, id)
		return found("request", err)
	})
	return made, err
}

// GrantEgress stores a grant, or replaces the one with its id. Invalid when it
// is not complete: every grant has an end, one for once a workspace and a user,
// one for a day a user.
func (s *Store) GrantEgress(ctx context.Context, g bailey.EgressGrant) error {
	switch {
	case g.ID == "" || !g.Scope.Valid() || g.Class == "" || g.Host == "" || g.Port < 1 || g.Port > 65535 || g.ExpiresAt.IsZero():
		return bailey.Errorf(bailey.Invalid, "a grant needs an id, a class, a host, a port, a scope and an end")
	case g.Scope != bailey.GrantClass && g.UserID == "", g.Scope == bailey.GrantOnce && g.WorkspaceID == "":
		return bailey.Errorf(bailey.Invalid, "a grant %q needs somebody whom it is for", string(g.Scope))
	}
	return s.change(ctx, "grant egress", func(ctx context.Context, r runner) error {
		// What has ended is of no use to anybody; the journal remembers it.
		_, err := r.exec(ctx, `DELETE FROM egress_grants WHERE expires_at <= ?`, s.clock())
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO egress_grants
			(id, request_id, scope, user_id, workspace_id, class, host, port, created_by, created_at, used_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET request_id = excluded.request_id, scope = excluded.scope, user_id = excluded.user_id,
				workspace_id = excluded.workspace_id, class = excluded.class, host = excluded.host, port = excluded.port,
				created_by = excluded.created_by, created_at = excluded.created_at, used_at = excluded.used_at, expires_at = excluded.expires_at`,
			g.ID, g.RequestID, string(g.Scope), g.UserID, g.WorkspaceID, g.Class, g.Host, g.Port, g.By, g.CreatedAt, g.UsedAt, g.ExpiresAt)
		return err
	})
}

// EgressGrants lists the grants that have not expired, oldest first. How long
// one for once holds after its first use is for the reader to say.
func (s *Store) EgressGrants(ctx context.Context) ([]bailey.EgressGrant, error) {
	scan := func(row scanner) (bailey.EgressGrant, error) {
		var g bailey.EgressGrant
		var created, used, expires int64
		err := row.Scan(&g.ID, &g.RequestID, (*string)(&g.Scope), &g.UserID, &g.User, &g.WorkspaceID, &g.Class, &g.Host, &g.Port,
			&g.By, &created, &used, &expires)
		g.CreatedAt, g.UsedAt, g.ExpiresAt = fromMicros(created), fromMicros(used), fromMicros(expires)
		return g, err
	}
	all, err := list(ctx, s.reads(), scan, `SELECT g.id, g.request_id, g.scope, g.user_id, COALESCE(u.name, ''), g.workspace_id,
		g.class, g.host, g.port, g.created_by, g.created_at, g.used_at, g.expires_at
		FROM egress_grants g LEFT JOIN users u ON u.id = g.user_id WHERE g.expires_at > ? ORDER BY g.created_at, g.id`, s.clock())
	return all, fail("list egress grants", err)
}

// RevokeEgress ends a grant; NotFound when there is none.
func (s *Store) RevokeEgress(ctx context.Context, id string) error {
	return s.update(ctx, "revoke an egress grant", "grant", `DELETE FROM egress_grants WHERE id = ?`, id)
}

package identitytest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// outside is what a MemStore knows of identities elsewhere. Its owner's mutex
// guards it.
type outside struct {
	ties     map[string]bailey.External
	sessions map[string]bailey.ExternalSession // by the session's id
	seen     map[[2]string]time.Time
}

func (o *outside) drop(userID string) {
	maps.DeleteFunc(o.ties, func(_ string, e bailey.External) bool { return e.UserID == userID })
}

func cloneTie(e bailey.External) bailey.External {
	e.Groups = append([]string{}, e.Groups...)
	return e
}

// CreateExternalUser implements [identity.ExternalStore].
func (m *MemStore) CreateExternalUser(_ context.Context, u bailey.User, e bailey.External) (bailey.User, bailey.External, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.tieFree(e); err != nil {
		return bailey.User{}, bailey.External{}, err
	}
	made, err := m.insert(u, "")
	if err != nil {
		return bailey.User{}, bailey.External{}, err
	}
	e.UserID = made.ID
	return made, m.tie(e), nil
}

func (m *MemStore) tieFree(e bailey.External) error {
	if e.Issuer == "" || e.Subject == "" || e.Source == "" {
		return bailey.Errorf(bailey.Invalid, "an identity from outside has a source, an issuer and a subject")
	}
	for _, other := range m.outside.ties {
		if other.Issuer == e.Issuer && other.Subject == e.Subject {
			return &bailey.Error{Kind: bailey.Conflict, Msg: "this company account belongs to an account here already"}
		}
	}
	return nil
}

func (m *MemStore) tie(e bailey.External) bailey.External {
	if m.outside.ties == nil {
		m.outside = outside{ties: map[string]bailey.External{}, sessions: map[string]bailey.ExternalSession{}, seen: map[[2]string]time.Time{}}
	}
	e = cloneTie(e)
	e.ID, e.CreatedAt, e.SignedInAt, e.CheckedAt = bailey.NewID(), m.now(), cutTime(e.SignedInAt), cutTime(e.CheckedAt)
	m.outside.ties[e.ID] = e
	return cloneTie(e)
}

// LinkExternal implements [identity.ExternalStore].
func (m *MemStore) LinkExternal(_ context.Context, e bailey.External) (bailey.External, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[e.UserID]
	if !ok {
		return bailey.External{}, missing("user")
	}
	if isAdmin(u.User) && !slices.ContainsFunc(slices.Collect(maps.Values(m.users)), func(o account) bool {
		return o.ID != u.ID && isAdmin(o.User) && o.hash != ""
	}) {
		return bailey.External{}, &bailey.Error{Kind: bailey.Conflict, Msg: "this is the last enabled administrator with a password"}
	}
	if err := m.tieFree(e); err != nil {
		return bailey.External{}, err
	}
	u.hash = ""
	m.users[u.ID] = u
	return m.tie(e), nil
}

// ExternalBySubject implements [identity.ExternalStore].
func (m *MemStore) ExternalBySubject(_ context.Context, issuer, subject string) (bailey.External, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.outside.ties {
		if e.Issuer == issuer && e.Subject == subject {
			return cloneTie(e), nil
		}
	}
	return bailey.External{}, missing("identity")
}

func (m *MemStore) tiesWhere(match func(bailey.External) bool, order func(a, b bailey.External) int) []bailey.External {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.External{}
	for _, e := range m.outside.ties {
		if match(e) {
			all = append(all, cloneTie(e))
		}
	}
	slices.SortFunc(all, order)
	return all
}

// Externals implements [identity.ExternalStore].
func (m *MemStore) Externals(_ context.Context, userID string) ([]bailey.External, error) {
	return m.tiesWhere(func(e bailey.External) bool { return e.UserID == userID }, func(a, b bailey.External) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	}), nil
}

// ExternalsDue implements [identity.ExternalStore].
func (m *MemStore) ExternalsDue(_ context.Context, source string, before time.Time, limit int) ([]bailey.External, error) {
	all := m.tiesWhere(func(e bailey.External) bool { return e.Source == source && e.Gone == "" && e.CheckedAt.Before(before) }, func(a, b bailey.External) int {
		return cmp.Or(a.CheckedAt.Compare(b.CheckedAt), strings.Compare(a.ID, b.ID))
	})
	return all[:min(limit, len(all))], nil
}

// UpdateExternal implements [identity.ExternalStore].
func (m *MemStore) UpdateExternal(_ context.Context, e bailey.External) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.outside.ties[e.ID]
	if !ok {
		return missing("identity")
	}
	e = cloneTie(e)
	e.UserID, e.Issuer, e.Subject, e.CreatedAt = old.UserID, old.Issuer, old.Subject, old.CreatedAt
	e.SignedInAt, e.CheckedAt = cutTime(e.SignedInAt), cutTime(e.CheckedAt)
	m.outside.ties[e.ID] = e
	return nil
}

// DeleteExternal implements [identity.ExternalStore].
func (m *MemStore) DeleteExternal(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.outside.ties[id]; !ok || e.UserID != userID {
		return missing("identity")
	}
	delete(m.outside.ties, id)
	return nil
}

// CreateExternalSession implements [identity.ExternalStore].
func (m *MemStore) CreateExternalSession(_ context.Context, x bailey.ExternalSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, tied := m.outside.ties[x.ExternalID]
	if _, ok := m.sessions[x.SessionID]; !ok || !tied {
		return missing("session")
	}
	if _, taken := m.outside.sessions[x.SessionID]; taken {
		return bailey.Errorf(bailey.Conflict, "there is such a session already")
	}
	x.CheckedAt = cutTime(x.CheckedAt)
	m.outside.sessions[x.SessionID] = x
	return nil
}

// sessionsWhere joins what the real store joins.
func (m *MemStore) sessionsWhere(match func(bailey.ExternalSession, bailey.External) bool) []bailey.ExternalSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.ExternalSession{}
	for id, x := range m.outside.sessions {
		s, ok := m.sessions[id]
		e, tied := m.outside.ties[x.ExternalID]
		if !ok || !tied || !m.now().Before(s.row.ExpiresAt) {
			continue
		}
		if x.UserID, x.Source = s.row.UserID, e.Source; match(x, e) {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b bailey.ExternalSession) int {
		return cmp.Or(a.CheckedAt.Compare(b.CheckedAt), strings.Compare(a.SessionID, b.SessionID))
	})
	return all
}

// ExternalSessionsDue implements [identity.ExternalStore].
func (m *MemStore) ExternalSessionsDue(_ context.Context, source string, before time.Time, limit int) ([]bailey.ExternalSession, error) {
	all := m.sessionsWhere(func(x bailey.ExternalSession, e bailey.External) bool {
		return e.Source == source && x.CheckedAt.Before(before)
	})
	return all[:min(limit, len(all))], nil
}

// ExternalSessionsOf implements [identity.ExternalStore].
func (m *MemStore) ExternalSessionsOf(_ context.Context, externalID string) ([]bailey.ExternalSession, error) {
	return m.sessionsWhere(func(x bailey.ExternalSession, _ bailey.External) bool { return x.ExternalID == externalID }), nil
}

// ExternalSessionsBySID implements [identity.ExternalStore].
func (m *MemStore) ExternalSessionsBySID(_ context.Context, issuer, sid string) ([]bailey.ExternalSession, error) {
	return m.sessionsWhere(func(x bailey.ExternalSession, e bailey.External) bool {
		return sid != "" && e.Issuer == issuer && x.SID == sid
	}), nil
}

// UpdateExternalSession implements [identity.ExternalStore].
func (m *MemStore) UpdateExternalSession(_ context.Context, x bailey.ExternalSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.outside.sessions[x.SessionID]
	if _, alive := m.sessions[x.SessionID]; !ok || !alive {
		return missing("session")
	}
	old.Refresh, old.CheckedAt = x.Refresh, cutTime(x.CheckedAt)
	m.outside.sessions[x.SessionID] = old
	return nil
}

// SeenOnce implements [identity.ExternalStore].
func (m *MemStore) SeenOnce(_ context.Context, kind, id string, until time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outside.seen == nil {
		m.outside.seen = map[[2]string]time.Time{}
	}
	key := [2]string{kind, id}
	if end, ok := m.outside.seen[key]; ok && m.now().Before(end) {
		return false, nil
	}
	m.outside.seen[key] = cutTime(until)
	return true, nil
}

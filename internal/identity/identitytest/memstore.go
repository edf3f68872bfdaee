package identitytest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

var _ identity.Store = (*MemStore)(nil)

// A MemStore keeps accounts in memory and behaves like the real store: the same
// kinds of error, times cut to microseconds, nothing shared with its callers.
// It may be used concurrently.
type MemStore struct {
	Now func() time.Time // set before use; nil means time.Now

	mu       sync.Mutex // guards all below
	uid      int
	users    map[string]account // by id
	sessions map[string]stored[bailey.Session]
	tokens   map[string]stored[bailey.Token]
	devices  map[string]device // by id
	ssh      sshRows
	setup    string // hash; empty: none pending
	setupEnd time.Time
	reads    int
	touches  int
	book     factorBook

	outside outside // see external.go
}

type account struct {
	bailey.User
	hash string
}

type stored[T any] struct {
	row  T
	hash string
}

// NewMemStore returns an empty store.
func NewMemStore() *MemStore {
	return &MemStore{
		uid: 20000, users: map[string]account{},
		sessions: map[string]stored[bailey.Session]{}, tokens: map[string]stored[bailey.Token]{},
		devices: map[string]device{},
		ssh:     newSSHRows(),
		book:    newFactorBook(),
	}
}

func (m *MemStore) now() time.Time {
	if m.Now != nil {
		return cutTime(m.Now())
	}
	return cutTime(time.Now())
}

func cutTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func missing(thing string) error {
	return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such " + thing}
}

// Reads returns how often a session or token was looked up, Touches how often
// a last use was stored.
func (m *MemStore) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// Touches returns how often a last use was stored.
func (m *MemStore) Touches() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.touches
}

func clone(u bailey.User) bailey.User {
	u.Groups = append([]string{}, u.Groups...)
	u.Manages = slices.Clone(u.Manages)
	return u
}

// CreateUser implements [identity.Store].
func (m *MemStore) CreateUser(_ context.Context, u bailey.User, passwordHash string) (bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.insert(u, passwordHash)
}

func (m *MemStore) insert(u bailey.User, passwordHash string) (bailey.User, error) {
	if !u.Role.Valid() {
		return bailey.User{}, bailey.Errorf(bailey.Invalid, "there is no role %q", u.Role)
	}
	if err := bailey.CheckName("user", u.Name); err != nil {
		return bailey.User{}, err
	}
	if _, err := m.byName(u.Name); err == nil {
		return bailey.User{}, &bailey.Error{
			Kind: bailey.Conflict, Msg: "there is a user " + u.Name + " already", Hint: "choose another name",
		}
	}
	if m.uid > 59999 {
		return bailey.User{}, bailey.Errorf(bailey.OverQuota, "every numeric uid from 20000 to 59999 has been given out")
	}
	u = clone(u)
	u.ID, u.UID, u.CreatedAt = bailey.NewID(), m.uid, m.now()
	m.uid++
	m.users[u.ID] = account{u, passwordHash}
	m.book.passAt[u.ID] = u.CreatedAt
	return clone(u), nil
}

func (m *MemStore) byName(name string) (account, error) {
	for _, u := range m.users {
		if u.Name == name {
			return u, nil
		}
	}
	return account{}, missing("user")
}

// UserByID implements [identity.Store].
func (m *MemStore) UserByID(_ context.Context, id string) (bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[id]
	if !ok {
		return bailey.User{}, missing("user")
	}
	return clone(u.User), nil
}

// UserByName implements [identity.Store].
func (m *MemStore) UserByName(_ context.Context, name string) (bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.byName(name)
	if err != nil {
		return bailey.User{}, err
	}
	return clone(u.User), nil
}

// Users implements [identity.Store].
func (m *MemStore) Users(context.Context) ([]bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.User{}
	for _, u := range m.users {
		all = append(all, clone(u.User))
	}
	slices.SortFunc(all, func(a, b bailey.User) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// CountUsers implements [identity.Store].
func (m *MemStore) CountUsers(context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.users), nil
}

// UpdateUser implements [identity.Store].
func (m *MemStore) UpdateUser(_ context.Context, u bailey.User) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !u.Role.Valid() {
		return bailey.Errorf(bailey.Invalid, "there is no role %q", u.Role)
	}
	old, ok := m.users[u.ID]
	if !ok {
		return missing("user")
	}
	if isAdmin(old.User) && !isAdmin(u) {
		if err := m.keepAdmin(u.ID); err != nil {
			return err
		}
	}
	old.Role, old.Groups, old.Disabled = u.Role, append([]string{}, u.Groups...), u.Disabled
	m.users[u.ID] = old
	return nil
}

func isAdmin(u bailey.User) bool { return u.Role == bailey.RoleAdmin && !u.Disabled && !u.Service }

func (m *MemStore) keepAdmin(id string) error {
	for _, u := range m.users {
		if u.ID != id && isAdmin(u.User) {
			return nil
		}
	}
	return &bailey.Error{
		Kind: bailey.Conflict, Msg: "this is the last enabled administrator", Hint: "make somebody else an administrator first",
	}
}

// DeleteUser implements [identity.Store]. Users here have no workspaces.
func (m *MemStore) DeleteUser(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[id]
	if !ok {
		return missing("user")
	}
	if isAdmin(u.User) {
		if err := m.keepAdmin(id); err != nil {
			return err
		}
	}
	delete(m.users, id)
	m.dropDevices(id)
	drop(m.sessions, func(s bailey.Session) bool { return s.UserID == id })
	drop(m.tokens, func(t bailey.Token) bool { return t.UserID == id })
	m.ssh.forget(id)
	m.book.forget(id)
	m.outside.drop(id)
	return nil
}

// drop deletes the rows that match and returns how many there were.
func drop[T any](rows map[string]stored[T], match func(T) bool) int {
	n := 0
	for id, s := range rows {
		if match(s.row) {
			delete(rows, id)
			n++
		}
	}
	return n
}

// PasswordHash implements [identity.Store].
func (m *MemStore) PasswordHash(_ context.Context, userID string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[userID]
	if !ok {
		return "", missing("user")
	}
	return u.hash, nil
}

// PasswordHashesUnlike implements [identity.Store].
func (m *MemStore) PasswordHashesUnlike(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []string{}
	for _, u := range m.users {
		if !u.Service && !strings.HasPrefix(u.hash, prefix) && !slices.Contains(all, u.hash) {
			all = append(all, u.hash)
		}
	}
	return all, nil
}

// SetPasswordHash implements [identity.Store].
func (m *MemStore) SetPasswordHash(_ context.Context, userID, hash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[userID]
	if !ok || u.Service {
		return missing("user")
	}
	u.hash = hash
	m.users[userID] = u
	m.book.passAt[userID] = m.now()
	return nil
}

// insertRow stores a session or token of an existing user under a new id and
// hash.
func insertRow[T any](m *MemStore, rows map[string]stored[T], thing, id, userID, hash string, row T) error {
	if _, ok := m.users[userID]; !ok {
		return missing("user")
	}
	for other, s := range rows {
		if other == id || s.hash == hash {
			return bailey.Errorf(bailey.Conflict, "there is such a %s already", thing)
		}
	}
	rows[id] = stored[T]{row, hash}
	return nil
}

// CreateSession implements [identity.Store].
func (m *MemStore) CreateSession(_ context.Context, s bailey.Session, secretHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.ID == "" || secretHash == "" || s.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a session needs an id, a secret and an expiry")
	}
	s.CreatedAt, s.SeenAt, s.ExpiresAt, s.AuthAt = cutTime(s.CreatedAt), cutTime(s.SeenAt), cutTime(s.ExpiresAt), cutTime(s.AuthAt)
	return insertRow(m, m.sessions, "session", s.ID, s.UserID, secretHash, s)
}

// SessionByHash implements [identity.Store].
func (m *MemStore) SessionByHash(_ context.Context, secretHash string) (bailey.Session, bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	for _, s := range m.sessions {
		if s.hash == secretHash && m.now().Before(s.row.ExpiresAt) {
			return s.row, clone(m.users[s.row.UserID].User), nil
		}
	}
	return bailey.Session{}, bailey.User{}, missing("session")
}

// TouchSession implements [identity.Store].
func (m *MemStore) TouchSession(_ context.Context, id string, seen time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return missing("session")
	}
	m.touches++
	if seen = cutTime(seen); seen.After(s.row.SeenAt) {
		s.row.SeenAt = seen
		m.sessions[id] = s
	}
	return nil
}

// Sessions implements [identity.Store].
func (m *MemStore) Sessions(_ context.Context, userID string) ([]bailey.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	all := []bailey.Session{}
	for _, s := range m.sessions {
		if s.row.UserID == userID && m.now().Before(s.row.ExpiresAt) {
			all = append(all, s.row)
		}
	}
	slices.SortFunc(all, func(a, b bailey.Session) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return all, nil
}

// DeleteSession implements [identity.Store].
func (m *MemStore) DeleteSession(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if drop(m.sessions, func(s bailey.Session) bool { return s.UserID == userID && s.ID == id }) == 0 {
		return missing("session")
	}
	return nil
}

// DeleteSessions implements [identity.Store].
func (m *MemStore) DeleteSessions(_ context.Context, userID, except string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	drop(m.sessions, func(s bailey.Session) bool { return s.UserID == userID && s.ID != except })
	return nil
}

// CreateToken implements [identity.Store].
func (m *MemStore) CreateToken(_ context.Context, t bailey.Token, secretHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.ID == "" || secretHash == "" || t.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a token needs an id, a secret and an expiry")
	}
	if len(t.Scopes) == 0 {
		return bailey.Errorf(bailey.Invalid, "a token needs a scope")
	}
	t.Scopes, t.Workspaces, t.Networks = slices.Clone(t.Scopes), slices.Clone(t.Workspaces), slices.Clone(t.Networks)
	t.CreatedAt, t.UsedAt, t.ExpiresAt, t.AuthAt = cutTime(t.CreatedAt), cutTime(t.UsedAt), cutTime(t.ExpiresAt), cutTime(t.AuthAt)
	return insertRow(m, m.tokens, "token", t.ID, t.UserID, secretHash, t)
}

// TokenByID implements [identity.Store].
func (m *MemStore) TokenByID(_ context.Context, id string) (bailey.Token, string, bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	t, ok := m.tokens[id]
	if !ok || !m.now().Before(t.row.ExpiresAt) {
		return bailey.Token{}, "", bailey.User{}, missing("token")
	}
	return t.row, t.hash, clone(m.users[t.row.UserID].User), nil
}

// TouchToken implements [identity.Store].
func (m *MemStore) TouchToken(_ context.Context, id string, used time.Time, ip string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tokens[id]
	if !ok {
		return missing("token")
	}
	m.touches++
	if used = cutTime(used); used.After(t.row.UsedAt) {
		t.row.UsedAt, t.row.UsedIP = used, ip
		m.tokens[id] = t
	}
	return nil
}

// Tokens implements [identity.Store]. Expired ones are among them.
func (m *MemStore) Tokens(_ context.Context, userID string) ([]bailey.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.Token{}
	for _, t := range m.tokens {
		if t.row.UserID == userID {
			all = append(all, t.row)
		}
	}
	slices.SortFunc(all, func(a, b bailey.Token) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return all, nil
}

// DeleteToken implements [identity.Store].
func (m *MemStore) DeleteToken(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if drop(m.tokens, func(t bailey.Token) bool { return t.UserID == userID && t.ID == id }) == 0 {
		return missing("token")
	}
	return nil
}

// SetSetup implements [identity.Store].
func (m *MemStore) SetSetup(_ context.Context, hash string, expires time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if hash == "" || expires.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a set-up link needs a secret and an expiry")
	}
	m.setup, m.setupEnd = hash, cutTime(expires)
	return nil
}

// Setup implements [identity.Store].
func (m *MemStore) Setup(context.Context) (hash string, expires time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.setup == "" {
		return "", time.Time{}, missing("set-up link")
	}
	return m.setup, m.setupEnd, nil
}

// FinishSetup implements [identity.Store].
func (m *MemStore) FinishSetup(_ context.Context, hash string, u bailey.User, passwordHash string) (bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const again = "an administrator of the machine restarts bailey: it prints a fresh link"
	switch {
	case len(m.users) > 0:
		return bailey.User{}, &bailey.Error{Kind: bailey.Conflict, Msg: "this installation is set up already", Hint: "sign in instead"}
	case m.setup == "" || m.setup != hash:
		return bailey.User{}, &bailey.Error{Kind: bailey.Conflict, Msg: "this set-up link is not valid, or was used already", Hint: again}
	case !m.now().Before(m.setupEnd):
		return bailey.User{}, &bailey.Error{Kind: bailey.Conflict, Msg: "this set-up link has expired", Hint: again}
	}
	u.Role, u.Disabled = bailey.RoleAdmin, false
	made, err := m.insert(u, passwordHash)
	if err == nil {
		m.setup = ""
	}
	return made, err
}

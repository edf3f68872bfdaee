package identitytest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// factorBook is the part of a MemStore that is about second factors.
type factorBook struct {
	factors  map[string]memFactor            // by id
	codes    map[string]bool                 // by user and hash; true when used
	pending  map[string]bailey.PendingSignIn // by the secret's hash
	browsers map[string]stored[bailey.Browser]
	notices  []bailey.Notice
	fails    map[string]int // by user
	failedAt map[string]time.Time
	passAt   map[string]time.Time
}

type memFactor struct {
	bailey.Factor
	secret, handle string
	step           int64
}

func newFactorBook() factorBook {
	return factorBook{
		factors: map[string]memFactor{}, codes: map[string]bool{},
		pending: map[string]bailey.PendingSignIn{}, browsers: map[string]stored[bailey.Browser]{},
		fails: map[string]int{}, failedAt: map[string]time.Time{}, passAt: map[string]time.Time{},
	}
}

// forget removes all that is about a user.
func (b *factorBook) forget(userID string) {
	maps.DeleteFunc(b.factors, func(_ string, f memFactor) bool { return f.UserID == userID })
	maps.DeleteFunc(b.codes, func(k string, _ bool) bool { return strings.HasPrefix(k, userID+" ") })
	maps.DeleteFunc(b.pending, func(_ string, p bailey.PendingSignIn) bool { return p.UserID == userID })
	maps.DeleteFunc(b.browsers, func(_ string, d stored[bailey.Browser]) bool { return d.row.UserID == userID })
	b.notices = slices.DeleteFunc(b.notices, func(n bailey.Notice) bool { return n.UserID == userID })
}

// Factors implements [identity.Store].
func (m *MemStore) Factors(_ context.Context, userID string) ([]bailey.Factor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.Factor{}
	for _, f := range m.book.factors {
		if f.UserID == userID {
			all = append(all, f.Factor)
		}
	}
	slices.SortFunc(all, func(a, b bailey.Factor) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// FactorByHandle implements [identity.Store].
func (m *MemStore) FactorByHandle(_ context.Context, handle string) (bailey.Factor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.book.factors {
		if f.handle == handle && handle != "" {
			return f.Factor, nil
		}
	}
	return bailey.Factor{}, missing("passkey")
}

// factor returns the user's factor. The caller holds mu.
func (m *MemStore) factor(userID, id, thing string) (memFactor, error) {
	f, ok := m.book.factors[id]
	if !ok || f.UserID != userID {
		return memFactor{}, missing(thing)
	}
	return f, nil
}

// FactorSecret implements [identity.Store].
func (m *MemStore) FactorSecret(_ context.Context, userID, id string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.factor(userID, id, "factor")
	return f.secret, err
}

// AddFactor implements [identity.Store].
func (m *MemStore) AddFactor(_ context.Context, f bailey.Factor, secret, handle string, step int64, most int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[f.UserID]; !ok {
		return missing("user")
	}
	n := 0
	for _, other := range m.book.factors {
		if other.ID == f.ID || handle != "" && other.handle == handle {
			return bailey.Errorf(bailey.Conflict, "there is such a second factor already")
		}
		if other.UserID == f.UserID {
			n++
		}
	}
	if n >= most {
		return &bailey.Error{Kind: bailey.OverQuota, Msg: fmt.Sprintf("you have %d second factors already", n), Hint: "remove one first"}
	}
	f.CreatedAt, f.UsedAt, f.Cloned = cutTime(f.CreatedAt), cutTime(f.UsedAt), false
	m.book.factors[f.ID] = memFactor{f, secret, handle, step}
	return nil
}

// UseStep implements [identity.Store].
func (m *MemStore) UseStep(_ context.Context, userID, id string, step int64, at time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.factor(userID, id, "factor")
	if err != nil || f.Kind != bailey.FactorTOTP || f.step >= step {
		return false, nil //nolint:nilerr // as the real one: no row, no use
	}
	f.step, f.UsedAt = step, cutTime(at)
	m.book.factors[id] = f
	return true, nil
}

// UsePasskey implements [identity.Store].
func (m *MemStore) UsePasskey(_ context.Context, userID, id, credential string, cloned bool, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.factor(userID, id, "passkey")
	if err == nil && f.Kind != bailey.FactorPasskey {
		err = missing("passkey")
	}
	if err != nil {
		return err
	}
	f.secret, f.UsedAt, f.Cloned = credential, cutTime(at), f.Cloned || cloned
	m.book.factors[id] = f
	return nil
}

// RenameFactor implements [identity.Store].
func (m *MemStore) RenameFactor(_ context.Context, userID, id, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.factor(userID, id, "factor")
	if err != nil {
		return err
	}
	f.Name = name
	m.book.factors[id] = f
	return nil
}

// DeleteFactor implements [identity.Store].
func (m *MemStore) DeleteFactor(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.factor(userID, id, "factor"); err != nil {
		return err
	}
	delete(m.book.factors, id)
	return nil
}

// DeleteFactors implements [identity.Store].
func (m *MemStore) DeleteFactors(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.book.factors, func(_ string, f memFactor) bool { return f.UserID == userID })
	maps.DeleteFunc(m.book.codes, func(k string, _ bool) bool { return strings.HasPrefix(k, userID+" ") })
	m.book.fails[userID] = 0
	return nil
}

// TryFactor implements [identity.Store].
func (m *MemStore) TryFactor(_ context.Context, userID string, free int, since, at time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[userID]; !ok || m.book.fails[userID] >= free && m.book.failedAt[userID].After(cutTime(since)) {
		return false, nil
	}
	m.book.fails[userID]++
	m.book.failedAt[userID] = cutTime(at)
	return true, nil
}

// ClearFactorTries implements [identity.Store].
func (m *MemStore) ClearFactorTries(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[userID]; !ok {
		return missing("user")
	}
	m.book.fails[userID] = 0
	return nil
}

// SetRecoveryCodes implements [identity.Store].
func (m *MemStore) SetRecoveryCodes(_ context.Context, userID string, hashes []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[userID]; !ok && len(hashes) > 0 {
		return missing("user")
	}
	maps.DeleteFunc(m.book.codes, func(k string, _ bool) bool { return strings.HasPrefix(k, userID+" ") })
	for _, h := range hashes {
		m.book.codes[userID+" "+h] = false
	}
	return nil
}

// UseRecoveryCode implements [identity.Store].
func (m *MemStore) UseRecoveryCode(_ context.Context, userID, hash string, _ time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used, ok := m.book.codes[userID+" "+hash]
	if !ok || used {
		return false, nil
	}
	m.book.codes[userID+" "+hash] = true
	return true, nil
}

// RecoveryCodesLeft implements [identity.Store].
func (m *MemStore) RecoveryCodesLeft(_ context.Context, userID string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for k, used := range m.book.codes {
		if strings.HasPrefix(k, userID+" ") && !used {
			n++
		}
	}
	return n, nil
}

// CreatePending implements [identity.Store].
func (m *MemStore) CreatePending(_ context.Context, p bailey.PendingSignIn, secretHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[p.UserID]; !ok {
		return missing("user")
	}
	if _, ok := m.book.pending[secretHash]; ok {
		return bailey.Errorf(bailey.Conflict, "there is such a pending sign-in already")
	}
	type row struct {
		hash string
		bailey.PendingSignIn
	}
	var mine []row
	for h, other := range m.book.pending {
		if other.UserID == p.UserID {
			mine = append(mine, row{h, other})
		}
	}
	slices.SortFunc(mine, func(a, b row) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	for _, old := range mine[min(len(mine), 9):] {
		delete(m.book.pending, old.hash)
	}
	p.Tries, p.CreatedAt, p.ExpiresAt = 0, cutTime(p.CreatedAt), cutTime(p.ExpiresAt)
	m.book.pending[secretHash] = p
	return nil
}

// open returns a pending sign-in that is not over. The caller holds mu.
func (m *MemStore) open(secretHash string) (bailey.PendingSignIn, error) {
	p, ok := m.book.pending[secretHash]
	if !ok || !m.now().Before(p.ExpiresAt) {
		return bailey.PendingSignIn{}, missing("pending sign-in")
	}
	return p, nil
}

// Pending implements [identity.Store].
func (m *MemStore) Pending(_ context.Context, secretHash string) (bailey.PendingSignIn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open(secretHash)
}

// TryPending implements [identity.Store].
func (m *MemStore) TryPending(_ context.Context, secretHash string, most int) (bailey.PendingSignIn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.open(secretHash)
	if err != nil {
		return p, err
	}
	if p.Tries >= most {
		return bailey.PendingSignIn{}, missing("pending sign-in")
	}
	p.Tries++
	m.book.pending[secretHash] = p
	return p, nil
}

// AdvancePending implements [identity.Store].
func (m *MemStore) AdvancePending(_ context.Context, secretHash, from, methods, stored string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.book.pending[secretHash]
	if !ok || p.Methods != from {
		return missing("pending sign-in")
	}
	p.Methods, p.Stored, p.Tries = methods, stored, 0
	m.book.pending[secretHash] = p
	return nil
}

// FinishPending implements [identity.Store].
func (m *MemStore) FinishPending(_ context.Context, secretHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.book.pending[secretHash]; !ok {
		return missing("pending sign-in")
	}
	delete(m.book.pending, secretHash)
	return nil
}

// DeletePending implements [identity.Store].
func (m *MemStore) DeletePending(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.book.pending, func(_ string, p bailey.PendingSignIn) bool { return p.UserID == userID })
	return nil
}

// DeletePendingBySID implements [identity.Store].
func (m *MemStore) DeletePendingBySID(_ context.Context, issuer, sid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.book.pending, func(_ string, p bailey.PendingSignIn) bool {
		return sid != "" && p.SID == sid && m.outside.ties[p.ExternalID].Issuer == issuer
	})
	return nil
}

// CreateBrowser implements [identity.Store].
func (m *MemStore) CreateBrowser(_ context.Context, d bailey.Browser, secretHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.CreatedAt, d.SeenAt, d.ExpiresAt = cutTime(d.CreatedAt), cutTime(d.SeenAt), cutTime(d.ExpiresAt)
	if err := insertRow(m, m.book.browsers, "browser", d.ID, d.UserID, secretHash, d); err != nil {
		return err
	}
	for _, old := range m.browsersOf(d.UserID)[min(len(m.browsersOf(d.UserID)), 20):] {
		delete(m.book.browsers, old.ID)
	}
	return nil
}

// browsersOf lists a user's browsers that are not over. The caller holds mu.
func (m *MemStore) browsersOf(userID string) []bailey.Browser {
	all := []bailey.Browser{}
	for _, d := range m.book.browsers {
		if d.row.UserID == userID && m.now().Before(d.row.ExpiresAt) {
			all = append(all, d.row)
		}
	}
	slices.SortFunc(all, func(a, b bailey.Browser) int {
		return cmp.Or(b.SeenAt.Compare(a.SeenAt), strings.Compare(b.ID, a.ID))
	})
	return all
}

// BrowserByHash implements [identity.Store].
func (m *MemStore) BrowserByHash(_ context.Context, secretHash string) (bailey.Browser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.book.browsers {
		if d.hash == secretHash && m.now().Before(d.row.ExpiresAt) {
			return d.row, nil
		}
	}
	return bailey.Browser{}, missing("browser")
}

// TouchBrowser implements [identity.Store].
func (m *MemStore) TouchBrowser(_ context.Context, id, ip string, seen, expires time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.book.browsers[id]
	if !ok {
		return missing("browser")
	}
	d.row.IP, d.row.SeenAt, d.row.ExpiresAt = ip, cutTime(seen), cutTime(expires)
	m.book.browsers[id] = d
	return nil
}

// Browsers implements [identity.Store].
func (m *MemStore) Browsers(_ context.Context, userID string) ([]bailey.Browser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.browsersOf(userID), nil
}

// DeleteBrowser implements [identity.Store].
func (m *MemStore) DeleteBrowser(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if drop(m.book.browsers, func(d bailey.Browser) bool { return d.UserID == userID && d.ID == id }) == 0 {
		return missing("browser")
	}
	return nil
}

// PasswordSetAt implements [identity.Store].
func (m *MemStore) PasswordSetAt(_ context.Context, userID string) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[userID]; !ok {
		return time.Time{}, missing("user")
	}
	return m.book.passAt[userID], nil
}

// RenewPasswordHash implements [identity.Store].
func (m *MemStore) RenewPasswordHash(_ context.Context, userID, old, fresh string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[userID]
	if !ok || u.hash != old {
		return false, nil
	}
	u.hash = fresh
	m.users[userID] = u
	return true, nil
}

// ProveSession implements [identity.Store].
func (m *MemStore) ProveSession(_ context.Context, userID, id, methods string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok || s.row.UserID != userID {
		return missing("session")
	}
	s.row.AuthAt, s.row.Methods = cutTime(at), methods
	m.sessions[id] = s
	return nil
}

// ProveToken implements [identity.Store].
func (m *MemStore) ProveToken(_ context.Context, userID, id, methods string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tokens[id]
	if !ok || t.row.UserID != userID {
		return missing("token")
	}
	t.row.AuthAt, t.row.Methods = cutTime(at), methods
	m.tokens[id] = t
	return nil
}

// AddNotice implements [identity.Store].
func (m *MemStore) AddNotice(_ context.Context, n bailey.Notice) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[n.UserID]; !ok {
		return missing("user")
	}
	n.At = cutTime(n.At)
	m.book.notices = append(m.book.notices, n)
	return nil
}

// Notices implements [identity.Store].
func (m *MemStore) Notices(_ context.Context, userID string) ([]bailey.Notice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.Notice{}
	for _, n := range slices.Backward(m.book.notices) {
		if n.UserID == userID {
			all = append(all, n)
		}
	}
	return all[:min(len(all), 50)], nil
}

// DeleteNotices implements [identity.Store].
func (m *MemStore) DeleteNotices(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.book.notices = slices.DeleteFunc(m.book.notices, func(n bailey.Notice) bool { return n.UserID == userID })
	return nil
}

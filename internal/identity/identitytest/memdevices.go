package identitytest

import (
	"context"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
)

// A device is a device authorization and the hashes of its codes.
type device struct {
	bailey.Device
	hash, code string
}

// ChangeGroup implements [identity.Store].
func (m *MemStore) ChangeGroup(_ context.Context, userID, group string, c bailey.GroupChange) (bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[userID]
	if !ok {
		return bailey.User{}, missing("user")
	}
	next := c.Apply(u.User, group)
	if len(next.Groups) > bailey.MaxGroups || len(next.Manages) > bailey.MaxGroups {
		return bailey.User{}, bailey.Errorf(bailey.Conflict, "a user can be in %d groups at most, and manage as many", bailey.MaxGroups)
	}
	u.User = next
	m.users[userID] = u
	return clone(next), nil
}

// CreateDevice implements [identity.Store].
func (m *MemStore) CreateDevice(_ context.Context, d bailey.Device, deviceHash, codeHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.ID == "" || deviceHash == "" || codeHash == "" || d.ExpiresAt.IsZero() || len(d.Scopes) == 0 {
		return bailey.Errorf(bailey.Invalid, "a device authorization needs an id, two codes, scopes and an expiry")
	}
	for id, old := range m.devices {
		if !m.now().Before(old.ExpiresAt.Add(time.Hour)) {
			delete(m.devices, id)
		}
	}
	if len(m.devices) >= 4096 {
		return &bailey.Error{Kind: bailey.TooMany, Msg: "too many programs are asking to sign in", Hint: "try again in a few minutes"}
	}
	for id, old := range m.devices {
		if id == d.ID || old.hash == deviceHash || old.code == codeHash {
			return bailey.Errorf(bailey.Conflict, "there is such a code already")
		}
	}
	d.State, d.UserID, d.PolledAt, d.Scopes = bailey.DevicePending, "", time.Time{}, slices.Clone(d.Scopes)
	d.CreatedAt, d.ExpiresAt = cutTime(d.CreatedAt), cutTime(d.ExpiresAt)
	m.devices[d.ID] = device{d, deviceHash, codeHash}
	return nil
}

// DeviceByCode implements [identity.Store].
func (m *MemStore) DeviceByCode(_ context.Context, codeHash string) (bailey.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.devices {
		if d.code == codeHash && m.now().Before(d.ExpiresAt) {
			return d.Device, nil
		}
	}
	return bailey.Device{}, missing("device authorization")
}

// AnswerDevice implements [identity.Store].
func (m *MemStore) AnswerDevice(_ context.Context, id, userID string, answer bailey.DeviceState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.devices[id]
	if !ok || d.State != bailey.DevicePending || !m.now().Before(d.ExpiresAt) {
		return missing("device authorization")
	}
	d.State, d.UserID = answer, userID
	m.devices[id] = d
	return nil
}

// PollDevice implements [identity.Store].
func (m *MemStore) PollDevice(_ context.Context, deviceHash string, slower time.Duration) (bailey.Device, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, d := range m.devices {
		if d.hash != deviceHash {
			continue
		}
		early := !d.PolledAt.IsZero() && m.now().Sub(d.PolledAt) < d.Interval
		if early {
			d.Interval += slower
		}
		d.PolledAt = m.now()
		m.devices[id] = d
		return d.Device, early, nil
	}
	return bailey.Device{}, false, missing("device authorization")
}

// TakeDevice implements [identity.Store].
func (m *MemStore) TakeDevice(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.devices[id].State != bailey.DeviceApproved {
		return missing("device authorization")
	}
	delete(m.devices, id)
	return nil
}

// DeleteDevices implements [identity.Store].
func (m *MemStore) DeleteDevices(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropDevices(userID)
	return nil
}

// dropDevices removes the devices that the user answered. The caller holds mu.
func (m *MemStore) dropDevices(userID string) {
	for id, d := range m.devices {
		if userID != "" && d.UserID == userID {
			delete(m.devices, id)
		}
	}
}

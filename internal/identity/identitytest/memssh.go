package identitytest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// sshRows is the SSH part of a MemStore; its mutex guards it.
type sshRows struct {
	keys         map[string]bailey.SSHKey // by id
	certificates map[uint64]bailey.SSHCertificate
	pending      map[string]bailey.SSHPending // by the hash of the code
	authorities  map[string]secret.Value
}

func newSSHRows() sshRows {
	return sshRows{
		keys: map[string]bailey.SSHKey{}, certificates: map[uint64]bailey.SSHCertificate{},
		pending: map[string]bailey.SSHPending{}, authorities: map[string]secret.Value{},
	}
}

// forget drops what belongs to a user who is deleted.
func (r *sshRows) forget(userID string) {
	for id, k := range r.keys {
		if k.UserID == userID {
			delete(r.keys, id)
		}
	}
	for serial, c := range r.certificates {
		if c.UserID == userID {
			delete(r.certificates, serial)
		}
	}
}

// CreateSSHKey implements [identity.SSHStore].
func (m *MemStore) CreateSSHKey(_ context.Context, k bailey.SSHKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.insertSSHKey(k)
}

func (m *MemStore) insertSSHKey(k bailey.SSHKey) error {
	if k.ID == "" || k.Name == "" || k.Fingerprint == "" || len(k.Wire) == 0 {
		return bailey.Errorf(bailey.Invalid, "a key needs an id, a name, a fingerprint and its bytes")
	}
	if _, ok := m.users[k.UserID]; !ok {
		return missing("user")
	}
	for _, other := range m.ssh.keys {
		switch {
		case other.UserID == k.UserID && other.Name == k.Name:
			return bailey.Errorf(bailey.Conflict, "you have a key called %s already", k.Name)
		case other.ID == k.ID, other.Fingerprint == k.Fingerprint:
			return bailey.Errorf(bailey.Conflict, "this key is in use already")
		}
	}
	k.Wire = bytes.Clone(k.Wire)
	k.CreatedAt, k.ExpiresAt, k.UsedAt, k.RemindedAt = cutTime(k.CreatedAt), cutTime(k.ExpiresAt), cutTime(k.UsedAt), cutTime(k.RemindedAt)
	m.ssh.keys[k.ID] = k
	return nil
}

// SSHKeys implements [identity.SSHStore].
func (m *MemStore) SSHKeys(_ context.Context, userID string) ([]bailey.SSHKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.SSHKey{}
	for _, k := range m.ssh.keys {
		if k.UserID == userID {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b bailey.SSHKey) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return all, nil
}

// SSHKeyByFingerprint implements [identity.SSHStore].
func (m *MemStore) SSHKeyByFingerprint(_ context.Context, fingerprint string) (bailey.SSHKey, bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	for _, k := range m.ssh.keys {
		if k.Fingerprint == fingerprint {
			return k, clone(m.users[k.UserID].User), nil
		}
	}
	return bailey.SSHKey{}, bailey.User{}, missing("SSH key")
}

// RenameSSHKey implements [identity.SSHStore].
func (m *MemStore) RenameSSHKey(_ context.Context, userID, id, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.ssh.keys[id]
	if !ok || k.UserID != userID {
		return missing("SSH key")
	}
	for _, other := range m.ssh.keys {
		if other.ID != id && other.UserID == userID && other.Name == name {
			return bailey.Errorf(bailey.Conflict, "you have a key called %s already", name)
		}
	}
	k.Name = name
	m.ssh.keys[id] = k
	return nil
}

// TouchSSHKey implements [identity.SSHStore].
func (m *MemStore) TouchSSHKey(_ context.Context, id string, used time.Time, from string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.ssh.keys[id]
	if !ok {
		return missing("SSH key")
	}
	if used = cutTime(used); used.After(k.UsedAt) {
		k.UsedAt, k.UsedFrom = used, from
		m.ssh.keys[id] = k
	}
	return nil
}

// DeleteSSHKey implements [identity.SSHStore].
func (m *MemStore) DeleteSSHKey(_ context.Context, userID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, ok := m.ssh.keys[id]; !ok || k.UserID != userID {
		return missing("SSH key")
	}
	delete(m.ssh.keys, id)
	return nil
}

// DeleteSSHKeys implements [identity.SSHStore].
func (m *MemStore) DeleteSSHKeys(_ context.Context, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, k := range m.ssh.keys {
		if k.UserID == userID {
			delete(m.ssh.keys, id)
		}
	}
	return nil
}

// ExpiringSSHKeys implements [identity.SSHStore].
func (m *MemStore) ExpiringSSHKeys(_ context.Context, before time.Time) ([]bailey.SSHKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.SSHKey{}
	for _, k := range m.ssh.keys {
		if k.RemindedAt.IsZero() && k.ExpiresAt.After(m.now()) && !k.ExpiresAt.After(cutTime(before)) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b bailey.SSHKey) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// RemindSSHKey implements [identity.SSHStore].
func (m *MemStore) RemindSSHKey(_ context.Context, id string, at time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.ssh.keys[id]
	if !ok || !k.RemindedAt.IsZero() {
		return false, nil
	}
	k.RemindedAt = cutTime(at)
	m.ssh.keys[id] = k
	return true, nil
}

// SSHAuthority implements [identity.SSHStore].
func (m *MemStore) SSHAuthority(_ context.Context, kind string, fresh secret.Value) (secret.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.ssh.authorities[kind]; ok {
		return have, nil
	}
	if fresh.Empty() {
		return secret.Value{}, missing("SSH authority")
	}
	m.ssh.authorities[kind] = fresh
	return fresh, nil
}

// CreateSSHCertificate implements [identity.SSHStore].
func (m *MemStore) CreateSSHCertificate(_ context.Context, c bailey.SSHCertificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Serial == 0 || c.Serial>>63 != 0 || c.ID == "" || c.Fingerprint == "" || c.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a certificate needs a serial, an id, a fingerprint and an end")
	}
	if _, ok := m.users[c.UserID]; !ok {
		return missing("user")
	}
	if _, taken := m.ssh.certificates[c.Serial]; taken {
		return bailey.Errorf(bailey.Conflict, "there is such a certificate already")
	}
	c.CreatedAt, c.ExpiresAt = cutTime(c.CreatedAt), cutTime(c.ExpiresAt)
	m.ssh.certificates[c.Serial] = c
	return nil
}

// SSHCertificateBySerial implements [identity.SSHStore].
func (m *MemStore) SSHCertificateBySerial(_ context.Context, serial uint64) (bailey.SSHCertificate, bailey.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	c, ok := m.ssh.certificates[serial]
	if !ok {
		return c, bailey.User{}, missing("SSH certificate")
	}
	return c, clone(m.users[c.UserID].User), nil
}

// SSHCertificates implements [identity.SSHStore].
func (m *MemStore) SSHCertificates(_ context.Context, userID string) ([]bailey.SSHCertificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []bailey.SSHCertificate{}
	for _, c := range m.ssh.certificates {
		if c.UserID == userID && c.ExpiresAt.After(m.now()) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b bailey.SSHCertificate) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.Serial, b.Serial))
	})
	return all, nil
}

// TouchSSHCertificate implements [identity.SSHStore].
func (m *MemStore) TouchSSHCertificate(_ context.Context, id string, used time.Time, from string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for serial, c := range m.ssh.certificates {
		if c.ID != id {
			continue
		}
		if used = cutTime(used); used.After(c.UsedAt) {
			c.UsedAt, c.UsedFrom = used, from
			m.ssh.certificates[serial] = c
		}
		return nil
	}
	return missing("SSH certificate")
}

// RevokeSSHCertificates implements [identity.SSHStore].
func (m *MemStore) RevokeSSHCertificates(_ context.Context, userID string, serial uint64, madeBy string, at time.Time) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := []string{}
	for n, c := range m.ssh.certificates {
		if c.UserID != userID || !c.RevokedAt.IsZero() || serial != 0 && n != serial || serial == 0 && madeBy != "" && c.MadeBy != madeBy {
			continue
		}
		c.RevokedAt = cutTime(at)
		m.ssh.certificates[n] = c
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// CreateSSHPending implements [identity.SSHStore].
func (m *MemStore) CreateSSHPending(_ context.Context, p bailey.SSHPending, codeHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for hash, old := range m.ssh.pending {
		if !m.now().Before(old.ExpiresAt) || old.Fingerprint == p.Fingerprint && old.Name == p.Name {
			delete(m.ssh.pending, hash)
		}
	}
	p.CreatedAt, p.ExpiresAt = cutTime(p.CreatedAt), cutTime(p.ExpiresAt)
	m.ssh.pending[codeHash] = p
	return nil
}

// SSHPending implements [identity.SSHStore].
func (m *MemStore) SSHPending(_ context.Context, codeHash string) (bailey.SSHPending, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting(codeHash)
}

func (m *MemStore) waiting(codeHash string) (bailey.SSHPending, error) {
	p, ok := m.ssh.pending[codeHash]
	if !ok || !m.now().Before(p.ExpiresAt) {
		return bailey.SSHPending{}, missing("waiting SSH key")
	}
	return p, nil
}

// FinishSSHPending implements [identity.SSHStore].
func (m *MemStore) FinishSSHPending(_ context.Context, codeHash string, k bailey.SSHKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.waiting(codeHash)
	if err != nil {
		return err
	}
	if p.Fingerprint != k.Fingerprint || !bytes.Equal(p.Wire, k.Wire) {
		return bailey.Errorf(bailey.Conflict, "another key waits under this code")
	}
	if err := m.insertSSHKey(k); err != nil {
		return err
	}
	delete(m.ssh.pending, codeHash)
	return nil
}

// DeleteSSHPending implements [identity.SSHStore].
func (m *MemStore) DeleteSSHPending(_ context.Context, codeHash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.ssh.pending[codeHash]; !ok {
		return missing("waiting SSH key")
	}
	delete(m.ssh.pending, codeHash)
	return nil
}

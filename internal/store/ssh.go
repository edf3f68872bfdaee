package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// maxPending is how many keys may wait for their owners at a time. Whoever has
// a network full of addresses must not fill the store; the oldest make room.
const maxPending = 2000

const sshKeyColumns = `SELECT k.id, k.user_id, k.name, k.kind, k.fingerprint, k.wire, k.comment, k.created_at, k.expires_at,
	k.used_at, k.used_from, k.reminded_at`

type sshKeyRow struct {
	bailey.SSHKey
	created, expires, used, reminded int64
}

func (k *sshKeyRow) dest() []any {
	return []any{
		&k.ID, &k.UserID, &k.Name, &k.Type, &k.Fingerprint, &k.Wire, &k.Comment, &k.created, &k.expires,
		&k.used, &k.UsedFrom, &k.reminded,
	}
}

func (k *sshKeyRow) key() bailey.SSHKey {
	k.CreatedAt, k.ExpiresAt, k.UsedAt, k.RemindedAt = fromMicros(k.created), fromMicros(k.expires), fromMicros(k.used), fromMicros(k.reminded)
	return k.SSHKey
}

func scanSSHKey(row scanner) (bailey.SSHKey, error) {
	var k sshKeyRow
	err := row.Scan(k.dest()...)
	return k.key(), err
}

// CreateSSHKey stores a key. Conflict when the key is somebody's already, or
// its owner has another of that name; NotFound when there is no such user;
// Invalid when something is missing. A conflict does not say whose the key is.
func (s *Store) CreateSSHKey(ctx context.Context, k bailey.SSHKey) error {
	if k.ID == "" || k.Name == "" || k.Fingerprint == "" || len(k.Wire) == 0 {
		return bailey.Errorf(bailey.Invalid, "a key needs an id, a name, a fingerprint and its bytes")
	}
	return s.change(ctx, "create SSH key", func(ctx context.Context, r runner) error { return s.insertSSHKey(ctx, r, k) })
}

func (s *Store) insertSSHKey(ctx context.Context, r runner, k bailey.SSHKey) error {
	_, err := one(ctx, r, scanText, `SELECT id FROM ssh_keys WHERE user_id = ? AND name = ?`, k.UserID, k.Name)
	if err == nil {
		return errSSHNameTaken(k.Name)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	_, err = r.exec(ctx, `INSERT INTO ssh_keys (id, user_id, name, kind, fingerprint, wire, comment, created_at, expires_at, used_at, used_from, reminded_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.ID, k.UserID, k.Name, k.Type, k.Fingerprint, k.Wire, clean(k.Comment, shortText), k.CreatedAt, k.ExpiresAt,
		k.UsedAt, k.UsedFrom, k.RemindedAt)
	if isDuplicate(err) {
		return &bailey.Error{Kind: bailey.Conflict, Msg: "this key is in use already", Hint: `make one of your own with "ssh-keygen -t ed25519"`}
	}
	return credentialError("key", err)
}

func errSSHNameTaken(name string) error {
	return &bailey.Error{Kind: bailey.Conflict, Msg: "you have a key called " + name + " already", Hint: "choose another name, or remove that key first"}
}

// SSHKeys lists the user's keys, newest first, expired ones among them.
func (s *Store) SSHKeys(ctx context.Context, userID string) ([]bailey.SSHKey, error) {
	all, err := list(ctx, s.reads(), scanSSHKey, sshKeyColumns+` FROM ssh_keys k
		WHERE k.user_id = ? ORDER BY k.created_at DESC, k.id DESC`, userID)
	return all, fail("list SSH keys", err)
}

// SSHKeyByFingerprint returns the key and its user, who may be disabled. The
// key may have expired. NotFound when there is none.
func (s *Store) SSHKeyByFingerprint(ctx context.Context, fingerprint string) (bailey.SSHKey, bailey.User, error) {
	scan := func(row scanner) (v withUser[bailey.SSHKey], err error) {
		var k sshKeyRow
		var u userRow
		if err := row.Scan(append(k.dest(), u.dest()...)...); err != nil {
			return v, err
		}
		v.row = k.key()
		v.user, err = u.user()
		return v, err
	}
	v, err := one(ctx, s.reads(), scan, sshKeyColumns+joinedUser+`
		FROM ssh_keys k JOIN users u ON u.id = k.user_id WHERE k.fingerprint = ?`, fingerprint)
	return v.row, v.user, fail("SSH key by fingerprint", found("SSH key", err))
}

// RenameSSHKey gives one of the user's keys another name; NotFound when it is
// not theirs, Conflict when they have one of that name.
func (s *Store) RenameSSHKey(ctx context.Context, userID, id, name string) error {
	if name == "" {
		return bailey.Errorf(bailey.Invalid, "a key needs a name")
	}
	err := s.update(ctx, "rename SSH key", "SSH key", `UPDATE ssh_keys SET name = ? WHERE user_id = ? AND id = ?`, name, userID, id)
	if isDuplicate(err) {
		return errSSHNameTaken(name)
	}
	return err
}

// TouchSSHKey moves the last use forward; it never moves it back.
func (s *Store) TouchSSHKey(ctx context.Context, id string, used time.Time, from string) error {
	return s.update(ctx, "touch SSH key", "SSH key", `UPDATE ssh_keys SET used_from = CASE WHEN used_at < ? THEN ? ELSE used_from END,
		used_at = CASE WHEN used_at < ? THEN ? ELSE used_at END WHERE id = ?`, used, from, used, used, id)
}

// DeleteSSHKey removes one key of the user; NotFound when it is not theirs.
func (s *Store) DeleteSSHKey(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete SSH key", "SSH key", `DELETE FROM ssh_keys WHERE user_id = ? AND id = ?`, userID, id)
}

// DeleteSSHKeys removes all keys of the user.
func (s *Store) DeleteSSHKeys(ctx context.Context, userID string) error {
	return s.change(ctx, "delete SSH keys", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM ssh_keys WHERE user_id = ?`, userID)
		return err
	})
}

// ExpiringSSHKeys lists the keys that end before the time, have not ended yet,
// and whose end nobody was told of.
func (s *Store) ExpiringSSHKeys(ctx context.Context, before time.Time) ([]bailey.SSHKey, error) {
	all, err := list(ctx, s.reads(), scanSSHKey, sshKeyColumns+` FROM ssh_keys k
		WHERE k.expires_at > ? AND k.expires_at <= ? AND k.reminded_at = 0 ORDER BY k.expires_at, k.id`, s.clock(), before)
	return all, fail("list expiring SSH keys", err)
}

// RemindSSHKey notes that the end of the key was told. It reports false when
// that was noted before, by another server perhaps.
func (s *Store) RemindSSHKey(ctx context.Context, id string, at time.Time) (first bool, err error) {
	err = s.change(ctx, "note a reminder", func(ctx context.Context, r runner) error {
		n, err := r.exec(ctx, `UPDATE ssh_keys SET reminded_at = ? WHERE id = ? AND reminded_at = 0`, at, id)
		first = n > 0
		return err
	})
	return first, err
}

// SSHAuthority returns the secret of the authority of the kind ("user" or
// "host"). When there is none yet, fresh becomes it: of any number of servers
// that begin at once, all get the same. With an empty fresh it is NotFound.
func (s *Store) SSHAuthority(ctx context.Context, kind string, fresh secret.Value) (secret.Value, error) {
	const query = `SELECT sealed FROM ssh_authorities WHERE kind = ?`
	place := "ssh authority " + kind
	sealed, err := one(ctx, s.reads(), scanText, query, kind)
	if errors.Is(err, sql.ErrNoRows) {
		if fresh.Empty() {
			return secret.Value{}, found("SSH authority", err)
		}
		err = s.decide(ctx, "make the SSH authority", func(ctx context.Context, r runner) error {
			text := s.sealText(base64.RawStdEncoding.EncodeToString([]byte(fresh.Reveal())), place)
			if _, err := r.exec(ctx, `INSERT INTO ssh_authorities (kind, sealed, created_at) VALUES (?, ?, ?)
				ON CONFLICT (kind) DO NOTHING`, kind, text, s.clock()); err != nil {
				return err
			}
			var err error
			sealed, err = one(ctx, r, scanText, query, kind)
			return err
		})
	}
	if err != nil {
		return secret.Value{}, fail("read the SSH authority", err)
	}
	text, err := s.openText(sealed, place)
	if err != nil {
		return secret.Value{}, fail("read the SSH authority", err)
	}
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return secret.Value{}, fail("read the SSH authority", errSeal)
	}
	return secret.New(string(raw)), nil
}

const sshCertificateColumns = `SELECT c.serial, c.id, c.user_id, c.fingerprint, c.made_by, c.made_from, c.created_at, c.expires_at,
	c.used_at, c.used_from, c.revoked_at`

type sshCertificateRow struct {
	bailey.SSHCertificate
	serial, created, expires, used, revoked int64
}

func (c *sshCertificateRow) dest() []any {
	return []any{
		&c.serial, &c.ID, &c.UserID, &c.Fingerprint, &c.MadeBy, &c.MadeFrom, &c.created, &c.expires, &c.used, &c.UsedFrom, &c.revoked,
	}
}

func (c *sshCertificateRow) certificate() bailey.SSHCertificate {
	c.Serial = uint64(c.serial) //nolint:gosec // positive, see the table
	c.CreatedAt, c.ExpiresAt, c.UsedAt, c.RevokedAt = fromMicros(c.created), fromMicros(c.expires), fromMicros(c.used), fromMicros(c.revoked)
	return c.SSHCertificate
}

func scanSSHCertificate(row scanner) (bailey.SSHCertificate, error) {
	var c sshCertificateRow
	err := row.Scan(c.dest()...)
	return c.certificate(), err
}

// serialOf returns the serial as it is stored, and whether it can be one.
func serialOf(serial uint64) (int64, bool) {
	n := int64(serial) //nolint:gosec // checked in the same breath
	return n, n > 0
}

// CreateSSHCertificate stores what was issued, before it is handed over.
// Conflict when the serial is taken, NotFound when there is no such user. Rows
// of certificates that ended long ago are removed on the way.
func (s *Store) CreateSSHCertificate(ctx context.Context, c bailey.SSHCertificate) error {
	serial, ok := serialOf(c.Serial)
	if !ok || c.ID == "" || c.Fingerprint == "" || c.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a certificate needs a serial, an id, a fingerprint and an end")
	}
	return s.change(ctx, "create SSH certificate", func(ctx context.Context, r runner) error {
		if _, err := r.exec(ctx, `DELETE FROM ssh_certificates WHERE expires_at <= ?`, s.clock().Add(-keepExpired)); err != nil {
			return err
		}
		_, err := r.exec(ctx, `INSERT INTO ssh_certificates (serial, id, user_id, fingerprint, made_by, made_from, created_at, expires_at, used_at, used_from, revoked_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			serial, c.ID, c.UserID, c.Fingerprint, c.MadeBy, c.MadeFrom, c.CreatedAt, c.ExpiresAt, c.UsedAt, c.UsedFrom, c.RevokedAt)
		return credentialError("certificate", err)
	})
}

// SSHCertificateBySerial returns a certificate, which may be revoked or have
// expired, and its user, who may be disabled; NotFound when none was issued
// under the serial.
func (s *Store) SSHCertificateBySerial(ctx context.Context, serial uint64) (bailey.SSHCertificate, bailey.User, error) {
	n, ok := serialOf(serial)
	if !ok {
		return bailey.SSHCertificate{}, bailey.User{}, found("SSH certificate", sql.ErrNoRows)
	}
	scan := func(row scanner) (v withUser[bailey.SSHCertificate], err error) {
		var c sshCertificateRow
		var u userRow
		if err := row.Scan(append(c.dest(), u.dest()...)...); err != nil {
			return v, err
		}
		v.row = c.certificate()
		v.user, err = u.user()
		return v, err
	}
	v, err := one(ctx, s.reads(), scan, sshCertificateColumns+joinedUser+`
		FROM ssh_certificates c JOIN users u ON u.id = c.user_id WHERE c.serial = ?`, n)
	return v.row, v.user, fail("SSH certificate by serial", found("SSH certificate", err))
}

// SSHCertificates lists the user's certificates that have not expired, revoked
// ones among them, newest first.
func (s *Store) SSHCertificates(ctx context.Context, userID string) ([]bailey.SSHCertificate, error) {
	all, err := list(ctx, s.reads(), scanSSHCertificate, sshCertificateColumns+` FROM ssh_certificates c
		WHERE c.user_id = ? AND c.expires_at > ? ORDER BY c.created_at DESC, c.serial`, userID, s.clock())
	return all, fail("list SSH certificates", err)
}

// TouchSSHCertificate moves the last use forward; it never moves it back.
func (s *Store) TouchSSHCertificate(ctx context.Context, id string, used time.Time, from string) error {
	return s.update(ctx, "touch SSH certificate", "SSH certificate", `UPDATE ssh_certificates SET used_from = CASE WHEN used_at < ? THEN ? ELSE used_from END,
		used_at = CASE WHEN used_at < ? THEN ? ELSE used_at END WHERE id = ?`, used, from, used, used, id)
}

// RevokeSSHCertificates revokes the user's certificates: the one of the serial,
// or, with serial 0, all that madeBy asked for, or, when that is empty too, all.
// It returns the ids of those that it revoked.
func (s *Store) RevokeSSHCertificates(ctx context.Context, userID string, serial uint64, madeBy string, at time.Time) ([]string, error) {
	where, args := ` FROM ssh_certificates c WHERE c.user_id = ? AND c.revoked_at = 0`, []any{userID}
	switch {
	case serial != 0:
		n, ok := serialOf(serial)
		if !ok {
			return []string{}, nil
		}
		where, args = where+` AND c.serial = ?`, append(args, n)
	case madeBy != "":
		where, args = where+` AND c.made_by = ?`, append(args, madeBy)
	}
	var ids []string
	err := s.decide(ctx, "revoke SSH certificates", func(ctx context.Context, r runner) error {
		rows, err := list(ctx, r, scanText, `SELECT c.id`+where, args...)
		if err != nil {
			return err
		}
		ids = rows
		for _, id := range ids {
			if _, err := r.exec(ctx, `UPDATE ssh_certificates SET revoked_at = ? WHERE id = ?`, at, id); err != nil {
				return err
			}
		}
		return nil
	})
	return ids, err
}

const sshPendingColumns = `SELECT name, kind, fingerprint, wire, ip, client, created_at, expires_at FROM ssh_pending `

func scanSSHPending(row scanner) (p bailey.SSHPending, err error) {
	var created, expires int64
	err = row.Scan(&p.Name, &p.Type, &p.Fingerprint, &p.Wire, &p.IP, &p.Client, &created, &expires)
	p.CreatedAt, p.ExpiresAt = fromMicros(created), fromMicros(expires)
	return p, err
}

// CreateSSHPending stores a key that waits for its owner's word under the hash
// of a fresh code; a former code for the same key and account is void. When too
// many wait, the oldest is dropped.
func (s *Store) CreateSSHPending(ctx context.Context, p bailey.SSHPending, codeHash string) error {
	if codeHash == "" || p.Fingerprint == "" || len(p.Wire) == 0 || p.ExpiresAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "a waiting key needs a code, a fingerprint, its bytes and an end")
	}
	return s.decide(ctx, "store a waiting SSH key", func(ctx context.Context, r runner) error {
		if _, err := r.exec(ctx, `DELETE FROM ssh_pending WHERE expires_at <= ? OR fingerprint = ? AND name = ?`, s.clock(), p.Fingerprint, p.Name); err != nil {
			return err
		}
		n, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM ssh_pending`)
		if err == nil && n >= maxPending {
			_, err = r.exec(ctx, `DELETE FROM ssh_pending WHERE code_hash =
				(SELECT code_hash FROM ssh_pending ORDER BY created_at, code_hash LIMIT 1)`)
		}
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO ssh_pending (code_hash, name, kind, fingerprint, wire, ip, client, created_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			codeHash, p.Name, p.Type, p.Fingerprint, p.Wire, p.IP, clean(p.Client, shortText), p.CreatedAt, p.ExpiresAt)
		return credentialError("code", err)
	})
}

// SSHPending returns the key that waits under the hash of a code; NotFound when
// there is none or it has expired.
func (s *Store) SSHPending(ctx context.Context, codeHash string) (bailey.SSHPending, error) {
	p, err := one(ctx, s.reads(), scanSSHPending, sshPendingColumns+`WHERE code_hash = ? AND expires_at > ?`, codeHash, s.clock())
	return p, fail("waiting SSH key", found("waiting SSH key", err))
}

// FinishSSHPending consumes the code and stores the key that waited under it,
// both or neither. NotFound when the code was consumed or has expired;
// otherwise errors are those of [Store.CreateSSHKey]. k's bytes must be those
// that waited.
func (s *Store) FinishSSHPending(ctx context.Context, codeHash string, k bailey.SSHKey) error {
	return s.decide(ctx, "bind a waiting SSH key", func(ctx context.Context, r runner) error {
		p, err := one(ctx, r, scanSSHPending, sshPendingColumns+`WHERE code_hash = ? AND expires_at > ?`, codeHash, s.clock())
		if err != nil {
			return found("waiting SSH key", err)
		}
		if !bytes.Equal(p.Wire, k.Wire) || p.Fingerprint != k.Fingerprint {
			return bailey.Errorf(bailey.Conflict, "another key waits under this code")
		}
		if _, err := r.exec(ctx, `DELETE FROM ssh_pending WHERE code_hash = ?`, codeHash); err != nil {
			return err
		}
		return s.insertSSHKey(ctx, r, k)
	})
}

// DeleteSSHPending consumes the code: what waited is refused.
func (s *Store) DeleteSSHPending(ctx context.Context, codeHash string) error {
	return s.update(ctx, "refuse a waiting SSH key", "waiting SSH key", `DELETE FROM ssh_pending WHERE code_hash = ?`, codeHash)
}

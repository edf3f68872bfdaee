package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

const (
	// keepDevices is how long a device authorization stays after it expired, so
	// that who asks late is told so.
	keepDevices = time.Hour
	// maxDevices is how many there may be at once: anybody can ask for one.
	maxDevices = 4096
)

const deviceColumns = `SELECT d.id, d.state, d.note, d.scopes, d.ip, d.user_id, d.created_at, d.expires_at, d.polled_at, d.poll_interval
	FROM devices d `

func scanDevice(row scanner) (d bailey.Device, err error) {
	var scopes string
	var created, expires, polled, interval int64
	err = row.Scan(&d.ID, (*string)(&d.State), &d.Note, &scopes, &d.IP, &d.UserID, &created, &expires, &polled, &interval)
	if err != nil {
		return d, err
	}
	d.CreatedAt, d.ExpiresAt, d.PolledAt = fromMicros(created), fromMicros(expires), fromMicros(polled)
	d.Interval = time.Duration(interval) * time.Microsecond
	d.Scopes, err = fromJSON[[]bailey.Scope](scopes)
	return d, err
}

// CreateDevice stores a pending device authorization under the hashes of its
// codes. Conflict when one of them is taken, TooMany when there are too many.
// Rows that expired an hour ago are removed on the way.
func (s *Store) CreateDevice(ctx context.Context, d bailey.Device, deviceHash, codeHash string) error {
	if d.ID == "" || deviceHash == "" || codeHash == "" || d.ExpiresAt.IsZero() || len(d.Scopes) == 0 {
		return bailey.Errorf(bailey.Invalid, "a device authorization needs an id, two codes, scopes and an expiry")
	}
	scopes, err := toJSON(d.Scopes)
	if err != nil {
		return fail("create device", err)
	}
	return s.change(ctx, "create device", func(ctx context.Context, r runner) error {
		if _, err := r.exec(ctx, `DELETE FROM devices WHERE expires_at <= ?`, s.clock().Add(-keepDevices)); err != nil {
			return err
		}
		n, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM devices`)
		if err != nil {
			return err
		}
		if n >= maxDevices {
			return &bailey.Error{Kind: bailey.TooMany, Msg: "too many programs are asking to sign in", Hint: "try again in a few minutes"}
		}
		_, err = r.exec(ctx, `INSERT INTO devices
			(id, device_hash, code_hash, state, note, scopes, ip, user_id, created_at, expires_at, polled_at, poll_interval)
			VALUES (?, ?, ?, 'pending', ?, ?, ?, '', ?, ?, 0, ?)`,
			d.ID, deviceHash, codeHash, clean(d.Note, shortText), scopes, clean(d.IP, shortText), d.CreatedAt, d.ExpiresAt,
			d.Interval.Microseconds())
		if isDuplicate(err) {
			return bailey.Errorf(bailey.Conflict, "there is such a code already")
		}
		return err
	})
}

// DeviceByCode returns the device authorization whose code a person typed, in
// whatever state. NotFound when there is none or it has expired.
func (s *Store) DeviceByCode(ctx context.Context, codeHash string) (bailey.Device, error) {
	d, err := one(ctx, s.reads(), scanDevice, deviceColumns+`WHERE d.code_hash = ? AND d.expires_at > ?`, codeHash, s.clock())
	return d, fail("device by code", found("device authorization", err))
}

// AnswerDevice stores a person's answer to a pending device authorization.
// NotFound when there is none that is pending and has not expired.
func (s *Store) AnswerDevice(ctx context.Context, id, userID string, answer bailey.DeviceState) error {
	return s.update(ctx, "answer device", "device authorization",
		`UPDATE devices SET state = ?, user_id = ? WHERE id = ? AND state = 'pending' AND expires_at > ?`,
		string(answer), userID, id, s.clock())
}

// PollDevice notes that a program asks again and returns its authorization as
// it is; early says that it came before its interval was over, which is then
// longer by slower. NotFound when there is none.
func (s *Store) PollDevice(ctx context.Context, deviceHash string, slower time.Duration) (d bailey.Device, early bool, err error) {
	err = s.change(ctx, "poll device", func(ctx context.Context, r runner) error {
		lock := ""
		if s.pg {
			lock = ` FOR UPDATE`
		}
		d, err = one(ctx, r, scanDevice, deviceColumns+`WHERE d.device_hash = ?`+lock, deviceHash)
		if err != nil {
			return found("device authorization", err)
		}
		now := s.clock()
		early = !d.PolledAt.IsZero() && now.Sub(d.PolledAt) < d.Interval
		if early {
			d.Interval += slower
		}
		d.PolledAt = now
		_, err = r.exec(ctx, `UPDATE devices SET polled_at = ?, poll_interval = ? WHERE id = ?`, now, d.Interval.Microseconds(), d.ID)
		return err
	})
	return d, early, err
}

// TakeDevice removes an approved device authorization: its token is fetched
// once. NotFound when there is none, it is not approved, or somebody was faster.
func (s *Store) TakeDevice(ctx context.Context, id string) error {
	return s.update(ctx, "take device", "device authorization", `DELETE FROM devices WHERE id = ? AND state = 'approved'`, id)
}

// DeleteDevices removes those that the user answered and whose tokens were not
// fetched.
func (s *Store) DeleteDevices(ctx context.Context, userID string) error {
	if userID == "" {
		return nil // those that nobody answered are nobody's
	}
	return s.change(ctx, "delete devices", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM devices WHERE user_id = ?`, userID)
		return err
	})
}

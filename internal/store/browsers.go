package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

func scanBrowser(row scanner) (b bailey.Browser, err error) {
	var created, seen, expires int64
	err = row.Scan(&b.ID, &b.UserID, &b.IP, &b.UserAgent, &created, &seen, &expires)
	b.CreatedAt, b.SeenAt, b.ExpiresAt = fromMicros(created), fromMicros(seen), fromMicros(expires)
	return b, err
}

const browserColumns = `SELECT id, user_id, ip, user_agent, created_at, seen_at, expires_at FROM known_browsers `

// keepBrowsers is how many browsers one user is known by.
const keepBrowsers = 20

// CreateBrowser stores a browser under the hash of its secret. Of too many of
// one user those seen longest ago go.
func (s *Store) CreateBrowser(ctx context.Context, d bailey.Browser, secretHash string) error {
	return s.change(ctx, "store browser", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM known_browsers WHERE user_id = ? AND (expires_at <= ? OR id NOT IN
			(SELECT id FROM known_browsers WHERE user_id = ? ORDER BY seen_at DESC, id DESC LIMIT ?))`, d.UserID, s.clock(), d.UserID, keepBrowsers-1)
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO known_browsers (id, user_id, secret_hash, ip, user_agent, created_at, seen_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			d.ID, d.UserID, secretHash, clean(d.IP, shortText), clean(d.UserAgent, shortText), d.CreatedAt, d.SeenAt, d.ExpiresAt)
		return credentialError("browser", err)
	})
}

// BrowserByHash returns the browser with the secret; NotFound when there is none
// or its time is over.
func (s *Store) BrowserByHash(ctx context.Context, secretHash string) (bailey.Browser, error) {
	d, err := one(ctx, s.reads(), scanBrowser, browserColumns+`WHERE secret_hash = ? AND expires_at > ?`, secretHash, s.clock())
	return d, fail("browser by hash", found("browser", err))
}

// TouchBrowser notes a sign-in from the browser; NotFound when there is none.
func (s *Store) TouchBrowser(ctx context.Context, id, ip string, seen, expires time.Time) error {
	return s.update(ctx, "touch browser", "browser", `UPDATE known_browsers SET ip = ?, seen_at = ?, expires_at = ? WHERE id = ?`, clean(ip, shortText), seen, expires, id)
}

// Browsers lists the browsers that the user is known by, the last used first.
func (s *Store) Browsers(ctx context.Context, userID string) ([]bailey.Browser, error) {
	all, err := list(ctx, s.reads(), scanBrowser, browserColumns+`WHERE user_id = ? AND expires_at > ? ORDER BY seen_at DESC, id DESC`, userID, s.clock())
	return all, fail("list browsers", err)
}

// DeleteBrowser forgets a browser of the user; NotFound when it is not theirs.
func (s *Store) DeleteBrowser(ctx context.Context, userID, id string) error {
	return s.update(ctx, "delete browser", "browser", `DELETE FROM known_browsers WHERE user_id = ? AND id = ?`, userID, id)
}

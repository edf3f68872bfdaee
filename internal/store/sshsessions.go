package store

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

const sshSessionColumns = `SELECT id, connection, server, user_id, user_name, workspace_id, workspace_name, class, run, kind, target,
	client, client_version, key_print, began_at, ended_at, bytes_in, bytes_out, exit_code, end_reason, recording, size, digest
	FROM ssh_sessions `

func scanSSHSession(row scanner) (bailey.SSHSession, error) {
	var s bailey.SSHSession
	var began, ended int64
	err := row.Scan(&s.ID, &s.Connection, &s.Server, &s.UserID, &s.User, &s.WorkspaceID, &s.Workspace, &s.Class, &s.Run, (*string)(&s.Kind), &s.Target,
		&s.Client, &s.ClientVersion, &s.Key, &began, &ended, &s.In, &s.Out, &s.Exit, &s.End, (*string)(&s.Recording), &s.Size, &s.Digest)
	s.BeganAt, s.EndedAt = fromMicros(began), fromMicros(ended)
	return s, err
}

// BeginSSHSession stores a session that begins. Conflict when there is one with
// its id, Invalid when it is not complete.
func (s *Store) BeginSSHSession(ctx context.Context, n bailey.SSHSession) error {
	if n.ID == "" || n.UserID == "" || n.Server == "" || !n.Kind.Valid() || n.BeganAt.IsZero() {
		return bailey.Errorf(bailey.Invalid, "an SSH session needs an id, a server, a user, a kind and a beginning")
	}
	if n.Recording != bailey.RecordingOpen {
		n.Recording = bailey.RecordingNone
	}
	return s.change(ctx, "begin an SSH session", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO ssh_sessions (id, connection, server, user_id, user_name, workspace_id, workspace_name, class, run, kind, target,
			client, client_version, key_print, began_at, ended_at, bytes_in, bytes_out, exit_code, end_reason, recording, size, digest)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, -1, '', ?, 0, '')`,
			n.ID, n.Connection, n.Server, n.UserID, clean(n.User, shortText), n.WorkspaceID, clean(n.Workspace, shortText), n.Class, n.Run, string(n.Kind), clean(n.Target, longText),
			clean(n.Client, shortText), clean(n.ClientVersion, shortText), clean(n.Key, shortText), n.BeganAt, string(n.Recording))
		if isDuplicate(err) {
			return bailey.Errorf(bailey.Conflict, "there is such an SSH session already")
		}
		return err
	})
}

// EndSSHSession stores how a session ended: its end, bytes, exit, reason, and
// what there is of its recording. NotFound when there is none that lives.
func (s *Store) EndSSHSession(ctx context.Context, n bailey.SSHSession) error {
	if n.EndedAt.IsZero() {
		n.EndedAt = s.clock()
	}
	return s.update(ctx, "end an SSH session", "SSH session", `UPDATE ssh_sessions SET ended_at = ?, bytes_in = ?, bytes_out = ?,
		exit_code = ?, end_reason = ?, recording = ?, size = ?, digest = ? WHERE id = ? AND ended_at = 0`,
		n.EndedAt, n.In, n.Out, n.Exit, clean(n.End, shortText), string(n.Recording), n.Size, n.Digest, n.ID)
}

// EndSSHSessions ends every session of a server that lives, as one that was
// lost: a server that begins has none. It returns how many there were.
func (s *Store) EndSSHSessions(ctx context.Context, server string, at time.Time) (int64, error) {
	var n int64
	err := s.change(ctx, "end lost SSH sessions", func(ctx context.Context, r runner) error {
		var err error
		n, err = r.exec(ctx, `UPDATE ssh_sessions SET ended_at = ?, end_reason = 'lost',
			recording = CASE WHEN recording = 'open' THEN 'cut' ELSE recording END WHERE server = ? AND ended_at = 0`, at, server)
		return err
	})
	return n, err
}

// SSHSession returns a session; NotFound when there is none.
func (s *Store) SSHSession(ctx context.Context, id string) (bailey.SSHSession, error) {
	n, err := one(ctx, s.reads(), scanSSHSession, sshSessionColumns+`WHERE id = ?`, id)
	return n, fail("read an SSH session", found("SSH session", err))
}

// SSHSessions lists sessions, the newest first.
func (s *Store) SSHSessions(ctx context.Context, f bailey.SSHFilter) ([]bailey.SSHSession, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	all, err := list(ctx, s.reads(), scanSSHSession, sshSessionColumns+`WHERE (? = '' OR user_id = ?)
		AND (? = '' OR user_id = ? OR user_name = ?) AND (? = '' OR kind = ?)
		AND (? = '' OR workspace_id = ? OR workspace_name = ?) AND (? = 0 OR ended_at = 0)
		AND (? = '' OR (began_at, id) < (SELECT p.began_at, p.id FROM ssh_sessions p WHERE p.id = ?))
		ORDER BY began_at DESC, id DESC LIMIT ?`,
		f.UserID, f.UserID, f.User, f.User, f.User, string(f.Kind), string(f.Kind), f.Workspace, f.Workspace, f.Workspace, f.Live, f.Before, f.Before, min(limit, 1000))
	return all, fail("list SSH sessions", err)
}

// ForgetSSHRecording stores that a session's recording was deleted. It is no
// error when the session is not in the index.
func (s *Store) ForgetSSHRecording(ctx context.Context, id string) error {
	return s.change(ctx, "forget a recording", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `UPDATE ssh_sessions SET recording = 'deleted', size = 0 WHERE id = ? AND recording <> 'none'`, id)
		return err
	})
}

// DeleteSSHSessions removes sessions of a server that ended before a time, and
// returns how many those were.
func (s *Store) DeleteSSHSessions(ctx context.Context, server string, before time.Time) (int64, error) {
	var n int64
	err := s.change(ctx, "delete old SSH sessions", func(ctx context.Context, r runner) error {
		var err error
		n, err = r.exec(ctx, `DELETE FROM ssh_sessions WHERE server = ? AND ended_at > 0 AND ended_at < ?`, server, before)
		return err
	})
	return n, err
}

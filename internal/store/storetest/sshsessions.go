package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// A session begins and ends, people's sessions are their own, and the index
// says what became of each.
func sshSessions() []story {
	return []story{
		{"an SSH session lives until it has ended, once", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			s := w.shell(alice, "one")
			got, err := w.SSHSession(w.Context(), s.ID)
			w.must(err)
			if got != s {
				w.Errorf("read back %+v, stored %+v", got, s)
			}
			s.EndedAt, s.In, s.Out, s.Exit, s.End = w.clock.move(time.Minute), 3, 5<<32, 255, "exited"
			s.Recording, s.Size, s.Digest = bailey.RecordingWhole, 7<<32, strings.Repeat("ab", 32)
			w.must(w.EndSSHSession(w.Context(), s))
			if got, err = w.SSHSession(w.Context(), s.ID); err != nil || got != s {
				w.Errorf("after its end: %+v, %v; want %+v", got, err, s)
			}
			w.refused(w.EndSSHSession(w.Context(), s), bailey.NotFound)
			w.refused(w.BeginSSHSession(w.Context(), s), bailey.Conflict)
			_, err = w.SSHSession(w.Context(), bailey.NewID())
			w.refused(err, bailey.NotFound)
			for _, spoil := range []func(*bailey.SSHSession){
				func(s *bailey.SSHSession) { s.ID = "" },
				func(s *bailey.SSHSession) { s.UserID = "" },
				func(s *bailey.SSHSession) { s.Server = "" },
				func(s *bailey.SSHSession) { s.Kind = "telnet" },
				func(s *bailey.SSHSession) { s.BeganAt = time.Time{} },
			} {
				bad := s
				spoil(&bad)
				w.refused(w.BeginSSHSession(w.Context(), bad), bailey.Invalid)
			}
		}},
		{"a client's name for itself is stored, whatever is in it", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			s := w.newShell(alice, "one")
			s.ClientVersion = "SSH-2.0-\x00\xff\x1b]0;x\a" + strings.Repeat("long", 400)
			w.must(w.BeginSSHSession(w.Context(), s))
			got, err := w.SSHSession(w.Context(), s.ID)
			w.must(err)
			if !strings.HasPrefix(got.ClientVersion, "SSH-2.0-\uFFFD\uFFFD\x1b]0;x") || len(got.ClientVersion) > 512 {
				w.Errorf("stored %q", got.ClientVersion)
			}
		}},
		{"lists are by person, by workspace, of the living, and in pages", func(w *world) {
			alice, bob := w.user("alice", bailey.RoleUser), w.user("bob", bailey.RoleUser)
			a1, b1, a2 := w.shell(alice, "one"), w.shell(bob, "two"), w.shell(alice, "two")
			a1.EndedAt = w.clock.move(time.Second)
			w.must(w.EndSSHSession(w.Context(), a1))
			for _, tt := range []struct {
				filter bailey.SSHFilter
				want   []string
			}{
				{bailey.SSHFilter{}, []string{a2.ID, b1.ID, a1.ID}},
				{bailey.SSHFilter{UserID: alice.ID}, []string{a2.ID, a1.ID}},
				{bailey.SSHFilter{UserID: bob.ID}, []string{b1.ID}},
				{bailey.SSHFilter{UserID: bob.ID, Workspace: "one"}, nil},
				{bailey.SSHFilter{User: "alice"}, []string{a2.ID, a1.ID}},
				{bailey.SSHFilter{User: bob.ID}, []string{b1.ID}},
				{bailey.SSHFilter{UserID: alice.ID, User: "bob"}, nil},
				{bailey.SSHFilter{Kind: bailey.SSHExec}, nil},
				{bailey.SSHFilter{Kind: bailey.SSHShell, User: "bob"}, []string{b1.ID}},
				{bailey.SSHFilter{Workspace: "two"}, []string{a2.ID, b1.ID}},
				{bailey.SSHFilter{Workspace: a1.WorkspaceID}, []string{a1.ID}},
				{bailey.SSHFilter{Live: true}, []string{a2.ID, b1.ID}},
				{bailey.SSHFilter{Limit: 1}, []string{a2.ID}},
				{bailey.SSHFilter{Before: a2.ID, Limit: 1}, []string{b1.ID}},
				{bailey.SSHFilter{Workspace: "two\x00"}, nil},
			} {
				all, err := w.SSHSessions(w.Context(), tt.filter)
				w.must(err)
				var got []string
				for _, s := range all {
					got = append(got, s.ID)
				}
				if !slices.Equal(got, tt.want) {
					w.Errorf("sessions by %+v: %v, want %v", tt.filter, got, tt.want)
				}
			}
		}},
		{"a server that begins has no living sessions, and another's stay", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			mine, open, ended := w.shell(alice, "one"), w.newShell(alice, "one"), w.shell(alice, "one")
			open.Recording = bailey.RecordingOpen
			w.must(w.BeginSSHSession(w.Context(), open))
			ended.EndedAt, ended.End, ended.Recording = w.clock.Now(), "exited", bailey.RecordingWhole
			w.must(w.EndSSHSession(w.Context(), ended))
			other := w.newShell(alice, "one")
			other.Server = "other"
			w.must(w.BeginSSHSession(w.Context(), other))
			at := w.clock.move(time.Hour)
			n, err := w.EndSSHSessions(w.Context(), "here", at)
			w.must(err)
			if n != 2 {
				w.Errorf("%d sessions were lost, want 2", n)
			}
			for id, want := range map[string]bailey.SSHSession{
				mine.ID:  {End: "lost", EndedAt: at, Recording: bailey.RecordingNone},
				open.ID:  {End: "lost", EndedAt: at, Recording: bailey.RecordingCut},
				ended.ID: {End: "exited", EndedAt: ended.EndedAt, Recording: bailey.RecordingWhole},
				other.ID: {Recording: bailey.RecordingNone},
			} {
				got, err := w.SSHSession(w.Context(), id)
				w.must(err)
				if got.End != want.End || !got.EndedAt.Equal(want.EndedAt) || got.Recording != want.Recording {
					w.Errorf("session: %+v, want %+v", got, want)
				}
			}
		}},
		{"a recording goes and its session stays, until that is old too; a deleted account changes neither", func(w *world) {
			alice := w.user("alice", bailey.RoleUser)
			s, never := w.newShell(alice, "one"), w.shell(alice, "one")
			s.Recording = bailey.RecordingOpen
			w.must(w.BeginSSHSession(w.Context(), s))
			s.EndedAt, s.Recording, s.Size = w.clock.Now(), bailey.RecordingWhole, 99
			w.must(w.EndSSHSession(w.Context(), s))
			w.must(w.ForgetSSHRecording(w.Context(), s.ID))
			w.must(w.ForgetSSHRecording(w.Context(), never.ID))
			w.must(w.ForgetSSHRecording(w.Context(), bailey.NewID()))
			if got, err := w.SSHSession(w.Context(), s.ID); err != nil || got.Recording != bailey.RecordingDeleted || got.Size != 0 {
				w.Errorf("after its recording was deleted: %+v, %v", got, err)
			}
			if got, err := w.SSHSession(w.Context(), never.ID); err != nil || got.Recording != bailey.RecordingNone {
				w.Errorf("what was never recorded: %+v, %v", got, err)
			}
			w.must(w.DeleteUser(w.Context(), alice.ID))
			if got, err := w.SSHSession(w.Context(), s.ID); err != nil || got.User != "alice" {
				w.Errorf("after the account was deleted: %+v, %v", got, err)
			}
			for server, want := range map[string]int64{"other": 0, "here": 1} {
				n, err := w.DeleteSSHSessions(w.Context(), server, s.EndedAt.Add(time.Second))
				w.must(err)
				if n != want {
					w.Errorf("%d sessions of %s were old, want %d", n, server, want)
				}
			}
			if _, err := w.SSHSession(w.Context(), never.ID); err != nil {
				w.Errorf("a session that lives was deleted: %v", err)
			}
		}},
	}
}

// newShell returns a session of the user that was not stored.
func (w *world) newShell(u bailey.User, workspace string) bailey.SSHSession {
	return bailey.SSHSession{
		ID: bailey.NewID(), Connection: "c1", Server: "here", UserID: u.ID, User: u.Name, WorkspaceID: bailey.NewID(), Workspace: workspace,
		Class: "small", Run: bailey.NewID(), Kind: bailey.SSHShell, Client: "192.0.2.1", ClientVersion: "SSH-2.0-OpenSSH_10.0",
		Key: "SHA256:abc", BeganAt: w.clock.move(time.Second), Exit: -1, Recording: bailey.RecordingNone,
	}
}

// shell stores a session of the user.
func (w *world) shell(u bailey.User, workspace string) bailey.SSHSession {
	w.Helper()
	s := w.newShell(u, workspace)
	w.must(w.BeginSSHSession(w.Context(), s))
	return s
}

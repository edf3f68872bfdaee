package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// sshSession begins a session of somebody's; killed gets the reason it is ended for.
func (s *site) sshSession(owner, workspace string) (id string, taken sshlive.Recording, killed chan string) {
	s.t.Helper()
	m := sshlive.Meta{
		ID: bailey.NewID(), ConnID: bailey.NewID(), Kind: sshlive.Shell, UserID: s.User(owner).ID, User: owner, WorkspaceID: bailey.NewID(),
		Workspace: workspace, Class: "small", TTY: true, Term: "xterm", Cols: 80, Rows: 24, IP: "192.0.2.7",
		Client: "SSH-2.0-<script>alert(1)</script>", Started: time.Now(),
	}
	taken, err := s.SSH.Begin(s.t.Context(), m)
	if err != nil {
		s.t.Fatal(err)
	}
	killed = make(chan string, 8)
	s.SSHLive.Add(m, func(reason string) { killed <- reason })
	return m.ID, taken, killed
}

// Alice sees her session and ends it; bob sees nothing of it and cannot; the
// auditor sees it and has no buttons; the administrator has them.
func TestSSHSessionsArePeoplesOwn(t *testing.T) {
	s := open(t)
	id, taken, killed := s.sshSession(Alice, "observatory")
	alice, bob, auditor, admin := s.browse(Alice), s.browse(Bob), s.browse(Auditor), s.browse(Admin)
	kill := "/sessions/" + id + "/kill"

	alice.get("/sessions").wantStatus(t, http.StatusOK, "alice.observatory", "shell", "192.0.2.7")
	if got := bob.get("/sessions"); got.status != http.StatusOK || strings.Contains(got.body, "observatory") {
		t.Errorf("bob sees %d %s", got.status, got.text())
	}
	if got := bob.post(kill); got.status != http.StatusNotFound {
		t.Errorf("bob ends alice's session: %d", got.status)
	}
	seen := auditor.get("/sessions")
	seen.wantStatus(t, http.StatusOK, "alice.observatory")
	if n := len(seen.forms()); n != 1 { // the sign-out
		t.Errorf("the auditor has %d forms", n)
	}
	if got := auditor.post(kill); got.status != http.StatusForbidden {
		t.Errorf("the auditor ends a session: %d", got.status)
	}
	alice.submit(alice.get("/sessions"), kill).wantRedirect(t, "/sessions")
	if got := <-killed; got != "ended by its owner" {
		t.Errorf("killed for %q", got)
	}
	admin.submit(admin.get("/sessions"), kill).wantRedirect(t, "/sessions")
	if got := <-killed; got != "ended by "+Admin {
		t.Errorf("killed for %q", got)
	}

	if err := taken.Output([]byte("hello\r\n\x1b]52;c;AAAA\a")); err != nil {
		t.Fatal(err)
	}
	if err := taken.Close(sshlive.End{ExitCode: 7}); err != nil {
		t.Fatal(err)
	}
	link := "/api/v1/ssh/sessions/" + id + "/recording?format=cast"
	shown := alice.get("/sessions")
	shown.wantStatus(t, http.StatusOK, "exited 7", "Download")
	if !strings.Contains(shown.body, `href="`+link+`"`) {
		t.Errorf("alice is shown no link to %s", link)
	}
	remove := "/sessions/" + id + "/delete-recording"
	for who, b := range map[string]*browser{Alice: alice, Auditor: auditor} {
		if got := b.post(remove); got.status != http.StatusForbidden {
			t.Errorf("%s deletes the recording: %d", who, got.status)
		}
	}
	admin.submit(admin.get("/sessions"), remove).wantRedirect(t, "/sessions")
	if shown = alice.get("/sessions"); strings.Contains(shown.body, link) || !strings.Contains(shown.text(), "deleted") {
		t.Errorf("a deleted recording is shown as %s", shown.text())
	}
	if n := len(s.Events(audit.RecordingGone)); n != 1 {
		t.Errorf("%d events of a deletion, want 1", n)
	}
}

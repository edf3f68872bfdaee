package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// What people and workspaces write stands on pages as text. The browser looks
// at each page for scripts and handlers; here is that the text is there at all.
func TestForeignTextStaysText(t *testing.T) {
	const evil = `</pre></title>"'><script>alert(1)</script><img src=x onerror=alert(2)><a href="javascript:alert(3)">{{.}}`
	s := open(t)
	ws := s.Launch(Alice, "lab")
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	shows := func(b *browser, path string) {
		t.Helper()
		got := b.get(path)
		got.wantStatus(t, http.StatusOK)
		if strings.Contains(got.body, "<script>alert") || strings.Contains(got.body, "<img src=x") || strings.Contains(got.body, `href="javascript:`) {
			t.Errorf("%s has it as markup: %s", path, got.body)
		}
		if !strings.Contains(got.body, "&lt;script&gt;alert(1)&lt;/script&gt;") {
			t.Errorf("%s does not show it: %s", path, got.text())
		}
	}
	alice, root := s.browse(Alice), s.browse(Admin)

	t.Run("output", func(t *testing.T) {
		s.Engine.SetLogs(ws.RunID, evil+"\x00\x1b[2J\xff\n")
		shows(alice, "/workspaces/lab")
		s.Engine.SetLogs(ws.RunID, "")
	})
	t.Run("self check", func(t *testing.T) {
		check(s.Store.SetSelfCheck(ctx, ws.RunID, evil))
		shows(alice, "/workspaces/lab")
		shows(root, "/workspaces/alice.lab")
		check(s.Store.SetSelfCheck(ctx, ws.RunID, "fine"))
	})
	t.Run("what the self check prints", func(t *testing.T) {
		s.Engine.SetExec(func(call enginetest.ExecCall) int {
			_, _ = call.Stdout.Write([]byte(`{"version":"<script>alert(1)</script>","sum":8}`))
			return 0
		})
		second := s.Launch(Alice, "second")
		s.Until("the self check is done", func() bool {
			got, err := s.Store.Workspace(ctx, second.ID)
			return err == nil && got.SelfCheck != ""
		})
		got := alice.get("/workspaces/second")
		got.wantStatus(t, http.StatusOK, "(unknown version)")
	})
	t.Run("stage", func(t *testing.T) {
		_, err := s.Store.AppendStage(ctx, bailey.Stage{Workspace: ws.ID, Run: ws.RunID, Name: evil, Status: `done" onclick="x`, Detail: evil, At: time.Now()})
		check(err)
		shows(alice, "/workspaces/lab")
	})
	t.Run("reason", func(t *testing.T) {
		check(s.Store.MarkStopping(ctx, ws.ID, evil))
		check(s.Store.EndRun(ctx, ws.RunID, true, evil, time.Now()))
		shows(alice, "/workspaces/lab")
		shows(alice, "/workspaces")
		shows(root, "/workspaces/alice.lab")
	})
	t.Run("browser", func(t *testing.T) {
		_, _, err := s.Identity.SignIn(ctx, identity.SignInRequest{Name: Alice, Password: secret.New(Password), IP: "192.0.2.1", UserAgent: evil})
		check(err)
		shows(alice, "/account")
	})
	t.Run("token note", func(t *testing.T) {
		got := alice.submit(alice.get("/account"), "/account/tokens", "note", evil[:64])
		got.wantStatus(t, http.StatusOK)
		shows(alice, "/account")
	})
	t.Run("names", func(t *testing.T) {
		// Behind the doors' grammar stands the store's: there is no such name
		// to be shown.
		const name = "<script>alert(1)</script>"
		if _, err := s.Store.CreateUser(ctx, bailey.User{Name: name, Role: bailey.RoleUser}, "none"); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("the store takes a user %s: %v", name, err)
		}
		if _, err := s.Store.CreateWorkspace(ctx, bailey.Workspace{OwnerID: s.User(Alice).ID, Name: name, Class: "small"}); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("the store takes a workspace %s: %v", name, err)
		}
	})
	t.Run("fields that come back", func(t *testing.T) {
		for _, got := range []page{
			alice.post("/workspaces", "name", evil, "class", evil),
			root.post("/admin/users", "name", evil, "password", "seven orange bridges", "role", evil, "groups", evil),
			s.browse(nobody).post("/signin", "name", evil, "password", "x", "open", evil, "n", evil),
		} {
			if got.status < 400 || strings.Contains(got.body, "<script>alert") || !strings.Contains(got.body, "&lt;script&gt;") {
				t.Errorf("%d %s", got.status, got.body)
			}
		}
		alice.get("/nosuch/%3Cscript%3Ealert(1)%3C/script%3E").wantStatus(t, http.StatusNotFound, "There is no such page.")
	})
}

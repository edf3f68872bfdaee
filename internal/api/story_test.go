package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

// The main job: launch, watch, use, stop, delete, and at last delete the files,
// which takes their name. Each step is in the journal.
func TestFromLaunchToTheLastFile(t *testing.T) {
	d := open(t)
	const all = "/api/v1/workspaces"
	var ws api.Workspace
	d.as(Alice, http.MethodPost, all, `{"class":"small"}`).into(t, http.StatusAccepted, &ws)
	if ws.Name != "small" || ws.Owner != Alice || ws.State != "starting" || !strings.Contains(ws.URL, ".localhost:") || ws.Run == "" || ws.GPUs == nil {
		t.Fatalf("launched %+v, want small of alice, starting", ws)
	}
	one := all + "/" + ws.ID
	d.follow(Alice, one+"/events", "", func(s api.Stage) bool { return s.Name != "ready" })
	d.as(Alice, http.MethodGet, one, "").into(t, http.StatusOK, &ws)
	if ws.State != "running" || ws.StartedAt == nil {
		t.Errorf("when ready: %+v, want running", ws)
	}
	var again api.Workspace
	d.as(Alice, http.MethodPost, all, `{"name":"small"}`).into(t, http.StatusAccepted, &again)
	if again.Run != ws.Run {
		t.Errorf("a second launch began run %s beside %s", again.Run, ws.Run)
	}
	d.as(Alice, http.MethodPost, all, `{"name":"small","class":"gpu"}`).problem(t, http.StatusConflict, "conflict")
	d.as(Alice, http.MethodPost, all, `{"name":"other","class":"missing"}`).problem(t, http.StatusServiceUnavailable, "unavailable")
	d.as(Bob, http.MethodPost, all, `{"name":"other","class":"secret"}`).problem(t, http.StatusNotFound, "not_found")

	var volumes struct{ Volumes []api.Volume }
	d.as(Alice, http.MethodGet, "/api/v1/volumes", "").into(t, http.StatusOK, &volumes)
	volume := volumes.Volumes[0]
	if len(volumes.Volumes) != 1 || volume.Name != "small" || volume.InUseBy != ws.ID {
		t.Fatalf("volumes %+v, want small, in use", volumes)
	}
	files := "/api/v1/volumes/" + volume.ID + "?confirm="
	d.as(Alice, http.MethodDelete, files+"small", "").problem(t, http.StatusConflict, "conflict")

	d.as(Alice, http.MethodPost, one+"/stop", "").into(t, http.StatusOK, &ws)
	if ws.State != "stopped" || ws.Reason != "stopped by its owner" {
		t.Errorf("stopped: %+v", ws)
	}
	d.as(Alice, http.MethodPost, one+"/start", "").into(t, http.StatusAccepted, &ws)
	d.Await(ws.ID, bailey.Running)
	if got := d.as(Alice, http.MethodDelete, one, ""); got.status != http.StatusNoContent || got.body != "" {
		t.Errorf("delete: %d %q", got.status, got.body)
	}
	d.as(Alice, http.MethodGet, one, "").problem(t, http.StatusNotFound, "not_found")

	d.as(Alice, http.MethodDelete, files+"Small", "").problem(t, http.StatusUnprocessableEntity, "invalid")
	d.as(Alice, http.MethodDelete, files, "").problem(t, http.StatusUnprocessableEntity, "invalid")
	d.as(Bob, http.MethodDelete, files+"small", "").problem(t, http.StatusNotFound, "not_found")
	if got := d.as(Alice, http.MethodDelete, files+"small", ""); got.status != http.StatusNoContent {
		t.Errorf("delete the files: %d %s", got.status, got.body)
	}
	d.as(Alice, http.MethodDelete, files+"small", "").problem(t, http.StatusNotFound, "not_found")

	for action, want := range map[string]int{"workspace.launch": 2, "workspace.stop": 1, "workspace.delete": 1, "volume.delete": 1} {
		var got struct{ Events []audit.Event }
		d.as(Auditor, http.MethodGet, "/api/v1/audit?actor=alice&outcome=success&action="+action, "").into(t, http.StatusOK, &got)
		if len(got.Events) != want {
			t.Errorf("%s: %d events, want %d: %+v", action, len(got.Events), want, got.Events)
		}
	}
}

// A quota says which limit was reached, as a refusal and not as a failure.
func TestOverQuota(t *testing.T) {
	d := open(t)
	for i := range 5 {
		d.Launch(Alice, fmt.Sprintf("w%d", i))
	}
	p := d.as(Alice, http.MethodPost, "/api/v1/workspaces", `{"name":"w5","class":"small"}`).problem(t, http.StatusForbidden, "quota")
	if !strings.Contains(p.Detail+p.Hint, "5") {
		t.Errorf("%+v does not say how many there may be", p)
	}
	if got := d.as(Bob, http.MethodPost, "/api/v1/workspaces", `{"name":"w5","class":"small"}`); got.status != http.StatusAccepted {
		t.Errorf("bob, who has none: %d %s", got.status, got.body)
	}
}

// follow reads a launch's stages, after those that lastID names, until more
// says enough. It returns the ids that were seen.
func (d *door) follow(who, path, lastID string, more func(api.Stage) bool) (ids []string) {
	d.t.Helper()
	resp := d.stream(who, path, lastID)
	defer resp.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			ids = append(ids, id)
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var s api.Stage
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			d.t.Fatalf("stage %q: %v", data, err)
		}
		if strconv.FormatInt(s.Seq, 10) != ids[len(ids)-1] {
			d.t.Errorf("id %s on stage %+v", ids[len(ids)-1], s)
		}
		if !more(s) {
			return ids
		}
	}
	d.t.Fatalf("the stream ended after %v: %v", ids, lines.Err())
	return nil
}

func (d *door) stream(who, path, lastID string) *http.Response {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	d.t.Cleanup(cancel)
	req := d.request(http.MethodGet, path, "", "Authorization", "Bearer "+d.token(who)).WithContext(ctx)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := d.client.Do(req) //nolint:bodyclose // the caller's
	if err != nil {
		d.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		d.t.Fatalf("GET %s: %s %v", path, resp.Status, resp.Header)
	}
	return resp
}

// Whoever comes back with the last id goes on there, without loss and without
// hearing anything twice.
func TestFollowResumes(t *testing.T) {
	d := open(t)
	ws := d.Launch(Alice, "lab")
	events := "/api/v1/workspaces/lab/events"
	untilReady := func(s api.Stage) bool { return s.Name != "ready" }
	whole := d.follow(Alice, events, "", untilReady)
	if len(whole) < 5 {
		t.Fatalf("a launch had the stages %v, want more", whole)
	}
	for i, id := range whole[:len(whole)-1] {
		if got := d.follow(Alice, events, id, untilReady); !slices.Equal(got, whole[i+1:]) {
			t.Errorf("after %s: %v, want %v", id, got, whole[i+1:])
		}
		if got := d.follow(Alice, events+"?after="+id, "", untilReady); !slices.Equal(got, whole[i+1:]) {
			t.Errorf("?after=%s: %v, want %v", id, got, whole[i+1:])
		}
	}
	// What happens while somebody listens arrives.
	seen := make(chan []string)
	go func() {
		seen <- d.follow(Alice, events, whole[len(whole)-1], func(s api.Stage) bool { return s.Name != "stopped" })
	}()
	if _, err := d.Workspaces.Stop(t.Context(), d.Actor(Alice), ws.ID); err != nil {
		t.Error(err)
	}
	if got := <-seen; len(got) == 0 {
		t.Error("nothing was heard of the stop")
	}
}

// A stream ends with the credential it was opened with, and with nobody else's.
func TestFollowEndsWithTheCredential(t *testing.T) {
	d := open(t)
	ws := d.Launch(Alice, "lab")
	second, row := d.Token(Alice)
	stays := d.stream(Alice, "/api/v1/workspaces/lab/events", "")
	defer stays.Body.Close() //nolint:errcheck // only read
	ends, err := d.client.Do(d.request(http.MethodGet, "/api/v1/workspaces/lab/events", "", "Authorization", "Bearer "+second))
	if err != nil {
		t.Fatal(err)
	}
	defer ends.Body.Close() //nolint:errcheck // only read
	first := bufio.NewReader(ends.Body)
	if line, err := first.ReadString('\n'); line != "retry: 2000\n" {
		t.Fatalf("the stream begins with %q, %v", line, err)
	}
	if got := d.as(Alice, http.MethodDelete, "/api/v1/me/tokens/"+row.ID, ""); got.status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", got.status, got.body)
	}
	over := make(chan error, 1)
	go func() {
		for {
			if _, err := first.ReadString('\n'); err != nil {
				over <- err
				return
			}
		}
	}()
	select {
	case err := <-over:
		t.Logf("it ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("30 s after the token was revoked its stream is open")
	}
	// The other one still hears of things.
	if _, err := d.Workspaces.Stop(t.Context(), d.Actor(Alice), ws.ID); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stays.Body); ; {
		if !lines.Scan() {
			t.Fatalf("the other stream ended too: %v", lines.Err())
		}
		if strings.Contains(lines.Text(), `"name":"stopped"`) {
			return
		}
	}
}

// Output is the tenant's text: it comes as it is, and never as a page.
func TestLogsAreText(t *testing.T) {
	d := open(t)
	ws := d.Launch(Alice, "lab")
	d.Engine.SetLogs(ws.RunID, "one\n<script>alert(document.cookie)</script>\n\x1b[31mred\x1b[0m\n")
	got := d.as(Alice, http.MethodGet, "/api/v1/workspaces/lab/logs", "", "Accept", "text/html")
	if got.status != http.StatusOK || !strings.Contains(got.body, "<script>alert") {
		t.Errorf("logs: %d %q", got.status, got.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := got.header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	if got := d.as(Alice, http.MethodGet, "/api/v1/workspaces/lab/logs?tail=1", ""); strings.Contains(got.body, "one") || !strings.Contains(got.body, "red") {
		t.Errorf("tail=1: %q", got.body)
	}
	d.as(Admin, http.MethodGet, "/api/v1/workspaces/alice.lab/logs", "").problem(t, http.StatusForbidden, "denied")
	if _, err := d.Workspaces.Stop(t.Context(), d.Actor(Alice), ws.ID); err != nil {
		t.Fatal(err)
	}
	d.as(Alice, http.MethodGet, "/api/v1/workspaces/lab/logs", "").problem(t, http.StatusConflict, "conflict")
}

// A container that no run accounts for is shown to staff, and left alone.
func TestOrphans(t *testing.T) {
	d := open(t)
	id, err := d.Engine.Create(t.Context(), orphanSpec(t, d))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Orphans []api.Orphan }
	d.as(Auditor, http.MethodGet, "/api/v1/orphans", "").into(t, http.StatusOK, &got)
	if len(got.Orphans) != 1 || got.Orphans[0].Container != id || got.Orphans[0].Running || got.Orphans[0].StartedAt != nil {
		t.Errorf("orphans %+v, want %s, never started", got.Orphans, id)
	}
}

// orphanSpec is alice's workspace's, as another server's past might have left it.
func orphanSpec(t *testing.T, d *door) engine.Spec {
	t.Helper()
	ws := d.Launch(Alice, "lab")
	spec := d.Engine.Specs()[ws.RunID]
	spec.Run, spec.Workspace = bailey.NewID(), bailey.NewID()
	return spec
}

// The administrator's work: an account is made, changed, disabled, deleted.
func TestAccounts(t *testing.T) {
	d := open(t)
	const users, carol = "/api/v1/users", "/api/v1/users/carol"
	var u api.User
	d.as(Admin, http.MethodPost, users, `{"name":"carol","password":"seven orange bridges","groups":["b","a","a"]}`).into(t, http.StatusCreated, &u)
	if u.Name != "carol" || u.Role != "user" || !slices.Equal(u.Groups, []string{"a", "b"}) || u.UID < 20000 || u.Disabled {
		t.Errorf("made %+v", u)
	}
	d.as(Admin, http.MethodPost, users, `{"name":"carol","password":"seven orange bridges"}`).problem(t, http.StatusConflict, "conflict")
	if p := d.as(Admin, http.MethodPost, users, `{"name":"dora","password":"short"}`).problem(t, http.StatusUnprocessableEntity, "invalid"); !strings.Contains(p.Detail, "shorter") {
		t.Errorf("a short password: %+v", p)
	}
	signIn := func(password string) int {
		return d.as(nobody, http.MethodPost, "/api/v1/tokens/signin", `{"user":"carol","password":"`+password+`"}`).status
	}
	if got := signIn("seven orange bridges"); got != http.StatusOK {
		t.Errorf("carol signs in: %d", got)
	}
	d.as(Admin, http.MethodPatch, carol, `{"role":"auditor","groups":[]}`).into(t, http.StatusOK, &u)
	if u.Role != "auditor" || len(u.Groups) != 0 {
		t.Errorf("changed to %+v", u)
	}
	d.as(Admin, http.MethodPatch, carol, `{"password":"eight yellow bridges"}`).into(t, http.StatusOK, &u)
	if old, fresh := signIn("seven orange bridges"), signIn("eight yellow bridges"); old != http.StatusUnauthorized || fresh != http.StatusOK {
		t.Errorf("after the reset the old password gives %d, the new one %d", old, fresh)
	}
	d.as(Admin, http.MethodPatch, carol, `{"disabled":true}`).into(t, http.StatusOK, &u)
	if got := signIn("eight yellow bridges"); got != http.StatusUnauthorized || !u.Disabled {
		t.Errorf("disabled %+v signs in: %d", u, got)
	}
	if got := d.as(Admin, http.MethodDelete, carol, ""); got.status != http.StatusNoContent {
		t.Errorf("delete: %d %s", got.status, got.body)
	}
	d.as(Admin, http.MethodDelete, carol, "").problem(t, http.StatusNotFound, "not_found")
	d.as(Admin, http.MethodPatch, "/api/v1/users/"+Admin, `{"role":"user"}`).problem(t, http.StatusConflict, "conflict")
	d.Launch(Alice, "lab")
	d.as(Admin, http.MethodDelete, "/api/v1/users/alice", "").problem(t, http.StatusConflict, "conflict")
}

// Whoever changes the password needs the old one; other sessions end, tokens
// are shown without their secret, and a token makes none that outlives it.
func TestOnesOwnAccount(t *testing.T) {
	d := open(t)
	here, elsewhere := d.Session(Alice), d.Session(Alice)
	page := []string{"Sec-Fetch-Site", "same-origin"}
	d.withCookie(here, http.MethodPost, "/api/v1/me/password", `{"old":"wrong","new":"eight yellow bridges"}`, page...).problem(t, http.StatusForbidden, "denied")
	if got := d.withCookie(here, http.MethodPost, "/api/v1/me/password", `{"old":"`+Password+`","new":"eight yellow bridges"}`, page...); got.status != http.StatusNoContent {
		t.Fatalf("change: %d %s", got.status, got.body)
	}
	d.withCookie(elsewhere, http.MethodGet, "/api/v1/me", "").problem(t, http.StatusUnauthorized, "unauthenticated")
	var sessions struct{ Sessions []api.Session }
	d.withCookie(here, http.MethodGet, "/api/v1/me/sessions", "").into(t, http.StatusOK, &sessions)
	if len(sessions.Sessions) != 1 || !sessions.Sessions[0].Current {
		t.Errorf("sessions %+v, want this one", sessions)
	}
	var made api.NewToken
	d.withCookie(here, http.MethodPost, "/api/v1/me/tokens", `{"note":"short <b>","days":1}`, page...).into(t, http.StatusOK, &made)
	list := d.withCookie(here, http.MethodGet, "/api/v1/me/tokens", "")
	if strings.Contains(list.body, made.Token) || strings.Contains(list.body, "<b>") || !strings.Contains(list.body, made.ID) {
		t.Errorf("tokens: %s", list.body)
	}
	d.send(d.request(http.MethodPost, "/api/v1/me/tokens", `{"note":"longer","days":30}`, "Authorization", "Bearer "+made.Token)).
		problem(t, http.StatusForbidden, "denied")
	var child api.NewToken
	d.send(d.request(http.MethodPost, "/api/v1/me/tokens", `{"note":"child"}`, "Authorization", "Bearer "+made.Token)).into(t, http.StatusOK, &child)
	if child.Expiry.After(made.Expiry) {
		t.Errorf("the child lives until %s, its parent until %s", child.Expiry, made.Expiry)
	}
}

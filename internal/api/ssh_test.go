package api_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// A shell is a session as the SSH door has it.
type shell struct {
	sshlive.Recording

	id     string
	entry  *sshlive.Entry
	killed chan string
}

func (d *door) ssh(owner string, change func(*sshlive.Meta)) *shell {
	d.t.Helper()
	m := sshlive.Meta{
		ID: bailey.NewID(), ConnID: bailey.NewID(), Kind: sshlive.Shell, UserID: d.User(owner).ID, User: owner, WorkspaceID: bailey.NewID(),
		Workspace: "lab", Class: "small", TTY: true, Term: "xterm", Cols: 80, Rows: 24, IP: "192.0.2.7", Client: "SSH-2.0-x", Started: time.Now(), Strict: true,
	}
	if change != nil {
		change(&m)
	}
	s := &shell{id: m.ID, killed: make(chan string, 8)}
	var err error
	if s.Recording, err = d.SSH.Begin(d.t.Context(), m); err != nil {
		d.t.Fatal(err)
	}
	s.entry = d.SSHLive.Add(m, func(reason string) { s.killed <- reason })
	return s
}

// shows is what the door does with output.
func (s *shell) shows(t *testing.T, text string) {
	t.Helper()
	s.entry.Show([]byte(text))
	if err := s.Output([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (s *shell) end(t *testing.T, exit int) {
	t.Helper()
	s.entry.Remove()
	if err := s.Close(sshlive.End{ExitCode: exit, Up: 3, Down: 5}); err != nil {
		t.Fatal(err)
	}
}

const sessions = "/api/v1/ssh/sessions"

// want fails the test unless the answer has the status.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// Who sees, watches, replays, ends and deletes a session: alice her own, bob
// nothing, the auditor what was and is and no more, the administrator all.
func TestWhoMayDoWhatToASession(t *testing.T) {
	d := open(t)
	s := d.ssh(Alice, nil)
	s.shows(t, "hello\r\n")
	one := sessions + "/" + s.id

	type list struct{ Sessions []api.SSHSession }
	for who, want := range map[string]int{Alice: 1, Bob: 0, Auditor: 0, Admin: 0} {
		var got list
		d.as(who, http.MethodGet, sessions, "").into(t, http.StatusOK, &got)
		if len(got.Sessions) != want {
			t.Errorf("%s has %d sessions, want %d", who, len(got.Sessions), want)
		}
	}
	for _, who := range []string{Alice, Bob} {
		d.as(who, http.MethodGet, sessions+"?all=true", "").problem(t, http.StatusForbidden, "denied")
	}
	for _, who := range []string{Auditor, Admin} {
		var got list
		d.as(who, http.MethodGet, sessions+"?all=true&user="+Alice+"&kind=shell&live=true", "").into(t, http.StatusOK, &got)
		if len(got.Sessions) != 1 || got.Sessions[0].User != Alice || got.Sessions[0].Recording != "open" || got.Sessions[0].EndedAt != nil {
			t.Errorf("%s sees %+v", who, got)
		}
	}
	for _, path := range []string{"", "/recording", "/watch"} {
		d.as(Bob, http.MethodGet, one+path, "").problem(t, http.StatusNotFound, "not_found")
	}
	d.as(Bob, http.MethodPost, one+"/kill", "").problem(t, http.StatusNotFound, "not_found")
	d.as(Bob, http.MethodDelete, one+"/recording", "").problem(t, http.StatusNotFound, "not_found")
	d.as(Auditor, http.MethodPost, one+"/kill", "").problem(t, http.StatusForbidden, "denied")
	d.as(nobody, http.MethodGet, one, "").problem(t, http.StatusUnauthorized, "unauthenticated")
	select {
	case why := <-s.killed:
		t.Fatalf("ended for %q by somebody who may not", why)
	default:
	}

	d.as(Alice, http.MethodPost, one+"/kill", "").want(t, http.StatusNoContent)
	if why := <-s.killed; why != "ended by its owner" {
		t.Errorf("ended for %q", why)
	}
	d.as(Admin, http.MethodPost, one+"/kill", "").want(t, http.StatusNoContent)
	if why := <-s.killed; why != "ended by "+Admin {
		t.Errorf("ended for %q", why)
	}
	d.as(Admin, http.MethodDelete, one+"/recording", "").problem(t, http.StatusConflict, "conflict")
	s.end(t, 0)
	d.as(Admin, http.MethodPost, one+"/kill", "").problem(t, http.StatusConflict, "conflict")
	d.as(Admin, http.MethodGet, one+"/watch", "").problem(t, http.StatusConflict, "conflict")

	for _, who := range []string{Alice, Auditor, Admin} {
		got := d.as(who, http.MethodGet, one+"/recording", "").want(t, http.StatusOK)
		if !strings.Contains(got.body, `"o","hello\r\n"]`) || !strings.HasSuffix(got.body, "{\"end\":\"whole\"}\n") {
			t.Errorf("%s replays %s", who, got.body)
		}
	}
	for _, who := range []string{Alice, Auditor} {
		d.as(who, http.MethodDelete, one+"/recording", "").problem(t, http.StatusForbidden, "denied")
	}

	// Alice learns who looked.
	var mine api.SSHSession
	d.as(Alice, http.MethodGet, one, "").into(t, http.StatusOK, &mine)
	var looked []string
	for _, v := range mine.Viewers {
		looked = append(looked, v.Name+" "+v.Did)
	}
	if got, want := strings.Join(looked, ", "), "alice kill, "+Admin+" kill, "; !strings.HasPrefix(got, want) || !strings.Contains(got, Auditor+" replay") || !strings.Contains(got, Admin+" replay") {
		t.Errorf("alice is told that these looked: %s", got)
	}
	if mine.Exit == nil || *mine.Exit != 0 || mine.In != 3 || mine.Out != 5 || mine.Recording != "whole" || len(mine.Digest) != 64 || mine.End != "exited" {
		t.Errorf("after its end: %+v", mine)
	}
	kept := d.Events(audit.RecordingKept)
	if len(kept) != 1 || kept[0].Attrs.Digest != "sha256:"+mine.Digest {
		t.Errorf("the journal has %+v, want the digest %s", kept, mine.Digest)
	}

	d.as(Admin, http.MethodDelete, one+"/recording", "").want(t, http.StatusNoContent)
	d.as(Alice, http.MethodGet, one+"/recording", "").problem(t, http.StatusNotFound, "not_found")
	d.as(Alice, http.MethodGet, one, "").into(t, http.StatusOK, &mine)
	if mine.Recording != "deleted" {
		t.Errorf("after the recording was deleted: %+v", mine)
	}
}

// An administrator watches what alice's terminal shows, from a moment before,
// and it is in the journal before the first byte. The stream ends with the
// session.
func TestWatching(t *testing.T) {
	d := open(t)
	s := d.ssh(Alice, nil)
	s.shows(t, "before ")
	req := d.request(http.MethodGet, sessions+"/"+s.id+"/watch", "", "Authorization", "Bearer "+d.token(Admin))
	resp, err := d.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK || len(d.Events(audit.SSHWatch)) != 1 {
		t.Fatalf("watching: %d, %d events in the journal", resp.StatusCode, len(d.Events(audit.SSHWatch)))
	}
	lines := bufio.NewScanner(resp.Body)
	var name, seen string
	size := ""
	for lines.Scan() {
		line := lines.Text()
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		switch name {
		case "size":
			size = data
		case "output":
			var out struct{ Data string }
			if err := json.Unmarshal([]byte(data), &out); err != nil {
				t.Fatal(err)
			}
			b, err := base64.StdEncoding.DecodeString(out.Data)
			if err != nil {
				t.Fatal(err)
			}
			if seen += string(b); seen == "before " {
				s.shows(t, "after")
			} else {
				s.end(t, 0)
			}
		}
	}
	if seen != "before after" || size != `{"cols":80,"rows":24}` || name != "end" {
		t.Errorf("watched %q, size %s, last event %s", seen, size, name)
	}
}

// A recording that is meant for the terminal of whoever replays it is
// harmless, unless it is asked for as it was.
func TestARecordingThatAttacksItsReader(t *testing.T) {
	d := open(t)
	s := d.ssh(Alice, nil)
	const evil = "\x1b]52;c;cm0gLXJmIC8K\a\x1b[6n\x1b[31mred\x1b[m"
	s.shows(t, evil[:5])
	s.shows(t, evil[5:])
	s.end(t, 0)
	text := func(query string) string {
		t.Helper()
		var out string
		body := d.as(Admin, http.MethodGet, sessions+"/"+s.id+"/recording"+query, "").want(t, http.StatusOK).body
		for _, line := range strings.Split(body, "\n")[1:] {
			var rec []any
			if json.Unmarshal([]byte(line), &rec) == nil && len(rec) == 3 && rec[1] == "o" {
				out += rec[2].(string) //nolint:forcetypeassert // of output it is
			}
		}
		return out
	}
	for query, want := range map[string]string{
		"": "\x1b[31mred\x1b[m", "?format=cast": "\x1b[31mred\x1b[m", "?raw=true": evil, "?format=cast&raw=true": evil,
	} {
		if got := text(query); got != want {
			t.Errorf("%q gives %q, want %q", query, got, want)
		}
	}
}

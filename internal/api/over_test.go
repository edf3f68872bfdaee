package api_test

import (
	"bufio"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/secret"
)

// follows opens the stream of a workspace's stages and waits for its first
// bytes. The channel is closed when the server has ended it.
func (d *door) follows(path string, headers ...string) <-chan struct{} {
	d.t.Helper()
	resp, err := d.client.Do(d.request(http.MethodGet, path, "", headers...))
	if err != nil {
		d.t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	if resp.StatusCode != http.StatusOK || !lines.Scan() {
		d.t.Fatalf("%s: %d, %v", path, resp.StatusCode, lines.Err())
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for lines.Scan() {
		}
		_ = resp.Body.Close()
	}()
	return over
}

// A stream ends with what it was opened by: the token, the session, or the place
// that its reader came from. Streams that others opened, or the same person in
// another way, go on.
func TestStreamsEndWithWhatOpenedThem(t *testing.T) {
	d := open(t)
	ws, bobs := d.Launch(Alice, "lab"), d.Launch(Bob, "lab")
	events := func(id string) string { return "/api/v1/workspaces/" + id + "/events" }
	first, row := d.Token(Alice)
	second, _ := d.Token(Alice)
	session := d.Session(Alice)
	bob, _ := d.Token(Bob)

	byFirst := d.follows(events(ws.ID), "Authorization", "Bearer "+first)
	bySecond := d.follows(events(ws.ID), "Authorization", "Bearer "+second)
	byCookie := d.follows(events(ws.ID), "Cookie", "__Host-bailey="+session, "Sec-Fetch-Site", "same-origin")
	byBob := d.follows(events(bobs.ID), "Authorization", "Bearer "+bob)
	runs := func(what string, over <-chan struct{}) {
		t.Helper()
		select {
		case <-over:
			t.Errorf("%s ended", what)
		default:
		}
	}
	ends := func(what string, over <-chan struct{}) {
		t.Helper()
		d.Until(what+" ends", func() bool {
			select {
			case <-over:
				return true
			default:
				return false
			}
		})
	}
	if err := d.Identity.RevokeToken(t.Context(), d.Actor(Alice), row.ID); err != nil {
		t.Fatal(err)
	}
	ends("the stream of a revoked token", byFirst)
	runs("the stream of another token", bySecond)
	runs("the stream of a session", byCookie)
	actor, err := d.Identity.BySession(t.Context(), secret.New(session), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Identity.SignOut(t.Context(), actor); err != nil {
		t.Fatal(err)
	}
	ends("the stream of a session that signed out", byCookie)
	runs("the stream of a token", bySecond)
	runs("bob's stream", byBob)

	// Everybody here calls from the loopback, which no ban may hold, so the guard
	// is told directly, as another server would tell it.
	if _, err := d.Guard.Impose(netip.MustParsePrefix("127.0.0.1/32"), time.Now().Add(time.Hour), "another server"); err != nil {
		t.Fatal(err)
	}
	ends("the stream from a banned address", bySecond)
	ends("bob's, from the same", byBob)
	if a := d.send(d.request(http.MethodGet, events(bobs.ID), "", "Authorization", "Bearer "+bob)); a.status == http.StatusOK || !strings.Contains(a.body, "code") {
		t.Errorf("from a banned address: %d %s", a.status, a.body)
	}
}

package egress_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
)

// What a researcher meets: an allowed host works with TLS and without, another
// one explains itself, becomes a request, and works once somebody has said yes.
func TestAllowedWorksAndTheRestIsAskedFor(t *testing.T) {
	w := newWorld(t)
	say := func(text string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, text) }
	}
	w.https("files.example.org", say("secure"))
	w.http("a.example.net", say("plain"))
	w.https("data.example.com", say("data"))

	for url, want := range map[string]string{"https://files.example.org/x": "secure", "http://a.example.net/x": "plain"} {
		if status, body, err := w.get(alice, url); err != nil || status != http.StatusOK || body != want {
			t.Errorf("GET %s = %d %q, %v; want %q", url, status, body, err, want)
		}
	}
	for range 5 {
		_, _, err := w.get(alice, "https://data.example.com/x")
		if err == nil || !strings.Contains(err.Error(), "data.example.com:443 is not open to class ml") {
			t.Fatalf("a host that nothing allows: %v", err)
		}
	}
	list, err := w.proxy.Requests(t.Context(), admin, "")
	if err != nil || len(list) != 1 {
		t.Fatalf("requests = %v, %v; want one", list, err)
	}
	if r := list[0]; r.User != "alice" || r.Class != "ml" || r.Host != "data.example.com" || r.Port != 443 || r.State != bailey.AskOpen || r.Workspace != "lab" {
		t.Errorf("request = %+v", r)
	}
	if _, err := w.proxy.Allow(t.Context(), bailey.Actor{UserID: alice.UserID, Name: "alice", Role: bailey.RoleUser, Method: "password"}, egress.Answer{Request: list[0].ID, Scope: bailey.GrantDay}); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("Alice answers her own request: %v, want a refusal", err)
	}
	if _, err := w.proxy.Allow(t.Context(), admin, egress.Answer{Request: list[0].ID, Scope: bailey.GrantDay}); err != nil {
		t.Fatal(err)
	}
	if _, body, err := w.get(alice, "https://data.example.com/x"); err != nil || body != "data" {
		t.Errorf("after the grant: %q, %v", body, err)
	}
	if _, _, err := w.get(bob, "https://data.example.com/x"); err == nil {
		t.Error("what Alice was granted is open to Bob")
	}
	if got := w.audit.of(audit.EgressConnect); len(got) != 3 || got[0].Attrs.Rule == "" || got[0].Actor.Name != "alice" {
		t.Errorf("connections in the journal: %+v", got)
	}
	if asked, _ := w.net.seen(); len(asked) == 0 || strings.Count(strings.Join(asked, " "), "data.example.com") != 1 {
		t.Errorf("names resolved: %v; a name is not to be looked up before it is allowed", asked)
	}
}

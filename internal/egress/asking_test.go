package egress_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
)

// refused tries a tunnel that is refused and returns the answer's status line.
func (w *world) refused(who egress.Who, target string) string {
	w.Helper()
	c, _, line := w.connect(who, target)
	_ = c.Close()
	if !strings.HasPrefix(line, "HTTP/1.1 403") {
		w.Errorf("CONNECT %s: %s", target, line)
	}
	return line
}

func (w *world) requests(user string) []bailey.EgressRequest {
	w.Helper()
	list, err := w.proxy.Requests(w.Context(), admin, user)
	if err != nil {
		w.Fatal(err)
	}
	return list
}

// A program that tries again and again asks once, and one that tries every name
// there is does not fill the store or hide what Bob asks for.
func TestAsksAreCoalesced(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { w.raw(alice, "CONNECT data.example.com:443 HTTP/1.1\r\nHost: data.example.com\r\n\r\n") })
	}
	wg.Wait()
	if w.store.asks != 1 || len(w.requests("")) != 1 {
		t.Errorf("200 tries were %d statements and %d requests", w.store.asks, len(w.requests("")))
	}
	last := ""
	for i := range 150 {
		last = w.refused(alice, fmt.Sprintf("n%d.example.com:443", i))
	}
	if n := len(w.requests(alice.UserID)); n != 100 {
		t.Errorf("a user has %d open requests", n)
	}
	if !strings.Contains(last, "too many open requests") {
		t.Errorf("past the limit: %s", last)
	}
	w.refused(bob, "data.example.com:443")
	if n := len(w.requests(bob.UserID)); n != 1 {
		t.Errorf("Bob has %d requests", n)
	}
	if err := w.proxy.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.requests(alice.UserID) {
		if r.Host == "data.example.com" && r.Count != 200 {
			t.Errorf("after the end, %d tries are stored, want 200", r.Count)
		}
	}
	if n := len(w.audit.of(audit.EgressRefused)); n < 3 || n > 100 {
		t.Errorf("350 refusals are %d events", n)
	}
}

// Each answer an administrator can give, beside those for whom it is not.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	w.https("data.example.com", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "data") })
	other := alice
	other.WorkspaceID, other.Workspace = "w-alice-2", "lab2"
	reach := func(who egress.Who) bool {
		_, body, err := w.get(who, "https://data.example.com/")
		return err == nil && body == "data"
	}
	ask := func() string {
		w.refused(alice, "data.example.com:443")
		return w.requests(alice.UserID)[0].ID
	}
	allow := func(a egress.Answer) bailey.EgressGrant {
		t.Helper()
		g, err := w.proxy.Allow(t.Context(), admin, a)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	id := ask()

	once := allow(egress.Answer{Request: id, Scope: bailey.GrantOnce})
	if !reach(alice) || !reach(alice) || reach(other) || reach(bob) {
		t.Error("once: it is for the workspace that asked, for a few minutes")
	}
	if g := w.store.grants[0]; g.UsedAt.IsZero() {
		t.Error("the first use of a grant for once is not stored")
	}
	if err := w.proxy.Revoke(t.Context(), admin, once.ID); err != nil || reach(alice) {
		t.Errorf("revoked, it still holds (%v)", err)
	}
	if r := w.requests(alice.UserID)[0]; r.ID != id {
		t.Errorf("what was asked again after a grant: %+v, want the same request", r)
	}

	day := allow(egress.Answer{Request: id, Scope: bailey.GrantDay})
	if !reach(alice) || !reach(other) || reach(bob) {
		t.Error("a day: it is for the user who asked")
	}
	if left := time.Until(day.ExpiresAt); left > 24*time.Hour || left < 23*time.Hour {
		t.Errorf("a day is %v", left)
	}
	if grants, err := w.proxy.Grants(t.Context(), bailey.Actor{UserID: bob.UserID, Name: "bob", Role: bailey.RoleUser, Method: "token", Scopes: []bailey.Scope{bailey.ScopeWorkspacesRead}}, bob.UserID); err != nil || len(grants) != 0 {
		t.Errorf("Bob sees %v, %v", grants, err)
	}

	class := allow(egress.Answer{Class: "ml", Host: "*.example.com", Port: 443, Scope: bailey.GrantClass})
	if !reach(bob) || class.ExpiresAt.IsZero() {
		t.Error("for the class: it is for everybody, and ends")
	}
	if err := w.proxy.Revoke(t.Context(), admin, class.ID); err != nil || reach(bob) {
		t.Errorf("revoked, it still holds (%v)", err)
	}

	if r, err := w.proxy.Deny(t.Context(), admin, id); err != nil || r.State != bailey.AskDenied || reach(alice) {
		t.Errorf("denied: %+v, %v; what was granted for it must end", r, err)
	}
	if line := w.refused(alice, "data.example.com:443"); !strings.Contains(line, "said no") {
		t.Errorf("after a no: %s", line)
	}

	short := allow(egress.Answer{Class: "ml", Host: "data.example.com", Port: 443, Scope: bailey.GrantClass, For: 300 * time.Millisecond})
	if !reach(bob) {
		t.Error("a short grant does not hold")
	}
	eventually(t, "a grant ends by itself", func() bool { return !reach(bob) })
	if grants, _ := w.proxy.Grants(t.Context(), admin, ""); len(grants) != 0 {
		t.Errorf("%s has ended and is still listed: %v", short.ID, grants)
	}
	if n := len(w.audit.of(audit.EgressAllow)) + len(w.audit.of(audit.EgressDeny)) + len(w.audit.of(audit.EgressRevoke)); n != 7 {
		t.Errorf("%d answers in the journal, want 7", n)
	}
}

// Whose answers are not taken, and which.
func TestAnswersThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.refused(alice, "data.example.com:443")
	id := w.requests("")[0].ID
	her := bailey.Actor{UserID: alice.UserID, Name: "alice", Role: bailey.RoleUser, Method: "password"}
	auditor := bailey.Actor{UserID: "u-eve", Name: "eve", Role: bailey.RoleAuditor, Method: "password"}
	for _, who := range []bailey.Actor{her, auditor, {}} {
		_, errAllow := w.proxy.Allow(t.Context(), who, egress.Answer{Request: id, Scope: bailey.GrantDay})
		_, errDeny := w.proxy.Deny(t.Context(), who, id)
		if errRevoke := w.proxy.Revoke(t.Context(), who, id); bailey.KindOf(errAllow) != bailey.Denied || bailey.KindOf(errDeny) != bailey.Denied || bailey.KindOf(errRevoke) != bailey.Denied {
			t.Errorf("%s: %v, %v, %v; want refusals", who.Name, errAllow, errDeny, errRevoke)
		}
	}
	if _, err := w.proxy.Requests(t.Context(), her, ""); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("Alice sees everybody's requests: %v", err)
	}
	if _, err := w.proxy.Requests(t.Context(), her, bob.UserID); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("Alice sees Bob's requests: %v", err)
	}
	if list, err := w.proxy.Requests(t.Context(), her, alice.UserID); err != nil || len(list) != 1 {
		t.Errorf("Alice sees of her own: %v, %v", list, err)
	}
	if list, err := w.proxy.Requests(t.Context(), auditor, ""); err != nil || len(list) != 1 {
		t.Errorf("an auditor sees: %v, %v", list, err)
	}
	for what, a := range map[string]egress.Answer{
		"no scope":            {Request: id},
		"once, of nobody":     {Class: "ml", Host: "a.example.com", Port: 443, Scope: bailey.GrantOnce},
		"a day, of nobody":    {Class: "ml", Host: "a.example.com", Port: 443, Scope: bailey.GrantDay},
		"an address":          {Class: "ml", Host: "10.0.0.1", Port: 443, Scope: bailey.GrantClass},
		"everything":          {Class: "ml", Host: "*", Port: 443, Scope: bailey.GrantClass},
		"a top-level domain":  {Class: "ml", Host: "*.com", Port: 443, Scope: bailey.GrantClass},
		"no port":             {Class: "ml", Host: "a.example.com", Scope: bailey.GrantClass},
		"a class without net": {Class: "cpu", Host: "a.example.com", Port: 443, Scope: bailey.GrantClass},
		"for ever":            {Request: id, Scope: bailey.GrantDay, For: 10000 * time.Hour},
		"backwards":           {Request: id, Scope: bailey.GrantDay, For: -time.Hour},
	} {
		if g, err := w.proxy.Allow(t.Context(), admin, a); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
	if _, err := w.proxy.Allow(t.Context(), admin, egress.Answer{Request: "nosuch", Scope: bailey.GrantDay}); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("a request that is not there: %v", err)
	}
	w.audit.down.Store(true)
	if _, err := w.proxy.Allow(t.Context(), admin, egress.Answer{Request: id, Scope: bailey.GrantDay}); bailey.KindOf(err) != bailey.Unavailable || len(w.store.grants) > 0 {
		t.Errorf("without a journal: %v, grants %v", err, w.store.grants)
	}
}

// A revoked grant cuts the download that it allowed.
func TestRevokeCuts(t *testing.T) {
	w := newWorld(t)
	w.https("data.example.com", func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write(make([]byte, 100))
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	g, err := w.proxy.Allow(t.Context(), admin, egress.Answer{Class: "ml", Host: "data.example.com", Port: 443, Scope: bailey.GrantClass})
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.client(alice).Get("https://data.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.Revoke(t.Context(), admin, g.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := res.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the download goes on")
	}
}

// The words that people and programs get.
func TestARefusalExplainsItself(t *testing.T) {
	w := newWorld(t)
	text := w.raw(alice, "GET http://data.example.com/x HTTP/1.1\r\nHost: data.example.com\r\n\r\n")
	for _, want := range []string{
		"HTTP/1.1 403 bailey: data.example.com:80 is not open to class ml. An administrator has been asked (bailey egress requests, or Network in the console).\r\n",
		"\r\nProxy-Status: bailey; error=http_request_denied; details=\"data.example.com:80 is not open to class ml\"\r\n",
		"\r\nContent-Type: text/plain; charset=utf-8\r\n",
		"\r\n\r\nbailey: data.example.com:80 is not open to class ml. An administrator has been asked (bailey egress requests, or Network in the console).\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(w.raw(alice, "GET http://data.example.com/x HTTP/1.1\r\nHost: data.example.com\r\nAccept: application/json\r\n\r\n"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	const want = `{"error":"not_allowed","message":"data.example.com:80 is not open to class ml","hint":"An administrator has been asked (bailey egress requests, or Network in the console).","host":"data.example.com","port":80,"class":"ml","request":"open"}` + "\n"
	if string(b) != want {
		t.Errorf("as JSON:\n got %s\nwant %s", b, want)
	}
	if got := w.raw(alice, "GET http://a\"b\\c/ HTTP/1.1\r\nHost: a\"b\\c\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") || strings.Contains(got, `details="a"`) {
		t.Errorf("a name with quotes: %q", got)
	}
}

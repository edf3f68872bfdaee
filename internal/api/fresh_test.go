package api_test

import (
	"net/http"
	"testing"
	"time"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
)

// What opens a wall takes a fresh proof from whoever comes with a session: an
// hour after the sign-in it is refused, beside what only looks. A token holds
// what its maker allowed it, and is not asked.
func TestWhatOpensAWallTakesAFreshProof(t *testing.T) {
	d := open(t)
	session, fresh := d.Session(Admin), ""
	admin := d.User(Admin)
	rows, err := d.Store.Sessions(t.Context(), admin.ID)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%+v, %v", rows, err)
	}
	if err := d.Store.ProveSession(t.Context(), admin.ID, rows[0].ID, "pwd", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	fresh = d.Session(Admin)
	for _, tt := range []struct {
		method, path, body string
		status             int // with a fresh proof, and with a token
	}{
		{http.MethodPut, "/api/v1/secrets/wandb", `{"value":"bm90LXNvLXNlY3JldC1hZnRlci1hbGw="}`, http.StatusOK},
		{http.MethodDelete, "/api/v1/secrets/nothing", "", http.StatusNotFound},
		{http.MethodPost, "/api/v1/bans", `{"network":"198.51.100.7"}`, http.StatusCreated},
		{http.MethodPost, "/api/v1/bans/lift", `{"what":"203.0.113.9"}`, http.StatusNotFound},
		{http.MethodPost, "/api/v1/images/nothing/approve", "", http.StatusNotFound},
		{http.MethodPost, "/api/v1/images/nothing/retire", "{}", http.StatusNotFound},
		{http.MethodPost, "/api/v1/egress/requests/nothing/allow", `{"scope":"once"}`, http.StatusNotFound},
		{http.MethodPost, "/api/v1/egress/requests/nothing/deny", "", http.StatusNotFound},
		{http.MethodDelete, "/api/v1/egress/grants/nothing", "", http.StatusNotFound},
	} {
		same := []string{"Sec-Fetch-Site", "same-origin"}
		if p := d.withCookie(session, tt.method, tt.path, tt.body, same...).problem(t, http.StatusForbidden, "step_up"); p.Hint == "" {
			t.Errorf("%s %s: nothing says what to do", tt.method, tt.path)
		}
		if a := d.withCookie(fresh, tt.method, tt.path, tt.body, same...); a.status != tt.status {
			t.Errorf("%s %s with a fresh proof: %d %s", tt.method, tt.path, a.status, a.body)
		}
		if a := d.as(Admin, tt.method, tt.path, tt.body); a.status != tt.status && a.status != http.StatusConflict {
			t.Errorf("%s %s with a token: %d %s", tt.method, tt.path, a.status, a.body)
		}
	}
	for _, path := range []string{"/api/v1/secrets", "/api/v1/bans", "/api/v1/images", "/api/v1/egress/requests"} {
		if a := d.withCookie(session, http.MethodGet, path, ""); a.status != http.StatusOK {
			t.Errorf("GET %s an hour after: %d %s", path, a.status, a.body)
		}
	}
}

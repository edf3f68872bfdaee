package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/audit"
)

// What alice's workspace was refused is hers to see; the administrator's answer
// holds for her alone, or for the class, and each is in the journal.
func TestAskedAllowedAndTakenBack(t *testing.T) {
	d := open(t)
	lab := d.Launch(Alice, "lab")
	asked, err := d.Store.AskEgress(t.Context(), bailey.EgressRequest{
		UserID: d.User(Alice).ID, WorkspaceID: lab.ID, Workspace: lab.Name, Class: "small", Host: "data.example.org", Port: 443, Count: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := func(who, query string) (out []api.EgressRequest) {
		t.Helper()
		var body struct{ Requests []api.EgressRequest }
		d.as(who, http.MethodGet, "/api/v1/egress/requests"+query, "").into(t, http.StatusOK, &body)
		return body.Requests
	}
	tested := func(who, host string) (out struct{ Allowed bool }) {
		t.Helper()
		d.as(who, http.MethodPost, "/api/v1/egress/test", `{"class":"small","host":"`+host+`"}`).into(t, http.StatusOK, &out)
		return out
	}
	if got := listed(Alice, ""); len(got) != 1 || got[0].Host != "data.example.org" || got[0].State != "open" || got[0].Count != 2 || got[0].User != Alice {
		t.Errorf("alice's requests: %+v", got)
	}
	for query, want := range map[string]int{"?all=true": 1, "?all=true&state=open": 1, "?all=true&state=denied": 0, "": 0} {
		if got := listed(Auditor, query); len(got) != want {
			t.Errorf("requests%s for the auditor: %d, want %d", query, len(got), want)
		}
	}
	if got := listed(Bob, ""); len(got) != 0 {
		t.Errorf("bob sees %+v", got)
	}
	one := "/api/v1/egress/requests/" + asked.ID
	d.as(Admin, http.MethodPost, one+"/allow", `{"scope":"for ever"}`).problem(t, http.StatusUnprocessableEntity, "invalid")
	d.as(Admin, http.MethodPost, "/api/v1/egress/requests/01abcdefghjkmnpqrstvwxyz00/allow", `{"scope":"day"}`).problem(t, http.StatusNotFound, "not_found")

	var grant api.EgressGrant
	d.as(Admin, http.MethodPost, one+"/allow", `{"scope":"day"}`).into(t, http.StatusOK, &grant)
	if !tested(Alice, "data.example.org").Allowed || tested(Bob, "data.example.org").Allowed {
		t.Error("a grant for alice's day is not for her alone")
	}
	var mine struct{ Grants []api.EgressGrant }
	d.as(Bob, http.MethodGet, "/api/v1/egress/grants", "").into(t, http.StatusOK, &mine)
	if len(mine.Grants) != 0 {
		t.Errorf("bob sees alice's grant: %+v", mine.Grants)
	}
	if got := d.as(Admin, http.MethodDelete, "/api/v1/egress/grants/"+grant.ID, ""); got.status != http.StatusNoContent {
		t.Errorf("revoke: %d %s", got.status, got.body)
	}
	if tested(Alice, "data.example.org").Allowed {
		t.Error("what was taken back is allowed still")
	}
	d.as(Admin, http.MethodPost, "/api/v1/egress/grants", `{"class":"small","host":"*.data.example.org","hours":1}`).into(t, http.StatusCreated, &grant)
	if !tested(Bob, "a.data.example.org").Allowed || tested(Bob, "data.example.org").Allowed {
		t.Error("a grant for a domain is not for what is below it alone")
	}
	for _, body := range []string{
		`{"class":"small","host":"10.0.0.1"}`, `{"class":"small","host":"*.org"}`, `{"class":"gpu","host":"x.example.org"}`,
		`{"class":"small","host":"x.example.org","port":0}`, `{"class":"small","host":"2130706433"}`, `{"class":"small","host":"x.example.org","hours":9000}`,
	} {
		d.as(Admin, http.MethodPost, "/api/v1/egress/grants", body).problem(t, http.StatusUnprocessableEntity, "invalid")
	}
	d.as(Admin, http.MethodPost, "/api/v1/egress/grants", `{"class":"small","host":"x.example.org","user":"nobody"}`).problem(t, http.StatusNotFound, "not_found")
	d.as(Alice, http.MethodPost, "/api/v1/egress/test", `{"class":"nosuch","host":"x.example.org"}`).problem(t, http.StatusNotFound, "not_found")
	d.as(Bob, http.MethodPost, "/api/v1/egress/test", `{"class":"secret","host":"x.example.org"}`).problem(t, http.StatusNotFound, "not_found")
	d.as(Alice, http.MethodPost, "/api/v1/egress/test", `{"class":"small","host":"169.254.169.254"}`).problem(t, http.StatusUnprocessableEntity, "invalid")

	var rules struct{ Classes []api.EgressClass }
	d.as(Bob, http.MethodGet, "/api/v1/egress/rules", "").into(t, http.StatusOK, &rules)
	for _, c := range rules.Classes {
		if c.Class == "secret" || c.Class == "small" && (len(c.Rules) != 1 || c.Rules[0].Host != "files.example.org") {
			t.Errorf("bob is shown %+v", c)
		}
	}
	var denied api.EgressRequest
	d.as(Admin, http.MethodPost, one+"/deny", "").into(t, http.StatusOK, &denied)
	if denied.State != "denied" || denied.DecidedBy != Admin {
		t.Errorf("denied: %+v", denied)
	}
	for action, want := range map[audit.Action]int{audit.EgressAllow: 2, audit.EgressRevoke: 1, audit.EgressDeny: 1} {
		if got := d.Events(action); len(got) != want || !strings.Contains(got[0].Attrs.Host, "data.example.org") || got[0].Actor.Name != Admin {
			t.Errorf("%s: %+v, want %d by the administrator", action, got, want)
		}
	}
}

package api_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// A rule file, as text and within a JSON string.
const (
	ruleText  = "[[rules]]\nid = 'team-token'\ndescription = 'Team token'\nregex = 'team_[0-9a-f]{16}'\nkeywords = ['team_']\n"
	jsonRules = `[[rules]]\nid = 'team-token'\ndescription = 'Team token'\nregex = 'team_[0-9a-f]{16}'\nkeywords = ['team_']\n`
)

// An attempt is one operation on what is alice's, by everybody in turn.
type attempt struct {
	op     string // "METHOD /path" as in the document; the query does not count
	body   string
	target func() string // makes what the operation is about, and returns its id
	want   wants
	hidden string // what stands in place of the target for a thing that never was
}

// wants are the statuses for nobody, bob, the auditor, the administrator, alice.
type wants [5]int

// TestWhoMayDoWhat goes through every operation of the document, so that none
// can be added without saying here who may use it.
func TestWhoMayDoWhat(t *testing.T) {
	d := open(t)
	lab := d.Launch(Alice, "lab")
	d.Engine.SetLogs(lab.RunID, "hello from inside\n")
	attempts := attemptsOnAlice(d, lab)

	t.Run("all are here", func(t *testing.T) {
		want := operations(t)
		var got []string
		for _, a := range attempts {
			op, _, _ := strings.Cut(a.op, "?")
			got = append(got, op)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
			t.Errorf("operations (-document +tried here):\n%s", diff)
		}
	})
	for _, a := range attempts {
		t.Run(a.op, func(t *testing.T) {
			for i, who := range []string{nobody, Bob, Auditor, Admin, Alice} {
				got := d.try(a, who, a.target)
				if got.status != a.want[i] {
					t.Errorf("%s by %q: status %d, want %d: %s", a.op, who, got.status, a.want[i], got.body)
				}
				checkRefusal(t, got)
				if got.status == http.StatusNotFound && a.hidden != "" {
					// What may not be known of is the same as what never was.
					never := d.try(a, who, func() string { return a.hidden })
					if never.status != got.status || never.words(t) != got.words(t) {
						t.Errorf("%s by %q: alice's gives %d %s, what never was gives %d %s", a.op, who, got.status, got.body, never.status, never.body)
					}
				}
			}
		})
	}
}

// sshKey adds a key to somebody's account.
func (d *door) sshKey(who string) bailey.SSHKey {
	d.t.Helper()
	k, err := d.Identity.AddSSHKey(d.t.Context(), d.Actor(who), identity.NewSSHKey{Line: sshLine(d.t)})
	if err != nil {
		d.t.Fatal(err)
	}
	return k
}

// sshCertificate gets somebody a certificate, and returns its serial.
func (d *door) sshCertificate(who string) string {
	d.t.Helper()
	_, row, err := d.Identity.IssueSSHCertificate(d.t.Context(), d.Actor(who), identity.NewSSHCertificate{Line: sshLine(d.t)})
	if err != nil {
		d.t.Fatal(err)
	}
	return strconv.FormatUint(row.Serial, 10)
}

// sshLine is a fresh public key, as it stands in a .pub file.
func sshLine(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// checkRefusal fails the test unless an answer that is a refusal has the one
// form that all have.
func checkRefusal(t *testing.T, a answer) {
	t.Helper()
	codes := map[int]string{
		http.StatusUnauthorized: "unauthenticated", http.StatusForbidden: "denied", http.StatusNotFound: "not_found",
		http.StatusUnprocessableEntity: "invalid",
	}
	if a.status < 300 {
		return
	}
	code, ok := codes[a.status]
	if !ok {
		t.Errorf("a refusal with status %d: %s", a.status, a.body)
		return
	}
	if a.status == http.StatusForbidden && strings.Contains(a.body, `"step_up"`) {
		code = "step_up"
	}
	a.problem(t, a.status, code)
	if got := a.header.Get("WWW-Authenticate"); (got != "") != (a.status == http.StatusUnauthorized) {
		t.Errorf("status %d with WWW-Authenticate %q", a.status, got)
	}
}

func (d *door) try(a attempt, who string, target func() string) answer {
	d.t.Helper()
	method, path, _ := strings.Cut(a.op, " ")
	if target != nil {
		id, whole := strings.CutSuffix(target(), "#")
		for part := range strings.SplitSeq(id, " ") { // one for each name in braces
			before, rest, _ := strings.Cut(path, "{")
			_, after, _ := strings.Cut(rest, "}")
			if whole {
				after = "" // the path has more than one of them, and id is the rest of it
			}
			path = before + part + after
		}
	}
	if strings.HasSuffix(path, "/events") {
		method = http.MethodHead // says the same as GET, and ends
	}
	got := d.as(who, method, path, a.body)
	if method == http.MethodHead && got.status >= 300 {
		got = d.as(who, http.MethodGet, path, a.body)
	}
	return got
}

// attemptsOnAlice lists every operation, on things of alice's.
func attemptsOnAlice(d *door, lab bailey.Workspace) []attempt {
	const (
		get, post, put, patch, del = "GET /api/v1", "POST /api/v1", "PUT /api/v1", "PATCH /api/v1", "DELETE /api/v1"

		never = "01abcdefghjkmnpqrstvwxyz00"
	)
	everybody := wants{401, 200, 200, 200, 200}
	staff := wants{401, 403, 200, 200, 403}
	id := func(ws bailey.Workspace) func() string { return func() string { return ws.ID } }
	n := 0
	name := func() string { n++; return fmt.Sprintf("made%d", n) }
	stopped := func() bailey.Workspace {
		d.t.Helper()
		ws, err := d.Workspaces.Create(d.t.Context(), d.Actor(Alice), name(), "small")
		if err != nil {
			d.t.Fatal(err)
		}
		return ws
	}
	image := func() string { return d.AddImage("here-"+name(), bailey.ImageApproved).ID }
	stoppedID := func() string { return stopped().ID }
	volume := func() string {
		ws := stopped()
		if err := d.Store.DeleteWorkspace(d.t.Context(), ws.ID); err != nil {
			d.t.Fatal(err)
		}
		return ws.VolumeID + "?confirm=" + ws.Name
	}
	session := func() string {
		s := bailey.Session{ID: bailey.NewID(), UserID: d.User(Alice).ID, ExpiresAt: lab.CreatedAt.AddDate(1, 0, 0)}
		if err := d.Store.CreateSession(d.t.Context(), s, s.ID); err != nil {
			d.t.Fatal(err)
		}
		return s.ID
	}
	token := func() string { _, row := d.Token(Alice); return row.ID }
	known := func() string {
		k, err := d.Store.SetSecret(d.t.Context(), bailey.KnownSecret{Name: name()}, secret.New("correct-horse-9431"))
		if err != nil {
			d.t.Fatal(err)
		}
		return k.Name
	}
	// These change what is there, and add nothing to the path.
	trial := func() string {
		d.t.Helper()
		if _, err := d.Rules.Shadow(d.t.Context(), d.Actor(Admin), map[string]string{"team.toml": ruleText}); err != nil {
			d.t.Fatal(err)
		}
		return ""
	}
	activated := func() string {
		d.t.Helper()
		trial()
		if _, err := d.Rules.Activate(d.t.Context(), d.Actor(Admin)); err != nil {
			d.t.Fatal(err)
		}
		return ""
	}
	account := func() string {
		u, err := d.Store.CreateUser(d.t.Context(), bailey.User{Name: name(), Role: bailey.RoleUser}, "none")
		if err != nil {
			d.t.Fatal(err)
		}
		return u.Name
	}
	robot := func() string {
		u, err := d.Store.CreateUser(d.t.Context(), bailey.User{Name: name(), Role: bailey.RoleUser, Service: true}, "")
		if err != nil {
			d.t.Fatal(err)
		}
		return u.Name
	}
	robotToken := func() string {
		n := robot()
		g, err := d.Identity.CreateServiceToken(d.t.Context(), d.Actor(Admin), n, identity.TokenRequest{})
		if err != nil {
			d.t.Fatal(err)
		}
		return n + " " + g.Row.ID
	}
	knownBrowser := func() string {
		now := time.Now()
		b := bailey.Browser{ID: bailey.NewID(), UserID: d.User(Alice).ID, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour)}
		if err := d.Store.CreateBrowser(d.t.Context(), b, b.ID); err != nil {
			d.t.Fatal(err)
		}
		return b.ID
	}
	inResearch := func() string { return "research " + account() }
	asked := func() string {
		r, err := d.Store.AskEgress(d.t.Context(), bailey.EgressRequest{
			UserID: d.User(Alice).ID, WorkspaceID: lab.ID, Workspace: lab.Name, Class: "small", Host: name() + ".example.org", Port: 443,
		})
		if err != nil {
			d.t.Fatal(err)
		}
		return r.ID
	}
	granted := func() string {
		g, err := d.Egress.Allow(d.t.Context(), d.Actor(Admin), egress.Answer{Request: asked(), Scope: bailey.GrantDay})
		if err != nil {
			d.t.Fatal(err)
		}
		return g.ID
	}
	nowhere := wants{401, 404, 404, 404, 404} // of sessions that are, witness's own tests speak
	sshKey := func() string { return d.sshKey(Alice).ID }
	serial := func() string { return d.sshCertificate(Alice) }
	return []attempt{
		{op: get + "/ssh", want: everybody},
		{op: get + "/ssh/sessions", want: everybody},
		{op: get + "/ssh/sessions/{id}", target: func() string { return never }, want: nowhere},
		{op: get + "/ssh/sessions/{id}/watch", target: func() string { return never }, want: nowhere},
		{op: get + "/ssh/sessions/{id}/recording", target: func() string { return never }, want: nowhere},
		{op: post + "/ssh/sessions/{id}/kill", target: func() string { return never }, want: nowhere},
		{op: del + "/ssh/sessions/{id}/recording", target: func() string { return never }, want: nowhere},
		{op: get + "/me/ssh-keys", want: everybody},
		{op: post + "/me/ssh-keys", body: `{"key":"ssh-ed25519 AAAA"}`, want: wants{401, 422, 422, 422, 422}},
		{op: patch + "/me/ssh-keys/{id}", body: `{"name":"desk"}`, target: sshKey, want: wants{401, 404, 404, 404, 200}, hidden: never},
		{op: del + "/me/ssh-keys/{id}", target: sshKey, want: wants{401, 404, 404, 404, 204}, hidden: never},
		{op: get + "/me/ssh-certificates", want: everybody},
		{op: post + "/me/ssh-certificates", body: `{"key":"ssh-ed25519 AAAA"}`, want: wants{401, 422, 422, 422, 422}},
		{op: del + "/me/ssh-certificates/{serial}", target: serial, want: wants{401, 404, 404, 404, 204}, hidden: "12345"},
		{op: del + "/me/ssh-certificates", want: wants{401, 204, 204, 204, 204}},
		{op: get + "/users/{name}/ssh-keys", target: func() string { return Alice }, want: wants{401, 403, 200, 200, 200}},
		{op: del + "/users/{name}/ssh-keys/{id}", target: func() string { return Alice + "/ssh-keys/" + sshKey() + "#" }, want: wants{401, 403, 403, 204, 204}},
		{op: get + "/users/{name}/ssh-certificates", target: func() string { return Alice }, want: wants{401, 403, 200, 200, 200}},
		{op: del + "/users/{name}/ssh-certificates", target: func() string { return Alice }, want: wants{401, 403, 403, 204, 204}},

		{op: get + "/info", want: wants{200, 200, 200, 200, 200}},
		{op: post + "/tokens/signin", body: `{"user":"alice","password":"` + Password + `"}`, want: wants{200, 200, 200, 200, 200}},
		{op: get + "/me", want: everybody},
		{op: post + "/me/password", body: `{"old":"not this one","new":"seven orange bridges"}`, want: wants{401, 403, 403, 403, 403}},
		// What changes second factors takes a proof, whatever the credential.
		{op: get + "/me/factors", want: everybody},
		{op: post + "/me/stepup", body: `{"password":"not this one"}`, want: wants{401, 401, 401, 401, 401}},
		{op: post + "/me/factors/offer", want: wants{401, 403, 403, 403, 403}},
		{op: post + "/me/factors", body: `{"note":"x","code":"123456"}`, want: wants{401, 403, 403, 403, 403}},
		{op: post + "/me/recovery-codes", want: wants{401, 403, 403, 403, 403}},
		{op: del + "/me/factors/{id}", target: func() string { return never }, want: wants{401, 403, 403, 403, 403}},
		{op: del + "/me/browsers/{id}", target: knownBrowser, want: wants{401, 404, 404, 404, 204}, hidden: never},
		{op: get + "/users/{name}/factors", target: account, want: wants{401, 403, 403, 200, 403}},
		{op: del + "/users/{name}/factors", target: account, want: wants{401, 403, 403, 403, 403}},
		{op: get + "/me/sessions", want: everybody},
		{op: del + "/me/sessions/{id}", target: session, want: wants{401, 404, 404, 404, 204}, hidden: never},
		{op: get + "/me/tokens", want: everybody},
		{op: post + "/me/tokens", body: `{"note":"for a script"}`, want: everybody},
		{op: del + "/me/tokens/{id}", target: token, want: wants{401, 404, 404, 404, 204}, hidden: never},

		{op: get + "/classes", want: everybody},
		{op: get + "/workspaces", want: everybody},
		{op: get + "/workspaces?all=true", want: staff},
		{op: post + "/workspaces", body: `{"name":"fresh","class":"small"}`, want: wants{401, 202, 202, 202, 202}},
		{op: get + "/workspaces/{ref}", target: id(lab), want: wants{401, 404, 200, 200, 200}, hidden: never},
		{op: get + "/workspaces/{ref}/stages", target: id(lab), want: wants{401, 404, 200, 200, 200}, hidden: never},
		{op: get + "/workspaces/{ref}/events", target: id(lab), want: wants{401, 404, 200, 200, 200}, hidden: never},
		{op: get + "/workspaces/{ref}/logs", target: id(lab), want: wants{401, 404, 403, 403, 200}, hidden: never},
		{op: post + "/workspaces/{ref}/start", target: stoppedID, want: wants{401, 404, 403, 403, 202}, hidden: never},
		{op: post + "/workspaces/{ref}/stop", target: stoppedID, want: wants{401, 404, 403, 200, 200}, hidden: never},
		{op: del + "/workspaces/{ref}", target: stoppedID, want: wants{401, 404, 403, 204, 204}, hidden: never},
		{op: get + "/volumes", want: everybody},
		{op: get + "/volumes?all=true", want: staff},
		{op: del + "/volumes/{id}", target: volume, want: wants{401, 404, 403, 204, 204}, hidden: never + "?confirm=x"},

		{op: get + "/egress/requests", want: everybody},
		{op: get + "/egress/requests?all=true", want: staff},
		{op: post + "/egress/requests/{id}/allow", body: `{"scope":"day"}`, target: asked, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/egress/requests/{id}/deny", target: asked, want: wants{401, 403, 403, 200, 403}},
		{op: get + "/egress/grants", want: everybody},
		{op: get + "/egress/grants?all=true", want: staff},
		{op: post + "/egress/grants", body: `{"class":"small","host":"more.example.org"}`, want: wants{401, 403, 403, 201, 403}},
		{op: del + "/egress/grants/{id}", target: granted, want: wants{401, 403, 403, 204, 403}},
		{op: get + "/egress/rules", want: everybody},
		{op: post + "/egress/test", body: `{"class":"small","host":"files.example.org"}`, want: everybody},
		{op: get + "/workspaces/{ref}/receipt", target: id(lab), want: wants{401, 404, 200, 200, 200}, hidden: never},

		{op: get + "/images", want: everybody},
		{op: get + "/images/{ref}", target: image, want: everybody},
		{op: post + "/images", body: `{"name":"added","reference":"registry.example/team/added:v1"}`, want: wants{401, 403, 403, 201, 403}},
		{op: post + "/images/{ref}/approve", target: image, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/images/{ref}/countersign", target: image, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/images/{ref}/fetch", target: image, want: wants{401, 403, 403, 202, 403}},
		{op: post + "/images/{ref}/export", target: image, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/images/{ref}/retire", body: `{"message":"old"}`, target: image, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/imports", body: `{"file":"nothing.tar"}`, want: wants{401, 403, 403, 404, 403}},

		{op: get + "/users", want: staff},
		{op: post + "/users", body: `{"name":"carol","password":"seven orange bridges"}`, want: wants{401, 403, 403, 201, 403}},
		{op: patch + "/users/{name}", body: `{"groups":["research"]}`, target: account, want: wants{401, 403, 403, 200, 403}},
		{op: del + "/users/{name}", target: account, want: wants{401, 403, 403, 204, 403}},
		{op: get + "/users/{name}/links", target: account, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/users/{name}/links", body: `{"source":"ldap:corp","login":"alice"}`, target: account, want: wants{401, 403, 403, 404, 403}}, // no directory here
		{op: del + "/users/{name}/links/{id}", target: account, want: wants{401, 403, 403, 404, 403}},
		{op: get + "/secrets", want: staff},
		{op: get + "/bans", want: staff},
		{op: post + "/bans", body: `{"network":"203.0.113.9","seconds":3600}`, want: wants{401, 403, 403, 201, 403}},
		{op: post + "/bans/lift", body: `{"what":"203.0.113.9"}`, want: wants{401, 403, 403, 200, 403}},
		{op: put + "/secrets/{name}", body: `{"value":"Y29ycmVjdC1ob3JzZS05NDMx"}`, target: func() string { return "HF_TOKEN" }, want: wants{401, 403, 403, 200, 403}},
		{op: del + "/secrets/{name}", target: known, want: wants{401, 403, 403, 204, 403}},
		{op: get + "/filter", want: staff},
		{op: get + "/filter/findings", want: staff},
		{op: put + "/filter/shadow", body: `{"files":[{"name":"team.toml","text":"` + jsonRules + `"}]}`, want: wants{401, 403, 403, 200, 403}},
		{op: del + "/filter/shadow", target: trial, want: wants{401, 403, 403, 204, 403}},
		{op: post + "/filter/activate", target: trial, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/filter/rollback", target: activated, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/filter/reload", want: wants{401, 403, 403, 200, 403}},
		{op: get + "/groups", want: everybody},
		{op: get + "/groups/{name}", target: func() string { return "research" }, want: wants{401, 404, 200, 200, 404}, hidden: "nosuch"},
		{op: put + "/groups/{name}/members/{user}", target: inResearch, want: wants{401, 404, 403, 200, 404}},
		{op: del + "/groups/{name}/members/{user}", target: inResearch, want: wants{401, 404, 403, 200, 404}},
		{op: put + "/groups/{name}/managers/{user}", target: inResearch, want: wants{401, 404, 403, 200, 404}},
		{op: del + "/groups/{name}/managers/{user}", target: inResearch, want: wants{401, 404, 403, 200, 404}},
		{op: get + "/users/{name}/tokens", target: robot, want: wants{401, 403, 403, 200, 403}},
		{op: post + "/users/{name}/tokens", body: `{"note":"nightly","scopes":["workspaces:read"]}`, target: robot, want: wants{401, 403, 403, 200, 403}},
		{op: del + "/users/{name}/tokens/{id}", target: robotToken, want: wants{401, 403, 403, 204, 403}},
		{op: post + "/users/{name}/end", target: account, want: wants{401, 403, 403, 204, 403}},
		{op: get + "/me/events", want: everybody},
		{op: get + "/gpus", want: everybody},
		{op: get + "/orphans", want: staff},
		{op: get + "/audit", want: staff},
		// The last one: who has done it knocks no more.
		{op: post + "/me/end", want: wants{401, 204, 204, 204, 204}},
	}
}

// operations reads the document.
func operations(t *testing.T) []string {
	t.Helper()
	b, err := api.New(api.Config{}).Document()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for path, methods := range doc.Paths {
		for method := range methods {
			out = append(out, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(out)
	return out
}

// Alice's workspace is the same nothing to bob under every name it has, and
// what bob is told names neither it nor her.
func TestForeignNamesLeadNowhere(t *testing.T) {
	d := open(t)
	lab := d.Launch(Alice, "lab")
	nothing := d.as(Bob, http.MethodGet, "/api/v1/workspaces/nosuch", "").words(t)
	for _, ref := range []string{lab.ID, lab.Slug, "lab", "alice.lab", "alice.nosuch", "carol.lab", "bob.lab"} {
		for _, op := range []string{"GET ", "GET /logs", "GET /stages", "GET /events", "POST /start", "POST /stop", "DELETE "} {
			method, rest, _ := strings.Cut(op, " ")
			got := d.as(Bob, method, "/api/v1/workspaces/"+ref+rest, "")
			got.problem(t, http.StatusNotFound, "not_found")
			if got.words(t) != nothing {
				t.Errorf("%s%s of %s: %s, want %s", method, rest, ref, got.words(t), nothing)
			}
		}
	}
	// The same references are all hers, and the administrator's by her name.
	for who, refs := range map[string][]string{Alice: {lab.ID, lab.Slug, "lab", "alice.lab"}, Admin: {lab.ID, lab.Slug, "alice.lab"}} {
		for _, ref := range refs {
			var got api.Workspace
			d.as(who, http.MethodGet, "/api/v1/workspaces/"+ref, "").into(t, http.StatusOK, &got)
			if got.ID != lab.ID || got.Owner != Alice || got.State != "running" {
				t.Errorf("%s asks for %s: %+v, want lab of alice, running", who, ref, got)
			}
		}
	}
	if ws := d.Await(lab.ID, bailey.Running); ws.RunID != lab.RunID {
		t.Errorf("alice's run is %s, was %s: somebody got at it", ws.RunID, lab.RunID)
	}
}

// Lists hold one's own; everybody's are for staff; another's GPU is just held.
func TestListsAreOnesOwn(t *testing.T) {
	d := open(t)
	d.LaunchClass(Alice, "trained", "gpu")
	d.Launch(Bob, "lab")
	workspaces := func(who, query string) (names []string) {
		var out struct{ Workspaces []api.Workspace }
		d.as(who, http.MethodGet, "/api/v1/workspaces"+query, "").into(t, http.StatusOK, &out)
		for _, ws := range out.Workspaces {
			names = append(names, ws.Owner+"."+ws.Name)
		}
		return names
	}
	volumes := func(who, query string) (names []string) {
		var out struct{ Volumes []api.Volume }
		d.as(who, http.MethodGet, "/api/v1/volumes"+query, "").into(t, http.StatusOK, &out)
		for _, v := range out.Volumes {
			names = append(names, v.Owner+"."+v.Name)
		}
		return names
	}
	classes := func(who string) (names []string) {
		var out struct{ Classes []api.Class }
		d.as(who, http.MethodGet, "/api/v1/classes", "").into(t, http.StatusOK, &out)
		for _, c := range out.Classes {
			names = append(names, c.Name)
		}
		return names
	}
	for _, tt := range []struct {
		what      string
		got, want []string
	}{
		{"alice's", workspaces(Alice, ""), []string{"alice.trained"}},
		{"bob's", workspaces(Bob, ""), []string{"bob.lab"}},
		{"the auditor's", workspaces(Auditor, ""), nil},
		{"everybody's, for the auditor", workspaces(Auditor, "?all=true"), []string{"alice.trained", "bob.lab"}},
		{"everybody's, for the administrator", workspaces(Admin, "?all=true"), []string{"alice.trained", "bob.lab"}},
		{"alice's volumes", volumes(Alice, ""), []string{"alice.trained"}},
		{"bob's volumes", volumes(Bob, ""), []string{"bob.lab"}},
		{"everybody's volumes, for the auditor", volumes(Auditor, "?all=true"), []string{"alice.trained", "bob.lab"}},
		{"alice's classes", classes(Alice), []string{"small", "gpu", "secret", "missing"}},
		{"bob's classes", classes(Bob), []string{"small", "gpu", "missing"}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
	}
	for who, want := range map[string]api.GPU{
		Alice:   {UUID: Card, Model: "Example 9000", Held: true, Owner: Alice, Workspace: "alice.trained"},
		Bob:     {UUID: Card, Model: "Example 9000", Held: true},
		Auditor: {UUID: Card, Model: "Example 9000", Held: true, Owner: Alice, Workspace: "alice.trained"},
		Admin:   {UUID: Card, Model: "Example 9000", Held: true, Owner: Alice, Workspace: "alice.trained"},
	} {
		var out struct{ GPUs []api.GPU }
		got := d.as(who, http.MethodGet, "/api/v1/gpus", "")
		got.into(t, http.StatusOK, &out)
		if len(out.GPUs) != 1 || out.GPUs[0].Since == nil {
			t.Fatalf("GPUs for %s: %s, want one, held since", who, got.body)
		}
		out.GPUs[0].Since = nil
		if diff := cmp.Diff(want, out.GPUs[0]); diff != "" {
			t.Errorf("GPU for %s (-want +got):\n%s", who, diff)
		}
	}
}

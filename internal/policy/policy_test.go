package policy_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
)

// open is a class for everyone, gpu one for the group vision.
var (
	open = &bailey.Class{Name: "notebook"}
	gpu  = &bailey.Class{Name: "gpu", Groups: []string{"vision", "speech"}}
)

// The people. Alice is the one whose things are asked for.
func people() map[string]bailey.Actor {
	by := func(id string, role bailey.Role, method string, groups ...string) bailey.Actor {
		return bailey.Actor{UserID: id, Name: id, Role: role, Method: method, Groups: groups, Session: "s"}
	}
	with := func(a bailey.Actor, scopes ...bailey.Scope) bailey.Actor {
		a.Scopes = scopes
		return a
	}
	manages := func(a bailey.Actor, groups ...string) bailey.Actor {
		a.Manages = groups
		return a
	}
	token := by("alice", bailey.RoleUser, "token")
	forOne := with(token, bailey.ScopeAll)
	forOne.Workspaces = []string{"w1", "w2"}
	forOther := with(token, bailey.ScopeAll)
	forOther.Workspaces = []string{"w3"}
	return map[string]bailey.Actor{
		"alice":             by("alice", bailey.RoleUser, "password"),
		"alice's token":     with(token, bailey.ScopeAll),
		"token, no scope":   token,
		"token, odd scope":  with(token, "ALL", "all ", "*", ""),
		"token: read":       with(token, bailey.ScopeWorkspacesRead),
		"token: write":      with(token, bailey.ScopeWorkspacesWrite),
		"token: open":       with(token, bailey.ScopeWorkspacesOpen),
		"token: ssh":        with(token, bailey.ScopeSSH),
		"token: account":    with(token, bailey.ScopeAccount),
		"token: admin":      with(token, bailey.ScopeAdmin), // which alice is not
		"token for w1":      forOne,
		"token for w3":      forOther,
		"admin: write":      with(by("root", bailey.RoleAdmin, "token"), bailey.ScopeWorkspacesWrite),
		"admin: admin":      with(by("root", bailey.RoleAdmin, "token"), bailey.ScopeAdmin),
		"admin: admin:read": with(by("root", bailey.RoleAdmin, "token"), bailey.ScopeAdminRead),
		"admin: audit:read": with(by("root", bailey.RoleAdmin, "token"), bailey.ScopeAuditRead),
		"manager":           manages(by("mia", bailey.RoleUser, "password"), "vision"),
		"manager: groups":   manages(with(by("mia", bailey.RoleUser, "token"), bailey.ScopeGroups), "vision"),
		"manager: read":     manages(with(by("mia", bailey.RoleUser, "token"), bailey.ScopeWorkspacesRead), "vision"),
		"manager of others": manages(by("max", bailey.RoleUser, "password"), "speech", ""),
		"alice, in vision":  by("alice", bailey.RoleUser, "password", "audio", "vision"),
		"bob":               by("bob", bailey.RoleUser, "password"),
		"bob, in vision":    by("bob", bailey.RoleUser, "password", "vision"),
		"auditor":           by("eve", bailey.RoleAuditor, "password"),
		"admin":             by("root", bailey.RoleAdmin, "password"),
		"admin's token":     with(by("root", bailey.RoleAdmin, "token"), bailey.ScopeAll),
		"alice as admin":    by("alice", bailey.RoleAdmin, "password"),
		"bailey itself":     bailey.System(),
		"nobody":            {},
		"admin without id":  by("", bailey.RoleAdmin, "password"),
		"unknown role":      by("alice", "owner", "password"),
		"no role":           by("alice", "", "password"),
		"capital role":      by("alice", "Admin", "password"),
		"system, no role":   {Method: "system"},
		"method by another": {Role: bailey.RoleAdmin, Method: "System"},
	}
}

// The things.
func things() map[string]policy.Thing {
	return map[string]policy.Thing{
		"alice's":           {OwnerID: "alice"},
		"nothing":           {},
		"open class":        {Class: open},
		"gpu class":         {Class: gpu},
		"alice's, open":     {OwnerID: "alice", Class: open},
		"alice's, of class": {OwnerID: "alice", Class: gpu},
		"alice's w1":        {OwnerID: "alice", WorkspaceID: "w1", OwnerGroups: []string{"audio", "vision"}},
		"group vision":      {Group: "vision"},
	}
}

// grants says who may do what to what. Everything that is not here is refused:
// the test below tries all combinations.
func grants() map[policy.Action]map[string][]string {
	owners := []string{"alice", "alice's token", "alice, in vision", "alice as admin"}
	admins := []string{"admin", "admin's token", "alice as admin", "bailey itself"}
	staff := append(slices.Clone(admins), "auditor")
	both := func(lists ...[]string) []string { return slices.Concat(lists...) }
	users := []string{
		"alice", "alice's token", "alice, in vision", "alice as admin", "bob", "bob, in vision", "auditor", "admin", "admin's token",
		"manager", "manager of others",
	}
	classUsers := both(users, []string{"token: read", "token: write", "token: open", "token for w1", "token for w3", "admin: write", "admin: admin", "manager: read", "token: admin"})
	inVision := []string{"alice, in vision", "bob, in vision"}
	// What a token that is for some workspaces may do to one of those.
	forW1 := []string{"token for w1"}

	owned := func(who []string) map[string][]string {
		return map[string][]string{"alice's": who, "alice's, open": who, "alice's, of class": who, "alice's w1": who}
	}
	anyThing := func(who []string) map[string][]string {
		all := map[string][]string{}
		for name := range things() {
			all[name] = who
		}
		return all
	}
	unowned := func(who []string, m map[string][]string) map[string][]string {
		for _, thing := range []string{"nothing", "open class", "gpu class", "group vision"} {
			m[thing] = who
		}
		return m
	}
	w1 := func(also []string, m map[string][]string) map[string][]string {
		m["alice's w1"] = both(m["alice's w1"], also)
		return m
	}
	readers := []string{"token: read", "token: write", "token: open"}
	adminReaders := []string{"admin: admin", "admin: admin:read"}
	vision := []string{"manager", "manager: groups"}
	views := func(more ...string) map[string][]string {
		return unowned(both(staff, adminReaders), w1(more, owned(both(owners, staff, readers, adminReaders))))
	}
	return map[policy.Action]map[string][]string{
		policy.WorkspaceOpen:  w1(forW1, owned(both(owners, []string{"token: open"}))),
		policy.WorkspaceLogs:  w1(forW1, owned(both(owners, []string{"token: open"}))),
		policy.WorkspaceStart: w1(forW1, owned(both(owners, []string{"token: write"}))),
		policy.WorkspaceView:  views(both(forW1, vision)...),
		policy.VolumeView:     views(),
		policy.EgressView:     views(),
		policy.WorkspaceStop: unowned(both(admins, []string{"admin: admin"}),
			w1(both(forW1, vision), owned(both(owners, admins, []string{"token: write", "admin: admin"})))),
		policy.WorkspaceDelete: unowned(both(admins, []string{"admin: admin"}),
			w1(forW1, owned(both(owners, admins, []string{"token: write", "admin: admin"})))),
		policy.VolumeDelete: unowned(both(admins, []string{"admin: admin"}), owned(both(owners, admins, []string{"token: write", "admin: admin"}))),
		policy.WorkspaceCreate: {
			"open class": both(users, []string{"token: write", "admin: write"}), "gpu class": inVision,
			"alice's, open": both(owners, []string{"token: write"}), "alice's, of class": {"alice, in vision"},
		},
		policy.ClassUse: {
			"open class": classUsers, "gpu class": inVision,
			"alice's, open": both(owners, readers, forW1, []string{"token for w3", "token: admin"}), "alice's, of class": {"alice, in vision"},
		},
		policy.AccountSelf: owned(both(owners, readers, []string{
			"token: ssh", "token: account", "token: admin", "token for w1", "token for w3",
		})),
		policy.AccountManage: owned(both(owners, []string{"token: account"})),
		policy.GroupView: func() map[string][]string {
			m := anyThing(both(staff, adminReaders))
			m["group vision"] = both(m["group vision"], vision)
			return m
		}(),
		policy.GroupManage: func() map[string][]string {
			m := anyThing(both(admins, []string{"admin: admin"}))
			m["group vision"] = both(m["group vision"], vision)
			return m
		}(),
		policy.GroupAppoint:    anyThing(both(admins, []string{"admin: admin"})),
		policy.UserManage:      anyThing(both(admins, []string{"admin: admin"})),
		policy.ServiceManage:   anyThing(both(admins, []string{"admin: admin"})),
		policy.SecretManage:    anyThing(both(admins, []string{"admin: admin"})),
		policy.FilterManage:    anyThing(both(admins, []string{"admin: admin"})),
		policy.EgressManage:    anyThing(both(admins, []string{"admin: admin"})),
		policy.ImageManage:     anyThing(both(admins, []string{"admin: admin"})),
		policy.BanManage:       anyThing(both(admins, []string{"admin: admin"})),
		policy.BanList:         anyThing(both(staff, adminReaders)),
		policy.RecordingDelete: anyThing(both(admins, []string{"admin: admin"})),
		policy.SSHView:         unowned(both(staff, []string{"admin: audit:read"}), owned(both(owners, staff, []string{"token: ssh", "admin: audit:read"}))),
		policy.SSHKill:         unowned(both(admins, []string{"admin: admin"}), owned(both(owners, admins, []string{"token: ssh", "admin: admin"}))),
		policy.SecretList:      anyThing(both(staff, adminReaders)),
		policy.UserList:        anyThing(both(staff, adminReaders)),
		policy.ConfigRead:      anyThing(both(staff, adminReaders)),
		policy.FleetView:       anyThing(both(staff, adminReaders)),
		policy.AuditRead:       anyThing(both(staff, []string{"admin: audit:read"})),
		policy.ImageList:       anyThing(both(users, readers, []string{"bailey itself", "token: admin", "admin: write", "admin: admin", "manager: read"})),
		policy.SSHKeyAdd:       owned(both(owners, []string{"token: ssh"})),
		policy.SSHKeyView:      unowned(both(staff, adminReaders), owned(both(owners, staff, []string{"token: ssh"}, adminReaders))),
		policy.SSHKeyRemove:    unowned(both(admins, []string{"admin: admin"}), owned(both(owners, admins, []string{"token: ssh", "admin: admin"}))),
		"":                     {},
		"workspace":            {},
		"workspace.open ":      {},
		"WORKSPACE.OPEN":       {},
		"user.manage\x00":      {},
		"*":                    {},
	}
}

func TestDecideEveryoneEverythingEveryThing(t *testing.T) {
	granted := 0
	for action, table := range grants() {
		for what, thing := range things() {
			for who, actor := range people() {
				want := slices.Contains(table[what], who)
				if got := policy.Decide(actor, action, thing); got != want {
					t.Errorf("Decide(%s, %q, %s) = %v, want %v", who, action, what, got, want)
				}
				if want {
					granted++
				}
			}
		}
	}
	if granted < 100 {
		t.Errorf("only %d grants were tried: the table does not name the people and things of the test", granted)
	}
}

// The table above must know every action, and the names in it must exist.
func TestTheTableIsWhole(t *testing.T) {
	table := grants()
	for _, action := range declaredActions(t) {
		if _, ok := table[action]; !ok {
			t.Errorf("the table does not say who may do %q", action)
		}
	}
	for action, rows := range table {
		for what, who := range rows {
			if _, ok := things()[what]; !ok {
				t.Errorf("%q: there is no thing %q", action, what)
			}
			for _, name := range who {
				if _, ok := people()[name]; !ok {
					t.Errorf("%q on %q: there is nobody called %q", action, what, name)
				}
			}
		}
	}
}

// declaredActions reads the constants of type Action from the source.
func declaredActions(t *testing.T) []policy.Action {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "policy.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var actions []policy.Action
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(spec.Type) != "Action" {
			return true
		}
		for _, v := range spec.Values {
			text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			actions = append(actions, policy.Action(text))
		}
		return true
	})
	if len(actions) < 15 {
		t.Fatalf("found %d actions in policy.go, want at least 15", len(actions))
	}
	return actions
}

// What is inside a workspace is its owner's alone; that an administrator may
// stop it does not let them in.
func TestAnAdministratorStopsButDoesNotEnter(t *testing.T) {
	admin, theirs := people()["admin"], policy.Thing{OwnerID: "alice"}
	if !policy.Decide(admin, policy.WorkspaceStop, theirs) {
		t.Error("an administrator may not stop alice's workspace")
	}
	for _, a := range []policy.Action{policy.WorkspaceOpen, policy.WorkspaceLogs, policy.WorkspaceStart} {
		if policy.Decide(admin, a, theirs) {
			t.Errorf("an administrator may do %q to alice's workspace", a)
		}
	}
	// Not even when neither has an id: two blanks are not the same person.
	if policy.Decide(bailey.System(), policy.WorkspaceOpen, policy.Thing{}) {
		t.Error("bailey itself may open a workspace without an owner")
	}
}

// A class that was closed to a group stays closed to those who left it, even
// for a workspace that they made before.
func TestLeavingAGroupClosesItsClasses(t *testing.T) {
	mine := policy.Thing{OwnerID: "alice", Class: gpu}
	if !policy.Decide(people()["alice, in vision"], policy.ClassUse, mine) {
		t.Error("alice, in vision, may not use the class of vision")
	}
	if policy.Decide(people()["alice"], policy.ClassUse, mine) {
		t.Error("alice left vision and may still use its class")
	}
	if policy.Decide(people()["admin"], policy.ClassUse, policy.Thing{Class: gpu}) {
		t.Error("an administrator outside the groups may use their class: GPUs are theirs to give, not to take")
	}
}

// Every action has a scope, so that a token can be made for it, and none is
// good for what does not exist: an action without a scope is refused to tokens.
func TestEveryActionHasAScope(t *testing.T) {
	for _, action := range declaredActions(t) {
		permitted := false
		for _, s := range bailey.Scopes() {
			if s != bailey.ScopeAll {
				permitted = permitted || policy.Permits(s, action, true) || policy.Permits(s, action, false)
			}
		}
		if !permitted {
			t.Errorf("no scope permits %q: say in permits which one does", action)
		}
	}
	for _, s := range bailey.Scopes() {
		if s != bailey.ScopeAll && (policy.Permits(s, "workspace.fly", true) || policy.Permits(s, "", false)) {
			t.Errorf("the scope %s is good for what does not exist", s)
		}
	}
	for _, action := range declaredActions(t) {
		for _, s := range []bailey.Scope{"", "ALL", "*", "admin ", "workspaces"} {
			if policy.Permits(s, action, true) || policy.Permits(s, action, false) {
				t.Errorf("the scope %q, which does not exist, permits %q", s, action)
			}
		}
	}
}

// What one may give away is never more than what one has.
func TestCoversIsNeverWider(t *testing.T) {
	scopes := bailey.Scopes()
	for _, have := range scopes {
		for _, s := range scopes {
			if !policy.Covers([]bailey.Scope{have}, s) {
				continue
			}
			if s == bailey.ScopeAll && have != bailey.ScopeAll {
				t.Errorf("%s covers all", have)
			}
			for _, action := range declaredActions(t) {
				for _, own := range []bool{true, false} {
					if policy.Permits(s, action, own) && !policy.Permits(have, action, own) {
						t.Errorf("%s covers %s, which permits %q (own: %v), and does not permit it itself", have, s, action, own)
					}
				}
			}
		}
		if !policy.Covers([]bailey.Scope{have}, have) || !policy.Covers([]bailey.Scope{bailey.ScopeAll}, have) || policy.Covers(nil, have) {
			t.Errorf("Covers(%s) is not reflexive, not below all, or given away by nobody", have)
		}
	}
}

func TestScopesFitTheRole(t *testing.T) {
	alice, mia := bailey.User{Role: bailey.RoleUser}, bailey.User{Role: bailey.RoleUser, Manages: []string{"vision"}}
	watcher, root := bailey.User{Role: bailey.RoleAuditor}, bailey.User{Role: bailey.RoleAdmin}
	for _, tt := range []struct {
		scope bailey.Scope
		who   []bailey.User
		not   []bailey.User
	}{
		{bailey.ScopeAll, []bailey.User{alice, mia, watcher, root}, nil},
		{bailey.ScopeSSH, []bailey.User{alice, mia, watcher, root}, nil},
		{bailey.ScopeGroups, []bailey.User{mia, root}, []bailey.User{alice, watcher}},
		{bailey.ScopeAuditRead, []bailey.User{watcher, root}, []bailey.User{alice, mia}},
		{bailey.ScopeAdminRead, []bailey.User{watcher, root}, []bailey.User{alice, mia}},
		{bailey.ScopeAdmin, []bailey.User{root}, []bailey.User{alice, mia, watcher}},
		{"root", nil, []bailey.User{alice, mia, watcher, root}},
	} {
		for _, u := range tt.who {
			if !policy.Fits(u, tt.scope) {
				t.Errorf("%s does not fit %+v", tt.scope, u)
			}
		}
		for _, u := range tt.not {
			if policy.Fits(u, tt.scope) {
				t.Errorf("%s fits %+v", tt.scope, u)
			}
		}
	}
}

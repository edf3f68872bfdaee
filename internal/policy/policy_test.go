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
	return map[string]bailey.Actor{
		"alice":             by("alice", bailey.RoleUser, "password"),
		"alice's token":     by("alice", bailey.RoleUser, "token"),
		"alice, in vision":  by("alice", bailey.RoleUser, "password", "audio", "vision"),
		"bob":               by("bob", bailey.RoleUser, "password"),
		"bob, in vision":    by("bob", bailey.RoleUser, "password", "vision"),
		"auditor":           by("eve", bailey.RoleAuditor, "password"),
		"admin":             by("root", bailey.RoleAdmin, "password"),
		"admin's token":     by("root", bailey.RoleAdmin, "token"),
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
	}
}

// grants says who may do what to what. Everything that is not here is refused:
// the test below tries all combinations.
func grants() map[policy.Action]map[string][]string {
	owners := []string{"alice", "alice's token", "alice, in vision", "alice as admin"}
	admins := []string{"admin", "admin's token", "alice as admin", "bailey itself"}
	staff := append(slices.Clone(admins), "auditor")
	everyone := []string{
		"alice", "alice's token", "alice, in vision", "alice as admin", "bob", "bob, in vision", "auditor", "admin", "admin's token",
	}
	inVision := []string{"alice, in vision", "bob, in vision"}

	owned := func(who []string) map[string][]string {
		return map[string][]string{"alice's": who, "alice's, open": who, "alice's, of class": who}
	}
	anyThing := func(who []string) map[string][]string {
		all := map[string][]string{}
		for name := range things() {
			all[name] = who
		}
		return all
	}
	withoutOwner := func(who []string, m map[string][]string) map[string][]string {
		m["nothing"], m["open class"], m["gpu class"] = who, who, who
		return m
	}
	both := func(a, b []string) []string { return append(slices.Clone(a), b...) }
	classes := map[string][]string{
		"open class": everyone, "gpu class": inVision,
		"alice's, open": owners, "alice's, of class": {"alice, in vision"},
	}
	return map[policy.Action]map[string][]string{
		policy.WorkspaceOpen:   owned(owners),
		policy.WorkspaceLogs:   owned(owners),
		policy.WorkspaceStart:  owned(owners),
		policy.WorkspaceView:   withoutOwner(staff, owned(both(owners, staff))),
		policy.VolumeView:      withoutOwner(staff, owned(both(owners, staff))),
		policy.WorkspaceStop:   withoutOwner(admins, owned(both(owners, admins))),
		policy.WorkspaceDelete: withoutOwner(admins, owned(both(owners, admins))),
		policy.VolumeDelete:    withoutOwner(admins, owned(both(owners, admins))),
		policy.WorkspaceCreate: classes,
		policy.ClassUse:        classes,
		policy.UserManage:      anyThing(admins),
		policy.SecretManage:    anyThing(admins),
		policy.FilterManage:    anyThing(admins),
		policy.SecretList:      anyThing(staff),
		policy.EgressManage:    anyThing(admins),
		policy.EgressView:      withoutOwner(staff, owned(both(owners, staff))),
		policy.SSHView:         withoutOwner(staff, owned(both(owners, staff))),
		policy.SSHKill:         withoutOwner(admins, owned(both(owners, admins))),
		policy.RecordingDelete: anyThing(admins),
		policy.ImageManage:     anyThing(admins),
		policy.BanManage:       anyThing(admins),
		policy.BanList:         anyThing(staff),
		policy.ImageList:       anyThing(both(everyone, []string{"bailey itself"})),
		policy.UserList:        anyThing(staff),
		policy.AuditRead:       anyThing(staff),
		policy.ConfigRead:      anyThing(staff),
		policy.FleetView:       anyThing(staff),
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

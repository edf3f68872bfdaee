// Package policy decides whether an actor may do an action to a thing. It is
// the one place for that question: every route, upgrade and service call asks
// [Decide]. It does no I/O and knows no protocol.
package policy

import (
	"slices"

	"github.com/baileyhq/bailey"
)

// An Action is what an actor asks to do.
type Action string

// The actions.
const (
	WorkspaceCreate Action = "workspace.create"
	WorkspaceView   Action = "workspace.view" // see that it exists, its state and events
	WorkspaceStart  Action = "workspace.start"
	WorkspaceStop   Action = "workspace.stop"
	WorkspaceDelete Action = "workspace.delete"
	WorkspaceOpen   Action = "workspace.open" // reach what runs inside
	WorkspaceLogs   Action = "workspace.logs"
	VolumeView      Action = "volume.view"
	VolumeDelete    Action = "volume.delete"
	ClassUse        Action = "class.use"
	UserManage      Action = "user.manage"
	UserList        Action = "user.list"
	AuditRead       Action = "audit.read"
	ConfigRead      Action = "config.read"
	FilterManage    Action = "filter.manage"
	SecretManage    Action = "secret.manage"
	SecretList      Action = "secret.list"   // names, never values
	FleetView       Action = "fleet.view"    // everybody's workspaces, GPUs, orphans
	EgressView      Action = "egress.view"   // what a user's workspaces asked to reach, and what they were granted
	EgressManage    Action = "egress.manage" // allow, deny and revoke
	BanList         Action = "ban.list"      // who is locked out, and whose word it was
	BanManage       Action = "ban.manage"    // ban an address, lift a ban or a lock
	ImageList       Action = "image.list"
	ImageManage     Action = "image.manage" // which images may be launched, by whose word
	SSHView         Action = "ssh.view"     // see a session, watch it, replay its recording; without an owner: everybody's
	SSHKill         Action = "ssh.kill"     // end a living session
	RecordingDelete Action = "recording.delete"
)

// A Thing is what the action is about. Zero fields are "none of that sort".
type Thing struct {
	OwnerID string        // of a workspace or volume
	Class   *bailey.Class // for ClassUse and WorkspaceCreate
}

// Decide reports whether actor may do action to thing. Unknown actions and
// unknown roles are refused. A refusal to see a thing is to be shown as if the
// thing did not exist.
func Decide(actor bailey.Actor, action Action, thing Thing) bool {
	if !actor.Role.Valid() || actor.UserID == "" && actor.Method != "system" {
		return false
	}
	owner := thing.OwnerID != "" && thing.OwnerID == actor.UserID
	admin := actor.Role == bailey.RoleAdmin
	auditor := actor.Role == bailey.RoleAuditor
	switch action {
	case WorkspaceOpen, WorkspaceLogs:
		// What is inside belongs to its owner alone, administrators included.
		return owner
	case WorkspaceView, VolumeView, EgressView, SSHView:
		return owner || admin || auditor
	case WorkspaceStart:
		return owner
	case WorkspaceStop, WorkspaceDelete, VolumeDelete, SSHKill:
		return owner || admin
	case WorkspaceCreate, ClassUse:
		// Nobody makes workspaces in somebody else's name, on their quota.
		forSelf := owner || thing.OwnerID == ""
		return thing.Class != nil && forSelf && actor.Method != "system" && mayUse(actor, *thing.Class)
	case UserManage, SecretManage, EgressManage, ImageManage, FilterManage, BanManage, RecordingDelete:
		return admin
	case ImageList:
		return true // everybody sees what they could start, and who signed it
	case UserList, SecretList, BanList, AuditRead, FleetView, ConfigRead:
		return admin || auditor
	}
	return false
}

// mayUse reports whether the class is open to one of the actor's groups.
func mayUse(actor bailey.Actor, c bailey.Class) bool {
	if len(c.Groups) == 0 {
		return true
	}
	return slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(actor.Groups, g) })
}

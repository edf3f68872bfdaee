package policy

import (
	"slices"

	"github.com/baileyhq/bailey"
)

// within reports whether the actor's credential was made for the action. A
// token that says nothing is good for nothing: that a door forgot to carry its
// scopes must not make it wider.
func within(actor bailey.Actor, action Action, thing Thing) bool {
	if len(actor.Workspaces) > 0 && !among(actor.Workspaces, action, thing) {
		return false
	}
	if actor.Scopes == nil && actor.Method != "token" {
		return true
	}
	own := actor.UserID != "" && thing.OwnerID == actor.UserID
	return slices.ContainsFunc(actor.Scopes, func(s bailey.Scope) bool { return permits(s, action, own) })
}

// among is [within] for a credential that is for some workspaces only: what is
// not about one of those is refused, but for what a start asks on the way.
func among(ids []string, action Action, thing Thing) bool {
	switch action { //nolint:exhaustive // all else is refused
	case AccountSelf, ClassUse:
		return true
	case WorkspaceView, WorkspaceStart, WorkspaceStop, WorkspaceDelete, WorkspaceOpen, WorkspaceLogs:
		return thing.WorkspaceID != "" && slices.Contains(ids, thing.WorkspaceID)
	}
	return false
}

// permits says what a scope is good for. An action that is not here is refused
// to every token but those with [bailey.ScopeAll]. own says that the thing is
// the token's user's: the scopes of workspaces are about one's own, also for an
// administrator, whose job in a pipeline must not stop colleagues' work.
func permits(s bailey.Scope, action Action, own bool) bool {
	is := func(any ...bailey.Scope) bool { return slices.Contains(any, s) }
	if s == bailey.ScopeAll {
		return true
	}
	switch action {
	case AccountSelf:
		return slices.Contains(bailey.Scopes(), s)
	case AccountManage:
		return is(bailey.ScopeAccount)
	case ClassUse, ImageList:
		return is(bailey.ScopeWorkspacesRead, bailey.ScopeWorkspacesWrite, bailey.ScopeWorkspacesOpen, bailey.ScopeAdmin)
	case WorkspaceView, VolumeView, EgressView:
		if own {
			return is(bailey.ScopeWorkspacesRead, bailey.ScopeWorkspacesWrite, bailey.ScopeWorkspacesOpen)
		}
		return is(bailey.ScopeAdminRead, bailey.ScopeAdmin) || action == WorkspaceView && is(bailey.ScopeGroups)
	case WorkspaceStop:
		return own && is(bailey.ScopeWorkspacesWrite) || !own && is(bailey.ScopeGroups, bailey.ScopeAdmin)
	case WorkspaceDelete, VolumeDelete:
		return own && is(bailey.ScopeWorkspacesWrite) || !own && is(bailey.ScopeAdmin)
	case WorkspaceCreate, WorkspaceStart:
		return is(bailey.ScopeWorkspacesWrite)
	case WorkspaceOpen, WorkspaceLogs:
		return is(bailey.ScopeWorkspacesOpen)
	case SSHView:
		return own && is(bailey.ScopeSSH) || !own && is(bailey.ScopeAuditRead)
	case SSHKill:
		return own && is(bailey.ScopeSSH) || !own && is(bailey.ScopeAdmin)
	case SSHKeyAdd:
		return own && is(bailey.ScopeSSH)
	case SSHKeyView:
		return own && is(bailey.ScopeSSH) || !own && is(bailey.ScopeAdminRead, bailey.ScopeAdmin)
	case SSHKeyRemove:
		return own && is(bailey.ScopeSSH) || !own && is(bailey.ScopeAdmin)
	case AuditRead:
		return is(bailey.ScopeAuditRead)
	case UserList, SecretList, BanList, FleetView, ConfigRead:
		return is(bailey.ScopeAdminRead, bailey.ScopeAdmin)
	case GroupView:
		return is(bailey.ScopeGroups, bailey.ScopeAdminRead, bailey.ScopeAdmin)
	case GroupManage:
		return is(bailey.ScopeGroups, bailey.ScopeAdmin)
	case UserManage, ServiceManage, GroupAppoint, RecordingDelete, SecretManage, EgressManage, ImageManage, FilterManage, BanManage:
		return is(bailey.ScopeAdmin)
	}
	return false
}

// Covers reports whether whoever has the scopes may give s away: it is no wider
// than they are together.
func Covers(have []bailey.Scope, s bailey.Scope) bool {
	has := func(any ...bailey.Scope) bool {
		return slices.ContainsFunc(any, func(a bailey.Scope) bool { return slices.Contains(have, a) })
	}
	if has(bailey.ScopeAll, s) {
		return true
	}
	switch s { //nolint:exhaustive // the others are in no other
	case bailey.ScopeWorkspacesRead:
		return has(bailey.ScopeWorkspacesWrite, bailey.ScopeWorkspacesOpen)
	case bailey.ScopeGroups, bailey.ScopeAdminRead:
		return has(bailey.ScopeAdmin)
	}
	return false
}

// Fits reports whether a token of the user may have the scope: nobody is given
// today what would come true only with a role of tomorrow.
func Fits(u bailey.User, s bailey.Scope) bool {
	admin := u.Role == bailey.RoleAdmin
	switch s {
	case bailey.ScopeAll, bailey.ScopeWorkspacesRead, bailey.ScopeWorkspacesWrite, bailey.ScopeWorkspacesOpen, bailey.ScopeSSH, bailey.ScopeAccount:
		return true
	case bailey.ScopeGroups:
		return admin || len(u.Manages) > 0
	case bailey.ScopeAuditRead, bailey.ScopeAdminRead:
		return admin || u.Role == bailey.RoleAuditor
	case bailey.ScopeAdmin:
		return admin
	}
	return false
}

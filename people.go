package bailey

import (
	"slices"
	"time"
)

// A Role is what a user may do beyond their own workspaces.
type Role string

// The roles, from least to most.
const (
	RoleUser    Role = "user"    // own workspaces only
	RoleAuditor Role = "auditor" // reads the audit log and lists, changes nothing
	RoleAdmin   Role = "admin"   // everything but other people's workspace contents
)

// Valid reports whether r is a role that exists.
func (r Role) Valid() bool { return r == RoleUser || r == RoleAuditor || r == RoleAdmin }

// A User is a person with an account, or a service account: a program that
// acts in its own name, has no password and signs in with tokens alone.
type User struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	Groups    []string  `json:"groups"`
	Manages   []string  `json:"manages,omitempty"`  // groups whose members this user may add and remove
	Service   bool      `json:"service,omitempty"`  // a service account
	OwnerID   string    `json:"owner_id,omitempty"` // of a service account: the person who answers for it
	UID       int       `json:"uid"`                // numeric uid inside workspaces, 20000–59999, unique and never reused
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
}

// MaxGroups is how many groups one user may be in, and manage.
const MaxGroups = 64

// A GroupChange is what to change between a user and a group.
type GroupChange string

// The changes.
const (
	GroupJoin    GroupChange = "join"
	GroupLeave   GroupChange = "leave" // and manage it no more
	GroupAppoint GroupChange = "appoint"
	GroupDismiss GroupChange = "dismiss"
)

// Apply returns the user after the change. It changes nothing that u shares
// with others.
func (c GroupChange) Apply(u User, group string) User {
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(g string) bool { return g == group })
	}
	with := func(list []string) []string {
		list = append(without(list), group)
		slices.Sort(list)
		return list
	}
	switch c {
	case GroupJoin:
		u.Groups = with(u.Groups)
	case GroupLeave:
		u.Groups, u.Manages = without(u.Groups), without(u.Manages)
	case GroupAppoint:
		u.Manages = with(u.Manages)
	case GroupDismiss:
		u.Manages = without(u.Manages)
	}
	if len(u.Manages) == 0 {
		u.Manages = nil
	}
	return u
}

// An Actor is who is asking: the user behind a finished authentication and how
// it was made. It is a value; doors carry it in the request's context.
type Actor struct {
	UserID  string
	Name    string
	Role    Role
	Groups  []string
	Manages []string // groups that the user manages
	Method  string   // "password", "token", "setup", "system"
	Session string   // id of the session or token row, never its secret
	IP      string   // the caller's address as edge determined it

	// Scopes is what the credential was limited to. A token always has some; nil
	// is for sign-ins, which may all that their user may.
	Scopes []Scope
	// Workspaces are the ids of the only workspaces that the credential is for;
	// empty: it is for all of its user's.
	Workspaces []string
	// Networks are the CIDRs that the credential may be used from; empty: from
	// everywhere. It has been checked for IP; who derives a credential from this
	// one passes it on.
	Networks []string

	AuthTime time.Time // when the actor last proved who they are, with Methods; zero: not known
	Methods  []string  // "pwd", "otp", "hwk", "user", "mfa", as RFC 8176 calls them, and "sso"
}

// System is the actor of what bailey does by itself: idle stops, reconciling.
func System() Actor { return Actor{Name: "bailey", Role: RoleAdmin, Method: "system"} }

// A Session is one sign-in of a browser. Only a hash of its secret is stored.
type Session struct {
	ID        string    `json:"id"`
	UserID    string    `json:"user_id"`
	IP        string    `json:"ip"`
	UserAgent string    `json:"user_agent"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	ExpiresAt time.Time `json:"expires_at"` // absolute
	AuthAt    time.Time `json:"auth_at"`    // when its owner last proved who they are
	Methods   string    `json:"methods"`    // by what, as RFC 8176 calls it: "pwd otp"
}

// A Scope is one thing that a token may be used for. policy says which actions
// it permits.
type Scope string

// The scopes.
const (
	ScopeAll             Scope = "all"              // whatever its user may
	ScopeWorkspacesRead  Scope = "workspaces:read"  // list and see one's own workspaces
	ScopeWorkspacesWrite Scope = "workspaces:write" // make, start, stop and delete them; includes reading
	ScopeWorkspacesOpen  Scope = "workspaces:open"  // reach what runs inside: Jupyter, terminals, logs; includes reading
	ScopeSSH             Scope = "ssh"              // get SSH certificates; see, watch and end one's own SSH sessions
	ScopeAccount         Scope = "account"          // one's own account: sessions, tokens, keys, password
	ScopeGroups          Scope = "groups"           // the members of groups that one manages, and their workspaces
	ScopeAuditRead       Scope = "audit:read"       // the audit journal
	ScopeAdminRead       Scope = "admin:read"       // everybody's workspaces, accounts and settings
	ScopeAdmin           Scope = "admin"            // change those; includes reading, but not the audit journal
)

// Scopes lists the scopes that exist, the widest first.
func Scopes() []Scope {
	return []Scope{
		ScopeAll, ScopeWorkspacesRead, ScopeWorkspacesWrite, ScopeWorkspacesOpen, ScopeSSH, ScopeAccount,
		ScopeGroups, ScopeAuditRead, ScopeAdminRead, ScopeAdmin,
	}
}

// A Token is an API credential "bly_<id>_<secret>". Only a hash of the secret
// is stored.
type Token struct {
	ID         string    `json:"id"`
	UserID     string    `json:"user_id"`
	Note       string    `json:"note"`
	Scopes     []Scope   `json:"scopes"`
	Workspaces []string  `json:"workspaces,omitempty"` // ids; empty: all of its user's
	Networks   []string  `json:"networks,omitempty"`   // CIDRs; empty: from everywhere
	ParentID   string    `json:"parent_id,omitempty"`  // the token that made it, which it does not outlive
	CreatedBy  string    `json:"created_by,omitempty"` // id of who made it, when that was not its user
	CreatedAt  time.Time `json:"created_at"`
	UsedAt     time.Time `json:"used_at"`           // zero: never
	UsedIP     string    `json:"used_ip,omitempty"` // where it was used from then
	ExpiresAt  time.Time `json:"expires_at"`
	AuthAt     time.Time `json:"auth_at"` // when its owner last proved with it who they are; zero: never
	Methods    string    `json:"methods"` // by what, as in a Session
}

// A DeviceState is how far an RFC 8628 device authorization has come.
type DeviceState string

// The states of a device authorization. When its token has been fetched it is
// gone.
const (
	DevicePending  DeviceState = "pending"
	DeviceApproved DeviceState = "approved"
	DeviceDenied   DeviceState = "denied"
)

// A Device is a program without a browser that asks a person for a token (RFC
// 8628). Of its two codes only hashes are stored.
type Device struct {
	ID        string        `json:"id"`
	State     DeviceState   `json:"state"`
	Note      string        `json:"note"` // what the program calls itself
	Scopes    []Scope       `json:"scopes"`
	IP        string        `json:"ip"`                // where it asked from
	UserID    string        `json:"user_id,omitempty"` // who answered
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	PolledAt  time.Time     `json:"polled_at"` // zero: never
	Interval  time.Duration `json:"interval"`  // the least time between polls; grows with each that comes early
}

// An External ties an account to who they are elsewhere: the issuer and the
// subject that never means anybody else there. One account can have several.
type External struct {
	ID      string `json:"id"`
	UserID  string `json:"user_id"`
	Source  string `json:"source"` // "oidc:NAME" or "ldap:NAME", by which they came last
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
	Login   string `json:"login"` // what they are called there

	Role   Role     `json:"role"`   // what the source gave last
	Groups []string `json:"groups"` // and these
	Gone   string   `json:"gone"`   // why the source no longer vouches for them, which disabled the account; empty: it does

	CreatedAt  time.Time `json:"created_at"`
	SignedInAt time.Time `json:"signed_in_at"`
	CheckedAt  time.Time `json:"checked_at"` // when the source last vouched for them
}

// An ExternalSession is what is known about a session that began elsewhere.
type ExternalSession struct {
	SessionID  string
	ExternalID string
	UserID     string
	Source     string
	SID        string // the provider's own name of the session; may be empty
	Refresh    string // by which the provider is asked again, sealed in the store; may be empty
	CheckedAt  time.Time
}

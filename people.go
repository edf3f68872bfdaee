package bailey

import "time"

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

// A User is a person with an account.
type User struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	Groups    []string  `json:"groups"`
	UID       int       `json:"uid"` // numeric uid inside workspaces, 20000–59999, unique and never reused
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
}

// An Actor is who is asking: the user behind a finished authentication and how
// it was made. It is a value; doors carry it in the request's context.
type Actor struct {
	UserID  string
	Name    string
	Role    Role
	Groups  []string
	Method  string // "password", "token", "setup", "system"
	Session string // id of the session or token row, never its secret
	IP      string // the caller's address as edge determined it

	AuthTime time.Time // when the actor last proved who they are, with Methods; zero: not known
	Methods  []string  // "pwd", "otp", "hwk", "user", "mfa", as RFC 8176 calls them
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

// A Token is an API credential "bly_<id>_<secret>". Only a hash of the secret
// is stored.
type Token struct {
	ID        string    `json:"id"`
	UserID    string    `json:"user_id"`
	Note      string    `json:"note"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"` // zero: never
	ExpiresAt time.Time `json:"expires_at"`
	AuthAt    time.Time `json:"auth_at"` // when its owner last proved who they are; zero: that was never for this token
	Methods   string    `json:"methods"` // as of a Session
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

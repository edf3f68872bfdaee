package bailey

import "time"

// An AskState is what became of an [EgressRequest].
type AskState string

// The states of a request. A denied one stays denied however often the same is
// tried again, until an administrator allows it or deletes the answer.
const (
	AskOpen    AskState = "open"
	AskAllowed AskState = "allowed"
	AskDenied  AskState = "denied"
)

// An EgressRequest says that a workspace tried to reach something that its
// class does not allow. Tries of the same user, class, host and port are one
// request with a count.
type EgressRequest struct {
	ID          string    `json:"id"`
	UserID      string    `json:"user_id"`
	User        string    `json:"user"`         // the user's name
	WorkspaceID string    `json:"workspace_id"` // where it was tried last
	Workspace   string    `json:"workspace"`    // that workspace's name
	Class       string    `json:"class"`
	Host        string    `json:"host"` // canonical: lower case, ASCII, without a trailing dot
	Port        int       `json:"port"`
	Method      string    `json:"method,omitempty"` // of the last plain HTTP request; empty: a tunnel
	Count       int64     `json:"count"`
	FirstAt     time.Time `json:"first_at"`
	LastAt      time.Time `json:"last_at"`
	State       AskState  `json:"state"`
	DecidedBy   string    `json:"decided_by,omitempty"` // name of the administrator
	DecidedAt   time.Time `json:"decided_at,omitzero"`
}

// A GrantScope says for whom and for how long an [EgressGrant] holds.
type GrantScope string

// The scopes. Once is for one workspace and ends ten minutes after its first
// connection, because even one download is several connections; it is gone
// after a day when nobody used it. Day is for one user in one class. Class is
// for everybody's workspaces of the class.
const (
	GrantOnce  GrantScope = "once"
	GrantDay   GrantScope = "day"
	GrantClass GrantScope = "class"
)

// Valid reports whether s is a scope that exists.
func (s GrantScope) Valid() bool { return s == GrantOnce || s == GrantDay || s == GrantClass }

// An EgressGrant is an administrator's yes to something that no rule allows.
// Every grant ends at ExpiresAt.
type EgressGrant struct {
	ID          string     `json:"id"`
	RequestID   string     `json:"request_id,omitempty"`
	Scope       GrantScope `json:"scope"`
	UserID      string     `json:"user_id,omitempty"` // empty with GrantClass
	User        string     `json:"user,omitempty"`
	WorkspaceID string     `json:"workspace_id,omitempty"` // with GrantOnce alone
	Class       string     `json:"class"`
	Host        string     `json:"host"` // canonical, or "*." and a domain
	Port        int        `json:"port"`
	By          string     `json:"by"` // name of the administrator
	CreatedAt   time.Time  `json:"created_at"`
	UsedAt      time.Time  `json:"used_at,omitzero"` // first connection; kept for GrantOnce alone
	ExpiresAt   time.Time  `json:"expires_at"`
}

package bailey

import "time"

// The kinds of [Factor].
const (
	FactorTOTP    = "totp"    // an authenticator app
	FactorPasskey = "passkey" // WebAuthn
)

// A Factor is what somebody has besides a password, to prove who they are.
type Factor struct {
	ID        string    `json:"id"`
	UserID    string    `json:"user_id"`
	Kind      string    `json:"kind"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"` // zero: never
	Cloned    bool      `json:"cloned"`  // a passkey's counter went back: there may be a copy of it
}

// A Browser is one that somebody signed in with before. Strangers who try
// the same name cannot lock it out.
type Browser struct {
	ID        string    `json:"id"`
	UserID    string    `json:"user_id"`
	IP        string    `json:"ip"` // of the last sign-in
	UserAgent string    `json:"user_agent"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// A PendingSignIn is a sign-in of which the password was right and something is
// still missing. It opens nothing but its own next step.
type PendingSignIn struct {
	ID      string
	UserID  string
	Stored  string // the hash that the password was compared with; empty: there was no password
	Methods string // what was proved so far, as in [Session]
	Begin   string // how it began: "password", or what stands in Actor.Method

	// Of one that an identity provider vouches for, as in [ExternalSession].
	ExternalID, SID, Refresh string

	Tries     int // at the step that is next
	CreatedAt time.Time
	ExpiresAt time.Time
}

// A Notice tells the owner of an account what was done to it. What is from a
// closed set, Detail a name that was checked or escaped.
type Notice struct {
	ID     string    `json:"id"`
	UserID string    `json:"user_id"`
	What   string    `json:"what"`
	Detail string    `json:"detail"`
	At     time.Time `json:"at"`
}

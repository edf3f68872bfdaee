package bailey

import "time"

// A Ban is a block of one subject from one place, a ban of a whole place, or a
// slow-down of one that may be everybody's way in.
type Ban struct {
	ID       string    // opaque
	Kind     string    // which counter it is of; only guard knows
	Prefix   string    // "203.0.113.9/32", or a device
	Subject  string    // of a block: the account's name; empty for a ban, and for names that are no account
	Pair     bool      // a block of one subject from Prefix, not a ban of all
	Slowed   bool      // may be everybody's way in: slowed instead of banned
	By       string    // who imposed it, for those of administrators
	Until    time.Time // when it ends by itself; past: it has ended
	Repeated int       // how often in a row it was imposed, 1 for the first time; 0: lifted, forget why
}

// A FailedAttempt is one failed sign-in, as servers tell each other and
// themselves after a restart. Of a name that is no account there is only the
// hash: people type passwords where names belong.
type FailedAttempt struct {
	Prefix  string
	Subject uint64 // hashed under the installation's key
	Name    string // of an account; else empty
	At      time.Time
}

// A KnownPair says that a subject has signed in from a place.
type KnownPair struct {
	Prefix  string
	Subject uint64 // hashed under the installation's key
	Until   time.Time
}

// GuardChanges is what one server's guard has to tell another's.
type GuardChanges struct {
	Failures []FailedAttempt
	Bans     []Ban
	Knowns   []KnownPair
}

// Empty reports whether there is nothing to tell.
func (c GuardChanges) Empty() bool { return len(c.Failures)+len(c.Bans)+len(c.Knowns) == 0 }

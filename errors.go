package bailey

import (
	"errors"
	"fmt"
)

// A Kind says what sort of failure an [Error] is. Doors map it to an HTTP
// status, an exit code or an SSH reply; nobody parses messages.
type Kind int

// The kinds of failure.
const (
	Internal        Kind = iota // a defect or an outside failure; the stranger reads "internal error"
	Invalid                     // the request cannot be right: bad name, bad value
	Unauthenticated             // sign-in needed, or it failed
	Denied                      // signed in, but not allowed
	NotFound                    // no such thing, or none that the asker may know of
	Conflict                    // the thing is in a state that forbids this
	OverQuota                   // a limit of the user, the group or the machine is reached
	TooMany                     // asked too often; wait and try again
	SecondFactor                // the password was right, and is not enough
	StepUp                      // signed in, but too long ago for this: prove it again
	Unavailable                 // something needed (engine, store, journal) does not answer now
)

// String returns the kind's stable code, as it stands in API answers.
func (k Kind) String() string {
	switch k {
	case Internal:
		return "internal"
	case Invalid:
		return "invalid"
	case Unauthenticated:
		return "unauthenticated"
	case Denied:
		return "denied"
	case NotFound:
		return "not_found"
	case Conflict:
		return "conflict"
	case OverQuota:
		return "quota"
	case TooMany:
		return "too_many"
	case SecondFactor:
		return "second_factor"
	case StepUp:
		return "step_up"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// An Error is a failure that a stranger may read. Msg says what happened and
// why, Hint the next thing to do; both are shown to whoever asked. Cause is
// for the log alone.
type Error struct {
	Kind  Kind
	Msg   string
	Hint  string // may be empty
	Cause error  // may be nil; never shown outside
}

// Error returns the message and, for the log, the cause. Doors show Msg and
// Hint instead.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Msg + ": " + e.Cause.Error()
	}
	return e.Msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf returns an [Error] of the kind, without hint. A %w verb sets Cause and
// keeps it out of Msg only if the caller says so: what is formatted is shown.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the first [Error] in err's chain, or [Internal].
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

package workspace

import (
	"errors"
	"fmt"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

// A runError is why a run ends without anybody having asked for it.
type runError struct {
	reason  string       // in words, for the workspace's owner
	code    audit.Reason // the same for the journal
	action  audit.Action // what the journal calls it
	restart bool         // the workspace was up, so it is to be up again
	cause   error        // for the log; may be nil
}

func (e *runError) Error() string {
	if e.cause != nil {
		return e.reason + ": " + e.cause.Error()
	}
	return e.reason
}

func (e *runError) Unwrap() error { return e.cause }

// Reasons to look again that are no failure of the run.
var (
	errUnwanted = errors.New("the workspace is not wanted running any more")
	errAgain    = errors.New("the container was started again meanwhile")
	errNotHere  = errors.New("the engine does not have the image")
)

// launchFailed returns the failure of a launch.
func launchFailed(code audit.Reason, cause error, format string, args ...any) *runError {
	return &runError{action: audit.LaunchFailed, code: code, cause: cause, reason: fmt.Sprintf(format, args...)}
}

// asRunError returns err as the failure of a launch. What is not meant for
// strangers is kept for the log.
func asRunError(err error) *runError {
	if e, ok := errors.AsType[*runError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*bailey.Error](err); ok && e.Kind != bailey.Internal {
		return launchFailed(audit.EngineFailed, err, "%s", e.Msg)
	}
	return launchFailed(audit.EngineFailed, err, "it could not be started because of an internal error; an administrator finds the cause in the server's log")
}

// noWorkspace is the answer for a workspace that is not there and for one that
// the asker may not know of: the same words for both.
func noWorkspace() error {
	return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such workspace", Hint: "bailey ls lists yours"}
}

// noVolume is noWorkspace for volumes.
func noVolume() error {
	return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such volume"}
}

// hidden gives NotFound of the store the words that a refusal has.
func hidden(err, as error) error {
	if bailey.KindOf(err) == bailey.NotFound {
		return as
	}
	return err
}

// engineDown says that nothing can be done because the engine does not answer.
func engineDown(cause error) error {
	return &bailey.Error{
		Kind:  bailey.Unavailable,
		Msg:   "the container engine does not answer",
		Hint:  "try again in a moment; an administrator finds out more with: bailey doctor",
		Cause: cause,
	}
}

// fromEngine gives an engine's error the shape that doors know.
func fromEngine(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrUnavailable):
		return engineDown(fmt.Errorf("%s: %w", doing, err))
	}
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		return e
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unwritable says that nothing was done because it could not be recorded.
func unwritable(what string, cause error) error {
	return &bailey.Error{
		Kind:  bailey.Unavailable,
		Msg:   "the audit journal cannot be written, so " + what,
		Hint:  "an administrator frees space on the disk of the state directory",
		Cause: cause,
	}
}

func noImage(image string) error {
	return &bailey.Error{
		Kind: bailey.Unavailable,
		Msg:  fmt.Sprintf("image %s is not on this machine", image),
		Hint: "an administrator builds and loads the images with: make images",
	}
}

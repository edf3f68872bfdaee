// Package jupyter is the wire formats of a Jupyter server: kernel messages in
// both WebSocket protocols, terminals, events, the contents API and notebooks.
// It takes them apart strictly and puts them together again canonically, so
// that nobody behind us can read into bytes what we did not see in them. What
// the texts inside may say is for its callers to judge.
//
// The far end is a program of the workspace's user and is treated as hostile:
// what is ambiguous is refused. A JSON object with the same name twice, or with
// a protocol's name in another case, is refused, because readers differ in
// which one they take; so are offsets that overlap, leave gaps or do not end
// where the message ends.
//
// The formats are those of jupyter_server 1.24 and 2.x, terminado 0.17 and
// nbformat 4.
package jupyter

import (
	"errors"
	"fmt"
)

// ErrMalformed is what every error of this package is, unless it came from the
// caller's own function.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// maxDepth bounds how deep JSON may nest. Widgets' states reach a dozen.
const maxDepth = 256

// A Kind says what part a text plays.
type Kind uint8

const (
	// Text is a string anywhere that no other Kind describes.
	Text Kind = iota
	// Name is the name of an object's member where names are data.
	Name
	// Stream is what a cell printed: it continues what was printed before.
	Stream
	// Bundle is a representation in a MIME bundle; Place.MIME says which.
	Bundle
	// Traceback is the lines of an error, joined by newlines.
	Traceback
	// Code is what a person wrote to be run, or the source of a cell.
	Code
	// Secret is what a person typed at a password prompt.
	Secret
)

// A Place is where a text stands.
type Place struct {
	Kind   Kind
	MIME   string // of a Bundle
	Stream string // of a Stream: "stdout" or "stderr"
	Output bool   // in a notebook: part of a cell's output
}

// A Visit is asked about every text of a message or document, in order, and
// returns what is to stand in its place: text itself, or other bytes, which
// must be UTF-8. text is valid during the call only. An error ends the rewrite
// and is returned as it is.
type Visit func(p Place, text []byte) ([]byte, error)

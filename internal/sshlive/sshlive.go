// Package sshlive says what an SSH session is to those who look on: who it is,
// where it came from and what it carries, how it is recorded, and which ones
// there are at this moment. It lets the door tell, and administrators list,
// watch and end; who may do so is decided by whoever calls it.
package sshlive

import (
	"context"
	"time"
)

// A Kind is what a session is for.
type Kind string

// The kinds. A connection by itself is none; each channel that was opened in
// it is one, and each listening socket that was asked for.
const (
	Shell      Kind = "shell"
	Exec       Kind = "exec"
	SFTP       Kind = "sftp"
	Forward    Kind = "forward"    // from the client to a port or socket inside
	Remote     Kind = "remote"     // from a port or socket inside to the client
	Agent      Kind = "agent"      // the client's agent, lent to the workspace
	Connection Kind = "connection" // the connection itself; it carries nothing
)

// Meta is what is known of a session when it begins. It does not change.
type Meta struct {
	ID     string // ULID
	ConnID string // ULID of the connection it belongs to
	Kind   Kind

	UserID, User           string
	WorkspaceID, Workspace string
	Class, Run             string

	Command string // of an exec, cut to 4 KiB: foreign text
	Target  string // of a forward: "127.0.0.1:8888" or a path, foreign text
	TTY     bool
	Term    string // foreign text, cut to 64 bytes
	Cols    int
	Rows    int

	KeyID       string
	Fingerprint string // "SHA256:…" of the key that signed
	Certificate bool
	IP          string // the caller's address
	Client      string // the client's version line, foreign text
	Started     time.Time

	// Strict says that the session must not go on without its recording. When
	// it is false a recorder that fails is audited, and the session goes on.
	Strict bool
}

// A Recorder keeps what happens in sessions. It is told of every session whose
// class is recorded, before anything of it runs.
type Recorder interface {
	// Begin starts the recording of a session. An error ends a strict session
	// before it began.
	Begin(ctx context.Context, m Meta) (Recording, error)
}

// A Recording takes one session down. Its methods may be called concurrently
// and do not keep what they are given. They may wait, a little, for a disk that
// is busy: that is the back-pressure; what they cannot take at all they answer
// with an error, and are not called again but for Close.
type Recording interface {
	Output(p []byte) error // of a terminal: what the person is shown, after the filter
	Input(p []byte) error  // what the person types; the recording decides whether it keeps it
	Resize(cols, rows int) error
	Event(e Event) error
	Close(end End) error // called once, also after an error
}

// An Event is something that happened in a session, apart from its terminal.
type Event struct {
	At   time.Time
	Kind EventKind
	Path string // of a file: foreign text, cut to 4 KiB
	To   string // the new name of a file that was renamed, or a link's target
	Size int64  // bytes that were carried
	Up   bool   // into the workspace
	OK   bool   // false: it was refused, or failed
}

// An EventKind is what an Event is.
type EventKind string

// The kinds of events.
const (
	FileRead   EventKind = "sftp.read"   // a file was closed after Size bytes were read
	FileWrite  EventKind = "sftp.write"  // a file was closed after Size bytes were written
	FileRemove EventKind = "sftp.remove" //
	FileRename EventKind = "sftp.rename" //
	FileLink   EventKind = "sftp.link"   //
	FileMkdir  EventKind = "sftp.mkdir"  //
	FileAttr   EventKind = "sftp.setstat"
	FileOther  EventKind = "sftp.other"
	Signalled  EventKind = "signal" // Path holds the signal's name
	Blocked    EventKind = "blocked"
)

// An End is how a session ended.
type End struct {
	At       time.Time
	ExitCode int    // of what ran; -1: it did not exit by itself
	Signal   string // that ended it: "TERM"; empty: none
	Reason   string // why it was ended from here, in words; empty: it ended by itself
	Up, Down int64  // bytes into and out of the workspace
}

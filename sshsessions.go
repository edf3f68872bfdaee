package bailey

import "time"

// An SSHKind is what somebody did over SSH.
type SSHKind string

// The kinds of SSH sessions: a connection, and what is in it.
const (
	SSHShell      SSHKind = "shell"
	SSHExec       SSHKind = "exec"
	SSHSFTP       SSHKind = "sftp"
	SSHForward    SSHKind = "forward"    // from the client to a port or socket inside
	SSHRemote     SSHKind = "remote"     // from a port or socket inside to the client
	SSHAgent      SSHKind = "agent"      // the client's agent, lent to the workspace
	SSHConnection SSHKind = "connection" // the connection itself
)

// Valid reports whether k is a kind that exists.
func (k SSHKind) Valid() bool {
	switch k {
	case SSHShell, SSHExec, SSHSFTP, SSHForward, SSHRemote, SSHAgent, SSHConnection:
		return true
	}
	return false
}

// A RecordingState says what there is of a session's recording.
type RecordingState string

// The states of a recording.
const (
	RecordingNone    RecordingState = "none"    // there was none to be: the index has all there is
	RecordingOpen    RecordingState = "open"    // being written
	RecordingWhole   RecordingState = "whole"   // from the first byte to the last
	RecordingCut     RecordingState = "cut"     // a beginning: the disk was full, or the server ended
	RecordingDeleted RecordingState = "deleted" // by an administrator, or too old
)

// An SSHSession is a connection that somebody made over SSH, or one of the
// channels in it, as the index keeps it: who, where, when and how much. What
// was typed and shown is in the recording alone.
type SSHSession struct {
	ID            string         `json:"id"`
	Connection    string         `json:"connection"` // the same for all channels of a connection
	Server        string         `json:"server"`     // the installation whose door it came through
	UserID        string         `json:"user_id"`
	User          string         `json:"user"` // the name then: the account may be gone
	WorkspaceID   string         `json:"workspace_id"`
	Workspace     string         `json:"workspace"`
	Class         string         `json:"class"`
	Run           string         `json:"run"`
	Kind          SSHKind        `json:"kind"`
	Target        string         `json:"target"`         // of a forward: host and port, or a path; as the client asked
	Client        string         `json:"client"`         // address
	ClientVersion string         `json:"client_version"` // as it named itself
	Key           string         `json:"key"`            // fingerprint of the key that signed: "SHA256:…"
	BeganAt       time.Time      `json:"began_at"`
	EndedAt       time.Time      `json:"ended_at"` // zero: it lives
	In            int64          `json:"in"`       // bytes into the workspace
	Out           int64          `json:"out"`      // bytes out of it
	Exit          int            `json:"exit"`     // -1: none
	End           string         `json:"end"`      // why it ended, in one word
	Recording     RecordingState `json:"recording"`
	Size          int64          `json:"size"`   // of the recording on disk
	Digest        string         `json:"digest"` // SHA-256 of the recording's file, hex
}

// SSHFilter chooses sessions. Zero fields choose all.
type SSHFilter struct {
	UserID    string
	User      string // id or name, also of an account that is gone
	Workspace string // id or name
	Kind      SSHKind
	Live      bool   // only those that have not ended
	Before    string // only what began before the session with this id: the next page
	Limit     int    // 0 means 100, at most 1,000
}

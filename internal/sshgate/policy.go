package sshgate

import "slices"

// A Policy is what a class lets people do over SSH. The zero Policy is all that
// does not reach further than a browser's terminal does: shells, commands,
// sftp, and forwarding from the client to ports inside.
type Policy struct {
	Access Access
	// ForceCommand runs in place of every shell, command and subsystem, which
	// it finds in SSH_ORIGINAL_COMMAND; empty: none.
	ForceCommand string
	// StartOnConnect starts a workspace that is stopped when somebody comes.
	StartOnConnect bool

	// Forwarding is from the client to ports and sockets inside.
	Forwarding Forwarding
	Ports      []int // with ForwardPorts: which
	// RemoteForwarding lets the workspace's loopback listen for the client.
	RemoteForwarding bool
	// AgentForwarding lends the client's keys to the workspace.
	AgentForwarding bool

	Output Output // of commands without a terminal
	Files  Files  // what sftp does about findings

	Recording Recording
}

// Access is what people may run.
type Access string

// The kinds of access. The zero Access is full.
const (
	Full     Access = "full"
	SFTPOnly Access = "sftp-only"
	NoAccess Access = "off"
)

// Forwarding is how far forwarding goes.
type Forwarding string

// The kinds of forwarding. The zero Forwarding is all.
const (
	ForwardAll   Forwarding = "all"
	ForwardPorts Forwarding = "ports" // to listed ports, and no sockets
	ForwardNone  Forwarding = "none"
)

// Output is what the filter does with the output of a command that has no
// terminal, which may be a program's protocol.
type Output string

// The kinds of output. The zero Output is auto.
const (
	OutputAuto  Output = "auto"  // text is filtered; transfers and binary output pass unchanged, and are watched
	OutputWatch Output = "watch" // nothing is changed: findings are reported, and blocking rules end the session
)

// Files is what sftp does about what the filter finds in files.
type Files string

// The ways. The zero Files is watch.
const (
	FilesWatch Files = "watch" // findings are reported, and blocking rules end the transfer
	FilesBlock Files = "block" // every finding that would be masked ends the transfer
)

// Recording is whether sessions are recorded, and how strictly.
type Recording string

// The kinds of recording. The zero Recording is none.
const (
	RecordOff        Recording = "off"
	RecordBestEffort Recording = "best_effort" // a session goes on when its recording fails
	RecordStrict     Recording = "strict"      // it does not
)

func (p Policy) mayForward(port int) bool {
	switch p.Forwarding {
	case "", ForwardAll:
		return true
	case ForwardPorts:
		return port > 0 && slices.Contains(p.Ports, port)
	case ForwardNone:
	}
	return false
}

func (p Policy) recorded() bool {
	return p.Recording == RecordBestEffort || p.Recording == RecordStrict
}

package identity

import (
	"time"

	"golang.org/x/crypto/ssh"
)

// An SSHSignIn is a finished proof: whoever is at the other end of the
// connection holds the private half of Key. The door has verified the
// signature; nothing else of it is checked yet.
type SSHSignIn struct {
	Name        string           // the account that was asked for, without "+workspace"; as typed
	Key         ssh.PublicKey    // the key that signed; of a certificate, the key in it
	Certificate *ssh.Certificate // nil for a plain key
	IP          string           // the caller's address as the door determined it
	Client      string           // the client's version line: foreign text
}

// An SSHGrant is what a key or certificate lets its holder do over SSH. It can
// only take away from what the class of a workspace allows.
type SSHGrant struct {
	KeyID       string // id of the stored key, or the certificate's serial and key id
	KeyName     string // what its owner calls it
	Fingerprint string // "SHA256:…" of the key that signed
	Certificate bool

	ForceCommand string    // runs in place of whatever is asked for; empty: none
	Expires      time.Time // when the connection ends at the latest; zero: not because of the key

	NoPTY             bool
	NoForwarding      bool // of ports and sockets, both ways
	NoAgentForwarding bool
}

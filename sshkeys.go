package bailey

import (
	"strconv"
	"time"
)

// An SSHKey is a public key that signs its owner in over SSH. One key belongs
// to one user.
type SSHKey struct {
	ID          string    `json:"id"`
	UserID      string    `json:"user_id"`
	Name        string    `json:"name"` // the owner's word for it, unique among theirs
	Type        string    `json:"type"` // "ssh-ed25519", …
	Fingerprint string    `json:"fingerprint"`
	Wire        []byte    `json:"wire"` // canonical wire form
	Comment     string    `json:"comment"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"`  // zero: never
	UsedAt      time.Time `json:"used_at"`     // zero: never
	UsedFrom    string    `json:"used_from"`   // address of the last use
	RemindedAt  time.Time `json:"reminded_at"` // when its end was announced; zero: not yet
}

// An SSHCertificate is what is kept of a certificate that was issued: one that
// is not here is not accepted, whoever signed it.
type SSHCertificate struct {
	Serial      uint64    `json:"serial"` // random, 63 bits
	ID          string    `json:"id"`
	UserID      string    `json:"user_id"`
	Fingerprint string    `json:"fingerprint"` // of the certified key
	MadeBy      string    `json:"made_by"`     // id of the session or token that asked for it
	MadeFrom    string    `json:"made_from"`   // address that asked for it
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	UsedAt      time.Time `json:"used_at"`
	UsedFrom    string    `json:"used_from"`
	RevokedAt   time.Time `json:"revoked_at"` // zero: not revoked
}

// An SSHPending is a key that somebody proved to have and that is nobody's yet:
// it waits for the person of that name to say that it is theirs.
type SSHPending struct {
	Name        string    `json:"name"` // the account that was claimed
	Type        string    `json:"type"`
	Fingerprint string    `json:"fingerprint"`
	Wire        []byte    `json:"wire"`
	IP          string    `json:"ip"`
	Client      string    `json:"client"` // foreign text, cleaned and cut
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// An SSHDoor is where SSH clients find the server, and by what they recognise
// it. The zero value is a door that is shut.
type SSHDoor struct {
	Host     string   `json:"host"`
	Port     int      `json:"port"`
	HostKeys []string `json:"host_keys"` // "ssh-ed25519 AAAA…", also those that will follow
	// HostCA is the authority that certifies host keys, in the same form; empty: none.
	HostCA string `json:"host_ca,omitempty"`
}

// Open reports whether there is a door.
func (d SSHDoor) Open() bool { return d.Host != "" && d.Port != 0 && len(d.HostKeys) > 0 }

// Login returns who to sign in as over SSH for a user's workspace.
func (SSHDoor) Login(user, workspace string) string {
	if workspace == "" {
		return user
	}
	return user + "+" + workspace
}

// KnownHost returns how the server is called in a known_hosts file.
func (d SSHDoor) KnownHost() string {
	if d.Port == 22 {
		return d.Host
	}
	return "[" + d.Host + "]:" + strconv.Itoa(d.Port)
}

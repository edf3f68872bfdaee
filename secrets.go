package bailey

import (
	"regexp"
	"time"
)

// A KnownSecret is a value that an administrator registered: the filter finds
// it in whatever encoding it leaves a workspace, and workspaces of its class
// have it as a file. The value itself is not part of it.
type KnownSecret struct {
	Name      string    `json:"name"`
	Class     string    `json:"class,omitempty"` // empty: of every class
	Mode      string    `json:"mode,omitempty"`  // what the filter does about it; empty: as for every other
	Bytes     int       `json:"bytes"`
	CreatedBy string    `json:"created_by"` // a user id
	CreatedAt time.Time `json:"created_at"` // when the value was set last
}

// MaxSecretBytes is the size of the largest value that can be registered.
const MaxSecretBytes = 32 << 10

// SecretModes are the modes that a registered secret may have, the sternest
// first.
var SecretModes = []string{"block", "mask", "alert", "log_only"}

var secretNameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// CheckSecretName returns nil when name can be that of a registered secret; it
// becomes a file name inside workspaces. The error is a [Error] of kind Invalid.
func CheckSecretName(name string) error {
	if secretNameRE.MatchString(name) {
		return nil
	}
	return &Error{
		Kind: Invalid, Msg: "the name of a secret is 1 to 64 characters A-Z, a-z, 0-9, _, - and ., beginning with a letter or digit",
		Hint: "HF_TOKEN, for example",
	}
}

// A StoredFile is something that a server keeps sealed in its database and not
// on its disk, so that servers on one database share it: a certificate, its key.
type StoredFile struct {
	Name       string // components between slashes
	Bytes      int64
	ModifiedAt time.Time
}

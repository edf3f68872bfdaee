// Package bailey holds the nouns of the house: users, classes, workspaces,
// volumes, runs and leases, and the kinds of failure that every door can
// translate into its own protocol. It names and measures things; it decides
// nothing and talks to nothing.
package bailey

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// Version is the program's version. The build sets it with
// -ldflags "-X github.com/baileyhq/bailey.Version=…".
var Version = "0.1.0-dev"

// NewID returns a fresh ULID as 26 lower-case letters and digits: sortable by
// time of making, safe in paths, host names and container names. It may be
// called concurrently.
func NewID() string {
	return strings.ToLower(ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader).String())
}

// nameRE is the grammar of every name a person chooses: user names, workspace
// names, class names, groups. It is a DNS label, so that it can stand in host
// names, paths, SSH user names and container names without quoting.
var nameRE = regexp.MustCompile(`^[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?$`)

// CheckName returns nil when name may name a user, group, class or workspace:
// 1 to 30 characters a-z, 0-9 and "-", beginning with a letter and not ending
// with "-". The error is of kind [Invalid], says what is wrong and never
// repeats more than 40 escaped characters of a stranger's text.
func CheckName(what, name string) error {
	if nameRE.MatchString(name) && !strings.Contains(name, "--") {
		return nil
	}
	shown := name
	if len(shown) > 40 {
		shown = shown[:40] + "…"
	}
	return &Error{
		Kind: Invalid,
		Msg:  fmt.Sprintf("%s %q is not a valid name", what, shown),
		Hint: "use 1 to 30 characters a-z, 0-9 and single \"-\", beginning with a letter",
	}
}

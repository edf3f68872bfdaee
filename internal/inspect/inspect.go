// Package inspect finds what must not be seen in text that flows by: credentials
// by their patterns, personal data by its check digits, and known secrets in
// whatever encoding. It decides what is found and where, and writes the masks;
// what a door does about it (audit, interrupt, refuse) is left to its callers.
//
// Rules come from files in gitleaks' TOML format, extended (see [File]). They
// are compiled into a [Set]; a [Stream] applies a Set to one logical stream and
// releases text as soon as no rule can still object to it. What a Stream
// releases does not depend on how its text was cut into pieces.
//
// Text that was found never leaves this package: a [Finding] is a rule, a place,
// a length and a keyed sum.
package inspect

import (
	"errors"
	"fmt"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/rules"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Mode says what happens to text that a rule matches.
type Mode = rules.Mode

// The modes, mildest first. The zero Mode is "not said".
const (
	Unset   = rules.Unset
	Off     = rules.Off
	LogOnly = rules.LogOnly
	Alert   = rules.Alert
	Mask    = rules.Mask
	Block   = rules.Block
)

// A File is a rule file in gitleaks' TOML format, with keys of our own.
type File = rules.File

// A Rule is what is known of a compiled rule.
type Rule = rules.Rule

// Import translates a rule file of gitleaks or of one of its kin. Keys that
// this format does not have are left out, and each is told once, with the rules
// that had it; so is a rule that cannot stand alone. What it returns compiles.
func Import(name string, data []byte) (out []byte, notes []string, err error) {
	return rules.Import(name, data)
}

// A Kind says what a stream is shown in, which decides how long text may wait
// and what a mask looks like.
type Kind uint8

const (
	// Document is a whole text that nobody watches growing: a file, a download.
	Document Kind = iota
	// Batch is output that arrives in pieces, such as a cell's: everything that
	// could become a secret waits, until the caller's timer says otherwise.
	Batch
	// Terminal is output that someone types against: text waits only from the
	// fourth byte of a possible secret on, and masks keep its width.
	Terminal
)

// Config says what to compile. The zero Config is the default rules: gitleaks'
// catalogue and the packs of package pack.
type Config struct {
	Files      []File           // further files, in order
	NoDefaults bool             // leave out the default rules
	Key        secret.Value     // keys the sums of findings; random if empty
	Now        func() time.Time // the clock for allowances that expire; nil means time.Now
}

// Overrides are the administrator's changes to a Set, for one class or for
// all.
type Overrides struct {
	// Default is the mode of rules whose file sets none; Unset means Mask.
	Default Mode
	// Ceiling is the sternest mode there may be; Unset means no ceiling. A
	// shadow set has LogOnly.
	Ceiling Mode
	// Modes are by rule id, and come before Default. The id of a known secret is
	// "secret:NAME"; its mode comes before Exact.
	Modes map[string]Mode
	// Exact is the mode of known secrets; Unset means Mask.
	Exact Mode
	// Allow lists findings that are not findings.
	Allow []Allowance
	// AllowPaths are path prefixes whose text is not looked at for patterns.
	// Known secrets are found everywhere.
	AllowPaths []string
}

// An Allowance lets a finding pass. The conditions that are set must all hold;
// at least one must be set.
type Allowance struct {
	Rule  string // a rule id
	Path  string // a path prefix, ending in a slash, or a whole path
	User  string
	Sum   string    // a finding's Sum, as [Finding.Sum] prints it
	Until time.Time // the zero time means for ever; it is no condition by itself
}

// A Finding is a place where a rule matched.
type Finding struct {
	Rule   string // a rule id, or "secret:NAME" for a known secret
	Mode   Mode
	Offset int64 // in bytes from the start of the stream
	Length int64
	Sum    Sum
	Lane   string // how the text had to be read: "" as it is, else "terminal", "joined", "html", "escaped", "base64", …
}

// A Sum identifies a found value under the Set's key. Without the key it tells
// nothing.
type Sum [16]byte

// String returns the sum in hexadecimal.
func (s Sum) String() string { return fmt.Sprintf("%x", s[:]) }

// ErrBlocked is what every [BlockedError] is.
var ErrBlocked = errors.New("blocked by the filter")

// A BlockedError says which rule ended a stream, and where.
type BlockedError struct {
	Rule   string
	Offset int64
}

// Error implements error.
func (e *BlockedError) Error() string {
	return fmt.Sprintf("%v: rule %s at byte %d", ErrBlocked, e.Rule, e.Offset)
}

// Is reports whether target is [ErrBlocked].
func (e *BlockedError) Is(target error) bool { return target == ErrBlocked }

// A Miss is a place where a rule's pattern matched and its other conditions
// did not.
type Miss struct {
	Rule   string
	Offset int64
	Length int64
	Reason string
}

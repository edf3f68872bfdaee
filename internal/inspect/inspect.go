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
	"strings"
	"time"

	"github.com/baileyhq/bailey/internal/secret"
)

// A Mode says what happens to text that a rule matches.
type Mode uint8

// The modes, mildest first. The zero Mode is "not said".
const (
	Unset   Mode = iota
	Off          // the rule does not run
	LogOnly      // the text passes; the finding is reported
	Alert        // the text passes; the finding is reported, and someone should look
	Mask         // the text is replaced by [REDACTED:rule]; the finding is reported
	Block        // nothing of the text passes, and the stream ends with a [BlockedError]
)

var modeNames = [...]string{"", "off", "log_only", "alert", "mask", "block"}

// String returns the mode as rule files write it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// MarshalText implements [encoding.TextMarshaler].
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It accepts off,
// log_only, alert, mask and block.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if name != "" && name == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("mode %q is not one of %s", text, strings.Join(modeNames[1:], ", "))
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

// A File is a rule file in gitleaks' TOML format. Beyond gitleaks' keys a rule
// may have
//
//	mode       = "off" | "log_only" | "alert" | "mask" | "block"
//	context    = ["word", …]  one of them within 96 bytes before or 32 after
//	validator  = "luhn"       a check of package pack, on the secret
//	boundary   = "number"     a check of package pack, on what surrounds it
//	priority   = 10           which of two overlapping findings is told
//	examples   = ["…"]        text that the rule must find
//	negatives  = ["…"]        text that the rule must not find
//	max_length = 200          bytes; a longer secret is not one
//	min_unique = 6            different bytes that the secret must hold
//
// A rule with the id of an earlier file's rule replaces it.
type File struct {
	Name string // where it came from, for error messages
	Data []byte
}

// Config says what to compile. The zero Config is the default rules: gitleaks'
// catalogue and the packs of package pack.
type Config struct {
	Files      []File           // further files, in order
	NoDefaults bool             // leave out the default rules
	Key        secret.Value     // keys the sums of findings; random if empty
	Now        func() time.Time // the clock for allowances that expire; nil means time.Now
}

// A Rule is what is known of a compiled rule.
type Rule struct {
	ID          string
	Description string
	Mode        Mode   // in force, overrides applied
	Pattern     string // as written
	Keywords    []string
	Context     []string
	Tags        []string
	Entropy     float64
	Validator   string
	Boundary    string
	Priority    int
	MaxLength   int
	MinUnique   int
	Path        string // the rule is for files with such names only
	Examples    []string
	Negatives   []string
	File        string
	Line        int
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

// Package rules knows what a rule is. It reads rules from files in gitleaks' TOML
// format (see [File]), prepares what a search for them needs, which is the
// literals to look for and what to try where one stands, and judges whether a
// match is a finding. Looking through a text is left to its callers.
package rules

import (
	"errors"
	"fmt"
	"strings"

	"github.com/baileyhq/bailey/internal/inspect/match"
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
	Block        // nothing of the text passes, and the stream ends
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

// A Book is the rules of some files, and what a search for them needs. It is
// immutable and may be used concurrently.
type Book struct {
	All     []*Compiled
	Index   *match.Index // of the literals
	Anchors []Anchors    // by literal
	Free    Free         // rules without a literal
	Gated   Free         // those that are tried only near their keywords, which their patterns do not hold
	Gates   []bool       // by keyword: a rule without a literal needs it

	keywords []string     // keywords that no pattern holds
	allow    []*allowlist // for all rules
}

// Load reads the default files, if they are wanted, and then the others. Every
// problem of every file is told at once, as one error; so is every rule that
// does not find its own examples, or does find its negatives.
func Load(files []File, defaults bool) (*Book, error) {
	l := &loader{}
	if defaults {
		l.vetted = true
		for _, f := range Defaults() {
			l.load(f)
		}
		l.vetted = false
	}
	for _, f := range files {
		l.load(f)
	}
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	b := &Book{All: l.rules, allow: l.allow}
	b.build()
	if problems := b.examples(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return b, nil
}

const (
	// Interactive is how many bytes of a known secret must be there for a
	// terminal to wait: typing must not stutter. Of a token it shows what the
	// provider's tokens begin with, which is no secret, and one byte less than
	// this; of a value known by its surroundings, one less than twice this.
	Interactive = 4
	// Glance is how much text is asked whether a literal could begin a match
	// before anything is made of it.
	Glance = 64
)

package rules

import (
	"regexp/syntax"
	"strings"

	"github.com/baileyhq/bailey/internal/inspect/match"
)

// A private key may be longer than any stream should wait, come over many
// messages, and lack its end. So its rule is not run as an expression: once a
// header and some of the body are there, one mask goes out, and what looks like
// the key is swallowed until its end line, 64 KiB, or text that is none.

var (
	pemHeader = mustPattern(`(?i)-{4,5} ?BEGIN[ A-Z0-9_-]{0,60}PRIVATE KEY(?: BLOCK)? ?-{4,5}`)
	pemFooter = mustPattern(`(?i)-{4,5} ?END[ A-Z0-9_-]{0,70} ?-{4,5}`)
	// pemLiterals are what headers begin with.
	pemLiterals = []string{"-----begin", "----- begin", "---- begin"}
)

const (
	pemWord   = 16  // letters of base64 in a row that no prose has
	pemBody   = 40  // letters of base64 that make a key of a header
	pemUnique = 12  // different letters among them
	pemFields = 768 // bytes of fields between header and body
)

func mustPattern(expr string) *match.Pattern {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		panic(err) // it is written above
	}
	return match.New(tree, 0)
}

// isPEM reports whether a rule is about private keys in PEM.
func isPEM(r *Compiled) bool {
	return strings.Contains(r.Pattern, "BEGIN") && strings.Contains(r.Pattern, "PRIVATE KEY")
}

// A PEM is the body of a key, read byte by byte.
type PEM struct {
	Sure  int64 // position up to which it is the key
	Ended bool  // the end line is whole

	word   int   // letters of base64 in a row
	begin  int64 // where the word began
	total  int   // letters of base64 in words that are long
	seen   [128]bool
	unique int
	short  bool // the last word was short
	fields int  // bytes of fields so far
	line   []byte
	escape bool        // the last byte was a backslash
	footer match.State // within what may be the end line
	dash   int64       // where that began
	footed bool        // the end line may be whole
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}

// Step takes the byte at a position. It reports whether the key goes on.
func (p *PEM) Step(c byte, at int64) bool {
	if !p.footer.Dead() {
		state, _, accepted, _ := pemFooter.Run(p.footer, []byte{c}, 0, false)
		p.footer = state
		if accepted > 0 {
			p.Sure, p.footed = at+1, true
		}
		p.Ended = p.footed && state.Dead() // four dashes may be followed by a fifth
		return !state.Dead()
	}
	if p.total == 0 && p.fields < pemFields && p.inFields(c) {
		return true
	}
	escaped := p.escape
	p.escape = c == '\\' && !escaped
	switch {
	case escaped && (c == 'n' || c == 'r' || c == 't'):
		return p.endWord(at - 1)
	case isBase64(c):
		if p.word == 0 {
			p.begin = at
		}
		p.word++
		if c < 128 && !p.seen[c] {
			p.seen[c] = true
			p.unique++
		}
		if p.word == pemWord {
			p.total += pemWord
			p.short = false
		}
		if p.word > pemWord {
			p.total++
		}
		if p.word >= pemWord {
			p.Sure = at + 1
		}
		return true
	case c == '-':
		if !p.endWord(at) {
			return false
		}
		p.dash = at
		p.footer, _, _, _ = pemFooter.Run(pemFooter.Start(), []byte{c}, 0, false)
		return true
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '"' || c == '\'' || c == '`' || c == ',' || c == '\\' || c == '>' || c == '|' || c == '$':
		return p.endWord(at)
	default:
		return false
	}
}

// Key reports whether so much of a body has come that it is a key's.
func (p *PEM) Key() bool { return p.total >= pemBody && p.unique >= pemUnique }

// endWord judges the word that ends before at: long words are the key; one
// short word may be its last line.
func (p *PEM) endWord(at int64) bool {
	n := p.word
	p.word = 0
	if n == 0 || n >= pemWord {
		return true
	}
	if p.total == 0 || p.short {
		return false
	}
	p.short = true
	p.Sure = at
	return true
}

// inFields reports whether c belongs to the fields that may stand before the
// body, such as "Proc-Type: 4,ENCRYPTED".
func (p *PEM) inFields(c byte) bool {
	p.fields++
	if c == '\n' || c == '\r' {
		p.line = p.line[:0]
		return true
	}
	p.line = append(p.line, c)
	if n := len(p.line); c == 'n' && n > 1 && p.line[n-2] == '\\' {
		p.line = p.line[:0]
		return true
	}
	text := strings.Trim(string(p.line), " \t\"'`\\nr,>|$+")
	if text == "" {
		return true
	}
	name, _, field := strings.Cut(text, ":")
	for _, l := range []byte(name) {
		if l != '-' && (l|0x20 < 'a' || l|0x20 > 'z') {
			return false
		}
	}
	return field || len(name) <= 12
}

// Package match decides quickly that a pattern does not match here, and whether
// it still could if more text came: it finds the literal text that a regular
// expression cannot do without (see [Index]), and runs the expression from
// there, byte by byte, as a deterministic automaton that is built as it is
// used (see [Pattern]). What the automaton lets through, the standard regular
// expression decides; so a mistake here can cost time, never a wrong match.
package match

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

// A Pattern is a regular expression that starts at a known place. It may be
// used concurrently.
type Pattern struct {
	// Lead reports that the expression began with a harmless run of word
	// characters before its first literal, which Match leaves out.
	Lead bool
	// MinLength is the length of the shortest match.
	MinLength int

	tree  *syntax.Regexp // without its lead
	group int

	once sync.Once
	dfa  *dfa

	reOnce    sync.Once
	atStart   *regexp.Regexp // for a match at the start of the text
	afterByte *regexp.Regexp // for a match after one byte of context

	openOnce sync.Once
	opens    [2]*regexp.Regexp // likewise, of the opening
	opening  int               // bytes that it has at most
}

// New returns the Pattern of a parsed expression. group is the number of the
// group that holds the secret; 0 means the first that matched, or the whole.
func New(tree *syntax.Regexp, group int) *Pattern {
	p := &Pattern{group: group}
	p.tree, p.Lead = withoutLead(tree)
	p.MinLength, _ = length(p.tree)
	return p
}

// Before returns how many bytes of a match may stand before its secret: before
// its first group. known is false when that is not plain from the expression.
func (p *Pattern) Before() (most int, known bool) {
	if p.tree.MaxCap() == 0 {
		return 0, true
	}
	if p.group > 1 {
		return 0, false
	}
	return before(p.tree)
}

func before(re *syntax.Regexp) (most int, known bool) {
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpCapture:
		return 0, true
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if sub.MaxCap() > 0 {
				n, ok := before(sub)
				return most + n, ok
			}
			_, hi := length(sub)
			if hi < 0 {
				return 0, false
			}
			most += hi
		}
	default:
	}
	return 0, false
}

// Tree returns the parsed expression, without its lead. It must not be changed.
func (p *Pattern) Tree() *syntax.Regexp { return p.tree }

// A State is how far a Pattern has come. The zero State is dead: nothing that
// follows can make it match.
type State struct {
	gen  *generation
	cell uint32
}

// Dead reports whether nothing that follows can make a match.
func (s State) Dead() bool { return s.cell <= dead }

// Entered reports whether the text so far may reach into the secret.
func (s State) Entered() bool { return s.cell&entered != 0 }

func (p *Pattern) automaton() *dfa {
	p.once.Do(func() { p.dfa = newDFA(p.tree, p.group) })
	return p.dfa
}

// Start returns the State before the first byte.
func (p *Pattern) Start() State {
	g := p.automaton().gen.Load()
	return State{g, g.start}
}

// Run feeds text to the automaton from state s. It returns the state at the
// end of text, or a dead one and the index of the byte that no match can go
// past. accepted is one more than the index of the last byte after which a
// match may end, or 0; in is the index of the byte from which on the text may
// belong to the secret, or -1 when it does not at the end. When it did before
// text, callers say so with in = 0, else -1.
//
// When a match may be whole and the text leaves the secret, Run stops there,
// with a living state: what follows could only begin another match. whole says
// that a match may have been whole before text.
func (p *Pattern) Run(s State, text []byte, in int, whole bool) (state State, at, accepted, inside int) {
	d, g, cell := p.automaton(), s.gen, s.cell
	cells := *g.cells.Load()
	for i, c := range text {
		class := d.class[c]
		k := int(cell>>cellShift) + int(class)
		next := uint32(0)
		if k < len(cells) {
			next = atomic.LoadUint32(&cells[k])
		}
		if next == 0 {
			next = d.step(g, cell, class)
			cells = *g.cells.Load()
		}
		if next == dead {
			return State{}, i, accepted, in
		}
		if next&entered == 0 {
			if in >= 0 && (whole || accepted > 0) {
				return State{g, next}, i + 1, accepted, -1
			}
			in = -1
		} else if in < 0 {
			in = i + 1
		}
		if next&accepts != 0 {
			accepted = i + 1
		}
		cell = next
	}
	return State{g, cell}, len(text), accepted, in
}

// MayMatch reports whether a match may begin with text and be over in it.
func (p *Pattern) MayMatch(text []byte) bool {
	start := p.Start()
	if start.cell&accepts != 0 {
		return true
	}
	in := -1
	if start.Entered() {
		in = 0
	}
	for {
		state, at, accepted, inside := p.Run(start, text, in, false)
		if accepted > 0 {
			return true
		}
		if state.Dead() || at == len(text) {
			return false
		}
		start, text, in = state, text[at:], inside
	}
}

// Hopeless reports whether no match can begin with text, nor with text and
// whatever may follow it.
func (p *Pattern) Hopeless(text []byte) bool {
	d := p.automaton()
	g := d.gen.Load()
	return d.hopeless(State{g, g.start}, text)
}

// A Gap is what may stand between a literal and what a match cannot do without:
// ordinary bytes, of which words and numbers are made, a space, a tab, a full stop
// or a hyphen. Most places where a common word stands are ruled out by what ends
// the words behind it, much sooner than by the automaton itself.
type Gap struct {
	head  int // length of the literal
	most  int // so many ordinary bytes, head included, and there is no match
	dfa   *dfa
	state State // where the automaton may be behind the head and any ordinary bytes
}

// Gap returns the Gap of matches that begin with head, whatever the case of its
// letters; nil when a match may be over before an ordinary byte ends, or go on for
// more than most of them.
func (p *Pattern) Gap(head string, most int) *Gap {
	d := p.automaton()
	goesOn := map[uint32]bool{} // with an ordinary byte
	level, all := newSparse(len(d.prog.Inst)), newSparse(len(d.prog.Inst))
	d.follow(level, uint32(d.prog.Start)) //nolint:gosec // an index into Inst
	for n := range most + 1 {
		if len(level.list) == 0 {
			gap := &Gap{head: len(head), most: n, dfa: d}
			d.mu.Lock()
			defer d.mu.Unlock()
			g := d.gen.Load()
			gap.state = State{g, d.state(g, all)}
			return gap
		}
		next := newSparse(len(d.prog.Inst))
		for _, pc := range level.list {
			in := &d.prog.Inst[pc]
			switch {
			case in.Op == syntax.InstMatch:
				return nil
			case n >= len(head):
				all.add(pc)
				if ok, known := goesOn[pc]; ok || !known && d.takesOrdinary(in) {
					goesOn[pc] = true
					d.follow(next, in.Out)
				} else {
					goesOn[pc] = false
				}
			default:
				if d.takes(in, head[n]) || d.takes(in, upper(head[n])) {
					d.follow(next, in.Out)
				}
				if head[n] >= utf8.RuneSelf && head[n] < 0xc0 {
					d.follow(next, pc) // of a character of several bytes
				}
			}
		}
		level = next
	}
	return nil
}

// Hopeless reports whether what stands behind the literal at the start of text
// keeps a match from beginning there, whatever follows text. false says nothing.
func (g *Gap) Hopeless(text []byte) bool {
	k := g.head
	end := min(len(text), g.most)
	for k < end && ordinary[text[k]] {
		k++
	}
	if k >= end {
		return k >= g.most
	}
	return g.dfa.hopeless(g.state, text[k:])
}

// A Need is a byte that every match holds, and what may stand before it.
type Need struct {
	byte  byte
	first *bytemask.Kind // that byte, and all that may not stand before it
}

// Need returns a byte that no match can do without, nil when none is known.
func (p *Pattern) Need() *Need {
	d := p.automaton()
	for _, b := range []byte("=:@/.") {
		var may [256]bool
		seen := make([]bool, len(d.prog.Inst))
		var around func(pc uint32) bool // reports whether a match can be reached without b
		around = func(pc uint32) bool {
			if seen[pc] {
				return false
			}
			seen[pc] = true
			in := &d.prog.Inst[pc]
			switch {
			case in.Op == syntax.InstMatch:
				return true
			case in.Op == syntax.InstFail:
				return false
			case in.Op == syntax.InstAlt || in.Op == syntax.InstAltMatch:
				return around(in.Out) || around(in.Arg)
			case !isRune(in.Op):
				return around(in.Out)
			case len(in.Rune) == 1 && in.Rune[0] == rune(b):
				return false
			}
			for c := range may {
				may[c] = may[c] || d.takes(in, byte(c))
			}
			return around(in.Out)
		}
		if around(uint32(d.prog.Start)) { //nolint:gosec // an index into Inst
			continue
		}
		may[b] = false
		if kind, ok := bytemask.Try(func(c byte) bool { return !may[c] }); ok {
			return &Need{b, kind}
		}
	}
	return nil
}

// Hopeless reports whether no match can begin with text, nor with text and
// whatever may follow it, because something that none can hold stands before the
// byte that each must. text[0] is taken for granted. false says nothing.
func (n *Need) Hopeless(text []byte) bool {
	i := n.first.Index(text)
	return i >= 0 && text[i] != n.byte
}

var ordinary = func() (table [256]bool) {
	for c := range table {
		table[c] = isWord(byte(c)) || c == ' ' || c == '\t' || c == '.' || c == '-'
	}
	return table
}()

// Match returns the places of the match that starts at text[start], as
// [regexp.Regexp.FindSubmatchIndex] does, or nil.
func (p *Pattern) Match(text []byte, start int) []int {
	p.reOnce.Do(func() {
		source := p.tree.String()
		p.atStart = regexp.MustCompile(`\A(?:` + source + `)`)
		p.afterByte = regexp.MustCompile(`\A(?s:.)(?:` + source + `)`)
	})
	if start == 0 {
		return p.atStart.FindSubmatchIndex(text)
	}
	at := p.afterByte.FindSubmatchIndex(text[start-1:])
	if at == nil {
		return nil
	}
	for i := range at {
		if at[i] >= 0 {
			at[i] += start - 1
		}
	}
	at[0] = start
	return at
}

// Opens reports whether the beginning of the expression, up to its first part
// of very varied length, matches at text[start], its assertions included, which
// the automaton does not know. known is false when that needs more than text[:end].
func (p *Pattern) Opens(text []byte, start, end int) (ok, known bool) {
	p.openOnce.Do(func() {
		tree := p.tree
		for tree.Op == syntax.OpCapture {
			tree = tree.Sub[0]
		}
		parts := []*syntax.Regexp{tree}
		if tree.Op == syntax.OpConcat {
			parts = tree.Sub
		}
		var source strings.Builder
		for _, part := range parts {
			lo, hi := length(part)
			if hi < 0 || hi-lo > 16 {
				break
			}
			p.opening += hi
			source.WriteString("(?:" + part.String() + ")")
		}
		p.opens = [2]*regexp.Regexp{regexp.MustCompile(`\A` + source.String()), regexp.MustCompile(`\A(?s:.)` + source.String())}
	})
	if end-start <= p.opening {
		return false, false
	}
	if start == 0 {
		return p.opens[0].Match(text[:end]), true
	}
	return p.opens[1].Match(text[start-1 : end]), true
}

// withoutLead leaves out what many published rules begin with: a lazy,
// optional run of word characters, which only tells where the match begins.
func withoutLead(re *syntax.Regexp) (*syntax.Regexp, bool) {
	switch {
	case re.Op == syntax.OpConcat && len(re.Sub) > 1:
		first := re.Sub[0]
		rest := *re
		if first.Op == syntax.OpRepeat && first.Min == 0 && first.Flags&syntax.NonGreedy != 0 && first.Sub[0].Op == syntax.OpCharClass {
			rest.Sub = slices.Clone(re.Sub[1:])
			inner, _ := withoutLead(&rest) // some have it twice
			return inner, true
		}
		inner, lead := withoutLead(first)
		if !lead {
			return re, false
		}
		rest.Sub = slices.Clone(re.Sub)
		rest.Sub[0] = inner
		return &rest, true
	case re.Op == syntax.OpAlternate:
		rest := *re
		rest.Sub = slices.Clone(re.Sub)
		found := false
		for i, sub := range re.Sub {
			inner, lead := withoutLead(sub)
			rest.Sub[i] = inner
			found = found || lead
		}
		return &rest, found
	default:
		return re, false
	}
}

// length returns the lengths in bytes of the shortest and longest match; the
// longest is -1 when there is none.
func length(re *syntax.Regexp) (shortest, longest int) {
	switch re.Op {
	case syntax.OpLiteral:
		n := 0
		for _, r := range re.Rune {
			n += len(string(r))
		}
		return n, n
	case syntax.OpCharClass:
		for _, r := range re.Rune {
			// K and ſ are there only because k and s fold to them.
			if r >= 0x80 && !foldsToASCII(r) {
				return 1, 4
			}
		}
		return 1, 1
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, 4
	case syntax.OpCapture:
		return length(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			lo, hi := length(sub)
			shortest += lo
			if longest >= 0 && hi >= 0 {
				longest += hi
			} else {
				longest = -1
			}
		}
		return shortest, longest
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			lo, hi := length(sub)
			if i == 0 {
				shortest, longest = lo, hi
				continue
			}
			shortest = min(shortest, lo)
			if longest >= 0 && hi >= 0 {
				longest = max(longest, hi)
			} else {
				longest = -1
			}
		}
		return shortest, longest
	case syntax.OpQuest:
		_, hi := length(re.Sub[0])
		return 0, hi
	case syntax.OpStar:
		return 0, -1
	case syntax.OpPlus:
		lo, _ := length(re.Sub[0])
		return lo, -1
	case syntax.OpRepeat:
		lo, hi := length(re.Sub[0])
		if re.Max < 0 || hi < 0 {
			return lo * re.Min, -1
		}
		return lo * re.Min, hi * re.Max
	case syntax.OpNoMatch, syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return 0, 0
	default:
		return 0, -1
	}
}

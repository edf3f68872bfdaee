package match

import (
	"cmp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxLiterals = 128 // alternatives that one pattern may begin its search with
	maxLiteral  = 24  // bytes of a literal that are compared
	maxBefore   = 96  // bytes that may stand before the literal in a match
)

// A Literal is text, in lower case, that some match of a pattern cannot do
// without.
type Literal struct {
	Text     string
	Min, Max int  // how many bytes of the match stand before it
	Word     bool // no word character stands right before it
	// Before are the bytes of which what stands before it in the match is made.
	Before Bytes
}

// Bytes is a set of bytes.
type Bytes [4]uint64

// Has reports whether c is one of them.
func (b *Bytes) Has(c byte) bool { return b[c>>6]>>(c&63)&1 != 0 }

// with returns the bytes of both sets.
func (b Bytes) with(more Bytes) Bytes {
	for i := range b {
		b[i] |= more[i]
	}
	return b
}

// bytesOf returns the bytes that a match of re may hold.
func bytesOf(re *syntax.Regexp) (all Bytes) {
	enter := func(lo, hi rune) {
		for r := lo; r <= min(hi, utf8.RuneSelf-1); r++ {
			all[r>>6] |= 1 << (r & 63)
		}
		if hi >= utf8.RuneSelf {
			all[2], all[3] = ^uint64(0), ^uint64(0)
		}
	}
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			enter(r, r)
			if re.Flags&syntax.FoldCase != 0 {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					enter(f, f)
				}
			}
		}
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			enter(re.Rune[i], re.Rune[i+1])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		enter(0, utf8.MaxRune)
	default:
		for _, sub := range re.Sub {
			all = all.with(bytesOf(sub))
		}
	}
	return all
}

// wordStart stands for \b in texts while literals are made.
const wordStart = "\x00"

// Literals returns literals of which every match holds one, or nil when there
// are none that are worth searching for.
func (p *Pattern) Literals() []Literal {
	lits := required(p.tree)
	if len(lits) == 0 {
		return nil
	}
	slices.SortFunc(lits, func(a, b Literal) int {
		return cmp.Or(strings.Compare(a.Text, b.Text), a.Min-b.Min, a.Max-b.Max, bit(a.Word)-bit(b.Word))
	})
	return slices.Compact(lits)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// common are words that stand in ordinary text everywhere; a pattern looks for
// something else if it can.
var common = []string{
	"access", "api", "auth", "credential", "creds", "key", "passwd", "password", "secret", "token", "passw", "pass", "pwd",
	"begin", "://", "http", "https://", "user", "name", "id", "host", "base",
}

// worth says how good a group of literals is to search for: the rarest text
// wins, few and at a fixed place. 0 is not at all.
func worth(lits []Literal) int {
	if len(lits) == 0 || len(lits) > maxLiterals {
		return 0
	}
	best := 1000
	for _, l := range lits {
		if l.Max > maxBefore || l.Max < 0 && l.Min > 0 {
			return 0 // what comes before could be left out only if it may be empty
		}
		if len(l.Text) < 4 && strings.Trim(l.Text, "0123456789") == "" {
			return 0 // numbers are everywhere
		}
		n := 10 * min(len(l.Text), 8)
		for _, c := range []byte(l.Text) { // letters are common, punctuation is not
			if c < 'a' || c > 'z' {
				n += 4
			}
		}
		if len(l.Text) == 1 {
			if l.Text != "@" {
				return 0
			}
			n = 12
		}
		if slices.Contains(common, l.Text) {
			n = 15
		}
		if l.Word {
			n += 6
		}
		if l.Max < 0 {
			n -= 40
		}
		n -= min(l.Max-l.Min, 24) / 2
		if l.Max != 0 { // text before a literal cannot wait for it
			n -= 8
		}
		best = min(best, n)
	}
	return max(best-len(lits)/16, 1)
}

// required returns the best group of literals of which every match of re holds
// one; nil when there is none.
func required(re *syntax.Regexp) []Literal {
	if whole := exact(re); whole != nil {
		return atPlace(whole, 0, 0, Bytes{})
	}
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpCapture:
		return required(re.Sub[0])
	case syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
		return nil
	case syntax.OpAlternate:
		var all []Literal
		for _, sub := range re.Sub {
			lits := required(sub)
			if worth(lits) == 0 {
				return nil
			}
			all = append(all, lits...)
		}
		return all
	case syntax.OpConcat:
		return requiredOf(flatten(re.Sub))
	default:
		return nil
	}
}

// flatten replaces groups and sequences within a sequence by their parts.
func flatten(subs []*syntax.Regexp) []*syntax.Regexp {
	var flat []*syntax.Regexp
	for _, sub := range subs {
		for sub.Op == syntax.OpCapture {
			sub = sub.Sub[0]
		}
		if sub.Op == syntax.OpConcat {
			flat = append(flat, flatten(sub.Sub)...)
			continue
		}
		flat = append(flat, sub)
	}
	return flat
}

// requiredOf returns the best literals of a sequence.
func requiredOf(subs []*syntax.Regexp) []Literal {
	var best []Literal
	consider := func(lits []Literal) {
		if worth(lits) > worth(best) {
			best = lits
		}
	}
	lo, hi := 0, 0
	var before Bytes
	for i, sub := range subs {
		// Texts that begin with this part and go on as long as all of it is known.
		if texts := heads(subs[i:]); texts != nil {
			consider(atPlace(texts, lo, hi, before))
		}
		if inner := required(sub); inner != nil {
			moved := slices.Clone(inner)
			for k := range moved {
				moved[k].Min += lo
				moved[k].Before = moved[k].Before.with(before)
				if hi < 0 || moved[k].Max < 0 {
					moved[k].Max = -1
				} else {
					moved[k].Max += hi
				}
			}
			consider(moved)
		}
		before = before.with(bytesOf(sub))
		l, h := length(sub)
		lo += l
		if hi >= 0 && h >= 0 {
			hi += h
		} else {
			hi = -1
		}
	}
	return best
}

// atPlace makes literals of texts that stand at the given place.
func atPlace(texts []string, lo, hi int, before Bytes) []Literal {
	lits := make([]Literal, 0, len(texts))
	for _, t := range texts {
		rest := strings.TrimLeft(t, wordStart)
		word := len(rest) < len(t) && rest != "" && isWord(rest[0])
		rest, _, _ = strings.Cut(rest, wordStart)
		if rest == "" {
			return nil
		}
		lits = append(lits, Literal{Text: rest[:min(len(rest), maxLiteral)], Min: lo, Max: hi, Word: word, Before: before})
	}
	return lits
}

// product returns every text of a followed by every text of b, or nil when
// those are too many.
func product(a, b []string) []string {
	if len(a)*len(b) > maxLiterals {
		return nil
	}
	out := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			if len(x)+len(y) > 2*maxLiteral {
				return nil
			}
			out = append(out, x+y)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// prefixes returns texts of which every match of re begins with one, or nil.
func prefixes(re *syntax.Regexp) []string {
	if whole := exact(re); whole != nil {
		return whole
	}
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpCapture, syntax.OpPlus:
		return prefixes(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return prefixes(re.Sub[0])
		}
	case syntax.OpConcat:
		return heads(re.Sub)
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			p := prefixes(sub)
			if p == nil || len(all)+len(p) > maxLiterals {
				return nil
			}
			all = append(all, p...)
		}
		return all
	default:
	}
	return nil
}

// heads returns texts of which every match of the sequence begins with one,
// as long as they can be had; nil when the first part has none.
func heads(subs []*syntax.Regexp) []string {
	texts := []string{""}
	for _, sub := range subs {
		more := exact(sub)
		last := more == nil
		if last {
			more = prefixes(sub)
		}
		longer := product(texts, more)
		if len(longer) == 0 || last {
			if len(longer) > 0 {
				texts = longer
			}
			break
		}
		texts = longer
	}
	if slices.Contains(texts, "") || slices.Contains(texts, wordStart) {
		return nil
	}
	return texts
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// exact returns all texts that re matches, in lower case, when those are few;
// else nil.
func exact(re *syntax.Regexp) []string {
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpNoWordBoundary:
		return []string{""}
	case syntax.OpWordBoundary:
		return []string{wordStart}
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r >= utf8.RuneSelf && unicode.SimpleFold(r) != r {
				return nil
			}
		}
		return []string{strings.ToLower(string(re.Rune))}
	case syntax.OpCharClass:
		var all []string
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if r >= utf8.RuneSelf {
					if foldsToASCII(r) { // what k and s fold to
						continue
					}
					return nil
				}
				all = append(all, strings.ToLower(string(r)))
				if len(all) > 8 {
					return nil
				}
			}
		}
		slices.Sort(all)
		return slices.Compact(all)
	case syntax.OpCapture:
		return exact(re.Sub[0])
	case syntax.OpQuest:
		if sub := exact(re.Sub[0]); sub != nil {
			return append(slices.Clone(sub), "")
		}
		return nil
	case syntax.OpRepeat:
		return repeated(re)
	case syntax.OpConcat:
		texts := []string{""}
		for _, sub := range re.Sub {
			more := exact(sub)
			if more == nil {
				return nil
			}
			if texts = product(texts, more); texts == nil {
				return nil
			}
		}
		return texts
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			more := exact(sub)
			if more == nil || len(all)+len(more) > maxLiterals {
				return nil
			}
			all = append(all, more...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	default:
		return nil
	}
}

// repeated is exact for x{n,m}.
func repeated(re *syntax.Regexp) []string {
	sub := exact(re.Sub[0])
	if sub == nil || re.Max < 0 || re.Max > 12 {
		return nil
	}
	if n := 1; len(sub) > 1 && !slices.ContainsFunc(sub, func(t string) bool { return len(t) != len(sub[0]) }) {
		for range re.Max { // as many texts as there are ways to choose
			if n *= len(sub); n > maxLiterals {
				return nil
			}
		}
	}
	var all []string
	texts := []string{""}
	for n := 0; ; n++ {
		if n >= re.Min {
			all = append(all, texts...)
		}
		if n == re.Max {
			break
		}
		if texts = product(texts, sub); texts == nil || len(all)+len(texts) > maxLiterals {
			return nil
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

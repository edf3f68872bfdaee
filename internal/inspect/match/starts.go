package match

import (
	"encoding/binary"
	"math/bits"
	"regexp/syntax"
	"unicode/utf8"
)

// Starts finds where matches of patterns may begin that hold no literal:
// numbers, mostly. It asks 64 places at once where digits stand, and at the few
// places where a match could begin with those, all patterns at once what the
// bytes are.
type Starts struct {
	groups []group
	words  bool   // some group asks for words
	digits int    // the fewest digits that any group needs
	loose  uint32 // the patterns that may begin within a word
	// can tells by place and byte which patterns may have that byte there.
	can   [reach][256]uint32
	first int       // number of the first pattern
	parts []*Starts // of further patterns
}

const (
	window  = 11 // of how many bytes the digits are counted
	reach   = 24 // of how many bytes of a match it is known what they may be
	atOnce  = 32 // patterns of one Starts
	numeric = 7  // digits of the window that make a pattern a number
	wordRun = 12 // letters and digits in a row that are a word
	longRun = 8  // digits in a row that are asked for
	latest  = 4  // the last place from which on a run or a word is asked for
)

// A group is the patterns of which the same is asked first.
type group struct {
	need
	patterns uint32
	log      int // of the longest power of two that is no longer than run
}

// need is what a match cannot do without.
type need struct {
	fresh  bool // no digit stands before it
	number bool // the first window bytes are digits, most of them:
	digits int  // so many
	run    int  // so many digits in a row, if not 0,
	from   int  // stand so far within it,
	apart  bool // and none before them
	alpha  bool // but letters alone
	word   int  // so many bytes, and then a word; -1: not asked
}

// A Start is a pattern, and whether it matches only where no word goes on.
type Start struct {
	Pattern *Pattern
	Bounded bool
}

// NewStarts returns the Starts of patterns.
func NewStarts(patterns []Start) *Starts {
	s := &Starts{digits: window}
	for i := atOnce; i < len(patterns); i += atOnce {
		part := NewStarts(patterns[i:min(len(patterns), i+atOnce)])
		part.first = i
		s.parts = append(s.parts, part)
	}
	for i, p := range patterns[:min(len(patterns), atOnce)] {
		n := s.learn(i, p.Pattern)
		if n.fresh = p.Bounded; !p.Bounded {
			s.loose |= 1 << i
		}
		s.words = s.words || n.word >= 0 || n.alpha
		s.digits = min(s.digits, n.digits)
		s.enter(n, 1<<i)
	}
	for i := range s.groups {
		s.groups[i].log = bits.Len(uint(s.groups[i].run)) - 1
	}
	return s
}

// enter puts a pattern into its group.
func (s *Starts) enter(n need, pattern uint32) {
	for i := range s.groups {
		g := &s.groups[i]
		one := n
		one.digits = g.digits
		if g.run >= 2 && n.run >= 2 {
			one.run = g.run
		}
		if g.need == one {
			g.digits, g.run = min(g.digits, n.digits), min(g.run, n.run)
			g.patterns |= pattern
			return
		}
	}
	s.groups = append(s.groups, group{need: n, patterns: pattern})
}

// learn enters how matches of a pattern begin, and returns what they need.
func (s *Starts) learn(number int, p *Pattern) need {
	begin := startOf(p.automaton())
	for k := range s.can {
		for c := range s.can[k] {
			if k >= begin.known || begin.can[k][c] {
				s.can[k][c] |= 1 << number
			}
		}
	}
	n := need{digits: begin.digits, number: begin.digits >= numeric, word: -1}
	for k := 0; k <= latest; k++ {
		run := 0
		for run < longRun && begin.only(k, run+1, isDigit) {
			run++
		}
		if run >= 2 && n.run == 0 {
			n.run, n.from = run, k
			n.apart = k > 0 && begin.only(0, k, func(c byte) bool { return !isDigit(c) })
			n.alpha = n.apart && begin.only(0, k, wordish)
		}
		if n.word < 0 && !n.number && begin.only(k, wordRun, wordish) {
			n.word = k
		}
	}
	return n
}

func isDigit(c byte) bool { return c-'0' < 10 }

// wordish reports whether c is a letter or a digit, or stands beside the letters
// in ASCII: [\]^_{|}~
func wordish(c byte) bool { return isDigit(c) || c < utf8.RuneSelf && c|0x20 > 0x60 }

// beginning is how matches of a pattern begin.
type beginning struct {
	can    [reach][256]bool // which bytes they have
	known  int              // how many bytes every match has, if not more than reach
	digits int              // how many of the first window bytes are digits, at least
}

// only reports whether n bytes from a place on are there and of one kind.
func (b *beginning) only(from, n int, is func(c byte) bool) bool {
	if from+n > b.known {
		return false
	}
	for _, can := range b.can[from : from+n] {
		for c, yes := range can {
			if yes && !is(byte(c)) {
				return false
			}
		}
	}
	return true
}

func startOf(d *dfa) *beginning {
	b := &beginning{digits: -1}
	level := map[uint32]int{} // instruction: the fewest digits so far
	var follow func(into map[uint32]int, pc uint32, n int)
	follow = func(into map[uint32]int, pc uint32, n int) {
		if m, ok := into[pc]; ok && m <= n {
			return
		}
		into[pc] = n
		switch in := &d.prog.Inst[pc]; in.Op { //nolint:exhaustive // the default says the rest
		case syntax.InstAlt, syntax.InstAltMatch:
			follow(into, in.Out, n)
			follow(into, in.Arg, n)
		case syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstNop:
			follow(into, in.Out, n)
		default:
		}
	}
	follow(level, uint32(d.prog.Start), 0) //nolint:gosec // an index into Inst
	for b.known < reach {
		over := false
		fewest := window
		for pc, n := range level {
			over = over || d.prog.Inst[pc].Op == syntax.InstMatch
			fewest = min(fewest, n)
		}
		if (over || b.known == window) && b.digits < 0 {
			b.digits = fewest
		}
		if over {
			break
		}
		can := &b.can[b.known]
		next := map[uint32]int{}
		for pc, n := range level {
			in := &d.prog.Inst[pc]
			if !isRune(in.Op) {
				continue
			}
			for c := range rune(utf8.RuneSelf) {
				if in.MatchRune(c) {
					can[c] = true
					more := 0
					if isDigit(byte(c)) {
						more = 1
					}
					follow(next, in.Out, n+more)
				}
			}
			if beyondASCII(in) {
				for c := utf8.RuneSelf; c < 256; c++ {
					can[c] = true
				}
				follow(next, pc, n) // of several bytes
				follow(next, in.Out, n)
			}
		}
		b.known++
		level = next
	}
	return b
}

const (
	low  = 0x7f7f7f7f7f7f7f7f // all bits but the highest of each byte
	high = 0x8080808080808080
)

func eight(text *[64]byte, i int) uint64 { return binary.LittleEndian.Uint64(text[i : i+8]) }

// digitsOf returns the mask of digits among 64 bytes.
func digitsOf(text *[64]byte) uint64 {
	is := func(w uint64) uint64 {
		x := w ^ 0x3030303030303030
		return ^(x&low + 0x7676767676767676 | x) & high
	}
	return transpose(is(eight(text, 0))>>7 | is(eight(text, 8))>>6 | is(eight(text, 16))>>5 | is(eight(text, 24))>>4 |
		is(eight(text, 32))>>3 | is(eight(text, 40))>>2 | is(eight(text, 48))>>1 | is(eight(text, 56)))
}

// lettersOf returns the mask of what is wordish and no digit.
func lettersOf(text *[64]byte) uint64 {
	is := func(w uint64) uint64 { return ((w&low | 0x2020202020202020) + 0x1f1f1f1f1f1f1f1f) &^ w & high }
	return transpose(is(eight(text, 0))>>7 | is(eight(text, 8))>>6 | is(eight(text, 16))>>5 | is(eight(text, 24))>>4 |
		is(eight(text, 32))>>3 | is(eight(text, 40))>>2 | is(eight(text, 48))>>1 | is(eight(text, 56)))
}

// transpose mirrors a square of eight by eight bits.
func transpose(x uint64) uint64 {
	t := (x ^ x>>7) & 0x00aa00aa00aa00aa
	x ^= t ^ t<<7
	t = (x ^ x>>14) & 0x0000cccc0000cccc
	x ^= t ^ t<<14
	t = (x ^ x>>28) & 0x00000000f0f0f0f0
	return x ^ t ^ t<<28
}

// masks tell of 64 bytes where which stand. Behind the end of text, all may.
type masks struct{ digits, words, beyond uint64 }

// load returns the masks of text[at:].
func (s *Starts) load(text []byte, at int) (m masks) {
	block := new([64]byte)
	if at+64 <= len(text) {
		block = (*[64]byte)(text[at:])
	} else if m.beyond = ^uint64(0); at < len(text) {
		m.beyond <<= copy(block[:], text[at:])
	}
	m.digits = digitsOf(block) | m.beyond
	if s.words {
		m.words = lettersOf(block) | m.digits
	}
	return m
}

// behind returns the mask of what stands k places behind; k is less than 64.
func behind(m, next uint64, k int) uint64 { return m>>(k&63) | next<<1<<(^k&63) }

// Find calls hit for the places from on, and before to, where a match of a
// pattern may begin.
func (s *Starts) Find(text []byte, from, to int, hit func(pattern, at int)) {
	for _, part := range s.parts {
		part.Find(text, from, to, hit)
	}
	if len(s.groups) == 0 || from >= to {
		return
	}
	next := s.load(text, from)
	for at := from; at < to; at += 64 {
		m := next
		next = s.load(text, at+64)
		if n := bits.OnesCount64(m.digits) + bits.OnesCount64(next.digits<<(64-window+1)); n >= s.digits {
			s.ask(text, at, to, n, &m, &next, hit)
		}
	}
}

// ask asks the groups about 64 places, in which and right behind which stand so
// many digits.
func (s *Starts) ask(text []byte, at, to, digits int, m, next *masks, hit func(pattern, at int)) {
	within := ^uint64(0)
	if to-at < 64 {
		within = 1<<(to-at) - 1
	}
	fresh := within &^ ((m.digits &^ m.beyond) << 1)
	if at > 0 && isDigit(text[at-1]) {
		fresh &^= 1
	}
	// runs are where two to the power of the index digits stand in a row.
	var runs, more [4]uint64
	runs[0], more[0] = m.digits, next.digits
	for n := range 3 {
		runs[n+1] = runs[n] & behind(runs[n], more[n], 1<<n)
		more[n+1] = more[n] & behind(more[n], ^uint64(0), 1<<n) // what comes then may be digits
	}
	var sum [4]uint64 // digits of the window
	counted := false
	for i := range s.groups {
		g := &s.groups[i]
		if digits < g.digits {
			continue
		}
		can := within
		if g.word >= 0 {
			if can &= word(m.words, next.words, g.word); can == 0 {
				continue
			}
		}
		if g.fresh {
			can &= fresh
		}
		if g.run > 0 { // two runs that may overlap
			r, n := runs[g.log&3], more[g.log&3]
			can &= behind(r, n, g.from) & behind(r, n, g.from+g.run-(1<<g.log))
		}
		if can == 0 {
			continue
		}
		if g.apart && m.beyond|next.beyond == 0 {
			for k := range g.from {
				can &^= behind(m.digits, next.digits, k)
				if g.alpha {
					can &= behind(m.words, next.words, k)
				}
			}
		}
		if g.number {
			if !counted {
				sum, counted = count(m.digits, next.digits), true
			}
			can &= atLeast(sum, g.digits)
		}
		for ; can != 0; can &= can - 1 {
			here := at + bits.TrailingZeros64(can)
			if here < len(text) && s.can[0][text[here]]&g.patterns != 0 {
				s.look(text, here, g.patterns, hit)
			}
		}
	}
}

// word returns from where on, some places behind, a word stands.
func word(m, next uint64, k int) uint64 {
	m, next = behind(m, next, k), behind(next, ^uint64(0), k)
	for n := 1; n < wordRun-wordRun/3; n *= 2 {
		m, next = m&behind(m, next, n), next&behind(next, ^uint64(0), n)
	}
	return m & behind(m, next, wordRun/3) // eight, and four behind the first four
}

// look asks what the bytes at text[at:] are.
func (s *Starts) look(text []byte, at int, patterns uint32, hit func(pattern, at int)) {
	for k, c := range text[at:min(at+reach, len(text))] {
		if patterns &= s.can[k][c]; patterns == 0 {
			return
		}
	}
	if !bounded(text, at) {
		patterns &= s.loose
	}
	for ; patterns != 0; patterns &= patterns - 1 {
		hit(s.first+bits.TrailingZeros32(patterns), at)
	}
}

// bounded reports whether no word goes on at text[at]. The letter of an escaped
// line end is none.
func bounded(text []byte, at int) bool {
	if at == 0 || !isWord(text[at-1]) {
		return true
	}
	c := text[at-1]
	return (c == 'n' || c == 'r' || c == 't') && at > 1 && text[at-2] == '\\'
}

// count returns how many of the window bytes from each place on are digits, as
// binary numbers of which each mask holds one binary digit.
func count(d, e uint64) [4]uint64 {
	a1, a2 := add(d, behind(d, e, 1), behind(d, e, 2))
	b1, b2 := add(behind(d, e, 3), behind(d, e, 4), behind(d, e, 5))
	c1, c2 := add(behind(d, e, 6), behind(d, e, 7), behind(d, e, 8))
	s1, d2 := add(a1, b1, c1)
	s1, e2 := add(s1, behind(d, e, 9), behind(d, e, 10))
	s2, a4 := add(a2, b2, c2)
	s2, b4 := add(s2, d2, e2)
	return [4]uint64{s1, s2, a4 ^ b4, a4 & b4}
}

// add adds three binary digits, and returns the sum and what is carried.
func add(a, b, c uint64) (sum, carry uint64) {
	return a ^ b ^ c, a&b | (a^b)&c
}

// atLeast returns where a binary number is n or more.
func atLeast(sum [4]uint64, n int) uint64 {
	more, same := uint64(0), ^uint64(0)
	for i := 3; i >= 0; i-- {
		if n>>i&1 != 0 {
			same &= sum[i]
		} else {
			more |= same & sum[i]
			same &^= sum[i]
		}
	}
	return more | same
}

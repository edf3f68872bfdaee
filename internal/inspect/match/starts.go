package match

import (
	"math/bits"
	"regexp/syntax"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

// Starts finds where matches of patterns may begin that hold no literal:
// numbers, mostly. It asks 64 places at once where digits stand, and at the few
// places where a match could begin with those, all patterns at once what the
// bytes are.
type Starts struct {
	groups []group
	digits int    // the fewest digits that any group needs
	log    int    // the largest of any group
	words  bool   // some group asks for words
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
	word   int  // so many bytes, and then a word; -1: not asked
}

// A Start is a pattern, and whether it matches only where no word goes on.
type Start struct {
	Pattern *Pattern
	Bounded bool
}

// NewStarts returns the Starts of patterns.
func NewStarts(patterns []Start) *Starts {
	s := &Starts{digits: 1 << 10} // more than there are
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
		if n.word >= 0 && n.run == 0 {
			s.words = true
		} else {
			s.digits = min(s.digits, n.digits)
		}
		s.enter(n, 1<<i)
	}
	for i := range s.groups {
		s.groups[i].log = bits.Len(uint(s.groups[i].run)) - 1
		s.log = min(max(s.log, s.groups[i].log), 3)
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
		if run >= 1 && (run >= 2 || n.number) && n.run == 0 {
			n.run, n.from = run, k
			n.apart = k > 0 && begin.only(0, k, func(c byte) bool { return !isDigit(c) })
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

var (
	digits = bytemask.New(isDigit)
	words  = bytemask.New(wordish)
)

// chunk is how many masks are made at a time.
const chunk = 32

// A block is 64 places of a text, and what is known of them and of the next 64.
// Behind the end of the text, all may stand.
type block struct {
	text         []byte
	at           int
	digits, more uint64 // where digits stand
	words, next  uint64 // where words stand, if some group asks
	beyond       bool   // the text ends within those places
}

// tail returns the mask of the last bytes of a text, less than 64, and of what may
// follow.
func tail(k *bytemask.Kind, text []byte) uint64 {
	return k.Mask(text) | ^uint64(0)<<(len(text)&63)
}

// load returns the masks of the text from a place on, one more than chunk if there
// are so many.
func load(k *bytemask.Kind, masks *[chunk + 2]uint64, text []byte, at int) {
	rest := text[at:min(len(text), at+64*(chunk+1))]
	if n := k.Masks(masks[:chunk+1], rest); n <= chunk {
		masks[n] = tail(k, rest[64*n:])
		masks[n+1] = ^uint64(0)
	}
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
	var where, wordy [chunk + 2]uint64
	for at := from; at < to; at += 64 * chunk {
		load(digits, &where, text, at)
		if s.words {
			load(words, &wordy, text, at)
		}
		for i := 0; i < chunk && at+64*i < to; i++ {
			n := bits.OnesCount64(where[i]) + bits.OnesCount64(where[i+1]<<(64-window+1))
			if n < s.digits && (!s.words || !longWord(wordy[i], wordy[i+1])) {
				continue
			}
			b := block{text: text, at: at + 64*i, digits: where[i], more: where[i+1], words: wordy[i], next: wordy[i+1], beyond: at+64*(i+2) > len(text)}
			s.ask(&b, to, n, hit)
		}
	}
}

// longWord reports whether a word may begin in 64 bytes, or less than sixteen
// behind them.
func longWord(m, next uint64) bool {
	run := m & (m >> 1)
	run &= run >> 2
	run &= run >> 4
	run &= run >> (wordRun - 8)
	return run != 0 || next&0xffff != 0 && bits.LeadingZeros64(^m)+bits.TrailingZeros64(^next) >= wordRun || next&(1<<latest-1) != 0 && bits.TrailingZeros64(^(next>>latest)) >= wordRun-latest
}

// ask asks the groups about 64 places, in which and right behind which stand so
// many digits.
func (s *Starts) ask(b *block, to, digits int, hit func(pattern, at int)) {
	text, at := b.text, b.at
	within := ^uint64(0)
	if to-at < 64 {
		within = 1<<(to-at) - 1
	}
	there := b.digits
	if left := len(text) - at; left < 64 {
		there &= 1<<left - 1
	}
	fresh := within &^ (there << 1)
	if at > 0 && isDigit(text[at-1]) {
		fresh &^= 1
	}
	// runs are where two to the power of the index digits stand in a row.
	var runs, more [4]uint64
	runs[0], more[0] = b.digits, b.more
	for n := range s.log {
		runs[n+1] = runs[n] & behind(runs[n], more[n], 1<<n)
		more[n+1] = more[n] & behind(more[n], ^uint64(0), 1<<n) // what comes then may be digits
	}
	var cans [atOnce]uint64 // by group
	some := uint64(0)
	for i := range s.groups {
		g := &s.groups[i]
		if digits < g.digits {
			continue
		}
		can := within
		if g.fresh {
			can = fresh
		}
		if g.run > 0 { // two runs that may overlap
			r, n := runs[g.log&3], more[g.log&3]
			can &= behind(r, n, g.from) & behind(r, n, g.from+g.run-(1<<g.log))
		}
		if g.apart && !b.beyond {
			for k := range g.from {
				can &^= behind(b.digits, b.more, k)
			}
		}
		if g.word >= 0 && g.run == 0 {
			can &= word(b.words, b.next, g.word)
		}
		cans[i] = can
		some |= can
	}
	for ; some != 0; some &= some - 1 {
		k := bits.TrailingZeros64(some)
		here := at + k
		may := ^uint32(0)
		if here+4 <= len(text) {
			may = s.can[0][text[here]] & s.can[1][text[here+1]] & s.can[2][text[here+2]] & s.can[3][text[here+3]]
			if may == 0 {
				continue
			}
		} else if here >= len(text) {
			return
		}
		count := bits.OnesCount64(behind(b.digits, b.more, k) & (1<<window - 1))
		ask := uint32(0)
		for i := range s.groups {
			if g := &s.groups[i]; cans[i]>>(k&63)&1 != 0 && (!g.number || count >= g.digits) {
				ask |= g.patterns
			}
		}
		if may &= ask; may != 0 {
			s.look(text, here, may, hit)
		}
	}
}

// word returns from where on, some places behind, a word stands.
func word(m, next uint64, k int) uint64 {
	m, next = behind(m, next, k), behind(next, ^uint64(0), k)
	return bytemask.Runs(m, next, wordRun)
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

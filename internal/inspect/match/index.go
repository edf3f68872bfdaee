package match

import (
	"bytes"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

// An Index finds many literals at once, whatever the case of their letters.
//
// Of each literal four neighbouring bytes are known, those that ordinary text
// has least; of a shorter one, itself with what may follow it. Every four bytes of
// the text are looked up in a small table, see [bytemask.Grams], and no step of that
// waits for the one before. The few places that pass are looked at closely.
type Index struct {
	texts []string // by literal number
	grams bytemask.Grams
	slots []slot // by hash, open addressing; a power of two
	shift uint   // of a hash, to get a slot
	spots []spot // in runs of those with the same four bytes
	short []int  // literals that more than four bytes do not hold
	rare  []rare // literals of which the four bytes could be nearly anything
	// Longest is the length of the longest literal.
	Longest int
}

const (
	gramMix    = 0x9e3779b1
	maxFollows = 4096 // how many grams a short literal may be known by
)

// slot is where the spots of four bytes stand.
type slot struct {
	gram  uint32
	at, n uint32 // n is 0 in an empty slot
}

// spot is a literal, and how far within it its four bytes begin.
type spot struct {
	literal int32
	offset  int32
}

// rare is a literal that is searched for by one of its bytes.
type rare struct {
	literal int
	offset  int
	bytes   []byte // the byte, in both cases
}

// A Text is a literal, in lower case and not empty, and what may follow it.
type Text struct {
	Text string
	// After are patterns one of which must match from the literal on, or
	// nobody asks for it. None means that anything may follow.
	After []*Pattern
}

func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 32
	}
	return c
}

// NewIndex returns the Index of texts.
func NewIndex(texts []Text) *Index {
	x := &Index{}
	spots := map[uint32][]spot{}
	for i, t := range texts {
		x.texts = append(x.texts, t.Text)
		x.Longest = max(x.Longest, len(t.Text))
		if len(t.Text) < 4 {
			x.short = append(x.short, i)
		}
		grams, offset := gramsOf(t)
		if grams == nil {
			x.rare = append(x.rare, rareOf(i, t.Text))
		}
		for _, g := range grams {
			spots[g] = append(spots[g], spot{int32(i), int32(offset)}) //nolint:gosec // there are not so many
		}
	}
	size := 64
	for size < 2*len(spots) {
		size *= 2
	}
	x.slots = make([]slot, size)
	x.shift = 32
	for n := size; n > 1; n >>= 1 {
		x.shift--
	}
	for _, g := range sorted(spots) {
		x.grams.Add(g)
		k := g * gramMix >> x.shift
		for x.slots[k].n > 0 {
			k = (k + 1) & uint32(size-1) //nolint:gosec // a power of two
		}
		x.slots[k] = slot{g, uint32(len(x.spots)), uint32(len(spots[g]))} //nolint:gosec // there are not so many
		x.spots = append(x.spots, spots[g]...)
	}
	return x
}

func sorted(m map[uint32][]spot) []uint32 {
	keys := make([]uint32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// gramsOf returns the four bytes, or any four of several, that stand in the
// text wherever the literal does and can be asked for, and how far within it;
// nil when those are too many.
func gramsOf(t Text) (grams []uint32, offset int) {
	if len(t.Text) >= 4 {
		best := -1
		for i := 0; i+4 <= len(t.Text); i++ {
			if n := rarity(t.Text[i : i+4]); n > best {
				best, offset = n, i
			}
		}
		return []uint32{bytemask.Fold([]byte(t.Text[offset:]))}, offset
	}
	grams = []uint32{0}
	for i, c := range []byte(t.Text) {
		grams[0] |= uint32(c|0x20) << (8 * i)
	}
	for i, some := range follows(t) {
		at := 8 * (len(t.Text) + i)
		if len(grams)*len(some) > maxFollows {
			return nil, 0
		}
		var more []uint32
		for _, g := range grams {
			for _, c := range some {
				more = append(more, g|uint32(c)<<at)
			}
		}
		grams = more
	}
	return grams, 0
}

// follows returns which bytes may stand behind a short literal, to fill it up
// to four, with the bit of their case set.
func follows(t Text) [][]byte {
	n := 4 - len(t.Text)
	has := make([][256]bool, n)
	for _, p := range t.After {
		p.follow(t.Text, has)
	}
	out := make([][]byte, n)
	for i := range has {
		for c := range 256 {
			if c&0x20 != 0 && (len(t.After) == 0 || has[i][c] || has[i][c&^0x20]) {
				out[i] = append(out[i], byte(c))
			}
		}
	}
	return out
}

// follow enters the bytes with which a match may go on that begins with head,
// whatever the case of its letters.
func (p *Pattern) follow(head string, has [][256]bool) {
	d := p.automaton()
	g := d.gen.Load()
	level := []uint32{g.start}
	within := false // a character of several bytes may go on
	for i := range len(head) + len(has) {
		var next []uint32
		wide := false
		for _, from := range level {
			if from&accepts != 0 { // whatever follows
				for k := max(i-len(head), 0); k < len(has); k++ {
					for c := range has[k] {
						has[k][c] = true
					}
				}
				return
			}
			may := make([]bool, d.width)
			for class := range d.example {
				if i < len(head) && class != int(d.class[head[i]]) && class != int(d.class[upper(head[i])]) {
					continue
				}
				beyond := d.example[class] >= utf8.RuneSelf
				if beyond && !within && !slices.ContainsFunc(g.insts[int(from>>cellShift)/d.width], func(pc uint32) bool { return beyondASCII(&d.prog.Inst[pc]) }) {
					continue // the automaton takes it, the expression does not
				}
				wide = wide || beyond
				if cell := d.step(g, from, uint8(class)); cell != dead {
					may[class] = true
					if !slices.Contains(next, cell) {
						next = append(next, cell)
					}
				}
			}
			for c := range 256 {
				if i >= len(head) && may[d.class[c]] {
					has[i-len(head)][c] = true
				}
			}
		}
		level, within = next, wide
	}
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 32
	}
	return c
}

// rarity says how seldom text is in what people and programs write.
func rarity(text string) int {
	n := 0
	for _, c := range []byte(text) {
		if i := bytes.IndexByte([]byte("etaoinsrhldcumfpgwybvkxjqz"), c); i >= 0 {
			n += i
			continue
		}
		n += 28
		if c == ' ' || c == '-' {
			n -= 24
		}
	}
	return n
}

// rareOf says by which byte to search for a literal.
func rareOf(i int, text string) rare {
	r := rare{literal: i}
	best := -1
	for k := range len(text) {
		if n := rarity(text[k : k+1]); n > best {
			best, r.offset = n, k
		}
	}
	c := text[r.offset]
	if r.bytes = []byte{c}; c >= 'a' && c <= 'z' {
		r.bytes = append(r.bytes, c-32)
	}
	return r
}

// Find calls hit for every literal in text that ends after from and can be
// asked for, in no particular order.
func (x *Index) Find(text []byte, from int, hit func(literal, at int)) {
	n := len(text)
	i := max(0, from-x.Longest+1)
	begin := i
	var masks [chunk]uint64
	for {
		some := x.grams.Masks(masks[:], text[i:min(n, i+64*chunk+bytemask.Reach)])
		if some == 0 {
			break
		}
		for k, m := range masks[:some] {
			for ; m != 0; m &= m - 1 {
				x.look(text, i+64*k+bits.TrailingZeros64(m), from, hit)
			}
		}
		i += 64 * some
	}
	for ; i+4 <= n; i++ {
		if x.grams.May(bytemask.Fold(text[i:])) {
			x.look(text, i, from, hit)
		}
	}
	for ; i < n; i++ { // what may follow a short literal has not come
		for _, k := range x.short {
			if len(x.texts[k]) <= n-i {
				x.compare(text, k, i, from, hit)
			}
		}
	}
	for _, r := range x.rare {
		end := n - 3 // from there on they are among the short ones
		for _, c := range r.bytes {
			for at := begin; at < n; at++ {
				k := bytes.IndexByte(text[at:], c)
				if k < 0 {
					break
				}
				at += k
				if begin <= at-r.offset && at-r.offset < end {
					x.compare(text, r.literal, at-r.offset, from, hit)
				}
			}
		}
	}
}

// look compares what stands around text[at:] with the literals that have its
// four bytes.
func (x *Index) look(text []byte, at, from int, hit func(literal, at int)) {
	g := bytemask.Fold(text[at:])
	mask := uint32(len(x.slots) - 1) //nolint:gosec // a power of two
	for k := g * gramMix >> x.shift; ; k = (k + 1) & mask {
		s := &x.slots[k&mask]
		if s.n == 0 {
			return
		}
		if s.gram == g {
			for _, p := range x.spots[s.at : s.at+s.n] {
				x.compare(text, int(p.literal), at-int(p.offset), from, hit)
			}
			return
		}
	}
}

// compare calls hit if the literal stands at text[at:].
func (x *Index) compare(text []byte, literal, at, from int, hit func(literal, at int)) {
	t := x.texts[literal]
	if at >= 0 && at+len(t) > from && at+len(t) <= len(text) && foldEqual(text[at:at+len(t)], t) {
		hit(literal, at)
	}
}

// foldEqual compares text with t, which is in lower case.
func foldEqual(text []byte, t string) bool {
	for k := range len(t) {
		if fold(text[k]) != t[k] {
			return false
		}
	}
	return true
}

// Prefixes knows the beginnings of literals.
type Prefixes struct {
	has     map[string]struct{}
	first   [256]bool
	longest int
}

// NewPrefixes returns the proper beginnings of texts, which are in lower case.
func NewPrefixes(texts []string) *Prefixes {
	p := &Prefixes{has: map[string]struct{}{}}
	for _, t := range texts {
		p.longest = max(p.longest, len(t)-1)
		p.first[t[0]] = true
		for n := 1; n < len(t); n++ {
			p.has[t[:n]] = struct{}{}
		}
	}
	return p
}

// Tail returns the length of the longest end of text that is a proper beginning
// of a literal.
func (p *Prefixes) Tail(text []byte) int {
	for n := min(p.longest, len(text)); n > 0; n-- {
		end := text[len(text)-n:]
		if !p.first[fold(end[0])] {
			continue
		}
		if _, ok := p.has[string(bytes.ToLower(end))]; ok {
			return n
		}
	}
	return 0
}

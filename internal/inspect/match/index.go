package match

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// An Index finds many literals at once, whatever the case of their letters.
//
// Each byte has one of 32 classes. The classes of three neighbours are an entry
// of a table of bits, which says whether a literal begins so; a hash of four
// bytes is an entry of another. A place that passes both is looked at closely. There are
// few of them, and no step of the search waits for the one before.
type Index struct {
	three [1 << 9]uint64  // by the classes of three bytes: something may begin here
	lits  [1 << 9]uint64  // likewise: a literal may
	four  [1 << 10]uint64 // by a hash of four bytes: a literal of four or more may
	tri   [1 << 8]uint64  // by a hash of three bytes: a literal of three may
	begin [1 << 9]uint64  // by the classes of three bytes: a pattern without literals may
	brief [32]bool        // by the class of a byte: a literal of one or two bytes may
	pairs [1 << 4]uint64  // by the classes of two bytes: a literal of two may
	loose bool            // a pattern may begin within a word
	// digits says which bytes may follow some digits that a match begins with.
	digits [maxDigits][256]bool
	texts  []string      // by literal number
	slots  [1 << 10]slot // by a hash of the first bytes
	order  []int32       // literals by slot
	// Longest is the length of the longest literal.
	Longest int
}

// maxDigits is how many leading digits are counted before a pattern is run.
const maxDigits = 8

// slot is where the literals of a hash stand in order.
type slot struct{ at, n uint16 }

// classOf gives each letter a class, and digits and the usual punctuation a few:
// so few that the tables stay in the first cache.
var classOf = func() (class [256]uint8) {
	n := uint8(1)
	for c := 'a'; c <= 'z'; c++ {
		class[c], class[c-32] = n, n
		n++
	}
	for _, some := range []string{"0123456789", "-_", ".", "=/@:~+!", " \t"} {
		for _, c := range []byte(some) {
			class[c] = n
		}
		n++
	}
	return class // everything else is class 0
}()

func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 32
	}
	return c
}

// hashFour and hashThree hash what begins in head, whatever its case.
func hashFour(head uint32) uint32  { return (head | 0x20202020) * 0x9e3779b1 >> 16 }
func hashThree(head uint32) uint32 { return (head | 0x20202020) << 8 * 0x9e3779b1 >> 18 }

func headOf(text []byte) uint32 { return binary.LittleEndian.Uint32(text) }

// NewIndex returns the Index of texts, which must be lower case and not empty,
// and of patterns that have no literals. Unless loose, those match only where
// no word goes on.
func NewIndex(texts []string, patterns []*Pattern, loose bool) *Index {
	x := &Index{texts: texts, loose: loose}
	buckets := make([][]int32, len(x.slots))
	for i, t := range texts {
		x.Longest = max(x.Longest, len(t))
		// Texts shorter than three bytes stand for all that begin with them.
		classes := [3][]uint32{}
		for k := range classes {
			if k < len(t) {
				classes[k] = []uint32{uint32(classOf[t[k]])}
			} else {
				classes[k] = everyClass
			}
		}
		for _, a := range classes[0] {
			for _, b := range classes[1] {
				for _, c := range classes[2] {
					k := a<<10 | b<<5 | c
					x.lits[k>>6] |= 1 << (k & 63)
				}
			}
		}
		switch {
		case len(t) >= 4:
			h := hashFour(headOf([]byte(t)))
			x.four[h>>6] |= 1 << (h & 63)
		case len(t) == 3:
			h := hashThree(headOf([]byte(t + "\x00")))
			x.tri[h>>6] |= 1 << (h & 63)
		}
		if len(t) == 1 {
			x.brief[classOf[t[0]]] = true
		}
		if len(t) == 2 {
			k := uint32(classOf[t[0]])<<5 | uint32(classOf[t[1]])
			x.pairs[k>>6] |= 1 << (k & 63)
		}
		h := slotOf([]byte(t[:min(len(t), 3)]))
		buckets[h] = append(buckets[h], int32(i))
	}
	for h, b := range buckets {
		x.slots[h] = slot{uint16(len(x.order)), uint16(len(b))} //nolint:gosec // as above
		x.order = append(x.order, b...)
	}
	for _, p := range patterns {
		x.triples(p)
	}
	for i := range x.three {
		x.three[i] = x.lits[i] | x.begin[i]
	}
	return x
}

// triples enters the classes of three bytes that a match may begin with.
func (x *Index) triples(p *Pattern) {
	var bytesOf [32][]byte
	for c := range 256 {
		bytesOf[classOf[c]] = append(bytesOf[classOf[c]], byte(c))
	}
	d := p.automaton()
	// ends returns the classes that may follow, with where they lead.
	type step struct {
		class uint32
		cells []uint32
	}
	memo := map[uint32][]step{}
	ends := func(from uint32) []step {
		if s, ok := memo[from]; ok {
			return s
		}
		var all []step
		g := d.gen.Load()
		for class, some := range bytesOf {
			var cells []uint32
			for _, c := range some {
				if cell := d.step(g, from, d.class[c]); cell != dead && !slices.Contains(cells, cell) {
					cells = append(cells, cell)
				}
			}
			if len(cells) > 0 {
				all = append(all, step{uint32(class), cells})
			}
		}
		memo[from] = all
		return all
	}
	anything := func(k uint32, n int) { // a match may be over before three bytes
		for i := range uint32(1) << (5 * n) {
			x.begin[(k<<(5*n)|i)>>6] |= 1 << ((k<<(5*n) | i) & 63)
		}
	}
	start := d.gen.Load().start
	x.numbers(d, start)
	for _, a := range ends(start) {
		for _, one := range a.cells {
			if one&accepts != 0 {
				anything(a.class, 2)
			}
			for _, b := range ends(one) {
				for _, two := range b.cells {
					if two&accepts != 0 {
						anything(a.class<<5|b.class, 1)
					}
					for _, c := range ends(two) {
						k := a.class<<10 | b.class<<5 | c.class
						x.begin[k>>6] |= 1 << (k & 63)
					}
				}
			}
		}
	}
}

var everyClass = func() (all []uint32) {
	for c := range uint32(32) {
		all = append(all, c)
	}
	return all
}()

// slotOf hashes the first bytes of a literal, three at most.
func slotOf(head []byte) uint32 {
	h := uint32(len(head)) //nolint:gosec // at most 3
	for _, c := range head {
		h = h<<8 ^ h>>24 ^ uint32(fold(c))
	}
	return h * 0x9e3779b1 >> 22
}

// numbers enters what may follow digits that a match begins with: most numbers
// in ordinary text are followed by something else.
func (x *Index) numbers(d *dfa, start uint32) {
	level := []uint32{start}
	for n := range maxDigits {
		var next []uint32
		for _, from := range level {
			for c := range 256 {
				cell := d.step(d.gen.Load(), from, d.class[c])
				if cell == dead {
					continue
				}
				x.digits[n][c] = true
				if c >= '0' && c <= '9' && !slices.Contains(next, cell) {
					next = append(next, cell)
				}
				if cell&accepts != 0 { // whatever follows
					for k := n + 1; k < maxDigits; k++ {
						for b := range 256 {
							x.digits[k][b] = true
						}
					}
				}
			}
		}
		level = next
	}
}

// number reports whether the digits at text[at:] may begin a match.
func (x *Index) number(text []byte, at int) bool {
	n := 0
	for at+n < len(text) && n < maxDigits-1 && text[at+n]-'0' < 10 {
		n++
	}
	return at+n == len(text) || x.digits[n][text[at+n]]
}

// Find calls hit for every literal in text that ends after from, and free for
// every place from on where a match of one of the patterns may begin, in the
// order of those places.
func (x *Index) Find(text []byte, from int, hit func(literal, at int), free func(at int)) {
	i := max(0, from-x.Longest+1)
	n := len(text)
	if n-i >= 4 {
		var c uint32
		for k := range 3 {
			c = c<<5 | uint32(classOf[text[i+k]])
		}
		for k, b := range text[i+3:] {
			c = c<<5 | uint32(classOf[b])
			// c holds four classes, of which three begin here.
			if x.three[c>>11&511]>>(c>>5&63)&1 == 0 {
				continue
			}
			if x.lits[c>>11&511]>>(c>>5&63)&1 != 0 {
				x.look(text, i+k, from, hit)
			}
			if x.begin[c>>11&511]>>(c>>5&63)&1 != 0 && i+k >= from && (x.loose || x.bounded(text, i+k)) && (text[i+k]-'0' >= 10 || x.number(text, i+k)) {
				free(i + k)
			}
		}
		i = n - 3
	}
	for ; i < n; i++ {
		x.look(text, i, from, hit)
		if i >= from {
			free(i)
		}
	}
}

// bounded reports whether no word goes on at text[at]. The letter of an escaped
// line end is none.
func (x *Index) bounded(text []byte, at int) bool {
	if at == 0 || !isWord(text[at-1]) {
		return true
	}
	c := text[at-1]
	return (c == 'n' || c == 'r' || c == 't') && at > 1 && text[at-2] == '\\'
}

// look compares what stands at text[at:] with the literals.
func (x *Index) look(text []byte, at, from int, hit func(literal, at int)) {
	c := uint32(classOf[text[at]])
	if x.brief[c] {
		x.compare(text, at, 1, from, hit)
	}
	if at+2 > len(text) {
		return
	}
	c = c<<5 | uint32(classOf[text[at+1]])
	if x.pairs[c>>6]>>(c&63)&1 != 0 {
		x.compare(text, at, 2, from, hit)
	}
	if at+3 > len(text) {
		return
	}
	if at+4 <= len(text) {
		head := headOf(text[at:])
		h, h3 := hashFour(head), hashThree(head)
		if (x.four[h>>6]>>(h&63)|x.tri[h3>>6]>>(h3&63))&1 == 0 {
			return
		}
	}
	x.compare(text, at, 3, from, hit)
}

// compare calls hit for the literals of which the first n bytes, three at
// most, stand at text[at:].
func (x *Index) compare(text []byte, at, n, from int, hit func(literal, at int)) {
	s := x.slots[slotOf(text[at:at+n])]
	for _, i := range x.order[s.at : s.at+s.n] {
		t := x.texts[i]
		if min(len(t), 3) == n && at+len(t) > from && at+len(t) <= len(text) && foldEqual(text[at:at+len(t)], t) {
			hit(int(i), at)
		}
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

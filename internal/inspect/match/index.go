package match

import (
	"bytes"
	"slices"
)

// An Index finds many literals at once, whatever the case of their letters.
//
// Each byte has one of 64 classes, and two neighbours together an entry in a
// table of 4,096. The first four bytes of a literal make two entries, which
// get the bit of the literal's bucket. A place where the two tables have a bit
// in common is looked at closely; there are few of them, and no step of the
// search waits for the one before.
type Index struct {
	first, second [4096]uint32 // by the classes of bytes 0 and 1, and 2 and 3
	texts         []string     // by literal number
	heads         map[uint32][]int32
	short         [3]map[uint32][]int32 // literals of one, two and three bytes
	Longest       int
}

// classOf gives letters, digits and the usual punctuation a class each.
var classOf = func() (class [256]uint8) {
	n := uint8(1)
	for c := 'a'; c <= 'z'; c++ {
		class[c], class[c-32] = n, n
		n++
	}
	for _, c := range []byte("0123456789-_.=/@:~+\"' \\<>{},;|%&#$()") {
		class[c] = n
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

// NewIndex returns the Index of texts, which must be lower case and not empty.
func NewIndex(texts []string) *Index {
	x := &Index{texts: texts, heads: map[uint32][]int32{}, short: [3]map[uint32][]int32{{}, {}, {}}}
	order := make([]int, len(texts))
	for i := range order {
		order[i] = i
	}
	// Neighbours in the alphabet share a bucket, so that a bucket's entries
	// are few.
	slices.SortFunc(order, func(a, b int) int {
		if texts[a] < texts[b] {
			return -1
		}
		return 1
	})
	for rank, i := range order {
		t := texts[i]
		x.Longest = max(x.Longest, len(t))
		bit := uint32(1) << (rank * 32 / len(texts))
		c := func(k int) int { return int(classOf[t[k]]) }
		if len(t) == 1 {
			for k := range 4096 {
				x.second[k] |= bit
			}
			for k := range 64 {
				x.first[c(0)<<6|k] |= bit
			}
			x.short[0][uint32(t[0])] = append(x.short[0][uint32(t[0])], int32(i)) //nolint:gosec // as below
			continue
		}
		x.first[c(0)<<6|c(1)] |= bit
		switch {
		case len(t) >= 4:
			x.second[c(2)<<6|c(3)] |= bit
			h := head(t)
			x.heads[h] = append(x.heads[h], int32(i)) //nolint:gosec // a few thousand at most
		case len(t) == 3:
			for k := range 64 {
				x.second[c(2)<<6|k] |= bit
			}
			h := head(t + "\x00")
			x.short[2][h] = append(x.short[2][h], int32(i)) //nolint:gosec // as above
		default:
			for k := range 4096 {
				x.second[k] |= bit
			}
			h := head(t + "\x00\x00")
			x.short[1][h] = append(x.short[1][h], int32(i)) //nolint:gosec // as above
		}
	}
	return x
}

func head(t string) uint32 {
	return uint32(t[0]) | uint32(t[1])<<8 | uint32(t[2])<<16 | uint32(t[3])<<24
}

// Find calls hit for every literal in text that ends after from, in the order
// of their beginnings.
func (x *Index) Find(text []byte, from int, hit func(literal, at int)) {
	if len(x.texts) == 0 {
		return
	}
	start := max(0, from-x.Longest+1)
	n := len(text)
	i := start
	if n-start >= 4 {
		var c uint32
		for k := range 3 {
			c = c<<6 | uint32(classOf[text[start+k]])
		}
		for ; i+3 < n; i++ {
			c = c<<6 | uint32(classOf[text[i+3]])
			if x.first[c>>12&4095]&x.second[c&4095] != 0 {
				x.look(text, i, from, hit)
			}
		}
	}
	for ; i < n; i++ {
		x.look(text, i, from, hit)
	}
}

// look compares what stands at text[at:] with the literals.
func (x *Index) look(text []byte, at, from int, hit func(literal, at int)) {
	h := uint32(fold(text[at]))
	if len(x.short[0]) > 0 && at >= from {
		for _, i := range x.short[0][h] {
			hit(int(i), at)
		}
	}
	if at+2 > len(text) {
		return
	}
	h |= uint32(fold(text[at+1])) << 8
	for _, i := range x.short[1][h] {
		if at+2 > from {
			hit(int(i), at)
		}
	}
	if at+3 > len(text) {
		return
	}
	h |= uint32(fold(text[at+2])) << 16
	for _, i := range x.short[2][h] {
		if at+3 > from {
			hit(int(i), at)
		}
	}
	if at+4 > len(text) {
		return
	}
	h |= uint32(fold(text[at+3])) << 24
	for _, i := range x.heads[h] {
		t := x.texts[i]
		if at+len(t) > from && at+len(t) <= len(text) && foldEqual(text[at+4:at+len(t)], t[4:]) {
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

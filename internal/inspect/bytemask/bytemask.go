// Package bytemask tells where bytes of some kind stand in a text, sixty-four at
// a time, as the bits of a word. It is what the searches of package inspect begin
// with: most of a text has nothing of what is looked for, and must be passed over
// at the speed of memory.
//
// On amd64 with AVX2 a byte is classified by two table look-ups of half a byte
// each, thirty-two bytes at once, in assembly; elsewhere by a table, byte by byte.
// Both forms answer the same, which is tested byte by byte; the build tag purego
// leaves the assembly out.
package bytemask

import "math/bits"

// A Kind is a set of bytes. It may be used concurrently.
type Kind struct {
	has [256]bool
	// halves are the tables for the lower and the upper half of a byte, each
	// twice. A byte is of the kind when they share a bit.
	halves [64]byte
}

// New returns the Kind of the bytes that is says. It panics where [Try] fails.
func New(is func(byte) bool) *Kind {
	k, ok := Try(is)
	if !ok {
		panic("bytemask: a kind of bytes that two tables cannot tell")
	}
	return k
}

// Try returns the Kind of the bytes that is says. The bytes with one upper half
// may be any; ok is false when there are more than eight different sets of lower
// halves.
func Try(is func(byte) bool) (k *Kind, ok bool) {
	k = &Kind{}
	for c := range k.has {
		k.has[c] = is(byte(c))
	}
	var sets []uint16
	for upper := range 16 {
		set := uint16(0)
		for lower := range 16 {
			if k.has[upper<<4|lower] {
				set |= 1 << lower
			}
		}
		if set == 0 {
			continue
		}
		n := 0
		for n < len(sets) && sets[n] != set {
			n++
		}
		if n == len(sets) {
			if n == 8 {
				return nil, false
			}
			sets = append(sets, set)
		}
		k.halves[32+upper] |= 1 << n
	}
	for n, set := range sets {
		for lower := range 16 {
			k.halves[lower] |= byte(set>>lower&1) << n
		}
	}
	copy(k.halves[16:32], k.halves[:16])
	copy(k.halves[48:], k.halves[32:48])
	return k, true
}

// Has reports whether c is of the kind.
func (k *Kind) Has(c byte) bool { return k.has[c] }

// Masks tells of each 64 bytes of text which are of the kind: bit i of dst[n] is
// about text[64*n+i]. What is left at the end, if it is no 64 bytes, is not looked
// at. It returns how many masks there are; dst has room for them.
func (k *Kind) Masks(dst []uint64, text []byte) int {
	n := len(text) / 64
	if n == 0 {
		return 0
	}
	dst = dst[:n]
	if fast {
		masks(&dst[0], &text[0], n, &k.halves)
		return n
	}
	for i := range dst {
		dst[i] = k.mask(text[64*i : 64*i+64])
	}
	return n
}

// Mask tells which of the first 64 bytes of text, or of as many as there are, are
// of the kind.
func (k *Kind) Mask(text []byte) uint64 {
	if len(text) < 64 || !fast {
		return k.mask(text[:min(len(text), 64)])
	}
	var m uint64
	masks(&m, &text[0], 1, &k.halves)
	return m
}

func (k *Kind) mask(text []byte) (m uint64) {
	for i, c := range text {
		if k.has[c] {
			m |= 1 << i
		}
	}
	return m
}

// Index returns the index of the first byte of the kind, or -1.
func (k *Kind) Index(text []byte) int {
	i := 0
	if n := len(text) &^ 31; fast && n > 0 {
		if i = index(&text[0], n, &k.halves); i < n {
			return i
		}
	}
	for ; i < len(text); i++ {
		if k.has[text[i]] {
			return i
		}
	}
	return -1
}

// Pairs are sets of two bytes in a row. It may be used concurrently.
type Pairs struct {
	// first and second tell by byte which groups it belongs to.
	first, second [256]byte
	halves        [128]byte // as in a Kind, of the first byte and of the second
}

// NewPairs returns the Pairs of some two bytes, whatever the case of letters.
// What it finds may be a little more than those.
func NewPairs(pairs [][2]byte) *Pairs {
	p := &Pairs{}
	for i, pair := range pairs {
		group := byte(1) << (i % 8)
		for n, c := range pair {
			cases := []byte{c}
			if l := c | 0x20; l >= 'a' && l <= 'z' {
				cases = []byte{l, l &^ 0x20}
			}
			for _, c := range cases {
				p.halves[64*n+int(c&15)] |= group
				p.halves[64*n+32+int(c>>4)] |= group
			}
		}
	}
	for n := 0; n < len(p.halves); n += 32 {
		copy(p.halves[n+16:n+32], p.halves[n:n+16])
	}
	for c := range 256 {
		p.first[c] = p.halves[c&15] & p.halves[32+c>>4]
		p.second[c] = p.halves[64+c&15] & p.halves[96+c>>4]
	}
	return p
}

// Masks tells of each 64 bytes of text where the pairs begin, as [Kind.Masks]
// does. The last byte of text is only looked at as the second of a pair.
func (p *Pairs) Masks(dst []uint64, text []byte) int {
	n := (len(text) - 1) / 64
	if n <= 0 {
		return 0
	}
	dst = dst[:n]
	if fast {
		pairs(&dst[0], &text[0], n, &p.halves)
		return n
	}
	for i := range dst {
		m := uint64(0)
		block := text[64*i : 64*i+65]
		for k, c := range block[:64] {
			if p.first[c]&p.second[block[k+1]] != 0 {
				m |= 1 << k
			}
		}
		dst[i] = m //nolint:gosec // there is room for n
	}
	return n
}

// Begin reports whether a pair may begin with these two bytes.
func (p *Pairs) Begin(a, b byte) bool { return p.first[a]&p.second[b] != 0 }

// Runs returns where n bytes of a kind begin that stand in a row, of which m and
// next are the masks: this one and the one behind. n is at most 64.
func Runs(m, next uint64, n int) uint64 {
	for have := 1; have < n; {
		step := min(have, n-have)
		m, next = m&(m>>(step&63)|next<<((64-step)&63)), next&(next>>(step&63)|^uint64(0)<<((64-step)&63))
		have += step
	}
	return m
}

// First returns the index of the lowest bit of a mask.
func First(m uint64) int { return bits.TrailingZeros64(m) }

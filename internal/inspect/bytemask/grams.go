package bytemask

import "encoding/binary"

// Grams is a set of four bytes in a row, whatever the case of letters. What it
// finds may be a little more than was added: a gram is two bits in one word of a
// table. The zero Grams is empty. It may be used concurrently when all are added.
type Grams struct{ table [1 << gramBits]uint32 }

const (
	gramBits = 13
	gramMix  = 0x9e3779b1
	foldAll  = 0x20202020
	// Reach is how much text behind a block is read to tell its masks.
	Reach = 8
)

// Fold returns four bytes as a number, the bit of their case set.
func Fold(text []byte) uint32 { return binary.LittleEndian.Uint32(text) | foldAll }

// Add adds a gram, as Fold gives it.
func (g *Grams) Add(gram uint32) {
	word, bits := gramHash(gram)
	g.table[word] |= bits
}

// May reports whether a gram, as Fold gives it, may have been added.
func (g *Grams) May(gram uint32) bool {
	word, bits := gramHash(gram)
	return g.table[word]&bits == bits
}

// gramHash returns the word of the table in which a gram has its bits, and those.
func gramHash(gram uint32) (word, bits uint32) {
	h := gram * gramMix
	return h >> (32 - gramBits), 0x80000000>>(h>>14&31) | 0x80000000>>(h>>9&31)
}

// Masks tells of each 64 bytes of text where a gram may begin, as [Kind.Masks]
// does. The last bytes of text are only looked at as the rest of a gram.
func (g *Grams) Masks(dst []uint64, text []byte) int {
	n := (len(text) - Reach) / 64
	if n <= 0 {
		return 0
	}
	dst = dst[:n]
	if fast {
		grams(&dst[0], &text[0], n, &g.table)
		return n
	}
	for i := range dst {
		m := uint64(0)
		block := text[64*i : 64*i+64+Reach]
		for k := range 64 {
			if g.May(Fold(block[k:])) {
				m |= 1 << k
			}
		}
		dst[i] = m
	}
	return n
}

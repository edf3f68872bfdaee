package exact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"sync"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

// A class says which bytes of a text count in a comparison; all others
// separate. Needles that hold enough letters and digits are compared in the
// first class, the rest in the next that leaves enough of them.
type class struct {
	keep [256]bool
	kind *bytemask.Kind // the same
}

var classes = [...]class{
	newClass(alphanumeric),
	newClass(func(c byte) bool { return c > ' ' && c < 0x7f }),
	newClass(func(c byte) bool { return c > ' ' && c != 0x7f }),
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func newClass(keep func(byte) bool) class {
	c := class{kind: bytemask.New(keep)}
	for i := range c.keep {
		c.keep[i] = keep(byte(i))
	}
	return c
}

// squeeze returns the bytes of text that count.
func (c *class) squeeze(text string) []byte {
	out := make([]byte, 0, len(text))
	for i := range len(text) {
		if c.keep[text[i]] {
			out = append(out, text[i])
		}
	}
	return out
}

// A needle is a squeezed variant, the number of its secret's name, and the
// length of the part of the secret that it stands for.
type needle struct {
	text []byte
	name int
	part int
}

const (
	// shortest is the stride of the needles that are shorter than any of grids.
	shortest = 4
	// anchors is how far into a needle we look for its rarest grams.
	anchors = 48
	// block is the raw length for which the squeezed position is remembered.
	block = 64
	// manyNeedles is how many needles with one beginning are compared.
	manyNeedles = 256
	// window is how much raw text is squeezed at a time; it stays in the cache.
	window = 32 << 10
)

// A domain finds the needles of one class. Text is squeezed window by window,
// and then probed.
type domain struct {
	class *class
	// arena holds the needles in byte order, offsets where each begins, and one
	// more for the end.
	arena   []byte
	offsets []uint32
	names   []uint32
	parts   []uint32
	longest int

	mul    uint64  // the hash function of this set
	tables []table // of the long needles and of the short ones, without the empty

	// starts is a bitmap of the needles' first startGram bytes.
	starts     []uint64
	startShift uint
}

// A grid says how a text is probed for needles: grams of so many bytes are looked
// up that stand stride bytes apart. A needle of gram+stride-1 bytes holds one of
// them wherever it stands. Long grams are rarer, above all in hexadecimal text, and
// a long stride makes few probes, but both need long needles.
type grid struct{ gram, stride int }

// grids are tried in order; the last is for any needle.
var grids = [...]grid{{8, 8}, {8, 4}, {MinLength - shortest + 1, shortest}}

func (g grid) least() int { return g.gram + g.stride - 1 }

// A table finds grams: every stride-th position of a text is looked up in a
// bitmap, and what passes is looked up among the entries and compared.
type table struct {
	grid
	cut    uint // how far a word is shifted so that only a gram is left
	mul    uint64
	filter []uint64
	shift  uint // of a hash to a position in filter
	// heads are the borders of the buckets in entries, by the hash's top bits.
	heads     []uint32
	headShift uint
	entries   []entry
}

// An entry says that the gram with this tag stands in a needle at an offset.
type entry struct {
	needle uint32
	offset uint16
	tag    uint16
}

const startGram = 4

// newDomain compiles needles, of which there are fewer than 2³².
//
//nolint:gosec // indices into an arena that is in memory as a whole
func newDomain(c *class, needles []needle) *domain {
	slices.SortFunc(needles, func(a, b needle) int {
		return cmp.Or(bytes.Compare(a.text, b.text), cmp.Compare(a.name, b.name))
	})
	// The same variant of two secrets is one needle, with the first name.
	needles = slices.CompactFunc(needles, func(a, b needle) bool { return bytes.Equal(a.text, b.text) })
	d := &domain{class: c, mul: rand.Uint64() | 1}
	size := 0
	for _, n := range needles {
		size += len(n.text)
	}
	d.arena = make([]byte, 0, size+8) // 8 for reading whole words at the end
	d.offsets = make([]uint32, 0, len(needles)+1)
	for _, n := range needles {
		d.offsets = append(d.offsets, uint32(len(d.arena)))
		d.names = append(d.names, uint32(n.name))
		d.parts = append(d.parts, uint32(min(n.part, len(n.text))))
		d.arena = append(d.arena, n.text...)
		d.longest = max(d.longest, len(n.text))
		clear(n.text)
	}
	d.offsets = append(d.offsets, uint32(len(d.arena)))
	d.arena = d.arena[:size+8]
	var by [len(grids)][]int
	for i := range needles {
		size := int(d.offsets[i+1] - d.offsets[i])
		k := 0
		for k+1 < len(grids) && size < grids[k].least() {
			k++
		}
		by[k] = append(by[k], i)
	}
	for k, which := range by {
		if len(which) > 0 {
			d.tables = append(d.tables, d.newTable(grids[k], which))
		}
	}
	d.buildStarts(len(needles))
	return d
}

func (d *domain) needle(i int) []byte { return d.arena[d.offsets[i]:d.offsets[i+1]] }

// hash returns the hash of the gram in the low bytes of word.
func (t *table) hash(word uint64) uint64 { return word << t.cut * t.mul }

//nolint:gosec // 16 bits are what a tag is
func (t *table) tag(h uint64) uint16 { return uint16(h >> (t.headShift - 16)) }

// newTable chooses for each of the needles the stride neighbouring grams that
// are rarest in the set: tokens of one kind share their prefix, and a text full
// of that prefix must not be compared with each of them.
//
//nolint:gosec // counts of needles, and offsets below anchors
func (d *domain) newTable(g grid, which []int) table {
	n, gram, stride := len(which), g.gram, g.stride
	size := uint(max(15, bits.Len(uint(n*stride*16))))
	t := table{grid: g, cut: uint(64 - 8*gram), mul: d.mul, filter: make([]uint64, 1<<(size-6)), shift: 64 - size}
	headBits := uint(bits.Len(uint(n * stride)))
	t.headShift = 64 - headBits

	at := func(needle, offset int) uint64 {
		return t.hash(binary.LittleEndian.Uint64(d.arena[int(d.offsets[needle])+offset:]))
	}
	last := func(needle int) int { return min(len(d.needle(needle))-gram, anchors) }
	counts := make([]uint16, 1<<size)
	for _, i := range which {
		for o := range last(i) + 1 {
			if c := &counts[at(i, o)>>t.shift]; *c < 1<<15 {
				*c++
			}
		}
	}
	type placed struct {
		hash  uint64
		entry entry
	}
	all := make([]placed, 0, n*stride)
	for _, i := range which {
		best, from := -1, 0
		for o := 0; o+stride-1 <= last(i); o++ {
			sum := 0
			for k := range stride {
				sum += int(counts[at(i, o+k)>>t.shift])
			}
			if best < 0 || sum < best {
				best, from = sum, o
			}
		}
		for k := range stride {
			h := at(i, from+k)
			t.filter[h>>t.shift>>6] |= 1 << (h >> t.shift & 63)
			all = append(all, placed{h, entry{needle: uint32(i), offset: uint16(from + k), tag: t.tag(h)}})
		}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.hash, b.hash) })
	t.entries = make([]entry, len(all))
	t.heads = make([]uint32, 1<<headBits+1)
	for i, p := range all {
		t.entries[i] = p.entry
		t.heads[p.hash>>t.headShift+1]++
	}
	for i := 1; i < len(t.heads); i++ {
		t.heads[i] += t.heads[i-1]
	}
	return t
}

func (d *domain) buildStarts(n int) {
	size := uint(max(12, bits.Len(uint(n*16))))
	d.starts = make([]uint64, 1<<(size-6))
	d.startShift = 64 - size
	for i := range n {
		h := d.startHash(d.needle(i))
		d.starts[h>>6] |= 1 << (h & 63)
	}
}

func (d *domain) startHash(text []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(text)) * d.mul >> d.startShift
}

// A scratch holds one window of squeezed text and where it came from.
type scratch struct {
	text  []byte // squeezed
	marks []int  // the squeezed position at the start of each raw block
	masks [window / block]uint64
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// scan reports every match in text that ends behind the first after bytes.
func (d *domain) scan(text []byte, after int, report func(start, end, name int)) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.marks = s.marks[:0]
	// The room is for one window, what is carried over from the one before, and
	// the words that are written and read beyond the end.
	if room := min(len(text), window+MaxSpan) + d.longest + 3*block; len(s.text) < room {
		s.text = make([]byte, room)
	}
	base, next, n, seen := 0, 0, 0, 0
	for {
		end := min(next+window, len(text))
		n = d.squeezeInto(s, n, text[next:end])
		next = end
		d.probe(s, n, seen, func(from, to, name int) {
			start := base + s.rawPosition(d.class, text[base:], from)
			stop := base + s.rawPosition(d.class, text[base:], to-1) + 1
			if stop > after && stop-start <= MaxSpan && d.class.dense(text[start:stop]) {
				report(start, stop, name)
			}
		})
		if next == len(text) {
			runtime.KeepAlive(d) // its arena is wiped when nobody needs it
			return
		}
		// Carry over the blocks that hold the last longest-1 bytes.
		keep := max(0, n-(d.longest-1))
		first := sort.Search(len(s.marks), func(i int) bool { return s.marks[i] > keep }) - 1
		first = max(first, len(s.marks)-MaxSpan/block-1, 0)
		from := s.marks[first]
		copy(s.text, s.text[from:n])
		n -= from
		seen = n
		kept := copy(s.marks, s.marks[first:])
		s.marks = s.marks[:kept]
		for i := range s.marks {
			s.marks[i] -= from
		}
		base += first * block
	}
}

// squeezeInto appends the bytes of raw that count to the n squeezed ones, and
// returns how many there are then.
func (d *domain) squeezeInto(s *scratch, n int, raw []byte) int {
	blocks := d.class.kind.Masks(s.masks[:], raw)
	for _, m := range s.masks[:blocks] {
		s.marks = append(s.marks, n)
		n += bits.OnesCount64(m)
	}
	if blocks > 0 {
		first := s.marks[len(s.marks)-blocks]
		bytemask.Squeeze(s.text[first:], raw, s.masks[:blocks])
	}
	if rest := raw[blocks*block:]; len(rest) > 0 {
		s.marks = append(s.marks, n)
		for _, c := range rest {
			if d.class.keep[c] {
				s.text[n] = c
				n++
			}
		}
	}
	return n
}

// rawPosition returns where the squeezed byte at position stands in raw, the
// text from the first mark on.
func (s *scratch) rawPosition(c *class, raw []byte, position int) int {
	b := sort.Search(len(s.marks), func(i int) bool { return s.marks[i] > position }) - 1
	left := position - s.marks[b]
	for i := b * block; ; i++ {
		if c.keep[raw[i]] {
			if left == 0 {
				return i
			}
			left--
		}
	}
}

// dense reports whether no run of separators in text is longer than MaxGap.
func (c *class) dense(text []byte) bool {
	gap := 0
	for _, b := range text {
		if c.keep[b] {
			gap = 0
		} else if gap++; gap > MaxGap {
			return false
		}
	}
	return true
}

// probe reports the needles that stand in the first n bytes of squeezed text
// and end behind the first seen, which were looked at before.
func (d *domain) probe(s *scratch, n, seen int, report func(from, to, name int)) {
	text := s.text[:n+8]
	clear(text[n:])
	for i := range d.tables {
		t := &d.tables[i]
		filter, shift, cut, mul := t.filter, t.shift, t.cut, t.mul
		for p := 0; p+t.gram <= n; p += t.stride {
			h := binary.LittleEndian.Uint64(text[p:]) << (cut & 63) * mul
			bit := h >> (shift & 63)
			if filter[bit>>6]>>(bit&63)&1 != 0 {
				d.verify(t, text[:n], p, seen, h, report)
			}
		}
	}
}

// verify compares the needles that hold the gram at position p.
func (d *domain) verify(t *table, text []byte, p, seen int, h uint64, report func(from, to, name int)) {
	bucket, tag := h>>t.headShift, t.tag(h)
	for _, e := range t.entries[t.heads[bucket]:t.heads[bucket+1]] {
		if e.tag != tag {
			continue
		}
		needle := d.needle(int(e.needle))
		from := p - int(e.offset)
		to := from + len(needle)
		if from >= 0 && to <= len(text) && to > seen && bytes.Equal(text[from:to], needle) {
			report(from, to, int(d.names[e.needle]))
		}
	}
}

// reach returns how many bytes at the end of text may belong to a match that
// ends behind it, and how many of them count. With tail, which has room for
// longest-1 bytes, it writes those to its end.
func (d *domain) reach(text, tail []byte) (length, n int) {
	gap, stop := 0, max(0, len(text)-MaxSpan)
	for i := len(text) - 1; i >= stop && n < d.longest-1 && gap <= MaxGap; i-- {
		if !d.class.keep[text[i]] {
			gap++
			continue
		}
		n++
		gap = 0
		length = len(text) - i
		if tail != nil {
			tail[len(tail)-n] = text[i]
		}
	}
	return length, n
}

// partial returns the length of the longest end of text that begins a needle
// without holding it whole, and the largest share of a needle among all ends.
func (d *domain) partial(text []byte, least int) (length int, share float64) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if room := d.longest + 8; len(s.text) < room {
		s.text = make([]byte, room)
	}
	tail := s.text[:d.longest-1]
	_, n := d.reach(text, tail)
	tail = tail[len(tail)-n:]
	longest := 0
	for k := n; k >= least; k-- {
		end := tail[n-k:]
		if k >= startGram {
			if h := d.startHash(end); d.starts[h>>6]>>(h&63)&1 == 0 {
				continue
			}
		}
		if whole := d.begins(end, least); whole > 0 {
			longest = max(longest, k)
			share = max(share, float64(k)/float64(whole))
		}
	}
	runtime.KeepAlive(d) // its arena is wiped when nobody needs it
	if longest == 0 {
		return 0, 0
	}
	for i := len(text) - 1; ; i-- {
		if d.class.keep[text[i]] {
			if longest--; longest == 0 {
				return len(text) - i, share
			}
		}
	}
}

// begins returns the length of the shortest needle that begins with end and is
// longer, and of whose secret end holds at least least bytes; or 0.
func (d *domain) begins(end []byte, least int) int {
	n := len(d.names)
	first := sort.Search(n, func(i int) bool { return bytes.Compare(d.needle(i), end) >= 0 })
	if first < n && len(d.needle(first)) == len(end) {
		first++ // the end itself: needles are unique
	}
	shortest := 0
	for i := first; i < n && bytes.HasPrefix(d.needle(i), end); i++ {
		l := len(d.needle(i))
		if (least <= 1 || len(end)*int(d.parts[i]) >= least*l) && (shortest == 0 || l < shortest) {
			shortest = l
		}
		if i-first >= manyNeedles {
			return len(end) + 1 // so many begin so that none is looked at alone
		}
	}
	return shortest
}

// Package view shows text as its readers will see it: a terminal drops escape
// sequences and lets later characters overwrite earlier ones, a browser drops
// tags, a person decodes base64. Each view keeps a map back to the raw bytes,
// so that what is found in the view can be masked in the text.
//
// Views are for looking, not for showing: they are made only where [Needs] says
// that the text differs from what is seen, and they are bounded: time and memory
// grow with the length of the text, however it is made.
package view

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
	"unicode/utf8"
)

// A View is a text and where each of its bytes came from.
type View struct {
	Text []byte

	spans []span
	outer *View // what Text was decoded from; nil: the raw text
}

// A span is a piece of a View's text, up to the next span.
type span struct {
	text int // where it begins in Text
	raw  int // where it begins in the raw text
	// size is how many raw bytes each byte of the piece stands for, one after
	// the other: 1 when they are the raw bytes themselves.
	size int
	// together says that all bytes of the piece stand for the same size bytes.
	together bool
}

// Raw returns the smallest range of the raw text that holds everything which
// Text[start:end] was made from. A range inside another gives a range inside
// the other's.
func (v *View) Raw(start, end int) (int, int) {
	if v == nil {
		return start, end
	}
	if end <= start {
		from, _ := v.Raw(max(0, min(start, len(v.Text)-1)), max(0, min(start, len(v.Text)-1))+1)
		return from, from
	}
	if len(v.Text) == 0 {
		return 0, 0
	}
	i := max(0, sort.Search(len(v.spans), func(i int) bool { return v.spans[i].text > start })-1)
	from, to := -1, 0
	for ; i < len(v.spans) && v.spans[i].text < end; i++ {
		s := v.spans[i]
		last := len(v.Text)
		if i+1 < len(v.spans) {
			last = v.spans[i+1].text
		}
		a, b := s.raw, s.raw+s.size
		if !s.together {
			a = s.raw + max(0, start-s.text)*s.size
			b = s.raw + (min(end, last)-s.text)*s.size
		}
		if from < 0 || a < from {
			from = a
		}
		to = max(to, b)
	}
	if from < 0 {
		from = 0
	}
	return v.outer.Raw(from, to)
}

// Seams appends to dst the positions in Text, in order, before which the view
// and the raw text part. What is found far from every seam stands in the raw
// text too.
func (v *View) Seams(dst []int) []int {
	for i, s := range v.spans {
		if i > 0 || s.raw > 0 || s.size > 1 || s.together {
			dst = append(dst, s.text)
		}
	}
	return dst
}

// copied appends raw[from:to] as it is.
func (v *View) copied(raw []byte, from, to int) {
	if from < to {
		v.follow(from, 1)
		v.Text = append(v.Text, raw[from:to]...)
	}
}

// follow lets what is appended next continue the last span, if that has bytes of
// the same size and ends at from, and otherwise begins a new one.
func (v *View) follow(from, size int) {
	if n := len(v.spans); n > 0 {
		if s := v.spans[n-1]; !s.together && s.size == size && s.raw+(len(v.Text)-s.text)*size == from {
			return
		}
	}
	v.spans = append(v.spans, span{text: len(v.Text), raw: from, size: size})
}

// made appends text that raw[from:to] stands for, which is not empty.
func (v *View) made(text []byte, from, to int) {
	switch len(text) {
	case 0:
	case 1:
		v.follow(from, to-from)
		v.Text = append(v.Text, text[0])
	default:
		v.spans = append(v.spans, span{text: len(v.Text), raw: from, size: to - from, together: true})
		v.Text = append(v.Text, text...)
	}
}

// Kinds are the views that a text needs.
type Kinds uint8

// The kinds of views.
const (
	// Terminals hide escape sequences, control and zero-width characters.
	Terminals Kinds = 1 << iota
	// Browsers hide tags and decode entities.
	Browsers
	// Decoders undo backslash and percent escapes, base64 and hexadecimal.
	Decoders
	// Wraps join lines that were broken at a fixed width.
	Wraps
)

// Needs says which views of raw may show something that raw does not. Plain
// text needs none. It may say too much, never too little, but that it does not
// know the width of a terminal.
func Needs(raw []byte) Kinds {
	var kinds Kinds
	if hidden(raw) {
		kinds |= Terminals
	}
	if markup(raw) {
		kinds |= Browsers
	}
	if bytes.IndexByte(raw, '\\') >= 0 || bytes.IndexByte(raw, '%') >= 0 || bytes.IndexByte(raw, 0) >= 0 || nextRun(raw, 0) < len(raw) {
		kinds |= Decoders
	}
	wraps(raw, 0, func(int, int) bool {
		kinds |= Wraps
		return false
	})
	return kinds
}

// hidden reports whether raw holds a byte that Terminal treats specially.
func hidden(raw []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(raw); i += 8 {
		w := binary.LittleEndian.Uint64(raw[i:])
		// A byte below 0x20, or 0x7f and above (carries may report too much).
		if ((w-ones*0x20)|(w+ones)|w)&tops != 0 && hiddenSlow(raw, i, i+8) {
			return true
		}
	}
	return hiddenSlow(raw, i, len(raw))
}

func hiddenSlow(raw []byte, from, to int) bool {
	for i := from; i < to; i++ {
		switch c := raw[i]; {
		case !special[c] || c == '\n':
		case c == '\r' && (i+1 == len(raw) || raw[i+1] == '\n'):
		case c < ' ' || c == 0x7f:
			return true
		case zeroWidth(raw[i:]) > 0 || c == 0xc2 && i+1 < len(raw) && raw[i+1] < 0xa0:
			return true
		}
	}
	return false
}

// special are the bytes at which Terminal has to look twice.
var special = func() (table [256]bool) {
	for c := range 0x20 {
		table[c] = c != '\t'
	}
	for _, c := range []byte{0x7f, 0xc2, 0xcd, 0xe1, 0xe2, 0xef, 0xf3} {
		table[c] = true
	}
	return table
}()

// zeroWidth returns the length of the character at the start of text if it
// takes no room and says nothing: joiners, direction marks, soft hyphens,
// variation selectors, tags. Otherwise it returns 0.
func zeroWidth(text []byte) int {
	if len(text) < 2 || !special[text[0]] || text[0] < utf8.RuneSelf {
		return 0
	}
	r, n := utf8.DecodeRune(text)
	switch {
	case r == 0xad, r == 0x34f, r == 0x180e, r == 0xfeff,
		r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f,
		r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0000 && r <= 0xe01ef:
		return n
	}
	return 0
}

// markup reports whether raw holds something that looks like a tag or an entity.
func markup(raw []byte) bool {
	for i := 0; ; {
		j := bytes.IndexByte(raw[i:], '<')
		if j < 0 || i+j+1 >= len(raw) {
			break
		}
		i += j + 1
		if c := raw[i]; letter(c) || c == '/' || c == '!' || c == '?' {
			return true
		}
	}
	for i := 0; ; {
		j := bytes.IndexByte(raw[i:], '&')
		if j < 0 || i+j+1 >= len(raw) {
			return false
		}
		i += j + 1
		if c := raw[i]; letter(c) || c == '#' {
			return true
		}
	}
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// Incomplete returns how many bytes at the end of raw are the beginning of an
// escape sequence or of a UTF-8 character that has not wholly arrived. A sequence
// longer than 256 bytes counts as arrived.
func Incomplete(raw []byte) int {
	const longest = 256
	tail := raw[max(0, len(raw)-longest):]
	for i, c := range slices.Backward(tail) {
		if c != esc {
			continue
		}
		// An ESC may end a string that another ESC began.
		first := i
		if j := bytes.LastIndexByte(tail[:i], esc); j >= 0 && i == len(tail)-1 {
			if _, whole := sequence(tail, j); !whole {
				first = j
			}
		}
		if _, whole := sequence(tail, first); !whole {
			return len(tail) - first
		}
		break
	}
	for i := 1; i <= min(utf8.UTFMax-1, len(tail)); i++ {
		if c := tail[len(tail)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(tail[len(tail)-i:]) {
				return i
			}
			break
		}
	}
	return 0
}

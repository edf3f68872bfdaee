package view

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

// shortRun is the longest run that a Reader of runs shows nothing of.
const shortRun = shortestRun - 1

// Differs returns the index of the first byte of text, from i on, at which the
// lane shows something else than text; -1 if there is none. Up to sure this is
// certain; what stands behind it depends on what follows. It is a good deal
// faster than a Reader. An escaped end of a line counts only where its letter
// would be taken for the beginning of a word. For the lanes of runs see [NextRun].
func (l Lane) Differs(text []byte, i, columns int) (at, sure int) {
	switch l {
	case Visible:
		return differsVisible(text, i)
	case Drawn:
		return differsDrawn(text, i)
	case Joined:
		return differsJoined(text, i, columns)
	case Markup:
		return differsMarkup(text, i)
	case Escapes:
		e := either{text: text, a: '\\', b: '%'}
		for n := e.next(i); n < len(text); n = e.next(n + 1) {
			if unfinishedEscape(text[n:]) {
				return -1, n
			}
			var buf [utf8.UTFMax]byte
			_, size := escape(text[n:], buf[:0])
			if size == 2 && bytes.IndexByte([]byte("nrt"), text[n+1]) >= 0 {
				if n+2 == len(text) {
					return -1, n
				}
				if !alphanumeric(text[n+2]) {
					continue
				}
			}
			if size > 0 {
				return n, n
			}
		}
		return -1, len(text)
	case Base64, Hex:
	}
	return -1, len(text)
}

// either finds two bytes, looking for each only once.
type either struct {
	text         []byte
	a, b         byte
	nextA, nextB int // where they stand next; behind what was asked for last
}

// next returns where the first of them stands, from i on; i grows.
func (e *either) next(i int) int {
	find := func(at int, c byte) int {
		if at > i || at == i && i > 0 {
			return at
		}
		if n := bytes.IndexByte(e.text[i:], c); n >= 0 {
			return i + n
		}
		return len(e.text)
	}
	if i >= len(e.text) {
		return len(e.text)
	}
	e.nextA, e.nextB = find(e.nextA, e.a), find(e.nextB, e.b)
	return min(e.nextA, e.nextB)
}

// odd are the bytes at which the Visible lane may show something else. Ends of
// lines are shown as they are.
var odd = bytemask.New(func(c byte) bool { return special[c] && c != '\n' })

func differsVisible(text []byte, i int) (at, sure int) {
	for i < len(text) {
		n := odd.Index(text[i:])
		if n < 0 {
			break
		}
		i += n
		switch c := text[i]; {
		case c == '\r':
			if i+1 == len(text) {
				return -1, i
			}
			if text[i+1] != '\n' {
				return i, i
			}
		case c < ' ' || c == 0x7f:
			return i, i
		case !utf8.FullRune(text[i:]):
			return -1, i
		case zeroWidth(text[i:]) > 0 || c == 0xc2 && i+1 < len(text) && text[i+1] < 0xa0:
			return i, i
		}
		i++
	}
	return -1, len(text)
}

const tops = 0x8080808080808080 // the highest bit of each byte

// lines finds the ends of lines, of many at once.
type lines struct {
	text  []byte
	at    int // of the first of the masks
	masks [8]uint64
	n, k  int
}

var lineFeed = bytemask.New(func(c byte) bool { return c == '\n' })

// next returns the index of the next line end, from where the last one was, or -1.
func (l *lines) next() int {
	for {
		for ; l.k < l.n; l.k++ {
			if m := l.masks[l.k]; m != 0 {
				l.masks[l.k] &= m - 1
				return l.at + 64*l.k + bytemask.First(m)
			}
		}
		l.at += 64 * l.n
		l.k = 0
		if l.n = lineFeed.Masks(l.masks[:], l.text[l.at:min(len(l.text), l.at+64*len(l.masks))]); l.n == 0 {
			n := bytes.IndexByte(l.text[l.at:], '\n')
			if n < 0 {
				l.at = len(l.text)
				return -1
			}
			l.at += n + 1
			return l.at - 1
		}
	}
}

// differsJoined looks for lines that something may have broken.
func differsJoined(text []byte, i, columns int) (at, sure int) {
	begin := -1 // of the line, if it is known
	all := lines{text: text, at: i}
	for {
		end := all.next()
		if end < 0 {
			return -1, len(text)
		}
		start := begin
		i, begin = end+1, end+1
		if end > 0 && text[end-1] == '\r' {
			end--
		}
		// What was broken is a word, and a long one.
		word := 0
		for word < min(brokenWord, end) && wordByte(text[end-1-word]) {
			word++
		}
		next := i
		for word > 0 && word < brokenWord && next < len(text) && wordByte(text[next]) {
			word++
			next++
		}
		open := word > 0 && word < brokenWord && next == len(text) && len(text)-i < brokenWord
		if word < brokenWord && !open {
			continue
		}
		first := max(0, end-WrapReach)
		if start < first {
			start = bytes.LastIndexByte(text[first:end], '\n') + 1 + first
		}
		if start == first && first > 0 {
			continue // too long to have been broken
		}
		if end-start < shortestWrap {
			continue
		}
		if w := end - start; w != columns && (w >= len(wrapWidths) || !wrapWidths[w]) && simple(text[start:end]) {
			continue
		}
		if w := visibleWidth(text[start:end]); w != columns && (w >= len(wrapWidths) || !wrapWidths[w]) {
			continue
		}
		switch {
		case open:
			return -1, i - 1
		case !dated(text[i:]):
			return i - 1, i - 1
		case next == len(text) && len(text)-i < brokenWord:
			return -1, i - 1
		}
	}
}

// brokenWord is the shortest word that is put together again.
const brokenWord = 16

func wordByte(c byte) bool { return runBytes[c] != 0 || c == '=' || c == '.' || c == '~' || c == esc }

// dated reports whether text begins with a date: lines of logs do, and what was
// broken does not go on with one.
func dated(text []byte) bool {
	const form = "dddd-dd-dd"
	for i := range len(form) {
		if i >= len(text) || form[i] == 'd' && (text[i] < '0' || text[i] > '9') || form[i] == '-' && text[i] != '-' && text[i] != '/' {
			return false
		}
	}
	return true
}

// WrapReach is how far before a line break the line may begin that Joined joins.
const WrapReach = 320

// simple reports whether every byte of line takes one column.
func simple(line []byte) bool {
	if bytes.IndexByte(line, esc) >= 0 {
		return false
	}
	for ; len(line) >= 8; line = line[8:] {
		if binary.LittleEndian.Uint64(line)&tops != 0 {
			return false
		}
	}
	for _, c := range line {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// visibleWidth is the width of a line without its escape sequences.
func visibleWidth(line []byte) int {
	width := 0
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == esc:
			end, _ := sequence(line, i)
			i = max(end, i+1)
		case c < utf8.RuneSelf:
			width++
			i++
		default:
			r, n := utf8.DecodeRune(line[i:])
			if zeroWidth(line[i:]) == 0 {
				width++
			}
			if wide(r) {
				width++
			}
			i += n
		}
	}
	return width
}

func differsMarkup(text []byte, i int) (at, sure int) {
	e := either{text: text, a: '<', b: '&'}
	for n := e.next(i); n < len(text); n = e.next(n + 1) {
		if n+1 == len(text) {
			return -1, n
		}
		c := text[n+1]
		if text[n] == '<' {
			if letter(c) || c == '/' || c == '!' || c == '?' {
				return n, n
			}
			continue
		}
		if _, size := entity(text[n:]); size > 0 {
			return n, n
		}
		if unfinishedEntity(text[n:]) {
			return -1, n
		}
	}
	return -1, len(text)
}

func alphanumeric(c byte) bool { return letter(c) || c >= '0' && c <= '9' || c == '_' }

// NextRun returns where the next run of letters begins that a Reader of Base64
// or Hex must be given, from i on, which is not within a run. ok is false when
// there is none in text; then at is where one may begin that text cuts off.
func NextRun(text []byte, i int) (at int, ok bool) {
	if at := nextRun(text, i); at < len(text) {
		return at, true
	}
	at = len(text)
	for at > i && at > len(text)-shortRun && runBytes[text[at-1]] != 0 {
		at--
	}
	return at, false
}

// readableBase64 reports whether sixteen letters of base64, in either alphabet,
// hold what could be text.
func readableBase64(letters *[shortestRun]byte) bool {
	var out [12]byte
	for i := range 4 {
		w := uint32(sixBits[letters[4*i]])<<18 | uint32(sixBits[letters[4*i+1]])<<12 | uint32(sixBits[letters[4*i+2]])<<6 | uint32(sixBits[letters[4*i+3]])
		out[3*i], out[3*i+1], out[3*i+2] = byte(w>>16), byte(w>>8), byte(w) //nolint:gosec // three bytes of it
	}
	return readable(out[:])
}

// readableHex reports whether sixteen hexadecimal digits hold what could be text.
func readableHex(digits *[shortestRun]byte) bool {
	var out [shortestRun / 2]byte
	for i := range out {
		out[i] = nibble[digits[2*i]]<<4 | nibble[digits[2*i+1]]
	}
	return readable(out[:])
}

// nibble are the values of hexadecimal digits.
var nibble = func() (table [256]uint8) {
	for i, c := range []byte("0123456789abcdef") {
		table[c], table[upperHex(c)] = uint8(i), uint8(i)
	}
	return table
}()

func upperHex(c byte) byte {
	if c >= 'a' {
		return c - 32
	}
	return c
}

// sixBits are the values of the letters of base64.
var sixBits = func() (table [256]uint8) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = uint8(i)
	}
	table['-'], table['_'] = table['+'], table['/']
	return table
}()

// Begins reports whether a Reader of runs may show something of a whole run of
// letters: whether what its first digits hold could be text.
func (l Lane) Begins(run []byte) bool {
	if l == Base64 {
		return len(run) >= shortestRun && readableBase64((*[shortestRun]byte)(run))
	}
	n := 0
	for i, c := range run {
		if runBytes[c] != 3 {
			n = 0
		} else if n++; n == shortestRun && readableHex((*[shortestRun]byte)(run[i+1-shortestRun:])) {
			return true
		}
	}
	return false
}

// RunEnd returns the index behind the letters that begin at text[i].
func RunEnd(text []byte, i int) int {
	for i < len(text) && runBytes[text[i]] != 0 {
		i++
	}
	return i
}

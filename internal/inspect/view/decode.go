package view

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/bits"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/bytemask"
)

const (
	// shortestRun is the shortest run of an encoding's alphabet that is decoded.
	shortestRun = 16
	// maxDepth is how many encodings inside each other are undone.
	maxDepth = 3
	// maxUnpacked is how much of a compressed run is unpacked.
	maxUnpacked = 1 << 20
)

// Decoded returns what becomes visible when the encodings in raw are undone, up
// to depth (at most 3) of them inside each other: backslash and percent escapes
// over the whole text, UTF-16, and every run of base64 or hexadecimal digits
// that holds text or gzip. Each View maps to raw, not to what it was decoded
// from. All of them together hold at most 8 times the length of raw and 4 MiB
// more.
func Decoded(raw []byte, depth int) []*View {
	d := decoder{room: 8*len(raw) + 4*maxUnpacked}
	d.decode(raw, nil, min(depth, maxDepth))
	return d.views
}

type decoder struct {
	views []*View
	room  int
}

func (d *decoder) decode(text []byte, outer *View, depth int) {
	if depth <= 0 {
		return
	}
	keep := func(v *View) {
		if v == nil || len(v.Text) > d.room {
			return
		}
		d.room -= len(v.Text)
		v.outer = outer
		d.views = append(d.views, v)
		d.decode(v.Text, v, depth-1)
	}
	keep(unescape(text))
	keep(narrow(text))
	for start := nextRun(text, 0); start < len(text); {
		end, digits := runEnd(text, start)
		if digits {
			keep(unhex(text, start, end))
		}
		keep(unbase64(text, start, end))
		start = nextRun(text, end)
	}
}

// runBytes are the letters of base64 in both alphabets; the value says whether
// the byte is also a hexadecimal digit.
var runBytes = func() (table [256]uint8) {
	const inRun, isHex = 1, 3
	for c := range table {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			table[c] = isHex
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '/', c == '-', c == '_':
			table[c] = inRun
		}
	}
	return table
}()

// inRun are the letters of base64, in either alphabet.
var inRun = bytemask.New(func(c byte) bool { return runBytes[c] != 0 })

// nextRun returns where the next run of at least shortestRun letters of base64
// begins, from i on; len(text) when there is none.
func nextRun(text []byte, i int) int {
	var masks [32]uint64
	for some := 4; ; some = len(masks) { // most often the next is near, or there is none
		n := inRun.Masks(masks[:some], text[i:min(len(text), i+64*some)])
		if n < 2 {
			break
		}
		for k, m := range masks[:n-1] {
			run := m & (m >> 1) // where two letters begin, four, eight, sixteen
			run &= run >> 2
			run &= run >> 4
			run &= run >> 8
			if run != 0 {
				return i + 64*k + bits.TrailingZeros64(run)
			}
			if end := bits.LeadingZeros64(^m); end > 0 && end+bits.TrailingZeros64(^masks[k+1]) >= shortestRun {
				return i + 64*(k+1) - end
			}
		}
		i += 64 * (n - 1)
	}
	for i+shortestRun <= len(text) {
		j := i + shortestRun - 1
		for j >= i && runBytes[text[j]] != 0 {
			j--
		}
		if j < i {
			return i
		}
		i = j + 1
	}
	return len(text)
}

// runEnd returns where the run at start ends. Lines of at least 40 letters that
// follow each other are one run.
func runEnd(text []byte, start int) (end int, digits bool) {
	digits = true
	line := start
	for i := start; i < len(text); i++ {
		if kind := runBytes[text[i]]; kind != 0 {
			digits = digits && kind == 3
			continue
		}
		j := i
		for j < len(text) && j < i+2 && (text[j] == '\r' || text[j] == '\n') {
			j++
		}
		if j == i || i-line < 40 || j == len(text) || runBytes[text[j]] == 0 {
			return i, digits
		}
		line, i = j, j-1
	}
	return len(text), digits
}

// unhex returns the view of a run of hexadecimal digits, nil if it holds no text.
func unhex(text []byte, start, end int) *View {
	v := &View{}
	digits, from := letters(text, start, end)
	if !readable(hexSample(digits)) {
		return nil
	}
	out := make([]byte, len(digits)/2)
	if _, err := hex.Decode(out, digits[:len(digits)/2*2]); err != nil {
		return nil
	}
	for i, c := range out {
		v.made([]byte{c}, from(2*i), from(2*i+1)+1)
	}
	return v
}

func hexSample(digits []byte) []byte {
	out := make([]byte, min(len(digits)/2, 12))
	_, _ = hex.Decode(out, digits[:2*len(out)]) // digits are hexadecimal
	return out
}

// letters returns the run without its line breaks, and where each letter stands.
func letters(text []byte, start, end int) ([]byte, func(int) int) {
	run := text[start:end]
	if bytes.IndexByte(run, '\n') < 0 && bytes.IndexByte(run, '\r') < 0 {
		return run, func(i int) int { return start + i }
	}
	out := make([]byte, 0, len(run))
	at := make([]int, 0, len(run))
	for i, c := range run {
		if runBytes[c] != 0 {
			out = append(out, c)
			at = append(at, start+i)
		}
	}
	return out, func(i int) int { return at[i] }
}

// unbase64 returns the view of a run of base64, nil if it holds neither text nor
// gzip. The run may begin with something else, a path for example, so that all
// four alignments are tried.
func unbase64(text []byte, start, end int) *View {
	run, from := letters(text, start, end)
	standard := make([]byte, len(run))
	for i, c := range run {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		standard[i] = c
	}
	for shift := range 4 {
		in := standard[shift:]
		packed := bytes.HasPrefix(in, []byte("H4sI")) // gzip, deflated
		if !packed && !readable(base64Sample(in)) && !readable(base64Sample(in[len(in)/8*4:])) {
			continue
		}
		if len(in)%4 == 1 {
			in = in[:len(in)-1]
		}
		out := make([]byte, base64.RawStdEncoding.DecodedLen(len(in)))
		n, err := base64.RawStdEncoding.Decode(out, in)
		if err != nil && n == 0 {
			continue
		}
		out = out[:n]
		v := &View{}
		if packed {
			v.made(unpack(out), start, end)
			return v
		}
		for i := 0; i < len(out); i += 3 { // three bytes are four letters
			v.made(out[i:min(i+3, len(out))], from(shift+i/3*4), from(shift+min(i/3*4+3, len(in)-1))+1)
		}
		return v
	}
	return nil
}

// base64Sample returns the first bytes of what in encodes.
func base64Sample(in []byte) []byte {
	out := make([]byte, 12)
	n, _ := base64.RawStdEncoding.Decode(out, in[:min(len(in)/4*4, 16)]) // all are letters of base64
	return out[:n]
}

// unpack returns the first maxUnpacked bytes of what packed holds.
func unpack(packed []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(r, maxUnpacked)) // what came before an error is text too
	return out
}

// readable reports whether sample looks like text rather than like chance.
func readable(sample []byte) bool {
	if len(sample) < 6 {
		return false
	}
	odd, zeros := 0, 0
	before := byte(1)
	for _, c := range sample {
		was := before
		before = c
		switch {
		case c == 0 && was != 0:
			zeros++ // UTF-16
		case c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != esc && c != '\b', c == 0x7f:
			odd += 4
		case c >= utf8.RuneSelf:
			odd++
		}
	}
	if zeros > 0 && zeros < len(sample)/2-1 {
		return false
	}
	if odd > 0 && odd < 4 || odd >= 4 {
		return odd < len(sample) && utf8.Valid(trimRune(sample))
	}
	return true
}

// trimRune cuts a character that sample only begins.
func trimRune(sample []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(sample); i++ {
		if c := sample[len(sample)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(sample[len(sample)-i:]) {
				return sample[:len(sample)-i]
			}
			break
		}
	}
	return sample
}

// narrow returns the view of UTF-16 text, nil if text is none.
func narrow(text []byte) *View {
	if !bytes.Contains(text, []byte{0}) || bytes.Count(text, []byte{0})*4 < len(text) {
		return nil
	}
	// The low halves stand where most bytes are not zero.
	count := [2]int{}
	for i, c := range text {
		if c == 0 {
			count[i%2]++
		}
	}
	low := 0
	if count[0] > count[1] {
		low = 1
	}
	v := &View{Text: make([]byte, 0, len(text)/2)}
	var buf [utf8.UTFMax]byte
	for i := 0; i+1 < len(text); i += 2 {
		r := rune(text[i+low]) | rune(text[i+1-low])<<8
		if r == 0xfeff {
			continue
		}
		v.made(utf8.AppendRune(buf[:0], r), i, i+2) // halves of pairs become U+FFFD
	}
	return v
}

// unescape returns text without its backslash and percent escapes, nil if it
// has none.
func unescape(text []byte) *View {
	next := nextEscape(text, 0)
	if next == len(text) {
		return nil
	}
	v := &View{Text: make([]byte, 0, len(text))}
	done, changed := 0, false
	var buf [utf8.UTFMax]byte
	for next < len(text) {
		out, n := escape(text[next:], buf[:0])
		if n == 0 {
			next = nextEscape(text, next+1)
			continue
		}
		v.copied(text, done, next)
		v.made(out, next, next+n)
		changed = true
		done = next + n
		next = nextEscape(text, done)
	}
	if !changed {
		return nil
	}
	v.copied(text, done, len(text))
	return v
}

func nextEscape(text []byte, i int) int {
	for ; i < len(text); i++ {
		if c := text[i]; c == '\\' || c == '%' {
			return i
		}
	}
	return len(text)
}

// escape decodes the escape at the start of text into out, and returns its
// length; 0 if there is none.
//
//nolint:gosec // two hexadecimal digits are a byte
func escape(text, out []byte) ([]byte, int) {
	if len(text) < 2 {
		return nil, 0
	}
	number := func(from, digits int) (rune, bool) {
		if len(text) < from+digits {
			return 0, false
		}
		r := rune(0)
		for _, c := range text[from : from+digits] {
			d, ok := hexDigit(c)
			if !ok {
				return 0, false
			}
			r = r<<4 | d
		}
		return r, true
	}
	if text[0] == '%' {
		if r, ok := number(1, 2); ok {
			return append(out, byte(r)), 3
		}
		return nil, 0
	}
	switch c := text[1]; c {
	case 'n':
		return append(out, '\n'), 2
	case 'r':
		return append(out, '\r'), 2
	case 't':
		return append(out, '\t'), 2
	case 'b':
		return append(out, '\b'), 2
	case 'f':
		return append(out, '\f'), 2
	case '\\', '"', '\'', '/', '`', '$':
		return append(out, c), 2
	case 'e':
		return append(out, esc), 2
	case 'x':
		if r, ok := number(2, 2); ok {
			return append(out, byte(r)), 4
		}
	case 'u':
		r, ok := number(2, 4)
		if !ok {
			break
		}
		if r >= 0xd800 && r < 0xdc00 && len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
			if low, ok := number(8, 4); ok && low >= 0xdc00 && low < 0xe000 {
				return utf8.AppendRune(out, (r-0xd800)<<10|(low-0xdc00)+0x10000), 12
			}
		}
		return utf8.AppendRune(out, r), 6
	case 'U':
		if r, ok := number(2, 8); ok {
			return utf8.AppendRune(out, r), 10
		}
	case '0', '1', '2', '3':
		if len(text) >= 4 && octal(text[2]) && octal(text[3]) {
			return append(out, (c-'0')<<6|(text[2]-'0')<<3|(text[3]-'0')), 4
		}
	}
	return nil, 0
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

func hexDigit(c byte) (rune, bool) {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0'), true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10, true
	}
	return 0, false
}

// Package screen makes foreign terminal output safe to show in somebody else's
// terminal: what draws passes, what makes the terminal act or answer does not.
// It decides by what it knows to be harmless and writes every sequence anew, so
// that a terminal reads what was judged and nothing else.
package screen

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reset puts a terminal back to how a shell expects it, after something was
// drawn on it that did not tidy up.
const Reset = "\x1b[0m\x1b[?1049l\x1b[?47l\x1b[r\x1b[?5l\x1b[?6l\x1b[?7h\x1b[?25h\x1b[4l\x1b(B\x0f\x1b[999;1H\r\n"

const (
	maxParams = 32
	maxValue  = 9999 // of a parameter: enough for every screen, too little to keep a terminal busy
	maxRest   = 1 << 20
)

// A Filter is a screen's filter. It keeps what is unfinished between two calls.
// The zero Filter is ready. It is not for concurrent use.
type Filter struct {
	state  state
	prefix byte   // "?", "<", "=", ">" of a control sequence
	params []byte // digits, ";" and ":"
	mid    []byte // intermediate bytes
	bad    bool   // the sequence is one that nobody needs
	eaten  int    // bytes of a string that was swallowed
	esc    bool   // in a string: the last byte was ESC
	carry  []byte // of a character that is not complete
}

type state uint8

const (
	ground state = iota
	escape
	escMid // after ESC and an intermediate
	csi
	text // of OSC, DCS, SOS, PM or APC: swallowed
)

// String filters a text.
func (f *Filter) String(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	f.filter(&b, []byte(s))
	return b.String()
}

// Append filters p and appends what passes to dst.
func (f *Filter) Append(dst, p []byte) []byte {
	var b strings.Builder
	b.Grow(len(p))
	f.filter(&b, p)
	return append(dst, b.String()...)
}

func (f *Filter) filter(b *strings.Builder, p []byte) {
	if len(f.carry) > 0 {
		p = append(f.carry, p...)
		f.carry = nil
	}
	for len(p) > 0 {
		r, n := rune(p[0]), 1
		if p[0] >= utf8.RuneSelf {
			if !utf8.FullRune(p) {
				f.carry = append([]byte(nil), p...)
				return
			}
			r, n = utf8.DecodeRune(p)
		}
		p = p[n:]
		f.take(b, r)
	}
}

// take moves on by one character.
func (f *Filter) take(b *strings.Builder, r rune) {
	if f.state == text {
		f.swallow(b, r)
		return
	}
	switch {
	case r == 0x1b:
		f.start(escape)
	case r == 0x18 || r == 0x1a: // CAN and SUB end a sequence
		f.state = ground
	case r < 0x20 || r == 0x7f:
		// Controls act at once, also inside of a sequence. They go out before
		// it does, which is when terminals do them.
		if strings.ContainsRune("\a\b\t\n\v\f\r\x0e\x0f", r) {
			b.WriteRune(r)
		}
	case f.state == ground:
		if visible(r) {
			b.WriteRune(r)
		}
	case r >= 0x80: // ends a sequence in every terminal that we know
		f.state = ground
	case f.state == escape:
		f.escaped(b, byte(r))
	case f.state == escMid:
		f.designated(b, byte(r))
	case f.state == csi:
		f.control(b, byte(r))
	}
}

func (f *Filter) start(s state) {
	f.state, f.prefix, f.params, f.mid, f.bad, f.eaten, f.esc = s, 0, f.params[:0], f.mid[:0], false, 0, false
}

// visible keeps what C1 controls and marks that turn text around are not:
// U+0080 to U+009F are sequences to some terminals, the marks show a text that
// is not there.
func visible(r rune) bool {
	switch {
	case r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return r >= 0x20 && r < 0x7f
	}
	return true
}

// swallow drops a string until its end: BEL, ESC \, CAN or SUB; an ESC that
// begins something else ends it too. A string without an end does not swallow
// the rest of the recording.
func (f *Filter) swallow(b *strings.Builder, r rune) {
	f.eaten++
	switch {
	case f.esc:
		f.esc = false
		if r == '\\' {
			f.state = ground
			return
		}
		f.start(escape)
		f.take(b, r)
	case r == 0x1b:
		f.esc = true
	case r == '\a', r == 0x18, r == 0x1a, r == 0x9c, f.eaten > maxRest:
		f.state = ground
	}
}

// escaped decides a sequence of two bytes, or begins a longer one.
func (f *Filter) escaped(b *strings.Builder, c byte) {
	f.state = ground
	switch {
	case c == '[':
		f.start(csi)
	case strings.IndexByte("]PX^_", c) >= 0:
		f.start(text)
	case c >= 0x20 && c <= 0x2f:
		f.mid = append(f.mid[:0], c)
		f.state = escMid
	case c == 'c': // a reset would also take what the terminal's owner has set
		b.WriteString("\x1b[0m\x1b[r\x1b[H\x1b[2J")
	case strings.IndexByte("78DEMH", c) >= 0:
		b.WriteByte(0x1b)
		b.WriteByte(c)
	}
}

// designated passes the choice of the two character sets that draw lines and
// letters, and the test picture.
func (f *Filter) designated(b *strings.Builder, c byte) {
	switch {
	case c >= 0x20 && c <= 0x2f:
		f.bad = true
		return // one more intermediate
	case !f.bad && (f.mid[0] == '(' || f.mid[0] == ')') && (c == '0' || c == 'A' || c == 'B'),
		!f.bad && f.mid[0] == '#' && c == '8':
		b.WriteByte(0x1b)
		b.WriteByte(f.mid[0])
		b.WriteByte(c)
	}
	f.state = ground
}

// control collects a control sequence and decides it.
func (f *Filter) control(b *strings.Builder, c byte) {
	switch {
	case c >= '0' && c <= ';':
		if len(f.mid) > 0 || len(f.params) > maxParams*5 {
			f.bad = true
			return
		}
		f.params = append(f.params, c)
	case c >= '<' && c <= '?':
		if f.prefix != 0 || len(f.params) > 0 || len(f.mid) > 0 {
			f.bad = true
			return
		}
		f.prefix = c
	case c >= 0x20 && c <= 0x2f:
		f.mid = append(f.mid[:0], c)
		f.bad = f.bad || c != ' '
	default:
		if !f.bad {
			f.final(b, c)
		}
		f.state = ground
	}
}

// drawing are the final bytes of control sequences that draw, move, scroll or
// erase, and take nothing but numbers.
const drawing = "@ABCDEFGHIJKLMPSTXZ`abdefgmrsu"

// modes are those that may be set and reset: what a mode changes is only how
// the screen is drawn. None that makes the terminal send: no mouse, no pasting,
// no focus, no keys.
var (
	ansiModes    = map[int]bool{4: true} // insert
	privateModes = map[int]bool{5: true, 6: true, 7: true, 25: true, 47: true, 1047: true, 1048: true, 1049: true}
)

func (f *Filter) final(b *strings.Builder, c byte) {
	switch {
	case len(f.mid) > 0: // "CSI Ps SP q", the cursor's form, and all others
		return
	case c == 'h' || c == 'l':
		f.mode(b, c)
	case f.prefix == '?' && (c == 'J' || c == 'K'): // erases what is not protected
		f.write(b, f.params, c, 2)
	case f.prefix != 0:
		return // "CSI > m" sets what keys send; the others ask or are unknown
	case c == 'm':
		f.write(b, f.params, c, maxParams)
	case strings.IndexByte(drawing, c) >= 0:
		if strings.IndexByte(string(f.params), ':') >= 0 {
			return
		}
		most := 2
		if c == 'T' || c == 's' || c == 'u' { // with more, they mean something else
			most = 1
		}
		if strings.Count(string(f.params), ";") < most {
			f.write(b, f.params, c, most)
		}
	}
}

// mode passes those of several modes that may be set.
func (f *Filter) mode(b *strings.Builder, c byte) {
	known := ansiModes
	if f.prefix == '?' {
		known = privateModes
	} else if f.prefix != 0 {
		return
	}
	for _, p := range strings.Split(string(f.params), ";") {
		if n, err := strconv.Atoi(p); err == nil && known[n] {
			f.write(b, []byte(strconv.Itoa(n)), c, 1)
		}
	}
}

// write writes a sequence anew, with numbers that no screen exceeds.
func (f *Filter) write(b *strings.Builder, params []byte, c byte, most int) {
	b.WriteString("\x1b[")
	if f.prefix != 0 {
		b.WriteByte(f.prefix)
	}
	for i, p := range strings.SplitN(string(params), ";", most+1) {
		if i == most {
			break
		}
		if i > 0 {
			b.WriteByte(';')
		}
		for j, q := range strings.Split(p, ":") {
			if j > 0 {
				b.WriteByte(':')
			}
			if q == "" {
				continue
			}
			n, err := strconv.Atoi(q)
			if err != nil || n > maxValue {
				n = maxValue
			}
			b.WriteString(strconv.Itoa(n))
		}
	}
	b.WriteByte(c)
}

package view

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// A Lane is a way to read a stream while it is written. What a Reader shows does
// not depend on how the stream was cut into pieces, and it never looks far
// ahead; the views of whole texts see more.
type Lane uint8

// The lanes.
const (
	// Visible is what a terminal shows: escape sequences, control and zero-width
	// characters dropped, a backspace takes a character back,
	// as far as Text reaches. A carriage return
	// and a move to elsewhere begin a new line, so that what is overprinted and
	// what it is overprinted with are both seen.
	Visible Lane = iota
	// Joined is Visible with the lines joined that were broken at a fixed width.
	Joined
	// Markup is the text of HTML.
	Markup
	// Escapes undoes one level of backslash and percent escapes.
	Escapes
	// Base64 is what the runs of base64 hold, as far as it is text, each with a
	// line break behind it.
	Base64
	// Hex is what the runs of hexadecimal digits hold, as far as it is text.
	Hex
	// Drawn is what a terminal's rows look like while they are drawn: what is
	// written after the cursor was moved is a line of its own, together with
	// what stands on its row before and behind it.
	Drawn
)

// Seen is text and where in the stream each of its bytes came from: From is the
// offset of the first byte it stands for, To the one behind the last.
type Seen struct {
	Text     []byte
	From, To []int64
	// Low is lowered to the length that Text had after characters were taken
	// back; callers set it to the length of Text before they read on.
	Low int
}

func (s *Seen) add(c byte, from, to int64) {
	s.Text = append(s.Text, c)
	s.From = append(s.From, from)
	s.To = append(s.To, to)
}

// pop takes one character back, unless that is a line break.
func (s *Seen) pop() {
	n := len(s.Text)
	for range utf8.UTFMax {
		if n == 0 || s.Text[n-1] == '\n' {
			break
		}
		n--
		if utf8.RuneStart(s.Text[n]) {
			break
		}
	}
	s.Text, s.From, s.To = s.Text[:n], s.From[:n], s.To[:n]
	s.Low = min(s.Low, n)
}

// A Reader reads one stream. It is not safe for concurrent use.
type Reader struct {
	lane    Lane
	columns int

	in   input // what has arrived and shows nothing yet
	keep []byte
	next int64 // the offset of the next byte of the stream

	mode  mode
	quote byte // within a tag
	block bool // the tag begins a line

	popped        int64 // the offset behind the last backspace or move to the left
	width, before int   // of this line and the one before, in columns

	run    []byte  // letters of a run that are not decoded yet
	runAt  []int64 // where they came from
	shown  bool    // something of the run has been decoded
	line   int     // letters in this line of the run
	broken bool    // a line break has been seen after a full line
	last   int64   // the offset of the last letter that was shown

	picture *picture // of Drawn
}

type mode uint8

const (
	plain   mode = iota
	inText       // a control string, up to BEL or ST
	inTag        // a long tag
	inNote       // a comment
	skipRun      // a run that holds no text
)

const (
	// longestSequence and longestTag are how much of an unfinished escape
	// sequence or tag waits for its end.
	longestSequence = 256
	longestTag      = 512
	// fullLine is the shortest line of base64 that the next may continue.
	fullLine = 40
)

// An input is text to read. from and to are nil when it is the stream itself.
type input struct {
	text     []byte
	at       int64 // offset of text[0] in the stream
	from, to []int64
}

func (in *input) origin(i, n int) (from, to int64) {
	if in.from == nil {
		return in.at + int64(i), in.at + int64(i+n)
	}
	return in.from[i], in.to[i+n-1]
}

// NewReader returns a Reader at the beginning of a stream. columns is the width
// of its terminal, or 0.
func NewReader(lane Lane, columns int) *Reader { return NewReaderAt(lane, columns, 0) }

// NewReaderAt returns a Reader that begins at an offset of a stream.
func NewReaderAt(lane Lane, columns int, offset int64) *Reader {
	r := &Reader{lane: lane, columns: columns, next: offset}
	if lane == Drawn {
		r.Drawn(0, false)
	}
	return r
}

// Skip moves the Reader to an offset. Only a Reader that has nothing pending may
// be moved.
func (r *Reader) Skip(offset int64) { r.next = offset }

// Popped returns the offset behind the last byte that took a character back; 0
// if none has.
func (r *Reader) Popped() int64 { return r.popped }

// InRun reports whether a Reader of runs is within one.
func (r *Reader) InRun() bool { return r.line > 0 || r.broken }

// Read appends to out what the next piece of the stream shows. p is not kept. A
// Reader is given a stream by Read or by ReadSeen, not by both.
func (r *Reader) Read(out *Seen, p []byte) {
	r.in.at = r.next - int64(len(r.keep))
	r.next += int64(len(p))
	if r.in.text = p; len(r.keep) > 0 {
		r.keep = append(r.keep, p...)
		r.in.text = r.keep
	}
	r.advance(out, false)
	r.in.at += int64(len(r.in.text))
	r.keep = append(r.keep[:0], r.in.text...)
	r.in.at, r.in.text = r.next-int64(len(r.keep)), r.keep
}

// ReadSeen is Read for text that another Reader showed: in.Text[n:].
func (r *Reader) ReadSeen(out, in *Seen, n int) {
	r.keep = append(r.keep, in.Text[n:]...)
	r.in.text = r.keep
	r.in.from = append(r.in.from, in.From[n:]...)
	r.in.to = append(r.in.to, in.To[n:]...)
	if r.in.from == nil {
		return // nothing has come yet
	}
	left := r.advance(out, false)
	from, to := len(r.in.from)-left, len(r.in.to)-left
	r.in.from = append(r.in.from[:0], r.in.from[from:]...)
	r.in.to = append(r.in.to[:0], r.in.to[to:]...)
	r.keep = append(r.keep[:0], r.in.text...)
	r.in.text = r.keep
}

// Close appends to out what is still to be shown at the end of the stream.
func (r *Reader) Close(out *Seen) { _ = r.advance(out, true) }

// Pending returns the offset of the first byte that shows nothing yet and may
// with what follows; ok is false when there is none.
func (r *Reader) Pending() (from int64, ok bool) {
	if len(r.runAt) > 0 {
		return r.runAt[0], true
	}
	if len(r.in.text) > 0 {
		from, _ := r.in.origin(0, 1)
		return from, true
	}
	return 0, false
}

// advance reads what it can of the input, leaves the rest there, and returns how
// much that is.
func (r *Reader) advance(out *Seen, end bool) (left int) {
	i := 0
	for i < len(r.in.text) {
		var n int
		switch r.lane {
		case Visible, Joined:
			n = r.visible(out, i, end)
		case Markup:
			n = r.markup(out, i, end)
		case Escapes:
			n = r.escapes(out, i, end)
		case Base64, Hex:
			n = r.letters(out, i)
		case Drawn:
			n = r.drawn(out, i, end)
		}
		if n == 0 {
			break
		}
		i += n
	}
	if end && (r.lane == Base64 || r.lane == Hex) {
		r.endRun(out)
	}
	if end && r.lane == Drawn {
		r.endStroke(out)
	}
	r.in.text = r.in.text[i:]
	return len(r.in.text)
}

// show appends n bytes of the input as they are.
func (r *Reader) show(out *Seen, i, n int) int {
	out.Text = append(out.Text, r.in.text[i:i+n]...)
	if r.in.from != nil {
		out.From = append(out.From, r.in.from[i:i+n]...)
		out.To = append(out.To, r.in.to[i:i+n]...)
		return n
	}
	at := r.in.at + int64(i)
	out.From, out.To = slices.Grow(out.From, n), slices.Grow(out.To, n)
	for k := range int64(n) {
		out.From = append(out.From, at+k)
		out.To = append(out.To, at+k+1)
	}
	return n
}

// stand appends text that n bytes of the input stand for.
func (r *Reader) stand(out *Seen, text []byte, i, n int) int {
	from, to := r.in.origin(i, n)
	for _, c := range text {
		out.add(c, from, to)
	}
	return n
}

// visible handles what begins at in.Text[i], and returns how much that was; 0
// when more must arrive.
func (r *Reader) visible(out *Seen, i int, end bool) int {
	text := r.in.text[i:]
	c := text[0]
	if r.mode == inText {
		return r.controlString(out, i, end)
	}
	n := 0
	for n < len(text) && !special[text[n]] {
		n++
	}
	if n > 0 {
		for k := range n {
			if utf8.RuneStart(text[k]) {
				r.width++
			}
		}
		return r.show(out, i, n)
	}
	switch {
	case c == '\n' || c == '\v' || c == '\f':
		r.lineBreak(out, i, 1)
		return 1
	case c == '\r':
		if len(text) == 1 && !end {
			return 0
		}
		if len(text) == 1 || text[1] == '\n' {
			return 1
		}
		if last := len(out.Text) - 1; r.lane == Joined && r.width > shortestWrap && last >= 0 && out.Text[last] == ' ' {
			out.pop() // how line editors wrap: a space into the next row, and back
			r.width = 0
			return 1
		}
		r.newLine(out, i, 1)
		return 1
	case c == '\b':
		out.pop()
		_, r.popped = r.in.origin(i, 1)
		r.width = max(0, r.width-1)
		return 1
	case c == esc:
		return r.sequence(out, i, end)
	case c < ' ' || c == 0x7f:
		return 1
	}
	if !utf8.FullRune(text) && !end {
		return 0
	}
	if c == 0xc2 && len(text) > 1 && text[1] < 0xa0 {
		if text[1] != 0x9b {
			return 2
		}
		return r.sequence(out, i, end)
	}
	if n := zeroWidth(text); n > 0 {
		return n
	}
	_, n = utf8.DecodeRune(text)
	r.width++
	return r.show(out, i, n)
}

// controlString skips to the end of an operating system command or the like.
func (r *Reader) controlString(out *Seen, i int, end bool) int {
	text := r.in.text[i:]
	for n, c := range text {
		switch c {
		case '\a', 0x18, 0x1a:
			r.mode = plain
			return n + 1
		case esc:
			if n > 0 {
				return n
			}
			if len(text) == 1 && !end {
				return 0
			}
			r.mode = plain
			if len(text) > 1 && text[1] == '\\' {
				return 2
			}
			return r.sequence(out, i, end)
		}
	}
	return len(text)
}

// sequence handles an escape sequence.
func (r *Reader) sequence(out *Seen, i int, end bool) int {
	text := r.in.text[i:min(i+longestSequence, len(r.in.text))]
	n, whole := 0, false
	if text[0] == esc {
		if len(text) > 1 && bytes.IndexByte([]byte("]P_^X"), text[1]) >= 0 {
			r.mode = inText
			return 2
		}
		n, whole = sequence(text, 0)
	} else {
		n, whole = csi(text, 2)
	}
	if !whole && !end && len(text) < longestSequence {
		return 0
	}
	final := text[n-1]
	if text[0] == esc && n > 1 && text[1] != '[' {
		if final == 'E' || final == 'D' || final == 'M' || final == 'c' {
			r.newLine(out, i, n)
		}
		return n
	}
	count := 0
	for _, c := range text[2:max(2, n-1)] {
		if c < '0' || c > '9' {
			break
		}
		count = min(10*count+int(c-'0'), 80)
	}
	count = max(count, 1)
	switch {
	case !whole || n < 3:
	case final == 'C':
		r.stand(out, bytes.Repeat([]byte{' '}, count), i, n)
		r.width += count
	case final == 'D':
		for range count {
			out.pop()
		}
		_, r.popped = r.in.origin(i, n)
		r.width = max(0, r.width-count)
	case bytes.IndexByte([]byte("ABEFGHdfJ`"), final) >= 0:
		r.newLine(out, i, n)
	}
	return n
}

// lineBreak ends a line, unless it was only broken.
func (r *Reader) lineBreak(out *Seen, i, n int) {
	w := r.width
	if r.lane == Joined && w >= shortestWrap && (w == r.columns || w == r.before || w < len(wrapWidths) && wrapWidths[w]) {
		r.before, r.width = w, 0
		return
	}
	r.newLine(out, i, n)
}

func (r *Reader) newLine(out *Seen, i, n int) {
	r.before, r.width = r.width, 0
	r.stand(out, []byte{'\n'}, i, n)
}

// markup handles what begins at in.Text[i] of HTML.
func (r *Reader) markup(out *Seen, i int, end bool) int {
	text := r.in.text[i:]
	switch r.mode {
	case inTag:
		for n, c := range text {
			switch {
			case r.quote != 0:
				if c == r.quote {
					r.quote = 0
				}
			case c == '"' || c == '\'':
				r.quote = c
			case c == '>':
				r.mode = plain
				if r.block {
					r.stand(out, []byte{'\n'}, i+n, 1)
				}
				return n + 1
			}
		}
		return len(text)
	case inNote:
		if n := bytes.Index(text, []byte("-->")); n >= 0 {
			r.mode = plain
			return n + 3
		}
		if n := len(text) - 2; n > 0 {
			return n
		}
		if end {
			return len(text)
		}
		return 0
	case plain, inText, skipRun:
	}
	if n := bytes.IndexAny(text, "<&"); n != 0 {
		if n < 0 {
			n = len(text)
		}
		return r.show(out, i, n)
	}
	if text[0] == '&' {
		decoded, n := entity(text)
		if n > 0 {
			return r.stand(out, []byte(decoded), i, n)
		}
		if !end && unfinishedEntity(text) {
			return 0
		}
		return r.show(out, i, 1)
	}
	return r.tag(out, i, end)
}

func unfinishedEntity(text []byte) bool {
	for n, c := range text[1:] {
		if !letter(c) && (c < '0' || c > '9') && (c != '#' || n > 0) {
			return false
		}
	}
	return len(text) < longestEntity
}

// tag handles a tag, a comment, or a bracket that is none.
func (r *Reader) tag(out *Seen, i int, end bool) int {
	const note = "<!--"
	text := r.in.text[i:]
	if len(text) < len(note) && bytes.HasPrefix([]byte(note), text) && !end {
		return 0
	}
	if bytes.HasPrefix(text, []byte(note)) {
		r.mode = inNote
		return len(note)
	}
	if len(text) < 2 || !letter(text[1]) && text[1] != '/' && text[1] != '!' && text[1] != '?' {
		return r.show(out, i, 1)
	}
	var quote byte
	for n := 1; n < len(text) && n < longestTag; n++ {
		switch c := text[n]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '<':
			return r.show(out, i, n) // a new tag begins: this was none
		case c == '>':
			if block(text[1 : n+1]) {
				r.stand(out, []byte{'\n'}, i, n+1)
			}
			return n + 1
		}
	}
	switch {
	case len(text) >= longestTag:
		r.mode, r.quote, r.block = inTag, quote, block(text[1:])
		return longestTag
	case end:
		return r.show(out, i, len(text))
	}
	return 0
}

// escapes handles what begins at in.Text[i], one level of escapes.
func (r *Reader) escapes(out *Seen, i int, end bool) int {
	text := r.in.text[i:]
	if n := nextEscape(text, 0); n > 0 {
		return r.show(out, i, n)
	}
	if !end && unfinishedEscape(text) {
		return 0
	}
	var buf [utf8.UTFMax]byte
	if decoded, n := escape(text, buf[:0]); n > 0 {
		return r.stand(out, decoded, i, n)
	}
	return r.show(out, i, 1)
}

// unfinishedEscape reports whether text, which begins with a backslash or a
// percent sign, may begin a longer escape than it holds.
func unfinishedEscape(text []byte) bool {
	digits := func(from, n int) bool { // there are fewer than n digits, and nothing else
		for k := from; k < len(text) && k < from+n; k++ {
			if _, ok := hexDigit(text[k]); !ok {
				return false
			}
		}
		return len(text) < from+n
	}
	if text[0] == '%' {
		return digits(1, 2)
	}
	if len(text) == 1 {
		return true
	}
	switch text[1] {
	case 'x':
		return digits(2, 2)
	case 'U':
		return digits(2, 8)
	case 'u':
		if len(text) < 6 {
			return digits(2, 4)
		}
		high := text[2]|0x20 == 'd' && (text[3] == '8' || text[3] == '9' || text[3]|0x20 == 'a' || text[3]|0x20 == 'b')
		switch {
		case !high || len(text) >= 12:
			return false
		case len(text) < 8:
			return bytes.HasPrefix([]byte(`\u`), text[6:])
		}
		return text[6] == '\\' && text[7] == 'u' && digits(8, 4)
	case '0', '1', '2', '3':
		return len(text) == 2 || len(text) == 3 && octal(text[2])
	}
	return false
}

// letters handles what begins at in.text[i] of a stream of runs.
func (r *Reader) letters(out *Seen, i int) int {
	text := r.in.text[i:]
	lowest := uint8(1)
	if r.lane == Hex {
		lowest = 3
	}
	n := 0
	for n < len(text) && runBytes[text[n]] >= lowest {
		n++
	}
	if n > 0 {
		if r.broken {
			r.line, r.broken = 0, false
		}
		r.line += n
		if r.mode == skipRun {
			return n
		}
		r.run = append(r.run, text[:n]...)
		for k := range n {
			from, _ := r.in.origin(i+k, 1)
			r.runAt = append(r.runAt, from)
		}
		r.decode(out, false)
		return n
	}
	if c := text[0]; (c == '\n' || c == '\r') && r.mode != skipRun && r.line >= fullLine && (!r.broken || c == '\n') {
		r.broken = true
		return 1
	}
	r.endRun(out)
	for n < len(text) && runBytes[text[n]] < lowest {
		n++
	}
	return n
}

func (r *Reader) endRun(out *Seen) {
	if r.mode != skipRun && r.shown {
		r.decode(out, true)
		out.add('\n', r.last, r.last+1) // runs are kept apart
	}
	r.run, r.runAt = r.run[:0], r.runAt[:0]
	r.mode, r.shown, r.line, r.broken = plain, false, 0, false
}

// decode shows what the collected letters hold, as soon as there are enough to
// say whether that is text.
func (r *Reader) decode(out *Seen, end bool) {
	if !r.shown {
		if len(r.run) < shortestRun {
			return
		}
		first := (*[shortestRun]byte)(r.run)
		if r.lane == Hex && !readableHex(first) || r.lane != Hex && !readableBase64(first) {
			r.mode = skipRun
			r.run, r.runAt = r.run[:0], r.runAt[:0]
			return
		}
		r.shown = true
	}
	size := 4
	if r.lane == Hex {
		size = 2
	}
	k := 0
	for ; len(r.run)-k >= size || end && len(r.run)-k > 1; k += size {
		group := r.run[k:min(k+size, len(r.run))]
		from, to := r.runAt[k], r.runAt[k+len(group)-1]+1
		if r.lane == Hex {
			out.add(nibble[group[0]]<<4|nibble[group[1]], from, to)
		} else {
			w := uint32(0)
			for i := range 4 {
				w <<= 6
				if i < len(group) {
					w |= uint32(sixBits[group[i]])
				}
			}
			for i := 1; i < len(group); i++ {
				out.add(byte(w>>16), from, to)
				w <<= 8
			}
		}
		r.last = to - 1
	}
	k = min(k, len(r.run))
	r.run = append(r.run[:0], r.run[k:]...)
	r.runAt = append(r.runAt[:0], r.runAt[k:]...)
}

// Resize says how wide the terminal is from here on.
func (r *Reader) Resize(columns int) {
	r.columns = columns
	if r.picture != nil {
		r.picture.columns = min(columns, mostColumns)
	}
}

// Reset makes the Reader one that begins at an offset of a stream, and keeps
// what memory it has.
func (r *Reader) Reset(lane Lane, columns int, offset int64) {
	*r = Reader{
		lane: lane, columns: columns, next: offset,
		keep: r.keep[:0], run: r.run[:0], runAt: r.runAt[:0],
		picture: r.picture,
	}
	if lane == Drawn {
		if r.picture == nil {
			r.picture = new(picture)
		}
		r.picture.reset(columns, offset)
	} else if r.picture != nil && cap(r.picture.rows) > unknownHeight {
		r.picture = nil
	}
}

package view

import (
	"bytes"
	"unicode/utf8"
)

// Bounds of what is kept of a screen, and of what is read again of it.
const (
	mostColumns   = 1024
	mostRows      = 256
	unknownHeight = 64
	// around is how many columns before and behind what is drawn are read with
	// it. Whoever jumps about all the time is read nearly of them only: what
	// is read again stays in proportion to what has come.
	around   = 256
	nearly   = 96
	perByte  = 16
	mostSpan = 64 << 10
)

// A glyph is one cell of a screen.
type glyph struct {
	r  rune  // 0: nobody wrote here; -1: the second half of a wide character
	at int64 // the offset of what wrote it
}

// A picture is what a terminal shows: as many rows and columns as it has,
// within bounds. What is drawn without moving the cursor is a stroke; a stroke
// is read together with what stands on its row before and behind it.
type picture struct {
	columns, height int  // 0: unknown
	pty             bool // a line feed keeps the column

	rows        [][]glyph
	other       [][]glyph // of the screen that is not shown
	alternate   bool
	row, col    int
	saved       [2]int
	top, bottom int // of what scrolls; bottom 0: the last row
	insert      bool

	open       bool  // a stroke has begun
	start, end int64 // of its bytes
	credit     int   // how much may be read again
	last       rune
}

func (p *picture) reset(columns int, offset int64) {
	for i := range p.rows {
		p.rows[i] = p.rows[i][:0]
	}
	*p = picture{columns: min(columns, mostColumns), height: p.height, pty: p.pty, rows: p.rows[:0], credit: mostSpan}
	if offset > 0 && p.height > 0 {
		p.row = p.height - 1 // shells are at the bottom, nearly always
	}
}

// width is how many columns a row has.
func (p *picture) width() int {
	if p.columns > 0 {
		return p.columns
	}
	return mostColumns
}

func (p *picture) lowest() int {
	switch {
	case p.bottom > 0:
		return p.bottom
	case p.height > 0:
		return min(p.height, mostRows) - 1
	}
	return unknownHeight - 1
}

// line returns the row of the cursor.
func (p *picture) line() *[]glyph {
	for len(p.rows) <= p.row {
		if len(p.rows) < cap(p.rows) {
			p.rows = p.rows[:len(p.rows)+1] // with the memory it had
			p.rows[len(p.rows)-1] = p.rows[len(p.rows)-1][:0]
			continue
		}
		p.rows = append(p.rows, nil)
	}
	return &p.rows[p.row]
}

// at returns a row, nil if nobody wrote there.
func (p *picture) at(row int) []glyph {
	if row < 0 || row >= len(p.rows) {
		return nil
	}
	return p.rows[row]
}

// full reports whether a row goes to the edge, where terminals wrap.
func (p *picture) full(row int) bool {
	l := p.at(row)
	return p.columns > 0 && len(l) == p.columns && l[len(l)-1].r != 0 && l[len(l)-1].r != ' '
}

// put draws a character.
func (p *picture) put(r rune, at int64) {
	n := 1
	if wide(r) {
		n = 2
	}
	if p.columns > 0 && p.col+n > p.columns {
		p.col = 0
		p.feed()
	}
	if p.col+n > mostColumns {
		p.col += n // out of sight
		return
	}
	l := p.line()
	for len(*l) < p.col+n {
		*l = append(*l, glyph{})
	}
	if p.insert {
		copy((*l)[p.col+n:], (*l)[p.col:])
	}
	(*l)[p.col] = glyph{r, at}
	if n == 2 {
		(*l)[p.col+1] = glyph{-1, at}
	}
	p.col += n
	p.last = r
}

// feed moves down a row, and scrolls at the lowest.
func (p *picture) feed() {
	if p.row == p.lowest() || p.row >= mostRows-1 {
		p.scroll(p.top, 1)
		return
	}
	p.row++
}

// scroll moves the rows from one on up (n > 0) or down.
func (p *picture) scroll(from, n int) {
	low := min(p.lowest(), mostRows-1)
	if from > low || n == 0 {
		return
	}
	row := p.row
	p.row = low
	p.line()
	p.row = row
	part := p.rows[from : low+1]
	for range min(max(n, -n), len(part)) {
		if n > 0 {
			first := part[0]
			copy(part, part[1:])
			part[len(part)-1] = first[:0]
		} else {
			lowest := part[len(part)-1]
			copy(part[1:], part)
			part[0] = lowest[:0]
		}
	}
}

// wipe blanks columns of the cursor's row, and reports whether something was there.
func (p *picture) wipe(from, to int) (was bool) {
	l := p.at(p.row)
	to = min(to, len(l))
	for i := max(from, 0); i < to; i++ {
		was = was || l[i].r > ' '
		l[i] = glyph{}
	}
	if to == len(l) && from < to {
		p.rows[p.row] = l[:max(from, 0)]
	}
	return was
}

// before appends what stands before the cursor to out, as if it came from
// nowhere at an offset.
func (p *picture) before(out *Seen, from, to int64) {
	most := p.reach()
	l := p.at(p.row)
	begin := max(0, p.col-most)
	if begin == 0 && p.full(p.row-1) {
		above := p.at(p.row - 1)
		p.read(out, above[max(0, len(above)-(most-p.col)):], from, to)
	}
	if p.col > 0 && begin < len(l) {
		p.read(out, l[begin:min(p.col, len(l))], from, to)
		if p.col > len(l) {
			p.read(out, make([]glyph, 1), from, to)
		}
	}
}

// behind appends what stands at and behind the cursor.
func (p *picture) behind(out *Seen, from, to int64) {
	most := p.reach()
	l := p.at(p.row)
	if p.col < len(l) {
		p.read(out, l[p.col:min(len(l), p.col+most)], from, to)
	}
	if rest := most - (len(l) - p.col); p.full(p.row) && rest > 0 {
		below := p.at(p.row + 1)
		p.read(out, below[:min(len(below), rest)], from, to)
	}
}

// reach is how far around the cursor is read.
func (p *picture) reach() int {
	if p.credit < around {
		return nearly
	}
	return around
}

// read appends cells.
func (p *picture) read(out *Seen, cells []glyph, from, to int64) {
	p.credit = max(0, p.credit-len(cells))
	var buf [utf8.UTFMax]byte
	for _, g := range cells {
		switch {
		case g.r > 0:
			for _, c := range buf[:utf8.EncodeRune(buf[:], g.r)] {
				out.add(c, from, to)
			}
		case g.r == 0:
			out.add(' ', from, to)
		}
	}
}

// drawn handles what begins at in.text[i] of a terminal's output, and returns
// how much that was; 0 when more must arrive.
func (r *Reader) drawn(out *Seen, i int, end bool) int {
	p := r.picture
	text := r.in.text[i:]
	c := text[0]
	if r.mode == inText {
		return r.controlString(out, i, end)
	}
	at, _ := r.in.origin(i, 1)
	n := 0
	for n < len(text) && !special[text[n]] && text[n] != '\t' && text[n] < utf8.RuneSelf {
		n++
	}
	if n > 0 {
		r.stroke(out, at)
		for k := range n {
			p.put(rune(text[k]), at+int64(k))
		}
		return r.drew(r.show(out, i, n), at)
	}
	switch {
	case c == '\n' || c == '\v' || c == '\f':
		r.endStroke(out)
		if !p.pty {
			p.col = 0
		}
		p.feed()
		return r.paid(1)
	case c == '\r':
		if len(text) == 1 && !end {
			return 0
		}
		if len(text) == 1 || text[1] != '\n' || p.pty {
			r.endStroke(out)
			p.col = 0
		}
		return r.paid(1)
	case c == '\b':
		r.endStroke(out)
		p.col = max(0, min(p.col, p.width()-1)-1)
		return r.paid(1)
	case c == '\t':
		r.stroke(out, at)
		p.col = min(p.col/8*8+8, p.width()-1)
		return r.drew(r.show(out, i, 1), at)
	case c == esc:
		return r.paid(r.drawnSequence(out, i, end))
	case c < ' ' || c == 0x7f:
		return r.paid(1)
	}
	if !utf8.FullRune(text) && !end {
		return 0
	}
	if c == 0xc2 && len(text) > 1 && text[1] < 0xa0 {
		if text[1] != 0x9b {
			return r.paid(2)
		}
		return r.paid(r.drawnSequence(out, i, end))
	}
	if n := zeroWidth(text); n > 0 {
		return r.paid(n)
	}
	char, n := utf8.DecodeRune(text)
	r.stroke(out, at)
	p.put(char, at)
	return r.drew(r.show(out, i, n), at)
}

// paid counts bytes that have come.
func (r *Reader) paid(n int) int {
	r.picture.credit = min(mostSpan, r.picture.credit+n*perByte)
	return n
}

// drew notes that n bytes at an offset belong to the stroke.
func (r *Reader) drew(n int, at int64) int {
	r.picture.end = at + int64(n)
	return r.paid(n)
}

// stroke begins a stroke, unless one has begun.
func (r *Reader) stroke(out *Seen, at int64) {
	p := r.picture
	if p.open {
		return
	}
	p.open, p.start, p.end = true, at, at
	out.add('\n', at, at)
	p.before(out, at, at)
}

// endStroke ends the stroke.
func (r *Reader) endStroke(out *Seen) {
	if p := r.picture; p.open {
		p.open = false
		p.behind(out, p.end, p.end)
	}
}

// drawnSequence obeys an escape sequence.
func (r *Reader) drawnSequence(out *Seen, i int, end bool) int {
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
	switch {
	case !whole && !end && len(text) < longestSequence:
		return 0
	case !whole || n < 2:
		return n
	}
	if text[0] == esc && text[1] != '[' {
		if n == 2 && bytes.IndexByte([]byte("78DEMc"), text[1]) >= 0 {
			r.endStroke(out)
			r.picture.escape(text[1])
		}
		return n
	}
	final, params := text[n-1], text[2:max(2, n-1)]
	if len(params) > 0 && params[0] == '?' {
		if final == 'h' || final == 'l' {
			r.endStroke(out)
			r.picture.mode(params[1:], final == 'h')
			return n
		}
		if final != 'J' && final != 'K' {
			return n
		}
		params = params[1:]
	}
	one, two := numbers(params)
	from, to := r.in.origin(i, n)
	switch {
	case final == 'h' || final == 'l':
		if one == 4 {
			r.picture.insert = final == 'h'
		}
	case final == 'b':
		r.repeat(out, i, n, one)
	case bytes.IndexByte([]byte("KXP@"), final) >= 0:
		r.edit(out, final, one, from, to)
	case moves(final) || bytes.IndexByte([]byte("JLMSTrsu"), final) >= 0:
		r.endStroke(out)
		r.picture.control(final, one, two)
	}
	return n
}

// moves reports whether a control sequence moves the cursor.
func moves(final byte) bool { return bytes.IndexByte([]byte("ABCDEFGHIZ`adefu"), final) >= 0 }

// numbers reads the first two parameters of a control sequence; 0 where there
// is none.
func numbers(params []byte) (one, two int) {
	var all [2]int
	k := 0
	for _, c := range params {
		switch {
		case c == ';' || c == ':':
			k++
		case c < '0' || c > '9':
			return all[0], all[1]
		}
		if k == len(all) {
			break
		}
		if c >= '0' && c <= '9' {
			all[k] = min(10*all[k]+int(c-'0'), 9999)
		}
	}
	return all[0], all[1]
}

// repeat draws the last character again.
func (r *Reader) repeat(out *Seen, i, n, count int) {
	p := r.picture
	if p.last < ' ' {
		return
	}
	at, _ := r.in.origin(i, 1)
	r.stroke(out, at)
	var text []byte
	for range min(max(count, 1), p.width(), 256) {
		p.put(p.last, at)
		text = utf8.AppendRune(text, p.last)
	}
	r.drew(r.stand(out, text, i, n), at)
}

// edit changes what stands on the row without moving the cursor. What it brings
// together is what the sequence made.
func (r *Reader) edit(out *Seen, final byte, count int, from, to int64) {
	p := r.picture
	l := p.at(p.row)
	n := max(count, 1)
	changed := false
	switch final {
	case 'K':
		switch count {
		case 0:
			changed = p.wipe(p.col, len(l))
		case 1:
			changed = p.wipe(0, p.col+1)
		default:
			p.wipe(0, len(l))
		}
	case 'X':
		changed = p.wipe(p.col, p.col+n)
	case 'P':
		if p.col < len(l) {
			changed = true
			p.rows[p.row] = append(l[:p.col], l[min(len(l), p.col+n):]...)
		}
	case '@':
		if p.col < len(l) {
			n = min(n, p.width()-p.col)
			grown := append(l, make([]glyph, min(n, p.width()-len(l)))...) //nolint:gocritic // the row of before is not used again
			copy(grown[p.col+min(n, len(grown)-p.col):], l[p.col:])
			clear(grown[p.col:min(p.col+n, len(grown))])
			p.rows[p.row] = grown
		}
	}
	if !changed {
		return
	}
	was := p.open
	r.endStroke(out)
	out.add('\n', from, from)
	p.before(out, from, to)
	p.behind(out, from, to)
	if was { // the stroke goes on
		p.open, p.start, p.end = true, to, to
		out.add('\n', to, to)
		p.before(out, to, to)
	}
}

// escape obeys a sequence of two bytes.
func (p *picture) escape(c byte) {
	switch c {
	case '7':
		p.saved = [2]int{p.row, p.col}
	case '8':
		p.row, p.col = p.saved[0], p.saved[1]
	case 'D':
		p.feed()
	case 'E':
		p.col = 0
		p.feed()
	case 'M':
		if p.row == p.top {
			p.scroll(p.top, -1)
		} else {
			p.row = max(0, p.row-1)
		}
	case 'c':
		p.clear()
		p.row, p.col, p.top, p.bottom, p.insert = 0, 0, 0, 0, false
	}
}

func (p *picture) clear() {
	for i := range p.rows {
		p.rows[i] = p.rows[i][:0]
	}
}

// mode obeys the private modes that change which screen is shown.
func (p *picture) mode(params []byte, set bool) {
	switch one, _ := numbers(params); one {
	case 47, 1047, 1049:
		if set == p.alternate {
			return
		}
		p.alternate = set
		p.rows, p.other = p.other, p.rows
		if set {
			p.saved = [2]int{p.row, p.col}
			p.clear()
			return
		}
		p.row, p.col = p.saved[0], p.saved[1]
	case 1048:
		if set {
			p.saved = [2]int{p.row, p.col}
		} else {
			p.row, p.col = p.saved[0], p.saved[1]
		}
	}
}

// control obeys a control sequence.
func (p *picture) control(final byte, one, two int) {
	n := max(one, 1)
	low := mostRows - 1
	if p.height > 0 {
		low = min(p.height, mostRows) - 1
	}
	p.col = min(p.col, p.width()) // a wrap that was still to come
	switch final {
	case 'A':
		p.row = max(0, p.row-n)
	case 'B', 'e':
		p.row = min(low, p.row+n)
	case 'C', 'a':
		p.col = min(p.width()-1, p.col+n)
	case 'D':
		p.col = max(0, min(p.col, p.width()-1)-n)
	case 'E':
		p.row, p.col = min(low, p.row+n), 0
	case 'F':
		p.row, p.col = max(0, p.row-n), 0
	case 'G', '`':
		p.col = min(p.width(), n) - 1
	case 'I':
		p.col = min(p.width()-1, (p.col/8+min(n, 128))*8)
	case 'Z':
		p.col = max(0, (p.col-1)/8-min(n, 128)+1) * 8
	case 'H', 'f':
		p.row, p.col = min(low, n-1), min(p.width(), max(two, 1))-1
	case 'd':
		p.row = min(low, n-1)
	case 's':
		p.saved = [2]int{p.row, p.col}
	case 'u':
		p.row, p.col = p.saved[0], p.saved[1]
	case 'r':
		p.top, p.bottom = min(low, n-1), min(low, max(two, 1)-1)
		if two == 0 || p.bottom <= p.top || p.bottom == low && p.height > 0 {
			p.bottom = 0
		}
		if p.bottom == 0 && p.lowest() <= p.top {
			p.top = 0
		}
		p.row, p.col = 0, 0
	case 'J':
		p.erase(one)
	case 'L':
		p.scroll(p.row, -n)
	case 'M':
		p.scroll(p.row, n)
	case 'S':
		p.scroll(p.top, n)
	case 'T':
		p.scroll(p.top, -n)
	}
}

// erase clears a part of the screen.
func (p *picture) erase(how int) {
	from, to := p.row+1, len(p.rows)
	switch how {
	case 0:
		p.wipe(p.col, mostColumns)
	case 1:
		p.wipe(0, p.col+1)
		from, to = 0, min(p.row, len(p.rows))
	default:
		from = 0
	}
	for i := from; i < to; i++ {
		p.rows[i] = p.rows[i][:0]
	}
}

// Drawn says how a Reader of Drawn reads: rows is the height of its terminal,
// or 0, and pty whether a line feed keeps the column there.
func (r *Reader) Drawn(rows int, pty bool) {
	if r.picture == nil {
		r.picture = &picture{credit: mostSpan, columns: min(r.columns, mostColumns)}
	}
	p := r.picture
	if p.height = min(max(rows, 0), mostRows); p.height > 0 && p.row >= p.height {
		p.row = p.height - 1
	}
	if p.height > 0 && p.bottom >= p.height {
		p.top, p.bottom = 0, 0
	}
	p.pty = pty
}

// Glance appends to dst the row that is being drawn on, as it stands now, and to
// at where each of its bytes came from; the cursor is before row[cursor]. ok is
// false when nothing is being drawn over or before anything: then there is nothing
// but what the Reader has shown.
func (r *Reader) Glance(dst []byte, at []int64) (row []byte, from []int64, cursor int, ok bool) {
	p := r.picture
	if p == nil || !p.open || p.col >= len(p.at(p.row)) {
		return dst, at, 0, false
	}
	l := p.at(p.row)
	var buf [utf8.UTFMax]byte
	first := max(0, p.col-around)
	for i, g := range l[first:min(len(l), p.col+around)] {
		if first+i == p.col {
			cursor = len(dst)
		}
		char := buf[:0]
		switch {
		case g.r > 0:
			char = utf8.AppendRune(char, g.r)
		case g.r == 0:
			char = append(char, ' ')
		}
		dst = append(dst, char...)
		for range char {
			at = append(at, g.at)
		}
	}
	return dst, at, cursor, true
}

// Hide takes what came from raw bytes off the screen: it was masked.
func (r *Reader) Hide(from, to int64) {
	if r.picture == nil {
		return
	}
	for _, rows := range [...][][]glyph{r.picture.rows, r.picture.other} {
		for _, row := range rows {
			for i := range row {
				if g := &row[i]; g.r > ' ' && g.at >= from && g.at < to {
					g.r = '*'
				}
			}
		}
	}
}

// differsDrawn looks for what moves the cursor to where something stands.
func differsDrawn(text []byte, i int) (at, sure int) {
	for {
		at, sure := differsVisible(text, i)
		if at < 0 {
			return at, sure
		}
		switch c := text[at]; {
		case c == '\r' || c == '\b':
			return at, at
		case c == esc || c == 0xc2 && at+1 < len(text) && text[at+1] == 0x9b:
			end, whole := 0, false
			if c == esc {
				end, whole = sequence(text, at)
			} else {
				end, whole = csi(text, at+2)
			}
			if !whole && len(text)-at < longestSequence {
				return -1, at
			}
			seq := text[at:end]
			if len(seq) > 2 && (c != esc || seq[1] == '[') && moves(seq[len(seq)-1]) || len(seq) == 2 && c == esc && (seq[1] == 'M' || seq[1] == '8') {
				return at, at
			}
			i = max(end, at+1)
		default:
			i = at + max(1, zeroWidth(text[at:]))
		}
	}
}

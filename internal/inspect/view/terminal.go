package view

import (
	"slices"
	"unicode/utf8"
)

const (
	esc = 0x1b
	// unknownColumns is how wide a terminal is taken to be when nobody said.
	unknownColumns = 512
)

// Terminal returns raw as a terminal of so many columns (0: unknown) would show
// it, line by line: without escape sequences, control and zero-width characters,
// and with each line as overwriting, erasing and moving left it. Lines that the
// terminal itself or a line editor wraps are joined. Moves to other lines begin
// a new line: full-screen programs need a real screen.
//
// Characters that were overwritten are not in the view; they were sent, and are
// found in raw.
func Terminal(raw []byte, columns int) *View {
	if columns <= 0 {
		columns = unknownColumns
	}
	t := terminal{raw: raw, columns: columns, invent: len(raw) + 8*unknownColumns}
	t.view.Text = make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		i = t.step(i)
	}
	t.flush()
	return &t.view
}

// A terminal draws one line. As long as everything is written at its end, the
// line goes straight into the view; with the first move it is taken back into
// cells.
type terminal struct {
	raw     []byte
	columns int
	view    View

	begin    int // where the line begins in view.Text
	cells    []cell
	slow     bool // the line is in cells
	position int  // the cursor, in cells, over all rows of the line
	invent   int  // how many more cells nobody wrote may be made up
}

// A cell is one column. Wide characters and tabs are followed by empty cells.
type cell struct {
	raw  int
	size int // of the character; 0: nothing to show
	kind cellKind
}

type cellKind uint8

const (
	shown cellKind = iota
	empty
	blank // a space that nobody wrote
)

// step handles what begins at i and returns where the next begins.
func (t *terminal) step(i int) int {
	raw := t.raw
	j := i
	for j < len(raw) && !special[raw[j]] {
		j++
	}
	if j > i {
		t.write(i, j)
		return j
	}
	switch c := raw[i]; {
	case c == '\n' || c == '\v' || c == '\f':
		t.flush()
		t.view.copied(raw, i, i+1)
		t.begin = len(t.view.Text)
		return i + 1
	case c == '\r':
		if i+1 == len(raw) || raw[i+1] == '\n' {
			return i + 1
		}
		t.cellsOf()
		row := t.position / t.columns
		if t.position > 0 && t.position%t.columns == 0 && t.position == len(t.cells) {
			row-- // the last column is full, the wrap still to come
		}
		t.position = row * t.columns
		return i + 1
	case c == '\b':
		t.cellsOf()
		t.position = max(0, t.position-1)
		return i + 1
	case c == esc:
		end, _ := sequence(raw, i)
		t.control(i, end)
		return end
	case c < ' ' || c == 0x7f:
		return i + 1
	case c == 0xc2 && i+1 < len(raw) && raw[i+1] < 0xa0: // C1 in UTF-8
		if raw[i+1] == 0x9b {
			end, _ := csi(raw, i+2)
			t.control(i, end)
			return end
		}
		return i + 2
	}
	if n := zeroWidth(raw[i:]); n > 0 {
		return i + n
	}
	_, n := utf8.DecodeRune(raw[i:])
	t.write(i, i+n)
	return i + n
}

// write puts raw[from:to], whole characters, at the cursor.
func (t *terminal) write(from, to int) {
	if !t.slow {
		t.view.copied(t.raw, from, to)
		return
	}
	for from < to {
		c, n, width := t.raw[from], 1, 1
		switch {
		case c == '\t':
			width = 8 - t.position%t.columns%8
		case c >= utf8.RuneSelf:
			var r rune
			r, n = utf8.DecodeRune(t.raw[from:to])
			if wide(r) {
				width = 2
			}
		}
		t.put(cell{raw: from, size: n})
		for range width - 1 {
			t.put(cell{kind: empty})
		}
		from += n
	}
}

func (t *terminal) put(c cell) {
	if t.position > len(t.cells) {
		t.position = min(t.position, len(t.cells)+t.invent)
		t.invent -= t.position - len(t.cells)
		for len(t.cells) < t.position {
			t.cells = append(t.cells, cell{kind: blank})
		}
	}
	if t.position == len(t.cells) {
		t.cells = append(t.cells, c)
	} else {
		t.cells[t.position] = c
	}
	t.position++
}

// cellsOf takes the line back out of the view.
func (t *terminal) cellsOf() {
	if t.slow {
		return
	}
	t.slow = true
	t.cells = t.cells[:0]
	t.position = 0
	// The spans of the line say where its bytes came from.
	v := &t.view
	first := len(v.spans)
	for first > 0 && v.spans[first-1].text >= t.begin {
		first--
	}
	type piece struct{ from, to int }
	var pieces []piece
	end := len(v.Text)
	for k := len(v.spans) - 1; k >= first; k-- {
		s := v.spans[k]
		pieces = append(pieces, piece{s.raw, s.raw + end - s.text})
		end = s.text
	}
	if end > t.begin { // a span that began on an earlier line
		s := v.spans[first-1]
		pieces = append(pieces, piece{s.raw + t.begin - s.text, s.raw + end - s.text})
	}
	v.spans = v.spans[:first]
	v.Text = v.Text[:t.begin]
	for _, p := range slices.Backward(pieces) {
		t.write(p.from, p.to)
	}
}

// flush puts the cells back into the view.
func (t *terminal) flush() {
	if !t.slow {
		return
	}
	v := &t.view
	blanks := false // the last span is of blanks
	for _, c := range t.cells {
		switch c.kind {
		case shown:
			v.copied(t.raw, c.raw, c.raw+c.size)
			blanks = false
		case blank:
			if blanks {
				v.Text = append(v.Text, ' ')
				continue
			}
			from := 0
			if n := len(v.Text); n > 0 {
				_, from = v.Raw(n-1, n)
			}
			from = min(from, len(t.raw)-1)
			v.spans = append(v.spans, span{text: len(v.Text), raw: from, size: 1, together: true})
			v.Text = append(v.Text, ' ')
			blanks = true
		case empty:
		}
	}
	t.slow = false
	t.cells = t.cells[:0]
	t.position = 0
}

// control obeys the escape sequence raw[from:to].
func (t *terminal) control(from, to int) {
	seq := t.raw[from:to]
	if len(seq) >= 2 && seq[0] == esc && (seq[1] == 'E' || seq[1] == 'D' || seq[1] == 'M' || seq[1] == 'c') {
		t.newline(from, to)
		return
	}
	if len(seq) < 3 || seq[0] == esc && seq[1] != '[' {
		return
	}
	n := 0
	for _, c := range seq[2 : len(seq)-1] {
		if c < '0' || c > '9' {
			break
		}
		n = min(n*10+int(c-'0'), 9999)
	}
	count := max(n, 1)
	row := func() int { return t.position / t.columns * t.columns }
	switch seq[len(seq)-1] {
	case 'C', 'a':
		t.cellsOf()
		t.position = min(t.position+count, row()+t.columns-1)
	case 'D':
		t.cellsOf()
		t.position = max(t.position-count, row())
	case 'G', '`':
		t.cellsOf()
		t.position = row() + min(count-1, t.columns-1)
	case 'A':
		t.cellsOf()
		if t.position < t.columns {
			t.newline(from, to)
		}
		t.position = max(t.position-count*t.columns, t.position%t.columns)
	case 'B':
		t.cellsOf()
		if t.position+count*t.columns > len(t.cells) {
			t.newline(from, to)
		} else {
			t.position += count * t.columns
		}
	case 'K', 'J':
		t.erase(from, to, seq[len(seq)-1], n)
	case 'P', '@', 'X':
		t.shift(seq[len(seq)-1], count)
	case 'b':
		t.cellsOf()
		if t.position > 0 && t.position <= len(t.cells) {
			if last := t.cells[t.position-1]; last.kind == shown {
				count = min(count, t.columns, t.invent)
				t.invent -= count
				for range count {
					t.put(last)
				}
			}
		}
	case 'H', 'f', 'd', 'E', 'F', 'S', 'T', 'L', 'M':
		t.newline(from, to)
	}
}

// newline ends the line at a sequence that moves to another.
func (t *terminal) newline(from, to int) {
	t.flush()
	t.view.made([]byte{'\n'}, from, to)
	t.begin = len(t.view.Text)
}

// erase clears a part of the row (K) or of the screen (J).
func (t *terminal) erase(from, to int, final byte, n int) {
	t.cellsOf()
	row := t.position / t.columns * t.columns
	end := min(row+t.columns, len(t.cells))
	switch {
	case n == 0 && (final == 'J' || end == len(t.cells)):
		t.cells = t.cells[:min(t.position, len(t.cells))]
	case final == 'J':
		t.newline(from, to)
	case n == 0:
		t.wipe(t.position, end)
	case n == 1:
		t.wipe(row, min(t.position+1, end))
	case n == 2:
		t.wipe(row, end)
	}
}

func (t *terminal) wipe(from, to int) {
	for i := from; i < to; i++ {
		t.cells[i] = cell{kind: blank}
	}
}

// shift deletes (P), inserts (@) or blanks (X) cells at the cursor, within its row.
func (t *terminal) shift(final byte, count int) {
	t.cellsOf()
	end := min(t.position/t.columns*t.columns+t.columns, len(t.cells))
	if t.position >= end {
		return
	}
	count = min(count, end-t.position)
	rest := t.cells[t.position:end]
	switch final {
	case 'P':
		if end == len(t.cells) {
			copy(rest, rest[count:])
			t.cells = t.cells[:end-count]
			return
		}
		copy(rest, rest[count:])
		t.wipe(end-count, end)
	case '@':
		if end == len(t.cells) && end%t.columns != 0 {
			// The row grows: nothing falls off its end yet.
			grow := min(count, t.columns-end%t.columns, t.invent)
			t.invent -= grow
			t.cells = append(t.cells, make([]cell, grow)...)
			t.wipe(end, end+grow)
			end += grow
		}
		rest = t.cells[t.position:end]
		copy(rest[count:], rest)
		t.wipe(t.position, t.position+count)
	case 'X':
		t.wipe(t.position, t.position+count)
	}
}

// sequence returns where the escape sequence at i ends, and whether it has
// wholly arrived.
func sequence(raw []byte, i int) (end int, whole bool) {
	if i+1 >= len(raw) {
		return len(raw), false
	}
	switch c := raw[i+1]; {
	case c == '[':
		return csi(raw, i+2)
	case c == ']' || c == 'P' || c == '_' || c == '^' || c == 'X':
		// A string runs to BEL or ESC \; another ESC, CAN and SUB break it off.
		for j := i + 2; j < len(raw); j++ {
			switch raw[j] {
			case '\a':
				return j + 1, true
			case 0x18, 0x1a:
				return j + 1, true
			case esc:
				if j+1 == len(raw) {
					return len(raw), false
				}
				if raw[j+1] == '\\' {
					return j + 2, true
				}
				return j, true
			}
		}
		return len(raw), false
	case c >= 0x20 && c <= 0x2f:
		j := i + 1
		for j < len(raw) && raw[j] >= 0x20 && raw[j] <= 0x2f {
			j++
		}
		if j == len(raw) {
			return j, false
		}
		if raw[j] < 0x30 || raw[j] > 0x7e {
			return j, true
		}
		return j + 1, true
	case c < 0x20 || c > 0x7e:
		return i + 1, true
	}
	return i + 2, true
}

// csi returns where the control sequence ends whose parameters begin at i.
func csi(raw []byte, i int) (end int, whole bool) {
	for ; i < len(raw); i++ {
		if c := raw[i]; c >= 0x40 && c <= 0x7e {
			return i + 1, true
		} else if c < 0x20 || c > 0x7e {
			return i, true
		}
	}
	return len(raw), false
}

// wide reports whether a character takes two columns.
func wide(r rune) bool {
	return r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf && r != 0x303f || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 ||
		r >= 0x1f300 && r <= 0x1f64f || r >= 0x1f900 && r <= 0x1f9ff || r >= 0x20000 && r <= 0x3fffd)
}

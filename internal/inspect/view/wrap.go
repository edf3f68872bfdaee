package view

import (
	"bytes"
	"unicode/utf8"
)

// shortestWrap is the shortest width at which lines are taken to be wrapped.
const shortestWrap = 20

// wrapWidths are the widths at which programs break long lines. Lines of any
// other width count as wrapped when one of their neighbours is as wide.
var wrapWidths = func() (table [256]bool) {
	for _, w := range []int{40, 60, 64, 72, 76, 78, 79, 80, 100, 120, 132} {
		table[w] = true
	}
	return table
}()

// Unwrapped returns raw with the lines joined that something broke at a fixed
// width; columns is that of the terminal, or 0. It joins more than was broken:
// two lines of a table too. It is for finding what no single line holds.
func Unwrapped(raw []byte, columns int) *View {
	v := &View{Text: make([]byte, 0, len(raw))}
	done := 0
	wraps(raw, columns, func(end, next int) bool {
		v.copied(raw, done, end)
		done = next
		return true
	})
	v.copied(raw, done, len(raw))
	return v
}

// wraps calls each for every line that was wrapped, with where it ends and where
// the next begins, until each returns false.
func wraps(raw []byte, columns int, each func(end, next int) bool) {
	before, start := 0, 0
	for start < len(raw) {
		end, next := lineEnd(raw, start)
		if next == end || next == len(raw) {
			return // the last line continues nowhere
		}
		width := lineWidth(raw[start:end])
		if width >= shortestWrap && raw[next] != '\n' && raw[next] != '\r' {
			wrapped := width == before || width == columns || width < len(wrapWidths) && wrapWidths[width]
			if !wrapped {
				after, _ := lineEnd(raw, next)
				wrapped = after-next >= width && after-next <= utf8.UTFMax*width && lineWidth(raw[next:after]) == width
			}
			if wrapped && !each(end, next) {
				return
			}
		}
		before, start = width, next
	}
}

// lineEnd returns where the line at start ends and where the next begins; both
// are the length of raw for the last.
func lineEnd(raw []byte, start int) (end, next int) {
	n := bytes.IndexByte(raw[start:], '\n')
	if n < 0 {
		return len(raw), len(raw)
	}
	end = start + n
	next = end + 1
	if end > start && raw[end-1] == '\r' {
		end--
	}
	return end, next
}

// lineWidth returns the columns of a line; it does not look at lines too long to
// have been wrapped.
func lineWidth(line []byte) int {
	const longest = 1024
	if len(line) < shortestWrap || len(line) > longest {
		return 0
	}
	width := 0
	for i := 0; i < len(line); {
		if line[i] < utf8.RuneSelf {
			width++
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		i += n
		if zeroWidth(line[i-n:i]) == 0 {
			width++
		}
		if wide(r) {
			width++
		}
	}
	return width
}

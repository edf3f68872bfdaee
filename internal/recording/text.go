package recording

import "unicode/utf8"

// A Text turns bytes, as they come, into valid text: a character may lie on the
// border of two writes. The zero Text is ready.
type Text struct{ carry []byte }

// Add returns the text that is complete with p. Each byte that is not UTF-8
// becomes a mark of its own, as a screen would show it.
func (t *Text) Add(p []byte) string {
	if len(t.carry) > 0 {
		p = append(t.carry, p...)
		t.carry = nil
	}
	whole := len(p) - unfinished(p)
	if whole < len(p) {
		t.carry = append([]byte(nil), p[whole:]...)
	}
	p = p[:whole]
	if utf8.Valid(p) {
		return string(p)
	}
	out := make([]rune, 0, len(p))
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		out = append(out, r)
		p = p[n:]
	}
	return string(out)
}

// End returns what stands for a character that was never completed.
func (t *Text) End() string {
	if len(t.carry) == 0 {
		return ""
	}
	t.carry = nil
	return string(utf8.RuneError)
}

// unfinished returns how many bytes at the end begin a character that is not
// complete.
func unfinished(b []byte) int {
	for n := 1; n <= min(len(b), utf8.UTFMax-1); n++ {
		tail := b[len(b)-n:]
		if utf8.RuneStart(tail[0]) {
			if tail[0] >= utf8.RuneSelf && !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}

package inspect

import (
	"bytes"
	"unicode/utf8"
)

// maskText returns what stands in place of text that rule matched.
func maskText(rule string) string { return "[REDACTED:" + rule + "]" }

// appendMask appends the mask of text. In a terminal it is as wide as what it
// replaces, so that nothing on the line moves. Escape sequences within the text
// stay: colours that were switched off must go off. again means that the mask's
// beginning is out already.
func appendMask(dst []byte, rule string, text []byte, kind Kind, again bool) []byte {
	width := 0
	var sequences []byte
	for i := 0; i < len(text); {
		if n := sgr(text[i:]); n > 0 {
			sequences = append(sequences, text[i:i+n]...)
			i += n
			continue
		}
		_, n := utf8.DecodeRune(text[i:])
		i += n
		width++
	}
	mask := maskText(rule)
	switch {
	case kind != Terminal && again:
		mask = ""
	case kind == Terminal && (again || width < len(mask)):
		mask = string(bytes.Repeat([]byte("*"), width))
	case kind == Terminal:
		mask += string(bytes.Repeat([]byte("*"), width-len(mask)))
	}
	return append(append(dst, mask...), sequences...)
}

// sgr returns the length of the colour sequence that text begins with, or 0.
func sgr(text []byte) int {
	if len(text) < 3 || text[0] != 0x1b || text[1] != '[' {
		return 0
	}
	for i := 2; i < min(len(text), 64); i++ {
		switch c := text[i]; {
		case c == 'm':
			return i + 1
		case c < '0' || c > ';':
			return 0
		}
	}
	return 0
}

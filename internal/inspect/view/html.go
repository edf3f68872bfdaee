package view

import (
	"bytes"
	"html"
)

const (
	// longestEntity is how far behind an ampersand its end is looked for.
	longestEntity = 34
	// quoteTries is how many tags with an unclosed quote are looked through to
	// the end of the text; more are taken to end at the first bracket.
	quoteTries = 16
)

// HTML returns raw as a browser would show its text: without tags and comments,
// a line break for each that begins a block or a cell, entities decoded.
func HTML(raw []byte) *View {
	v := &View{Text: make([]byte, 0, len(raw))}
	tries := quoteTries
	done := 0
	for i := 0; i < len(raw); {
		j := bytes.IndexAny(raw[i:], "<&")
		if j < 0 {
			break
		}
		i += j
		if raw[i] == '&' {
			text, n := entity(raw[i:])
			if n == 0 {
				i++
				continue
			}
			v.copied(raw, done, i)
			v.made([]byte(text), i, i+n)
			i += n
			done = i
			continue
		}
		end := tagEnd(raw, i, &tries)
		if end < 0 {
			i++
			continue
		}
		v.copied(raw, done, i)
		if block(raw[i+1 : end]) {
			v.made([]byte{'\n'}, i, end)
		}
		i, done = end, end
	}
	v.copied(raw, done, len(raw))
	return v
}

// tagEnd returns where the tag or comment at i ends; -1 if there is none.
func tagEnd(raw []byte, i int, tries *int) int {
	if i+1 >= len(raw) {
		return -1
	}
	switch c := raw[i+1]; {
	case bytes.HasPrefix(raw[i:], []byte("<!--")):
		if j := find(raw, i+4, []byte("-->"), tries); j >= 0 {
			return j + 3
		}
		return -1
	case letter(c), c == '/', c == '!', c == '?':
	default:
		return -1
	}
	// Most tags have no bracket within their quotes.
	first := -1
	var quote byte
	for j := i + 1; j < len(raw); j++ {
		c := raw[j]
		switch {
		case c == '>' && quote == 0:
			return j + 1
		case c == '>' && first < 0:
			first = j + 1
			if *tries == 0 {
				return first
			}
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '<' && quote == 0:
			return -1 // a new tag begins: this was none
		}
	}
	*tries = max(0, *tries-1)
	if *tries == 0 && first < 0 {
		return len(raw) // nothing closes any more
	}
	return first
}

// find is bytes.Index from i on, given up after several failures: what is not
// there once will not be there later.
func find(raw []byte, i int, what []byte, tries *int) int {
	if *tries == 0 || i > len(raw) {
		return -1
	}
	j := bytes.Index(raw[i:], what)
	if j < 0 {
		*tries--
		return -1
	}
	return i + j
}

// blocks are the elements that begin a new line or cell.
var blocks = map[string]bool{
	"br": true, "p": true, "div": true, "tr": true, "td": true, "th": true, "li": true, "ul": true, "ol": true,
	"table": true, "pre": true, "hr": true, "h1": true, "h2": true, "h3": true, "h4": true, "h5": true, "h6": true,
	"section": true, "article": true, "header": true, "footer": true, "blockquote": true, "dt": true, "dd": true,
	"option": true, "script": true, "style": true, "title": true, "body": true, "head": true, "html": true,
}

func block(tag []byte) bool {
	tag = bytes.TrimPrefix(tag, []byte("/"))
	n := 0
	for n < len(tag) && n < 12 && (letter(tag[n]) || tag[n] >= '0' && tag[n] <= '9') {
		n++
	}
	return blocks[string(bytes.ToLower(tag[:n]))]
}

// entity decodes the entity at the start of text, and returns its length; 0 if
// there is none.
func entity(text []byte) (string, int) {
	for n := 1; n < len(text) && n < longestEntity; n++ {
		switch c := text[n]; {
		case c == ';':
			s := string(text[:n+1])
			if u := html.UnescapeString(s); u != s {
				return u, n + 1
			}
			return "", 0
		case letter(c), c >= '0' && c <= '9', c == '#' && n == 1:
		default:
			return "", 0
		}
	}
	return "", 0
}

package exact

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A variant is a form in which a part of a value may stand in text.
type variant struct {
	text string
	part int // length of the part in bytes
}

// variants returns the forms in which value may stand in text, without
// duplicates. Forms that differ from another only in separators (quotes,
// backslashes, percent signs, colons between hex digits) are left to the
// squeezed comparison, as far as the value has letters and digits enough.
func variants(value string) []variant {
	var all []variant
	for _, part := range append(words(value), pieces(value)...) {
		add := func(forms ...string) {
			for _, f := range forms {
				all = append(all, variant{text: f, part: len(part)})
			}
		}
		add(part)
		for _, escape := range escapes {
			if once := escape(part); once != part {
				add(once, escape(once))
			}
		}
		add(dense(part)...)
	}
	slices.SortFunc(all, func(a, b variant) int { return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.part, b.part)) })
	return slices.CompactFunc(all, func(a, b variant) bool { return a.text == b.text })
}

// pieces cuts a long value so that no needle is longer than pieceLength; the
// last piece is never short.
func pieces(value string) []string {
	var parts []string
	for len(value) > pieceLength+pieceLength/2 {
		parts = append(parts, value[:pieceLength])
		value = value[pieceLength:]
	}
	return append(parts, value)
}

// words returns the parts of a value of several lines that are secret on their
// own: the lines of a private key, the tokens in an environment or JSON file.
// They are long, without space, and mix letters with digits.
func words(value string) []string {
	if !strings.ContainsAny(value, "\r\n") {
		return nil
	}
	var parts []string
	for _, line := range strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-----") || strings.Contains(line, "://") {
			continue
		}
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\"'`=:,;{}[]()<>", r) }) {
			if len(word) >= 12 && len(word) < pieceLength && strings.ContainsAny(word, "0123456789") && mixed(word) {
				parts = append(parts, word)
			}
		}
	}
	return parts
}

// mixed reports whether word changes between letters and digits often enough,
// or mixes cases freely enough, to be generated rather than written.
func mixed(word string) bool {
	kind := func(c byte) int {
		switch {
		case c >= '0' && c <= '9':
			return 1
		case c >= 'a' && c <= 'z':
			return 2
		case c >= 'A' && c <= 'Z':
			return 3
		}
		return 0
	}
	changes := 0
	for i := 1; i < len(word); i++ {
		if kind(word[i]) != kind(word[i-1]) {
			changes++
		}
	}
	return changes*4 >= len(word)
}

// escapes are the ways in which programs write a value inside something else.
// They leave plain letters and digits as they are.
var escapes = []func(string) string{
	func(s string) string { return unquote(jsonText(s)) }, // encoding/json, with \u003c
	jsonPlain, // JavaScript, most libraries
	jsonASCII, // Python's json.dumps
	func(s string) string { return unquote(strconv.Quote(s)) },
	func(s string) string { return unquote(strconv.QuoteToASCII(s)) },
	bytesRepr,
	url.QueryEscape,
	url.PathEscape,
	percentAll,
	func(s string) string { return lowerHex(percentAll(s)) },
	func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }, // encodeURIComponent
	func(s string) string { return lowerHex(url.QueryEscape(s)) },
	html.EscapeString,
	htmlNamed.Replace,
	htmlHex,
}

// dense returns the forms in which no letter of the value stands for itself.
func dense(s string) []string {
	wide := utf16LE(s)
	forms := []string{reverse(s), reverseBytes(s), rot13(s)}
	for shift := range 3 {
		forms = append(forms, base64Inner(base64.StdEncoding, s, shift), base64Inner(base64.URLEncoding, s, shift),
			base64Inner(base64.StdEncoding, wide, shift))
	}
	digits := hex.EncodeToString([]byte(s))
	forms = append(forms, digits, strings.ToUpper(digits))
	var units []uint16
	for _, r := range s {
		units = utf16.AppendRune(units, r)
	}
	each := func(format string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, format, s[i])
		}
		return b.String()
	}
	eachUnit := func(format string) string {
		var b strings.Builder
		for _, u := range units {
			fmt.Fprintf(&b, format, u)
		}
		return b.String()
	}
	return append(forms,
		each(`\x%02x`), each(`\x%02X`), // also &#x73; without its separators
		each("0x%02x, "), each("0x%02X, "),
		each("%d, "),  // bytes as a list, &#115;
		each(`\%03o`), // printf, octal
		eachUnit(`\u%04x`), eachUnit(`\u%04X`))
}

// base64Inner encodes s as it stands shift bytes behind a border of three, and
// leaves out the characters that also depend on its neighbours.
func base64Inner(enc *base64.Encoding, s string, shift int) string {
	text := enc.WithPadding(base64.NoPadding).EncodeToString(append(make([]byte, shift), s...))
	first := (shift*8 + 5) / 6
	last := (shift + len(s)) * 8 / 6
	return text[first:last]
}

func unquote(s string) string { return s[1 : len(s)-1] }

func jsonText(s string) string {
	text, _ := json.Marshal(s) // a string always encodes
	return string(text)
}

// jsonPlain escapes what JSON demands, and nothing else.
func jsonPlain(s string) string {
	var b strings.Builder
	for _, r := range s {
		jsonRune(&b, r)
	}
	return b.String()
}

// jsonASCII also writes everything outside ASCII in escapes.
func jsonASCII(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			jsonRune(&b, r)
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, u)
		}
	}
	return b.String()
}

func jsonRune(b *strings.Builder, r rune) {
	const short = "\b\f\n\r\t\"\\"
	switch i := strings.IndexRune(short, r); {
	case i >= 0:
		b.WriteByte('\\')
		b.WriteByte(`bfnrt"\`[i])
	case r < ' ':
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

// bytesRepr writes s as Python writes bytes.
func bytesRepr(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\\', c == '\'':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// percentAll escapes everything but letters and digits.
func percentAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if alphanumeric(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// lowerHex lowers the digits of percent escapes.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			b[i+1], b[i+2] = lower(b[i+1]), lower(b[i+2])
		}
	}
	return string(b)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'F' {
		return c + 'a' - 'A'
	}
	return c
}

var htmlNamed = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;")

// htmlHex escapes everything but letters and digits by number.
func htmlHex(s string) string {
	var b strings.Builder
	for _, r := range s {
		if len(string(r)) == 1 && alphanumeric(string(r)[0]) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "&#x%x;", r)
		}
	}
	return b.String()
}

func reverse(s string) string {
	runes := []rune(s)
	slices.Reverse(runes)
	return string(runes)
}

func reverseBytes(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

func rot13(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return 'a' + (r-'a'+13)%26
		case r >= 'A' && r <= 'Z':
			return 'A' + (r-'A'+13)%26
		}
		return r
	}, s)
}

func utf16LE(s string) string {
	var b []byte
	for _, r := range s {
		for _, u := range utf16.AppendRune(nil, r) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
	}
	return string(b)
}

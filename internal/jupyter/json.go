package jupyter

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Member is one member of an object, its value as it stands in the input.
type Member struct {
	Name  string
	Value []byte
}

// Members checks that raw is exactly one JSON object, with no name twice at any
// depth, and returns its members in order.
func Members(raw []byte) ([]Member, error) {
	s := scanner{in: raw}
	s.space()
	if s.at >= len(raw) || raw[s.at] != '{' {
		return nil, malformed("an object is wanted")
	}
	members := make([]Member, 0, 8)
	err := s.object(1, func(name, value []byte) error {
		members = append(members, Member{string(unquote(nil, name)), value})
		return nil
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return members, nil
}

// Known refuses members whose name is one of names in another case: some
// readers take it for that one.
func Known(members []Member, names ...string) error {
	for _, m := range members {
		for _, n := range names {
			if len(m.Name) == len(n) && m.Name != n && strings.EqualFold(m.Name, n) {
				return malformed("a member is called %q in another case", n)
			}
		}
	}
	return nil
}

// Get returns the value of a member, or nil.
func Get(members []Member, name string) []byte {
	for i := range members {
		if members[i].Name == name {
			return members[i].Value
		}
	}
	return nil
}

// String returns the text of a JSON string, what is not UTF-8 replaced as
// browsers replace it.
func String(raw []byte) (string, bool) {
	raw = trim(raw)
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	s := scanner{in: raw}
	if s.str() != nil || s.at != len(raw) {
		return "", false
	}
	return string(unquote(nil, raw)), true
}

// Elements checks that raw is exactly one JSON array and returns its elements.
func Elements(raw []byte) ([][]byte, error) {
	s := scanner{in: raw}
	s.space()
	if s.at >= len(raw) || raw[s.at] != '[' {
		return nil, malformed("an array is wanted")
	}
	var out [][]byte
	err := s.array(1, func(value []byte) error {
		out = append(out, value)
		return nil
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Valid checks that raw is exactly one JSON value, with no name twice.
func Valid(raw []byte) error {
	s := scanner{in: raw}
	if err := s.value(0); err != nil {
		return err
	}
	return s.end()
}

// Copy appends raw, one JSON value, to dst in canonical form, every string
// being what visit makes of it. Names of members are visited as Name.
func Copy(dst, raw []byte, visit Visit) ([]byte, error) {
	c := copier{scanner: scanner{in: raw}, out: dst, visit: visit}
	if err := c.value(0); err != nil {
		return nil, err
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	return c.out, nil
}

func trim(raw []byte) []byte { return bytes.Trim(raw, " \t\r\n") }

// scanner reads JSON (RFC 8259) without making anything of it.
type scanner struct {
	in []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.in) {
		switch s.in[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.in) {
		return s.in[s.at]
	}
	return 0
}

// end is the end of the input.
func (s *scanner) end() error {
	s.space()
	if s.at != len(s.in) {
		return malformed("something follows the JSON value at byte %d", s.at)
	}
	return nil
}

// value passes over one value, which stands depth deep.
func (s *scanner) value(depth int) error {
	s.space()
	switch s.peek() {
	case '{':
		return s.object(depth+1, nil)
	case '[':
		return s.array(depth+1, nil)
	case '"':
		return s.str()
	}
	return s.scalar()
}

// scalar passes over a number, true, false or null.
func (s *scanner) scalar() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.in)-s.at >= len(word) && string(s.in[s.at:s.at+len(word)]) == word {
			s.at += len(word)
			return nil
		}
	}
	return s.number()
}

func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.in) && s.in[s.at]-'0' < 10 {
		s.at++
	}
	return s.at > from
}

func (s *scanner) number() error {
	from := s.at
	if s.peek() == '-' {
		s.at++
	}
	ok := true
	if s.peek() == '0' {
		s.at++
	} else {
		ok = s.digits()
	}
	if ok && s.peek() == '.' {
		s.at++
		ok = s.digits()
	}
	if ok && s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		ok = s.digits()
	}
	if !ok {
		return malformed("no JSON value at byte %d", from)
	}
	return nil
}

// str passes over a string.
func (s *scanner) str() error {
	from := s.at
	s.at++
	for s.at < len(s.in) {
		rest := s.in[s.at:]
		n := plainRun(rest)
		s.at += n
		if n == len(rest) {
			break
		}
		switch c := rest[n]; {
		case c == '"':
			s.at++
			return nil
		case c < 0x20:
			return malformed("a control character in a string at byte %d", s.at)
		default: // a backslash
			if len(rest) < n+2 {
				return malformed("a string without an end at byte %d", from)
			}
			switch rest[n+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.at += 2
			case 'u':
				if _, ok := hex4(rest[n+2:]); !ok {
					return malformed("a bad escape at byte %d", s.at)
				}
				s.at += 6
			default:
				return malformed("a bad escape at byte %d", s.at)
			}
		}
	}
	return malformed("a string without an end at byte %d", from)
}

// plainRun returns how many bytes of p come before a quote, a backslash or a
// control character.
func plainRun(p []byte) int {
	for i, c := range p {
		if special[c] {
			return i
		}
	}
	return len(p)
}

var special = func() (t [256]bool) {
	for i := range 0x20 {
		t[i] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

func hex4(p []byte) (r rune, ok bool) {
	if len(p) < 4 {
		return 0, false
	}
	for _, c := range p[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = (c | 0x20) - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// object passes over an object and tells each of its members; tell may be nil.
func (s *scanner) object(depth int, tell func(name, value []byte) error) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	s.at++
	if s.space(); s.peek() == '}' {
		s.at++
		return nil
	}
	var seen names
	for {
		s.space()
		if s.peek() != '"' {
			return malformed("a name is wanted at byte %d", s.at)
		}
		from := s.at
		if err := s.str(); err != nil {
			return err
		}
		name := s.in[from:s.at]
		if !seen.add(name) {
			return malformed("an object has the same name twice at byte %d", from)
		}
		if s.space(); s.peek() != ':' {
			return malformed("a colon is wanted at byte %d", s.at)
		}
		s.at++
		s.space()
		from = s.at
		if err := s.value(depth); err != nil {
			return err
		}
		if tell != nil {
			if err := tell(name, s.in[from:s.at]); err != nil {
				return err
			}
		}
		more, err := s.comma('}')
		if !more {
			return err
		}
	}
}

func (s *scanner) array(depth int, tell func(value []byte) error) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	s.at++
	if s.space(); s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		s.space()
		from := s.at
		if err := s.value(depth); err != nil {
			return err
		}
		if tell != nil {
			if err := tell(s.in[from:s.at]); err != nil {
				return err
			}
		}
		more, err := s.comma(']')
		if !more {
			return err
		}
	}
}

// comma passes over a comma, or over the end of what is being read.
func (s *scanner) comma(closer byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.at++
		return true, nil
	case closer:
		s.at++
		return false, nil
	}
	return false, malformed("a comma or %q is wanted at byte %d", closer, s.at)
}

// names is the set of an object's names. Names that differ in how they are
// escaped are the same.
type names struct {
	few  [][]byte
	many map[string]struct{}
}

func (n *names) add(raw []byte) bool {
	name := raw[1 : len(raw)-1]
	if plainASCII(name) < len(name) {
		name = unquote(nil, raw)
	}
	if n.many == nil && len(n.few) < 16 {
		for _, f := range n.few {
			if bytes.Equal(f, name) {
				return false
			}
		}
		n.few = append(n.few, name)
		return true
	}
	if n.many == nil {
		n.many = make(map[string]struct{}, 64)
		for _, f := range n.few {
			n.many[string(f)] = struct{}{}
		}
	}
	if _, ok := n.many[string(name)]; ok {
		return false
	}
	n.many[string(name)] = struct{}{}
	return true
}

// plainASCII returns how many bytes of p come before one that JSON writes in
// another way or that is not ASCII.
func plainASCII(p []byte) int {
	for i, c := range p {
		if special[c] || c >= utf8.RuneSelf {
			return i
		}
	}
	return len(p)
}

// unquote appends the text of raw, a string that was passed over, to dst. What
// is not UTF-8 and surrogates that stand alone become U+FFFD, one each: that is
// what a browser shows.
func unquote(dst, raw []byte) []byte {
	in := raw[1 : len(raw)-1]
	for len(in) > 0 {
		n := plainASCII(in)
		dst = append(dst, in[:n]...)
		if in = in[n:]; len(in) == 0 {
			break
		}
		if in[0] != '\\' {
			r, size := utf8.DecodeRune(in)
			dst = utf8.AppendRune(dst, r)
			in = in[size:]
			continue
		}
		switch c := in[1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(in[2:])
			in = in[6:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(in) >= 6 && in[0] == '\\' && in[1] == 'u' {
					low, _ = hex4(in[2:])
				}
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					r, in = both, in[6:]
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default: // a quote, a backslash, a slash
			dst = append(dst, c)
		}
		in = in[2:]
	}
	return dst
}

// Quote appends text as a JSON string to dst. What is not UTF-8 becomes U+FFFD.
func Quote(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for len(text) > 0 {
		n := plainASCII(text)
		dst = append(dst, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			break
		}
		c := text[0]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(text)
			dst = utf8.AppendRune(dst, r)
			text = text[size:]
			continue
		}
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		text = text[1:]
	}
	return append(dst, '"')
}

// copier writes what it reads.
type copier struct {
	scanner
	out     []byte
	visit   Visit
	place   Place
	scratch []byte
}

func (c *copier) value(depth int) error {
	c.space()
	switch c.peek() {
	case '{':
		return c.copyObject(depth + 1)
	case '[':
		return c.copyArray(depth + 1)
	case '"':
		from := c.at
		if err := c.str(); err != nil {
			return err
		}
		return c.text(c.place, c.in[from:c.at])
	}
	from := c.at
	if err := c.scalar(); err != nil {
		return err
	}
	c.out = append(c.out, c.in[from:c.at]...)
	return nil
}

// text writes a string as the visitor has it. The scratch buffer is handed
// over, since the visitor may come back to us.
func (c *copier) text(p Place, raw []byte) error {
	inner := raw[1 : len(raw)-1]
	plain := plainASCII(inner) == len(inner)
	if !plain {
		c.scratch = unquote(c.scratch[:0], raw)
		inner = c.scratch
	}
	got, err := c.visit(p, inner)
	if err != nil {
		return err
	}
	if plain && len(got) == len(inner) && (len(got) == 0 || &got[0] == &inner[0]) {
		c.out = append(c.out, raw...)
		return nil
	}
	c.out = Quote(c.out, got)
	return nil
}

func (c *copier) copyObject(depth int) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	c.at++
	c.out = append(c.out, '{')
	if c.space(); c.peek() == '}' {
		c.at++
		c.out = append(c.out, '}')
		return nil
	}
	name := c.place
	name.Kind = Name
	var seen names
	for {
		c.space()
		if c.peek() != '"' {
			return malformed("a name is wanted at byte %d", c.at)
		}
		from := c.at
		if err := c.str(); err != nil {
			return err
		}
		if !seen.add(c.in[from:c.at]) {
			return malformed("an object has the same name twice at byte %d", from)
		}
		if err := c.text(name, c.in[from:c.at]); err != nil {
			return err
		}
		if c.space(); c.peek() != ':' {
			return malformed("a colon is wanted at byte %d", c.at)
		}
		c.at++
		c.out = append(c.out, ':')
		if err := c.value(depth); err != nil {
			return err
		}
		more, err := c.comma('}')
		if err != nil {
			return err
		}
		if !more {
			c.out = append(c.out, '}')
			return nil
		}
		c.out = append(c.out, ',')
	}
}

func (c *copier) copyArray(depth int) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	c.at++
	c.out = append(c.out, '[')
	if c.space(); c.peek() == ']' {
		c.at++
		c.out = append(c.out, ']')
		return nil
	}
	for {
		if err := c.value(depth); err != nil {
			return err
		}
		more, err := c.comma(']')
		if err != nil {
			return err
		}
		if !more {
			c.out = append(c.out, ']')
			return nil
		}
		c.out = append(c.out, ',')
	}
}

// copyAs is Copy for a value all of whose texts stand at p.
func copyAs(dst, raw []byte, p Place, visit Visit) ([]byte, error) {
	c := copier{scanner: scanner{in: raw}, out: dst, visit: visit, place: p}
	if err := c.value(0); err != nil {
		return nil, err
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	return c.out, nil
}

// joined rewrites a text that may be one string or a list of strings: nbformat
// and MIME bundles write long texts as lists, which mean their concatenation
// (sep is ""), and tracebacks are lists of lines (sep is a newline). Any other
// value has its strings visited one by one.
func joined(dst, raw []byte, sep string, p Place, visit Visit) ([]byte, error) {
	raw = trim(raw)
	if len(raw) == 0 || raw[0] != '[' {
		return copyAs(dst, raw, p, visit)
	}
	parts, err := Elements(raw)
	if err != nil {
		return nil, err
	}
	var text []byte
	for i, part := range parts {
		if part[0] != '"' {
			return copyAs(dst, raw, p, visit)
		}
		if i > 0 {
			text = append(text, sep...)
		}
		text = unquote(text, part)
	}
	was := slices.Clone(text)
	got, err := visit(p, text)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(got, was) {
		return copyAs(dst, raw, p, func(_ Place, text []byte) ([]byte, error) { return text, nil })
	}
	dst = append(dst, '[')
	lines := bytes.SplitAfter(got, []byte("\n"))
	for i, line := range lines {
		if len(line) == 0 && i == len(lines)-1 && i > 0 {
			break
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		if sep != "" {
			line = bytes.TrimSuffix(line, []byte(sep))
		}
		dst = Quote(dst, line)
	}
	return append(dst, ']'), nil
}

// object rewrites the members of an object one by one: write appends the value
// of a member, given its name.
func object(dst []byte, members []Member, names bool, visit Visit, p Place, write func(dst []byte, m Member) ([]byte, error)) ([]byte, error) {
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		name := []byte(m.Name)
		if names {
			p.Kind = Name
			got, err := visit(p, name)
			if err != nil {
				return nil, err
			}
			name = got
		}
		dst = append(Quote(dst, name), ':')
		var err error
		if dst, err = write(dst, m); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

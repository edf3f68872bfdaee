package jupyter

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"sync"
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
	return membersInto(make([]Member, 0, 8), raw)
}

// membersInto is Members for callers with memory for some.
func membersInto(members []Member, raw []byte) ([]Member, error) {
	s := scanner{in: raw}
	s.space()
	if s.at >= len(raw) || raw[s.at] != '{' {
		return nil, malformed("an object is wanted")
	}
	err := s.object(1, func(name, value span) error {
		members = append(members, Member{nameOf(name.of(raw)), value.of(raw)})
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

// Copy appends raw, one JSON value, to dst, every string being what visit makes
// of it; what visit leaves as it is, and all else, is copied as it stands,
// except that what is not UTF-8 and surrogates that stand alone become U+FFFD.
// Names of members are visited as Name.
func Copy(dst, raw []byte, visit Visit) ([]byte, error) {
	return copyAs(dst, raw, Place{}, visit)
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
	i := 0
	for ; i+8 <= len(p); i += 8 {
		if m := specials(binary.LittleEndian.Uint64(p[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(p); i++ {
		if special[p[i]] {
			return i
		}
	}
	return len(p)
}

const (
	ones = 0x0101010101010101
	tops = 0x80 * ones // the highest bit of each byte
)

// specials sets the highest bit of the first byte of w that is a quote, a
// backslash or a control character. Of the bytes behind it, it tells nothing.
func specials(w uint64) uint64 {
	quote, slash := w^('"'*ones), w^('\\'*ones)
	return ((w - 0x20*ones) | (quote - ones) | (slash - ones)) & ^w & tops
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

// span is a part of what is read.
type span struct{ from, to int }

func (p span) of(raw []byte) []byte { return raw[p.from:p.to] }

// object passes over an object and tells each of its members; tell may be nil.
func (s *scanner) object(depth int, tell func(name, value span) error) error {
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
		name := span{from, s.at}
		if !seen.add(name.of(s.in)) {
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
			if err := tell(name, span{from, s.at}); err != nil {
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
	few  [16][]byte
	n    int // of few
	many map[string]struct{}
}

func (n *names) add(raw []byte) bool {
	name := raw[1 : len(raw)-1]
	if plainASCII(name) < len(name) {
		name = unquote(nil, raw)
	}
	if n.many == nil {
		for _, f := range n.few[:n.n] {
			if bytes.Equal(f, name) {
				return false
			}
		}
		if n.n < len(n.few) {
			n.few[n.n] = name
			n.n++
			return true
		}
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
	i := 0
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		if m := specials(w) | w&tops; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; special[c] || c >= utf8.RuneSelf {
			return i
		}
	}
	return len(p)
}

// common are names that members of messages have: they need no memory.
var common = func() map[string]string {
	m := map[string]string{}
	for _, list := range [][]string{headerNames, envelopeNames, {"name", "text", "execution_state"}} {
		for _, n := range list {
			m[n] = n
		}
	}
	return m
}()

// nameOf returns the name that raw, a string that was passed over, is.
func nameOf(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if n, ok := common[string(inner)]; ok {
		return n
	}
	if plainASCII(inner) == len(inner) {
		return string(inner)
	}
	return string(unquote(nil, raw))
}

// unquote appends the text of raw, a string that was passed over, to dst. What
// is not UTF-8 and surrogates that stand alone become U+FFFD, one each: that is
// what a browser shows.
func unquote(dst, raw []byte) []byte {
	dst, _ = unquoted(dst, raw)
	return dst
}

// unquoted is unquote; sound says that nothing became U+FFFD, so that raw has
// the same meaning for everybody.
func unquoted(dst, raw []byte) (_ []byte, sound bool) {
	sound = true
	in := raw[1 : len(raw)-1]
	for len(in) > 0 {
		n := plainASCII(in)
		dst = append(dst, in[:n]...)
		if in = in[n:]; len(in) == 0 {
			break
		}
		if in[0] != '\\' {
			r, size := utf8.DecodeRune(in)
			sound = sound && (r != utf8.RuneError || size > 1)
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
					r, sound = utf8.RuneError, false
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default: // a quote, a backslash, a slash
			dst = append(dst, c)
		}
		in = in[2:]
	}
	return dst, sound
}

// Plain reports whether the strings in raw, which is JSON, stand there as they
// are: without escapes, and in UTF-8.
func Plain(raw []byte) bool {
	return bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw)
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

// copier writes what it reads. What is not to be changed it copies as it
// stands, in long pieces: it was passed over strictly, and so has one reading.
type copier struct {
	scanner
	out     []byte
	done    int // in[:done] is written
	visit   Visit
	place   Place
	scratch []byte
}

// copyTo writes what comes before in[to].
func (c *copier) copyTo(to int) {
	c.out = append(c.out, c.in[c.done:to]...)
	c.done = to
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
		return c.text(c.place, span{from, c.at})
	}
	return c.scalar()
}

// text writes a string as the visitor has it. The scratch buffer is handed
// over, since the visitor may come back to us.
func (c *copier) text(p Place, at span) error {
	raw := at.of(c.in)
	inner, sound := raw[1:len(raw)-1], true
	if plainASCII(inner) < len(inner) {
		c.scratch, sound = unquoted(slices.Grow(c.scratch[:0], len(inner)), raw)
		inner = c.scratch
	}
	got, err := c.visit(p, inner)
	if err != nil {
		return err
	}
	if sound && len(got) == len(inner) && (len(got) == 0 || &got[0] == &inner[0] || bytes.Equal(got, inner)) {
		return nil
	}
	c.copyTo(at.from)
	c.out = Quote(c.out, got)
	c.done = at.to
	return nil
}

func (c *copier) copyObject(depth int) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	c.at++
	if c.space(); c.peek() == '}' {
		c.at++
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
		if err := c.text(name, span{from, c.at}); err != nil {
			return err
		}
		if c.space(); c.peek() != ':' {
			return malformed("a colon is wanted at byte %d", c.at)
		}
		c.at++
		if err := c.value(depth); err != nil {
			return err
		}
		more, err := c.comma('}')
		if !more {
			return err
		}
	}
}

func (c *copier) copyArray(depth int) error {
	if depth > maxDepth {
		return malformed("nested more than %d deep", maxDepth)
	}
	c.at++
	if c.space(); c.peek() == ']' {
		c.at++
		return nil
	}
	for {
		if err := c.value(depth); err != nil {
			return err
		}
		more, err := c.comma(']')
		if !more {
			return err
		}
	}
}

// copyAs is Copy for a value all of whose texts stand at p.
func copyAs(dst, raw []byte, p Place, visit Visit) ([]byte, error) {
	c := copiers.Get().(*copier)
	defer c.free()
	c.in, c.out, c.visit, c.place = raw, dst, visit, p
	if err := c.value(0); err != nil {
		return nil, err
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	c.copyTo(len(raw))
	return c.out, nil
}

// copiers are those that nobody needs now. They hold nothing but memory.
var copiers = sync.Pool{New: func() any { return new(copier) }}

// free gives a copier back.
func (c *copier) free() {
	scratch := c.scratch[:0]
	if cap(scratch) > 64<<10 {
		scratch = nil
	}
	*c = copier{scratch: scratch}
	copiers.Put(c)
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

// object rewrites the members of an object one by one, which Members has passed
// over: write appends the value of a member, given its name. What stands between
// them is copied.
func object(dst, raw []byte, names bool, visit Visit, p Place, write func(dst []byte, m Member) ([]byte, error)) ([]byte, error) {
	s := scanner{in: raw}
	if s.space(); s.peek() != '{' {
		return nil, malformed("an object is wanted")
	}
	p.Kind = Name
	done := 0
	err := s.object(1, func(name, value span) (err error) {
		m := Member{nameOf(name.of(raw)), value.of(raw)}
		got := []byte(m.Name)
		if names {
			if got, err = visit(p, got); err != nil {
				return err
			}
		}
		if inner := raw[name.from+1 : name.to-1]; !bytes.Equal(got, inner) || plainRun(inner) < len(inner) {
			dst = append(dst, raw[done:name.from]...)
			dst = Quote(dst, got)
			done = name.to
		}
		dst = append(dst, raw[done:value.from]...)
		done = value.to
		dst, err = write(dst, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(dst, raw[done:]...), nil
}

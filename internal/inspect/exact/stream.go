package exact

import "sync"

// A Stream finds secrets in text that arrives in pieces. It finds what
// [Set.Find] finds in the whole, however the text is cut. It is not safe for
// concurrent use. It keeps the end of the text that may belong to a match to
// come: a few hundred bytes for secrets of usual length, at most MaxSpan.
type Stream struct {
	set  *Set
	tail []byte // the end of the text
	seen int    // bytes before tail
}

// NewStream returns a Stream at the beginning of a text. A nil Set is allowed
// and finds nothing.
func (s *Set) NewStream() *Stream { return &Stream{set: s} }

// Feed takes the next piece, and appends to dst the matches that end in it.
// Places are counted from the beginning of the text. p is not kept.
func (s *Stream) Feed(dst []Match, p []byte) []Match {
	if s.set == nil {
		s.seen += len(p)
		return dst
	}
	text, after := p, len(s.tail)
	if after > 0 {
		joined := joints.Get().(*[]byte)
		defer joints.Put(joined)
		*joined = append(append((*joined)[:0], s.tail...), p...)
		text = *joined
	}
	dst = s.set.find(dst, text, after, s.seen)
	keep := 0
	for _, d := range s.set.domains {
		length, _ := d.reach(text, nil)
		keep = max(keep, length)
	}
	drop := len(text) - keep
	s.seen += drop
	if cap(s.tail) > 4*keep+4<<10 {
		s.tail = nil // an idle stream holds little
	}
	s.tail = append(s.tail[:0], text[drop:]...)
	return dst
}

// joints are memory for the end of a text with its next piece.
var joints = sync.Pool{New: func() any { return new([]byte) }}

// Partial says what of the text so far may be the beginning of a secret; see
// [Set.Partial].
func (s *Stream) Partial(least int) Partial { return s.set.Partial(s.tail, least) }

package inspect

import (
	"slices"
	"sync"
)

// whole looks at a text that is no longer than a piece, which a Stream would
// look at in one go as well. Nearly always nothing is masked in it: then it is
// returned itself, and nobody has copied it.
func (s *Set) whole(cfg ScanConfig, text []byte, discard bool) (out []byte, all []Finding, err error) {
	m := scanners.Get().(*streamMemory)
	m.open(StreamConfig{Set: s, ScanConfig: cfg})
	st := &m.Stream
	st.buf = text
	st.look(true)
	out = text
	if len(st.spans) > 0 {
		var told []Finding
		st.cfg.Report = func(f Finding) { told = append(told, f) }
		masks := slices.ContainsFunc(st.spans, func(f *found) bool { return f.mode >= Mask })
		if st.discard = discard || !masks; st.discard {
			st.release(nil, st.end())
		} else {
			out = st.release(make([]byte, 0, len(text)+64), st.end())
		}
		all, err = told, st.err
	}
	m.shut()
	scanners.Put(m)
	return out, all, err
}

// Quiet reports whether nothing can be found in text, nor in any part of it that
// does not begin or end within a word. It is for texts that stand side by side,
// such as the strings of a JSON object, and asks about all of them at once.
// false says nothing: then each must be looked at by itself.
//
// It is true when no rule came as far as a match at all, whatever its judgement,
// no known secret stands there, and the text has but one reading. That holds for
// every part of the text too: whether a rule comes that far depends on the bytes
// of the match, on no word going on before it, and on keywords, of which a part
// has no more than the whole.
func (s *Set) Quiet(cfg ScanConfig, text []byte) bool {
	if len(text) > piece || cfg.Kind != Document {
		return false
	}
	m := scanners.Get().(*streamMemory)
	m.open(StreamConfig{Set: s, ScanConfig: cfg})
	m.buf = text
	m.look(true)
	quiet := m.finds == 0 && m.nears == 0
	m.shut()
	scanners.Put(m)
	return quiet
}

// scanners are Streams that nobody needs now, and hold nothing.
var scanners = sync.Pool{New: func() any { return new(streamMemory) }}

// streamMemory is a Stream and what it always has, in one piece of memory.
type streamMemory struct {
	Stream
	first lane
	memos [1]*lane
	side  [sideLanes]side
	all   [sideLanes]*side
}

// open makes a Stream of it that has seen nothing.
func (m *streamMemory) open(cfg StreamConfig) {
	st := &m.Stream
	st.cfg, st.set, st.prefixes, st.reach = cfg, cfg.Set, cfg.Set.prefixes, cfg.Set.reach
	st.plain = st.set.trusts(cfg.Path)
	m.first.s = st
	m.memos[0] = &m.first
	st.lanes = m.memos[:]
	st.sides = m.all[:0]
	st.addSides(m)
}

// shut forgets everything, but keeps what memory the next text will need.
func (m *streamMemory) shut() {
	for _, d := range m.sides {
		d.stop()
	}
	matches, cands, marks, lives := m.matches[:0], m.first.cands, m.first.marks[:0], m.first.lives[:0]
	clear(cands)
	*m = streamMemory{}
	m.matches = matches
	m.first.cands, m.first.marks, m.first.lives = cands[:0], marks, lives
}

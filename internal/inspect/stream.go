package inspect

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/inspect/match"
	"github.com/baileyhq/bailey/internal/inspect/rules"
	"github.com/baileyhq/bailey/internal/inspect/view"
)

const (
	// piece is how much of a long text is looked at in one go.
	piece = 64 << 10
	// exactPriority puts known secrets before every rule.
	exactPriority = 1000
	// idle is how much memory a waiting stream keeps.
	idle = 1024
)

// ScanConfig says how to look at one text.
type ScanConfig struct {
	Exact *exact.Set // known secrets; nil means none
	User  string     // for allowances
	Path  string     // for allowances, and for rules about certain files
	// TrustPath applies what rule files say about paths to leave out
	// (node_modules, images, lock files): for people who scan their own files.
	TrustPath bool
	Kind      Kind
	Columns   int // of a terminal; 0 means unknown
	Rows      int // of a terminal; 0 means unknown
}

// place is where the text comes from.
func (c *ScanConfig) place() rules.Place { return rules.Place{Path: c.Path, Trust: c.TrustPath} }

// StreamConfig says how to look at one logical stream.
type StreamConfig struct {
	Set *Set
	ScanConfig
	// Report is called for each finding as soon as it is certain, in order of
	// their places. It is called from within the Stream's methods; nil means
	// not at all.
	Report func(Finding)
	// Sampling leaves out part of very long streams; the zero value means
	// nothing is left out.
	Sampling Sampling
}

// Sampling bounds the work on very long streams. After the first Full bytes,
// rules that match by what stands around a value (gitleaks' generic ones) are
// applied to one block of 64 KiB in Every, chosen by a keyed hash; all other
// rules, and known secrets, are applied to every byte.
type Sampling struct {
	Full  int64
	Every int
}

// A Stream looks at one logical stream. It is not safe for concurrent use.
//
// Text is released as soon as no rule can object to it any more. Between two
// calls a Stream keeps what it held back and a few hundred bytes of context.
type Stream struct {
	cfg      StreamConfig
	set      *Set
	prefixes *match.Prefixes
	reach    int
	plain    bool // the path is allowed: no patterns

	buf      []byte // what is held, after some context
	small    []byte // memory for that while the stream waits
	base     int64  // raw offset of buf[0]
	released int64  // everything before it is out, or masked
	masked   int64  // where the last mask ended
	spans    []*found
	reported [2]int64    // place of the last finding told
	told     [8][2]int64 // places of the last findings told, in no order
	sums     [8]Sum      // and what they were
	tells    int
	ends     [4][2]int64 // where the last secrets were that need no other reading
	ended    int
	sampled  int64
	discard  bool // nobody wants the output
	closed   bool
	err      error

	lanes   []*lane // the stream itself
	sides   []*side // the other ways to read it
	matches []exact.Match
	finds   int // how often something was found
	nears   int // how often a rule came as far as a match, or text had another reading
	notes   []notes
}

// NewStream returns a Stream that has seen nothing yet.
func NewStream(cfg StreamConfig) *Stream {
	m := new(streamMemory)
	m.open(cfg)
	return &m.Stream
}

// Write takes the next piece of the stream and appends to dst what may be
// released. p is not kept. The error is a [BlockedError]; after one nothing is
// released any more.
func (s *Stream) Write(dst, p []byte) ([]byte, error) {
	for len(p) > 0 && s.err == nil && !s.closed {
		n := min(len(p), piece)
		s.sample(int64(n))
		s.room(n)
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
		s.look(false)
		dst = s.release(dst, s.hold())
		s.trim()
	}
	s.rest()
	return dst, s.err
}

// room makes room for the next n bytes, in memory that others use as well.
func (s *Stream) room(n int) {
	if len(s.buf)+n <= cap(s.buf) {
		return
	}
	big := *windows.Get().(*[]byte)
	if cap(big) < len(s.buf)+n {
		big = make([]byte, 0, max(len(s.buf)+n, 8<<10))
	}
	if cap(s.buf) <= 2*idle {
		s.small = s.buf
	}
	s.buf = append(big[:0], s.buf...)
}

// windows are memory for text that is being looked at.
var windows = sync.Pool{New: func() any { return new([]byte) }}

// rest gives back what a stream does not need while it waits.
func (s *Stream) rest() {
	if len(s.buf) <= idle && cap(s.buf) > 2*idle && len(s.lanes) > 0 {
		big := s.buf
		s.buf = append(s.small[:0], big...)
		s.small = s.buf
		s.lanes[0].text = s.buf
		if cap(big) <= 2*piece {
			windows.Put(&big)
		}
	}
	if len(s.lanes) > 0 {
		l := s.lanes[0]
		l.forget(l.needed())
		if cap(l.marks) > 32 && len(l.marks) <= 32 {
			l.marks = slices.Clone(l.marks)
		}
		if cap(l.cands) > 8 && len(l.cands) == 0 {
			l.cands = nil
		}
		if len(l.lives) == 0 {
			l.lives = nil
		}
		if len(l.cands) == 0 {
			l.passed = nil
		}
		if len(s.spans) == 0 {
			s.spans = nil
		}
	}
	if cap(s.matches) > 64 {
		s.matches = nil
	}
}

// enough reports whether a rule that only tells has told enough of this part of
// the stream: a log in which every line has an address needs no finding for
// every line. Whole documents are told in full.
func (s *Stream) enough(r *rules.Compiled, at int64) bool {
	if s.cfg.Kind == Document {
		return false
	}
	for _, n := range s.notes {
		if n.rule == r {
			return n.block == at/piece && n.count >= notesPerPiece
		}
	}
	return false
}

// note counts a finding of a rule that only tells.
func (s *Stream) note(r *rules.Compiled, at int64) {
	i := slices.IndexFunc(s.notes, func(n notes) bool { return n.rule == r })
	if i < 0 {
		i = len(s.notes)
		s.notes = append(s.notes, notes{rule: r})
	}
	n := &s.notes[i]
	if n.block != at/piece {
		n.block, n.count = at/piece, 0
	}
	n.count++
}

// notesPerPiece is how many findings of a rule that masks nothing are told for
// each 64 KiB of a stream.
const notesPerPiece = 16

// notes counts the findings of a rule in one piece of the stream.
type notes struct {
	rule  *rules.Compiled
	block int64
	count int
}

// Held returns how many bytes wait.
func (s *Stream) Held() int { return int(s.end() - s.released) }

// Tick says that text has waited long enough: callers call it a moment (25 ms
// for terminals, 100 ms else) after a Write that left something held. What is
// less than half of a secret is released, the rest is masked.
func (s *Stream) Tick(dst []byte) ([]byte, error) {
	if s.err != nil || s.closed || s.Held() == 0 {
		return dst, s.err
	}
	s.glance()
	for _, l := range s.lanes {
		l.tick()
	}
	for _, d := range s.sides {
		if d.reading != nil {
			d.lane.tick()
		}
	}
	dst = s.release(dst, s.end()-int64(view.Incomplete(s.buf[s.released-s.base:])))
	s.trim()
	return dst, s.err
}

// Close ends the stream: everything held is decided. What is written or closed
// after that is ignored.
func (s *Stream) Close(dst []byte) ([]byte, error) {
	if s.err != nil || s.closed {
		return dst, s.err
	}
	s.look(true)
	dst = s.release(dst, s.end())
	for _, d := range s.sides {
		d.stop() // gives back what it borrowed
	}
	s.buf, s.lanes, s.sides, s.closed = nil, nil, nil, true
	s.base = s.released
	return dst, s.err
}

// Resize says how wide the terminal is from here on: what is broken into lines
// at its edge is put together again. 0 means unknown.
func (s *Stream) Resize(columns, rows int) {
	s.cfg.Columns, s.cfg.Rows = columns, rows
	for _, d := range s.sides {
		if d.reading != nil {
			d.reader.Resize(columns)
			if d.kind == view.Drawn {
				d.reader.Drawn(rows, s.cfg.Kind == Terminal)
			}
		}
	}
}

// Sampled returns how many bytes were looked at by part of the rules only.
func (s *Stream) Sampled() int64 { return s.sampled }

// end returns the raw offset of the end of what has come.
func (s *Stream) end() int64 { return s.base + int64(len(s.buf)) }

// look shows every lane the new text.
func (s *Stream) look(eof bool) {
	l := s.lanes[0]
	l.text, l.base = s.buf, s.base
	if !eof && s.cfg.Kind != Terminal {
		// What cannot be told yet, a backslash at the end, has not come yet: no
		// lane may go past it before the lane that it may begin.
		for _, d := range s.sides {
			l.text = l.text[:d.scout(l)]
		}
	}
	l.advance(eof)
	for _, d := range s.sides {
		d.advance(eof)
	}
	if !eof && s.cfg.Kind == Terminal {
		s.glance()
	}
}

// hold returns the raw offset up to which text may be released.
func (s *Stream) hold() int64 {
	at := s.base + int64(len(s.lanes[0].text))
	for _, l := range s.lanes {
		at = min(at, l.hold())
	}
	for _, d := range s.sides {
		at = min(at, d.hold())
	}
	if at < s.released {
		return s.released
	}
	return at - int64(view.Incomplete(s.buf[s.released-s.base:at-s.base]))
}

// least returns how much of a known secret must be there before text waits.
func (s *Stream) least() int {
	if s.cfg.Kind == Terminal {
		return rules.Interactive
	}
	return 1
}

// skip reports whether a rule does not apply at text[at].
func (s *Stream) skip(r *rules.Compiled, l *lane, at int) bool {
	if s.set.modes[r.Index] <= Off || s.plain || !r.Applies(s.cfg.Path) {
		return true
	}
	if s.cfg.Sampling.Every < 2 || r.Priority >= 0 {
		return false
	}
	from, _ := l.raw(at, at)
	return from >= s.cfg.Sampling.Full && !s.chosen(from/piece)
}

// sample counts what some rules will not see of the next n bytes.
func (s *Stream) sample(n int64) {
	if s.cfg.Sampling.Every < 2 {
		return
	}
	for at := max(s.end(), s.cfg.Sampling.Full); at < s.end()+n; {
		next := min((at/piece+1)*piece, s.end()+n)
		if !s.chosen(at / piece) {
			s.sampled += next - at
		}
		at = next
	}
}

// chosen reports whether a block is among those that are looked at by all
// rules.
func (s *Stream) chosen(block int64) bool {
	h := fnv.New64a()
	_, _ = h.Write(s.set.key)
	_ = binary.Write(h, binary.BigEndian, block)       // a hash does not fail
	return h.Sum64()%uint64(s.cfg.Sampling.Every) == 0 //nolint:gosec // Every is positive
}

// add takes a place that a lane found. It returns nil when it is known already.
func (s *Stream) add(f *found) *found {
	s.finds++
	if f.start == f.end && !s.late(f) {
		return nil
	}
	if f.end <= s.released {
		if f.lane == drawn && f.mode == Mask {
			f.mode = Alert // it is on the screen already
		}
		for _, t := range s.told {
			if f.start < t[1] && t[0] < f.end {
				return nil // another lane has told it
			}
		}
	}
	if f.mode < Mask && f.end <= s.released {
		if f.start >= s.reported[1] || f.end <= s.reported[0] {
			s.report(f, f.start, f.end, f.mode)
		}
		return nil
	}
	at, _ := slices.BinarySearchFunc(s.spans, f, func(a, b *found) int { return cmp.Compare(a.start, b.start) })
	for i := at; i < len(s.spans) && s.spans[i].start == f.start; i++ {
		if s.spans[i].end == f.end && s.spans[i].rule == f.rule {
			return nil
		}
	}
	s.spans = slices.Insert(s.spans, at, f)
	return f
}

// report tells one finding.
func (s *Stream) report(f *found, start, end int64, mode Mode) {
	s.reported = [2]int64{start, end}
	s.sums[s.tells%len(s.sums)] = f.sum
	s.told[s.tells%len(s.told)] = s.reported
	s.tells++
	if s.cfg.Report != nil {
		s.cfg.Report(Finding{Rule: f.rule, Mode: mode, Offset: start, Length: end - start, Sum: f.sum, Lane: f.lane})
	}
}

// cluster is findings that overlap: they get one mask and are told as one.
type cluster struct {
	n          int // spans[:n]
	start, end int64
	mask       [2]int64 // what is masked of it
	best       *found
	mode       Mode
	open       bool
	beyond     int
}

// next returns the first cluster.
func (s *Stream) next() cluster {
	c := cluster{start: s.spans[0].start, end: s.spans[0].end}
	for _, f := range s.spans {
		if c.n > 0 && f.start >= c.end {
			break
		}
		c.n++
		c.end = max(c.end, f.end)
		c.open = c.open || f.open
		if f.mode >= Mask {
			if c.mode < Mask {
				c.mask = [2]int64{f.start, f.end}
			}
			if f.end >= c.mask[1] {
				c.beyond = f.beyond
			}
			c.mask[1] = max(c.mask[1], f.end)
		}
		c.mode = max(c.mode, f.mode)
		if c.best == nil || better(f, c.best) {
			c.best = f
		}
	}
	return c
}

// better reports which of two overlapping findings is told.
func better(a, b *found) bool {
	if (a.mode >= Mask) != (b.mode >= Mask) {
		return a.mode >= Mask
	}
	if (a.lane == "") != (b.lane == "") && a.priority == b.priority {
		return a.lane == "" // as it is comes first
	}
	return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.start, a.start), cmp.Compare(a.end, b.end), cmp.Compare(b.rule, a.rule)) > 0
}

// release appends to dst what stands before upTo, masks applied.
func (s *Stream) release(dst []byte, upTo int64) []byte {
	for len(s.spans) > 0 {
		c := s.next()
		if c.mode < Mask {
			if c.end > upTo {
				break
			}
			if s.forgive(c.n) {
				continue
			}
			dst = s.copy(dst, c.end)
			s.report(c.best, c.start, c.end, c.mode)
			s.spans = slices.Delete(s.spans, 0, c.n)
			continue
		}
		if c.mask[0] >= upTo && !c.open {
			break
		}
		dst = s.copy(dst, c.mask[0])
		if c.end > upTo && !c.open {
			return dst
		}
		if s.forgive(c.n) {
			continue
		}
		if c.mode == Block {
			s.report(c.best, c.mask[0], c.mask[1], c.mode)
			s.err = &BlockedError{Rule: c.best.rule, Offset: c.mask[0]}
			s.spans = nil
			return dst
		}
		dst = s.mask(dst, c.best.rule, c.mask[1], c.beyond)
		if c.open {
			return dst // it goes on
		}
		s.report(c.best, c.mask[0], c.mask[1], c.mode)
		s.spans = slices.Delete(s.spans, 0, c.n)
	}
	return s.copy(dst, upTo)
}

// forgive drops the findings among the first n that are allowed, and what lies
// within them: one value may be known to several rules. It reports whether there
// were any.
func (s *Stream) forgive(n int) bool {
	if !slices.ContainsFunc(s.spans[:n], func(f *found) bool { return f.allowed }) {
		return false
	}
	some := slices.Clone(s.spans[:n])
	kept := slices.DeleteFunc(s.spans[:n:n], func(f *found) bool {
		return slices.ContainsFunc(some, func(a *found) bool { return a.allowed && a.start <= f.start && f.end <= a.end })
	})
	s.spans = append(kept, s.spans[n:]...)
	return true
}

// copy releases text as it is, up to the raw offset to.
func (s *Stream) copy(dst []byte, to int64) []byte {
	if to <= s.released {
		return dst
	}
	if !s.discard {
		dst = append(dst, s.buf[s.released-s.base:to-s.base]...)
	}
	s.released = to
	return dst
}

// mask releases a mask in place of the text up to the raw offset to. Of what is
// on the screen behind it and belongs to it, so many columns are drawn over; in
// terminals they are not, for programs there count on where the cursor is.
func (s *Stream) mask(dst []byte, rule string, to int64, beyond int) []byte {
	if to <= s.released {
		return dst
	}
	if !s.discard {
		again := s.masked > 0 && s.masked == s.released
		text := s.buf[s.released-s.base : to-s.base]
		from := len(dst)
		dst = appendMask(dst, rule, text, s.cfg.Kind, again)
		if beyond > 0 && s.cfg.Kind != Terminal {
			for n := utf8.RuneCount(text) + beyond - (len(dst) - from); n > 0; n-- {
				dst = append(dst, '*')
			}
		}
	}
	s.hide(s.released, to)
	s.released, s.masked = to, to
	return dst
}

// trim forgets text that nobody needs any more.
func (s *Stream) trim() {
	if s.err != nil {
		for _, d := range s.sides {
			d.stop()
		}
		s.buf, s.lanes, s.sides, s.spans = nil, nil, nil, nil
		s.base = s.released
		return
	}
	l := s.lanes[0]
	need := min(s.released, l.needed())
	for _, d := range s.sides {
		d.trim()
		if d.parent == nil {
			need = min(need, d.needed(l))
		}
	}
	n := int(need - s.base)
	if n > 0 {
		rest := s.buf[n:]
		s.buf = append(s.buf[:0], rest...)
		s.base += int64(n)
		l.drop(n)
		l.base = s.base
	}
	l.text = s.buf
}

// Scan returns what the rules find in a whole text, by offset.
func (s *Set) Scan(cfg ScanConfig, data []byte) []Finding {
	if len(data) <= piece {
		_, all, _ := s.whole(cfg, data, true) // a block is among the findings
		return all
	}
	var all []Finding
	st := NewStream(StreamConfig{Set: s, ScanConfig: cfg, Report: func(f Finding) { all = append(all, f) }})
	st.discard = true
	if _, err := st.Write(nil, data); err == nil {
		_, _ = st.Close(nil)
	}
	return all
}

// Redact returns data with its findings masked, and the findings: what a
// Stream makes of it. When nothing is masked it may return data itself. The
// error is a [BlockedError] when a rule with mode block matched; what stands
// before it is returned.
func (s *Set) Redact(cfg ScanConfig, data []byte) ([]byte, []Finding, error) {
	if len(data) <= piece {
		return s.whole(cfg, data, false)
	}
	var all []Finding
	st := NewStream(StreamConfig{Set: s, ScanConfig: cfg, Report: func(f Finding) { all = append(all, f) }})
	out, err := st.Write(make([]byte, 0, len(data)), data)
	if err == nil {
		out, err = st.Close(out)
	}
	return out, all, err
}

// Explain returns where patterns matched without a finding, and why not.
func (s *Set) Explain(cfg ScanConfig, data []byte) []Miss {
	var misses []Miss
	for _, r := range s.book.All {
		for _, m := range r.Find(data) {
			reason := s.book.Judge(cfg.place(), data, m)
			if low := bytes.ToLower(data); reason == "" && len(r.Keywords) > 0 &&
				!slices.ContainsFunc(r.Keywords, func(k string) bool { return bytes.Contains(low, []byte(k)) }) {
				reason = "no keyword"
			}
			if reason != "" {
				misses = append(misses, Miss{Rule: r.ID, Offset: int64(m.Start), Length: int64(m.End - m.Start), Reason: reason})
			}
		}
	}
	return misses
}

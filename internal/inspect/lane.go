package inspect

import (
	"bytes"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/inspect/match"
	"github.com/baileyhq/bailey/internal/inspect/rules"
)

const (
	// stride is how far a candidate runs before it is asked whether it is
	// getting anywhere; the answer depends on its own start only.
	stride = 4096
	// longestMask bounds what one match swallows.
	longestMask = 64 << 10
	// behind is how much text before a candidate its judgement may look at.
	behind = 384
	// ahead is how much text behind a match a boundary or a context may look at.
	ahead = 32
	// markReach is how far before a match the keyword may stand of a rule whose
	// pattern does not hold it.
	markReach = 4096
	// longestLead is how much of a word before a match belongs to it.
	longestLead = 50
	// nearBefore is how far before a keyword rules that have no literal begin.
	nearBefore = 128
)

// A lane is one way to read a stream: as it is, or as a terminal shows it, and
// so on. Its text is a window of what has been read; whatever it decides
// depends on that text and on nothing else, neither on how the text arrived
// nor on when.
type lane struct {
	s    *Stream
	name string
	text []byte
	base int64   // position of text[0] in the lane
	from []int64 // raw offset of each byte of text; nil when lane and stream are the same
	to   []int64 // raw offset behind it

	searched int // text[:searched] has been searched for literals
	cands    []cand
	marks    []mark // keywords that were seen lately
	lives    []life
	sures    []life // of the candidates that stand for a crowd
	passed   map[station]hosts
	nearTo   int64 // up to here a keyword is near of a rule that has no literal
	gatedTo  int64 // up to here such rules have been tried
	exact    *exact.Stream
	exactAt  int64 // lane position at which exact began
	exactTo  int   // text[:exactTo] has been searched for known secrets
	partial  exact.Partial
	tail     int // length of the beginning of a literal at the end of text
	loose    bool
}

// A cand is a match in the making.
type cand struct {
	rule     *rules.Compiled
	start    int64       // lane position
	pos      int64       // how far it has come
	state    match.State // dead: its end is known
	entered  int64       // where the secret may begin; -1: not yet
	accepted bool        // it may have been whole already
	loose    bool        // it waited too long: nothing waits for it any more
	wait     int64       // state is dead: decide when the text has come this far
	end      int64       // state is dead: where it ended
	left     bool        // its state is dead, and its end is exactly end
	mask     *found      // its mask is out; it swallows what still belongs to it
	pem      *rules.PEM  // it is a private key, of which the header has come
	sure     bool        // it stands for a crowd: it is masked as far as it comes, whatever it is
	opened   bool        // its opening matches the expression, assertions and all
}

// found is a place to report and to mask.
type found struct {
	start, end int64 // raw offsets
	rule       string
	priority   int
	mode       Mode
	sum        Sum
	lane       string
	open       bool // it still grows
	allowed    bool // an administrator lets it pass, and what lies within it
	beyond     int  // columns behind it that are on the screen already and belong to it
}

// raw returns the raw offsets that text[start:end] came from.
func (l *lane) raw(start, end int) (int64, int64) {
	if l.from == nil {
		return l.base + int64(start), l.base + int64(end)
	}
	if start >= len(l.from) {
		at := l.s.end()
		return at, at
	}
	if end <= start {
		return l.from[start], l.from[start]
	}
	return l.from[start], l.to[end-1]
}

// advance looks at the text that was added since the last time. At the end of
// the stream, everything is decided.
func (l *lane) advance(eof bool) {
	if len(l.cands) > 0 {
		old := l.cands
		kept := old[:0]
		for i := range old {
			c := old[i]
			if l.run(&c, eof) {
				kept = append(kept, c)
			} else {
				l.over(&c)
			}
		}
		clear(old[len(kept):])
		l.cands = kept
	}
	if l.searched < len(l.text) {
		l.search(eof)
		l.searched = len(l.text)
	}
	l.findExact(eof)
	l.loose = false
	if !eof {
		l.tail = l.s.prefixes.Tail(l.text)
	}
}

// search begins the candidates of text[l.searched:].
func (l *lane) search(eof bool) {
	set := l.s.set
	if len(l.passed) > 0 {
		old := l.base + int64(l.searched) - behind
		maps.DeleteFunc(l.passed, func(at station, _ hosts) bool { return at.pos < old })
	}
	if len(l.sures) > 0 {
		old := l.base + int64(l.searched) - behind
		l.sures = slices.DeleteFunc(l.sures, func(f life) bool { return f.end < old })
	}
	if len(l.lives) > 0 {
		old := l.base + int64(l.searched) - nearBefore
		l.lives = slices.DeleteFunc(l.lives, func(f life) bool { return f.end < old })
	}
	set.book.Index.Find(l.text, l.searched, func(literal, at int) { l.literal(&set.book.Anchors[literal], at, eof) })
	set.book.Free.Starts.Find(l.text, l.searched, len(l.text), func(i, at int) { l.try(set.book.Free.Rules[i], at, eof) })
	if from, to := max(l.gatedTo, l.base), min(l.nearTo, l.base+int64(len(l.text))); from < to {
		set.book.Gated.Starts.Find(l.text, int(from-l.base), int(to-l.base), func(i, at int) { l.try(set.book.Gated.Rules[i], at, eof) })
		l.gatedTo = to
	}
}

// literal tries the rules of a literal that stands at text[at].
func (l *lane) literal(as *rules.Anchors, at int, eof bool) {
	for _, k := range as.Marks {
		l.mark(k, l.base+int64(at))
	}
	inWord := at > 0 && isWord(l.text[at-1]) && !escapedBefore(l.text, at)
	whole := inWord && l.text[at-1] != '_' && isWord(l.text[at]) // the word goes on here
	if ask := as.At(inWord, whole); ask != nil && !ask.Hopeless(l.text[at:]) {
		for _, r := range ask.Rules {
			l.try(r, at, eof)
		}
	}
	for i := range as.Moved {
		l.before(&as.Moved[i], at, eof)
	}
}

// before tries a rule whose matches begin some bytes before text[at].
func (l *lane) before(a *rules.Anchor, at int, eof bool) {
	first := at
	for first > 0 && at-first < a.Max && a.Before.Has(l.text[first-1]) {
		first--
	}
	for start := first; start <= at-a.Min; start++ {
		if a.Min < a.Max && a.Rule.Bounded && start > 0 && isWord(l.text[start-1]) && isWord(l.text[start]) && !escapedBefore(l.text, start) {
			continue
		}
		if !a.Rule.Matcher.Hopeless(l.text[start:min(len(l.text), at+rules.Glance)]) {
			l.try(a.Rule, start, eof)
		}
	}
}

// try begins a candidate at text[at] unless the rule does not apply.
func (l *lane) try(r *rules.Compiled, at int, eof bool) {
	pos := l.base + int64(at)
	switch {
	case l.s.skip(r, l, at):
	case !l.crowded(r, pos):
		l.begin(r, at, eof, false)
	default:
		l.s.nears++
		if l.s.set.modes[r.Index] >= Mask && !slices.ContainsFunc(l.sures, func(f life) bool { return f.rule == r && f.start <= pos && pos < f.end }) {
			l.begin(r, at, eof, true)
		}
	}
}

const (
	// crowd is how many matches of one rule may be in the making at a place
	// where another would begin. Nobody has more there but to hide one among
	// them or to keep us busy: what follows is masked, in doubt.
	crowd = 32
	// lasting is how far a match in the making must have come to be counted.
	lasting = 64
	// stations are so far apart. Matches in the making that have not reached
	// their secret and are in the same state there have the same future: two
	// stand for all that began behind them, nearer than apart.
	stationEvery = 64
	apart        = stride / 2
)

// A station is a place that candidates of a rule pass in one state.
type station struct {
	rule  *rules.Compiled
	pos   int64
	state match.State
}

// hosts are where candidates began that passed a station.
type hosts struct {
	starts [4]int64
	n      int
}

// hosted reports whether others stand for a candidate that is at a station. A
// candidate whose opening the expression does not match, of which the automaton
// knows no better, must not stand for one that it does; it is given up.
func (l *lane) hosted(c *cand) bool {
	if !c.opened {
		ok, known := c.rule.Matcher.Opens(l.text, int(c.start-l.base), int(c.pos-l.base))
		if !known {
			return false
		}
		if c.opened = ok; !ok {
			return true
		}
	}
	at := station{c.rule, c.pos, c.state}
	h := l.passed[at]
	before := 0
	for _, start := range h.starts[:h.n] {
		if start <= c.start && c.start-start < apart {
			before++
		}
	}
	if before >= 2 {
		l.s.nears++
		return true
	}
	if h.n < len(h.starts) {
		if l.passed == nil {
			l.passed = map[station]hosts{}
		}
		h.starts[h.n] = c.start
		h.n++
		l.passed[at] = h
	}
	return false
}

// life is where a candidate that came far began and ended.
type life struct {
	rule       *rules.Compiled
	start, end int64
}

// crowded reports whether too many matches of the rule are in the making at a
// position. The answer depends on what stands before that alone.
func (l *lane) crowded(r *rules.Compiled, at int64) bool {
	n := 0
	for i := range l.cands {
		if c := &l.cands[i]; c.rule == r && !c.sure && c.start+lasting <= at {
			n++
		}
	}
	if len(l.lives) == 0 {
		return n >= crowd
	}
	l.lives = slices.DeleteFunc(l.lives, func(f life) bool {
		if f.rule == r && f.start+lasting <= at && at < f.end {
			n++
		}
		return f.rule == r && f.end+nearBefore < at
	})
	return n >= crowd
}

// over remembers a candidate that is none any more, and masks one that stands
// for a crowd.
func (l *lane) over(c *cand) {
	switch {
	case c.sure:
		l.setSure(c, c.pos)
		if from := int(c.start - l.base); c.mask == nil && c.pos > c.start {
			l.report(c.rule, from, int(c.pos-l.base))
		}
	case c.pos-c.start > lasting:
		l.lives = append(l.lives, life{c.rule, c.start, c.pos})
	}
}

// setSure notes how far a candidate that stands for a crowd has come.
func (l *lane) setSure(c *cand, end int64) {
	for i := range l.sures {
		if f := &l.sures[i]; f.rule == c.rule && f.start == c.start {
			f.end = end
			return
		}
	}
	l.sures = append(l.sures, life{c.rule, c.start, end})
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// escapedBefore reports whether text[i-1] is the letter of an escaped line end.
func escapedBefore(text []byte, i int) bool {
	return i > 1 && text[i-2] == '\\' && (text[i-1] == 'n' || text[i-1] == 'r' || text[i-1] == 't')
}

// begin tries a rule at text[start:].
func (l *lane) begin(r *rules.Compiled, start int, eof, sure bool) {
	c := cand{rule: r, start: l.base + int64(start), pos: l.base + int64(start), state: r.Matcher.Start(), entered: -1, sure: sure}
	if c.state.Entered() {
		c.entered = c.start
	}
	if l.run(&c, eof) {
		l.cands = append(l.cands, c)
		if sure {
			l.setSure(&c, 1<<62) // it goes on
		}
	} else {
		l.over(&c)
	}
}

// run takes a candidate to the end of the text. It reports whether the
// candidate is still one.
func (l *lane) run(c *cand, eof bool) bool {
	if c.pem != nil {
		return l.runPEM(c, eof)
	}
	end := l.base + int64(len(l.text))
	for !c.state.Dead() && c.pos < end {
		stop := min(end, c.start+((c.pos-c.start)/stride+1)*stride)
		if c.entered < 0 && c.mask == nil {
			stop = min(stop, (c.pos/stationEvery+1)*stationEvery)
		}
		in := -1
		if c.entered >= 0 {
			in = 0
		}
		state, at, accepted, in := c.rule.Matcher.Run(c.state, l.text[c.pos-l.base:stop-l.base], in, c.accepted)
		switch {
		case in < 0:
			c.entered = -1
		case in > 0 || c.entered < 0:
			c.entered = c.pos + int64(in)
		}
		if accepted > 0 {
			c.accepted = true
			l.s.nears++
		}
		c.pos += int64(at)
		c.state = state
		if c.mask != nil {
			l.swallow(c)
			if c.state.Dead() {
				c.mask.open = false
				return false
			}
			continue
		}
		if c.state.Dead() {
			if !c.accepted {
				return false
			}
			if c.rule.PEM {
				c.pem = &rules.PEM{Sure: c.pos}
				return l.runPEM(c, eof)
			}
			c.end = c.pos
			return l.decide(c, eof, false)
		}
		if c.pos < stop || in < 0 && c.accepted { // it left the secret, and may have been whole
			left := *c
			left.end, left.left = c.pos, true
			if found, again := l.left(&left); found {
				*c = left
				return again
			}
			c.accepted = false
			continue
		}
		if (c.pos-c.start)%stride == 0 && !l.worthwhile(c) {
			return false
		}
		if c.pos%stationEvery == 0 && c.entered < 0 && !c.accepted && !c.sure && c.mask == nil && l.hosted(c) {
			return false
		}
	}
	if c.mask != nil {
		if eof {
			c.mask.open = false
		}
		return !eof
	}
	if c.state.Dead() { // it waits for what stands behind it
		return l.decide(c, eof, false)
	}
	if !eof {
		return true
	}
	if !c.accepted || c.rule.PEM {
		return false
	}
	c.end = c.pos
	return l.decide(c, true, false)
}

// runPEM takes a candidate that has its header through the body. It reports
// whether the key goes on.
func (l *lane) runPEM(c *cand, eof bool) bool {
	p := c.pem
	end := l.base + int64(len(l.text))
	more := true
	for more && c.pos < end {
		more = p.Step(l.text[c.pos-l.base], c.pos) && !p.Ended && c.pos-c.start < longestMask
		c.pos++
		if c.mask == nil && p.Key() {
			if c.mask = l.report(c.rule, int(c.start-l.base), int(p.Sure-l.base)); c.mask == nil || c.mask.allowed {
				return false
			}
			c.mask.open = true
		}
	}
	if c.mask != nil {
		_, to := l.raw(int(p.Sure-l.base)-1, int(p.Sure-l.base))
		c.mask.end = max(c.mask.end, to)
		c.mask.open = more && !eof
	}
	return more && !eof
}

// worthwhile decides about a candidate that has become long.
func (l *lane) worthwhile(c *cand) bool {
	if c.entered < 0 || c.pos-c.start >= longestMask {
		return false
	}
	if !c.accepted || c.rule.MaxLength > 0 && c.rule.MaxLength < stride {
		return false
	}
	saved := *c
	c.end = c.pos
	l.decide(c, false, true)
	if c.mask == nil {
		*c = saved
	}
	return true
}

// swallow lets the mask of a candidate grow with it.
func (l *lane) swallow(c *cand) {
	from := max(0, int(c.end-l.base))
	to := int(c.pos - l.base)
	if i := bytes.IndexAny(l.text[from:to], " \t\r\n'\"`;"); i >= 0 {
		c.state, to = match.State{}, from+i
	}
	c.end = l.base + int64(to)
	if to > from {
		_, end := l.raw(from, to)
		c.mask.end = max(c.mask.end, end)
	}
	if c.pos-c.start >= longestMask {
		c.state = match.State{}
	}
}

// decide judges a candidate whose end is known, or that must be judged now. It
// reports whether the candidate must be kept.
func (l *lane) decide(c *cand, eof, now bool) bool {
	start, end := int(c.start-l.base), int(c.end-l.base)
	if l.s.set.modes[c.rule.Index] < Mask {
		if at, _ := l.raw(start, start); l.s.enough(c.rule, at) {
			return false
		}
	}
	if !now && !c.left {
		end = min(end+1, len(l.text)) // the byte that ended it tells \b and $
	}
	if !l.mayBeMarked(c.rule, max(0, start-longestLead), end) {
		return false
	}
	at := c.rule.Matcher.Match(l.text[:end], start)
	if at == nil {
		return false
	}
	m := c.rule.HitOf(at)
	if c.rule.LooksAhead() && !eof && !now && len(l.text) < m.To+ahead {
		c.state, c.wait = match.State{}, l.base+int64(m.To+ahead)
		return true
	}
	if c.rule.Matcher.Lead {
		for n := 0; n < longestLead && m.From > 0 && (isWord(l.text[m.From-1]) || l.text[m.From-1] == '.' || l.text[m.From-1] == '-'); n++ {
			m.From--
		}
	}
	if !l.marked(c.rule, m) {
		return false
	}
	lo, hi := max(0, m.From-rules.LineBefore), min(len(l.text), m.To+ahead)
	if now {
		hi = end
	}
	m.From, m.To, m.Start, m.End = m.From-lo, m.To-lo, m.Start-lo, m.End-lo
	if l.s.set.book.Judge(l.s.cfg.place(), l.text[lo:hi], m) != "" {
		return false
	}
	f := l.report(c.rule, lo+m.Start, lo+m.End)
	if now && f != nil && !f.allowed && !c.state.Dead() {
		f.open = true
		c.mask = f
		_, f.end = l.raw(0, int(c.pos-l.base))
		return true
	}
	return false
}

// left judges a candidate when the text leaves its secret. found is false when
// it was none so far, and again true when it must be judged again later.
func (l *lane) left(c *cand) (found, again bool) {
	before := l.s.finds
	again = l.decide(c, false, false)
	return again || l.s.finds > before, again
}

// marked reports whether a keyword that the rule's pattern does not hold was
// seen.
func (l *lane) marked(r *rules.Compiled, m rules.Hit) bool {
	if len(r.Marks) == 0 || l.markedBefore(r, m.From, m.To) {
		return true
	}
	low := bytes.ToLower(l.text[m.From:m.To])
	return slices.ContainsFunc(r.Keywords, func(k string) bool { return bytes.Contains(low, []byte(k)) })
}

// markedBefore reports whether a keyword of the rule was seen near before a
// match.
func (l *lane) markedBefore(r *rules.Compiled, from, to int) bool {
	for _, seen := range l.marks {
		if seen.at <= l.base+int64(to) && seen.at+markReach >= l.base+int64(from) && slices.Contains(r.Marks, seen.k) {
			return true
		}
	}
	return false
}

// mayBeMarked reports whether a match within text[from:to] could be marked. It
// costs less than the expression that says where the match is.
func (l *lane) mayBeMarked(r *rules.Compiled, from, to int) bool {
	return len(r.Marks) == 0 || l.markedBefore(r, from, to) ||
		slices.ContainsFunc(r.Keywords, func(k string) bool { return mayHold(l.text[from:to], k) })
}

// mayHold reports whether text holds a word in lower case, whatever the case of
// its letters; or something beyond ASCII, which may fold to anything.
func mayHold(text []byte, word string) bool {
	for i, c := range text {
		if c >= utf8.RuneSelf {
			return true
		}
		if (c == word[0] || c|0x20 == word[0]) && i+len(word) <= len(text) && bytes.EqualFold(text[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return word[0] >= utf8.RuneSelf
}

// mark is a keyword that no pattern holds, and where it stood.
type mark struct {
	at int64
	k  int
}

// mark remembers a keyword. Of those that stand close together, the first is
// enough.
func (l *lane) mark(k int, at int64) {
	if l.s.set.book.Gates[k] {
		if l.nearTo < at-nearBefore {
			l.gatedTo = max(l.gatedTo, at-nearBefore)
		}
		l.nearTo = at + markReach + stride
	}
	for _, m := range slices.Backward(l.marks) {
		if m.at+markReach/8 <= at {
			break
		}
		if m.k == k {
			return
		}
	}
	if n := len(l.marks); n > 0 && n == cap(l.marks) {
		l.forget(at - piece)
	}
	l.marks = append(l.marks, mark{at, k})
}

// forget drops the keywords that are too far away for what begins at a position.
func (l *lane) forget(at int64) {
	old := 0
	for old < len(l.marks) && l.marks[old].at+markReach < at {
		old++
	}
	l.marks = slices.Delete(l.marks, 0, old)
}

// report records that text[start:end] was found.
func (l *lane) report(r *rules.Compiled, start, end int) *found {
	if l.s.set.modes[r.Index] < Mask {
		at, _ := l.raw(start, start)
		l.s.note(r, at)
	}
	sum := l.s.set.sum(l.text[start:end])
	f := &found{rule: r.ID, priority: r.Priority, mode: l.s.set.modes[r.Index], sum: sum, lane: l.name}
	f.allowed = l.s.set.allowance(&l.s.cfg.ScanConfig, r.ID, sum)
	f.start, f.end = l.raw(start, end)
	f.beyond = l.beyond(start, end, f.end)
	switch {
	case l.name == "":
		l.s.ends[l.s.ended%len(l.s.ends)] = [2]int64{f.start, f.end}
		l.s.ended++
	case l.name == joinedLane && l.s.endsItself(f):
		return nil
	}
	return l.s.add(f)
}

// endsItself reports whether the line break in a finding of the joined lane is
// no wrap: the secret was whole at the end of its line, and what stands on the
// next is a plain word, or begins like the secret does, as in a list of tokens
// of which each has as many bytes as a line of a narrow terminal.
func (s *Stream) endsItself(f *found) bool {
	for _, e := range s.ends {
		if e[0] != f.start || e[1] >= f.end || e[0] < s.base {
			continue
		}
		whole, rest := s.buf[e[0]-s.base:e[1]-s.base], s.buf[e[1]-s.base:f.end-s.base]
		next := bytes.TrimLeft(rest, "\r\n")
		if len(next) == len(rest) || len(next) == 0 {
			continue
		}
		after := s.buf[f.end-s.base:]
		if len(whole) >= 4 && bytes.HasPrefix(s.buf[f.end-s.base-int64(len(next)):], whole[:4]) {
			return true
		}
		if len(next) >= 3 && (len(after) == 0 || !isWord(after[0])) && !bytes.ContainsFunc(next[1:], func(r rune) bool { return r < 'a' || r > 'z' }) && isWord(next[0]) {
			return true
		}
	}
	return false
}

// findExact looks for known secrets.
func (l *lane) findExact(eof bool) {
	set := l.s.cfg.Exact
	if set == nil || l.s.set.most <= Off {
		l.exactTo = len(l.text)
		return
	}
	switch {
	case l.exact == nil && eof: // all there is is here
		l.exactAt = l.base + int64(l.exactTo)
		l.s.matches = set.Find(l.s.matches[:0], l.text[l.exactTo:])
	case l.exact == nil:
		l.exact = set.NewStream()
		l.exactAt = l.base + int64(l.exactTo)
		fallthrough
	default:
		l.s.matches = l.exact.Feed(l.s.matches[:0], l.text[l.exactTo:])
	}
	for _, m := range l.s.matches {
		name := secretPrefix + m.Name
		mode := l.s.set.exactMode(name)
		if mode <= Off {
			continue
		}
		sum := l.s.set.sum([]byte(name))
		if l.s.set.allowance(&l.s.cfg.ScanConfig, name, sum) {
			continue
		}
		f := &found{rule: name, priority: exactPriority, mode: mode, sum: sum, lane: l.name}
		start, end := int(l.exactAt+int64(m.Start)-l.base), int(l.exactAt+int64(m.End)-l.base)
		f.start, f.end = l.raw(start, end)
		f.beyond = l.beyond(start, end, f.end)
		l.s.add(f)
	}
	l.exactTo = len(l.text)
	if !eof {
		l.partial = l.exact.Partial(l.s.least())
	}
}

// hold returns the raw offset from which on text must wait for this lane.
func (l *lane) hold() int64 {
	end := len(l.text)
	at := l.s.end()
	keep := func(start int) {
		if start < end {
			from, _ := l.raw(max(start, 0), end)
			at = min(at, from)
		}
	}
	for i := range l.cands {
		c := &l.cands[i]
		if c.pem != nil && c.mask != nil && !c.loose {
			keep(int(c.pem.Sure - l.base))
		}
		if c.sure && !c.loose && c.mask == nil {
			keep(int(c.start - l.base))
			continue
		}
		if c.entered < 0 || c.loose || c.mask != nil || l.s.set.modes[c.rule.Index] < Mask {
			continue
		}
		if l.s.cfg.Kind == Terminal && !c.accepted && c.pos-c.entered < int64(c.rule.Shows) {
			continue
		}
		keep(int(c.entered - l.base))
	}
	if l.loose {
		return at
	}
	if l.tail > 0 && l.s.cfg.Kind != Terminal {
		keep(end - l.tail)
	}
	if n := l.s.reach; n > 0 && l.s.cfg.Kind != Terminal {
		run := 0
		for run < min(n, end) && isToken(l.text[end-1-run]) {
			run++
		}
		keep(end - run)
	}
	keep(end - l.partial.Length)
	return at
}

// isToken reports whether c stands in the part of a secret that comes before
// its literal.
func isToken(c byte) bool {
	return isWord(c) || c == '~' || c == '.' || c == '-' || c == '=' || c == '+' || c == '/' || c == ':' || c == '@'
}

// needed returns the position of the oldest text that the lane may still look
// at.
func (l *lane) needed() int64 {
	end := l.base + int64(len(l.text))
	at := end - int64(l.partial.Length)
	at = min(at, l.base+int64(l.exactTo))
	for i := range l.cands {
		switch c := &l.cands[i]; {
		case c.mask == nil:
			at = min(at, c.start)
		case c.pem != nil:
			at = min(at, c.pem.Sure-1)
		}
	}
	return at - behind
}

// drop forgets the first n bytes of text.
func (l *lane) drop(n int) {
	l.base += int64(n)
	l.searched -= n
	l.exactTo = max(0, l.exactTo-n)
}

// tick decides about everything that waits: it is masked when at least half of
// a secret is there, and not waited for any longer when not.
func (l *lane) tick() {
	kept := l.cands[:0]
	for i := range l.cands {
		c := l.cands[i]
		if l.tickCand(&c) {
			kept = append(kept, c)
		}
	}
	clear(l.cands[len(kept):])
	l.cands = kept
	l.loose = true
	if p := l.partial; p.Length > 0 && p.Share >= 0.5 && l.s.set.most >= Mask {
		f := &found{rule: "secret", priority: exactPriority, mode: l.s.set.most, lane: l.name}
		f.start, f.end = l.raw(len(l.text)-p.Length, len(l.text))
		l.s.add(f)
	}
}

func (l *lane) tickCand(c *cand) bool {
	if c.rule.PEM {
		c.loose = true
		return true
	}
	if c.mask != nil || c.entered < 0 || l.s.set.modes[c.rule.Index] < Mask {
		return true
	}
	if c.state.Dead() { // only what stands behind it is missing
		l.decide(c, true, false)
		return false
	}
	if c.accepted {
		c.end = c.pos
		if l.decide(c, false, true); c.mask != nil {
			return true
		}
	}
	if c.rule.Inside && 2*int(c.pos-c.start) >= c.rule.Matcher.MinLength {
		f := &found{rule: c.rule.ID, priority: c.rule.Priority, mode: l.s.set.modes[c.rule.Index], lane: l.name, open: true}
		f.start, f.end = l.raw(int(c.entered-l.base), int(c.pos-l.base))
		if f = l.s.add(f); f != nil {
			c.mask, c.end = f, c.pos
			return true
		}
	}
	c.loose = true
	return true
}

package inspect

import (
	"bytes"
	"sync"

	"github.com/baileyhq/bailey/internal/inspect/view"
)

const (
	// lead is how much text before the first byte that is shown differently a
	// lane begins with, and linger how much after the last such byte it goes on;
	// joined and escaped are those of lanes that join lines and undo escapes.
	lead    = 448
	linger  = 1024
	joined  = 256
	escaped = 512
	// lingerDrawn is how long a terminal's screen is remembered after the cursor
	// was moved last.
	lingerDrawn = 16 << 10
	// softly is how long after a character was taken back the next one may be.
	softly = 64
	// sideText is how much a lane reads before what it does not need is moved away.
	sideText = 4 << 10
	// maxReading is how much memory is kept for the next.
	maxReading = 256 << 10
)

// A side is a lane that is read only where it differs from what it is read
// from. Where it begins and ends depends on the text alone, not on how the text
// arrived.
type side struct {
	s      *Stream
	kind   view.Lane
	name   string
	parent *side // nil: it is read from the stream

	// The places are positions in what is read.
	looked  int64 // up to here it was looked for differences
	fed     int64 // up to here it was read
	until   int64 // up to here it will be
	stopped int64 // where it ended last

	*reading // nil: it is not read here
}

// A reading is what reading a side takes.
type reading struct {
	reader view.Reader
	seen   view.Seen
	lane   lane
}

// readings are those that nobody needs now.
var readings = sync.Pool{New: func() any {
	return &reading{seen: view.Seen{Text: make([]byte, 0, sideText), From: make([]int64, 0, sideText), To: make([]int64, 0, sideText)}}
}}

// sideLanes is how many lanes there are beside a stream.
const sideLanes = 9

// joinedLane is the name of the lane in which broken lines are whole.
const joinedLane = "joined"

// addSides adds the lanes beside the stream itself, parents first.
func (s *Stream) addSides(m *streamMemory) {
	add := func(kind view.Lane, name string, parent *side) *side {
		d := &m.side[len(s.sides)]
		*d = side{s: s, kind: kind, name: name, parent: parent}
		s.sides = append(s.sides, d)
		return d
	}
	add(view.Visible, "terminal", nil)
	add(view.Joined, joinedLane, nil)
	if s.cfg.Kind != Terminal {
		add(view.Markup, "html", nil)
	}
	escapes := add(view.Escapes, "escaped", nil)
	add(view.Escapes, "escaped twice", escapes)
	add(view.Base64, "base64", nil)
	add(view.Base64, "base64", escapes)
	add(view.Hex, "hex", nil)
	add(view.Drawn, drawn, nil)
}

// drawn is the name of the lane that sees what was overwritten.
const drawn = "drawn"

// source returns the lane that is read, nil if there is none now.
func (d *side) source() *lane {
	switch {
	case d.parent == nil:
		return d.s.lanes[0]
	case d.parent.reading == nil:
		return nil
	}
	return &d.parent.lane
}

// advance reads what has come.
func (d *side) advance(eof bool) {
	src := d.source()
	switch {
	case src == nil:
		d.reset()
	case d.kind == view.Base64 || d.kind == view.Hex:
		d.advanceRuns(src, eof)
	default:
		d.advanceText(src, eof)
	}
}

// reset forgets everything: what is read has ended.
func (d *side) reset() {
	if d.reading != nil || d.looked > 0 || d.fed > 0 {
		d.stop()
		*d = side{s: d.s, kind: d.kind, name: d.name, parent: d.parent}
	}
}

// stop ends the lane.
func (d *side) stop() {
	if m := d.reading; m != nil {
		m.lane.restart()
		m.lane = lane{}
		m.seen.Text, m.seen.From, m.seen.To = m.seen.Text[:0], m.seen.From[:0], m.seen.To[:0]
		if cap(m.seen.Text) <= maxReading {
			readings.Put(m)
		}
		d.reading = nil
	}
	d.stopped = d.fed
}

// scout returns how much of the stream it is certain about where a lane that is
// not read would have to begin.
func (d *side) scout(src *lane) int {
	if d.parent != nil || d.reading != nil || d.kind == view.Base64 || d.kind == view.Hex {
		return len(src.text)
	}
	from := int(max(d.looked-src.base, 0))
	if from >= len(src.text) {
		return len(src.text)
	}
	at, sure := d.kind.Differs(src.text, from, d.s.cfg.Columns)
	if at >= 0 {
		return len(src.text)
	}
	d.looked = src.base + int64(sure)
	return sure
}

func (d *side) advanceText(src *lane, eof bool) {
	end := src.base + int64(len(src.text))
	for {
		if d.reading == nil {
			from := max(d.looked, src.base)
			if from >= end {
				return
			}
			at, sure := d.kind.Differs(src.text, int(from-src.base), d.s.cfg.Columns)
			if at < 0 {
				d.looked = src.base + int64(sure)
				return
			}
			d.looked = src.base + int64(at) + 1
			d.begin(max(d.looked-1-lead, d.stopped, src.base))
			d.until = d.looked - 1 + d.linger()
		}
		for d.looked < min(d.until, end) {
			at, sure := d.kind.Differs(src.text[:min(d.until+16, end)-src.base], int(d.looked-src.base), d.s.cfg.Columns)
			if at < 0 || src.base+int64(at) >= d.until {
				d.looked = max(d.looked, min(src.base+int64(sure), d.until))
				break
			}
			d.looked = src.base + int64(at) + 1
			d.until = max(d.until, d.looked-1+d.linger())
		}
		limit := min(end, d.until)
		over := eof && limit == end
		d.feed(src, limit, over)
		d.lane.advance(over)
		if limit < d.until || d.looked < d.until && !eof || over {
			return
		}
		d.stop()
	}
}

func (d *side) linger() int64 {
	switch d.kind {
	case view.Joined:
		return joined
	case view.Escapes:
		return escaped
	case view.Drawn:
		if d.s.cfg.Kind == Terminal {
			return lingerDrawn
		}
	case view.Visible, view.Markup, view.Base64, view.Hex:
	}
	return linger
}

// begin begins to read at a position.
func (d *side) begin(at int64) {
	d.s.nears++
	d.fed = at
	d.reading = readings.Get().(*reading)
	d.reader.Reset(d.kind, d.s.cfg.Columns, at)
	if d.kind == view.Drawn {
		d.reader.Drawn(d.s.cfg.Rows, d.s.cfg.Kind == Terminal)
	}
	d.lane.s, d.lane.name = d.s, d.name
	d.lane.from, d.lane.to = d.seen.From, d.seen.To
}

// feed reads up to a position.
func (d *side) feed(src *lane, to int64, eof bool) {
	from, n := int(d.fed-src.base), int(to-src.base)
	d.seen.Low = len(d.seen.Text)
	if from < n {
		if src.from == nil {
			d.reader.Read(&d.seen, src.text[from:n])
		} else {
			d.reader.ReadSeen(&d.seen, &view.Seen{Text: src.text[:n], From: src.from[:n], To: src.to[:n]}, from)
		}
		d.fed = to
	}
	if eof {
		d.reader.Close(&d.seen)
	}
	if d.seen.Low < d.lane.searched {
		d.lane.restart()
	}
	l := &d.lane
	l.text, l.from, l.to = d.seen.Text, d.seen.From, d.seen.To
	if last := lastRune(l.text); d.soft() && !eof && len(l.text)-len(last) >= l.searched {
		l.text = bytes.TrimSuffix(l.text, last)
	}
}

// soft reports whether the last character may well be taken back.
func (d *side) soft() bool {
	p := d.reader.Popped()
	return p > 0 && d.s.end()-p < softly
}

func lastRune(text []byte) []byte {
	n := len(text)
	for n > 0 && len(text)-n < 4 {
		n--
		if text[n]&0xc0 != 0x80 {
			break
		}
	}
	return text[n:]
}

// advanceRuns reads runs of letters, and skips what is none.
func (d *side) advanceRuns(src *lane, eof bool) {
	end := src.base + int64(len(src.text))
	if d.fed < src.base {
		d.fed = src.base
	}
	for d.fed < end {
		at := int(d.fed - src.base)
		if d.reading == nil || !d.reader.InRun() {
			next, ok := view.NextRun(src.text, at)
			d.fed = src.base + int64(next)
			if !ok {
				break
			}
			at = next
			if over := view.RunEnd(src.text, at); over < len(src.text) && !d.kind.Begins(src.text[at:over]) {
				d.fed = src.base + int64(over)
				continue
			}
			if d.reading != nil && d.fed >= d.until {
				d.lane.advance(true)
				d.stop()
			}
			if d.reading == nil {
				d.begin(d.fed)
			}
			d.reader.Skip(d.fed)
		}
		stop := min(view.RunEnd(src.text, at)+1, len(src.text))
		d.feed(src, src.base+int64(stop), false)
		d.until = d.fed + linger
		if len(d.lane.text) > d.lane.searched {
			d.lane.advance(false)
		}
	}
	if d.reading == nil {
		return
	}
	if eof {
		d.feed(src, d.fed, true)
	}
	over := eof || !d.reader.InRun() && d.fed >= d.until
	if over || len(d.lane.text) > d.lane.searched {
		d.lane.advance(over)
	}
	if over && !eof {
		d.stop() // the next run is too far away to belong to this
	}
}

// hold returns the raw offset from which on text must wait for this lane.
func (d *side) hold() int64 {
	at := d.s.end()
	if d.reading != nil {
		at = min(at, d.lane.hold())
		if l := &d.lane; len(l.text) < len(l.from) { // soft
			at = min(at, l.from[len(l.text)])
		}
		if from, ok := d.reader.Pending(); ok && d.s.cfg.Kind != Terminal {
			at = min(at, from)
		}
	}
	src := d.source()
	if src == nil || d.s.cfg.Kind == Terminal {
		return at
	}
	// What may begin to differ waits too, and letters that may become a run.
	waits := d.looked
	if d.kind == view.Base64 || d.kind == view.Hex {
		waits = d.fed
	} else if d.reading != nil {
		return at
	}
	if n := int(waits - src.base); n >= 0 && n < len(src.text) {
		from, _ := src.raw(n, n+1)
		at = min(at, from)
	}
	return at
}

// needed returns the position of the oldest text of the source that may still
// be read.
func (d *side) needed(src *lane) int64 {
	at := src.base + int64(len(src.text))
	if d.kind == view.Base64 || d.kind == view.Hex {
		return min(at, d.fed)
	}
	at = min(at, d.looked-lead)
	if d.reading != nil {
		at = min(at, d.fed)
	}
	return at
}

// trim forgets text of the lane that nobody needs any more.
func (d *side) trim() {
	if d.reading == nil || len(d.seen.Text) < sideText {
		return
	}
	l := &d.lane
	need := l.needed()
	for _, other := range d.s.sides {
		if other.parent == d {
			need = min(need, other.needed(l))
		}
	}
	n := int(min(need-l.base, int64(len(l.text))))
	if n <= 0 {
		return
	}
	d.seen.Text = append(d.seen.Text[:0], d.seen.Text[n:]...)
	d.seen.From = append(d.seen.From[:0], d.seen.From[n:]...)
	d.seen.To = append(d.seen.To[:0], d.seen.To[n:]...)
	l.drop(n)
	l.text, l.from, l.to = d.seen.Text[:len(l.text)-n], d.seen.From, d.seen.To
}

// restart lets a lane search its text again, because the end of it was taken
// back.
func (l *lane) restart() {
	for i := range l.cands {
		if m := l.cands[i].mask; m != nil {
			m.open = false
		}
	}
	l.cands, l.lives, l.sures, l.passed = nil, nil, nil, nil
	l.gatedTo = l.base
	l.searched, l.exactTo = 0, 0
	l.exact = nil
	l.partial.Length, l.partial.Share, l.tail = 0, 0, 0
}

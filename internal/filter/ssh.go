package filter

import (
	"bytes"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/inspect"
)

// A PipeKind says what is done about what a [Pipe] finds.
type PipeKind int

// The kinds of pipes.
const (
	// Screen is a terminal's output: masks keep their columns, and nothing
	// waits longer than typing bears.
	Screen PipeKind = iota
	// Text is output that a person or a program reads as text: it is masked.
	Text
	// Guess is Text, until the bytes turn out to be none: from there on it is
	// Watched, by known secrets alone.
	Guess
	// Watched passes unchanged, byte for byte, for it is a file or some
	// program's protocol: findings are reported as an alert, and a rule with
	// mode block ends it. In what begins as no text only known secrets are
	// looked for, in the bytes as they are: what a terminal or a browser would
	// make of them is a question for text.
	Watched
	// Unseen passes without a look: its parts are looked at elsewhere.
	Unseen
	// Guarded is Watched, and ends with the first finding that would be masked.
	Guarded
)

// A Pipe is one direction of one byte stream under inspection. It is not safe
// for concurrent use.
type Pipe struct {
	w    way
	kind PipeKind
	off  bool

	stream  *inspect.Stream
	shadow  *inspect.Stream
	known   *known // in place of both, in what is no text
	sterner bool   // a finding was one that this kind does not let pass
	rule    string
	err     error
	seen    int64
}

// Pipe opens a stream of a route. columns is the width of a Screen, 0 if it is
// not known; path is the file that it is, if it is one.
func (s *Scope) Pipe(route Route, input bool, kind PipeKind, columns int, path string) *Pipe {
	v := s.view()
	p := &Pipe{w: way{scope: s, route: route, input: input, path: path}, kind: kind}
	if kind == Unseen || v.settings.Mode == inspect.Off || input && v.settings.TrustInput {
		p.off = true
		return p
	}
	how := inspect.Batch
	if kind == Screen {
		how = inspect.Terminal
	}
	cfg := inspect.StreamConfig{Set: v.set, ScanConfig: p.w.scan(v, how), Sampling: v.settings.Sampling}
	cfg.Columns = columns
	cfg.Report = p.found
	p.stream = inspect.NewStream(cfg)
	p.shadow = p.w.shadowed(v, how)
	return p
}

// found reports a finding as what comes of it here.
func (p *Pipe) found(f inspect.Finding) {
	if p.kind == Watched || p.kind == Guarded || p.w.input {
		if f.Mode == inspect.Mask && p.kind == Guarded {
			p.sterner, p.rule = true, f.Rule
		} else if f.Mode == inspect.Mask {
			f.Mode = inspect.Alert
		}
	}
	p.w.report(f, false)
}

// whole reports whether the stream passes as it came.
func (p *Pipe) whole() bool { return p.kind == Watched || p.kind == Guarded || p.w.input }

// Write takes the next bytes and returns what may go on; it may return data
// itself. An error is a [Refusal]: nothing passes any more.
func (p *Pipe) Write(data []byte) ([]byte, error) {
	if p.off || p.err != nil || len(data) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return data, nil
	}
	var early []byte
	if p.kind == Guess && isBinary(data, p.seen == 0) {
		var err error
		if early, err = p.becomeWatched(); err != nil {
			return nil, p.fail(err)
		}
	}
	if p.seen == 0 && (p.kind == Watched || p.kind == Guarded) && isBinary(data, true) {
		p.exactly()
	}
	p.seen += int64(len(data))
	var out []byte
	err := p.w.guarded(func() (err error) {
		if p.known != nil {
			return p.known.look(data, p.found)
		}
		if out, err = p.stream.Write(nil, data); err == nil && p.shadow != nil {
			_, err = p.shadow.Write(nil, data)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, p.fail(err)
	case p.sterner:
		return nil, p.fail(&inspect.BlockedError{Rule: p.rule})
	case p.whole():
		if len(early) == 0 {
			return data, nil
		}
		return append(early, data...), nil
	}
	return out, nil
}

// becomeWatched lets go of what waits: it was not text.
func (p *Pipe) becomeWatched() ([]byte, error) {
	var rest []byte
	err := p.w.guarded(func() (err error) {
		rest, err = p.stream.Close(nil)
		return err
	})
	p.kind = Watched
	p.exactly()
	p.known.after(rest)
	return rest, err
}

// Resize says how large the Screen is from here on; 0 rows: unknown.
func (p *Pipe) Resize(columns, rows int) {
	if p.kind != Screen || p.off || columns <= 0 {
		return
	}
	p.stream.Resize(columns, rows)
	if p.shadow != nil {
		p.shadow.Resize(columns, rows)
	}
}

// exactly goes on with known secrets alone: patterns are for text.
func (p *Pipe) exactly() {
	v := p.w.scope.view()
	p.stream, p.shadow = nil, nil
	p.known = &known{set: v.set, cfg: p.w.scan(v, inspect.Document)}
}

func (p *Pipe) fail(err error) error {
	p.err = p.w.refusal(err)
	return p.err
}

// Due returns how long what waits may wait; 0: nothing waits.
func (p *Pipe) Due() time.Duration {
	if p.off || p.err != nil || p.whole() || p.stream.Held() == 0 {
		return 0
	}
	if p.kind == Screen {
		return terminalHold
	}
	return kernelHold
}

// Tick lets go of, or masks, what has waited for long enough.
func (p *Pipe) Tick() ([]byte, error) {
	if p.off || p.err != nil || p.whole() {
		return nil, p.err
	}
	return p.last(func() ([]byte, error) { return p.stream.Tick(nil) })
}

// Close is the end of the stream. It returns what waited.
func (p *Pipe) Close() ([]byte, error) {
	if p.off || p.err != nil {
		return nil, p.err
	}
	if p.known != nil {
		return nil, nil // nothing waits
	}
	out, err := p.last(func() ([]byte, error) { return p.stream.Close(nil) })
	if p.sterner && err == nil {
		err = p.fail(&inspect.BlockedError{Rule: p.rule})
	}
	if n := p.stream.Sampled(); n > 0 {
		p.w.scope.filter.cfg.Report(Finding{Subject: p.w.scope.subject, Route: p.w.route, Input: p.w.input, Sampled: n})
	}
	if p.whole() {
		return nil, err
	}
	return out, err
}

func (p *Pipe) last(f func() ([]byte, error)) (out []byte, err error) {
	err = p.w.guarded(func() (err error) {
		out, err = f()
		return err
	})
	if err != nil {
		return nil, p.fail(err)
	}
	return out, nil
}

// isBinary reports whether bytes are no text: a NUL anywhere, or, at the very
// beginning of a stream, what no UTF-8 text begins with.
func isBinary(data []byte, first bool) bool {
	if bytes.IndexByte(data, 0) >= 0 {
		return true
	}
	return first && len(data) >= shortest && !isText(data)
}

// known looks for known secrets in bytes that are no text and pass as they are.
// It finds what package exact does, however the bytes are cut, at many times the
// speed of a stream that is read in every way in which text can be.
type known struct {
	set  *inspect.Set // judges what was found
	cfg  inspect.ScanConfig
	tail []byte // the end of what has come, which may be the beginning of a secret
}

// toldOfOne is how often one secret is told in one piece.
const toldOfOne = 16

// after says what came before the first piece, and was looked at.
func (k *known) after(before []byte) {
	k.tail = append(k.tail[:0], before[len(before)-k.cfg.Exact.Hold(before, 1):]...)
}

// look looks at the next piece. The error is a [inspect.BlockedError].
func (k *known) look(piece []byte, found func(inspect.Finding)) error {
	if k.cfg.Exact == nil {
		return nil
	}
	text, old := piece, len(k.tail)
	if old > 0 {
		joined := joints.Get().(*[]byte)
		defer joints.Put(joined)
		*joined = append(append((*joined)[:0], k.tail...), piece...)
		text = *joined
	}
	var told map[string]int
	var blocked error
	end := old // what ends before it was told
	for _, m := range k.cfg.Exact.Find(nil, text) {
		if m.End <= end || told[m.Name] >= toldOfOne {
			continue
		}
		if told == nil {
			told = map[string]int{}
		}
		end = m.End
		told[m.Name]++
		for _, f := range k.set.Scan(k.cfg, text[m.Start:m.End]) {
			found(f)
			if f.Mode == inspect.Block && blocked == nil {
				blocked = &inspect.BlockedError{Rule: f.Rule}
			}
		}
	}
	k.tail = append(k.tail[:0], text[len(text)-k.cfg.Exact.Hold(text, 1):]...)
	return blocked
}

// joints are memory for the end of a stream with its next piece.
var joints = sync.Pool{New: func() any { return new([]byte) }}

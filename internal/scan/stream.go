package scan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect"
)

// recent is how much of a stream's past is kept to say on which line a finding
// stands: findings are told when the text behind them is certain.
const recent = 4 << 20

// stream looks at a text that is too large for memory.
func (l *look) stream(ctx context.Context, r io.Reader) []Finding {
	l.s.count(1, 0)
	var (
		found []Finding
		past  past
	)
	cfg := l.config()
	cfg.Kind = inspect.Batch
	stream := inspect.NewStream(inspect.StreamConfig{
		Set: l.s.cfg.Set.With(inspect.Overrides{Ceiling: inspect.Alert}), ScanConfig: cfg,
		Report: func(f inspect.Finding) {
			f.Mode = l.s.modeOf(f.Rule)
			if f.Mode < l.s.cfg.Least {
				return
			}
			text, before := past.around(f.Offset, f.Length)
			if text != nil && marked(text, f.Offset-before) {
				return
			}
			n := l.finding(f, nil)
			n.Line, n.Column = past.at(f.Offset)
			if b := l.s.cfg.Baseline; b != nil && text != nil && f.Offset+f.Length-before <= int64(len(text)) {
				value := text[f.Offset-before : f.Offset-before+f.Length]
				n.Known = b.seen(f.Rule, value)
				b.note(f.Rule, l.name, value)
			}
			found = append(found, n)
		},
	})
	var out []byte
	chunk := make([]byte, 1<<20)
	in := &patient{ctx, r}
	for {
		n, err := in.Read(chunk)
		past.add(chunk[:n])
		var serr error
		out, serr = stream.Write(out[:0], chunk[:n])
		if errors.Is(err, io.EOF) && serr == nil {
			break
		}
		if err = errors.Join(err, serr); err != nil {
			l.problem(err)
			break
		}
	}
	if _, err := stream.Close(out[:0]); err != nil {
		l.problem(err)
	}
	return found
}

// modeOf returns the mode a rule has in the Set.
func (s *Scanner) modeOf(rule string) inspect.Mode {
	for _, r := range s.cfg.Set.Rules() {
		if r.ID == rule {
			return r.Mode
		}
	}
	return inspect.Mask
}

// A past is the newest part of a stream, with the number of lines before it.
type past struct {
	text  []byte
	start int64 // offset of text
	lines int   // line ends before text
}

func (p *past) add(chunk []byte) {
	p.text = append(p.text, chunk...)
	if over := len(p.text) - 2*recent; over > 0 {
		cut := len(p.text) - recent
		p.lines += bytes.Count(p.text[:cut], []byte("\n"))
		p.start += int64(cut)
		p.text = append(p.text[:0], p.text[cut:]...)
	}
}

// around returns the text kept and its offset, or nil when the finding lies
// before it.
func (p *past) around(offset, length int64) ([]byte, int64) {
	if offset < p.start || offset+length > p.start+int64(len(p.text)) {
		return nil, 0
	}
	return p.text, p.start
}

// at returns the line and the column of an offset, or zeros when it is past.
func (p *past) at(offset int64) (line, column int) {
	if offset < p.start || offset > p.start+int64(len(p.text)) {
		return 0, 0
	}
	before := p.text[:offset-p.start]
	start := bytes.LastIndexByte(before, '\n') + 1
	return p.lines + bytes.Count(before, []byte("\n")) + 1, 1 + utf8.RuneCount(before[start:])
}

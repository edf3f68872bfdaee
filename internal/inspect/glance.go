package inspect

import (
	"slices"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/view"
)

// glance looks at the row that is being drawn on as it stands now, when
// something stands behind the cursor: nobody knows when the stroke will end, and
// until then it is all on the screen. Of what is found, what has not gone out
// yet is masked; when all has, it is told.
func (s *Stream) glance() {
	for _, d := range s.sides {
		if d.kind != view.Drawn || d.reading == nil {
			continue
		}
		row, at, cursor, ok := d.reader.Glance(nil, nil)
		if !ok {
			continue
		}
		cfg := s.cfg.ScanConfig
		cfg.Kind = Document
		for _, f := range s.set.Scan(cfg, row) {
			if f.Mode < Mask {
				continue // told when the stroke ends
			}
			late := found{start: -1, rule: f.Rule, mode: f.Mode, sum: f.Sum, lane: drawn}
			last := int64(0)
			for _, from := range at[f.Offset : f.Offset+f.Length] {
				last = max(last, from)
				if from >= s.released && (late.start < 0 || from < late.start) {
					late.start = from
				}
			}
			late.end = last + 1
			if late.start < 0 {
				late.start = last
			}
			if over := int(f.Offset + f.Length); over > cursor {
				late.beyond = utf8.RuneCount(row[max(cursor, int(f.Offset)):over])
			}
			_ = s.add(&late)
			if late.end <= s.released {
				for _, from := range at[f.Offset : f.Offset+f.Length] {
					d.reader.Hide(from, from+1) // told once
				}
			}
		}
	}
}

// beyond returns how many columns of text[start:end] stand behind what is drawn
// just now, which ends at a raw offset.
func (l *lane) beyond(start, end int, at int64) int {
	if l.name != drawn {
		return 0
	}
	n := end
	for n > start && l.from[n-1] == at && l.to[n-1] == at {
		n--
	}
	return utf8.RuneCount(l.text[n:end])
}

// late decides about a finding of which nothing was drawn just now: it stood
// there before, and only what was drawn beside it tells what it is. It is told
// once; nothing of it can be masked any more, but a stream can still be ended.
func (s *Stream) late(f *found) bool {
	if f.lane != drawn || f.allowed || slices.Contains(s.sums[:], f.sum) ||
		slices.ContainsFunc(s.spans, func(g *found) bool { return g.sum == f.sum }) {
		return false
	}
	if f.mode == Block {
		f.end++
		return true
	}
	s.report(f, f.start, f.end, min(f.mode, Alert))
	return false
}

// hide takes what is masked off the screens that are remembered: nobody sees it.
func (s *Stream) hide(from, to int64) {
	for _, d := range s.sides {
		if d.kind == view.Drawn && d.reading != nil {
			d.reader.Hide(from, to)
		}
	}
}

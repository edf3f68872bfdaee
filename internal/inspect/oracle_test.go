package inspect

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/baileyhq/bailey/internal/inspect/exact"
)

type span struct {
	start, end int
	rule       string
	mode       Mode
	priority   int
}

func (s *Set) redactWhole(cfg ScanConfig, data []byte) ([]byte, []Finding, error) {
	var spans []span
	for _, m := range cfg.Exact.Find([]exact.Match(nil), data) {
		spans = append(spans, span{m.Start, m.End, "secret:" + m.Name, s.exact, 100})
	}
	low := bytes.ToLower(data)
	for i, r := range s.rules {
		if s.modes[i] <= Off || r.path != nil && !r.path.MatchString(cfg.Path) {
			continue
		}
		if len(r.Keywords) > 0 && !slices.ContainsFunc(r.Keywords, func(k string) bool { return bytes.Contains(low, []byte(k)) }) {
			continue
		}
		for _, m := range r.find(data) {
			if s.judge(&cfg, data, m) == "" {
				spans = append(spans, span{m.start, m.end, r.ID, s.modes[i], r.Priority})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end), cmp.Compare(b.priority, a.priority))
	})
	var out []byte
	var found []Finding
	at := 0
	for i := 0; i < len(spans); {
		best, end, mode := spans[i], spans[i].end, spans[i].mode
		j := i + 1
		for ; j < len(spans) && spans[j].start < end; j++ {
			end = max(end, spans[j].end)
			mode = max(mode, spans[j].mode)
			if spans[j].priority > best.priority {
				best = spans[j]
			}
		}
		sum := s.sum(data[best.start:best.end])
		start := spans[i].start
		i = j
		if s.allowance(&cfg, best.rule, sum) {
			continue
		}
		found = append(found, Finding{Rule: best.rule, Mode: mode, Offset: int64(start), Length: int64(end - start), Sum: sum})
		if mode == Block {
			return append(out, data[at:start]...), found, &BlockedError{Rule: best.rule, Offset: int64(start)}
		}
		if mode == Mask {
			out = append(append(out, data[at:start]...), maskText(best.rule)...)
			at = end
		}
	}
	return append(out, data[at:]...), found, nil
}

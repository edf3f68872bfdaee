package guard

// Unreported tells of refusals that no [Verdict.Report] has told of, because
// nobody came again after them: of each limit how many, and the prefix of the
// last one, which is empty when the limit's counter had to make room for
// others. What was refused less than a minute ago is told only with all, as
// before the end. Report must not call the Guard.
func (g *Guard) Unreported(all bool, report func(prefix string, refused int)) {
	now := g.now()
	look := func(e *entry) {
		if e.refused > 0 && (all || now >= e.nextReport) {
			report(e.from, e.refused)
			e.refused, e.nextReport = 0, now+reportEvery
		}
	}
	g.globalMu.Lock()
	look(&g.global)
	g.globalMu.Unlock()
	for _, t := range []*table{g.counters, g.knowns, g.tokens} {
		for i := range t.shards {
			s := &t.shards[i]
			s.mu.Lock()
			for _, e := range s.byKey {
				look(e)
			}
			if s.lost > 0 {
				report("", s.lost)
				s.lost = 0
			}
			s.mu.Unlock()
		}
	}
}

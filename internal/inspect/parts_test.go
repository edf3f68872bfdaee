package inspect

import (
	"testing"

	"github.com/baileyhq/bailey/internal/inspect/view"
)

// BenchmarkPart is the parts of looking at a text, one by one.
func BenchmarkPart(b *testing.B) {
	s := rulesOf(b)
	for name, text := range map[string][]byte{"log": logText(benchSize), "source": sourceText(b, benchSize)} {
		part := func(what string, f func()) {
			b.Run(what+"/"+name, func(b *testing.B) {
				m := newMeter(b)
				for b.Loop() {
					m.pass(f)
				}
				m.report(len(text))
			})
		}
		none := func(int, int) {}
		part("index", func() { s.book.Index.Find(text, 0, none) })
		part("starts", func() { s.book.Free.Starts.Find(text, 0, len(text), none) })
		part("gated", func() { s.book.Gated.Starts.Find(text, 0, len(text), none) })
		part("literals", func() {
			l := &lane{s: NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}}), text: text}
			s.book.Index.Find(text, 0, func(literal, at int) { l.literal(&s.book.Anchors[literal], at, true) })
		})
		for kind, name := range map[view.Lane]string{view.Visible: "visible", view.Joined: "joined", view.Markup: "markup", view.Escapes: "escapes"} {
			part(name, func() {
				for at := 0; at >= 0; {
					if at, _ = kind.Differs(text, at, 80); at >= 0 {
						at++
					}
				}
			})
		}
		part("runs", func() {
			for at, ok := view.NextRun(text, 0); ok; at, ok = view.NextRun(text, view.RunEnd(text, at)) {
			}
		})
	}
}

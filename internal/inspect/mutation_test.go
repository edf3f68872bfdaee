package inspect

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect/rules"
)

// mutate changes, takes out, doubles and puts in a few bytes.
func mutate(rng *rand.Rand, text []byte) []byte {
	text = slices.Clone(text)
	for range 1 + rng.IntN(3) {
		if len(text) == 0 {
			break
		}
		at := rng.IntN(len(text))
		switch rng.IntN(5) {
		case 0:
			text[at] = byte(' ' + rng.IntN(95))
		case 1:
			text = slices.Delete(text, at, at+1)
		case 2:
			text = slices.Insert(text, at, text[rng.IntN(len(text))])
		case 3:
			if c := text[at] | 0x20; c >= 'a' && c <= 'z' {
				text[at] ^= 0x20
			}
		case 4:
			text = slices.Insert(text, at, " \n=:'\"\t-_"[rng.IntN(9)])
		}
	}
	return text
}

// What a rule's plain regular expression finds in the mutants of its positives,
// the search, the automata and the stream find too.
func TestMutantsAreFoundByBoth(t *testing.T) {
	s := rulesOf(t)
	rng := rand.New(rand.NewPCG(11, 12))
	byID := map[string]*rules.Compiled{}
	for _, r := range s.book.All {
		byID[r.ID] = r
	}
	all := positives(t, s)
	ids := make([]string, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	tried, both := 0, 0
	for _, id := range ids {
		r := byID[id]
		if r.Path != "" || r.PEM {
			continue // other conditions, and more than the expression
		}
		only := s.With(Overrides{Modes: onlyMode(s, id)})
		texts := all[id]
		for n, example := range texts[:min(len(texts), 3)] {
			for k := range 12 {
				text := mutate(rng, []byte(example))
				if k%2 == 0 {
					text = slices.Concat(logText(300+n*50), []byte("\n"), text, []byte("\n"), logText(200))
				}
				low := bytes.ToLower(text)
				if !slices.ContainsFunc(r.Keywords, func(w string) bool { return bytes.Contains(low, []byte(w)) }) {
					continue
				}
				tried++
				if _, found := s.book.TryAlone(r, text); !found {
					continue
				}
				both++
				if found := only.Scan(ScanConfig{}, text); len(found) == 0 {
					t.Errorf("rule %s does not find in a stream what its expression finds: %q", id, text)
				}
			}
		}
	}
	t.Logf("%d mutants, %d of them found by both", tried, both)
}

package inspect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/baileyhq/bailey/internal/secret"
)

var defaultSet = sync.OnceValues(func() (*Set, error) { return Compile(Config{Key: secret.New("test key")}) })

func rulesOf(t testing.TB) *Set {
	t.Helper()
	s, err := defaultSet()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// positives returns texts that the rules must find, by rule: their own
// examples, and for rules that have none, texts made from their patterns that
// the plain regular expression and the judgement agree on.
func positives(t testing.TB, s *Set) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, r := range s.book.All {
		all[r.ID] = slices.Clone(r.Examples)
		if len(r.Examples) > 0 || r.Path != "" {
			continue
		}
		rng := rand.New(rand.NewPCG(1, uint64(len(r.Pattern))))
		tree, err := syntax.Parse(r.Pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		for range 400 {
			text := "x = 1\n" + generate(rng, tree) + "\n"
			if len(r.Keywords) > 0 && !slices.ContainsFunc(r.Keywords, func(k string) bool { return strings.Contains(strings.ToLower(text), k) }) {
				text = r.Keywords[0] + " " + text
			}
			if _, found := s.book.TryAlone(r, []byte(text)); found {
				all[r.ID] = append(all[r.ID], text)
			}
			if len(all[r.ID]) == 4 {
				break
			}
		}
	}
	return all
}

// Every rule must find through literals, automata and streams what its plain
// regular expression finds.
func TestEveryRuleFindsItsOwn(t *testing.T) {
	s := rulesOf(t)
	none, missed, total := 0, 0, 0
	for id, texts := range positives(t, s) {
		if len(texts) == 0 {
			none++
			t.Logf("rule %s: no positive could be made", id)
		}
		only := s.With(Overrides{Modes: onlyMode(s, id)})
		for _, text := range texts {
			total++
			if found := only.Scan(ScanConfig{}, []byte(text)); len(found) == 0 {
				missed++
				t.Errorf("rule %s does not find %q", id, text)
			}
		}
	}
	t.Logf("%d rules, %d positives, %d missed, %d rules without one", len(s.book.All), total, missed, none)
}

func onlyMode(s *Set, id string) map[string]Mode {
	modes := map[string]Mode{}
	for _, r := range s.book.All {
		modes[r.ID] = Off
	}
	modes[id] = Mask
	return modes
}

// redactIn runs text through a stream in the given cuts.
func redactIn(s *Set, cfg ScanConfig, text []byte, cut func() int) (string, []Finding) {
	var found []Finding
	st := NewStream(StreamConfig{Set: s, ScanConfig: cfg, Report: func(f Finding) { found = append(found, f) }})
	var out []byte
	rest := text
	for len(rest) > 0 {
		n := min(cut(), len(rest))
		out, _ = st.Write(out, rest[:n])
		rest = rest[n:]
	}
	out, _ = st.Close(out)
	return string(out), found
}

func TestOutputIsTheSameForEveryCutting(t *testing.T) {
	s := rulesOf(t)
	rng := rand.New(rand.NewPCG(7, 7))
	var texts []string
	for _, some := range positives(t, s) {
		texts = append(texts, some...)
	}
	slices.Sort(texts)
	for round := range 60 {
		var b bytes.Buffer
		for range 1 + rng.IntN(6) {
			switch rng.IntN(3) {
			case 0:
				fmt.Fprintf(&b, "step %d loss %.4f key token ", rng.IntN(1000), rng.Float64())
			default:
				b.WriteString(texts[rng.IntN(len(texts))])
			}
			b.WriteString([]string{"\n", " ", "\r\n", "\n\n"}[rng.IntN(4)])
		}
		text := b.Bytes()
		for _, kind := range []Kind{Document, Batch} {
			cfg := ScanConfig{Kind: kind}
			want, wantFound := redactIn(s, cfg, text, func() int { return len(text) })
			for _, size := range []int{1, 2, 3, 7, 0} {
				got, gotFound := redactIn(s, cfg, text, func() int {
					if size > 0 {
						return size
					}
					return 1 + rng.IntN(40)
				})
				if got != want {
					t.Fatalf("round %d kind %d pieces of %d:\ngot  %q\nwant %q\ntext %q", round, kind, size, got, want, text)
				}
				if !slices.Equal(masking(gotFound), masking(wantFound)) {
					t.Fatalf("round %d pieces of %d: findings\ngot  %v\nwant %v\ntext %q", round, size, gotFound, wantFound, text)
				}
			}
			again, _ := redactIn(s, cfg, []byte(want), func() int { return len(want) })
			if again != want {
				t.Fatalf("round %d: masks are masked again:\nonce  %q\ntwice %q\ntext %q", round, want, again, text)
			}
		}
	}
}

func masking(found []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Mode < Mask })
}

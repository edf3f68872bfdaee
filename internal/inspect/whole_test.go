package inspect

import (
	"slices"
	"strings"
	"testing"
)

// A text that is there whole is judged like one that arrives: what stands
// behind a match says whether it is one ("AIza…" must end after 35 more), and
// bailey scan must not find what bailey redact lets pass, nor the other way
// round.
func TestTheWholeIsJudgedLikeAStream(t *testing.T) {
	s := rulesOf(t)
	compared, differ := 0, 0
	for id, texts := range positives(t, s) {
		for _, text := range texts {
			text = strings.TrimRight(text, "\n")
			for _, behind := range []string{"", "\n", "X", "X9 yy\n", "-x", "\"", "\\n", "; more"} {
				whole := []byte(text + behind)
				_, streamed := redactIn(s, ScanConfig{}, whole, func() int { return len(whole) })
				got, want := places(s.Scan(ScanConfig{}, whole)), places(streamed)
				compared++
				if !slices.Equal(got, want) {
					differ++
					if differ <= 10 {
						t.Errorf("%s: %q:\nscan   %v\nstream %v", id, whole, got, want)
					}
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d texts were compared", compared)
	}
	if differ > 0 {
		t.Errorf("%d of %d texts differ", differ, compared)
	}
}

type place struct{ from, to int64 }

// places returns where the findings that mask are. Which of two rules with the
// same priority is told may depend on which was there first.
func places(found []Finding) []place {
	var at []place
	for _, f := range masking(found) {
		at = append(at, place{f.Offset, f.Offset + f.Length})
	}
	slices.SortFunc(at, func(a, b place) int { return int(a.from - b.from) })
	return at
}

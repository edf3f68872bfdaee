package inspect

import (
	"regexp/syntax"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/baileyhq/bailey/internal/inspect/match"
)

// anchor is what to do when a literal is found: try a rule from some bytes
// before it.
type anchor struct {
	rule     *rule
	min, max int
	before   match.Bytes // what those bytes may be
	word     bool        // not within a word
}

// anchors are what to do when one literal is found.
type anchors struct {
	marks   []int          // remember that these keywords were there
	fixed   []anchor       // of rules whose matches begin with the literal
	any     *match.Pattern // matches when one of those does
	word    bool           // none of those does right behind a word character
	bounded bool           // none of those does within a word
	literal string
	once    sync.Once      // for the rest
	rest    *match.Pattern // matches when one does that ordinary text does not keep from it; nil: none
	within  int            // so many ordinary bytes from the literal on, and none of those does; 0: not known
	moved   []anchor       // of rules whose matches begin before it
}

// free are rules without a literal, that must be tried wherever a match can
// begin.
type free struct {
	rules  []*rule
	starts *match.Starts
}

func newFree(rules []*rule) free {
	f := free{rules: rules}
	var all []match.Start
	for _, r := range rules {
		all = append(all, match.Start{Pattern: r.pattern, Bounded: r.bounded})
	}
	f.starts = match.NewStarts(all)
	return f
}

// build prepares the search for the literals of all rules.
func (e *engine) build() {
	var texts []string
	number := map[string]int{}
	add := func(text string) *anchors {
		n, ok := number[text]
		if !ok {
			n = len(texts)
			number[text] = n
			texts = append(texts, text)
			e.anchors = append(e.anchors, anchors{})
		}
		return &e.anchors[n]
	}
	e.prepare()
	var plain, gated []*rule
	for i, r := range e.rules {
		r.index = i
		if isPEM(r) {
			r.pem, r.pattern, r.shows = true, pemHeader, 2*interactive
			for _, text := range pemLiterals {
				as := add(text)
				as.fixed = append(as.fixed, anchor{rule: r})
			}
			continue
		}
		lits := r.lits
		for _, lit := range lits {
			hi := lit.Max
			if hi < 0 {
				hi = maxReach
			}
			as := add(lit.Text)
			a := anchor{rule: r, min: min(lit.Min, hi), max: hi, word: lit.Word, before: lit.Before}
			if hi == 0 {
				as.fixed = append(as.fixed, a)
			} else {
				as.moved = append(as.moved, a)
			}
		}
		r.inside = r.Priority >= 0 && len(lits) > 0 && !slices.ContainsFunc(lits, func(lit match.Literal) bool { return !inSecret(r.pattern, lit) })
		r.shows = max(2*interactive, r.pattern.MinLength/2)
		if r.inside {
			for i, lit := range lits {
				if n := len(lit.Text) + interactive - 1; i == 0 || n < r.shows {
					r.shows = n
				}
			}
		}
		most, known := r.pattern.Before()
		r.bounded = r.boundary != nil && known && most == 0 || startsAtBoundary(r.syntax)
		if !implied(r.Keywords, lits) {
			for _, k := range r.Keywords {
				if len(k) < 2 {
					r.marks = nil
					break
				}
				m := slices.Index(e.markRules, k)
				if m < 0 {
					m = len(e.markRules)
					e.markRules = append(e.markRules, k)
					as := add(k)
					as.marks = append(as.marks, m)
				}
				r.marks = append(r.marks, m)
			}
		}
		switch {
		case len(lits) > 0:
		case len(r.marks) > 0:
			gated = append(gated, r)
		default:
			plain = append(plain, r)
		}
	}
	e.gates = make([]bool, len(e.markRules))
	for _, r := range gated {
		for _, k := range r.marks {
			e.gates[k] = true
		}
	}
	e.free, e.gated = newFree(plain), newFree(gated)
	all := make([]match.Text, len(texts))
	for i, text := range texts {
		as := &e.anchors[i]
		as.combine(text)
		all[i].Text = text
		if len(as.marks) == 0 && len(as.moved) == 0 {
			for _, a := range as.fixed {
				all[i].After = append(all[i].After, a.rule.pattern)
			}
		}
	}
	e.index = match.NewIndex(all)
}

// prepare takes the patterns of the rules apart, on all processors.
func (e *engine) prepare() {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(e.rules)); i = next.Add(1) - 1 {
				r := e.rules[i]
				r.pattern = match.New(r.syntax, r.group)
				r.lits = r.pattern.Literals()
			}
		})
	}
	wg.Wait()
}

// maxReach is how far before its literal a match is looked for when its
// pattern sets no limit.
const maxReach = 64

// implied reports whether a text that holds one of the literals holds one of
// the keywords too.
func implied(keywords []string, lits []match.Literal) bool {
	if len(keywords) == 0 {
		return true
	}
	if len(lits) == 0 {
		return false
	}
	for _, lit := range lits {
		if !slices.ContainsFunc(keywords, func(k string) bool { return strings.Contains(lit.Text, k) }) {
			return false
		}
	}
	return true
}

// startsAtBoundary reports whether every match begins at a word boundary with
// a word character.
func startsAtBoundary(re *syntax.Regexp) bool {
	switch re.Op { //nolint:exhaustive // the default says the rest
	case syntax.OpWordBoundary:
		return true
	case syntax.OpCapture, syntax.OpConcat:
		return len(re.Sub) > 0 && startsAtBoundary(re.Sub[0])
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !startsAtBoundary(sub) })
	default:
		return false
	}
}

// combine makes the pattern that asks for all rules at once.
func (a *anchors) combine(literal string) {
	if len(a.fixed) == 0 {
		return
	}
	a.literal, a.word, a.bounded = literal, true, true
	rules := make([]*rule, len(a.fixed))
	for i, one := range a.fixed {
		rules[i] = one.rule
		a.word = a.word && one.word
		a.bounded = a.bounded && (one.word || one.rule.bounded)
	}
	a.any = eitherOf(rules)
}

// eitherOf returns a pattern that matches when that of one of the rules does.
func eitherOf(rules []*rule) *match.Pattern {
	if len(rules) == 1 {
		return rules[0].pattern
	}
	all := &syntax.Regexp{Op: syntax.OpAlternate}
	for _, r := range rules {
		all.Sub = append(all.Sub, r.pattern.Tree())
	}
	return match.New(all, 0)
}

// learn finds out which rules ordinary text alone keeps from matching, when the
// literal is met for the first time.
func (a *anchors) learn() {
	var rest []*rule
	for _, one := range a.fixed {
		if n, ok := one.rule.pattern.Within(a.literal, maxOrdinary); ok {
			a.within = max(a.within, n)
			continue
		}
		rest = append(rest, one.rule)
	}
	if len(rest) > 0 {
		a.rest = eitherOf(rest)
	}
}

// hopeless reports whether no rule can match from the literal at the start of
// text on, which has what follows it.
func (a *anchors) hopeless(text []byte) bool {
	a.once.Do(a.learn)
	first := a.any
	if a.within > 0 && len(text) >= a.within && match.Ordinary(text[:a.within]) {
		if first = a.rest; first == nil {
			return true
		}
	}
	return first.Hopeless(text[:min(len(text), glance)])
}

// maxOrdinary is how many ordinary bytes are asked about at most.
const maxOrdinary = 40

// beginnings returns the beginnings of literals that stand in secrets which
// this Set masks or blocks, and how much of a secret may stand before its
// literal.
func (s *Set) beginnings() (*match.Prefixes, int) {
	var texts []string
	reach := 0
	seen := map[string]bool{}
	for i, r := range s.rules {
		if s.modes[i] < Mask {
			continue
		}
		if r.pem {
			texts = append(texts, pemLiterals...)
			continue
		}
		for _, lit := range r.lits {
			if lit.Max != 0 {
				reach = max(reach, lit.Max+len(lit.Text)-1) // the secret may stand before it
				continue
			}
			if inSecret(r.pattern, lit) && !seen[lit.Text] {
				seen[lit.Text] = true
				texts = append(texts, lit.Text)
			}
		}
	}
	return match.NewPrefixes(texts), reach
}

// inSecret reports whether the literal, or its end, is part of the secret.
func inSecret(p *match.Pattern, lit match.Literal) bool {
	if most, known := p.Before(); known {
		return most == 0 || lit.Max == 0 && most < len(lit.Text)
	}
	state, in := p.Start(), -1
	if state.Entered() {
		return true
	}
	if lit.Max != 0 {
		return false
	}
	_, _, _, in = p.Run(state, []byte(lit.Text), in, false)
	return in >= 0 && in < len(lit.Text)
}

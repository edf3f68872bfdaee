package inspect

import (
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/baileyhq/bailey/internal/inspect/match"
)

// anchor is what to do when a literal is found: try a rule from some bytes
// before it, or, without a rule, remember that a keyword was there.
type anchor struct {
	rule     *rule
	min, max int
	word     bool // not within a word
	mark     int
}

// anchors are what to do when one literal is found.
type anchors struct {
	all []anchor
	// any matches when one of the rules does; nil for a few rules, and when
	// they do not all begin with the literal.
	any *match.Pattern
}

// free are rules that must be tried wherever a match can begin. Those of the
// third group are tried near their keywords only, which their patterns do not
// hold.
type free struct {
	bounded, loose *group // only where no word goes on, and anywhere
	gated          *group
	allBounded     bool // of the gated ones
}

type group struct {
	rules []*rule
	any   *match.Pattern // matches when one of them does
}

// build prepares the search for the literals of all rules.
func (e *engine) build() {
	var texts []string
	number := map[string]int{}
	add := func(text string, a anchor) {
		n, ok := number[text]
		if !ok {
			n = len(texts)
			number[text] = n
			texts = append(texts, text)
			e.anchors = append(e.anchors, anchors{})
		}
		e.anchors[n].all = append(e.anchors[n].all, a)
	}
	var loose, bounded, gated []*rule
	for i, r := range e.rules {
		r.index = i
		if isPEM(r) {
			r.pem, r.pattern, r.shows = true, pemHeader, 2*interactive
			for _, text := range pemLiterals {
				add(text, anchor{rule: r})
			}
			continue
		}
		r.pattern = match.New(r.syntax, r.group)
		r.lits = r.pattern.Literals()
		lits := r.lits
		for _, lit := range lits {
			hi := lit.Max
			if hi < 0 {
				hi = maxReach
			}
			add(lit.Text, anchor{rule: r, min: min(lit.Min, hi), max: hi, word: lit.Word})
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
		switch {
		case (!known || most > 512) && anything(r.syntax):
			r.crowd = crowdOfAny
		case r.inside:
			r.crowd = crowdOfTokens
		}
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
					add(k, anchor{mark: m})
				}
				r.marks = append(r.marks, m)
			}
		}
		switch {
		case len(lits) > 0:
		case len(r.marks) > 0:
			gated = append(gated, r)
		case r.bounded:
			bounded = append(bounded, r)
		default:
			loose = append(loose, r)
		}
	}
	var patterns []*match.Pattern
	e.free.allBounded = true
	e.gates = make([]bool, len(e.markRules))
	for _, r := range gated {
		e.free.allBounded = e.free.allBounded && r.bounded
		for _, k := range r.marks {
			e.gates[k] = true
		}
	}
	for _, g := range []struct {
		group **group
		rules []*rule
	}{{&e.free.bounded, bounded}, {&e.free.loose, loose}, {&e.free.gated, gated}} {
		if len(g.rules) > 0 {
			*g.group = newGroup(g.rules)
			patterns = append(patterns, (*g.group).any)
		}
	}
	e.index = match.NewIndex(texts, patterns, e.free.loose != nil || !e.free.allBounded)
	for i := range e.anchors {
		e.anchors[i].combine()
	}
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
func (a *anchors) combine() {
	either := &syntax.Regexp{Op: syntax.OpAlternate}
	for _, one := range a.all {
		switch {
		case one.rule == nil:
		case one.max > 0:
			return
		default:
			either.Sub = append(either.Sub, one.rule.pattern.Tree())
		}
	}
	if len(either.Sub) > 1 {
		a.any = match.New(either, 0)
	}
}

func newGroup(rules []*rule) *group {
	either := &syntax.Regexp{Op: syntax.OpAlternate}
	for _, r := range rules {
		either.Sub = append(either.Sub, r.pattern.Tree())
	}
	return &group{rules: rules, any: match.New(either, 0)}
}

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

// anything reports whether an expression holds a repeated "any character"
// without a limit.
func anything(re *syntax.Regexp) bool {
	if re.Op == syntax.OpStar || re.Op == syntax.OpPlus {
		if op := re.Sub[0].Op; op == syntax.OpAnyChar || op == syntax.OpAnyCharNotNL {
			return true
		}
	}
	return slices.ContainsFunc(re.Sub, anything)
}

package rules

import (
	"regexp/syntax"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/baileyhq/bailey/internal/inspect/match"
)

// An Anchor is what to do when a literal is found: try a rule from some bytes
// before it.
type Anchor struct {
	Rule     *Compiled
	Min, Max int
	Before   match.Bytes // what those bytes may be
	Word     bool        // not within a word
}

// Anchors are what to do when one literal is found.
type Anchors struct {
	Marks []int    // remember that these keywords were there
	Fixed []Anchor // of rules whose matches begin with the literal
	Moved []Anchor // of rules whose matches begin before it

	at [3]*Asked // of the fixed: behind no word, behind one, and within one
}

// Asked are the rules that are asked where a literal stands, because a match may
// begin there.
type Asked struct {
	Rules []*Compiled

	literal string
	once    sync.Once      // for the rest
	held    *match.Pattern // matches when one does that ordinary text keeps from it; nil: none
	gap     *match.Gap     // of those
	rest    *match.Pattern // matches when one of the others does; nil: none
	need    *match.Need    // of those; nil: none
}

// Free are rules without a literal, that must be tried wherever a match can
// begin.
type Free struct {
	Rules  []*Compiled
	Starts *match.Starts
}

func newFree(rules []*Compiled) Free {
	f := Free{Rules: rules}
	var all []match.Start
	for _, r := range rules {
		all = append(all, match.Start{Pattern: r.Matcher, Bounded: r.Bounded})
	}
	f.Starts = match.NewStarts(all)
	return f
}

// build prepares the search for the literals of all rules.
func (b *Book) build() {
	var texts []string
	number := map[string]int{}
	add := func(text string) *Anchors {
		n, ok := number[text]
		if !ok {
			n = len(texts)
			number[text] = n
			texts = append(texts, text)
			b.Anchors = append(b.Anchors, Anchors{})
		}
		return &b.Anchors[n]
	}
	b.prepare()
	var plain, gated []*Compiled
	for i, r := range b.All {
		r.Index = i
		if isPEM(r) {
			r.PEM, r.Matcher, r.Shows = true, pemHeader, 2*Interactive
			for _, text := range pemLiterals {
				as := add(text)
				as.Fixed = append(as.Fixed, Anchor{Rule: r})
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
			a := Anchor{Rule: r, Min: min(lit.Min, hi), Max: hi, Word: lit.Word, Before: lit.Before}
			if hi == 0 {
				as.Fixed = append(as.Fixed, a)
			} else {
				as.Moved = append(as.Moved, a)
			}
		}
		r.Inside = r.Priority >= 0 && len(lits) > 0 && !slices.ContainsFunc(lits, func(lit match.Literal) bool { return !inSecret(r.Matcher, lit) })
		r.Shows = max(2*Interactive, r.Matcher.MinLength/2)
		if r.Inside {
			for i, lit := range lits {
				if n := len(lit.Text) + Interactive - 1; i == 0 || n < r.Shows {
					r.Shows = n
				}
			}
		}
		most, known := r.Matcher.Before()
		r.Bounded = r.boundary != nil && known && most == 0 || startsAtBoundary(r.syntax)
		if !implied(r.Keywords, lits) {
			for _, k := range r.Keywords {
				if len(k) < 2 {
					r.Marks = nil
					break
				}
				m := slices.Index(b.keywords, k)
				if m < 0 {
					m = len(b.keywords)
					b.keywords = append(b.keywords, k)
					as := add(k)
					as.Marks = append(as.Marks, m)
				}
				r.Marks = append(r.Marks, m)
			}
		}
		switch {
		case len(lits) > 0:
		case len(r.Marks) > 0:
			gated = append(gated, r)
		default:
			plain = append(plain, r)
		}
	}
	b.Gates = make([]bool, len(b.keywords))
	for _, r := range gated {
		for _, k := range r.Marks {
			b.Gates[k] = true
		}
	}
	b.Free, b.Gated = newFree(plain), newFree(gated)
	all := make([]match.Text, len(texts))
	for i, text := range texts {
		as := &b.Anchors[i]
		as.sort(text)
		all[i].Text = text
		if len(as.Marks) == 0 && len(as.Moved) == 0 {
			for _, a := range as.Fixed {
				all[i].After = append(all[i].After, a.Rule.Matcher)
			}
		}
	}
	b.Index = match.NewIndex(all)
}

// prepare takes the patterns of the rules apart, on all processors.
func (b *Book) prepare() {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(b.All)); i = next.Add(1) - 1 {
				r := b.All[i]
				r.Matcher = match.New(r.syntax, r.group)
				r.lits = r.Matcher.Literals()
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

// sort finds out which of the fixed rules are asked where.
func (a *Anchors) sort(literal string) {
	for place := range a.at {
		ask := &Asked{literal: literal}
		for _, one := range a.Fixed {
			if place > 0 && one.Word || place > 1 && one.Rule.Bounded {
				continue
			}
			ask.Rules = append(ask.Rules, one.Rule)
		}
		switch {
		case len(ask.Rules) == 0:
		case place > 0 && len(ask.Rules) == len(a.at[place-1].Rules):
			a.at[place] = a.at[place-1]
		default:
			a.at[place] = ask
		}
		if a.at[place] == nil {
			return
		}
	}
}

// At returns the rules whose matches may begin with the literal; nil when there
// are none. behind says that a word stands before it, and within that the word
// goes on.
func (a *Anchors) At(behind, within bool) *Asked {
	switch {
	case within:
		return a.at[2]
	case behind:
		return a.at[1]
	}
	return a.at[0]
}

// eitherOf returns a pattern that matches when that of one of the rules does.
func eitherOf(rules []*Compiled) *match.Pattern {
	if len(rules) == 1 {
		return rules[0].Matcher
	}
	all := &syntax.Regexp{Op: syntax.OpAlternate}
	for _, r := range rules {
		all.Sub = append(all.Sub, r.Matcher.Tree())
	}
	return match.New(all, 0)
}

// learn finds out which rules ordinary text alone keeps from matching, when the
// literal is met for the first time.
func (a *Asked) learn() {
	var held, rest []*Compiled
	for _, r := range a.Rules {
		if r.Matcher.Gap(a.literal, maxOrdinary) != nil {
			held = append(held, r)
		} else {
			rest = append(rest, r)
		}
	}
	if len(held) > 0 {
		a.held = eitherOf(held)
		if a.gap = a.held.Gap(a.literal, maxOrdinary); a.gap == nil {
			rest, a.held = a.Rules, nil
		}
	}
	if len(rest) > 0 {
		a.rest = eitherOf(rest)
		a.need = a.rest.Need()
	}
}

// Hopeless reports whether no rule can match from the literal at the start of
// text on, which has what follows it. No more of it than Glance is looked at: a
// match in the making that came further counts for others.
func (a *Asked) Hopeless(text []byte) bool {
	a.once.Do(a.learn)
	text = text[:min(len(text), Glance)]
	if a.held != nil && !a.gap.Hopeless(text) && !a.held.Hopeless(text) {
		return false
	}
	return a.rest == nil || a.need != nil && a.need.Hopeless(text) || a.rest.Hopeless(text)
}

// maxOrdinary is how many ordinary bytes are asked about at most.
const maxOrdinary = 40

// Beginnings returns the beginnings of literals that stand in secrets of the
// rules that count, and how much of a secret may stand before its literal.
func (b *Book) Beginnings(counts func(*Compiled) bool) (*match.Prefixes, int) {
	var texts []string
	reach := 0
	seen := map[string]bool{}
	for _, r := range b.All {
		if !counts(r) {
			continue
		}
		if r.PEM {
			texts = append(texts, pemLiterals...)
			continue
		}
		for _, lit := range r.lits {
			if lit.Max != 0 {
				reach = max(reach, lit.Max+len(lit.Text)-1) // the secret may stand before it
				continue
			}
			if inSecret(r.Matcher, lit) && !seen[lit.Text] {
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

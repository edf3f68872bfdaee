package rules

import (
	"bytes"
	"math"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/baileyhq/bailey/internal/inspect/match"
)

// Compiled is a rule, ready to be searched for.
type Compiled struct {
	Rule
	Index   int            // in the Book
	Matcher *match.Pattern // what it matches
	Marks   []int          // numbers of keywords that the pattern does not hold
	PEM     bool           // it is about private keys: see [PEM]
	Bounded bool           // it matches only where no word goes on
	Inside  bool           // a literal stands within the secret: it tells what it is
	Shows   int            // how many bytes of a secret a terminal shows before it waits

	group    int
	syntax   *syntax.Regexp
	path     *regexp.Regexp // nil: any
	context  [][]byte       // lower-case
	validate func([]byte) bool
	boundary func(text []byte, start, end int) bool
	allow    []*allowlist
	lits     []match.Literal

	vetted bool // its examples were run when this program was tested
	once   sync.Once
	whole  *regexp.Regexp // the pattern as written, for examples and explanations
}

// Applies reports whether the rule is for text of a file with such a path; ""
// means that it has none.
func (r *Compiled) Applies(path string) bool {
	return r.path == nil || path != "" && r.path.MatchString(path)
}

// LooksAhead reports whether the rule's judgement depends on what follows.
func (r *Compiled) LooksAhead() bool { return r.boundary != nil || len(r.context) > 0 }

// allowlist says which matches are none. Its expressions are compiled when
// they are first needed: most never are.
type allowlist struct {
	all       bool // all conditions must hold, not one
	commits   bool // it speaks of commits, which there are none of here
	target    string
	regexes   []string
	paths     []string
	stopwords []string

	once  sync.Once
	re    *regexp.Regexp
	quick *match.Pattern // what it does not accept, re does not match
	paRe  *regexp.Regexp
	words *wordSet
}

// compile makes the expressions, which load has parsed without an error.
func (a *allowlist) compile() {
	a.once.Do(func() {
		if len(a.regexes) > 0 {
			a.re = regexp.MustCompile(either(a.regexes))
			a.quick = quick(a.regexes)
		}
		if len(a.paths) > 0 {
			a.paRe = regexp.MustCompile(either(a.paths))
		}
		a.words = newWordSet(a.stopwords)
	})
}

// quick returns a pattern that accepts from the start of a text when one of the
// expressions matches anywhere in it.
func quick(exprs []string) *match.Pattern {
	all := &syntax.Regexp{Op: syntax.OpAlternate}
	anything := &syntax.Regexp{Op: syntax.OpStar, Sub: []*syntax.Regexp{{Op: syntax.OpAnyChar}}}
	for _, e := range exprs {
		tree, err := syntax.Parse(e, syntax.Perl)
		if err != nil {
			panic(err) // it has been parsed before
		}
		if tree.Op != syntax.OpConcat || tree.Sub[0].Op != syntax.OpBeginText {
			tree = &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{anything, tree}}
		}
		all.Sub = append(all.Sub, tree)
	}
	return match.New(all, 0)
}

func either(exprs []string) string {
	parts := make([]string, len(exprs))
	for i, e := range exprs {
		parts[i] = "(?:" + e + ")"
	}
	return strings.Join(parts, "|")
}

// allowed reports whether the list takes the match for harmless. Paths count
// only when the place says that the path is not the attacker's choice.
func (a *allowlist) allowed(secret, match, line []byte, place Place) bool {
	a.compile()
	var checks, held int
	check := func(there, holds bool) {
		if there {
			checks++
			if holds {
				held++
			}
		}
	}
	check(a.commits, false)
	check(a.paRe != nil, a.paRe != nil && place.Trust && place.Path != "" && a.paRe.MatchString(place.Path))
	if a.re != nil {
		text := secret
		switch a.target {
		case "match":
			text = match
		case "line":
			text = line
		}
		check(true, a.quick.MayMatch(text) && a.re.Match(text))
	}
	if len(a.stopwords) > 0 {
		check(true, a.words.in(secret))
	}
	if a.all {
		return checks > 0 && held == checks
	}
	return held > 0
}

// wordSet tells whether a text holds one of many words, whatever the case.
type wordSet struct {
	by    map[[3]byte][]string // words by their first three bytes
	short []string
}

func newWordSet(words []string) *wordSet {
	w := &wordSet{by: map[[3]byte][]string{}}
	for _, word := range words {
		if len(word) < 3 {
			w.short = append(w.short, word)
			continue
		}
		k := [3]byte{word[0], word[1], word[2]}
		w.by[k] = append(w.by[k], word)
	}
	return w
}

func (w *wordSet) in(text []byte) bool {
	low := bytes.ToLower(text)
	for i := 0; i+3 <= len(low); i++ {
		for _, word := range w.by[[3]byte{low[i], low[i+1], low[i+2]}] {
			if len(low)-i >= len(word) && string(low[i:i+len(word)]) == word {
				return true
			}
		}
	}
	for _, word := range w.short {
		if bytes.Contains(low, []byte(word)) {
			return true
		}
	}
	return false
}

// entropy returns the bits per byte that text's own letter frequencies carry
// (Shannon).
func entropy(text []byte) float64 {
	if len(text) == 0 {
		return 0
	}
	var count [256]int
	for _, c := range text {
		count[c]++
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(text))
			sum -= p * math.Log2(p)
		}
	}
	return sum
}

// unique returns how many different bytes text holds.
func unique(text []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range text {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

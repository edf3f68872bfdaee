package match

import (
	"bytes"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"testing"
	"unicode/utf8"
)

// exprs are patterns of every kind that rules have.
var exprs = []string{
	`ghp_[0-9a-zA-Z]{36}`, `\b(?:eyJ[A-Za-z0-9_-]{10,}|ey[A-Za-z0-9]{17,}\.ey)`, `(?i)key[ \t]{0,3}=([a-z]{8,})`, `SK[0-9a-f]{8}`, `s\.[a-z0-9]{6}`, `@`, `::`, `q~é`,
}

var numbers = []string{
	`1[3-9]\d(?:[ -]?\d{4}){2}`, `(?:\+|00)?86[ -]?1\d{10}`, `\d{3}-\d{2}-\d{4}`, `[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7})`,
	`00[A-Za-z0-9]{13}!`, `[MNO][A-Za-z0-9]{23,27}\.x`, `[a-f0-9]{40}`, `[1-9ANY][1-9]\d{6}`, `é\d{9}`, `\d{2}`, `x?`,
}

func patterns(tb testing.TB, exprs []string) []*Pattern {
	tb.Helper()
	var all []*Pattern
	for _, e := range exprs {
		tree, err := syntax.Parse(e, syntax.Perl)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, New(tree, 0))
	}
	return all
}

// soup mixes pieces of what the patterns match with random bytes.
func soup(rng *rand.Rand, size int) []byte {
	pieces := []string{
		"ghp_", "GHP_", "eyJ", "ey", "key", "KEY = ", "SK0123456789", "s.abc123", "@", "::", "q~é", "13812345678", "138-1234-5678", "+86 13812345678", "123-45-6789",
		"GB82 WEST 1234 5698", "DE89370400440532013000", "00abcdefghijklm!", "MTA1234567890abcdefghijklm.x", "0123456789abcdef0123456789abcdef01234567", "A1234567",
		"é123456789", "2026-11-28 00:12:33,123", "\\n", "\\t138", "x", " ", "\n", "0", "9", "-", "_", "zz",
	}
	var b bytes.Buffer
	for b.Len() < size {
		switch p := pieces[rng.IntN(len(pieces))]; rng.IntN(5) {
		case 0:
			b.WriteByte(byte(rng.Uint32()))
		case 1:
			b.WriteString(p[:rng.IntN(len(p)+1)])
		default:
			b.WriteString(p)
		}
	}
	return b.Bytes()
}

// checkSearch compares the Index and the Starts with the regular expressions,
// asked at every place of text: where one matches, they must have told.
func checkSearch(t *testing.T, x *Index, lits []Text, s *Starts, pats []Start, text []byte, cut int) {
	t.Helper()
	type place struct{ which, at int }
	lit, free := map[place]int{}, map[place]int{}
	for _, part := range [][2]int{{cut, 0}, {len(text), cut}} {
		x.Find(text[:part[0]], part[1], func(i, at int) { lit[place{i, at}]++ })
		s.Find(text[:part[0]], part[1], part[0], func(i, at int) { free[place{i, at}]++ })
	}
	for at := range text {
		if at > 0 {
			if _, size := utf8.DecodeRune(text[at-1:]); size > 1 {
				continue // no match begins within a character
			}
		}
		for i, l := range lits {
			there := at+len(l.Text) <= len(text) && foldEqual(text[at:at+len(l.Text)], l.Text)
			n := lit[place{i, at}]
			if n > 1 || n > 0 && !there {
				t.Fatalf("literal %q at %d of %q: told %d times", l.Text, at, text, n)
			}
			hopeless := len(l.After) > 0 && !slices.ContainsFunc(l.After, func(p *Pattern) bool { return p.Match(text, at) != nil })
			if n == 0 && there && !hopeless {
				t.Fatalf("literal %q at %d of %q, cut at %d, is not found", l.Text, at, text, cut)
			}
		}
		for i, p := range pats {
			n := free[place{i, at}]
			if n > 1 || n == 0 && (!p.Bounded || bounded(text, at)) && p.Pattern.Match(text, at) != nil {
				t.Fatalf("pattern %d at %d of %q, cut at %d: told %d times", i, at, text, cut, n)
			}
		}
	}
}

func searches(tb testing.TB) (*Index, []Text, *Starts, []Start) {
	tb.Helper()
	var lits []Text
	for _, p := range patterns(tb, exprs) {
		for _, l := range p.Literals() {
			lits = append(lits, Text{Text: l.Text, After: []*Pattern{p}})
		}
	}
	lits = append(lits, Text{Text: "tok"}, Text{Text: "::"}, Text{Text: "mn"}, Text{Text: "a-long-keyword-that-no-pattern-has"})
	var pats []Start
	for n := range 4 { // more than are asked for at once
		for i, p := range patterns(tb, numbers) {
			pats = append(pats, Start{Pattern: p, Bounded: (i+n)%3 != 2})
		}
	}
	return NewIndex(lits), lits, NewStarts(pats), pats
}

func TestSearchLeavesOutOnlyWhatDoesNotMatch(t *testing.T) {
	x, lits, s, pats := searches(t)
	rng := rand.New(rand.NewPCG(7, 8))
	for range 400 {
		text := soup(rng, rng.IntN(400))
		checkSearch(t, x, lits, s, pats, text, rng.IntN(len(text)+1))
	}
}

// FuzzSearch is the same for any text.
func FuzzSearch(f *testing.F) {
	x, lits, s, pats := searches(f)
	for seed := range uint64(8) {
		f.Add(soup(rand.New(rand.NewPCG(seed, 1)), 150), uint16(seed*17))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		if len(text) <= 1024 {
			checkSearch(t, x, lits, s, pats, text, int(cut)%(len(text)+1))
		}
	})
}

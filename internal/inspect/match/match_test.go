package match

import (
	"bytes"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
)

func TestIndexFindsEveryLiteralWherever(t *testing.T) {
	texts := []string{"@", "sk", "key", "token", "ghp_", "-----begin", "to", "tokens-are-here", "身份"}
	var all []Text
	for _, w := range texts {
		all = append(all, Text{Text: w})
	}
	x := NewIndex(all)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var b bytes.Buffer
		for range rng.IntN(12) {
			w := texts[rng.IntN(len(texts))]
			if rng.IntN(2) == 0 {
				w = strings.ToUpper(w)
			}
			b.WriteString(w[:rng.IntN(len(w)+1)])
			if rng.IntN(3) == 0 {
				b.WriteString(w)
			}
		}
		text := b.Bytes()
		var want, got [][2]int
		lower := bytes.Clone(text)
		for i := range lower {
			lower[i] = fold(lower[i])
		}
		low := string(lower)
		for at := range len(text) {
			for i, w := range texts {
				if strings.HasPrefix(low[at:], w) {
					want = append(want, [2]int{i, at})
				}
			}
		}
		cut := rng.IntN(len(text) + 1)
		x.Find(text[:cut], 0, func(i, at int) { got = append(got, [2]int{i, at}) })
		x.Find(text, cut, func(i, at int) { got = append(got, [2]int{i, at}) })
		order := func(a, b [2]int) int { return slices.Compare([]int{a[1], a[0]}, []int{b[1], b[0]}) }
		slices.SortFunc(got, order)
		slices.SortFunc(want, order)
		if !slices.Equal(got, want) {
			t.Fatalf("in %q cut at %d: got %v, want %v", text, cut, got, want)
		}
	}
}

func TestLiterals(t *testing.T) {
	tests := []struct {
		expr string
		want []Literal
	}{
		{`ghp_[0-9a-zA-Z]{36}`, []Literal{{Text: "ghp_"}}},
		{`(?i)[\w.-]{0,50}?(?:vendor)[=:]([a-z]{20})`, []Literal{{Text: "vendor:"}, {Text: "vendor="}}},
		{`\b(p8e-(?i)[a-z0-9]{32})\b`, []Literal{{Text: "p8e-", Word: true}}},
		{`[a-z0-9]{14}\.atlasv1\.[a-z0-9]{60}`, []Literal{{Text: ".atlasv1.", Min: 14, Max: 14}}},
		{`\b1[3-9]\d{9}\b`, nil},
		{`[a-f0-9]{40}`, nil},
	}
	for _, tt := range tests {
		tree, err := syntax.Parse(tt.expr, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		got := New(tree, 0).Literals()
		for i := range got {
			got[i].Before = Bytes{}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("literals of %s = %v, want %v", tt.expr, got, tt.want)
		}
	}
}

// FuzzRun compares the automaton with the regular expression: where the
// expression matches, the automaton must not have given up.
func FuzzRun(f *testing.F) {
	f.Add(`a(b+)c`, "abbbc")
	f.Add(`(?i)k[^x]{2,5}$`, "Ké\xff12")
	f.Add(`\b(?:ab|c\d{1,3})\b`, "c12 ")
	f.Add("(?s:.)é?[^\\x00-\\x7f]", "aéé")
	f.Fuzz(func(t *testing.T, expr, text string) {
		if len(expr) > 40 || len(text) > 60 || strings.ContainsAny(text, "\u212a\u017f") {
			return
		}
		tree, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			return
		}
		p := New(tree, 0)
		at := p.Match([]byte(text), 0)
		if at == nil || at[1] == 0 {
			return
		}
		_, end, accepted, _ := p.Run(p.Start(), []byte(text), -1, false)
		if accepted < at[1] && end < at[1] {
			t.Errorf("%q on %q: the match ends at %d, the automaton gave up at %d, accepted %d", expr, text, at[1], end, accepted)
		}
		if lits := p.Literals(); len(lits) > 0 {
			found := false
			for _, lit := range lits {
				found = found || strings.Contains(strings.ToLower(text[:at[1]]), lit.Text)
			}
			if !found && isASCII(text) {
				t.Errorf("%q matches %q, which holds none of %v", expr, text[:at[1]], lits)
			}
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// gapped are patterns of which ordinary words rule out most places.
var gapped = []string{
	`(?i)key[ \t\w.-]{0,20}[\s'"]{0,3}(?:=|>|:{1,3}=|\|\||=>|,)["'\s=]{0,5}([\w.=-]{10,30})`,
	`(?i)user(?: ?id|name)?[^\n'"]{1,24}?[;& ](?:password|pwd)=([^\s;]{4,12})`,
	`(?i)(?:auth|(?-i:[Aa]pi|API))(?:[ \w.-]{0,5})(?::|=)\b[0-9]{4}`,
	`(?i)https?://[^\s:@/]{1,12}:([^\s@/]{4,25})@[a-z]`, `(?s)a.b?=|a[^c]*=x`, `k(?:=|[=:])`,
	`sk-?[a-z]{0,3}!`, `(?i)tok[é ]{0,3}[:=]x$`, `é[ a-z]{0,4}=`, `key`, `key\w*=`,
}

// checkGap: where the gap is hopeless, whatever may follow, there is no match.
func checkGap(t *testing.T, p *Pattern, lit string, most int, text []byte) {
	t.Helper()
	if need := p.Need(); need != nil && p.Match(text, 0) != nil {
		for n := range len(text) + 1 {
			if need.Hopeless(text[:n]) {
				t.Fatalf("%v matches %q, but %q is hopeless: a byte is needed", p.Tree(), text, text[:n])
			}
		}
	}
	gap := p.Gap(lit, most)
	if gap == nil || len(text) < len(lit) || !foldEqual(text[:len(lit)], lit) || p.Match(text, 0) == nil {
		return
	}
	for n := len(lit); n <= len(text); n++ {
		if gap.Hopeless(text[:n]) {
			t.Fatalf("%v matches %q, but %q is hopeless behind %q", p.Tree(), text, text[:n], lit)
		}
	}
}

func TestGapRulesOutOnlyWhatDoesNotMatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	some := 0
	for _, p := range patterns(t, gapped) {
		for _, lit := range p.Literals() {
			if p.Gap(lit.Text, 40) != nil {
				some++
			}
			for range 4000 {
				text := []byte(lit.Text)
				for range rng.IntN(14) {
					pieces := []string{"key", "=", ":", " ", "\n", "'", "x", "0123", "abcdefghij", "pwd=", ";", "-", "password=abcd", "!", "@", "a", "é", "token", "||", ","}
					text = append(text, pieces[rng.IntN(len(pieces))]...)
				}
				checkGap(t, p, lit.Text, 4+rng.IntN(40), text)
			}
		}
	}
	if some < 4 {
		t.Errorf("only %d literals have a gap", some)
	}
	needs := 0
	for _, p := range patterns(t, gapped) {
		if p.Need() != nil {
			needs++
		}
	}
	if needs < 4 {
		t.Errorf("only %d patterns need a byte", needs)
	}
}

// FuzzGap is the same for any text.
func FuzzGap(f *testing.F) {
	pats := patterns(f, gapped)
	for i := range gapped {
		f.Add(uint8(i), uint8(30), []byte("_token = '0123456789abc'"))
	}
	f.Fuzz(func(t *testing.T, which, most uint8, rest []byte) {
		p := pats[int(which)%len(pats)]
		for _, lit := range p.Literals() {
			checkGap(t, p, lit.Text, int(most), append([]byte(lit.Text), rest...))
		}
	})
}

package inspect_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/inspect/view"
	"github.com/baileyhq/bailey/internal/secret"
)

// A transform is something that programs, terminals and people do to text on
// its way to a screen.
type transform struct {
	name string
	kind inspect.Kind
	// write returns what is sent, in one piece per message.
	write func(text string) []string
	// read returns what a person gets to see of what was released.
	read func(sent string) string
	// floor is the share of rules' positives that must be found; known secrets
	// must all be.
	floor float64
}

func one(write func(string) string) func(string) []string {
	return func(s string) []string { return []string{write(s)} }
}

func every(n int, s, before, after string) string {
	var b strings.Builder
	for len(s) > 0 {
		k := min(n, len(s))
		b.WriteString(before + s[:k] + after)
		s = s[k:]
	}
	return b.String()
}

func spell(format, s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

func same(s string) string { return s }

// onTerminal is what a terminal shows of s.
func onTerminal(s string) string { return string(view.Terminal([]byte(s), 0).Text) }

// undone reads what any decoder makes of s.
func undone(s string) string {
	all := s
	for _, v := range view.Decoded([]byte(s), 3) {
		all += "\n" + string(v.Text)
	}
	return all
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// fold breaks lines at 40 columns.
func fold(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.TrimSuffix(every(40, strings.TrimSuffix(line, "\n"), "", "\r\n"), "\r\n"))
	}
	return strings.Join(lines, "\r\n")
}

// transforms are the suite.
var transforms = []transform{
	{"as it is", inspect.Batch, one(same), same, .995},
	{"on a terminal", inspect.Terminal, one(same), same, .995},
	{"colour every 6", inspect.Batch, one(func(s string) string { return every(6, s, "\x1b[38;5;35m", "\x1b[0m") }), onTerminal, .98},
	{"colour every 6, terminal", inspect.Terminal, one(func(s string) string { return every(6, s, "\x1b[31m", "\x1b[39m") }), onTerminal, .98},
	{"zero width", inspect.Batch, one(func(s string) string { return every(1, s, "", "\u200b") }), onTerminal, .98},
	{"backspace", inspect.Terminal, one(func(s string) string { return every(1, s, "X\b", "") }), onTerminal, .98},
	{"spans", inspect.Document, one(func(s string) string {
		var b strings.Builder
		for len(s) > 0 {
			k := min(6, len(s))
			b.WriteString(`<span class="s1">` + html.EscapeString(s[:k]) + "</span>")
			s = s[k:]
		}
		return "<pre>" + b.String() + "</pre>"
	}), func(s string) string { return string(view.HTML([]byte(s)).Text) }, .98},
	{"wrapped at 40", inspect.Batch, one(fold), func(s string) string { return strings.ReplaceAll(s, "\r\n", "") }, .98},
	{"two messages", inspect.Batch, func(s string) []string { return []string{s[:len(s)/2], s[len(s)/2:]} }, same, .98},
	{"two messages, terminal", inspect.Terminal, func(s string) []string { return []string{s[:len(s)/2], s[len(s)/2:]} }, same, .98},
	{"one byte a message", inspect.Batch, func(s string) []string { return strings.SplitAfter(s, "") }, same, .98},
	{"json", inspect.Document, one(quote), undone, .98},
	{"json twice", inspect.Document, one(func(s string) string { return quote(quote(s)) }), undone, .98},
	{"base64", inspect.Batch, one(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }), undone, .98},
	{"base64 at 76", inspect.Batch, one(func(s string) string {
		return every(76, base64.StdEncoding.EncodeToString([]byte(s)), "", "\n")
	}), undone, .98},
	{"hex", inspect.Batch, one(func(s string) string { return hex.EncodeToString([]byte(s)) }), undone, .98},
	{"percent", inspect.Batch, one(func(s string) string { return spell("%%%02X", s) }), undone, .98},
	{"part of an address", inspect.Batch, one(url.PathEscape), undone, .98},
	{"backslash u", inspect.Batch, one(func(s string) string { return spell(`\u%04x`, s) }), undone, .98},
	{"bytes repr", inspect.Batch, one(func(s string) string {
		return "b'" + strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", `\'`), "\n", `\n`) + "'"
	}), undone, .98},
	{"progress", inspect.Terminal, one(func(s string) string { return " 45%|####5     | 45/100\r" + s }), onTerminal, .98},
}

// exactOnly are transforms that only known secrets have to survive.
var exactOnly = []transform{
	{"spaced", inspect.Batch, one(func(s string) string { return every(1, s, "", " ") }), same, 0},
	{"one a line", inspect.Batch, one(func(s string) string { return every(1, s, "", "\r\n") }), same, 0},
	{"list", inspect.Batch, one(func(s string) string { return every(1, s, "'", "', ") }), same, 0},
	{"reversed", inspect.Batch, one(func(s string) string {
		b := []byte(s)
		slices.Reverse(b)
		return string(b)
	}), same, 0},
	{"html entities", inspect.Batch, one(func(s string) string { return spell("&#%d;", s) }), same, 0},
	{"backslash x", inspect.Batch, one(func(s string) string { return spell(`\x%02x`, s) }), same, 0},
}

// stream sends pieces through a Stream and returns what came out, and the rules
// that found something.
func stream(set *inspect.Set, known *exact.Set, kind inspect.Kind, pieces []string) (string, []inspect.Finding, error) {
	var found []inspect.Finding
	s := inspect.NewStream(inspect.StreamConfig{
		Set: set, ScanConfig: inspect.ScanConfig{Exact: known, Kind: kind},
		Report: func(f inspect.Finding) { found = append(found, f) },
	})
	var out []byte
	var err error
	for _, p := range pieces {
		if out, err = s.Write(out, []byte(p)); err != nil {
			return string(out), found, err
		}
	}
	out, err = s.Close(out)
	return string(out), found, err
}

// A positive is a text in which a rule finds a secret.
type positive struct{ rule, text, secret string }

// positives returns texts that the rules find, from their own examples and, for
// rules without, made from their patterns.
func positives(t *testing.T, set *inspect.Set) []positive {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 7))
	var all []positive
	var poor []string
	for _, r := range set.Rules() {
		if r.Mode == inspect.Off || r.Pattern == "" || r.Path != "" {
			continue
		}
		texts := slices.Clone(r.Examples)
		if len(texts) > 3 {
			texts = texts[:3]
		}
		tries := 40
		if len(texts) > 0 {
			tries = 0
		}
		have := 0
		for i := 0; i < len(texts) || have < 3 && tries > 0; i++ {
			if i >= len(texts) {
				tries--
				text, err := instance(rng, r.Pattern)
				if err != nil {
					t.Fatalf("%s: %v", r.ID, err)
				}
				texts = append(texts, "x = 1\n"+text+"\n")
			}
			text := texts[i]
			for _, f := range set.Scan(inspect.ScanConfig{Kind: inspect.Document}, []byte(text)) {
				if f.Mode >= inspect.Mask && f.Lane == "" {
					all = append(all, positive{r.ID, text, text[f.Offset : f.Offset+f.Length]})
					have++
					break
				}
			}
		}
		if have == 0 && r.Mode >= inspect.Mask {
			poor = append(poor, r.ID)
		}
	}
	t.Logf("%d positives of %d rules; none made for %v", len(all), len(set.Rules()), poor)
	return all
}

// instance returns a text that pattern matches.
func instance(rng *rand.Rand, pattern string) (string, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	generate(rng, &b, re)
	return b.String(), nil
}

func generate(rng *rand.Rand, b *strings.Builder, re *syntax.Regexp) {
	repeat := func(low, high int) {
		n := low
		if high > low && low < 8 {
			n += rng.IntN(min(high-low, 2) + 1)
		}
		for range n {
			generate(rng, b, re.Sub[0])
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(member(rng, re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("abcdefgh23456789"[rng.IntN(16)])
	case syntax.OpCapture:
		generate(rng, b, re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			generate(rng, b, sub)
		}
	case syntax.OpAlternate:
		generate(rng, b, re.Sub[rng.IntN(len(re.Sub))])
	case syntax.OpStar:
		repeat(0, 1)
	case syntax.OpPlus:
		repeat(1, 3)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		high := re.Max
		if high < 0 {
			high = re.Min + 2
		}
		repeat(re.Min, high)
	}
}

// member returns one of a class's characters, letters and digits if it can.
func member(rng *rand.Rand, ranges []rune) rune {
	var usual, rest []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= min(ranges[i+1], 0x7e); r++ {
			switch {
			case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
				usual = append(usual, r)
			case r >= ' ':
				rest = append(rest, r)
			}
		}
	}
	switch {
	case len(usual) > 0:
		return usual[rng.IntN(len(usual))]
	case len(rest) > 0:
		return rest[rng.IntN(len(rest))]
	}
	return ranges[0]
}

// TestTransforms sends positives of every rule through everything that happens
// to text on its way to a screen. The table is the measure; the floors hold.
func TestTransforms(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	all := positives(t, set)
	for _, tr := range transforms {
		hits, leaks := 0, 0
		missed := map[string]int{}
		for _, p := range all {
			out, found, err := stream(set, nil, tr.kind, tr.write(p.text))
			if err != nil {
				t.Fatalf("%s: %s: %v", tr.name, p.rule, err)
			}
			switch {
			case len(found) == 0:
				missed[p.rule]++
			case strings.Contains(tr.read(out), p.secret):
				leaks++
				missed[fmt.Sprintf("%s (shows %.20q…)", p.rule, p.secret)]++
			default:
				hits++
			}
		}
		recall := float64(hits) / float64(len(all))
		t.Logf("%-26s %.4f  found, but shown: %d  missed: %v", tr.name, recall, leaks, missed)
		if recall < tr.floor {
			t.Errorf("%s: recall %.4f, want at least %.2f; missed %v", tr.name, recall, tr.floor, missed)
		}
	}
}

// TestKnownSecretsSurviveNoTransform: what is known is found in every encoding
// and every chunking, without exception.
func TestKnownSecretsSurviveNoTransform(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{NoDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	passed := map[string]int{} // by transform
	for round := range 12 {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=."
		b := make([]byte, 9+5*round)
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		value := string(b)
		if round == 0 {
			value = "sk-sk-sk-" + value
		}
		known, warnings := exact.New([]exact.Secret{
			{Name: "value", Value: secret.New(value)},
			{Name: "other", Value: secret.New("a tail of " + value[:8] + " and more")},
		})
		if len(warnings) > 0 {
			t.Fatal(warnings)
		}
		for _, tr := range slices.Concat(transforms, exactOnly) {
			whole := "before " + strings.Join(tr.write(value), "") + " after\n"
			for size := range 5 {
				pieces := cut(rng, whole, size)
				out, found, err := stream(set, known, tr.kind, pieces)
				if err != nil {
					t.Fatal(err)
				}
				if len(found) == 0 || strings.Contains(tr.read(out), value) || strings.Contains(out, strings.Join(tr.write(value), "")) {
					if passed[tr.name]++; passed[tr.name] == 1 {
						t.Errorf("%s, pieces of %d: a value of %d bytes passes: %q becomes %q", tr.name, size, len(value), whole, out)
					}
				}
			}
		}
	}
	if len(passed) > 0 {
		t.Errorf("values that passed, by transform: %v", passed)
	}
}

// cut cuts text into pieces of size bytes; of random sizes if size is 0.
func cut(rng *rand.Rand, text string, size int) []string {
	var pieces []string
	for len(text) > 0 {
		n := size
		if size == 0 {
			n = 1 + rng.IntN(40)
		}
		n = min(n, len(text))
		pieces = append(pieces, text[:n])
		text = text[n:]
	}
	return pieces
}

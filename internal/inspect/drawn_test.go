package inspect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/secret"
)

// onScreen is what a screen without an edge shows of s: a second opinion, which
// knows only what these tests write.
func onScreen(s string) string {
	rows := [][]rune{nil}
	row, col := 0, 0
	runes := []rune(s)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; r {
		case '\r':
			col = 0
		case '\n':
			row++
			col = 0
		case '\b':
			col = max(0, col-1)
		case 0x1b:
			i += 2
			var n [2]int
			k := 0
			for ; runes[i] < '@'; i++ {
				if runes[i] == ';' {
					k++
				} else {
					n[k] = 10*n[k] + int(runes[i]-'0')
				}
			}
			one := max(1, n[0])
			switch runes[i] {
			case 'H':
				row, col = one-1, max(1, n[1])-1
			case 'G':
				col = one - 1
			case 'C':
				col += one
			case 'D':
				col = max(0, col-one)
			case 'A':
				row = max(0, row-one)
			case 'K':
				if row < len(rows) && col < len(rows[row]) {
					rows[row] = rows[row][:col]
				}
			case 'P':
				if row < len(rows) && col < len(rows[row]) {
					rows[row] = append(rows[row][:col], rows[row][min(len(rows[row]), col+one):]...)
				}
			}
		default:
			for len(rows) <= row {
				rows = append(rows, nil)
			}
			for len(rows[row]) <= col {
				rows[row] = append(rows[row], ' ')
			}
			rows[row][col] = r
			col++
		}
	}
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(string(r) + "\n")
	}
	return b.String()
}

// drawings are ways to bring a text onto a screen in another order than it is
// read in. They take one line.
var drawings = []struct {
	name  string
	kind  inspect.Kind
	draw  func(rng *rand.Rand, line string) string
	floor float64
}{
	{"the tail first", inspect.Batch, tailFirst("\r"), .98},
	{"the tail first, in a terminal", inspect.Terminal, tailFirst("\r"), .98},
	{"the tail first, to the left", inspect.Batch, func(rng *rand.Rand, s string) string {
		k := 1 + rng.IntN(len(s))
		return strings.Repeat("-", k) + s[k:] + fmt.Sprintf("\x1b[%dD", len(s)) + s[:k] + "\r\n"
	}, .98},
	{"the tail first, by column", inspect.Terminal, tailFirst("\x1b[1G"), .98},
	{"the tail first, row by row", inspect.Terminal, tailFirst("\r\n\n\x1b[A\x1b[A"), .98},
	{"the middle last", inspect.Batch, func(rng *rand.Rand, s string) string {
		k := len(s) / 3
		return s[:k] + "?" + s[k+1:] + fmt.Sprintf("\r\x1b[%dC", k) + s[k:k+1] + "\r\n"
	}, .98},
	{"the middle taken out", inspect.Batch, func(rng *rand.Rand, s string) string {
		k := len(s) / 2
		return s[:k] + " ?? " + s[k:] + fmt.Sprintf("\r\x1b[%dC", k) + "\x1b[4P" + "\r\n"
	}, .98},
	{"letter by letter, anyhow", inspect.Terminal, func(rng *rand.Rand, s string) string {
		var b strings.Builder
		for _, i := range rng.Perm(len(s)) {
			fmt.Fprintf(&b, "\x1b[7;%dH%c", 3+i, s[i])
		}
		return b.String() + "\x1b[20;1H\r\n"
	}, .98},
	{"letter by letter, backwards", inspect.Batch, func(rng *rand.Rand, s string) string {
		var b strings.Builder
		for i := len(s) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "\r%s%c", strings.Repeat("\x1b[C", i), s[i])
		}
		return b.String() + "\r\n"
	}, .98},
}

func tailFirst(back string) func(rng *rand.Rand, s string) string {
	return func(rng *rand.Rand, s string) string {
		k := 1 + rng.IntN(len(s))
		return strings.Repeat("-", k) + s[k:] + back + s[:k] + "\r\n"
	}
}

// TestWhatIsDrawnIsRead sends secrets onto screens in pieces that are none by
// themselves. What is on the screen in the end does not hold them.
func TestWhatIsDrawnIsRead(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 9))
	all := positives(t, set)
	for _, tr := range drawings {
		lines, hits, told := 0, 0, 0
		missed := map[string]int{}
		for _, p := range all {
			text := strings.TrimPrefix(strings.TrimRight(p.text, "\n"), "x = 1\n")
			if strings.ContainsAny(text, "\n\r\t\x1b\b") || len(text) < 12 || len(text) > 180 || len(text) != len([]rune(text)) {
				continue
			}
			lines++
			out, found, err := stream(set, nil, tr.kind, []string{"$ run\r\n", tr.draw(rng, text)})
			if err != nil {
				t.Fatalf("%s: %s: %v", tr.name, p.rule, err)
			}
			// Of some, the keyword comes last: then the secret has been shown, and
			// all that can be done is to say so.
			switch shown := strings.Contains(onScreen(out), p.secret); {
			case len(found) == 0:
				missed[p.rule]++
			case !shown:
				hits++
			case slices.ContainsFunc(found, func(f inspect.Finding) bool { return f.Mode == inspect.Alert }):
				hits++
				told++
			default:
				missed[p.rule+" (shown)"]++
			}
		}
		recall := float64(hits) / float64(lines)
		t.Logf("%-30s %.4f of %d, %d of them only told; missed %v", tr.name, recall, lines, told, missed)
		if recall < tr.floor {
			t.Errorf("%s: recall %.4f, want at least %.2f; missed %v", tr.name, recall, tr.floor, missed)
		}
	}
}

// TestKnownSecretsAreDrawn: as above, for what is known, in all chunkings.
func TestKnownSecretsAreDrawn(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{NoDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	const value = "Tr0ub4dor-and-3-Zebras.in-a-row"
	known, warnings := exact.New([]exact.Secret{{Name: "value", Value: secret.New(value)}})
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	for _, tr := range drawings {
		for round := range 40 {
			whole := "before\r\n" + tr.draw(rng, value)
			want := ""
			for size := range 5 {
				pieces := []string{whole}
				if size > 0 {
					pieces = cut(rng, whole, []int{0, 0, 1, 3, 7}[size])
				}
				out, found, err := stream(set, known, tr.kind, pieces)
				if err != nil {
					t.Fatal(err)
				}
				if len(found) == 0 || strings.Contains(onScreen(out), value) {
					t.Fatalf("%s: round %d, pieces of kind %d: %q becomes %q, which shows %q", tr.name, round, size, whole, out, onScreen(out))
				}
				// Where no program counts on where the cursor is, the mask is drawn
				// over the tail that had been shown.
				if strings.HasPrefix(tr.name, "the tail first") && tr.kind == inspect.Batch && strings.Contains(onScreen(out), value[len(value)-6:]) {
					t.Fatalf("%s: %q becomes %q: the tail stays in %q", tr.name, whole, out, onScreen(out))
				}
				if size == 0 {
					want = out
				} else if tr.kind != inspect.Terminal && out != want {
					t.Fatalf("%s: %q\nwhole     %q\nin pieces %q", tr.name, whole, want, out)
				}
			}
		}
	}
}

// TestBlockedByWhatIsDrawn: a rule with mode block ends the stream before what
// completes the secret.
func TestBlockedByWhatIsDrawn(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{NoDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	known, _ := exact.New([]exact.Secret{{Name: "value", Value: secret.New("Tr0ub4dor-and-3-Zebras")}})
	for _, kind := range []inspect.Kind{inspect.Batch, inspect.Terminal} {
		out, found, err := stream(set.With(inspect.Overrides{Exact: inspect.Block}), known, kind, []string{"??????????and-3-Zebras\rTr0ub", "4dor-\r\n", "more\r\n"})
		if err == nil || len(found) != 1 || found[0].Mode != inspect.Block || strings.Contains(out, "4dor-") || strings.Contains(out, "more") {
			t.Errorf("kind %d: %q, %v, %v; want it to end before the secret is whole", kind, out, found, err)
		}
	}
}

// Progress bars, redrawn prompts, editors and pagers come out as they went in.
func TestWhatIsDrawnPasses(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	known, _ := exact.New([]exact.Secret{{Name: "value", Value: secret.New("Tr0ub4dor-and-3-Zebras")}})
	var bar, nested, vim, top, line strings.Builder
	for i := range 101 {
		fmt.Fprintf(&bar, "\r%3d%%|%-20s| %d/100 [00:%02d<00:%02d, %5.2fit/s, loss=%.4f, lr=1e-%d]", i, strings.Repeat("█", i/5), i, i, 100-i, 9.7+float64(i)/7, 1/(1+float64(i)), i%9)
		fmt.Fprintf(&nested, "\rEpoch %d:  %3d%%|###   | %d/10\n\rBatch %d: %3d%%|#     | 3/9\x1b[A", i/10, i, i/10, i, i)
		fmt.Fprintf(&top, "\x1b[%d;1H\x1b[1m%7d root      20   0 %7d %6d %5d S  %4.1f   %3.1f   0:0%d.%02d python3 train.py\x1b[m\x1b[K", 1+i%24, 1000+i, i*991, i*37, i*11, float64(i)/3, 0.1, i%10, i%60)
	}
	for i := range 24 {
		fmt.Fprintf(&vim, "\x1b[%d;1H\x1b[33m%4d \x1b[m\x1b[35mimport\x1b[m torch.nn.functional as F  # commit 3f9c0d2e41aa7b56c8d1e2f3a4b5c6d7e8f90a1b", i+1, i+1)
		fmt.Fprintf(&vim, "\x1b[%d;12H\x1b[K self.key_proj = nn.Linear(d_model, d_key)\x1b[%d;30H\x1b[?25h", i+1, i+1)
	}
	line.WriteString("\x1b[?2004h$ ")
	for _, c := range "git checkout feature/token-cache" {
		fmt.Fprintf(&line, "%c\b%c", c, c)
	}
	line.WriteString("\r\x1b[5C\x1b[1P\x1b[1@e\x1b[K\r\n")
	for name, text := range map[string]string{"bar": bar.String(), "nested": nested.String(), "vim": "\x1b[?1049h\x1b[1;24r" + vim.String() + "\x1b[?1049l", "top": top.String(), "line": line.String()} {
		for _, kind := range []inspect.Kind{inspect.Document, inspect.Batch, inspect.Terminal} {
			for _, size := range []int{0, 1, 7, 4096} {
				out, found, err := stream(set, known, kind, cut(rand.New(rand.NewPCG(1, 1)), text, size))
				if err != nil || out != text {
					t.Errorf("%s, kind %d, pieces of %d: changed, %v, %v", name, kind, size, found, err)
				}
			}
		}
	}
}

// FuzzDrawn draws a secret between arbitrary bytes: every cutting gives the same,
// and what is masked is not masked again.
func FuzzDrawn(f *testing.F) {
	set, known := fuzzSets(f)
	f.Add([]byte("\x1b[5;10Hab\rcd\x1b[2;3Hxy"), uint64(1))
	f.Add([]byte("\x1b[1;4r\x1b[L\x1b[3M\x1b[2S\x1bM\x1bM\x1b[?1049h\x1b[9999;9999H漢\b\b\x1b[4hq"), uint64(2))
	f.Add([]byte("a\t\x1b[Z\x1b[200b\x1b[1K\x1b[2J\x1b[3X\xff\xc2\x9b5D"), uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) > 2<<10 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		value := fuzzValues[rng.IntN(len(fuzzValues))]
		at := rng.IntN(len(raw) + 1)
		text := string(raw[:at]) + "\n" + tailFirst("\r")(rng, value) + string(raw[at:])
		for _, kind := range []inspect.Kind{inspect.Document, inspect.Batch, inspect.Terminal} {
			whole, _, err := stream(set, known, kind, []string{text})
			if err != nil {
				t.Fatal(err)
			}
			for size := range 3 {
				out, _, err := stream(set, known, kind, cut(rng, text, size))
				if err != nil {
					t.Fatal(err)
				}
				// Of a character that is taken back see FuzzRedact.
				if kind != inspect.Terminal && out != whole && !strings.ContainsAny(text, "\b\u009b") && !strings.Contains(text, "\x1b") {
					t.Fatalf("kind %d: %q\nwhole     %q\nin pieces %q", kind, text, whole, out)
				}
			}
		}
	})
}

package view_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/view"
)

func TestTerminal(t *testing.T) {
	tests := []struct {
		name    string
		raw     string
		columns int
		want    string
	}{
		{"plain", "one\ntwo\n", 0, "one\ntwo\n"},
		{"colours", "\x1b[31mabc\x1b[0;1mdef\x1b[38;5;196mg\x1b[m", 0, "abcdefg"},
		{"carriage return and newline", "abc\r\ndef\r\n", 0, "abc\ndef\n"},
		{"progress", " 10%\r 50%\r100% done\n", 0, "100% done\n"},
		{"overprinted in part", "abcdef\rXY\n", 0, "XYcdef\n"},
		{"backspace", "pasX\bswZ\bord", 0, "password"},
		{"zero width", "a\u200bb\u2060c\ufeffd\u00ade", 0, "abcde"},
		{"directions", "a\u202eb\u202cc", 0, "abc"},
		{"control characters", "a\x00b\x01c\x7fd", 0, "abcd"},
		{"hyperlink", "\x1b]8;;https://example.org/x\x1b\\text\x1b]8;;\x1b\\", 0, "text"},
		{"title", "\x1b]0;user@host\amore", 0, "more"},
		{"unterminated string", "abc\x1b]0;never", 0, "abc"},
		{"cursor right", "ab\x1b[3Cc", 0, "ab   c"},
		{"cursor left", "abX\x1b[1Dcd", 0, "abcd"},
		{"column", "xxxxx\x1b[1Gabcde", 0, "abcde"},
		{"erase to the end", "secret\x1b[3G\x1b[K.", 0, "se."},
		{"delete a character", "abXc\x1b[2D\x1b[P", 0, "abc"},
		{"insert a character", "ac\x1b[1D\x1b[@b", 0, "abc"},
		{"blank a character", "aXc\x1b[2D\x1b[X", 0, "a c"},
		{"repeat", "a\x1b[3b", 0, "aaaa"},
		{"wrapped by readline", "abcdefgh \rijklmnop \rqr", 8, "abcdefghijklmnopqr"},
		{"tab", "a\tb\rX", 0, "X\tb"},
		{"wide characters", "密码ab\rxy", 0, "xy码ab"},
		{"other lines", "one\x1b[2Jtwo\x1b[5;1Hthree", 0, "one\ntwo\nthree"},
		{"eight-bit control", "a\u009b31mb", 0, "ab"},
		{"invalid text", "a\xff\x1b[1mb\xc2", 0, "a\xffb\xc2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := view.Terminal([]byte(tt.raw), tt.columns)
			if string(v.Text) != tt.want {
				t.Errorf("Terminal(%q) = %q, want %q", tt.raw, v.Text, tt.want)
			}
			if tt.raw != tt.want && view.Needs([]byte(tt.raw))&view.Terminals == 0 && strings.ReplaceAll(tt.raw, "\r\n", "\n") != tt.want {
				t.Errorf("Needs(%q) says that no terminal view is needed", tt.raw)
			}
		})
	}
}

func TestUnwrapped(t *testing.T) {
	wrap := func(n int, s string) string {
		var parts []string
		for len(s) > n {
			parts, s = append(parts, s[:n]), s[n:]
		}
		return strings.Join(append(parts, s), "\r\n")
	}
	long := "the token is abcdefghijklmnopqrstuvwxyz0123456789 and here the line ends, at last, after more than one hundred letters"
	for _, width := range []int{20, 33, 40, 76} {
		raw := "before\n" + wrap(width, long) + "\nafter\n"
		want := "before\n" + long + "\nafter\n"
		if got := view.Unwrapped([]byte(raw), 0); string(got.Text) != want {
			t.Errorf("wrapped at %d: %q, want %q", width, got.Text, want)
		}
		if view.Needs([]byte(raw))&view.Wraps == 0 {
			t.Errorf("wrapped at %d: Needs says that nothing is wrapped", width)
		}
	}
	const code = "func main() {\n\tfmt.Println(a, b)\n\treturn\n}\n\n// A comment of any length stands here.\ntype a struct{}\n"
	if kinds := view.Needs([]byte(code)); kinds != 0 {
		t.Errorf("Needs(%q) = %b, want none", code, kinds)
	}
}

// What is found in a view must be found again in the raw text, with everything
// that hides within it.
func TestRawRanges(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("a line with TOKEN in it, and more"))
	tests := []struct {
		name string
		v    func([]byte) []*view.View
		raw  string
		want string // the raw text of TOKEN
	}{
		{"colours", terminal, "x \x1b[1mTO\x1b[31mKE\x1b[0mN y", "TO\x1b[31mKE\x1b[0mN"},
		{"backspace", terminal, "x Ta\bOKEN y", "Ta\bOKEN"},
		{"overprinted", terminal, "..OKEN\rxT\n", "OKEN\rxT"},
		{"tags", page, "<p>x<b>TO</b><i class='>'>K</i>EN</p>", "TO</b><i class='>'>K</i>EN"},
		{"entities", page, "x &#84;OK&#x45;N &amp;", "&#84;OK&#x45;N"},
		{"escapes", decoded, `x \u0054O\x4b\x45N y`, `\u0054O\x4b\x45N`},
		{"percent", decoded, `x %54OKE%4E y`, `%54OKE%4E`},
		{"base64", decoded, "x " + b64 + " y", b64[16:24]},
		{"base64 in json", decoded, `{"a": "` + strings.ReplaceAll(b64, "a", `\u0061`) + `"}`, strings.ReplaceAll(b64[16:24], "a", `\u0061`)},
		{"hex", decoded, "x " + hex.EncodeToString([]byte("some TOKEN here")) + " y", hex.EncodeToString([]byte("TOKEN"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range tt.v([]byte(tt.raw)) {
				i := bytes.Index(v.Text, []byte("TOKEN"))
				if i < 0 {
					continue
				}
				start, end := v.Raw(i, i+5)
				if got := tt.raw[start:end]; got != tt.want {
					t.Errorf("TOKEN in %q comes from %q, want %q", v.Text, got, tt.want)
				}
				return
			}
			t.Errorf("no view of %q shows TOKEN", tt.raw)
		})
	}
}

func terminal(raw []byte) []*view.View { return []*view.View{view.Terminal(raw, 0)} }
func page(raw []byte) []*view.View     { return []*view.View{view.HTML(raw)} }
func decoded(raw []byte) []*view.View  { return view.Decoded(raw, 3) }

func TestDecodedShowsWhatIsNested(t *testing.T) {
	const text = "the quick TOKEN of the lazy dog, and a little more of it"
	quote := func(s string) string { b, _ := json.Marshal(map[string]string{"k\n": s}); return string(b) }
	b64 := func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) }
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	wide := strings.Join(strings.Split(text, ""), "\x00") + "\x00"
	tests := map[string]string{
		"json three times":     quote(quote(quote(text))),
		"base64 of hex":        b64(hex.EncodeToString([]byte(text))),
		"base64 of json":       b64(quote(`"` + text)),
		"base64 in a path":     "/usr/a/" + b64(text),
		"base64 in lines":      wrap(b64(text), 64),
		"gzip in base64":       base64.StdEncoding.EncodeToString(packed.Bytes()),
		"utf-16":               wide,
		"utf-16, other order":  "\x00" + wide[:len(wide)-1],
		"base64 of utf-16":     b64(wide),
		"escaped by a shell":   `$'the quick \124OKEN of'`,
		"percent twice":        "%2554OKEN",
		"beyond the basic map": `\ud83d\ude00 \u0054OKEN`,
	}
	for name, raw := range tests {
		found := false
		for _, v := range view.Decoded([]byte(raw), 3) {
			found = found || bytes.Contains(v.Text, []byte("TOKEN"))
		}
		if !found {
			t.Errorf("%s: no view of %q shows TOKEN", name, raw)
		}
	}
}

func wrap(s string, n int) string {
	var parts []string
	for len(s) > n {
		parts, s = append(parts, s[:n]), s[n:]
	}
	return strings.Join(append(parts, s), "\n")
}

func TestPlainTextNeedsNoView(t *testing.T) {
	for _, raw := range []string{
		"", "plain words\n", "2026-11-21 INFO took=12.3ms\r\n", "if a < b and c > d:\n", "R & D", "中文也是普通的文字。\n", "“quoted” – dashed…",
	} {
		if kinds := view.Needs([]byte(raw)); kinds != 0 {
			t.Errorf("Needs(%q) = %b, want none", raw, kinds)
		}
	}
}

func TestIncomplete(t *testing.T) {
	tests := map[string]int{
		"": 0, "abc": 0, "abc\x1b": 1, "abc\x1b[": 2, "abc\x1b[3": 3, "abc\x1b[31m": 0, "\x1b]8;;http": 9, "\x1b]8;;http\x1b": 10,
		"\x1b]8;;http\x1b\\": 0, "\x1b]0;t\a": 0, "é"[:1]: 1, "密"[:2]: 2, "密": 0, "\xff": 0, "\x1b" + strings.Repeat("a", 300): 0,
	}
	for raw, want := range tests {
		if got := view.Incomplete([]byte(raw)); got != want {
			t.Errorf("Incomplete(%q) = %d, want %d", raw, got, want)
		}
	}
}

// hostile are texts that cost a careless reader quadratic time or memory.
var hostile = map[string]string{
	"escapes":            strings.Repeat("\x1b", 1<<20),
	"unterminated":       strings.Repeat("\x1b]0;", 1<<18),
	"long parameters":    "\x1b[" + strings.Repeat("1;", 1<<19),
	"cursor right":       strings.Repeat("\x1b[999Cx", 1<<17),
	"repeat":             strings.Repeat("x\x1b[999b", 1<<17),
	"delete":             strings.Repeat("x", 1<<19) + strings.Repeat("\x1b[1D\x1b[P", 1<<16),
	"insert":             strings.Repeat("x\r\x1b[@", 1<<17),
	"erase":              strings.Repeat("abcdef\x1b[1K", 1<<16),
	"overprint":          strings.Repeat("abc\r", 1<<18),
	"screens":            strings.Repeat("a\x1b[H", 1<<18),
	"up":                 strings.Repeat("ab\x1b[A", 1<<18),
	"open tags":          strings.Repeat("<a", 1<<19),
	"open quotes":        strings.Repeat(`<a "`, 1<<18),
	"quoted brackets":    strings.Repeat(`<a ">`, 1<<18),
	"odd quotes":         strings.Repeat(`<a '">`, 1<<18),
	"open comments":      strings.Repeat("<!--", 1<<18),
	"ampersands":         strings.Repeat("&", 1<<20),
	"entities":           strings.Repeat("&CounterClockwiseContourIntegral", 1<<15),
	"backslashes":        strings.Repeat(`\`, 1<<20),
	"percents":           strings.Repeat(`%2525`, 1<<18),
	"letters":            strings.Repeat("YWFh", 1<<18),
	"lines of letters":   strings.Repeat(strings.Repeat("YWFh", 15)+"\n", 1<<14),
	"hex":                strings.Repeat("61", 1<<19),
	"hex of hex":         strings.Repeat("363136", 1<<17),
	"zeros":              strings.Repeat("a\x00", 1<<19),
	"letters and spaces": strings.Repeat("YWFhYWFhYWFhYWFh ", 1<<16),
}

// TestHostileTextIsBounded has no clock of its own: quadratic time on a megabyte
// would take minutes, and runs into the limit of the test binary.
func TestHostileTextIsBounded(t *testing.T) {
	for name, raw := range hostile {
		if v := view.Unwrapped([]byte(raw), 80); len(v.Text) > len(raw) {
			t.Errorf("%s: the unwrapped view of %d bytes has %d", name, len(raw), len(v.Text))
		}
		begin := time.Now()
		text := []byte(raw)
		view.Needs(text)
		if v := view.Terminal(text, 80); len(v.Text) > 3*len(text)+8192 {
			t.Errorf("%s: the terminal view of %d bytes has %d", name, len(text), len(v.Text))
		}
		if v := view.HTML(text); len(v.Text) > 3*len(text) {
			t.Errorf("%s: the HTML view of %d bytes has %d", name, len(text), len(v.Text))
		}
		total := 0
		for _, v := range view.Decoded(text, 3) {
			total += len(v.Text)
		}
		if total > 8*len(text)+4<<20 {
			t.Errorf("%s: the decoded views of %d bytes have %d", name, len(text), total)
		}
		t.Logf("%-20s %8d bytes %v", name, len(text), time.Since(begin).Round(time.Millisecond))
	}
}

func TestAPackedBombIsCut(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	total := 0
	for _, v := range view.Decoded([]byte(base64.StdEncoding.EncodeToString(packed.Bytes())), 3) {
		total += len(v.Text)
	}
	if total == 0 || total > 4<<20 {
		t.Errorf("views of a bomb hold %d bytes, want some, at most 4 MiB", total)
	}
}

// FuzzViews: whatever the bytes, ranges lie inside the text, a range inside
// another maps inside the other's, and views that copy show raw bytes.
func FuzzViews(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "\x1b[31mred\x1b[0m\r\nX\bY\x1b[3D\x1b[K\x1b[2P", "a\u200bb\xff\xc2\x9b1m", "<p class=\"a>b\">x&amp;y<!-- z --></p",
		`{"a": "\u0041\n\\x41", "b": "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="}`, "%41%4", "68656c6c6f20776f726c642068656c6c6f", "\x1b[99C\x1b[9b\x1b[A\x1b[B\x1b[1K\x1b[@",
		"h\x00i\x00",
	} {
		f.Add([]byte(seed), 0)
		f.Add([]byte(seed), 4)
	}
	f.Fuzz(func(t *testing.T, raw []byte, columns int) {
		columns %= 200
		kinds := view.Needs(raw)
		n := view.Incomplete(raw)
		if n < 0 || n > len(raw) {
			t.Fatalf("Incomplete(%q) = %d", raw, n)
		}
		views := append(view.Decoded(raw, 3), view.Unwrapped(raw, columns), view.Terminal(raw, columns), view.HTML(raw))
		if v := views[len(views)-2]; kinds&view.Terminals == 0 && !bytes.Equal(v.Text, bytes.ReplaceAll(bytes.TrimSuffix(raw, []byte("\r")), []byte("\r\n"), []byte("\n"))) {
			t.Fatalf("Needs(%q) = %b, but a terminal shows %q", raw, kinds, v.Text)
		}
		if v := views[len(views)-1]; kinds&view.Browsers == 0 && !bytes.Equal(v.Text, raw) {
			t.Fatalf("Needs(%q) = %b, but a browser shows %q", raw, kinds, v.Text)
		}
		if kinds&view.Decoders == 0 && len(views) > 3 {
			t.Fatalf("Needs(%q) = %b, but something is decoded: %q", raw, kinds, views[0].Text)
		}
		for _, v := range views {
			step := max(1, len(v.Text)/16)
			for a := 0; a < len(v.Text); a += step {
				for b := a + 1; b <= len(v.Text); b += step {
					from, to := v.Raw(a, b)
					if from < 0 || to > len(raw) || from >= to {
						t.Fatalf("%q: Raw(%d, %d) = %d, %d outside of %q", v.Text, a, b, from, to, raw)
					}
					if c, d := v.Raw(a, min(b+1, len(v.Text))); c > from || d < to {
						t.Fatalf("%q: Raw(%d, %d) = %d, %d is not inside Raw(…, %d) = %d, %d", v.Text, a, b, from, to, b+1, c, d)
					}
				}
			}
		}
	})
}

func BenchmarkNeeds(b *testing.B) {
	text := bytes.Repeat([]byte("2026-11-21T02:41:17Z INFO worker-3 handled request id=8f3a2b path=/api/v1/items status=200 took=12.3ms\n"), 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		view.Needs(text)
	}
}

func BenchmarkTerminal(b *testing.B) {
	text := bytes.Repeat([]byte("\x1b[32mINFO\x1b[0m worker-3 handled request \x1b[1mid=8f3a2b\x1b[0m path=/api/v1/items status=200 took=12.3ms\r\n"), 1000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		view.Terminal(text, 80)
	}
}

func BenchmarkProgress(b *testing.B) {
	text := bytes.Repeat([]byte("\r 45%|####5     | 45/100 [00:12<00:14,  3.80it/s]"), 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		view.Terminal(text, 80)
	}
}

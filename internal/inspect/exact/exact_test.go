package exact_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/secret"
)

func set(t testing.TB, values ...string) *exact.Set {
	t.Helper()
	var secrets []exact.Secret
	for i, v := range values {
		secrets = append(secrets, exact.Secret{Name: fmt.Sprintf("s%d", i), Value: secret.New(v)})
	}
	s, warnings := exact.New(secrets)
	for _, w := range warnings {
		t.Errorf("New: %v", w)
	}
	return s
}

// spell writes each byte of s with a format.
func spell(format, s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

// forms are the ways in which a value reaches a screen without its owner
// meaning to hide it.
var forms = []struct {
	name  string
	write func(string) string
}{
	{"as it is", func(s string) string { return s }},
	{"json", func(s string) string { b, _ := json.Marshal(s); return string(b) }},
	{"json twice", func(s string) string {
		b, _ := json.Marshal(s)
		b, _ = json.Marshal(string(b))
		return string(b)
	}},
	{"go quoted", strconv.Quote},
	{"go quoted ascii", strconv.QuoteToASCII},
	{"query", url.QueryEscape},
	{"path", url.PathEscape},
	{"percent", func(s string) string { return spell("%%%02X", s) }},
	{"percent lower", func(s string) string { return spell("%%%02x", s) }},
	{"html", html.EscapeString},
	{"html decimal", func(s string) string { return spell("&#%d;", s) }},
	{"html hex", func(s string) string { return spell("&#x%x;", s) }},
	{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"base64 of a line", func(s string) string { return base64.StdEncoding.EncodeToString([]byte("a" + s + "\n")) }},
	{"base64 of a setting", func(s string) string { return base64.URLEncoding.EncodeToString([]byte("pw" + s + "yz")) }},
	{"base64 wrapped", func(s string) string {
		return wrap(base64.StdEncoding.EncodeToString([]byte("xx"+s)), 19, "\n")
	}},
	{"hex", func(s string) string { return hex.EncodeToString([]byte(s)) }},
	{"hex upper", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
	{"hex with colons", func(s string) string { return spell("%02x:", s) }},
	{"backslash x", func(s string) string { return spell(`\x%02x`, s) }},
	{"0x", func(s string) string { return spell(`0x%02x, `, s) }},
	{"list of numbers", func(s string) string { return spell("%d, ", s) }},
	{"backslash u", func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		return b.String()
	}},
	{"octal", func(s string) string { return spell(`\%03o`, s) }},
	{"reversed", func(s string) string {
		r := []rune(s)
		slices.Reverse(r)
		return string(r)
	}},
	{"spaced", func(s string) string { return spell("%c ", s) }},
	{"list of characters", func(s string) string { return spell("'%c', ", s) }},
	{"one a line", func(s string) string { return spell("%c\r\n", s) }},
	{"zero width", func(s string) string { return spell("%c\u200b", s) }},
	{"groups of four", func(s string) string { return wrap(s, 4, "-") }},
	{"wrapped at 10", func(s string) string { return wrap(s, 10, "\r\n  ") }},
	{"utf-16", func(s string) string { return spell("%c\x00", s) }},
}

func wrap(s string, n int, with string) string {
	var parts []string
	for len(s) > n {
		parts, s = append(parts, s[:n]), s[n:]
	}
	return strings.Join(append(parts, s), with)
}

var values = []string{
	"kG8vTq2ZpX9wLm4R",
	"Zx81-kQ_pp/+4=a9",
	"hunter2!canary",
	`p"w'd\with<&>specials%99`,
	"short8Xq",
	"sk-sk-sk-abcdefgh12345",
	"correct horse battery staple",
}

func TestAValueIsFoundHoweverItIsWritten(t *testing.T) {
	for i, v := range values {
		s := set(t, v)
		for _, form := range forms {
			text := "before it: " + form.write(v) + " and after"
			got := s.Find(nil, []byte(text))
			if len(got) == 0 {
				t.Errorf("value %d, %s: not found in %q", i, form.name, text)
				continue
			}
			for _, m := range got {
				if m.Start < len("before it: ") || m.End > len(text)-len(" and after") || m.Name != "s0" {
					t.Errorf("value %d, %s: match %+v leaves the value in %q", i, form.name, m, text)
				}
			}
		}
	}
}

func TestOrdinaryTextIsNotFound(t *testing.T) {
	s := set(t, values...)
	for _, text := range []string{
		"", "a", "kG8vTq2Z pX9wLm4", "Zx81", strings.Repeat("the quick brown fox 0123456789 ", 1000),
		"kG8vTq2Z" + strings.Repeat(" ", exact.MaxGap+1) + "pX9wLm4R",
	} {
		if got := s.Find(nil, []byte(text)); len(got) != 0 {
			t.Errorf("Find(%.60q) = %v, want none", text, got)
		}
	}
	var none *exact.Set
	if got, hold := none.Find(nil, []byte(values[0])), none.Hold([]byte(values[0]), 1); got != nil || hold != 0 {
		t.Errorf("the nil set finds %v and holds %d", got, hold)
	}
}

func TestWeakValuesAreLeftOutWithAWarning(t *testing.T) {
	for _, v := range []string{"", "true", "dev", "1234567", "password", "aaaaaaaaaaaa", "--------------", "10000000", "20261121", "ababababab", "1!2!3!4!"} {
		s, warnings := exact.New([]exact.Secret{{Name: "weak", Value: secret.New(v)}})
		if s.Len() != 0 || len(warnings) != 1 || warnings[0].Name != "weak" {
			t.Errorf("New(%q): %d secrets, warnings %v; want none and one", v, s.Len(), warnings)
		}
		if len(warnings) == 1 && len(v) > 3 && strings.Contains(warnings[0].String(), v) {
			t.Errorf("the warning repeats the value: %v", warnings[0])
		}
	}
}

// A private key must be recognised by any of its lines, but not by its borders,
// nor a service account file by its constant lines.
func TestLinesOfAFile(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\nAgEAAoIBAQC7VJTUt9Us8cKjMzEfYyjiWA4R4q\n-----END PRIVATE KEY-----\n" // bailey:allow
	s := set(t, key, `{"type": "service_account", "auth_uri": "https://accounts.example.com/o/oauth2/auth",`+"\n"+`"private_key_id": "8f3a2b9c7d6e5f4a3b2c"}`)
	tests := []struct {
		text string
		want bool
	}{
		{key, true},
		{strings.ReplaceAll(key, "\n", `\n`), true},
		{strings.ReplaceAll(key, "\n", " "), true},
		{"line: MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj", true},
		{"-----BEGIN PRIVATE KEY-----", false},
		{"8f3a2b9c7d6e5f4a3b2c", true},
		{`"type": "service_account", "https://accounts.example.com/o/oauth2/auth"`, false},
	}
	for _, tt := range tests {
		if got := len(s.Find(nil, []byte(tt.text))) > 0; got != tt.want {
			t.Errorf("found in %q: %v, want %v", tt.text, got, tt.want)
		}
	}
}

// The failure of chained maskers: after a partial match they do not look back.
func TestSelfOverlapAndOverlap(t *testing.T) {
	s := set(t, "sk-sk-abcdefg", "abcdefghijk", "defghijklmn")
	text := []byte("sk-sk-sk-abcdefghijklmn")
	got := s.Find(nil, text)
	want := []exact.Match{{Start: 3, End: 16, Name: "s0"}, {Start: 9, End: 20, Name: "s1"}, {Start: 12, End: 23, Name: "s2"}}
	if !slices.Equal(got, want) {
		t.Errorf("Find(%q) = %v, want %v", text, got, want)
	}
	for _, tt := range []struct {
		text  string
		least int
		want  int
	}{
		{"sk-", 1, 3},
		{"x sk-sk-sk", 1, 5},
		{"sk-sk-sk-abc", 1, 9},
		{"sk-sk-q", 2, 0},
		{"abcdefg", 4, 7},
		{"abc", 4, 0},
		{"abcd", 4, 4},
		{"abcd   ", 4, 7},
		{"sk-sk-abcdefg", 1, 7},
		{"defghijklmn", 2, 0},
	} {
		if got := s.Hold([]byte(tt.text), tt.least); got != tt.want {
			t.Errorf("Hold(%q, %d) = %d, want %d", tt.text, tt.least, got, tt.want)
		}
	}
}

// alnum squeezes as the package comment says.
func alnum(s string) (squeezed string, at []int) {
	for i := range len(s) {
		if c := s[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			squeezed += s[i : i+1]
			at = append(at, i)
		}
	}
	return squeezed, at
}

// slow finds values of letters and digits as they are, reversed and in hex, by
// comparing at every position. It is the reference for Find and Hold.
func slow(values []string, text string) (found []exact.Match, hold int) {
	squeezed, at := alnum(text)
	for i, v := range values {
		r := []byte(v)
		slices.Reverse(r)
		for _, n := range []string{v, string(r), hex.EncodeToString([]byte(v))} {
			for p := range squeezed {
				if strings.HasPrefix(squeezed[p:], n) {
					found = append(found, exact.Match{Start: at[p], End: at[p+len(n)-1] + 1, Name: "s" + strconv.Itoa(i)})
				}
				if rest := squeezed[p:]; len(rest) < len(n) && strings.HasPrefix(n, rest) {
					hold = max(hold, len(text)-at[p])
				}
			}
		}
	}
	slices.SortFunc(found, byPlace)
	return slices.Compact(found), hold
}

func byPlace(a, b exact.Match) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
}

// TestAgainstTheReference uses few letters, so that values overlap themselves
// and each other, and a text larger than the windows that are looked at.
func TestAgainstTheReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		random := func(n int) string {
			b := make([]byte, n)
			for i := range b {
				b[i] = "abkQz7"[rng.IntN(6)]
			}
			return string(b)
		}
		var values []string
		for range 1 + rng.IntN(5) {
			if v := random(8 + rng.IntN(9)); len(slices.Compact(slices.Sorted(slices.Values([]byte(v))))) >= 5 {
				values = append(values, v)
			}
		}
		var secrets []exact.Secret
		for i, v := range values {
			secrets = append(secrets, exact.Secret{Name: "s" + strconv.Itoa(i), Value: secret.New(v)})
		}
		s, warnings := exact.New(secrets)
		if len(values) == 0 || len(warnings) > 0 || s.Len() != len(values) {
			continue
		}
		var b strings.Builder
		limit := 400
		if round%100 == 0 {
			limit = 40_000
		}
		for b.Len() < limit {
			switch rng.IntN(4) {
			case 0:
				b.WriteString(values[rng.IntN(len(values))])
			case 1:
				v := values[rng.IntN(len(values))]
				b.WriteString(wrap(v[:1+rng.IntN(len(v))], 1+rng.IntN(4), " \n-"[rng.IntN(3):][:1]))
			case 2:
				b.WriteString(hex.EncodeToString([]byte(values[rng.IntN(len(values))])))
			default:
				b.WriteString(random(rng.IntN(20)))
				b.WriteString(strings.Repeat(".", rng.IntN(3)))
			}
		}
		text := b.String()
		got := s.Find(nil, []byte(text))
		want, _ := slow(values, text)
		// Other encodings of such values do not stand in such a text.
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: values %q, text %.500q\n got %v\nwant %v", round, values, text, got, want)
		}
		var streamed []exact.Match
		for stream, rest := s.NewStream(), text; len(rest) > 0; {
			n := min(1+rng.IntN(30), len(rest))
			streamed = stream.Feed(streamed, []byte(rest[:n]))
			rest = rest[n:]
			sofar := text[:len(text)-len(rest)]
			if got, want := stream.Partial(1), s.Partial([]byte(sofar), 1); got != want {
				t.Fatalf("round %d: values %q: Partial after %.500q = %v, want %v", round, values, sofar, got, want)
			}
		}
		slices.SortFunc(streamed, byPlace)
		if !slices.Equal(streamed, want) {
			t.Fatalf("round %d: values %q, text %.500q in pieces\n got %v\nwant %v", round, values, text, streamed, want)
		}
		for range 50 {
			end := rng.IntN(len(text) + 1)
			start := max(0, end-200)
			_, hold := slow(values, text[start:end])
			if got := s.Hold([]byte(text[start:end]), 1); got < hold {
				t.Fatalf("round %d: values %q: Hold(%q) = %d, want at least %d", round, values, text[start:end], got, hold)
			}
		}
	}
}

// FuzzFind: a value put anywhere into any text is found, whatever surrounds it,
// and at every cut the part that has arrived is held back.
func FuzzFind(f *testing.F) {
	f.Add([]byte("text before"), []byte("and after"), "kG8vTq2ZpX9wLm4R", uint8(0))
	f.Add([]byte("kG8vTq2ZpX9w"), []byte("R"), "kG8vTq2ZpX9wLm4R", uint8(25))
	f.Add([]byte("sk-"), []byte{0xff, 0x1b}, "sk-sk-sk-abcdefgh", uint8(12))
	f.Add([]byte{0xe2, 0x80}, []byte("\u200b"), "密码是不可以告诉别人的东西", uint8(1))
	f.Add([]byte(nil), []byte(nil), "!@#$%^&*()_+{}|:", uint8(25))
	f.Fuzz(func(t *testing.T, before, after []byte, value string, which uint8) {
		s, _ := exact.New([]exact.Secret{{Name: "s", Value: secret.New(value)}})
		if s == nil || len(value) > 4<<10 || !strings.Contains(value, strings.TrimSpace(value)) {
			return
		}
		written := strings.TrimSpace(value)
		if form := forms[int(which)%len(forms)]; alphanumericOnly(value) {
			written = form.write(value)
		}
		text := slices.Concat(before, []byte(written), after)
		found := s.Find(nil, text)
		i := slices.IndexFunc(found, func(m exact.Match) bool {
			return m.Start >= len(before) && m.End <= len(before)+len(written)
		})
		if i < 0 {
			t.Fatalf("%q not found in %q: %v", value, text, found)
		}
		m := found[i]
		for cut := m.Start + 1; cut < m.End; cut++ {
			if hold := s.Hold(text[:cut], 1); len(value) <= 1024 && hold < cut-m.Start {
				t.Fatalf("Hold(%q) = %d, want at least %d: %q", text[:cut], hold, cut-m.Start, text[m.Start:m.End])
			}
		}
	})
}

// A terminal that waited at the first byte of every secret would wait at most
// keystrokes, there being a thousand secrets in twenty encodings each. From the
// fourth byte of the value on it hardly ever does.
func TestTypingIsHardlyEverHeld(t *testing.T) {
	s, _ := exact.New(secretsOf(1000))
	stream, held, text := s.NewStream(), 0, logText[:100_000]
	for i := range text {
		stream.Feed(nil, text[i:i+1])
		if stream.Partial(4).Length > 0 {
			held++
		}
	}
	if held > len(text)/5000 {
		t.Errorf("%d of %d keystrokes are held, want at most 0.02 %%", held, len(text))
	}
}

func alphanumericOnly(s string) bool {
	squeezed, _ := alnum(s)
	return squeezed == s
}

// secretsOf returns n random tokens.
func secretsOf(n int) []exact.Secret {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	rng := rand.New(rand.NewPCG(3, 4))
	secrets := make([]exact.Secret, n)
	for i := range secrets {
		b := make([]byte, 32)
		for j := range b {
			b[j] = letters[rng.IntN(len(letters))]
		}
		secrets[i] = exact.Secret{Name: strconv.Itoa(i), Value: secret.New(string(b))}
	}
	return secrets
}

// logText is a megabyte of lines with words, numbers and hashes.
var logText = func() []byte {
	rng := rand.New(rand.NewPCG(7, 7))
	var out bytes.Buffer
	words := strings.Fields("request handled worker started stopped loading model weights epoch step loss accuracy checkpoint saved connection closed retry")
	for out.Len() < 1<<20 {
		fmt.Fprintf(&out, "2026-11-21T02:41:%02dZ INFO worker-%d ", rng.IntN(60), rng.IntN(32))
		for range 8 {
			out.WriteString(words[rng.IntN(len(words))] + " ")
		}
		fmt.Fprintf(&out, "id=%08x took=%.3fms commit=%016x%016x\n", rng.Uint32(), rng.Float64(), rng.Uint64(), rng.Uint64())
	}
	return out.Bytes()
}()

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		s, _ := exact.New(secretsOf(n))
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			text := logText[:min(len(logText), 64<<10)]
			best := time.Hour
			for b.Loop() {
				begin := time.Now()
				s.Find(nil, text)
				best = min(best, time.Since(begin)) // what other programs disturb least
			}
			b.ReportMetric(float64(len(text))/1e6/best.Seconds(), "best-MB/s")
		})
	}
}

func BenchmarkKeystroke(b *testing.B) {
	s, _ := exact.New(secretsOf(1000))
	stream, i := s.NewStream(), 0
	b.ReportAllocs()
	for b.Loop() {
		if i++; i == len(logText) {
			i = 1
		}
		stream.Feed(nil, logText[i-1:i])
		stream.Partial(4)
	}
}

func BenchmarkHold(b *testing.B) {
	s, _ := exact.New(secretsOf(1000))
	for b.Loop() {
		s.Hold(logText[:4096], 4)
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{10, 1000} {
		secrets := secretsOf(n)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				exact.New(secrets)
			}
		})
	}
}

func BenchmarkMemcpy(b *testing.B) {
	dst := make([]byte, len(logText))
	b.SetBytes(int64(len(logText)))
	for b.Loop() {
		copy(dst, logText)
	}
}

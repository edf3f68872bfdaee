package view_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect/view"
)

var lanes = []view.Lane{view.Visible, view.Joined, view.Markup, view.Escapes, view.Base64, view.Hex}

// read reads raw in pieces of so many bytes.
func read(lane view.Lane, columns int, raw []byte, size int) *view.Seen {
	r, out := view.NewReader(lane, columns), &view.Seen{}
	for len(raw) > 0 {
		n := min(size, len(raw))
		r.Read(out, raw[:n])
		raw = raw[n:]
	}
	r.Close(out)
	return out
}

func TestReaders(t *testing.T) {
	const text = "here is a TOKEN that nobody should see, and a bit more of it"
	b64 := base64.StdEncoding.EncodeToString([]byte(text))
	tests := []struct {
		name string
		lane view.Lane
		raw  string
		want string
	}{
		{"colours", view.Visible, "a\x1b[31mb\x1b[0;1mc\x1b[m\r\nd", "abc\nd"},
		{"zero width", view.Visible, "a\u200bb\u00adc\ufeffd\u009b1me", "abcde"},
		{"backspace", view.Visible, "Xa\b\bX\bab密\bc", "abc"},
		{"backspace stays in its line", view.Visible, "a\n\b\bb", "a\nb"},
		{"overprinted", view.Visible, "10%\r50%\rdone\r\n", "10%\n50%\ndone\n"},
		{"links and titles", view.Visible, "\x1b]8;;http://x\x1b\\a\x1b]8;;\ab\x1bP1$x\x1b[1mc", "abc"},
		{"moves", view.Visible, "ab\x1b[2Ccd\x1b[1De\x1b[Hf", "ab  ce\nf"},
		{"unfinished", view.Visible, "a\x1b[3", "a"},
		{"broken at 40", view.Joined, strings.Repeat("x", 38) + "TO\r\nKEN\r\nnext", strings.Repeat("x", 38) + "TOKEN\nnext"},
		{"broken by a line editor", view.Joined, strings.Repeat("x", 31) + "TO \rKEN", strings.Repeat("x", 31) + "TOKEN"},
		{"tags", view.Markup, "<p>a<b class='>'>b</b>&amp;&#x63;<!-- <i> -->d</p>1 < 2 & 3", "\nab&cd\n1 < 2 & 3"},
		{"a long tag", view.Markup, "a<img src=\"" + strings.Repeat("x>", 400) + "\">b", "ab"},
		{"no tag", view.Markup, "a<b c<d>e<", "a<b ce<"},
		{"escapes", view.Escapes, `a\n\"\\\x41\u0042%43\ud83d\ude00\1\\u0041 100%`, "a\n\"\\ABC😀\\1\\u0041 100%"},
		{"base64", view.Base64, "key: " + b64 + " and", text + "\n"},
		{"base64 in lines", view.Base64, b64[:60] + "\r\n" + b64[60:], text + "\n"},
		{"two runs", view.Base64, b64 + "," + strings.ReplaceAll(b64, "+", "-"), text + "\n" + text + "\n"},
		{"words are no runs", view.Base64, "AutoTokenizerFromPretrained 0123456789abcdef0123456789abcdef", ""},
		{"hex", view.Hex, "0x" + hex.EncodeToString([]byte(text)) + " 0123456789abcdef0123", text + "\n"},
		{"hex alone", view.Hex, "x=" + hex.EncodeToString([]byte(text)) + ";", text + "\n"},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			if got := read(tt.lane, 0, []byte(tt.raw), size); string(got.Text) != tt.want {
				t.Errorf("%s, in pieces of %d: %q shows %q, want %q", tt.name, size, tt.raw, got.Text, tt.want)
			}
		}
	}
}

// A token inside JSON inside JSON is two levels of escapes away.
func TestReadersChain(t *testing.T) {
	raw := `"{\"key\": \"\\u0054OKEN\"}"`
	one, two := view.NewReader(view.Escapes, 0), view.NewReader(view.Escapes, 0)
	var first, second view.Seen
	for _, c := range []byte(raw) {
		n := len(first.Text)
		one.Read(&first, []byte{c})
		two.ReadSeen(&second, &first, n)
	}
	at := bytes.Index(second.Text, []byte("TOKEN"))
	if at < 0 {
		t.Fatalf("%q shows %q", raw, second.Text)
	}
	if got := raw[second.From[at]:second.To[at+4]]; got != `\\u0054OKEN` {
		t.Errorf("TOKEN comes from %q", got)
	}
}

// FuzzReaders: what a Reader shows, and where it says that comes from, does not
// depend on how the stream was cut.
func FuzzReaders(f *testing.F) {
	for _, seed := range []string{
		"", "plain\r\n", "\x1b[31mred\x1b[0m\x1b]0;t\x1b\\X\b\x1b[3D\x1b[K\u200b\xff\xc2\x9b1m", "<p a=\">\">x&amp;y<!-- z --></p", `\u0041\n\\x41%41\ud83d\ude00`,
		"aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", "68656c6c6f20776f726c642068656c6c6f", "<!-", "\x1b]0;\x1b[", "\x1b]\x1b\x1b\\",
	} {
		f.Add([]byte(seed), uint8(1), uint8(40))
	}
	f.Fuzz(func(t *testing.T, raw []byte, size, columns uint8) {
		for _, lane := range lanes {
			want := read(lane, int(columns), raw, len(raw)+1)
			got := read(lane, int(columns), raw, int(size)%16+1)
			at, sure := lane.Differs(raw, 0, int(columns))
			if at < -1 || sure > len(raw) || at > sure {
				t.Fatalf("lane %d: Differs(%.300q) = %d, %d", lane, raw, at, sure)
			}
			same := bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
			if plain := lane == view.Visible && !bytes.ContainsAny(raw, "\v\f"); at < 0 && sure == len(raw) && (plain || lane == view.Markup) &&
				!bytes.Equal(want.Text, raw) && !bytes.Equal(want.Text, same) {
				t.Fatalf("lane %d: Differs says that %.300q is shown as it is; it is shown as %.300q", lane, raw, want.Text)
			}
			if !bytes.Equal(got.Text, want.Text) {
				t.Fatalf("lane %d: %.300q in pieces of %d shows %.300q, and whole %.300q", lane, raw, int(size)%16+1, got.Text, want.Text)
			}
			for i := range want.Text {
				if got.From[i] != want.From[i] || got.To[i] != want.To[i] || want.From[i] >= want.To[i] || want.From[i] < 0 || want.To[i] > int64(len(raw)) ||
					i > 0 && want.From[i] < want.From[i-1] {
					t.Fatalf("lane %d: %.300q: byte %d of %.300q comes from %d…%d whole, and from %d…%d in pieces", lane, raw, i, want.Text, want.From[i], want.To[i], got.From[i], got.To[i])
				}
			}
		}
	})
}

func BenchmarkReaders(b *testing.B) {
	text := bytes.Repeat([]byte("\x1b[32mINFO\x1b[0m worker-3 handled request \x1b[1mid=8f3a2b\x1b[0m path=/api/v1/items status=200 took=12.3ms\r\n"), 600)
	for _, lane := range lanes {
		b.Run(string('0'+rune(lane)), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			r, out := view.NewReader(lane, 0), &view.Seen{}
			for b.Loop() {
				out.Text, out.From, out.To = out.Text[:0], out.From[:0], out.To[:0]
				r.Read(out, text)
			}
		})
	}
}

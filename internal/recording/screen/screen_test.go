package screen_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/recording/screen"
)

func TestWhatPasses(t *testing.T) {
	for _, s := range []string{
		"plain text, äöü 漢字 🙂\r\n", "\a\b\t\v\f", "\x0e\x0f",
		"\x1b[1;31mred\x1b[0m\x1b[m", "\x1b[38;5;208m\x1b[38;2;1;2;3m\x1b[4:3m\x1b[;1m",
		"\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3A\x1b[2B\x1b[C\x1b[D\x1b[5G\x1b[7d",
		"\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l\x1b[?7l\x1b[4h\x1b[4l\x1b[?6h\x1b[?5h",
		"\x1b[1;24r\x1b[2S\x1b[2T\x1b[3L\x1b[3M\x1b[2P\x1b[2@\x1b[4X\x1b[5b\x1b[s\x1b[u\x1b[?2J",
		"\x1b7\x1b8\x1bM\x1bD\x1bE\x1b(0qqq\x1b(B\x1b)0\x1b#8",
	} {
		var f screen.Filter
		if got := f.String(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

// What a recording could do to the terminal of the administrator who replays
// it: write the clipboard, set titles and links, have it type answers into the
// shell, print, resize, swallow the keyboard, upload keys.
func TestWhatDoesNotPass(t *testing.T) {
	for _, tt := range [][2]string{
		{"\x1b]52;c;cm0gLXJmIC8K\a", ""},
		{"\x1b]52;c;cm0gLXJmIC8K\x1b\\", ""},
		{"\x1b]0;title\a\x1b]2;title\x1b\\", ""},
		{"\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"},
		{"\x1b]1337;File=:AAAA\a", ""},
		{"\x1b]9;notify\a\x1b]777;notify;a;b\a", ""},
		{"\x1b]4;1;?\a\x1b]10;?\a\x1b]11;?\a", ""},
		{"\x1bP$q\"p\x1b\\\x1bP+q544e\x1b\\\x1bPq#0;2;0;0;0\x1b\\", ""},
		{"\x1bP1000p", ""}, // tmux control mode
		{"\x1b_Gf=24;AAAA\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\", ""},
		{"\x1b[c\x1b[>c\x1b[=c\x1b[0c\x1b[5n\x1b[6n\x1b[?6n\x1b[x\x1bZ\x05", ""},
		{"\x1b[21t\x1b[20t\x1b[18t\x1b[8;1;1t\x1b[3;0;0t\x1b[2t", ""},
		{"\x1b[>q\x1b[?u\x1b[>1u\x1b[=1;1u\x1b[?1$p\x1b[!p\x1b[\"q\x1b[1 q", ""},
		{"\x1b[?1000h\x1b[?1002h\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[?1h\x1b[20h\x1b[2h\x1b=\x1b>", ""},
		{"\x1b[?1000;25;2004h", "\x1b[?25h"},
		{"\x1b[>4;2m\x1b[?4m\x1b[i\x1b[5i\x1b[4i", ""},
		{"\u009b6n\u009d52;c;AA\a\u0090q\u009c", "6n52;c;AA\aq"},
		{"\x9b6n", "\uFFFD6n"},
		{"\x1b%G\x1b%@\x1b n\x1b F\x1b(1\x1b(%5", ""},
		{"\x1b[999999999999999999999b", "\x1b[9999b"},
		{"\x1b[99999A\x1b[-1A", "\x1b[9999A"},
		{"\x1b[1;2;3;4;5T", ""},
		{"\x1bc", "\x1b[0m\x1b[r\x1b[H\x1b[2J"},
		{"\x1b[2\x1b[31mx", "\x1b[31mx"},
		{"\x1b[3\r1m", "\r\x1b[31m"},
		{"\x1b[3\x181m", "1m"},
		{"\x1b[6\u009bn", "n"},
		{"\x1b]0;a\x1b[31mred", "\x1b[31mred"}, // a string that another sequence breaks
		{"\x1b\x1b]52;c;AA\a", ""},
		{"\x1b[31", ""},
		{"txt.\u202egpj.exe", "txt.gpj.exe"},
		{"\x7f\x00\x01", ""},
		{"\x1b[?1049h\x1b]52;c;", "\x1b[?1049h"},
		{"\x1b[4:3:99999;:m", "\x1b[4:3:9999;:m"},
		{"\x1b[1:2H", ""},
	} {
		var f screen.Filter
		if got := f.String(tt[0]); got != tt[1] {
			t.Errorf("%q became %q, want %q", tt[0], got, tt[1])
		}
		// The same in two parts, wherever they are cut.
		for i := range len(tt[0]) {
			var f screen.Filter
			if got := string(f.Append(f.Append(nil, []byte(tt[0][:i])), []byte(tt[0][i:]))); got != tt[1] {
				t.Errorf("%q, cut at %d, became %q, want %q", tt[0], i, got, tt[1])
			}
		}
	}
}

// A string without an end does not hide the rest for ever.
func TestAnEndlessString(t *testing.T) {
	var f screen.Filter
	got := f.String("\x1b]52;c;" + strings.Repeat("A", 2<<20) + "visible")
	if !strings.HasSuffix(got, "visible") || len(got) > 1<<20+100 {
		t.Errorf("%d bytes, ending in %q", len(got), got[max(0, len(got)-20):])
	}
}

// safe is what may come out: text, the controls that move, and sequences of the
// kinds above with small numbers. It is written without looking at how the
// filter does it.
var safe = regexp.MustCompile(`^(?:[\x07-\x0f\x20-\x7e]|[^\x00-\x{9f}\x{202a}-\x{202e}\x{2066}-\x{2069}]` +
	`|\x1b[78DEMH]|\x1b[()][0AB]|\x1b#8|\x1b\[[0-9:;]{0,400}[@A-MPSTXZ` + "`" + `abdefgmrsu]|\x1b\[\?[0-9;]{0,20}[JK]` +
	`|\x1b\[4[hl]|\x1b\[\?(?:5|6|7|25|47|1047|1048|1049)[hl])*$`)

var number = regexp.MustCompile(`[0-9]{5,}`)

func FuzzFilter(f *testing.F) {
	f.Add([]byte("\x1b]52;c;AA\a\x1b[6n"), 3)
	f.Add([]byte("\x1b[?1049;2004h\x1bP\x1b\\\xc2\x9b6n"), 5)
	f.Add([]byte("\x1b[38;2;1:2::3m\xe2\x80\xae"), 1)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		cut = min(max(cut, 0), len(p))
		var one, two screen.Filter
		whole := string(one.Append(nil, p))
		parts := string(two.Append(two.Append(nil, p[:cut]), p[cut:]))
		if whole != parts {
			t.Errorf("%q becomes %q whole and %q cut at %d", p, whole, parts, cut)
		}
		if !safe.MatchString(whole) {
			t.Errorf("%q becomes %q", p, whole)
		}
		for _, seq := range regexp.MustCompile(`\x1b\[[?0-9:;]*`).FindAllString(whole, -1) {
			if number.MatchString(seq) {
				t.Errorf("%q becomes %q", p, whole)
			}
		}
		var again screen.Filter
		if got := again.String(whole); got != whole {
			t.Errorf("%q becomes %q, and that %q", p, whole, got)
		}
	})
}

package view

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// checkFast compares what looks at many bytes at once with what looks at each.
func checkFast(t *testing.T, text []byte, i int) {
	t.Helper()
	want := len(text)
	for at := i; at+shortestRun <= len(text); at++ {
		run := 0
		for run < shortestRun && runBytes[text[at+run]] != 0 {
			run++
		}
		if run == shortestRun {
			want = at
			break
		}
	}
	if got := nextRun(text, i); got != want {
		t.Fatalf("nextRun(%q, %d) = %d, want %d", text, i, got, want)
	}
	all := lines{text: text, at: i}
	for at := i; ; at++ {
		n := bytes.IndexByte(text[at:], '\n')
		want := at + n
		if n < 0 {
			want = -1
		}
		if got := all.next(); got != want {
			t.Fatalf("in %q from %d: the next line ends at %d, want %d", text, i, got, want)
		}
		if n < 0 {
			break
		}
		at += n
	}
	first := i
	for first < len(text) && (!special[text[first]] || text[first] == '\n') {
		first++
	}
	if at, sure := differsVisible(text, i); at >= 0 && at < first || sure < first {
		t.Fatalf("differsVisible(%q, %d) = %d, %d; the first special byte is at %d", text, i, at, sure, first)
	}
}

func TestManyBytesAtOnceAreEachByte(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	for range 3000 {
		text := make([]byte, rng.IntN(900))
		for i := range text {
			switch rng.IntN(60) {
			case 0:
				text[i] = byte(rng.Uint32())
			case 1, 2:
				text[i] = " \n.\r"[rng.IntN(4)]
			default:
				text[i] = "abcXYZ019+/-_"[rng.IntN(13)]
			}
		}
		checkFast(t, text, rng.IntN(len(text)+1))
	}
}

// FuzzFast is the same for any text.
func FuzzFast(f *testing.F) {
	f.Add(bytes.Repeat([]byte("aGVsbG8gd29ybGQ \n\r\n\x1b[1m"), 9), uint16(3))
	f.Fuzz(func(t *testing.T, text []byte, i uint16) { checkFast(t, text, int(i)%(len(text)+1)) })
}

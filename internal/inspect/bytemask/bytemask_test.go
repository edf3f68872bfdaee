package bytemask

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

var kinds = map[string]func(byte) bool{
	"digits":  func(c byte) bool { return c >= '0' && c <= '9' },
	"letters": func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' },
	"odd":     func(c byte) bool { return c < ' ' && c != '\t' && c != '\n' || c >= 0x7f },
	"base64": func(c byte) bool {
		return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("+/-_"), c) >= 0
	},
	"none": func(byte) bool { return false },
	"all":  func(byte) bool { return true },
	"nul":  func(c byte) bool { return c == 0 },
}

// Every byte at every place of a block is told right, in both forms.
func TestMasksOfEveryByteEverywhere(t *testing.T) {
	both(t, func(t *testing.T) {
		for name, is := range kinds {
			k := New(is)
			for c := range 256 {
				for at := range 64 {
					other := byte(c + 101)
					text := bytes.Repeat([]byte{other}, 64)
					text[at] = byte(c)
					want := uint64(0)
					for i := range text {
						if is(text[i]) {
							want |= 1 << i
						}
					}
					var got [1]uint64
					if n := k.Masks(got[:], text); n != 1 || got[0] != want || k.Mask(text) != want {
						t.Fatalf("%s, byte %#x at %d: mask %x, want %x", name, c, at, got[0], want)
					}
				}
			}
		}
	})
}

// Any two bytes in a row at any place are told, in both forms alike.
func TestPairsOfEveryTwoBytes(t *testing.T) {
	all := [][2]byte{{'s', 'k'}, {'@', '@'}, {'q', '~'}, {'a', 'k'}, {0xc3, 0xa9}, {'s', '.'}, {'1', '0'}, {'f', 'd'}, {'e', 'y'}, {'"', 0}}
	p := NewPairs(all)
	both(t, func(t *testing.T) {
		for a := range 256 {
			for b := range 256 {
				at := (a*7 + b) % 64
				text := bytes.Repeat([]byte{' '}, 65)
				text[at], text[at+1] = byte(a), byte(b)
				var got [1]uint64
				if n := p.Masks(got[:], text); n != 1 || got[0]>>at&1 != 0 != p.Begin(byte(a), byte(b)) {
					t.Fatalf("%#x %#x at %d: mask %x, begin %v", a, b, at, got[0], p.Begin(byte(a), byte(b)))
				}
			}
		}
	})
	for _, pair := range all {
		if !p.Begin(pair[0], pair[1]) || pair[0] == 's' && !p.Begin('S', pair[1]) {
			t.Errorf("the pair %q is not known", pair)
		}
	}
}

// What was added is found wherever it stands, and the two forms agree on the rest.
func TestGramsAreFoundEverywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	g := &Grams{}
	var added [][]byte
	for range 3000 {
		gram := []byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}
		added = append(added, gram)
		g.Add(Fold(gram))
	}
	both(t, func(t *testing.T) {
		for i, gram := range added {
			text := make([]byte, 3*64+Reach)
			for k := range text {
				text[k] = byte(rng.Uint32())
			}
			at := i % 192
			copy(text[at:], gram)
			var got [3]uint64
			if n := g.Masks(got[:], text); n != 3 || got[at/64]>>(at%64)&1 == 0 {
				t.Fatalf("%x at %d is not found", gram, at)
			}
			for k := range 192 {
				if got[k/64]>>(k%64)&1 != 0 != g.May(Fold(text[k:])) {
					t.Fatalf("at %d of %x: mask %x, may %v", k, text, got, g.May(Fold(text[k:])))
				}
			}
		}
	})
	if g.May(Fold([]byte("abcd"))) && g.May(Fold([]byte("0123"))) && g.May(Fold([]byte("wxyz"))) && g.May(Fold([]byte("mnop"))) {
		t.Error("everything may be one of them")
	}
}

func TestIndex(t *testing.T) {
	both(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for name, is := range kinds {
			k := New(is)
			for n := range 200 {
				text := make([]byte, n)
				for i := range text {
					for text[i] = byte(rng.Uint32()); is(text[i]) && name != "all" && rng.IntN(40) > 0; text[i] = byte(rng.Uint32()) {
					}
				}
				if got, want := k.Index(text), bytes.IndexFunc(latin(text), func(r rune) bool { return is(byte(r)) }); got != runesBefore(text, want) {
					t.Fatalf("%s: Index(%q) = %d, want %d", name, text, got, runesBefore(text, want))
				}
			}
		}
	})
}

// latin is text with each byte as a character, so that a standard function can be
// asked; runesBefore undoes that for an index.
func latin(text []byte) []byte {
	runes := make([]rune, len(text))
	for i, c := range text {
		runes[i] = rune(c)
	}
	return []byte(string(runes))
}

func runesBefore(text []byte, at int) int {
	if at < 0 {
		return -1
	}
	return len([]rune(string(latin(text)[:at])))
}

func TestRuns(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		m, next := rng.Uint64()|rng.Uint64()|rng.Uint64(), rng.Uint64()|rng.Uint64()|rng.Uint64()
		n := 1 + rng.IntN(40)
		got := Runs(m, next, n)
		for i := range 64 {
			all := true
			for k := i; k < i+n; k++ {
				all = all && (k < 64 && m>>k&1 != 0 || k >= 64 && next>>(k-64)&1 != 0)
			}
			if got>>i&1 != 0 != all {
				t.Fatalf("Runs(%x, %x, %d) = %x, wrong at %d", m, next, n, got, i)
			}
		}
	}
}

// both runs a test with the assembly, where there is some, and without.
func both(t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Run("table", func(t *testing.T) {
		defer setFast(setFast(false))
		f(t)
	})
	if fast {
		t.Run("assembly", f)
	} else {
		t.Log("no assembly here")
	}
}

// FuzzForms compares the two forms on any text, at any alignment.
func FuzzForms(f *testing.F) {
	k := New(kinds["base64"])
	p := NewPairs([][2]byte{{'s', 'k'}, {'e', 'y'}, {'q', '~'}})
	f.Add([]byte("sk-0123456789 \x1b[1m eyJhbGciOi \x00\xff q~ and so on and so on and so on and so on and so on"), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, skip uint8) {
		text = text[min(int(skip), len(text)):]
		run := func() (a, b []uint64, i int) {
			a, b = make([]uint64, len(text)/64+1), make([]uint64, len(text)/64+1)
			return a[:k.Masks(a, text)], b[:p.Masks(b, text)], k.Index(text)
		}
		a, b, i := run()
		old := setFast(false)
		c, d, j := run()
		setFast(old)
		if i != j || len(a) != len(c) || len(b) != len(d) {
			t.Fatalf("Index %d and %d, lengths %d %d, %d %d", i, j, len(a), len(c), len(b), len(d))
		}
		for n := range a {
			if a[n] != c[n] {
				t.Fatalf("mask %d: %x, %x", n, a[n], c[n])
			}
		}
		for n := range b {
			if b[n] != d[n] {
				t.Fatalf("pairs %d: %x, %x", n, b[n], d[n])
			}
		}
	})
}

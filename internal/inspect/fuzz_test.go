package inspect_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/secret"
)

// fuzzValues are known to the streams of the fuzz targets. They overlap
// themselves and each other.
var fuzzValues = []string{"sk-sk-sk-Zq81kTp", "k-sk-Zq81kTpWm3v", "Zq81kTpWm3vQ.x+y/1="}

func fuzzSets(tb testing.TB) (*inspect.Set, *exact.Set) {
	tb.Helper()
	var secrets []exact.Secret
	for _, v := range fuzzValues {
		secrets = append(secrets, exact.Secret{Name: "known", Value: secret.New(v)})
	}
	known, warnings := exact.New(secrets)
	if len(warnings) > 0 {
		tb.Fatal(warnings)
	}
	set, err := inspect.Compile(inspect.Config{Key: secret.New("fuzz")})
	if err != nil {
		tb.Fatal(err)
	}
	return set, known
}

// FuzzLanes writes text, with known secrets put into it in one of the suite's
// transforms, in pieces of random lengths. Whatever the pieces, the same comes
// out; nothing that comes out shows a secret; and redacting it again changes
// nothing.
func FuzzLanes(f *testing.F) {
	set, known := fuzzSets(f)
	all := slices.Concat(transforms, exactOnly)
	for i, seed := range []string{
		"", "plain text\r\n", "\x1b[31mred\x1b[0m\rX\bY\u200b", "<p>a &amp; b</p><!-- c", `{"a": "\u0041\n\\"}`, "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=",
		strings.Repeat("forty columns of text, and no more than ", 3), "sk-sk", "sk-\x1b[1m", "ghp_0123456789abcdefghijABCDEFGHIJ012345", // bailey:allow
	} {
		f.Add([]byte(seed), uint8(i), uint64(i))
		f.Add([]byte(seed), uint8(i+11), uint64(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, which uint8, seed uint64) {
		if len(raw) > 4<<10 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		// Within a tag, a comment or a control string nobody sees the value, nor
		// what is taken back.
		if bytes.ContainsAny(raw, "<\b\x1b\u009b") {
			which %= 2
		}
		tr := all[int(which)%len(all)]
		value := fuzzValues[rng.IntN(len(fuzzValues))]
		at := rng.IntN(len(raw) + 1)
		text := string(raw[:at]) + " " + strings.Join(tr.write(value), "") + " " + string(raw[at:])
		whole, found, err := stream(set, known, inspect.Batch, []string{text})
		if err != nil {
			t.Fatal(err)
		}
		pieces := cut(rng, text, rng.IntN(4))
		out, parts, err := stream(set, known, inspect.Batch, pieces)
		if err != nil {
			t.Fatal(err)
		}
		// That a character will be taken back cannot be foreseen: what waits for
		// it may have gone, though never a whole secret.
		if out != whole && !strings.ContainsAny(text, "\b\x1b\u009b") {
			t.Fatalf("%s: %q\nwhole     %q\nin pieces %q: %q", tr.name, text, whole, pieces, out)
		}
		if len(found) == 0 || len(parts) == 0 {
			t.Fatalf("%s: nothing is found in %q", tr.name, text)
		}
		if written := strings.Join(tr.write(value), ""); strings.Contains(whole, written) || strings.Contains(out, written) {
			t.Fatalf("%s: %q passes in %q", tr.name, value, whole)
		}
		again, _, err := stream(set, known, inspect.Batch, []string{whole})
		if err != nil {
			t.Fatal(err)
		}
		if again != whole {
			t.Fatalf("%s: %q\nonce  %q\ntwice %q", tr.name, text, whole, again)
		}
	})
}

// FuzzTerminal types text into a terminal, with the timer firing now and then.
// Of a known secret at most what typing may show comes out.
func FuzzTerminal(f *testing.F) {
	set, known := fuzzSets(f)
	f.Add([]byte("$ echo "), uint64(1))
	f.Add([]byte("\x1b[32m$\x1b[0m sk-\b\b\b"), uint64(2))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) > 2<<10 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		value := fuzzValues[rng.IntN(len(fuzzValues))]
		at := rng.IntN(len(raw) + 1)
		text := string(raw[:at]) + "\n" + value + "\n" + string(raw[at:])
		s := inspect.NewStream(inspect.StreamConfig{Set: set, ScanConfig: inspect.ScanConfig{Exact: known, Kind: inspect.Terminal, Columns: 80}})
		var out []byte
		var err error
		for _, p := range cut(rng, text, 0) {
			if out, err = s.Write(out, []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err = s.Close(out); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte(value)) {
			t.Fatalf("%q passes: %q becomes %q", value, text, out)
		}
	})
}

package inspect

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzStream puts what rules must find into text, and checks that every cutting
// gives the same, that masks are not masked again, and that the example itself
// does not pass.
func FuzzStream(f *testing.F) {
	s := rulesOf(f)
	var examples []string
	for _, some := range positives(f, s) {
		examples = append(examples, some...)
	}
	slices.Sort(examples)
	f.Add([]byte("plain\n"), uint16(3), uint64(1), false)
	f.Add([]byte("key = \"\\\"\r\n\t-----BEGIN \xff"), uint16(77), uint64(2), true)
	f.Add([]byte("https://user:pass@host/ 13812345678 \x1b[1m<b>"), uint16(500), uint64(3), true)
	f.Add([]byte("token=token=token= [REDACTED:jwt] sk-sk-"), uint16(901), uint64(4), false)
	f.Fuzz(func(t *testing.T, around []byte, which uint16, seed uint64, batch bool) {
		if len(around) > 2048 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		example := examples[int(which)%len(examples)]
		at := rng.IntN(len(around) + 1)
		text := slices.Concat(around[:at], []byte("\n"+example+"\n"), around[at:])
		cfg := ScanConfig{}
		if batch {
			cfg.Kind = Batch
		}
		want, _ := redactIn(s, cfg, text, func() int { return len(text) })
		for _, most := range []int{1, 3, 17, 200} {
			got, _ := redactIn(s, cfg, text, func() int { return 1 + rng.IntN(most) })
			if got != want {
				t.Fatalf("pieces of up to %d of %q\ngot  %q\nwant %q", most, text, got, want)
			}
		}
		if bytes.Contains(around, []byte("[REDACTED")) {
			return // a mask of somebody else's making
		}
		if again, _ := redactIn(s, cfg, []byte(want), func() int { return len(want) }); again != want {
			t.Fatalf("redacted twice: %q\nonce  %q\ntwice %q", text, want, again)
		}
	})
}

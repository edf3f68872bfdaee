package inspect

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Text made to keep us busy: a megabyte of it must be over in moments, and
// leave little behind. The times are told, not judged.
func TestHostileTextIsOver(t *testing.T) {
	s := rulesOf(t)
	for name, unit := range map[string]string{
		"curl": "curl ", "tokens": "eyJ-", "headers": "-----BEGIN RSA PRIVATE KEY-----", "digits": "1234 ", "keys": "key=token=", "dashes": "-----",
		"escapes": "\x1b[", "tags": "<b", "backslashes": `\u00`, "links": "://a:", "spaces": " ", "at": "a@", "percent": "%25",
	} {
		text := []byte(strings.Repeat(unit, (256<<10)/len(unit)))
		begin := cpu()
		st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
		out, err := st.Write(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		live := len(st.lanes[0].cands)
		out, err = st.Close(out)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-12s %6.1f MB/cpu-s, %d candidates at the end, %d bytes out", name, 0.262/(cpu()-begin).Seconds(), live, len(out))
		if live > 8<<10 {
			t.Errorf("%s: %d candidates are kept", name, live)
		}
	}
}

// How many matches may be in the making is bounded, and the bound does not
// depend on how the text was cut. Behind the crowd, tokens are found as ever.
func TestACrowdIsCutAnyHow(t *testing.T) {
	s := rulesOf(t)
	secret := token(5)
	for _, unit := range []string{"curl ", "eyJ-", "eyJhbGci", "host user ", "sk-ant-", "https://a:", "key=", "MTA"} {
		text := strings.Repeat(unit, 9000/len(unit)) + "\ncurl -u admin:" + token(6)[:20] + " https://x.test\n" + secret + "\n"
		want, _ := redactIn(s, ScanConfig{Kind: Batch}, []byte(text), func() int { return len(text) })
		if strings.Contains(want, secret) {
			t.Errorf("behind a crowd of %q the token passes", unit)
		}
		for _, most := range []int{7, 150, 3000} {
			rng := rand.New(rand.NewPCG(9, uint64(most)))
			if got, _ := redactIn(s, ScanConfig{Kind: Batch}, []byte(text), func() int { return 1 + rng.IntN(most) }); got != want {
				t.Errorf("a crowd of %q, in pieces of up to %d bytes:\n%q\nwhole:\n%q", unit, most, got[max(0, len(got)-300):], want[max(0, len(want)-300):])
			}
		}
	}
}

// Whoever floods a stream with beginnings hides nothing behind them: neither a
// match that begins among many that come to nothing, nor a value to which a
// crowd of beginnings is glued.
func TestACrowdHidesNothing(t *testing.T) {
	s := rulesOf(t)
	password := token(6)[4:30]
	// Every decoy is alive where the real command begins, and dies in the line
	// where its password stands.
	command := "\n2\n3\n4\ncurl --silent --location \\\n  -u admin:" + password + " https://x.test\n"
	for _, n := range []int{0, 1, 2, 7, 8, 9, 31, 32, 33, 200, 900} {
		for _, gap := range []int{0, 70, 1500} {
			text := strings.Repeat("curl ", n) + strings.Repeat("x ", gap/2) + "\n1" + command
			for _, most := range []int{len(text), 1, 3, 64, 700} {
				rng := rand.New(rand.NewPCG(uint64(n), uint64(most)))
				got, _ := redactIn(s, ScanConfig{Kind: Batch}, []byte(text), func() int { return max(1, most/2+rng.IntN(most/2+1)) })
				if strings.Contains(got, password) {
					t.Fatalf("behind %d decoys and %d bytes, in pieces of about %d, the password passes: …%q", n, gap, most, got[max(0, len(got)-160):])
				}
			}
		}
	}
}

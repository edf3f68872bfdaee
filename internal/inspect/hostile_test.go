package inspect

import (
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

package inspect_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
)

// What is found in a text by itself is noticed when all texts of an object are
// asked about at once: every positive of every rule, however it was written.
func TestQuietHidesNoPositive(t *testing.T) {
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, p := range positives(t, set) {
		for _, tr := range transforms {
			text := strings.Join(tr.write(p.text), "")
			if strings.ContainsAny(text, "\"\\\n\r") || len(set.Scan(inspect.ScanConfig{}, []byte(text))) == 0 {
				continue // it does not stand like that in JSON, or is not found by itself
			}
			asked++
			if set.Quiet(inspect.ScanConfig{}, []byte(`{"msg_id":"a_1","x":"`+text+`","session":"b"}`)) {
				t.Errorf("%s, %s: not noticed", p.rule, tr.name)
			}
		}
	}
	if asked < 1000 {
		t.Errorf("only %d positives could be asked about", asked)
	}
	for _, text := range []string{
		`{"msg_id":"3f2504e0-4f89-11d3-9a0c-0305e82c3301_12_4","msg_type":"stream","username":"ada","session":"3f2504e0-4f89-11d3-9a0c-0305e82c3301","date":"2026-11-28T03:46:00.123456Z","version":"5.4"}`,
		"Date\nSat, 28 Nov 2026 03:46:00 GMT\nContent-Type\napplication/json\nServer\nTornadoServer/6.4.1\n", `{}`,
	} {
		if !set.Quiet(inspect.ScanConfig{}, []byte(text)) {
			t.Errorf("not quiet, which costs time: %s", text)
		}
	}
}

// FuzzQuiet: when the whole is quiet, so is each of its parts; and a whole text
// looked at where it stands is judged as a stream judges it.
func FuzzQuiet(f *testing.F) {
	set, known := fuzzSets(f)
	for _, seed := range [][2]string{
		{"sk-sk-sk-Zq81kTp", "x"},
		{"sk-sk-sk", "-Zq81kTp"},
		{"api_key", "= 0123456789abcdef"},
		{"\x1b[1m", "a\b"},
		{"11010519491231002X", "62"},
		{"ghp_0123456789abcdefghijABCDEFGHIJ012345", "10.0.0.1"},
		{"aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", "&amp;<b"}, // bailey:allow
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		cfg := inspect.ScanConfig{Exact: known}
		if len(a)+len(b) > 4<<10 {
			return
		}
		whole := bytes.Join([][]byte{[]byte(`{"a":"`), a, []byte(`","b":"`), b, []byte(`"}`)}, nil)
		quiet := set.Quiet(cfg, whole)
		for _, part := range [][]byte{a, b, whole} {
			out, found, err := set.Redact(cfg, part)
			if err != nil {
				t.Fatal(err)
			}
			if quiet && len(found) > 0 {
				t.Errorf("%q is quiet, but %v is found in %q", whole, found, part)
			}
			s, _, err := stream(set, known, inspect.Document, []string{string(part)})
			if err != nil || s != string(out) {
				t.Errorf("%q: as a whole %q, as a stream %q, %v", part, out, s, err)
			}
		}
	})
}

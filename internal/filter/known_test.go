package filter_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
)

// noText returns bytes that no reader takes for text, with something in their
// middle.
func noText(in string) []byte {
	b := make([]byte, 40<<10)
	rand.NewChaCha8([32]byte{7}).Read(b) //nolint:errcheck // it does not fail
	b[0], b[1] = 0x7f, 0
	return append(append(b[:20<<10:20<<10], in...), b[20<<10:]...)
}

// A known secret in what is no text is found in every encoding, however the
// transfer cuts it, and the bytes pass as they came. It is told once in each
// place.
func TestAKnownSecretInWhatIsNoText(t *testing.T) {
	var wide []byte
	for _, u := range utf16.Encode([]rune(known)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	for name, in := range map[string]string{
		"as it is": known, "base64": base64.StdEncoding.EncodeToString([]byte("x" + known)), "UTF-16": string(wide),
		"between separators": strings.Join(strings.Split(known, ""), "\x00\x01"),
	} {
		for _, kind := range []filter.PipeKind{filter.Guess, filter.Watched} {
			for _, cut := range []int{1 << 20, 32 << 10, 1000, 7} {
				_, scope, found := newFilter(t, filter.Settings{})
				p := scope.Pipe(filter.SSH, false, kind, 0, "")
				data, out := noText("\x00"+in+"\x00"), []byte(nil)
				for rest := data; len(rest) > 0; {
					n := min(cut, len(rest))
					if len(out) == 0 {
						n = max(n, 16) // fewer bytes are neither text nor none
					}
					n = min(n, len(rest))
					more, err := p.Write(rest[:n])
					if err != nil {
						t.Fatal(err)
					}
					out, rest = append(out, more...), rest[n:]
				}
				more, err := p.Close()
				if out = append(out, more...); err != nil || !bytes.Equal(out, data) {
					t.Fatalf("%s in pieces of %d: %v, and what passed is not what came", name, cut, err)
				}
				told := 0
				for _, f := range found.list {
					if f.Rule == "secret:KEY" && f.Mode == inspect.Alert && f.Sum != "" {
						told++
					}
				}
				if told == 0 || told > 3 {
					t.Errorf("%s in pieces of %d: told %d times of %+v", name, cut, told, found.list)
				}
			}
		}
	}
}

// Bytes that follow text may go on with a secret that the text began.
func TestAKnownSecretAcrossTheEndOfText(t *testing.T) {
	_, scope, found := newFilter(t, filter.Settings{})
	p := scope.Pipe(filter.SSH, false, filter.Guess, 0, "")
	var out []byte
	for _, piece := range []string{"a line\nkey " + known[:7], known[7:] + "\x00\x01\x02\x03"} {
		more, err := p.Write([]byte(piece))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, more...)
	}
	if len(found.list) == 0 || !strings.HasPrefix(string(out), "a line\nkey ") {
		t.Errorf("passed as %q, found %+v", out, found.list)
	}
}

// The mode of a known secret holds in what is no text as it does in text, in both
// directions; its sum is the same, so that what is allowed here is allowed there.
func TestTheModeOfAKnownSecretHoldsForBytes(t *testing.T) {
	bytes, text := noText(known), []byte("the key is "+known+"\n")
	// pass carries a file in one direction.
	pass := func(scope *filter.Scope, data []byte, input bool) error {
		p := scope.Pipe(filter.SSH, input, filter.Watched, 0, "")
		if _, err := p.Write(data); err != nil {
			return err
		}
		_, err := p.Close()
		return err
	}
	for _, input := range []bool{false, true} {
		for mode, blocks := range map[inspect.Mode]bool{inspect.Off: false, inspect.LogOnly: false, inspect.Alert: false, inspect.Mask: false, inspect.Block: true} {
			for name, data := range map[string][]byte{"bytes": bytes, "text": text} {
				_, scope, found := newFilter(t, filter.Settings{Rules: map[string]inspect.Mode{"secret:KEY": mode}})
				err := pass(scope, data, input)
				refusal, refused := errors.AsType[*filter.Refusal](err)
				if refused != blocks || refused && refusal.Rule != "secret:KEY" {
					t.Errorf("%v in %s, input %v: %v", mode, name, input, err)
				}
				if told := len(found.list) > 0; told != (mode != inspect.Off) {
					t.Errorf("%v in %s, input %v: found %+v", mode, name, input, found.list)
				}
			}
		}
	}
	_, scope, found := newFilter(t, filter.Settings{})
	if pass(scope, bytes, false) != nil || pass(scope, text, false) != nil || len(found.list) != 2 || found.list[0].Sum != found.list[1].Sum {
		t.Errorf("in bytes and in text: %+v", found.list)
	}
	p := scope.Pipe(filter.SSH, false, filter.Guarded, 0, "model.bin")
	if _, err := p.Write(bytes); err == nil {
		t.Error("a guarded file passes with a known secret in it")
	}
	if more, err := p.Write([]byte("more")); err == nil || len(more) > 0 {
		t.Errorf("after the end %q passes: %v", more, err)
	}
}

package store_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/store"
)

func TestSeal(t *testing.T) {
	s := open(t, store.Config{Path: filepath.Join(t.TempDir(), "a.db")})
	other := open(t, store.Config{Path: filepath.Join(t.TempDir(), "b.db"), Key: bytes.Repeat([]byte{8}, 32)})
	for _, text := range []string{"", "token", strings.Repeat("x", 10000), "\x00\xff"} {
		sealed := s.SealText(text, "run r1")
		if got, err := s.OpenText(sealed, "run r1"); err != nil || got != text {
			t.Errorf("OpenText(SealText(%.20q)) = %.20q, %v", text, got, err)
		}
		if len(text) > 2 && strings.Contains(sealed, text) {
			t.Errorf("SealText(%.20q) shows the text: %s", text, sealed)
		}
		if again := s.SealText(text, "run r1"); again == sealed {
			t.Errorf("SealText(%.20q) gives the same twice: equal secrets would show", text)
		}
	}
	sealed := s.SealText("token", "run r1")
	last := sealed[len(sealed)-5] // within the authenticated bytes
	flipped := sealed[:len(sealed)-5] + string(rune(last)^1) + sealed[len(sealed)-4:]
	for name, open := range map[string]func() (string, error){
		"another place": func() (string, error) { return s.OpenText(sealed, "run r2") },
		"another key":   func() (string, error) { return other.OpenText(sealed, "run r1") },
		"changed":       func() (string, error) { return s.OpenText(flipped, "run r1") },
		"cut":           func() (string, error) { return s.OpenText(sealed[:len(sealed)-4], "run r1") },
		"empty":         func() (string, error) { return s.OpenText("", "run r1") },
		"only a prefix": func() (string, error) { return s.OpenText("v1.", "run r1") },
		"plain":         func() (string, error) { return s.OpenText("token", "run r1") },
		"not base64":    func() (string, error) { return s.OpenText("v1.***", "run r1") },
	} {
		if got, err := open(); !errors.Is(err, store.ErrSeal) || got != "" {
			t.Errorf("%s: OpenText = %q, %v; want ErrSeal", name, got, err)
		}
	}
}

func FuzzOpenText(f *testing.F) {
	s, err := store.Open(f.Context(), store.Config{Path: filepath.Join(f.TempDir(), "a.db"), Key: testKey})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	for _, seed := range []string{"", "v1.", "v1.AAAA", "v2.AAAA", "token", s.SealText("token", "other place")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sealed string) {
		if text, err := s.OpenText(sealed, "place"); err == nil {
			t.Errorf("OpenText(%q) = %q: what we never sealed opened", sealed, text)
		}
	})
}

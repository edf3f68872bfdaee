package ticket_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/ticket"
)

func sealer(t testing.TB, seed byte) *ticket.Sealer {
	t.Helper()
	s, err := ticket.New(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestANoteIsGoodForOnePurposeAndAWhile(t *testing.T) {
	s, now := sealer(t, 1), time.Unix(1_800_000_000, 0)
	note := s.Seal("enrol alice", []byte("secret of alice"), now.Add(time.Minute))
	if strings.Contains(note, "alice") || note == s.Seal("enrol alice", []byte("secret of alice"), now.Add(time.Minute)) {
		t.Errorf("note %q shows what it says, or is always the same", note)
	}
	if got, err := s.Open("enrol alice", note, now.Add(59*time.Second)); err != nil || string(got) != "secret of alice" {
		t.Errorf("Open = %q, %v", got, err)
	}
	flipped := []byte(note)
	flipped[9] ^= 1
	for what, try := range map[string]struct {
		s             *ticket.Sealer
		purpose, note string
		at            time.Time
	}{
		"bob opens it":     {s, "enrol bob", note, now},
		"for another use":  {s, "signin alice", note, now},
		"too late":         {s, "enrol alice", note, now.Add(time.Minute)},
		"another server's": {sealer(t, 2), "enrol alice", note, now},
		"changed":          {s, "enrol alice", string(flipped), now},
		"cut":              {s, "enrol alice", note[:len(note)-4], now},
		"empty":            {s, "enrol alice", "", now},
		"long":             {s, "enrol alice", note + strings.Repeat("A", 4096), now},
		"padded":           {s, "enrol alice", note + "=", now},
		"two lines":        {s, "enrol alice", note[:8] + "\n" + note[8:], now},
	} {
		if got, err := try.s.Open(try.purpose, try.note, try.at); !errors.Is(err, ticket.ErrBad) {
			t.Errorf("%s: Open = %q, %v; want ErrBad", what, got, err)
		}
	}
	if _, err := ticket.New([]byte("short")); err == nil {
		t.Error("a short key is taken")
	}
}

func FuzzOpen(f *testing.F) {
	s, now := sealer(f, 1), time.Unix(1_800_000_000, 0)
	f.Add("")
	f.Add(s.Seal("other", nil, now.Add(time.Hour)))
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := s.Open("purpose", text, now); err == nil {
			t.Errorf("Open(%q) = %q: nobody made that", text, got)
		}
	})
}

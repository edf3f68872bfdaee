// Package exact finds known values in text: given the secrets themselves, it
// reports every place where one of them stands, in whichever of the usual
// encodings, and however it was spaced, wrapped or joined.
//
// A value is expanded once into its variants (see variants.go): as it is, its
// long words, escaped for JSON, Go, Python, HTML and URLs, in base64 at every
// alignment, in hexadecimal and decimal notations, reversed. Text and variants
// are then compared without the bytes that separate ("squeezed", see
// domain.go), so that `s e c r e t`, ['s', 'e', …], a hard wrap or zero-width
// joiners hide nothing.
//
// What terminals and browsers do to text (escape sequences, overwriting, tags)
// and nested encodings are undone by package view before it gets here.
package exact

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/baileyhq/bailey/internal/secret"
)

const (
	// MinLength is the length in bytes below which a value is not looked for:
	// it would be found everywhere.
	MinLength = 8
	// minBits is the least information, estimated from the value's own letter
	// frequencies, that a value must carry.
	minBits = 17
	// minSqueezedBits is the least information (length × log2 of the alphabet)
	// of a variant that is compared without its separators: below it, ordinary
	// numbers and dates would join into it.
	minSqueezedBits = 32
	// MaxGap is the longest run of separating bytes between two bytes of a value.
	MaxGap = 96
	// MaxSpan is the longest stretch of text that one match covers, in bytes.
	MaxSpan = 64 << 10
	// pieceLength is the length above which a value is looked for in pieces, so
	// that no match waits for more than a few KiB of text.
	pieceLength = 1024
)

// A Secret is a value to find. Its name is what findings say.
type Secret struct {
	Name  string
	Value secret.Value
}

// A Warning says why a secret, or a part of it, is not looked for. It never
// holds the value.
type Warning struct {
	Name   string
	Reason string
}

// String returns the warning as a sentence.
func (w Warning) String() string { return fmt.Sprintf("secret %q %s", w.Name, w.Reason) }

// A Match is a place where a secret stands: text[Start:End] holds its first to
// its last byte, with whatever separates them.
type Match struct {
	Start, End int
	Name       string
}

// A Partial is the beginning of a secret at the end of a text.
type Partial struct {
	// Length is how many bytes at the end of the text may belong to a secret
	// that has not wholly arrived.
	Length int
	// Share is the largest part of any variant that those bytes hold, from 0
	// to 1.
	Share float64
}

// A Set is a compiled group of secrets. It is immutable and may be used
// concurrently. The nil Set finds nothing. Its needles are wiped from memory
// when the last user of the Set has let go of it.
type Set struct {
	names   []string
	domains []*domain
}

// New compiles secrets. Values that are too short or too regular to be found
// without masking ordinary text are left out, each with a Warning. Space around
// a value does not count.
func New(secrets []Secret) (*Set, []Warning) {
	s := &Set{}
	var warnings []Warning
	var needles [len(classes)][]needle
	for _, sec := range secrets {
		value := strings.TrimSpace(sec.Value.Reveal())
		if reason := weak(value); reason != "" {
			warnings = append(warnings, Warning{Name: sec.Name, Reason: reason})
			continue
		}
		if c, _ := classOf(value); c < 0 {
			warnings = append(warnings, Warning{Name: sec.Name, Reason: "is not looked for: too few of its characters could be told from ordinary text"})
			continue
		}
		id := len(s.names)
		s.names = append(s.names, sec.Name)
		for _, variant := range variants(value) {
			if c, text := classOf(variant.text); c >= 0 {
				needles[c] = append(needles[c], needle{text: text, name: id, part: variant.part})
			}
		}
	}
	for c := range classes {
		if len(needles[c]) == 0 {
			continue
		}
		d := newDomain(&classes[c], needles[c])
		s.domains = append(s.domains, d)
		runtime.AddCleanup(d, func(arena []byte) { clear(arena) }, d.arena)
	}
	if len(s.domains) == 0 {
		return nil, warnings
	}
	return s, warnings
}

// Len returns how many secrets the Set looks for.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.names)
}

// Find appends to dst every place in text where a secret stands, by start and
// then by end. Matches may overlap: variants of several secrets are all
// reported. Whether a place matches depends on its own bytes only.
func (s *Set) Find(dst []Match, text []byte) []Match {
	return s.find(dst, text, 0, 0)
}

// find appends the matches that end behind the first after bytes of text, their
// places counted from offset.
func (s *Set) find(dst []Match, text []byte, after, offset int) []Match {
	if s == nil {
		return dst
	}
	old := len(dst)
	for _, d := range s.domains {
		d.scan(text, after, func(start, end, name int) {
			dst = append(dst, Match{Start: offset + start, End: offset + end, Name: s.names[name]})
		})
	}
	fresh := dst[old:]
	slices.SortFunc(fresh, func(a, b Match) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	return append(dst[:old], slices.Compact(fresh)...)
}

// Hold returns the length of the longest end of text that may still grow into
// a match: a proper beginning of some variant, of at least least bytes not
// counting separators, with the separators that follow it. Of a variant that is
// longer than the value, hexadecimal digits for example, it takes as much as
// stands for least bytes of the value; but from the first byte on if least is 1.
func (s *Set) Hold(text []byte, least int) int { return s.Partial(text, least).Length }

// Partial is like [Set.Hold], and also tells how much of a secret is there.
func (s *Set) Partial(text []byte, least int) Partial {
	var p Partial
	if s == nil {
		return p
	}
	for _, d := range s.domains {
		length, share := d.partial(text, max(least, 1))
		p.Length = max(p.Length, length)
		p.Share = max(p.Share, share)
	}
	return p
}

// classOf returns the first class in which enough of variant is left, and what
// is left there; -1 when there is none.
func classOf(variant string) (int, []byte) {
	for c := range classes {
		text := classes[c].squeeze(variant)
		if len(text) >= MinLength && improbability(text) >= minSqueezedBits {
			return c, text
		}
	}
	return -1, nil
}

// commonWords are values that pass the other tests and stand in ordinary text.
var commonWords = []string{
	"12345678", "123456789", "1234567890", "abcdefgh", "changeit", "changeme", "password", "password1", "password123",
	"passw0rd", "p@ssw0rd", "qwertyui", "qwerty123", "username", "database", "postgres", "postgresql", "mongodb",
	"localhost", "127.0.0.1", "undefined", "anonymous", "workspace", "notebook", "jupyter", "production",
	"development", "staging", "testing", "disabled", "required", "optional", "administrator", "superuser",
	"letmein1", "sunshine", "princess", "football", "baseball", "iloveyou", "trustno1", "internal", "external",
	"placeholder", "your-api-key", "your_api_key", "test-secret", "test_secret", "application", "kubernetes", "container",
}

// weak says why value cannot be looked for; "" when it can.
func weak(value string) string {
	switch {
	case value == "":
		return "is not looked for: it is empty"
	case len(value) < MinLength:
		return fmt.Sprintf("is not looked for: it is shorter than %d bytes and would be found everywhere", MinLength)
	case slices.Contains(commonWords, strings.ToLower(value)):
		return "is not looked for: it is a common word and would be masked everywhere"
	case information(value) < minBits:
		return "is not looked for: it is too regular, and would be found in ordinary text"
	}
	return ""
}

// information estimates how many bits text carries from the frequencies of its
// own bytes (Shannon).
func information(text string) float64 {
	var count [256]int
	for i := range len(text) {
		count[text[i]]++
	}
	total := 0.0
	for _, n := range count {
		if n > 0 {
			total += float64(n) * math.Log2(float64(len(text))/float64(n))
		}
	}
	return total
}

// improbability estimates in bits how improbable text is by chance: its length times the size of
// the alphabet that it is written in.
func improbability(text []byte) float64 {
	var digit, lower, upper, other bool
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			digit = true
		case c >= 'a' && c <= 'z':
			lower = true
		case c >= 'A' && c <= 'Z':
			upper = true
		default:
			other = true
		}
	}
	size := 0.0
	for _, kind := range []struct {
		there bool
		size  float64
	}{{digit, 10}, {lower, 26}, {upper, 26}, {other, 32}} {
		if kind.there {
			size += kind.size
		}
	}
	if size == 0 {
		return 0
	}
	return float64(len(text)) * math.Log2(size)
}

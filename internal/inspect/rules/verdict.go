package rules

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
)

// A Hit is a match of a rule's pattern in a text.
type Hit struct {
	Rule       *Compiled
	Start, End int // the secret
	From, To   int // the whole match
}

// A Place is where a text comes from.
type Place struct {
	Path string // of a file, or ""
	// Trust applies what rule files say about paths to leave out.
	Trust bool
}

// Judge says why a match is no finding; "" when it is one.
func (b *Book) Judge(place Place, text []byte, m Hit) string {
	r := m.Rule
	value := text[m.Start:m.End]
	switch {
	case len(value) == 0:
		return "the secret is empty"
	case bytes.Contains(value, maskBegin) || isMaskName(text, m):
		return "it is masked already"
	case r.MaxLength > 0 && len(value) > r.MaxLength:
		return fmt.Sprintf("longer than max_length = %d", r.MaxLength)
	case r.MinUnique > 0 && unique(value) < r.MinUnique:
		return fmt.Sprintf("fewer different bytes than min_unique = %d", r.MinUnique)
	case r.Entropy > 0 && entropy(value) <= r.Entropy:
		return fmt.Sprintf("entropy %.2f is not above %.2f", entropy(value), r.Entropy)
	case r.boundary != nil && !r.boundary(text, m.Start, m.End):
		return "boundary " + r.Boundary + ": it is part of something longer"
	case r.validate != nil && !r.validate(value):
		return "validator " + r.Validator + " says no"
	case len(r.context) > 0 && !r.inContext(text, m.From, m.To):
		return "no context word nearby"
	}
	whole := bytes.Trim(text[m.From:m.To], "\n")
	line := lineAround(text, m.From, m.To)
	for _, a := range r.allow {
		if a.allowed(value, whole, line, place) {
			return "the rule's allow-list"
		}
	}
	for _, a := range b.allow {
		if a.allowed(value, whole, line, place) {
			return "the files' allow-list"
		}
	}
	return ""
}

var maskBegin = []byte("[REDACTED:")

// isMaskName reports whether a match is what a mask says of itself.
func isMaskName(text []byte, m Hit) bool {
	return bytes.HasSuffix(text[:m.Start], maskBegin) || m.End < len(text) && text[m.End] == ']' && bytes.Contains(text[max(0, m.Start-64):m.Start], maskBegin) &&
		!bytes.Contains(text[max(0, m.Start-64):m.Start], []byte("]"))
}

const (
	contextBefore = 96
	contextAfter  = 32
	// LineBefore is how far before a match its line may begin, for allow-lists.
	LineBefore = 256
)

// inContext reports whether one of the rule's context words stands near.
func (r *Compiled) inContext(text []byte, from, to int) bool {
	near := bytes.ToLower(text[max(0, from-contextBefore):min(len(text), to+contextAfter)])
	for _, w := range r.context {
		if bytes.Contains(near, w) {
			return true
		}
	}
	return false
}

// lineAround returns the line of a match, as far as 256 bytes before it.
func lineAround(text []byte, from, to int) []byte {
	start := max(0, from-LineBefore)
	if i := bytes.LastIndexByte(text[start:from], '\n'); i >= 0 {
		start += i + 1
	}
	return text[start:to]
}

// examples runs every rule's own examples and returns what fails. Those of the
// rules that are part of this program are run by its tests; they are run here
// only where another file changed what a rule lets pass.
func (b *Book) examples() []error {
	var problems problems
	for _, r := range b.All {
		if r.vetted {
			continue
		}
		for n, text := range r.Examples {
			if reason, found := b.TryAlone(r, []byte(text)); !found {
				problems.add(r.File, r.Line, r.ID, "does not find its own example %d (%s)", n+1, cmp.Or(reason, "the regex does not match"))
			}
		}
		for n, text := range r.Negatives {
			if _, found := b.TryAlone(r, []byte(text)); found {
				problems.add(r.File, r.Line, r.ID, "finds its own negative %d: make the regex stricter, or the negative an example", n+1)
			}
		}
	}
	return problems
}

// TryAlone reports whether the rule finds something in text, else the reason
// of the last refusal.
func (b *Book) TryAlone(r *Compiled, text []byte) (reason string, found bool) {
	for _, m := range r.Find(text) {
		if reason = b.Judge(Place{}, text, m); reason == "" {
			return "", true
		}
	}
	return reason, false
}

// Find returns the matches of the rule's pattern in text, by the plain regular
// expression.
func (r *Compiled) Find(text []byte) []Hit {
	r.once.Do(func() { r.whole = regexp.MustCompile(r.Pattern) })
	var found []Hit
	for _, at := range r.whole.FindAllSubmatchIndex(text, -1) {
		found = append(found, r.HitOf(at))
	}
	return found
}

// HitOf picks the secret from the groups of a match: the group the rule
// names, else the first that is not empty, else everything.
func (r *Compiled) HitOf(at []int) Hit {
	m := Hit{Rule: r, Start: at[0], End: at[1], From: at[0], To: at[1]}
	if r.group > 0 {
		m.Start, m.End = max(at[2*r.group], at[0]), max(at[2*r.group+1], at[0])
		return m
	}
	for i := 2; i < len(at); i += 2 {
		if at[i+1] > at[i] {
			m.Start, m.End = at[i], at[i+1]
			break
		}
	}
	return m
}

package inspect

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/match"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Set is a compiled group of rules. It is immutable and may be used
// concurrently; [Set.With] makes another that shares its engine.
type Set struct {
	*engine
	modes []Mode          // by rule
	exact Mode            // of known secrets without a mode of their own
	own   map[string]Mode // of those with one, by "secret:NAME"
	most  Mode            // the sternest of all those

	prefixes *match.Prefixes // of literals that secrets begin with
	reach    int             // how much of a secret may stand before its literal
	over     Overrides
	hash     string
}

// engine is what the Sets of one Compile share.
type engine struct {
	rules []*rule
	allow []*allowlist // for all rules

	index     *match.Index
	anchors   []anchors // by literal
	free      free      // rules without a literal
	gated     free      // those that are tried only near their keywords, which their patterns do not hold
	markRules []string  // keywords that no pattern holds
	gates     []bool    // by keyword: a rule without a literal needs it

	key    []byte
	sums   sync.Pool // of hash.Hash under key
	now    func() time.Time
	source string // hash of the rule files
}

// Compile reads rule files and returns the Set of their rules. Every problem of
// every file is told at once, as one error; so is every rule that does not
// find its own examples, or does find its negatives.
func Compile(cfg Config) (*Set, error) {
	var files []File
	if !cfg.NoDefaults {
		files = defaults()
	}
	ours := len(files)
	files = append(files, cfg.Files...)
	l := &loader{}
	sum := sha256.New()
	for i, f := range files {
		l.vetted = i < ours
		l.load(f)
		_ = binary.Write(sum, binary.BigEndian, int64(len(f.Data))) // a hash does not fail
		sum.Write(f.Data)
	}
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	key := cfg.Key
	if key.Empty() {
		key = secret.Random(32)
	}
	e := &engine{rules: l.rules, allow: l.allow, key: []byte(key.Reveal()), now: cfg.Now, source: hex.EncodeToString(sum.Sum(nil))}
	if e.now == nil {
		e.now = time.Now
	}
	e.build()
	s := (&Set{engine: e}).With(Overrides{})
	if problems := s.examples(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return s, nil
}

// With returns the Set with the given overrides instead of its own.
func (s *Set) With(o Overrides) *Set {
	n := &Set{engine: s.engine, over: o, modes: make([]Mode, len(s.rules))}
	limit := func(m Mode) Mode {
		if o.Ceiling != Unset {
			return min(m, o.Ceiling)
		}
		return m
	}
	for i, r := range s.rules {
		n.modes[i] = limit(cmp.Or(o.Modes[r.ID], r.Mode, o.Default, Mask))
	}
	n.exact = limit(cmp.Or(o.Exact, Mask))
	n.most = n.exact
	for id, m := range o.Modes {
		if strings.HasPrefix(id, secretPrefix) && m != Unset {
			if n.own == nil {
				n.own = map[string]Mode{}
			}
			n.own[id] = limit(m)
			n.most = max(n.most, n.own[id])
		}
	}
	n.prefixes, n.reach = n.beginnings()
	sum := sha256.New()
	fmt.Fprint(sum, s.source, o.Default, o.Ceiling, o.Exact)
	for _, id := range sortedKeys(o.Modes) {
		fmt.Fprint(sum, "|", id, o.Modes[id])
	}
	for _, a := range o.Allow {
		fmt.Fprintf(sum, "|%q", []string{a.Rule, a.Path, a.User, a.Sum, a.Until.UTC().String()})
	}
	fmt.Fprintf(sum, "|%q", o.AllowPaths)
	n.hash = hex.EncodeToString(sum.Sum(nil))[:16]
	return n
}

// secretPrefix begins the rule id of every known secret.
const secretPrefix = "secret:"

// exactMode returns the mode of a known secret, by its rule id.
func (s *Set) exactMode(id string) Mode {
	if m, ok := s.own[id]; ok {
		return m
	}
	return s.exact
}

func sortedKeys(m map[string]Mode) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Hash identifies the rules and the overrides: 16 hexadecimal digits.
func (s *Set) Hash() string { return s.hash }

// Rules returns the rules in the order of their files.
func (s *Set) Rules() []Rule {
	rules := make([]Rule, len(s.rules))
	for i, r := range s.rules {
		rules[i] = r.Rule
		rules[i].Mode = s.modes[i]
	}
	return rules
}

// sum returns the keyed sum of a value.
func (s *Set) sum(value []byte) Sum {
	h, _ := s.sums.Get().(hash.Hash)
	if h == nil {
		h = hmac.New(sha256.New, s.key)
	}
	defer s.sums.Put(h)
	h.Reset()
	h.Write(value)
	var buf [sha256.Size]byte
	return Sum(h.Sum(buf[:0])[:16])
}

// allowance reports whether an administrator lets the finding pass.
func (s *Set) allowance(cfg *ScanConfig, rule string, sum Sum) bool {
	for _, a := range s.over.Allow {
		switch {
		case a.Rule == "" && a.Path == "" && a.User == "" && a.Sum == "":
		case a.Rule != "" && a.Rule != rule:
		case a.User != "" && a.User != cfg.User:
		case a.Path != "" && !underPath(cfg.Path, a.Path):
		case a.Sum != "" && !strings.EqualFold(a.Sum, sum.String()):
		case !a.Until.IsZero() && !s.now().Before(a.Until):
		default:
			return true
		}
	}
	return false
}

// trusts reports whether patterns are not looked for at a path.
func (s *Set) trusts(path string) bool {
	return slices.ContainsFunc(s.over.AllowPaths, func(p string) bool { return underPath(path, p) })
}

// underPath reports whether path is prefix, or lies in the directory that
// prefix names with a slash at its end.
func underPath(path, prefix string) bool {
	return path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix)
}

// hit is a match of a rule's pattern in a text.
type hit struct {
	rule       *rule
	start, end int // the secret
	from, to   int // the whole match
}

// judge says why a match is no finding; "" when it is one.
func (s *Set) judge(cfg *ScanConfig, text []byte, m hit) string {
	r := m.rule
	value := text[m.start:m.end]
	switch {
	case len(value) == 0:
		return "the secret is empty"
	case bytes.Contains(value, maskBegin) || s.isMaskName(text, m):
		return "it is masked already"
	case r.MaxLength > 0 && len(value) > r.MaxLength:
		return fmt.Sprintf("longer than max_length = %d", r.MaxLength)
	case r.MinUnique > 0 && unique(value) < r.MinUnique:
		return fmt.Sprintf("fewer different bytes than min_unique = %d", r.MinUnique)
	case r.Entropy > 0 && entropy(value) <= r.Entropy:
		return fmt.Sprintf("entropy %.2f is not above %.2f", entropy(value), r.Entropy)
	case r.boundary != nil && !r.boundary(text, m.start, m.end):
		return "boundary " + r.Boundary + ": it is part of something longer"
	case r.validate != nil && !r.validate(value):
		return "validator " + r.Validator + " says no"
	case len(r.context) > 0 && !r.inContext(text, m.from, m.to):
		return "no context word nearby"
	}
	whole := bytes.Trim(text[m.from:m.to], "\n")
	line := lineAround(text, m.from, m.to)
	for _, a := range r.allow {
		if a.allowed(value, whole, line, cfg.Path, cfg.TrustPath) {
			return "the rule's allow-list"
		}
	}
	for _, a := range s.allow {
		if a.allowed(value, whole, line, cfg.Path, cfg.TrustPath) {
			return "the files' allow-list"
		}
	}
	return ""
}

var maskBegin = []byte("[REDACTED:")

// isMaskName reports whether a match is what a mask says of itself.
func (s *Set) isMaskName(text []byte, m hit) bool {
	return bytes.HasSuffix(text[:m.start], maskBegin) || m.end < len(text) && text[m.end] == ']' && bytes.Contains(text[max(0, m.start-64):m.start], maskBegin) &&
		!bytes.Contains(text[max(0, m.start-64):m.start], []byte("]"))
}

const (
	contextBefore = 96
	contextAfter  = 32
	lineBefore    = 256
)

// inContext reports whether one of the rule's context words stands near.
func (r *rule) inContext(text []byte, from, to int) bool {
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
	start := max(0, from-lineBefore)
	if i := bytes.LastIndexByte(text[start:from], '\n'); i >= 0 {
		start += i + 1
	}
	return text[start:to]
}

// examples runs every rule's own examples and returns what fails. Those of the
// rules that are part of this program are run by its tests; they are run here
// only where another file changed what a rule lets pass.
func (s *Set) examples() []error {
	var problems problems
	for _, r := range s.rules {
		if r.vetted {
			continue
		}
		for n, text := range r.Examples {
			if reason, found := s.tryAlone(r, []byte(text)); !found {
				problems.add(r.File, r.Line, r.ID, "does not find its own example %d (%s)", n+1, cmp.Or(reason, "the regex does not match"))
			}
		}
		for n, text := range r.Negatives {
			if _, found := s.tryAlone(r, []byte(text)); found {
				problems.add(r.File, r.Line, r.ID, "finds its own negative %d: make the regex stricter, or the negative an example", n+1)
			}
		}
	}
	return problems
}

// tryAlone reports whether the rule finds something in text, else the reason
// of the last refusal.
func (s *Set) tryAlone(r *rule, text []byte) (reason string, found bool) {
	for _, m := range r.find(text) {
		if reason = s.judge(&ScanConfig{}, text, m); reason == "" {
			return "", true
		}
	}
	return reason, false
}

// find returns the matches of the rule's pattern in text, by the plain regular
// expression.
func (r *rule) find(text []byte) []hit {
	r.once.Do(func() { r.whole = regexp.MustCompile(r.Pattern) })
	var found []hit
	for _, at := range r.whole.FindAllSubmatchIndex(text, -1) {
		found = append(found, r.matchOf(at))
	}
	return found
}

// matchOf picks the secret from the groups of a match: the group the rule
// names, else the first that is not empty, else everything.
func (r *rule) matchOf(at []int) hit {
	m := hit{rule: r, start: at[0], end: at[1], from: at[0], to: at[1]}
	if r.group > 0 {
		m.start, m.end = max(at[2*r.group], at[0]), max(at[2*r.group+1], at[0])
		return m
	}
	for i := 2; i < len(at); i += 2 {
		if at[i+1] > at[i] {
			m.start, m.end = at[i], at[i+1]
			break
		}
	}
	return m
}

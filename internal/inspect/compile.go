package inspect

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/match"
	"github.com/baileyhq/bailey/internal/inspect/rules"
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
	book   *rules.Book
	key    []byte
	sums   sync.Pool // of hash.Hash under key
	now    func() time.Time
	source string // hash of the rule files
}

// Compile reads rule files and returns the Set of their rules. Every problem of
// every file is told at once, as one error; so is every rule that does not
// find its own examples, or does find its negatives.
func Compile(cfg Config) (*Set, error) {
	book, err := rules.Load(cfg.Files, !cfg.NoDefaults)
	if err != nil {
		return nil, err
	}
	var files []File
	if !cfg.NoDefaults {
		files = rules.Defaults()
	}
	sum := sha256.New()
	for _, f := range append(files, cfg.Files...) {
		_ = binary.Write(sum, binary.BigEndian, int64(len(f.Data))) // a hash does not fail
		sum.Write(f.Data)
	}
	key := cfg.Key
	if key.Empty() {
		key = secret.Random(32)
	}
	e := &engine{book: book, key: []byte(key.Reveal()), now: cfg.Now, source: hex.EncodeToString(sum.Sum(nil))}
	if e.now == nil {
		e.now = time.Now
	}
	return (&Set{engine: e}).With(Overrides{}), nil
}

// With returns the Set with the given overrides instead of its own.
func (s *Set) With(o Overrides) *Set {
	n := &Set{engine: s.engine, over: o, modes: make([]Mode, len(s.book.All))}
	limit := func(m Mode) Mode {
		if o.Ceiling != Unset {
			return min(m, o.Ceiling)
		}
		return m
	}
	for i, r := range s.book.All {
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
	n.prefixes, n.reach = s.book.Beginnings(func(r *rules.Compiled) bool { return n.modes[r.Index] >= Mask })
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
	all := make([]Rule, len(s.book.All))
	for i, r := range s.book.All {
		all[i] = r.Rule
		all[i].Mode = s.modes[i]
	}
	return all
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

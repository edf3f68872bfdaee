// Package policy is what an administrator wrote about images: whose signature
// counts, for which repositories, and what else must hold. It reads the file,
// reports everything that is wrong with it at once, and answers which rule
// an image falls under and whether an identity or a condition matches; the
// cryptography is left to its callers.
package policy

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey/internal/trust/root"
)

// A Mode says what a rule does about an image that does not meet it.
type Mode string

// The modes. The zero Mode enforces.
const (
	Enforce Mode = "enforce" // it does not start
	Warn    Mode = "warn"    // it starts, and whoever starts it is told
	Audit   Mode = "audit"   // it starts, and only the journal is told
)

// Platforms says which manifests of a multi-platform image must be signed.
type Platforms string

// The choices.
const (
	Index   Platforms = "index"   // what is named; it binds its children by digest
	All     Platforms = "all"     // what is named and every platform in it
	Runtime Platforms = "runtime" // the manifest of the machine's platform, by itself
)

// A Policy is a policy file in force. It never changes and may be used
// concurrently.
type Policy struct {
	Name  string // the file it came from
	Hash  string // "sha256:…" over the file and every file it names
	Rules []*Rule
	Roots map[string]*root.Root // by name; "public-good" is always there
	Files []string              // every file that was read, the policy's own first

	// Broken says why the policy allows nothing at all; empty in a sound one.
	Broken string
}

// A Rule says what must hold for the images it matches.
type Rule struct {
	Name         string
	Match        []Pattern
	Threshold    int // how many of Of must have signed, by as many distinct signers
	Of           []*Authority
	Attestations []*Attestation
	Deny         []string      // digests that never start, however well signed
	MaxAge       time.Duration // of the signature; 0: no limit
	NotBefore    time.Time     // of the signature; zero: no limit
	Platforms    Platforms
	Bind         bool // the signature must name the repository that the image is started from
	Mode         Mode

	// MaxEvidenceAge is how old stored evidence may be before the registry is
	// asked again; 0: forever.
	MaxEvidenceAge time.Duration
	// Approved lets an image start whose evidence cannot be had, if this very
	// digest was approved at most so long ago; 0: it stays down.
	Approved time.Duration
}

// An Authority is somebody whose signature may count: a key, or an identity
// with its issuer. Exactly one of Key and Keyless is set.
type Authority struct {
	Name    string
	Key     *Key
	Keyless *Keyless

	// Root holds the logs, authorities and timestamps that Log, SCT and
	// keyless certificates hang from.
	Root *root.Root
	Log  bool // the signature must be in a transparency log; always so for keyless unless a timestamp stands for it
	SCT  bool // keyless: the certificate must prove that it was logged
}

// A Key is a public key.
type Key struct {
	Public      crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey
	Fingerprint string           // "sha256:…" of the key in PKIX form
	NotBefore   time.Time        // when it came into use, judged by the signature's trusted time
	NotAfter    time.Time
}

// Keyless is an identity in a certificate, and who vouched for it.
type Keyless struct {
	Issuer   string  // exact
	Identity Matcher // of the certificate's only subject alternative name

	// What the certificate must say about the build; empty: anything.
	SourceRepository, SourceRef, RunnerEnvironment, Workflow string
}

// An Attestation is a statement about the image that must exist and hold.
type Attestation struct {
	Type      string   // as written
	Types     []string // predicate types it stands for
	From      []*Authority
	Condition *Condition // nil: its existence suffices
	MaxAge    time.Duration
}

// Describe returns what the rule wants, in words.
func (r *Rule) Describe() string {
	of := make([]string, len(r.Of))
	for i, a := range r.Of {
		of[i] = a.Name
	}
	s := "signed by " + strings.Join(of, " or ")
	if r.Threshold > 1 {
		s = fmt.Sprintf("signed by %d of %s", r.Threshold, strings.Join(of, ", "))
	}
	if r.Platforms != Index {
		s += ", platforms " + string(r.Platforms)
	}
	for _, a := range r.Attestations {
		s += ", with " + a.Type
		if a.Condition != nil {
			s += " where " + a.Condition.Text
		}
	}
	if r.MaxAge > 0 {
		s += fmt.Sprintf(", within %d days", int(r.MaxAge.Hours()/24))
	}
	if !r.NotBefore.IsZero() {
		s += ", not before " + r.NotBefore.Format(time.DateOnly)
	}
	if r.Bind {
		s += ", for this very repository"
	}
	if r.Mode != Enforce {
		s += " (mode " + string(r.Mode) + ")"
	}
	return s
}

// RuleFor returns the first rule, in the order of the file, that matches a
// repository ("quay.io/jupyter/scipy-notebook"), or nil: then nothing is
// allowed.
func (p *Policy) RuleFor(repository string) *Rule {
	for _, r := range p.Rules {
		if slices.ContainsFunc(r.Match, func(m Pattern) bool { return m.Match(repository) }) {
			return r
		}
	}
	return nil
}

// A Pattern matches repositories. "*" stands for one path element or a part of
// one, "**" as the last element for anything below; all else is literal. It
// is anchored at both ends, and its registry is never a wildcard unless the
// whole pattern is "**".
type Pattern string

// Match reports whether the repository falls under the pattern.
func (p Pattern) Match(repository string) bool {
	if p == "**" {
		return true
	}
	want, have := strings.Split(string(p), "/"), strings.Split(repository, "/")
	for i, w := range want {
		if w == "**" && i == len(want)-1 {
			return len(have) > i
		}
		if i >= len(have) || !glob(w, have[i]) {
			return false
		}
	}
	return len(want) == len(have)
}

// glob matches one path element, in linear time: it never goes back further
// than the last star.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark, p = p, i, p+1
		case p < len(pattern) && pattern[p] == s[i]:
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// Judge decides on an image by evidence alone: it asks nobody and keeps
// nothing, and what it returns depends only on what it is given. The evidence
// may come from anybody.
func Judge(ev Evidence, p *policy.Policy, image Reference, platform string, now time.Time) Verdict {
	v := Verdict{
		Image: image, Name: image.String(), Digest: image.Digest,
		PolicyHash: p.Hash, Decided: now.UTC(), Collected: ev.Collected, Mode: policy.Enforce,
	}
	if p.Broken != "" {
		v.deny("policy", ReasonNoPolicy, "mend "+p.Name, "the image policy allows nothing while it is broken: %s", p.Broken)
		return v
	}
	rule := p.RuleFor(image.Repository)
	if rule == nil {
		v.deny("policy", ReasonNoPolicy, "choose an image of the catalogue, or ask an administrator to add a rule that matches "+image.Repository,
			"no rule of the image policy matches %s, and what no rule matches is refused", image.Repository)
		return v
	}
	v.Rule, v.Mode = rule.Name, rule.Mode
	v.check("policy", true, "", "rule %s: %s", rule.Name, rule.Describe())
	j := &judgement{v: &v, ev: &ev, rule: rule, image: image, platform: platform, now: now}
	j.run()
	return v
}

// A judgement is one run of Judge.
type judgement struct {
	v        *Verdict
	ev       *Evidence
	rule     *policy.Rule
	image    Reference
	platform string
	now      time.Time

	claims []*claim // what the items say, unproven
	effort int      // signature checks done so far
	spent  bool     // effort ran out
}

func (j *judgement) run() {
	if slices.Contains(j.rule.Deny, j.image.Digest) {
		j.v.Mode = policy.Enforce // "never" is meant also where the rest is only warned about
		j.v.deny("deny list", ReasonListed, "choose a newer image", "rule %s denies this very digest", j.rule.Name)
		return
	}
	children, ok := j.shape()
	if !ok {
		return
	}
	if slices.Contains(j.rule.Deny, j.v.PlatformDigest) {
		j.v.Mode = policy.Enforce
		j.v.deny("deny list", ReasonListed, "choose a newer image", "rule %s denies the manifest for %s", j.rule.Name, j.platform)
		return
	}
	j.read()
	for _, subject := range j.subjects(children) {
		if !j.signatures(subject) {
			return
		}
	}
	for _, a := range j.rule.Attestations {
		if !j.attestation(a) {
			return
		}
	}
	j.v.Class, j.v.Reason = Allowed, ReasonMet
	names := make([]string, 0, len(j.v.Signers))
	for _, s := range j.v.Signers {
		if !slices.Contains(names, s.Authority) {
			names = append(names, s.Authority)
		}
	}
	j.v.Msg = "signed by " + strings.Join(names, ", ") + ", as rule " + j.rule.Name + " requires"
}

// subjects returns the digests that the rule wants signed.
func (j *judgement) subjects(children []string) []string {
	switch j.rule.Platforms {
	case policy.All:
		return append([]string{j.image.Digest}, children...)
	case policy.Runtime:
		return []string{j.v.PlatformDigest}
	case policy.Index:
	}
	return []string{j.image.Digest}
}

// A miss is why one signature does not count.
type miss struct {
	reason Reason
	detail string
	hint   string
}

// nearness orders reasons by how near they come to success: the one that is
// shown is the one that is worth mending.
var nearness = map[Reason]int{
	ReasonUntrusted: 1, ReasonWrongImage: 2, ReasonWrongIdentity: 3, ReasonMalformed: 1, ReasonInvalid: 4, ReasonNoLog: 5,
	ReasonWrongRepository: 6, ReasonNoTime: 7, ReasonBefore: 8, ReasonTooOld: 8, ReasonCondition: 9,
}

func nearer(best *miss, m *miss) *miss {
	if best == nil || m != nil && nearness[m.reason] > nearness[best.reason] {
		return m
	}
	return best
}

// signatures looks for enough signers of one manifest.
func (j *judgement) signatures(subject string) bool {
	what := "the image"
	if subject != j.image.Digest {
		what = "the manifest " + subject
	}
	var best *miss
	var found []Signer
	seen := 0
	for _, c := range j.claims {
		if c.subject != subject || c.predicate != "" && c.predicate != "none" && !slices.Contains(signatureTypes, c.predicate) {
			continue
		}
		seen++
		if c.broken != nil {
			best = nearer(best, c.broken)
			continue
		}
		for _, a := range j.rule.Of {
			s, m := j.prove(c, a, subject, j.rule.MaxAge)
			if m != nil {
				best = nearer(best, m)
				continue
			}
			found = append(found, s)
		}
		if distinct(j.rule.Of, found) >= j.rule.Threshold {
			break
		}
	}
	if n := distinct(j.rule.Of, found); n >= j.rule.Threshold {
		for _, s := range found {
			if !slices.ContainsFunc(j.v.Signers, func(o Signer) bool { return o.Evidence == s.Evidence && o.Authority == s.Authority }) {
				j.v.Signers = append(j.v.Signers, s)
				j.v.check("signature", true, "", "%s is signed by %s (%s)%s", what, s.Authority, s.ID, j.elsewhere(s))
			}
		}
		return true
	} else if n > 0 {
		j.v.deny("signature", ReasonThreshold, "have the others sign it: "+names(j.rule.Of), "%s has %d of the %d distinct signers that rule %s wants%s", what, n, j.rule.Threshold, j.rule.Name, detail(best))
		return false
	}
	j.unsigned(what, subject, seen, best)
	return false
}

// unsigned says why nobody's signature counted.
func (j *judgement) unsigned(what, subject string, seen int, best *miss) {
	sign := "sign it: cosign sign --key KEY " + j.image.Repository + "@" + subject + "; or countersign it: bailey image countersign"
	switch {
	case subject != j.image.Digest && seen == 0:
		j.v.deny("signature", ReasonPlatform, "sign every platform: cosign sign --recursive", "%s is not signed by itself, as rule %s wants of platforms", what, j.rule.Name)
	case j.ev.Skipped > 0 || j.spent:
		j.v.deny("signature", ReasonTooMany, "remove what does not belong there; the repository's owner sees who may push to it",
			"no trusted signature is among what was looked at, and more pieces are attached to %s than one decision looks at", what)
	case seen == 0:
		j.v.deny("signature", ReasonUnsigned, sign, "nobody signed %s; rule %s wants a signature of %s", what, j.rule.Name, names(j.rule.Of))
	default:
		j.v.deny("signature", best.reason, cmpOr(best.hint, sign), "%s", best.detail)
	}
}

func detail(m *miss) string {
	if m == nil {
		return ""
	}
	return "; of another signature: " + m.detail
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// elsewhere says it when a signature was made for another repository: it
// counts, unless the rule binds, but it is worth knowing.
func (j *judgement) elsewhere(s Signer) string {
	if s.Repository != "" && s.Repository != j.image.Repository {
		return "; the signature names " + s.Repository + ", and this is a copy in " + j.image.Repository
	}
	return ""
}

func names(of []*policy.Authority) string {
	all := make([]string, len(of))
	for i, a := range of {
		all[i] = a.Name
	}
	return strings.Join(all, ", ")
}

// distinct returns how many authorities can be paired with a signer each, no
// signer counted twice: one key under two names, or one signature attached
// twice, is one.
func distinct(of []*policy.Authority, found []Signer) int {
	edges := map[string][]string{}
	for _, s := range found {
		edges[s.Authority] = append(edges[s.Authority], s.Kind+" "+s.Issuer+" "+s.ID)
	}
	taken := map[string]string{} // signer → authority
	var try func(a string, seen map[string]bool) bool
	try = func(a string, seen map[string]bool) bool {
		for _, s := range edges[a] {
			if seen[s] {
				continue
			}
			seen[s] = true
			if other, busy := taken[s]; !busy || try(other, seen) {
				taken[s] = a
				return true
			}
		}
		return false
	}
	n := 0
	for _, a := range of {
		if try(a.Name, map[string]bool{}) {
			n++
		}
	}
	return n
}

// attestation looks for a statement of a type by somebody it may come from,
// of the image or of the manifest that runs, whose condition holds.
func (j *judgement) attestation(a *policy.Attestation) bool {
	check := "attestation " + a.Type
	var best *miss
	seen := 0
	for _, c := range j.claims {
		if c.subject != j.image.Digest && c.subject != j.v.PlatformDigest || !slices.Contains(a.Types, c.predicate) || c.broken != nil {
			continue
		}
		seen++
		for _, from := range a.From {
			s, m := j.prove(c, from, c.subject, a.MaxAge)
			if m != nil {
				best = nearer(best, m)
				continue
			}
			if a.Condition == nil {
				j.v.check(check, true, "", "made by %s (%s)", s.Authority, s.ID)
				return true
			}
			ok, err := j.holds(a.Condition, c, s)
			if ok {
				j.v.check(check, true, "", "made by %s (%s), and its condition holds", s.Authority, s.ID)
				return true
			}
			m = &miss{reason: ReasonCondition, detail: fmt.Sprintf("the one by %s does not meet the condition %q", s.Authority, a.Condition.Text), hint: "bailey verify --explain shows what was attested"}
			if err != nil {
				m.detail += ": " + oneLine(err)
			}
			best = nearer(best, m)
		}
	}
	switch {
	case seen == 0 && j.ev.Skipped > 0:
		j.v.deny(check, ReasonTooMany, "remove what does not belong there", "no %s attestation is among what was looked at, and more is attached than one decision looks at", a.Type)
	case seen == 0:
		j.v.deny(check, ReasonNoAttestation, "attest it: cosign attest --type "+a.Type, "no attestation of type %s is attached, and rule %s wants one from %s", a.Type, j.rule.Name, names(a.From))
	default:
		reason := ReasonNoAttestation
		if best.reason == ReasonCondition || best.reason == ReasonTooOld {
			reason = best.reason
		}
		j.v.deny(check, reason, best.hint, "no %s attestation counts: %s", a.Type, best.detail)
	}
	return false
}

// holds evaluates a condition. Nothing but the proven statement goes in.
func (j *judgement) holds(c *policy.Condition, from *claim, s Signer) (bool, error) {
	var statement map[string]any
	if err := json.Unmarshal(from.statement, &statement); err != nil {
		return false, fmt.Errorf("read the statement: %w", err)
	}
	if statement["predicate"] == nil {
		return false, errors.New("the statement has no predicate")
	}
	return c.Holds(context.Background(), policy.Facts{ //nolint:forbidigo // no I/O: the condition's own limits end it
		Predicate: statement["predicate"],
		Statement: statement,
		Image:     map[string]any{"repository": j.image.Repository, "digest": j.image.Digest, "platform_digest": j.v.PlatformDigest},
		Signer:    map[string]any{"authority": s.Authority, "kind": s.Kind, "id": s.ID, "issuer": s.Issuer},
		Now:       j.now,
	})
}

func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

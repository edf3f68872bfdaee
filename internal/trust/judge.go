package trust

import (
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
	rule := p.RuleFor(image.Repository)
	if rule == nil || p.Broken != "" {
		v.deny("policy", ReasonNoPolicy, "", "no rule")
		return v
	}
	v.deny("signature", ReasonUnsigned, "", "nobody signed it")
	return v
}

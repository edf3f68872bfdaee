package trust

import (
	"fmt"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/trust/policy"
)

// A Class says how a decision ended.
type Class string

// The classes. "Could not look" is never "not signed".
const (
	Allowed     Class = "allowed"     // the policy is met
	Denied      Class = "denied"      // evidence was looked at, or none is needed to refuse
	Unavailable Class = "unavailable" // evidence could not be looked for, and none is stored
	Stale       Class = "stale"       // what is stored would do, but is older than the policy takes
)

// A Reason is the stable code of why a decision ended as it did.
type Reason string

// The reasons.
const (
	ReasonMet              Reason = "met"               // every requirement is met
	ReasonNoPolicy         Reason = "no_policy"         // no rule matches the repository
	ReasonUnpinned         Reason = "unpinned"          // the tag could not be pinned to a digest
	ReasonListed           Reason = "digest_denied"     // the rule denies this digest by name
	ReasonUnsigned         Reason = "unsigned"          // nothing is attached to the image
	ReasonTooMany          Reason = "too_many"          // more is attached than may be looked at, and what was does not do
	ReasonUntrusted        Reason = "untrusted_signer"  // signed, but by nobody the rule names
	ReasonWrongImage       Reason = "wrong_image"       // a trusted signature, of another image
	ReasonWrongIdentity    Reason = "wrong_identity"    // a valid keyless signature of another identity
	ReasonWrongRepository  Reason = "wrong_repository"  // signed for another repository, or for none, and the rule binds
	ReasonInvalid          Reason = "invalid_signature" // claims to be from a trusted signer and does not verify
	ReasonNoLog            Reason = "no_transparency"   // log, timestamp or certificate proof missing or wrong
	ReasonThreshold        Reason = "threshold"         // some, but too few, trusted signers
	ReasonTooOld           Reason = "too_old"           // signed longer ago than max_age
	ReasonBefore           Reason = "before"            // signed before not_before
	ReasonNoTime           Reason = "no_trusted_time"   // a rule about age, and nothing says when it was signed
	ReasonNoAttestation    Reason = "no_attestation"    // a required attestation is missing
	ReasonCondition        Reason = "condition"         // an attestation's condition is not met
	ReasonPlatform         Reason = "platform"          // a platform's manifest is missing or not signed
	ReasonMalformed        Reason = "malformed"         // the image's own manifest cannot be read
	ReasonUnavailable      Reason = "unavailable"       // could not look
	ReasonStale            Reason = "stale"             // could not look again
	ReasonApproved         Reason = "approved_before"   // could not look; starts because it was approved before
	ReasonEvidenceTampered Reason = "evidence_tampered" // what the store holds is not what its digest says
)

// A Signer is somebody whose signature counted.
type Signer struct {
	Authority  string    `json:"authority"`            // its name in the policy
	Kind       string    `json:"kind"`                 // "key" or "keyless"
	ID         string    `json:"id"`                   // the key's fingerprint, or the certificate's identity
	Issuer     string    `json:"issuer,omitempty"`     // keyless: who vouched for the identity
	Format     string    `json:"format"`               // "bundle", "legacy"
	SignedAt   time.Time `json:"signed_at,omitzero"`   // by a log or timestamp authority; zero when nobody vouches for it
	LogIndex   *int64    `json:"log_index,omitempty"`  // in the transparency log, when its entry was verified
	LogName    string    `json:"log,omitempty"`        // which log
	Repository string    `json:"repository,omitempty"` // what the signature itself names, if it does
	Evidence   string    `json:"evidence"`             // digest of the item
}

// A Check is one node of the decision tree, in the order it was looked at.
type Check struct {
	Name   string `json:"name"` // "policy", "signature", "attestation slsa-provenance", …
	OK     bool   `json:"ok"`
	Reason Reason `json:"reason,omitempty"` // when not OK
	Detail string `json:"detail"`           // a sentence for a person
}

// A Verdict is a decision with everything that led to it. Judged again from
// the same evidence, policy, root and time it is the same.
type Verdict struct {
	Class  Class       `json:"class"`
	Reason Reason      `json:"reason"`
	Msg    string      `json:"message"`        // which check failed, in words
	Hint   string      `json:"hint,omitempty"` // how to mend it
	Mode   policy.Mode `json:"mode"`           // what the rule does about a refusal

	Image          Reference `json:"-"`
	Name           string    `json:"image"`                     // Image, as text
	Digest         string    `json:"digest,omitempty"`          // what was judged, and must be pulled
	PlatformDigest string    `json:"platform_digest,omitempty"` // the manifest that runs: Digest, or its child in an index
	ConfigDigest   string    `json:"config_digest,omitempty"`   // what that manifest says the engine will hold

	Rule       string    `json:"rule,omitempty"`
	PolicyHash string    `json:"policy_hash"`
	RootHash   string    `json:"root_hash,omitempty"`
	Signers    []Signer  `json:"signers,omitempty"`
	Checks     []Check   `json:"checks"`
	Collected  time.Time `json:"evidence_collected,omitzero"` // when the evidence was gathered
	Decided    time.Time `json:"decided"`
}

// Starts reports whether the image may start: because it is allowed, or
// because its rule only warns or audits. The zero Verdict does not start.
func (v *Verdict) Starts() bool {
	if v.Class == Allowed {
		return true
	}
	return v.Class != "" && (v.Mode == policy.Warn || v.Mode == policy.Audit)
}

// Err returns nil if the image may start, and otherwise the refusal as a
// stranger may read it: [bailey.Denied], or [bailey.Unavailable] when the
// evidence could not be looked for.
func (v *Verdict) Err() error {
	if v.Starts() {
		return nil
	}
	kind := bailey.Denied
	if v.Class == Unavailable || v.Class == Stale {
		kind = bailey.Unavailable
	}
	return &bailey.Error{
		Kind:  kind,
		Msg:   fmt.Sprintf("image %s may not start: %s", v.Image, v.Msg),
		Hint:  v.Hint,
		Cause: fmt.Errorf("verdict %s/%s, policy %s", v.Class, v.Reason, v.PolicyHash),
	}
}

func (v *Verdict) check(name string, ok bool, reason Reason, format string, args ...any) {
	c := Check{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...)}
	if !ok {
		c.Reason = reason
	}
	v.Checks = append(v.Checks, c)
}

// deny ends the verdict with a refusal and notes the check that failed.
func (v *Verdict) deny(check string, reason Reason, hint, format string, args ...any) {
	v.Class, v.Reason, v.Hint = Denied, reason, hint
	v.Msg = fmt.Sprintf(format, args...)
	v.Checks = append(v.Checks, Check{Name: check, Reason: reason, Detail: v.Msg})
}

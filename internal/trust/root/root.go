// Package root holds roots of trust: the certificate authorities,
// transparency logs and timestamp authorities that keyless signatures hang
// from. It reads them and says how old they are; fetching newer ones is left
// to the one command that does it.
package root

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// MaxBytes bounds a trusted root; the public one has 7 kB.
const MaxBytes = 1 << 20

// publicGood is trusted_root.json of Sigstore's public-good instance, target
// 14 of its TUF repository, with the digest that its signed targets.json
// names.
//
//go:embed public-good.json
var publicGood []byte

// OldAfter is the age at which a person should look for a newer root.
const OldAfter = 60 * 24 * time.Hour

// embeddedOn is when the embedded root was taken out of the TUF repository.
var embeddedOn = time.Date(2026, time.September, 1, 0, 0, 0, 0, time.UTC)

// A Root is one root of trust. It never changes and may be used concurrently.
type Root struct {
	Name  string    // what the policy calls it
	Hash  string    // "sha256:…" of its bytes; verdicts are bound to it
	Taken time.Time // when it was fetched or imported; zero when nobody knows
	JSON  []byte    // as it was read; do not change

	// Material is what sigstore's verifier takes.
	Material root.TrustedMaterial
	parts    []Part
}

// A Part is one authority or log of a root.
type Part struct {
	Kind  string    `json:"kind"` // "certificate authority", "transparency log", "certificate log", "timestamp authority"
	URI   string    `json:"uri,omitempty"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero"` // zero: still in use
}

// PublicGood returns the root of Sigstore's public instance that this program
// carries.
func PublicGood() (*Root, error) { return Parse("public-good", publicGood, embeddedOn) }

// Parse reads a trusted root, "trusted_root.json" of a Sigstore instance.
func Parse(name string, data []byte, taken time.Time) (_ *Root, err error) {
	defer func() {
		// The parser is foreign, and the file may be anybody's.
		if r := recover(); r != nil {
			err = fmt.Errorf("read trusted root %s: the reader broke on it: %v", name, r)
		}
	}()
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("read trusted root %s: larger than 1 MiB", name)
	}
	pb, err := root.NewTrustedRootProtobuf(data)
	if err != nil {
		return nil, fmt.Errorf("read trusted root %s: %w", name, err)
	}
	tr, err := root.NewTrustedRootFromProtobuf(pb)
	if err != nil {
		return nil, fmt.Errorf("read trusted root %s: %w", name, err)
	}
	sum := sha256.Sum256(data)
	r := &Root{
		Name: name, Hash: "sha256:" + hex.EncodeToString(sum[:]), Taken: taken,
		JSON: bytes.Clone(data), Material: tr, parts: parts(pb),
	}
	if len(r.parts) == 0 {
		return nil, fmt.Errorf("read trusted root %s: %w", name, errors.New("it names no authority and no log"))
	}
	return r, nil
}

func parts(pb *prototrustroot.TrustedRoot) []Part {
	var all []Part
	for _, ca := range pb.GetCertificateAuthorities() {
		all = append(all, Part{"certificate authority", ca.GetUri(), ca.GetValidFor().GetStart().AsTime(), end(ca.GetValidFor())})
	}
	for _, l := range pb.GetTlogs() {
		v := l.GetPublicKey().GetValidFor()
		all = append(all, Part{"transparency log", l.GetBaseUrl(), v.GetStart().AsTime(), end(v)})
	}
	for _, l := range pb.GetCtlogs() {
		v := l.GetPublicKey().GetValidFor()
		all = append(all, Part{"certificate log", l.GetBaseUrl(), v.GetStart().AsTime(), end(v)})
	}
	for _, ta := range pb.GetTimestampAuthorities() {
		all = append(all, Part{"timestamp authority", ta.GetUri(), ta.GetValidFor().GetStart().AsTime(), end(ta.GetValidFor())})
	}
	return all
}

// Parts lists what the root trusts.
func (r *Root) Parts() []Part { return slices.Clone(r.parts) }

// Newest returns when the youngest part of the root came into use. Of two
// roots of one instance the one with the younger part is the newer.
func (r *Root) Newest() time.Time {
	var t time.Time
	for _, p := range r.parts {
		if p.Start.After(t) {
			t = p.Start
		}
	}
	return t
}

// Age returns for how long nobody has looked for a newer root. A log that
// opened since then is unknown to it: what was signed lately may not verify.
func (r *Root) Age(now time.Time) (age time.Duration, known bool) {
	if r.Taken.IsZero() {
		return 0, false
	}
	return now.Sub(r.Taken), true
}

// Lost returns the parts of r, still in use at now, that newer does not have:
// signatures that hang from them would stop to verify.
func (r *Root) Lost(newer *Root, now time.Time) []Part {
	var lost []Part
	for _, p := range r.parts {
		inUse := p.End.IsZero() || p.End.After(now)
		if inUse && !slices.ContainsFunc(newer.parts, func(q Part) bool { return p.Kind == q.Kind && p.URI == q.URI && p.Start.Equal(q.Start) }) {
			lost = append(lost, p)
		}
	}
	return lost
}

func end(v interface{ GetEnd() *timestamppb.Timestamp }) time.Time {
	if v.GetEnd() == nil {
		return time.Time{}
	}
	return v.GetEnd().AsTime()
}

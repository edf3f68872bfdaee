package catalogue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/trust"
	trustpolicy "github.com/baileyhq/bailey/internal/trust/policy"
)

// Verify decides whether an image may start now: it must be approved, the
// policy must allow it, and what the engine is to start must be what the signed
// manifest names. It implements workspace.Verifier. Every decision is in the
// journal; an allowance that cannot be written is none.
func (s *Service) Verify(ctx context.Context, by audit.Actor, name, digest string) (bailey.Receipt, error) {
	img, err := s.find(ctx, name, digest)
	if err != nil {
		if k := bailey.KindOf(err); k == bailey.Denied || k == bailey.NotFound {
			s.refused(ctx, by, bailey.Image{Name: name, Digest: digest}, audit.Untrusted, "denied not_in_catalogue", trust.Verdict{})
		}
		return bailey.Receipt{}, err
	}
	redirected := ""
	if img.State == bailey.ImageRetired && img.Redirect != "" {
		next, err := s.find(ctx, img.Redirect, "")
		if err == nil && next.State == bailey.ImageApproved {
			redirected = fmt.Sprintf("image %s is retired%s; %s starts in its place; ", img.Name, because(img.Message), next.Name)
			img = next
		}
	}
	if img.State == bailey.ImageCandidate {
		// Why it was not even verified is more than that nobody approved it.
		if v, err := s.decide(ctx, img, false); err == nil && v.Class != trust.Allowed {
			s.refused(ctx, by, img, audit.Untrusted, verdictOf(v), v)
			return bailey.Receipt{}, inCatalogue(img, refusal(v))
		}
	}
	if err := launchable(img); err != nil {
		reason := audit.NotApproved
		if img.State == bailey.ImageRetired {
			reason = audit.Retired
		}
		s.refused(ctx, by, img, reason, "denied "+string(img.State), trust.Verdict{})
		return bailey.Receipt{}, err
	}
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return bailey.Receipt{}, fmt.Errorf("verify image %s: %w", img.Name, err)
	}
	if !v.Starts() {
		s.refused(ctx, by, img, audit.Untrusted, verdictOf(v), v)
		return bailey.Receipt{}, inCatalogue(img, v.Err())
	}
	started, err := s.held(ctx, img, v)
	if err != nil {
		if bailey.KindOf(err) == bailey.Denied {
			s.refused(ctx, by, img, audit.Mismatch, verdictOf(v), v)
		}
		return bailey.Receipt{}, err
	}
	r := bailey.Receipt{
		Image: img.Name, Repository: img.Repository, Source: img.Source, Digest: img.Digest, Started: started,
		Signer: signerWords(v), RekorIndex: logIndex(v), Policy: v.Rule, PolicyHash: v.PolicyHash, RootHash: v.RootHash,
		Class: string(v.Class), Words: redirected + words(v), DecidedAt: v.Decided,
	}
	if err := s.before(ctx, decision(by, img, audit.Success, audit.NoReason, verdictOf(v), v)); err != nil {
		return bailey.Receipt{}, err
	}
	return r, nil
}

// refusal is a verdict's error, also where its rule would only warn: nobody has
// approved the image either.
func refusal(v trust.Verdict) error {
	v.Mode = trustpolicy.Enforce
	return v.Err()
}

// decide asks trust about an entry.
func (s *Service) decide(ctx context.Context, img bailey.Image, refresh bool) (trust.Verdict, error) {
	req := trust.Request{Image: trust.Reference{Repository: img.Repository, Digest: img.Digest}, Refresh: refresh}
	if img.State == bailey.ImageApproved {
		req.Approved = img.DecidedAt
	}
	return s.trust.Decide(ctx, req)
}

// launchable returns nil for an approved image.
func launchable(img bailey.Image) error {
	switch img.State {
	case bailey.ImageApproved:
		return nil
	case bailey.ImageRetired:
		return &bailey.Error{
			Kind: bailey.Denied, Msg: "image " + img.Name + " is retired" + because(img.Message),
			Hint: "launch another class; an administrator names the image that takes its place: bailey image retire " + img.Name + " --redirect NAME",
		}
	case bailey.ImageCandidate, bailey.ImageVerified:
	}
	return &bailey.Error{
		Kind: bailey.Denied, Msg: fmt.Sprintf("image %s may not start: it is in the catalogue, and nobody has approved %s", img.Name, short(img.Digest)),
		Hint: "an administrator looks at it and approves it: bailey image show " + img.Name + "; bailey image approve " + img.Name,
	}
}

func because(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

// inCatalogue puts the catalogue's name in front of what a verdict says.
func inCatalogue(img bailey.Image, err error) error {
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		e.Msg = strings.Replace(e.Msg, "image "+img.Repository, "image "+img.Name+" ("+img.Repository, 1)
		e.Msg = strings.Replace(e.Msg, "@"+img.Digest+" may", "@"+short(img.Digest)+") may", 1)
	}
	return err
}

// held returns the digest by which the engine is to start the image. Docker's
// classic store calls an image by its configuration, which the signed manifest
// names; its newer one by the manifest. Whatever else the engine holds under
// the same digest is another image. What it does not hold has to be fetched.
func (s *Service) held(ctx context.Context, img bailey.Image, v trust.Verdict) (string, error) {
	if !bailey.IsDigest(v.ConfigDigest) {
		return "", &bailey.Error{
			Kind: bailey.Denied, Msg: "image " + img.Name + " may not start: its manifest for this machine is not among the evidence, so nobody can say what the engine must hold",
			Hint: "bailey image show " + img.Name + " says what was found",
		}
	}
	expected := []string{v.ConfigDigest, v.PlatformDigest, img.Digest}
	for _, digest := range expected {
		if digest == "" {
			continue
		}
		have, err := s.cfg.Engine.Image(ctx, digest)
		switch {
		case errors.Is(err, engine.ErrNoImage):
			continue
		case err != nil:
			return "", unavailable(img, err)
		case have.ID == v.ConfigDigest, have.ID == v.PlatformDigest, have.ID == img.Digest:
			return have.ID, nil
		}
		return "", &bailey.Error{
			Kind: bailey.Denied,
			Msg:  fmt.Sprintf("image %s may not start: the engine holds %s where the signed manifest names %s", img.Name, short(have.ID), short(v.ConfigDigest)),
			Hint: "remove the image from Docker (docker image rm) and start again: it is fetched by digest",
		}
	}
	// It has to be fetched, and then has the ID that this engine's store gives.
	can, err := s.cfg.Engine.Probe(ctx)
	if err != nil {
		return "", unavailable(img, err)
	}
	if can.ByManifest {
		return img.Digest, nil
	}
	return v.ConfigDigest, nil
}

func unavailable(img bailey.Image, err error) error {
	if errors.Is(err, engine.ErrUnavailable) {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the container engine does not answer",
			Hint: "try again in a moment; an administrator finds out more with: bailey doctor", Cause: err,
		}
	}
	return fmt.Errorf("look for image %s: %w", img.Name, err)
}

// refused puts a refusal into the journal.
func (s *Service) refused(ctx context.Context, by audit.Actor, img bailey.Image, reason audit.Reason, verdict string, v trust.Verdict) {
	s.record(ctx, decision(by, img, audit.Refused, reason, verdict, v))
}

func decision(by audit.Actor, img bailey.Image, outcome audit.Outcome, reason audit.Reason, verdict string, v trust.Verdict) audit.Event {
	return audit.Event{
		Actor: by, Action: audit.ImageDecided, Outcome: outcome, Reason: reason,
		Target: audit.Target{Kind: "image", ID: img.ID, Name: img.Name},
		Attrs: audit.Attrs{
			Image: v.ConfigDigest, Digest: img.Digest, Signer: signerWords(v), Policy: v.PolicyHash, Root: v.RootHash, Verdict: verdict,
		},
	}
}

// verdictOf is a verdict in two or three fixed words.
func verdictOf(v trust.Verdict) string {
	w := string(v.Class) + " " + string(v.Reason)
	if v.Class != trust.Allowed && v.Starts() {
		w += " " + string(v.Mode)
	}
	return w
}

// words says an allowance in a sentence.
func words(v trust.Verdict) string {
	if v.Class != trust.Allowed {
		return fmt.Sprintf("starts although it is not allowed, because rule %s only says %s: %s", v.Rule, v.Mode, v.Msg)
	}
	if v.Reason == trust.ReasonApproved {
		return v.Msg
	}
	return fmt.Sprintf("signed by %s, as rule %s requires", cmp.Or(signerWords(v), "nobody"), v.Rule)
}

// signerWords names who signed.
func signerWords(v trust.Verdict) string {
	var who []string
	for _, s := range v.Signers {
		w := s.Authority
		if s.Kind == "keyless" {
			w += " (" + s.ID + ")"
		} else {
			w += " (key " + short(s.ID) + ")"
		}
		who = append(who, w)
	}
	return strings.Join(who, " and ")
}

// logIndex is where the first signature stands in its log; -1: in none.
func logIndex(v trust.Verdict) int64 {
	for _, s := range v.Signers {
		if s.LogIndex != nil {
			return *s.LogIndex
		}
	}
	return -1
}

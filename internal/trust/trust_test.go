package trust_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// A party is a key and who holds it.
type party struct {
	key    crypto.Signer
	public []byte
}

func newParty(t testing.TB) party {
	t.Helper()
	private, public, err := sign.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return party{key, public}
}

// legacy returns a ".sig" layer by this party.
func (p party) legacy(t testing.TB, repository, digest string) trusttest.Layer {
	t.Helper()
	payload, sig, err := sign.Payload(p.key, repository, digest, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return trusttest.Layer{Data: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": sig}}
}

func (p party) bundle(t testing.TB, repository, digest string) []byte {
	t.Helper()
	b, err := sign.Bundle(p.key, repository, digest, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// verifier returns a Verifier that judges by a policy text and asks real
// registries.
func verifier(t testing.TB, text string, more ...func(*trust.Config)) *trust.Verifier {
	t.Helper()
	p := parse(t, text)
	reg, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := trust.Config{Policies: func() *policy.Policy { return p }, Source: reg}
	for _, m := range more {
		m(&cfg)
	}
	v, err := trust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func decide(t testing.TB, v *trust.Verifier, ref trust.Reference) trust.Verdict {
	t.Helper()
	verdict, err := v.Decide(t.Context(), trust.Request{Image: ref})
	if err != nil {
		t.Fatalf("Decide(%s): %v", ref, err)
	}
	return verdict
}

// wantAllowed and wantDenied compare a verdict with what a test is about: a
// refusal by its class, its code and its words.
func wantAllowed(t testing.TB, v trust.Verdict) {
	t.Helper()
	if v.Class != trust.Allowed || !v.Starts() || v.Err() != nil {
		t.Fatalf("%s is %s/%s (%s), want allowed\nchecks: %+v", v.Image, v.Class, v.Reason, v.Msg, v.Checks)
	}
}

func wantDenied(t testing.TB, v trust.Verdict, class trust.Class, reason trust.Reason, words string) {
	t.Helper()
	if v.Class != class || v.Reason != reason || !strings.Contains(v.Msg, words) || v.Starts() || v.Err() == nil {
		t.Fatalf("%s is %s/%s: %q, want %s/%s with %q\nchecks: %+v", v.Image, v.Class, v.Reason, v.Msg, class, reason, words, v.Checks)
	}
	if v.Hint == "" {
		t.Errorf("the refusal %q does not say how to mend it", v.Msg)
	}
}

// TestKeySignedImageStarts is the shortest story: an image signed with a key
// starts after one policy line, its tampered twin, an unsigned one and one
// signed by somebody else do not, and the words say why. It holds in every
// format and on registries with and without referrers.
func TestKeySignedImageStarts(t *testing.T) {
	us, them := newParty(t), newParty(t)
	for _, format := range []string{"legacy", "referrers", "fallback tag"} {
		t.Run(format, func(t *testing.T) {
			reg := trusttest.NewRegistry(t, format == "referrers")
			sign := func(by party, digest string) {
				t.Helper()
				switch format {
				case "legacy":
					reg.Legacy("team/app", digest, ".sig", by.legacy(t, reg.Host+"/team/app", digest))
				case "referrers":
					reg.Attach("team/app", digest, by.bundle(t, reg.Host+"/team/app", digest))
				default:
					reg.AttachByTag("team/app", digest, by.bundle(t, reg.Host+"/team/app", digest))
				}
			}
			good := reg.Image("team/app", "v1", "good")
			sign(us, good)
			twin := reg.Image("team/app", "v1", "tampered twin")
			foreign := reg.Image("team/app", "v2", "signed by them")
			sign(them, foreign)

			v := verifier(t, reg.Policy(us.public))
			verdict := decide(t, v, reg.Ref("team/app", good))
			wantAllowed(t, verdict)
			if len(verdict.Signers) != 1 || verdict.Signers[0].Authority != "us" || verdict.Signers[0].Repository != reg.Host+"/team/app" {
				t.Errorf("signers are %+v, want one: us", verdict.Signers)
			}
			manifest, config, _ := trusttest.ImageManifest("good")
			if verdict.PlatformDigest != trusttest.Digest(manifest) || verdict.ConfigDigest != trusttest.Digest(config) {
				t.Errorf("runs %s with config %s, want %s with %s", verdict.PlatformDigest, verdict.ConfigDigest, trusttest.Digest(manifest), trusttest.Digest(config))
			}
			if asked := reg.Requests(); len(asked) > 40 {
				t.Errorf("%d requests, want at most 40", len(asked))
			}
			wantDenied(t, decide(t, v, reg.Ref("team/app", twin)), trust.Denied, trust.ReasonUnsigned, "nobody signed the image")
			wantDenied(t, decide(t, v, reg.Ref("team/app", foreign)), trust.Denied, trust.ReasonUntrusted, "not with the key of us")

			// The moved tag is another digest, hence another decision.
			wantDenied(t, decide(t, v, trust.Reference{Repository: reg.Host + "/team/app", Tag: "v1"}), trust.Denied, trust.ReasonUnsigned, "nobody signed")
		})
	}
}

// signPayload signs any bytes as a ".sig" layer.
func (p party) signPayload(t testing.TB, payload []byte) trusttest.Layer {
	t.Helper()
	sum := sha256.Sum256(payload)
	sig, err := p.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return trusttest.Layer{Data: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}}
}

// partyOf returns somebody with a key of a kind.
func partyOf(t testing.TB, generate func() (any, error)) party {
	t.Helper()
	k, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		t.Fatalf("%T cannot sign", k)
	}
	public, err := sign.PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return party{key, public}
}

func sha(data []byte) string { return trusttest.Digest(data) }

func hexOf(b []byte) string { return fmt.Sprintf("%x", b) }

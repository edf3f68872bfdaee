package trust_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/proto"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// The attacks that image signing is known to have met, by number. Each is
// made on the public interface, against a real registry on loopback, beside
// the honest case that must still be allowed.

const (
	github   = "https://token.actions.githubusercontent.com"
	workflow = "https://github.com/jupyter/docker-stacks/.github/workflows/build.yml@refs/heads/main"
	signType = sign.PredicateType
	slsaType = "https://slsa.dev/provenance/v1"
)

// A keylessWorld is a registry with images that a workflow signs.
type keylessWorld struct {
	*trusttest.Registry
	sigstore *trusttest.Sigstore
	dir      string
}

func newKeylessWorld(t *testing.T) *keylessWorld {
	t.Helper()
	w := &keylessWorld{trusttest.NewRegistry(t, true), trusttest.NewSigstore(t), t.TempDir()}
	if err := os.WriteFile(filepath.Join(w.dir, "root.json"), w.sigstore.RootJSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// policyText trusts docker-stacks; more goes into the authority's keyless
// part, and rule into the rule.
func (w *keylessWorld) policyText(identity string, rule ...string) string {
	text := fmt.Sprintf(`version: 1
roots:
  test: {file: root.json}
authorities:
  jupyter:
    root: test
    keyless:
      issuer: %s
      %s
rules:
  - name: stacks
    match: [%s/jupyter/*]
    require: {of: [jupyter]}
`, github, identity, w.Host)
	for _, r := range rule {
		text += "    " + r + "\n"
	}
	return text
}

const anyStacks = "identity_prefix: https://github.com/jupyter/docker-stacks/"

func (w *keylessWorld) parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(filepath.Join(w.dir, "policy.yaml"), []byte(text), os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *keylessWorld) verifier(t testing.TB, text string) *trust.Verifier {
	t.Helper()
	p := w.parse(t, text)
	return verifier(t, w.Policy(newParty(t).public), func(c *trust.Config) { c.Policies = func() *policy.Policy { return p } })
}

// signed returns a signature of an image by the workflow.
func (w *keylessWorld) signed(digest string) *trusttest.Signed {
	cert := w.sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github})
	return w.sigstore.Sign(cert, trusttest.Statement(digest, signType, map[string]any{}))
}

// try pushes an image, attaches what make returns, and decides.
func (w *keylessWorld) try(t testing.TB, text, name string, make func(digest string) []byte) trust.Verdict {
	t.Helper()
	digest := w.Image("jupyter/"+name, "", name)
	if b := make(digest); b != nil {
		w.Attach("jupyter/"+name, digest, b)
	}
	return decide(t, w.verifier(t, text), w.Ref("jupyter/"+name, digest))
}

// TestKeylessImageStarts is the honest case of most attacks below.
func TestKeylessImageStarts(t *testing.T) {
	w := newKeylessWorld(t)
	v := w.try(t, w.policyText(anyStacks), "honest", func(d string) []byte { return w.signed(d).Bundle() })
	wantAllowed(t, v)
	if s := v.Signers[0]; s.Kind != "keyless" || s.ID != workflow || s.Issuer != github || s.LogIndex == nil || s.SignedAt.IsZero() {
		t.Errorf("signer %+v, want the workflow with its log entry", s)
	}
	t.Run("rekor v2", func(t *testing.T) {
		text := strings.Replace(w.policyText("identity: dev@example.org"), "    keyless:", "    certificate_log: false\n    keyless:", 1)
		wantAllowed(t, w.try(t, text, "v2", func(d string) []byte {
			return w.sigstore.SignV2("dev@example.org", github, trusttest.Statement(d, signType, map[string]any{})).Bundle()
		}))
	})
	t.Run("legacy", func(t *testing.T) {
		text := strings.Replace(w.policyText("identity: dev@example.org"), "    keyless:", "    certificate_log: false\n    keyless:", 1)
		d := w.Image("jupyter/legacy", "", "legacy")
		w.Legacy("jupyter/legacy", d, ".sig", w.sigstore.KeylessLegacy("dev@example.org", github, w.Host+"/jupyter/legacy", d))
		wantAllowed(t, decide(t, w.verifier(t, text), w.Ref("jupyter/legacy", d)))
	})
}

func TestAttack01TagMovedBetweenSteps(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	good := reg.Image("team/app", "v1", "good")
	reg.Attach("team/app", good, us.bundle(t, reg.Host+"/team/app", good))
	evil, _, _ := trusttest.ImageManifest("evil")
	v := verifier(t, reg.Policy(us.public))
	// The tag is asked once; after that the registry answers every question
	// with other bytes.
	var tags atomic.Int32
	reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/manifests/v1") {
			return tags.Add(1) > 1
		}
		if strings.Contains(r.URL.Path, "/manifests/sha256:") {
			rw.Header().Set("Content-Type", trusttest.OCIManifest)
			_, _ = rw.Write(evil)
			return true
		}
		return false
	})
	got := decide(t, v, trust.Reference{Repository: reg.Host + "/team/app", Tag: "v1"})
	wantDenied(t, got, trust.Unavailable, trust.ReasonUnavailable, "other bytes than were asked for")
	if got.Digest == trusttest.Digest(evil) {
		t.Error("the verdict is about the evil digest")
	}
	reg.Fault(nil)
	got = decide(t, verifier(t, reg.Policy(us.public)), trust.Reference{Repository: reg.Host + "/team/app", Tag: "v1"})
	wantAllowed(t, got)
	if got.Digest != good || tags.Load() != 1 {
		t.Errorf("judged %s after %d resolutions, want %s after one", got.Digest, tags.Load(), good)
	}
}

func TestAttack02SignatureOfAnotherImage(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	a := reg.Image("team/app", "a", "a")
	b := reg.Image("team/app", "b", "b")
	reg.Legacy("team/app", b, ".sig", us.legacy(t, reg.Host+"/team/app", a))
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", b)), trust.Denied, trust.ReasonWrongImage, a)
}

func TestAttack03CopyInAnotherRepository(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	digest := reg.Image("mirror/app", "", "app")
	reg.Legacy("mirror/app", digest, ".sig", us.legacy(t, reg.Host+"/team/app", digest))
	free := decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("mirror/app", digest))
	wantAllowed(t, free)
	if !strings.Contains(fmt.Sprint(free.Checks), "this is a copy in "+reg.Host+"/mirror/app") {
		t.Errorf("an allowed copy does not say that it is one: %+v", free.Checks)
	}
	bound := verifier(t, reg.Policy(us.public, "bind_repository: true"))
	wantDenied(t, decide(t, bound, reg.Ref("mirror/app", digest)), trust.Denied, trust.ReasonWrongRepository, reg.Host+"/team/app")
	same := reg.Image("team/app", "", "app")
	reg.Attach("team/app", same, us.bundle(t, reg.Host+"/team/app", same))
	wantAllowed(t, decide(t, bound, reg.Ref("team/app", same)))
}

func TestAttack04BundleOfAnotherImage(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	a := reg.Image("team/app", "a", "a")
	b := reg.Image("team/app", "b", "b")
	reg.Attach("team/app", b, us.bundle(t, reg.Host+"/team/app", a))
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", b)), trust.Denied, trust.ReasonWrongImage, a)
}

func TestAttack05WrongPredicate(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	attest := func(digest, kind string, predicate any) []byte {
		b, err := sign.Attest(us.key, reg.Host+"/team/app", digest, kind, predicate, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("a statement is no signature", func(t *testing.T) {
		d := reg.Image("team/app", "", "attested only")
		reg.Attach("team/app", d, attest(d, slsaType, map[string]any{"a": 1}))
		wantDenied(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d)), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	})
	want := verifier(t, reg.Policy(us.public, "attestations:\n  - {type: slsa-provenance, condition: predicate.builder == \"ours\"}"))
	for name, tt := range map[string]struct {
		predicate any
		kind      string
		reason    trust.Reason
	}{
		"a signature is no statement": {nil, "", trust.ReasonNoAttestation},
		"another type":                {map[string]any{"builder": "ours"}, "https://spdx.dev/Document", trust.ReasonNoAttestation},
		"condition not met":           {map[string]any{"builder": "theirs"}, slsaType, trust.ReasonCondition},
		"condition cannot be asked":   {map[string]any{}, slsaType, trust.ReasonCondition},
		"predicate missing":           {nil, slsaType, trust.ReasonCondition},
	} {
		t.Run(name, func(t *testing.T) {
			d := reg.Image("team/app", "", name)
			reg.Attach("team/app", d, us.bundle(t, reg.Host+"/team/app", d))
			if tt.kind != "" {
				reg.Attach("team/app", d, attest(d, tt.kind, tt.predicate))
			}
			wantDenied(t, decide(t, want, reg.Ref("team/app", d)), trust.Denied, tt.reason, "slsa-provenance")
		})
	}
	d := reg.Image("team/app", "", "honest")
	reg.Attach("team/app", d, us.bundle(t, reg.Host+"/team/app", d))
	reg.Attach("team/app", d, attest(d, slsaType, map[string]any{"builder": "ours"}))
	wantAllowed(t, decide(t, want, reg.Ref("team/app", d)))
}

func TestAttack06EntryOfAnotherArtifact(t *testing.T) {
	w := newKeylessWorld(t)
	other := w.signed(trusttest.Digest([]byte("another")))
	for _, stamps := range []bool{true, false} {
		v := w.try(t, w.policyText(anyStacks), fmt.Sprintf("stapled-%t", stamps), func(d string) []byte {
			s := w.signed(d)
			s.Entries = other.Entries
			if !stamps {
				s.Stamps = nil
			}
			return s.Bundle()
		})
		wantDenied(t, v, trust.Denied, trust.ReasonNoLog, "has no log entry")
	}
}

func TestAttack07TamperedLogEvidence(t *testing.T) {
	w := newKeylessWorld(t)
	clone := func(s *trusttest.Signed) *protorekor.TransparencyLogEntry {
		e, _ := proto.Clone(s.Entries[0]).(*protorekor.TransparencyLogEntry)
		s.Entries = []*protorekor.TransparencyLogEntry{e}
		s.Stamps = nil
		return e
	}
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }
	for name, tamper := range map[string]func(e *protorekor.TransparencyLogEntry){
		"signed entry timestamp": func(e *protorekor.TransparencyLogEntry) {
			e.InclusionPromise.SignedEntryTimestamp = flip(e.GetInclusionPromise().GetSignedEntryTimestamp())
		},
		"integrated time": func(e *protorekor.TransparencyLogEntry) { e.IntegratedTime += 30 },
		"log index":       func(e *protorekor.TransparencyLogEntry) { e.LogIndex++ },
		"root hash": func(e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.RootHash = flip(e.GetInclusionProof().GetRootHash())
		},
		"checkpoint": func(e *protorekor.TransparencyLogEntry) {
			c := e.GetInclusionProof().GetCheckpoint().GetEnvelope()
			i := strings.LastIndex(c, " ")
			e.InclusionProof.Checkpoint.Envelope = c[:i+1] + "AAAA" + c[i+5:] // the key's hint
		},
		"checkpoint signature": func(e *protorekor.TransparencyLogEntry) {
			c := []byte(e.GetInclusionProof().GetCheckpoint().GetEnvelope())
			c[len(c)-20] ^= 1
			e.InclusionProof.Checkpoint.Envelope = string(c)
		},
		"proof path": func(e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Hashes = append(e.InclusionProof.Hashes, bytes.Repeat([]byte{1}, 32))
		},
		"body": func(e *protorekor.TransparencyLogEntry) {
			e.CanonicalizedBody = bytes.Replace(e.GetCanonicalizedBody(), []byte("sha256"), []byte("sha512"), 1)
		},
		"log id": func(e *protorekor.TransparencyLogEntry) { e.LogId.KeyId = flip(e.GetLogId().GetKeyId()) },
	} {
		t.Run(name, func(t *testing.T) {
			v := w.try(t, w.policyText(anyStacks), "t"+strings.ReplaceAll(name, " ", "-"), func(d string) []byte {
				s := w.signed(d)
				tamper(clone(s))
				return s.Bundle()
			})
			if v.Class != trust.Denied || v.Starts() {
				t.Errorf("%s/%s: %s, want denied", v.Class, v.Reason, v.Msg)
			}
		})
	}
	wantAllowed(t, w.try(t, w.policyText(anyStacks), "untampered", func(d string) []byte {
		s := w.signed(d)
		clone(s)
		return s.Bundle()
	}))
}

func TestAttack08ExpiredCertificate(t *testing.T) {
	w := newKeylessWorld(t)
	at := func(name string, notBefore, logged time.Time, stamp bool) trust.Verdict {
		return w.try(t, w.policyText(anyStacks), name, func(d string) []byte {
			cert := w.sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github, NotBefore: notBefore})
			s := w.sigstore.SignAt(cert, trusttest.Statement(d, signType, map[string]any{}), logged)
			if !stamp {
				s.Stamps = nil
			}
			return s.Bundle()
		})
	}
	old := time.Now().Add(-time.Minute * 90)
	if v := at("expired-leaf", old, time.Now(), false); v.Class != trust.Denied {
		t.Errorf("a leaf that had expired when it was logged: %s/%s", v.Class, v.Reason)
	}
	if v := at("expired-intermediate", old, old.Add(time.Minute), false); v.Class != trust.Denied {
		// The instance's intermediate is two minutes old.
		t.Errorf("a leaf older than its issuer: %s/%s", v.Class, v.Reason)
	}
	v := w.try(t, w.policyText(anyStacks), "no-time", func(d string) []byte {
		s := w.signed(d)
		s.Entries, s.Stamps = nil, nil
		return s.Bundle()
	})
	wantDenied(t, v, trust.Denied, trust.ReasonNoLog, "")
	wantAllowed(t, at("fresh", time.Now().Add(-time.Minute), time.Now(), false))
}

func TestAttack09ForeignTimestamp(t *testing.T) {
	w, other := newKeylessWorld(t), trusttest.NewSigstore(t)
	text := strings.Replace(w.policyText(anyStacks), "    keyless:", "    transparency_log: false\n    keyless:", 1)
	for name, stamps := range map[string]func(s *trusttest.Signed) [][]byte{
		"authority not in the root": func(s *trusttest.Signed) [][]byte { return [][]byte{other.Stamp(s.Signature)} },
		"over something else":       func(*trusttest.Signed) [][]byte { return [][]byte{w.sigstore.Stamp([]byte("else"))} },
		"garbage":                   func(*trusttest.Signed) [][]byte { return [][]byte{{0x30, 0x03, 0x02, 0x01, 0x00}} },
		"none":                      func(*trusttest.Signed) [][]byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			v := w.try(t, text, "stamp-"+strings.ReplaceAll(name, " ", "-"), func(d string) []byte {
				s := w.signed(d)
				s.Entries, s.Stamps = nil, stamps(s)
				return s.Bundle()
			})
			wantDenied(t, v, trust.Denied, trust.ReasonNoLog, "timestamp")
		})
	}
	wantAllowed(t, w.try(t, text, "stamped", func(d string) []byte {
		s := w.signed(d)
		s.Entries = nil
		return s.Bundle()
	}))
}

func TestAttack10IdentityLookalikes(t *testing.T) {
	w := newKeylessWorld(t)
	for name, id := range map[string]trusttest.Identity{
		"longer name":       {URI: "https://github.com/jupyter/docker-stacks-evil/.github/workflows/build.yml@refs/heads/main", Issuer: github},
		"another owner":     {URI: "https://github.com/jupyter-evil/docker-stacks/.github/workflows/build.yml@refs/heads/main", Issuer: github},
		"prefix in a query": {URI: "https://evil.example/?https://github.com/jupyter/docker-stacks/", Issuer: github},
		"dot as any":        {URI: "https://githubxcom/jupyter/docker-stacks/.github/workflows/build.yml@refs/heads/main", Issuer: github},
		"dots upwards":      {URI: "https://github.com/jupyter/docker-stacks/../../evil/x", Issuer: github},
		"another issuer":    {URI: workflow, Issuer: "https://issuer.example.org"},
		"issuer with slash": {URI: workflow, Issuer: github + "/"},
		"other name":        {OtherName: workflow, Issuer: github},
		"two names":         {URI: workflow, Email: "evil@example.org", Issuer: github},
		"as an e-mail":      {Email: "evil@example.org", Issuer: github},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.try(t, w.policyText(anyStacks), "id-"+strings.ReplaceAll(name, " ", "-"), func(d string) []byte {
				return w.sigstore.Sign(w.sigstore.Issue(id), trusttest.Statement(d, signType, map[string]any{})).Bundle()
			})
			wantDenied(t, v, trust.Denied, trust.ReasonWrongIdentity, "")
		})
	}
	// An expression covers the whole name, whatever its author left out.
	text := w.policyText(`identity_regex: https://github\.com/jupyter/docker-stacks`)
	v := w.try(t, text, "unanchored", func(d string) []byte { return w.signed(d).Bundle() })
	wantDenied(t, v, trust.Denied, trust.ReasonWrongIdentity, workflow)
	wantAllowed(t, w.try(t, w.policyText(`identity_regex: https://github\.com/jupyter/docker-stacks/.*`), "anchored", func(d string) []byte { return w.signed(d).Bundle() }))
	for _, identity := range []string{"a\nb", "https://github.com/jupyter/docker-stacks/\u202ex", ""} {
		if policy.Prefix("").Match(identity) || policy.Prefix("https://github.com/jupyter/docker-stacks/").Match(identity) {
			t.Errorf("the identity %q matches", identity)
		}
	}
}

func TestAttack11EveryFieldOfAnIdentityCounts(t *testing.T) {
	w := newKeylessWorld(t)
	honest := trusttest.Identity{URI: workflow, Issuer: github, Extensions: map[string]string{
		"12": "https://github.com/jupyter/docker-stacks", "14": "refs/heads/main", "11": "github-hosted",
		"18": "https://github.com/jupyter/docker-stacks/.github/workflows/build.yml@refs/heads/main",
	}}
	text := w.policyText("identity: " + workflow + `
      source_repository: https://github.com/jupyter/docker-stacks
      source_ref: refs/heads/main
      runner_environment: github-hosted
      workflow: https://github.com/jupyter/docker-stacks/.github/workflows/build.yml@refs/heads/main`)
	attempt := func(name string, change func(id *trusttest.Identity)) trust.Verdict {
		id := honest
		id.Extensions = maps.Clone(honest.Extensions)
		change(&id)
		return w.try(t, text, "field-"+name, func(d string) []byte {
			return w.sigstore.Sign(w.sigstore.Issue(id), trusttest.Statement(d, signType, map[string]any{})).Bundle()
		})
	}
	wantAllowed(t, attempt("honest", func(*trusttest.Identity) {}))
	for name, change := range map[string]func(id *trusttest.Identity){
		"identity": func(id *trusttest.Identity) { id.URI += "x" }, "issuer": func(id *trusttest.Identity) { id.Issuer += "x" },
		"repository": func(id *trusttest.Identity) { id.Extensions["12"] += "x" }, "ref": func(id *trusttest.Identity) { id.Extensions["14"] = "refs/heads/evil" },
		"runner": func(id *trusttest.Identity) { id.Extensions["11"] = "self-hosted" }, "workflow": func(id *trusttest.Identity) { id.Extensions["18"] += "x" },
		"missing": func(id *trusttest.Identity) { delete(id.Extensions, "12") },
	} {
		wantDenied(t, attempt(name, change), trust.Denied, trust.ReasonWrongIdentity, "")
	}
}

func TestAttack12OneLogCountedTwice(t *testing.T) {
	w := newKeylessWorld(t)
	v := w.try(t, w.policyText(anyStacks), "twice", func(d string) []byte {
		s := w.signed(d)
		s.Entries = append(s.Entries, s.Entries[0])
		return s.Bundle()
	})
	wantDenied(t, v, trust.Denied, trust.ReasonNoLog, "duplicate")
}

func TestAttack13OneSignerCountedTwice(t *testing.T) {
	a, b, reg := newParty(t), newParty(t), trusttest.NewRegistry(t, true)
	text := func(first, second party) string {
		indent := func(p party) string {
			return "        " + strings.ReplaceAll(strings.TrimSpace(string(p.public)), "\n", "\n        ")
		}
		return "version: 1\nauthorities:\n  one:\n    key:\n      pem: |\n" + indent(first) + "\n  two:\n    key:\n      pem: |\n" + indent(second) +
			"\nrules:\n  - name: both\n    match: [" + reg.Host + "/**]\n    require: {threshold: 2, of: [one, two]}\n"
	}
	d := reg.Image("team/app", "", "app")
	reg.Attach("team/app", d, a.bundle(t, reg.Host+"/team/app", d))
	reg.Attach("team/app", d, a.bundle(t, reg.Host+"/team/app-again", d))
	layer := a.legacy(t, reg.Host+"/team/app", d)
	reg.Legacy("team/app", d, ".sig", layer, layer)
	wantDenied(t, decide(t, verifier(t, text(a, a)), reg.Ref("team/app", d)), trust.Denied, trust.ReasonThreshold, "1 of the 2 distinct signers")
	wantDenied(t, decide(t, verifier(t, text(a, b)), reg.Ref("team/app", d)), trust.Denied, trust.ReasonThreshold, "1 of the 2 distinct signers")
	reg.Attach("team/app", d, b.bundle(t, reg.Host+"/team/app", d))
	wantAllowed(t, decide(t, verifier(t, text(a, b)), reg.Ref("team/app", d)))
}

func TestAttack14KeyOutsideItsValidity(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	d := reg.Image("team/app", "", "app")
	reg.Attach("team/app", d, us.bundle(t, reg.Host+"/team/app", d))
	text := strings.Replace(reg.Policy(us.public), "    key:\n", "    key:\n      not_after: 2020-01-01\n", 1)
	// Nothing but the signer's own word says when it was made, and a signer
	// whose key ended may say anything.
	wantDenied(t, decide(t, verifier(t, text), reg.Ref("team/app", d)), trust.Denied, trust.ReasonNoLog, "")
	wantAllowed(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d)))
}

func TestAttack15Floods(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	them := newParty(t)
	bounded := func(t *testing.T, name string, fill func(digest string)) trust.Verdict {
		t.Helper()
		d := reg.Image("team/"+name, "", name)
		fill(d)
		reg.Requests()
		v := decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/"+name, d))
		if n := len(reg.Requests()); n > 40 {
			t.Errorf("%d requests, want at most 40", n)
		}
		return v
	}
	t.Run("999 junk signatures and a good one", func(t *testing.T) {
		wantAllowed(t, bounded(t, "junk", func(d string) {
			payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, reg.Host+"/team/junk", d)
			var layers []trusttest.Layer
			for i := range 999 {
				layers = append(layers, trusttest.Layer{Data: payload, Annotations: map[string]string{
					"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(fmt.Appendf([]byte{0x30, 0x45}, "%069d", i)),
				}})
			}
			reg.Legacy("team/junk", d, ".sig", append(layers, us.legacy(t, reg.Host+"/team/junk", d))...)
		}))
	})
	t.Run("999 payloads", func(t *testing.T) {
		v := bounded(t, "payloads", func(d string) {
			var layers []trusttest.Layer
			for i := range 60 {
				layers = append(layers, trusttest.Layer{Data: fmt.Append(nil, i), Annotations: map[string]string{"dev.cosignproject.cosign/signature": "AA=="}})
			}
			reg.Legacy("team/payloads", d, ".sig", layers...)
		})
		wantDenied(t, v, trust.Denied, trust.ReasonTooMany, "more pieces are attached")
	})
	t.Run("1,000 referrers", func(t *testing.T) {
		v := bounded(t, "flood", func(string) {
			reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/referrers/") {
					return false
				}
				var all []any
				for i := range 1000 {
					d := trusttest.Descriptor(trusttest.OCIManifest, fmt.Append(nil, i))
					d["artifactType"] = trusttest.BundleType
					all = append(all, d)
				}
				rw.Header().Set("Content-Type", trusttest.OCIIndex)
				_, _ = rw.Write(trusttest.JSON(map[string]any{"schemaVersion": 2, "manifests": all}))
				return true
			})
		})
		reg.Fault(nil)
		wantDenied(t, v, trust.Denied, trust.ReasonTooMany, "more pieces are attached")
	})
	t.Run("many pieces, the good one among them", func(t *testing.T) {
		wantAllowed(t, bounded(t, "among", func(d string) {
			for i := range 12 {
				reg.Attach("team/among", d, them.bundle(t, fmt.Sprint("x/", i), d))
			}
			reg.Attach("team/among", d, us.bundle(t, reg.Host+"/team/among", d))
		}))
	})
	for name, body := range map[string][]byte{
		"huge":        bytes.Repeat([]byte(" "), 5<<20),
		"deep":        bytes.Repeat([]byte("["), 1<<20),
		"annotations": []byte(`{"layers":[{"annotations":{` + strings.TrimSuffix(strings.Repeat(`"k":"v",`, 1<<18), ",") + `}}]}`),
	} {
		t.Run(name+" signature manifest", func(t *testing.T) {
			v := bounded(t, "sig-"+name, func(string) {
				reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
					if strings.HasSuffix(r.URL.Path, ".sig") {
						_, _ = rw.Write(body)
						return true
					}
					return false
				})
			})
			reg.Fault(nil)
			if v.Class != trust.Denied {
				t.Errorf("%s/%s %s, want denied", v.Class, v.Reason, v.Msg)
			}
		})
	}
	t.Run("unpacking bomb", func(t *testing.T) {
		v := bounded(t, "gzip", func(string) {
			reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") && r.Header.Get("Accept-Encoding") != "identity" {
					rw.Header().Set("Content-Encoding", "gzip")
				}
				return false
			})
		})
		reg.Fault(nil)
		wantDenied(t, v, trust.Denied, trust.ReasonUnsigned, "nobody signed")
	})
}

func TestAttack16RegistryDownIsNotUnsigned(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	known := reg.Image("team/app", "", "known")
	reg.Attach("team/app", known, us.bundle(t, reg.Host+"/team/app", known))
	for name, fault := range map[string]func(rw http.ResponseWriter, r *http.Request){
		"429": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTooManyRequests) },
		"503": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) },
		"403": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) },
		"401": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			rw.WriteHeader(http.StatusUnauthorized)
		},
		"broken off": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write([]byte("{"))
			panic(http.ErrAbortHandler)
		},
	} {
		for _, only := range []string{"/v2/", "/referrers/", ".sig", "/blobs/"} {
			t.Run(name+" at "+only, func(t *testing.T) {
				reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
					if strings.Contains(r.URL.Path, only) {
						fault(rw, r)
						return true
					}
					return false
				})
				defer reg.Fault(nil)
				wantDenied(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", known)),
					trust.Unavailable, trust.ReasonUnavailable, "this is not the same as unsigned")
			})
		}
	}
	t.Run("what is stored decides", func(t *testing.T) {
		v := verifier(t, reg.Policy(us.public))
		wantAllowed(t, decide(t, v, reg.Ref("team/app", known)))
		reg.Fault(func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusBadGateway); return true })
		defer reg.Fault(nil)
		v.Forget(reg.Host+"/team/app", known)
		wantAllowed(t, decide(t, v, reg.Ref("team/app", known)))
	})
}

func TestAttack18IndexAndChildren(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	repo := reg.Host + "/team/app"
	amd := reg.Image("team/app", "", "amd64")
	arm := reg.Image("team/app", "", "arm64")
	evil := reg.Image("team/app", "", "evil")
	v := verifier(t, reg.Policy(us.public))
	runtime := verifier(t, reg.Policy(us.public, "platforms: runtime"))
	all := verifier(t, reg.Policy(us.public, "platforms: all"))
	attach := func(d string) { reg.Attach("team/app", d, us.bundle(t, repo, d)) }

	signed := reg.Index("team/app", "", map[string]string{"linux/amd64": amd, "linux/arm64": arm})
	attach(signed)
	got := decide(t, v, reg.Ref("team/app", signed))
	wantAllowed(t, got)
	if got.PlatformDigest != amd {
		t.Errorf("runs %s, want %s", got.PlatformDigest, amd)
	}
	wantDenied(t, decide(t, runtime, reg.Ref("team/app", signed)), trust.Denied, trust.ReasonPlatform, amd)
	attach(amd)
	runtime = verifier(t, reg.Policy(us.public, "platforms: runtime"))
	wantAllowed(t, decide(t, runtime, reg.Ref("team/app", signed)))
	wantDenied(t, decide(t, all, reg.Ref("team/app", signed)), trust.Denied, trust.ReasonPlatform, arm)
	attach(arm)
	wantAllowed(t, decide(t, verifier(t, reg.Policy(us.public, "platforms: all")), reg.Ref("team/app", signed)))

	swapped := reg.Index("team/app", "", map[string]string{"linux/amd64": evil, "linux/arm64": arm})
	wantDenied(t, decide(t, v, reg.Ref("team/app", swapped)), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	wantDenied(t, decide(t, runtime, reg.Ref("team/app", swapped)), trust.Denied, trust.ReasonPlatform, evil)

	record := reg.Index("team/app", "", map[string]string{"unknown/unknown": amd})
	attach(record)
	wantDenied(t, decide(t, v, reg.Ref("team/app", record)), trust.Denied, trust.ReasonPlatform, "no manifest for linux/amd64")

	nested := reg.Manifest("team/app", "", trusttest.OCIIndex, trusttest.JSON(map[string]any{
		"schemaVersion": 2, "mediaType": trusttest.OCIIndex, "manifests": []any{map[string]any{
			"mediaType": trusttest.OCIIndex, "digest": signed, "size": 1, "platform": map[string]string{"os": "linux", "architecture": "amd64"},
		}},
	}))
	attach(nested)
	wantDenied(t, decide(t, v, reg.Ref("team/app", nested)), trust.Denied, trust.ReasonMalformed, "an index in an index")

	both := reg.Manifest("team/app", "", trusttest.OCIIndex, trusttest.JSON(map[string]any{
		"schemaVersion": 2, "mediaType": trusttest.OCIIndex, "config": map[string]any{"digest": evil}, "layers": []any{},
		"manifests": []any{map[string]any{"mediaType": trusttest.OCIManifest, "digest": amd, "platform": map[string]string{"os": "linux", "architecture": "amd64"}}},
	}))
	attach(both)
	wantDenied(t, decide(t, v, reg.Ref("team/app", both)), trust.Denied, trust.ReasonMalformed, "an index and a manifest at once")

	two := reg.Manifest("team/app", "", trusttest.OCIIndex, trusttest.JSON(map[string]any{
		"schemaVersion": 2, "mediaType": trusttest.OCIIndex, "manifests": []any{
			map[string]any{"mediaType": trusttest.OCIManifest, "digest": amd, "platform": map[string]string{"os": "linux", "architecture": "amd64", "variant": "v2"}},
			map[string]any{"mediaType": trusttest.OCIManifest, "digest": evil, "platform": map[string]string{"os": "linux", "architecture": "amd64", "variant": "v3"}},
		},
	}))
	attach(two)
	wantDenied(t, decide(t, v, reg.Ref("team/app", two)), trust.Denied, trust.ReasonMalformed, "2 manifests for linux/amd64")
}

func TestAttack19StrippedEvidence(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	d := reg.Image("team/app", "", "app")
	m := reg.Attach("team/app", d, us.bundle(t, reg.Host+"/team/app", d))
	answer := func(rw http.ResponseWriter, link string, of ...any) bool {
		if of == nil {
			of = []any{}
		}
		rw.Header().Set("Content-Type", trusttest.OCIIndex)
		if link != "" {
			rw.Header().Set("Link", link)
		}
		_, _ = rw.Write(trusttest.JSON(map[string]any{"schemaVersion": 2, "manifests": of}))
		return true
	}
	good := map[string]any{"mediaType": trusttest.OCIManifest, "digest": m, "size": 1, "artifactType": trusttest.BundleType}
	fault := func(f func(rw http.ResponseWriter, r *http.Request) bool) trust.Verdict {
		reg.Fault(func(rw http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/referrers/") && f(rw, r)
		})
		defer reg.Fault(nil)
		return decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d))
	}
	wantDenied(t, fault(func(rw http.ResponseWriter, _ *http.Request) bool { return answer(rw, "") }), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	wantAllowed(t, fault(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("page") == "2" {
			return answer(rw, "", good)
		}
		return answer(rw, "<"+r.URL.Path+`?page=2>; rel="next"`)
	}))
	// A page elsewhere is not followed, and pages without end come to one.
	wantDenied(t, fault(func(rw http.ResponseWriter, _ *http.Request) bool {
		return answer(rw, `<http://169.254.169.254/latest>; rel="next"`)
	}), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	wantDenied(t, fault(func(rw http.ResponseWriter, r *http.Request) bool {
		return answer(rw, "<"+r.URL.Path+`?again>; rel="next"`)
	}), trust.Denied, trust.ReasonTooMany, "")

	// The list in the tag was overwritten by somebody who may push.
	old := trusttest.NewRegistry(t, false)
	d = old.Image("team/app", "", "app")
	old.AttachByTag("team/app", d, us.bundle(t, old.Host+"/team/app", d))
	v := verifier(t, old.Policy(us.public))
	wantAllowed(t, decide(t, v, old.Ref("team/app", d)))
	old.AttachByTag("team/app", d)
	wantDenied(t, decide(t, verifier(t, old.Policy(us.public)), old.Ref("team/app", d)), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	wantAllowed(t, decide(t, v, old.Ref("team/app", d))) // what was seen once is kept
}

func TestAttack20Rollback(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	old := reg.Image("team/app", "", "old and vulnerable")
	b, err := sign.Bundle(us.key, reg.Host+"/team/app", old, time.Now().Add(-100*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	reg.Attach("team/app", old, b)
	wantAllowed(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", old)))
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, "max_age: 90d")), reg.Ref("team/app", old)), trust.Denied, trust.ReasonTooOld, "longer ago than the 90 days")
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, "not_before: "+time.Now().Add(-24*time.Hour).Format(time.DateOnly))), reg.Ref("team/app", old)), trust.Denied, trust.ReasonBefore, "before")
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, "deny: ["+old+"]")), reg.Ref("team/app", old)), trust.Denied, trust.ReasonListed, "denies this very digest")
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, "mode: warn\ndeny: ["+old+"]")), reg.Ref("team/app", old)), trust.Denied, trust.ReasonListed, "denies this very digest")

	// A fresh timestamp, which anybody can get, does not make it new.
	w := newKeylessWorld(t)
	v := w.try(t, w.policyText(anyStacks, "max_age: 1h"), "restamped", func(d string) []byte {
		cert := w.sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github, NotBefore: time.Now().Add(-90 * time.Minute)})
		return w.sigstore.Sign(cert, trusttest.Statement(d, signType, map[string]any{})).Bundle()
	})
	if v.Class != trust.Denied {
		t.Errorf("%s/%s, want denied", v.Class, v.Reason)
	}
	legacy := reg.Image("team/app", "", "no time")
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, legacy)
	reg.Legacy("team/app", legacy, ".sig", us.signPayload(t, payload))
	wantAllowed(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", legacy)))
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, "max_age: 90d")), reg.Ref("team/app", legacy)), trust.Denied, trust.ReasonNoTime, "does not say when it was made")
}

func TestAttack21ForgedMarkOfVerification(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	_, config, layer := trusttest.ImageManifest("marked")
	reg.Blob("team/app", config)
	reg.Blob("team/app", layer)
	d := reg.Manifest("team/app", "", trusttest.OCIManifest, trusttest.JSON(map[string]any{
		"schemaVersion": 2, "mediaType": trusttest.OCIManifest,
		"config": trusttest.Descriptor(trusttest.OCIConfig, config), "layers": []any{trusttest.Descriptor(trusttest.OCILayer, layer)},
		"annotations": map[string]string{"dev.bailey.verified": "true", "kyverno.io/verify-images": `{"x":"pass"}`},
	}))
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d)), trust.Denied, trust.ReasonUnsigned, "nobody signed")
}

// Attacks 22 to 24 are known from Kubernetes. On one host they come down to
// this: there is one decision, whatever the image is called, and no word about
// it but the policy file's.
func TestAttack22EveryNameIsTheSameQuestion(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	d := reg.Image("team/app", "v1", "unsigned")
	v := verifier(t, reg.Policy(us.public))
	for _, name := range []string{reg.Host + "/team/app:v1", reg.Host + "/team/app@" + d, reg.Host + "/team/app:v1@" + d, reg.Host + "/team/app:other@" + d} {
		ref, err := trust.ParseReference(name)
		if err != nil {
			t.Fatal(err)
		}
		wantDenied(t, decide(t, v, ref), trust.Denied, trust.ReasonUnsigned, "nobody signed")
	}
}

func TestAttack23NamesBesideTheRule(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	text := strings.Replace(reg.Policy(us.public), reg.Host+"/**", reg.Host+"/team/*", 1)
	v := verifier(t, text)
	for _, repository := range []string{"team-evil/app", "team/app/deeper", "teams/app", "x/team/app", "team"} {
		d := reg.Image(repository, "", repository)
		reg.Attach(repository, d, us.bundle(t, reg.Host+"/"+repository, d))
		reg.Requests()
		wantDenied(t, decide(t, v, reg.Ref(repository, d)), trust.Denied, trust.ReasonNoPolicy, "no rule of the image policy matches")
		if asked := reg.Requests(); len(asked) > 0 {
			t.Errorf("a registry that no rule names was asked: %v", asked)
		}
	}
	for _, name := range []string{"team/App", "team//app", "../team/app", "team/app:", "team/app@sha256:ABC", reg.Host + "/team/app@sha512:" + strings.Repeat("a", 128)} {
		if r, err := trust.ParseReference(reg.Host + "/" + name); err == nil {
			t.Errorf("ParseReference(%q) = %+v, want a refusal", name, r)
		}
	}
}

func TestAttack24NoExceptionsButThePolicys(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := errors.Join(os.WriteFile(file, []byte(reg.Policy(us.public)), 0o600), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(file); err == nil || !strings.Contains(err.Error(), "everybody on this machine may change") {
		t.Errorf("a policy that everybody may change: %v, want a refusal", err)
	}
}

func TestAttack25AllowedElsewhere(t *testing.T) {
	us, them, reg := newParty(t), newParty(t), trusttest.NewRegistry(t, true)
	text := reg.Policy(us.public) + "  - name: lax\n    match: [nowhere.example.org/x]\n    require: {of: [us]}\n"
	text = strings.Replace(text, "match: ["+reg.Host+"/**]", "match: ["+reg.Host+"/strict/*]", 1)
	text = strings.Replace(text, "nowhere.example.org/x", reg.Host+"/lax/*", 1)
	d := reg.Image("lax/app", "", "app")
	reg.Attach("lax/app", d, us.bundle(t, reg.Host+"/lax/app", d))
	reg.Image("strict/app", "", "app")
	reg.Attach("strict/app", d, them.bundle(t, reg.Host+"/strict/app", d))
	v := verifier(t, text)
	wantAllowed(t, decide(t, v, reg.Ref("lax/app", d)))
	// The same bytes, known and allowed a moment ago, under a stricter name.
	wantDenied(t, decide(t, v, reg.Ref("strict/app", d)), trust.Denied, trust.ReasonUntrusted, "not with the key of us")
}

func TestAttack26And27MalformedIsNo(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	repo := reg.Host + "/team/app"
	for name, payload := range map[string]string{
		"no constraint":  `{}`,
		"null":           `null`,
		"critical null":  `{"critical":null}`,
		"no digest":      `{"critical":{"identity":{"docker-reference":""},"image":{},"type":"cosign container image signature"}}`,
		"another type":   `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"DIGEST"},"type":"atomic container signature"}}`,
		"two documents":  `{"critical":{"identity":{},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"}}{}`,
		"digest as list": `{"critical":{"identity":{},"image":{"docker-manifest-digest":["DIGEST"]},"type":"cosign container image signature"}}`,
		"not JSON":       "\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			d := reg.Image("team/app", "", name)
			reg.Legacy("team/app", d, ".sig", us.signPayload(t, []byte(strings.ReplaceAll(payload, "DIGEST", d))))
			v := decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d))
			if v.Class != trust.Denied || v.Starts() || v.Err() == nil {
				t.Errorf("%s/%s %s, want denied", v.Class, v.Reason, v.Msg)
			}
		})
	}
	for name, bundle := range map[string]string{
		"empty": `{}`, "nulls": `{"mediaType":null,"verificationMaterial":null,"dsseEnvelope":null}`,
		"no signature": `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":""}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[]}}`,
		"empty entry":  `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[{}]},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`,
		"empty cert":   `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`,
	} {
		t.Run("bundle "+name, func(t *testing.T) {
			d := reg.Image("team/app", "", "bundle "+name)
			reg.Attach("team/app", d, []byte(bundle))
			v := decide(t, verifier(t, reg.Policy(us.public)), reg.Ref("team/app", d))
			if v.Class != trust.Denied || v.Starts() {
				t.Errorf("%s/%s %s, want denied", v.Class, v.Reason, v.Msg)
			}
		})
	}
	// A source that breaks is no yes either.
	v := verifier(t, reg.Policy(us.public), func(c *trust.Config) { c.Source = panicking{} })
	wantDenied(t, decide(t, v, trust.Reference{Repository: repo, Digest: trusttest.Digest(nil)}), trust.Denied, trust.ReasonMalformed, "broke its reader")
	if (&trust.Verdict{}).Starts() {
		t.Error("the zero verdict starts")
	}
}

type panicking struct{}

func (panicking) Resolve(context.Context, trust.Reference) (string, error) { panic("evil") }
func (panicking) Collect(context.Context, trust.Reference, trust.Want) (trust.Evidence, error) {
	panic("evil")
}

func TestAttack28RootReplaced(t *testing.T) {
	w := newKeylessWorld(t)
	text := w.policyText(anyStacks)
	wantAllowed(t, w.try(t, text, "before", func(d string) []byte { return w.signed(d).Bundle() }))
	other := trusttest.NewSigstore(t)
	v := w.try(t, text, "foreign", func(d string) []byte {
		cert := other.Issue(trusttest.Identity{URI: workflow, Issuer: github})
		return other.Sign(cert, trusttest.Statement(d, signType, map[string]any{})).Bundle()
	})
	if v.Class != trust.Denied {
		t.Errorf("%s/%s of another instance, want denied", v.Class, v.Reason)
	}
	// Another root is another policy: nothing remembered under the old one counts.
	before := w.parse(t, text)
	if err := os.WriteFile(filepath.Join(w.dir, "root.json"), other.RootJSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	if after := w.parse(t, text); after.Hash == before.Hash {
		t.Error("the policy's hash does not notice another root")
	}
	if newer, old := other.Root(), w.sigstore.Root(); len(old.Lost(newer, time.Now())) == 0 && old.Newest().After(newer.Newest()) {
		t.Error("a replaced root loses nothing")
	}
}

func TestAttack29ExpressionBomb(t *testing.T) {
	us, reg := newParty(t), trusttest.NewRegistry(t, true)
	d := reg.Image("team/app", "", "app")
	reg.Attach("team/app", d, us.bundle(t, reg.Host+"/team/app", d))
	list := make([]int, 2000)
	b, err := sign.Attest(us.key, reg.Host+"/team/app", d, slsaType, map[string]any{"l": list}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	reg.Attach("team/app", d, b)
	bomb := "attestations:\n  - {type: slsa-provenance, condition: 'predicate.l.all(a, predicate.l.all(b, predicate.l.all(c, a + b + c < 10)))'}"
	wantDenied(t, decide(t, verifier(t, reg.Policy(us.public, bomb)), reg.Ref("team/app", d)), trust.Denied, trust.ReasonCondition, "cost")
	for _, text := range []string{"http.get('http://x')", "env('HOME')", "1 + 1", "now", strings.Repeat("(", 5000), "predicate.x.matches('a') &&"} {
		if _, err := policy.ParseCondition(text); err == nil {
			t.Errorf("the condition %.30q was taken", text)
		}
	}
}

func TestAttack30CachePoisoning(t *testing.T) {
	us, them, reg := newParty(t), newParty(t), trusttest.NewRegistry(t, true)
	good := reg.Image("team/app", "", "good")
	evil := reg.Image("team/app", "", "evil")
	reg.Attach("team/app", good, us.bundle(t, reg.Host+"/team/app", good))
	now := parse(t, reg.Policy(us.public))
	store := &tampering{}
	v := verifier(t, reg.Policy(us.public), func(c *trust.Config) {
		c.Policies = func() *policy.Policy { return now }
		c.Store = store
	})
	wantAllowed(t, decide(t, v, reg.Ref("team/app", good)))
	// Another policy is another question, at once and without the registry.
	reg.Fault(func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusTeapot); return true })
	now = parse(t, reg.Policy(them.public))
	wantDenied(t, decide(t, v, reg.Ref("team/app", good)), trust.Denied, trust.ReasonUntrusted, "not with the key of us")
	now = parse(t, reg.Policy(us.public))
	// A store that answers with another image's record, or with other bytes, is
	// not believed.
	store.answer = func(e trust.Evidence) trust.Evidence { e.Digest = evil; return e }
	if got := decide(t, v, reg.Ref("team/app", evil)); got.Starts() {
		t.Errorf("the evidence of another image was taken: %s/%s", got.Class, got.Reason)
	}
	manifest, _, _ := trusttest.ImageManifest("evil")
	store.answer = func(e trust.Evidence) trust.Evidence {
		e.Items = append([]trust.Item{}, e.Items...)
		for i := range e.Items {
			if e.Items[i].Kind == trust.ImageManifest {
				e.Items[i].Data = manifest
			}
		}
		return e
	}
	v.Forget(reg.Host+"/team/app", good)
	wantDenied(t, decide(t, v, reg.Ref("team/app", good)), trust.Denied, trust.ReasonEvidenceTampered, "not what its digest says")
}

// A tampering store remembers one record and changes it on the way out.
type tampering struct {
	ev     *trust.Evidence
	answer func(trust.Evidence) trust.Evidence
}

func (s *tampering) Evidence(context.Context, string, string) (trust.Evidence, error) {
	if s.ev == nil {
		return trust.Evidence{}, trust.ErrNoEvidence
	}
	if s.answer != nil {
		return s.answer(*s.ev), nil
	}
	return *s.ev, nil
}

func (s *tampering) SaveEvidence(_ context.Context, e trust.Evidence) error {
	s.ev = &e
	return nil
}

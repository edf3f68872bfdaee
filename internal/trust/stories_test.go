package trust_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// shelf is a store that outlives a server, as a database does.
type shelf struct {
	mu  sync.Mutex
	all map[string]trust.Evidence
}

func (s *shelf) Evidence(_ context.Context, repository, digest string) (trust.Evidence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.all[repository+digest]; ok {
		return e, nil
	}
	return trust.Evidence{}, trust.ErrNoEvidence
}

func (s *shelf) SaveEvidence(_ context.Context, e trust.Evidence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[e.Repository+e.Digest] = e
	return nil
}

// plug is a source that is there or not, and counts.
type plug struct {
	down  atomic.Bool
	asked atomic.Int32
	ev    map[string]trust.Evidence
	delay time.Duration
}

func (p *plug) Resolve(context.Context, trust.Reference) (string, error) {
	return "", errors.New("not asked here")
}

func (p *plug) Collect(_ context.Context, ref trust.Reference, _ trust.Want) (trust.Evidence, error) {
	p.asked.Add(1)
	time.Sleep(p.delay) // in a bubble
	if p.down.Load() {
		return trust.Evidence{}, &trust.UnavailableError{What: "registry registry.example.org does not answer"}
	}
	return p.ev[ref.Digest], nil
}

const teamApp = "registry.example.org/team/app"

// evidenceOf returns an image and what a party signed about it.
func evidenceOf(t testing.TB, name string, by party) (digest string, ev trust.Evidence) {
	t.Helper()
	manifest, _, _ := trusttest.ImageManifest(name)
	digest = trusttest.Digest(manifest)
	b := by.bundle(t, teamApp, digest)
	return digest, trust.Evidence{Repository: teamApp, Digest: digest, Items: []trust.Item{
		{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: manifest},
		{Kind: trust.SigstoreBundle, Subject: digest, Digest: trusttest.Digest(b), Data: b},
	}}
}

func keyPolicy(public []byte, more string) string {
	return "version: 1\nauthorities:\n  us:\n    key:\n      pem: |\n        " + strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n        ") +
		"\nrules:\n  - name: ours\n    match: [registry.example.org/team/*]\n    require: {of: [us]}\n" + more
}

// TestSevenDaysWithoutARegistry: what was approved starts on every day of an
// outage, a restart in between; what nobody has seen does not.
func TestSevenDaysWithoutARegistry(t *testing.T) {
	us := newParty(t)
	synctest.Test(t, func(t *testing.T) {
		known, ev := evidenceOf(t, "known", us)
		stranger, strange := evidenceOf(t, "stranger", us)
		source := &plug{ev: map[string]trust.Evidence{known: ev, stranger: strange}}
		store := &shelf{all: map[string]trust.Evidence{}}
		p := parse(t, keyPolicy(us.public, ""))
		start := func() *trust.Verifier {
			v, err := trust.New(trust.Config{Policies: func() *policy.Policy { return p }, Source: source, Store: store})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		v := start()
		wantAllowed(t, decide(t, v, trust.Reference{Repository: teamApp, Digest: known}))
		source.down.Store(true)
		for day := range 7 {
			if day == 3 {
				v = start()
			}
			time.Sleep(24 * time.Hour)
			wantAllowed(t, decide(t, v, trust.Reference{Repository: teamApp, Digest: known}))
			wantDenied(t, decide(t, v, trust.Reference{Repository: teamApp, Digest: stranger}), trust.Unavailable, trust.ReasonUnavailable, "not the same as unsigned")
		}
		source.down.Store(false)
		time.Sleep(10 * time.Second)
		wantAllowed(t, decide(t, v, trust.Reference{Repository: teamApp, Digest: stranger}))
	})
}

// TestApprovedBeforeTheOutage: a rule may take an approval for evidence, for
// so long, of this digest, and never for one that nobody has approved.
func TestApprovedBeforeTheOutage(t *testing.T) {
	us := newParty(t)
	digest, _ := evidenceOf(t, "app", us)
	source := &plug{}
	source.down.Store(true)
	v := func(more string) *trust.Verifier {
		return verifier(t, keyPolicy(us.public, more), func(c *trust.Config) { c.Source = source })
	}
	ask := func(more string, approved time.Time) trust.Verdict {
		t.Helper()
		got, err := v(more).Decide(t.Context(), trust.Request{Image: trust.Reference{Repository: teamApp, Digest: digest}, Approved: approved})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	lenient := "    when_unavailable: approved\n    approved_max_age: 30d\n"
	day := 24 * time.Hour
	if got := ask(lenient, time.Now().Add(-10*day)); got.Class != trust.Allowed || got.Reason != trust.ReasonApproved {
		t.Errorf("%s/%s, want allowed/approved_before", got.Class, got.Reason)
	}
	for name, got := range map[string]trust.Verdict{
		"never approved": ask(lenient, time.Time{}), "too long ago": ask(lenient, time.Now().Add(-31*day)),
		"in the future": ask(lenient, time.Now().Add(day)), "rule denies": ask("", time.Now().Add(-day)),
	} {
		if got.Class != trust.Unavailable || got.Starts() {
			t.Errorf("%s: %s/%s, want unavailable", name, got.Class, got.Reason)
		}
	}
}

// TestStaleEvidence: a rule that wants fresh evidence says "stale", not
// "unsigned", when it cannot have it.
func TestStaleEvidence(t *testing.T) {
	us := newParty(t)
	synctest.Test(t, func(t *testing.T) {
		digest, ev := evidenceOf(t, "app", us)
		source := &plug{ev: map[string]trust.Evidence{digest: ev}}
		v := verifier(t, keyPolicy(us.public, "    max_evidence_age: 2d\n"), func(c *trust.Config) { c.Source = source })
		ref := trust.Reference{Repository: teamApp, Digest: digest}
		wantAllowed(t, decide(t, v, ref))
		source.down.Store(true)
		time.Sleep(47 * time.Hour)
		wantAllowed(t, decide(t, v, ref))
		time.Sleep(2 * time.Hour)
		wantDenied(t, decide(t, v, ref), trust.Stale, trust.ReasonStale, "could not be renewed")
		source.down.Store(false)
		time.Sleep(time.Minute)
		wantAllowed(t, decide(t, v, ref))
	})
}

// TestStorm: ten thousand starts of one image at once are one look.
func TestStorm(t *testing.T) {
	us := newParty(t)
	synctest.Test(t, func(t *testing.T) {
		digest, ev := evidenceOf(t, "app", us)
		source := &plug{ev: map[string]trust.Evidence{digest: ev}, delay: 200 * time.Millisecond}
		v := verifier(t, keyPolicy(us.public, ""), func(c *trust.Config) { c.Source = source })
		var allowed atomic.Int32
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				got, err := v.Decide(t.Context(), trust.Request{Image: trust.Reference{Repository: teamApp, Digest: digest}})
				if err == nil && got.Class == trust.Allowed {
					allowed.Add(1)
				}
			})
		}
		wg.Wait()
		if allowed.Load() != 10_000 || source.asked.Load() != 1 {
			t.Errorf("%d allowed by %d looks, want 10000 by one", allowed.Load(), source.asked.Load())
		}
	})
}

// TestOneWhoHangsUpDoesNotSpoilTheLook: the look goes on for the others.
func TestOneWhoHangsUpDoesNotSpoilTheLook(t *testing.T) {
	us := newParty(t)
	synctest.Test(t, func(t *testing.T) {
		digest, ev := evidenceOf(t, "app", us)
		source := &plug{ev: map[string]trust.Evidence{digest: ev}, delay: time.Second}
		v := verifier(t, keyPolicy(us.public, ""), func(c *trust.Config) { c.Source = source })
		req := trust.Request{Image: trust.Reference{Repository: teamApp, Digest: digest}}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(100 * time.Millisecond); cancel() }()
		if got, err := v.Decide(ctx, req); !errors.Is(err, context.Canceled) || got.Starts() {
			t.Errorf("who hung up got %s, %v", got.Class, err)
		}
		wantAllowed(t, decide(t, v, req.Image))
		if n := source.asked.Load(); n != 1 {
			t.Errorf("%d looks, want one", n)
		}
	})
}

// TestKeyTakenBack: a key that leaves the policy, or whose file is deleted,
// counts no more at the next decision after half a second, without network.
func TestKeyTakenBack(t *testing.T) {
	us, them := newParty(t), newParty(t)
	dir := t.TempDir()
	file, keyFile := filepath.Join(dir, "images.yaml"), filepath.Join(dir, "us.pub")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := "version: 1\nauthorities:\n  us: {key: {file: us.pub}}\nrules:\n  - name: ours\n    match: [registry.example.org/team/*]\n    require: {of: [us]}\n"
	digest, ev := evidenceOf(t, "app", us)
	ref := trust.Reference{Repository: teamApp, Digest: digest}
	synctest.Test(t, func(t *testing.T) {
		// A file's time stands still in a bubble of time; its size need not.
		settle := func() { time.Sleep(time.Second) }
		write(file, text)
		write(keyFile, string(us.public))
		live, err := policy.OpenLive(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := trust.New(trust.Config{Policies: live.Current})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Offer(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		wantAllowed(t, decide(t, v, ref))

		write(keyFile, string(them.public)+"\n")
		settle()
		wantDenied(t, decide(t, v, ref), trust.Denied, trust.ReasonUntrusted, "not with the key of us")
		write(keyFile, string(us.public))
		settle()
		wantAllowed(t, decide(t, v, ref))

		if err := os.Remove(keyFile); err != nil {
			t.Fatal(err)
		}
		settle()
		wantDenied(t, decide(t, v, ref), trust.Denied, trust.ReasonNoPolicy, "us.pub is gone")
		write(keyFile, string(us.public))
		settle()
		wantAllowed(t, decide(t, v, ref))

		// A slip of the pen in the policy leaves the last one in force, and is told.
		write(file, text+"  - rubbish\n")
		settle()
		wantAllowed(t, decide(t, v, ref))
		if live.Problem() == nil {
			t.Error("nobody says that the policy has a problem")
		}
		write(file, strings.Replace(text, "registry.example.org/team/*", "registry.example.org/x/*", 1))
		settle()
		wantDenied(t, decide(t, v, ref), trust.Denied, trust.ReasonNoPolicy, "no rule")
		if err := live.Problem(); err != nil {
			t.Errorf("Problem() = %v after it was mended", err)
		}
	})
}

// TestModes: warn and audit start what enforce does not, and say so all the
// same.
func TestModes(t *testing.T) {
	us, them := newParty(t), newParty(t)
	digest, ev := evidenceOf(t, "app", them)
	for mode, starts := range map[string]bool{"enforce": false, "warn": true, "audit": true} {
		v := verifier(t, keyPolicy(us.public, "    mode: "+mode+"\n"), func(c *trust.Config) { c.Source = nil })
		if err := v.Offer(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		got := decide(t, v, trust.Reference{Repository: teamApp, Digest: digest})
		if got.Class != trust.Denied || got.Reason != trust.ReasonUntrusted || got.Starts() != starts || (got.Err() == nil) != starts {
			t.Errorf("%s: %s/%s starts %t, want denied/untrusted_signer starts %t", mode, got.Class, got.Reason, got.Starts(), starts)
		}
	}
}

// TestVerdictIsAFunction: the same evidence, policy and time give the same
// verdict, whatever order the evidence was found in.
func TestVerdictIsAFunction(t *testing.T) {
	us := newParty(t)
	digest, ev := evidenceOf(t, "app", us)
	p := parse(t, keyPolicy(us.public, ""))
	now := time.Now()
	want := fmt.Sprintf("%+v", trust.Judge(ev, p, trust.Reference{Repository: teamApp, Digest: digest}, "linux/amd64", now))
	for range 3 {
		ev.Items[0], ev.Items[1] = ev.Items[1], ev.Items[0]
		if got := fmt.Sprintf("%+v", trust.Judge(ev, p, trust.Reference{Repository: teamApp, Digest: digest}, "linux/amd64", now)); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

// FuzzBundle changes honest bundles, keyed and keyless: whatever comes out is
// refused unless what was signed is untouched, and nothing panics.
func FuzzBundle(f *testing.F) {
	us := newParty(f)
	manifest, _, _ := trusttest.ImageManifest("victim")
	digest := trusttest.Digest(manifest)
	other := trusttest.Digest([]byte("what they signed"))
	signed := us.bundle(f, teamApp, other)
	f.Add(signed, uint16(0), byte(1))
	sigstore := trusttest.NewSigstore(f)
	cert := sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github})
	f.Add(sigstore.Sign(cert, trusttest.Statement(other, signType, map[string]any{})).Bundle(), uint16(100), byte(7))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`), uint16(3), byte(0))
	root := sigstore.Root()
	keyless := &policy.Authority{Name: "stacks", Keyless: &policy.Keyless{Issuer: github, Identity: policy.Prefix("https://github.com/jupyter/docker-stacks/")}, Log: true, SCT: true}
	key, err := policy.ParseKey(us.public)
	if err != nil {
		f.Fatal(err)
	}
	p, err := policy.AdHoc(root, &policy.Authority{Name: "us", Key: key}, keyless)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint16, flip byte) {
		if len(data) > 0 {
			data = append([]byte{}, data...)
			data[int(at)%len(data)] ^= flip
		}
		// Nobody has signed the victim, so no change of anything may allow it.
		ev := trust.Evidence{Repository: teamApp, Digest: digest, Items: []trust.Item{
			{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: manifest},
			{Kind: trust.SigstoreBundle, Subject: digest, Digest: trusttest.Digest(data), Data: data},
			{Kind: trust.LegacySignature, Subject: digest, Digest: trusttest.Digest(data), Data: data, Annotations: map[string]string{"dev.cosignproject.cosign/signature": "AAAA", "dev.sigstore.cosign/bundle": string(data), "dev.sigstore.cosign/certificate": string(data)}},
			{Kind: trust.LegacyAttestation, Subject: digest, Digest: trusttest.Digest(data), Data: data},
		}}
		if v := trust.Judge(ev, p, trust.Reference{Repository: teamApp, Digest: digest}, "linux/amd64", time.Now()); v.Class == trust.Allowed {
			t.Fatalf("allowed by %+v", v.Signers)
		}
		if _, err := trust.VerifyBundle(data, keyless, trust.File{Digest: make([]byte, 32), Algorithm: "sha256"}); err == nil {
			t.Fatal("a bundle verified for a digest that nobody signed")
		}
	})
}

// FuzzMutatedSignature changes one byte of a keyless bundle of the very image:
// if it is still allowed, then by the same statement and signer.
func FuzzMutatedSignature(f *testing.F) {
	sigstore := trusttest.NewSigstore(f)
	manifest, _, _ := trusttest.ImageManifest("app")
	digest := trusttest.Digest(manifest)
	cert := sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github})
	honest := sigstore.Sign(cert, trusttest.Statement(digest, signType, map[string]any{})).Bundle()
	root := sigstore.Root()
	p, err := policy.AdHoc(root, &policy.Authority{Name: "stacks", Log: true, SCT: true, Keyless: &policy.Keyless{Issuer: github, Identity: policy.Exact(workflow)}})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 40 {
		f.Add(uint32(i*len(honest)/40), byte(i+1))
	}
	f.Fuzz(func(t *testing.T, at uint32, flip byte) {
		data := append([]byte{}, honest...)
		data[int(at)%len(data)] ^= flip
		ev := trust.Evidence{Repository: teamApp, Digest: digest, Items: []trust.Item{
			{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: manifest},
			{Kind: trust.SigstoreBundle, Subject: digest, Digest: trusttest.Digest(data), Data: data},
		}}
		v := trust.Judge(ev, p, trust.Reference{Repository: teamApp, Digest: digest}, "linux/amd64", time.Now())
		if v.Class == trust.Allowed && (v.Signers[0].ID != workflow || v.Signers[0].Issuer != github) {
			t.Fatalf("allowed by %+v", v.Signers)
		}
	})
}

// FuzzImageManifest reads anything as the image's own manifest.
func FuzzImageManifest(f *testing.F) {
	us := newParty(f)
	good, _, _ := trusttest.ImageManifest("app")
	f.Add(good)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:x","platform":{}}]}`))
	p := parse(f, keyPolicy(us.public, ""))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		digest := trusttest.Digest(manifest)
		b, err := sign.Bundle(us.key, teamApp, digest, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ev := trust.Evidence{Repository: teamApp, Digest: digest, Items: []trust.Item{
			{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: manifest},
			{Kind: trust.SigstoreBundle, Subject: digest, Digest: trusttest.Digest(b), Data: b},
		}}
		v := trust.Judge(ev, p, trust.Reference{Repository: teamApp, Digest: digest}, "linux/amd64", time.Now())
		if v.Class != trust.Allowed {
			return
		}
		// What is allowed names what will run, in full.
		if _, err := trust.ParseDigest(v.PlatformDigest); err != nil {
			t.Errorf("allowed without a platform's digest: %v", err)
		}
		if _, err := trust.ParseDigest(v.ConfigDigest); err != nil {
			t.Errorf("allowed without a config's digest: %v", err)
		}
	})
}

// FuzzReference: a name that is taken is written back as it was understood.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"debian", "quay.io/jupyter/x:1", "localhost:5000/a@sha256:" + strings.Repeat("a", 64), "[::1]:5000/a", "A/b", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := trust.ParseReference(s)
		if err != nil {
			return
		}
		again, err := trust.ParseReference(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, and that is %+v, %v", s, r, again, err)
		}
	})
}

// TestMutants changes honest evidence in many small ways: bytes of bundles,
// payloads, certificates and log entries. Whatever is allowed afterwards is
// allowed by the same signer, of the same image. BAILEY_TEST_MUTANTS asks for
// more of them.
func TestMutants(t *testing.T) {
	n := 2000
	if s := os.Getenv("BAILEY_TEST_MUTANTS"); s != "" { //nolint:forbidigo // asked for by name
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	us, sigstore := newParty(t), trusttest.NewSigstore(t)
	victim, _ := evidenceOf(t, "victim", us)
	app, keyed := evidenceOf(t, "app", us)
	cert := sigstore.Issue(trusttest.Identity{URI: workflow, Issuer: github})
	honest := map[string][]byte{
		"key":     keyed.Items[1].Data,
		"keyless": sigstore.Sign(cert, trusttest.Statement(app, signType, map[string]any{})).Bundle(),
		"v2":      sigstore.SignV2("dev@example.org", github, trusttest.Statement(app, signType, map[string]any{})).Bundle(),
	}
	layer := us.legacy(t, teamApp, app)
	key, err := policy.ParseKey(us.public)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.AdHoc(sigstore.Root(),
		&policy.Authority{Name: "us", Key: key},
		&policy.Authority{Name: "stacks", Log: true, SCT: true, Keyless: &policy.Keyless{Issuer: github, Identity: policy.Exact(workflow)}},
		&policy.Authority{Name: "dev", Log: true, Keyless: &policy.Keyless{Issuer: github, Identity: policy.Exact("dev@example.org")}})
	if err != nil {
		t.Fatal(err)
	}
	signers := map[string]bool{key.Fingerprint: true, workflow: true, "dev@example.org": true}
	manifest := keyed.Items[0]
	now := time.Now()
	rng := mrand.New(mrand.NewPCG(1, 2)) //nolint:gosec // mutations must come back the same
	mutate := func(data []byte) []byte {
		out := append([]byte{}, data...)
		for range 1 + rng.IntN(3) {
			i := rng.IntN(len(out))
			switch rng.IntN(5) {
			case 0:
				out[i] ^= 1 << rng.IntN(8)
			case 1: // another letter, so that base64 and JSON stay readable
				out[i] = "ABCDEFabcdef0123456789+/="[rng.IntN(25)]
			case 2:
				out = append(out[:i], out[min(len(out), i+1+rng.IntN(8)):]...)
			case 3:
				j := rng.IntN(len(out))
				out[i], out[j] = out[j], out[i]
			case 4:
				out = append(out[:i:i], append([]byte{out[i]}, out[i:]...)...)
			}
			if len(out) == 0 {
				return []byte("{}")
			}
		}
		return out
	}
	allowed := 0
	judge := func(kind trust.ItemKind, data []byte, annotations map[string]string) {
		t.Helper()
		item := trust.Item{Kind: kind, Subject: app, Digest: trusttest.Digest(data), Data: data, Annotations: annotations}
		v := trust.Judge(trust.Evidence{Repository: teamApp, Digest: app, Items: []trust.Item{manifest, item}}, p, trust.Reference{Repository: teamApp, Digest: app}, "linux/amd64", now)
		if v.Class == trust.Allowed {
			allowed++
			if !signers[v.Signers[0].ID] {
				t.Fatalf("allowed by %+v", v.Signers)
			}
		}
		// The same, attached to an image that nobody has signed.
		other, _, _ := trusttest.ImageManifest("victim")
		item.Subject = victim
		v = trust.Judge(trust.Evidence{Repository: teamApp, Digest: victim, Items: []trust.Item{{Kind: trust.ImageManifest, Subject: victim, Digest: victim, Data: other}, item}}, p, trust.Reference{Repository: teamApp, Digest: victim}, "linux/amd64", now)
		if v.Class == trust.Allowed {
			t.Fatalf("the victim is allowed by %+v with %s", v.Signers, data)
		}
	}
	for i := 0; i < n; i += 4 {
		for _, b := range honest {
			judge(trust.SigstoreBundle, mutate(b), nil)
		}
		annotations := maps.Clone(layer.Annotations)
		data := layer.Data
		if i%8 == 0 {
			data = mutate(data)
		} else {
			annotations["dev.cosignproject.cosign/signature"] = string(mutate([]byte(annotations["dev.cosignproject.cosign/signature"])))
		}
		judge(trust.LegacySignature, data, annotations)
	}
	t.Logf("%d mutants, of which %d left what was signed as it was", n, allowed)
}

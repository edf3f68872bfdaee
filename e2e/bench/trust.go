package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/root"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// fixture lets the helpers of the tests work outside of one: what would fail a
// test ends the measurement.
type fixture struct {
	testing.TB
	ctx  context.Context //nolint:containedctx // stands in for the one of a test
	done []func()
}

type fixtureError struct{ error }

func (f *fixture) Helper()                  {}
func (f *fixture) Context() context.Context { return f.ctx }
func (f *fixture) Cleanup(do func())        { f.done = append(f.done, do) }
func (f *fixture) Fatal(args ...any)        { panic(fixtureError{errors.New(fmt.Sprint(args...))}) }
func (f *fixture) Fatalf(s string, a ...any) {
	panic(fixtureError{fmt.Errorf(s, a...)})
}

// cpu returns what this process has used of the processors.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// trustDecisions measures decisions about images: warm, from stored evidence of
// each kind, cold from a registry on loopback in turns with the real cosign, a
// storm, and a flood of junk.
func trustDecisions(ctx context.Context, b *bench) (r result, err error) {
	f := &fixture{ctx: ctx}
	defer func() {
		for _, do := range f.done {
			do()
		}
		if p := recover(); p != nil {
			fe, ok := p.(fixtureError)
			if !ok {
				panic(p)
			}
			err = fe.error
		}
	}()
	w, err := newTrustWorld(f, filepath.Join(b.work, "trust"))
	if err != nil {
		return r, err
	}
	if err := w.stored(b, &r); err != nil {
		return r, err
	}
	if err := w.cold(ctx, b, &r); err != nil {
		return r, err
	}
	if err := w.crowds(ctx, b, &r); err != nil {
		return r, err
	}
	r.Said = append(r.Said, "internal/trust in this process. CPU is getrusage over many repetitions; wall times are of single decisions. Keyless signatures are of a Sigstore in memory (P-256 throughout, certificate and log entry with inclusion proof). cosign is the released command, a process for each verification, offline, with the same key and registry.")
	return r, nil
}

type trustWorld struct {
	dir    string
	reg    *trusttest.Registry
	key    []byte // public
	policy *policy.Policy

	digest string // of the signed image in team/app
	bundle []byte
	legacy trusttest.Layer
	v1, v2 []byte // keyless bundles of the same image
}

const (
	benchIssuer   = "https://token.actions.githubusercontent.com"
	benchIdentity = "https://github.com/team/app/.github/workflows/build.yml@refs/heads/main"
	benchEmail    = "build@example.org"
)

func newTrustWorld(f *fixture, dir string) (*trustWorld, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w := &trustWorld{dir: dir, reg: trusttest.NewRegistry(f, true)}
	private, public, err := sign.GenerateKey()
	if err != nil {
		return nil, err
	}
	key, err := sign.ParseKey(private)
	if err != nil {
		return nil, err
	}
	w.key = public
	repo := w.reg.Host + "/team/app"
	w.digest = w.reg.Image("team/app", "v1", "app")
	if w.bundle, err = sign.Bundle(key, repo, w.digest, time.Now()); err != nil {
		return nil, err
	}
	payload, sig, err := sign.Payload(key, repo, w.digest, time.Now())
	if err != nil {
		return nil, err
	}
	w.legacy = trusttest.Layer{Data: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": sig}}
	w.reg.Attach("team/app", w.digest, w.bundle)
	w.reg.Image("team/legacy", "v1", "app")
	w.reg.Legacy("team/legacy", w.digest, ".sig", w.legacy)
	junk := w.reg.Image("team/junk", "v1", "junk")
	// Junk that looks right: the payload of this image, signed by somebody else.
	private, _, err = sign.GenerateKey()
	if err != nil {
		return nil, err
	}
	stranger, err := sign.ParseKey(private)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	var layers []trusttest.Layer
	for range 999 {
		payload, sig, err := sign.Payload(stranger, w.reg.Host+"/team/junk", junk, at)
		if err != nil {
			return nil, err
		}
		layers = append(layers, trusttest.Layer{Data: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": sig}})
	}
	if payload, sig, err = sign.Payload(key, w.reg.Host+"/team/junk", junk, time.Now()); err != nil {
		return nil, err
	}
	w.reg.Legacy("team/junk", junk, ".sig", append(layers, trusttest.Layer{Data: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": sig}})...)

	s := trusttest.NewSigstore(f)
	statement := trusttest.Statement(w.digest, sign.PredicateType, map[string]any{})
	w.v1 = s.Sign(s.Issue(trusttest.Identity{URI: benchIdentity, Issuer: benchIssuer}), statement).Bundle()
	w.v2 = s.SignV2(benchEmail, benchIssuer, statement).Bundle()
	for name, data := range map[string][]byte{"root.json": s.RootJSON(), "key.pub": public} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	w.policy, err = policy.Parse(filepath.Join(dir, "images.yaml"), []byte(w.reg.Policy(public)), nil)
	return w, err
}

func (w *trustWorld) evidence(kind trust.ItemKind, data []byte, annotations map[string]string) trust.Evidence {
	manifest, _, _ := trusttest.ImageManifest("app")
	return trust.Evidence{Repository: w.reg.Host + "/team/app", Digest: w.digest, Items: []trust.Item{
		{Kind: trust.ImageManifest, Subject: w.digest, Digest: w.digest, Data: manifest},
		{Kind: kind, Subject: w.digest, Digest: trusttest.Digest(data), Data: data, Annotations: annotations},
	}}
}

// stored measures judgements of stored evidence, by kind, and the warm path.
func (w *trustWorld) stored(b *bench, r *result) error {
	rt, err := root.Parse("bench", mustRead(filepath.Join(w.dir, "root.json")), time.Now())
	if err != nil {
		return err
	}
	k, err := policy.ParseKey(w.key)
	if err != nil {
		return err
	}
	keyed, err := policy.AdHoc(rt, &policy.Authority{Name: "key", Key: k})
	if err != nil {
		return err
	}
	v1, err := policy.AdHoc(rt, &policy.Authority{Name: "v1", Log: true, SCT: true, Keyless: &policy.Keyless{Issuer: benchIssuer, Identity: policy.Exact(benchIdentity)}})
	if err != nil {
		return err
	}
	v2, err := policy.AdHoc(rt, &policy.Authority{Name: "v2", Log: true, Keyless: &policy.Keyless{Issuer: benchIssuer, Identity: policy.Exact(benchEmail)}})
	if err != nil {
		return err
	}
	ref := w.reg.Ref("team/app", w.digest)
	for _, k := range []struct {
		id, path string
		ev       trust.Evidence
		p        *policy.Policy
		budget   float64
	}{
		{"trust.judge.legacy", "judge stored evidence: key, .sig payload (CPU)", w.evidence(trust.LegacySignature, w.legacy.Data, w.legacy.Annotations), keyed, 0.25e-3},
		{"trust.judge.bundle", "judge stored evidence: key, bundle v0.3 (CPU)", w.evidence(trust.SigstoreBundle, w.bundle, nil), keyed, 0.4e-3},
		{"trust.judge.keyless", "judge stored evidence: keyless, SCT, Rekor v1, timestamp (CPU)", w.evidence(trust.SigstoreBundle, w.v1, nil), v1, 2.5e-3},
		{"trust.judge.v2", "judge stored evidence: keyless, Rekor v2, timestamp (CPU)", w.evidence(trust.SigstoreBundle, w.v2, nil), v2, 3.6e-3},
	} {
		n := pick(b, 400, 20)
		now := time.Now()
		begin := cpu()
		for range n {
			if v := trust.Judge(k.ev, k.p, ref, "linux/amd64", now); v.Class != trust.Allowed {
				return fmt.Errorf("%s: %s/%s %s", k.id, v.Class, v.Reason, v.Msg)
			}
		}
		r.Rows = append(r.Rows, measure.Row{ID: k.id, Path: k.path, Unit: measure.Seconds, Ours: (cpu() - begin).Seconds() / float64(n), Budget: measure.Budget{Kind: measure.AtMost, Limit: k.budget}})
	}
	v, err := trust.New(trust.Config{Policies: func() *policy.Policy { return w.policy }})
	if err != nil {
		return err
	}
	if err := v.Offer(context.Background(), w.evidence(trust.SigstoreBundle, w.bundle, nil)); err != nil {
		return err
	}
	var warm measure.Samples
	for range pick(b, 20_000, 1000) {
		begin := time.Now()
		got, err := v.Decide(context.Background(), trust.Request{Image: ref})
		if err != nil || got.Class != trust.Allowed {
			return fmt.Errorf("warm: %s %w", got.Msg, err)
		}
		warm = append(warm, time.Since(begin).Seconds())
	}
	r.Rows = append(r.Rows,
		measure.Row{ID: "trust.warm", Path: fmt.Sprintf("image decision, warm, p50 (n = %d)", len(warm)), Unit: measure.Seconds, Ours: warm.Median(), Budget: measure.Budget{Kind: measure.AtMost, Limit: 0.2e-3}},
		measure.Row{ID: "trust.warm.p99", Path: "image decision, warm, p99", Unit: measure.Seconds, Ours: warm.Quantile(0.99), Budget: measure.Budget{Kind: measure.AtMost, Limit: 5e-3}})
	return nil
}

func mustRead(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		panic(fixtureError{err})
	}
	return data
}

func (w *trustWorld) fresh() (*trust.Verifier, error) {
	src, err := registry.New(registry.Config{})
	if err != nil {
		return nil, err
	}
	return trust.New(trust.Config{Policies: func() *policy.Policy { return w.policy }, Source: src})
}

// cold measures first decisions from the registry, in turns with cosign.
func (w *trustWorld) cold(ctx context.Context, b *bench, r *result) error {
	cosign := ""
	if all, _ := filepath.Glob("/var/cache/bailey/tools/cosign-v3.*/cosign"); len(all) > 0 {
		cosign = all[len(all)-1]
	}
	for _, k := range []struct {
		id, path, repo string
		args           []string
	}{
		{"trust.cold.legacy", "image decision, cold, key, .sig", "team/legacy", []string{"--new-bundle-format=false"}},
		{"trust.cold.bundle", "image decision, cold, key, bundle by referrers", "team/app", []string{"--new-bundle-format=true", "--trusted-root", filepath.Join(w.dir, "root.json")}},
	} {
		var ours, theirs, work, theirWork measure.Samples
		requests := 0
		for range pick(b, 15, 2) {
			v, err := w.fresh()
			if err != nil {
				return err
			}
			w.reg.Requests()
			begin, used := time.Now(), cpu()
			got, err := v.Decide(ctx, trust.Request{Image: w.reg.Ref(k.repo, w.digest)})
			ours, work = append(ours, time.Since(begin).Seconds()), append(work, (cpu()-used).Seconds())
			if err != nil || got.Class != trust.Allowed {
				return fmt.Errorf("%s: %s %w", k.id, got.Msg, err)
			}
			requests = len(w.reg.Requests())
			if cosign == "" {
				continue
			}
			begin = time.Now()
			cmd := exec.CommandContext(ctx, cosign, append(append([]string{"verify", "--key", filepath.Join(w.dir, "key.pub"), "--insecure-ignore-tlog", "--allow-insecure-registry"}, k.args...), w.reg.Ref(k.repo, w.digest).String())...) //nolint:gosec // our own arguments
			cmd.Env = []string{"HOME=" + w.dir, "PATH=/usr/bin:/bin"}
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("cosign does not verify what we signed: %w\n%s", err, out)
			}
			theirs = append(theirs, time.Since(begin).Seconds())
			theirWork = append(theirWork, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
		}
		wall := measure.Row{ID: k.id, Path: fmt.Sprintf("%s, p50 (n = %d, %d requests)", k.path, len(ours), requests), Unit: measure.Seconds, Ours: ours.Median(), Budget: measure.Budget{Kind: measure.AtMost, Limit: 250e-3}}
		spent := measure.Row{ID: k.id + ".cpu", Path: k.path + ", CPU with the registry's in the same process", Unit: measure.Seconds, Ours: work.Median()}
		if cosign != "" {
			wall.Peer, spent.Peer = new(theirs.Median()), new(theirWork.Median())
		}
		r.Rows = append(r.Rows, wall, spent)
	}
	if cosign == "" {
		r.Said = append(r.Said, "cosign was not installed (scripts/cosign.sh), so the cold decisions have no peer in this run.")
	}
	return nil
}

// crowds measures ten thousand at once, and a thousand signatures of which one
// is good.
func (w *trustWorld) crowds(ctx context.Context, b *bench, r *result) error {
	v, err := w.fresh()
	if err != nil {
		return err
	}
	w.reg.Requests()
	n := pick(b, 10_000, 200)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range n {
		wg.Go(func() {
			if got, err := v.Decide(ctx, trust.Request{Image: w.reg.Ref("team/app", w.digest)}); err == nil && got.Class == trust.Allowed {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	requests := w.reg.Requests()
	if int(allowed.Load()) != n {
		return fmt.Errorf("storm: %d of %d allowed", allowed.Load(), n)
	}
	looks := 0
	for _, q := range requests {
		if strings.Contains(q, "/referrers/") {
			looks++
		}
	}
	r.Rows = append(r.Rows,
		measure.Row{ID: "trust.storm", Path: fmt.Sprintf("%d creates of one image at once, cold, all decided", n), Unit: measure.Seconds, Ours: took.Seconds()},
		measure.Row{ID: "trust.storm.looks", Path: "looks at the registry for them", Unit: measure.Count, Ours: float64(looks), Budget: measure.Budget{Kind: measure.AtMost, Limit: 1}},
		measure.Row{ID: "trust.storm.requests", Path: "requests for them", Unit: measure.Count, Ours: float64(len(requests))})

	manifest, _, _ := trusttest.ImageManifest("junk")
	if v, err = w.fresh(); err != nil {
		return err
	}
	used := cpu()
	got, err := v.Decide(ctx, trust.Request{Image: w.reg.Ref("team/junk", trusttest.Digest(manifest))})
	spent := cpu() - used
	if err != nil || got.Class != trust.Allowed {
		return fmt.Errorf("junk: %s %w", got.Msg, err)
	}
	r.Rows = append(r.Rows,
		measure.Row{ID: "trust.junk", Path: "999 junk signatures and a good one, decided (CPU, with the registry's)", Unit: measure.Seconds, Ours: spent.Seconds(), Budget: measure.Budget{Kind: measure.AtMost, Limit: 100e-3}},
		measure.Row{ID: "trust.junk.requests", Path: "requests for them", Unit: measure.Count, Ours: float64(len(w.reg.Requests())), Budget: measure.Budget{Kind: measure.AtMost, Limit: 40}})
	return nil
}

package trust

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// bucket is how long a remembered verdict is taken without judging again:
// what depends on the clock (an age, a key's end) may be so late.
const bucket = 30 * time.Second

// A verdictKey is everything a verdict depends on but the time: another
// policy, another digest or other evidence never meets it.
type verdictKey struct {
	repository, digest, policy string
}

type remembered struct {
	verdict   Verdict
	collected time.Time // of the evidence it was judged by
	until     time.Time
}

type imageKey struct{ repository, digest string }

// An attempt is when the source was last asked about an image, and how that
// ended.
type attempt struct {
	at  time.Time
	err error // it could not look
}

// resolve pins a tag. It returns a verdict when it cannot.
func (v *Verifier) resolve(ctx context.Context, req Request, p *policy.Policy) (Reference, *Verdict) {
	verdict := v.begin(req, p)
	if req.Offline || v.cfg.Source == nil {
		verdict.deny("digest", ReasonUnpinned, "name the image by digest, or add it to the catalogue: bailey image add "+req.Image.String(),
			"%s is a tag, which may mean something else tomorrow, and there is no registry to ask today", req.Image)
		return req.Image, &verdict
	}
	digest, err := v.cfg.Source.Resolve(ctx, req.Image)
	if err == nil {
		if _, err = ParseDigest(digest); err == nil {
			req.Image.Digest = digest
			return req.Image, nil
		}
	}
	verdict.unavailable(req.Image.Registry(), err)
	return req.Image, &verdict
}

// begin returns a verdict with what is known before anything is judged.
func (v *Verifier) begin(req Request, p *policy.Policy) Verdict {
	return Verdict{
		Image: req.Image, Name: req.Image.String(), Digest: req.Image.Digest,
		PolicyHash: p.Hash, Decided: v.cfg.Now().UTC(), Mode: policy.Enforce,
	}
}

func (v *Verdict) unavailable(registry string, err error) {
	v.Class, v.Reason = Unavailable, ReasonUnavailable
	v.Msg = fmt.Sprintf("its signatures could not be looked for (%v); this is not the same as unsigned", err)
	v.Hint = "try again when " + registry + " answers; an image that was verified before starts without it"
	v.check("evidence", false, ReasonUnavailable, "%v", err)
}

func (v *Verifier) decide(ctx context.Context, req Request, p *policy.Policy) (Verdict, error) {
	if _, err := ParseDigest(req.Image.Digest); err != nil {
		return Verdict{}, fmt.Errorf("decide on image %s: %w", req.Image, err)
	}
	key := verdictKey{req.Image.Repository, req.Image.Digest, p.Hash + p.Broken}
	now := v.cfg.Now()
	if !req.Refresh {
		v.mu.Lock()
		r, ok := v.verdicts.get(key)
		v.mu.Unlock()
		if ok && now.Before(r.until) && !now.Before(r.verdict.Decided) {
			out := r.verdict
			out.Image, out.Name = req.Image, req.Image.String()
			return out, nil
		}
	}
	// Those who ask at once about one image share one look. It must not end
	// because the first of them hung up.
	flight := fmt.Sprintf("%s@%s %s %t %t %d", key.repository, key.digest, key.policy, req.Offline, req.Refresh, req.Approved.Unix())
	shared := context.WithoutCancel(ctx)
	ch := v.flight.DoChan(flight, func() (any, error) { return v.look(shared, req, p, key) })
	select {
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("decide on image %s: %w", req.Image, ctx.Err())
	case r := <-ch:
		if r.Err != nil {
			return Verdict{}, r.Err
		}
		out, _ := r.Val.(Verdict)
		out.Image, out.Name = req.Image, req.Image.String()
		return out, nil
	}
}

// look judges what is stored, and if that does not suffice gathers anew and
// judges that.
func (v *Verifier) look(ctx context.Context, req Request, p *policy.Policy, key verdictKey) (verdict Verdict, err error) {
	defer func() {
		// A bundle that makes a parser panic is a refusal, not the end of the
		// server and never an allowance.
		if r := recover(); r != nil {
			verdict = v.begin(req, p)
			verdict.deny("evidence", ReasonMalformed, "look at what is attached to the image; report this", "something attached to the image broke its reader: %v", r)
			err = nil
		}
	}()
	ev, stored := v.stored(ctx, req)
	rule := p.RuleFor(req.Image.Repository)
	if rule == nil || p.Broken != "" {
		return v.remember(key, Judge(ev, p, req.Image, v.cfg.Platform, v.cfg.Now()), ev), nil
	}
	stale := stored && rule.MaxEvidenceAge > 0 && v.cfg.Now().Sub(ev.Collected) > rule.MaxEvidenceAge
	if stored {
		verdict = Judge(ev, p, req.Image, v.cfg.Platform, v.cfg.Now())
		if verdict.Class == Allowed && !stale && !req.Refresh || verdict.Reason == ReasonListed {
			return v.remember(key, verdict, ev), nil
		}
	}
	fresh, why := v.collect(ctx, req, rule)
	if why == nil {
		verdict = Judge(fresh, p, req.Image, v.cfg.Platform, v.cfg.Now())
		return v.remember(key, verdict, fresh), nil
	}
	switch {
	case !stored:
		verdict = v.begin(req, p)
		verdict.Rule, verdict.Mode = rule.Name, rule.Mode
		verdict.unavailable(req.Image.Registry(), why)
	case stale && verdict.Class == Allowed:
		verdict.Class, verdict.Reason = Stale, ReasonStale
		verdict.Msg = fmt.Sprintf("its evidence is from %s, older than rule %s takes, and could not be renewed (%v)", ev.Collected.Format(time.DateOnly), rule.Name, why)
		verdict.Hint = "try again when " + req.Image.Registry() + " answers, or raise max_evidence_age"
		verdict.check("evidence age", false, ReasonStale, "%s", verdict.Msg)
	default:
		// What is stored was enough to judge; that nobody could look for more
		// is said beside it.
		verdict.check("newer evidence", verdict.Class == Allowed, verdict.Reason, "not looked for: %v", why)
		return v.remember(key, verdict, ev), nil
	}
	if rule.Approved > 0 && !req.Approved.IsZero() && !verdict.Decided.Before(req.Approved) && verdict.Decided.Sub(req.Approved) <= rule.Approved {
		verdict.check("approved before", true, "", "this digest was approved on %s, and rule %s takes that while evidence cannot be had", req.Approved.UTC().Format(time.DateOnly), rule.Name)
		verdict.Class, verdict.Reason = Allowed, ReasonApproved
		verdict.Msg = "starts because it was approved before; its signatures could not be looked at now"
	}
	return verdict, nil // not remembered: the next one may have more luck
}

// stored returns what the store holds. A store that fails is as good as an
// empty one: the source is asked.
func (v *Verifier) stored(ctx context.Context, req Request) (Evidence, bool) {
	ev, err := v.cfg.Store.Evidence(ctx, req.Image.Repository, req.Image.Digest)
	if err == nil && ev.Repository == req.Image.Repository && ev.Digest == req.Image.Digest {
		return ev, true
	}
	if err != nil && !errors.Is(err, ErrNoEvidence) {
		v.cfg.Log.WarnContext(ctx, "evidence store does not answer", slog.String("image", req.Image.String()), slog.Any("error", err))
	}
	return Evidence{Repository: req.Image.Repository, Digest: req.Image.Digest}, false
}

var (
	errOffline  = errors.New("offline: only stored evidence is looked at")
	errTooOften = errors.New("asked a moment ago")
)

// collect asks the source, at most as often as the configuration says.
func (v *Verifier) collect(ctx context.Context, req Request, rule *policy.Rule) (Evidence, error) {
	if req.Offline || v.cfg.Source == nil {
		return Evidence{}, errOffline
	}
	key, now := imageKey{req.Image.Repository, req.Image.Digest}, v.cfg.Now()
	v.mu.Lock()
	last, ok := v.asked.get(key)
	v.mu.Unlock()
	if ok && !req.Refresh && !now.Before(last.at) {
		if last.err != nil && now.Sub(last.at) < v.cfg.RetryUnavailable {
			return Evidence{}, last.err
		}
		if last.err == nil && now.Sub(last.at) < v.cfg.RetryDenied {
			return Evidence{}, errTooOften
		}
	}
	ev, err := v.cfg.Source.Collect(ctx, req.Image, Want{Platform: v.cfg.Platform, Platforms: rule.Platforms, Attestations: len(rule.Attestations) > 0})
	v.mu.Lock()
	v.asked.put(key, attempt{at: now, err: err})
	v.mu.Unlock()
	if err != nil {
		return Evidence{}, err //nolint:wrapcheck // it becomes the verdict's words
	}
	ev.Repository, ev.Digest = req.Image.Repository, req.Image.Digest
	if ev.Collected.IsZero() {
		ev.Collected = now.UTC()
	}
	if err := v.cfg.Store.SaveEvidence(ctx, ev); err != nil {
		// Judged it can be all the same; it will be gathered again.
		v.cfg.Log.WarnContext(ctx, "evidence not stored", slog.String("image", req.Image.String()), slog.Any("error", err))
	}
	return ev, nil
}

// Offer takes evidence that came another way than through the source, such as
// with an imported archive, and stores it. It is judged like any other.
func (v *Verifier) Offer(ctx context.Context, ev Evidence) error {
	if _, err := ParseDigest(ev.Digest); err != nil || ev.Repository == "" {
		return fmt.Errorf("take evidence of %s@%s: no image", ev.Repository, ev.Digest)
	}
	if ev.Collected.IsZero() {
		ev.Collected = v.cfg.Now().UTC()
	}
	if err := v.cfg.Store.SaveEvidence(ctx, ev); err != nil {
		return fmt.Errorf("take evidence of %s@%s: %w", ev.Repository, ev.Digest, err)
	}
	v.Forget(ev.Repository, ev.Digest)
	return nil
}

// Forget drops what is remembered (not what is stored) about an image, so that
// the next question is judged anew.
func (v *Verifier) Forget(repository, digest string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked.drop(imageKey{repository, digest})
	v.verdicts.dropIf(func(k verdictKey) bool { return k.repository == repository && k.digest == digest })
}

// remember keeps an allowance for a bucket of time, and a refusal until the
// source may be asked again.
func (v *Verifier) remember(key verdictKey, verdict Verdict, ev Evidence) Verdict {
	keep := bucket
	if verdict.Class != Allowed {
		keep = min(bucket, v.cfg.RetryDenied)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verdicts.put(key, remembered{verdict: verdict, collected: ev.Collected, until: verdict.Decided.Add(keep)})
	return verdict
}

// An lru is a map that forgets what was not used for longest.
type lru[K comparable, V any] struct {
	size  int
	order *list.List // front: used last
	by    map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{size: size, order: list.New(), by: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(k K) (V, bool) {
	e, ok := l.by[k]
	if !ok {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	return e.Value.(lruEntry[K, V]).value, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e, ok := l.by[k]; ok {
		e.Value = lruEntry[K, V]{k, v}
		l.order.MoveToFront(e)
		return
	}
	l.by[k] = l.order.PushFront(lruEntry[K, V]{k, v})
	if l.order.Len() > l.size {
		last := l.order.Back()
		delete(l.by, last.Value.(lruEntry[K, V]).key)
		l.order.Remove(last)
	}
}

func (l *lru[K, V]) drop(k K) { l.dropIf(func(o K) bool { return o == k }) }

func (l *lru[K, V]) dropIf(unwanted func(K) bool) {
	for k, e := range l.by {
		if unwanted(k) {
			delete(l.by, k)
			l.order.Remove(e)
		}
	}
}

// memory is a Store for those who have none.
type memory struct {
	mu  sync.Mutex // guards all
	all *lru[imageKey, Evidence]
}

func newMemory() *memory { return &memory{all: newLRU[imageKey, Evidence](256)} }

func (m *memory) Evidence(_ context.Context, repository, digest string) (Evidence, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.all.get(imageKey{repository, digest}); ok {
		return e, nil
	}
	return Evidence{}, ErrNoEvidence
}

func (m *memory) SaveEvidence(_ context.Context, e Evidence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all.put(imageKey{e.Repository, e.Digest}, e)
	return nil
}

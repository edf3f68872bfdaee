// Package trust decides whether an image may start. It gathers what others
// signed about the image (its evidence), keeps it, and judges it by the
// administrator's policy, a root of trust and the clock. What it keeps is
// evidence, never verdicts, so that an outage changes nothing and a removed
// key counts at once. It names the digest that was judged; pulling, comparing
// and starting exactly that digest is its callers' part.
package trust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// ErrNoEvidence is what a [Store] answers about an image it knows nothing of.
var ErrNoEvidence = errors.New("no evidence is stored")

// A Store keeps evidence between runs of the server. Blobs are addressed by
// the digest of their content; a record lists those of one image in one
// repository. Its methods may be called concurrently.
type Store interface {
	// Evidence returns the record of an image with the data of its items, or
	// an error that is ErrNoEvidence.
	Evidence(ctx context.Context, repository, digest string) (Evidence, error)
	// SaveEvidence replaces the record of an image and adds its blobs.
	SaveEvidence(ctx context.Context, e Evidence) error
}

// A Source gathers evidence: a registry, or files on disk. Its methods may be
// called concurrently. It answers within its own budget and returns an
// [UnavailableError] when it could not look; "nothing is there" is no error.
type Source interface {
	// Resolve returns the digest that a reference stands for now.
	Resolve(ctx context.Context, ref Reference) (digest string, err error)
	// Collect returns what the repository holds about the digest.
	Collect(ctx context.Context, ref Reference, want Want) (Evidence, error)
}

// A Want says how far to look.
type Want struct {
	Platform     string           // "linux/amd64": which manifest of an index will run
	Platforms    policy.Platforms // whose signatures are needed
	Attestations bool             // statements other than signatures are needed too
}

// An UnavailableError says that evidence could not be looked for. It is never
// taken for "there is none".
type UnavailableError struct {
	What string // "registry quay.io answered 429 (too many requests)"
	Err  error  // may be nil
}

// Error returns what happened, and the cause.
func (e *UnavailableError) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Config says where a Verifier looks and by what it judges. Policies is
// required; the rest has defaults.
type Config struct {
	Policies func() *policy.Policy // the policy in force; asked at every decision
	Source   Source                // nil: never look anywhere, judge what the store holds
	Store    Store                 // nil: remember in memory only
	Platform string                // what will run; "" means linux/amd64
	Now      func() time.Time      // nil means time.Now
	Log      *slog.Logger          // nil means silence
	Verdicts int                   // how many verdicts are remembered; 0 means 4,096

	// RetryDenied and RetryUnavailable say how long evidence that did not
	// suffice, or a source that did not answer, is not asked again. 0 means
	// 60 s and 5 s.
	RetryDenied, RetryUnavailable time.Duration
}

// A Verifier decides. It may be used concurrently; simultaneous questions
// about one image are answered by one look.
type Verifier struct {
	cfg    Config
	flight singleflight.Group

	mu       sync.Mutex // guards verdicts and asked
	verdicts *lru[verdictKey, remembered]
	asked    *lru[imageKey, attempt]
}

// New returns a Verifier.
func New(cfg Config) (*Verifier, error) {
	if cfg.Policies == nil {
		return nil, errors.New("trust: no policy")
	}
	if cfg.Verdicts < 0 || cfg.RetryDenied < 0 || cfg.RetryUnavailable < 0 {
		return nil, errors.New("trust: negative limit")
	}
	if cfg.Store == nil {
		cfg.Store = newMemory()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Platform = cmp.Or(cfg.Platform, "linux/amd64")
	cfg.Verdicts = cmp.Or(cfg.Verdicts, 4096)
	cfg.RetryDenied = cmp.Or(cfg.RetryDenied, time.Minute)
	cfg.RetryUnavailable = cmp.Or(cfg.RetryUnavailable, 5*time.Second)
	return &Verifier{
		cfg:      cfg,
		verdicts: newLRU[verdictKey, remembered](cfg.Verdicts),
		asked:    newLRU[imageKey, attempt](cfg.Verdicts),
	}, nil
}

// A Request asks whether one image may start.
type Request struct {
	Image Reference // with a digest; a tag alone is resolved first, by the source

	// Approved is when a person or an earlier decision last approved this very
	// digest; zero means never. A policy may let it start on that alone while
	// evidence cannot be had.
	Approved time.Time

	Offline bool // judge only what is stored
	Refresh bool // look again even if what is stored suffices
}

// Decide judges an image. The error is for questions that cannot be decided
// (an impossible reference, an ended context); everything else, an outage
// included, is a [Verdict], and only its Starts says yes.
func (v *Verifier) Decide(ctx context.Context, req Request) (Verdict, error) {
	if req.Image.Repository == "" {
		return Verdict{}, fmt.Errorf("decide on image: no repository in %q", req.Image)
	}
	p := v.cfg.Policies()
	if p == nil {
		return Verdict{}, fmt.Errorf("decide on image %s: no policy is loaded", req.Image)
	}
	if req.Image.Digest == "" && p.Broken == "" && p.RuleFor(req.Image.Repository) == nil {
		// No registry is asked that no rule names, not even what a tag means.
		return Judge(Evidence{}, p, req.Image, v.cfg.Platform, v.cfg.Now()), nil
	}
	if req.Image.Digest == "" {
		resolved, verdict := v.resolve(ctx, req, p)
		if verdict != nil {
			return *verdict, ctx.Err()
		}
		req.Image = resolved
	}
	return v.decide(ctx, req, p)
}

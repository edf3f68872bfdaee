// Package workspace is the life of workspaces: classes, launch, stop, delete,
// idle rules and the level-triggered reconciler. Every door that wants to
// reach a container comes through here, hence through policy, quota, GPU lease
// and audit; no door sees an engine.
//
// What a person asks for is decided at once and written down: in the store
// what is wanted, in the journal who wanted it. What that means for containers
// is done by keepers, one goroutine for each run that has not ended, which
// [Service.Run] owns. A keeper compares what is wanted with what is there,
// does the next step and looks again, so it makes no difference whether it
// sees a run for the first time, after a kill -9 of the server, or after one
// of the engine.
package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

// Config is what a Service needs. Store, Engine, Verifier, Settings, GPUs,
// Audit are required; the rest has defaults.
type Config struct {
	Store    Store
	Engine   engine.Engine
	Verifier Verifier
	Settings Settings
	GPUs     GPUs
	Audit    audit.Appender
	Log      *slog.Logger // nil means silence

	Secrets       Secrets                                  // what workspaces have in /run/secrets; nil means nothing
	Egress        Egress                                   // what answers workspaces of network mode proxied; nil: none of them can be started
	Env           map[string]string                        // extra environment of every workspace, names by engine.EnvAllowed
	EnvFor        func(bailey.Workspace) map[string]string // more of it, for one workspace; nil means none
	BasePath      func(bailey.Workspace) string            // the path that its Jupyter is served below, with slashes at both ends; nil means "/"
	ReconcileEach time.Duration                            // 0 means 10 s
	Now           func() time.Time                         // nil means time.Now
}

// Secrets gives the registered values that workspaces of a class have as
// files, by name.
type Secrets interface {
	ForClass(ctx context.Context, class string) (map[string]secret.Value, error)
}

// A Service runs workspaces. Its methods may be called concurrently. Every
// method that takes an actor asks policy.Decide first; what an actor may not
// see does not exist for them (NotFound).
type Service struct {
	cfg   Config
	log   *slog.Logger
	epoch time.Time // when this Service was made; durations are measured from it, never by the wall clock

	routes  atomic.Pointer[routes]
	locks   locks    // by workspace id, or volume: held for decisions, never while waiting for an engine to stop something
	news    notifier // by workspace id: a stage or a state is new in the store
	denials denials
	looks   denials // at other people's workspaces

	started atomic.Bool
	over    chan struct{} // closed when Run has returned
	wake    chan struct{} // something waits in fresh
	look    chan struct{} // reconcile now

	mu       sync.Mutex // guards what follows
	draining bool       // Run's ctx has ended: no new keepers
	deciding map[string]bool
	fresh    map[string]handover
	keepers  map[string]*keeper
	deleting map[string]int
	restarts map[string][]time.Duration // by workspace: when runs ended by themselves and were begun again
	orphans  map[string]bool            // containers already reported
}

// A handover is a run that was begun here and has no keeper yet.
type handover struct {
	run     bailey.Run
	stages  []bailey.Stage
	failure *runError // not nil: it must not start
}

// New checks cfg and returns a Service. Nothing runs until [Service.Run].
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Engine == nil || cfg.Verifier == nil || cfg.Settings == nil || cfg.GPUs == nil || cfg.Audit == nil {
		return nil, errors.New("workspace: Config needs Store, Engine, Verifier, Settings, GPUs and Audit")
	}
	if cfg.ReconcileEach < 0 {
		return nil, errors.New("workspace: Config.ReconcileEach is negative")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Env)) {
		if err := engine.CheckEnv(name, cfg.Env[name]); err != nil {
			return nil, fmt.Errorf("workspace: Config.Env: %w", err)
		}
	}
	cfg.Env = maps.Clone(cfg.Env)
	cfg.ReconcileEach = cmp.Or(cfg.ReconcileEach, 10*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{
		cfg: cfg, log: cfg.Log, epoch: time.Now(),
		over: make(chan struct{}), wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		deciding: map[string]bool{}, fresh: map[string]handover{}, keepers: map[string]*keeper{},
		deleting: map[string]int{}, restarts: map[string][]time.Duration{}, orphans: map[string]bool{},
	}
	s.routes.Store(&routes{bySlug: map[string]*live{}, byID: map[string]*live{}})
	return s, nil
}

// elapsed is the time since the Service was made, by the monotonic clock: a
// wall clock that is put right does not change it.
func (s *Service) elapsed() time.Duration { return time.Since(s.epoch) }

// now is the wall clock, for what is written down and shown.
func (s *Service) now() time.Time { return s.cfg.Now() }

// nudge tells a channel of one slot that there is something to look at.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told
	}
}

// keeperOf returns the keeper of a run, or nil.
func (s *Service) keeperOf(runID string) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keepers[runID]
}

// settleTime bounds what has to be finished although the caller has gone away.
const settleTime = 20 * time.Second

// settle returns a context for the second half of a decision whose first half
// is written down: the caller's going away must not leave it in the middle.
func settle(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}

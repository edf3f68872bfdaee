package app

import (
	"context"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/allow"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/workspace"
)

// refreshEach is how often the engine is asked which images it has: building
// one makes its class launchable without a restart.
const refreshEach = 15 * time.Second

// imageLabel marks the images of the catalogue; its value is the name.
const imageLabel = "dev.bailey.image"

// settings is the configuration that is data, with image names resolved to
// digests. It implements workspace.Settings and may be used concurrently.
type settings struct {
	engine engine.Engine
	gpus   workspace.GPUs
	named  func(context.Context) (approved, retired map[string]string, err error) // the catalogue's digest of each name
	demo   bool
	log    *slog.Logger
	live   atomic.Pointer[config.Live]
	places atomic.Pointer[allow.Lists] // from where people may come

	mu                sync.Mutex                    // held while a new Live is made; guards the rest
	file              *config.Config                // the configuration in force
	images            []engine.Image                // what the engine had when it last answered
	inForce           atomic.Pointer[config.Config] // the configuration in force
	approved, retired map[string]string             // what the catalogue said when it last answered
}

func newSettings(e engine.Engine, gpus workspace.GPUs, named func(context.Context) (approved, retired map[string]string, err error), demo bool, log *slog.Logger) *settings {
	s := &settings{engine: e, gpus: gpus, named: named, demo: demo, log: log}
	s.live.Store(config.NewLive(nil))
	return s
}

// set puts a configuration in force.
func (s *settings) set(ctx context.Context, f *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file = f
	s.inForce.Store(f)
	s.places.Store(placesOf(f))
	s.resolve(ctx)
}

// configuration returns the configuration in force.
func (s *settings) configuration() *config.Config { return s.inForce.Load() }

// run asks for images again and again until ctx ends.
func (s *settings) run(ctx context.Context) error {
	tick := time.NewTicker(refreshEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.refresh(ctx)
		}
	}
}

// refresh looks at once: whoever approved an image can launch it then.
func (s *settings) refresh(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil { // else the first set does it
		s.resolve(ctx)
	}
}

// resolve makes a Live from the file and the engine's images. While the engine
// does not answer, the images that it had hold. The caller holds mu.
func (s *settings) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	images, err := s.engine.Images(ctx)
	switch {
	case err == nil:
		s.images = images
	case ctx.Err() == nil:
		s.log.WarnContext(ctx, "images unknown", slog.String("error", err.Error()))
	}
	gpus, err := s.gpus.Inventory(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "gpus unknown", slog.String("error", err.Error()))
	}
	if approved, retired, err := s.named(ctx); err == nil {
		s.approved, s.retired = approved, retired
	} else if ctx.Err() == nil {
		s.log.WarnContext(ctx, "catalogue unknown", slog.String("error", err.Error()))
	}
	// What the engine has under a name that the catalogue does not know is
	// offered too: whoever tries it is told why it may not start.
	found := labelled(s.images)
	maps.Copy(found, s.retired)
	maps.Copy(found, s.approved)
	names := make([]string, 0, len(found))
	for name := range found {
		_, approved := s.approved[name]
		if approved || slices.Contains(config.BuiltImages(), name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	live := config.NewLive(config.DefaultClasses(names, runtime.NumCPU(), memory(), len(gpus), s.demo))
	live.Set(s.file, func(name string) string { return found[name] })
	s.live.Store(live)
}

// labelled returns the digest of each named image that the engine has. Of
// several under one name the newest wins. It is a name and no more: whether the
// image may start is the catalogue's to say.
func labelled(images []engine.Image) map[string]string {
	newest := map[string]engine.Image{}
	for _, img := range images {
		name := img.Labels[imageLabel]
		if bailey.CheckName("image", name) != nil {
			continue
		}
		if have, ok := newest[name]; !ok || newer(img, have) {
			newest[name] = img
		}
	}
	found := map[string]string{}
	for name, img := range newest {
		found[name] = img.ID
	}
	return found
}

// newer orders images under one name: one that still has a tag before one whose
// tag a later build took, then by their creation label. The ID breaks ties, so
// that the choice does not depend on the order in which the engine lists them.
func newer(a, b engine.Image) bool {
	if tagged := len(a.Tags) > 0; tagged != (len(b.Tags) > 0) {
		return tagged
	}
	const created = "org.opencontainers.image.created"
	if c := strings.Compare(a.Labels[created], b.Labels[created]); c != 0 {
		return c > 0
	}
	return a.ID > b.ID
}

// memory returns the machine's memory in bytes.
func memory() int64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 4 << 30
	}
	return int64(i.Totalram) * int64(i.Unit) //nolint:gosec // no machine has 8 EiB
}

// Classes implements workspace.Settings.
func (s *settings) Classes() []bailey.Class { return s.live.Load().Classes() }

// Class implements workspace.Settings.
func (s *settings) Class(name string) (bailey.Class, bool) { return s.live.Load().Class(name) }

// QuotaFor implements workspace.Settings.
func (s *settings) QuotaFor(u bailey.User) bailey.Quota { return s.live.Load().QuotaFor(u) }

// GroupQuotas implements workspace.Settings.
func (s *settings) GroupQuotas(u bailey.User) map[string]bailey.Quota {
	return s.live.Load().GroupQuotas(u)
}

// watchConfig puts a changed file in force while it is valid; an invalid one
// leaves the old in force and says so. Every reload is in the journal first.
func (a *App) watchConfig(ctx context.Context) error {
	results, kick := config.Watch(ctx, a.cfg.Source, a.cfg.File, a.log)
	for {
		select {
		case <-a.cfg.Reload:
			kick()
		case r, ok := <-results:
			if !ok {
				return ctx.Err()
			}
			a.reload(ctx, r)
		}
	}
}

func (a *App) reload(ctx context.Context, r config.Result) {
	e := event(audit.ConfigReload)
	e.Target = audit.Target{Kind: "config"}
	if r.Err != nil {
		e.Outcome, e.Reason = audit.Failure, audit.InvalidConfig
		a.log.ErrorContext(ctx, "configuration not reloaded; the old one stays in force", slog.String("error", r.Err.Error()))
	}
	if err := a.journal.Append(ctx, e); err != nil {
		a.log.ErrorContext(ctx, "configuration not reloaded: the audit journal cannot be written", slog.String("error", err.Error()))
		return
	}
	if r.Err != nil {
		return
	}
	a.settings.set(ctx, r.Config)
	a.filtering.filter.Refresh()
	if err := a.applyEgress(ctx, r.Config); err != nil {
		a.log.ErrorContext(ctx, "configuration reloaded without its egress rules", slog.String("error", err.Error()))
	}
	a.log.InfoContext(ctx, "configuration reloaded", slog.Any("changed", r.Changed))
	if len(r.Restart) > 0 {
		a.log.WarnContext(ctx, "some changes need a restart", slog.Any("fields", r.Restart))
	}
}

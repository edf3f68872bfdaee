package app

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/secret"
)

// filtering is the filter with what it needs: rules, settings, known secrets,
// and those who are told of findings.
type filtering struct {
	a      *App
	filter *filter.Filter
	book   *rulebook.Book
	ledger *filter.Ledger
	meters filterMeters
	known  atomic.Pointer[registered] // as last read
}

// registered are the secrets that administrators registered.
type registered struct {
	values map[string]secret.Value
	modes  map[string]inspect.Mode
}

type filterMeters struct {
	findings *prometheus.CounterVec
	refused  *prometheus.CounterVec
	sampled  prometheus.Counter
}

func newFilterMeters() filterMeters {
	return filterMeters{
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bailey_dlp_findings_total", Help: "What the filter found, by rule, what was done, where and in which direction.",
		}, []string{"rule", "mode", "route", "direction", "trial"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bailey_dlp_refused_total", Help: "Messages that did not pass because they could not be looked at, by route and cause.",
		}, []string{"route", "cause"}),
		sampled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bailey_dlp_sampled_bytes_total", Help: "Bytes of long outputs that the most general rules left out.",
		}),
	}
}

// newFiltering builds the filter.
func (a *App) newFiltering(ctx context.Context, f *config.Config) (*filtering, error) {
	// A filter that did not know what is registered would let it pass: in doubt
	// nothing is served.
	if _, err := a.vault.Values(ctx); err != nil {
		return nil, fmt.Errorf("read the registered secrets: %w", err)
	}
	fl := &filtering{a: a, meters: newFilterMeters()}
	fl.known.Store(&registered{})
	fl.ledger = filter.NewLedger(fl.record)
	sums := secret.New(string(a.st.key("filter sums")))
	dir := a.st.path("rules")
	set, err := rulebook.Load(dir, f.Filter.RuleDirs, sums)
	if err != nil {
		return nil, err
	}
	if fl.filter, err = filter.New(filter.Config{
		Rules: set, Key: secret.New(string(a.st.key("filter placeholders"))), Log: a.log,
		Settings: func(class string) filter.Settings { return filterSettings(a.settings.configuration().FilterFor(class)) },
		Secrets:  func(string) map[string]secret.Value { return fl.secrets(ctx).values },
		// In whichever order the two are asked, both are of now.
		SecretModes: func(string) map[string]inspect.Mode { return fl.secrets(ctx).modes },
		Report:      fl.report,
	}); err != nil {
		return nil, err
	}
	fl.book, err = rulebook.New(rulebook.Config{
		Filter: fl.filter, Dir: dir, Key: sums, Audit: a.journal, Log: a.log,
		Settings: func() ([]string, time.Duration) {
			f := a.settings.configuration().Filter
			return f.RuleDirs, time.Duration(f.RulesReload)
		},
	})
	return fl, err
}

// run keeps rules and known secrets up to date until ctx ends.
func (fl *filtering) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fl.book.Run(ctx) })
	g.Go(func() error {
		for {
			changed := fl.a.vault.Changed()
			fl.filter.Refresh() // what changed while nobody listened
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
	})
	return g.Wait()
}

func (fl *filtering) close() error {
	fl.ledger.Close()
	return nil
}

// secrets returns what administrators registered, for whichever class: what one
// class must not show, another must not either.
func (fl *filtering) secrets(ctx context.Context) *registered {
	list, err := fl.a.vault.Values(context.WithoutCancel(ctx))
	if err != nil {
		fl.a.log.ErrorContext(ctx, "registered secrets unknown to the filter; those known before hold", slog.String("error", err.Error()))
		return fl.known.Load()
	}
	known := &registered{values: make(map[string]secret.Value, len(list)), modes: map[string]inspect.Mode{}}
	for _, s := range list {
		known.values[s.Name] = s.Value
		if s.Mode == "" {
			continue
		}
		var mode inspect.Mode
		if mode.UnmarshalText([]byte(s.Mode)) != nil {
			mode = inspect.Block // in doubt nothing passes; it was checked when it was set
		}
		known.modes[s.Name] = mode
	}
	fl.known.Store(known)
	return known
}

// filterSettings translates the configuration, which is checked.
func filterSettings(f config.Filter) filter.Settings {
	s := filter.Settings{
		TrustInput: !bool(f.ScanInput), AllowPaths: f.AllowPaths, Sources: filter.Sources(f.Sources), Rooms: f.Collaboration == "pass",
		Rules: map[string]inspect.Mode{}, Sampling: inspect.Sampling{Full: int64(f.SampleAfter), Every: 16},
	}
	if f.SampleAfter == 0 {
		s.Sampling = inspect.Sampling{}
	}
	_ = s.Mode.UnmarshalText([]byte(f.Mode))
	for _, m := range f.Modes {
		var mode inspect.Mode
		_ = mode.UnmarshalText([]byte(m.Mode))
		s.Rules[m.Rule] = mode
	}
	for _, a := range f.Allow {
		s.Allow = append(s.Allow, inspect.Allowance{Rule: a.Rule, Path: a.Path, User: a.User, Sum: a.Sum, Until: a.Expiry()})
	}
	return s
}

// report is told of every finding, and does not wait.
func (fl *filtering) report(f filter.Finding) {
	direction := "out"
	if f.Input {
		direction = "in"
	}
	switch {
	case f.Failed != "":
		fl.meters.refused.WithLabelValues(string(f.Route), f.Failed).Inc()
	case f.Sampled > 0:
		fl.meters.sampled.Add(float64(f.Sampled))
	default:
		fl.meters.findings.WithLabelValues(f.Rule, f.Mode.String(), string(f.Route), direction, strconv.FormatBool(f.Shadow)).Inc()
	}
	fl.book.Note(f)
	fl.ledger.Add(f)
}

// record puts an entry into the journal.
func (fl *filtering) record(e filter.Entry) {
	ev := audit.Event{
		Actor:  audit.Actor{ID: e.UserID, Name: e.User},
		Target: audit.Target{Kind: "workspace", ID: e.WorkspaceID, Name: e.Workspace},
		Action: audit.DLPFinding, Outcome: audit.Success,
		Attrs: audit.Attrs{
			Class: e.Class, Run: e.Run, Rule: e.Rule, Route: string(e.Route), Input: e.Input,
			Count: e.Count, Sum: e.Sum, Length: lengthClass(e.Length),
		},
	}
	switch {
	case e.Failed != "":
		ev.Action, ev.Outcome, ev.Reason = audit.DLPRefused, audit.Refused, audit.Malformed
		if e.Failed == "engine" {
			ev.Reason = audit.EngineFailed
		}
		ev.Attrs.Length = ""
	case e.Sampled > 0:
		ev.Action, ev.Attrs.Bytes, ev.Attrs.Length = audit.DLPSampled, e.Sampled, ""
	default:
		ev.Attrs.Mode = e.Mode.String()
		if e.Shadow {
			ev.Action = audit.DLPShadow
		}
		if e.Mode == inspect.Block {
			ev.Outcome = audit.Refused
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace) //nolint:forbidigo // findings outlive what they were found in
	defer cancel()
	if err := fl.a.journal.Append(ctx, ev); err != nil {
		fl.a.log.ErrorContext(ctx, "finding not recorded", slog.String("rule", e.Rule), slog.String("error", err.Error()))
	}
}

// lengthClass says roughly how long something is: exactly would help to guess it.
func lengthClass(n int64) string {
	if n <= 0 {
		return ""
	}
	from := int64(1)
	for from*2 <= n {
		from *= 2
	}
	return fmt.Sprintf("%d-%d", from, from*2-1)
}

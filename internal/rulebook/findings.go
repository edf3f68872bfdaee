package rulebook

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// A Journal records, and answers questions about what was recorded.
type Journal interface {
	audit.Appender
	Search(ctx context.Context, f audit.Filter) ([]audit.Event, error)
}

// A Finding is what one person's workspace showed of one rule in one place:
// never the text.
type Finding struct {
	User, Workspace, Class string
	Rule, Mode, Route      string
	Input                  bool // on its way into the workspace
	Trial                  bool // by rules on trial
	Count                  int64
	Values                 int // different ones, as far as known
	First, Last            time.Time
	Sum                    string // of the last value: what an allowance names
}

// searched is how many of the newest events are looked through.
const searched = 10_000

// Findings adds up what was found since a time, the most recent first. Denied
// for whoever may not read the journal.
func (b *Book) Findings(ctx context.Context, actor bailey.Actor, since time.Time) ([]Finding, error) {
	if !policy.Decide(actor, policy.AuditRead, policy.Thing{}) {
		return nil, &bailey.Error{Kind: bailey.Denied, Msg: "findings are for auditors and administrators", Hint: "ask an administrator for the role auditor"}
	}
	events, err := b.cfg.Audit.Search(ctx, audit.Filter{Action: "dlp.", Since: since, Limit: searched})
	if err != nil {
		return nil, fmt.Errorf("list findings: %w", err)
	}
	type key struct {
		workspace, rule, mode, route string
		input, trial                 bool
	}
	by := map[key]*Finding{}
	sums := map[key]map[string]bool{}
	for _, e := range events {
		if e.Action != audit.DLPFinding && e.Action != audit.DLPShadow {
			continue
		}
		a, trial := e.Attrs, e.Action == audit.DLPShadow
		k := key{e.Target.ID, a.Rule, a.Mode, a.Route, a.Input, trial}
		f := by[k]
		if f == nil {
			f = &Finding{
				User: e.Actor.Name, Workspace: e.Target.Name, Class: a.Class, Rule: a.Rule, Mode: a.Mode, Route: a.Route,
				Input: a.Input, Trial: trial, First: e.TS,
			}
			by[k], sums[k] = f, map[string]bool{}
		}
		f.Count += a.Count
		f.Last, f.Sum = e.TS, a.Sum
		sums[k][a.Sum] = true
	}
	out := make([]Finding, 0, len(by))
	for k, f := range by {
		f.Values = len(sums[k])
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.User+a.Rule+a.Route, b.User+b.Rule+b.Route), cmp.Compare(a.Mode, b.Mode))
	})
	return out, nil
}

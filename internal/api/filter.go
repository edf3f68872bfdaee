package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/rulebook"
)

// shadowPath takes rule files, which are larger than other bodies.
const (
	shadowPath = "/filter/shadow"
	maxRules   = 8 << 20
)

func (a *API) filterRoutes() {
	shadow := op(http.MethodPut, shadowPath, "shadowRules", "Run a changed set of rules on trial beside the one in force", "filter")
	shadow.MaxBodyBytes = maxRules + 1
	register(a, op(http.MethodGet, "/filter", "filterStatus", "Which rules are in force and on trial, and how they differ", "filter"), a.filterStatus)
	register(a, op(http.MethodGet, "/filter/findings", "listFindings", "Who, which rule, where, how often; never the text", "filter"), a.listFindings)
	register(a, shadow, a.shadowRules)
	register(a, withStatus(op(http.MethodDelete, shadowPath, "endShadow", "End the trial without a change", "filter"), http.StatusNoContent), a.endShadow)
	register(a, op(http.MethodPost, "/filter/activate", "activateRules", "Put the rules on trial in force", "filter"), a.activateRules)
	register(a, op(http.MethodPost, "/filter/rollback", "rollbackRules", "Put the rules in force that were before", "filter"), a.rollbackRules)
	register(a, op(http.MethodPost, "/filter/reload", "reloadRules", "Read the rule files now", "filter"), a.reloadRules)
}

// A RuleStatus says which rules are in force.
type RuleStatus struct {
	Hash     string     `json:"hash" doc:"Of the rules in force"`
	Rules    int        `json:"rules" doc:"How many"`
	Previous bool       `json:"previous" doc:"There is a set to go back to"`
	Problem  string     `json:"problem,omitempty" doc:"Why the newest files are not in force"`
	Trial    *RuleTrial `json:"trial,omitempty"`
}

// A RuleTrial is a set of rules on trial.
type RuleTrial struct {
	Hash        string           `json:"hash"`
	Since       time.Time        `json:"since"`
	Differences []RuleDifference `json:"differences" nullable:"false" doc:"Findings since the trial began"`
}

// A RuleDifference compares a rule's findings.
type RuleDifference struct {
	Rule   string `json:"rule"`
	Active int64  `json:"active" doc:"By the rules in force"`
	Trial  int64  `json:"trial" doc:"By the rules on trial"`
}

type ruleStatusOutput struct{ Body RuleStatus }

func ruleStatus(s rulebook.Status, err error) (*ruleStatusOutput, error) {
	if err != nil {
		return nil, err
	}
	out := &ruleStatusOutput{RuleStatus{Hash: s.Hash, Rules: s.Rules, Previous: s.Previous, Problem: s.Problem}}
	if s.Trial != nil {
		out.Body.Trial = &RuleTrial{Hash: s.Trial.Hash, Since: s.Trial.Since, Differences: all(s.Differences, func(d rulebook.Difference) RuleDifference { return RuleDifference(d) })}
	}
	return out, nil
}

func (a *API) filterStatus(_ context.Context, actor bailey.Actor, _ *none) (*ruleStatusOutput, error) {
	return ruleStatus(a.cfg.Rules.Status(actor))
}

// A RuleFile is a file of rules.
type RuleFile struct {
	Name string `json:"name" maxLength:"64" example:"team.toml"`
	Text string `json:"text" maxLength:"4194304" doc:"Rules in gitleaks' TOML format"`
}

type shadowInput struct {
	Body struct {
		Files []RuleFile `json:"files" nullable:"false" minItems:"1" maxItems:"256"`
	}
}

func (a *API) shadowRules(ctx context.Context, actor bailey.Actor, in *shadowInput) (*ruleStatusOutput, error) {
	files := map[string]string{}
	for _, f := range in.Body.Files {
		files[f.Name] = f.Text
	}
	return ruleStatus(a.cfg.Rules.Shadow(ctx, actor, files))
}

func (a *API) endShadow(ctx context.Context, actor bailey.Actor, _ *none) (*none, error) {
	return nil, a.cfg.Rules.Unshadow(ctx, actor)
}

func (a *API) activateRules(ctx context.Context, actor bailey.Actor, _ *none) (*ruleStatusOutput, error) {
	return ruleStatus(a.cfg.Rules.Activate(ctx, actor))
}

func (a *API) rollbackRules(ctx context.Context, actor bailey.Actor, _ *none) (*ruleStatusOutput, error) {
	return ruleStatus(a.cfg.Rules.Rollback(ctx, actor))
}

func (a *API) reloadRules(ctx context.Context, actor bailey.Actor, _ *none) (*ruleStatusOutput, error) {
	if err := a.cfg.Rules.Reload(ctx, actor); err != nil {
		return nil, err
	}
	return ruleStatus(a.cfg.Rules.Status(actor))
}

// A Finding is what one workspace showed of one rule on one route.
type Finding struct {
	User      string    `json:"user"`
	Workspace string    `json:"workspace"`
	Class     string    `json:"class,omitempty"`
	Rule      string    `json:"rule"`
	Mode      string    `json:"mode" doc:"What was done"`
	Route     string    `json:"route"`
	Input     bool      `json:"input" doc:"On its way into the workspace"`
	Trial     bool      `json:"trial" doc:"By rules on trial; nothing was done"`
	Count     int64     `json:"count"`
	Values    int       `json:"values" doc:"Different values"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	Sum       string    `json:"sum" doc:"Keyed sum of the last value, as filter.allow takes it"`
}

type findingsInput struct {
	Since time.Time `query:"since" doc:"RFC 3339"`
}

type findingsOutput struct {
	Body struct {
		Findings []Finding `json:"findings" nullable:"false"`
	}
}

func (a *API) listFindings(ctx context.Context, actor bailey.Actor, in *findingsInput) (*findingsOutput, error) {
	list, err := a.cfg.Rules.Findings(ctx, actor, in.Since)
	if err != nil {
		return nil, err
	}
	out := &findingsOutput{}
	out.Body.Findings = all(list, func(f rulebook.Finding) Finding {
		return Finding{f.User, f.Workspace, f.Class, f.Rule, f.Mode, f.Route, f.Input, f.Trial, f.Count, f.Values, f.First, f.Last, f.Sum}
	})
	return out, nil
}

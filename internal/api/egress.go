package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/policy"
)

func (a *API) egressRoutes() {
	register(a, op(http.MethodGet, "/egress/requests", "listEgressRequests", "What workspaces were refused to reach", "egress"), a.listEgressRequests)
	register(a, op(http.MethodPost, "/egress/requests/{id}/allow", "allowEgressRequest", "Allow what was asked for", "egress"), a.allowEgressRequest)
	register(a, op(http.MethodPost, "/egress/requests/{id}/deny", "denyEgressRequest", "Answer a request with no", "egress"), a.denyEgressRequest)
	register(a, op(http.MethodGet, "/egress/grants", "listEgressGrants", "What is allowed beyond the rules, and until when", "egress"), a.listEgressGrants)
	register(a, withStatus(op(http.MethodPost, "/egress/grants", "grantEgress", "Allow a host without being asked", "egress"), http.StatusCreated), a.grantEgress)
	register(a, withStatus(op(http.MethodDelete, "/egress/grants/{id}", "revokeEgressGrant", "End a grant, and the connections that it alone allowed", "egress"), http.StatusNoContent), a.revokeEgressGrant)
	register(a, op(http.MethodGet, "/egress/rules", "listEgressRules", "What the classes you may use can reach", "egress"), a.listEgressRules)
	register(a, op(http.MethodPost, "/egress/test", "testEgress", "What would be answered, without connecting", "egress"), a.testEgress)
}

// EgressRequest is something that a workspace was refused.
type EgressRequest struct {
	ID        string     `json:"id"`
	User      string     `json:"user"`
	Workspace string     `json:"workspace" doc:"Where it was tried last"`
	Class     string     `json:"class"`
	Host      string     `json:"host"`
	Port      int        `json:"port"`
	Method    string     `json:"method,omitempty" doc:"Of the last plain HTTP request; empty: a tunnel"`
	State     string     `json:"state" enum:"open,allowed,denied"`
	Count     int64      `json:"count" doc:"How often it was tried"`
	FirstAt   time.Time  `json:"first_at"`
	LastAt    time.Time  `json:"last_at"`
	DecidedBy string     `json:"decided_by,omitempty"`
	DecidedAt *time.Time `json:"decided_at,omitempty"`
}

// EgressGrant allows something that no rule does.
type EgressGrant struct {
	ID        string     `json:"id"`
	Scope     string     `json:"scope" enum:"once,day,class"`
	Class     string     `json:"class"`
	User      string     `json:"user,omitempty" doc:"Empty: everybody in the class"`
	Host      string     `json:"host"`
	Port      int        `json:"port"`
	By        string     `json:"by"`
	CreatedAt time.Time  `json:"created_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"`
	ExpiresAt time.Time  `json:"expires_at"`
}

// EgressClass is what a class can reach.
type EgressClass struct {
	Class   string       `json:"class"`
	Network string       `json:"network" enum:"none,proxied,bridge"`
	Policy  string       `json:"policy,omitempty" doc:"With network proxied"`
	Reach   string       `json:"reach" doc:"In words"`
	Rules   []EgressRule `json:"rules" nullable:"false"`
}

// EgressRule allows one host, or the hosts below a domain.
type EgressRule struct {
	ID      string   `json:"id"`
	Host    string   `json:"host"`
	Ports   []int    `json:"ports" nullable:"false"`
	Methods []string `json:"methods,omitempty" nullable:"false" doc:"Of plain HTTP; empty: every one"`
	Users   []string `json:"users,omitempty" nullable:"false" doc:"Empty: everyone"`
	Hours   string   `json:"hours,omitempty" doc:"Empty: always"`
	Bytes   int64    `json:"bytes,omitempty" doc:"One connection may carry so much; 0: no limit"`
	Rate    int64    `json:"rate,omitempty" doc:"Bytes per second of one connection; 0: no limit"`
	Note    string   `json:"note,omitempty"`
}

func egressRequestOf(r bailey.EgressRequest) EgressRequest {
	return EgressRequest{
		ID: r.ID, User: r.User, Workspace: r.Workspace, Class: r.Class, Host: r.Host, Port: r.Port, Method: r.Method,
		State: string(r.State), Count: r.Count, FirstAt: r.FirstAt, LastAt: r.LastAt, DecidedBy: r.DecidedBy, DecidedAt: optional(r.DecidedAt),
	}
}

func egressGrantOf(g bailey.EgressGrant) EgressGrant {
	return EgressGrant{
		ID: g.ID, Scope: string(g.Scope), Class: g.Class, User: g.User, Host: g.Host, Port: g.Port, By: g.By,
		CreatedAt: g.CreatedAt, UsedAt: optional(g.UsedAt), ExpiresAt: rules.GrantEnds(g),
	}
}

func egressRuleOf(r rules.Rule) EgressRule {
	ports := r.Ports
	if len(ports) == 0 {
		ports = []int{80, 443}
	}
	return EgressRule{
		ID: r.ID, Host: r.Host, Ports: ports, Methods: r.Methods, Users: r.Users, Hours: hoursOf(r.Window),
		Bytes: r.Limits.Bytes, Rate: r.Limits.Rate, Note: r.Note,
	}
}

// hoursOf writes a time of day as the configuration does.
func hoursOf(w rules.Window) string {
	if w == (rules.Window{}) {
		return ""
	}
	at := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	return at(w.From) + "-" + at(w.To)
}

type egressListInput struct {
	All   bool   `query:"all" doc:"Everybody's; for administrators and auditors"`
	State string `query:"state" enum:"open,allowed,denied" doc:"Only those in this state"`
}

type egressRequestsOutput struct {
	Body struct {
		Requests []EgressRequest `json:"requests" nullable:"false"`
	}
}

// whose returns the id of the user whose things are asked for; empty:
// everybody's.
func whose(actor bailey.Actor, everybody bool) string {
	if everybody {
		return ""
	}
	return actor.UserID
}

func (a *API) listEgressRequests(ctx context.Context, actor bailey.Actor, in *egressListInput) (*egressRequestsOutput, error) {
	list, err := a.cfg.Egress.Requests(ctx, actor, whose(actor, in.All))
	if err != nil {
		return nil, a.egressRefused(ctx, actor, err)
	}
	if in.State != "" {
		list = slices.DeleteFunc(list, func(r bailey.EgressRequest) bool { return string(r.State) != in.State })
	}
	out := &egressRequestsOutput{}
	out.Body.Requests = all(list, egressRequestOf)
	return out, nil
}

// egressRefused records a refusal by policy, and passes it on.
func (a *API) egressRefused(ctx context.Context, actor bailey.Actor, err error) error {
	if bailey.KindOf(err) == bailey.Denied {
		a.denials.Note(ctx, audit.By(actor), audit.Target{Kind: "server", Name: "egress"}, audit.NotAllowed)
	}
	return err
}

type egressAllowInput struct {
	IDInput
	Body struct {
		Scope string `json:"scope" enum:"once,day,class" doc:"once: this workspace, for ten minutes from the first connection. day: this user, in this class, for 24 hours. class: everybody in the class."`
		Hours int    `json:"hours,omitempty" minimum:"0" maximum:"8784" doc:"How long it holds; 0: a day, for the class 90 days"`
	}
}

type egressGrantOutput struct {
	Body EgressGrant
}

func (a *API) allowEgressRequest(ctx context.Context, actor bailey.Actor, in *egressAllowInput) (*egressGrantOutput, error) {
	g, err := a.cfg.Egress.Allow(ctx, actor, egress.Answer{
		Request: in.ID, Scope: bailey.GrantScope(in.Body.Scope), For: time.Duration(in.Body.Hours) * time.Hour,
	})
	if err != nil {
		return nil, a.egressRefused(ctx, actor, err)
	}
	return &egressGrantOutput{Body: egressGrantOf(g)}, nil
}

type egressRequestOutput struct {
	Body EgressRequest
}

func (a *API) denyEgressRequest(ctx context.Context, actor bailey.Actor, in *IDInput) (*egressRequestOutput, error) {
	r, err := a.cfg.Egress.Deny(ctx, actor, in.ID)
	if err != nil {
		return nil, a.egressRefused(ctx, actor, err)
	}
	return &egressRequestOutput{Body: egressRequestOf(r)}, nil
}

type egressGrantsInput struct {
	All bool `query:"all" doc:"Everybody's; for administrators and auditors"`
}

type egressGrantsOutput struct {
	Body struct {
		Grants []EgressGrant `json:"grants" nullable:"false"`
	}
}

func (a *API) listEgressGrants(ctx context.Context, actor bailey.Actor, in *egressGrantsInput) (*egressGrantsOutput, error) {
	list, err := a.cfg.Egress.Grants(ctx, actor, whose(actor, in.All))
	if err != nil {
		return nil, a.egressRefused(ctx, actor, err)
	}
	out := &egressGrantsOutput{}
	out.Body.Grants = all(list, egressGrantOf)
	return out, nil
}

type egressGrantInput struct {
	Body struct {
		Class string `json:"class" maxLength:"30"`
		Host  string `json:"host" maxLength:"255" doc:"A host name, or *. and a domain"`
		Port  int    `json:"port,omitempty" minimum:"1" maximum:"65535" default:"443"`
		User  string `json:"user,omitempty" maxLength:"30" doc:"For a day, for this user; empty: for everybody in the class"`
		Hours int    `json:"hours,omitempty" minimum:"0" maximum:"8784" doc:"How long it holds; 0: a day, for the class 90 days"`
	}
}

func (a *API) grantEgress(ctx context.Context, actor bailey.Actor, in *egressGrantInput) (*egressGrantOutput, error) {
	answer := egress.Answer{
		Scope: bailey.GrantClass, Class: in.Body.Class, Host: in.Body.Host, Port: in.Body.Port, For: time.Duration(in.Body.Hours) * time.Hour,
	}
	if in.Body.User != "" {
		users, err := a.cfg.Identity.Users(ctx, actor)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(users, func(u bailey.User) bool { return u.Name == in.Body.User })
		if i < 0 {
			return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no user " + in.Body.User, Hint: "bailey admin user ls"}
		}
		answer.Scope, answer.UserID, answer.User = bailey.GrantDay, users[i].ID, users[i].Name
	}
	g, err := a.cfg.Egress.Allow(ctx, actor, answer)
	if err != nil {
		return nil, a.egressRefused(ctx, actor, err)
	}
	return &egressGrantOutput{Body: egressGrantOf(g)}, nil
}

func (a *API) revokeEgressGrant(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.egressRefused(ctx, actor, a.cfg.Egress.Revoke(ctx, actor, in.ID))
}

type egressRulesOutput struct {
	Body struct {
		Classes []EgressClass `json:"classes" nullable:"false"`
	}
}

func (a *API) listEgressRules(ctx context.Context, actor bailey.Actor, _ *none) (*egressRulesOutput, error) {
	classes, err := a.cfg.Workspaces.Classes(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &egressRulesOutput{}
	out.Body.Classes = make([]EgressClass, 0, len(classes))
	for _, c := range classes {
		row := EgressClass{Class: c.Name, Network: networkOf(c), Policy: c.Egress, Reach: c.Reach}
		set, _ := a.cfg.Egress.Rules(c.Name)
		row.Rules = all(set.Rules, egressRuleOf)
		out.Body.Classes = append(out.Body.Classes, row)
	}
	return out, nil
}

func networkOf(c bailey.Class) string {
	if c.Network == "" {
		return "none"
	}
	return c.Network
}

type egressTestInput struct {
	Body struct {
		Class  string `json:"class" maxLength:"30"`
		Host   string `json:"host" maxLength:"255"`
		Port   int    `json:"port,omitempty" minimum:"1" maximum:"65535" default:"443"`
		Method string `json:"method,omitempty" maxLength:"20" doc:"Of a plain HTTP request; empty: a tunnel, which is what https is"`
	}
}

type egressTestOutput struct {
	Body struct {
		Allowed bool   `json:"allowed"`
		Rule    string `json:"rule,omitempty" doc:"What allows it, or almost does"`
		Why     string `json:"why,omitempty" enum:"no_rule,other_user,method,port,hours" doc:"What a refusal lacks"`
	}
}

// testEgress answers for the caller, in a class that they may use: what others
// may reach is theirs to ask.
func (a *API) testEgress(ctx context.Context, actor bailey.Actor, in *egressTestInput) (*egressTestOutput, error) {
	classes, err := a.cfg.Workspaces.Classes(ctx, actor)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(classes, func(c bailey.Class) bool { return c.Name == in.Body.Class }) &&
		!policy.Decide(actor, policy.EgressManage, policy.Thing{}) {
		return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no class " + in.Body.Class + " that you may use", Hint: "bailey class ls"}
	}
	d, err := a.cfg.Egress.Decide(egress.Who{UserID: actor.UserID, User: actor.Name, Class: in.Body.Class}, in.Body.Host, in.Body.Port, in.Body.Method)
	if err != nil {
		return nil, err
	}
	out := &egressTestOutput{}
	out.Body.Allowed, out.Body.Rule, out.Body.Why = d.Allowed, d.Rule, string(d.Why)
	return out, nil
}

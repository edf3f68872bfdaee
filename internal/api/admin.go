package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

func (a *API) adminRoutes() {
	register(a, op(http.MethodGet, "/users", "listUsers", "The accounts", "admin"), a.listUsers)
	register(a, withStatus(op(http.MethodPost, "/users", "createUser", "Make an account", "admin"), http.StatusCreated), a.createUser)
	register(a, op(http.MethodPatch, "/users/{name}", "updateUser", "Change an account", "admin"), a.updateUser)
	register(a, op(http.MethodGet, "/users/{name}/factors", "listUserFactors", "Somebody's second factors", "admin"), a.listUserFactors)
	register(a, withStatus(op(http.MethodDelete, "/users/{name}/factors", "resetFactors", "Remove all second factors of somebody who lost them; ends their sessions and tokens", "admin"), http.StatusNoContent), a.resetFactors)
	register(a, withStatus(op(http.MethodDelete, "/users/{name}", "deleteUser", "Delete an account without workspaces and volumes", "admin"), http.StatusNoContent), a.deleteUser)
	register(a, op(http.MethodGet, "/gpus", "listGPUs", "The cards and who holds them", "admin"), a.listGPUs)
	register(a, op(http.MethodGet, "/orphans", "listOrphans", "Containers of this installation that no run accounts for", "admin"), a.listOrphans)
	register(a, op(http.MethodGet, "/audit", "searchAudit", "Search the audit journal", "admin"), a.searchAudit)
}

type gpusOutput struct {
	Body struct {
		GPUs []GPU `json:"gpus" nullable:"false"`
	}
}

// listGPUs shows everybody which cards are free; whose the others are is shown
// to those who may see the fleet, and to the holder.
func (a *API) listGPUs(ctx context.Context, actor bailey.Actor, _ *none) (*gpusOutput, error) {
	gpus, leases, err := a.cfg.Workspaces.GPUs(ctx, actor)
	if err != nil {
		return nil, err
	}
	known, err := a.cfg.Workspaces.List(ctx, actor, policy.Decide(actor, policy.FleetView, policy.Thing{}))
	if err != nil {
		return nil, err
	}
	byID := map[string]bailey.Workspace{}
	for _, ws := range known {
		byID[ws.ID] = ws
	}
	held := map[string]bailey.Lease{}
	for _, l := range leases {
		held[l.GPU] = l
	}
	out := &gpusOutput{}
	out.Body.GPUs = make([]GPU, 0, len(gpus))
	for _, g := range gpus {
		row := GPU{UUID: g.UUID, Model: g.Model}
		if l, ok := held[g.UUID]; ok {
			row.Held, row.Since = true, optional(l.Since)
			if ws, ok := byID[l.WorkspaceID]; ok {
				row.Owner, row.Workspace = ws.Owner, ws.Owner+"."+ws.Name
			}
		}
		out.Body.GPUs = append(out.Body.GPUs, row)
	}
	return out, nil
}

type orphansOutput struct {
	Body struct {
		Orphans []Orphan `json:"orphans" nullable:"false"`
	}
}

func (a *API) listOrphans(ctx context.Context, actor bailey.Actor, _ *none) (*orphansOutput, error) {
	list, err := a.cfg.Workspaces.Orphans(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &orphansOutput{}
	out.Body.Orphans = all(list, orphanOf)
	return out, nil
}

type auditInput struct {
	Since   time.Time `query:"since" doc:"RFC 3339"`
	Until   time.Time `query:"until" doc:"RFC 3339"`
	Actor   string    `query:"actor" maxLength:"64" doc:"Name or id"`
	Action  string    `query:"action" maxLength:"64" doc:"An action, or a prefix that ends in a dot"`
	Target  string    `query:"target" maxLength:"64" doc:"Name or id"`
	Outcome string    `query:"outcome" enum:"success,failure,refused"`
	IP      string    `query:"ip" maxLength:"64"`
	After   uint64    `query:"after" doc:"Only events with a greater seq"`
	Limit   int       `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"The newest so many"`
}

type auditOutput struct {
	Body struct {
		Events []audit.Event `json:"events" nullable:"false"`
	}
}

func (a *API) searchAudit(ctx context.Context, actor bailey.Actor, in *auditInput) (*auditOutput, error) {
	if !policy.Decide(actor, policy.AuditRead, policy.Thing{}) {
		a.denials.Note(ctx, audit.By(actor), audit.Target{Kind: "server", Name: "audit"}, audit.NotAllowed)
		return nil, &bailey.Error{Kind: bailey.Denied, Msg: "the audit journal is for auditors and administrators", Hint: "ask an administrator for the role auditor"}
	}
	events, err := a.cfg.Audit.Search(ctx, audit.Filter{
		Since: in.Since, Until: in.Until, Actor: in.Actor, Action: in.Action, Target: in.Target,
		Outcome: audit.Outcome(in.Outcome), IP: in.IP, After: in.After, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := &auditOutput{}
	out.Body.Events = notNil(events)
	return out, nil
}

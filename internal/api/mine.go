package api

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

type myEventsInput struct {
	Since time.Time `query:"since" doc:"RFC 3339"`
	After uint64    `query:"after" doc:"Only events with a greater seq"`
	Limit int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The newest so many"`
}

// myEvents shows the journal's events about the actor and their workspaces.
// Where somebody else did something the reader learns who, and not from where
// or by which session.
func (a *API) myEvents(ctx context.Context, actor bailey.Actor, in *myEventsInput) (*auditOutput, error) {
	if !policy.Decide(actor, policy.AccountManage, policy.Thing{OwnerID: actor.UserID}) {
		return nil, &bailey.Error{Kind: bailey.Denied, Msg: "this API token was not made for that", Hint: "make one with the scope account"}
	}
	about := []string{actor.UserID}
	mine, err := a.cfg.Workspaces.List(ctx, actor, false)
	if err != nil {
		return nil, err
	}
	for _, ws := range mine {
		about = append(about, ws.ID)
	}
	events, err := a.cfg.Audit.Search(ctx, audit.Filter{Since: in.Since, After: in.After, Limit: in.Limit, About: about})
	if err != nil {
		return nil, err
	}
	for i := range events {
		events[i] = audit.ForOwner(events[i], actor.UserID)
	}
	out := &auditOutput{}
	out.Body.Events = notNil(events)
	return out, nil
}

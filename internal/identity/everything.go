package identity

import (
	"context"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// EndEverything ends every access of the actor, the one that asks included:
// sessions, tokens, device authorizations that were not fetched, and whatever is
// open over them, pages being sent, WebSockets and SSH. Workspaces go on
// running. It is done before it is recorded, like [Service.EndSession].
func (s *Service) EndEverything(ctx context.Context, actor bailey.Actor) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	return s.endEverything(ctx, actor, bailey.User{ID: userID, Name: actor.Name}, audit.ByUser)
}

// EndEverythingOf is [Service.EndEverything] for somebody else, by an
// administrator. The account stays open: who can sign in may do so again.
func (s *Service) EndEverythingOf(ctx context.Context, actor bailey.Actor, name string) error {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return err
	}
	u, err := s.byName(ctx, name)
	if err != nil {
		return err
	}
	return s.endEverything(ctx, actor, u, audit.ByAdmin)
}

func (s *Service) endEverything(ctx context.Context, actor bailey.Actor, u bailey.User, why audit.Reason) error {
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.AccessEnd, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Success, Reason: why,
	}
	err := s.dropCredentials(context.WithoutCancel(ctx), u.ID)
	if err != nil {
		event.Outcome = audit.Failure
	}
	s.note(ctx, event)
	return err
}
